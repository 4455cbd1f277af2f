"""A demo's worth of facts: the nine shipped flows, what befell them, what was forecast and what was decided.

All of it follows from one starting moment, so that two runs of a test see the same queues.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count

from pilotage.telemetry.facts import (
    DecisionFact,
    DeploymentFact,
    EventFact,
    QueueFact,
    RunFact,
    StateType,
)
from pilotage.telemetry.forecasts import Forecast
from pilotage.telemetry.store.duckdb import DuckDBStore

POOL = "pilotage"
QUEUES = {"high": 1, "default": 2, "low": 3}
"""Priority by queue, as the demo makes them."""
NAMESPACE = uuid.UUID("5f1c6a52-8d4e-4a55-9a8e-2b0c6f3f9d11")
"""Ids are derived from it, so that the same story has the same ids each time."""

COMPLETED, FAILED, CRASHED = StateType.COMPLETED, StateType.FAILED, StateType.CRASHED
BUG = "Flow run encountered an exception: KeyError: 'XAU'"
DOWN = "Flow run encountered an exception: WarehouseUnavailable: warehouse unavailable"
BUSY = (
    "Flow run encountered an exception: HTTPStatusError: "
    "Server error '503 Service Unavailable' for url 'http://127.0.0.1:8099/quotes'"
)
REFUSED = (
    "Flow run encountered an exception: HTTPStatusError: "
    "Client error '401 Unauthorized' for url 'http://127.0.0.1:8099/ledger'"
)
KILLED = "Flow run infrastructure exited with non-zero status code -9."
TOO_BIG = "Flow run encountered an exception: MemoryError"


def an_id(*parts: object) -> str:
    """The id that stands for these words."""
    return str(uuid.uuid5(NAMESPACE, "/".join(map(str, parts))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of a run, in seconds after the queue state's start."""

    begins: float
    lasts: float
    ends_as: StateType = COMPLETED
    message: str = ""
    p_fail: float = 0.12
    """What was forecast just before it began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What befell one run, and the decisions that were taken about it."""

    flow: str
    label: str
    queue: str = "default"
    attempts: tuple[Attempt, ...] = ()
    due: float | None = None
    """When it is to start, for one that has not."""
    due_p_fail: float = 0.1
    running_since: float | None = None
    decisions: tuple[tuple[float, str, str, str, tuple[str, ...], str], ...] = ()
    """(seconds, action, step, outcome, policy ids, actor)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is written at once."""

    runs: tuple[RunFact, ...] = ()
    events: tuple[EventFact, ...] = ()
    forecasts: tuple[Forecast, ...] = ()
    decisions: tuple[DecisionFact, ...] = ()
    queues: tuple[QueueFact, ...] = ()
    deployments: tuple[DeploymentFact, ...] = ()


def write(store: DuckDBStore, facts: Facts) -> int:
    """How many rows were written."""
    return (
        store.merge_deployments(facts.deployments)
        + store.merge_runs(facts.runs)
        + store.add_events(facts.events)
        + store.add_forecasts(facts.forecasts)
        + store.add_decisions(facts.decisions)
        + store.add_queues(facts.queues)
    )


def _carried_out(
    at: float, action: str, policy: str, seconds: float
) -> tuple[tuple[float, str, str, str, tuple[str, ...], str], ...]:
    """The steps of a proposal that policy allows at once and that keeps its promise."""
    return (
        (at, action, "proposed", "filed", (), "pilot"),
        (at + 0.05, action, "judged", "allow", (policy,), "pilot"),
        (at + 0.2, action, "admitted", "allow", (policy,), "pilot"),
        (at + 0.9, action, "injected", "done", (), "pilot"),
        (at + seconds, action, "verified", "verified", (), "pilot"),
    )


WARM_UPS: tuple[Story, ...] = (
    *(
        Story(flow="fetch-quotes", label=f"w{n}", attempts=(Attempt(begins=n * 14, lasts=4, p_fail=0.2),))
        for n in range(6)
    ),
    *(
        Story(
            flow="settle-trades", label=f"w{n}", attempts=(Attempt(begins=5 + n * 17, lasts=6, p_fail=0.15),)
        )
        for n in range(5)
    ),
    *(
        Story(
            flow="payments",
            label=f"w{n}",
            attempts=(
                Attempt(begins=9 + n * 15, lasts=3, ends_as=FAILED, message=BUG, p_fail=0.3 + 0.1 * n),
            ),
        )
        for n in range(6)
    ),
    *(
        Story(
            flow="sync-warehouse",
            label=f"w{n}",
            attempts=(
                Attempt(begins=2 + n * 18, lasts=5, ends_as=FAILED, message=DOWN, p_fail=0.4 + 0.1 * n),
            ),
        )
        for n in range(3)
    ),
)

