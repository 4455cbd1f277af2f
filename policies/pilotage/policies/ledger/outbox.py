"""From the outbox to what came of it: claims with leases, deliveries, outcomes, undo.

An entry is claimed by one owner until its lease ends, then anybody may claim it again; delivery is
recognised in Prefect by its mark, so a second one has no second effect. The kill switch is read in the
claiming transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from pilotage.policies.json_values import timestamp
from pilotage.policies.ledger.autonomy import demote_in
from pilotage.policies.ledger.incidents import outcome_in
from pilotage.policies.ledger.plans import plan_of
from pilotage.policies.ledger.protocol import Delivered
from pilotage.policies.ledger.rows import as_text, delivered_from, dicts, entry_from, undo_time
from pilotage.policies.ledger.schema import outbox, outcomes, proposals, receipts
from pilotage.policies.ledger.steps import NO_PROPOSAL, found, note, set_aside_in, set_status, status_in
from pilotage.policies.ledger.switches import stop_in
from pilotage.policies.ledger.transaction import Transactions
from pilotage.policies.refusals import refused
from pilotage.policies.types import FiledProposal, OutboxEntry
from pilotage.telemetry.errors import LedgerError, UnreadableRowError

LONGEST_PAUSE = timedelta(seconds=5)
"""Between two tries of one delivery; the first pause is a second, and each is twice the one before. Short, since
most waits are for a worker to let go of a run, and a try costs Prefect one read."""
OURSELVES = frozenset({"pilotage", "clock"})
"""Who undoes as a matter of course, when a hold runs out; anybody else took back what should not have been done."""


class OutboxRepository:
    """The part of the ledger that moves admitted proposals on."""

    def claim(self: Transactions, owner: str, now: datetime, lease: timedelta) -> OutboxEntry | None:
        """The oldest waiting entry, now this owner's until the lease ends; None while stopped."""
        with self.writing("claiming from the outbox") as connection:
            return _claimed(connection, owner, now, lease, ())

    def claim_of(
        self: Transactions, proposal_id: str, owner: str, now: datetime, lease: timedelta
    ) -> OutboxEntry | None:
        """The same for one proposal: None when it does not wait, is another's, or everything is stopped."""
        with self.writing(f"claiming {proposal_id}") as connection:
            return _claimed(connection, owner, now, lease, (outbox.c.proposal_id == proposal_id,))

    def outbox_row(self: Transactions, proposal_id: str) -> tuple[FiledProposal, OutboxEntry] | None:
        """The proposal and its row of the outbox as they are now; None for one that was never admitted."""
        with self.reading(f"reading the outbox row of {proposal_id}") as connection:
            rows = dicts(connection.execute(sa.select(outbox).where(outbox.c.proposal_id == proposal_id)))
            filed = found(connection, proposal_id)
            return (filed, entry_from(rows[0], filed)) if rows and filed else None

    def renew(self: Transactions, proposal_id: str, owner: str, now: datetime, lease: timedelta) -> bool:
        """Whether the entry is still this owner's; its lease ends so much later then.

        Nothing is written while more than half of it is left.
        """
        with self.reading(f"looking at the lease of {proposal_id}") as connection:
            ends = connection.execute(
                sa.select(outbox.c.free_at).where(
                    outbox.c.proposal_id == proposal_id, outbox.c.owner == owner, outbox.c.state == "claimed"
                )
            ).scalar_one_or_none()
        if ends is None or ends > timestamp(now + lease / 2):
            return ends is not None
        with self.writing(f"renewing the lease of {proposal_id}") as connection:
            renewed = connection.execute(
                outbox.update()
                .where(
                    outbox.c.proposal_id == proposal_id, outbox.c.owner == owner, outbox.c.state == "claimed"
                )
                .values(free_at=timestamp(now + lease))
            )
            return renewed.rowcount == 1

    def record_delivery(
        self: Transactions, proposal_id: str, receipt: Mapping[str, Any], effect: str, at: datetime
    ) -> bool:
        """True when it was recorded now, False when a delivery had been recorded before.

        `effect` is `done` or `already` for a change that stands, `refused` for one not made. A receipt
        with `undo_at` is undone when that time comes.
        """
        with self.writing(f"recording the delivery of {proposal_id}") as connection:
            filed, state = _in_outbox(connection, proposal_id)
            if state in ("delivered", "refused"):
                return False
            ended = "refused" if effect == "refused" else "delivered"
            _move(connection, proposal_id, state=ended, free_at="", last_error="")
            connection.execute(
                receipts.insert().values(
                    proposal_id=proposal_id,
                    effect=effect,
                    receipt=as_text(receipt),
                    delivered_at=timestamp(at),
                    undo_at="" if ended == "refused" else undo_time(receipt),
                    undone_at="",
                    undo="",
                )
            )
            set_status(connection, proposal_id, "refused" if ended == "refused" else "delivered")
            note(connection, filed, "injected", at, "injector", effect=effect, receipt=receipt)
            return True

    def record_failure(
        self: Transactions,
        proposal_id: str,
        why: str,
        transient: bool,
        at: datetime,
        *,
        written: Sequence[str] = (),
    ) -> None:
        """Puts the entry back for a later try when that may help, gives it up when not.

        `written` is what was changed before it broke off.
        """
        with self.writing(f"recording the failure of {proposal_id}") as connection:
            filed, state = _in_outbox(connection, proposal_id)
            if state in ("delivered", "refused"):
                return
            if transient:
                tries = connection.execute(
                    sa.select(outbox.c.attempts).where(outbox.c.proposal_id == proposal_id)
                ).scalar_one()
                pause = min(timedelta(seconds=2 ** min(max(tries - 1, 0), 10)), LONGEST_PAUSE)
                _move(connection, proposal_id, state="pending", free_at=timestamp(at + pause), last_error=why)
            else:
                _move(connection, proposal_id, state="failed", free_at="", last_error=why)
                set_status(connection, proposal_id, "failed")
            before = {"written": list(written)} if written else {}
            note(connection, filed, "failed", at, "injector", why=why, transient=transient, **before)

    def record_outcome(
        self: Transactions, proposal_id: str, judgement: str, detail: str, final_state: str, at: datetime
    ) -> bool:
        """True when the final word of verification, `verified` or `failed`, was recorded now."""
        if judgement not in ("verified", "failed"):
            return False
        with self.writing(f"recording the outcome of {proposal_id}") as connection:
            filed, _ = _in_outbox(connection, proposal_id)
            if status_in(connection, proposal_id) not in ("delivered", "undone"):
                return False
            before = sa.select(outcomes.c.proposal_id).where(outcomes.c.proposal_id == proposal_id)
            if connection.execute(before).first() is not None:
                return False
            connection.execute(
                outcomes.insert().values(
                    proposal_id=proposal_id,
                    judgement=judgement,
                    detail=detail,
                    final_state=final_state,
                    at=timestamp(at),
                )
            )
            # that an outage outlasted a wait is no harm: a plan of retries is judged by what it does, not by the weather
            if judgement == "failed" and not plan_of(filed):
                demote_in(connection, proposal_id, f"a bad outcome: {detail[:200]}", at)
            if status_in(connection, proposal_id) == "delivered":
                set_status(connection, proposal_id, "verified" if judgement == "verified" else "failed")
            outcome_in(connection, filed, judgement, detail, at)
            note(
                connection,
                filed,
                "verified",
                at,
                "verifier",
                judgement=judgement,
                text=detail,
                final_state=final_state,
            )
            return True

    def record_undo(
        self: Transactions, proposal_id: str, by: str, effect: str, detail: Mapping[str, Any], at: datetime
    ) -> bool:
        """True when it was recorded now; `refused` leaves the status as it was and is not tried again."""
        with self.writing(f"recording the undo of {proposal_id}") as connection:
            filed, _ = _in_outbox(connection, proposal_id)
            result = connection.execute(
                receipts.update()
                .where(receipts.c.proposal_id == proposal_id, receipts.c.undone_at == "")
                .values(undone_at=timestamp(at), undo=as_text({"by": by, "effect": effect, **detail}))
            )
            if result.rowcount != 1:
                return False
            if effect != "refused":
                set_status(connection, proposal_id, "undone")
                if by not in OURSELVES:
                    demote_in(connection, proposal_id, f"{by} took it back", at)
            note(connection, filed, "undone", at, by, effect=effect, undo=detail)
            return True

    def set_aside_unreadable(self: Transactions, at: datetime) -> list[str]:
        """The ids of changes that were listed and could not be read, ended now: each is told of once."""
        found_now = dict(self.unreadable)
        self.unreadable.clear()
        if found_now:
            with self.writing("setting aside what cannot be read") as connection:
                for proposal_id, why in found_now.items():
                    set_aside_in(connection, proposal_id, why, at)
                    connection.execute(
                        receipts.update()
                        .where(receipts.c.proposal_id == proposal_id, receipts.c.undone_at == "")
                        .values(undo_at="")
                    )
        return sorted(found_now)

    def set_aside(self: Transactions, proposal_id: str, why: str, at: datetime) -> None:
        """Ends a proposal of which something stored cannot be read."""
        with self.writing(f"setting aside {proposal_id}") as connection:
            set_aside_in(connection, proposal_id, why, at)

    def delivered(self: Transactions, proposal_id: str) -> Delivered | None:
        """The change that it made and that still stands, or None."""
        with self.reading(f"reading the delivery of {proposal_id}") as connection:
            rows = _changes(
                connection, self.unreadable, receipts.c.proposal_id == proposal_id, receipts.c.undone_at == ""
            )
            return rows[0] if rows else None

    def awaiting_verification(self: Transactions) -> list[Delivered]:
        """Changes without a final word, oldest first."""
        with self.reading("listing what awaits verification") as connection:
            return _changes(connection, self.unreadable, proposals.c.status == "delivered")

    def due_undos(self: Transactions, now: datetime) -> list[Delivered]:
        """Changes that were to be held until a time that has come, oldest first."""
        with self.reading("listing what is due to be undone") as connection:
            return _changes(
                connection,
                self.unreadable,
                receipts.c.undo_at != "",
                receipts.c.undo_at <= timestamp(now),
                receipts.c.undone_at == "",
            )


