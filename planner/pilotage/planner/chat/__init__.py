"""The chat agent: its tools, its queries, and what its answers rest on."""
