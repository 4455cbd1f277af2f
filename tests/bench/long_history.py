"""A long past, written at once: ended runs in the store, and proposals with their outcomes in the ledger."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pilotage.planner.actions.types import RetryRun, target_of
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.digests import digest_of, idempotency_key_of
from pilotage.policies.json_values import timestamp
from pilotage.policies.ledger.rows import as_text, proposal_row
from pilotage.policies.ledger.schema import outbox, outcomes, proposals, receipts, verdicts
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Identity, Outcome, Verdict
from pilotage.telemetry.facts import DeploymentFact, RunFact, StateType
from pilotage.telemetry.store.duckdb import DuckDBStore

DEPLOYMENTS = 50
BATCH = 5000
SPAN = timedelta(days=60)
PLANNER = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))


def ended_runs(store: DuckDBStore, count: int, until: datetime, seed: int = 1) -> None:
    """Write so many runs of the sixty days before `until`; one in twenty failed."""
    rng = random.Random(seed)
    store.merge_deployments(
        [
            DeploymentFact(
                deployment_id=_deployment(number), name="main", flow_name=f"flow-{number}", pool="pool", queue="default",
                tags=("env:staging",), updated=until,
            )
            for number in range(DEPLOYMENTS)
        ]
    )  # fmt: skip
    batch: list[RunFact] = []
    for number in range(count):
        ended = until - timedelta(hours=2) - SPAN * (1 - number / count)
        place = rng.randrange(DEPLOYMENTS)
        state = StateType.FAILED if rng.random() < 0.05 else StateType.COMPLETED
        began = ended - timedelta(seconds=rng.randrange(20, 600))
        batch.append(
            RunFact(
                run_id=_run(number), name=f"run-{number}", flow_name=f"flow-{place}", state_type=state,
                state_name=state.value.title(), state_id=f"s-{number}", deployment_id=_deployment(place),
                deployment_name="main", pool="pool", queue="default", run_count=1, created=began, expected_start=began,
                started=began, ended=ended, updated=ended, state_at=ended, auto_scheduled=True, tags=("env:staging",),
            )
        )  # fmt: skip
        if len(batch) == BATCH:
            store.merge_runs(batch)
            batch = []
    if batch:
        store.merge_runs(batch)
    store.checkpoint()


def outcomes_of(ledger: SqlLedger, count: int, until: datetime, seed: int = 1) -> None:
    """Write so many retries that were let in, delivered and verified; one in ten was in vain."""
    rng = random.Random(seed)
    let_in = as_text(Verdict(outcome=Outcome.ALLOW, policy_ids=("bench",)))
    for first in range(0, count, BATCH):
        rows: dict[str, list[dict[str, Any]]] = {}
        for number in range(first, min(first + BATCH, count)):
            at = until - timedelta(hours=3) - SPAN * (1 - number / count)
            action = RetryRun(run_id=_run(number))
            proposal = Proposal(
                id=f"p-{number:012x}", incident_id=f"i-{number:012x}", action=action, expires_at=at + timedelta(hours=1)
            )  # fmt: skip
            digest = digest_of(proposal, PLANNER)
            case = CaseFile(
                subject=target_of(action), failure_class="transient", fingerprint=f"{number % 97:08x}"
            )
            filed = FiledProposal(proposal=proposal, case=case, proposer=PLANNER, digest=digest, filed_at=at)
            good = "failed" if rng.random() < 0.1 else "verified"
            deployment, stamp = _deployment(rng.randrange(DEPLOYMENTS)), timestamp(at)
            written: tuple[tuple[str, dict[str, Any]], ...] = (
                ("proposals", {**proposal_row(filed), "status": good, "deployment_id": deployment}),
                ("verdicts", {
                    "seq": number + 1, "proposal_id": proposal.id, "stage": "inject", "outcome": "allow",
                    "verdict": let_in, "target_facts": "null", "ledger_facts": "{}", "at": stamp,
                }),
                ("outbox", {
                    "proposal_id": proposal.id, "verdict_seq": number + 1, "digest": digest,
                    "mark": idempotency_key_of(digest), "kind": action.kind, "target": target_of(action),
                    "run_id": action.run_id, "deployment_id": deployment, "fingerprint": case.fingerprint,
                    "state": "delivered", "admitted_at": stamp, "attempts": 1, "owner": "bench", "free_at": "",
                    "last_error": "",
                }),
                ("receipts", {
                    "proposal_id": proposal.id, "effect": "done", "receipt": "{}", "delivered_at": stamp, "undo_at": "",
                    "undone_at": "", "undo": "",
                }),
                ("outcomes", {
                    "proposal_id": proposal.id, "judgement": good, "detail": "", "final_state": "", "at": stamp,
                }),
            )  # fmt: skip
            for name, row in written:
                rows.setdefault(name, []).append(row)
        with ledger.writing("filling a ledger") as connection:
            for table in (proposals, verdicts, outbox, receipts, outcomes):
                connection.execute(table.insert(), rows[table.name])


def _run(number: int) -> str:
    return str(UUID(int=(1 << 120) + number))


def _deployment(number: int) -> str:
    return str(UUID(int=(2 << 120) + number))
