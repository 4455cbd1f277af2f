"""What a failure says of its cause becomes keys that are equal where the cause may be the same."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.telemetry.samples import a_run

from pilotage.planner.detect.failures import diagnose_run
from pilotage.planner.detect.ongoing import ongoing_finding
from pilotage.planner.findings import FailureClass
from pilotage.planner.incidents.causes import causes_of

NOW = datetime(2027, 3, 1, tzinfo=UTC)


def keys(message: str, run_id: str = "r-1", deployment: str = "d-1") -> tuple[str, ...]:
    run = a_run(run_id, state_message=message, deployment_id=deployment)
    return causes_of(diagnose_run(run, (), NOW), run)


SAID = {
    "a status of a url": (
        "Flow run encountered an exception: httpx.HTTPStatusError: Server error '503 Service Unavailable' for url "
        "'https://prices.example.com/v1/quotes?day=2027-03-01'\nFor more information check: "
        "https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/503",
        "host:passing:prices.example.com",
    ),
    "one's own machine": (
        "Flow run encountered an exception: httpx.ConnectError: connect to http://127.0.0.1:8123/x: Connection refused",
        "host:passing:127.0.0.1:8123",
    ),
    "a database": (
        'Flow run encountered an exception: psycopg.OperationalError: connection to server at "db-1.internal" (10.0.0.7), '
        "port 5432 failed: Connection refused",
        "host:passing:db-1.internal",
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_the_shared_thing_that_a_message_names_is_a_key(name: str) -> None:
    message, key = SAID[name]
    assert key in keys(message)
    assert keys(message)[0].startswith("fault:")


def test_two_deployments_share_the_host_and_not_the_fault() -> None:
    message = SAID["a status of a url"][0]
    one, other = set(keys(message)), set(keys(message, "r-2", "d-2"))
    assert {key.partition(":")[0] for key in one & other} == {"host"}


def test_a_bug_is_nobody_elses_trouble() -> None:
    message = "Flow run encountered an exception: KeyError: 'price'"
    assert [key.partition(":")[0] for key in keys(message)] == ["fault"]
    assert not set(keys(message)) & set(keys(message, "r-2", "d-2"))


def test_a_parent_that_failed_because_of_its_child_has_the_childs_cause() -> None:
    run = a_run("parent", state_message="1/1 states failed.")
    finding = diagnose_run(run, (), NOW)
    assert causes_of(finding, run, failed_children=("child",))[0] == "run:child"


def test_what_is_forecast_is_grouped_by_deployment_and_other_trouble_by_itself() -> None:
    finding = ongoing_finding("run:r-1", FailureClass.AT_RISK, NOW, episode="e", rule_id="r", evidence=())
    assert causes_of(finding, a_run("r-1", deployment_id="d-1")) == ("forecast:d-1:at_risk",)
    queue = ongoing_finding("queue:p/q", FailureClass.UNHEALTHY, NOW, episode="e", rule_id="r", evidence=())
    assert causes_of(queue, None) == (f"ongoing:{queue.fingerprint}",)
