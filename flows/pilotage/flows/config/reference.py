"""Write the configuration reference from the code: `python -m pilotage.flows.config.reference` prints it as Markdown."""

from __future__ import annotations

import ast
import enum
import inspect
import itertools
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

from pilotage.flows.config.settings import Settings
from pilotage.planner.parameters import PlaybookParameters
from pilotage.policies.cedar.guardrails import Guardrails

HEAD = """# Configuration

Every number that a site may change, with its default. This page is written from the code by
`python -m pilotage.flows.config.reference`; a test holds the two together.

- **Settings** say how an installation runs and what the planner proposes. The first match wins: flags, environment,
  `pilotage.toml` in the working directory, `pilotage.toml` in the state directory, the default. A key `a.b` is the
  variable `PILOTAGE_A__B` and the line `b = …` under `[a]` in the file. Durations are written `"PT30S"`, `"PT5M"`,
  `"P1D"` (ISO 8601).
- **Guardrails** say what policy allows. They live in `guardrails.yaml` beside the Cedar policies and come in force by
  `pilotage policy publish`, so that no single person widens them.

Prefect's own connection comes from the active Prefect profile and its variables (`PREFECT_API_URL`,
`PREFECT_API_AUTH_STRING`), never from here.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One key of a model."""

    key: str
    default: str
    meaning: str


def rows_of(model: type[BaseModel], prefix: str = "") -> Iterator[Row]:
    """Yield a row for each field of the model; fields that are models themselves are entered with a dotted key."""
    docs = _field_docstrings(model)
    for name, field in model.model_fields.items():
        key, kind = f"{prefix}{name}", field.annotation
        if inspect.isclass(kind) and issubclass(kind, BaseModel):
            yield from rows_of(kind, prefix=f"{key}.")
            continue
        default = field.default if field.default is not PydanticUndefined else _made(field.default_factory)
        yield Row(key=key, default=_plain(default), meaning=docs.get(name, ""))


def document() -> str:
    """Return the whole page."""
    settings = [row for row in rows_of(Settings) if not row.key.startswith("planner.")]
    sections = [
        ("## Settings", settings),
        ("## Planner (`[planner]`)", list(rows_of(PlaybookParameters, "planner."))),
        ("## Guardrails (`guardrails.yaml`)", list(rows_of(Guardrails))),
    ]
    parts = [HEAD]
    for title, rows in sections:
        parts.append(f"{title}\n\n| key | default | meaning |\n|---|---|---|\n")
        parts[-1] += "".join(f"| `{row.key}` | {row.default} | {row.meaning} |\n" for row in rows)
    return "\n".join(parts)


def _field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the string that stands under each field, of the model and the models that it extends."""
    docs: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if not issubclass(each, BaseModel) or each.__module__.startswith(("pydantic", "pydantic_settings")):
            continue
        [body] = [
            node.body
            for node in ast.parse(textwrap.dedent(inspect.getsource(each))).body
            if isinstance(node, ast.ClassDef)
        ]
        for field, text in itertools.pairwise(body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    docs[name] = " ".join(words.split()).replace("|", "\\|")
                case _:
                    continue
    return docs


def _made(factory: Any) -> Any:
    value = factory() if factory is not None else ""
    return "~/.pilotage" if isinstance(value, Path) else value


def _plain(value: Any) -> str:
    """Return a default as a person writes it."""
    match value:
        case None | "" | ():
            return "none"
        case SecretStr():
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case timedelta():
            return _duration(value)
        case enum.Enum():
            return f"`{value.value}`"
        case tuple() | list():
            words = ", ".join(f"`{each}`" for each in value[:6])
            return words + (f" and {len(value) - 6} more" if len(value) > 6 else "")
        case _:
            return f"`{value}`".replace("|", "\\|")


def _duration(value: timedelta) -> str:
    seconds = value.total_seconds()
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


if __name__ == "__main__":
    sys.stdout.write(document())
