"""What a person types to change a proposal, as a typed action: `memory_mb=256`, `hold=30m`, `start=+10m`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from pydantic import ValidationError

from pilotage.console.session.changes import FIXED
from pilotage.flows.api.client import ApiRejection
from pilotage.planner.actions.types import ACTION, ACTIONS, action_as_json, target_of

_SPAN = re.compile(r"(\d{1,9})\s{0,3}([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@cache
def schemas() -> dict[str, dict[str, Any]]:
    """The JSON schema of each kind of action, for the forms in which people edit them."""
    return {kind: model.model_json_schema() for kind, model in ACTIONS.items()}


def span(words: str) -> timedelta:
    """`90s`, `30m`, `2h`, `1d` as a duration. Raises ApiRejection."""
    match = _SPAN.fullmatch(words.strip().lower())
    if match is None:
        raise ApiRejection(
            "invalid", f"Reading {words!r}: a time is a whole number and s, m, h or d, as 30m."
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def edited(action: Mapping[str, Any], words: str, now: datetime) -> dict[str, Any]:
    """The action with the fields that `words` names changed. Raises ApiRejection telling which are valid."""
    kind = str(action["kind"])
    properties: Mapping[str, Any] = schemas()[kind]["properties"]
    free = [name for name in properties if name not in FIXED]
    changed = dict(action)
    pairs = _pairs(words)
    if not pairs:
        valid = ", ".join(free) or "nothing: propose another action instead"
        raise ApiRejection("invalid", f"Editing a {kind}: name a field and its value. Valid are {valid}.")
    for name, value in pairs:
        if name not in free:
            raise ApiRejection(
                "invalid", f"Editing a {kind}: {name!r} is none of its fields. Valid are {', '.join(free)}."
            )
        changed[name] = _typed(properties[name], value, now)
    return typed_action(changed)


def action_in(
    words: str, now: datetime, meant: Mapping[str, Callable[[str], str]] | None = None
) -> dict[str, Any]:
    """The action that `KIND field=value …` stands for; `meant` turns a name given for a field into an id.

    Raises ApiRejection telling what is missing.
    """
    kind, _, rest = words.strip().partition(" ")
    if kind not in schemas():
        raise ApiRejection("invalid", f"Reading {kind!r}: it is no action. Valid are {', '.join(schemas())}.")
    properties: Mapping[str, Any] = schemas()[kind]["properties"]
    short = {"run": "run_id", "deployment": "deployment_id"}
    given = {short.get(name, name): value for name, value in _pairs(rest)}
    given |= {name: find(given[name]) for name, find in (meant or {}).items() if name in given}
    if strange := sorted(set(given) - set(properties)):
        raise ApiRejection(
            "invalid",
            f"Reading a {kind}: {strange[0]!r} is none of its fields. Valid are {', '.join(properties)}.",
        )
    return typed_action(
        {"kind": kind} | {name: _typed(properties[name], value, now) for name, value in given.items()}
    )


def typed_action(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same as plain JSON once it is a valid action. Raises ApiRejection naming each wrong field."""
    try:
        action = ACTION.validate_json(json.dumps(values))
    except ValidationError as exc:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in error['loc'][1:]) or values.get('kind')}: {error['msg']}"
            for error in exc.errors(include_url=False, include_input=False, include_context=False)
        )
        raise ApiRejection(
            "invalid", f"Reading the {values.get('kind')}: {wrong}. Nothing was handed in."
        ) from exc
    target_of(action)
    return action_as_json(action)


def _pairs(words: str) -> list[tuple[str, str]]:
    try:
        parts = shlex.split(words)
    except ValueError as exc:
        raise ApiRejection("invalid", f"Reading {words!r}: {exc}. Close the quotes.") from exc
    if wrong := next((part for part in parts if "=" not in part), None):
        raise ApiRejection("invalid", f"Reading {wrong!r}: say field=value, as memory_mb=256.")
    return [(name, value) for name, _, value in (part.partition("=") for part in parts)]


def _typed(schema: Mapping[str, Any], value: str, now: datetime) -> Any:
    """The JSON value that the field wants; what does not fit is left as it is, for the action to refuse."""
    options = [schema, *schema.get("anyOf", ())]
    if any(option.get("format") == "duration" for option in options) and _SPAN.fullmatch(value.lower()):
        return f"PT{int(span(value).total_seconds())}S"
    if any(option.get("format") == "date-time" for option in options) and value.startswith("+"):
        return (now + span(value[1:])).isoformat()
    if any(option.get("type") in ("integer", "number", "array", "boolean") for option in options):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
