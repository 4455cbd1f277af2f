"""The routes of the drawings: rows of telemetry read in the caller's name, drawn as SVG by `drawings`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from pilotage.console.session.engine import Engine
from pilotage.console.session.pages import moments_of
from pilotage.console.web.auth import Reader, Writer
from pilotage.console.web.charts import Chance, Lane, Mark, Span, chances, chart, timeline
from pilotage.console.web.routes import NO
from pilotage.console.web.schemas import IncidentId
from pilotage.telemetry.facts import TERMINAL, DecisionFact, RunFact
from pilotage.telemetry.forecast.upcoming import riskiest
from pilotage.telemetry.queries.runs import decisions_about, runs_of
from pilotage.telemetry.queries.timelines import Seen, runs_between, states_of, tasks_of

SVG = "image/svg+xml"
Width = Annotated[int, Query(ge=200, le=2000)]
Offset = Annotated[int, Query(ge=-840, le=840)]
"""Minutes that the reader's clock is behind UTC, as JavaScript has it."""
Word = Annotated[str, Field(max_length=400)]

router = APIRouter(
    prefix="/api/draw",
    responses={**NO, 200: {"content": {SVG: {"schema": {"type": "string"}}}}},
    default_response_class=Response,
)


async def _drawn(request: Request, user: Reader, draw: Callable[[Any], str]) -> Response:
    engine: Engine = request.app.state.engine
    setting = await engine.setting(user)
    return Response(await asyncio.to_thread(draw, setting.toolbox.store), media_type=SVG)


@router.get("/runs")
async def runs(
    request: Request,
    user: Reader,
    hours: Annotated[int, Query(ge=1, le=168)] = 2,
    width: Width = 800,
    offset: Offset = 0,
) -> Response:
    """The runs of the last hours by deployment, with those that are due soon."""
    now = datetime.now(UTC)

    def draw(store: Any) -> str:
        since = now - timedelta(hours=hours)
        lanes: dict[str, list[Span]] = {}
        for run in runs_between(store, since, now):
            begun = run.started or run.next_start or run.expected_start or run.created
            waits = run.state_type in ("SCHEDULED", "PENDING", "PAUSED") and begun < now
            ended = run.ended or (now if run.started or waits else begun)
            span = Span(
                state=run.state_type,
                start=begun,
                end=max(begun, ended),
                words=run.name,
                ref=f"run:{run.run_id}",
            )
            lanes.setdefault(_named(run), []).append(span)
        named = [Lane(label=name, spans=spans) for name, spans in sorted(lanes.items())]
        title = f"Runs of the last {hours} hours by deployment"
        return timeline(title, named, now=now, width=width, offset=offset, since=since)

    return await _drawn(request, user, draw)


@router.get("/run/{run_id}")
async def run(
    request: Request,
    user: Reader,
    run_id: Annotated[str, Field(pattern=r"^[0-9a-f-]{36}$")],
    width: Width = 800,
    offset: Offset = 0,
) -> Response:
    """One run: its states, its tasks, and what was decided about it."""
    now = datetime.now(UTC)

    def draw(store: Any) -> str:
        seen = states_of(store, run_id)
        lanes = [Lane(label="states", spans=_states(seen))] if seen else []
        for task in tasks_of(store, run_id):
            if task.started is not None:
                span = Span(state=task.state_type, start=task.started, end=task.ended, words=task.name)
                lanes.append(Lane(label=task.name, spans=[span]))
        marks = [Mark(at=step.at, words=_told(step)) for step in decisions_about(store, run_id)]
        return timeline(f"Run {run_id}", lanes, now=now, width=width, offset=offset, marks=marks)

    return await _drawn(request, user, draw)


