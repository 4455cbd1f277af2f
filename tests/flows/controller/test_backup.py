"""A backup is whole, also while everything writes; a restored installation has lost nothing and does nothing."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import PrefectServer
from tests.flows.make_installation import ROOT
from tests.flows.running_controller import running_controller
from tests.telemetry.samples import a_run

from pilotage.flows.api.offline import OfflineReader
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.controller.backup import MANIFEST, at_rest, restore_backup, write_backup
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.telemetry.errors import ConfigError
from pilotage.telemetry.store.duckdb import DuckDBStore

OLD = Path(__file__).parents[2] / "data" / "installations" / "80a8c89" / "state.tar.gz"
NOW = datetime(2026, 11, 3, 2, 0, tzinfo=UTC)


@pytest.fixture
def installed(tmp_path: Path) -> StatePaths:
    """An installation with proposals in every status, people, keys, telemetry and conversations."""
    with tarfile.open(OLD) as tar:
        tar.extractall(tmp_path, filter="data")
    paths = StatePaths(root=tmp_path / ROOT)
    SqlLedger(f"sqlite:///{paths.ledger}").close()  # brought to the present schema
    DuckDBStore(paths.telemetry).close()
    return paths


@pytest.fixture
def kept(installed: StatePaths, tmp_path: Path) -> Path:
    file = tmp_path / "kept.tar.gz"
    write_backup(installed, file, telemetry=at_rest(installed), now=NOW)
    return file


def audit(paths: StatePaths) -> dict[str, Any]:
    return dict(OfflineReader(paths).answer("audit_verify"))


def whole(paths: StatePaths) -> str:
    return "" if audit(paths)["ok"] else "broken"


def told(paths: StatePaths) -> dict[str, Any]:
    """What an installation knows, as far as it must come back."""
    ledger = SqlLedger(f"sqlite:///{paths.ledger}")
    store = DuckDBStore(paths.telemetry)
    try:
        return {
            "proposals": sorted((row["proposal_id"], row["status"]) for row in ledger.proposals("", 1000)),
            "audit": ledger.entries(0, 10_000),
            "runs": store.rows("SELECT run_id, state_id FROM runs ORDER BY run_id"),
            "logs": store.rows("SELECT count(*) AS n FROM logs"),
            "users": paths.users.read_text(),
            "key": (paths.root / "audit.key").read_bytes() if (paths.root / "audit.key").exists() else b"",
        }
    finally:
        store.close()
        ledger.close()


def test_what_was_backed_up_comes_back_and_stands_still(
    installed: StatePaths, kept: Path, tmp_path: Path
) -> None:
    before = told(installed)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600, "it holds keys"
    back = StatePaths(root=tmp_path / "elsewhere" / "back")
    contents, former = restore_backup(back, kept, replace=False, now=NOW, check=whole)
    assert (contents.made_at, former) == (NOW, None)
    assert told(back) == before
    assert "restored from a backup" in back.stop_file.read_text(), (
        "it must not deliver a second time by itself"
    )
    assert stat.S_IMODE(back.root.stat().st_mode) == 0o700


def test_what_stands_in_the_way_is_moved_aside_and_only_when_told(
    installed: StatePaths, kept: Path, tmp_path: Path
) -> None:
    (installed.root / "mine").write_text("kept")
    with pytest.raises(ConfigError, match="--replace"):
        restore_backup(installed, kept, replace=False, now=NOW, check=whole)
    _, former = restore_backup(installed, kept, replace=True, now=NOW, check=whole)
    assert former is not None
    assert (former / "mine").read_text() == "kept"
    assert not (installed.root / "mine").exists()
    assert audit(installed)["ok"]


@pytest.mark.parametrize("fault", ["cut", "changed", "added", "later", "not an archive", "escaping"])
def test_a_backup_that_is_not_whole_leaves_everything_as_it_is(
    installed: StatePaths, kept: Path, tmp_path: Path, fault: str
) -> None:
    before = told(installed)
    unpacked = tmp_path / "unpacked"
    with tarfile.open(kept) as tar:
        tar.extractall(unpacked, filter="data")
    bad = tmp_path / "bad.tar.gz"
    if fault == "changed":
        (unpacked / "users.toml").write_text("")
    if fault == "added":
        (unpacked / "STOP").write_text("")
    if fault == "later":
        manifest = json.loads((unpacked / MANIFEST).read_text())
        (unpacked / MANIFEST).write_text(json.dumps(manifest | {"form": 99}))
    with tarfile.open(bad, "w:gz") as tar:
        for path in sorted(unpacked.iterdir()):
            tar.add(path, arcname=path.name)
        if fault == "escaping":
            tar.add(unpacked / "users.toml", arcname="../outside")
    if fault == "cut":
        bad.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2])
    if fault == "not an archive":
        bad.write_text("hello")
    with pytest.raises(ConfigError, match=r"Take another|Upgrade first"):
        restore_backup(installed, bad, replace=True, now=NOW, check=whole)
    assert told(installed) == before
    assert not (tmp_path / "outside").exists()
    assert not list(tmp_path.glob(f".{installed.root.name}-restoring-*"))


def test_a_backup_under_writes_is_one_moment_of_each_store(installed: StatePaths, tmp_path: Path) -> None:
    store = DuckDBStore(installed.telemetry)
    ledger = SqlLedger(f"sqlite:///{installed.ledger}")
    stop = threading.Event()
    written: list[int] = []

    def write() -> None:
        while not stop.is_set():
            store.merge_runs([a_run(run_id=str(uuid.uuid4()))])
            ledger.stop("pat", f"number {len(written)}", datetime.now(UTC))
            ledger.resume_vote("pat", 1, datetime.now(UTC))
            written.append(1)
            if len(written) % 20 == 0:
                store.checkpoint()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            begun = len(written)
            file = tmp_path / f"{number}.tar.gz"
            write_backup(installed, file, telemetry=store.copied(), now=NOW)
            ended = len(written)
            back = StatePaths(root=tmp_path / f"back-{number}")
            restore_backup(back, file, replace=False, now=NOW, check=whole)
            copy = DuckDBStore(back.telemetry)
            runs = copy.rows("SELECT count(*) AS n FROM runs WHERE run_id NOT LIKE '%seed%'")[0]["n"]
            copy.close()
            length = audit(back)["length"]
            assert begun <= runs + 2, "what was written before is in it"
            assert length >= begun
            assert ended >= begun
    finally:
        stop.set()
        writer.join()
        ledger.close()
        store.close()


@pytest.mark.prefect
def test_a_running_installation_is_backed_up_and_its_copy_starts_stopped(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    def pilotage(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pilotage.console", *arguments],
            env={
                "PATH": os.environ["PATH"],
                "PILOTAGE_STATE_DIR": str(root),
                "PILOTAGE_TOKEN_FILE": str(root / "pat.token"),
            },
            capture_output=True,
            text=True,
            check=False,
        )

    file = tmp_path / "running.tar.gz"
    root = tmp_path / "state"
    with running_controller(root, prefect_server.env, mode="shadow", forked=prefect_server.embedded) as up:
        done = pilotage(root, "backup", str(file), "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["bytes"] == file.stat().st_size
        again = pilotage(root, "backup", str(file))
        assert again.returncode == 2
        assert "Name another one" in again.stderr
        refused = pilotage(root, "restore", str(file), "--replace")
        assert refused.returncode == 2
        assert "Stop it first" in refused.stderr
        length = up.control_api().call("audit_verify")["length"]
    shutil.rmtree(root)
    back = pilotage(root, "restore", str(file))
    assert back.returncode == 0, back.stderr
    assert "pilotage resume" in back.stdout
    with running_controller(root, prefect_server.env, mode="shadow", forked=prefect_server.embedded) as up:
        status = up.control_api().call("status")
        assert "restored from a backup" in json.dumps(status)
        assert up.control_api().call("audit_verify")["length"] >= length


@pytest.fixture(autouse=True)
def _no_leftovers(tmp_path: Path) -> Iterator[None]:
    yield
    assert not list(tmp_path.rglob(".backup-*"))
