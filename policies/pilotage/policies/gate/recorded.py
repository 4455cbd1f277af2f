"""A decision of the past with everything that it rested on, so that it can be made again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from pilotage.policies.gate.gate import Gate, before_deciding
from pilotage.policies.json_values import moment
from pilotage.policies.ledger_facts import LedgerFacts, Stage
from pilotage.policies.types import FiledProposal, Identity, Mode, TargetFacts, Verdict, Vote

_FIELDS: Mapping[type[Any], frozenset[str]] = {
    kind: frozenset(field.name for field in fields(kind)) for kind in (TargetFacts, LedgerFacts, Vote)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedDecision:
    """One recorded decision."""

    seq: int
    filed: FiledProposal
    stage: Stage
    outcome: str
    policy_ids: tuple[str, ...]
    bundle: str
    """Hash of the bundle that decided."""
    target: TargetFacts | None
    ledger: LedgerFacts | None
    """None when none were recorded; such a decision cannot be made again."""
    at: datetime
    judgement: str = ""
    """What came of the proposal in the end: `verified`, `failed` or empty."""
    admitted_at: datetime | None = None


def made_again(gate: Gate, decided: RecordedDecision) -> Verdict | None:
    """The verdict of this gate on the same facts, or None when the facts were not recorded."""
    if decided.ledger is None:
        return None
    refusal = (
        before_deciding(decided.filed, decided.ledger, decided.at) if decided.stage == "inject" else None
    )
    return refusal or gate.judge(decided.filed, decided.target, decided.ledger, decided.at)


def target_facts_from(stored: Mapping[str, Any] | None) -> TargetFacts | None:
    """The facts as they were recorded, or None."""
    if stored is None:
        return None
    known = _known(TargetFacts, stored)
    return TargetFacts(
        **{**known, "read_at": moment(known["read_at"]), "tags": frozenset(known.get("tags", ()))}
    )


def ledger_facts_from(stored: Mapping[str, Any] | None) -> LedgerFacts | None:
    """What was counted as it was recorded, or None; numbers that are newer than the record are at rest."""
    if stored is None:
        return None
    known = _known(LedgerFacts, stored)
    votes = tuple(
        Vote(
            **{
                **_known(Vote, vote),
                "teams": frozenset(vote.get("teams", ())),
                "at": moment(vote["at"]),
            }
        )
        for vote in known.get("votes", ())
    )
    behind = known.get("behind")
    person = behind and Identity(
        name=behind["name"],
        kind=behind["kind"],
        roles=frozenset(behind["roles"]),
        teams=frozenset(behind["teams"]),
        scope=None if behind.get("scope") is None else frozenset(behind["scope"]),
    )
    return LedgerFacts(**{**known, "mode": Mode(known["mode"]), "votes": votes, "behind": person})


def _known(kind: type[Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    names = _FIELDS[kind]
    return {key: value for key, value in stored.items() if key in names}
