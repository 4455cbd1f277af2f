"""A short history for the forecaster: at most twenty runs of the shipped flows, in this process, one after another.

Run as `python -m pilotage.flows.demo.seed WORLD_URL` with Prefect's variables set. The runs belong to their
deployments, so that the history is the deployments' own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.states import Pending

from pilotage.flows.dev.embedded import EXAMPLES

HISTORY: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("sync_warehouse", 5, {"source_url": "{world}/warehouse"}),
    ("payments", 2, {}),
    ("fetch_quotes", 1, {}),
    ("settle_trades", 1, {"die_once": False}),
    ("quick_report", 2, {"seconds": 0.0}),
)
"""Which flow, how many runs, with what parameters."""


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(world: str) -> None:
    """Runs the history; the runs' own failures are what it is for."""
    with get_client(sync_client=True) as client:
        for name, count, template in HISTORY:
            flow = getattr(_module(name), name)
            deployment = client.read_deployment_by_name(f"{flow.name}/demo")
            parameters = {
                key: value.format(world=world) if isinstance(value, str) else value
                for key, value in template.items()
            }
            for _ in range(count):
                run = client.create_flow_run_from_deployment(
                    deployment.id, parameters=parameters, state=Pending()
                )
                with contextlib.suppress(Exception):
                    run_flow(flow, flow_run=run, parameters={**deployment.parameters, **parameters})


if __name__ == "__main__":
    main(sys.argv[1])
