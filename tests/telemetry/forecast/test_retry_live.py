"""What is served of retries: read from the store attempt by attempt, and learned with the log's words."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.telemetry.samples import a_log, a_run, an_event, at

from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.facts import EventFact, LogLine, RunFact, StateType
from pilotage.telemetry.forecast.retry_live import LiveRetries
from pilotage.telemetry.forecast.retry_model import FILE, read_retry_model, train_retries
from pilotage.telemetry.forecast.stored_retries import LONG_AGO, retry_outcomes
from pilotage.telemetry.store.duckdb import DuckDBStore

ENDS = {"S": "Completed", "F": "Failed", "C": "Crashed", "X": "Cancelled"}
LATER = at(10_000_000)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    opened = DuckDBStore(tmp_path / "telemetry.duckdb")
    yield opened
    opened.close()


def tried(
    run_id: str, ends: str, first: float = 0.0, deployment: str = "d", says: str = ""
) -> tuple[RunFact, list[EventFact], list[LogLine]]:
    """A run that was tried once for each letter, a minute each; what failed logged `says` before its end."""
    events = [
        an_event(
            1,
            event_id=f"{run_id}-{n}",
            occurred=at(first + 60 * n),
            name=f"prefect.flow-run.{ENDS[letter]}",
            resource_id=f"prefect.flow-run.{run_id}",
            run_id=run_id,
        )
        for n, letter in enumerate(ends)
    ]
    logs = [
        a_log(
            1,
            log_id=f"{run_id}-l{n}",
            run_id=run_id,
            at=at(first + 60 * n - 1),
            level=40,
            message=f"{says} in try {n}",
        )
        for n, letter in enumerate(ends)
        if says and letter in "FC"
    ]
    end = at(first + 60 * (len(ends) - 1))
    state = StateType.COMPLETED if ends[-1] == "S" else StateType.FAILED
    run = a_run(
        run_id,
        state,
        deployment_id=deployment,
        run_count=len(ends),
        created=at(first - 60),
        ended=end,
        updated=end,
    )
    return run, events, logs


def put(store: DuckDBStore, *tries: tuple[RunFact, list[EventFact], list[LogLine]]) -> None:
    store.merge_runs([run for run, _, _ in tries])
    store.add_events([event for _, events, _ in tries for event in events])
    store.add_logs([line for _, _, logs in tries for line in logs])


def no_class(_text: str) -> str:
    return ""


def outcomes_at(store: DuckDBStore, until: datetime = LATER) -> list[tuple[str, int, bool]]:
    return [
        (each.run_id, each.attempt, each.succeeded)
        for each in retry_outcomes(store, LONG_AGO, until, no_class)
    ]


def test_each_attempt_after_a_failed_one_is_an_outcome(store: DuckDBStore) -> None:
    put(store, tried("a", "FFS"), tried("b", "CF", 1_000), tried("c", "S", 2_000), tried("d", "FX", 3_000))
    assert outcomes_at(store) == [("a", 1, False), ("a", 2, True), ("b", 1, False)]
    # what was not known yet is not read
    assert outcomes_at(store, at(100)) == [("a", 1, False)]
    assert [each.run_id for each in retry_outcomes(store, at(500), LATER, no_class)] == ["b"]


def test_an_outcome_has_the_log_of_the_attempt_that_failed_before_it_and_no_later_line(
    store: DuckDBStore,
) -> None:
    put(store, tried("a", "FFS", says="Timeout"))
    first, second = retry_outcomes(store, LONG_AGO, LATER, lambda text: "slow" if "Timeout" in text else "")
    assert (first.log_tail, second.log_tail) == ("Timeout in try 0", "Timeout in try 1")
    assert first.failure_class == second.failure_class == "slow"


def test_the_forecast_follows_what_became_of_retries(store: DuckDBStore, tmp_path: Path) -> None:
    moment = [at(0)]
    live = LiveRetries(store, tmp_path / "none", no_class, clock=lambda: moment[0])
    assert live.retry("x", "good", 1, "", "") is None
    put(store, *(tried(f"g{n}", "FS", 100 * n, "good") for n in range(8)))
    put(store, *(tried(f"b{n}", "FF", 100 * n, "bad") for n in range(8)))
    moment[0] = at(5_000)
    good, bad, new = (live.retry("x", name, 1, "", "") for name in ("good", "bad", "new"))
    assert good is not None
    assert bad is not None
    assert new is not None
    assert bad.p_success < 0.2 < new.p_success < 0.8 < good.p_success
    assert (good.known, bad.known, new.known) == (8, 8, 0)
    # the same outcomes are not counted twice, new ones are
    put(store, *(tried(f"c{n}", "FF", 6_000 + 100 * n, "good") for n in range(8)))
    moment[0] = at(9_000)
    less = live.retry("x", "good", 1, "", "")
    assert less is not None
    assert less.known == 16
    assert 0.3 < less.p_success < 0.7


def test_the_kind_of_failure_counts_where_a_deployment_has_no_retries_yet(
    store: DuckDBStore, tmp_path: Path
) -> None:
    put(store, *(tried(f"g{n}", "FS", 100 * n, f"d{n}", "ConnectError") for n in range(9)))
    put(store, *(tried(f"b{n}", "FF", 100 * n, f"e{n}", "KeyError") for n in range(9)))
    live = LiveRetries(
        store,
        tmp_path / "none",
        lambda text: "passing" if "Connect" in text else "bug",
        clock=lambda: at(5_000),
    )
    passing, bug = (live.retry("x", "new", 1, kind, "") for kind in ("passing", "bug"))
    assert passing is not None
    assert bug is not None
    assert bug.p_success < 0.3 < 0.7 < passing.p_success
    assert passing.known == bug.known == 3


def mixed_site(store: DuckDBStore, runs: int = 160) -> None:
    """Deployments whose retries succeed or not by what the log says, and by nothing else."""
    draw = random.Random(4)
    tries = []
    for number in range(runs):
        passing = draw.random() < 0.5
        says = "connection reset by peer" if passing else "column price does not exist"
        ends = "FS" if passing is (draw.random() < 0.95) else "FF"
        tries.append(tried(f"r{number}", ends, 200.0 * number, f"d{draw.randrange(5)}", says))
    put(store, *tries)


def test_a_trained_model_reads_the_log_and_comes_back_from_its_file_without_any_text(
    store: DuckDBStore, tmp_path: Path
) -> None:
    mixed_site(store)
    model = train_retries(store, LATER, no_class)
    assert model is not None
    model.write(tmp_path)
    assert b"connection reset" not in (tmp_path / FILE).read_bytes()
    back = read_retry_model(tmp_path)
    assert back is not None
    assert all(each.log_tail == "" for each in back.outcomes)
    live = LiveRetries(store, tmp_path, no_class, clock=lambda: at(40_000))
    passing = live.retry("x", "d1", 1, "", "connection reset by peer in try 0")
    broken = live.retry("y", "d1", 1, "", "column amount does not exist in try 0")
    assert passing is not None
    assert broken is not None
    assert (passing.model, passing.known) == ("mix", max(passing.known, 16))
    assert broken.p_success < 0.45 < 0.55 < passing.p_success
    assert passing.p_success - broken.p_success > 0.3


def test_outcomes_that_are_shuffled_leave_the_log_nothing_to_tell(store: DuckDBStore, tmp_path: Path) -> None:
    draw = random.Random(9)
    tries = []
    for number in range(160):
        says = draw.choice(("connection reset by peer", "column price does not exist"))
        tries.append(tried(f"r{number}", draw.choice(("FS", "FF")), 200.0 * number, f"d{number % 5}", says))
    put(store, *tries)
    model = train_retries(store, LATER, no_class)
    assert model is not None
    model.write(tmp_path)
    live = LiveRetries(store, tmp_path, no_class, clock=lambda: at(40_000))
    passing = live.retry("x", "d1", 1, "", "connection reset by peer in try 0")
    broken = live.retry("y", "d1", 1, "", "column price does not exist in try 0")
    assert passing is not None
    assert broken is not None
    assert abs(passing.p_success - broken.p_success) < 0.25


def test_too_few_outcomes_train_nothing_and_a_torn_file_is_told(store: DuckDBStore, tmp_path: Path) -> None:
    put(store, *(tried(f"g{n}", "FS", 100 * n) for n in range(8)))
    assert train_retries(store, LATER, no_class) is None
    assert read_retry_model(tmp_path) is None
    (tmp_path / FILE).write_bytes(b"torn")
    with pytest.raises(StoreError, match="the next training writes another"):
        read_retry_model(tmp_path)
    live = LiveRetries(store, tmp_path, no_class, clock=lambda: at(5_000) + timedelta(0))
    made = live.retry("x", "d", 1, "", "")
    assert made is not None
    assert made.model == "rate"


def test_until_a_model_is_trained_no_scikit_learn_is_loaded() -> None:
    code = "import sys, pilotage.telemetry.forecast.retry_live; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
