"""A report that is soon done; it goes to the queue that is served last."""

from __future__ import annotations

import time

from prefect import flow, get_run_logger


@flow(name="quick-report")
def quick_report(seconds: float = 1.0) -> float:
    """How many seconds it took."""
    time.sleep(seconds)
    get_run_logger().info("report written")
    return seconds


if __name__ == "__main__":
    quick_report()
