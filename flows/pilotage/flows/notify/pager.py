"""Tells people of incidents, one page each, and Prefect by events; what was told is kept with the incident."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from pilotage.flows.config.settings import PageSettings as PageRules
from pilotage.flows.notify.channels import Action
from pilotage.flows.notify.notifier import NO_WEBHOOK, Notifier, Told
from pilotage.flows.notify.pages import Phase, is_due, page_of, phase_of, related_resources
from pilotage.planner.actions.types import Severity
from pilotage.policies.ledger.protocol import Ledger
from pilotage.policies.types import Mode

log = logging.getLogger("pilotage.pager")

ENDED = timedelta(hours=1)
"""Incidents that ended longer ago are not looked at: their page was resolved, or nobody was there to resolve it."""
FOLDED = "pilotage-more-incidents"
"""The key of the one page that stands for all that are not paged one by one."""
HOUR = timedelta(hours=1)


class IncidentPager:
    """Pages each incident once, says more only when more is wanted, and resolves the page when it is over."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        notifier: Notifier,
        mode: Callable[[], Mode],
        clock: Callable[[], datetime],
        rules: PageRules | None = None,
        console_url: str = "",
    ) -> None:
        self._ledger = ledger
        self._notifier = notifier
        self._mode = mode
        self._clock = clock
        self._rules = rules or PageRules()
        self._console_url = console_url
        self._one_at_a_time = asyncio.Lock()
        self._folded = 0
        """How many incidents the folded page spoke of last; 0 when it is not out."""

    async def keep(self) -> int:
        """How many pages and events were sent. Nothing in observe and shadow."""
        if self._mode() in (Mode.OBSERVE, Mode.SHADOW):
            return 0
        async with self._one_at_a_time:
            now = self._clock()
            found = await asyncio.to_thread(self._ledger.incidents_to_tell, now - ENDED)
            sent = 0
            for incident in found:
                sent += await self._event(incident)
                sent += await self._page(incident, found, now)
            return sent + await self._fold(found, now)

    async def tell_owner(self, run_id: str, severity: Severity) -> Told | None:
        """What became of telling the owner of a run: by the page of its incident, or None when it is of none."""
        async with self._one_at_a_time:
            incident_id = await asyncio.to_thread(self._ledger.incident_of, run_id)
            incident = await asyncio.to_thread(self._ledger.incident, incident_id) if incident_id else None
            if incident is None or incident["state"] != "open":
                return None
            if int(incident["told"].get("phase", 0)) >= Phase.OWNER:
                return Told(ok=True)  # they know: one page an incident
            now = self._clock()
            if self._out_this_hour([incident], now) and incident["told"].get("page") == "folded":
                return Told(ok=True)
            return await self._trigger(incident, max(phase_of(incident, now, self._rules), Phase.OWNER), now)

    async def _page(self, incident: Mapping[str, Any], found: list[dict[str, Any]], now: datetime) -> int:
        told = incident["told"]
        if incident["state"] != "open":
            if told.get("page") != "triggered":
                return 0
            answer = await self._send("resolve", incident, now, severity=Severity.INFO)
            if not answer.ok and answer.problem != NO_WEBHOOK:
                log.error("resolving the page about %s: %s", incident["incident_id"], answer.problem)
                return 0
            await self._keep(incident, page="resolved", phase=int(Phase.OVER))
            return 1
        if told.get("page") == "triggered" and incident["acknowledged"] and not told.get("acknowledged"):
            return await self._acknowledge(incident, now)
        if not is_due(incident, now, self._rules):
            return 0
        if told.get("page") == "folded":
            return 0
        if told.get("page") != "triggered" and self._out_this_hour(found, now) >= self._rules.per_hour:
            await self._keep(incident, page="folded")
            return 0
        return int((await self._trigger(incident, phase_of(incident, now, self._rules), now)).ok)

    async def _acknowledge(self, incident: Mapping[str, Any], now: datetime) -> int:
        """Tell the receiver that somebody looks, so that it asks nobody else."""
        answer = await self._send("acknowledge", incident, now)
        if not answer.ok:
            log.error("acknowledging the page about %s: %s", incident["incident_id"], answer.problem)
            return 0
        await self._keep(incident, acknowledged=incident["acknowledged"]["by"])
        return 1

    async def _send(
        self,
        action: Action,
        incident: Mapping[str, Any],
        now: datetime,
        *,
        severity: Severity | None = None,
    ) -> Told:
        """Send what an incident's page says now; its own severity unless one is given."""
        page = page_of(incident, now, self._rules, console_url=self._console_url)
        return await self._notifier.page(
            action,
            incident_id=incident["incident_id"],
            run_id=page.run_id,
            summary=page.summary,
            severity=severity or page.severity,
            details=page.details,
            deployment_id=page.deployment_id,
            teams=page.teams,
        )

    async def _trigger(self, incident: Mapping[str, Any], phase: Phase, now: datetime) -> Told:
        answer = await self._send("trigger", incident, now)
        if answer.ok:
            await self._keep(
                incident,
                page="triggered",
                phase=int(phase),
                paged_at=incident["told"].get("paged_at") or now.isoformat(),
            )
        elif answer.problem == NO_WEBHOOK:
            await self._keep(incident, phase=int(phase))
        else:
            log.error("paging about %s: %s", incident["incident_id"], answer.problem)
        return answer

    def _out_this_hour(self, found: list[dict[str, Any]], now: datetime) -> int:
        """How many incidents were paged one by one within the hour."""
        return sum(
            1
            for one in found
            if (at := one["told"].get("paged_at")) and now - datetime.fromisoformat(at) < HOUR
        )

    async def _fold(self, found: list[dict[str, Any]], now: datetime) -> int:
        """Say once how many more there are, again when they have doubled, and resolve it with the last of them."""
        folded = [one for one in found if one["told"].get("page") == "folded" and one["state"] == "open"]
        if len(folded) >= max(1, 2 * self._folded):
            names = ", ".join((one["deployment"] or one["subject"]) for one in folded[:5])
            answer = await self._notifier.page(
                "trigger",
                incident_id=FOLDED,
                run_id="",
                summary=f"pilotage: {len(folded)} more incidents within the hour, such as {names}; pilotage incidents",
                severity=Severity.ERROR,
                details={
                    "incidents": [one["incident_id"] for one in folded[:50]],
                    "answer": "pilotage incidents",
                },
            )
            if answer.ok:
                self._folded = len(folded)
                return 1
        elif not folded and self._folded:
            answer = await self._notifier.page(
                "resolve",
                incident_id=FOLDED,
                run_id="",
                summary="they are over",
                severity=Severity.INFO,
                details={},
            )
            if answer.ok:
                self._folded = 0
                return 1
        return 0

    async def _event(self, incident: Mapping[str, Any]) -> int:
        """Tell Prefect what is new: the incident was opened, has changed, or was resolved."""
        told = incident["told"].get("event", "")
        if incident["state"] != "open":
            step, stands = "resolved", incident["state"]
            if not told:
                return 0
        else:
            stands = f"{incident['status']} {len(incident['runs'])} {incident['reopened']}"
            step = "opened" if not told else "changed"
        if told == stands:
            return 0
        answer = await self._notifier.incident_event(
            incident["incident_id"],
            step,
            key=stands,
            payload={
                "status": incident["status"],
                "failure_class": incident["failure_class"],
                "subject": incident["subject"],
                "deployment": incident["deployment"],
                "cause": incident["cause"],
                "runs": len(incident["runs"]),
                "opened_at": incident["opened_at"],
                "resolution": incident["resolution"],
            },
            related=related_resources(incident),
            occurred=self._clock(),
        )
        if not answer.ok:
            log.warning("announcing that %s is %s: %s", incident["incident_id"], step, answer.problem)
            return 0
        await self._keep(incident, event=stands)
        return 1

    async def _keep(self, incident: Mapping[str, Any], **told: Any) -> None:
        incident["told"].update(told)
        await asyncio.to_thread(self._ledger.told_of, incident["incident_id"], incident["told"])
