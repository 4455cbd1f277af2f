"""A Prefect server and workers of our own, for the demo and for the tests."""
