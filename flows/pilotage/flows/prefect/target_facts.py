"""Looks up, in Prefect and now, the facts about an action's target that policy rests on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pilotage.flows.prefect.api import PAGE, PrefectApi
from pilotage.flows.prefect.liveness import judge_liveness, process_here, signs_of
from pilotage.flows.prefect.models import DeploymentView, PoolView, RunView
from pilotage.flows.prefect.stuck import stuck_of
from pilotage.planner.actions.preconditions import STARTED_BY_A_WORKER
from pilotage.planner.actions.types import (
    Action,
    CancelRun,
    CatchUp,
    HoldQueue,
    MarkCrashed,
    PauseDeployment,
    ReserveSlot,
    SizeRun,
    StartRun,
    deployment_of,
    queue_of,
    run_of,
    target_of,
)
from pilotage.planner.findings import Cure
from pilotage.planner.parameters import PlaybookParameters
from pilotage.policies.types import Liveness, TargetFacts
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.facts import TERMINAL, LogLine, StateType
from pilotage.telemetry.pool_memory import effective, memory_of
from pilotage.telemetry.queries.retry_impact import begun_tasks, half_done
from pilotage.telemetry.redaction import redact

if TYPE_CHECKING:
    from pilotage.planner.detect.rulebook import Rulebook

PRODUCTION = "prod"
_UNLABELLED_TIER = 1
LATELY = 50
"""Completed runs of a deployment among which the largest size counts as proven."""


class PrefectFacts:
    """Facts about targets, from the given API or the active Prefect profile's."""

    def __init__(
        self,
        api: PrefectApi | None = None,
        book: Rulebook | None = None,
        parameters: PlaybookParameters | None = None,
    ) -> None:
        """`book` has the failure rules of the site, `parameters` what counts as long there; by default what ships."""
        self._given, self._book = api, book
        self._parameters = parameters or PlaybookParameters()
        self._flow_names: dict[str, str] = {}

    async def target(self, action: Action) -> TargetFacts:
        """Fresh facts about the action's target. Raises OrchestratorError when they cannot be had."""
        match action:
            case _ if action.limit_changed():
                return TargetFacts(target=target_of(action), read_at=self._api().now(), **strictest([]))
            case _ if queue := queue_of(action):
                return await self._queue(action, *queue)
            case _ if deployment_id := deployment_of(action):
                return await self._deployment(action, deployment_id)
            case _:
                return await self._run(action, run_of(action))

    async def _run(self, action: Action, run_id: str) -> TargetFacts:
        run = await self._api().run(run_id)
        deployment, pool = await asyncio.gather(self._deployment_of(run), self._pool_of(run.pool))
        of_deployment = deployment.job_variables if deployment else {}
        now = self._api().now()
        tags = deployment.tags if deployment else ()
        return TargetFacts(
            target=target_of(action),
            read_at=now,
            state_type=run.state.type.value,
            state_name=redact(run.state.name),
            state_id=run.state.id,
            late_since_id=await self._late_since(run),
            run_count=run.run_count,
            deployment_id=run.deployment_id,
            deployment_name=await self._full_name(deployment),
            memory_mb=_memory(pool, of_deployment, run.job_variables),
            **(await self._sizes(pool, deployment) if isinstance(action, SizeRun) else {}),
            **(await self._of_kind(action, run, tags, now)),
            seconds_to_start=int((run.next_start - now).total_seconds()) if run.next_start else 0,
            paused=deployment.paused if deployment else False,
            **labelled(tags, run.tags),
        )

    async def _of_kind(
        self, action: Action, run: RunView, tags: Sequence[str], now: datetime
    ) -> dict[str, Any]:
        """Return what is looked up only for actions that rest on it."""
        match action:
            case CancelRun():
                return {"stuck": await stuck_of(self._api(), run, self._parameters, now)}
            case MarkCrashed():
                said = repeatable(tags, run.tags, ())
                return {"death": await self._liveness(run, tags, now), "repeatable": said}
            case _:
                return await self._repeats(run, tags) if _again(action) else {}

    async def _repeats(self, run: RunView, tags: Sequence[str]) -> dict[str, Any]:
        """Return what another attempt may do twice, `repeatable` and `half_done`, and what the failure is `read_as` now."""
        rows, lines = await asyncio.gather(self._api().task_runs_of(run.id), self._api().last_lines(run.id))
        return {
            "read_as": self._read_as(run, lines),
            "repeatable": repeatable(tags, run.tags, begun_tasks(rows)),
            "half_done": half_done(
                run.state.type,
                run.state.name,
                run.state.message,
                run.run_count,
                rows,
                _said(REPEATABLE, tags),
            ),
        }

    def _read_as(self, run: RunView, lines: Sequence[LogLine]) -> str:
        """Return the class that rules read, when its cure is not another attempt; they are loaded at the first question."""
        if run.state.type not in (StateType.FAILED, StateType.CRASHED):
            return ""
        from pilotage.planner.detect.diagnosis import Line
        from pilotage.planner.detect.reasoning import EXAMPLES, reason  # start-up time: tables of rules

        read = [Line(level=line.level, text=line.message) for line in lines]
        diagnosis = reason(run.state.type, run.state.name, run.state.message, read, self._book or EXAMPLES)
        return (
            diagnosis.failure_class.value if diagnosis.cure in (Cure.OWNER, Cure.MEMORY, Cure.DEATH) else ""
        )

    async def _late_since(self, run: RunView) -> str:
        if run.state.name != "Late":
            return ""
        history = await self._api().history(run.id)
        before = [state for state in history if state.name != "Late"]
        return before[-1].id if before and history[-1].id == run.state.id else ""

    async def _liveness(self, run: RunView, tags: Sequence[str], now: datetime) -> Liveness:
        if run.state.type not in (StateType.RUNNING, StateType.CANCELLING):
            return ""
        return judge_liveness(await signs_of(self._api(), run, tags, process_here, now), now).by

    async def _deployment(self, action: Action, deployment_id: str) -> TargetFacts:
        deployment = await self._api().deployment(deployment_id)
        return TargetFacts(
            target=target_of(action),
            read_at=self._api().now(),
            failing=await self._failing_of(deployment.id) if isinstance(action, PauseDeployment) else 0,
            overdue=await self._overdue(deployment.id) if isinstance(action, CatchUp) else 0,
            deployment_id=deployment.id,
            deployment_name=await self._full_name(deployment),
            memory_mb=_memory(await self._pool_of(deployment.pool), deployment.job_variables, {}),
            paused=deployment.paused,
            **labelled(deployment.tags, ()),
        )

    async def _queue(self, action: Action, pool: str, queue: str) -> TargetFacts:
        """What is known of a queue, or of the whole pool when the queue is empty."""
        if not queue:
            paused = (await self._api().pool(pool)).paused
        else:
            queues = {each.name: each for each in await self._api().queues(pool)}
            for name in (queue, *([action.starved_queue] if isinstance(action, ReserveSlot) else [])):
                if name not in queues:
                    raise OrchestratorError(
                        f"Looking up queue {name!r} of pool {pool!r}: the pool has {sorted(queues)}. "
                        "Propose one of these."
                    )
            paused = queues[queue].paused
        # queues have no tags: what a queue may cost is what the strictest deployment that uses it may cost
        users = await self._api().deployments_of_queue(pool, queue)
        held = isinstance(action, HoldQueue) and queue
        return TargetFacts(
            target=target_of(action),
            read_at=self._api().now(),
            failing=await self._failing_in(pool, queue) if held else 0,
            paused=paused,
            **strictest([user.tags for user in users] if len(users) < PAGE else []),
        )

    async def _failing_of(self, deployment_id: str) -> int:
        return in_a_row(await self._api().ended_runs(deployment_id, LATELY))

    async def _failing_in(self, pool: str, queue: str) -> int:
        ended = {"state": {"type": {"any_": sorted(each.value for each in TERMINAL)}}}
        return in_a_row(await self._api().runs_of_queue(pool, queue, ended, limit=LATELY))

    async def _overdue(self, deployment_id: str) -> int:
        where = {
            "deployment_id": {"any_": [deployment_id]},
            "state": {"type": {"any_": [StateType.SCHEDULED.value]}},
            "next_scheduled_start_time": {"before_": self._api().now().isoformat()},
        }
        return len(await self._api().runs(where, limit=LATELY))

    async def _full_name(self, deployment: DeploymentView | None) -> str:
        if deployment is None:
            return ""
        if deployment.flow_id not in self._flow_names:
            # a flow never changes its name in Prefect: another name is another flow
            self._flow_names[deployment.flow_id] = await self._api().flow_name(deployment.flow_id)
        return redact(f"{self._flow_names[deployment.flow_id]}/{deployment.name}")

    async def _deployment_of(self, run: RunView) -> DeploymentView | None:
        return await self._api().deployment(run.deployment_id) if run.deployment_id else None

    async def _pool_of(self, name: str) -> PoolView | None:
        return await self._api().pool(name) if name else None

    async def _sizes(self, pool: PoolView | None, deployment: DeploymentView | None) -> dict[str, Any]:
        """Return what the run would have without a size of its own, and what its like completed with lately."""
        if deployment is None:
            return {}
        default = _memory(pool, deployment.job_variables, {})
        done = await self._api().ended_runs(deployment.id, LATELY, (StateType.COMPLETED,))
        sizes = [_memory(pool, deployment.job_variables, run.job_variables) for run in done]
        return {"default_memory_mb": default, "proven_memory_mb": max(sizes, default=0)}

    def _api(self) -> PrefectApi:
        if self._given is None:
            self._given = PrefectApi.from_prefect_settings()
        return self._given


