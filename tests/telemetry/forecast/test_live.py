"""The live loop follows a store run by run, serves the mix, and forecasts from nothing that ended later."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import skops.io
from tests.telemetry.samples import NOON, a_queue, a_run, an_event, at

from pilotage.telemetry.errors import ConfigError, StoreError
from pilotage.telemetry.facts import RunFact, StateType
from pilotage.telemetry.forecast.attempts import ended_attempts, history_of, open_attempts, stored_history
from pilotage.telemetry.forecast.bundle import Bundle, read_bundle
from pilotage.telemetry.forecast.candidates import CANDIDATES, FEW_ROWS
from pilotage.telemetry.forecast.live import LiveForecaster
from pilotage.telemetry.forecast.point_in_time import LEVELS, PRIOR_RATE, features
from pilotage.telemetry.forecast.registry import ModelRegistry
from pilotage.telemetry.forecast.training import train
from pilotage.telemetry.forecasts import Forecast, Forecaster
from pilotage.telemetry.store.duckdb import DuckDBStore

AFTERWARDS = NOON + timedelta(hours=2)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    opened = DuckDBStore(tmp_path / "telemetry.duckdb")
    yield opened
    opened.close()


def ended_runs(deployment: str, outcomes: str, first: float = 0, every: float = 60) -> list[RunFact]:
    """One run for each letter: F failed, C crashed, X cancelled, anything else completed."""
    states = {"F": StateType.FAILED, "C": StateType.CRASHED, "X": StateType.CANCELLED}
    return [
        a_run(
            f"{deployment}-{number}",
            states.get(letter, StateType.COMPLETED),
            deployment_id=deployment,
            started=at(first + number * every),
            ended=at(first + number * every + 20),
        )
        for number, letter in enumerate(outcomes)
    ]


def scheduled(deployment: str) -> RunFact:
    return a_run(
        f"{deployment}-next", StateType.SCHEDULED, deployment_id=deployment, started=None, run_count=0
    )


def forecaster_at(store: DuckDBStore, moment: datetime) -> LiveForecaster:
    return LiveForecaster(store, clock=lambda: moment)


def busy(store: DuckDBStore, runs: int = 240, seed: int = 3) -> None:
    """Eight deployments of three flows that overlap; two of them fail most of the time."""
    draw = random.Random(seed)
    facts = []
    for number in range(runs):
        which = draw.randrange(8)
        failing = draw.random() < (0.75 if which < 2 else 0.06)
        state = StateType.FAILED if failing else StateType.COMPLETED
        if draw.random() < 0.2:
            state = StateType.CANCELLED
        begin = number * 30 + draw.random()
        facts.append(
            a_run(
                f"r{number}",
                state,
                deployment_id=f"d{which}",
                flow_name=f"f{which % 3}",
                started=at(begin),
                ended=at(begin + 10 + draw.random() * 300),
                updated=at(begin),
                job_variables={"memory_mb": 64 * (1 + which % 2)},
            )
        )
    store.merge_runs([*facts, *(scheduled(f"d{which}") for which in range(8))])


@pytest.mark.parametrize(
    ("bad", "good", "other"),
    [("FFFFF", "SSSSSSSS", "SFSSSFS"), ("FFFFFFF", "SSSSSSSS", "SSSSS"), ("CCCCC", "FSSSSSSSS", "SSSSFS")],
    ids=["mixed rest", "quiet rest", "crashes"],
)
def test_twenty_runs_suffice_to_tell_a_failing_deployment_from_a_healthy_one(
    store: DuckDBStore, bad: str, good: str, other: str
) -> None:
    runs = ended_runs("bad", bad) + ended_runs("good", good, 5) + ended_runs("other", other, 10)
    assert len(runs) == 20
    store.merge_runs([*runs, *map(scheduled, ("bad", "good", "other", "new"))])
    forecaster: Forecaster = forecaster_at(store, AFTERWARDS)
    found = {each.run_id: each for each in forecaster.forecast(["bad-next", "good-next", "new-next"])}
    assert found["bad-next"].p_fail >= 0.6
    assert found["good-next"].p_fail <= 0.3
    assert found["good-next"].p_fail < found["new-next"].p_fail < found["bad-next"].p_fail
    assert f"points: {len(bad)} failures in a row for this deployment" in found["bad-next"].reasons[0]
    assert found["bad-next"].reasons[0].startswith("raises it by ")
    assert found["good-next"].reasons[0].startswith("lowers it by ")
    assert "no ended run of this deployment yet" in found["new-next"].reasons[0]
    assert {each.trained_on for each in found.values()} == {20}


def test_an_interval_is_narrower_where_more_is_known(store: DuckDBStore) -> None:
    store.merge_runs(
        [*ended_runs("old", "SSSF" * 20), *ended_runs("young", "SSSF"), *map(scheduled, ("old", "young"))]
    )
    old, young = forecaster_at(store, AFTERWARDS).forecast(["old-next", "young-next"])
    for each in (old, young):
        assert each.low is not None
        assert each.high is not None
        assert 0 <= each.low <= each.p_fail <= each.high <= 1
    assert (old.high or 0) - (old.low or 0) < ((young.high or 0) - (young.low or 0)) / 2


def test_unknown_runs_are_left_out_and_nothing_is_forecast_of_nothing(store: DuckDBStore) -> None:
    store.merge_runs([scheduled("d")])
    forecaster = forecaster_at(store, AFTERWARDS)
    assert [each.run_id for each in forecaster.forecast(["nobody", "d-next", "d-next"])] == ["d-next"]
    assert forecaster.forecast([]) == ()
    assert forecaster.forecast(["nobody"]) == ()


def test_an_empty_site_is_forecast_from_the_prior(store: DuckDBStore) -> None:
    store.merge_runs([scheduled("d")])
    (found,) = forecaster_at(store, AFTERWARDS).forecast(["d-next"])
    assert found.p_fail == pytest.approx(PRIOR_RATE)
    assert (found.model, found.model_id, found.trained_on) == ("rate", "", 0)
    assert type(found.p_fail) is float


def test_a_forecast_sees_nothing_that_ended_later(store: DuckDBStore) -> None:
    store.merge_runs([*ended_runs("d", "SSSSSS"), *ended_runs("d2", "SSSSS"), scheduled("d")])
    (before,) = forecaster_at(store, at(1000)).forecast(["d-next"])
    later = ended_runs("d", "F" * 30, first=2000)
    store.merge_runs([dataclasses.replace(run, run_id=f"later-{run.run_id}") for run in later])
    (again,) = forecaster_at(store, at(1000)).forecast(["d-next"])
    assert again == before
    (after,) = forecaster_at(store, at(9000)).forecast(["d-next"])
    assert after.p_fail > before.p_fail


def test_a_cancellation_is_an_end_that_did_not_fail(store: DuckDBStore) -> None:
    store.merge_runs([*ended_runs("d", "FFXXXXXXXX"), *ended_runs("e", "FF"), *map(scheduled, "de")])
    cancelled, only_failures = forecaster_at(store, AFTERWARDS).forecast(["d-next", "e-next"])
    assert cancelled.p_fail < only_failures.p_fail - 0.1
    assert {each.outcome for each in ended_attempts(store, NOON - timedelta(days=1), AFTERWARDS)} == {
        "FAILED",
        "CANCELLED",
    }


def test_a_failed_attempt_counts_although_its_run_completed_later(store: DuckDBStore) -> None:
    store.merge_runs([a_run("r", StateType.COMPLETED, started=at(0), ended=at(100), run_count=2)])
    names = [(1, "Running"), (50, "Failed"), (70, "AwaitingRetry"), (80, "Running"), (100, "Completed")]
    store.add_events(
        [
            an_event(second, name=f"prefect.flow-run.{name}", run_id="r", resource_id="prefect.flow-run.r")
            for second, name in names
        ]
    )
    attempts = ended_attempts(store, NOON, at(1000))
    assert [(a.failed, a.number, a.started - NOON.timestamp()) for a in attempts] == [
        (True, 0, 1.0),
        (False, 1, 80.0),
    ]
    assert str([a.memory_mb for a in attempts]) == "[nan, 64.0]", (
        "the size of an earlier attempt is not known"
    )


def test_attempts_of_a_subject_other_than_the_run_itself_do_not_count(store: DuckDBStore) -> None:
    store.merge_runs([a_run("r", StateType.RUNNING)])
    store.add_events(
        [an_event(5, name="prefect.flow-run.Failed", run_id="r", resource_id="prefect.flow-run.child")]
    )
    assert ended_attempts(store, NOON, at(1000)) == []
    (running,) = open_attempts(store, at(1000))
    assert (running.run_id, running.number, running.started) == ("r", 0, at(1).timestamp())


def test_an_attempt_that_goes_on_began_with_its_own_event_not_with_its_run(store: DuckDBStore) -> None:
    """Days lie between the attempts: events are looked for since the run's first start, however long ago."""
    day = 86_400
    store.merge_runs(
        [
            a_run("again", StateType.RUNNING, started=at(0), run_count=2),
            a_run("first", StateType.RUNNING, started=at(3 * day)),
            a_run("over", StateType.FAILED, started=at(10), ended=at(3 * day), run_count=2),
        ]
    )
    names = ((0, "Running"), (50, "Failed"), (2 * day, "Running"))
    store.add_events(
        [
            an_event(
                second, event_id=f"{run}-{second}", name=f"prefect.flow-run.{name}", run_id=run,
                resource_id=f"prefect.flow-run.{run}",
            )
            for run in ("again", "over")
            for second, name in (*names, *(((3 * day, "Failed"),) if run == "over" else ()))
        ]
    )  # fmt: skip
    now = at(3 * day + 60)
    assert {(a.id, a.started - NOON.timestamp()) for a in open_attempts(store, now)} == {
        ("again/1", 2 * day),
        ("first/0", 3 * day),
    }
    (ended,) = ended_attempts(store, at(3 * day - 60), now)
    assert (ended.id, ended.started - NOON.timestamp()) == ("over/1", 2 * day)


