"""Every shipped deployment starts on a real worker and ends as it is meant to."""

from __future__ import annotations

import ast
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from tests.flows.conftest import PrefectProbe

from pilotage.flows.dev.embedded import EXAMPLES

ENDS: dict[str, tuple[dict[str, Any], str, str]] = {
    # deployment: (parameters, state type, part of the state's message)
    "fetch-quotes/demo": ({}, "COMPLETED", ""),
    "settle-trades/demo": ({}, "CRASHED", "-9"),
    "push-ledger/demo": ({}, "COMPLETED", ""),
    "build-features/demo": ({}, "FAILED", "MemoryError"),
    "long-report/demo": ({"seconds": 1}, "COMPLETED", ""),
    "quick-report/demo": ({}, "COMPLETED", ""),
    "nightly-close/demo": ({}, "CRASHED", "-9"),
    "payments/demo": ({}, "FAILED", "KeyError"),
    "sync-warehouse/demo": ({}, "COMPLETED", ""),
}


@pytest.mark.prefect
def test_a_shipped_deployment_is_started_by_prefects_own_command(prefect_probe: PrefectProbe) -> None:
    name = "quick-report/demo"
    before = runs_of(prefect_probe, name)
    prefect_probe.server.embedded.run_cli("deployment", "run", name)
    (run_id,) = runs_of(prefect_probe, name) - before
    state = prefect_probe.ended(run_id).state
    assert state is not None
    assert state.type.value == "COMPLETED"


def runs_of(prefect_probe: PrefectProbe, name: str) -> set[str]:
    """Ids of the runs of one deployment; the session's server has others, too."""
    wanted = DeploymentFilter(id=DeploymentFilterId(any_=[UUID(prefect_probe.deployment_id(name))]))
    return {
        str(run.id)
        for run in prefect_probe.do(lambda client: client.read_flow_runs(deployment_filter=wanted, limit=200))
    }


@pytest.mark.soak  # `make test` sees eight of the nine in the demo
@pytest.mark.prefect
def test_every_shipped_deployment_starts_and_ends_as_it_is_meant_to(prefect_probe: PrefectProbe) -> None:
    first, *others = ENDS
    before = runs_of(prefect_probe, first)
    prefect_probe.server.embedded.run_cli("deployment", "run", first)
    started = {name: prefect_probe.start(name, **ENDS[name][0]) for name in others}
    seen = {name: prefect_probe.ended(run_id, within=200).state for name, run_id in started.items()}
    told = {name: f"{state.type.value} {state.message}" for name, state in seen.items() if state}
    wrong = {
        name: told[name]
        for name in others
        if not told[name].startswith(ENDS[name][1]) or ENDS[name][2] not in told[name]
    }
    assert not wrong
    assert len(runs_of(prefect_probe, first) - before) == 1


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_a_shipped_flow_imports_nothing_of_pilotage(path: Any) -> None:
    imported = {
        name
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not {name for name in imported if name.split(".")[0] == "pilotage"}
