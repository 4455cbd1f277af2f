"""Read from Prefect: the HTTP client, its models, and the collector that fills the store."""
