"""What Cedar calls `context.world`: everything that is looked up and not proposed, as plain numbers and flags."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pilotage.planner.actions.types import Action, kinds_of, queue_of, values_of
from pilotage.policies.cedar.calendar import clock_facts
from pilotage.policies.cedar.guardrails import Guardrails
from pilotage.policies.ledger_facts import LedgerFacts
from pilotage.policies.types import TargetFacts

LONG_AGO = 10**9
"""Seconds since something that never happened."""


def cedar_context(
    guardrails: Guardrails, action: Action, target: TargetFacts, ledger: LedgerFacts, now: datetime
) -> dict[str, Any]:
    """The world around one proposal at one moment, without approvals: the gate asks with several sets of those."""
    return {
        "mode": guardrails.mode_for(ledger.mode, kinds_of(action), target.deployment_name).value,
        "stage": ledger.stage,
        "stopped": ledger.stopped,
        "frozen": guardrails.frozen_at(now),
        "forecast": ledger.forecast,
        "tainted": ledger.evidence_tainted,
        "break_glass": bool(ledger.break_glass),
        "autonomy": ledger.autonomy,
        "clock": clock_facts(now, guardrails.time_zone),
        "listed": {
            "action": all(guardrails.lists_action(kind) for kind in kinds_of(action)),
            "target": (
                guardrails.lists_queue(*queue)
                if (queue := queue_of(action))
                else guardrails.lists_deployment(target.deployment_name)
            ),
            "values": all(
                guardrails.lists_parameter(target.deployment_name, value.name, value.value)
                for value in values_of(action)
            ),
        },
        "budget": {
            "actions_1h": ledger.actions_1h,
            "attempts_of_run_24h": ledger.actions_of_run_24h,
            "actions_of_deployment_1h": ledger.actions_of_deployment_1h,
            "actions_of_fingerprint_24h": ledger.actions_of_fingerprint_24h,
            "other_targets_1h": ledger.other_targets_1h,
            "forecast_actions_1h": ledger.forecast_actions_1h,
            "seconds_since_same_target": _since(ledger.seconds_since_same_target),
        },
        "trouble": {
            "fruitless_of_fingerprint_24h": ledger.fruitless_of_fingerprint_24h,
            "failed_1h": ledger.failed_1h,
            "seconds_since_failed": _since(ledger.seconds_since_failed),
            "verified_since_failed": ledger.verified_since_failed,
            "probing": ledger.probing,
        },
        "limits": guardrails.limits(),
    }


def _since(seconds: int | None) -> int:
    return LONG_AGO if seconds is None else seconds
