"""Lets a flow listen to directives between its tasks; a flow never fails because of it.

    from pilotage.flows import steered

    @flow
    def load(parts: list[str]) -> None:
        with steered() as pilot:
            for part in parts:
                if "drain" in pilot.heard():
                    break
                load_one(part)

Outside Prefect, without a server, or where pilotage is not running, nothing is heard and nothing is waited for. Imports
nothing heavy: the flow has Prefect already, and asks it over HTTP with a short patience.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

SAID = "pilotage-directive"
"""Begins the key of a directive; the rest is its mark."""
HEARD = "pilotage-heard"
"""Begins the key of the flow's answer."""
PATIENCE = 2.0
"""Seconds that a flow waits for Prefect at most, once in a while."""
_DEAF_FOR = 30.0
"""Seconds without asking after an asking that failed: a flow is not slowed down by a server that is away."""

log = logging.getLogger("pilotage.steered")

Ask = Callable[[str, str, dict[str, Any]], Any]
"""Asks Prefect: method, route below the run's, body; what it answered, as JSON values."""


class Steering:
    """One run's ear. Not for use by several threads at once."""

    def __init__(self, *, every: timedelta = timedelta(seconds=1), ask: Ask | None = None) -> None:
        self._every = every.total_seconds()
        self._ask = ask
        self._next = 0.0
        self._known: set[str] = set()
        self.latest = ""
        """The directive that was heard last, or empty."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def heard(self) -> tuple[str, ...]:
        """The directives that are new, oldest first, each answered; asks Prefect once in `every` at most."""
        now = time.monotonic()
        if now < self._next:
            return ()
        self._next = now + self._every
        try:
            return self._listen()
        except Exception as error:  # a flow never fails of being steered, whatever is wrong with the pilot
            log.debug("nothing heard: %s", error)
            self._next = time.monotonic() + _DEAF_FOR
            return ()

    async def aheard(self) -> tuple[str, ...]:
        """As `heard`, for an async flow: the asking happens in a thread."""
        return await asyncio.to_thread(self.heard)

    def _listen(self) -> tuple[str, ...]:
        ask = self._ask or ask_of_this_run()
        if ask is None:
            self._next = time.monotonic() + _DEAF_FOR
            return ()
        self._ask = ask
        names: list[str] = []
        rows = ask(
            "POST", "/input/filter", {"prefix": f"{SAID}-", "limit": 50, "exclude_keys": sorted(self._known)}
        )
        for row in sorted(rows, key=lambda each: str(each.get("created") or "")):
            key = str(row["key"])
            if key in self._known:
                continue
            self._known.add(key)
            directive = str(json.loads(row["value"])["value"])
            answer = {
                "key": key.replace(SAID, HEARD, 1),
                "value": json.dumps({"value": directive}),
                "sender": "flow",
            }
            ask("POST", "/input", answer)
            names.append(directive)
            self.latest = directive
        return tuple(names)


def steered(*, every: timedelta = timedelta(seconds=1)) -> Steering:
    """The ear of the flow run that calls this; deaf where there is none. `every`: from one asking to the next."""
    return Steering(every=every)


def ask_of_this_run(*, from_attempt: int = 1) -> Ask | None:
    """How to ask Prefect about the run that this process runs.

    None outside a run, without a server, or before the attempt with this number.
    """
    import httpx
    from prefect.runtime import flow_run
    from prefect.settings import get_current_settings

    run_id, api = flow_run.id, get_current_settings().api
    if not run_id or not api.url or (from_attempt > 1 and (flow_run.run_count or 0) < from_attempt):
        return None
    headers = dict(get_current_settings().client.custom_headers)
    user, _, password = (api.auth_string.get_secret_value() if api.auth_string else "").partition(":")
    if api.key and not user:
        headers["Authorization"] = f"Bearer {api.key.get_secret_value()}"
    auth = (user, password) if user else None
    place = f"{api.url.rstrip('/')}/flow_runs/{run_id}"

    def ask(method: str, route: str, body: dict[str, Any]) -> Any:
        answer = httpx.request(
            method,
            place + route,
            json=body,
            headers=headers,
            auth=auth,
            timeout=PATIENCE,
            verify=not api.tls_insecure_skip_verify,
        )
        if answer.status_code == httpx.codes.CONFLICT:  # it was answered by an earlier attempt
            return None
        answer.raise_for_status()
        return answer.json() if answer.content else None

    return ask
