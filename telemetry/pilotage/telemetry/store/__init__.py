"""The telemetry store: one DuckDB file, its schema, its socket and its readers."""
