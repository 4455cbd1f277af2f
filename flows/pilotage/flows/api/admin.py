"""What people may ask of the API beside voting and stopping: lending, breaking the glass, editing, restoring trust.

Each is policed by Cedar, and each, allowed or refused, is a row.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from pilotage.flows.api.client import ApiRejection
from pilotage.flows.api.errors import refusal
from pilotage.flows.api.resolve import LEAST, Named, Resolver, only
from pilotage.flows.api.server import APPROVERS, PEOPLE, PROPOSERS, READERS, Operation
from pilotage.flows.execution.mode import ModeSwitch
from pilotage.planner.actions.types import KINDS, ActionKind, action_from_json
from pilotage.policies.autonomy import AutonomyChange, AutonomyRule
from pilotage.policies.gate.gate import Gate
from pilotage.policies.grants import BreakGlassGrant, Delegation
from pilotage.policies.ledger.amending import amended
from pilotage.policies.ledger.protocol import Ledger
from pilotage.policies.ledger_facts import Autonomy
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, Verdict


class _BreakGlassIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    minutes: int = Field(ge=1, le=24 * 60)
    reason: str = Field(max_length=500)
    kinds: tuple[ActionKind, ...] = Field(min_length=1)
    targets: tuple[str, ...] = Field(min_length=1, max_length=50)


class AdminEndpoints:
    """Answers these questions from the ledger and the gate; `judge` is the injector's."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        gate: Gate,
        judge: Callable[[FiledProposal], Awaitable[Verdict]],
        mode: ModeSwitch,
        clock: Callable[[], datetime],
        wake: Callable[[], None],
        current_identity: Callable[[str], Identity | None],
    ) -> None:
        self._ledger = ledger
        self._names = Resolver(ledger)
        self._gate = gate
        self._judge = judge
        self._switch = mode
        self._mode = mode.mode
        self._standing = current_identity
        self._clock = clock
        self._wake = wake

    def table(self) -> dict[str, Operation]:
        """Every operation by name; to be laid beside those of `Operations`."""
        return {
            "amend": Operation(run=self.amend, roles=PROPOSERS & PEOPLE, changes=True),
            "break_glass": Operation(run=self.break_glass, roles=PEOPLE, changes=True),
            "revoke_break_glass": Operation(run=self.revoke_break_glass, roles=PEOPLE, changes=True),
            "delegate": Operation(run=self.delegate, roles=PEOPLE, changes=True),
            "end_delegations": Operation(run=self.end_delegations, roles=APPROVERS, changes=True),
            "set_autonomy": Operation(run=self.set_autonomy, roles=PEOPLE, changes=True),
            "autonomy": Operation(run=self.autonomy, roles=READERS),
            "grants": Operation(run=self.grants, roles=READERS),
            "set_mode": Operation(run=self.set_mode, roles=PEOPLE, changes=True),
        }

    async def amend(self, caller: Identity, proposal_id: str, action: dict[str, Any]) -> dict[str, Any]:
        """Files the edited action as the caller's own proposal, judged from nothing; the old one is replaced."""
        proposal_id = await asyncio.to_thread(self._names.resolve, proposal_id, "proposal")
        old = await asyncio.to_thread(self._ledger.filed, proposal_id)
        if old is None:
            raise ApiRejection(
                "unknown-proposal",
                f"Editing {proposal_id}: there is no such proposal. See `pilotage proposals`.",
            )
        new = amended(old, action_from_json(json.dumps(action)), caller, self._clock())
        refused = await asyncio.to_thread(self._ledger.amend, proposal_id, new)
        if refused is not None:
            why = "; ".join((*refused.reasons, *refused.would_change))
            raise ApiRejection(
                "closed", f"Editing {proposal_id}: {why}. Nothing was handed in.", recorded=True
            )
        if await asyncio.to_thread(self._ledger.status, new.proposal.id) == "filed":
            await self._judge(new)
            self._wake()
        return await asyncio.to_thread(self._ledger.proposal, new.proposal.id) or {}

    async def break_glass(
        self, caller: Identity, minutes: int, reason: str, kinds: Sequence[str], targets: Sequence[str]
    ) -> dict[str, Any]:
        """Lets this very caller go beyond budgets, cooldowns, breakers and freezes for a while."""
        given = _BreakGlassIn.model_validate(
            {"minutes": minutes, "reason": reason, "kinds": tuple(kinds), "targets": tuple(targets)}
        )
        now = self._clock()
        grant = BreakGlassGrant(
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
            raise self._refusal("Breaking the glass", caller, verdict, "break_glass")
        self._wake()
        return {key: str(value) for key, value in asdict(grant).items()}

    async def revoke_break_glass(self, caller: Identity, grant_id: str) -> dict[str, Any]:
        """Ends a grant before its time; whoever may stop everything may do that."""
        verdict = self._gate.judge_command(caller, "stop", mode=self._mode(), now=self._clock())
        if verdict.outcome is not Outcome.ALLOW:
            raise await self._refused("revoke_break_glass", "Mending the glass", caller, verdict, "stop")
        grant_id = await asyncio.to_thread(self._names.resolve, grant_id, "grant")
        ended = await asyncio.to_thread(self._ledger.revoke_break_glass, grant_id, caller.name, self._clock())
        return {"grant": grant_id, "ended": ended}

    async def delegate(self, caller: Identity, to: str, hours: int, reason: str) -> dict[str, Any]:
        """Lends the caller's right to approve to another person."""
        now = self._clock()
        taker = await asyncio.to_thread(self._standing, to)
        if taker is None or taker.kind != "user" or to == caller.name:
            raise ApiRejection(
                "unknown-person",
                f"Lending the right to approve to {to!r}: that is nobody else who is known here. "
                "An admin adds people with `pilotage users add`.",
            )
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
            raise self._refusal("Lending the right to approve", caller, verdict, "delegate")
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
            raise ApiRejection(
                "bad-request",
                f"Setting autonomy {level!r}: valid are standard and demoted; earned is measured.",
            )
        to = cast("Autonomy", level)
        verdict = self._gate.judge_command(caller, "set_autonomy", mode=self._mode(), now=now, to=to)
        if verdict.outcome is not Outcome.ALLOW:
            raise await self._refused("set_autonomy", "Setting autonomy", caller, verdict)
        known = await self.autonomy(caller)
        if kind not in KINDS:
            raise ApiRejection("bad-request", f"Setting autonomy of {kind!r}: valid are {', '.join(KINDS)}.")
        meant = _scope_meant(scope, {str(row["scope"]): str(row["deployment"] or "") for row in known})
        change = await asyncio.to_thread(
            self._ledger.set_autonomy, kind, meant, to, caller.name, reason[:500], now
        )
        return {"kind": kind, "scope": meant, "level": level, "changed": change is not None}

    async def autonomy(self, caller: Identity) -> list[dict[str, Any]]:
        """How far each kind of action is trusted on each deployment, with the outcomes that say so."""
        return await asyncio.to_thread(self._ledger.trust, self._gate.bundle.guardrails.autonomy_rule())

    async def grants(self, caller: Identity) -> dict[str, list[dict[str, Any]]]:
        """The glass that is broken now, and who votes for whom."""
        return await asyncio.to_thread(self._ledger.active_grants, self._clock())

    async def set_mode(self, caller: Identity, mode: str, reason: str = "") -> dict[str, Any]:
        """Changes how far the loop may go, at once; open proposals of the former mode lapse."""
        if mode not in {known_mode.value for known_mode in Mode}:
            raise ApiRejection(
                "bad-request",
                f"Setting mode {mode!r}: valid are {', '.join(known_mode.value for known_mode in Mode)}.",
            )
        to, before = Mode(mode), self._mode()
        verdict = self._gate.judge_command(caller, "set_mode", mode=before, now=self._clock(), to=to)
        if verdict.outcome is not Outcome.ALLOW:
            raise await self._refused("set_mode", f"Setting mode {mode}", caller, verdict)
        lapsed = await asyncio.to_thread(self._switch.ask, to, caller.name, reason[:500])
        self._wake()
        return {"mode": to.value, "before": before.value, "lapsed": lapsed}

    async def _refused(
        self, command: str, what: str, caller: Identity, verdict: Verdict, asked: str = ""
    ) -> ApiRejection:
        """The refusal to raise, after it was written down."""
        await asyncio.to_thread(self._ledger.refuse_command, command, caller.name, verdict, self._clock())
        return self._refusal(what, caller, verdict, asked or command)

    def _refusal(self, what: str, caller: Identity, verdict: Verdict, command: str) -> ApiRejection:
        now = self._clock()
        return refusal(what, caller, verdict, self._gate, command, mode=self._mode(), now=now)


def _scope_meant(words: str, deployment_by_scope: Mapping[str, str]) -> str:
    """The scope that the words name: its deployment, or the beginning of its id; what nothing is known of is itself."""
    mistakes = [
        Named(id=scope, words=name)
        for scope, name in sorted(deployment_by_scope.items())
        if words == name or (len(words) >= LEAST and scope.startswith(words))
    ]
    return only(words, "deployment", mistakes) if mistakes else words


class PeriodicMaintenance:
    """Steps of the loop that guardrails time: telling higher up, promoting, reviewing broken glass."""

    def __init__(self, *, ledger: Ledger, gate: Gate, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._gate = gate
        self._clock = clock
        self._promoted: tuple[int, AutonomyRule] | None = None
        """Up to which entry of the audit log, and by which rule, promotions were decided."""

    async def keep(self) -> dict[Literal["escalated", "promoted", "reviewed"], int]:
        """How many proposals were told of higher up, kinds promoted, and grants put up for review."""
        numbers, now = self._gate.bundle.guardrails, self._clock()
        escalated = await asyncio.to_thread(self._ledger.escalate, now, numbers.escalate_after)
        promoted = await asyncio.to_thread(self._promote, numbers.autonomy_rule(), now)
        reviewed = await asyncio.to_thread(self._ledger.break_glass_reviews, now)
        return {"escalated": len(escalated), "promoted": len(promoted), "reviewed": len(reviewed)}

    def _promote(self, rule: AutonomyRule, now: datetime) -> list[AutonomyChange]:
        """What was measured since the last time is looked at; everything at the start and under another rule."""
        seen, before = self._promoted or (None, rule)
        last, pairs = self._ledger.measured_since(seen if before == rule else None)
        changes = self._ledger.promote(rule, now, pairs)
        self._promoted = last, rule
        return changes
