"""Every route, field and filter that pilotage uses exists on every supported Prefect server."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.compat.make_openapi import descriptions
from tests.compat.openapi import Api
from tests.compat.recording import has, newest, written
from tests.compat.versions import VERSIONS

ROOT = Path(__file__).parents[2]
OWN_SERVER = ("bench/", "demo/", "dev/", "embedded.py")
"""Sources that talk only to the server which they start themselves, of the installed version."""

ONLY_TESTS = frozenset(
    {
        ("POST", "/artifacts/filter"),
        ("POST", "/deployments/"),
        ("POST", "/flows/"),
        ("POST", "/v2/concurrency_limits/"),
    }
)
"""Routes that only tests use, through our client, to set their stage."""

MAY_LACK: dict[tuple[str, str, str], str] = {}
"""What an older server does not have and pilotage does without: (route, kind, field) and the first version that has it."""

USES = [
    (route, kind, path)
    for route, uses in written().items()
    for kind, paths in [("route", {""}), *uses.items()]
    for path in paths
]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_of_this_version_has_all_that_is_used(version: str) -> None:
    api = Api(descriptions()[version])
    lacking = {use for use in USES if not has(api, *use)}
    index = VERSIONS.index(version)
    excused = {use for use, since in MAY_LACK.items() if index < VERSIONS.index(since)}
    assert lacking == excused


def test_a_field_that_no_server_has_would_be_noticed() -> None:
    api = newest()
    assert has(api, "POST /flow_runs/filter", "sent", "flow_runs.state.type.any_")
    assert not has(api, "POST /flow_runs/filter", "sent", "flow_runs.state.type.one_of")
    assert not has(api, "POST /flow_runs/filter", "sent", "sort=NAME_OF_NOBODY_ASC")
    assert not has(api, "POST /flow_runs/filtered", "route", "")
    assert not has(api, "GET /flow_runs/{id}", "read", "state.typo")
    body = {"flow_runs": {"state": {"sort": 1}}, "sort": "ID_DESC", "mood": "good"}
    operation = api.operation("POST", "/flow_runs/filter")
    assert operation is not None
    sent = set(api.fields(api.body(operation), body))
    assert sent == {"flow_runs", "flow_runs.state", "flow_runs.state.sort", "sort", "sort=ID_DESC", "mood"}


def test_every_route_in_the_sources_is_in_the_table_and_the_reverse() -> None:
    routes = {
        (method, newest().template(method, re.sub(r"\{[^}]*\}", "0", path)) or path)
        for source in _sources()
        for function in ast.walk(ast.parse(source.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for method, path in _routes_in(function)
    }
    table = {(method, path) for method, _, path in (route.partition(" ") for route in written())}
    assert sorted(table - ONLY_TESTS) == sorted(routes)


def _sources() -> Iterator[Path]:
    for package in ("telemetry", "flows"):
        home = ROOT / package / "pilotage" / package
        for path in sorted(home.rglob("*.py")):
            if not path.relative_to(home).as_posix().startswith(OWN_SERVER):
                yield path


def _routes_in(tree: ast.AST) -> Iterator[tuple[str, str]]:
    names = {
        node.targets[0].id: _path(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        match node:
            case ast.Call(
                args=[ast.Constant(value="GET" | "POST" | "PATCH" | "PUT" | "DELETE" as method), to, *_]
            ):
                path = names.get(to.id, "") if isinstance(to, ast.Name) else _path(to)
            case ast.Call(func=ast.Attribute(attr="page" | "pages" | "every" | "by_id"), args=[to, *_]):
                method, path = "POST", _path(to)
            case ast.Call(func=ast.Attribute(attr="get"), args=[to, *_]):
                method, path = "GET", _path(to)
            case _:
                continue
        if path.startswith("/"):
            # a flow asks about its own run, by routes below that run's
            yield method, f"/flow_runs/{{id}}{path}" if path.startswith("/input") else path


def _path(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