@router.get("/incident/{incident_id}")
async def incident(
    request: Request, user: Reader, incident_id: IncidentId, width: Width = 800, offset: Offset = 0
) -> Response:
    """One incident: each of its runs from its failure to its end, and what was proposed, voted, done and recovered."""
    engine: Engine = request.app.state.engine
    found = await engine.ask(user, "incident", incident_id=incident_id)
    steps = await engine.ask(user, "why", subject=found["incident_id"])
    now = datetime.now(UTC)

    def draw(store: Any) -> str:
        names = {
            key: run.name for key, run in runs_of(store, [one["run_id"] for one in found["runs"]]).items()
        }
        lanes = [
            Lane(
                label=names.get(one["run_id"], one["run_id"][:8] or one["subject"]),
                spans=[
                    Span(
                        state="FAILED" if one["state"] == "open" else "COMPLETED",
                        start=datetime.fromisoformat(one["at"]),
                        end=datetime.fromisoformat(one["closed_at"]) if one["closed_at"] else None,
                        words=f"{one['state']} {one['why']}".strip(),
                        ref=f"run:{one['run_id']}" if one["run_id"] else "",
                    )
                ],
            )
            for one in found["runs"]
        ]
        marks = [Mark(at=at, words=words) for at, words in moments_of(found, steps)]
        title = f"Incident {incident_id}: failures, proposals, votes, effects and recovery"
        return timeline(title, lanes, now=now, width=width, offset=offset, marks=marks)

    return await _drawn(request, user, draw)


def _named(run: RunFact) -> str:
    return f"{run.flow_name}/{run.deployment_name}" if run.deployment_name else run.flow_name


def _told(step: DecisionFact) -> str:
    return " ".join(dict.fromkeys((step.step, step.outcome)))


def _states(seen: list[Seen]) -> list[Span]:
    """Each state until the next one; the last lasts, unless it is the end of the run."""
    last = seen[-1].at if seen[-1].type in TERMINAL else None
    ends = [*(each.at for each in seen[1:]), last]
    return [
        Span(state=each.type, start=each.at, end=end, words=each.name)
        for each, end in zip(seen, ends, strict=True)
    ]


@router.get("/forecast")
async def forecast(
    request: Request, user: Reader, width: Width = 800, limit: Annotated[int, Query(ge=1, le=60)] = 20
) -> Response:
    """The chance of failing of the riskiest runs that are due within a day."""
    now = datetime.now(UTC)

    def draw(store: Any) -> str:
        rows = [
            Chance(
                label=f"{_named(risk.run)} {risk.run.name}",
                p=risk.forecast.p_fail,
                words=f"{risk.forecast.p_fail:.0%} says {risk.forecast.model}: {'; '.join(risk.forecast.reasons)}",
                ref=f"run:{risk.run.run_id}",
            )
            for risk in riskiest(store, now, limit)
        ]
        return chances("Chance of failing of the next runs, by the calibrated forecast", rows, width=width)

    return await _drawn(request, user, draw)


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: Word = ""
    width: Annotated[int, Field(ge=200, le=2000)] = 800


class ChartIn(_In):
    """A chart block, see `session/blocks.py`."""

    x: Annotated[list[Word | int | float], Field(max_length=2000)]
    y: Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(max_length=2000)]
    unit: Annotated[str, Field(max_length=40)] = ""
    style: Literal["bar", "line"] = "bar"


def _on_a_calendar(at: datetime) -> datetime:
    if not 1990 <= at.year <= 2200:
        raise ValueError("a run is drawn between the years 1990 and 2200")
    return at


Moment = Annotated[AwareDatetime, AfterValidator(_on_a_calendar)]


class SpanIn(BaseModel):
    state: Word
    start: Moment
    end: Moment | Literal[""] = ""


class LaneIn(BaseModel):
    label: Word
    spans: Annotated[list[SpanIn], Field(max_length=500)]


class TimelineIn(_In):
    """A timeline block, see `session/blocks.py`."""

    lanes: Annotated[list[LaneIn], Field(max_length=100)]
    offset: Annotated[int, Field(ge=-840, le=840)] = 0


@router.post("/chart")
async def draw_chart(user: Writer, given: ChartIn) -> Response:
    """A chart block drawn."""
    count = min(len(given.x), len(given.y))
    names = [str(name) for name in given.x[:count]]
    drawn = chart(given.title, names, given.y[:count], unit=given.unit, style=given.style, width=given.width)
    return Response(drawn, media_type=SVG)


@router.post("/timeline")
async def draw_timeline(user: Writer, given: TimelineIn) -> Response:
    """A timeline block drawn."""
    lanes = [
        Lane(
            label=lane.label,
            spans=[Span(state=span.state, start=span.start, end=span.end or None) for span in lane.spans],
        )
        for lane in given.lanes
    ]
    now = datetime.now(UTC)
    drawn = timeline(given.title, lanes, now=now, width=given.width, offset=given.offset)
    return Response(drawn, media_type=SVG)
