"""How soon a lever has its effect, from the event that calls for it, with no LLM, beside Prefect's own automation.

`reaction_vs_automation`: from a failure until the remediation is made, ours and an automation that runs a deployment on
failure. Then each lever: from the event until its change is verified, or, where the verification waits for a worker,
until Prefect has accepted it. Levers that wait for a worker to let go of the run count from the event that says so.
All times are told by the server's clock or by this machine's, which is the same. Ours goes the whole way: event,
facts, judgement under the shipped policies, ledger, outbox, lever, verification.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.report import Row, beside, publish
from tests.conftest import PrefectServer
from tests.flows.lever_targets import TARGETS, LeverTargets, Target, cleanup

from pilotage.flows.dev.embedded import EmbeddedPrefect
from pilotage.planner.actions.types import Action, LaunchRemediation, ResizeRun, RetryRun

RACES = int(os.environ.get("BENCH_RACES", "15"))
FEW = max(1, RACES // 3)
"""Of what takes seconds each time."""
WORKED_POOL = "worked"
ACCEPTED = (
    *("launch_remediation", "reserve_slot", "send_directive", "suspend_run", "resume_run"),
    *("answer_run", "override_result", "cancel_run, running"),
)
"""Their verification waits for a worker or a process, so they are reported as accepted."""
WORKED = ("retry_run", "resize_run")
"""They wait for a worker to let go of the run, and are measured with one."""
SLOW = ("reschedule_run, due", "spread_runs", "catch_up", "notify_owner", "resolve_alert")
"""They hold a queue until workers have settled, or wait until Prefect has written an event."""
NUMBERS = (
    "max_actions_per_hour: 10000\nmax_actions_per_deployment_per_hour: 10000\nmax_targets_per_hour: 10000\n"
    "max_actions_per_fingerprint: 10000\nmax_notifications_per_hour: 10000\nmax_failed_outcomes_per_hour: 10000\n"
    "max_fruitless: 10000\nmax_attempts_per_run: 100\nmax_shift: 24h\ncooldown: 0s\n"
)
"""The bench acts more often in a minute than anybody would allow in an hour."""
FAILS = """
from prefect import flow

@flow
def fails():
    raise RuntimeError("as it should")
"""


def p50(values: Sequence[float]) -> float:
    return statistics.median(values)


def p95(values: Sequence[float]) -> float:
    return sorted(values)[max(0, round(0.95 * len(values)) - 1)]


@dataclass(slots=True, kw_only=True)
class Pilot:
    """Answers events by the whole way through the gate: the next target's action when the trigger fails."""

    injector: Any
    ledger: Any
    trigger_id: str = ""
    remedy_of: dict[str, str] = field(default_factory=dict)
    """Which deployment remedies which."""
    next: Target | None = None
    worker_has_released: dict[str, datetime] = field(default_factory=dict)
    """Runs that a worker has let go of, and when it said so."""
    answered: asyncio.Queue[tuple[str, datetime]] = field(default_factory=asyncio.Queue)
    """Proposals that were delivered, and when."""

    async def worker_released(self, run_id: str, after: datetime) -> bool:
        """Whether a worker has let go of the run, as far as was heard."""
        return run_id in self.worker_has_released

    async def listen(self, ready: asyncio.Event) -> None:
        """Never returns."""
        from prefect.events.clients import get_events_subscriber
        from prefect.events.filters import EventFilter, EventNameFilter

        names = EventFilter(
            event=EventNameFilter(name=["prefect.flow-run.Failed", "prefect.worker.executed-flow-run"])
        )
        async with get_events_subscriber(filter=names) as events:
            ready.set()
            async for event in events:
                related = {each.id for each in event.related}
                if event.event == "prefect.worker.executed-flow-run":
                    runs = [each.removeprefix("prefect.flow-run.") for each in related if "flow-run." in each]
                    self.worker_has_released |= dict.fromkeys(runs, event.occurred)
                    continue
                run_id = event.resource.id.removeprefix("prefect.flow-run.")
                if f"prefect.deployment.{self.trigger_id}" in related and self.next is not None:
                    await self.act(self.next.action, self.next.expected_state_id)
                for watched, remedy in self.remedy_of.items():
                    if f"prefect.deployment.{watched}" in related:
                        await self.act(LaunchRemediation(run_id=run_id, deployment_id=remedy))

    async def act(self, action: Action, expected: str = "") -> str:
        """The proposal that was carried out."""
        from pilotage.planner.proposals import CaseFile, Proposal
        from pilotage.policies.digests import digest_of
        from pilotage.policies.types import FiledProposal, Identity

        planner = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))
        proposal = Proposal(
            id=f"p-{uuid4().hex[:12]}",
            incident_id=f"i-{uuid4().hex[:12]}",
            action=action,
            expected_state_id=expected,
            expires_at=datetime.now(UTC) + timedelta(hours=1),
        )
        filed = FiledProposal(
            proposal=proposal,
            case=CaseFile(subject=f"bench:{proposal.id}", failure_class="transient"),
            proposer=planner,
            digest=digest_of(proposal, planner),
            filed_at=datetime.now(UTC),
        )
        self.ledger.file(filed)
        verdict = await self.injector.judge(filed)
        await self.injector.admit(proposal.id)
        while self.ledger.status(proposal.id) == "admitted":
            if not await self.injector.deliver():
                await asyncio.sleep(0.01)
        done = self.ledger.status(proposal.id) == "delivered"
        if not done:
            print(
                f"{action.kind}: {verdict.policy_ids} {self.ledger.story(proposal.id)[-1]['step']}",
                flush=True,
            )
        self.answered.put_nowait((proposal.id if done else "", datetime.now(UTC)))
        return proposal.id

    async def verified(self, proposal_id: str) -> datetime:
        """When the change was verified."""
        deadline = time.monotonic() + 60
        while self.ledger.status(proposal_id) != "verified":
            if time.monotonic() > deadline or self.ledger.status(proposal_id) != "delivered":
                raise RuntimeError(f"{proposal_id} was not verified: {self.ledger.story(proposal_id)[-1]}")
            if not await self.injector.verify():
                await asyncio.sleep(0.01)
        return datetime.now(UTC)


