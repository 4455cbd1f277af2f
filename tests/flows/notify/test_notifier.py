"""People are told in Prefect and by webhook, and the loop never dies of telling."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import pytest
from tests.flows.conftest import PrefectProbe

from pilotage.flows.notify.notifier import TRIES, Notifier, Told, event_id
from pilotage.flows.prefect.api import PrefectApi
from pilotage.planner.actions.types import Severity

RUN = "01234567-89ab-cdef-0123-456789abcdef"


class Receiver:
    """A webhook's other end, which answers what it is told to."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.answers: list[int] = []
        receiver = self

        class Answering(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                receiver.bodies.append(json.loads(self.rfile.read(length)))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 202)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def page(notifier: Notifier, **changed: Any) -> Told:
    asked: dict[str, Any] = {
        "incident_id": "i-0123456789ab",
        "run_id": RUN,
        "summary": "it failed",
        "severity": Severity.ERROR,
        "details": {"class": "auth"},
        **changed,
    }
    return asyncio.run(notifier.page("trigger", **asked))


def test_a_page_has_the_shape_of_pagerdutys_events_api(receiver: Receiver) -> None:
    notifier = Notifier(webhook_url=receiver.url, ui_url="http://prefect.test/")
    assert page(notifier) == Told(ok=True)
    (body,) = receiver.bodies
    assert (body["event_action"], body["dedup_key"]) == ("trigger", "i-0123456789ab")
    assert body["payload"] == {
        "summary": "it failed",
        "source": f"prefect.flow-run.{RUN}",
        "severity": "error",
        "component": "prefect",
        "custom_details": {"class": "auth"},
    }
    assert body["links"][0]["href"] == f"http://prefect.test/runs/flow-run/{RUN}"


def test_a_receiver_that_stumbles_is_asked_again_and_one_that_refuses_is_not(receiver: Receiver) -> None:
    notifier = Notifier(webhook_url=receiver.url, first_wait=0.0)
    receiver.answers = [500, 429, 202]
    assert page(notifier).ok
    assert len(receiver.bodies) == 3
    receiver.answers = [400]
    assert page(notifier) == Told(ok=False, problem="the webhook answered 400")
    assert len(receiver.bodies) == 4
    receiver.answers = [503] * TRIES
    assert not page(notifier).ok
    assert len(receiver.bodies) == 4 + TRIES


def test_telling_never_raises_and_never_repeats_the_address() -> None:
    for url in ("http://127.0.0.1:1/secret", "nonsense://secret", "http://[secret"):
        told = page(Notifier(webhook_url=url, first_wait=0.0))
        assert not told.ok
        assert "secret" not in told.problem
    dead = PrefectApi("http://127.0.0.1:1/api", first_wait=0.0)
    notifier = Notifier(api=dead)
    assert not asyncio.run(notifier.event(RUN, "judged", key="k", payload={})).ok
    assert not asyncio.run(Notifier(api=dead).artifact(RUN, "text")).ok
    assert page(notifier) == Told(ok=False, problem="no webhook is set")


@pytest.mark.prefect
def test_an_event_sent_twice_is_one_event_and_the_artifact_is_on_the_run(prefect_probe: PrefectProbe) -> None:
    run_id = prefect_probe.start("push-ledger/demo", at=datetime.now(UTC) + timedelta(hours=5))
    key, began = str(uuid4()), datetime.now(UTC)

    async def tell() -> None:
        async with PrefectApi.from_prefect_settings(guard=None).opened() as api:
            notifier = Notifier(api=api)
            for _ in range(2):
                told = await notifier.event(run_id, "judged", key=key, payload={"outcome": "allow"})
                assert told == Told(ok=True)
            assert await notifier.artifact(run_id, "# what pilotage did") == Told(ok=True)

    async def found() -> list[dict[str, Any]]:
        async with PrefectApi.from_prefect_settings(guard=None).opened() as api:
            where = {"event": {"name": ["pilotage.judged"]}, "occurred": {"since": began.isoformat()}}
            where["resource"] = {"id": [f"prefect.flow-run.{run_id}"]}
            body = {"filter": where, "limit": 50}
            return await api._read("POST", "/events/filter", lambda reply: list(reply["events"]), json=body)

    asyncio.run(tell())
    deadline = time.monotonic() + 60
    while not (events := asyncio.run(found())):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert [event["id"] for event in events] == [event_id(key, "judged")]
    (artifact,) = _artifacts(run_id)
    assert (artifact["key"], artifact["data"]) == (f"pilotage-{run_id[:8]}", "# what pilotage did")


def _artifacts(run_id: str) -> list[dict[str, Any]]:
    async def inside() -> list[dict[str, Any]]:
        async with PrefectApi.from_prefect_settings(guard=None).opened() as api:
            body = {"artifacts": {"flow_run_id": {"any_": [run_id]}}}
            return await api._read("POST", "/artifacts/filter", list, json=body)

    return asyncio.run(inside())
