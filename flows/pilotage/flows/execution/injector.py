"""The only way into Prefect: judge, admit, deliver, verify, undo. Every step is a row before the next begins.

- `judge` looks the facts up now and records the verdict. It has no force.
- `admit` looks them up again, then lets the ledger decide and write the outbox row in one transaction.
- `deliver` takes one outbox row under a lease and hands it to its lever with the row's mark; the lever finds
  its own mark in Prefect when an earlier delivery got through, so a crash anywhere leaves one effect or none.
- `verify` asks whether the promise was kept; `undo` takes it back where there is a way.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

from pilotage.flows.execution.defects import Defects, defect
from pilotage.flows.execution.final_word import final_word, undo_at_of
from pilotage.flows.execution.permits import Step, permit_for
from pilotage.flows.execution.receipts import (
    Delivery,
    Effect,
    Judgement,
    Lever,
    Receipt,
    receipt_as_json,
    receipt_from_json,
)
from pilotage.flows.notify.describe import proposal_for_log
from pilotage.flows.prefect.guard import Permit, permitted
from pilotage.flows.prefect.stopping import StopToken, stoppable
from pilotage.planner.actions.types import Action, ReserveSlot, hold_of, target_of
from pilotage.planner.proposals import Proposal
from pilotage.policies.gate.gate import Gate, LedgerFacts
from pilotage.policies.ledger.protocol import Delivered, Ledger
from pilotage.policies.refusals import refused
from pilotage.policies.types import FiledProposal, Mode, OutboxEntry, TargetFacts, Verdict
from pilotage.telemetry.errors import (
    LedgerError,
    OrchestratorError,
    PilotageError,
    StoppedError,
    UnreadableRowError,
)

log = logging.getLogger("pilotage.injector")

FACTS_TIMEOUT = timedelta(seconds=10)
"""Longest wait for Prefect's facts; a missing fact is a denial."""
VERIFIED_AT_ONCE = 4
"""Looks at deliveries that are made side by side."""


class UnreadableReceiptError(PilotageError):
    """What a delivery left behind is nothing that this version can deal with."""


Drained = Callable[[str, str], Awaitable[bool]]
"""Whether, by what is known now, no due run waits in this pool's queue."""


