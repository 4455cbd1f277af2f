"""Lets a task take a value in place of what it cannot compute, when a person has approved one.

    from pilotage.flows import overridable

    @task(persist_result=True)
    @overridable("price")
    def price(symbol: str) -> float:
        return ask_the_exchange(symbol)

The name is the key under which a value is put down, on one run, before that run is tried again. The first attempt
asks nobody. Prefect keeps the value as the task's result with the flow's own storage, so that nobody else needs to
reach it; a result that the task has kept already comes first. Like `steered`, it never makes a flow fail.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from pilotage.flows.sdk.directives import Ask, ask_of_this_run

OVERRIDE = "pilotage-override"
"""Begins the key of a value that was put down; the rest is its mark."""
TAKEN = "pilotage-taken"
"""Begins the key of the flow's answer."""

log = logging.getLogger("pilotage.overridable")

P = ParamSpec("P")
R = TypeVar("R")


def overridable(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator below `@task`: the function returns the value put down for `name` on this run, if there is one."""

    def around(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*given: P.args, **named: P.kwargs) -> Any:
                value = await asyncio.to_thread(put_down, name)
                return value[0] if value else await cast("Any", function)(*given, **named)

            return cast("Callable[P, R]", awaited)

        @functools.wraps(function)
        def called(*given: P.args, **named: P.kwargs) -> R:
            value = put_down(name)
            return cast("R", value[0]) if value else function(*given, **named)

        return called

    return around


def put_down(name: str, *, ask: Ask | None = None) -> tuple[Any] | None:
    """The newest value that was put down for this name on the run that this process runs, or None; answered."""
    try:
        asked = ask or ask_of_this_run(from_attempt=2)
        if asked is None:
            return None
        rows = asked("POST", "/input/filter", {"prefix": f"{OVERRIDE}-", "limit": 200, "exclude_keys": []})
        for row in sorted(rows, key=lambda each: str(each.get("created") or ""), reverse=True):
            said = json.loads(row["value"])
            if said["task"] == name:
                answer = {"key": str(row["key"]).replace(OVERRIDE, TAKEN, 1), "value": "{}", "sender": "flow"}
                asked("POST", "/input", answer)
                return (said["value"],)
    except Exception as error:  # a flow never fails of pilotage, whatever is wrong with it
        log.debug("nothing put down for %s: %s", name, error)
    return None