async def fail_one(client: Any, deployment_id: str) -> datetime:
    """When a run of the deployment has just failed."""
    from prefect.states import Failed, Pending, Running

    run = await client.create_flow_run_from_deployment(UUID(deployment_id), state=Pending())
    await client.set_flow_run_state(run.id, Running())
    await client.set_flow_run_state(run.id, Failed(message="ConnectError: refused"))
    state = (await client.read_flow_run(run.id)).state
    at: datetime = state.timestamp
    return at


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


async def against_automation(
    client: Any, api: Any, targets: LeverTargets, pilot: Pilot
) -> tuple[list[Row], float]:
    """The rows of the race, and the automation's median."""
    ours, theirs = await targets.deployment(api), await targets.deployment(api)
    our_remedy = await targets.deployment(api, "pilotage:remediation")
    their_remedy = await targets.deployment(api)
    await automate(client, theirs, their_remedy)
    pilot.remedy_of[ours] = our_remedy
    took: dict[str, list[float]] = {"pilotage": [], "automation": []}
    known: set[str] = set()
    for turn in range(RACES + 1):
        for name, watched, remedy in (("pilotage", ours, our_remedy), ("automation", theirs, their_remedy)):
            failed_at = await fail_one(client, watched)
            made = await made_within(client, remedy, known)
            if turn:  # the first of each warms up
                took[name].append((made.created - failed_at).total_seconds() * 1000)
    pilot.remedy_of.clear()
    while not pilot.answered.empty():
        pilot.answered.get_nowait()
    peer = "Prefect automation"
    return [
        beside(measure, "ms", RACES, ours=of(took["pilotage"]), peer=peer, theirs=of(took["automation"]))
        for measure, of in (("reaction_vs_automation", p50), ("reaction_vs_automation_p95", p95))
    ], p50(took["automation"])


async def of_lever(client: Any, api: Any, targets: LeverTargets, pilot: Pilot, name: str) -> list[float]:
    """Milliseconds from the event to the verified or accepted change, each time on a fresh target."""
    took: list[float] = []
    for turn in range((FEW if name in SLOW else RACES) + 1):
        target = await TARGETS[name](targets, api)
        if name.startswith("spread"):
            # the backlog of the targets was due so long ago that Prefect is still making its runs Late
            await asyncio.sleep(1)
        pilot.next = target
        failed_at = await fail_one(client, pilot.trigger_id)
        proposal_id, at = await asyncio.wait_for(pilot.answered.get(), 120)
        if not proposal_id:
            return []  # the shipped policies ask a person, or a proof that this target does not have
        if name not in ACCEPTED:
            at = await pilot.verified(proposal_id)
        if turn:
            took.append((at - failed_at).total_seconds() * 1000)
        await pilot.injector.undo(proposal_id, by="pilotage", why="the next one")
    return took


