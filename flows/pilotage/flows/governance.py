"""What people may ask of the desk beside voting and stopping: lending, breaking the glass, editing, restoring trust.

Each is policed by Cedar, and each, allowed or refused, is a row.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from pilotage.flows.desk import PEOPLE, PROPOSERS, Operation
from pilotage.flows.desk_client import DeskRefusal
from pilotage.planner.actions import ActionKind, action_from_json
from pilotage.policies.amending import amended
from pilotage.policies.counted import Autonomy
from pilotage.policies.gate import Gate
from pilotage.policies.grants import BrokenGlass, Delegation
from pilotage.policies.ledgers import Ledger
from pilotage.policies.verdicts import FiledProposal, Identity, Mode, Outcome, Verdict


class _GlassIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    minutes: int = Field(ge=1, le=24 * 60)
    reason: str = Field(max_length=500)
    kinds: tuple[ActionKind, ...] = Field(min_length=1)
    targets: tuple[str, ...] = Field(min_length=1, max_length=50)


class Governance:
    """Answers these questions from the ledger and the gate; `judge` is the injector's."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        gate: Gate,
        judge: Callable[[FiledProposal], Awaitable[Verdict]],
        mode: Callable[[], Mode],
        clock: Callable[[], datetime],
        wake: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._gate = gate
        self._judge = judge
        self._mode = mode
        self._clock = clock
        self._wake = wake

    def table(self) -> dict[str, Operation]:
        """Every operation by name; to be laid beside those of `Operations`."""
        return {
            "amend": Operation(run=self.amend, roles=PROPOSERS & PEOPLE),
            "break_glass": Operation(run=self.break_glass, roles=PEOPLE),
            "mend_glass": Operation(run=self.mend_glass, roles=PEOPLE),
            "delegate": Operation(run=self.delegate, roles=PEOPLE),
            "end_delegations": Operation(run=self.end_delegations, roles=PEOPLE),
            "set_autonomy": Operation(run=self.set_autonomy, roles=PEOPLE),
        }

    async def amend(self, caller: Identity, proposal_id: str, action: dict[str, Any]) -> dict[str, Any]:
        """Files the edited action as the caller's own proposal, judged from nothing."""
        old = await asyncio.to_thread(self._ledger.filed, proposal_id)
        if old is None:
            raise DeskRefusal(
                "unknown-proposal",
                f"Editing {proposal_id}: there is no such proposal. See `pilotage proposals`.",
            )
        new = amended(old, action_from_json(json.dumps(action)), caller, self._clock())
        if await asyncio.to_thread(self._ledger.file, new):
            await self._judge(new)
            self._wake()
        return await asyncio.to_thread(self._ledger.proposal, new.proposal.id) or {}

    async def break_glass(
        self, caller: Identity, minutes: int, reason: str, kinds: Sequence[str], targets: Sequence[str]
    ) -> dict[str, Any]:
        """Lets this very caller go beyond budgets, cooldowns, breakers and freezes for a while."""
        given = _GlassIn.model_validate(
            {"minutes": minutes, "reason": reason, "kinds": tuple(kinds), "targets": tuple(targets)}
        )
        now = self._clock()
        grant = BrokenGlass(
            id=f"g-{secrets.token_hex(6)}",
            holder=caller.name,
            reason=given.reason,
            since=now,
            until=now + timedelta(minutes=given.minutes),
            kinds=given.kinds,
            targets=given.targets,
        )
        verdict = self._gate.judge_command(caller, "break_glass", mode=self._mode(), now=now, grant=grant)
        if not await asyncio.to_thread(self._ledger.break_glass, grant, verdict):
            raise _refusal("break the glass", caller, verdict)
        self._wake()
        return {key: str(value) for key, value in asdict(grant).items()}

    async def mend_glass(self, caller: Identity, grant_id: str) -> dict[str, Any]:
        """Ends a grant before its time; whoever may stop everything may do that."""
        verdict = self._gate.judge_command(caller, "stop", mode=self._mode(), now=self._clock())
        if verdict.outcome is not Outcome.ALLOW:
            raise _refusal("mend the glass", caller, verdict)
        ended = await asyncio.to_thread(self._ledger.mend_glass, grant_id, caller.name, self._clock())
        return {"grant": grant_id, "ended": ended}

    async def delegate(self, caller: Identity, to: str, hours: int, reason: str) -> dict[str, Any]:
        """Lends the caller's right to approve to another person."""
        now = self._clock()
        lent = Delegation(
            giver=caller.name,
            taker=to,
            reason=reason[:500],
            since=now,
            until=now + timedelta(hours=min(max(int(hours), 0), 24 * 365)),
            teams=caller.teams,
        )
        verdict = self._gate.judge_command(caller, "delegate", mode=self._mode(), now=now, grant=lent)
        if not await asyncio.to_thread(self._ledger.delegate, lent, verdict):
            raise _refusal("lend the right to approve", caller, verdict)
        return {"giver": lent.giver, "taker": lent.taker, "until": lent.until.isoformat()}

    async def end_delegations(self, caller: Identity) -> dict[str, Any]:
        """Takes back what the caller lent."""
        ended = await asyncio.to_thread(self._ledger.end_delegations, caller.name, self._clock())
        return {"ended": ended}

    async def set_autonomy(
        self, caller: Identity, kind: str, scope: str, level: str, reason: str = ""
    ) -> dict[str, Any]:
        """Restores or takes away the autonomy of one kind of action on one deployment."""
        now = self._clock()
        if level not in ("standard", "demoted"):
            raise DeskRefusal(
                "bad-request",
                f"Setting autonomy {level!r}: valid are standard and demoted; earned is measured.",
            )
        to = cast("Autonomy", level)
        verdict = self._gate.judge_command(caller, "set_autonomy", mode=self._mode(), now=now, to=to)
        if verdict.outcome is not Outcome.ALLOW:
            raise _refusal("set autonomy", caller, verdict)
        change = await asyncio.to_thread(
            self._ledger.set_autonomy, kind, scope, to, caller.name, reason[:500], now
        )
        return {"kind": kind, "scope": scope, "level": level, "changed": change is not None}


class Housekeeping:
    """Steps of the loop that guardrails time: telling higher up, promoting, reviewing broken glass."""

    def __init__(self, *, ledger: Ledger, gate: Gate, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._gate = gate
        self._clock = clock

    async def keep(self) -> dict[Literal["escalated", "promoted", "reviewed"], int]:
        """How many proposals were told of higher up, kinds promoted, and grants put up for review."""
        numbers, now = self._gate.bundle.guardrails, self._clock()
        escalated = await asyncio.to_thread(self._ledger.escalate, now, numbers.escalate_after)
        promoted = await asyncio.to_thread(self._ledger.promote, numbers.autonomy_rule(), now)
        reviewed = await asyncio.to_thread(self._ledger.glass_reviews, now)
        return {"escalated": len(escalated), "promoted": len(promoted), "reviewed": len(reviewed)}


def _refusal(what: str, caller: Identity, verdict: Verdict) -> DeskRefusal:
    why = "; ".join((*verdict.reasons, *verdict.would_change)) or "no rule allows it"
    return DeskRefusal("denied", f"Asking to {what}: {caller.name} may not ({why}).")
