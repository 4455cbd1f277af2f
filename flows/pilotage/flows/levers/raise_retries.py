"""Gives a running run more retries than it began with.

Prefect reads them when an attempt fails, so a run that runs uses them. The policy is replaced as a whole: a copy
of the present one is sent back. Retries of tasks live in the process and cannot be raised from outside.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import refused, untouched
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import RunView
from pilotage.flows.prefect.writes import edit_run, label_run
from pilotage.planner.actions.types import RaiseRetries
from pilotage.telemetry.facts import StateType

_UNSET = -1
"""The label's value for a policy that said nothing."""


class RetriesLever:
    """Raises the retries of a RUNNING run."""

    kind = "raise_retries"
    window = timedelta(minutes=1)
    writes = (edit_run("empirical_policy"), label_run())
    undoable = "The old number is restored, while the run has not ended; a retry that was used stays used."

    def __init__(self, api: PrefectApi) -> None:
        self._api = api

    async def execute(
        self, action: RaiseRetries, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. The old numbers are kept as labels of the run before they are replaced."""
        run = await self._api.run(action.run_id)
        before, after = _old(run, idempotency_key), {"retries": action.retries}
        if before is not None and (
            _undone(run, idempotency_key) or run.policy.get("retries") == action.retries
        ):
            return Delivery(effect=Effect.ALREADY, before=before, after=after)
        if run.state.type is not StateType.RUNNING:
            return refused(f"the run is {run.state.name}; only a running one is given more retries")
        if not untouched(run, (), expected_state_id):
            return refused("the run has moved on since this was proposed")
        if before is None:
            present = run.policy.get("retries")
            if (present or 0) >= action.retries:
                return refused(f"the run has {present} retries already")
            before = {"retries": present, "retry_delay": run.policy.get("retry_delay")}
            kept = {
                f"{_key(idempotency_key)}.{name}": int(_UNSET if old is None else old)
                for name, old in before.items()
            }
            await self._api.add_labels(run.id, kept)
        wanted = {"retries": action.retries, "retry_delay": int(action.delay.total_seconds())}
        await self._api.set_empirical_policy(run.id, {**run.policy, **wanted})
        return Delivery(effect=Effect.DONE, before=before, after=after)

    async def verify(self, action: RaiseRetries, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the run has its retries."""
        run = await self._api.run(action.run_id)
        present = run.policy.get("retries")
        judgement = Judgement.VERIFIED if present == action.retries else Judgement.FAILED
        detail = f"the run has {present} retries, at attempt {run.run_count}"
        return Check(judgement=judgement, detail=detail, final_state=run.state.name)

    async def undo(self, action: RaiseRetries, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the old numbers."""
        run = await self._api.run(action.run_id)
        old = _old(run, idempotency_key)
        if old is None:
            return refused("nothing is known of this change")
        if _undone(run, idempotency_key):
            return Delivery(effect=Effect.ALREADY)
        if run.state.ended:
            return refused(f"the run is {run.state.name} already")
        if run.policy.get("retries") not in (action.retries, old["retries"]):
            return refused(f"somebody gave the run {run.policy.get('retries')} retries since; they stay")
        await self._api.set_empirical_policy(run.id, {**run.policy, **old})
        await self._api.add_labels(run.id, {f"{_key(idempotency_key)}.undone": True})
        return Delivery(effect=Effect.DONE, before={"retries": action.retries}, after=old)


def _key(idempotency_key: str) -> str:
    return f"pilotage.before.{idempotency_key[:8]}"


def _old(run: RunView, idempotency_key: str) -> dict[str, Any] | None:
    kept = {name: run.labels.get(f"{_key(idempotency_key)}.{name}") for name in ("retries", "retry_delay")}
    if kept["retries"] is None:
        return None
    return {name: None if value == _UNSET else value for name, value in kept.items()}


def _undone(run: RunView, idempotency_key: str) -> bool:
    return bool(run.labels.get(f"{_key(idempotency_key)}.undone"))