INCIDENTS: tuple[Story, ...] = (
    Story(
        flow="fetch-quotes",
        label="busy",
        attempts=(
            Attempt(begins=110, lasts=3, ends_as=FAILED, message=BUSY, p_fail=0.18),
            Attempt(begins=119, lasts=4, p_fail=0.25),
        ),
        decisions=_carried_out(114.0, "retry_run", "agent-retries", 9.5),
    ),
    Story(
        flow="settle-trades",
        label="killed",
        attempts=(
            Attempt(begins=112, lasts=5, ends_as=CRASHED, message=KILLED, p_fail=0.14),
            Attempt(begins=124, lasts=6, p_fail=0.31),
        ),
        decisions=_carried_out(118.2, "retry_run", "agent-retries", 12.4),
    ),
    Story(
        flow="push-ledger",
        label="refused",
        attempts=(Attempt(begins=114, lasts=3, ends_as=FAILED, message=REFUSED, p_fail=0.22),),
        decisions=_carried_out(118.0, "notify_owner", "agent-notifies", 1.6),
    ),
    Story(
        flow="build-features",
        label="too-big",
        attempts=(
            Attempt(begins=116, lasts=7, ends_as=FAILED, message=TOO_BIG, p_fail=0.35),
            Attempt(begins=131, lasts=11, p_fail=0.2),
        ),
        decisions=_carried_out(124.1, "resize_run", "agent-resizes", 18.6),
    ),
    Story(
        flow="nightly-close",
        label="killed",
        attempts=(
            Attempt(begins=118, lasts=6, ends_as=CRASHED, message=KILLED, p_fail=0.11),
            Attempt(begins=151, lasts=7, p_fail=0.28),
        ),
        decisions=(
            (125.0, "retry_run", "proposed", "filed", (), "pilot"),
            (
                125.1,
                "retry_run",
                "judged",
                "needs_approval",
                ("agent-retries", "prod-needs-approver"),
                "pilot",
            ),
            (146.0, "retry_run", "approved", "approve", ("approver-votes",), "bo"),
            (146.3, "retry_run", "admitted", "allow", ("agent-retries", "prod-needs-approver"), "pilot"),
            (147.0, "retry_run", "injected", "done", (), "pilot"),
            (158.4, "retry_run", "verified", "verified", (), "pilot"),
        ),
    ),
    Story(
        flow="payments",
        label="bug",
        attempts=(Attempt(begins=121, lasts=3, ends_as=FAILED, message=BUG, p_fail=0.91),),
        decisions=(
            (125.2, "pause_deployment", "proposed", "filed", (), "pilot"),
            (125.3, "pause_deployment", "judged", "deny", ("tier0-never-paused",), "pilot"),
        ),
    ),
    Story(
        flow="quick-report",
        label="deadline",
        queue="low",
        attempts=(Attempt(begins=158, lasts=2, p_fail=0.06),),
        decisions=_carried_out(139.0, "reserve_slot", "agent-reserves", 19.4),
    ),
    Story(
        flow="sync-warehouse",
        label="at-risk",
        due=240,
        due_p_fail=0.83,
        decisions=_carried_out(128.0, "reschedule_run", "agent-reschedules", 2.2),
    ),
    Story(flow="payments", label="next", due=210, due_p_fail=0.93),
    Story(flow="fetch-quotes", label="next", due=200, due_p_fail=0.16),
    Story(flow="quick-report", label="waits", queue="low", due=140, due_p_fail=0.05),
    Story(
        flow="long-report",
        label="busy-1",
        queue="high",
        attempts=(Attempt(begins=120, lasts=32, p_fail=0.1),),
    ),
    Story(flow="long-report", label="busy-2", queue="high", running_since=153.0),
)


