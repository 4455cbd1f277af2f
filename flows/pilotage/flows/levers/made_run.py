"""A run that a delivery made under its key: how it ended, and how it is taken back."""

from __future__ import annotations

from pilotage.flows.execution.receipts import Check, Delivery, Judgement
from pilotage.flows.levers.cancel_run import CancelLever
from pilotage.flows.levers.idempotency import refused, step_key
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import RunView
from pilotage.planner.actions.types import CancelRun
from pilotage.telemetry.facts import StateType


def how_it_ended(run: RunView) -> Check:
    """Return verified where the run completed, failed where it ended otherwise, pending until it has ended."""
    state, judgement = run.state, Judgement.PENDING
    if state.ended:
        judgement = Judgement.VERIFIED if state.type is StateType.COMPLETED else Judgement.FAILED
    return Check(judgement=judgement, detail=f"run {run.id} is {state.name}", final_state=state.name)


async def cancel_made_run(api: PrefectApi, idempotency_key: str, *, unknown: str, message: str) -> Delivery:
    """Cancel the run that was made under a key, and return the delivery of that; refused as `unknown` where none was."""
    made = await api.runs_with_key(idempotency_key)
    if not made:
        return refused(unknown)
    return await CancelLever(api).execute(
        CancelRun(run_id=made[0].id),
        idempotency_key=step_key(idempotency_key, "undo"),
        expected_state_id="",
        message=message,
    )
