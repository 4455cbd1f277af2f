"""The questions about many runs at once: whole deployments, queues and families of runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pilotage.telemetry.facts import DeploymentFact, PoolFact, RunFact, TaskRunFact
from pilotage.telemetry.pool_memory import VARIABLES
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.schema import facts_from_rows

MOST = 2000
"""Rows of one answer; a backlog is one before that."""
PUT_OFF = timedelta(minutes=1)
"""A run that waits for a concurrency limit counts as due: Prefect puts it off by half a minute each time."""
_ENDED = "state_type IN ('COMPLETED', 'FAILED', 'CRASHED')"


def deployments(store: Store) -> list[DeploymentFact]:
    """Every deployment, by name."""
    return facts_from_rows(
        DeploymentFact, store.rows("SELECT * FROM deployments ORDER BY flow_name, name, deployment_id")
    )


def pools(store: Store) -> dict[str, PoolFact]:
    """Every work pool, by its name."""
    facts = facts_from_rows(PoolFact, store.rows("SELECT * FROM pools"))
    return {fact.pool: fact for fact in facts}


def pool_of(store: Store, run: RunFact | None, deployment: DeploymentFact | None) -> PoolFact | None:
    """Return the pool in which a run starts, or a deployment's where there is no run; None when it is not known."""
    name = (run.pool if run else None) or (deployment.pool if deployment else None)
    if not name:
        return None
    rows = store.rows("SELECT * FROM pools WHERE pool = ?", [name])
    return next(iter(facts_from_rows(PoolFact, rows)), None)


def backlogged(store: Store, now: datetime, at_least: int) -> dict[str, list[RunFact]]:
    """The due runs of each deployment that has so many, longest waiting first."""
    soon = now + PUT_OFF
    due = "state_type = 'SCHEDULED' AND next_start <= ? AND deployment_id IS NOT NULL"
    sql = (
        f"SELECT * FROM runs WHERE {due} AND deployment_id IN ("  # noqa: S608
        f"SELECT deployment_id FROM runs WHERE {due} GROUP BY deployment_id HAVING count(*) >= ?) "
        "ORDER BY expected_start, run_id LIMIT ?"
    )
    runs: dict[str, list[RunFact]] = {}
    for run in facts_from_rows(RunFact, store.rows(sql, [soon, soon, at_least, MOST])):
        runs.setdefault(str(run.deployment_id), []).append(run)
    return runs


def due_of(store: Store, deployment_id: str, now: datetime) -> list[RunFact]:
    """The due runs of one deployment, as `crowded` counts them, longest waiting first."""
    sql = (
        "SELECT * FROM runs WHERE deployment_id = ? AND state_type = 'SCHEDULED' AND next_start <= ? "
        "ORDER BY expected_start, run_id LIMIT ?"
    )
    return facts_from_rows(RunFact, store.rows(sql, [deployment_id, now + PUT_OFF, MOST]))


def first_start_after(store: Store, pool: str, moment: datetime) -> datetime | None:
    """When the first run of the pool was started after a moment, or None while none was."""
    sql = "SELECT min(started) AS first FROM runs WHERE pool = ? AND started > ?"
    first: datetime | None = store.rows(sql, [pool, moment])[0]["first"]
    return first


def failing_queues(store: Store, since: datetime, at_least: int) -> dict[tuple[str, str], list[RunFact]]:
    """The ended runs, newest first, of each queue where so many ended since a moment and not one completed."""
    sql = (
        f"SELECT * FROM runs WHERE {_ENDED} AND ended > ? AND (pool, queue) IN ("  # noqa: S608
        f"SELECT (pool, queue) FROM runs WHERE {_ENDED} AND ended > ? AND pool IS NOT NULL AND queue IS NOT NULL "
        "GROUP BY pool, queue HAVING count(*) >= ? AND count(*) FILTER (state_type = 'COMPLETED') = 0) "
        "ORDER BY ended DESC, run_id LIMIT ?"
    )
    runs: dict[tuple[str, str], list[RunFact]] = {}
    for run in facts_from_rows(RunFact, store.rows(sql, [since, since, at_least, MOST])):
        runs.setdefault((str(run.pool), str(run.queue)), []).append(run)
    return runs


