"""What the tests of notebooks share: a store that its owner serves, and a kernel that has no key."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotage.telemetry.store.duckdb import DuckDBStore
from pilotage.telemetry.store.paths import STORE_FILE, STORE_SOCKET, socket_path
from pilotage.telemetry.store.socket import StoreServer


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def owner(state: Path) -> Iterator[DuckDBStore]:
    store = DuckDBStore(state / STORE_FILE)
    server = StoreServer(store, socket_path(state, STORE_SOCKET))
    yield store
    server.close()
    store.close()


@pytest.fixture
def without_credentials(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The kernel's environment: nothing of Prefect, and every file in the test's own folder."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {
        "PILOTAGE_STATE_DIR": str(state),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
    }
