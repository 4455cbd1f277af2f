"""The choice of a remedy by expected cost, and what is not for sale."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.planner.detect.remedy import Remedy, RemedyContext, choose, expected_costs
from pilotage.planner.findings import Cure
from pilotage.planner.parameters import RemedyCosts

AGAIN = {Remedy.RETRY_NOW, Remedy.RETRY_LATER}
COSTS = st.builds(
    RemedyCosts,
    **{name: st.floats(min_value=0, max_value=1000) for name in RemedyCosts.model_fields},
)
CONFIDENCE = st.floats(min_value=0, max_value=1)
FORECAST = st.none() | st.floats(min_value=0, max_value=1)


@pytest.mark.parametrize(
    ("cure", "remedy"),
    [
        (Cure.SECONDS, Remedy.RETRY_NOW),
        (Cure.MINUTES, Remedy.RETRY_LATER),
        (Cure.MEMORY, Remedy.MORE_MEMORY),
        (Cure.OWNER, Remedy.TELL_OWNER),
        (Cure.DEATH, Remedy.ASK),
        (Cure.UNCLEAR, Remedy.TELL_OWNER),
    ],
)
def test_a_clear_sign_gets_its_remedy(cure: Cure, remedy: Remedy) -> None:
    assert choose(cure, 0.9) is remedy


@given(COSTS, CONFIDENCE, FORECAST, st.booleans())
def test_whatever_it_costs_a_run_that_may_be_alive_is_not_started_again(
    costs: RemedyCosts, confidence: float, p_fail: float | None, safe: bool
) -> None:
    context = RemedyContext(p_fail=p_fail, safe_to_repeat=safe)
    assert choose(Cure.DEATH, confidence, costs, context) in {Remedy.HOLD, Remedy.ASK, Remedy.TELL_OWNER}


@given(COSTS, CONFIDENCE, FORECAST, st.booleans())
def test_whatever_it_costs_memory_that_ran_out_is_not_retried_at_its_size(
    costs: RemedyCosts, confidence: float, p_fail: float | None, safe: bool
) -> None:
    context = RemedyContext(p_fail=p_fail, safe_to_repeat=safe, proven_dead=True)
    assert choose(Cure.MEMORY, confidence, costs, context) not in AGAIN


@given(COSTS, CONFIDENCE, FORECAST)
def test_what_nobody_understands_is_not_retried_where_repeating_may_do_harm(
    costs: RemedyCosts, confidence: float, p_fail: float | None
) -> None:
    assert choose(Cure.UNCLEAR, confidence, costs, RemedyContext(p_fail=p_fail)) not in AGAIN


@given(COSTS, CONFIDENCE)
def test_what_only_its_owner_can_mend_is_never_retried(costs: RemedyCosts, confidence: float) -> None:
    assert choose(Cure.OWNER, confidence, costs) is Remedy.TELL_OWNER


def test_two_signs_of_death_open_the_retry() -> None:
    assert choose(Cure.DEATH, 0.9, context=RemedyContext(proven_dead=True)) in AGAIN


def test_a_good_forecast_and_a_safe_deployment_open_the_retry_of_the_unknown() -> None:
    good = RemedyContext(p_fail=0.1, safe_to_repeat=True)
    bad = RemedyContext(p_fail=0.9, safe_to_repeat=True)
    assert choose(Cure.UNCLEAR, 0.0, context=good) in AGAIN
    assert choose(Cure.UNCLEAR, 0.0, context=bad) not in AGAIN


def test_a_site_that_minds_waiting_less_than_wasted_attempts_waits() -> None:
    patient = RemedyCosts(delay=0, wasted_attempt=50)
    assert choose(Cure.SECONDS, 0.9) is Remedy.RETRY_NOW
    assert choose(Cure.SECONDS, 0.9, patient) is Remedy.RETRY_LATER


def test_the_cheapest_is_chosen() -> None:
    costed = expected_costs(Cure.MINUTES, 0.9)
    assert costed[choose(Cure.MINUTES, 0.9)] == min(costed.values())