async def after_a_worker(client: Any, api: Any, pilot: Pilot, deployment_id: str, kind: str) -> list[float]:
    """Milliseconds from the worker's word that a run's process has ended to the accepted retry."""
    took: list[float] = []
    for turn in range(FEW + 1):
        run = await client.create_flow_run_from_deployment(UUID(deployment_id))
        run_id, deadline = str(run.id), time.monotonic() + 90
        action: Action = (
            RetryRun(run_id=run_id, delay=timedelta(hours=2))
            if kind == "retry_run"
            else ResizeRun(run_id=run_id, memory_mb=192)
        )
        while not (await api.run(run_id)).state.ended and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        # asked for when it failed, so the lever waits, as it does for a real failure, for the worker to let go
        proposal_id = await pilot.act(action)
        _, at = pilot.answered.get_nowait()
        if turn:
            took.append((at - pilot.worker_has_released[run_id]).total_seconds() * 1000)
        await pilot.injector.undo(proposal_id, by="pilotage", why="the next one")
    return took


async def failing(client: Any, home: Path) -> str:
    """The deployment of a flow that fails at once, for a real worker."""
    (home / "fails.py").write_text(FAILS)
    flow_id = await client.create_flow_from_name("fails")
    made = await client.create_deployment(
        flow_id=flow_id,
        name="bench",
        tags=["env:dev", "tier:3"],
        work_pool_name=WORKED_POOL,
        path=str(home),
        entrypoint="fails.py:fails",
    )
    return str(made)


def rows_of(name: str, what: str, took: Sequence[float], peer: float) -> list[Row]:
    """p50 and p95 of one lever, the first beside an automation."""
    measure, runs = f"{name.replace(', ', '_')}_{what}", len(took)
    return [
        beside(f"{measure}_p50", "ms", runs, ours=p50(took), peer="automation: run-deployment", theirs=peer),
        beside(f"{measure}_p95", "ms", runs, ours=p95(took)),
    ]


async def measure(targets: LeverTargets, home: Path, rows: list[Row]) -> None:
    """Add the rows as they are measured."""
    from prefect.client.orchestration import get_client

    from pilotage.flows.execution.injector import Injector
    from pilotage.flows.levers import build_levers
    from pilotage.flows.notify.notifier import Notifier
    from pilotage.flows.prefect.api import PrefectApi
    from pilotage.flows.prefect.target_facts import PrefectFacts
    from pilotage.policies.cedar.bundle import Bundle
    from pilotage.policies.gate.gate import Gate
    from pilotage.policies.ledger.sql_ledger import SqlLedger
    from pilotage.policies.types import Mode

    async def never_drained(pool: str, queue: str) -> bool:
        return False

    numbers = home / "guardrails.yaml"
    numbers.write_text(NUMBERS)
    ledger = SqlLedger(f"sqlite:///{home / 'ledger.sqlite'}")
    async with PrefectApi.from_prefect_settings(guard=None).opened() as api, get_client() as client:
        pilot = Pilot(injector=None, ledger=ledger)
        pilot.injector = Injector(
            ledger=ledger,
            gate=Gate(Bundle.load(guardrails=numbers)),
            facts=PrefectFacts(api),
            levers=build_levers(
                worker_has_released=pilot.worker_released, notifier=Notifier(api=api), api=api
            ),
            mode=lambda: Mode.AUTO,
            stopped=lambda: "",
            drained=never_drained,
            clock=lambda: datetime.now(UTC),
            owner="bench",
        )
        pilot.trigger_id = await targets.deployment(api)
        ready = asyncio.Event()
        listening = asyncio.create_task(pilot.listen(ready))
        await asyncio.wait_for(ready.wait(), 30)
        try:
            raced, peer = await against_automation(client, api, targets, pilot)
            rows += raced
            # queues that no deployment of a known environment uses count as production, where a person is asked
            for queue in ("b", "default"):
                await targets.deployment(api, work_queue_name=queue)
            for name in TARGETS:
                if name not in WORKED:
                    what = "accepted" if name in ACCEPTED else "verified"
                    took = await of_lever(client, api, targets, pilot, name)
                    if not took:
                        continue
                    rows += rows_of(name, what, took, peer)
                    print(f"{rows[-2].measure}: {rows[-2].value:.0f} ms", flush=True)
            await cleanup(api)
            worked = await failing(client, home)
            for kind in WORKED:
                took = await after_a_worker(client, api, pilot, worked, kind)
                rows += rows_of(kind, "accepted_after_worker_let_go", took, peer)
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
            ledger.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, EmbeddedPrefect(Path(scratch) / "prefect") as server:
        os.environ.update(server.client_env)
        targets = LeverTargets(
            server=PrefectServer(
                api_url=server.api_url,
                ui_url=server.ui_url,
                auth_string=server.auth_string,
                env=server.env,
                embedded=server,
            )
        )
        targets.open()
        server.create_pool(WORKED_POOL)
        server.start_worker(WORKED_POOL)
        rows: list[Row] = []
        try:
            asyncio.run(measure(targets, Path(scratch), rows))
        finally:
            publish("levers", rows)


if __name__ == "__main__":
    main()
