"""Proposals that nobody made, judged: what another bundle would have done about trouble of the past.

Each bundle lives through the same period on its own: what it would have allowed counts against its budgets from
then on, beside what was really admitted. What cannot be known is not guessed: a target whose facts are missing
is denied, and nobody is supposed to have approved anything.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pilotage.planner.actions.types import deployment_of, run_of, target_of
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.gate.gate import Gate, LedgerFacts
from pilotage.policies.ledger.facts import tainted
from pilotage.policies.ledger.rows import ATTEMPTS, NOTIFY
from pilotage.policies.ledger_facts import Admitted
from pilotage.policies.replay.what_if import SHOWN
from pilotage.policies.types import FiledProposal, Mode, Outcome, TargetFacts, Verdict

HOUR, DAY = timedelta(hours=1), timedelta(hours=24)
MISSING = "!missing-fact"
ASSUMED = (
    "mode auto at the moment of injection, no stop, no broken glass, no earned or lost autonomy, nobody approved",
    "tags, pauses, job variables and remedies are those of today; memory that only a work pool says is unknown",
    "budgets count what was really admitted and what each bundle would have allowed; its outcomes are unknown",
)
"""What a judgement of the past has to suppose, in words for the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterfactual:
    """One proposal that would have been made."""

    filed: FiledProposal
    target: TargetFacts | None
    """None when telemetry does not say enough."""
    helped: bool | None = None
    """What came of the same in reality: for another attempt, whether the run's next one completed."""
    waited: timedelta | None = None
    """For how much longer than proposed the run really waited for that next attempt."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What one bundle would have done."""

    outcomes: Counter[str] = field(default_factory=Counter)
    facts_missing: int = 0
    """Of the denials, those for want of facts."""
    allowed_known_bad: int = 0
    allowed_known_good: int = 0
    saved: timedelta = timedelta(0)
    """Real waiting that would not have been."""

    def take(self, case: Counterfactual, verdict: Verdict) -> None:
        """Counts one verdict."""
        self.outcomes[verdict.outcome.value] += 1
        self.facts_missing += verdict.policy_ids == (MISSING,)
        if verdict.outcome is Outcome.ALLOW:
            self.allowed_known_bad += case.helped is False
            self.allowed_known_good += case.helped is True
            self.saved += case.waited if case.helped and case.waited else timedelta(0)

    def as_json(self) -> dict[str, Any]:
        """The numbers as plain JSON values."""
        return {
            "allowed": self.outcomes[Outcome.ALLOW.value],
            "approvals_asked": self.outcomes[Outcome.NEEDS_APPROVAL.value],
            "denied": self.outcomes[Outcome.DENY.value],
            "facts_missing": self.facts_missing,
            "minutes_saved": round(self.saved.total_seconds() / 60, 1),
            "allowed_known_bad": self.allowed_known_bad,
            "allowed_known_good": self.allowed_known_good,
        }


def compared(
    current: Bundle, candidate: Bundle, counterfactual: Sequence[Counterfactual], really: Sequence[Admitted]
) -> dict[str, Any]:
    """Both bundles' tallies over the same proposals, in order of time, and what they judge differently."""
    before, after = judged(current, counterfactual, really), judged(candidate, counterfactual, really)
    tallies = {"before": Tally(), "after": Tally()}
    moves: Counter[str] = Counter()
    changed: list[dict[str, Any]] = []
    for case, was, would in zip(counterfactual, before, after, strict=True):
        tallies["before"].take(case, was)
        tallies["after"].take(case, would)
        if was.outcome is would.outcome:
            continue
        moves[f"{was.outcome.value} -> {would.outcome.value}"] += 1
        if len(changed) < SHOWN:
            changed.append(_changed(case, was, would))
    return {
        "proposals": len(counterfactual),
        **{name: tally.as_json() for name, tally in tallies.items()},
        "moves": dict(sorted(moves.items())),
        "changed": changed,
        "assumed": list(ASSUMED),
    }


def judged(
    bundle: Bundle, counterfactual: Iterable[Counterfactual], really: Iterable[Admitted]
) -> tuple[Verdict, ...]:
    """One verdict for each proposal, which come in order of time."""
    gate, traffic = Gate(bundle), sorted(really, key=_when)
    verdicts = []
    for case in counterfactual:
        at = case.filed.filed_at
        verdict = gate.judge(case.filed, case.target, _counted(case, traffic, at), at)
        verdicts.append(verdict)
        if verdict.outcome is Outcome.ALLOW:
            insort(traffic, _admitted(case, at), key=_when)
    return tuple(verdicts)


def _counted(case: Counterfactual, traffic: Sequence[Admitted], at: datetime) -> LedgerFacts:
    """What the ledger would have counted; the same rules as `ledger/facts.py`."""
    mine = _admitted(case, at)
    day = traffic[bisect_right(traffic, at - DAY, key=_when) : bisect_right(traffic, at, key=_when)]
    hour = [each for each in day if each.at > at - HOUR]
    notice = mine.kind == NOTIFY

    def alike(each: Admitted) -> bool:
        return (each.kind == NOTIFY) is notice

    same = [each.at for each in day if alike(each) and each.target == mine.target]
    changes = [each for each in hour if each.kind != NOTIFY]
    return LedgerFacts(
        stage="inject",
        mode=Mode.AUTO,
        actions_1h=sum(alike(each) for each in hour),
        actions_of_run_24h=sum(
            bool(mine.run_id) and each.run_id == mine.run_id and each.kind in ATTEMPTS for each in day
        ),
        actions_of_deployment_1h=sum(
            bool(mine.deployment_id) and alike(each) and each.deployment_id == mine.deployment_id
            for each in hour
        ),
        seconds_since_same_target=int((at - max(same)).total_seconds()) if same else None,
        other_targets_1h=len({each.target for each in changes} - {mine.target}),
        actions_of_fingerprint_24h=sum(
            bool(mine.fingerprint) and each.fingerprint == mine.fingerprint and each.kind != NOTIFY
            for each in day
        ),
        evidence_tainted=tainted(case.filed.proposal.evidence, case.filed.proposal.action, case.target),
    )


def _when(decision: Admitted) -> datetime:
    return decision.at


def _admitted(case: Counterfactual, at: datetime) -> Admitted:
    action = case.filed.proposal.action
    known = case.target.deployment_id if case.target else ""
    return Admitted(
        at=at,
        kind=action.kind,
        target=target_of(action),
        run_id=run_of(action),
        deployment_id=known or deployment_of(action),
        fingerprint=case.filed.case.fingerprint,
    )


def _changed(case: Counterfactual, was: Verdict, would: Verdict) -> dict[str, Any]:
    action = case.filed.proposal.action
    helped = {True: "verified", False: "failed", None: ""}
    return {
        "incident_id": case.filed.proposal.incident_id,
        "kind": action.kind,
        "target": target_of(action),
        "at": case.filed.filed_at.isoformat(),
        "before": was.outcome.value,
        "after": would.outcome.value,
        "policies_before": list(was.policy_ids),
        "policies_after": list(would.policy_ids),
        "outcome": helped[case.helped],
    }
