"""Shows people what pilotage does: events and an artifact on the run in Prefect, and a webhook.

Nothing here raises: telling is never worth stopping the loop for. Each call returns what became of it.
The webhook speaks PagerDuty's Events API v2, which Opsgenie, Grafana OnCall and many others read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import httpx

from pilotage.flows.notify.channels import Action, Channels, Message
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.guard import TELLING
from pilotage.planner.actions.types import Severity
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.redaction import redact, redact_json

NO_WEBHOOK = "no webhook is set"
TRIES = 3
"""Askings of a webhook; a receiver that is down for longer will see the next step."""
_FIRST_WAIT = 0.3
"""Seconds before the second try; doubled each time."""
_SUMMARY = 1024
"""Characters that PagerDuty takes in a summary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What became of one announcement."""

    ok: bool
    problem: str = ""
    """Why not, when it is not ok."""


OwnerPage = Callable[[str, Severity], Awaitable[Told | None]]
"""Tells the owner of this run, as urgently as this."""


class Notifier:
    """Tells Prefect and the webhook. Without an address no webhook is called, and `page` says so."""

    def __init__(
        self,
        *,
        webhook_url: str = "",
        routing_key: str = "",
        ui_url: str = "",
        api: PrefectApi | None = None,
        first_wait: float = _FIRST_WAIT,
        transport: Callable[[], httpx.AsyncBaseTransport] | None = None,
        channels: Channels | None = None,
    ) -> None:
        """`transport` makes what carries a call to the webhook; None for the network. `channels` are told beside it."""
        self.tell_owner: OwnerPage | None = None
        """Where the owner of a run is told by the page of its incident; None answers that it is of none."""
        self._webhook_url = webhook_url
        self._routing_key = routing_key
        self._ui_url = ui_url.rstrip("/")
        self._given = api
        self._first_wait = first_wait
        self._transport = transport
        self._channels = channels

    async def event(
        self,
        run_id: str,
        step: str,
        *,
        key: str,
        payload: Mapping[str, Any],
        occurred: datetime | None = None,
    ) -> Told:
        """What became of the event `pilotage.<step>` on the run. The same key and step are one event."""
        event = {
            "id": event_id(key, step),
            "occurred": (occurred or self._api().now()).isoformat(),
            "event": f"pilotage.{step}",
            "resource": {"prefect.resource.id": f"prefect.flow-run.{run_id}"},
            "payload": redact_json(dict(payload)),
        }
        try:
            await self._api().emit([event])
        except OrchestratorError as error:
            return Told(ok=False, problem=str(error))
        return Told(ok=True)

    async def incident_event(
        self,
        incident_id: str,
        step: str,
        *,
        key: str,
        payload: Mapping[str, Any],
        related: Sequence[Mapping[str, str]],
        occurred: datetime,
    ) -> Told:
        """What became of the event `pilotage.incident.<step>`, related to the runs and deployments of the incident."""
        event = {
            "id": event_id(f"{incident_id}:{key}", step),
            "occurred": occurred.isoformat(),
            "event": f"pilotage.incident.{step}",
            "resource": {"prefect.resource.id": f"pilotage.incident.{incident_id}"},
            "related": [dict(one) for one in related],
            "payload": redact_json(dict(payload)),
        }
        try:
            await self._api().emit([event])
        except OrchestratorError as error:
            return Told(ok=False, problem=str(error))
        return Told(ok=True)

    async def artifact(self, run_id: str, markdown: str, *, description: str = "pilotage") -> Told:
        """What became of the text on the run's page in Prefect; a later one takes its place."""
        key = f"pilotage-{run_id[:8]}"
        try:
            await self._api().put_artifact(run_id, key, redact(markdown), description=description)
        except OrchestratorError as error:
            return Told(ok=False, problem=str(error))
        return Told(ok=True)

    async def page(
        self,
        event_action: Action,
        *,
        incident_id: str,
        run_id: str,
        summary: str,
        severity: Severity,
        details: Mapping[str, Any],
        deployment_id: str = "",
        teams: frozenset[str] = frozenset(),
    ) -> Told:
        """What became of the webhook call and of the channels of these teams; well when all that there are took it.

        Calls about one incident are one alert to the webhook's receiver.
        """
        if not self._channels:
            return await self._call(
                event_action, incident_id, run_id, summary, severity, details, deployment_id
            )
        where = _place(run_id, deployment_id)
        link = f"{self._ui_url}/{where[0]}" if self._ui_url and where else ""
        message = Message(
            action=event_action,
            severity=severity,
            teams=teams,
            words={**details, "summary": summary, "incident": incident_id, "prefect": link},
        )
        problem = await self._channels.send(incident_id, message)
        called = await self._call(
            event_action, incident_id, run_id, summary, severity, details, deployment_id
        )
        if called.ok or called.problem == NO_WEBHOOK:
            return Told(ok=not problem, problem=problem)
        return Told(ok=False, problem="; ".join(filter(None, (called.problem, problem))))

    async def _call(
        self,
        event_action: Action,
        incident_id: str,
        run_id: str,
        summary: str,
        severity: Severity,
        details: Mapping[str, Any],
        deployment_id: str,
    ) -> Told:
        if not self._webhook_url:
            return Told(ok=False, problem=NO_WEBHOOK)
        body: dict[str, Any] = {
            "routing_key": self._routing_key,
            "event_action": event_action,
            "dedup_key": incident_id,
            "client": "pilotage",
            "payload": {
                "summary": redact(summary)[:_SUMMARY],
                "source": _source(run_id, deployment_id),
                "severity": severity.value,
                "component": "prefect",
                "custom_details": redact_json(dict(details)),
            },
        }
        if self._ui_url and (where := _place(run_id, deployment_id)):
            link, name = f"{self._ui_url}/{where[0]}", where[1]
            body["client_url"] = link
            body["links"] = [{"href": link, "text": f"{name} in Prefect"}]
        if card := details.get("card"):
            body.setdefault("links", []).append({"href": card, "text": "The incident in pilotage"})
        problem = ""
        async with httpx.AsyncClient(
            timeout=10, transport=self._transport() if self._transport else None
        ) as client:
            for attempt in range(TRIES):
                if attempt:
                    await asyncio.sleep(self._first_wait * 2 ** (attempt - 1))
                try:
                    answer = await client.post(self._webhook_url, json=body)
                except (httpx.HTTPError, httpx.InvalidURL) as error:
                    # the address may hold a secret, so it is not repeated here
                    problem = f"the webhook could not be reached ({type(error).__name__})"
                    continue
                if answer.is_success:
                    return Told(ok=True)
                problem = f"the webhook answered {answer.status_code}"
                if answer.status_code < 500 and answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
                    break
        return Told(ok=False, problem=problem)

    def _api(self) -> PrefectApi:
        if self._given is None:
            self._given = PrefectApi.from_prefect_settings(guard=TELLING)
        return self._given


def _source(run_id: str, deployment_id: str) -> str:
    """What a page is about, as Prefect names resources."""
    if run_id:
        return f"prefect.flow-run.{run_id}"
    return f"prefect.deployment.{deployment_id}" if deployment_id else "pilotage"


def _place(run_id: str, deployment_id: str) -> tuple[str, str] | None:
    """The page of a run or a deployment in Prefect's own pages, and what it is called."""
    if run_id:
        return f"runs/flow-run/{run_id}", "Flow run"
    return (f"deployments/deployment/{deployment_id}", "Deployment") if deployment_id else None


def alert_key(run_id: str) -> str:
    """The key of every alert about a run: to its receiver they are one, until it is resolved."""
    return event_id(run_id, "alert")


def event_id(key: str, step: str) -> str:
    """The id of the event of one step: the same for the same key and step, so that it exists once."""
    return str(uuid5(NAMESPACE_URL, f"pilotage:{key}:{step}"))
