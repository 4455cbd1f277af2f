"""The agent's log is for people: one line for one situation, without any Python in it."""

from __future__ import annotations

from typing import Any

import pytest

from pilotage.flows.agent.process import in_words

BASE: dict[str, Any] = {"incident_id": "i-1", "subject": "run:r-1", "failure_class": "transient"}
RETRY = {"proposal_id": "p-1", "action": {"kind": "retry_run", "run_id": "r-1"}}
SAID: dict[str, tuple[dict[str, Any], str]] = {
    "judged": (
        {**BASE, "filed": [{**RETRY, "verdict": {"outcome": "allow"}}]},
        "i-1 run:r-1: transient; p-1 retry_run on run r-1: allow",
    ),
    "filed before": (
        {**BASE, "filed": [{**RETRY, "outcome": "filed before"}]},
        "i-1 run:r-1: transient; p-1 retry_run on run r-1: filed before",
    ),
    "nothing": ({**BASE, "filed": []}, "i-1 run:r-1: transient; nothing proposed"),
    "an error": (
        {"incident_id": "i-1", "filed": [], "error": "Filing: nobody answers."},
        "i-1; nothing proposed; Filing: nobody answers.",
    ),
    "hostile": (
        {**BASE, "subject": "a\x1b[2J\nb", "filed": []},
        "i-1 a\\x1b[2J⏎b: transient; nothing proposed",
    ),
}


@pytest.mark.parametrize(("happened", "said"), SAID.values(), ids=SAID.keys())
def test_each_situation_is_one_line_of_words(happened: dict[str, Any], said: str) -> None:
    assert in_words(happened) == said
