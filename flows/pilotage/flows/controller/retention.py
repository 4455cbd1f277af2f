"""Forgets what is past its age, makes files small again, and tells what is kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pilotage.flows.api.offline_ledger import reading_ledger
from pilotage.flows.api.server import READERS, Operation
from pilotage.flows.api.store_status import store_status
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.config.retention import RetentionSettings
from pilotage.flows.controller.backup import at_rest
from pilotage.policies.audit.checkpoints import SUFFIX, kept_in
from pilotage.policies.audit.ed25519 import Ed25519Signer, Ed25519Verifier
from pilotage.policies.ledger.protocol import Ledger
from pilotage.policies.types import Identity
from pilotage.telemetry.errors import AdapterError, InvariantError
from pilotage.telemetry.store.archive import ParquetArchive
from pilotage.telemetry.store.duckdb import DuckDBStore
from pilotage.telemetry.store.retention import FOR_EVER

log = logging.getLogger(__name__)

UNUSED = 0.3
"""Share of a file that holds nothing above which it is made small again."""
WORTH_IT = 32 * 1024 * 1024
"""Bytes of a file below which it is left as it is."""
COMPACTED_EVERY = timedelta(days=1)


@dataclass(kw_only=True)
class Upkeep:
    """Once an hour: deletes what is past its age, then compacts what holds much that is unused."""

    store: DuckDBStore
    ledger: Ledger
    lives: RetentionSettings
    paths: StatePaths
    signer: Ed25519Signer
    checkpoints: Path | None
    clock: Callable[[], datetime]
    last: dict[str, int] = field(default_factory=dict)
    """Rows of each kind that went the last time."""
    _compacted: datetime | None = None
    _cut: datetime | None = None

    def keep(self) -> Mapping[str, int]:
        """How many rows of each kind are gone now. Raises AdapterError, and what is left is taken up the next time."""
        now = self.clock()
        archive = ParquetArchive(self.lives.archive) if self.lives.archive else None
        gone = dict(
            self.store.retain(now, self.lives.telemetry, needed=self.ledger.needed_runs(), archive=archive)
        )

        def kept(kind: str, rows: Sequence[dict[str, Any]]) -> None:
            if archive is not None:
                archive.keep_rows(f"ledger_{kind}", list(rows))

        if self.lives.ledger != FOR_EVER:
            gone |= self.ledger.forget_history(now - self.lives.ledger, kept)
        if self._cut is None or now - self._cut >= COMPACTED_EVERY:
            gone["audit"] = self._cut_audit(now, kept)
            self._cut = now
        self.last = gone
        if self._compacted is None or now - self._compacted >= COMPACTED_EVERY:
            self._compacted = now
            self.compact(UNUSED)
        return gone

    def _cut_audit(self, now: datetime, kept: Callable[[str, Sequence[dict[str, Any]]], None]) -> int:
        """How many entries of the audit log are gone, all of them behind a checkpoint that we signed."""
        place = self.checkpoints
        if self.lives.audit == FOR_EVER or place is None or not any(place.glob(f"*{SUFFIX}")):
            return 0
        before = now - self.lives.audit
        may_go = self.ledger.cuttable_audit(before)
        # what telemetry has not been told of yet is needed as well
        told = self.store.rows("SELECT max(decision_id) AS last FROM decisions")[0]["last"]
        may_go = min(may_go, int(str(told).removeprefix("a-")) if told else 0)
        verifier = Ed25519Verifier(self.signer.public())
        vouched = [each for each in kept_in(place, verifier) if 0 < each.size <= may_go]
        if not vouched:
            return 0
        report = self.ledger.verify_audit(kept_in(place, verifier), verifier)
        if not report.ok:
            raise InvariantError(
                f"cutting the audit log: entry {report.first_bad}: {report.why}; nothing was cut, "
                "find out who wrote to the ledger"
            )
        if report.cut >= vouched[-1].size:
            return 0
        note = (place / f"{vouched[-1].size:012d}{SUFFIX}").read_text(encoding="utf-8")
        return self.ledger.cut_audit(vouched[-1], note, before, now, kept)

    def compact(self, unused: float, worth: int = WORTH_IT) -> dict[str, tuple[int, int]]:
        """The bytes before and after of each file that is larger than `worth` and held more than this share unused."""
        return compact(self.store, self.ledger, self.paths, unused, worth)

    async def run(self, stop: asyncio.Event, every: timedelta = timedelta(hours=1)) -> None:
        """Keep house until `stop`. An InvariantError ends it: the audit log is not what was vouched for."""
        while not stop.is_set():
            try:
                await asyncio.to_thread(self.keep)
            except AdapterError as exc:
                log.warning("forgetting what is past its age: %s", exc)
            try:
                await asyncio.wait_for(stop.wait(), every.total_seconds())
            except TimeoutError:
                continue

    def table(self) -> dict[str, Operation]:
        """The operations by name."""
        return {
            "store_status": Operation(run=self.store_status, roles=READERS),
            "store_compact": Operation(run=self.store_compact, roles=frozenset({"admin"}), changes=True),
        }

    async def store_status(self, caller: Identity) -> dict[str, Any]:
        """What is kept: rows, sizes, oldest and life by kind, and the files. See `store_status`."""
        return await asyncio.to_thread(self.store_status_now)

    def store_status_now(self) -> dict[str, Any]:
        """The same, for a caller in a thread."""
        return store_status(self.store, self.ledger, self.paths, self.lives, last=self.last)

    async def store_compact(self, caller: Identity) -> dict[str, Any]:
        """Make the files as small as their rows, now."""
        return _as_json(await asyncio.to_thread(self.compact, 0.0, 0))


def compact(
    store: DuckDBStore, ledger: Ledger, paths: StatePaths, unused: float, worth: int
) -> dict[str, tuple[int, int]]:
    """The bytes before and after of each file that is larger than `worth` and held more than a share `unused`."""
    done: dict[str, tuple[int, int]] = {}
    store.checkpoint()
    if paths.telemetry.stat().st_size >= worth and store.unused_share() > unused:
        done[paths.telemetry.name] = store.compact()
    before = paths.ledger.stat().st_size
    if before >= worth and ledger.shrink(unused):
        done[paths.ledger.name] = (before, paths.ledger.stat().st_size)
    return done


def compact_at_rest(paths: StatePaths) -> dict[str, dict[str, int]]:
    """The same for an installation that nobody runs, whatever the files' sizes. Raises ConfigError when it is run."""
    with at_rest(paths) as telemetry, reading_ledger(paths) as ledger:
        store = DuckDBStore(telemetry)
        try:
            return _as_json(compact(store, ledger, paths, 0.0, 0))
        finally:
            store.close()


def _as_json(done: Mapping[str, tuple[int, int]]) -> dict[str, dict[str, int]]:
    return {name: {"before": before, "after": after} for name, (before, after) in done.items()}