def in_pieces(store: DuckDBStore, source: DuckDBStore) -> Iterator[datetime]:
    """Bring runs over as a collector would: each begins, and ends later; the moments at which to look."""
    runs = [run for run in facts(source) if run.started is not None]
    events = sorted(
        [(run.started, 0, run) for run in runs] + [(run.ended, 1, run) for run in runs], key=lambda e: e[:2]
    )
    for number, (moment, is_end, run) in enumerate(events):
        assert moment is not None
        begun = dataclasses.replace(run, state_type=StateType.RUNNING, ended=None, updated=moment)
        store.merge_runs([dataclasses.replace(run, updated=moment) if is_end else begun])
        if number % 7 == 0:
            yield moment + timedelta(milliseconds=1)


def facts(store: DuckDBStore) -> list[RunFact]:
    from pilotage.telemetry.store.schema import facts_from_rows

    return facts_from_rows(RunFact, store.rows("FROM runs"))


def test_following_run_by_run_knows_what_reading_everything_at_once_knows(
    store: DuckDBStore, tmp_path: Path
) -> None:
    whole = DuckDBStore(tmp_path / "whole.duckdb")
    busy(whole)
    moment = [NOON]
    forecaster = LiveForecaster(store, clock=lambda: moment[0])
    forecaster.follow(NOON)
    for now in in_pieces(store, whole):
        moment[0] = now
        forecaster.follow(now)
    end = at(20_000)
    forecaster.follow(end)
    site, fresh = forecaster._site, LiveForecaster(whole, clock=lambda: end)
    fresh.follow(end)
    assert site is not None
    assert fresh._site is not None
    assert site.ended == fresh._site.ended == 240
    assert not site.running
    for keys in {attempt.keys for attempt in stored_history(whole, end).attempts}:
        for left, right in zip(
            site.counters.values(keys, end.timestamp()), fresh._site.counters.values(keys, end.timestamp()),
            strict=True,
        ):  # fmt: skip
            np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-6)
    followed, counted = site.durations._sums, fresh._site.durations._sums
    assert followed.keys() == counted.keys()
    for key, sums in followed.items():
        np.testing.assert_allclose(sums, counted[key], rtol=1e-9)
    # every attempt was forecast when it began, and the mix learned from it when it had ended
    assert len(forecaster.evidence()) == 240
    whole.close()


