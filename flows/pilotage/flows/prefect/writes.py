"""The requests by which Prefect is changed, as values: a lever declares which of them it sends, and for what.

A `Write` fits a request by method, route and the fields of its body, and admits it when what it names is within a
`Reach`: the target of one action, and what Prefect itself says belongs to that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from pilotage.telemetry.facts import StateType


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request."""

    method: str
    parts: tuple[str, ...]
    """The segments of its path below `/api`, decoded."""
    body: Any = None
    """From JSON."""


@dataclass(slots=True, kw_only=True)
class Reach:
    """What the writes of one action may be about."""

    keys: frozenset[str] = frozenset()
    """The idempotency keys of the delivery and of its undo."""
    runs: set[str] = field(default_factory=set)
    deployments: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    """Deployments of which a run may be made."""
    queues: set[tuple[str, str]] = field(default_factory=set)
    """Pool and queue; the queue is empty for a whole pool."""
    limits: frozenset[str] = frozenset()
    """Concurrency limits by the names that Prefect has for them."""
    leases: set[str] = field(default_factory=set)
    task_runs: set[str] = field(default_factory=set)
    """Those that the delivery made itself."""
    below: bool = False
    """Whether the runs that a run started are part of it."""
    hold_key: Callable[[str, str], frozenset[str]] = lambda pool, queue: frozenset()
    """The keys under which a delivery holds this queue."""
    all_holds: bool = False
    """Whether every queue is within reach that a note of a delivery says is held."""

    def learn(self, asked: Asked, reply: Any) -> None:
        """Widen it by what this reply of Prefect says belongs to what is within."""
        match asked.method, asked.parts:
            case "GET", ("flow_runs", run_id) if run_id in self.runs:
                self._take(reply)
            case "POST", ("flow_runs", "filter") if self._within(_field(asked.body, "flow_runs")):
                for row in reply:
                    self._take(row)
            case "POST", ("deployments", _, "create_flow_run"):
                self._take(reply)
            case "POST", ("task_runs",):
                self.task_runs.add(str(reply["id"]))
            case "GET", ("variables", "name", _):
                self._note(reply)
            case "POST", ("variables", "filter"):
                for row in reply:
                    self._note(row)

    def _take(self, row: Mapping[str, Any]) -> None:
        self.runs.add(str(row["id"]))
        self.sources.add(str(row.get("deployment_id") or ""))
        if row.get("work_queue_name"):
            self.queues.add((str(row.get("work_pool_name") or ""), str(row["work_queue_name"])))
        details = _field(row.get("state"), "state_details") or {}
        if lease := details.get("deployment_concurrency_lease_id"):
            self.leases.add(str(lease))

    def _within(self, where: Any) -> bool:
        """Whether every run that this filter finds belongs to what is within reach."""
        if not isinstance(where, Mapping) or where.get("operator") == "or_":
            return False
        parents = self.runs if self.below else set()
        return any(
            _all_in(_field(where.get(name), "any_"), allowed)
            for name, allowed in (
                ("id", self.runs),
                ("deployment_id", self.deployments),
                ("parent_flow_run_id", parents),
                ("idempotency_key", self.keys),
            )
        )

    def _note(self, row: Mapping[str, Any]) -> None:
        """Take the queue of a hold that this delivery left: the note's name has its key, or one made from key and queue."""
        purpose, key = _note_name(str(row.get("name", "")))
        value = row.get("value")
        if purpose != "hold" or not isinstance(value, Mapping):
            return
        pool, queue = str(value.get("pool", "")), str(value.get("queue", ""))
        if self.all_holds or key in self.hold_key(pool, queue):
            self.queues.add((pool, queue))


Purpose = Literal[
    "hold", "reserve", "pause", "edit", "parameters", "priority", "limit", "queue", "waves", "slots", "alert"
]
"""What a note is for that a lever leaves in Prefect."""

