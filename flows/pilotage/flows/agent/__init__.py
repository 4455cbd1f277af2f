"""The agent process, which holds no Prefect credential."""
