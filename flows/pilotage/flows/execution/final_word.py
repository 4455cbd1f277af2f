"""What verification says in the end, and when a change is taken back by itself. Values in and out."""

from __future__ import annotations

from datetime import datetime, timedelta

from pilotage.flows.execution.receipts import Check, Judgement, Receipt
from pilotage.planner.actions.types import Action, RetryRun, hold_of


def final_word(check: Check, receipt: Receipt, window: timedelta, now: datetime) -> tuple[Judgement, str]:
    """What verification says in the end: a promise that is not kept in time, or while it was held, is broken."""
    if check.judgement is not Judgement.PENDING:
        return check.judgement, check.detail
    if receipt.undo_at is not None and now >= receipt.undo_at:
        return Judgement.FAILED, f"not kept while it was held: {check.detail}"
    if now - receipt.delivered_at > window + _asked_to_wait(receipt.action):
        return (
            Judgement.FAILED,
            f"not verified within {window + _asked_to_wait(receipt.action)}: {check.detail}",
        )
    return Judgement.PENDING, check.detail


def undo_at_of(action: Action, now: datetime) -> datetime | None:
    """Return when the change of an action that holds something ends; None for one that lasts."""
    hold = hold_of(action)
    return now + hold if hold else None


def _asked_to_wait(action: Action) -> timedelta:
    """The part of the verification that is waiting because the action itself says so."""
    match action:
        case RetryRun():
            return action.delay
        case _:
            return timedelta(0)
