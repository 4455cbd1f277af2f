"""Composes the report of `pilotage policy replay` from the ledger and the telemetry of one installation."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pilotage.flows.api.offline_ledger import reading_ledger
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.config.settings import Settings
from pilotage.flows.replay.backtest import backtest
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.replay.parallel import replayed_rows
from pilotage.telemetry import connect
from pilotage.telemetry.errors import ConfigError, StoreError


def replay_report(
    paths: StatePaths, settings: Settings, candidate: Bundle, since: datetime
) -> dict[str, Any]:
    """What was decided since a moment, decided again by the candidate; under `playbooks` what was never proposed.

    `playbooks` is the report of `backtest`, or `{"unknown": why}` where there is no telemetry to read.
    Raises ConfigError when there is no ledger.
    """
    with reading_ledger(paths) as ledger:
        report = replayed_rows(candidate, ledger.stored_decisions(since)).as_json()
        current = bundle_in_force(ledger, settings)
        try:
            store = connect(paths.root)
        except StoreError as exc:
            return {**report, "playbooks": {"unknown": str(exc)}}
        try:
            playbooks = backtest(
                store,
                ledger,
                current=current,
                candidate=candidate,
                since=since,
                parameters=settings.planner,
            )
        finally:
            store.close()
        return {**report, "playbooks": playbooks}


def published_here(paths: StatePaths) -> tuple[Mapping[str, str] | None, Path]:
    """The files of what was published last here and what to call where they are; None where nothing ever was."""
    if not paths.ledger.exists():
        return None, paths.root
    with reading_ledger(paths) as ledger:
        last = ledger.in_force()
    return (last.files, Path(f"published {last.bundle[:12]}")) if last else (None, paths.root)


def bundle_in_force(ledger: SqlLedger, settings: Settings) -> Bundle:
    """What was published last, or what the settings name while nothing was. For comparing, not for deciding:
    its signature is not checked here. Raises ConfigError when it cannot be loaded."""
    last = ledger.in_force()
    if last is None:
        return Bundle.load(settings.policies, guardrails=settings.guardrails)
    bundle = Bundle.of(last.files, Path(f"published {last.bundle[:12]}"))
    if bundle.hash != last.bundle:
        raise ConfigError(
            f"loading the published policies {last.bundle[:12]}: the files have hash {bundle.hash[:12]}; "
            "restore the ledger"
        )
    return bundle
