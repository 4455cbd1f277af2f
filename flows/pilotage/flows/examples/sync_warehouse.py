"""Copies the day's rows into the warehouse. It fails for as long as the warehouse is down."""

from __future__ import annotations

import httpx
from prefect import flow, get_run_logger, task


class WarehouseUnavailable(Exception):
    """The warehouse does not answer, or answers that it is down."""


@task
def extract_rows(rows: int) -> list[int]:
    """The rows to copy."""
    return list(range(rows))


@task
def load_rows(rows: list[int], source_url: str) -> int:
    """How many rows the warehouse took; without an address they stay where they are."""
    if source_url:
        try:
            httpx.post(source_url, json=rows, timeout=10).raise_for_status()
        except httpx.HTTPError as error:
            raise WarehouseUnavailable(f"warehouse unavailable: {error}") from error
    return len(rows)


@flow(name="sync-warehouse")
def sync_warehouse(source_url: str = "", rows: int = 100) -> int:
    """How many rows were copied."""
    copied = load_rows(extract_rows(rows), source_url)
    get_run_logger().info("%d rows copied", copied)
    return copied


if __name__ == "__main__":
    sync_warehouse()
