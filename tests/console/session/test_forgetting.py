"""Conversations past their age go with all that was said; the others, and the rule that nothing is edited, stay."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pilotage.console.session.events import ACTIVITY_FEED
from pilotage.console.session.log import EventLog


def test_old_conversations_go_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    log = EventLog(path)
    for thread in ("t-old", "t-new"):
        log.open_thread("ann", thread=thread)
        log.append(thread, "said", "ann", {"text": thread})
    log.append(ACTIVITY_FEED, "said", "ann", {"text": "feed"})
    past = (datetime.now(UTC) - timedelta(days=200)).isoformat()
    with sqlite3.connect(path) as raw:
        raw.execute("DROP TRIGGER events_stay")
        raw.execute("UPDATE events SET at = ? WHERE thread IN ('t-old', ?)", (past, ACTIVITY_FEED))
        raw.execute("UPDATE threads SET at = ?", (past,))
    raw.close()
    assert log.forget(datetime.now(UTC) - timedelta(days=300)) == 0
    assert log.forget(datetime.now(UTC) - timedelta(days=180)) == 1
    assert {each.id for each in log.threads()} == {"t-new", ACTIVITY_FEED}
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT DISTINCT thread FROM events").fetchall() == [("t-new",)]
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute("DELETE FROM events")
    raw.close()
    log.close()
