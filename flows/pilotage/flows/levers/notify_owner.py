"""Tells the owner of a run: an event on the run in Prefect, and a webhook where one is set."""

from __future__ import annotations

from datetime import timedelta

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import refused
from pilotage.flows.notify.notifier import NO_WEBHOOK, Notifier, alert_key, event_id
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import moment
from pilotage.flows.prefect.writes import Write
from pilotage.planner.actions.types import NotifyOwner
from pilotage.telemetry.errors import OrchestratorError

STEP = "notified"


class NotifyLever:
    """Tells the owner of a run."""

    kind = "notify_owner"
    window = timedelta(minutes=2)
    writes: tuple[Write, ...] = ()
    undoable = "What was told stays told; a page is resolved where a webhook is set."

    def __init__(self, api: PrefectApi, notifier: Notifier) -> None:
        self._api = api
        self._notifier = notifier

    async def execute(
        self, action: NotifyOwner, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. Event and page carry ids made from the mark, so a repetition is seen as the same."""
        run = await self._api.run(action.run_id)
        seen = await self._api.event_exists(event_id(idempotency_key, STEP), run.state.at)
        sent = await self._notifier.event(
            run.id, STEP, key=idempotency_key, payload={"message": message, "severity": action.severity.value}
        )
        by_incident = (
            await self._notifier.tell_owner(run.id, action.severity) if self._notifier.tell_owner else None
        )
        paged = by_incident or await self._notifier.page(
            "trigger",
            incident_id=alert_key(action.run_id),
            run_id=run.id,
            summary=f"Flow run {run.name} is {run.state.name} and needs its owner",
            severity=action.severity,
            details={"message": message, "state": run.state.name, "tags": list(run.tags)},
        )
        # a pager that is set must take it: an event alone wakes nobody
        if not (paged.ok or (sent.ok and paged.problem == NO_WEBHOOK)):
            raise OrchestratorError(
                f"Telling the owner of run {run.id}: event: {sent.problem}; webhook: {paged.problem}. "
                "It will be tried again.",
                transient=True,
            )
        after = {
            "event_id": event_id(idempotency_key, STEP),
            "since": run.state.at.isoformat(),
            "event": sent.problem or "sent",
            "webhook": paged.problem or "sent",
        }
        return Delivery(effect=Effect.ALREADY if seen else Effect.DONE, after=after)

    async def verify(self, action: NotifyOwner, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the webhook was taken or the event can be read back."""
        return await word_arrived(self._api, delivery, event_id(idempotency_key, STEP))

    async def undo(self, action: NotifyOwner, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the resolution; refused where there is no webhook."""
        resolved = await self._notifier.page(
            "resolve",
            incident_id=alert_key(action.run_id),
            run_id=action.run_id,
            summary="Taken back",
            severity=action.severity,
            details={},
        )
        return Delivery(effect=Effect.DONE) if resolved.ok else refused(resolved.problem)


async def word_arrived(api: PrefectApi, delivery: Delivery, event: str) -> Check:
    """Whether the webhook took what was told, or its event can be read back."""
    if delivery.after.get("webhook") == "sent":
        return Check(judgement=Judgement.VERIFIED, detail="the webhook was taken")
    if await api.event_exists(event, moment(str(delivery.after["since"]))):
        return Check(judgement=Judgement.VERIFIED, detail=f"the event is in Prefect; {NO_WEBHOOK}")
    return Check(judgement=Judgement.PENDING, detail="the event is not in Prefect yet")
