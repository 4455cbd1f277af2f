"""Requests and replies of the fake server, and how a route is found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pilotage.flows.dev.fake_prefect.engine import Engine
from pilotage.flows.dev.fake_prefect.filters import BadRequest
from pilotage.flows.dev.fake_prefect.records import Json
from pilotage.flows.dev.fake_prefect.tables import Tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request."""

    engine: Engine
    now: datetime
    path: Mapping[str, str] = field(default_factory=dict)
    """What stands in the path at the names of the route."""
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    """From JSON."""

    @property
    def tables(self) -> Tables:
        """What the server has."""
        return self.engine.tables

    @property
    def json(self) -> Json:
        """The body as an object. Raises BadRequest when it is none."""
        if self.body is None:
            return {}
        if not isinstance(self.body, dict):
            raise BadRequest(422, "body: Input should be a valid dictionary")
        return self.body

    def fields(self, *known: str, required: Iterable[str] = ()) -> Json:
        """Return the body, which may have these fields and no others. Raises BadRequest."""
        body = self.json
        if unknown := set(body) - set(known):
            raise BadRequest(422, f"{min(unknown)}: Extra inputs are not permitted")
        for name in required:
            if name not in body:
                raise BadRequest(422, f"{name}: Field required")
        return body


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    status: int = 200
    json: Any = None
    text: str | None = None
    """Instead of JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Call], Reply]
Route = tuple[str, str, Handler]
"""Method, path with `{names}`, and who answers."""

NO_CONTENT = Reply(204)


class RouteTable:
    """Routes, found by method and path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes: dict[tuple[str, int], list[tuple[list[str], str, Handler]]] = defaultdict(list)
        self.templates: list[str] = []
        for method, template, handler in routes:
            parts = template.strip("/").split("/")
            self._routes[method, len(parts)].append((parts, template, handler))
            self.templates.append(f"{method} {template}")
        for found in self._routes.values():
            # a word before a name: `/flow_runs/filter` is no run
            found.sort(key=lambda route: [part.startswith("{") for part in route[0]])

    def find(self, method: str, path: str) -> tuple[str, Mapping[str, str], Handler] | None:
        """Return the template, what stands at its names, and the handler."""
        parts = path.strip("/").split("/")
        for wanted, template, handler in self._routes.get((method, len(parts)), ()):
            if all(want.startswith("{") or want == part for want, part in zip(wanted, parts, strict=True)):
                names = {
                    want[1:-1]: part for want, part in zip(wanted, parts, strict=True) if want.startswith("{")
                }
                return template, names, handler
        return None
