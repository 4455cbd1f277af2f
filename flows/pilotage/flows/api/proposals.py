"""What the API can be asked, as one table: filing, voting, reading, stopping, undoing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from typing import Any, Literal, cast, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter

from pilotage.flows.api.client import ApiRejection
from pilotage.flows.api.errors import refusal
from pilotage.flows.api.incidents import IncidentEndpoints
from pilotage.flows.api.lists import ListEndpoints
from pilotage.flows.api.on_behalf_of import agent_for, hypothetical_proposal
from pilotage.flows.api.resolve import Kind, Resolver
from pilotage.flows.api.server import AGENTS, PEOPLE, PROPOSERS, READERS, Operation
from pilotage.flows.execution.injector import Injector
from pilotage.flows.execution.kill_switch import KillSwitch
from pilotage.planner.actions.types import target_of
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.audit.signing import Verifier
from pilotage.policies.digests import digest_of
from pilotage.policies.gate.gate import Gate
from pilotage.policies.gate.permitted_kinds import permitted_kinds
from pilotage.policies.json_values import plain
from pilotage.policies.ledger.protocol import OPEN, Ledger, Status
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, Verdict
from pilotage.telemetry.facts import SpanFact
from pilotage.telemetry.forecasts import Forecast
from pilotage.telemetry.store.duckdb import DuckDBStore


class _ForecastIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    run_id: str
    made_at: AwareDatetime
    p_fail: float = Field(ge=0, le=1)
    model: str
    trained_on: int
    reasons: tuple[str, ...] = ()
    model_id: str = ""
    low: float | None = Field(default=None, ge=0, le=1)
    high: float | None = Field(default=None, ge=0, le=1)
    muted: str = ""


Decision = Literal["approve", "reject"]
_FORECASTS = TypeAdapter(list[_ForecastIn])
_SPANS = TypeAdapter(list[SpanFact])
MOST_SPANS = 1000
"""Steps of an agent that are taken at a time."""


def unknown_proposal(proposal_id: str) -> str:
    """What to say about an id that no proposal has."""
    return f"Looking for proposal {proposal_id}: there is none. See `pilotage proposals`."


def known_status(status: str | None) -> str | None:
    """The status to list, or None for all. Raises ApiRejection for one that there is not."""
    if status is not None and status not in get_args(Status):
        raise ApiRejection("bad-request", f"Listing {status!r}: valid are {', '.join(get_args(Status))}.")
    return status


def unknown_subject(subject: str) -> str:
    """What to say about something that nothing is recorded of."""
    return (
        f"Looking for what happened to {subject}: nothing is recorded. "
        "Give the id of a flow run, a proposal (p-…) or an incident (i-…); see `pilotage incidents`."
    )


class ProposalEndpoints:
    """Answers the API's questions from the ledger, the gate and the injector."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        gate: Gate,
        injector: Injector,
        store: DuckDBStore,
        kill_switch: KillSwitch,
        mode: Callable[[], Mode],
        clock: Callable[[], datetime],
        health: Callable[[], Mapping[str, Any]],
        wake: Callable[[], None],
        verifier: Verifier | None = None,
    ) -> None:
        """`verifier` knows the key that signs checkpoints of the audit log."""
        self._verifier = verifier
        self._ledger = ledger
        self._gate = gate
        self._injector = injector
        self._store = store
        self._names = Resolver(ledger, lambda: store)
        self._kill_switch = kill_switch
        self._mode = mode
        self._clock = clock
        self._health = health
        self._wake = wake
        self._about_incidents = IncidentEndpoints(
            ledger=ledger, names=self._names, vote=self.vote, clock=clock
        )
        self._lists = ListEndpoints(ledger=ledger, names=self._names, clock=clock)

    def table(self) -> dict[str, Operation]:
        """Every operation by name."""
        return {
            "file": Operation(run=self.file, roles=PROPOSERS, changes=True),
            "consider": Operation(run=self.consider, roles=READERS),
            "offered": Operation(run=self.permitted_kinds, roles=READERS),
            "record_forecasts": Operation(run=self.record_forecasts, roles=AGENTS),
            "record_spans": Operation(run=self.record_spans, roles=READERS),
            "whoami": Operation(run=self.whoami, roles=READERS),
            "status": Operation(run=self.status, roles=READERS),
            "incidents": Operation(run=self.incidents, roles=READERS),
            "proposals": Operation(run=self.proposals, roles=READERS),
            "proposal": Operation(run=self.proposal, roles=READERS),
            "resolve": Operation(run=self.resolve, roles=READERS),
            "why": Operation(run=self.why, roles=READERS),
            "audit_verify": Operation(run=self.audit_verify, roles=READERS),
            "vote": Operation(run=self.vote, roles=PEOPLE, changes=True),
            "undo": Operation(run=self.undo, roles=PEOPLE, changes=True),
            "stop": Operation(run=self.stop, roles=PEOPLE, changes=True),
            "resume": Operation(run=self.resume, roles=PEOPLE, changes=True),
            **self._about_incidents.table(),
            **self._lists.table(),
        }

    async def file(
        self, caller: Identity, proposal: Mapping[str, Any], case: Mapping[str, Any], through: str = ""
    ) -> dict[str, Any]:
        """Stores the proposal under the caller's name and judges it. The same proposal again changes nothing.

        With `through="agent"` an agent proposes it for the caller, and it is judged for both.
        """
        wanted = Proposal.model_validate_json(json.dumps(proposal))
        if (agent := agent_for(caller, through)) is not None:
            wanted = wanted.model_copy(update={"on_behalf_of": caller.name})
            caller = agent
        case_file = CaseFile.model_validate_json(json.dumps(case))
        if self._mode() is Mode.OBSERVE:
            raise ApiRejection(
                "observe", "Filing a proposal: the mode is observe, in which nothing is proposed."
            )
        known = await asyncio.to_thread(self._ledger.filed, wanted.id)
        if known is not None and (known.proposer.name, known.proposal.action) == (caller.name, wanted.action):
            return await self.proposal(caller, wanted.id)  # thought of again, with another expiry: it stands
        filed = FiledProposal(
            proposal=wanted,
            case=case_file,
            proposer=caller,
            digest=digest_of(wanted, caller),
            filed_at=self._clock(),
        )
        if await asyncio.to_thread(self._ledger.file, filed):
            await self._injector.judge(filed)
            self._wake()
        return await self.proposal(caller, wanted.id)

    async def consider(
        self, caller: Identity, action: Mapping[str, Any], through: str = ""
    ) -> dict[str, Any]:
        """What would be said of this action if the caller, or an agent for them, proposed it now."""
        filed = hypothetical_proposal(caller, agent_for(caller, through), action, self._clock())
        verdict, target = await self._injector.consider(filed)
        return {
            "kind": filed.proposal.action.kind,
            "target": target_of(filed.proposal.action),
            "mode": self._mode().value,
            "facts": plain(target),
            **plain(verdict),
        }

    async def permitted_kinds(self, caller: Identity, through: str = "") -> list[str]:
        """The kinds of action that the caller may propose at all; each proposal is judged for itself."""
        agent = agent_for(caller, through)
        own = await asyncio.to_thread(permitted_kinds, self._gate, caller)
        if agent is None:
            return list(own)
        both = set(await asyncio.to_thread(permitted_kinds, self._gate, agent))
        return [kind for kind in own if kind in both]

    async def record_forecasts(self, caller: Identity, forecasts: list[Mapping[str, Any]]) -> int:
        """How many forecasts were stored, for people to look at. No decision reads them."""
        rows = _FORECASTS.validate_json(json.dumps(forecasts))
        facts = [Forecast(**row.model_dump()) for row in rows]
        await asyncio.to_thread(self._store.add_forecasts, facts)
        return len(facts)

    async def record_spans(self, caller: Identity, spans: list[Mapping[str, Any]], through: str = "") -> int:
        """How many steps of an agent were stored, for people to look at. No decision reads them.

        Whose they are is not taken from them: they are the caller's, or with `through="agent"` the caller's agent's.
        """
        agent = agent_for(caller, through) or caller
        taken = _SPANS.validate_json(json.dumps(spans[:MOST_SPANS]))
        facts = [replace(fact, agent=agent.name) for fact in taken]
        return await asyncio.to_thread(self._store.add_spans, facts)

    async def whoami(self, caller: Identity) -> dict[str, Any]:
        """Who the token says the caller is."""
        return {
            "name": caller.name,
            "kind": caller.kind,
            "roles": sorted(caller.roles),
            "teams": sorted(caller.teams),
        }

    async def status(self, caller: Identity) -> dict[str, Any]:
        """Mode, kill switch, collector's health and counts of proposals."""
        return {
            "mode": self._mode().value,
            "stopped": self._kill_switch.stopped(),
            "collector": dict(self._health()),
            "proposals": await asyncio.to_thread(self._ledger.counts),
            "bundle": self._gate.bundle.hash,
            "glass": (await asyncio.to_thread(self._ledger.active_grants, self._clock()))["glass"],
        }

    async def incidents(self, caller: Identity, limit: int = 50) -> list[dict[str, Any]]:
        """The newest incidents first."""
        return await asyncio.to_thread(self._ledger.incidents, limit)

    async def proposals(
        self, caller: Identity, status: str | None = None, limit: int = 50
    ) -> list[dict[str, Any]]:
        """The newest proposals first, all or those of one status."""
        return await asyncio.to_thread(self._ledger.proposals, known_status(status), limit)

    async def proposal(self, caller: Identity, proposal_id: str) -> dict[str, Any]:
        """One proposal with its digest, status and last verdict."""
        proposal_id = await self._proposal_id(proposal_id)
        row = await asyncio.to_thread(self._ledger.proposal, proposal_id)
        if row is None:
            raise ApiRejection("unknown-proposal", unknown_proposal(proposal_id))
        return row | {"you": await asyncio.to_thread(self._open_to, caller, row)}

    def _open_to(self, caller: Identity, row: Mapping[str, Any]) -> dict[str, str]:
        """Why the caller's approval or rejection would not count; empty where it would. Nothing is recorded."""
        filed = self._ledger.filed(row["proposal_id"])
        if filed is None or row["status"] not in OPEN or caller.kind == "agent":
            return {"approve": "closed", "reject": "closed"}
        now = self._clock()
        voter, _ = self._ledger.acting(caller, now)
        said: dict[str, str] = {}
        for decision in get_args(Decision):
            verdict = self._gate.judge_vote(voter, filed, row["digest"], decision, now)
            if verdict.outcome is not Outcome.ALLOW:
                no = refusal(
                    f"To {decision} it", caller, verdict, self._gate, "vote", mode=self._mode(), now=now
                )
                said[decision] = str(no)
            elif any((vote["voter"], vote["decision"]) == (caller.name, decision) for vote in row["votes"]):
                said[decision] = "You did already."
            else:
                said[decision] = ""
        return said

    async def resolve(self, caller: Identity, words: str, kind: str) -> dict[str, str]:
        """The id that the words stand for: `{kind, id}`. Refused with a list when several fit."""
        if kind not in get_args(Kind):
            raise ApiRejection(
                "bad-request", f"Looking for a {kind!r}: valid are {', '.join(get_args(Kind))}."
            )
        wanted = cast("Kind", kind)
        return {"kind": kind, "id": await asyncio.to_thread(self._names.resolve, words, wanted)}

    async def _proposal_id(self, words: str) -> str:
        return await asyncio.to_thread(self._names.resolve, words, "proposal")

    async def why(self, caller: Identity, subject: str) -> list[dict[str, Any]]:
        """Every row about a run, proposal or incident, in order of time."""
        subject = await asyncio.to_thread(self._names.resolve, subject, "subject")
        steps = await asyncio.to_thread(self._ledger.story, subject)
        if not steps:
            raise ApiRejection("unknown-subject", unknown_subject(subject))
        return steps

    async def vote(
        self, caller: Identity, proposal_id: str, digest: str, decision: str, reason: str = ""
    ) -> dict[str, Any]:
        """Records one person's answer to one digest, then judges the proposal again."""
        answer: Literal["approve", "reject"]
        match decision:
            case "approve" | "reject":
                answer = decision
            case _:
                raise ApiRejection("bad-request", f"Voting {decision!r}: valid are approve and reject.")
        proposal_id = await self._proposal_id(proposal_id)
        filed = await asyncio.to_thread(self._ledger.filed, proposal_id)
        if filed is None:
            raise ApiRejection("unknown-proposal", unknown_proposal(proposal_id))
        now = self._clock()
        voter, giver = await asyncio.to_thread(self._ledger.acting, caller, now)
        verdict = await asyncio.to_thread(self._gate.judge_vote, voter, filed, digest, answer, now)
        cast = await asyncio.to_thread(
            partial(self._ledger.vote, delegated_by=giver),
            proposal_id,
            digest,
            voter,
            answer,
            reason[:500],
            verdict,
            now,
        )
        if isinstance(cast, Verdict):
            raise self._refusal(f"Voting on {proposal_id}", caller, cast, "vote", kind="vote-refused")
        await self._injector.judge(filed)
        self._wake()
        return await self.proposal(caller, proposal_id)

    async def undo(self, caller: Identity, proposal_id: str, reason: str = "") -> dict[str, Any]:
        """Takes back what a proposal changed, where there is a way."""
        proposal_id = await self._proposal_id(proposal_id)
        filed = await asyncio.to_thread(self._ledger.filed, proposal_id)
        if filed is None:
            raise ApiRejection("unknown-proposal", unknown_proposal(proposal_id))
        await self._police(caller, "undo", filed)
        back = await self._injector.undo(proposal_id, by=caller.name, why=reason or "asked by a person")
        self._wake()
        return {"proposal_id": proposal_id, "effect": back.effect.value, "reason": back.reason}

    async def stop(self, caller: Identity, reason: str = "") -> dict[str, Any]:
        """Pulls the kill switch: nothing more is admitted or delivered."""
        await self._police(caller, "stop")
        await asyncio.to_thread(self._kill_switch.stop, caller.name, reason, self._clock())
        return {"stopped": self._kill_switch.stopped()}

    async def resume(self, caller: Identity) -> dict[str, Any]:
        """One person's vote to start again; tells how many are still missing."""
        await self._police(caller, "resume")
        missing = await asyncio.to_thread(self._kill_switch.resume, caller.name, self._clock())
        self._wake()
        return {"stopped": self._kill_switch.stopped(), "votes_missing": missing}

    async def audit_verify(self, caller: Identity) -> dict[str, Any]:
        """Whether the audit chain is whole."""
        return asdict(await asyncio.to_thread(self._ledger.verify_audit, (), self._verifier))

    async def _police(
        self, caller: Identity, command: Literal["stop", "resume", "undo"], filed: FiledProposal | None = None
    ) -> None:
        verdict = self._gate.judge_command(caller, command, mode=self._mode(), now=self._clock(), filed=filed)
        if verdict.outcome is not Outcome.ALLOW:
            about = filed.proposal.id if filed else ""
            await asyncio.to_thread(
                self._ledger.refuse_command, command, caller.name, verdict, self._clock(), proposal=about
            )
            raise self._refusal(f"Asking to {command}", caller, verdict, command)

    def _refusal(
        self, what: str, caller: Identity, verdict: Verdict, command: str, *, kind: str = "denied"
    ) -> ApiRejection:
        now = self._clock()
        return refusal(what, caller, verdict, self._gate, command, mode=self._mode(), now=now, kind=kind)
