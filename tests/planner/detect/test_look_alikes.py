"""Each detector finds its trouble on a site where it comes about, and nothing on one that only looks like it."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.planner.detect.look_alikes import PAIRS
from tests.planner.detect.waiting_worlds import World

from pilotage.planner import detect
from pilotage.planner.detect.blockage import NO_TROUBLE, Cause
from pilotage.planner.detect.registry import DETECTORS, DetectorSnapshot
from pilotage.planner.detect.standstill import NEVER_FOUND
from pilotage.planner.parameters import PlaybookParameters

PARAMETERS = PlaybookParameters()


class NoForecast:
    def forecast(self, run_ids: Sequence[str]) -> tuple[Any, ...]:
        return ()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def everything_found(world: World) -> dict[str, str]:
    """By rule, of all detectors together: what was found, and the first that shows it."""
    world.collect()
    at = DetectorSnapshot(store=world.store, forecaster=NoForecast(), parameters=PARAMETERS, now=world.now)
    findings = [finding for detector in DETECTORS for finding in detector(at)]
    return {finding.rule_id or "": f"{finding.subject}: {finding.evidence[0].note}" for finding in findings}


@pytest.mark.parametrize("rule", PAIRS)
def test_the_trouble_is_found(world: World, rule: str) -> None:
    PAIRS[rule](world, True)
    assert set(everything_found(world)) == {rule}


@pytest.mark.parametrize("rule", PAIRS)
def test_what_looks_like_it_is_silent(world: World, rule: str) -> None:
    PAIRS[rule](world, False)
    assert everything_found(world) == {}


SHOWN_ELSEWHERE: Mapping[str, tuple[str, str]] = {
    "starved-queue": (
        "test_starvation.test_a_due_run_behind_a_queue_that_holds_every_slot_is_starved",
        "test_starvation.test_a_queue_that_waits_for_another_reason_is_not_starved",
    ),
    "near-deadline": (
        "test_starvation.test_a_waiting_run_with_a_near_deadline_and_others_ahead_is_late",
        "test_starvation.test_a_run_is_not_late_when_it_is_first_or_far_or_past_its_deadline",
    ),
    "after-outage": (
        "test_registry.test_after_an_outage_the_newest_are_caught_up_where_the_owner_says_so",
        "test_registry.test_late_runs_without_an_outage_behind_them_are_left_alone",
    ),
    "crowd": (
        "test_registry.test_a_crowd_that_waits_for_one_limit_is_spread",
        "test_registry.test_as_many_runs_as_prefect_looks_at_are_no_crowd",
    ),
    "one-fault-of-the-platform": (
        "test_registry.test_a_queue_where_every_run_meets_one_fault_of_the_platform_is_held",
        "test_registry.test_a_queue_whose_faults_are_not_its_own_is_not_held",
    ),
    "completed-since": (
        "test_registry.test_a_queue_that_we_hold_is_released_once_the_same_deployments_complete",
        "test_registry.test_a_queue_that_others_hold_is_theirs_to_release",
    ),
    "held-before-deadline": (
        "test_registry.test_a_run_before_its_deadline_is_moved_out_of_a_held_queue",
        "test_registry.test_a_hold_is_respected_where_nobody_lets_the_run_move_or_nothing_is_open",
    ),
    "no-net": (
        "test_registry.test_a_running_run_that_will_probably_fail_of_what_passes_gets_retries",
        "test_registry.test_a_running_run_is_left_alone_without_need_or_hope",
    ),
    "forecast-muted": (
        "test_registry.test_what_is_forecast_while_forecasts_are_wrong_moves_nothing_and_is_one_incident",
        "test_registry.test_a_running_run_that_will_probably_fail_of_what_passes_gets_retries",
    ),
    "parent-gone": (
        "test_registry.test_what_a_dead_run_started_is_cancelled_with_it",
        "test_registry.test_children_that_may_go_on_are_left_alone",
    ),
    "completed-since-told": (
        "test_stale.test_an_owner_who_was_told_is_told_that_it_is_over_and_once",
        "test_stale.test_an_owner_who_was_not_told_of_trouble_is_not_told_that_it_is_over",
    ),
    "needed-lately": (
        "test_memory_sizing.test_the_next_run_starts_with_what_the_last_ones_needed",
        "test_memory_sizing.test_a_run_that_needs_no_other_size_is_left_alone",
    ),
    "step-down": (
        "test_memory_sizing.test_after_good_runs_one_run_is_tried_with_less",
        "test_memory_sizing.test_a_run_is_not_tried_with_less_when_it_will_probably_fail",
    ),
}
"""Rules that say nothing of what stands still: the test in which each is found, and that in which it is not."""


def rules_in_code() -> set[str]:
    """Every rule that a function of the package gives to a finding of an ongoing trouble."""
    told_only = NEVER_FOUND - {Cause.PREFECT_SLOW}  # this one is found for the whole site
    rules: set[str] = {cause.value for cause in set(Cause) - NO_TROUBLE - told_only}
    for path in Path(detect.__file__).parent.glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            named = [each.value for each in call.keywords if each.arg in ("rule_id", "rule")]
            if isinstance(call.func, ast.Name) and call.func.id in ("_of_deployment", "_finding"):
                named += call.args[2:3]
            for value in named:
                rules |= {
                    each.value
                    for each in ast.walk(value)
                    if isinstance(each, ast.Constant) and isinstance(each.value, str)
                }
    return rules


def test_each_rule_has_a_site_of_its_own_and_one_that_only_looks_like_it() -> None:
    shown = {*PAIRS, *SHOWN_ELSEWHERE}
    assert rules_in_code() - {""} == shown
    assert not set(PAIRS) & set(SHOWN_ELSEWHERE)


def test_a_rule_that_nobody_shows_would_be_noticed() -> None:
    assert {
        "twin",
        "hung",
        "overlong",
        "executed-twice",
        "not_made",
        "failures-inside",
        "crowd",
    } <= rules_in_code()


@pytest.mark.parametrize("rule", SHOWN_ELSEWHERE)
def test_what_is_shown_elsewhere_is_a_test(rule: str) -> None:
    for place in SHOWN_ELSEWHERE[rule]:
        module, _, test = place.partition(".")
        assert callable(getattr(importlib.import_module(f"tests.planner.detect.{module}"), test))
