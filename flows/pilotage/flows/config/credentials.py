"""What opens Prefect, by the names of its variables: one list for those who drop it, refuse it or pass nothing on."""

from __future__ import annotations

import os
from collections.abc import Mapping

PREFECT_KEYS = (
    "PREFECT_API_KEY",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_API_URL",
)
"""Variables that would let a process reach Prefect by itself."""
_ROADS = (
    "PREFECT_API_DATABASE_CONNECTION_URL",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "PREFECT_CLIENT_CUSTOM_HEADERS",
    "PREFECT_PROFILE",
    "PREFECT_PROFILES_PATH",
    "PREFECT_HOME",
)
"""Variables that lead to where such a key may lie."""


def drop_keys() -> None:
    """Takes the keys out of this process's environment, before a model or a tool could see them."""
    for name in PREFECT_KEYS:
        os.environ.pop(name, None)


def without_credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without anything that opens Prefect or leads to it."""
    return {key: value for key, value in environment.items() if key not in (*PREFECT_KEYS, *_ROADS)}
