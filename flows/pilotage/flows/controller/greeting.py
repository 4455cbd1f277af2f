"""The first lines of `pilotage up`: where it is, how far it goes, what it watches, and what to do next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pilotage.flows.doctor.facts import DeploymentFacts
from pilotage.flows.doctor.server import ServerReader
from pilotage.flows.doctor.tags import has_tag
from pilotage.flows.prefect.http import PrefectHttpClient
from pilotage.policies.types import Mode
from pilotage.telemetry.errors import AdapterError

MOST_LINES = 9
"""Besides the line before them, that says which server is asked."""
WATCHED_WITHIN = 10.0
"""Seconds; a start does not wait longer for a line of its greeting."""
MEANING = {
    Mode.OBSERVE: "it only collects; nothing is proposed",
    Mode.SHADOW: "it proposes and judges; nothing is changed in Prefect, nobody is told",
    Mode.APPROVE: "a person approves each change before it is made",
    Mode.AUTO: "policy decides what is done without asking, and what waits for a person",
}
NEXT = {
    Mode.OBSERVE: (
        ("pilotage doctor", "what is missing here, and what to do"),
        ("pilotage status", "what was collected"),
        ("pilotage mode set shadow --reason …", "propose, without doing anything"),
    ),
    Mode.SHADOW: (
        ("pilotage doctor", "what is missing here, and what to do"),
        ("pilotage proposals", "what it would have done"),
        ("pilotage mode set approve --reason …", "when you agree with that"),
    ),
    Mode.APPROVE: (
        ("pilotage proposals --status needs_approval", "what waits for you"),
        ("pilotage chat", "ask, approve and reject"),
        ("pilotage stop", "nothing more is changed, at once"),
    ),
    Mode.AUTO: (
        ("pilotage incidents", "what went wrong, and what was done"),
        ("pilotage proposals --status needs_approval", "what waits for you"),
        ("pilotage stop", "nothing more is changed, at once"),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What the server has."""

    deployments: Sequence[DeploymentFacts]
    pools: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a start has to say."""

    server: str
    """Version of the Prefect server."""
    api_url: str
    mode: Mode
    source: str
    """Where the mode comes from."""
    policies: str
    root: Path
    token_file: Path
    watched: Watched | None
    """None when Prefect could not be asked."""
    notices: Sequence[str] = ()
    """What is unusual about this start."""


def greeting(start: Start) -> tuple[str, ...]:
    """Return the first lines, at most `MOST_LINES`: what does not fit of the notices shares a line."""
    commands = NEXT[start.mode]
    width = max(len(command) for command, _ in commands)
    lines = [
        f"Prefect {start.server} at {start.api_url}; {_watched(start.watched)}",
        f"mode {start.mode.value}: {MEANING[start.mode]} ({start.source})",
        f"policies {start.policies[:12]}, state in {start.root}",
        _token(start),
        *(
            f"{'next:' if first else '     '} {command:<{width}}  {why}"
            for first, (command, why) in zip((True, False, False), commands, strict=True)
        ),
    ]
    return (*_fitting(start.notices, MOST_LINES - len(lines)), *lines)


def _watched(watched: Watched | None) -> str:
    if watched is None:
        return "its deployments are not known yet"
    total = len(watched.deployments)
    untagged = sum(1 for each in watched.deployments if not has_tag(each.tags, "env"))
    note = f", {untagged} of them without an `env:` tag and so production" if untagged else ""
    return f"watching {_count(total, 'deployment')}{note} and {_count(watched.pools, 'work pool')}"


def _token(start: Start) -> str:
    if start.token_file.exists():
        return f"your token is in {start.token_file}; who else may ask: `pilotage users list`"
    return (
        f"no token in {start.token_file}: use your own with --token-file; who may ask: `pilotage users list`"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _fitting(notices: Iterable[str], room: int) -> tuple[str, ...]:
    each = tuple(notices)
    return each if len(each) <= room else (*each[: room - 1], "; ".join(each[room - 1 :]))


async def read_watched(api: PrefectHttpClient) -> Watched | None:
    """Return what this server has, or None when it does not say so soon."""
    try:
        async with asyncio.timeout(WATCHED_WITHIN):
            reader = ServerReader.sharing(api)
            deployments, pools = await asyncio.gather(reader.deployments(), reader.pool_count())
    except (AdapterError, TimeoutError):
        return None
    return Watched(deployments=deployments, pools=pools)
