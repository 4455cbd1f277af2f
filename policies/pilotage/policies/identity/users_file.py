"""Sections of the users file as TOML text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any


def section_text(name: str, content: Mapping[str, Any]) -> str:
    """Return one person's section. Names, roles, teams and hashes need no escape: they were checked before."""
    lines = [f'[users."{name}"]']
    lines += [f"{key} = {_value(value)}" for key, value in content.items() if key != "tokens"]
    for label, scoped in content.get("tokens", {}).items():
        lines += [
            "",
            f'[users."{name}".tokens."{label}"]',
            *(f"{k} = {_value(v)}" for k, v in scoped.items()),
        ]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    if isinstance(value, list):
        return _toml(value)
    return value.isoformat() if isinstance(value, datetime) else f'"{value}"'


def _toml(names: list[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
