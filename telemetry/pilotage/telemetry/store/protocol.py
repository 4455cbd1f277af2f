"""The one way to read telemetry, whoever holds the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa


class Store(Protocol):
    """Read access to the telemetry tables.

    The tables are `runs`, `task_runs`, `events`, `logs`, `queues`, `deployments`, `pools`, `workers`, `limits`,
    `schedules`, `automations`, `asked`, `forecasts`, `agent_spans`, `decisions` and `rollups`;
    `pilotage.telemetry.store.schema` lists their columns.
    """

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """The result of one SELECT as an Arrow table. Raises StoreError on anything else."""
        ...

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The same result as plain dictionaries, times as aware UTC datetimes."""
        ...

    def ad_hoc(self, sql: str) -> tuple[pa.Table, bool]:
        """The result of a SELECT that nobody wrote beforehand, and whether rows were cut off; see `adhoc_sql.py`.

        Raises StoreError for what is not one SELECT over the telemetry tables, and for one that takes too much.
        """
        ...

    def close(self) -> None:
        """Lets the store go; harmless when called twice."""
        ...


class ServedStore(Protocol):
    """What the owner's socket serves: the questions of several people, each in their own name."""

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """The result of one SELECT as an Arrow table. Raises StoreError on anything else."""
        ...

    def ad_hoc(self, sql: str, asker: str = "") -> tuple[pa.Table, bool]:
        """As `Store.ad_hoc`, counted in the name of `asker`."""
        ...
