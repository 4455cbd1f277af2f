"""A whole installation in one file, taken while it runs, and put back.

What is kept: the ledger with the audit log, telemetry, people, keys, settings and conversations. Telemetry is copied
before the ledger, so the ledger is never behind: what telemetry lacks of it is carried over at the next start. What
may be lost at any time (sockets, locks, logs, half-done thinking) is left out.

An installation that was put back stands still until somebody resumes it: what was delivered after the copy was made is
not on its record.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pilotage.flows.api.server import Operation
from pilotage.flows.config.paths import StatePaths, runner_of
from pilotage.flows.config.state_directory import DIRECTORY_MODE, prepare_state_directory
from pilotage.flows.execution.stop_file import pull
from pilotage.policies.types import Identity
from pilotage.telemetry.errors import ConfigError

MANIFEST = "manifest.json"
FORM = 1
"""Of the archive; a later one is refused."""
BACKUPS = "backups"
"""The directory of the state directory in which a running `pilotage up` leaves what it was asked for."""
_LEFT_OUT = frozenset({"up.lock", "agent/agent.log", "agent/checkpoints.sqlite", BACKUPS})
_SQLITE = (".sqlite",)
_BESIDE_A_DATABASE = ("-wal", "-shm", "-journal", ".wal", ".tmp", ".snapshots")

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupContents:
    """What an archive holds."""

    made_at: datetime
    version: str
    """Of the pilotage that made it."""
    files: dict[str, str]
    """SHA-256 by path below the state directory."""


def write_backup(
    paths: StatePaths,
    target: Path,
    *,
    telemetry: AbstractContextManager[Path],
    now: datetime,
    say: Progress = lambda text: None,
) -> BackupContents:
    """Write the installation to `target` (mode 0600), which appears whole or not at all.

    `telemetry` gives the path of a copy of the telemetry store that nobody writes, with its log beside it.
    Raises ConfigError when there is no installation or the file cannot be written.
    """
    doing = f"Backing up {paths.root} to {target}"
    if not paths.ledger.exists():
        raise ConfigError(f"{doing}: there is no ledger in it. Name the state directory with --state-dir.")
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".backup-") as scratch:
            copied = Path(scratch) / "state"
            copied.mkdir(mode=DIRECTORY_MODE)
            with telemetry as store:
                for each in store.parent.glob(f"{store.name}*"):
                    say(f"telemetry: {each.stat().st_size:,} bytes")
                    shutil.copyfile(each, copied / f"{paths.telemetry.name}{each.name[len(store.name) :]}")
            for path in sorted(_kept(paths)):
                say(f"{path.relative_to(paths.root)}: {path.stat().st_size:,} bytes")
                _copy(path, copied / path.relative_to(paths.root))
            contents = BackupContents(made_at=now, version=version("pilotage"), files=_hashes(copied))
            (copied / MANIFEST).write_text(_manifest(contents))
            whole = Path(scratch) / "whole"
            with tarfile.open(whole, "w:gz", compresslevel=1) as tar:
                for name in (MANIFEST, *contents.files):
                    tar.add(copied / name, arcname=name, recursive=False)
            whole.chmod(0o600)
            os.replace(whole, target)
    except (OSError, sqlite3.Error) as exc:
        raise ConfigError(f"{doing}: {exc}. Look at the room and the permissions there.") from exc
    return contents


def backup_operations(
    paths: StatePaths, telemetry: Callable[[], AbstractContextManager[Path]], clock: Callable[[], datetime]
) -> dict[str, Operation]:
    """What a running `pilotage up` can be asked for: a backup, left in its state directory, for admins."""

    async def backup(caller: Identity) -> dict[str, Any]:
        now = clock()
        directory = paths.root / BACKUPS
        directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        target = directory / f"{now:%Y%m%dT%H%M%S%f}.tar.gz"
        contents = await asyncio.to_thread(write_backup, paths, target, telemetry=telemetry(), now=now)
        return {"path": str(target), "made_at": contents.made_at.isoformat(), "files": contents.files}

    return {"backup": Operation(run=backup, roles=frozenset({"admin"}), changes=True)}


def restore_backup(
    paths: StatePaths, source: Path, *, replace: bool, now: datetime, check: Callable[[StatePaths], str]
) -> tuple[BackupContents, Path | None]:
    """Put an archive back as the state directory; return what it held, and where the former directory was moved.

    Nothing is touched before the archive was unpacked beside it, each file was compared with its hash and
    `check` found nothing wrong with the new directory (it returns what is). Raises ConfigError for a `pilotage up`
    that runs there, a directory in use without `replace`, and an archive that is damaged, from a later version or
    not one of ours.
    """
    doing = f"Restoring {source} to {paths.root}"
    if runner := runner_of(paths):
        raise ConfigError(f"{doing}: process {runner} runs `pilotage up` there. Stop it first.")
    occupied = paths.root.exists() and any(paths.root.iterdir())
    if occupied and not replace:
        raise ConfigError(
            f"{doing}: there is something in it. Say --replace to move it aside, or name another with --state-dir."
        )
    paths.root.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=paths.root.parent, prefix=f".{paths.root.name}-restoring-"))
    try:
        fresh = StatePaths(root=scratch / paths.root.name)
        contents = _unpacked(source, fresh.root, doing)
        if wrong := check(fresh):
            raise ConfigError(f"{doing}: {wrong}. Take another backup.")
        pull(
            fresh.stop_file,
            f"restored from a backup of {contents.made_at.isoformat(timespec='seconds')}: "
            "what was done after it is not on this record; look at `pilotage proposals`, then `pilotage resume`",
        )
        prepare_state_directory(fresh.root)
        former: Path | None = None
        if occupied:
            former = paths.root.with_name(f"{paths.root.name}.before-{now:%Y%m%dT%H%M%SZ}")
            paths.root.rename(former)
        elif paths.root.exists():
            paths.root.rmdir()
        fresh.root.rename(paths.root)
    except OSError as exc:
        raise ConfigError(f"{doing}: {exc}. What was there is still there.") from exc
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return contents, former


@contextlib.contextmanager
def at_rest(paths: StatePaths) -> Iterator[Path]:
    """The telemetry file of an installation that nobody runs; nobody can start it meanwhile.

    Raises ConfigError when `pilotage up` runs there.
    """
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(paths.lock.open("a+"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise ConfigError(f"Holding {paths.root}: {exc.strerror}. `pilotage up` runs there.") from exc
        yield paths.telemetry


def _kept(paths: StatePaths) -> Iterator[Path]:
    """The files of the state directory but telemetry, which its owner copies."""
    for path in paths.root.rglob("*"):
        name = path.relative_to(paths.root)
        left_out = {str(name), *(str(parent) for parent in name.parents)} & _LEFT_OUT
        passing = any(part.endswith(_BESIDE_A_DATABASE) for part in name.parts)
        if path.is_symlink() or not path.is_file() or left_out or passing or path == paths.telemetry:
            continue
        yield path


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True, mode=DIRECTORY_MODE)
    if path.suffix not in _SQLITE:
        shutil.copyfile(path, to)
        return
    with (
        contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as found,
        contextlib.closing(sqlite3.connect(to)) as copied,
    ):
        found.backup(copied)  # one moment of it, whoever writes meanwhile


def _hashes(root: Path) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            hashes[str(path.relative_to(root))] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def _manifest(contents: BackupContents) -> str:
    manifest: dict[str, Any] = {
        "form": FORM,
        "made_at": contents.made_at.astimezone(UTC).isoformat(),
        "version": contents.version,
        "files": contents.files,
    }
    return json.dumps(manifest, indent=1)


def _unpacked(source: Path, root: Path, doing: str) -> BackupContents:
    """The archive's files under `root`, each with the hash that the manifest gives it, and none besides."""
    try:
        with tarfile.open(source, "r:gz") as tar:
            tar.extractall(root, filter="data")
        manifest_row = json.loads((root / MANIFEST).read_text())
        if manifest_row["form"] != FORM:
            raise ConfigError(f"{doing}: a later version of pilotage made it. Upgrade first.")
        contents = BackupContents(
            made_at=datetime.fromisoformat(manifest_row["made_at"]),
            version=manifest_row["version"],
            files=manifest_row["files"],
        )
    except (OSError, EOFError, tarfile.TarError, ValueError, KeyError, TypeError) as exc:
        raise ConfigError(f"{doing}: it is no whole backup ({exc}). Take another one.") from exc
    (root / MANIFEST).unlink()
    hashes = _hashes(root)
    for name in sorted(hashes.keys() | contents.files.keys()):
        if hashes.get(name) != contents.files.get(name):
            raise ConfigError(f"{doing}: {name} is not what was backed up. Take another backup.")
    return contents
