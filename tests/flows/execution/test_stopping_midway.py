"""The kill switch reaches into a delivery: between two writes, and what was written is on record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from pilotage.flows.dev.fake_prefect import API_URL, FakePrefect
from pilotage.flows.execution.injector import Injector
from pilotage.flows.execution.kill_switch import KillSwitch
from pilotage.flows.execution.receipts import Lever
from pilotage.flows.execution.stop_file import pull
from pilotage.flows.levers.cancel_tree import CancelTreeLever
from pilotage.flows.levers.move_run import MoveLever
from pilotage.flows.levers.spread_runs import SpreadLever
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.guard import ADMITTED
from pilotage.flows.prefect.stopping import StopToken, finishing, pause, stoppable
from pilotage.flows.prefect.target_facts import PrefectFacts
from pilotage.planner.actions.types import Action, CancelTree, MoveRun, SpreadRuns
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.digests import digest_of
from pilotage.policies.gate.gate import Gate
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, Verdict
from pilotage.telemetry.errors import StoppedError

PLANNER = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))
MINUTE = timedelta(minutes=1)
SETTLE = timedelta(milliseconds=10)
RUN_STATES = "/flow_runs/"


@dataclass
class WatchedTransport(httpx.AsyncBaseTransport):
    """Carries requests to the fake, writes down when each write went out, and can do something before the n-th to runs."""

    fake: FakePrefect
    writes: list[tuple[float, str]] = field(default_factory=list)
    before: tuple[int, Callable[[], None]] | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api")
        if request.method != "GET" and not path.endswith("/filter"):
            if self.before and len(self.to_runs()) == self.before[0]:
                self.before[1]()
            self.writes.append((time.monotonic(), f"{request.method} {path}"))
        return await self.fake.transport.handle_async_request(request)

    def to_runs(self) -> list[tuple[float, str]]:
        return [each for each in self.writes if RUN_STATES in each[1]]


class Site:
    """A fake Prefect with a pool and a deployment, and an injector with a real ledger and a real kill switch."""

    def __init__(self, root: Path) -> None:
        self.fake = FakePrefect()
        self.transport = WatchedTransport(self.fake)
        self.root = root
        self.ledger = SqlLedger(f"sqlite:///{root / 'ledger.sqlite'}")
        self.switch = KillSwitch(root / "STOP", self.ledger, resume_votes=lambda: 1)
        self.fake.ask("POST", "/work_pools/", {"name": "pool", "type": "process"})
        self.fake.ask("POST", "/work_pools/pool/queues", {"name": "other"})
        flow = self.fake.ask("POST", "/flows/", {"name": "etl"})["id"]
        body = {"name": "nightly", "flow_id": flow, "work_pool_name": "pool", "entrypoint": "none.py:none"}
        self.deployment = str(self.fake.ask("POST", "/deployments/", body)["id"])
        self.flow = flow

    def due(self, many: int) -> list[str]:
        """So many runs that wait, the newest due now."""
        now = datetime.now(UTC)
        made = []
        for number in range(many):
            due = (now - (many - number) * timedelta(seconds=1)).isoformat()
            state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due}}
            body = {"state": state}
            made.append(self.fake.ask("POST", f"/deployments/{self.deployment}/create_flow_run", body)["id"])
        return made

    def tree(self, many: int) -> str:
        """A running run with so many waiting runs below it."""
        root = str(
            self.fake.ask("POST", "/flow_runs/", {"flow_id": self.flow, "state": {"type": "RUNNING"}})["id"]
        )
        for number in range(many):
            task = self.fake.ask(
                "POST",
                "/task_runs/",
                {
                    "flow_run_id": root,
                    "task_key": "t",
                    "dynamic_key": str(number),
                    "state": {"type": "RUNNING"},
                },
            )["id"]
            body = {"parent_task_run_id": task, "state": {"type": "SCHEDULED"}}
            self.fake.ask("POST", f"/deployments/{self.deployment}/create_flow_run", body)
        return root

    def admitted(self, action: Action) -> str:
        """The id of a proposal of this action that was let in."""
        now = datetime.now(UTC)
        proposal = Proposal(
            id="p-0123456789ab", incident_id="i-0123456789ab", action=action, expires_at=now + MINUTE
        )
        case = CaseFile(subject="x", failure_class="transient")
        digest = digest_of(proposal, PLANNER)
        self.ledger.file(
            FiledProposal(proposal=proposal, case=case, proposer=PLANNER, digest=digest, filed_at=now)
        )
        let_in = Verdict(outcome=Outcome.ALLOW, policy_ids=("test",))
        self.ledger.admit(proposal.id, lambda stored, facts: let_in, Mode.AUTO, now)
        return proposal.id

    async def deliver(self, lever: Callable[[PrefectApi], Lever]) -> bool:
        """One delivery, on a connection of its own."""
        async with PrefectApi(API_URL, transport=self.transport, guard=ADMITTED).opened() as api:
            made = lever(api)

            async def drained(pool: str, queue: str) -> bool:
                return False

            injector = Injector(
                ledger=self.ledger, gate=Gate(Bundle.load()), facts=PrefectFacts(api), levers={made.kind: made},
                mode=lambda: Mode.AUTO, stopped=self.switch.stopped, clock=lambda: datetime.now(UTC) + self.ahead,
                owner="test", drained=drained,
            )  # fmt: skip
            return await injector.deliver()

    ahead = timedelta(0)
    """How much later it is by the injector's clock."""

    def stop(self) -> None:
        """What `pilotage stop` does when nobody answers: it writes the file."""
        pull(self.root / "STOP", "ann: enough")

    def resume(self) -> None:
        """The vote that lifts it; pauses between two tries are over."""
        self.switch.resume("ann", datetime.now(UTC))
        self.ahead += MINUTE

    def last_failure(self, proposal_id: str) -> dict[str, Any]:
        steps = [step for step in self.ledger.story(proposal_id) if step["step"] == "failed"]
        return dict(steps[-1]["detail"])

    def changes(self, run: str) -> int:
        """How many states the run has had."""
        return len(self.fake.request("GET", "/flow_run_states/", query={"flow_run_id": run}).json)

    def starts(self, runs: list[str]) -> list[str]:
        return [self.fake.ask("GET", f"/flow_runs/{run}")["next_scheduled_start_time"] for run in runs]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.ledger.close()