Check = Callable[[Mapping[str, str], Any, Reach], bool]
"""Whether what a request names is within reach: the names of its path, its body, the reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One request that changes Prefect."""

    method: str
    route: str
    """With names in braces, such as `/flow_runs/{run}/labels`."""
    fields: frozenset[str] | None = frozenset()
    """What its body may have at the top; None for anything that `within` admits."""
    within: Check
    verifying: bool = False
    """Whether it is sent while a change is verified, too."""

    def admits(self, asked: Asked, reach: Reach) -> bool:
        """Whether this is the request, about something within reach."""
        names = self._names(asked)
        return names is not None and self._fits(asked.body) and self.within(names, asked.body, reach)

    def _names(self, asked: Asked) -> dict[str, str] | None:
        wanted = self.route.strip("/").split("/")
        if asked.method != self.method or len(wanted) != len(asked.parts):
            return None
        names = {}
        for part, given in zip(wanted, asked.parts, strict=True):
            if part.startswith("{"):
                names[part.strip("{}")] = given
            elif part != given:
                return None
        return names

    def _fits(self, body: Any) -> bool:
        if self.fields is None:
            return True
        return body is None or (isinstance(body, Mapping) and set(body) <= self.fields)


def set_state(*types: StateType) -> Write:
    """Return the guarded write of a state of one of these types, for runs that are named by id. Never by force."""

    def within(names: Mapping[str, str], body: Any, reach: Reach) -> bool:
        state, where = body.get("state") or {}, body.get("flow_runs") or {}
        return (
            body.get("force") is False
            and state.get("type") in {each.value for each in types}
            and where.get("operator") != "or_"
            and _all_in(_field(where.get("id"), "any_"), reach.runs)
        )

    fields = frozenset({"flow_runs", "state", "force", "limit"})
    return Write(method="POST", route="/flow_runs/bulk_set_state", fields=fields, within=within)


def edit_run(*fields: str) -> Write:
    """Return the replacement of these fields of a run."""
    return Write(method="PATCH", route="/flow_runs/{run}", fields=frozenset(fields), within=_run)


def label_run() -> Write:
    """Return the labels of a run."""
    return Write(method="PATCH", route="/flow_runs/{run}/labels", fields=None, within=_run)


def input_run() -> Write:
    """Return the input of a run."""
    fields = frozenset({"key", "value", "sender"})
    return Write(method="POST", route="/flow_runs/{run}/input", fields=fields, within=_run)


def withdraw_input() -> Write:
    """Return the deletion of an input of a run."""
    return Write(method="DELETE", route="/flow_runs/{run}/input/{key}", within=_run)


def create_run(*fields: str) -> Write:
    """Return the making of a run, under an idempotency key."""
    return Write(
        method="POST",
        route="/deployments/{deployment}/create_flow_run",
        fields=frozenset({"idempotency_key", *fields}),
        within=lambda names, body, reach: (
            bool(body.get("idempotency_key")) and names["deployment"] in reach.sources | reach.deployments
        ),
    )


def own_task_run() -> tuple[Write, ...]:
    """Return the making and the end of a task run of pilotage's own in a run."""
    fields = frozenset({"flow_run_id", "name", "task_key", "dynamic_key", "state"})
    return (
        Write(
            method="POST",
            route="/task_runs",
            fields=fields,
            within=lambda names, body, reach: (
                body.get("flow_run_id") in reach.runs
                and str(body.get("task_key", "")).startswith("pilotage.")
            ),
        ),
        Write(
            method="POST",
            route="/task_runs/{task_run}/set_state",
            fields=frozenset({"state", "force"}),
            within=lambda names, body, reach: (
                names["task_run"] in reach.task_runs and body.get("force") is False
            ),
        ),
    )


def edit_queue(*fields: str) -> Write:
    """Return the replacement of these fields of a queue."""
    return Write(
        method="PATCH",
        route="/work_pools/{pool}/queues/{queue}",
        fields=frozenset(fields),
        within=lambda names, body, reach: (names["pool"], names["queue"]) in reach.queues,
    )


def rank_queues() -> Write:
    """Return the rank of any queue of a pool: ranks are unique, so one change moves its neighbours."""
    return Write(
        method="PATCH",
        route="/work_pools/{pool}/queues/{queue}",
        fields=frozenset({"priority"}),
        within=lambda names, body, reach: any(pool == names["pool"] for pool, _ in reach.queues),
    )


