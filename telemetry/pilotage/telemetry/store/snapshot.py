"""A copy of a store's file for other processes to read, taken beside its one writer.

DuckDB lets nobody open a file that another process writes. So its main file and its write-ahead log are copied: the
main file only when it has changed, which it does at checkpoints; the log while no transaction is being written. The
copying is done by a process of its own, since whoever closes a file gives up all locks that their process has on it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from pilotage.telemetry.errors import StoreError

_COPY = "import shutil, sys; [shutil.copyfile(a, b) for a, b in zip(sys.argv[1::2], sys.argv[2::2])]"
_TRIES = 2
"""Times that the main file is copied beside the writer; after that while the writer waits."""
COPY_TIMEOUT = 120.0
"""Seconds: a store of tens of gigabytes on a slow disk."""


class Snapshots:
    """Copies of one file, made when asked for and gone after use. Threads may share it."""

    def __init__(self, path: Path, quiet: AbstractContextManager[object]) -> None:
        """`quiet` is entered to keep the writer from writing; it may be entered again by the same thread."""
        self._path = path
        self._quiet = quiet
        self._room = path.with_name(f"{path.name}.snapshots")
        self._lock = threading.RLock()
        self._main: tuple[Path, tuple[int, int, int]] | None = None
        shutil.rmtree(self._room, ignore_errors=True)

    def alone(self) -> AbstractContextManager[object]:
        """Keeps others from taking copies, for whoever takes one while the writer waits: this lock is the outer one."""
        return self._lock

    @contextlib.contextmanager
    def taken(self) -> Iterator[Path]:
        """The path of a copy of everything that is committed now; it goes with the end of the block."""
        directory: Path | None = None
        try:
            with self._lock:
                self._room.mkdir(mode=0o700, exist_ok=True)
                directory = Path(tempfile.mkdtemp(dir=self._room))
                copy = directory / self._path.name
                self._take(copy)
        except (OSError, subprocess.SubprocessError) as exc:
            if directory is not None:
                shutil.rmtree(directory, ignore_errors=True)
            raise StoreError(
                f"Copying the telemetry store for a statement: {exc}. Look at the room on the disk.",
                transient=True,
            ) from exc
        try:
            yield copy
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _take(self, copy: Path) -> None:
        for attempt in range(_TRIES + 1):
            if attempt < _TRIES:
                main = self._copied_main()
            with self._quiet:
                if attempt == _TRIES:
                    main = self._copied_main()
                if self._main is None or self._main[1] != _mark(self._path):
                    continue  # a checkpoint came between
                logs = [
                    each
                    for each in self._path.parent.glob(f"{self._path.name}.*")
                    if ".wal" in each.suffixes and each.is_file()
                ]
                _copy(*((each, copy.with_name(each.name)) for each in logs if each.stat().st_size))
                break
        os.link(main, copy)

    def _copied_main(self) -> Path:
        """A copy of the main file as it is now, or the last one when nothing was written to it since."""
        mark = _mark(self._path)
        if self._main is not None and self._main[1] == mark:
            return self._main[0]
        old = self._main
        fresh = self._room / f"main-{mark[0]}-{mark[1]}"
        _copy((self._path, fresh))
        self._main = (fresh, mark)
        if old is not None and old[0] != fresh:
            old[0].unlink(missing_ok=True)
        return fresh

    def close(self) -> None:
        """Takes all copies away; harmless when called twice."""
        shutil.rmtree(self._room, ignore_errors=True)
        self._main = None


def _mark(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _copy(*pairs: tuple[Path, Path]) -> None:
    if pairs:
        names = [str(each) for pair in pairs for each in pair]
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", _COPY, *names],
            check=True,
            timeout=COPY_TIMEOUT,
            umask=0o077,
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
