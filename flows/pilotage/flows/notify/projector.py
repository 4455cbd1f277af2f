"""Tells the others what the ledger recorded: the telemetry store, Prefect's own UI, and the owners' pager.

It tails the audit log from a watermark, so a crash loses nothing, and every row it writes and every event it
emits has an id made from the audit entry, so repeating a stretch doubles nothing. In observe and shadow mode
Prefect and the pager hear nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pilotage.flows.notify.describe import as_markdown, label, proposal_for_log, told
from pilotage.flows.notify.notifier import NO_WEBHOOK, Notifier
from pilotage.planner.actions.types import Severity
from pilotage.policies.ledger.protocol import Ledger
from pilotage.policies.types import Mode
from pilotage.telemetry.facts import DecisionFact
from pilotage.telemetry.redaction import redact
from pilotage.telemetry.store.duckdb import DuckDBStore
from pilotage.telemetry.times import utc_now

log = logging.getLogger("pilotage.chronicle")

BATCH = 200
"""Audit entries taken at a time."""
NEWS = timedelta(minutes=15)
"""Older steps are written into the store but announced to nobody: they are history, not news."""
SILENT = frozenset({"claimed", "resume_vote"})
"""Steps that the store keeps and nobody else is told of."""
SPOKEN = frozenset(
    {"judged", "approved", "rejected", "replaced", "injected", "verified", "undone", "refused", "expired"}
)
"""Steps of which `pilotage up` prints a line."""
CLOSING = frozenset({"injected", "verified", "undone", "refused", "rejected", "replaced", "expired"})
"""Steps after which the run's artifact is written again."""


ALARMING = frozenset({"glass_broken", "glass_review"})
"""Steps that are pages by themselves. All that is about an incident is told by the page of that incident."""


class AuditProjector:
    """Carries audit entries to the store and the announcer, each once."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        store: DuckDBStore,
        notifier: Notifier,
        mode: Callable[[], Mode],
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._notifier = notifier
        self._mode = mode
        self._clock = clock

    async def catch_up(self) -> int:
        """How many entries were told."""
        told_of = 0
        while entries := await asyncio.to_thread(self._ledger.entries, await self._told_until(), BATCH):
            for entry in entries:
                try:
                    await self._tell(entry)
                except Exception:  # a row that cannot be told must not hold up the others
                    log.exception(
                        "Announcing entry %s of the audit log, which stays there untold", entry["seq"]
                    )
            # last, so that what was not announced before a crash is announced after it
            await asyncio.to_thread(self._store.add_decisions, [readable(entry) for entry in entries])
            told_of += len(entries)
        return told_of

    async def _tell(self, entry: Mapping[str, Any]) -> None:
        if entry["step"] in SPOKEN:
            log.info("%s: %s %s", await self._name(entry), label(entry), told(entry))
        await self._notify(entry)

    async def _name(self, entry: Mapping[str, Any]) -> str:
        """What an entry is about: its proposal, with action, deployment and run, where it is about one."""
        proposal_id = str(entry["proposal_id"])
        if not proposal_id:
            return f"entry {entry['seq']}"
        row = await asyncio.to_thread(self._ledger.proposal, proposal_id)
        return proposal_for_log(
            row or {**entry["detail"], "proposal_id": proposal_id, "run_id": entry["run_id"]}
        )

    async def _told_until(self) -> int:
        rows = await asyncio.to_thread(self._store.rows, "SELECT max(decision_id) AS last FROM decisions")
        last = rows[0]["last"] if rows else None
        return int(str(last).removeprefix("a-")) if last else 0

    async def _notify(self, entry: Mapping[str, Any]) -> None:
        if self._mode() in (Mode.OBSERVE, Mode.SHADOW) or entry["step"] in SILENT:
            return
        if self._clock() - datetime.fromisoformat(str(entry["at"])) > NEWS:
            return
        run_id = str(entry["run_id"])
        # a delivery that is tried again is no failure, and nothing that an automation should hear of
        if run_id and label(entry) != "waiting":
            heard = await self._notifier.event(
                run_id,
                str(entry["step"]),
                key=f"audit-{entry['seq']}",
                payload=payload_of(entry),
                occurred=datetime.fromisoformat(str(entry["at"])),
            )
            if not heard.ok:
                log.warning("announcing %s of %s: %s", entry["step"], await self._name(entry), heard.problem)
            if entry["step"] in CLOSING:
                story = await asyncio.to_thread(self._ledger.story, run_id)
                await self._notifier.artifact(
                    run_id, as_markdown(story), description="What pilotage did, and why"
                )
        if _wants_a_person(entry):
            paged = await self._notifier.page(
                "trigger",
                incident_id=str(entry["incident_id"] or f"pilotage-{entry['seq']}"),
                run_id=run_id,
                summary=" ".join(f"pilotage {entry['proposal_id']} {label(entry)}: {told(entry)}".split()),
                severity=Severity.WARNING if entry["step"] == "judged" else Severity.ERROR,
                details=payload_of(entry),
            )
            if not paged.ok and paged.problem != NO_WEBHOOK:
                log.error("paging about %s: %s", await self._name(entry), paged.problem)


def _wants_a_person(entry: Mapping[str, Any]) -> bool:
    """Whether a step is a page by itself; what is about an incident is told by the page of that incident."""
    return entry["step"] in ALARMING


def payload_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What Prefect's event feed shows of a step."""
    detail = entry["detail"]
    verdict: Mapping[str, Any] = detail.get("verdict") or {}
    return {
        "proposal_id": entry["proposal_id"],
        "incident_id": entry["incident_id"],
        "action": detail.get("action", ""),
        "actor": entry["actor"],
        "told": told(entry),
        "outcome": verdict.get("outcome", ""),
        "policy_ids": list(verdict.get("policy_ids", ())),
    }


