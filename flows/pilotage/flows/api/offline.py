"""Answers questions that only read, from the files of an installation that nobody runs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from pydantic import ValidationError

from pilotage.flows.api.client import ApiRejection
from pilotage.flows.api.incidents import unknown_incident
from pilotage.flows.api.lists import AuditAsked, IncidentsAsked, ProposalsAsked
from pilotage.flows.api.offline_ledger import reading_ledger
from pilotage.flows.api.proposals import known_status, unknown_proposal, unknown_subject
from pilotage.flows.api.publishing import bundle_kept, policies_as_json
from pilotage.flows.api.resolve import Kind, Resolver
from pilotage.flows.api.server import unreadable
from pilotage.flows.config.paths import StatePaths, runner_of
from pilotage.flows.config.settings import load_settings
from pilotage.flows.execution.kill_switch import KillSwitch
from pilotage.flows.notify.handover import handover_of
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.telemetry.errors import ApiError
from pilotage.telemetry.store.protocol import Store

_MEANT: Mapping[str, tuple[tuple[str, Kind], ...]] = {
    "proposal": (("proposal_id", "proposal"),),
    "why": (("subject", "subject"),),
    "incident": (("incident_id", "incident"),),
}
"""Arguments that people may give as a short id or a name."""


class OfflineReader:
    """Opens the ledger for one question, while holding nobody's lock."""

    def __init__(self, paths: StatePaths) -> None:
        self._paths = paths

    def answer(self, op: str, **arguments: Any) -> Any:
        """The same as the API's operation `op` would answer.

        Raises ApiError when a controller holds the files but does not answer, ApiRejection for an unknown id.
        """
        self._nobody_home()
        with reading_ledger(self._paths) as ledger:
            with ExitStack() as opened:
                for key, kind in _MEANT.get(op, ()):
                    names = Resolver(ledger, partial(self._telemetry, opened))
                    arguments[key] = names.resolve(arguments[key], kind)
            try:
                return self._answer(ledger, op, **arguments)
            except ValidationError as exc:
                raise ApiRejection("invalid", unreadable(op, exc)) from exc

    def _telemetry(self, opened: ExitStack) -> Store:
        from pilotage.telemetry import connect  # start-up time: duckdb, and only for names of runs

        store = connect(self._paths.root)
        opened.callback(store.close)
        return store

    def _answer(self, ledger: SqlLedger, op: str, **arguments: Any) -> Any:
        match op:
            case "status":
                return {
                    "mode": "not running",
                    "stopped": KillSwitch(self._paths.stop_file, ledger, resume_votes=lambda: 1).stopped(),
                    "collector": {},
                    "proposals": ledger.counts(),
                    "bundle": "",
                    "glass": ledger.active_grants(datetime.now(UTC))["glass"],
                }
            case "policies":
                last = ledger.in_force()
                return policies_as_json(
                    in_force=last.bundle if last else "",
                    needed=None,
                    candidate=ledger.candidate(datetime.now(UTC)),
                    published=ledger.published(arguments.get("limit", 20)),
                )
            case "policy_files":
                return bundle_kept(ledger, arguments["bundle"])
            case "grants":
                return ledger.active_grants(datetime.now(UTC))
            case "proposal_page":
                return ledger.proposal_page(ProposalsAsked.model_validate(arguments).query(None))
            case "proposal_choices":
                return ledger.proposal_choices(arguments.get("status", ""))
            case "incident_page":
                return ledger.incident_page(IncidentsAsked.model_validate(arguments).query())
            case "audit_page":
                return ledger.audit_page(AuditAsked.model_validate(arguments).query())
            case "incidents":
                return ledger.incidents(arguments["limit"])
            case "incident":
                known_incident = ledger.incident(arguments["incident_id"])
                if known_incident is None:
                    raise ApiRejection("unknown-incident", unknown_incident(arguments["incident_id"]))
                return known_incident
            case "handover":
                now = datetime.now(UTC)
                since = now - timedelta(hours=arguments["hours"])
                return handover_of(
                    ledger.incidents_to_tell(since), ledger.said_by_people(since), since=since, now=now
                )
            case "proposals":
                return ledger.proposals(known_status(arguments.get("status")), arguments["limit"])
            case "proposal":
                row = ledger.proposal(arguments["proposal_id"])
                if row is None:
                    raise ApiRejection("unknown-proposal", unknown_proposal(arguments["proposal_id"]))
                return row
            case "why":
                steps = ledger.story(arguments["subject"])
                if not steps:
                    raise ApiRejection("unknown-subject", unknown_subject(arguments["subject"]))
                return steps
            case "store_status":
                return self._store_status(ledger)
            case "audit_verify":
                return asdict(ledger.verify_audit())
            case _:
                raise ApiError(f"Asking for {op}: `pilotage up` is not running. Start `pilotage up`.")

    def _store_status(self, ledger: SqlLedger) -> dict[str, Any]:
        from pilotage.flows.api.store_status import store_status  # start-up time: duckdb
        from pilotage.telemetry import connect

        store = connect(self._paths.root)
        try:
            lives = load_settings(state_dir=self._paths.root).retention
            return store_status(store, ledger, self._paths, lives, last={})
        finally:
            store.close()

    def _nobody_home(self) -> None:
        if pid := runner_of(self._paths):
            raise ApiError(
                f"Reading {self._paths.root}: process {pid} runs `pilotage up` here "
                "but its API does not answer: it is starting, waits for Prefect, or hangs. Its output says which."
            )
