"""What can be drafted in a conversation: every kind of action, and how it is spelt.

One tool drafts all kinds, so that a small model is shown a short list. A call of it names a kind, a target and the
rest as plain arguments; here they become the fields of a typed action.
Pure: what exists is `pilotage.planner.actions.resolve`'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any

from pilotage.planner.actions.types import ACTIONS


class Aim(StrEnum):
    """What an action is done to, and how it is named."""

    RUN = "the id of a run"
    DEPLOYMENT = "the id of a deployment, or flow/name"
    QUEUE = "pool/queue, or a pool"
    LIMIT = "scope:name, as tag:database, global:etl, pool:prod, queue:prod/default or deployment:ID"


@cache
def aim_of(kind: str) -> Aim:
    """What the kind is done to."""
    named = set(ACTIONS[kind].model_fields)
    if "run_id" in named:
        return Aim.RUN
    if "scope" in named:
        return Aim.LIMIT
    return Aim.QUEUE if "pool" in named else Aim.DEPLOYMENT


_NAMES_THE_TARGET: Mapping[Aim, frozenset[str]] = {
    Aim.RUN: frozenset({"run_id"}),
    Aim.DEPLOYMENT: frozenset({"deployment_id"}),
    Aim.QUEUE: frozenset({"pool", "queue", "busy_queue"}),
    Aim.LIMIT: frozenset({"scope", "name", "pool"}),
}


@cache
def _arguments(kind: str) -> tuple[str, ...]:
    """The fields of the kind beside its target."""
    aimed = _NAMES_THE_TARGET[aim_of(kind)]
    return tuple(name for name in ACTIONS[kind].model_fields if name != "kind" and name not in aimed)


def signature(kind: str) -> str:
    """The kind with its target and arguments in one short line; `?` behind what may be left out."""
    fields = ACTIONS[kind].model_fields
    names = ", ".join(name if fields[name].is_required() else f"{name}?" for name in _arguments(kind))
    return f"{kind}({aim_of(kind).name.lower()}{'; ' if names else ''}{names})"


def in_full(kind: str) -> dict[str, Any]:
    """What the kind does and takes, in plain JSON: `{kind, does, target, arguments}`."""
    model = ACTIONS[kind]
    schema = model.model_json_schema()
    return {
        "kind": kind,
        "does": " ".join((model.__doc__ or "").split()),
        "target": aim_of(kind).value,
        "arguments": {
            name: {
                "required": name in schema.get("required", ()),
                **_shape(schema["properties"][name], schema.get("$defs", {})),
            }
            for name in _arguments(kind)
        },
    }


_TOLD = ("type", "format", "minimum", "maximum", "enum", "minLength", "maxLength", "pattern", "default")
BY_NAME = frozenset({"changes", "answers"})
"""Arguments that give a name a value."""
_GIVEN_BY_NAME = {
    "type": "object",
    "example": {"region": "eu", "day": {"from_run": "ID of an earlier run"}},
    "said": "each value is one that the person said, or that an earlier run of the deployment completed with",
}


def _shape(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    if schema.get("type") == "array":
        return dict(_GIVEN_BY_NAME)
    named = schema.get("$ref", "").rpartition("/")[2]
    referenced = defs.get(named, {}) if named else {}
    kept = {key: value for part in (referenced, schema) for key, value in part.items() if key in _TOLD}
    if "anyOf" in schema:
        kept["type"] = [option["type"] for option in schema["anyOf"] if "type" in option]
    if kept.get("format") == "duration":
        kept["example"] = "PT30M"
    return kept


# -- from words to fields

_SPAN = re.compile(r"(\d{1,9})\s{0,3}([smhd])[a-z]{0,9}", re.IGNORECASE)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def fields_of(kind: str, target: str, arguments: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The fields of the action as JSON would give them; not checked yet.

    Times may be seconds or `30m`, a start may be `+30m`, and what is given by name may be an object.
    """
    properties = ACTIONS[kind].model_json_schema()["properties"]
    given = {name: _typed(properties.get(name, {}), name, value, now) for name, value in arguments.items()}
    return {"kind": kind} | given | _aimed(kind, target.strip())


def _aimed(kind: str, target: str) -> dict[str, Any]:
    match aim_of(kind):
        case Aim.RUN:
            return {"run_id": target.removeprefix("run:").lower()}
        case Aim.DEPLOYMENT:
            return {"deployment_id": target.removeprefix("deployment:")}
        case Aim.QUEUE:
            pool, _, queue = target.removeprefix("queue:").partition("/")
            return {"pool": pool, "busy_queue" if kind == "reserve_slot" else "queue": queue}
        case Aim.LIMIT:
            scope, _, name = target.removeprefix("limit:").partition(":")
            if scope == "queue":
                pool, _, name = name.partition("/")
                return {"scope": scope, "pool": pool, "name": name}
            return {"scope": scope, "name": name}


def _typed(schema: Mapping[str, Any], name: str, value: Any, now: datetime) -> Any:
    if name in BY_NAME and isinstance(value, Mapping):
        return [{"name": key, "value": item} for key, item in value.items()]
    match schema.get("format"), value:
        case "duration", int() | float() if not isinstance(value, bool):
            return f"PT{int(value)}S"
        case "duration", str() if (span := _span(value)) is not None:
            return f"PT{int(span.total_seconds())}S"
        case "date-time", str() if value.startswith("+") and (span := _span(value[1:])) is not None:
            return (now + span).isoformat()
        case _:
            return value


def _span(words: str) -> timedelta | None:
    match = _SPAN.fullmatch(words.strip())
    return timedelta(**{_UNITS[match[2].lower()]: int(match[1])}) if match else None


# -- whose words they are

_CLOSED = frozenset({"directive", "severity"})
"""Arguments that are a word of a closed list: no text of anybody's can be in them."""


def literals(kind: str, arguments: Mapping[str, Any]) -> Iterator[str]:
    """What the arguments name or set that somebody must have said: names and values, not numbers of ours and times."""
    properties = ACTIONS[kind].model_json_schema()["properties"]
    for name, value in arguments.items():
        if name in BY_NAME:
            pairs = value.items() if isinstance(value, Mapping) else _pairs(value)
            for key, item in pairs:
                yield str(key)
                if not (isinstance(item, Mapping) and set(item) == {"from_run"}):
                    yield _spelt(item)
        elif name == "value" or (
            isinstance(value, str) and name not in _CLOSED and "format" not in properties.get(name, {})
        ):
            yield _spelt(value)


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    items = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    return [(item.get("name", ""), item.get("value")) for item in items if isinstance(item, Mapping)]


def _spelt(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def said_in(text: str, words: str) -> bool:
    """Whether this stands in the words, as a word of its own."""
    return not text or re.search(rf"(?<![\w.]){re.escape(text)}(?!\w)", words, re.IGNORECASE) is not None
