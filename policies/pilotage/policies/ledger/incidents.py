"""Incidents as rows: one cause, many runs. They are opened and joined in the transaction that files a proposal.

An occurrence is one failure of one run (or one other finding); a proposal names it as its incident. Which incident an
occurrence belongs to is decided by `pilotage.planner.incidents.grouping`, and can be changed by people.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from pilotage.planner.findings import NOT_A_FAILURE, FailureClass
from pilotage.planner.incidents.grouping import REOPEN, KnownIncident, Occurrence, placed
from pilotage.policies.audit import chain as log
from pilotage.policies.audit.chain import Entry
from pilotage.policies.audit.table import audit
from pilotage.policies.json_values import moment, timestamp
from pilotage.policies.ledger.protocol import OPEN, RunState
from pilotage.policies.ledger.rows import NOTIFY, as_text, dicts, run_of
from pilotage.policies.ledger.schema import incident_causes, incident_runs, incidents, outcomes, proposals
from pilotage.policies.ledger.steps import note_row, set_status
from pilotage.policies.ledger.transaction import Transactions
from pilotage.policies.types import FiledProposal
from pilotage.telemetry.errors import LedgerError

FINISHING: frozenset[str] = frozenset({"retry_run", "resize_run", "override_result"})
"""Kinds of action whose kept promise is that the run has completed."""
MADE_AGAIN = "start_run"
"""The action by which another run does the work of one."""
OPEN_PROPOSALS = ("filed", "held", "allowed", "needs_approval", "admitted", "delivered")
"""Where something may still come of a proposal."""
EARLIER = timedelta(days=30)
"""How far back incidents of the same cause are linked."""
LINKED = 5
"""Earlier incidents that are linked."""
BEFORE = "it was before incidents were kept"
"""Why the runs of an earlier version's incidents are closed: nobody gave them up."""
QUIET = timedelta(minutes=10)
"""A trouble that is no failed run is over when nothing is proposed about it any more and it was not found for so long."""
_NOT_FAILURES = frozenset(one.value for one in NOT_A_FAILURE)


