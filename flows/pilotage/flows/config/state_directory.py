"""Makes the state directory usable, and its content readable by its owner only.

Light: `pilotage users` prepares the directory too, before anything else is there.
"""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pilotage.telemetry.errors import ConfigError

DIRECTORY_MODE = 0o700
_OTHERS = 0o077
"""The permission bits of everybody but the owner."""
_CHOOSE = "Choose another directory with --state-dir or PILOTAGE_STATE_DIR."
_OWN_DIRECTORIES = ("agent", "backups", "telemetry.duckdb.snapshots")
"""Directories below the root that pilotage fills itself. Others, such as a policy bundle, belong to a person."""


def prepare_state_directory(root: Path) -> tuple[Path, ...]:
    """Create the directory if need be, check that it can be written, and take permissions of others away.

    Returns the paths whose permissions were tightened. Raises ConfigError, in one sentence, when the directory
    cannot be made, is no directory, cannot be written, is shared by all users, or belongs to somebody else.
    """
    _refuse_files_in_the_way(root)
    try:
        root.mkdir(parents=True, exist_ok=True, mode=DIRECTORY_MODE)
    except OSError as exc:
        raise _cannot_be_made(root, exc) from exc
    check_state_directory(root)
    return tighten(root)


def check_state_directory(root: Path) -> None:
    """Raise ConfigError if the directory cannot be used; one that is not there yet must be possible to make.

    What is tried is written and removed again: permission bits do not tell what a file system takes.
    """
    _refuse_files_in_the_way(root)
    if not root.is_dir():
        nearest = next(path for path in root.parents if path.is_dir())
        try:
            tempfile.TemporaryDirectory(dir=nearest, prefix=".writable-").cleanup()
        except OSError as exc:
            raise _cannot_be_made(root, exc) from exc
        return
    doing = f"Preparing the state directory {root}"
    if root.stat().st_mode & stat.S_ISVTX or root == Path(root.anchor):
        raise ConfigError(
            f"{doing}: all users of this machine share it. Name a directory inside it with --state-dir."
        )
    try:
        with tempfile.TemporaryFile(dir=root, prefix=".writable-"):
            pass
    except OSError as exc:
        raise ConfigError(f"{doing}: nothing can be written in it ({exc.strerror}). {_CHOOSE}") from exc


def _refuse_files_in_the_way(root: Path) -> None:
    if obstacle := _file_in_the_way(root):
        raise ConfigError(
            f"Preparing the state directory {root}: {obstacle} is a file, not a directory. Move it away, or "
            f"c{_CHOOSE[1:]}"
        )


def _cannot_be_made(root: Path, exc: OSError) -> ConfigError:
    return ConfigError(f"Preparing the state directory {root}: it cannot be made ({exc.strerror}). {_CHOOSE}")


def loose_paths(root: Path) -> tuple[Path, ...]:
    """Return the directories and files of this state directory that others than the owner may open."""
    return tuple(path for path in _own_paths(root) if permissions_of(path) & _OTHERS)


def tighten(root: Path) -> tuple[Path, ...]:
    """Take the permissions of others away, and return the paths that had some.

    Raises ConfigError naming the first path that belongs to another user, and so cannot be changed.
    """
    loose = loose_paths(root)
    for path in loose:
        mode = permissions_of(path)
        try:
            path.chmod(mode & ~_OTHERS)
        except FileNotFoundError:
            continue  # a journal of SQLite that was just removed
        except OSError as exc:
            raise ConfigError(
                f"Preparing the state directory {root}: {path} has mode {mode:04o} and cannot be changed "
                f"({exc.strerror}). Run `chmod go= {path}` as its owner, or choose another --state-dir."
            ) from exc
    return loose


def _file_in_the_way(root: Path) -> Path | None:
    for path in (root, *root.parents):
        try:
            mode = path.stat().st_mode
        except OSError:
            continue
        return None if stat.S_ISDIR(mode) else path
    return None


def _own_paths(root: Path) -> Iterator[Path]:
    """The root, the files directly in it, and everything in the directories that pilotage fills."""
    yield root
    for path in root.iterdir():
        if path.is_symlink():
            continue  # what it leads to belongs to somebody else's care
        if path.is_file() or path.is_socket():
            yield path
        elif path.is_dir() and path.name in _OWN_DIRECTORIES:
            yield path
            yield from (each for each in path.rglob("*") if not each.is_symlink())


def permissions_of(path: Path) -> int:
    """Return the permission bits; none for a file that was removed meanwhile, such as a journal of SQLite."""
    try:
        return stat.S_IMODE(path.lstat().st_mode)
    except FileNotFoundError:
        return 0
