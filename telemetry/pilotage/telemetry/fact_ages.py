"""How old facts about a site become before they are asked for again, and how old they may be to rest on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

EVERY: Mapping[str, timedelta] = {
    "pools": timedelta(seconds=30),
    "queues": timedelta(seconds=30),
    "deployments": timedelta(seconds=60),
    "limits": timedelta(seconds=45),
    "tag_limits": timedelta(seconds=45),
    "workers": timedelta(seconds=120),
    "automations": timedelta(minutes=5),
    "tasks": timedelta(seconds=45),
}
"""How old each kind of fact becomes before it is asked for again."""
KEPT_FRESH: Mapping[str, timedelta] = {kind: 5 * every for kind, every in EVERY.items()}
"""Older ones are named as old wherever something rests on them."""
