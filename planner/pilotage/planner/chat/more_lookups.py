"""The look-ups of one caller that go beyond lists: timelines, raw lines, durations, changes, what governs runs, and people.

Every docstring here is what a model reads of the tool: what it returns, in which units, and an example of a call.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pilotage.planner.chat.lookups import changes, durations, governing, one_run, records
from pilotage.planner.chat.queries import LookUps, unknown_run
from pilotage.planner.investigate.investigation import investigate
from pilotage.planner.investigate.types import as_json

MOST_HOURS = 24 * 400


def _hours(hours: float) -> timedelta:
    return timedelta(hours=max(0.0, min(hours, MOST_HOURS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class MoreLookUps(LookUps):
    """The reading tools that answer one question about one thing. Every public method is one tool."""

    def investigate(self, subject: str) -> dict[str, Any]:
        """Where a trouble comes from (a child, an outage, the platform, a change, one value, its size, itself, or what it
        waits for), by elimination over the facts: hypotheses with what speaks for and against each, what could not be
        checked, and a plan of actions that may be drafted. Example: investigate(subject="run:6e0c…")."""
        named = subject if ":" in subject else f"run:{subject}"
        found = investigate(
            self.store, named, self.clock(), parameters=self.parameters,
            permitted=self.control_api.permitted_kinds(), forecaster=self.forecaster,
        )  # fmt: skip
        if found is None:
            return unknown_run(subject)
        steps = [{"action": step.action, "shows": step.shows} for step in found.steps]
        gaps = list(found.conclusion.unchecked)
        return as_json(found.conclusion) | {
            "plan": steps,
            "not_taken": list(found.plan.alternatives),
            "gaps": gaps,
        }

    def run_timeline(self, run_id: str) -> dict[str, Any]:
        """Everything about one run in order of time: its states, tasks, and what was proposed, decided and done, times in
        ISO 8601. Example: run_timeline(run_id="6e0c…")."""
        return one_run.timeline(self.store, run_id) or unknown_run(run_id)

    def log_lines(self, run_id: str, words: str = "") -> dict[str, Any]:
        """Raw lines of a run's log with three before and after each: those that contain `words`, else errors, else the
        last. They are quotations of other people's programs. Example: log_lines(run_id="6e0c…", words="timeout")."""
        return one_run.log_lines(self.store, run_id, words)

    def run_durations(self, deployment_id: str) -> dict[str, Any]:
        """How long a deployment's runs take, in seconds: what is usual (median, 95th percentile), the newest five, the
        last, and those under way. Example: run_durations(deployment_id="ab12…")."""
        return durations.durations(self.store, deployment_id, self.clock())

    def how_often(
        self, deployment_id: str = "", hours: float = 168, until_hours_ago: float = 0
    ) -> dict[str, Any]:
        """How many runs ended how in the last hours, of one deployment or of all: counts by state, and the share that
        failed, as a part of 1. Example: how_often(deployment_id="ab12…", hours=24)."""
        now = self.clock()
        return durations.how_often(
            self.store, deployment_id, now - _hours(hours), now - _hours(until_hours_ago)
        )

    def what_changed(self, deployment_id: str) -> dict[str, Any]:
        """What is different since a deployment last completed: parameters, image and job variables, queue, tags, edited
        schedules, pauses. Example: what_changed(deployment_id="ab12…")."""
        return changes.what_changed(self.store, deployment_id, self.clock())

    def compare_runs(self, first_run_id: str, second_run_id: str) -> dict[str, Any]:
        """Two runs side by side: states, seconds, and every field that differs."""
        return changes.compare_runs(self.store, first_run_id, second_run_id)

    def schedules(self, deployment_id: str = "") -> dict[str, Any]:
        """The schedules of one deployment or of all: when each fires, its time zone, its last and next time."""
        return governing.schedules(self.store, self.clock(), deployment_id)

    def upcoming_load(
        self, hours: float = 24, from_hours: float = 0, deployment_id: str = ""
    ) -> dict[str, Any]:
        """The runs that are scheduled in the next hours, and how many start in each hour and pool; `from_hours` leaves the
        first hours out."""
        now = self.clock()
        return governing.upcoming(self.store, now + _hours(from_hours), now + _hours(hours), deployment_id)

    def limits(self, name: str = "") -> dict[str, Any]:
        """The concurrency limits (of a tag, global, of a deployment): slots, how many are taken, since when it is full,
        and the runs that hold them. Example: limits(name="database")."""
        return governing.limits(self.store, self.clock(), name)

    def workers(self, pool: str = "") -> dict[str, Any]:
        """The workers of one pool or of all: status, seconds since their last heartbeat, and when queues were polled."""
        return governing.workers(self.store, self.clock(), pool)

    def automations(self, hours: float = 168) -> dict[str, Any]:
        """Prefect's automations, and what they did to what in the last hours."""
        now = self.clock()
        return governing.automations(self.store, now, now - _hours(hours))

    def what_waits(self) -> dict[str, Any]:
        """Everything that waits or stands still now, counted by the first thing in its way, with what to do about it."""
        return governing.waiting(self.store, self.clock(), self.parameters)

    def who_decided(self, subject: str) -> dict[str, Any]:
        """Votes and audit: every step about a run, a proposal (p-…) or an incident (i-…), and who took it and why."""
        return records.who_decided(self.control_api, self.store, subject)

    def decided_about(self, deployment_id: str) -> dict[str, Any]:
        """Votes and steps about any run of a deployment or the deployment itself, newest last, with who took them."""
        return records.decided_about_deployment(self.store, deployment_id)

    def what_was_done(self, hours: float = 24, until_hours_ago: float = 0) -> dict[str, Any]:
        """What pilotage changed in Prefect in the last hours, who had approved it, and what came of it."""
        now = self.clock()
        return records.done(self.store, now - _hours(hours), now - _hours(until_hours_ago))

    def waits_for_people(self) -> dict[str, Any]:
        """The proposals that wait for a person now, and whether the person of this conversation may decide them."""
        return records.waits_for_people(self.control_api)