class IncidentRepository:
    """The part of the ledger that keeps incidents."""

    def incident_of(self: Transactions, occurrence_or_run: str) -> str:
        """The id of the newest incident of this occurrence or run, or empty.

        A run whose owner is told of what is no run's (a pool, a schedule) is of that incident too.
        """
        with self.reading(f"looking for the incident of {occurrence_or_run}") as connection:
            if found := incident_in(connection, occurrence_or_run):
                return found
            told: str | None = connection.execute(
                sa.select(proposals.c.incident_id)
                .where(proposals.c.run_id == occurrence_or_run, proposals.c.kind == NOTIFY)
                .order_by(proposals.c.filed_at.desc())
                .limit(1)
            ).scalar_one_or_none()
            return incident_in(connection, told) if told else ""

    def open_incident_runs(self: Transactions) -> list[dict[str, str]]:
        """Every run of an open incident that is not recovered, superseded or waived:
        `{incident_id, occurrence_id, subject, run_id, failure_class, at, made}`, oldest first. `made` is the
        proposal by which another run is to do its work and that is not through yet, or empty."""
        made = (
            sa.select(sa.func.max(proposals.c.id))
            .where(
                proposals.c.incident_id == incident_runs.c.occurrence_id,
                proposals.c.kind == MADE_AGAIN,
                proposals.c.status.in_(OPEN_PROPOSALS),
            )
            .scalar_subquery()
        )
        with self.reading("listing runs of open incidents") as connection:
            rows = connection.execute(
                sa.select(incident_runs, sa.func.coalesce(made, "").label("made"))
                .join(incidents, incidents.c.id == incident_runs.c.incident_id)
                .where(incidents.c.state == "open", incident_runs.c.state == "open")
                .order_by(incident_runs.c.at, incident_runs.c.occurrence_id)
            )
            return dicts(rows)

    def close_run(
        self: Transactions, incident_id: str, subject: str, state: RunState, why: str, by: str, at: datetime
    ) -> bool:
        """True when this closed what was open of a subject; the incident is resolved with its last one."""
        with self.writing(f"closing {subject} of {incident_id}") as connection:
            return close_in(connection, incident_id, (subject,), state, why, by, at)

    def settle_incidents(self: Transactions, now: datetime) -> list[str]:
        """The ids of incidents that are over since nothing is found or proposed about them any more, resolved now."""
        with self.writing("settling incidents") as connection:
            return _settled(connection, now)

    def waive_incident(
        self: Transactions, incident_id: str, by: str, reason: str, at: datetime, run_ids: Sequence[str] = ()
    ) -> int:
        """How many runs (all, or those named) need not be recovered any more, by a person's word."""
        with self.writing(f"waiving {incident_id}") as connection:
            subjects = _subjects(connection, incident_id, run_ids)
            if not close_in(connection, incident_id, subjects, "waived", reason, by, at):
                return 0
            _note(connection, "incident_waived", incident_id, at, by, reason=reason, runs=len(subjects))
            return len(subjects)

    def acknowledge_incident(
        self: Transactions, incident_id: str, by: str, reason: str, at: datetime
    ) -> None:
        """Keeps that a person looks at an open incident. Raises LedgerError when it is none."""
        with self.writing(f"acknowledging {incident_id}") as connection:
            row = _row(connection, incident_id)
            if row is None or row["state"] != "open":
                raise LedgerError(f"acknowledging {incident_id}: it is no open incident")
            _note(connection, "incident_acknowledged", incident_id, at, by, reason=reason)

    def split_incident(
        self: Transactions, incident_id: str, run_ids: Sequence[str], by: str, at: datetime
    ) -> str:
        """The id of the new incident that these runs are now of. Raises LedgerError when they are not of the old one,
        or are all that it has."""
        with self.writing(f"splitting {incident_id}") as connection:
            wanted = set(_subjects(connection, incident_id, run_ids)) if run_ids else set()
            everyone = set(_subjects(connection, incident_id, ()))
            if not wanted or wanted == everyone:
                raise LedgerError(
                    f"splitting {incident_id}: name some of its {len(everyone)} runs, not none and not all"
                )
            return _split(connection, incident_id, wanted, by, at)

    def merge_incidents(self: Transactions, kept: str, others: Sequence[str], by: str, at: datetime) -> int:
        """How many incidents became part of `kept`, by a person's word."""
        with self.writing(f"merging into {kept}") as connection:
            if _row(connection, kept) is None:
                raise LedgerError(f"merging into {kept}: there is no such incident")
            known = [other for other in others if other != kept and _row(connection, other) is not None]
            for other in known:
                _merge(connection, kept, other, by, at)
            return len(known)

    def told_of(self: Transactions, incident_id: str, told: Mapping[str, Any]) -> None:
        """Keeps what an incident's page and its events said last."""
        with self.writing(f"recording what was told of {incident_id}") as connection:
            connection.execute(
                incidents.update().where(incidents.c.id == incident_id).values(told=as_text(told))
            )


def incident_in(connection: sa.Connection, occurrence_or_run: str) -> str:
    """The id of the newest incident of an occurrence or run, or empty, within a transaction."""
    found: str | None = connection.execute(
        sa.select(incident_runs.c.incident_id)
        .where(
            sa.or_(
                incident_runs.c.occurrence_id == occurrence_or_run,
                incident_runs.c.run_id == occurrence_or_run,
            )
        )
        .order_by((incident_runs.c.state == "open").desc(), incident_runs.c.at.desc())
        .limit(1)
    ).scalar_one_or_none()
    return found or ""


def closed_in(connection: sa.Connection, occurrence_id: str) -> str:
    """As what the run of an occurrence was given up (waived, superseded), or empty, within a transaction."""
    state: str | None = connection.execute(
        sa.select(incident_runs.c.state).where(
            incident_runs.c.occurrence_id == occurrence_id, incident_runs.c.why != BEFORE
        )
    ).scalar_one_or_none()
    return state if state in ("waived", "superseded") else ""