def edit_pool(*fields: str) -> Write:
    """Return the replacement of these fields of a pool."""
    return Write(
        method="PATCH",
        route="/work_pools/{pool}",
        fields=frozenset(fields),
        within=lambda names, body, reach: (names["pool"], "") in reach.queues,
    )


def edit_limit() -> Write:
    """Return the size of a concurrency limit."""
    return Write(
        method="PATCH",
        route="/v2/concurrency_limits/{limit}",
        fields=frozenset({"limit"}),
        within=lambda names, body, reach: names["limit"] in reach.limits,
    )


def give_slots_back() -> tuple[Write, ...]:
    """Return the release of a tag's slot in the name of its holder, and of so many slots of a deployment."""

    def within(names: Mapping[str, str], body: Any, reach: Reach) -> bool:
        return _all_in(body.get("names"), reach.limits)

    return (
        Write(
            method="POST",
            route="/concurrency_limits/decrement",
            fields=frozenset({"names", "task_run_id"}),
            within=lambda names, body, reach: (
                bool(body.get("task_run_id"))
                and _all_in([f"tag:{name}" for name in body.get("names") or ()], reach.limits)
            ),
        ),
        Write(
            method="POST",
            route="/v2/concurrency_limits/decrement",
            fields=frozenset({"names", "slots"}),
            within=within,
        ),
    )


def renew_lease() -> Write:
    """Return the renewal of the lease of a run's slot, which is how it is asked whether it stands."""
    return Write(
        method="POST",
        route="/v2/concurrency_limits/leases/{lease}/renew",
        fields=frozenset({"lease_duration"}),
        within=lambda names, body, reach: names["lease"] in reach.leases,
    )


def switch_deployment() -> tuple[Write, ...]:
    """Return the pause of a deployment, and its way back."""

    def within(names: Mapping[str, str], body: Any, reach: Reach) -> bool:
        return names["deployment"] in reach.deployments and not body

    steps = ("pause_deployment", "resume_deployment", "schedule")
    return tuple(
        Write(method="POST", route=f"/deployments/{{deployment}}/{step}", within=within) for step in steps
    )


def keep_note(*purposes: Purpose) -> tuple[Write, ...]:
    """Return the writing, changing and deleting of pilotage's own notes, each a Prefect variable."""

    def within(names: Mapping[str, str], body: Any, reach: Reach) -> bool:
        named = names.get("name") or str(_field(body, "name") or "")
        return _note_name(named)[0] in purposes

    return (
        Write(method="PATCH", route="/variables/name/{name}", fields=frozenset({"value"}), within=within),
        Write(method="POST", route="/variables", fields=frozenset({"name", "value", "tags"}), within=within),
        Write(method="DELETE", route="/variables/name/{name}", within=within),
    )


def own_events() -> Write:
    """Return the sending of events whose names are pilotage's own."""

    def within(names: Mapping[str, str], body: Any, reach: Reach) -> bool:
        return isinstance(body, list) and all(
            str(_field(event, "event") or "").startswith("pilotage.") for event in body
        )

    return Write(method="POST", route="/events", fields=None, within=within, verifying=True)


def artifact() -> Write:
    """Return the writing of an artifact under a key of pilotage's own."""
    return Write(
        method="POST",
        route="/artifacts",
        fields=frozenset({"key", "type", "description", "data", "flow_run_id"}),
        within=lambda names, body, reach: str(body.get("key", "")).startswith("pilotage-"),
    )


def _run(names: Mapping[str, str], body: Any, reach: Reach) -> bool:
    return names["run"] in reach.runs


def _all_in(given: Any, allowed: frozenset[str] | set[str]) -> bool:
    """Whether something is given, and nothing that is not allowed."""
    return isinstance(given, Sequence) and bool(given) and all(each in allowed for each in given)


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _note_name(name: str) -> tuple[str, str]:
    """The purpose and the key of a note of pilotage's, or two empty texts."""
    prefix, _, rest = name.partition("_")
    purpose, _, key = rest.partition("_")
    try:
        UUID(key)
    except ValueError:
        return "", ""
    return (purpose, key) if prefix == "pilotage" else ("", "")
