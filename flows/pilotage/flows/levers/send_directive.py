"""Tells a flow that listens what is wanted of it and sees whether it heard.

A directive is a flow run input whose key carries the mark; Prefect keeps one of each key, so it is sent once. A
flow that listens (`from pilotage.flows import steered`) puts an answer beside it.
"""

from __future__ import annotations

import json
from datetime import timedelta

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import refused, step_key
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.writes import input_run
from pilotage.flows.sdk.directives import HEARD, SAID
from pilotage.planner.actions.types import Directive, SendDirective
from pilotage.telemetry.facts import StateType

_LISTENING = (StateType.RUNNING, StateType.PENDING, StateType.PAUSED)


class DirectLever:
    """Sends a directive to a run."""

    kind = "send_directive"
    window = timedelta(minutes=10)
    writes = (input_run(),)
    undoable = "The flow is told to carry on, while it runs; what it did about the directive stays done."

    def __init__(self, api: PrefectApi) -> None:
        self._api = api

    async def execute(
        self, action: SendDirective, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery."""
        return await self._say(action.run_id, action.directive, idempotency_key, expected_state_id)

    async def verify(self, action: SendDirective, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the flow has heard it."""
        heard = await self._api.inputs(action.run_id, f"{HEARD}-{idempotency_key}")
        state = (await self._api.run(action.run_id)).state
        if heard:
            detail = f"the flow has heard {action.directive.value!r}"
            return Check(judgement=Judgement.VERIFIED, detail=detail, final_state=state.name)
        if state.ended:
            detail = f"the run ended {state.name} and had not heard it; does its flow listen?"
            return Check(judgement=Judgement.FAILED, detail=detail, final_state=state.name)
        return Check(
            judgement=Judgement.PENDING, detail="the flow has not heard it yet", final_state=state.name
        )

    async def undo(self, action: SendDirective, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of `carry_on`."""
        return await self._say(action.run_id, Directive.CARRY_ON, step_key(idempotency_key, "undo"), "")

    async def _say(
        self, run_id: str, directive: Directive, idempotency_key: str, expected_state_id: str
    ) -> Delivery:
        if await self._api.inputs(run_id, f"{SAID}-{idempotency_key}"):
            return Delivery(effect=Effect.ALREADY)
        state = (await self._api.run(run_id)).state
        if state.type not in _LISTENING:
            return refused(f"the run is {state.name}; nobody listens")
        if expected_state_id and state.id != expected_state_id:
            return refused("the run has moved on since this was proposed")
        # as Prefect's own send_input writes it, so that receive_input(str, key_prefix=…) hears it too
        value = json.dumps({"value": directive.value})
        sent = await self._api.send_input(run_id, f"{SAID}-{idempotency_key}", value, sender="pilotage")
        return Delivery(effect=Effect.DONE if sent else Effect.ALREADY, after={"directive": directive.value})
