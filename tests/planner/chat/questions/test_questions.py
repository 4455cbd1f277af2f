"""Questions of people on call are understood without a model: one file of them, and forty that were not looked at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.planner.chat.questions.world import DEPLOYMENTS, NOW, RUNS, deployment_id, fill

from pilotage.planner.chat.questions.meaning import Meaning, meaning_of
from pilotage.telemetry.store.duckdb import DuckDBStore

HERE = Path(__file__).parent
GOLDEN: list[dict[str, Any]] = yaml.safe_load((HERE / "golden.yaml").read_text(encoding="utf-8"))
UNSEEN: list[dict[str, Any]] = yaml.safe_load((HERE / "unseen.yaml").read_text(encoding="utf-8"))
IDS = {run.name: run.run_id for run in RUNS} | {name: deployment_id(name) for name in DEPLOYMENTS}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBStore]:
    store = DuckDBStore(tmp_path_factory.mktemp("questions") / "telemetry.duckdb")
    fill(store)
    yield store
    store.close()


def wrong(wanted: dict[str, Any], got: Meaning) -> str:
    """What was understood otherwise than the file says, or an empty string."""
    faults = [f"intent {got.intent!r}"] if got.intent != wanted["intent"] else []
    if "run" in wanted and [run.key for run in got.runs] != [IDS[wanted["run"]]]:
        faults.append(f"runs {[run.name for run in got.runs]}")
    if "name" in wanted and [each.key for each in got.deployments] != [IDS[wanted["name"]]]:
        faults.append(f"deployments {[each.name for each in got.deployments]}")
    if got.ambiguous != wanted.get("ambiguous", False):
        faults.append(f"ambiguous {[each.name for each in got.deployments]}")
    if "when" in wanted and (got.window.label if got.window else "") != wanted["when"]:
        faults.append(f"when {got.window}")
    faults += [
        f"{kind} {got.named(kind)!r}"
        for kind in ("pool", "queue", "limit")
        if kind in wanted and got.named(kind) != wanted[kind]
    ]
    faults += [
        f"{key} {getattr(got, key)!r}"
        for key in ("state", "kind")
        if key in wanted and getattr(got, key) != wanted[key]
    ]
    return ", ".join(faults)


@pytest.mark.parametrize("wanted", GOLDEN, ids=lambda wanted: str(wanted["ask"])[:60])
def test_a_golden_question_is_understood(wanted: dict[str, Any], store: DuckDBStore) -> None:
    got = meaning_of(wanted["ask"], store, NOW)
    assert wrong(wanted, got) == "", got


def test_there_are_many_golden_questions_and_some_are_of_public_threads() -> None:
    assert len({wanted["ask"] for wanted in GOLDEN}) == len(GOLDEN) >= 120
    assert sum(bool(wanted.get("public")) for wanted in GOLDEN) >= 15


def test_of_the_forty_that_were_written_before_most_are_understood(store: DuckDBStore) -> None:
    faults = {
        wanted["ask"]: fault
        for wanted in UNSEEN
        if (fault := wrong(wanted, meaning_of(wanted["ask"], store, NOW)))
    }
    assert len(UNSEEN) == 40
    assert len(faults) <= 6, faults
