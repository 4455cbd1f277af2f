"""A store that reads each statement once: for a look that asks the same in several places and means one moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pilotage.telemetry.store.protocol import Store

if TYPE_CHECKING:
    import pyarrow as pa


class RememberedStore:
    """As `Store`. What was asked before is answered as it was then; keep it no longer than one look."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """As `Store`; read anew."""
        return self._store.query(sql, parameters)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """As `Store`."""
        asked = (sql, repr(parameters))
        if asked not in self._rows:
            self._rows[asked] = self._store.rows(sql, parameters)
        return [dict(row) for row in self._rows[asked]]

    def ad_hoc(self, sql: str) -> tuple[pa.Table, bool]:
        """As `Store`; read anew."""
        return self._store.ad_hoc(sql)

    def close(self) -> None:
        """As `Store`."""
        self._store.close()
