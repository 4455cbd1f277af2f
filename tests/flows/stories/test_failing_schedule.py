"""A deployment that fails every fifteen seconds is one incident and one page, is stopped before it locks its account, and
holds nobody else up."""

from __future__ import annotations

from datetime import timedelta

from pilotage.flows.bench import simulated
from pilotage.flows.bench.round import WORLDS, Round, incidents_of, sources_in
from pilotage.flows.bench.score import scores_of

LATER = 10.0
"""Seconds by which others may be handled later than without it."""


def test_it_is_one_page_and_is_stopped_in_time_while_the_others_are_handled() -> None:
    alone = tuple(incidents_of(sources_in(WORLDS), [1], ["transient-network"]))
    beside = tuple(incidents_of(sources_in(WORLDS), [1], ["failing-schedule", "transient-network"]))
    scores = {}
    for name, chosen in (("alone", alone), ("beside", beside)):
        played = simulated.play(Round(incidents=chosen, horizon=timedelta(minutes=3)), "pilotage")
        scores[name] = {score.name: score for score in scores_of(played, "pilotage")}
    schedule = scores["beside"]["failing-schedule"]
    # a retry of it, and an account that is locked, count as wrong
    assert (schedule.wrong, schedule.violations, schedule.told) == ((), (), True)
    pages = [page for page in played.outside.pages if page["event_action"] == "trigger"]
    assert len({page["dedup_key"] for page in pages}) == 1
    quick, slow = (scores[name]["transient-network"].recovery_s for name in ("alone", "beside"))
    assert quick is not None
    assert slow is not None
    assert slow - quick <= LATER
