"""Pays out the day's balances, in production. It has a bug and fails each time: nobody knows `XAU`."""

from __future__ import annotations

from prefect import flow, get_run_logger, task

ACCOUNTS = {"EUR": "DE02", "USD": "US11", "GBP": "GB29"}


@task
def read_balances() -> dict[str, int]:
    """Balances by currency, in cents."""
    return {"EUR": 120_000, "USD": 87_500, "XAU": 31}


@task
def pay_out(balances: dict[str, int]) -> int:
    """How many payments were made."""
    orders = [(ACCOUNTS[currency], amount) for currency, amount in balances.items()]
    return len(orders)


@flow(name="payments")
def payments() -> int:
    """How many payments were made."""
    receipt = pay_out(read_balances())
    get_run_logger().info("%d payments", receipt)
    return receipt


if __name__ == "__main__":
    payments()
