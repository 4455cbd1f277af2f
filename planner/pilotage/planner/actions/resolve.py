"""Whether what a proposal names is there: runs, deployments, queues, parameters, and values of earlier runs.

Nothing that decides what is changed is taken from a model's own words: a target is one that the store knows, a
parameter one that runs of the deployment have, and a value what a person said or what an earlier run completed with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilotage.planner.actions.forms import BY_NAME, Aim, aim_of
from pilotage.telemetry.facts import RunFact, StateType
from pilotage.telemetry.harmless import harmless
from pilotage.telemetry.queries import fleet
from pilotage.telemetry.queries import runs as run_queries
from pilotage.telemetry.redaction import MASK
from pilotage.telemetry.store.protocol import Store

LOOKED_AT = 50
"""Ended runs of a deployment whose parameters are known as its own."""


class NotThere(Exception):  # control flow between these functions; callers get the reason as a value
    """What was named is not known, in words."""


def resolve_targets(store: Store, kind: str, fields: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The fields with every name made the id and every reference the value that it stands for, and why not if not.

    Raises StoreError when the store cannot be read.
    """
    try:
        return _settled(store, kind, dict(fields)), ""
    except NotThere as why:
        return {}, str(why)


def _settled(store: Store, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    match aim_of(kind):
        case Aim.RUN:
            run = run_queries.run(store, str(fields["run_id"]))
            if run is None:
                raise NotThere("the store does not know this run")
            if "queue" in fields:
                _known_queue(store, str(run.pool or ""), str(fields["queue"]))
            if "deployment_id" in fields:
                fields["deployment_id"] = _deployment(store, str(fields["deployment_id"]))
            for name in BY_NAME & set(fields):
                fields[name] = _values(store, run, name, fields[name])
        case Aim.DEPLOYMENT:
            fields["deployment_id"] = _deployment(store, str(fields["deployment_id"]))
        case Aim.QUEUE:
            for queue in ("queue", "busy_queue", "starved_queue"):
                if queue in fields:
                    _known_queue(store, str(fields["pool"]), str(fields[queue]))
        case Aim.LIMIT:
            match fields["scope"]:
                case "queue":
                    _known_queue(store, str(fields["pool"]), str(fields["name"]))
                case "pool":
                    _known_queue(store, str(fields["name"]), "")
                case "deployment":
                    fields["name"] = _deployment(store, str(fields["name"]))
                case _:  # the store has no list of tags and global limits: the API looks them up
                    pass
    return fields


def _deployment(store: Store, named: str) -> str:
    known = fleet.deployments(store)
    matches = [
        d for d in known if named.lower() == d.deployment_id or named in (d.name, f"{d.flow_name}/{d.name}")
    ]
    if len(matches) != 1:
        how = (
            "several deployments have this name; give the id"
            if matches
            else "no deployment has this id or name"
        )
        raise NotThere(f"{harmless(named, 80)}: {how}")
    return matches[0].deployment_id


def _known_queue(store: Store, pool: str, queue: str) -> None:
    seen = [q for q in run_queries.queue_snapshots(store) if q.pool == pool]
    if not seen:
        raise NotThere(f"no pool {harmless(pool, 80)!r} was seen")
    if queue and queue not in {q.queue for q in seen}:
        raise NotThere(f"no queue {harmless(queue, 80)!r} was seen in pool {harmless(pool, 80)}")


def _values(store: Store, run: RunFact, field: str, given: Any) -> Any:
    """The pairs with each reference to an earlier run replaced by what that run had."""
    if not isinstance(given, list) or not all(isinstance(change, Mapping) for change in given):
        return given  # the action itself says what is wrong with it
    if field == "changes":
        known = _parameters(store, run)
        if strange := [str(change.get("name")) for change in given if change.get("name") not in known]:
            has = ", ".join(sorted(known)) or "none"
            raise NotThere(
                f"no run of this deployment has a parameter {harmless(strange[0], 60)!r}; known are {harmless(has, 300)}"
            )
    return [
        {**change, "value": _value(store, run, str(change.get("name")), change.get("value"))}
        for change in given
    ]


def _parameters(store: Store, run: RunFact) -> set[str]:
    like = fleet.last_ended(store, run.deployment_id, LOOKED_AT) if run.deployment_id else []
    return {name for known_run in (run, *like) for name in known_run.parameters}


def _value(store: Store, run: RunFact, name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    earlier = run_queries.run(store, str(value.get("from_run", "")).lower())
    if earlier is None or earlier.deployment_id != run.deployment_id or earlier.deployment_id is None:
        raise NotThere(f"{name}: the run that its value is to be taken from is none of this deployment")
    if earlier.state_type is not StateType.COMPLETED:
        raise NotThere(f"{name}: the run that its value is to be taken from did not complete")
    default = earlier.parameters.get(name)
    if name not in earlier.parameters or MASK in str(default):
        raise NotThere(f"{name}: that run has no such parameter, or one that is kept secret")
    return default
