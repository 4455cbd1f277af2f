"""One investigation without a model: from a run or a deployment to a conclusion and a plan, by elimination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pilotage.planner.actions.types import ActionKind
from pilotage.planner.detect.waiting import why_missing, why_waiting
from pilotage.planner.investigate.eliminate import conclude_failure, conclude_wait
from pilotage.planner.investigate.facts import FAILED, CaseFacts, case_facts
from pilotage.planner.investigate.offers import plan_for_failure, plan_for_wait, steps_of
from pilotage.planner.investigate.types import Conclusion, Step
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.playbooks.plan import Plan
from pilotage.telemetry.forecasts import Forecaster
from pilotage.telemetry.queries import runs as run_queries
from pilotage.telemetry.queries.site import site_facts
from pilotage.telemetry.store.protocol import Store


class NoForecast:
    """A forecaster that knows nothing."""

    def forecast(self, run_ids: Sequence[str]) -> tuple[()]:
        """Nothing of any run."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Investigated:
    """What was found about one subject and what is planned for it."""

    conclusion: Conclusion
    plan: Plan
    facts: CaseFacts | None = None
    """Of a failed run."""

    @property
    def steps(self) -> list[Step]:
        """The plan as ordered actions."""
        return steps_of(self.plan)


def investigate(
    store: Store,
    subject: str,
    now: datetime,
    *,
    parameters: PlaybookParameters | None = None,
    permitted: Sequence[ActionKind] = (),
    forecaster: Forecaster | None = None,
) -> Investigated | None:
    """Return what is wrong with `run:<id>` or `deployment:<id>` and what would help; None where it is not known.

    Raises StoreError.
    """
    limits, forecasts = parameters or PlaybookParameters(), forecaster or NoForecast()
    kind, _, key = subject.partition(":")
    run = run_queries.run(store, key) if kind == "run" else None
    if run is not None and run.state_type in FAILED:
        facts = case_facts(store, run, now, limits)
        conclusion = conclude_failure(facts, limits)
        plan = plan_for_failure(facts, conclusion, now, limits, permitted)
        return Investigated(conclusion=conclusion, plan=plan, facts=facts)
    site = site_facts(store, now, extra=(key,) if run else ())
    if run is not None:
        conclusion = conclude_wait(subject, why_waiting(run, site, limits), site)
    elif kind == "deployment" and key in site.deployments:
        conclusion = conclude_wait(subject, why_missing(key, site, limits), site)
    else:
        return None
    return Investigated(
        conclusion=conclusion, plan=plan_for_wait(store, forecasts, conclusion, now, limits, permitted)
    )
