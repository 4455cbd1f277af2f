"""Opens the ledger of an installation for tools that only read it, whether the controller runs or not.

SQLite's write-ahead log lets a reader see one moment while the controller writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pilotage.flows.config.paths import StatePaths
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.telemetry.errors import ConfigError


@contextmanager
def reading_ledger(paths: StatePaths) -> Iterator[SqlLedger]:
    """The ledger of this state directory. Raises ConfigError when there is none."""
    if not paths.ledger.exists():
        raise ConfigError(
            f"Reading the ledger in {paths.root}: there is none. Start `pilotage up` there, or name "
            "another directory with --state-dir."
        )
    ledger = SqlLedger(f"sqlite:///{paths.ledger}")
    try:
        yield ledger
    finally:
        ledger.close()
