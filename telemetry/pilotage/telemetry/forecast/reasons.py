"""Why a forecast is what it is: what it would be without one kind of knowledge, in words with direction and size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import numpy as np

from pilotage.telemetry.forecast.attempts import Attempt
from pilotage.telemetry.forecast.candidates import FittedModels
from pilotage.telemetry.forecast.counters import Counters, KeyState
from pilotage.telemetry.forecast.mixing import Mix
from pilotage.telemetry.forecast.point_in_time import Features
from pilotage.telemetry.forecast.run_history import Floats

MOST = 3
"""Reasons that are given."""
SMALLEST = 0.01
"""A change of the chance below this is not told."""


def _of_deployment(attempt: Attempt, counters: Counters, now: float) -> str:
    known = counters.of("deployment", attempt.deployment)
    if not known.ended:
        return "no ended run of this deployment yet"
    total = f"{known.failures} of its {known.ended} runs failed"
    if known.failures_in_a_row > 1:
        return f"{known.failures_in_a_row} failures in a row for this deployment; {total}"
    if known.others_in_a_row > 1:
        return f"{known.others_in_a_row} runs of this deployment in a row did not fail; {total}"
    return f"of this deployment, {total}{_when(known, now)}"


def _when(known: KeyState, now: float) -> str:
    return "" if math.isnan(known.last_failure) else f", the last {ago(now - known.last_failure)} ago"


def _of_owner(attempt: Attempt, counters: Counters, now: float) -> str:
    known = counters.of("owner", attempt.owner)
    return f"{known.failures} of {known.ended} runs of {attempt.owner} failed{_when(known, now)}"


def _of_site(attempt: Attempt, counters: Counters, now: float) -> str:
    known = counters.of("site", "")
    return f"{known.failures} of all {known.ended} runs here failed{_when(known, now)}"


def _of_siblings(attempt: Attempt, counters: Counters, now: float) -> str:
    own, site = counters.of("deployment", attempt.deployment), counters.of("site", "")
    return f"in the last hour {len(own.recent)} runs of this deployment failed, {len(site.recent)} of all"


def _of_load(attempt: Attempt, counters: Counters, now: float) -> str:
    own, site = counters.of("deployment", attempt.deployment), counters.of("site", "")
    return f"{own.submitted - own.ended} runs of this deployment are running, {site.submitted - site.ended} of all"


def _of_size(attempt: Attempt, counters: Counters, now: float) -> str:
    size = "" if math.isnan(attempt.memory_mb) else f"{attempt.memory_mb:.0f} MiB of memory"
    again = f"{attempt.number} earlier attempts of this run" if attempt.number else ""
    return " and ".join(part for part in (size, again) if part) or "nothing special was requested"


def _of_queue(attempt: Attempt, counters: Counters, now: float) -> str:
    known = counters.of("queue", attempt.queue)
    return f"{known.failures} of {known.ended} runs of the queue {attempt.queue or '(none)'} failed"


def _of_duration(attempt: Attempt, counters: Counters, now: float) -> str:
    known = counters.of("deployment", attempt.deployment)
    usual = math.expm1(known.log_duration / max(known.ended, 1))
    return f"its runs take {ago(usual)}, the last one took {ago(math.expm1(known.last_log_duration))}"


def _of_time(attempt: Attempt, counters: Counters, now: float) -> str:
    return "the hour and the day of the week"


Teller = Callable[[Attempt, Counters, float], str]
TOLD: Mapping[str, tuple[Teller, Callable[[str], bool]]] = {
    "siblings": (_of_siblings, lambda name: name.endswith("_recent_failures")),
    "load": (_of_load, lambda name: name.endswith(("_in_flight", "_burst"))),
    "duration": (_of_duration, lambda name: name.endswith(("_duration", "_duration_z"))),
    "deployment": (_of_deployment, lambda name: name.startswith("deployment_")),
    "owner": (_of_owner, lambda name: name.startswith("owner_")),
    "site": (_of_site, lambda name: name.startswith("site_")),
    "queue": (_of_queue, lambda name: name.startswith("queue_")),
    "size": (_of_size, lambda name: name.startswith(("n_", "shape_"))),
    "time": (_of_time, lambda name: name.startswith(("hour_", "week"))),
}
"""The kinds of knowledge: how each is told, and its columns. A column belongs to the first kind that claims it."""


def columns_of(names: Sequence[str]) -> dict[str, list[int]]:
    """Return the places of the columns of each kind of knowledge."""
    found: dict[str, list[int]] = {kind: [] for kind in TOLD}
    for place, name in enumerate(names):
        kind = next((kind for kind, (_, claims) in TOLD.items() if claims(name)), None)
        if kind is not None:
            found[kind].append(place)
    return found


def reasons(
    attempts: Sequence[Attempt],
    counters: Counters,
    found: Features,
    served: Floats,
    models: FittedModels,
    mix: Mix,
) -> list[tuple[str, ...]]:
    """Return for each attempt the strongest reasons first, such as `raises it by 31 points: 5 failures in a row …`."""
    site = counters.of("site", "")
    usual = (site.failures + 0.25) / (site.ended + 5)
    kinds = columns_of(found.names) if models.logistic is not None else {"deployment": []}
    count = len(attempts)
    rows = np.tile(found.rows, (len(kinds), 1))
    rate, ewma = np.tile(found.rate, len(kinds)), np.tile(found.ewma, len(kinds))
    for place, (kind, columns) in enumerate(kinds.items()):
        part = slice(place * count, (place + 1) * count)
        rows[part, columns] = models.medians[columns]
        if kind == "deployment":
            rate[part] = ewma[part] = usual
    without = mix.chances(
        models.chances(Features(names=found.names, rows=rows, rate=rate, ewma=ewma))
    ).reshape(len(kinds), count)
    told = []
    for run, attempt in enumerate(attempts):
        changes = {kind: float(served[run] - without[place, run]) for place, kind in enumerate(kinds)}
        strongest = sorted(changes, key=lambda kind: -abs(changes[kind]))[:MOST]
        known = counters.of("deployment", attempt.deployment).ended > 0
        words = tuple(
            f"{'raises' if changes[kind] > 0 else 'lowers'} it by {abs(changes[kind]) * 100:.0f} points: "
            f"{TOLD[kind][0](attempt, counters, attempt.started)}"
            for kind in strongest
            if abs(changes[kind]) >= SMALLEST and (known or kind != "deployment")
        )
        if not known:
            words = (f"no ended run of this deployment yet; {usual:.0%} of all runs here fail", *words)[:MOST]
        told.append(words)
    return told


def ago(seconds: float) -> str:
    """Return a length of time in its largest whole unit."""
    for span, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= span:
            return f"{math.floor(seconds / span)} {name}"
    return f"{max(0, math.floor(seconds))} s"


def with_age(
    because: tuple[str, ...], attempt: Attempt, chance: float, before: float, now: datetime
) -> tuple[str, ...]:
    """Return the reasons, before them what the age of a running attempt changes."""
    points = round(abs(chance - before) * 100)
    if not points:
        return because
    direction = "raises" if chance > before else "lowers"
    told = f"{direction} it by {points} points: it has run for {ago(now.timestamp() - attempt.started)}"
    return (told, *because)[:MOST]
