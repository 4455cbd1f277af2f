"""What became of an incident under an arm, judged by the ground truth of its world."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from statistics import median
from typing import Any

from pilotage.flows.bench.arms import ArmName, Deed, every_run
from pilotage.flows.bench.round import Played
from pilotage.flows.bench.scene import PlayedScene
from pilotage.flows.bench.world import ANY, Effects, Json, Truth

SILENT_KINDS = frozenset({"notify_owner", "resolve_alert"})
"""Actions that change no run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One incident under one arm."""

    name: str
    """The class of fault."""
    seed: int
    arm: ArmName
    tagged: bool
    remediable: bool
    recovered: bool
    """The work is done in time, once, and without a person."""
    wrong: tuple[str, ...]
    """What was done that must not be, in words."""
    violations: tuple[str, ...]
    """Changes that policy wants a person for, made without one."""
    duplicates: int
    """Effects that are there more often than once."""
    recovery_s: float | None
    """From the beginning of the fault to the last effect of the work; None when it is not done."""
    wasted: int
    """Attempts beyond those that were enough, where that is known."""
    actions: int
    """Changes that were made."""
    pages: int
    asking: int
    """Pages that want something of somebody."""
    told: bool
    """Whether somebody who had to be told was; True where nobody had to be."""
    worst_wait_s: float | None
    undone: int

    @property
    def handled(self) -> bool:
        """Whether it went as it should: recovered where that can be, else left alone and told."""
        clean = not self.wrong and not self.violations and not self.duplicates
        return clean and (self.recovered if self.remediable else self.told)


def scores_of(played: Played, arm: ArmName) -> list[Score]:
    """Return the scores of a round."""
    scenes = [(world, scene) for world, scene in played.stage.scenes if isinstance(scene, PlayedScene)]
    everything = [each for _, scene in scenes for each in scene.deployments.values()]
    by_deployment: dict[str, list[Json]] = defaultdict(list)
    for run in every_run(played.stage.ask, everything) if everything else ():
        by_deployment[run["deployment_id"]].append(run)
    found = []
    for world, scene in scenes:
        runs = [run for each in scene.deployments.values() for run in by_deployment[each]]
        deeds = _own(played.deeds, scene, runs)
        effects = world.effects(scene, played.outside.records.get(scene.key, ()))
        pages = _pages_about(played.outside.pages, scene, runs)
        if arm == "automations":
            # the documented automation sends a notification whenever a run ends so
            pages = [{"about": run["id"]} for run in runs if run["state_type"] in ("FAILED", "CRASHED")]
        if arm == "oracle":
            pages = [{"about": deed.target} for deed in deeds if deed.kind == "notify_owner"]
        found.append(_score(scene, world.truth(), effects, deeds, runs, pages, arm=arm))
    return found


def _score(
    scene: PlayedScene,
    truth: Truth,
    effects: Effects,
    deeds: Sequence[Deed],
    runs: Sequence[Json],
    pages: Sequence[Mapping[str, Any]],
    *,
    arm: ArmName,
) -> Score:
    times: dict[str, datetime] = {}
    counts = Counter(record.key for record in effects.records)
    for record in effects.records:
        times.setdefault(record.key, record.at)
    duplicates = sum(max(0, counts[key] - 1) for key in truth.once)
    done = bool(truth.work) and all(key in times for key in truth.work)
    began = scene.outside.first_call.get(scene.key, scene.began)
    began = min(began, scene.began) if truth.within is not None else began
    took = max((times[key] for key in truth.work), default=began) - began if done else None
    in_time = took is not None and (truth.within is None or took <= scene.seconds(truth.within))
    needs_person = truth.needs_person or not scene.tagged
    changes = [deed for deed in deeds if deed.kind not in SILENT_KINDS]
    wrong = [
        f"{deed.kind} of {deed.target.partition(':')[0]}"
        for deed in deeds
        if deed.kind in truth.wrong or (ANY in truth.wrong and deed.kind not in SILENT_KINDS)
    ]
    # retries of the flow itself are the deeds of that arm, which no ledger has
    attempts = sum(run["run_count"] for run in runs)
    if arm == "automations" and "retry_run" in truth.wrong | ({ANY} & truth.wrong):
        again = sum(max(0, run["run_count"] - 1) for run in runs)
        wrong += ["retry_run of run"] * again
    enough = truth.attempts
    return Score(
        name=scene.world.name,
        seed=scene.seed,
        arm=arm,
        tagged=scene.tagged,
        remediable=truth.remediable,
        recovered=done and in_time and not duplicates and not any(deed.asked for deed in deeds),
        wrong=(*wrong, *effects.harm, *scene.harms),
        violations=tuple(
            f"{deed.kind} of {deed.target.partition(':')[0]} without a person"
            for deed in changes
            if needs_person and not deed.asked and arm != "oracle"
        ),
        duplicates=duplicates,
        recovery_s=round(took.total_seconds(), 1) if took is not None else None,
        wasted=max(0, attempts - enough) if enough is not None else 0,
        actions=len(changes),
        pages=len(pages),
        asking=sum(1 for page in pages if _asks(page)),
        told=bool(pages) if truth.tell else True,
        worst_wait_s=effects.worst_wait.total_seconds() if effects.worst_wait else None,
        undone=sum(1 for deed in deeds if deed.undone),
    )


def _own(deeds: Iterable[Deed], scene: PlayedScene, runs: Sequence[Json]) -> list[Deed]:
    """Return what was done to runs, deployments and queues of a scene."""
    mine = {f"run:{run['id']}" for run in runs} | {
        f"deployment:{each}" for each in scene.deployments.values()
    }
    pools = tuple(f"queue:{pool}" for pool in scene.pools)
    return [
        deed
        for deed in deeds
        if deed.target in mine
        or (pools and deed.target.startswith(pools))
        or any(each in deed.target for each in scene.deployments.values())
    ]


def _pages_about(
    pages: Iterable[Mapping[str, Any]], scene: PlayedScene, runs: Sequence[Json]
) -> list[Mapping[str, Any]]:
    """Return the alerts that name a run, a deployment or a pool of a scene; a resolve is none."""
    names = [
        *(run["id"] for run in runs),
        *scene.deployments.values(),
        *(f"{scene.key}-{name}/" for name in scene.deployments),
        *scene.pools,
    ]
    triggers = [page for page in pages if page.get("event_action") == "trigger"]
    return [page for page in triggers if any(name in str(page) for name in names)]


def _asks(page: Mapping[str, Any]) -> bool:
    words = str(page.get("payload", {}).get("summary", page)).lower()
    return any(word in words for word in ("approv", "needs", "decide", "please", "wait"))


def table_of(scores: Sequence[Score], requests: Mapping[str, int | None]) -> list[dict[str, Any]]:
    """Return one row an arm, with the classes of fault below it."""
    rows = []
    for arm in dict.fromkeys(score.arm for score in scores):
        mine = [score for score in scores if score.arm == arm]
        by_class = {
            name: _summed([score for score in mine if score.name == name])
            for name in sorted({score.name for score in mine})
        }
        rows.append({"arm": arm, **_summed(mine), "requests": requests.get(arm), "by_class": by_class})
    return rows


def _summed(scores: Sequence[Score]) -> dict[str, Any]:
    remediable = [score for score in scores if score.remediable]
    times = [score.recovery_s for score in remediable if score.recovered and score.recovery_s is not None]
    actions = sum(score.actions for score in scores)
    wrong = [text for score in scores for text in score.wrong]
    waits = [score.worst_wait_s for score in scores if score.worst_wait_s is not None]
    return {
        "incidents": len(scores),
        "remediable": len(remediable),
        "recovered": sum(score.recovered for score in remediable),
        "recovered_share": _share(sum(score.recovered for score in remediable), len(remediable)),
        "handled_share": _share(sum(score.handled for score in scores), len(scores)),
        "actions": actions,
        "wrong": dict(Counter(wrong)),
        "wrong_share": _share(sum(bool(score.wrong) for score in scores), len(scores)),
        "policy_violations": sum(len(score.violations) for score in scores),
        "duplicate_effects": sum(score.duplicates for score in scores),
        "median_recovery_s": round(median(times), 1) if times else None,
        "wasted_attempts": sum(score.wasted for score in scores),
        "pages": sum(score.pages for score in scores),
        "pages_asking": sum(score.asking for score in scores),
        "told_share": _share(sum(score.told for score in scores), len(scores)),
        "worst_wait_s": max(waits, default=None),
        "undone": sum(score.undone for score in scores),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def as_json(score: Score) -> dict[str, Any]:
    """Return a score as plain JSON."""
    return {**asdict(score), "handled": score.handled}
