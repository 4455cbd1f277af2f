"""What became of retries here decides whether a failed run is tried again; what is not for sale stays so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.planner.planner_fixture import FixedForecaster, PlannerFixture

from pilotage.planner.detect.remedy import MOST_RETRIES, Remedy, RemedyContext, beliefs, choose
from pilotage.planner.findings import Cure, FailureClass
from pilotage.planner.loop.planner import Planner
from pilotage.planner.playbooks.registry import hopeless, play_failure, remedy_of
from pilotage.planner.remediation import Background
from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.forecasts import RetryForecast

AGAIN = (Remedy.RETRY_NOW, Remedy.RETRY_LATER)


def of_retries(make: Any, p_success: float, known: int = 30) -> RetryForecast:
    return RetryForecast(run_id="r", made_at=make.now, p_success=p_success, known=known, model="rate")


@pytest.mark.parametrize("cure", [Cure.SECONDS, Cure.MINUTES])
def test_a_passing_fault_is_not_tried_again_where_retries_of_it_fail(cure: Cure) -> None:
    assert choose(cure, 0.9) in AGAIN
    assert choose(cure, 0.9, context=RemedyContext(p_retry=0.95, retries_known=30)) in AGAIN
    assert choose(cure, 0.9, context=RemedyContext(p_retry=0.02, retries_known=30)) is Remedy.TELL_OWNER


def test_few_outcomes_move_a_belief_little_and_many_never_wholly() -> None:
    def passing(known: int) -> float:
        believed = beliefs(Cure.SECONDS, 0.9, RemedyContext(p_retry=0.0, retries_known=known))
        return believed[Cure.SECONDS] + believed[Cure.MINUTES]

    assert passing(0) > passing(2) > passing(20) > passing(MOST_RETRIES) == passing(10_000) > 0.1
    assert passing(2) > 0.7


@pytest.mark.parametrize("cure", [Cure.MEMORY, Cure.OWNER, Cure.DEATH])
def test_no_forecast_of_retries_opens_what_is_not_for_sale(cure: Cure) -> None:
    surest = RemedyContext(p_retry=1.0, retries_known=10_000, p_fail=0.0)
    assert choose(cure, 0.9, context=surest) not in AGAIN
    assert beliefs(cure, 0.9, surest) == beliefs(cure, 0.9, RemedyContext(p_fail=0.0))


def test_what_nobody_explains_goes_by_its_retries_where_these_are_known(make: Any) -> None:
    around = Background(safe_to_repeat=True)
    situation = make.incident_context(FailureClass.UNKNOWN, p_fail=0.9, around=around, confidence=0.0)
    assert remedy_of(situation) not in AGAIN
    helped = replace(situation, retry=of_retries(make, 0.9))
    assert remedy_of(helped) in AGAIN
    assert remedy_of(replace(situation, retry=of_retries(make, 0.9, known=7))) not in AGAIN
    bad = replace(
        make.incident_context(FailureClass.UNKNOWN, p_fail=0.1, around=around, confidence=0.0),
        retry=of_retries(make, 0.05),
    )
    assert remedy_of(bad) not in AGAIN
    assert (
        "by 30 known retries of its like another attempt succeeds with 5%"
        in play_failure(bad).alternatives[0]
    )


def test_a_row_of_failures_is_hopeless_by_what_became_of_retries(make: Any) -> None:
    row = Background(failures_in_row=4)
    situation = make.incident_context(FailureClass.TRANSIENT, p_fail=0.95, around=row)
    assert "95% chance of failing" in hopeless(situation)
    assert hopeless(replace(situation, retry=of_retries(make, 0.6))) == ""
    known = make.incident_context(FailureClass.TRANSIENT, p_fail=0.3, around=row)
    assert "30 known retries" in hopeless(replace(known, retry=of_retries(make, 0.1)))


def test_a_muted_forecast_mutes_that_of_retries(make: Any) -> None:
    situation = make.incident_context(FailureClass.TRANSIENT, p_fail=0.5)
    assert remedy_of(replace(situation, retry=of_retries(make, 0.0))) not in AGAIN
    muted = replace(situation, forecast=replace(situation.forecast, muted="a storm"))
    assert remedy_of(replace(muted, retry=of_retries(make, 0.0))) in AGAIN


class FixedRetries:
    """The same chance for every retry; remembers what it was asked."""

    def __init__(self, make: Any, p_success: float) -> None:
        self.made = of_retries(make, p_success)
        self.asked: list[Any] = []

    def retry(self, *asked: Any) -> RetryForecast | None:
        self.asked.append(asked)
        return self.made


class BrokenRetries:
    def retry(self, *_asked: Any) -> RetryForecast | None:
        raise StoreError("Reading retries: found nobody. Start it.")


def with_retries(fixture: PlannerFixture, retries: Any) -> None:
    made = fixture.planner

    def planner() -> Planner:
        planner = made()
        planner._retries = retries
        return planner

    fixture.planner = planner  # type: ignore[method-assign]


@pytest.mark.parametrize(("p_success", "kind"), [(0.9, "retry_run"), (0.02, "notify_owner")])
def test_the_planner_turns_with_the_forecast_of_retries(
    planner_fixture: PlannerFixture, make: Any, p_success: float, kind: str
) -> None:
    run = make.run()
    planner_fixture.store.merge_runs([run])
    planner_fixture.store.add_logs([make.log("ConnectError: All connection attempts failed")])
    planner_fixture.forecaster = FixedForecaster(make.now, 0.2)
    retries = FixedRetries(make, p_success)
    with_retries(planner_fixture, retries)
    planner_fixture.ticks()
    assert planner_fixture.control_api.kinds_filed == [kind]
    [(_, case)] = planner_fixture.control_api.filed.values()
    assert f"another attempt succeeds with {p_success:.0%}, by 30 known retries of its like" in case.notes
    assert retries.asked == [
        (run.run_id, run.deployment_id, 1, "transient", "ConnectError: All connection attempts failed")
    ]


def test_a_store_that_cannot_tell_of_retries_leaves_the_choice_to_the_diagnosis(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    planner_fixture.store.merge_runs([make.run()])
    with_retries(planner_fixture, BrokenRetries())
    planner_fixture.ticks()
    assert planner_fixture.control_api.kinds_filed == ["retry_run"]