def place_in(connection: sa.Connection, filed: FiledProposal) -> tuple[str, str]:
    """The incident that a newly filed proposal belongs to and how it came there (`opened`, `joined`, …), recorded.

    What a person wants without a finding opens nothing: it is part of the incident of its run, where that is open.
    """
    occurrence_id, case = filed.proposal.incident_id, filed.case
    known = connection.execute(
        sa.select(incident_runs.c.incident_id).where(incident_runs.c.occurrence_id == occurrence_id)
    ).scalar_one_or_none()
    if known is not None:
        return str(known), "known"
    told_over = case.failure_class == FailureClass.RECOVERED
    if filed.proposer.kind != "agent" or filed.proposal.on_behalf_of or told_over:
        run_id = run_of(filed)
        return (incident_in(connection, run_id) if run_id else ""), ""
    causes = case.causes or ((f"fault:{case.fingerprint}",) if case.fingerprint else ())
    at = case.failed_at or filed.filed_at
    occurrence = Occurrence(occurrence_id=occurrence_id, subject=case.subject, causes=causes, at=at)
    placement = placed(occurrence, _known(connection, occurrence.keys, at))
    for other in placement.merged:
        _merge(connection, placement.incident_id, other, "pilotage", filed.filed_at)
    filed_at = timestamp(filed.filed_at)
    match placement.decision:
        case "opened":
            cause = occurrence.keys[0]
            connection.execute(
                incidents.insert().values(
                    id=occurrence_id,
                    cause=cause,
                    state="open",
                    sealed=0,
                    merged_into="",
                    earlier=as_text(_earlier(connection, cause, filed.filed_at)),
                    opened_at=filed_at,
                    last_at=timestamp(at),
                    resolved_at="",
                    resolution="",
                    reopened=0,
                    told="{}",
                )
            )
        case "reopened":
            connection.execute(
                incidents.update()
                .where(incidents.c.id == placement.incident_id)
                .values(
                    state="open",
                    resolved_at="",
                    resolution="",
                    last_at=timestamp(at),
                    reopened=incidents.c.reopened + 1,
                )
            )
        case "joined":
            connection.execute(
                incidents.update()
                .where(incidents.c.id == placement.incident_id, incidents.c.last_at < timestamp(at))
                .values(last_at=timestamp(at))
            )
    _add_causes(connection, placement.incident_id, occurrence.keys)
    connection.execute(
        incident_runs.insert().values(
            occurrence_id=occurrence_id,
            incident_id=placement.incident_id,
            subject=case.subject,
            run_id=case.subject.removeprefix("run:") if case.subject.startswith("run:") else "",
            failure_class=case.failure_class,
            state="open",
            why="",
            at=timestamp(at),
            closed_at="",
        )
    )
    return placement.incident_id, placement.decision


def outcome_in(
    connection: sa.Connection, filed: FiledProposal, judgement: str, detail: str, at: datetime
) -> None:
    """Closes the run that a kept promise has completed; a trouble that is no failure is over with its remedy."""
    if judgement != "verified":
        return
    kind, occurrence_id = filed.proposal.action.kind, filed.proposal.incident_id
    no_failure = filed.case.failure_class in _NOT_FAILURES
    if kind not in FINISHING and not (no_failure and kind != NOTIFY):
        return
    row = (
        connection.execute(sa.select(incident_runs).where(incident_runs.c.occurrence_id == occurrence_id))
        .mappings()
        .first()
    )
    if row is not None:
        close_in(connection, row["incident_id"], (row["subject"],), "recovered", detail, "pilotage", at)


def close_in(
    connection: sa.Connection,
    incident_id: str,
    subjects: Sequence[str],
    state: RunState,
    why: str,
    by: str,
    at: datetime,
) -> bool:
    """Whether something open of these subjects was closed; with the last one the incident is resolved."""
    if not subjects:
        return False
    result = connection.execute(
        incident_runs.update()
        .where(
            incident_runs.c.incident_id == incident_id,
            incident_runs.c.subject.in_(list(subjects)),
            incident_runs.c.state == "open",
        )
        .values(state=state, why=why[:500], closed_at=timestamp(at))
    )
    if not result.rowcount:
        return False
    _drop_proposals(connection, incident_id, subjects, state, at)
    left = connection.execute(
        sa.select(incident_runs.c.occurrence_id)
        .where(incident_runs.c.incident_id == incident_id, incident_runs.c.state == "open")
        .limit(1)
    ).first()
    if left is None:
        _resolve(connection, incident_id, by, at)
    return True