def completed_since(store: Store, deployment_ids: Sequence[str], moment: datetime) -> RunFact | None:
    """The first run of any of these deployments that started after a moment and completed, or None."""
    if not deployment_ids:
        return None
    marks = ", ".join("?" for _ in deployment_ids)
    sql = (
        f"SELECT * FROM runs WHERE deployment_id IN ({marks}) AND state_type = 'COMPLETED' "  # noqa: S608
        "AND started > ? ORDER BY ended, run_id LIMIT 1"
    )
    rows = store.rows(sql, [*deployment_ids, moment])
    return next(iter(facts_from_rows(RunFact, rows)), None)


def with_sizes_of_their_own(store: Store) -> set[str]:
    """Return the deployments of which an ended run had a size of its own."""
    has_size = " OR ".join(f"json_extract(job_variables, '$.{name}') IS NOT NULL" for name in VARIABLES)
    sql = (
        f"SELECT DISTINCT deployment_id FROM runs WHERE {_ENDED} AND deployment_id IS NOT NULL "  # noqa: S608
        f"AND ({has_size})"
    )
    return {str(row["deployment_id"]) for row in store.rows(sql)}


def running(store: Store) -> list[RunFact]:
    """The runs that are RUNNING, oldest first."""
    return facts_from_rows(
        RunFact,
        store.rows(
            "SELECT * FROM runs WHERE state_type = 'RUNNING' ORDER BY started, run_id LIMIT ?", [MOST]
        ),
    )


def last_ended(store: Store, deployment_id: str, limit: int) -> list[RunFact]:
    """The newest ended runs of a deployment, newest first."""
    sql = f"SELECT * FROM runs WHERE deployment_id = ? AND {_ENDED} ORDER BY ended DESC, run_id LIMIT ?"  # noqa: S608
    return facts_from_rows(RunFact, store.rows(sql, [deployment_id, limit]))


def last_ended_of(store: Store, deployments: Sequence[str], limit: int) -> dict[str, list[RunFact]]:
    """The same of each of these deployments that has one, in one statement."""
    if not deployments:
        return {}
    sql = (
        f"SELECT * FROM runs WHERE deployment_id IN (SELECT unnest(?::VARCHAR[])) AND {_ENDED} "  # noqa: S608
        "QUALIFY row_number() OVER (PARTITION BY deployment_id ORDER BY ended DESC, run_id) <= ? "
        "ORDER BY deployment_id, ended DESC, run_id"
    )
    found: dict[str, list[RunFact]] = {}
    for run in facts_from_rows(RunFact, store.rows(sql, [list(deployments), limit])):
        found.setdefault(str(run.deployment_id), []).append(run)
    return found


def seen_to_now(store: Store, since: datetime, fresh: datetime) -> set[str]:
    """The deployments whose failures are being seen to since a moment.

    A run of theirs failed and something was proposed about it, or it failed after `fresh` and that is still to come, or
    it is tried again. What failed and is nobody's concern, such as before the start, is not among them.
    """
    sql = (
        "SELECT DISTINCT deployment_id AS id FROM runs WHERE deployment_id IS NOT NULL AND ("
        "(state_type IN ('FAILED', 'CRASHED') AND ended > ? AND (ended > ? OR run_id IN "
        '(SELECT run_id FROM decisions WHERE "at" > ? AND run_id IS NOT NULL))) OR (updated > ? AND '
        "((state_type IN ('SCHEDULED', 'PENDING') AND run_count > 0) OR (state_type = 'RUNNING' AND run_count > 1))))"
    )
    return {str(row["id"]) for row in store.rows(sql, [since, fresh, since, since])}


