"""The registry of levers against the registry of actions."""

from __future__ import annotations

from datetime import datetime
from typing import get_type_hints

from pilotage.flows.levers import build_levers
from pilotage.flows.notify.notifier import Notifier
from pilotage.flows.prefect.api import PrefectApi
from pilotage.planner.actions.types import ACTIONS, Action


async def released(run_id: str, after: datetime) -> bool:
    return True


def test_each_kind_has_a_lever_and_each_lever_takes_the_class_of_its_kind() -> None:
    levers = build_levers(
        worker_has_released=released, notifier=Notifier(), api=PrefectApi("http://127.0.0.1/api")
    )
    assert set(levers) == set(ACTIONS)
    for kind, lever in levers.items():
        assert lever.kind == kind
        for method in (lever.execute, lever.verify, lever.undo):
            assert get_type_hints(method, include_extras=True)["action"] in (ACTIONS[kind], Action), (
                f"{kind}: {method.__name__}"
            )
