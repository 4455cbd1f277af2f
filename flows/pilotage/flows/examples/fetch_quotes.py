"""Fetches the latest quotes. A source that answers 503 for a moment makes it fail; the next try succeeds."""

from __future__ import annotations

import httpx
from prefect import flow, get_run_logger, task

SAMPLE = {"EURUSD": 1.0842, "GBPUSD": 1.2711, "USDJPY": 151.32}


@task
def read_quotes(source_url: str) -> dict[str, float]:
    """Prices by pair, from the source or, without one, a fixed sample."""
    if not source_url:
        return SAMPLE
    answer = httpx.get(source_url, timeout=10)
    answer.raise_for_status()
    quotes: dict[str, float] = answer.json()
    return quotes


@task
def check_quotes(quotes: dict[str, float]) -> int:
    """How many quotes there are; a price that is not positive is refused."""
    for pair, price in quotes.items():
        if price <= 0:
            raise ValueError(f"quote for {pair} is {price}")
    return len(quotes)


@flow(name="fetch-quotes")
def fetch_quotes(source_url: str = "") -> int:
    """How many quotes were fetched."""
    count = check_quotes(read_quotes(source_url))
    get_run_logger().info("%d quotes", count)
    return count


if __name__ == "__main__":
    fetch_quotes()
