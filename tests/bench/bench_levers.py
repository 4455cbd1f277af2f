"""How soon a lever has its effect: from a failure to a remediation beside Prefect's own automation, and each lever
by itself from the moment it is asked until it is verified.

Both sides of the first are told by the server's clock: the time of the Failed state and the time at which the
remediation was made. Ours goes the whole way: event, facts, judgement, ledger, outbox, lever.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.report import Row, beside, publish

from pilotage.flows.embedded import EmbeddedPrefect
from pilotage.planner.actions import (
    Action,
    CancelRun,
    ChangeParameters,
    Directive,
    HoldQueue,
    LaunchRemediation,
    LimitScope,
    MoveRun,
    ParameterValue,
    RaiseRetries,
    RescheduleRun,
    SendDirective,
    SetLimit,
    SetPriority,
)

RACES = int(os.environ.get("BENCH_RACES", "15"))
PILOT_POOL = "benched"
HOUR = timedelta(hours=1)
SCHEMA = {"type": "object", "properties": {"size": {"type": "integer"}}}


def p50(values: Sequence[float]) -> float:
    return statistics.median(values)


def p95(values: Sequence[float]) -> float:
    return sorted(values)[max(0, round(0.95 * len(values)) - 1)]


async def deployment(client: Any, name: str, *tags: str) -> str:
    flow_id = await client.create_flow_from_name(f"bench-{name}")
    made = await client.create_deployment(
        flow_id=flow_id,
        name="demo",
        tags=["env:dev", "tier:3", *tags],
        work_pool_name=PILOT_POOL,
        work_queue_name="low",
        entrypoint="none.py:none",
        parameter_openapi_schema=SCHEMA,
        enforce_parameter_schema=False,
    )
    return str(made)


async def fail_one(client: Any, deployment_id: str) -> tuple[str, datetime]:
    """A run of the deployment that has just failed, and when."""
    from prefect.states import Failed, Pending, Running

    run = await client.create_flow_run_from_deployment(UUID(deployment_id), state=Pending())
    await client.set_flow_run_state(run.id, Running())
    await client.set_flow_run_state(run.id, Failed(message="ConnectError: refused"))
    state = (await client.read_flow_run(run.id)).state
    return str(run.id), state.timestamp


async def made_within(client: Any, deployment_id: str, known: set[str], within: float = 60.0) -> Any:
    """The next run of the deployment that is not among the known ones."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

    where = DeploymentFilter(id=DeploymentFilterId(any_=[UUID(deployment_id)]))
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        for run in await client.read_flow_runs(deployment_filter=where, limit=200):
            if str(run.id) not in known:
                known.add(str(run.id))
                return run
        await asyncio.sleep(0.1)
    raise RuntimeError(f"no run of deployment {deployment_id} was made within {within} s")


async def automate(client: Any, watched: str, remedy: str) -> None:
    """Prefect runs the remedy whenever a run of the watched deployment fails."""
    answer = await client._client.post(
        "/automations/",
        json={
            "name": f"bench-{uuid4().hex[:6]}",
            "enabled": True,
            "trigger": {
                "type": "event",
                "match": {"prefect.resource.id": "prefect.flow-run.*"},
                "match_related": {
                    "prefect.resource.role": "deployment",
                    "prefect.resource.id": f"prefect.deployment.{watched}",
                },
                "expect": ["prefect.flow-run.Failed"],
                "posture": "Reactive",
                "threshold": 1,
                "within": 0,
            },
            "actions": [{"type": "run-deployment", "source": "selected", "deployment_id": remedy}],
        },
    )
    answer.raise_for_status()


async def pilot(injector: Any, ledger: Any, watched: str, remedy: str, ready: asyncio.Event) -> None:
    """Never returns: every failure of the watched deployment is answered by the whole way through the gate."""
    from prefect.events.clients import get_events_subscriber
    from prefect.events.filters import EventFilter, EventNameFilter

    from pilotage.planner.proposals import CaseFile, Proposal
    from pilotage.policies.digests import digest_of
    from pilotage.policies.verdicts import FiledProposal, Identity

    planner = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))
    names = EventFilter(event=EventNameFilter(name=["prefect.flow-run.Failed"]))
    async with get_events_subscriber(filter=names) as events:
        ready.set()
        async for event in events:
            if not any(related.id == f"prefect.deployment.{watched}" for related in event.related):
                continue
            run_id = event.resource.id.removeprefix("prefect.flow-run.")
            proposal = Proposal(
                id=f"p-{uuid4().hex[:12]}",
                incident_id=f"i-{uuid4().hex[:12]}",
                action=LaunchRemediation(run_id=run_id, deployment_id=remedy),
                expires_at=datetime.now(UTC) + HOUR,
            )
            filed = FiledProposal(
                proposal=proposal,
                case=CaseFile(subject=f"run:{run_id}", failure_class="transient"),
                proposer=planner,
                digest=digest_of(proposal, planner),
                filed_at=datetime.now(UTC),
            )
            ledger.file(filed)
            await injector.judge(filed)
            await injector.admit(proposal.id)
            await injector.deliver()


async def never_drained(pool: str, queue: str) -> bool:
    return False