def spread(site: Site) -> SpreadRuns:
    first = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    return SpreadRuns(deployment_id=site.deployment, first=first, wave=10, every=MINUTE)


def test_a_thousand_runs_that_are_being_spread_stop_at_the_next_write_and_go_on_after_a_resume(
    site: Site,
) -> None:
    runs = site.due(1000)
    before = site.starts(runs)
    proposal_id = site.admitted(spread(site))
    stopped: list[float] = []

    def stop() -> None:
        site.stop()
        stopped.append(time.monotonic())

    site.transport.before = (30, stop)
    assert asyncio.run(site.deliver(lambda api: SpreadLever(api, settle=SETTLE)))
    assert max(at for at, _ in site.transport.writes) - stopped[0] < 2.0
    assert len(site.transport.to_runs()) == 31, "the write that was under way went through, and none after it"
    moved = [run for run, was, now in zip(runs, before, site.starts(runs), strict=True) if was != now]
    assert 0 < len(moved) < 1000
    assert not site.fake.ask("GET", "/work_pools/pool/queues/default")["is_paused"], "its queue was let go"
    failure = site.last_failure(proposal_id)
    assert "stopped (ann: enough) after" in failure["why"]
    written = {entry.rpartition(" ")[2] for entry in failure["written"] if "bulk_set_state" in entry}
    assert written == set(moved)
    states = [site.changes(run) for run in moved]
    assert asyncio.run(site.deliver(lambda api: SpreadLever(api, settle=SETTLE))) is False, "it stays stopped"
    site.resume()
    assert asyncio.run(site.deliver(lambda api: SpreadLever(api, settle=SETTLE)))
    assert site.ledger.status(proposal_id) == "delivered"
    after = site.starts(runs)
    assert all(was != now for was, now in zip(before, after, strict=True))
    assert max(after.count(start) for start in after) == 10, "no wave is larger than was asked for"
    assert [site.changes(run) for run in moved] == states, (
        "what was moved before the stop was not moved again"
    )


def test_a_tree_that_is_being_cancelled_stops_and_nothing_more_of_it_is_cancelled(site: Site) -> None:
    root = site.tree(60)
    proposal_id = site.admitted(CancelTree(run_id=root))
    site.transport.before = (20, site.stop)
    assert asyncio.run(site.deliver(CancelTreeLever))
    assert len(site.transport.to_runs()) == 21
    assert len(site.last_failure(proposal_id)["written"]) == 21
    assert site.fake.ask("GET", f"/flow_runs/{root}")["state_type"] == "RUNNING", "the root comes last"
    site.resume()
    assert asyncio.run(site.deliver(CancelTreeLever))
    assert site.ledger.status(proposal_id) == "delivered"
    assert site.fake.ask("GET", f"/flow_runs/{root}")["state_type"] == "CANCELLING"


def test_a_run_that_is_cancelled_for_its_twin_gets_its_twin_although_somebody_stops(site: Site) -> None:
    due = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due}}
    run = site.fake.ask("POST", f"/deployments/{site.deployment}/create_flow_run", {"state": state})["id"]
    proposal_id = site.admitted(MoveRun(run_id=run, queue="other"))
    # before the second write that concerns runs: the twin is made, the old one is about to be cancelled
    site.transport.before = (0, site.stop)
    assert asyncio.run(site.deliver(MoveLever))
    assert site.ledger.status(proposal_id) == "delivered"
    waiting = site.fake.ask(
        "POST", "/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    )
    assert [row["work_queue_name"] for row in waiting] == ["other"]
    assert (
        waiting[0]["next_scheduled_start_time"]
        == site.fake.ask("GET", f"/flow_runs/{run}")["expected_start_time"]
    )


def test_a_pause_before_a_write_ends_within_a_moment_of_the_stop() -> None:
    stopped: list[str] = []

    async def waiting() -> float:
        began = time.monotonic()
        asyncio.get_running_loop().call_later(0.05, stopped.append, "enough")
        with stoppable(StopToken(lambda: "".join(stopped))), pytest.raises(StoppedError):
            await pause(60)
        return time.monotonic() - began

    assert asyncio.run(waiting()) < 10


def test_what_belongs_together_is_finished_and_only_that() -> None:
    token = StopToken(lambda: "enough")
    with stoppable(token):
        with finishing():
            token.pass_or_stop("PATCH", "/work_pools/p/queues/q")
        with pytest.raises(StoppedError, match="stopped \\(enough\\) after 0 writes"):
            token.pass_or_stop("PATCH", "/work_pools/p/queues/q")
    with finishing():
        pass  # outside of a delivery there is nothing to ask