def _drop_proposals(
    connection: sa.Connection, incident_id: str, subjects: Sequence[str], state: RunState, at: datetime
) -> None:
    """Expire what still waits to be decided about runs that need nothing more."""
    wanted = (
        sa.select(proposals)
        .join(incident_runs, incident_runs.c.occurrence_id == proposals.c.incident_id)
        .where(
            incident_runs.c.incident_id == incident_id,
            incident_runs.c.subject.in_(list(subjects)),
            proposals.c.status.in_(sorted(OPEN)),
        )
    )
    for row in dicts(connection.execute(wanted)):
        set_status(connection, row["id"], "expired")
        note_row(connection, row, "expired", at, "clock", why=f"its run is {state}")


def _resolve(
    connection: sa.Connection, incident_id: str, by: str, at: datetime, resolution: str = ""
) -> None:
    states = connection.execute(
        sa.select(incident_runs.c.state, sa.func.count(sa.distinct(incident_runs.c.subject)))
        .where(incident_runs.c.incident_id == incident_id)
        .group_by(incident_runs.c.state)
    ).all()
    counted = ", ".join(f"{count} {state}" for state, count in sorted(states) if state != "open")
    said = resolution or counted
    connection.execute(
        incidents.update()
        .where(incidents.c.id == incident_id, incidents.c.state == "open")
        .values(state="resolved", resolved_at=timestamp(at), resolution=said)
    )
    _note(connection, "incident_resolved", incident_id, at, by, why=said)


def _settled(connection: sa.Connection, now: datetime) -> list[str]:
    """Resolve what is no failed run, was not found lately, and has nothing open; return the ids."""
    quiet = timestamp(now - QUIET)
    rows = dicts(
        connection.execute(
            sa.select(incident_runs)
            .join(incidents, incidents.c.id == incident_runs.c.incident_id)
            .where(
                incidents.c.state == "open",
                incidents.c.last_at < quiet,
                incident_runs.c.state == "open",
                incident_runs.c.failure_class.in_(sorted(_NOT_FAILURES)),
            )
        )
    )
    done = []
    for row in rows:
        still = connection.execute(
            sa.select(proposals.c.id)
            .where(proposals.c.incident_id == row["occurrence_id"], proposals.c.status.in_(OPEN_PROPOSALS))
            .limit(1)
        ).first()
        if still is None and close_in(
            connection,
            row["incident_id"],
            (row["subject"],),
            "superseded",
            "it was not found again",
            "clock",
            now,
        ):
            done.append(row["incident_id"])
    return sorted(set(done))


def _known(connection: sa.Connection, keys: Sequence[str], at: datetime) -> list[KnownIncident]:
    """The incidents with one of these keys that are open or were resolved lately."""
    ids = connection.execute(
        sa.select(incident_causes.c.incident_id)
        .join(incidents, incidents.c.id == incident_causes.c.incident_id)
        .where(
            incident_causes.c.cause.in_(list(keys)),
            sa.or_(
                incidents.c.state == "open",
                sa.and_(incidents.c.state == "resolved", incidents.c.resolved_at > timestamp(at - REOPEN)),
            ),
        )
        .distinct()
    ).scalars()
    found = []
    for incident_id in ids:
        row = _row(connection, incident_id)
        if row is None:
            continue
        causes = connection.execute(
            sa.select(incident_causes.c.cause).where(incident_causes.c.incident_id == incident_id)
        ).scalars()
        found.append(
            KnownIncident(
                incident_id=incident_id,
                keys=frozenset(causes),
                last_at=moment(row["last_at"]),
                opened_at=moment(row["opened_at"]),
                resolved_at=moment(row["resolved_at"]) if row["resolved_at"] else None,
                sealed=bool(row["sealed"]),
            )
        )
    return found


