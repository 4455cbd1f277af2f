"""The gate: from facts to a verdict."""