def test_an_attempt_is_forecast_at_its_start_as_a_backtest_would(store: DuckDBStore, tmp_path: Path) -> None:
    whole = DuckDBStore(tmp_path / "whole.duckdb")
    busy(whole, 120)
    history = stored_history(whole, at(20_000))
    found = features(
        history.runs, history.failed, {name: each.codes for name, each in history.levels.items()}
    )
    moment = [NOON]
    forecaster = LiveForecaster(store, clock=lambda: moment[0])
    forecaster.follow(NOON)
    for now in in_pieces(store, whole):
        forecaster.follow(now)
    forecaster.follow(at(20_000))
    by_end = np.argsort(history.runs.ended, kind="stable")
    np.testing.assert_allclose(forecaster.evidence().made["rate"], found.rate[by_end], rtol=1e-9)
    np.testing.assert_allclose(
        forecaster.evidence().made["ewma"], np.clip(found.ewma[by_end], 0.0005, 0.9995), rtol=1e-9
    )
    whole.close()


def test_a_new_outcome_counts_without_a_new_training(store: DuckDBStore) -> None:
    store.merge_runs([*ended_runs("d", "SSSSSS"), scheduled("d")])
    moment = [at(1000)]
    forecaster = LiveForecaster(store, clock=lambda: moment[0])
    (before,) = forecaster.forecast(["d-next"])
    store.merge_runs([a_run("x", deployment_id="d", started=at(1001), ended=at(1002))])
    moment[0] = at(1003)
    (after,) = forecaster.forecast(["d-next"])
    assert after.p_fail > before.p_fail


