"""What an answer rests on: the statements that were run, and references that a reader can look up again.

A look-up notes its evidence by itself: the store that it reads through writes every statement down. A
citation's key is made from what was asked, so the same look-up always has the same key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.rows import rows_of

REFERENCES = 20
"""References that one citation names."""
KINDS = {
    "run_id": "run",
    "deployment_id": "deployment",
    "queue": "queue",
    "proposal_id": "proposal",
    "incident_id": "incident",
    "log_id": "log",
    "first_log_id": "log",
    "last_log_id": "log",
}
"""Names in a result, and what they refer to."""
PAGES = {"run": "/runs/flow-run/", "deployment": "/deployments/deployment/"}
"""Where Prefect's own pages show it; relative to the address of its UI."""


@dataclass(slots=True)
class NotingStore:
    """A store that writes down what it was asked."""

    store: Store
    statements: list[str] = field(default_factory=list)
    """Every statement with its parameters in place, so that it can be asked again as it stands."""

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """As the store's own."""
        self.statements.append(in_full(sql, parameters))
        return self.store.query(sql, parameters)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """As the store's own."""
        return rows_of(self.query(sql, parameters))

    def ad_hoc(self, sql: str) -> tuple[Any, bool]:
        """As the store's own."""
        self.statements.append(" ".join(sql.split()))
        return self.store.ad_hoc(sql)

    def close(self) -> None:
        """Leave the store open: its opener closes it."""


def in_full(sql: str, parameters: Sequence[Any]) -> str:
    """The statement on one line with each `?` replaced by its value as a literal of SQL."""
    pieces = " ".join(sql.split()).split("?")
    if len(pieces) != len(parameters) + 1:
        return " ".join(sql.split())
    filled = [piece + _literal(value) for piece, value in zip(pieces, parameters, strict=False)]
    return "".join(filled) + pieces[-1]


def _literal(value: Any) -> str:
    match value:
        case None:
            return "NULL"
        case bool() | int() | float():
            return str(value)
        case datetime():
            return f"TIMESTAMPTZ '{value.isoformat()}'"
        case list() | tuple():
            return "[" + ", ".join(_literal(item) for item in value) + "]"
        case _:
            return "'" + str(value).replace("'", "''") + "'"


def key_of(tool: str, arguments: Mapping[str, Any]) -> str:
    """The key under which an answer cites this look-up, such as `e3f9a`."""
    seed = json.dumps([tool, arguments], sort_keys=True, default=str)
    return "e" + hashlib.sha256(seed.encode()).hexdigest()[:4]


def citation(
    tool: str, arguments: Mapping[str, Any], result: Mapping[str, Any], statements: Sequence[str]
) -> dict[str, Any]:
    """What one look-up is evidence of: `{key, tool, arguments, sql, refs}`, each ref `{ref, page}`."""
    refs = list(dict.fromkeys(references(result)))[:REFERENCES]
    return {
        "key": key_of(tool, arguments),
        "tool": tool,
        "arguments": dict(arguments),
        "sql": list(statements),
        "refs": [{"ref": ref, "page": _page(ref)} for ref in refs],
    }


def references(value: Any) -> Iterator[str]:
    """Every `kind:id` that a result names, in its order."""
    match value:
        case Mapping():
            for name, item in value.items():
                if name in KINDS and isinstance(item, str) and item:
                    yield f"{KINDS[name]}:{item}"
                else:
                    yield from references(item)
        case list() | tuple():
            for item in value:
                yield from references(item)


def _page(ref: str) -> str:
    kind, _, name = ref.partition(":")
    return PAGES[kind] + name if kind in PAGES else ""
