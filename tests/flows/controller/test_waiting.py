"""On a real Prefect server: each way in which runs stand still is named in `why` within a minute, and is one incident."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from tests.flows.real_site import RealSite, schedule
from tests.flows.running_controller import RunningController, eventually, running_controller
from tests.flows.waiting_flows import BLUE, GHOST, PARTS, RED, ROWS, TAG

from pilotage.flows.dev.embedded import EmbeddedPrefect
from pilotage.planner.detect.blockage import Cause
from pilotage.telemetry.errors import ApiError

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(400)]
LIMITS = (RED, BLUE, ROWS, GHOST, f"tag:{TAG}")
SOON = "PT30S"
SETTINGS = f"""
[loop]
tick = "PT0.5S"
[planner]
stands_after = "{SOON}"
full_after = "PT1M"
pending_after = "{SOON}"
cancelling_after = "{SOON}"
"""
NAMED_WITHIN = 60.0
"""Seconds from when pilotage is connected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A run or deployment that stands still, and what is to be said of it."""

    words: str
    """An id."""
    cause: Cause
    entity: str
    by: str = ""

    def told(self) -> str:
        """What `why` is to say of it."""
        key = f"{self.cause}:{self.entity}"
        return f'{key} by the automation "{self.by}"' if self.by else key


def stood_still(site: RealSite) -> dict[str, Expected]:
    """Build what stands still before anybody looks."""
    site.pool("alive", "lonely", "held", "narrow")
    site.pool("nobody")
    site.pool("off", "also-held")
    site.pool("full", concurrency_limit=1)
    site.pool("family", concurrency_limit=1)
    site.pool("busy")
    site.pool("late-off")
    for name in LIMITS:
        site.limit(name)
    site.served("alive", "default", "held", "narrow")
    for pool in ("off", "full", "family", "busy", "late-off"):
        site.served(pool)
    site.ask("PATCH", "/work_pools/off/queues/also-held", {"is_paused": True})
    site.ask("PATCH", "/work_pools/off", {"is_paused": True})
    of = {part: site.run(site.deployment(part, "alive"), "PENDING") for part in PARTS}
    site.processes(of, site.server.log_directory / "waiting-flows.log")

    nobody = site.deployment("nobody-serves", "nobody")
    many = [site.run(nobody) for _ in range(5)]
    site.ask("PATCH", "/work_pools/alive/queues/narrow", {"concurrency_limit": 1})
    long = site.deployment("long", "alive", "narrow")
    site.run(long, "PENDING", "RUNNING")
    site.run(site.deployment("fills", "full"), "PENDING", "RUNNING")
    limited = site.deployment("limited", "alive", concurrency_limit=1)
    holder = site.run(limited, "PENDING")
    queued = site.run(limited)
    assert site.moves(queued, "PENDING") == "AwaitingConcurrencySlot", holder
    parent = site.run(site.deployment("parent", "family"), "PENDING", "RUNNING")
    child = site.child(parent, site.deployment("child", "family"))
    unserved = site.deployment("unserved")
    pending = site.run(site.deployment("pends", "alive"), "PENDING")
    cancelled = site.run(site.deployment("cancelled", "alive"), "PENDING", "RUNNING", "CANCELLING")
    for hour in range(5):
        cron = [{"schedule": {"cron": f"0 {hour} * * *", "timezone": "Asia/Tokyo"}, "active": True}]
        site.deployment(f"tokyo-{hour}", "alive", schedules=cron)
    cron = [{"schedule": {"cron": f"15 {(datetime.now(UTC).hour + 2) % 24} * * *"}, "active": True}]
    hours_off = site.deployment("hours-off", "alive", schedules=cron)
    two_causes = site.deployment("two-causes", "off", "also-held")
    both_limits = site.deployment("both-limits", "nobody", concurrency_limit=1)
    site.run(both_limits, "PENDING", "RUNNING")
    return {
        "pool paused, and its queue too": Expected(
            words=site.run(two_causes), cause=Cause.POOL_PAUSED, entity="pool:off"
        ),
        "no worker, and a full limit": Expected(
            words=site.run(both_limits), cause=Cause.NO_WORKER, entity="pool:nobody"
        ),
        "no worker": Expected(words=many[-1], cause=Cause.NO_WORKER, entity="pool:nobody"),
        "worker on another queue": Expected(
            words=site.run(site.deployment("lonely", "alive", "lonely")),
            cause=Cause.QUEUE_NOT_POLLED,
            entity="queue:alive/lonely",
        ),
        "queue full": Expected(words=site.run(long), cause=Cause.QUEUE_FULL, entity="queue:alive/narrow"),
        "pool full": Expected(
            words=site.run(site.deployment("behind", "full")), cause=Cause.POOL_FULL, entity="pool:full"
        ),
        "deployment's limit": Expected(
            words=queued, cause=Cause.DEPLOYMENT_LIMIT, entity=f"limit:deployment:{limited}"
        ),
        "tag's limit": Expected(words=of["tag_waiter"], cause=Cause.TAG_LIMIT, entity=f"limit:tag:{TAG}"),
        "global limit": Expected(words=of["rows_waiter"], cause=Cause.GLOBAL_LIMIT, entity=f"limit:{ROWS}"),
        "slots of nobody": Expected(
            words=of["ghost_waiter"], cause=Cause.SLOTS_OF_NOBODY, entity=f"limit:{GHOST}"
        ),
        "ring over two limits": Expected(
            words=of["ring_a"], cause=Cause.RING, entity="ring:" + ",".join(sorted((of["ring_a"], of["ring_b"])))
        ),
        "child behind its parent": Expected(
            words=parent, cause=Cause.RING, entity="ring:" + ",".join(sorted((parent, child)))
        ),
        "worker does not take it": Expected(
            words=site.run(site.deployment("not-taken", "busy")),
            cause=Cause.NOT_TAKEN,
            entity="queue:busy/default",
        ),
        "no pool": Expected(
            words=site.run(unserved), cause=Cause.NO_POOL, entity=f"deployment:{unserved}"
        ),
        "Pending for ever": Expected(
            words=pending,
            cause=Cause.NEVER_STARTED,
            entity="pool:alive",
        ),
        "Cancelling for ever": Expected(
            words=cancelled, cause=Cause.CANCELLING_TOO_LONG, entity=f"run:{cancelled}"
        ),
        "hours of a wrong zone": Expected(
            words=hours_off, cause=Cause.WRONG_ZONE, entity=f"deployment:{hours_off}"
        ),
    }  # fmt: skip


def stops_now(site: RealSite) -> dict[str, Expected]:
    """Pause and switch off what went well until now, before the eyes of pilotage."""
    often = schedule(timedelta(seconds=120))  # none is due before they are stopped
    paused, stopped, by_automation = (
        site.deployment(name, "alive", schedules=often) for name in ("paused", "stopped", "by-automation")
    )
    for each in (paused, stopped, by_automation):
        site.run(each, "PENDING", "RUNNING", "COMPLETED")
    rule = {
        "name": "too many failures",
        "trigger": {"type": "event", "posture": "Reactive", "threshold": 1, "within": 0,
                    "expect": ["waiting-test.pause"]},
        "actions": [{"type": "pause-deployment", "source": "selected", "deployment_id": by_automation}],
    }  # fmt: skip
    site.ask("POST", "/automations/", rule)
    held, off = site.deployment("in-held", "alive", "held"), site.deployment("in-off", "late-off")
    return {
        "deployment paused": Expected(
            words=paused, cause=Cause.DEPLOYMENT_PAUSED, entity=f"deployment:{paused}"
        ),
        "paused by an automation": Expected(
            words=by_automation,
            cause=Cause.DEPLOYMENT_PAUSED,
            entity=f"deployment:{by_automation}",
            by="too many failures",
        ),
        "schedule inactive": Expected(
            words=stopped, cause=Cause.SCHEDULE_INACTIVE, entity=f"deployment:{stopped}"
        ),
        "queue paused": Expected(words=site.run(held), cause=Cause.QUEUE_PAUSED, entity="queue:alive/held"),
        "pool paused": Expected(words=site.run(off), cause=Cause.POOL_PAUSED, entity="pool:late-off"),
    }


def processes_wait(site: RealSite) -> bool:
    """Return whether every limit is taken and the task that wants another slot is there."""
    site.beat()
    taken = [
        row["active_slots"]
        for row in site.ask("POST", "/v2/concurrency_limits/filter", {})
        if row["name"] in LIMITS
    ]
    pending = {"task_runs": {"state": {"type": {"any_": ["PENDING"]}}, "tags": {"all_": [TAG]}}}
    return taken == [1] * len(LIMITS) and bool(site.ask("POST", "/task_runs/filter", pending))


def halt(site: RealSite, expected: Mapping[str, Expected]) -> None:
    """Do what stops those."""
    site.ask("PATCH", "/work_pools/alive/queues/held", {"is_paused": True})
    site.ask("PATCH", "/work_pools/late-off", {"is_paused": True})
    site.ask("POST", f"/deployments/{expected['deployment paused'].words}/pause_deployment")
    stopped = expected["schedule inactive"].words
    (plan,) = site.ask("GET", f"/deployments/{stopped}")["schedules"]
    site.ask("PATCH", f"/deployments/{stopped}/schedules/{plan['id']}", {"active": False})
    site.happens("waiting-test.pause", "waiting-test")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSite]:
    """A server of its own: what stands still on it would be in the way of everybody else."""
    with EmbeddedPrefect(tmp_path_factory.mktemp("waiting")) as server:
        made = RealSite(server)
        yield made
        made.close()


def test_each_state_is_named_within_a_minute_and_is_one_incident(
    site: RealSite, tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected = stood_still(site)
    eventually(lambda: processes_wait(site), within=90, what="the processes of the runs in their limits")
    soon = stops_now(site)
    with running_controller(
        tmp_path_factory.mktemp("up"), site.server.env, mode="shadow", settings=SETTINGS
    ) as ship:
        as_usual = [each for each in soon.values() if each.entity.startswith("deployment:")]
        eventually(
            lambda: all(why(ship, each).startswith(f"{Cause.NOT_DUE}:") for each in as_usual),
            what="the deployments as they were",
        )
        halt(site, soon)
        expected |= soon

        not_named = dict(expected)

        def all_named() -> bool:
            site.beat()
            for name, each in expected.items():
                if name in not_named and why(ship, each) == each.told():
                    del not_named[name]
            return not not_named

        try:
            eventually(all_named, within=NAMED_WITHIN, what="each state named")
        finally:
            assert {name: (each.told(), why(ship, each)) for name, each in not_named.items()} == {}

        causes = {f"ongoing:{each.cause}:{each.entity}" for each in expected.values()}

        def all_found() -> bool:
            site.beat()
            return causes <= set(incidents(ship))

        try:
            eventually(all_found, within=150, what="an incident for each cause")
        finally:
            found = incidents(ship)
            assert (causes - set(found), set(found) - causes) == (set(), set())
        # one incident a cause, however many runs wait, and none for what goes on
        assert {cause: len(ids) for cause, ids in found.items() if len(ids) != 1} == {}


def why(ship: RunningController, each: Expected) -> str:
    """What `why` tells of it: the cause key, and who brought it about where somebody is to be named."""
    try:
        answer = ship.control_api().call("waits", words=each.words)
    except ApiError as exc:
        return str(exc)
    return f"{answer['key']} by {answer['by']}" if each.by else str(answer["key"])


def incidents(ship: RunningController) -> dict[str, list[str]]:
    """The ids of all incidents by cause."""
    found: dict[str, list[str]] = {}
    for row in ship.control_api().call("incidents", limit=200):
        for cause in row["proposals"][0]["case"]["causes"]:
            found.setdefault(cause, []).append(row["incident_id"])
    return found
