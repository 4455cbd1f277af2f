"""The kill switch: a file that stops everything, and the row that says who made it.

The file is written first and by anybody who can write the state directory, so stopping needs neither Prefect
nor the agent nor a running loop. Starting again goes through the ledger and takes as many people as the
guardrail `resume_votes` says.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from pilotage.flows.execution.stop_file import pull
from pilotage.policies.ledger.protocol import Ledger


class KillSwitch:
    """Stopped while the file exists or the ledger says so."""

    def __init__(self, path: Path, ledger: Ledger, *, resume_votes: Callable[[], int]) -> None:
        self._path = path
        self._ledger = ledger
        self._resume_votes = resume_votes

    def stopped(self) -> str:
        """Why everything stands still, or an empty text when it does not."""
        if self._path.exists():
            return self._path.read_text(errors="replace").strip() or "stopped"
        stop = self._ledger.stopped()
        return f"{stop.by}: {stop.reason}" if stop else ""

    def adopt(self, now: datetime) -> None:
        """Records a file that somebody wrote while no loop ran."""
        if self._path.exists() and not self._ledger.stopped():
            self._ledger.stop("the stop file", self.stopped(), now)

    def stop(self, by: str, reason: str, now: datetime) -> None:
        """Pulls the switch: file first, row second."""
        pull(self._path, f"{by}: {reason or 'no reason given'}")
        self._ledger.stop(by, reason, now)

    def resume(self, by: str, now: datetime) -> int:
        """How many further people must ask; 0 when the loop runs again."""
        self.adopt(now)
        if self._ledger.stopped() is None or self._ledger.resume_vote(by, self._resume_votes(), now):
            self._path.unlink(missing_ok=True)
            return 0
        stop = self._ledger.stopped()
        return max(1, self._resume_votes() - len(stop.resume_votes if stop else ()))
