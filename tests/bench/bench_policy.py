"""The gate beside raw Cedar on the same question, and an admission beside a bare durable SQLite commit."""

from __future__ import annotations

import itertools
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import cedarpy
from tests.bench.report import beside, in_turn, publish

from pilotage.planner.actions import RetryRun, target_of
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.bundle import DEFAULT_BUNDLE, Bundle
from pilotage.policies.digests import digest_of
from pilotage.policies.engines import EngineRequest, Entity, RawAnswer, Uid
from pilotage.policies.gate import Gate, LedgerFacts
from pilotage.policies.sql_ledger import SqlLedger
from pilotage.policies.verdicts import FiledProposal, Identity, Mode, Outcome, TargetFacts, Verdict

RUNS = 7
DECISIONS = 150
ADMISSIONS = 40
NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
PILOT = Identity(name="pilot", kind="agent", roles=frozenset({"agent"}))
COUNTED = LedgerFacts(stage="inject", mode=Mode.AUTO)


def proposed(number: int) -> FiledProposal:
    """A retry of a run of its own."""
    proposal = Proposal(
        id=f"p-{number:012x}",
        incident_id=f"i-{number:012x}",
        action=RetryRun(run_id=f"{number:08x}-1111-4111-8111-111111111111"),
        expires_at=NOW + timedelta(minutes=5),
    )
    return FiledProposal(
        proposal=proposal,
        case=CaseFile(subject=target_of(proposal.action), failure_class="transient"),
        proposer=PILOT,
        digest=digest_of(proposal, PILOT),
        filed_at=NOW,
    )


def facts_of(filed: FiledProposal, **fields: Any) -> TargetFacts:
    """A failed run of a dev deployment."""
    given = {"state_type": "FAILED", "deployment_id": "d", "env": "dev", **fields}
    return TargetFacts(target=target_of(filed.proposal.action), read_at=NOW, **given)


class Recorder:
    """The bundle's engine, keeping what it was asked first."""

    def __init__(self, bundle: Bundle) -> None:
        self._engine = bundle.engine
        self.asked: list[tuple[Sequence[EngineRequest], Sequence[Entity]]] = []

    def notes(self) -> Any:
        return self._engine.notes()

    def evaluate(
        self, requests: Sequence[EngineRequest], entities: Sequence[Entity]
    ) -> tuple[RawAnswer, ...]:
        self.asked.append((requests, entities))
        return self._engine.evaluate(requests, entities)


def raw_question(bundle: Bundle, filed: FiledProposal, target: TargetFacts) -> Callable[[], bool]:
    """The same question put to cedarpy itself, everything parsed beforehand that can be."""
    recorder = Recorder(bundle)
    Gate(replace(bundle, engine=recorder)).judge(filed, target, COUNTED, NOW)
    (request,), entities = recorder.asked[0]
    schema = cedarpy.Schema.from_str((DEFAULT_BUNDLE / "schema.cedarschema").read_text())
    texts = [path.read_text() for path in sorted(DEFAULT_BUNDLE.glob("*.cedar"))]
    policies = cedarpy.PolicySet.from_str("\n".join(texts))

    def uid(of: Uid) -> dict[str, str]:
        return {"type": f"Pilotage::{of.type}", "id": of.id}

    asked = {
        "principal": uid(request.principal),
        "action": {"type": "Pilotage::Action", "id": request.action},
        "resource": uid(request.resource),
        "context": dict(request.context),
    }
    text = json.dumps(
        [
            {"uid": uid(one.uid), "attrs": dict(one.attributes), "parents": [uid(of) for of in one.parents]}
            for one in entities
        ]
    )

    def ask() -> bool:
        slice_ = cedarpy.Entities.from_json_str(text, schema)
        return bool(cedarpy.is_authorized(asked, policies, slice_, schema).allowed)

    return ask


def per_call(work: Callable[[], object], times: int = DECISIONS) -> float:
    """Microseconds for one call."""
    begun = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - begun) / times * 1e6


def decisions() -> list[Any]:
    """Rows about verdicts."""
    bundle = Bundle.load()
    gate, filed = Gate(bundle), proposed(1)
    rows = []
    cases = (
        ("allow", Outcome.ALLOW, facts_of(filed)),
        ("deny", Outcome.DENY, facts_of(filed, state_type="COMPLETED")),
        ("needs_approval", Outcome.NEEDS_APPROVAL, facts_of(filed, env="prod")),
    )
    for name, outcome, target in cases:
        raw = raw_question(bundle, filed, target)

        def judge(target: TargetFacts = target) -> Verdict:
            return gate.judge(filed, target, COUNTED, NOW)

        # both must answer the same question, or the comparison means nothing
        assert judge().outcome is outcome
        assert raw() is (outcome is Outcome.ALLOW)
        found = in_turn({"ours": partial(per_call, judge), "raw": partial(per_call, raw)}, RUNS)
        measure = f"{name}_verdict_vs_raw_cedar"
        rows.append(beside(measure, "us", RUNS, ours=found["ours"], peer="cedarpy", theirs=found["raw"]))
    return rows


def admissions(folder: Path) -> list[Any]:
    """Rows about admission."""
    ledger, gate = SqlLedger(f"sqlite:///{folder / 'ledger.sqlite'}"), Gate(Bundle.load())
    numbers = itertools.count(1)
    bare = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    bare.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE outbox (id TEXT, body TEXT);"
    )

    def ours() -> float:
        batch = [proposed(next(numbers)) for _ in range(ADMISSIONS)]
        for filed in batch:
            ledger.file(filed)
        waiting = iter(batch)

        def admit() -> None:
            filed = next(waiting)
            target = facts_of(filed)

            # budgets are beside the point here: the whole decision is made, its counts are not obeyed
            def decide(stored: FiledProposal, _counted: LedgerFacts) -> Verdict:
                return gate.judge(stored, target, COUNTED, NOW)

            ledger.admit(filed.proposal.id, decide, Mode.AUTO, NOW, target)

        return per_call(admit, ADMISSIONS) / 1000

    def theirs() -> float:
        def commit() -> None:
            bare.execute("BEGIN IMMEDIATE")
            bare.execute("INSERT INTO outbox VALUES ('p', ?)", ("x" * 500,))
            bare.execute("COMMIT")

        return per_call(commit, ADMISSIONS) / 1000

    try:
        found = in_turn({"ours": ours, "bare": theirs}, RUNS)
        assert ledger.counts()["admitted"] == ADMISSIONS * RUNS
    finally:
        ledger.close()
        bare.close()
    return [beside("admission", "ms", RUNS, ours=found["ours"], peer="sqlite3 commit", theirs=found["bare"])]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        publish("policy", [*decisions(), *admissions(Path(folder))])


if __name__ == "__main__":
    main()
