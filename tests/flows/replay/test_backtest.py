"""What the playbooks would have proposed about past failures, judged under two bundles from telemetry alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.telemetry.samples import a_log, a_run, an_event
from typer.testing import CliRunner

from pilotage.console.cli import policy
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.config.settings import Settings
from pilotage.flows.replay.backtest import backtest
from pilotage.flows.replay.report import replay_report
from pilotage.planner.detect.failures import incident_id
from pilotage.planner.parameters import PlaybookParameters
from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE, GUARDRAILS_FILE, Bundle
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.publishing import files_to_publish
from pilotage.telemetry.facts import DeploymentFact, StateType
from pilotage.telemetry.store.duckdb import DuckDBStore

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
BEGUN = NOW - timedelta(days=20)
RUNS = {name: f"{number}1111111-1111-4111-8111-111111111111" for number, name in enumerate("abcdef", 1)}
DEV, PROD, GONE = (f"{number}2222222-2222-4222-8222-222222222222" for number in (1, 2, 3))


def minute(number: int) -> datetime:
    return NOW - timedelta(hours=10) + timedelta(minutes=number)


def failed(run: str, at: int, message: str = "ConnectionError: reset by peer", **changes: Any) -> Any:
    name = changes.pop("name", "prefect.flow-run.Failed")
    payload = {"validated_state": {"type": "FAILED", "name": "Failed", "message": message}}
    return event(run, at, name, event_id=f"state-{run[0]}-{at}", payload=payload)


def event(run: str, at: int, name: str, **changes: Any) -> Any:
    given = {"event_id": f"e-{run[0]}-{at}", "payload": {}, "run_id": run, **changes}
    return an_event(occurred=minute(at), name=name, resource_id=f"prefect.flow-run.{run}", **given)


def deployment(deployment_id: str, *tags: str) -> DeploymentFact:
    return DeploymentFact(
        deployment_id=deployment_id, name="nightly", flow_name="etl", tags=tags, updated=minute(-600)
    )


def run_of(name: str, deployment_id: str | None, state: StateType, at: int, **changes: Any) -> Any:
    given: dict[str, Any] = {
        "state_id": f"state-{RUNS[name][0]}-{at}",
        "state_message": "ConnectionError: reset by peer",
        "deployment_id": deployment_id,
        "created": minute(-60),
        "started": minute(0),
        "ended": minute(at),
        "updated": minute(at),
        "tags": (),
        "job_variables": {},
        **changes,
    }
    return a_run(RUNS[name], state, **given)


@pytest.fixture
def place(tmp_path: Path) -> StatePaths:
    """A development run that failed twice and completed when tried again an hour later, one that failed again, one
    in production, one whose deployment is gone, and one that was acted on."""
    where = StatePaths(root=tmp_path)
    store, ledger = DuckDBStore(where.telemetry), SqlLedger(f"sqlite:///{where.ledger}")
    store.merge_deployments([deployment(DEV, "env:dev", "team:data"), deployment(PROD, "env:prod")])
    store.merge_runs(
        [
            run_of("a", DEV, StateType.COMPLETED, 70, run_count=2, state_message=""),
            run_of("b", DEV, StateType.FAILED, 130, run_count=2),
            run_of("c", PROD, StateType.FAILED, 200),
            run_of("d", GONE, StateType.FAILED, 250),
            run_of("e", DEV, StateType.FAILED, 300, state_message="ValueError: no such column"),
        ]
    )
    a, b, c, d, e = (RUNS[name] for name in "abcde")
    store.add_events(
        [
            event(a, 0, "prefect.flow-run.Running"),
            failed(a, 5),
            event(a, 65, "prefect.flow-run.Running"),
            event(a, 70, "prefect.flow-run.Completed"),
            event(b, 100, "prefect.flow-run.Running"),
            failed(b, 110),
            event(b, 120, "prefect.flow-run.Running"),
            failed(b, 130),
            failed(c, 200),
            failed(d, 250),
            failed(e, 300, "ValueError: no such column"),
        ]
    )
    store.add_logs([a_log(1, run_id=a, at=minute(66), message="MemoryError", level=50)])
    store.close()
    ledger.close()
    return where


@cache
def under(numbers: str = "") -> Bundle:
    """The shipped policies with these guardrails."""
    return Bundle.of({**files_to_publish(DEFAULT_BUNDLE, None), GUARDRAILS_FILE: numbers}, Path("candidate"))


def report(place: StatePaths, numbers: str = "") -> dict[str, Any]:
    store, ledger = DuckDBStore(place.telemetry), SqlLedger(f"sqlite:///{place.ledger}")
    parameters = PlaybookParameters()
    try:
        return backtest(
            store, ledger, current=under(), candidate=under(numbers), since=BEGUN, parameters=parameters
        )
    finally:
        store.close()
        ledger.close()


def test_every_failure_gets_the_proposal_of_its_playbook(place: StatePaths) -> None:
    told = report(place)
    assert (told["failures"], told["proposed_then"]) == (6, 0)
    # three retries in dev of a and b, asked in prod, denied for want of facts, and a word to e's owner
    assert told["before"] == told["after"]
    assert told["before"]["approvals_asked"] == 1
    assert told["before"]["facts_missing"] == 1
    assert told["before"]["denied"] == 1
    assert told["before"]["allowed"] == told["proposals"] - 2
    assert told["moves"] == {}
    assert any("nobody approved" in one for one in told["assumed"])


def test_what_really_came_of_another_attempt_is_known_good_or_bad(place: StatePaths) -> None:
    told = report(place)["after"]
    # a completed an hour later; the first attempt at b after its failure failed; of the second nothing is known
    assert (told["allowed_known_good"], told["allowed_known_bad"]) == (1, 1)
    # a failed at minute 5, a retry was wanted after 10 s, and really came at minute 65
    assert told["minutes_saved"] == pytest.approx(60 - 10 / 60, abs=0.05)


def test_another_bundle_would_have_asked_nobody(place: StatePaths) -> None:
    told = report(place, "non_production: [dev, prod]\n")
    assert told["moves"] == {"needs_approval -> allow": 1}
    assert (told["before"]["approvals_asked"], told["after"]["approvals_asked"]) == (1, 0)
    (changed,) = told["changed"]
    assert (changed["kind"], changed["target"]) == ("retry_run", f"run:{RUNS['c']}")
    assert changed["policies_before"] == ["prod-needs-approver"]


def test_each_bundle_spends_a_budget_of_its_own(place: StatePaths) -> None:
    told = report(place, "max_actions_per_deployment_per_hour: 1\n")
    # b failed twice within the hour: its second retry finds the budget spent by the first, which nobody made
    assert told["moves"] == {"allow -> deny": 1}
    (changed,) = told["changed"]
    assert (changed["target"], changed["policies_after"]) == (f"run:{RUNS['b']}", ["deployment-budget"])


def test_what_was_proposed_then_is_not_supposed_again(place: StatePaths) -> None:
    from tests.bench.many_decisions import PILOT

    from pilotage.planner.actions.types import RetryRun
    from pilotage.planner.proposals import CaseFile, Proposal
    from pilotage.policies.digests import digest_of
    from pilotage.policies.types import FiledProposal

    run = RUNS["c"]
    proposal = Proposal(
        id="p-000000000001",
        incident_id=incident_id(f"run:{run}", f"state-{run[0]}-200"),
        action=RetryRun(run_id=run),
        expires_at=NOW,
    )
    ledger = SqlLedger(f"sqlite:///{place.ledger}")
    ledger.file(
        FiledProposal(
            proposal=proposal,
            case=CaseFile(subject=f"run:{run}", failure_class="transient"),
            proposer=PILOT,
            digest=digest_of(proposal, PILOT),
            filed_at=minute(200),
        )
    )
    ledger.close()
    told = report(place)
    assert (told["failures"], told["proposed_then"]) == (6, 1)
    assert told["before"]["approvals_asked"] == 0


def test_the_command_shows_both_parts(place: StatePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTAGE_STATE_DIR", str(place.root))
    days = str((datetime.now(UTC) - BEGUN).days + 1) if datetime.now(UTC) > BEGUN else "1"
    result = CliRunner().invoke(policy.app, ["replay", "--days", days, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["decisions"] == 0
    assert told["playbooks"]["failures"] == 6
    shown = CliRunner().invoke(policy.app, ["replay", "--days", days])
    assert shown.exit_code == 0, shown.output
    assert "facts missing" in shown.output
    assert "supposed:" in shown.output


def test_without_telemetry_the_second_part_says_so(tmp_path: Path) -> None:
    SqlLedger(f"sqlite:///{tmp_path / 'ledger.sqlite'}").close()
    told = replay_report(StatePaths(root=tmp_path), Settings(state_dir=tmp_path), under(), BEGUN)["playbooks"]
    assert "telemetry" in told["unknown"]