def with_failed_runs(store: Store, deployments: Collection[str]) -> set[str]:
    """Those of these deployments of which a run has failed or crashed, as far as is known."""
    sql = (
        "SELECT DISTINCT deployment_id AS id FROM runs WHERE deployment_id IN (SELECT unnest(?::VARCHAR[])) "
        "AND state_type IN ('FAILED', 'CRASHED')"
    )
    return {str(row["id"]) for row in store.rows(sql, [sorted(deployments)])}


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A run that goes on although the run that started it has ended."""

    child: RunFact
    parent: RunFact


def orphans(store: Store, ended_before: datetime) -> list[Orphan]:
    """The live runs of deployments whose parent CRASHED or was CANCELLED before a moment, by parent."""
    pairs = store.rows(
        "SELECT c.run_id AS child, p.run_id AS parent FROM runs c "
        "JOIN task_runs t ON t.task_run_id = c.parent_task_run_id JOIN runs p ON p.run_id = t.run_id "
        "WHERE c.state_type IN ('SCHEDULED', 'PENDING', 'RUNNING') AND c.deployment_id IS NOT NULL "
        "AND p.state_type IN ('CRASHED', 'CANCELLED') AND p.ended < ? ORDER BY p.run_id, c.run_id LIMIT ?",
        [ended_before, MOST],
    )
    ids = sorted({run_id for pair in pairs for run_id in (pair["child"], pair["parent"])})
    if not ids:
        return []
    marks = ", ".join("?" for _ in ids)
    rows = store.rows(f"SELECT * FROM runs WHERE run_id IN ({marks})", ids)  # noqa: S608
    known = {run.run_id: run for run in facts_from_rows(RunFact, rows)}
    return [Orphan(child=known[pair["child"]], parent=known[pair["parent"]]) for pair in pairs]


def parent_of(store: Store, run: RunFact) -> RunFact | None:
    """The run that started a run, where it is known."""
    if run.parent_task_run_id is None:
        return None
    sql = "SELECT r.* FROM task_runs t JOIN runs r ON r.run_id = t.run_id WHERE t.task_run_id = ? LIMIT 1"
    return next(iter(facts_from_rows(RunFact, store.rows(sql, [run.parent_task_run_id]))), None)


def failed_children(store: Store, parent: RunFact) -> list[RunFact]:
    """The runs that a run had started and that are FAILED or CRASHED since before its own end, by their ends."""
    rows = store.rows(
        "SELECT c.* FROM runs c JOIN task_runs t ON t.task_run_id = c.parent_task_run_id "
        "WHERE t.run_id = ? AND c.state_type IN ('FAILED', 'CRASHED') AND c.ended <= ? "
        "ORDER BY c.ended, c.run_id LIMIT ?",
        [parent.run_id, parent.ended or parent.updated, MOST],
    )
    return facts_from_rows(RunFact, rows)


def task_runs_of(store: Store, run_id: str) -> list[TaskRunFact]:
    """The task runs of all attempts of a run, in the order of their ends."""
    sql = "SELECT * FROM task_runs WHERE run_id = ? ORDER BY ended, task_run_id LIMIT ?"
    return facts_from_rows(TaskRunFact, store.rows(sql, [run_id, MOST]))


@dataclass(frozen=True, slots=True, kw_only=True)
class PastStep:
    """One step of a proposal about a standing trouble, as the ledger's mirror keeps it."""

    fingerprint: str
    action: str
    step: str
    at: datetime


def cancelled_for(store: Store, since: datetime, classes: Sequence[str]) -> list[tuple[str, str]]:
    """The runs that we cancelled since a moment for one of these classes of trouble, each with the class.

    Not those in whose places a run was proposed already.
    """
    sql = """
        SELECT DISTINCT d.run_id, json_extract_string(p.detail, '$.failure_class') AS kind
        FROM decisions d JOIN decisions p ON p.proposal_id = d.proposal_id AND p.step = 'proposed'
        WHERE d.action = 'cancel_run' AND d.step = 'verified' AND d.outcome = 'verified' AND d."at" > ?
        AND json_extract_string(p.detail, '$.failure_class') IN (SELECT unnest(?::VARCHAR[]))
        AND NOT EXISTS (SELECT 1 FROM decisions x WHERE x.run_id = d.run_id AND x.action = 'start_run')
        ORDER BY ALL LIMIT ?
    """
    return [(row["run_id"], row["kind"]) for row in store.rows(sql, [since, list(classes), MOST])]


def runs_of(store: Store, ids: Sequence[str]) -> list[RunFact]:
    """The runs with these ids, by id."""
    if not ids:
        return []
    sql = "SELECT * FROM runs WHERE run_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY run_id"
    return facts_from_rows(RunFact, store.rows(sql, [list(ids)]))


def steps_since(store: Store, moment: datetime) -> list[PastStep]:
    """The steps since a moment of the proposals that were filed under a fingerprint, oldest first."""
    sql = """
        WITH named AS (
            SELECT DISTINCT proposal_id, json_extract_string(detail, '$.fingerprint') AS fingerprint
            FROM decisions WHERE step = 'proposed'
        )
        SELECT n.fingerprint, d.action, d.step, d."at" FROM decisions d JOIN named n USING (proposal_id)
        WHERE d."at" > ? AND n.fingerprint <> '' AND d.step IN ('proposed', 'injected', 'undone')
        AND coalesce(d.outcome, '') <> 'refused' ORDER BY d."at", d.decision_id
    """
    return [PastStep(**row) for row in store.rows(sql, [moment])]