class TargetReader(Protocol):
    """Looks a target up in Prefect now."""

    async def target(self, action: Action) -> TargetFacts:
        """Fresh facts. Raises OrchestratorError when they cannot be had."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectorLimits:
    """How long and how often."""

    lease: timedelta = timedelta(seconds=60)
    max_attempts: int = 1000


class Injector:
    """Moves proposals through the ledger, and holds the levers."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        gate: Gate,
        facts: TargetReader,
        levers: Mapping[str, Lever],
        mode: Callable[[], Mode],
        stopped: Callable[[], str],
        clock: Callable[[], datetime],
        owner: str,
        drained: Drained,
        limits: InjectorLimits | None = None,
    ) -> None:
        self._ledger = ledger
        self._gate = gate
        self._facts = facts
        self._levers = levers
        self._mode = mode
        self._stopped = stopped
        self._clock = clock
        self._owner = owner
        self._drained = drained
        self._limits = limits or InjectorLimits()
        self.defects = Defects(clock)
        """What cannot be verified or taken back at the moment."""

    async def judge(self, filed: FiledProposal) -> Verdict:
        """The verdict on a filed proposal, recorded. Changes nothing in Prefect."""
        target, silence = await self._look_up(filed.proposal.action)
        return await self._judge(filed, target, silence)

    async def judge_again(self, filed: FiledProposal) -> Verdict | None:
        """The same for one that was held; None, and no further record, while Prefect cannot be asked."""
        target, silence = await self._look_up(filed.proposal.action)
        return None if silence else await self._judge(filed, target, silence)

    async def _judge(
        self, filed: FiledProposal, target: TargetFacts | None, silence: Verdict | None
    ) -> Verdict:
        now = self._clock()

        def decide_and_record() -> Verdict:
            ledger = self._ledger.facts(filed, "judge", self._mode(), now, target)
            verdict = silence or self._gate.judge(filed, target, ledger, now)
            self._ledger.record_verdict(filed.proposal.id, "judge", verdict, target, now, ledger)
            return verdict

        return await asyncio.to_thread(decide_and_record)

    async def consider(self, filed: FiledProposal) -> tuple[Verdict, TargetFacts | None]:
        """The verdict if it were filed now, and the facts it rests on. Nothing is recorded."""
        target, silence = await self._look_up(filed.proposal.action)
        now = self._clock()

        def decide() -> Verdict:
            return silence or self._gate.judge(
                filed, target, self._ledger.facts(filed, "judge", self._mode(), now, target), now
            )

        return await asyncio.to_thread(decide), target

    async def admit(self, proposal_id: str) -> Verdict | None:
        """The verdict of the transaction that may write the outbox row, or None for an unknown proposal."""
        try:
            filed = await asyncio.to_thread(self._ledger.filed, proposal_id)
        except UnreadableRowError as exc:
            await asyncio.to_thread(self._ledger.set_aside, proposal_id, str(exc), self._clock())
            return refused("!tampered", detail=str(exc)[:200])
        if filed is None or self._stopped():
            return None
        target, silence = await self._look_up(filed.proposal.action)
        now = self._clock()

        def decide(stored: FiledProposal, ledger: LedgerFacts) -> Verdict:
            return silence or self._gate.judge(stored, target, ledger, now)

        return await asyncio.to_thread(self._ledger.admit, proposal_id, decide, self._mode(), now, target)

    async def deliver(self) -> bool:
        """Whether there was something to deliver. One outbox entry goes to its lever."""
        entry = await self.claim()
        if entry is None:
            return False
        await self.carry_out(entry)
        return True

    async def claim(self) -> OutboxEntry | None:
        """The next entry to deliver, under a lease; None when there is none, or nothing may be delivered."""
        if self._stopped() or self._mode() in (Mode.OBSERVE, Mode.SHADOW):
            return None
        return await asyncio.to_thread(self._ledger.claim, self._owner, self._clock(), self._limits.lease)

    async def renew(self, proposal_id: str) -> None:
        """Put off the end of the lease of an entry that is being delivered."""
        await asyncio.to_thread(
            self._ledger.renew, proposal_id, self._owner, self._clock(), self._limits.lease
        )

    async def carry_out(self, entry: OutboxEntry) -> None:
        """Hand a claimed entry to its lever, and record what came of it. Raises LedgerError."""
        proposal = Proposal.model_validate_json(json.dumps(entry.payload))
        lever = self._levers.get(proposal.action.kind)
        if lever is None:
            await self._fail(entry, f"there is no lever for {proposal.action.kind}", transient=False)
            return
        token = StopToken(self._stopped)
        try:
            message = await asyncio.to_thread(self._message, proposal)
            permit = await self._permit(proposal.id, "delivering", lever)
            with permitted(permit), stoppable(token):
                delivery = await lever.execute(
                    proposal.action,
                    idempotency_key=entry.idempotency_key,
                    expected_state_id=proposal.expected_state_id,
                    message=message,
                )
        except StoppedError as exc:
            await self._fail(entry, str(exc), transient=True, written=token.written)
            return
        except OrchestratorError as exc:
            await self._fail(entry, str(exc), transient=exc.transient, written=token.written)
            return
        except Exception as exc:
            log.exception("delivering %s", await self._name(proposal.id))
            said, again = defect(exc, entry.last_error)
            await self._fail(entry, said, transient=again, written=token.written)
            return
        now = self._clock()
        receipt = Receipt(
            proposal_id=proposal.id,
            idempotency_key=entry.idempotency_key,
            action=proposal.action,
            effect=delivery.effect,
            before=delivery.before,
            after={**delivery.after, **({"reason": delivery.reason} if delivery.reason else {})},
            delivered_at=now,
            undo_at=undo_at_of(proposal.action, now) if delivery.effect is not Effect.REFUSED else None,
        )
        await asyncio.to_thread(
            self._ledger.record_delivery, proposal.id, receipt_as_json(receipt), delivery.effect.value, now
        )

    async def _permit(self, proposal_id: str, step: Step, lever: Lever) -> Permit:
        return await asyncio.to_thread(permit_for, self._ledger, proposal_id, step, lever.writes)

    async def _name(self, proposal_id: str) -> str:
        """The proposal as a line of the log names it."""
        row = await asyncio.to_thread(self._ledger.proposal, proposal_id)
        return proposal_for_log(row or {"proposal_id": proposal_id})

    async def verify(self) -> int:
        """How many deliveries were judged for good. Looks once at each that is still open, some at a time."""
        turn = asyncio.Semaphore(VERIFIED_AT_ONCE)

        async def looked(change: Delivered) -> int:
            proposal_id = change.filed.proposal.id
            if self.defects.skip(proposal_id):
                return 0
            async with turn:
                try:
                    settled = await self._verify(change)
                except OrchestratorError as exc:
                    log.warning("verifying %s: %s", await self._name(proposal_id), exc)
                    return 0
                except LedgerError:
                    raise
                except Exception as exc:
                    self.defects.failed(
                        proposal_id, "verifying", exc, certain=isinstance(exc, UnreadableReceiptError)
                    )
                    return 0
                self.defects.over(proposal_id)
                return int(settled)

        changes = await asyncio.to_thread(self._ledger.awaiting_verification)
        await asyncio.to_thread(self._ledger.set_aside_unreadable, self._clock())
        return sum(await asyncio.gather(*(looked(change) for change in changes)))

    async def _verify(self, change: Delivered) -> bool:
        """Whether it was judged for good."""
        receipt, lever = self._receipt_and_lever(change)
        with permitted(await self._permit(receipt.proposal_id, "verifying", lever)):
            check = await lever.verify(
                receipt.action, _delivery_of(receipt), idempotency_key=receipt.idempotency_key
            )
        judgement, detail = final_word(check, receipt, lever.window, self._clock())
        if judgement is Judgement.PENDING:
            return False
        await asyncio.to_thread(
            self._ledger.record_outcome,
            receipt.proposal_id,
            judgement.value,
            detail,
            check.final_state,
            self._clock(),
        )
        if judgement is Judgement.FAILED and hold_of(receipt.action):
            await self.undo(receipt.proposal_id, by="pilotage", why="the outcome was bad and undo is safe")
        return True

    def _receipt_and_lever(self, change: Delivered) -> tuple[Receipt, Lever]:
        """The receipt and who can deal with it. Raises UnreadableReceiptError where there is nobody."""
        try:
            receipt = receipt_from_json(change.receipt)
            return receipt, self._levers[receipt.action.kind]
        except (KeyError, ValueError, TypeError, RecursionError) as exc:
            kind = change.filed.proposal.action.kind
            why = (
                f"there is no lever for {kind}" if kind not in self._levers else f"its receipt is none: {exc}"
            )
            raise UnreadableReceiptError(
                f"{why}; install the version or the package that delivered it"
            ) from exc

    async def undo(self, proposal_id: str, *, by: str, why: str) -> Delivery:
        """The delivery of the way back, recorded. REFUSED when there is no receipt or no way."""
        change = await asyncio.to_thread(self._ledger.delivered, proposal_id)
        if change is None:
            return Delivery(effect=Effect.REFUSED, reason=f"{proposal_id} changed nothing that still stands")
        try:
            receipt, lever = self._receipt_and_lever(change)
        except UnreadableReceiptError as exc:
            return Delivery(effect=Effect.REFUSED, reason=str(exc))
        with permitted(await self._permit(proposal_id, "undoing", lever)):
            back = await lever.undo(
                receipt.action, _delivery_of(receipt), idempotency_key=receipt.idempotency_key
            )
        await asyncio.to_thread(
            self._ledger.record_undo,
            proposal_id,
            by,
            back.effect.value,
            {"why": why, "reason": back.reason, "after": dict(back.after)},
            self._clock(),
        )
        return back

    async def undo_due(self) -> int:
        """How many holds ran out, or were not needed any more, and were taken back."""
        done, now = 0, self._clock()
        for change in await asyncio.to_thread(self._ledger.due_undos, datetime.max.replace(tzinfo=UTC)):
            proposal = change.filed.proposal
            if self.defects.skip(f"undo of {proposal.id}"):
                continue
            try:
                self._receipt_and_lever(change)
                if change.undo_at is not None and change.undo_at <= now:
                    await self.undo(proposal.id, by="pilotage", why="its hold ran out")
                elif await self._served_its_purpose(proposal):
                    await self.undo(proposal.id, by="pilotage", why="nothing waits for it any more")
                else:
                    continue
                done += 1
            except OrchestratorError as exc:
                log.warning("undoing %s: %s; trying again", await self._name(proposal.id), exc)
            except LedgerError:
                raise
            except Exception as exc:
                certain = isinstance(exc, UnreadableReceiptError)
                self.defects.failed(f"undo of {proposal.id}", "undoing", exc, certain=certain)
        return done

    async def _served_its_purpose(self, proposal: Proposal) -> bool:
        match proposal.action:
            case ReserveSlot(pool=pool, starved_queue=queue):
                kept = await asyncio.to_thread(self._ledger.status, proposal.id) == "verified"
                return kept and await self._drained(pool, queue)
            case _:
                return False

    async def _look_up(self, action: Action) -> tuple[TargetFacts | None, Verdict | None]:
        """The facts, or None; with the denial that passes where Prefect was silent, and not just without them."""
        try:
            check = await asyncio.wait_for(
                _as_coroutine(self._facts.target(action)), FACTS_TIMEOUT.total_seconds()
            )
        except (OrchestratorError, TimeoutError) as exc:
            log.warning("facts of %s on %s could not be had: %s", action.kind, target_of(action), exc)
            passing = isinstance(exc, TimeoutError) or exc.transient
            return None, refused("!unreachable", detail=str(exc)[:200]) if passing else None
        return check, None

    async def _fail(
        self, entry: OutboxEntry, why: str, *, transient: bool, written: Sequence[str] = ()
    ) -> None:
        retry = transient and entry.attempts < self._limits.max_attempts
        log.log(
            logging.INFO if retry else logging.ERROR,
            "delivering %s: %s",
            await self._name(entry.proposal_id),
            why,
        )
        await asyncio.to_thread(
            partial(self._ledger.record_failure, written=written),
            entry.proposal_id,
            why,
            retry,
            self._clock(),
        )

    def _message(self, proposal: Proposal) -> str:
        voters = self._ledger.approvers(proposal.id)
        by = f"approved by {', '.join(voters)}" if voters else "allowed by policy"
        filed = self._ledger.filed(proposal.id)
        because = f" ({filed.case.failure_class[:40]})" if filed else ""
        return f"pilotage {proposal.id}: {proposal.action.kind}{because}, {by}"


def _delivery_of(receipt: Receipt) -> Delivery:
    return Delivery(effect=receipt.effect, before=receipt.before, after=receipt.after)


async def _as_coroutine(awaitable: Awaitable[TargetFacts]) -> TargetFacts:
    return await awaitable
