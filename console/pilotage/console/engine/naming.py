"""What people call a run: by its id, by the beginning of it, or by its name."""

from __future__ import annotations

import re

from pilotage.console.engine.setting import Setting
from pilotage.flows.desk_client import DeskRefusal
from pilotage.telemetry.incidents import latest_runs

_RUN = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_OURS = re.compile(r"[pi]-[0-9a-f]{12}")
LEAST = 6
"""Characters of an id that name a run."""
MOST = 200


def is_ours(words: str) -> bool:
    """Whether it is the id of a proposal or an incident."""
    return _OURS.fullmatch(words) is not None


def run_meant(s: Setting, words: str) -> str:
    """The id of the run that these words name: an id, its beginning, or the name of one run.

    Raises DeskRefusal when telemetry has no such run, or several.
    """
    if _RUN.fullmatch(words):
        return words
    found = latest_runs(s.looks.store, words, MOST) if words else []
    named = [
        one for one in found if one.name == words or (len(words) >= LEAST and one.run_id.startswith(words))
    ]
    match named:
        case [one]:
            return one.run_id
        case []:
            raise DeskRefusal(
                "unknown-run",
                f"Looking for run {words!r}: telemetry has none. Say /runs for those it has.",
            )
        case many:
            ids = ", ".join(one.run_id for one in many[:5])
            raise DeskRefusal(
                "unknown-run",
                f"Looking for run {words!r}: {len(many)} are called so. Name one by its id: {ids}.",
            )