def _earlier(connection: sa.Connection, cause: str, now: datetime) -> list[dict[str, str]]:
    """The last incidents of the same cause, with what helped then."""
    rows = dicts(
        connection.execute(
            sa.select(incidents)
            .join(incident_causes, incident_causes.c.incident_id == incidents.c.id)
            .where(
                incident_causes.c.cause == cause,
                incidents.c.state == "resolved",
                incidents.c.resolved_at > timestamp(now - EARLIER),
            )
            .order_by(incidents.c.resolved_at.desc())
            .limit(LINKED)
        )
    )
    return [
        {
            "incident_id": row["id"],
            "at": row["opened_at"],
            "resolution": row["resolution"],
            "helped": ", ".join(_helped(connection, row["id"])),
        }
        for row in rows
    ]


def _helped(connection: sa.Connection, incident_id: str) -> list[str]:
    kinds = connection.execute(
        sa.select(proposals.c.kind)
        .join(outcomes, outcomes.c.proposal_id == proposals.c.id)
        .join(incident_runs, incident_runs.c.occurrence_id == proposals.c.incident_id)
        .where(
            incident_runs.c.incident_id == incident_id,
            outcomes.c.judgement == "verified",
            proposals.c.kind != NOTIFY,
        )
        .distinct()
    ).scalars()
    return sorted(kinds)


def _merge(connection: sa.Connection, kept: str, other: str, by: str, at: datetime) -> None:
    """Make the runs and keys of another incident those of `kept`."""
    keys = list(
        connection.execute(
            sa.select(incident_causes.c.cause).where(incident_causes.c.incident_id == other)
        ).scalars()
    )
    _add_causes(connection, kept, keys)
    connection.execute(
        incident_runs.update().where(incident_runs.c.incident_id == other).values(incident_id=kept)
    )
    connection.execute(
        incidents.update()
        .where(incidents.c.id == other)
        .values(state="merged", merged_into=kept, resolved_at=timestamp(at), resolution=f"part of {kept}")
    )
    _note(connection, "incident_merged", other, at, by, into=kept)


def _split(connection: sa.Connection, incident_id: str, wanted: set[str], by: str, at: datetime) -> str:
    rows = dicts(
        connection.execute(
            sa.select(incident_runs)
            .where(incident_runs.c.incident_id == incident_id, incident_runs.c.subject.in_(sorted(wanted)))
            .order_by(incident_runs.c.at, incident_runs.c.occurrence_id)
        )
    )
    old = _row(connection, incident_id)
    taken = {row["id"] for row in dicts(connection.execute(sa.select(incidents.c.id)))}
    new = next((row["occurrence_id"] for row in rows if row["occurrence_id"] not in taken), "")
    if old is None or not new:
        raise LedgerError(f"splitting {incident_id}: the run that opened it stays with it; name others")
    cases = connection.execute(
        sa.select(proposals.c.case_file).where(
            proposals.c.incident_id.in_([row["occurrence_id"] for row in rows])
        )
    ).scalars()
    prints = {str(json.loads(text).get("fingerprint") or "") for text in cases} - {""}
    fault = {f"fault:{one}" for one in prints}
    connection.execute(
        incidents.insert().values(
            id=new,
            cause=next(iter(sorted(fault)), rows[0]["subject"]),
            state="open" if any(row["state"] == "open" for row in rows) else "resolved",
            sealed=1,
            merged_into="",
            earlier="[]",
            opened_at=timestamp(at),
            last_at=max(row["at"] for row in rows),
            resolved_at="" if any(row["state"] == "open" for row in rows) else timestamp(at),
            resolution="",
            reopened=0,
            told="{}",
        )
    )
    _add_causes(connection, new, [*sorted(fault), *(row["subject"] for row in rows)])
    connection.execute(
        incident_causes.delete().where(
            incident_causes.c.incident_id == incident_id,
            incident_causes.c.cause.in_([*sorted(fault), *(row["subject"] for row in rows)]),
        )
    )
    connection.execute(
        incident_runs.update()
        .where(incident_runs.c.occurrence_id.in_([row["occurrence_id"] for row in rows]))
        .values(incident_id=new)
    )
    _note(connection, "incident_split", new, at, by, out_of=incident_id, runs=len(wanted))
    return str(new)


