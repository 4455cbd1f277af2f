"""Alerts are raised and resolved as one, and the notes that levers leave do not stay for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.states import Completed
from tests.flows.conftest import PrefectProbe
from tests.flows.lever_bench import LeverBench
from tests.flows.notify.test_notifier import Receiver
from tests.flows.running_controller import eventually

from pilotage.flows.execution.receipts import Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import ChangeRecords
from pilotage.flows.levers.notify_owner import NotifyLever
from pilotage.flows.levers.record_cleanup import KEPT, KEPT_ONCE, RecordCleanup, useless
from pilotage.flows.levers.resolve_alert import ResolveLever
from pilotage.flows.notify.notifier import Notifier, alert_key
from pilotage.flows.prefect.api import PrefectApi
from pilotage.planner.actions.types import NotifyOwner, ResolveAlert
from pilotage.telemetry.errors import OrchestratorError

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)


class Pager(LeverBench):
    """The two levers with a webhook."""

    def __init__(self, prefect_probe: PrefectProbe, receiver: Receiver) -> None:
        super().__init__(prefect_probe)
        self.receiver = receiver

    def notifier(self, api: PrefectApi) -> Notifier:
        return Notifier(webhook_url=self.receiver.url, api=api, first_wait=0.0)

    def notify(self, run_id: str, idempotency_key: str) -> Delivery:
        return self.with_api(
            lambda api: NotifyLever(api, self.notifier(api)).execute(
                NotifyOwner(run_id=run_id), idempotency_key=idempotency_key, expected_state_id="", message="m"
            )
        )

    def resolve(self, run_id: str, idempotency_key: str, expected: str = "") -> Delivery:
        return self.with_api(
            lambda api: ResolveLever(api, self.notifier(api)).execute(
                ResolveAlert(run_id=run_id),
                idempotency_key=idempotency_key,
                expected_state_id=expected,
                message="m",
            )
        )

    def said(self, run_id: str, step: str, times: int) -> None:
        """Nothing, once so many events of this step can be read back."""
        since = datetime.now(UTC) - timedelta(hours=1)
        name = f"pilotage.{step}"
        eventually(
            lambda: len(self.with_api(lambda api: api.events_about(run_id, since, names=[name]))) == times,
            what=name,
        )


@pytest.fixture(scope="module")
def prefect_probe(fake_probe: PrefectProbe) -> PrefectProbe:
    """The fake: what is looked at is protocol and decision, no process."""
    return fake_probe


@pytest.fixture
def pager(prefect_probe: PrefectProbe) -> Iterator[Pager]:
    receiver = Receiver()
    yield Pager(prefect_probe, receiver)
    receiver.close()


def test_what_is_told_of_a_run_is_one_alert_and_is_resolved_once(pager: Pager) -> None:
    run_id, idempotency_key = pager.failed_run(), str(uuid4())
    assert "nobody was told" in pager.resolve(run_id, idempotency_key).reason
    # told twice, by two proposals: one alert to the receiver
    assert pager.notify(run_id, str(uuid4())).effect is Effect.DONE
    assert pager.notify(run_id, str(uuid4())).effect is Effect.DONE
    pager.said(run_id, "notified", 2)
    pager.prefect_probe.move(run_id, Completed())
    assert "moved on" in pager.resolve(run_id, idempotency_key, expected=str(uuid4())).reason
    # a pager that is down is asked again, and nothing is noted until it has heard
    pager.receiver.answers = [503] * 3
    with pytest.raises(OrchestratorError) as caught:
        pager.resolve(run_id, idempotency_key)
    assert caught.value.transient
    delivery = pager.resolve(run_id, idempotency_key, expected=pager.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    bodies = pager.receiver.bodies
    heard = [body["event_action"] for body in bodies]
    assert heard == ["trigger", "trigger", "resolve", "resolve", "resolve", "resolve"]
    assert {body["dedup_key"] for body in bodies} == {alert_key(run_id)}
    assert pager.resolve(run_id, idempotency_key).effect is Effect.ALREADY
    action = ResolveAlert(run_id=run_id)
    assert pager.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    pager.said(run_id, "resolved", 1)
    # another proposal finds it resolved; and after another alert it may be resolved again
    assert "resolved since" in pager.resolve(run_id, str(uuid4())).reason
    assert len(bodies) == 6
    assert pager.undo(action, delivery, idempotency_key).effect is Effect.REFUSED


# -- notes -----------------------------------------------------------------------------------------------------


def ago(span: timedelta) -> str:
    return (NOW - span).isoformat()


@pytest.mark.parametrize(
    ("name", "note", "gone"),
    [
        ("reserve_m", {"at": ago(KEPT * 3), "undone": ago(KEPT * 2)}, True),
        ("pause_m", {"undone": ago(KEPT * 2)}, True),
        ("pause_m", {"undone": ago(KEPT / 2)}, False),
        ("pause_m", {"starts": [], "resuming": True}, False),
        ("limit_m", {"at": ago(KEPT_ONCE * 9), "limit": 4}, False),
        ("waves_m", {"at": ago(KEPT_ONCE * 2), "done": ago(KEPT_ONCE * 2)}, True),
        ("waves_m", {"at": ago(KEPT_ONCE * 2)}, False),
        ("slots_m", {"at": ago(KEPT_ONCE * 2)}, True),
        ("alert_m", {"at": ago(KEPT_ONCE / 2)}, False),
        ("hold_m", {"pool": "p", "queue": "q"}, False),
        ("hold_m", "somebody else's", False),
    ],
)
def test_a_note_on_what_stands_stays_and_a_tombstone_goes_in_time(name: str, note: Any, gone: bool) -> None:
    assert useless(f"pilotage_{name}", note, NOW) is gone


def test_old_notes_are_taken_out_of_prefect_and_nothing_else(prefect_probe: PrefectProbe) -> None:
    old, new, foreign = str(uuid4()), str(uuid4()), f"of_pilotage_somebody_{uuid4().hex}"
    now = datetime.now(UTC)

    async def work() -> tuple[int, int, list[bool]]:
        async with PrefectApi.from_prefect_settings(guard=None).opened() as api:
            notes = ChangeRecords(api)
            await notes.write("pause", old, {"undone": (now - KEPT * 2).isoformat()})
            await notes.write("pause", new, {"undone": now.isoformat()})
            await api.set_variable(foreign, {"undone": (now - KEPT * 2).isoformat()})
            watching = RecordCleanup(api, writing=lambda: False, clock=lambda: now)
            none = await watching.keep()
            kept = await notes.read("pause", old) is not None
            record_cleanup = RecordCleanup(api, writing=lambda: True, clock=lambda: now)
            taken = await record_cleanup.keep()
            again = await record_cleanup.keep()
            left = [
                kept,
                await notes.read("pause", old) is None,
                await notes.read("pause", new) is not None,
                await api.variable(foreign) is not None,
            ]
            await api.delete_variable(foreign)
            return none + again, taken, left

    none, taken, left = asyncio.run(work())
    assert none == 0
    assert taken >= 1
    assert left == [True, True, True, True]
