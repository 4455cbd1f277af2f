"""Notes what pilotage's own Prefect clients send while tests run, and which fields of the replies they look at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import httpx
import pytest
from tests.compat.make_openapi import descriptions
from tests.compat.openapi import Api
from tests.compat.versions import DATA, VERSIONS

from pilotage.telemetry.prefect.servers import USER_AGENT

REQUESTS = DATA / "requests.json"
RECORD = "PILOTAGE_RECORD_REQUESTS"
"""Set in the environment, tests add to the table what they send; without it, they fail for what is not there."""

Uses = dict[str, dict[str, set[str]]]
"""By route, as `POST /flow_runs/filter`: the fields that are `sent`, those of the `query`, and those that are `read`."""


@cache
def newest() -> Api:
    """Return the description of the newest supported version."""
    return Api(descriptions()[VERSIONS[-1]])


def written() -> Uses:
    """Return the table of what is sent and read."""
    table = json.loads(REQUESTS.read_text()) if REQUESTS.exists() else {}
    return {route: {kind: set(paths) for kind, paths in uses.items()} for route, uses in table.items()}


def write(table: Uses) -> None:
    """Write the table of what is sent and read."""
    rows = {
        route: {kind: sorted(paths) for kind, paths in sorted(uses.items()) if paths}
        for route, uses in sorted(table.items())
    }
    REQUESTS.write_text(json.dumps(rows, indent=1) + "\n")


def has(api: Api, route: str, kind: str, path: str) -> bool:
    """Return whether a server has this route, or this field of what it takes (`sent`, `query`) or answers (`read`)."""
    method, _, template = route.partition(" ")
    operation = api.operation(method, template)
    if operation is None:
        return False
    match kind:
        case "query":
            return path in api.query(operation)
        case "sent":
            return api.has(api.body(operation), path)
        case "read":
            return api.has(api.reply(operation), path)
        case _:
            return True


def unsupported(seen: Uses, table: Uses) -> list[str]:
    """Return what was seen, is not in the table, and is not there in every supported version, in words."""
    apis = {version: Api(description) for version, description in descriptions().items()}
    new = [
        (route, kind, path)
        for route, uses in seen.items()
        for kind, paths in [("route", {""}), *uses.items()]
        for path in paths
        if path not in table.get(route, {}).get(kind, set())
    ]
    lacking = {use: [version for version in apis if not has(apis[version], *use)] for use in new}
    return sorted(f"{' '.join(use)} (not in {', '.join(old)})" for use, old in lacking.items() if old)


class _Read(dict[str, Any]):
    """A JSON object of a reply that notes which of its fields are asked for."""

    def __init__(self, plain: dict[str, Any], path: str, note: set[str]) -> None:
        super().__init__({key: _noting(value, f"{path}{key}.", note) for key, value in plain.items()})
        self._path, self._note = path, note

    def __getitem__(self, key: str) -> Any:
        self._note.add(f"{self._path}{key}")
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._note.add(f"{self._path}{key}")
        return super().get(key, default)


def _noting(value: Any, path: str, note: set[str]) -> Any:
    if isinstance(value, dict):
        return _Read(value, path, note)
    return [_noting(each, f"{path}[].", note) for each in value] if isinstance(value, list) else value


class Recorder:
    """What was seen so far."""

    def __init__(self) -> None:
        self.seen: Uses = {}

    def take(self, request: httpx.Request, response: httpx.Response) -> None:
        """Note one request of ours; the reply then notes what is read of it."""
        if request.headers.get("User-Agent") != USER_AGENT or not response.is_success:
            return  # somebody else's, or an answer that no server with this route gave
        path = request.url.path
        path = path[path.index("/api/") + 4 :] if "/api/" in path else path
        template = newest().template(request.method, path)
        route = f"{request.method} {template or path}"
        uses = self.seen.setdefault(route, {"sent": set(), "query": set(), "read": set()})
        uses["query"] |= set(request.url.params)
        operation = template and newest().operation(request.method, template)
        if not operation:
            return
        body = json.loads(request.content) if request.content else None
        uses["sent"] |= set(newest().fields(newest().body(operation), body))
        plain, note, reply = response.json, uses["read"], newest().reply(operation)

        def noting(**options: Any) -> Any:
            return _noting(plain(**options), "", _Known(note, reply))

        response.json = noting  # type: ignore[method-assign]


class _Known(set[str]):
    """A set into which only fields go that stand in an object with named fields."""

    def __init__(self, note: set[str], reply: Any) -> None:
        super().__init__()
        self._note, self._reply = note, reply

    def add(self, path: str) -> None:
        """Note the field, unless it is below one in which anything may stand."""
        level = [self._reply]
        for name in path.split("."):
            answers = [newest().below(schema, name) for schema in level]
            if answers and all(answer == [] for answer in answers):
                return  # somebody's data
            level = [each for answer in answers for each in answer or ()]
        self._note.add(path)


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Let the recorder see every request that an HTTP client of this process sends."""
    send, asend = httpx.Client.send, httpx.AsyncClient.send

    def noting(client: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        response = send(client, request, **options)
        if not options.get("stream"):
            recorder.take(request, response)
        return response

    async def anoting(client: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        response = await asend(client, request, **options)
        if not options.get("stream"):
            recorder.take(request, response)
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.Client, "send", noting)
        patch.setattr(httpx.AsyncClient, "send", anoting)
        yield
