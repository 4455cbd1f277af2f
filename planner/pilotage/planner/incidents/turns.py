"""Whose turn it is among the runs of one incident: one probe while the trouble lasts, waves once it gets through. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

ALONE = 3
"""So many runs of one incident are tried again without a probe; more wait for one."""
FIRST_WAVE = 5
"""Runs released for each that got through since the last failure."""
LARGEST_WAVE = 50
"""Never more under way at once, whatever got through: the shared thing has just come back."""
FIRST_PAUSE = timedelta(seconds=10)
"""Between the first failed probe and a probe by another run; four times as long after each further one."""
LONGEST_PAUSE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One further attempt of a run of the incident."""

    proposal_id: str
    run_id: str
    state: Literal["ready", "under_way", "helped", "failed"]
    """`ready`: allowed, and not admitted yet."""
    at: datetime
    """When it was filed, or, once it ended, when that was."""


def whose_turn(attempts: Sequence[Attempt], now: datetime) -> tuple[str, ...]:
    """Return the ids of the attempts that may be made now, of those that are ready, the oldest first."""
    ready = sorted(
        (one for one in attempts if one.state == "ready"), key=lambda one: (one.at, one.proposal_id)
    )
    if len({one.run_id for one in attempts}) <= ALONE:
        return tuple(one.proposal_id for one in ready)
    ended = sorted(
        (one for one in attempts if one.state in ("helped", "failed")),
        key=lambda one: (one.at, one.proposal_id),
    )
    last_failure = max((n for n, one in enumerate(ended) if one.state == "failed"), default=-1)
    through = len(ended) - 1 - last_failure
    under_way = sum(one.state == "under_way" for one in attempts)
    if through:
        room = min(LARGEST_WAVE, FIRST_WAVE * through) - under_way
        return tuple(one.proposal_id for one in ready[: max(0, room)])
    if under_way or not ready:
        return ()
    if not ended:
        return (ready[0].proposal_id,)
    # the run that probed last goes on with its own plan, whose delays are its own
    if own := [one for one in ready if one.run_id == ended[-1].run_id]:
        return (own[0].proposal_id,)
    failures = next((n for n, one in enumerate(reversed(ended)) if one.state == "helped"), len(ended))
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 4 ** min(failures - 1, 10))
    return (ready[0].proposal_id,) if now - ended[-1].at >= pause else ()
