"""Answers, from an OpenAPI description, which route a path is and which fields a body or a reply may have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Api:
    """One version's description."""

    document: Mapping[str, Any]

    @cached_property
    def _routes(self) -> list[tuple[re.Pattern[str], str]]:
        # those with the fewest placeholders first, so that `/flow_runs/filter` is not `/flow_runs/{id}`
        templates = sorted(self.document["paths"], key=lambda path: path.count("{"))
        return [(re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path) + "/?"), path) for path in templates]

    def template(self, method: str, path: str) -> str | None:
        """Return the template of a concrete path that takes this method."""
        for pattern, template in self._routes:
            if pattern.fullmatch(path) and method.lower() in self.document["paths"][template]:
                return template
        return None

    def operation(self, method: str, template: str) -> Mapping[str, Any] | None:
        """Return the description of one route, or None where the server has none."""
        # names of placeholders differ between versions
        found = self.template(method, re.sub(r"\{[^}]+\}", "0", template))
        if found is None:
            return None
        operation: Mapping[str, Any] = self.document["paths"][found][method.lower()]
        return operation

    def body(self, operation: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the schema of what a route takes."""
        content = (operation.get("requestBody") or {}).get("content") or {}
        return next((each["schema"] for each in content.values()), {})

    def query(self, operation: Mapping[str, Any]) -> frozenset[str]:
        """Return the names of a route's query parameters."""
        return frozenset(each["name"] for each in operation.get("parameters", ()) if each["in"] == "query")

    def reply(self, operation: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the schema of what a route answers when it succeeds."""
        for status in sorted(operation["responses"]):
            content = operation["responses"][status].get("content") or {}
            if status.startswith("2") and content:
                return next(each["schema"] for each in content.values())
        return {}

    def branches(self, schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Yield the schemas that a schema stands for, references and unions followed."""
        if "$ref" in schema:
            yield from self.branches(self.document["schemas"][schema["$ref"].rpartition("/")[2]])
        elif unions := [key for key in ("anyOf", "oneOf", "allOf") if key in schema]:
            for key in unions:
                for each in schema[key]:
                    yield from self.branches(each)
        else:
            yield schema

    def below(self, schema: Mapping[str, Any], name: str) -> list[Mapping[str, Any]] | None:
        """Return the schemas of a field; empty where anything may stand, None where there is no such field."""
        found: list[Mapping[str, Any]] = []
        free = False
        for branch in self.branches(schema):
            if name == "[]":
                found += [branch["items"]] if "items" in branch else []
            elif name in branch.get("properties", {}):
                found.append(branch["properties"][name])
            elif not branch.get("properties") and branch.get("type", "object") == "object":
                free = True
        return found if found else [] if free else None

    def has(self, schema: Mapping[str, Any], path: str) -> bool:
        """Return whether a field exists; `state.type=FAILED` asks for a value that it may have."""
        path, _, value = path.partition("=")
        level = [schema]
        for name in filter(None, path.split(".")):
            answers = [self.below(each, name) for each in level]
            known = [each for each in answers if each is not None]
            if not known:
                return False
            level = [each for some in known for each in some]
            if not level:
                return True
        values = [branch["enum"] for each in level for branch in self.branches(each) if "enum" in branch]
        return not value or not values or any(value in some for some in values)

    def fields(self, schema: Mapping[str, Any], value: Any, path: str = "") -> Iterator[str]:
        """Yield the path of every field in a value, unknown ones too, but nothing below where anything may stand."""
        if isinstance(value, Mapping):
            for name, inner in value.items():
                below = self.below(schema, name)
                if below == [] and not self._named(schema, name):
                    continue  # names in a free object are somebody's data
                yield f"{path}{name}"
                for each in below or ():
                    yield from self.fields(each, inner, f"{path}{name}.")
        elif isinstance(value, list):
            for each in self.below(schema, "[]") or ():
                for inner in value:
                    yield from self.fields(each, inner, f"{path}[].")
        elif isinstance(value, str) and any("enum" in branch for branch in self.branches(schema)):
            yield f"{path[:-1]}={value}"

    def _named(self, schema: Mapping[str, Any], name: str) -> bool:
        return any(name in branch.get("properties", {}) for branch in self.branches(schema))
