"""A storm of runs with one cause is one incident, one page and one probe; what has another cause keeps its own.

`STORM_RUNS=500 STORM_DEPLOYMENTS=20` plays it large; the requests to Prefect are printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.flows.stories.worlds import RUNS

from pilotage.flows.bench import simulated
from pilotage.flows.bench.pilot import deeds_of
from pilotage.flows.bench.round import WORLDS, Incident, Played, Round, incidents_of, sources_in
from pilotage.flows.bench.score import Score, scores_of
from pilotage.flows.config.paths import StatePaths
from pilotage.policies.ledger.sql_ledger import SqlLedger

STORM = f"{Path(__file__).with_name('worlds.py')}:Storm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What was played, what the ledger tells of it, and the scores by world."""

    played: Played
    incidents: list[dict[str, Any]]
    scores: dict[str, Score]

    def pages(self, incident_id: str) -> list[str]:
        """The actions of the pages about an incident, in order."""
        return [
            str(page["event_action"])
            for page in self.played.outside.pages
            if page["dedup_key"] == incident_id
        ]


@pytest.fixture(scope="module")
def story() -> Story:
    """The storm, and two troubles that have nothing to do with it."""
    found: list[dict[str, Any]] = []

    def deeds_and_incidents(root: Path) -> Any:
        ledger = SqlLedger(f"sqlite:///{StatePaths(root=root).ledger}")
        found.extend(ledger.incidents(1000))
        ledger.close()
        return deeds_of(root)

    others = incidents_of(sources_in(WORLDS), [1], ["transient-network", "schema-drift"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated, "deeds_of", deeds_and_incidents)
        whole = Round(incidents=(Incident(source=STORM, seed=1), *others), horizon=timedelta(minutes=8))
        played = simulated.play(whole, "pilotage")
    print(f"{RUNS} runs, {played.requests} requests to Prefect")
    return Story(
        played=played,
        incidents=found,
        scores={score.name: score for score in scores_of(played, "pilotage")},
    )


@pytest.mark.timeout(3000)
def test_a_storm_is_one_incident_with_one_page_and_all_its_work_is_done_once(story: Story) -> None:
    score = story.scores["storm"]
    assert (score.recovered, score.duplicates, score.wrong, score.violations) == (True, 0, (), ())
    (storm,) = (one for one in story.incidents if len(one["runs"]) > RUNS // 2)
    assert (storm["status"], {run["state"] for run in storm["runs"]}) == ("recovered", {"recovered"})
    assert story.pages(storm["incident_id"]) == ["trigger", "resolve"]
    # nothing else is told or opened of the deployments that met the outage
    own = {row["target_facts"].get("deployment_id") for row in storm["proposals"]}
    others = [one for one in story.incidents if one["incident_id"] != storm["incident_id"]]
    assert not [
        one["cause"]
        for one in others
        if own & {row["target_facts"].get("deployment_id") for row in one["proposals"]}
    ]


def test_one_run_probes_and_the_others_follow_in_waves(story: Story) -> None:
    (storm,) = (one for one in story.incidents if len(one["runs"]) > RUNS // 2)
    retries = [row for row in storm["proposals"] if row["kind"] == "retry_run"]
    failed = [row for row in retries if row["status"] == "failed"]
    # the first three are tried at once, before it is known to be a storm; then one at a time
    assert len(failed) <= 3 + 4
    assert sum(row["status"] == "verified" for row in retries) == len(storm["runs"])


def test_what_has_another_cause_keeps_an_incident_of_its_own(story: Story) -> None:
    assert story.scores["transient-network"].recovered
    assert story.scores["schema-drift"].handled
    assert len({one["incident_id"] for one in story.incidents}) >= 3
