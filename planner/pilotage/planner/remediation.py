"""The types of a playbook: from an incident context to desired actions. The playbooks are in `playbooks` and `detect`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from pilotage.planner.actions.types import Action, NotifyOwner, Severity
from pilotage.planner.findings import Finding
from pilotage.planner.parameters import PlaybookParameters
from pilotage.telemetry.errors import InvariantError
from pilotage.telemetry.facts import QueueFact, RunFact
from pilotage.telemetry.forecasts import Forecast, RetryForecast
from pilotage.telemetry.queries.retry_impact import RetryImpact

SAFE_TO_REPEAT = "pilotage:safe-to-repeat"
"""A deployment's tag: running it twice does no harm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The runs of one deployment that wait together."""

    waiting: int
    keep: int | None = None
    """How many of the newest the owner wants after an outage (deployment tag `pilotage:keep-newest:<n>`)."""
    alike: bool = False
    """Whether a schedule made all of them with the same parameters: then the newest stands for the older ones."""
    newest: str = ""
    """The run that was to start last."""
    earliest: datetime | None = None
    """When the first of them was to start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizingState:
    """What the runs of a deployment need, and what is tried next."""

    size: int
    """What its runs need, in MiB."""
    good: int
    """Runs that completed with that size since it was reached."""
    backoff: int
    """How many times the usual number of good runs the next step down takes."""
    lower: int | None
    """What the next run is tried with, when it is time to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A deployment that is there to help the runs of others.

    It is declared by two tags: `pilotage:remediation`, and `pilotage:remedies:<what>` for what it cures: the
    fingerprint of a fault, the id of a row of the rule table, or a failure class.
    """

    deployment_id: str
    cures: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """What is known around a finding, counted by whoever read the store."""

    failures_in_row: int = 0
    """Ended runs of the same deployment that failed one after another up to now, this one included."""
    failing_for: timedelta | None = None
    """Since when these fail: from the end of the first of them until now; None where nobody counted."""
    same_fault_in_row: int = 0
    """Of these, how many in the window carry the finding's fingerprint without a break."""
    failing_value: str = ""
    """That all runs with a parameter's value of this one fail while the others go well, in words; empty when not."""
    deployment_paused: bool = False
    memory_mb: int | None = None
    """What the run has now in MiB, from its own job variables or its deployment's."""
    memory_sizes: tuple[int, ...] = ()
    """The only sizes in MiB that its infrastructure takes, smallest first; empty when any will do."""
    earliest_waiting: datetime | None = None
    """The start time of the first of the other runs that wait in the same queue."""
    later_start: datetime | None = None
    """Another start within the run's slack, where too many start with it."""
    queues: tuple[QueueFact, ...] = ()
    """The newest fact of every queue."""
    backlog: Backlog | None = None
    """The deployment's waiting runs, where there are too many."""
    sizing: SizingState | None = None
    """What the last runs of the deployment needed."""
    default_mb: int | None = None
    """What the deployment gives a run that has no size of its own."""
    witness: str = ""
    """A run whose owner is told, where the trouble is not that of one run."""
    remedies: tuple[Remedy, ...] = ()
    """What the run's owners declared as remedies, for whatever fault."""
    retry_impact: RetryImpact | None = None
    """What another attempt does again, as far as the last attempt's tasks tell."""
    safe_to_repeat: bool = False
    """Whether the deployment's owners declared it safe to repeat, or it is not production."""
    may_be_repeated: bool = False
    """Whether its owners said, by tag, that running it twice does no harm."""
    remedied: str = ""
    """What came of the remedy that was started for this run before, in words; empty when none was."""
    remedy_helped: bool = False
    """Whether that remedy has ended well since the run failed: what had to change has changed."""
    failed_children: tuple[str, ...] = ()
    """Failed runs that this one had started before it failed, by id."""
    parent_ended: Literal["", "badly"] = ""
    """`badly` where the run that started this one has failed since, and can be tried again itself."""
    death_signs: tuple[str, ...] = ()
    """What says that the process of a run that is called ended is dead; two independent signs prove it."""
    heard_after_end: bool = False
    """Whether its process was heard although the run is called ended."""
    newest_failure: bool = True
    """Whether no other run of the deployment has ended since this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentContext:
    """Everything a playbook may look at."""

    finding: Finding
    run: RunFact | None
    forecast: Forecast | None
    around: Background
    now: datetime
    parameters: PlaybookParameters
    retry: RetryForecast | None = None
    """Whether another attempt of the run succeeds; None where no retry is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredAction:
    """One action that a playbook wants, before it is a proposal."""

    action: Action
    effect: str
    """What is expected of it, in words."""
    until: datetime | None = None
    """When it is pointless, if that is sooner than a proposal's usual life."""
    plan: str = ""
    """The reference of the plan that it is a step of, `plan:<digest>`; what was said of the plan holds for each step."""
    rests_on: tuple[str, ...] = ()
    """References to what it rests on, where that is something counted and not what the finding quotes."""
    bound_to_state: bool = True
    """False where it stays right although the run moved on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remediation:
    """What one playbook wants and what it rejected."""

    desired: tuple[DesiredAction, ...] = ()
    alternatives: tuple[str, ...] = ()


class Playbook(NamedTuple):
    """What is proposed for one kind of finding."""

    name: str
    """As cases and the audit log show it."""
    remediate: Callable[[IncidentContext], Remediation]
    """A pure function: it reads no clock, no store and no model."""


def notify(s: IncidentContext, severity: Severity = Severity.ERROR) -> tuple[DesiredAction, ...]:
    """Return the desired notice to the owner of the run; none when there is no run."""
    if s.run is None:
        return ()
    notice = NotifyOwner(run_id=s.run.run_id, severity=severity)
    return (DesiredAction(action=notice, effect="the owner knows and can act", bound_to_state=False),)


def run_of(s: IncidentContext) -> RunFact:
    """The run of a situation that has one, as `plan_for` has made sure."""
    if s.run is None:
        raise InvariantError(
            f"planning for {s.finding.subject}: the playbook needs a run and has none; do not call it"
        )
    return s.run


def deadline_of(run: RunFact) -> datetime | None:
    """The time in the run's `deadline:<ISO time>` tag; None when there is none or it cannot be read."""
    for tag in run.tags:
        if tag.startswith("deadline:"):
            try:
                moment = datetime.fromisoformat(tag.removeprefix("deadline:"))
            except ValueError:
                continue
            if moment.tzinfo is not None:
                return moment
    return None


def words_of(span: timedelta) -> str:
    """The span in seconds or minutes, for people."""
    seconds = round(span.total_seconds())
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
