"""The tests that ship with a bundle: rows of `cases.yaml`, each a question to the gate and the answer it expects.

A row needs no Python: who asks for what, on what target, with what counted and who approved; then the
outcome, the ids of all policies that decide, and the approvals still missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, assert_never

import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from pilotage.planner.actions.types import Action, action_from_json, target_of
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.cedar.guardrails import Guardrails, guardrails_from_text
from pilotage.policies.digests import digest_of
from pilotage.policies.gate.gate import Gate, LedgerFacts
from pilotage.policies.json_values import timestamp
from pilotage.policies.types import FiledProposal, Identity, Mode, TargetFacts, Verdict, Vote
from pilotage.telemetry import yaml_text
from pilotage.telemetry.errors import ConfigError

CASES_FILE = "cases.yaml"
CASE_NUMBERS_FILE = "cases.guardrails.yaml"
"""The numbers on which a bundle's cases rest when the numbers in force are others."""
NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
"""When a case happens unless it says otherwise: a Monday."""
RUN = "11111111-1111-4111-8111-111111111111"
DEPLOYMENT = "22222222-2222-4222-8222-222222222222"
_STANDS_FOR = {"RUN": RUN, "DEPLOYMENT": DEPLOYMENT}
_STRICT = ConfigDict(frozen=True, extra="forbid")


class Case(BaseModel):
    """One row."""

    model_config = _STRICT

    case: Annotated[str, Field(min_length=1)]
    """A sentence; the name of the test."""
    ask: Literal[
        "propose",
        "approve",
        "stop",
        "resume",
        "undo",
        "set_mode",
        "break_glass",
        "delegate",
        "set_autonomy",
        "publish_policy",
    ] = "propose"
    """What is asked for; a vote or a command is about a retry that the agent `pilot` proposed."""
    by: tuple[str, ...] = ("agent",)
    """Roles of the caller; `agent` makes it an agent, anything else a person."""
    name: str = "caller"
    kind: Literal["", "user", "agent"] = ""
    """For a caller whose kind is not what its roles say."""
    action: dict[str, Any] = Field(default_factory=lambda: {"kind": "retry_run", "run_id": "RUN"})
    """As JSON has it; RUN and DEPLOYMENT stand for ids; `start` of a reschedule is seconds from now."""
    target: dict[str, Any] = Field(default_factory=dict)
    """Fields of TargetFacts over those of a FAILED run of a development deployment with 256 MiB."""
    ledger: dict[str, Any] = Field(default_factory=dict)
    """Fields of LedgerFacts over stage inject, mode auto and nothing counted."""
    evidence: tuple[str, ...] = ()
    on_behalf_of: str = ""
    votes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Who approved, with roles; `team:NAME` among them is a team."""
    now: AwareDatetime = NOON
    expired: bool = False
    other_digest: bool = False
    """For a vote: on another text than the one filed."""
    to: str = ""
    """For set_mode and set_autonomy."""
    ttl: int = 0
    """For a grant, seconds."""
    reason: str = ""
    guardrails: dict[str, Any] = Field(default_factory=dict)
    """Numbers that this case lays over the bundle's."""
    outcome: Literal["allow", "needs_approval", "deny"]
    by_policies: tuple[str, ...]
    """Every policy that decides."""
    needs: dict[str, int] = Field(default_factory=dict)
    """Approvals still missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A case as values, made once and asked of many gates."""

    case: Case
    caller: Identity
    filed: FiledProposal
    target: TargetFacts
    ledger: LedgerFacts
    numbers: Guardrails | None
    """The case's own guardrails, or None when it has none."""

    def asked(self, bundle: Bundle) -> Verdict:
        """What the bundle answers."""
        gate = Gate(bundle if self.numbers is None else replace(bundle, guardrails=self.numbers))
        case, now = self.case, self.case.now
        match case.ask:
            case "propose":
                return gate.judge(self.filed, self.target, self.ledger, now)
            case "approve":
                digest = "0" * 64 if case.other_digest else self.filed.digest
                return gate.judge_vote(self.caller, self.filed, digest, "approve", now)
            case "undo":
                return gate.judge_command(self.caller, "undo", mode=Mode.AUTO, now=now, filed=self.filed)
            case "set_mode":
                return gate.judge_command(self.caller, "set_mode", mode=Mode.AUTO, now=now, to=_mode(case.to))
            case "set_autonomy":
                to: Any = case.to
                return gate.judge_command(self.caller, "set_autonomy", mode=Mode.AUTO, now=now, to=to)
            case "break_glass" | "delegate":
                grant = _Grant(until=now + timedelta(seconds=case.ttl), reason=case.reason)
                return gate.judge_command(self.caller, case.ask, mode=Mode.AUTO, now=now, grant=grant)
            case "stop" | "resume" | "publish_policy":
                return gate.judge_command(self.caller, case.ask, mode=Mode.AUTO, now=now)
            case _:
                assert_never(case.ask)

    def kept_by(self, bundle: Bundle) -> bool:
        """Whether the bundle answers as the case says."""
        return answer_of(self.asked(bundle)) == self.wanted()

    def wanted(self) -> tuple[str, tuple[str, ...], Mapping[str, int]]:
        """The answer that the case expects: outcome, policy ids in order, missing approvals."""
        return self.case.outcome, tuple(sorted(self.case.by_policies)), self.case.needs


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grant:
    until: datetime
    reason: str


