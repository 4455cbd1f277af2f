"""What is kept: rows, sizes, oldest and life of each kind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pilotage.flows.config.paths import StatePaths
from pilotage.flows.config.retention import RetentionSettings
from pilotage.policies.ledger.protocol import Ledger
from pilotage.telemetry.store.retention import FOR_EVER
from pilotage.telemetry.store.sizes import Asked, table_sizes

_LIFE_OF_TABLE = {"agent_spans": "spans"}
_KEPT_AS_NOW = frozenset({"deployments", "pools", "workers", "limits", "schedules", "automations", "asked"})
"""Tables that hold what is now, and nothing that was."""


def store_status(
    store: Asked,
    ledger: Ledger,
    paths: StatePaths,
    lives: RetentionSettings,
    *,
    last: Mapping[str, int],
) -> dict[str, Any]:
    """What is kept, as plain JSON: `{kinds: [{kind, rows, oldest, bytes, life_days}], files, gone, archive}`.

    `life_days` is None for what is kept for ever; `bytes` None where a kind shares its file with others.
    """
    given = lives.model_dump(exclude={"archive"})
    kinds: list[dict[str, Any]] = []
    for each in table_sizes(store):
        life = given.get(_LIFE_OF_TABLE.get(each.table, each.table), FOR_EVER)
        kinds.append(
            _kind(each.table, each.rows, each.oldest, each.size, life)
            | ({"current": True} if each.table in _KEPT_AS_NOW else {})
        )
    for one in ledger.kind_sizes():
        life = given["audit" if one.kind == "audit" else "ledger"]
        kinds.append(_kind(one.kind, one.rows, one.oldest, None, life))
    files = dict(sizes(paths))
    kinds.append(_kind("event payloads", None, None, None, lives.payloads))
    kinds.append(_kind("conversations", None, None, _size(paths.conversations), lives.conversations))
    return {
        "kinds": kinds,
        "files": files,
        "gone": dict(last),
        "archive": str(lives.archive) if lives.archive else "",
    }


def _kind(
    kind: str, rows: int | None, oldest: datetime | None, size: int | None, life: timedelta
) -> dict[str, Any]:
    return {
        "kind": kind,
        "rows": rows,
        "oldest": oldest.isoformat() if oldest else "",
        "bytes": size,
        "life_days": None if life == FOR_EVER else life / timedelta(days=1),
    }


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def sizes(paths: StatePaths) -> Iterator[tuple[str, int]]:
    """Yield the bytes of each file of the state directory, journals with their database, by its name in it."""
    found: dict[str, int] = {}
    for path in sorted(paths.root.rglob("*")):
        with contextlib.suppress(OSError):  # it may go meanwhile
            if path.is_file() and not path.is_symlink():
                name = _part(path.relative_to(paths.root))
                found[name] = found.get(name, 0) + path.stat().st_size
    yield from found.items()


def _part(path: Path) -> str:
    """What a file belongs to: its database, or the directory right below the state directory."""
    if len(path.parts) > 1:
        return path.parts[0]
    for suffix in ("-wal", "-shm", "-journal", ".wal", ".tmp"):
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.name
