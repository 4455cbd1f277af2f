"""What a card says would be different, whom it concerns and what it takes, for every kind of action."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from pilotage.console.session import card_context
from pilotage.console.session.card_context import CardContext, card_context_of
from pilotage.console.session.cards import card_of
from pilotage.console.session.changes import NOT_KNOWN, TELL, changes_of
from pilotage.console.session.forms import typed_action
from pilotage.planner.actions.types import KINDS, example_of
from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.facts import QueueFact, RunFact, StateType, TaskRunFact
from pilotage.telemetry.store.duckdb import DuckDBStore

RUN, OTHER, DEPLOYMENT = (str(UUID(int=n)) for n in (1, 2, 3))
SOON = "2026-03-01T12:00:00+00:00"
WAVES = {"deployment_id": DEPLOYMENT, "first": SOON, "wave": 2, "every": "PT60S"}
ONE = [{"name": "day", "value": "monday"}]
HOLD = {"hold": "PT10M"}
ACTIONS: dict[str, tuple[dict[str, Any], list[tuple[str, str, str]]]] = {
    "retry_run": ({"run_id": RUN}, [("state", "Failed", "AwaitingRetry")]),
    "resize_run": (
        {"run_id": RUN, "memory_mb": 256},
        [("memory", "128 MiB", "256 MiB"), ("state", "Failed", "AwaitingRetry")],
    ),
    "size_run": ({"run_id": RUN, "memory_mb": 256}, [("memory", "128 MiB", "256 MiB")]),
    "reschedule_run": ({"run_id": RUN, "start": SOON}, [("start", "in 2 min", "2026-03-01 12:00:00 UTC")]),
    "reserve_slot": (
        {"pool": "p", "busy_queue": "busy", "starved_queue": "starved", "limit": 1, **HOLD},
        [("limit of busy", "3", "1"), ("for", "-", "10 min")],
    ),
    "cancel_run": ({"run_id": RUN}, [("state", "Failed", "Cancelled")]),
    "cancel_tree": ({"run_id": RUN}, [("state", "Failed", "Cancelled, with all below it")]),
    "pause_deployment": (
        {"deployment_id": DEPLOYMENT, **HOLD},
        [("schedules", "active", "paused"), ("for", "-", "10 min")],
    ),
    "notify_owner": ({"run_id": RUN}, [("owner", "not told by this", "told, as error")]),
    "change_parameters": ({"run_id": RUN, "changes": ONE}, [("day", "sunday", "monday")]),
    "move_run": ({"run_id": RUN, "queue": "fast"}, [("queue", "busy", "fast")]),
    "set_priority": (
        {"pool": "p", "queue": "busy", "priority": 1, **HOLD},
        [("rank", "2", "1"), ("for", "-", "10 min")],
    ),
    "set_limit": (
        {"scope": "queue", "name": "busy", "pool": "p", "limit": 1, **HOLD},
        [("limit", "3", "1"), ("for", "-", "10 min")],
    ),
    "hold_queue": (
        {"pool": "p", "queue": "busy", **HOLD},
        [("queue", "handing out runs", "paused"), ("for", "-", "10 min")],
    ),
    "release_queue": ({"pool": "p", "queue": "held"}, [("queue", "paused", "handing out runs")]),
    "raise_retries": ({"run_id": RUN, "retries": 3}, [("retries", "1", "3")]),
    "launch_remediation": (
        {"run_id": RUN, "deployment_id": DEPLOYMENT},
        [("its remediation", "not started", "started beside it")],
    ),
    "send_directive": ({"run_id": RUN, "directive": "checkpoint"}, [("told to", "carry on", "checkpoint")]),
    "suspend_run": ({"run_id": RUN, **HOLD}, [("state", "Failed", "Suspended"), ("for", "-", "10 min")]),
    "resume_run": ({"run_id": RUN}, [("state", "Failed", "Scheduled")]),
    "mark_crashed": ({"run_id": RUN}, [("state", "Failed", "Crashed")]),
    "start_run": ({"run_id": RUN}, [("a run in its place", "not started", "started")]),
    "release_slot": (
        {"scope": "tag", "name": "db"},
        [("slots of tag db", "held by dead work", "free")],
    ),
    "override_result": (
        {"run_id": RUN, "task": "rates", "value": 1.2},
        [("result of rates", "none: it failed", "1.2"), ("state", "Failed", "AwaitingRetry")],
    ),
    "answer_run": (
        {"run_id": RUN, "answers": ONE},
        [("day", "no answer", "monday"), ("state", "Failed", "Running")],
    ),
    "resolve_alert": ({"run_id": RUN}, [("owner", "told of the trouble", "told that it is over")]),
    "spread_runs": (
        WAVES,
        [("its waiting runs", "all due at once", "2 at a time from 2026-03-01 12:00:00 UTC, every 1 min")],
    ),
    "catch_up": (
        {**WAVES, "keep": 3},
        [
            (
                "its overdue runs",
                "all due at once",
                "the newest 3, 2 at a time from 2026-03-01 12:00:00 UTC, every 1 min",
            ),
            ("older ones", "waiting", "Cancelled"),
        ],
    ),
}
FACTS = {"state_name": "Failed", "memory_mb": 128, "seconds_to_start": 90, "deployment_id": DEPLOYMENT}


def a_run(run_id: str, name: str, now: datetime, **more: Any) -> RunFact:
    known: dict[str, Any] = {
        "state_type": StateType.SCHEDULED, "state_name": "Late", "state_id": f"s-{run_id}", "flow_name": "etl",
        "deployment_id": DEPLOYMENT, "deployment_name": "nightly", "pool": "p", "queue": "busy",
        "created": now - timedelta(hours=2), "updated": now,
    }  # fmt: skip
    return RunFact(run_id=run_id, name=name, **known | more)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBStore]:
    """Five runs that wait since one hour each, one that a schedule made for later, two that completed, a family."""
    found, now = DuckDBStore(tmp_path_factory.mktemp("c") / "t.duckdb"), datetime.now(UTC)
    late = [
        a_run(
            str(UUID(int=100 + n)), f"late-{n}", now,
            expected_start=now - timedelta(minutes=50 - n), next_start=now - timedelta(minutes=50 - n),
            queue="starved" if n == 4 else "busy",
        )
        for n in range(5)
    ]  # fmt: skip
    begun = now - timedelta(hours=1)
    ended = {"state_type": StateType.COMPLETED, "state_name": "Completed", "started": begun}
    found.merge_runs(
        [
            *late,
            a_run(
                RUN, "mother", now, state_type=StateType.RUNNING, state_name="Running", retries=1,
                started=begun, parameters={"day": "sunday"},
            ),
            a_run(
                OTHER, "child", now, state_type=StateType.RUNNING, state_name="Running", started=begun,
                parent_task_run_id="t-1", deployment_id=None,
            ),
            a_run(
                str(UUID(int=200)), "tonight", now, state_name="Scheduled", auto_scheduled=True,
                expected_start=now + timedelta(hours=3), next_start=now + timedelta(hours=3),
            ),
            a_run(str(UUID(int=300)), "short", now, **ended, ended=begun + timedelta(minutes=4)),
            a_run(str(UUID(int=301)), "long", now, **ended, ended=begun + timedelta(minutes=8)),
        ]
    )  # fmt: skip
    found.merge_task_runs(
        [
            TaskRunFact(
                task_run_id="t-1", run_id=RUN, name="call", task_key="call", state_type=StateType.RUNNING,
                state_name="Running", updated=now,
            )
        ]
    )  # fmt: skip
    found.add_queues(
        [
            QueueFact(at=now, pool="p", queue="busy", priority=2, limit=3),
            QueueFact(at=now, pool="p", queue="held", priority=3, paused=True),
        ]
    )
    yield found
    found.close()


def action(kind: str) -> dict[str, Any]:
    return typed_action({"kind": kind, **ACTIONS[kind][0]})


def test_every_kind_of_action_tells_what_it_changes() -> None:
    assert set(TELL) == set(ACTIONS) <= set(KINDS)
    for kind in KINDS:
        assert changes_of(example_of(kind).model_dump(mode="json"), FACTS, {}), kind


def test_a_kind_without_words_of_its_own_lists_its_arguments() -> None:
    told = changes_of({"kind": "label_run", "run_id": RUN, "label": "late"}, FACTS, {})
    assert told == [{"what": "label", "before": "not known", "after": "late"}]


@pytest.mark.parametrize("kind", ACTIONS)
def test_a_card_tells_before_and_after(store: DuckDBStore, kind: str) -> None:
    known = card_context_of(store, action(kind), DEPLOYMENT)
    told = [
        (one["what"], one["before"], one["after"]) for one in changes_of(action(kind), FACTS, known["before"])
    ]
    assert told == ACTIONS[kind][1]


@pytest.mark.parametrize("kind", ACTIONS)
def test_what_nobody_knows_is_said_to_be_not_known(kind: str) -> None:
    changes = changes_of(action(kind), {}, {})
    assert changes
    assert {one["before"] for one in changes} <= {
        NOT_KNOWN, "-", "active", "not told by this", "not started", "carry on", "held by dead work",
        "none: it failed", "no answer", "told of the trouble", "all due at once", "waiting",
    }  # fmt: skip


def concerned(store: DuckDBStore, kind: str) -> dict[str, str]:
    touches = card_context_of(store, action(kind), "")["touches"]
    assert touches["more"] == 0
    return {one["name"]: one["becomes"] for one in touches["runs"]}


def test_waves_name_each_run_and_when_it_starts(store: DuckDBStore) -> None:
    assert concerned(store, "spread_runs") == {f"late-{n}": f"starts 12:0{n // 2}:00 UTC" for n in range(5)}


def test_catching_up_names_who_is_cancelled(store: DuckDBStore) -> None:
    cancelled = "is cancelled: newer ones take its place"
    assert concerned(store, "catch_up") == {
        "late-0": cancelled,
        "late-1": cancelled,
        "late-2": "starts 12:00:00 UTC",
        "late-3": "starts 12:00:00 UTC",
        "late-4": "starts 12:01:00 UTC",
    }


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("pause_deployment", {"tonight"}),
        ("cancel_tree", {"child"}),
        ("hold_queue", {f"late-{n}" for n in range(4)}),
        ("release_queue", set()),
        ("reserve_slot", {"late-4"}),
    ],
)
def test_who_else_is_concerned_is_named(store: DuckDBStore, kind: str, names: set[str]) -> None:
    assert set(concerned(store, kind)) == names


def test_a_crowd_is_counted_beyond_the_names(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilotage.console.session.impact.SHOWN", 2)
    touches = card_context_of(store, action("hold_queue"), "")["touches"]
    assert (len(touches["runs"]), touches["more"]) == (2, 2)


def test_what_a_run_takes_is_what_like_runs_took(store: DuckDBStore) -> None:
    told = card_context_of(store, action("resize_run"), DEPLOYMENT)["takes"]
    assert told == "another run of about 6 min, with 256 MiB (median of 2 that completed)"
    assert (
        card_context_of(store, action("retry_run"), OTHER)["takes"] == "not known: no like run completed yet"
    )
    assert card_context_of(store, action("cancel_run"), DEPLOYMENT)["takes"] == ""


def test_what_stood_before_is_kept_when_it_was_decided(
    store: DuckDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card_context, "FRESH", 0.0)
    row = {
        "proposal_id": "p-0123456789ab", "digest": "d", "kind": "set_limit", "action": action("set_limit"),
        "status": "needs_approval",
    }  # fmt: skip
    kept = CardContext()

    def limit(status: str) -> str:
        now = row | {"status": status}
        return str(card_of(now, None, kept.of(now, lambda: store))["changes"][0]["before"])

    assert limit("needs_approval") == "3"
    store.add_queues([QueueFact(at=datetime.now(UTC), pool="p", queue="busy", priority=2, limit=1)])
    assert limit("verified") == "3"
    assert limit("needs_approval") == "1"
    store.add_queues([QueueFact(at=datetime.now(UTC), pool="p", queue="busy", priority=2, limit=3)])


def test_a_card_is_shown_without_telemetry() -> None:
    def away() -> DuckDBStore:
        raise StoreError("nobody is there")

    row = {
        "proposal_id": "p-1",
        "digest": "d",
        "kind": "retry_run",
        "action": action("retry_run"),
        "status": "filed",
    }
    assert card_of(row, None, CardContext().of(row, away))["changes"][0]["before"] == NOT_KNOWN