def _add_causes(connection: sa.Connection, incident_id: str, keys: Iterable[str]) -> None:
    there = set(
        connection.execute(
            sa.select(incident_causes.c.cause).where(incident_causes.c.incident_id == incident_id)
        ).scalars()
    )
    for key in dict.fromkeys(keys):
        if key not in there:
            connection.execute(incident_causes.insert().values(incident_id=incident_id, cause=key))


def _subjects(connection: sa.Connection, incident_id: str, run_ids: Sequence[str]) -> tuple[str, ...]:
    wanted = sa.select(incident_runs.c.subject).where(incident_runs.c.incident_id == incident_id).distinct()
    if run_ids:
        wanted = wanted.where(incident_runs.c.run_id.in_(list(run_ids)))
    return tuple(sorted(connection.execute(wanted).scalars()))


def _row(connection: sa.Connection, incident_id: str) -> dict[str, Any] | None:
    rows = dicts(connection.execute(sa.select(incidents).where(incidents.c.id == incident_id)))
    return rows[0] if rows else None


def whole_incident(connection: sa.Connection, row: Mapping[str, Any]) -> dict[str, Any]:
    """An incident as plain JSON: its row, its keys, and one line a subject with its newest state."""
    lines = dicts(
        connection.execute(
            sa.select(incident_runs)
            .where(incident_runs.c.incident_id == row["id"])
            .order_by(incident_runs.c.at, incident_runs.c.occurrence_id)
        )
    )
    newest: dict[str, dict[str, Any]] = {}
    for line in lines:
        newest[line["subject"]] = line
    causes = connection.execute(
        sa.select(incident_causes.c.cause).where(incident_causes.c.incident_id == row["id"])
    ).scalars()
    return {
        "incident_id": row["id"],
        "cause": row["cause"],
        "causes": sorted(causes),
        "state": row["state"],
        "merged_into": row["merged_into"],
        "earlier": json.loads(row["earlier"]),
        "opened_at": row["opened_at"],
        "last_at": row["last_at"],
        "resolved_at": row["resolved_at"],
        "resolution": row["resolution"],
        "reopened": row["reopened"],
        "told": json.loads(row["told"]),
        "acknowledged": _acknowledged(connection, row["id"]),
        "occurrences": [line["occurrence_id"] for line in lines],
        "runs": [
            {
                key: line[key]
                for key in ("subject", "run_id", "failure_class", "state", "why", "at", "closed_at")
            }
            for line in newest.values()
        ],
    }


def _note(
    connection: sa.Connection, event: str, incident_id: str, at: datetime, actor: str, **detail: object
) -> None:
    log.append(connection, Entry(event=event, at=at, actor=actor, incident_id=incident_id, detail=detail))


def _acknowledged(connection: sa.Connection, incident_id: str) -> dict[str, str]:
    """Who looks at an incident, since when and why; empty when nobody said so since it was opened or reopened."""
    body = connection.execute(
        sa.select(audit.c.body)
        .where(
            audit.c.incident_id == incident_id,
            audit.c.event.in_(("incident_acknowledged", "incident_resolved")),
        )
        .order_by(audit.c.seq.desc())
        .limit(1)
    ).scalar_one_or_none()
    step = json.loads(body) if body else {}
    if step.get("event") != "incident_acknowledged":
        return {}
    return {"by": step["actor"], "at": step["at"], "reason": str(step["detail"].get("reason") or "")}


def is_failure(failure_class: str) -> bool:
    """Whether a class is that of a failed run; an unknown word counts as one."""
    return failure_class not in _NOT_FAILURES and failure_class != FailureClass.RECOVERED