async def reactions(client: Any, api: Any, levers: Any, home: Path) -> list[Row]:
    from pilotage.flows.injector import Injector
    from pilotage.flows.prefect_facts import PrefectFacts
    from pilotage.policies.bundle import Bundle
    from pilotage.policies.gate import Gate
    from pilotage.policies.sql_ledger import SqlLedger
    from pilotage.policies.verdicts import Mode

    numbers = home / "guardrails.yaml"
    # the bench acts on one deployment more often in a minute than anybody would allow in an hour
    numbers.write_text(
        "max_actions_per_hour: 1000\nmax_actions_per_deployment_per_hour: 1000\nmax_targets_per_hour: 1000\n"
        "max_actions_per_fingerprint: 1000\ncooldown: 0s\n"
    )
    ledger = SqlLedger(f"sqlite:///{home / 'ledger.sqlite'}")
    injector = Injector(
        ledger=ledger,
        gate=Gate(Bundle.load(guardrails=numbers)),
        facts=PrefectFacts(api),
        levers=levers,
        mode=lambda: Mode.AUTO,
        stopped=lambda: "",
        drained=never_drained,
        clock=lambda: datetime.now(UTC),
        owner="bench",
    )
    ours, theirs = await deployment(client, "ours"), await deployment(client, "theirs")
    our_remedy = await deployment(client, "our-remedy", "pilotage:remediation")
    their_remedy = await deployment(client, "their-remedy")
    await automate(client, theirs, their_remedy)
    ready = asyncio.Event()
    listening = asyncio.create_task(pilot(injector, ledger, ours, our_remedy, ready))
    await asyncio.wait_for(ready.wait(), 30)
    took: dict[str, list[float]] = {"pilotage": [], "automation": []}
    known: set[str] = set()
    try:
        for turn in range(RACES + 1):
            for name, watched, remedy in (
                ("pilotage", ours, our_remedy),
                ("automation", theirs, their_remedy),
            ):
                _, failed_at = await fail_one(client, watched)
                made = await made_within(client, remedy, known)
                if turn:  # the first of each warms up
                    took[name].append((made.created - failed_at).total_seconds() * 1000)
    finally:
        listening.cancel()
        ledger.close()
    return [
        beside(
            measure,
            "ms",
            RACES,
            ours=of(took["pilotage"]),
            peer="Prefect automation",
            theirs=of(took["automation"]),
        )
        for measure, of in (("reaction_vs_automation", p50), ("reaction_vs_automation_p95", p95))
    ]


async def by_lever(client: Any, levers: Any) -> list[Row]:
    """Asked → verified, for levers that need not wait for a worker, on targets of their own."""
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.states import Pending, Running, Scheduled

    target = await deployment(client, "target")
    await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="bench-gate", limit=4))

    async def waiting() -> str:
        due: Any = Scheduled(scheduled_time=datetime.now(UTC) + 6 * HOUR)
        return str((await client.create_flow_run_from_deployment(UUID(target), state=due)).id)

    async def running() -> str:
        run = await client.create_flow_run_from_deployment(UUID(target), state=Pending())
        await client.set_flow_run_state(run.id, Running())
        return str(run.id)

    async def action_of(kind: str, number: int) -> Action:
        match kind:
            case "change_parameters":
                changes = (ParameterValue(name="size", value=number),)
                return ChangeParameters(run_id=await waiting(), changes=changes)
            case "reschedule_run":
                return RescheduleRun(run_id=await waiting(), start=datetime.now(UTC) + 5 * HOUR)
            case "move_run":
                return MoveRun(run_id=await waiting(), queue="high")
            case "cancel_run":
                return CancelRun(run_id=await waiting())
            case "raise_retries":
                return RaiseRetries(run_id=await running(), retries=3)
            case "send_directive":
                return SendDirective(run_id=await running(), directive=Directive.DRAIN)
            case "set_priority":
                return SetPriority(pool=PILOT_POOL, queue="low", priority=1, hold=HOUR)
            case "set_limit":
                return SetLimit(scope=LimitScope.GLOBAL, name="bench-gate", limit=1, hold=HOUR)
            case _:
                return HoldQueue(pool=PILOT_POOL, queue="low", hold=HOUR)

    rows: list[Row] = []
    for kind in (
        "change_parameters",
        "reschedule_run",
        "move_run",
        "cancel_run",
        "raise_retries",
        "set_priority",
        "set_limit",
        "hold_queue",
    ):
        lever, took = levers[kind], []
        for number in range(RACES + 1):
            action, mark = await action_of(kind, number), str(uuid4())
            began = time.perf_counter()
            done = await lever.execute(action, mark=mark, expected_state_id="", message="bench")
            check = await lever.verify(action, done, mark=mark)
            spent = (time.perf_counter() - began) * 1000
            assert (done.effect.value, check.judgement.value) == ("done", "verified"), (kind, done, check)
            if number:
                took.append(spent)
            await lever.undo(action, done, mark=mark)
        rows += [
            beside(f"{kind}_verified_{name}", "ms", RACES, ours=of(took))
            for name, of in (("p50", p50), ("p95", p95))
        ]
    return rows


async def measured(home: Path) -> list[Row]:
    from prefect.client.orchestration import get_client

    from pilotage.flows.announce import Announcer
    from pilotage.flows.levers import build_levers
    from pilotage.flows.prefect_api import PrefectApi

    async def let_go(run_id: str, after: datetime) -> bool:
        return True

    async with PrefectApi.from_prefect_settings().opened() as api, get_client() as client:
        levers = build_levers(let_go=let_go, announcer=Announcer(api=api), api=api)
        return [*await reactions(client, api, levers, home), *await by_lever(client, levers)]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, EmbeddedPrefect(Path(scratch) / "prefect") as server:
        os.environ.update(server.client_env)
        server.create_pool(PILOT_POOL)
        publish("levers", asyncio.run(measured(Path(scratch))))


if __name__ == "__main__":
    main()
