"""What became of the same fault before: past incidents by fingerprint, what was done and what came of it.

It is read from the decisions that the ledger mirrors into the store, so nothing has to be learned or kept in
step. A fault that was seen before needs no language model: neither to name its class nor to tell of it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pilotage.planner.findings import Evidence, FailureClass, Finding
from pilotage.planner.log_templates import normalised
from pilotage.telemetry.store.protocol import Store

READ = 500
"""The newest proposals that similar ones are looked for among."""
RECALLED = 5
"""Past incidents that are told."""
NEARLY = 0.5
"""The part of their words that the messages of two faults share that are told as similar."""
ENDS = ("undone", "verified", "injected", "refused", "rejected", "replaced", "expired", "judged")
"""Steps that tell what came of a proposal, the most telling first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastAction:
    """One thing that was proposed then."""

    proposal_id: str
    action: str
    step: str
    """The furthest it came, one of `ENDS`, or `proposed`."""
    outcome: str

    @property
    def helped(self) -> bool | None:
        """Whether it kept its promise; None when nobody knows."""
        return self.outcome == "verified" if self.step == "verified" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PastIncident:
    """One earlier trouble."""

    incident_id: str
    run_id: str
    at: datetime
    failure_class: str
    found_by: str
    likeness: float
    """1 for the same fingerprint, else the part of words that the messages share."""
    actions: tuple[PastAction, ...]


def past_incidents(store: Store, finding: Finding) -> tuple[PastIncident, ...]:
    """The most alike first, then the newest: those of the same fingerprint, and of the same class and like words."""
    rows = store.rows(
        """
        SELECT incident_id, run_id, "at", detail FROM decisions
        WHERE step = 'proposed' AND incident_id <> ? ORDER BY "at" DESC, decision_id DESC LIMIT ?
        """,
        [finding.incident_id, READ],
    )
    mine = _words(finding.evidence[0].note) if finding.evidence else frozenset()
    alike: dict[str, tuple[float, dict[str, Any], dict[str, Any]]] = {}
    for row in rows:
        detail = json.loads(row["detail"] or "{}")
        likeness = _likeness(finding, mine, detail)
        if likeness >= NEARLY and row["incident_id"] not in alike:
            alike[row["incident_id"]] = (likeness, row, detail)
    nearest = sorted(alike.values(), key=lambda scored: (-scored[0], -scored[1]["at"].timestamp()))[:RECALLED]
    done = _actions(store, [row["incident_id"] for _, row, _ in nearest])
    return tuple(
        PastIncident(
            incident_id=row["incident_id"],
            run_id=row["run_id"] or "",
            at=row["at"],
            failure_class=str(detail.get("failure_class", "")),
            found_by=str(detail.get("found_by", "")),
            likeness=round(likeness, 2),
            actions=tuple(done.get(row["incident_id"], ())),
        )
        for likeness, row, detail in nearest
    )


def remembered_class(past: Iterable[PastIncident]) -> FailureClass | None:
    """The class that a model gave the same fault before, the newest first, or None."""
    for incident in past:
        known = (
            incident.failure_class in FailureClass.__members__.values()
            and incident.failure_class != "unknown"
        )
        if incident.likeness == 1 and incident.found_by in ("model", "memory") and known:
            return FailureClass(incident.failure_class)
    return None


def similar_incident(past: Sequence[PastIncident]) -> Evidence | None:
    """What the same fault's history says, in words of ours; None where it never came before or nothing came of it."""
    same = [incident for incident in past if incident.likeness == 1]
    tried = Counter(a.action for incident in same for a in incident.actions if a.helped is not None)
    if not tried:
        return None
    helped = Counter(a.action for incident in same for a in incident.actions if a.helped)
    words = ", ".join(f"{action} helped {helped[action]} of {n} times" for action, n in sorted(tried.items()))
    return Evidence(
        ref=f"incident:{same[0].incident_id}",
        note=f"the same fault was seen {len(same)} time{'s' * (len(same) > 1)} lately: {words}",
    )


def _likeness(finding: Finding, mine: frozenset[str], detail: dict[str, Any]) -> float:
    if finding.fingerprint and detail.get("fingerprint") == finding.fingerprint:
        return 1.0
    theirs = _words(str(detail.get("note", "")))
    if detail.get("failure_class") != finding.failure_class.value or not mine or not theirs:
        return 0.0
    return min(0.99, len(mine & theirs) / len(mine | theirs))


def _words(note: str) -> frozenset[str]:
    return frozenset(normalised(note).lower().split(" ")) - {""}


def _actions(store: Store, incident_ids: Sequence[str]) -> dict[str, list[PastAction]]:
    if not incident_ids:
        return {}
    rows = store.rows(
        """
        SELECT incident_id, proposal_id, step, action, outcome FROM decisions
        WHERE incident_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY "at", decision_id
        """,
        [list(incident_ids)],
    )
    furthest: dict[tuple[str, str], PastAction] = {}
    for row in rows:
        key = (row["incident_id"], row["proposal_id"])
        known = furthest.get(key)
        action = PastAction(
            proposal_id=row["proposal_id"],
            action=row["action"] or (known.action if known else ""),
            step=row["step"],
            outcome=row["outcome"],
        )
        if known is None or (action.step in ENDS and _rank(action.step) <= _rank(known.step)):
            furthest[key] = action
    actions: dict[str, list[PastAction]] = {}
    for (incident, _), action in furthest.items():
        actions.setdefault(incident, []).append(action)
    return actions


def _rank(step: str) -> int:
    return ENDS.index(step) if step in ENDS else len(ENDS)
