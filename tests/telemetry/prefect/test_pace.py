"""Prefect is left alone for as long as it asked, and asked no more often than the budget lets."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from email.utils import format_datetime

import httpx
import pytest

from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.prefect.http import PrefectReader
from pilotage.telemetry.prefect.pace import LONGEST, STANDS_BY, Pace
from pilotage.telemetry.times import utc_now


class Seconds:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    made = Seconds()
    monkeypatch.setattr("pilotage.telemetry.prefect.pace.asyncio.sleep", made.sleep)
    return made


def test_a_budget_spreads_requests_over_the_minutes(seconds: Seconds) -> None:
    pace = Pace(30, clock=seconds)
    began = seconds.now

    async def ask(count: int) -> None:
        for _ in range(count):
            await pace.turn()
            assert pace.last_minute() <= 30

    asyncio.run(ask(95))
    assert seconds.now - began == pytest.approx(180, abs=1)
    assert pace.in_words() == {"requests_a_minute": f"{pace.last_minute()} of 30"}


def test_what_acts_is_counted_and_does_not_wait_for_the_budget(seconds: Seconds) -> None:
    pace = Pace(2, clock=seconds)
    for _ in range(5):
        asyncio.run(pace.act("a write"))
    assert (seconds.now, pace.last_minute()) == (1000.0, 5)
    asyncio.run(pace.turn())
    assert seconds.now > 1000.0, "collecting makes room for it"


def test_without_a_budget_nothing_waits_and_nothing_is_said(seconds: Seconds) -> None:
    pace = Pace(clock=seconds)
    for _ in range(500):
        asyncio.run(pace.turn())
    assert (seconds.now, pace.in_words()) == (1000.0, {})
    seconds.now += 61
    asyncio.run(pace.turn())
    assert len(pace._asked) == 1, "a year of requests is not kept"


@pytest.mark.parametrize(
    ("status", "value", "left"),
    [
        (429, "7", 7.0),
        (503, "2.5", 2.5),
        (429, "99999999", LONGEST),
        (429, "-3", 0.0),
        (429, "soon", 0.0),
        (429, None, 0.0),
        (200, "7", 0.0),
        (500, "7", 0.0),
    ],
)
def test_what_a_busy_server_asked_for_is_heard(
    seconds: Seconds, status: int, value: str | None, left: float
) -> None:
    pace = Pace(clock=seconds)
    pace.hear(status, {} if value is None else {"Retry-After": value})
    assert pace.seconds_left() == left
    asyncio.run(pace.turn())
    assert seconds.now == 1000.0 + left


def test_a_date_is_understood_too(seconds: Seconds) -> None:
    pace = Pace(clock=seconds)
    pace.hear(503, {"Retry-After": format_datetime(utc_now() + timedelta(seconds=60), usegmt=True)})
    assert 55 <= pace.seconds_left() <= 60


def test_what_acts_gives_way_where_it_would_wait_long(seconds: Seconds) -> None:
    pace = Pace(clock=seconds)
    pace.hear(429, {"Retry-After": str(STANDS_BY + 10)})
    with pytest.raises(OrchestratorError, match="Retry-After") as caught:
        asyncio.run(pace.act("POST /x"))
    assert caught.value.transient
    assert pace.in_words() == {"asked_to_wait": "15 s more (Retry-After)"}
    seconds.now += 12
    asyncio.run(pace.act("POST /x"))
    assert seconds.now == 1000.0 + STANDS_BY + 10


def test_a_reader_asks_a_busy_prefect_again_only_when_it_may(seconds: Seconds) -> None:
    asked: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(seconds.now)
        if len(asked) == 1:
            return httpx.Response(429, headers={"Retry-After": "30"}, text="slow down")
        return httpx.Response(200, json=[])

    async def raises(reply: httpx.Response) -> None:
        await reply.aread()
        reply.raise_for_status()

    async def story() -> None:
        client = httpx.AsyncClient(
            transport=httpx.MockTransport(answer),
            base_url="http://prefect.test/api",
            event_hooks={"response": [raises]},
        )
        reader = PrefectReader(client)
        reader.pace = Pace(clock=seconds)
        async with reader:
            with pytest.raises(OrchestratorError, match="429"):
                await reader.page("/flow_runs/filter", {})
            assert await reader.page("/flow_runs/filter", {}) == []

    asyncio.run(story())
    assert asked == [1000.0, 1030.0]
