"""A report that takes its time; it goes to the queue that is served first."""

from __future__ import annotations

import time

from prefect import flow, get_run_logger


@flow(name="long-report")
def long_report(seconds: float = 20.0) -> float:
    """How many seconds it took."""
    started = time.monotonic()
    while (left := seconds - (time.monotonic() - started)) > 0:
        time.sleep(min(1.0, left))
    get_run_logger().info("report written")
    return seconds


if __name__ == "__main__":
    long_report(seconds=1)
