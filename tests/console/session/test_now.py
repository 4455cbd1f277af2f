"""Now says in sentences what is broken, what needs the reader, what was done since they were here, and what comes next."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.console.console_stack import ConsoleStack

from pilotage.console.session.log import EventLog
from pilotage.console.session.now import SINGLE, line_in_words, now_blocks
from pilotage.console.session.ports import User

Blocks = dict[str, list[str]]


def told(port: ConsoleStack, name: str) -> Blocks:
    """The sentences of each part, as this person reads them in a terminal."""
    user = User(name=name, roles=frozenset(), token=port.tokens[name])
    setting: Any = asyncio.run_coroutine_threadsafe(port.engine.setting(user), port.loop).result(30)
    return {
        str(block["title"]): [line_in_words(line) for line in block["lines"]] or [str(block["empty"])]
        for block in now_blocks(setting)
    }


def test_nothing_to_do_is_said_plainly(port: ConsoleStack) -> None:
    said = told(port, "ann")
    assert said["Broken now"] == ["Nothing is broken."]
    assert said["Needs a decision from you"] == ["Nothing needs a decision from you."]
    assert said["What comes next"] == ["Nothing is expected soon."]


def test_an_incident_of_five_runs_is_one_sentence_and_its_end_is_told_to_both(port: ConsoleStack) -> None:
    incident, rows = port.plan_of(5)
    (broken,) = told(port, "ann")["Broken now"]
    assert "etl/nightly in 5 runs" in broken
    assert "5 proposals wait for a person" in broken
    assert incident in broken
    (mine,) = told(port, "ann")["Needs a decision from you"]
    assert mine.startswith("5 proposals for etl/nightly")
    assert told(port, "vic")["Needs a decision from you"] == ["5 wait for somebody else."]
    ann = port.control_api("ann")
    for row in rows[:2]:
        ann.call("vote", proposal_id=row["proposal_id"], digest=row["digest"], decision="approve", reason="")
    for name in ("pat", "ann"):
        assert "2 approvals were given." in told(port, name)["Done in the last day"]
    (mine,) = told(port, "ann")["Needs a decision from you"]
    assert mine.startswith("3 proposals for etl/nightly")


def test_what_is_put_off_is_not_asked_for(port: ConsoleStack) -> None:
    row = port.proposal(port.failed_run())
    later = datetime.now(UTC) + timedelta(hours=1)
    said = {"proposal_id": row["proposal_id"], "until": later.isoformat()}
    port.engine.log.append("floor", "snoozed", "ann", said)
    assert told(port, "ann")["Needs a decision from you"] == ["Nothing needs a decision from you."]
    assert len(told(port, "pat")["Needs a decision from you"]) == 1


def test_a_visit_begins_where_the_one_before_ended(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log.sqlite")
    now = datetime.now(UTC)
    try:
        assert log.visit("ann", 10, now) == -1
        assert log.visit("ann", 12, now + timedelta(minutes=5)) == -1
        back = now + timedelta(hours=8)
        assert log.visit("ann", 30, back) == 12
        assert log.visit("ann", 31, back + timedelta(minutes=20)) == 12
        assert log.visit("ann", 31, back + timedelta(hours=9)) == 31
        assert log.visit("pat", 31, back) == -1
    finally:
        log.close()


def test_every_sentence_is_whole() -> None:
    assert all(words.endswith(".") for words in SINGLE.values())
