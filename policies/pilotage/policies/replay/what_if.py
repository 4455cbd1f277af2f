"""What would have been: decisions of the past made again under another bundle, and one decision with other facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Any

from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.gate.gate import Gate
from pilotage.policies.gate.recorded import RecordedDecision
from pilotage.policies.ledger_facts import LedgerFacts
from pilotage.policies.types import FiledProposal, Mode, TargetFacts, Verdict, Vote
from pilotage.telemetry.errors import ConfigError

SHOWN = 200
"""Changed decisions that a report lists; all are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """One decision that would have been another."""

    proposal_id: str
    kind: str
    target: str
    at: datetime
    before: str
    after: str
    policies_before: tuple[str, ...]
    policies_after: tuple[str, ...]
    judgement: str
    """What really came of it: `verified`, `failed`, or empty when it was not done."""


@dataclass(slots=True, kw_only=True)
class Replay:
    """What another bundle would have done."""

    decisions: int = 0
    same: int = 0
    skipped: int = 0
    """Without recorded facts, or no longer readable."""
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Outcome before and after, of those that changed."""
    other_policies: int = 0
    """The same outcome by other policies."""
    approvals_asked_before: int = 0
    approvals_asked_after: int = 0
    waits_saved: dict[str, timedelta] = field(default_factory=dict)
    """By proposal, the real wait for an approval that would not have been asked for."""
    allowed_known_bad: int = 0
    """Newly allowed, of which the outcome is known to have been bad: regret."""
    stopped_known_good: int = 0
    """No longer allowed, of which the outcome is known to have been good."""
    changed: list[Changed] = field(default_factory=list)

    def take(self, decision: RecordedDecision, verdict: Verdict) -> None:
        """Counts one decision and the verdict that the other bundle gives on the same facts."""
        self.decisions += 1
        before, after = decision.outcome, verdict.outcome.value
        self.approvals_asked_before += before == "needs_approval"
        self.approvals_asked_after += after == "needs_approval"
        if before == after:
            self.same += decision.policy_ids == verdict.policy_ids
            self.other_policies += decision.policy_ids != verdict.policy_ids
            return
        self.moves[before, after] += 1
        self.allowed_known_bad += after == "allow" and decision.judgement == "failed"
        self.stopped_known_good += before == "allow" and decision.judgement == "verified"
        proposal = decision.filed.proposal
        if before == "needs_approval" and after == "allow" and decision.admitted_at is not None:
            self.waits_saved[proposal.id] = decision.admitted_at - decision.filed.filed_at
        if len(self.changed) < SHOWN:
            self.changed.append(
                Changed(
                    proposal_id=proposal.id,
                    kind=proposal.action.kind,
                    target=decision.target.target if decision.target else "",
                    at=decision.at,
                    before=before,
                    after=after,
                    policies_before=decision.policy_ids,
                    policies_after=verdict.policy_ids,
                    judgement=decision.judgement,
                )
            )

    def add(self, later: Replay) -> None:
        """Counts what another replay counted of the decisions that follow."""
        self.decisions += later.decisions
        self.same += later.same
        self.skipped += later.skipped
        self.moves += later.moves
        self.other_policies += later.other_policies
        self.approvals_asked_before += later.approvals_asked_before
        self.approvals_asked_after += later.approvals_asked_after
        self.waits_saved |= later.waits_saved
        self.allowed_known_bad += later.allowed_known_bad
        self.stopped_known_good += later.stopped_known_good
        self.changed += later.changed[: SHOWN - len(self.changed)]

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "decisions": self.decisions,
            "same": self.same,
            "skipped": self.skipped,
            "moves": {f"{before} -> {after}": n for (before, after), n in sorted(self.moves.items())},
            "other_policies": self.other_policies,
            "approvals_asked": {"before": self.approvals_asked_before, "after": self.approvals_asked_after},
            "minutes_saved": round(sum(self.waits_saved.values(), timedelta(0)).total_seconds() / 60, 1),
            "allowed_known_bad": self.allowed_known_bad,
            "stopped_known_good": self.stopped_known_good,
            "changed": [
                {
                    "proposal_id": change.proposal_id,
                    "kind": change.kind,
                    "target": change.target,
                    "at": change.at.isoformat(),
                    "before": change.before,
                    "after": change.after,
                    "policies_before": list(change.policies_before),
                    "policies_after": list(change.policies_after),
                    "outcome": change.judgement,
                }
                for change in self.changed
            ],
        }


def what_if(
    bundle: Bundle,
    *,
    filed: FiledProposal,
    target: TargetFacts | None,
    ledger: LedgerFacts,
    at: datetime,
    changes: Mapping[str, Any],
    approvals: Mapping[str, Iterable[str]],
) -> Verdict:
    """The verdict with other facts: `changes` by `target.FIELD` or `ledger.FIELD`, `approvals` name to roles.

    Raises ConfigError for a field that there is not.
    """
    if target is not None:
        target = _changed(target, "target", changes)
    ledger = _changed(ledger, "ledger", changes)
    if strange := sorted(key for key in changes if key.partition(".")[0] not in ("target", "ledger")):
        raise ConfigError(f"asking what if {strange[0]}: valid are target.FIELD and ledger.FIELD")
    votes = tuple(
        Vote(
            proposal_id=filed.proposal.id,
            digest=filed.digest,
            voter=name,
            role=",".join(role for role in roles if not role.startswith("team:")),
            teams=frozenset(role.removeprefix("team:") for role in roles if role.startswith("team:")),
            decision="approve",
            reason="what if",
            at=at,
        )
        for name, given in approvals.items()
        for roles in (tuple(given),)
    )
    return Gate(bundle).judge(filed, target, replace(ledger, votes=(*ledger.votes, *votes)), at)


def _changed(facts: Any, name: str, changes: Mapping[str, Any]) -> Any:
    mine = {
        key.removeprefix(f"{name}."): value for key, value in changes.items() if key.startswith(f"{name}.")
    }
    valid = [field.name for field in fields(facts)]
    if strange := sorted(set(mine) - set(valid)):
        raise ConfigError(f"asking what if {name}.{strange[0]}: valid fields are {', '.join(valid)}")
    if "tags" in mine:
        mine["tags"] = frozenset(mine["tags"])
    if "mode" in mine:
        mine["mode"] = Mode(mine["mode"])
    return replace(facts, **mine)