def _claimed(
    connection: sa.Connection, owner: str, now: datetime, lease: timedelta, conditions: tuple[Any, ...]
) -> OutboxEntry | None:
    if stop_in(connection) is not None:
        return None
    # a time further off than any lease or pause was written by a clock that has been set back since
    beyond = timestamp(now + 2 * max(lease, LONGEST_PAUSE))
    held = sa.and_(outbox.c.state == "claimed", outbox.c.free_at > timestamp(now), outbox.c.free_at <= beyond)
    busy = outbox.alias("busy")
    under_way = sa.select(busy.c.target).where(
        busy.c.state == "claimed", busy.c.free_at > timestamp(now), busy.c.free_at <= beyond
    )
    incidents_under_way = (
        sa.select(proposals.c.incident_id).join(outbox, outbox.c.proposal_id == proposals.c.id).where(held)
    )
    waiting = (
        sa.select(outbox)
        .join(proposals, proposals.c.id == outbox.c.proposal_id)
        .where(
            outbox.c.state.in_(("pending", "claimed")),
            sa.or_(outbox.c.free_at <= timestamp(now), outbox.c.free_at > beyond),
            outbox.c.target.not_in(under_way),
            *conditions,
        )
        .order_by(
            proposals.c.incident_id.in_(incidents_under_way), outbox.c.admitted_at, outbox.c.proposal_id
        )
    )
    for row in dicts(connection.execute(waiting)):
        proposal_id = row["proposal_id"]
        try:
            filed, _ = _in_outbox(connection, proposal_id)
        except UnreadableRowError as exc:
            set_aside_in(connection, proposal_id, str(exc), now)
            continue
        if row["attempts"] == 0 and filed.proposal.expires_at <= now:
            # never begun, so nothing of it can have happened; it waited too long, perhaps behind a stop
            _move(connection, proposal_id, state="refused", free_at="", last_error="expired")
            set_status(connection, proposal_id, "expired")
            note(connection, filed, "refused", now, "clock", verdict=refused("!expired"))
            continue
        _move(
            connection,
            proposal_id,
            state="claimed",
            owner=owner,
            free_at=timestamp(now + lease),
            attempts=row["attempts"] + 1,
        )
        note(connection, filed, "claimed", now, owner, attempt=row["attempts"] + 1)
        return entry_from({**row, "state": "claimed", "attempts": row["attempts"] + 1}, filed)
    return None


