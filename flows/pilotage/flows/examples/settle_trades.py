"""Settles the day's trades. With `die_once` its process is killed in the middle of the first attempt."""

from __future__ import annotations

import os
import signal

from prefect import flow, get_run_logger, task
from prefect.runtime import flow_run


@task
def match_trades(trades: int) -> int:
    """How many trades found their counterpart."""
    return trades


@task
def book_trades(matched: int, die_once: bool) -> int:
    """How many trades were booked."""
    if die_once and flow_run.run_count == 1:
        # what an operating system short of memory, or an evicted node, does to a process
        os.kill(os.getpid(), signal.SIGKILL)
    return matched


@flow(name="settle-trades")
def settle_trades(trades: int = 1200, die_once: bool = False) -> int:
    """How many trades were settled."""
    booked = book_trades(match_trades(trades), die_once)
    get_run_logger().info("%d trades settled", booked)
    return booked


if __name__ == "__main__":
    settle_trades()
