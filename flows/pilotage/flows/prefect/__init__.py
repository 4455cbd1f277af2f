"""Prefect's REST API as levers and facts use it."""
