"""Many incidents and proposals at once, for lists and pictures: written as the ledger does it, in one transaction."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from tests.console.console_stack import AGENT, ConsoleStack

from pilotage.planner.actions.types import RetryRun, target_of
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.digests import digest_of
from pilotage.policies.ledger.proposals import _insert
from pilotage.policies.types import FiledProposal, Outcome, TargetFacts, Verdict
from pilotage.telemetry.facts import LogLine, RunFact, StateType

ERRORS = (
    ("transient", "ConnectError: prices.example refused the connection"),
    ("memory", "OOMKilled: container etl exceeded 512 MiB"),
    ("credentials", "AuthenticationError: token of warehouse has expired"),
    ("data", "ValidationError: 3 rows of orders without a customer"),
    ("timeout", "QueryTimeout: statement was cancelled after 300 s"),
)
VIEWS = ("now", "inbox", "incidents", "runs", "chat/new", "queues", "forecast", "kpi", "audit")
"""Every view of the page that needs no id."""
FLOWS = (
    "orders",
    "prices",
    "reports",
    "loyalty_points_of_all_customers_by_region_and_day",
    "stock",
    "invoices",
)


def fill(port: ConsoleStack, incidents: int, runs_each: int, *, rich: bool = False) -> list[str]:
    """The ids of so many incidents, each of so many failed runs with one cause and a retry of each that waits.

    `rich` runs have log lines.
    """
    now = datetime.now(UTC)
    facts, lines, ids = [], [], []
    with port.ledger.writing("filling for a test") as connection:
        for number in range(incidents):
            failure_class, error = ERRORS[number % len(ERRORS)]
            flow = FLOWS[number % len(FLOWS)]
            began = now - timedelta(minutes=3 * (incidents - number) + 5)
            for part in range(runs_each):
                run_id = str(UUID(int=(number + 1) * 10_000 + part))
                name = f"{('amber', 'brave', 'calm', 'dusty', 'eager')[part % 5]}-otter-{number}-{part}"
                failed = began + timedelta(seconds=20 * part)
                facts.append(_run(run_id, name, flow, error, failed))
                if rich:
                    lines += [
                        _line(run_id, failed, level, words, n)
                        for n, (level, words) in enumerate(
                            [
                                (20, f"Loading {flow} for {name}"),
                                (30, "The first answer was slow"),
                                (40, error),
                            ]
                        )
                    ]
                filed = _filed(number, part, run_id, failure_class, error, flow, failed)
                _insert(connection, filed)
                port.ledger._keep_verdict(
                    connection, filed, "judge", _asks(), _facts(filed, flow, number), now, None
                )
            ids.append(f"i-{number * 1000:012x}")
    port.store.merge_runs(facts)
    if lines:
        port.store.add_logs(lines)
    return ids


def views_of(ids: list[str]) -> tuple[str, ...]:
    """Every view of the page, with those of one incident, run and proposal where there are any."""
    if not ids:
        return VIEWS
    number = int(ids[-1].removeprefix("i-"), 16) // 1000
    run_id = UUID(int=(number + 1) * 10_000)
    return (*VIEWS, f"incident/{ids[-1]}", f"run/{run_id}", f"proposal/{ids[-1].replace('i-', 'p-')}")


def _run(run_id: str, name: str, flow: str, error: str, failed: datetime) -> RunFact:
    return RunFact(
        run_id=run_id,
        name=name,
        flow_name=flow,
        state_type=StateType.FAILED,
        state_name="Failed",
        state_id="s-1",
        state_message=error,
        deployment_id=str(UUID(int=FLOWS.index(flow) + 1)),
        deployment_name="nightly",
        pool="etl",
        queue="default",
        run_count=1,
        created=failed - timedelta(minutes=4),
        expected_start=failed - timedelta(minutes=3),
        started=failed - timedelta(minutes=2),
        ended=failed,
        updated=failed,
        tags=("env:staging",),
    )


def _line(run_id: str, at: datetime, level: int, words: str, number: int) -> LogLine:
    return LogLine(
        log_id=f"{run_id}-{number}",
        run_id=run_id,
        at=at - timedelta(seconds=10 - number),
        level=level,
        message=words,
    )


def _filed(
    number: int, part: int, run_id: str, failure_class: str, error: str, flow: str, failed: datetime
) -> FiledProposal:
    key = f"{number * 1000 + part:012x}"
    proposal = Proposal(
        id=f"p-{key}",
        incident_id=f"i-{key}",
        action=RetryRun(run_id=run_id),
        expires_at=datetime.now(UTC) + timedelta(hours=2 + number % 20),
        evidence=("state:s-1",),
    )
    case = CaseFile(
        subject=target_of(proposal.action),
        failure_class=failure_class,
        found_by="rules",
        rule_id="connection_refused",
        notes=(error,),
        p_fail=(number % 97) / 100,
        forecast_model="boosted trees",
        forecast_reasons=("3 failures in a row raise it by 20 points",),
        expected_effect="the run completes on its second attempt",
        causes=(f"fault:{number}",),
        deployment=f"{flow}/nightly",
        error=error,
        failed_at=failed,
    )
    filed_at = failed + timedelta(seconds=10)
    return FiledProposal(
        proposal=proposal, case=case, proposer=AGENT, digest=digest_of(proposal, AGENT), filed_at=filed_at
    )


def _asks() -> Verdict:
    return Verdict(
        outcome=Outcome.NEEDS_APPROVAL,
        policy_ids=("approve-mode-needs-approver",),
        reasons=("in the mode approve every action needs an approver",),
        requirements={"approver": 1},
    )


def _facts(filed: FiledProposal, flow: str, number: int) -> TargetFacts:
    return TargetFacts(
        target=target_of(filed.proposal.action),
        read_at=datetime.now(UTC),
        state_type="FAILED",
        state_name="Failed",
        state_id="s-1",
        deployment_id=str(UUID(int=FLOWS.index(flow) + 1)),
        deployment_name=f"{flow}/nightly",
        env="staging",
        tier=2,
        team=("data", "web", "finance")[number % 3],
        memory_mb=512,
    )
