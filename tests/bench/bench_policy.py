"""The gate beside raw Cedar on the same question with few and many policies, an admission beside a bare durable
SQLite commit, and the replay of a hundred thousand decisions.

Raw Cedar is one `is_authorized` over all policies, parsed beforehand, on a slice that is parsed again, as ours is.
It answers one question; a verdict asks as many as it takes to tell which approvals would be enough, hashes the
proposal, and explains. The gate may be the faster one: it leaves out policies whose head cannot match.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import statistics
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
from tests.bench.many_decisions import filled
from tests.bench.report import Row, beside, in_turn, publish

from pilotage.planner.actions.types import RetryRun, target_of
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.cedar.engine import CedarEngine, policies_as_json, policies_as_text
from pilotage.policies.cedar.protocol import EngineRequest, Entity, RawAnswer, Uid
from pilotage.policies.digests import digest_of
from pilotage.policies.gate.gate import Gate, LedgerFacts
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.replay.parallel import replayed_rows
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, TargetFacts, Verdict

RUNS = 7
DECISIONS = 200
ADMISSIONS = 40
REPLAYED = 100_000
NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
PILOT = Identity(name="pilot", kind="agent", roles=frozenset({"agent"}))
LEDGER_FACTS = LedgerFacts(stage="inject", mode=Mode.AUTO)


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
    Gate(replace(bundle, engine=recorder)).judge(filed, target, LEDGER_FACTS, NOW)
    (request,), entities = recorder.asked[0]
    schema = cedarpy.Schema.from_str(bundle.schema)
    policies = cedarpy.PolicySet.from_str("\n".join(bundle.texts.values()))

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


FEW = (
    "agent-retries", "agent-resizes", "operator-acts", "kill-switch", "hands-off", "run-budget", "cooldown",
    "completed-never-again", "retry-only-failed", "prod-needs-approver",
)  # fmt: skip
"""A small site's policies."""
KINDS = (
    "retry_run",
    "resize_run",
    "cancel_run",
    "reserve_slot",
    "notify_owner",
    "set_priority",
    "pause_deployment",
)


def padding(number: int) -> str:
    """A policy of one team or environment, as big sites have them; none decides the questions that are asked."""
    action, place = KINDS[number % len(KINDS)], f"site-{number}"
    everything = '[Pilotage::Action::"reversible", Pilotage::Action::"disruptive"]'
    one = f'action == Pilotage::Action::"{action}"'
    body = (
        f"forbid (principal is Pilotage::Agent, {one}, resource) "
        f'when {{ resource.env == "{place}" && resource.tier <= 1 }}',
        f'forbid (principal, action in {everything}, resource in Pilotage::Team::"{place}") '
        "when { context.world.clock.weekday >= 6 }",
        f'permit (principal in Pilotage::Role::"operator", {one}, resource) when {{ resource.env == "{place}" }}',
        f"forbid (principal is Pilotage::Agent, action in {everything}, resource) "
        f'when {{ resource.env == "{place}" && context.world.budget.actions_1h >= {number % 60} }} '
        "unless { context.world.approvals.approver >= 1 }",
    )[number % 4]
    return f'@id("{place}") @reason("what {place} wants")\n{body};'


def bundle_of(size: int, shipped: Bundle) -> Bundle:
    """A valid bundle with so many policies: some of the shipped ones, or all of them and more."""
    policies = [policy for text in shipped.texts.values() for policy in policies_as_json(text)]
    if size < len(policies):
        policies = [policy for policy in policies if policy["annotations"]["id"] in FEW][:size]
    added = "\n".join(padding(number) for number in range(size - len(policies)))
    texts = {"kept.cedar": policies_as_text(policies), **({"added.cedar": added} if added else {})}
    engine = CedarEngine.compiled(shipped.schema, texts)
    assert len(engine.notes()) == size
    return replace(shipped, engine=engine, notes=engine.notes(), texts=texts)


def timed(work: Callable[[], object], times: int) -> tuple[float, float]:
    """The median and the 99th percentile of one call, in microseconds."""
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        took.append((time.perf_counter() - begun) * 1e6)
    took.sort()
    return took[len(took) // 2], took[int(len(took) * 0.99)]


def decisions(bundle: Bundle, size: str, times: int) -> list[Row]:
    """Rows about verdicts of all three kinds under one bundle; `size` ends the names of the measures."""
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
            return gate.judge(filed, target, LEDGER_FACTS, NOW)

        # both must answer the same question, or the comparison means nothing
        assert judge().outcome is outcome
        assert raw() is (outcome is Outcome.ALLOW)
        rounds = [(timed(judge, times), timed(raw, times)) for _ in range(RUNS)]

        def median(who: int, which: int, rounds: Any = rounds) -> float:
            return float(statistics.median(one[who][which] for one in rounds))

        both = partial(beside, runs=RUNS, peer="cedarpy")
        rows += [
            both(f"{name}_verdict_vs_raw_cedar{size}", "us", ours=median(0, 0), theirs=median(1, 0)),
            both(f"{name}_verdict_p99{size}", "us", ours=median(0, 1), theirs=median(1, 1)),
            both(
                f"{name}_verdicts_per_second{size}", "1/s", ours=1e6 / median(0, 0), theirs=1e6 / median(1, 0)
            ),
        ]
    return rows


def replay(folder: Path, bundle: Bundle) -> Row:
    """Seconds to make a hundred thousand stored decisions again, by the path of `pilotage policy replay`."""
    ledger = SqlLedger(f"sqlite:///{folder / 'past.sqlite'}")
    try:
        filled(ledger, bundle, REPLAYED, NOW)
        begun = time.perf_counter()
        report = replayed_rows(bundle, ledger.stored_decisions(NOW - timedelta(days=30)))
        took = time.perf_counter() - begun
        assert (report.decisions, report.same) == (REPLAYED, REPLAYED)
    finally:
        ledger.close()
    return beside("replay_100k", "s", 1, ours=took)


def admissions(folder: Path, bundle: Bundle) -> list[Any]:
    """Rows about admission."""
    ledger, gate = SqlLedger(f"sqlite:///{folder / 'ledger.sqlite'}"), Gate(bundle)
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
                return gate.judge(stored, target, LEDGER_FACTS, NOW)

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
    shipped = Bundle.load()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = decisions(shipped, "", DECISIONS)
        for size, times in ((10, DECISIONS), (100, DECISIONS), (1000, DECISIONS // 3)):
            rows += decisions(bundle_of(size, shipped), f"_{size}_policies", times)
        publish("policy", [*rows, *admissions(folder, shipped), replay(folder, shipped)])


if __name__ == "__main__":
    main()
