"""How a reader comes to the store, whoever holds the file: `from pilotage.telemetry import connect`."""

from __future__ import annotations

from pathlib import Path

from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.store.paths import STORE_FILE, STORE_SOCKET, socket_path, state_directory
from pilotage.telemetry.store.protocol import Store


def connect(state_dir: Path | str | None = None, *, asker: str = "") -> Store:
    """The telemetry of a state directory: through its owner's socket, else from the file itself, read only.

    `state_dir` defaults to the environment's `PILOTAGE_STATE_DIR`, then `~/.pilotage`; `asker` is the person in whose name
    ad hoc statements are counted. Raises StoreError when there is neither an owner nor a file.
    """
    from pilotage.telemetry.store.socket import SocketStore  # start-up time: pyarrow

    directory = state_directory(state_dir)
    path = socket_path(directory, STORE_SOCKET)
    if path.exists():
        served = SocketStore(path, asker=asker)
        try:
            served.ping()
        except StoreError:
            served.close()  # a socket that its owner left behind
        else:
            return served
    if (directory / STORE_FILE).exists():
        from pilotage.telemetry.store.duckdb import DuckDBFile  # start-up time: duckdb

        return DuckDBFile(directory / STORE_FILE, asker=asker)
    raise StoreError(
        f"Connecting to the telemetry of {directory}: nobody serves it and there is no {STORE_FILE}. "
        "Start `pilotage up` (or `pilotage demo`), or name another state directory."
    )