def _again(action: Action) -> bool:
    """Whether an action does work of its run again; a start that was missed is of a run that never was."""
    return action.kind in STARTED_BY_A_WORKER or (isinstance(action, StartRun) and action.missed is None)


REPEATABLE = "pilotage:repeatable"
"""A deployment's tag: running it twice does no harm; with `:<task>` that one task."""
NOT_REPEATABLE = "pilotage:not-repeatable"
"""A deployment's or a run's tag: it is not run twice unasked; with `:<task>` once that task has begun."""
SAFE_TO_REPEAT = "pilotage:safe-to-repeat"
"""The earlier name of `REPEATABLE`."""


def repeatable(
    of_deployment: Iterable[str], of_run: Iterable[str], begun: Iterable[str]
) -> Literal["", "yes", "no"]:
    """Return what the tags say of running it again. A run's own tags only ever make it stricter."""
    governing = tuple(of_deployment)
    both = (*governing, *of_run)
    if NOT_REPEATABLE in both or set(_said(NOT_REPEATABLE, both)) & set(begun):
        return "no"
    return "yes" if REPEATABLE in governing or SAFE_TO_REPEAT in governing else ""


def labelled(of_deployment: Iterable[str], of_run: Iterable[str]) -> dict[str, Any]:
    """What the tags say. Anybody can tag a run, so a run's own tags only ever make it stricter."""
    governing, own = tuple(of_deployment), tuple(of_run)
    return {
        "env": _environment(governing, own),
        "tier": min((min(_tiers(governing), default=_UNLABELLED_TIER), *_tiers(own))),
        "team": next(iter(_said("team", governing)), ""),
        "tags": frozenset(redact(tag) for tag in (*governing, *own)),
    }


