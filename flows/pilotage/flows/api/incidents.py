"""What people ask and say of incidents at the API: one answer to a whole plan, who looks, what is given up, regrouping."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pilotage.flows.api.client import ApiRejection
from pilotage.flows.api.resolve import Resolver
from pilotage.flows.api.server import PEOPLE, READERS, Operation
from pilotage.flows.notify.handover import handover_of
from pilotage.policies.ledger.protocol import Ledger
from pilotage.policies.types import Identity
from pilotage.telemetry.errors import LedgerError

DECIDERS = frozenset({"operator", "approver", "admin"})
"""Who may say that an incident is looked at, need not be done, or is another one. Nothing in Prefect is changed by it."""
LONGEST_SHIFT = 24 * 7
"""Hours that a handover may cover."""
Vote = Callable[..., Awaitable[dict[str, Any]]]


def unknown_incident(incident_id: str) -> str:
    """What to say about an id that no incident has."""
    return f"Looking for incident {incident_id}: there is none. See `pilotage incidents`."


class IncidentEndpoints:
    """Answers these questions from the ledger; `vote` counts one person's answer to one proposal, or refuses it."""

    def __init__(self, *, ledger: Ledger, names: Resolver, vote: Vote, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._names = names
        self._vote = vote
        self._clock = clock

    def table(self) -> dict[str, Operation]:
        """Every operation by name."""
        return {
            "incident": Operation(run=self.incident, roles=READERS),
            "handover": Operation(run=self.handover, roles=READERS),
            "vote_incident": Operation(run=self.vote_incident, roles=PEOPLE, changes=True),
            "acknowledge": Operation(run=self.acknowledge, roles=DECIDERS, changes=True),
            "waive": Operation(run=self.waive, roles=DECIDERS, changes=True),
            "split": Operation(run=self.split, roles=DECIDERS, changes=True),
            "merge": Operation(run=self.merge, roles=DECIDERS, changes=True),
        }

    async def incident(self, caller: Identity, incident_id: str) -> dict[str, Any]:
        """One incident with its runs, its proposals and how it stands."""
        return await self._found(await self._id(incident_id))

    async def handover(self, caller: Identity, hours: float = 8.0) -> dict[str, Any]:
        """What happened in the last hours, what is open, what people decided and what comes next."""
        if not 0 < hours <= LONGEST_SHIFT:
            raise ApiRejection(
                "bad-request", f"Reading {hours} hours: valid are more than 0 and up to {LONGEST_SHIFT}."
            )
        now = self._clock()
        since = now - timedelta(hours=hours)
        incidents = await asyncio.to_thread(self._ledger.incidents_to_tell, since)
        steps = await asyncio.to_thread(self._ledger.said_by_people, since)
        return handover_of(incidents, steps, since=since, now=now)

    async def vote_incident(
        self,
        caller: Identity,
        incident_id: str,
        seen: Mapping[str, str],
        decision: str,
        reason: str = "",
    ) -> dict[str, Any]:
        """One person's answer to every proposal of an incident that they saw, each by its digest.

        `seen` maps the ids of proposals to their digests; what a person leaves out of it goes on waiting. Each is
        counted for itself: `{incident, decision, results: [{proposal_id, counted, words}]}`.
        """
        incident_id = await self._id(incident_id)
        rows = {row["proposal_id"]: row for row in (await self._found(incident_id))["proposals"]}
        if strangers := sorted(set(seen) - set(rows)):
            raise ApiRejection(
                "bad-request", f"Deciding on {incident_id}: {strangers[0]} is no proposal about it."
            )
        if not seen:
            raise ApiRejection(
                "nothing-waits", f"Deciding on {incident_id}: nothing of it waits for a person."
            )
        results = []
        for proposal_id, digest in seen.items():
            try:
                row = await self._vote(caller, proposal_id, digest, decision, reason)
            except ApiRejection as refusal:
                if refusal.kind == "bad-request":
                    raise
                results.append({"proposal_id": proposal_id, "counted": False, "words": str(refusal)})
                continue
            missing = row["verdict"].get("requirements") or {}
            words = f"now {row['status']}" + (
                f", still missing: {', '.join(f'{count} {role}' for role, count in sorted(missing.items()))}"
                if missing
                else ""
            )
            results.append({"proposal_id": proposal_id, "counted": True, "words": words})
        return {
            "incident": await self._found(incident_id),
            "decision": decision,
            "results": results,
        }

    async def acknowledge(self, caller: Identity, incident_id: str, reason: str = "") -> dict[str, Any]:
        """Keeps that this person looks at an incident: its page is not escalated any more."""
        incident_id = await self._id(incident_id)
        await asyncio.to_thread(
            self._ledger.acknowledge_incident, incident_id, caller.name, reason[:500], self._clock()
        )
        return await self._found(incident_id)

    async def waive(
        self, caller: Identity, incident_id: str, reason: str, run_ids: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Gives up the runs of an incident, all or those named: they need not be recovered any more."""
        if not reason.strip():
            raise ApiRejection("bad-request", "Waiving: say why these runs need not be done any more.")
        incident_id = await self._id(incident_id)
        runs = await self._runs(incident_id, run_ids)
        count = await asyncio.to_thread(
            self._ledger.waive_incident, incident_id, caller.name, reason[:500], self._clock(), runs
        )
        if not count:
            raise ApiRejection("nothing-open", f"Waiving {incident_id}: none of its runs is open any more.")
        return await self._found(incident_id)

    async def split(self, caller: Identity, incident_id: str, run_ids: Sequence[str]) -> dict[str, Any]:
        """Makes these runs an incident of their own."""
        incident_id = await self._id(incident_id)
        runs = await self._runs(incident_id, run_ids)
        try:
            new = await asyncio.to_thread(
                self._ledger.split_incident, incident_id, runs, caller.name, self._clock()
            )
        except LedgerError as error:
            raise ApiRejection("bad-request", f"{error}.") from error
        return await self._found(new)

    async def merge(self, caller: Identity, incident_id: str, others: Sequence[str]) -> dict[str, Any]:
        """Makes other incidents part of this one."""
        kept = await self._id(incident_id)
        wanted = [await self._id(other) for other in others]
        if not [other for other in wanted if other != kept]:
            raise ApiRejection("bad-request", f"Merging into {kept}: name at least one other incident.")
        await asyncio.to_thread(self._ledger.merge_incidents, kept, wanted, caller.name, self._clock())
        return await self._found(kept)

    async def _id(self, words: str) -> str:
        return await asyncio.to_thread(self._names.resolve, words, "incident")

    async def _found(self, incident_id: str) -> dict[str, Any]:
        stored = await asyncio.to_thread(self._ledger.incident, incident_id)
        if stored is None:
            raise ApiRejection("unknown-incident", unknown_incident(incident_id))
        return stored

    async def _runs(self, incident_id: str, words: Sequence[str]) -> tuple[str, ...]:
        """The ids of the incident's runs that these words begin. Raises ApiRejection for one that is none of them."""
        own = [run["run_id"] for run in (await self._found(incident_id))["runs"] if run["run_id"]]
        return runs_named(incident_id, own, words)


def runs_named(incident_id: str, own: Sequence[str], words: Sequence[str]) -> tuple[str, ...]:
    """Return the runs of an incident that these words begin. Raises ApiRejection for none or several of them."""
    named = []
    for given in words:
        fits = [run_id for run_id in own if run_id.startswith(given.lower())] if len(given) >= 4 else []
        if len(fits) != 1:
            what = f"{len(fits)} of its runs begin so" if fits else "it is none of its runs"
            raise ApiRejection("unknown-run", f"Looking for run {given!r} in {incident_id}: {what}.")
        named += fits
    return tuple(dict.fromkeys(named))


def plan_seen(incident: Mapping[str, Any], without: Sequence[str] = ()) -> dict[str, str]:
    """Return what of an incident waits for a person, as proposal id to digest, without what is about these runs.

    Raises ApiRejection for a run that is none of the incident.
    """
    own = [run["run_id"] for run in incident["runs"] if run["run_id"]]
    out = runs_named(str(incident["incident_id"]), own, without)
    return {
        row["proposal_id"]: row["digest"]
        for row in incident["proposals"]
        if row["status"] == "needs_approval" and row["run_id"] not in out
    }
