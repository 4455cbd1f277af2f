"""Tells the owner of a run that it is over: the alert that `notify_owner` raised is resolved, once.

All alerts about one run are one alert to the receiver, by a key made from the run: as PagerDuty has it, a second
trigger adds to it, one resolve ends it, and a trigger after that begins another.
"""

from __future__ import annotations

from datetime import timedelta

from pilotage.flows.execution.receipts import Check, Delivery, Effect
from pilotage.flows.levers.idempotency import ChangeRecords, refused
from pilotage.flows.levers.notify_owner import STEP as TOLD
from pilotage.flows.levers.notify_owner import word_arrived
from pilotage.flows.notify.notifier import NO_WEBHOOK, Notifier, alert_key, event_id
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.writes import keep_note
from pilotage.planner.actions.types import Action, ResolveAlert, Severity
from pilotage.telemetry.errors import OrchestratorError

STEP = "resolved"
_EVER = timedelta(days=7)
"""How far back Prefect keeps events by default."""


class ResolveLever:
    """Resolves the alert about a run."""

    kind = "resolve_alert"
    window = timedelta(minutes=2)
    writes = keep_note("alert")
    undoable = "An alert that was resolved in vain is raised again by telling the owner again."

    def __init__(self, api: PrefectApi, notifier: Notifier) -> None:
        self._api = api
        self._notifier = notifier
        self._records = ChangeRecords(api)

    async def execute(
        self, action: ResolveAlert, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. Refused when nobody was told, or when it was resolved since."""
        if note := await self._records.read("alert", idempotency_key):
            return Delivery(effect=Effect.ALREADY, after=note)
        run = await self._api.run(action.run_id)
        if expected_state_id and run.state.id != expected_state_id:
            return refused("the run has moved on since this was proposed")
        said = await self._api.events_about(
            run.id, self._api.now() - _EVER, names=[f"pilotage.{TOLD}", f"pilotage.{STEP}"], most=1
        )
        if not said:
            return refused("nobody was told about this run, so there is nothing to resolve")
        # a delivery that died before its note had told Prefect already: it is finished, not refused
        begun = await self._api.event_exists(event_id(idempotency_key, STEP), self._api.now() - _EVER)
        if said[0].name == f"pilotage.{STEP}" and not begun:
            return refused("it was resolved since its owner was told last")
        # the pager first: once the event is there, a repeated delivery takes the alert for resolved
        paged = await self._notifier.page(
            "resolve",
            incident_id=alert_key(run.id),
            run_id=run.id,
            summary=f"Flow run {run.name} is {run.state.name}",
            severity=Severity.INFO,
            details={"message": message, "state": run.state.name},
        )
        problem = paged.problem if paged.problem != NO_WEBHOOK else ""
        if not problem:
            problem = (
                await self._notifier.event(run.id, STEP, key=idempotency_key, payload={"message": message})
            ).problem
        if problem:
            raise OrchestratorError(
                f"Resolving the alert about run {run.id}: {problem}. It will be tried again.", transient=True
            )
        after = {
            "at": self._api.now().isoformat(),
            "since": run.state.at.isoformat(),
            "webhook": paged.problem or "sent",
        }
        # a death before this resolves it again, which the receiver knows by the key to be the same
        await self._records.write("alert", idempotency_key, after)
        return Delivery(effect=Effect.DONE, after=after)

    async def verify(self, action: ResolveAlert, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the webhook took it or the event can be read back."""
        return await word_arrived(self._api, delivery, event_id(idempotency_key, STEP))

    async def undo(self, action: Action, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """A refusal: there is no way back but to tell the owner again."""
        return refused("tell the owner again, if it is not over")