class PrefectProbe:
    """The demo's queues: `opening()` once, then `later()` for as long as anybody writes."""

    def __init__(self, start: datetime) -> None:
        self._start = start
        self._ends = 175.0

    def at(self, seconds: float) -> datetime:
        """The moment so many seconds after the start."""
        return self._start + timedelta(seconds=seconds)

    def opening(self) -> Facts:
        """Everything up to the moment at which the notebook is opened."""
        stories = WARM_UPS + INCIDENTS
        flows = {story.flow: story for story in stories}
        return Facts(
            runs=tuple(self._run(story) for story in stories),
            events=tuple(event for story in stories for event in self._events(story)),
            forecasts=tuple(made for story in stories for made in self._forecasts(story)),
            decisions=tuple(step for story in stories for step in self._decisions(story)),
            queues=tuple(self._queues(range(0, int(self._ends), 5))),
            deployments=tuple(self._deployment(story) for story in flows.values()),
        )

    def later(self) -> Iterator[Facts]:
        """What a collector adds, batch by batch, without end: the queues as they are, and an older run.

        The runs are those of a gap before the start, so that the latest runs, and what is said of them,
        do not depend on how fast the machine is.
        """
        for number in count():
            story = Story(
                flow="quick-report",
                label=f"older{number}",
                queue="low",
                attempts=(Attempt(begins=-10.0 - number * 2, lasts=1, p_fail=0.05),),
            )
            yield Facts(
                runs=(self._run(story),),
                events=tuple(self._events(story)),
                forecasts=tuple(self._forecasts(story)),
                queues=tuple(self._queues([int(self._ends) + number])),
            )

    def _run(self, story: Story) -> RunFact:
        last = story.attempts[-1] if story.attempts else None
        begins = story.attempts[0].begins if last else story.running_since
        if last is not None:
            state, message = last.ends_as, last.message
        else:
            state = StateType.SCHEDULED if begins is None else StateType.RUNNING
            message = ""
        due = story.due if story.due is not None else begins or 0.0
        ended = last.begins + last.lasts if last else None
        return RunFact(
            run_id=an_id(story.flow, story.label),
            name=f"{story.label}-{story.flow}",
            flow_name=story.flow,
            state_type=state,
            state_name=state.value.title(),
            state_id=an_id(story.flow, story.label, "state"),
            state_message=message,
            deployment_id=an_id(story.flow),
            deployment_name="demo",
            pool=POOL,
            queue=story.queue,
            run_count=len(story.attempts) or int(begins is not None),
            created=self.at(min(due, 100.0) - 1),
            expected_start=self.at(due),
            next_start=self.at(due) if begins is None else None,
            started=self.at(begins) if begins is not None else None,
            ended=self.at(ended) if ended is not None else None,
            updated=self.at(ended if ended is not None else begins or 100.0),
        )

    def _events(self, story: Story) -> Iterator[EventFact]:
        run_id = an_id(story.flow, story.label)
        turns = [
            turn
            for attempt in story.attempts
            for turn in (
                (attempt.begins, StateType.RUNNING, ""),
                (attempt.begins + attempt.lasts, attempt.ends_as, attempt.message),
            )
        ]
        if story.running_since is not None:
            turns.append((story.running_since, StateType.RUNNING, ""))
        for seconds, state, message in turns:
            validated = {"type": state.value, "name": state.value.title()}
            yield EventFact(
                event_id=an_id(run_id, seconds, state),
                occurred=self.at(seconds),
                name=f"prefect.flow-run.{state.value.title()}",
                resource_id=f"prefect.flow-run.{run_id}",
                run_id=run_id,
                payload={"validated_state": validated | ({"message": message} if message else {})},
            )

    def _forecasts(self, story: Story) -> Iterator[Forecast]:
        expected = [(attempt.begins - 1, attempt.p_fail) for attempt in story.attempts]
        if story.due is not None:
            expected.append((self._ends - 20, story.due_p_fail))
        for seconds, p_fail in expected:
            yield Forecast(
                run_id=an_id(story.flow, story.label),
                made_at=self.at(seconds),
                p_fail=p_fail,
                model="logistic",
                trained_on=20,
            )

    def _decisions(self, story: Story) -> Iterator[DecisionFact]:
        run_id = an_id(story.flow, story.label)
        queue_action = any(action == "reserve_slot" for _, action, *_ in story.decisions)
        for seconds, action, step, outcome, policy_ids, actor in story.decisions:
            yield DecisionFact(
                decision_id=an_id(run_id, action, step),
                at=self.at(seconds),
                proposal_id="p-" + an_id(run_id, action).replace("-", "")[:12],
                incident_id="i-" + an_id(run_id).replace("-", "")[:12],
                run_id=None if queue_action else run_id,
                step=step,
                action=action,
                outcome=outcome,
                policy_ids=policy_ids,
                actor=actor,
            )

    def _deployment(self, story: Story) -> DeploymentFact:
        return DeploymentFact(
            deployment_id=an_id(story.flow),
            name="demo",
            flow_name=story.flow,
            pool=POOL,
            queue=story.queue,
            updated=self.at(0),
        )

    def _queues(self, seconds: Iterable[int]) -> Iterator[QueueFact]:
        stories = WARM_UPS + INCIDENTS
        for moment in seconds:
            for queue, priority in QUEUES.items():
                mine = [story for story in stories if story.queue == queue]
                waiting = [s.due for s in mine if s.due is not None and s.due <= moment]
                if queue == "low" and 130 <= moment < 158:
                    waiting.append(130.0)
                yield QueueFact(
                    at=self.at(moment),
                    pool=POOL,
                    queue=queue,
                    priority=priority,
                    pool_limit=4,
                    waiting=len(waiting),
                    running=sum(
                        a.begins <= moment < a.begins + a.lasts for story in mine for a in story.attempts
                    )
                    + sum(s.running_since is not None and s.running_since <= moment for s in mine),
                    oldest_due=self.at(min(waiting)) if waiting else None,
                )
