"""The bench as a whole: rounds of incidents under each arm, scored and put in one result."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pilotage.flows.bench.arms import ARMS, ArmName
from pilotage.flows.bench.round import HORIZON, WORLDS, Incident, Round, incidents_of, sources_in, world_class
from pilotage.flows.bench.score import Score, as_json, scores_of, table_of

ALONE = timedelta(minutes=2)
"""How long an incident is watched that has a server to itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked of the bench."""

    arms: tuple[ArmName, ...] = ARMS
    only: tuple[str, ...] = ()
    """Worlds, by the beginnings of their names; empty for all."""
    worlds: Path | None = None
    """A folder with worlds instead of the shipped ones."""
    seeds: tuple[int, ...] = (1,)
    untagged: bool = False
    """Whether there is a second set of everything that nobody has tagged."""
    simulated: bool = False
    jobs: int = 1
    """Rounds that are simulated at a time."""
    mode: str = "auto"
    """Of pilotage."""
    horizon: timedelta = HORIZON
    """How long a round is watched; stretched."""

    def incidents(self) -> tuple[Incident, ...]:
        """Return the incidents, one seed after another. Raises ConfigError when there are none."""
        sources = sources_in(self.worlds or WORLDS)
        tagged = tuple(incidents_of(sources, self.seeds, self.only))
        if not self.untagged:
            return tagged
        bare = tuple(Incident(source=each.source, seed=each.seed, tagged=False) for each in tagged)
        return tagged + bare


@dataclass(slots=True, kw_only=True)
class Result:
    """What came out."""

    simulated: bool
    scores: list[Score] = field(default_factory=list)
    requests: dict[str, int | None] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """By arm."""
    about: dict[str, Any] = field(default_factory=dict)
    """Versions, database, scale."""

    def as_json(self) -> dict[str, Any]:
        """Return the whole result as plain JSON."""
        tagged = [score for score in self.scores if score.tagged]
        bare = [score for score in self.scores if not score.tagged]
        return {
            "simulated": self.simulated,
            "incidents": len(self.scores),
            "arms": table_of(tagged, self.requests),
            "untagged": table_of(bare, {}),
            "seconds": self.seconds,
            "about": self.about,
            "scores": [as_json(score) for score in self.scores],
        }

    def write(self, path: Path) -> None:
        """Write the result as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n")


def about_worlds(folder: Path | None = None) -> list[tuple[str, str]]:
    """Return the names of the worlds of a folder, with a sentence each."""
    classes = [world_class(source) for source in sources_in(folder or WORLDS)]
    return [(each.name, each.about) for each in classes]


def run_bench(wanted: Wanted, *, say: Callable[[str], None]) -> Result:
    """Return what the bench found. Raises ConfigError for worlds that are not there, OrchestratorError for a server."""
    if wanted.simulated:
        return _simulated(wanted, say)
    return _real(wanted, say)


def rounds_of(wanted: Wanted) -> list[Round]:
    """Return a round for each seed: that many incidents happen on one server at one time. Some are for themselves.

    What nobody has tagged has rounds of its own, so that it changes nothing for the others.
    """
    incidents = wanted.incidents()
    together = [
        tuple(each for each in incidents if each.seed == seed and each.tagged is tagged and not each.alone)
        for tagged in (True, False)
        for seed in wanted.seeds
    ]
    rounds = [Round(incidents=each, horizon=wanted.horizon, mode=wanted.mode) for each in together if each]
    short = min(wanted.horizon, ALONE)
    return rounds + [
        Round(incidents=(each,), horizon=short, mode=wanted.mode) for each in incidents if each.alone
    ]


def simulate(played: Round, arm: ArmName) -> tuple[list[Score], int, float]:
    """Return the scores of one simulated round, the requests to Prefect in it and the seconds that it took."""
    from pilotage.flows.bench.simulated import play

    began = time.monotonic()
    outcome = play(played, arm)
    return scores_of(outcome, arm), outcome.requests or 0, time.monotonic() - began


def _simulated(wanted: Wanted, say: Callable[[str], None]) -> Result:
    result = Result(simulated=True)
    work = [(arm, played) for arm in wanted.arms for played in rounds_of(wanted)]
    with _executor(wanted.jobs, len(work)) as executor:
        pending: list[tuple[ArmName, Future[tuple[list[Score], int, float]]]] = [
            (arm, executor.submit(simulate, played, arm)) for arm, played in work
        ]
        for arm, future in pending:
            scores, requests, seconds = future.result()
            result.scores += scores
            # they stand beside the tagged set in the table
            result.requests[arm] = (result.requests.get(arm) or 0) + (requests if scores[0].tagged else 0)
            result.seconds[arm] = round(result.seconds.get(arm, 0.0) + seconds, 1)
            say(f"{arm}: {len(scores)} incidents in {seconds:.1f} s")
    return result


def _one_real(played: Round, arm: ArmName, database: str) -> tuple[list[Score], float, dict[str, Any]]:
    from pilotage.flows.bench.real import play  # start-up time: Prefect

    return play(played, arm, database=database, say=lambda text: print(text, file=sys.stderr, flush=True))


def _real(wanted: Wanted, say: Callable[[str], None]) -> Result:
    from pilotage.flows.bench.postgres import cluster

    result = Result(simulated=False)
    work = [(arm, number, played) for number, played in enumerate(rounds_of(wanted)) for arm in wanted.arms]
    with cluster() as postgres, _executor(wanted.jobs, len(work)) as executor:
        result.about["database"] = f"PostgreSQL {postgres.version}" if postgres else "SQLite"
        say(f"Prefect on {result.about['database']}, {wanted.jobs} arm(s) at a time")
        pending = [
            (
                arm,
                executor.submit(
                    _one_real, played, arm, postgres.database(f"{arm}_{number}") if postgres else ""
                ),
            )
            for arm, number, played in work
        ]
        for arm, future in pending:
            scores, seconds, about = future.result()
            result.scores += scores
            result.requests[arm] = None
            result.seconds[arm] = round(result.seconds.get(arm, 0.0) + seconds, 1)
            result.about.setdefault("scale", {})[arm] = about["scale"]
            say(f"{arm}: {len(scores)} incidents in {seconds:.0f} s")
    return result


class _Here(Executor):
    """Does the work at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as exc:
            future.set_exception(exc)
        return future


@contextmanager
def _executor(jobs: int, rounds: int) -> Iterator[Executor]:
    if min(jobs, rounds) < 2:
        yield _Here()
        return
    executor = ProcessPoolExecutor(min(jobs, rounds), mp_context=get_context("spawn"))
    try:
        yield executor
    except BaseException:
        # rounds that are under way would be waited for, for minutes; what they started ends with them
        for process in list((executor._processes or {}).values()):
            process.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def parsed_arms(text: str) -> tuple[ArmName, ...]:
    """Return the arms that a list with commas names. Raises ValueError for one that there is not."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in ARMS]:
        raise ValueError(f"there is no arm {unknown[0]!r}; there are {', '.join(ARMS)}")
    return tuple(arm for arm in ARMS if arm in names) or ARMS


def seeds_of(count: int, first: int = 1) -> Sequence[int]:
    """Return so many seeds."""
    return range(first, first + count)