def readable(entry: Mapping[str, Any]) -> DecisionFact:
    """The audit entry as readers of telemetry see it; of one that makes no sense to us no more than that it is there."""
    try:
        return decision_of(entry)
    except Exception:
        log.exception(
            "Reading entry %s of the audit log: readers of telemetry see that it is there", entry["seq"]
        )
        return DecisionFact(
            decision_id=f"a-{int(entry['seq']):012d}",
            at=datetime.fromisoformat(str(entry["at"])),
            proposal_id=str(entry["proposal_id"]),
            incident_id=str(entry["incident_id"]),
            run_id=str(entry["run_id"]) or None,
            step=str(entry["step"]),
            action="",
            outcome="",
            actor=str(entry["actor"]),
            detail={"told": "this entry could not be read; `pilotage audit export` has it"},
        )


def decision_of(entry: Mapping[str, Any]) -> DecisionFact:
    """The audit entry as readers of telemetry see it."""
    detail = entry["detail"]
    verdict: Mapping[str, Any] = detail.get("verdict") or {}
    policy_ids: Sequence[str] = verdict.get("policy_ids", ())
    return DecisionFact(
        decision_id=f"a-{int(entry['seq']):012d}",
        at=datetime.fromisoformat(str(entry["at"])),
        proposal_id=str(entry["proposal_id"]),
        incident_id=str(entry["incident_id"]),
        run_id=str(entry["run_id"]) or None,
        step=str(entry["step"]),
        action=str(detail.get("action", "")),
        outcome=str(verdict.get("outcome") or detail.get("judgement") or detail.get("effect") or ""),
        policy_ids=tuple(policy_ids),
        actor=str(entry["actor"]),
        detail={
            "told": redact(told(entry)),
            "playbook": str(_record(detail, "proposal").get("playbook", "")),
            **_remembered(_record(detail, "case")),
            **_acted_on(_record(_record(detail, "receipt"), "action")),
        },
    )


ACTED_ON = ("deployment_id", "name", "pool", "queue", "busy_queue")
"""What an action names beside runs."""


def _acted_on(action: Mapping[str, Any]) -> dict[str, str]:
    """What a change was made on: by it a later look knows a pause for our own."""
    return {key: str(action[key]) for key in ACTED_ON if action.get(key)}


def _record(detail: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of an entry's detail; what is told of a refused request has a text where a proposal has a record."""
    part = detail.get(name)
    return part if isinstance(part, Mapping) else {}


def _remembered(case: Mapping[str, Any]) -> dict[str, str]:
    """What later troubles are compared with; a step that carries no case tells none of it."""
    kept = {key: str(case.get(key, "")) for key in ("failure_class", "fingerprint", "found_by", "rule_id")}
    return kept | {"note": str(next(iter(case.get("notes") or ()), ""))}