def _in_outbox(connection: sa.Connection, proposal_id: str) -> tuple[FiledProposal, str]:
    state = connection.execute(
        sa.select(outbox.c.state).where(outbox.c.proposal_id == proposal_id)
    ).scalar_one_or_none()
    filed = found(connection, proposal_id)
    if state is None or filed is None:
        raise LedgerError(f"moving {proposal_id} on: it was never admitted; only `admit` opens the way")
    return filed, str(state)


def _move(connection: sa.Connection, proposal_id: str, **values: object) -> None:
    connection.execute(outbox.update().where(outbox.c.proposal_id == proposal_id).values(**values))


def _changes(connection: sa.Connection, unreadable: dict[str, str], *conditions: Any) -> list[Delivered]:
    """The changes that can be read; why the others cannot is put into `unreadable`."""
    rows = connection.execute(
        sa.select(
            proposals,
            outbox.c.mark,
            receipts.c.effect,
            receipts.c.receipt,
            receipts.c.delivered_at,
            receipts.c.undo_at,
        )
        .join(outbox, outbox.c.proposal_id == proposals.c.id)
        .join(receipts, receipts.c.proposal_id == proposals.c.id)
        .where(receipts.c.effect != "refused", *conditions)
        .order_by(receipts.c.delivered_at, proposals.c.id)
    )
    changes = []
    for row in dicts(rows):
        try:
            changes.append(delivered_from(row))
        except NO_PROPOSAL as exc:
            unreadable[row["id"]] = f"{type(exc).__name__}: {exc}"
    return changes