def answer_of(verdict: Verdict) -> tuple[str, tuple[str, ...], Mapping[str, int]]:
    """The verdict in the shape of `Prepared.wanted`."""
    return verdict.outcome.value, tuple(sorted(verdict.policy_ids)), dict(verdict.requirements)


def cases_in(path: Path, base: Guardrails) -> tuple[Prepared, ...]:
    """The cases of this file over these guardrails. Raises ConfigError naming the case and what is valid."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"reading cases {path}: {exc}; correct it or name another file") from exc
    return cases_from_text(text, path, base)


def cases_among(
    files: Mapping[str, str], where: Path, own: Guardrails
) -> tuple[tuple[Prepared, ...], Guardrails]:
    """The cases among a bundle's files and the numbers on which they rest: those of their own file, else `own`.

    Raises ConfigError when there are none, or one of the files is wrong.
    """
    text = files.get(CASES_FILE)
    if text is None:
        raise ConfigError(
            f"reading the cases of {where}: there is no {CASES_FILE}; a bundle brings its own tests"
        )
    numbers = own
    if CASE_NUMBERS_FILE in files:
        numbers = guardrails_from_text(files[CASE_NUMBERS_FILE], where / CASE_NUMBERS_FILE)
    return cases_from_text(text, where / CASES_FILE, numbers), numbers


def cases_from_text(text: str, path: Path, base: Guardrails) -> tuple[Prepared, ...]:
    """The cases in this text; `path` is for messages. Raises ConfigError naming the case and what is valid."""
    try:
        rows: Any = yaml_text.loaded(text)
    except yaml.YAMLError as exc:
        raise ConfigError(f"reading cases {path}: {exc}; correct it or name another file") from exc
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"reading cases {path}: found no list of cases; write `- case: …` rows")
    prepared: list[Prepared] = []
    for number, row in enumerate(rows, 1):
        name = row.get("case", "") if isinstance(row, dict) else ""
        try:
            prepared.append(_prepared(Case.model_validate(row), base))
        except (ValidationError, ValueError, TypeError) as exc:
            raise ConfigError(f"reading cases {path}: case {number} ({name}): {exc}") from exc
    names = [check.case.case for check in prepared]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"reading cases {path}: two cases are called {twice[0]!r}; rename one")
    return tuple(prepared)


def _prepared(case: Case, base: Guardrails) -> Prepared:
    kind: Literal["user", "agent"] = case.kind or ("agent" if "agent" in case.by else "user")
    caller = Identity(name=case.name, kind=kind, roles=frozenset(case.by))
    pilot = Identity(name="pilot", kind="agent", roles=frozenset({"agent"}))
    proposer = caller if case.ask == "propose" else pilot
    action = _action(case.action, case.now)
    proposal = Proposal(
        id="p-000000000001",
        incident_id="i-000000000001",
        action=action,
        evidence=case.evidence,
        expires_at=case.now + timedelta(minutes=-1 if case.expired else 10),
        on_behalf_of=case.on_behalf_of,
    )
    filed = FiledProposal(
        proposal=proposal,
        case=CaseFile(subject=target_of(action), failure_class="unknown"),
        proposer=proposer,
        digest=digest_of(proposal, proposer),
        filed_at=case.now,
    )
    facts: dict[str, Any] = {
        "read_at": case.now,
        "state_type": "FAILED",
        "state_name": "Failed",
        "deployment_id": DEPLOYMENT,
        "env": "dev",
        "memory_mb": 256,
        **case.target,
    }
    facts["tags"] = frozenset(facts.get("tags", ()))
    ledger_facts = {"stage": "inject", **case.ledger, "mode": _mode(case.ledger.get("mode", "auto"))}
    numbers = None
    if case.guardrails:
        given = Guardrails.model_validate(case.guardrails)
        numbers = base.model_copy(update={key: getattr(given, key) for key in case.guardrails})
    return Prepared(
        case=case,
        caller=caller,
        filed=filed,
        target=TargetFacts(target=target_of(action), **facts),
        ledger=LedgerFacts(**ledger_facts, votes=_votes(case, filed)),
        numbers=numbers,
    )


def _votes(case: Case, filed: FiledProposal) -> tuple[Vote, ...]:
    return tuple(
        Vote(
            proposal_id=filed.proposal.id,
            digest=filed.digest,
            voter=name,
            role=",".join(role for role in roles if not role.startswith("team:")),
            teams=frozenset(role.removeprefix("team:") for role in roles if role.startswith("team:")),
            decision="approve",
            reason="",
            at=case.now,
        )
        for name, roles in case.votes.items()
    )


def _action(written: dict[str, Any], at: datetime) -> Action:
    action: dict[str, Any] = {
        key: _STANDS_FOR.get(value, value) if isinstance(value, str) else value
        for key, value in written.items()
    }
    if isinstance(start := action.get("start"), int):
        action["start"] = timestamp(at + timedelta(seconds=start))
    return action_from_json(json.dumps(action))


def _mode(name: str) -> Mode:
    return Mode(name)
