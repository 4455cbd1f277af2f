"""Closes the books of the day, in production. With `die_once` its process is killed in the first attempt."""

from __future__ import annotations

import os
import signal

from prefect import flow, get_run_logger, task
from prefect.runtime import flow_run


@task
def freeze_books(day: str) -> str:
    """The day whose books are frozen."""
    return day


@task
def close_books(day: str, die_once: bool) -> str:
    """The day whose books are closed."""
    if die_once and flow_run.run_count == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return day


@flow(name="nightly-close")
def nightly_close(day: str = "today", die_once: bool = False) -> str:
    """The day that was closed."""
    closed = close_books(freeze_books(day), die_once)
    get_run_logger().info("books of %s closed", closed)
    return closed


if __name__ == "__main__":
    nightly_close()
