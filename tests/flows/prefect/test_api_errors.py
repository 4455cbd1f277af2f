"""Whatever Prefect or the network does, callers of the API see an OrchestratorError that says if it passes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import httpx
import pytest

from pilotage.flows.prefect.api import TRIES, PrefectApi, translate
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.facts import StateType

RUN = "01234567-89ab-cdef-0123-456789abcdef"


def all_of(kind: type[Exception]) -> set[type[Exception]]:
    """The class and everything below it."""
    return {kind}.union(*(all_of(each) for each in kind.__subclasses__()))


def api(answer: Callable[[httpx.Request], httpx.Response]) -> PrefectApi:
    transport = httpx.MockTransport(answer)
    return PrefectApi("http://prefect.test/api", transport=transport, first_wait=0.0, guard=None)


def ask(answer: Callable[[httpx.Request], httpx.Response]) -> object:
    return asyncio.run(api(answer).run(RUN))


FOREIGN = sorted(
    {each for each in all_of(httpx.HTTPError) if not issubclass(each, httpx.HTTPStatusError)}
    | {httpx.InvalidURL, httpx.StreamError, OSError, ConnectionResetError, ValueError, RuntimeError},
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", FOREIGN, ids=lambda kind: kind.__name__)
def test_every_foreign_error_becomes_ours_and_keeps_its_cause(kind: type[Exception]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise kind("boom")

    with pytest.raises(OrchestratorError, match=f"/flow_runs/{RUN}") as caught:
        ask(answer)
    assert isinstance(caught.value.__cause__, kind)


@pytest.mark.parametrize(
    ("kind", "transient"),
    [
        (httpx.ConnectError, True),
        (httpx.ReadTimeout, True),
        (httpx.PoolTimeout, True),
        (httpx.RemoteProtocolError, True),
        (httpx.UnsupportedProtocol, False),
        (httpx.TooManyRedirects, False),
        (ValueError, False),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_only_faults_that_pass_are_called_transient(kind: type[Exception], transient: bool) -> None:
    assert translate(kind("boom"), "GET", "/", "http://prefect.test/api").transient is transient


@pytest.mark.parametrize(
    ("status", "transient", "asked"),
    [(401, False, 1), (403, False, 1), (404, False, 1), (409, False, 1), (422, False, 1)]
    + [(code, True, TRIES) for code in (408, 429, 500, 502, 503, 504)],
)
def test_a_status_is_asked_again_only_where_that_helps(status: int, transient: bool, asked: int) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(status, text="no")

    with pytest.raises(OrchestratorError, match=str(status)) as caught:
        ask(answer)
    assert (caught.value.transient, len(seen)) == (transient, asked)


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"id": 1, "state": null}', "<html>"])
def test_a_reply_of_another_shape_is_an_error_that_does_not_pass(text: str) -> None:
    with pytest.raises(OrchestratorError, match="another shape") as caught:
        ask(lambda request: httpx.Response(200, text=text))
    assert not caught.value.transient


def test_a_busy_server_is_asked_until_it_answers() -> None:
    answers = iter([httpx.Response(503), httpx.Response(503), httpx.Response(200, json={"name": "f"})])
    assert asyncio.run(api(lambda request: next(answers)).flow_name(RUN)) == "f"


def test_a_write_that_lost_a_race_in_the_database_is_sent_again_as_often_as_it_takes() -> None:
    lost = httpx.Response(503, json={"exception_message": "Service Unavailable"})
    answers = iter([lost] * (2 * TRIES) + [httpx.Response(200, json={"name": "f"})])
    assert asyncio.run(api(lambda request: next(answers)).flow_name(RUN)) == "f"


def test_a_server_that_wants_csrf_tokens_gets_one() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/csrf-token"):
            return httpx.Response(200, json={"token": "t"})
        if request.headers.get("Prefect-Csrf-Token") != "t" or not request.headers.get("Prefect-Csrf-Client"):
            return httpx.Response(403, json={"detail": "Missing CSRF token"})
        return httpx.Response(204)

    asyncio.run(api(answer).add_labels(RUN, {"a": 1}))


def test_nothing_is_ever_forced() -> None:
    sent: list[dict[str, object]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(200, json={"status": "REJECT", "state": None, "details": {}, "results": []})

    async def both() -> None:
        prefect = api(answer)
        await prefect.set_state(RUN, StateType.SCHEDULED, "Scheduled", message="m", idempotency_key=RUN)
        await prefect.set_state_if(
            RUN, (StateType.FAILED,), StateType.SCHEDULED, "AwaitingRetry", message="m", idempotency_key=RUN
        )

    asyncio.run(both())
    assert [each["force"] for each in sent] == [False, False]


def test_a_server_that_asks_to_be_left_alone_is_asked_once() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(429, headers={"Retry-After": "120"}, text="slow down")

    client = api(answer)

    async def twice() -> None:
        for _ in range(2):
            with pytest.raises(OrchestratorError, match="Retry-After") as caught:
                await client.run(RUN)
            assert caught.value.transient

    asyncio.run(twice())
    assert len(asked) == 1
    assert 0 < client.pace.seconds_left() <= 120
