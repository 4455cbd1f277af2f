"""What a model is told of the moment before it answers: the time, the person and their rights, the mode, what is wrong.

Only typed facts of ours stand in it: counts, ids, classes and causes. No name and no text of a run does, since it is part
of the instructions; those are looked up, and quoted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pilotage.planner.chat.lookups.governing import waiting
from pilotage.planner.chat.lookups.records import RecordsApi
from pilotage.planner.chat.queries import LOOK_BACK
from pilotage.planner.chat.tools import Toolbox
from pilotage.planner.detect.failures import diagnose_run
from pilotage.telemetry.errors import AdapterError
from pilotage.telemetry.queries import runs as run_queries

NEWEST = 5
"""Failures whose ids are named."""
DIAGNOSED = 50
"""Failures that are classed for the count."""


def situation(toolbox: Toolbox, person: str) -> dict[str, Any]:
    """Return the moment in plain JSON; what could not be asked is `not known`. Never raises an AdapterError."""
    now = toolbox.clock().astimezone(toolbox.zone)
    return {
        "now": now.isoformat(timespec="seconds"),
        "weekday": f"{now:%A}",
        "zone": now.tzname() or "UTC",
        "person": person or "not known",
        **_rights(toolbox),
        **_trouble(toolbox, now),
    }


def in_words(moment: Mapping[str, Any]) -> str:
    """Return it as the end of the instructions."""
    return (
        "\nThe moment, as facts; times that the person says are in this zone, and rights are those of this person:\n"
        f"{json.dumps(dict(moment))}"
    )


def _rights(toolbox: Toolbox) -> dict[str, Any]:
    api = toolbox.control_api
    unknown = {
        "roles": "not known",
        "mode": "not known",
        "stopped": "not known",
        "waits_for_people": "not known",
    }
    if not isinstance(api, RecordsApi):
        return unknown
    try:
        me, status = api.read("whoami"), api.read("status")
        return {
            "roles": sorted(map(str, me["roles"])),
            "may_draft": list(api.permitted_kinds()) if hasattr(api, "permitted_kinds") else [],
            "mode": str(status["mode"]),
            "stopped": bool(status["stopped"]),
            "waits_for_people": int(status["proposals"].get("needs_approval", 0)),
        }
    except (AdapterError, KeyError, TypeError, AttributeError):
        return unknown


def _trouble(toolbox: Toolbox, now: datetime) -> dict[str, Any]:
    try:
        failed = run_queries.failures_since(toolbox.store, now - LOOK_BACK)
        newest = failed[-DIAGNOSED:]
        classes = Counter(
            diagnose_run(run, run_queries.logs_of(toolbox.store, run.run_id, 100), now).failure_class.value
            for run in newest
        )
        held = waiting(toolbox.store, now, toolbox.parameters)
    except AdapterError:
        return {"failed_in_last_day": "not known", "standing_still": "not known"}
    return {
        "failed_in_last_day": len(failed),
        "classes_of_newest": dict(classes.most_common()),
        "newest_failed_runs": [run.run_id for run in failed[-NEWEST:]][::-1],
        "standing_still": {cause["cause"]: cause["count"] for cause in held["causes"] if cause["trouble"]},
    }
