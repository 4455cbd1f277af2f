"""The API against its own description: whatever is thrown at it, no 5xx, and nothing without identity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    response_schema_conformance,
    status_code_conformance,
)
from tests.console.console_stack import ConsoleStack, console_stack

from pilotage.policies.types import Mode


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleStack]:
    with console_stack(tmp_path_factory.mktemp("s"), mode=Mode.APPROVE) as found:
        for _ in range(3):
            found.proposal(found.failed_run())
        yield found


def test_no_request_breaks_the_server(shared: ConsoleStack) -> None:
    with shared.client("pat") as client:
        described = client.get("/api/openapi.json").json()
    del described["paths"]["/api/stream"]  # it has no end; test_http_api listens to it
    for path in (
        "/api/sign-in",
        "/api/sign-in/ways",
    ):  # answered to strangers; test_http_access and test_oidc try them
        del described["paths"][path]
    tried = 0
    for found in schemathesis.openapi.from_dict(described).get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()

        @settings(
            max_examples=12, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy())
        def holds(case: schemathesis.Case[Any]) -> None:
            nonlocal tried
            tried += 1
            case.call_and_validate(
                base_url=shared.url,
                headers={"Authorization": f"Bearer {shared.tokens['ann']}"},
                checks=[not_a_server_error, status_code_conformance, response_schema_conformance],
            )
            stranger = case.call(base_url=shared.url)
            assert stranger.status_code in (401, 404, 405), (case.method, case.path, stranger.status_code)

        holds()
    assert tried > 100


def test_every_route_is_described_with_its_refusals(shared: ConsoleStack) -> None:
    with shared.client("vic") as client:
        described = client.get("/api/openapi.json").json()
    assert len(described["paths"]) >= 18
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert {"401", "403"} <= set(operation["responses"]), (method, path)
            assert operation.get("summary") or operation.get("description")


def test_the_description_itself_is_only_for_the_known(shared: ConsoleStack) -> None:
    assert httpx.get(f"{shared.url}/api/openapi.json", trust_env=False).status_code == 401