def test_detectors_that_ask_about_the_same_runs_read_the_store_once(
    store: DuckDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.merge_runs([*ended_runs("d", "SSF"), scheduled("d"), scheduled("e")])
    asked: list[str] = []
    query = store.query

    def counted(sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        asked.append(sql)
        return query(sql, parameters)

    monkeypatch.setattr(store, "query", counted)
    moment = [at(1000)]
    forecaster = LiveForecaster(store, clock=lambda: moment[0])
    first = forecaster.forecast(["d-next", "e-next"])
    before = len(asked)
    assert forecaster.forecast(["e-next", "d-next"]) == first[::-1]
    assert len(asked) == before
    store.merge_runs([a_run("x", deployment_id="d", started=at(1001), ended=at(1002))])
    forecaster.follow(at(1003))
    moment[0] = at(1003)
    (after,) = forecaster.forecast(["d-next"])
    assert after.p_fail > first[0].p_fail
    assert len(asked) > before


def test_until_a_model_is_trained_no_scikit_learn_is_loaded(tmp_path: Path) -> None:
    """It costs a second of the processor at each start, beside a server that is starting too."""
    store = DuckDBStore(tmp_path / "t.duckdb")
    store.merge_runs([*ended_runs("d", "SSSFS"), scheduled("d")])
    store.close()
    program = (
        "import sys\n"
        "from pilotage.telemetry.forecast.live import LiveForecaster\n"
        "from pilotage.telemetry.store.duckdb import DuckDBFile\n"
        "from pathlib import Path\n"
        "[made] = LiveForecaster(DuckDBFile(Path(sys.argv[1]))).forecast(['d-next'])\n"
        "assert 0 < made.p_fail < 1\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'sklearn', 'pandas'}))\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "t.duckdb")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (told.stdout.strip(), told.stderr) == ("[]", "")


def test_a_run_that_runs_is_forecast_by_how_long_it_has_run(store: DuckDBStore) -> None:
    """Failures of `early` come after seconds, those of `late` after ten minutes; other runs take three."""

    def ended(deployment: str, number: int) -> RunFact:
        fails, begin = number % 3 == 0, number * 1_000
        lasts = 180 if not fails else 5 if deployment == "early" else 600
        return a_run(
            f"{deployment}{number}", StateType.FAILED if fails else StateType.COMPLETED, deployment_id=deployment,
            flow_name=deployment, started=at(begin), ended=at(begin + lasts + number % 7), updated=at(begin),
        )  # fmt: skip

    begins = 40_000
    store.merge_runs([ended(name, number) for name in ("early", "late") for number in range(30)])
    running = [
        a_run(
            name,
            StateType.RUNNING,
            deployment_id=name,
            flow_name=name,
            started=at(begins),
            updated=at(begins),
        )
        for name in ("early", "late")
    ]
    store.merge_runs(running)
    moment = [at(begins + 1)]
    forecaster = LiveForecaster(store, clock=lambda: moment[0])
    first = forecaster.forecast(["early", "late"])
    moment[0] = at(begins + 90)
    (early,) = forecaster.forecast(["early"])
    moment[0] = at(begins + 400)
    (late,) = forecaster.forecast(["late"])
    assert early.p_fail < first[0].p_fail / 1.5
    assert late.p_fail > 0.8 > first[1].p_fail
    assert late.reasons[0].startswith("raises it by ")
    assert late.reasons[0].endswith("it has run for 6 min")
    assert late.low is not None
    assert late.high is not None
    assert late.low <= late.p_fail <= late.high


def test_in_a_storm_forecasts_are_muted_until_it_is_over(store: DuckDBStore) -> None:
    store.merge_runs([*ended_runs("d", "S" * 40), *ended_runs("e", "S" * 40, 5), scheduled("d")])
    moment = [at(5_000)]
    forecaster = LiveForecaster(store, clock=lambda: moment[0])
    (before,) = forecaster.forecast(["d-next"])

    def pass_by(name: str, ending: StateType, runs: int) -> str:
        """All run at once, as in an outage: each is forecast before any of them has ended."""
        began, ended = moment[0] + timedelta(seconds=20), moment[0] + timedelta(seconds=60)
        running = [
            a_run(f"{name}{n}", StateType.RUNNING, deployment_id="de"[n % 2], started=began, updated=began)
            for n in range(runs)
        ]
        store.merge_runs(running)
        forecaster.follow(began + timedelta(seconds=1))
        store.merge_runs(
            [dataclasses.replace(run, state_type=ending, ended=ended, updated=ended) for run in running]
        )
        moment[0] += timedelta(seconds=70)
        (made,) = forecaster.forecast(["d-next"])
        return made.muted

    assert before.muted == ""
    assert pass_by("quiet", StateType.COMPLETED, 25) == ""
    storm = pass_by("storm", StateType.FAILED, 20)
    assert storm.startswith("a storm since ")
    after = [pass_by(f"calm{number}-", StateType.COMPLETED, 25) for number in range(12)]
    assert after[0] in ("", storm)
    assert after[-1] == ""


def test_a_run_that_is_gone_from_prefect_is_in_flight_no_more(store: DuckDBStore) -> None:
    store.merge_runs([a_run("r", StateType.RUNNING)])
    forecaster = forecaster_at(store, at(100))
    forecaster.follow(at(100))
    assert forecaster._site is not None
    assert forecaster._site.counters.of("site", "").submitted == 1
    store.forget_runs(["r"])
    for minutes in (3, 6):
        forecaster.follow(at(100) + timedelta(minutes=minutes))
    assert forecaster._site.counters.of("site", "").submitted == 0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model trained on a site of 500 runs."""
    opened = DuckDBStore(tmp_path_factory.mktemp("trained") / "t.duckdb")
    busy(opened, 700)
    made = train(opened, at(60_000))
    opened.close()
    assert made is not None
    assert made.models.boosting is not None
    return made


def test_a_model_comes_back_from_its_files_as_it_was_and_has_a_card(bundle: Bundle, tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    registry.register(bundle)
    assert [(each.model_id, each.serving) for each in registry.models()] == [(bundle.model_id, True)]
    back = registry.serving()
    assert back is not None
    rows = np.random.default_rng(0).normal(size=(50, len(bundle.names)))
    assert back.models.boosting is not None
    assert back.models.logistic is not None
    assert bundle.models.boosting is not None
    assert bundle.models.logistic is not None
    np.testing.assert_array_equal(
        back.models.boosting.predict_proba(rows), bundle.models.boosting.predict_proba(rows)
    )
    np.testing.assert_array_equal(back.models.logistic.chances(rows), bundle.models.logistic.chances(rows))
    assert set(back.card["candidates"]) == set(CANDIDATES)
    text = (tmp_path / bundle.model_id / "card.md").read_text()
    assert "| served |" in text
    assert (tmp_path / bundle.model_id / "calibration.svg").read_text().startswith("<svg")
    assert not list(tmp_path.rglob("*.pkl"))


def test_few_rows_are_walked_through_the_trees_as_the_library_does(bundle: Bundle) -> None:
    rows = np.random.default_rng(1).normal(size=(FEW_ROWS, len(bundle.names)))
    rows[::3, ::2] = np.nan
    assert bundle.models.trees is not None
    assert bundle.models.boosting is not None
    expected = bundle.models.boosting.predict_proba(rows)[:, 1]
    np.testing.assert_allclose(bundle.models.trees.chances(rows), expected, rtol=1e-9)


def test_a_file_with_a_type_that_is_not_trusted_is_not_loaded(bundle: Bundle, tmp_path: Path) -> None:
    bundle.write(tmp_path)
    skops.io.dump({"harmless": random.Random(1)}, tmp_path / "models.skops")
    with pytest.raises(StoreError, match="rollback"):
        read_bundle(tmp_path)


def test_an_older_model_can_serve_again_and_stays(bundle: Bundle, tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    ids = [f"m-2026110{day}T000000-aaaaaa" for day in (1, 2, 3)]
    for model_id in ids[:2]:
        registry.register(dataclasses.replace(bundle, model_id=model_id))
    assert registry.serving_id() == ids[1]
    assert registry.roll_back() == ids[0]
    registry.register(dataclasses.replace(bundle, model_id=ids[2]))
    assert registry.serving_id() == ids[0], "a person chose it"
    assert registry.roll_back(ids[2]) == ids[2]
    with pytest.raises(ConfigError, match="m-none"):
        registry.roll_back("m-none")


def test_the_registered_model_serves_and_a_forecast_names_it(
    store: DuckDBStore, bundle: Bundle, tmp_path: Path
) -> None:
    busy(store, 400)
    registry = ModelRegistry(tmp_path / "models")
    moment = [at(60_100)]
    forecaster = LiveForecaster(store, registry, clock=lambda: moment[0])
    (before,) = forecaster.forecast(["d0-next"])
    registry.register(bundle)
    moment[0] += timedelta(seconds=5)
    bad, good = forecaster.forecast(["d0-next", "d5-next"])
    assert (before.model_id, bad.model_id, bad.model) == ("", bundle.model_id, "mix")
    assert bad.trained_on == 700
    assert bad.p_fail > 0.3 > good.p_fail
    assert bad.reasons[0].startswith("raises it by ")
    damaged = tmp_path / "models" / bundle.model_id / "card.json"
    damaged.write_text(json.dumps({**json.loads(damaged.read_text()), "names": ["other"]}))
    (fresh,) = LiveForecaster(store, registry, clock=lambda: moment[0]).forecast(["d0-next"])
    assert fresh.model == "rate", "a model of other columns does not serve"


def test_a_stored_forecast_is_scored_when_its_attempt_has_ended(store: DuckDBStore) -> None:
    def made(run_id: str, second: float) -> Forecast:
        return Forecast(
            run_id=run_id, made_at=at(second), p_fail=0.5, model="mix", trained_on=1, model_id="m-1"
        )

    store.merge_runs(
        [a_run("r", StateType.COMPLETED, started=at(80), ended=at(100)), a_run("s", StateType.RUNNING)]
    )
    store.add_events(
        [
            an_event(second, name=f"prefect.flow-run.{name}", resource_id="prefect.flow-run.r", run_id="r")
            for second, name in ((1, "Running"), (50, "Failed"), (80, "Running"), (100, "Completed"))
        ]
    )
    store.add_forecasts([made("r", 0), made("r", 60), made("r", 200), made("s", 0)])
    assert store.score_forecasts(at(300)) == 2
    assert store.score_forecasts(at(300)) == 0
    rows = store.rows("SELECT run_id, made_at, failed, ended FROM forecasts ORDER BY run_id, made_at")
    assert [(row["failed"], row["ended"]) for row in rows] == [
        (True, at(50)),
        (False, at(100)),
        (None, None),
        (None, None),
    ]


def test_too_little_trains_no_model(store: DuckDBStore) -> None:
    store.merge_runs(ended_runs("d", "FS" * 20))
    assert train(store, AFTERWARDS) is None
    assert history_of([]).levels.keys() == set(LEVELS)


def test_the_history_is_read_by_the_page(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    busy(store)
    store.add_queues([a_queue(0)])
    whole = ended_attempts(store, NOON - timedelta(days=1), at(60_000))
    monkeypatch.setattr("pilotage.telemetry.forecast.attempts.PAGE", 50)
    assert ended_attempts(store, NOON - timedelta(days=1), at(60_000)) == whole
