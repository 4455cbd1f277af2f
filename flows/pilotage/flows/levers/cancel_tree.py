"""Cancels a run and all that it started, those below first, and sees that none is left.

A subflow that lives in its parent's process has nothing of its own to cancel: it ends with the process. A run
that starts new children while it is being cancelled is walked again, until a walk finds nothing new.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.cancel_run import CancelLever
from pilotage.flows.levers.idempotency import marked, refused, step_key
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import RunView
from pilotage.planner.actions.types import CancelRun, CancelTree
from pilotage.telemetry.facts import StateType

LARGEST = 500
"""Runs in a tree; a larger one is a person's to cancel."""
_ROUNDS = 5
"""Walks in one delivery; a tree that still grows after so many is said to."""


class CancelTreeLever:
    """Cancels a run and everything below it."""

    kind = "cancel_tree"
    # as for a single run: a pending one can hang in Cancelling for 300 s
    window = timedelta(minutes=6)
    writes = CancelLever.writes
    undoable = "Runs that had not started are scheduled again; what had started is not restored."

    def __init__(self, api: PrefectApi) -> None:
        self._api = api
        self._one = CancelLever(api)

    async def execute(
        self, action: CancelTree, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery, with what became of each run."""
        root = await self._api.run(action.run_id)
        before = await self._walk(root)
        if before is None:
            return refused(f"more than {LARGEST} runs hang below this one; a person decides about so many")
        begun = await self._begun(before, idempotency_key)
        if not begun and expected_state_id and root.state.id != expected_state_id:
            return refused("the run has moved on since this was proposed")
        results: dict[str, Any] = {}
        for _ in range(_ROUNDS):
            tree = await self._walk(await self._api.run(root.id)) or []
            live = [run for run in tree if _live(run) and run.id not in results]
            if not live:
                break
            for run in live:
                done = await self._one.execute(
                    CancelRun(run_id=run.id),
                    idempotency_key=step_key(idempotency_key, run.id),
                    expected_state_id="",
                    message=message,
                )
                results[run.id] = done.reason if done.effect is Effect.REFUSED else done.effect.value
        if Effect.DONE.value in results.values():
            return Delivery(effect=Effect.DONE, after={"results": results})
        if begun:
            return Delivery(effect=Effect.ALREADY, after={"results": results})
        return refused("neither the run nor anything below it is under way")

    async def verify(self, action: CancelTree, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether nothing of the tree is left."""
        root = await self._api.run(action.run_id)
        tree = await self._walk(root) or []
        left = [run for run in tree if not run.state.ended]
        if not left:
            detail = f"none of {len(tree)} runs is left"
            return Check(judgement=Judgement.VERIFIED, detail=detail, final_state=root.state.name)
        detail = f"{len(left)} of {len(tree)} runs are left, such as {left[0].id}: {left[0].state.name}"
        return Check(judgement=Judgement.PENDING, detail=detail, final_state=root.state.name)

    async def undo(self, action: CancelTree, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the old schedules, of those runs that had not started; the run itself first."""
        tree = await self._walk(await self._api.run(action.run_id)) or []
        results: dict[str, Any] = {}
        for run in reversed(tree):
            own = step_key(idempotency_key, run.id)
            if not marked(await self._api.history(run.id), own):
                continue
            done = await self._one.undo(
                CancelRun(run_id=run.id), Delivery(effect=Effect.DONE), idempotency_key=own
            )
            results[run.id] = done.reason if done.effect is Effect.REFUSED else done.effect.value
        for effect in (Effect.DONE, Effect.ALREADY):
            if effect.value in results.values():
                return Delivery(effect=effect, after={"results": results})
        return refused(
            "none of the runs was waiting when it was cancelled; what had started is not taken back"
        )

    async def _walk(self, root: RunView) -> list[RunView] | None:
        """The run and everything below it, deepest first; None when there is too much of it."""
        tree, seen, level = [root], {root.id}, [root]
        while level:
            below: list[RunView] = []
            for run in level:
                for child in await self._api.children(run.id):
                    if child.id not in seen:
                        seen.add(child.id)
                        below.append(child)
            tree += below
            if len(tree) > LARGEST:
                return None
            level = below
        return tree[::-1]

    async def _begun(self, tree: list[RunView], idempotency_key: str) -> bool:
        for run in tree:
            if run.state.type in (StateType.CANCELLED, StateType.CANCELLING, StateType.SCHEDULED) and marked(
                await self._api.history(run.id), step_key(idempotency_key, run.id)
            ):
                return True
        return False


def _live(run: RunView) -> bool:
    in_process = bool(run.parent_task_run_id) and not run.deployment_id
    return not run.state.ended and run.state.type is not StateType.CANCELLING and not in_process