def strictest(each: Sequence[Iterable[str]]) -> dict[str, Any]:
    """What the tags of several deployments say together; with none, everything is as strict as can be."""
    labels = [labelled(tags, ()) for tags in each]
    environments, teams = {label["env"] for label in labels}, {label["team"] for label in labels}
    return {
        "env": environments.pop() if len(environments) == 1 else PRODUCTION,
        "tier": min((label["tier"] for label in labels), default=_UNLABELLED_TIER),
        "team": teams.pop() if len(teams) == 1 else "",
        "tags": frozenset(tag for label in labels for tag in label["tags"]),
    }


def _environment(governing: Iterable[str], own: Iterable[str]) -> str:
    said = set(_said("env", governing))
    # nothing said, or two things said: taken for production
    return said.pop() if len(said) == 1 and said >= set(_said("env", own)) else PRODUCTION


def _tiers(tags: Iterable[str]) -> list[int]:
    return [int(tier) for tier in _said("tier", tags) if tier.isdecimal()]


def _said(label: str, tags: Iterable[str]) -> list[str]:
    return [tag.removeprefix(f"{label}:") for tag in tags if tag.startswith(f"{label}:")]


def _memory(pool: PoolView | None, deployment: Mapping[str, Any], run: Mapping[str, Any]) -> int:
    """Return the MiB that a worker of the pool gives such a run, or 0 where nobody says."""
    if pool is None:
        return memory_of({**deployment, **run}) or 0
    return memory_of(effective(pool.variables, deployment, run), pool.type) or 0


def in_a_row(ended: Sequence[RunView]) -> int:
    """How many of these runs, newest first, failed before one did not; what was cancelled says nothing."""
    count = 0
    for run in ended:
        if run.state.type is StateType.COMPLETED:
            break
        count += run.state.type in (StateType.FAILED, StateType.CRASHED)
    return count
