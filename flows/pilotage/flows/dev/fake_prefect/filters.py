"""Prefect's filters as tables: which fields and operators there are, and what each means for a row in memory.

What is not in a table is refused as Prefect refuses it, with 422; what Prefect knows and the fake does not is not in a
table either, so that a test finds out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pilotage.flows.dev.fake_prefect.records import Json, Run, TaskRun, moment_of
from pilotage.flows.dev.fake_prefect.tables import Tables

Test = Callable[[Any], bool]
"""Whether a row passes."""
Get = Callable[[Any], Any]
Operator = Callable[[Any, Any], bool]
"""Of a row's value and the filter's."""


class BadRequest(Exception):
    """A request that Prefect would answer with an error of its own."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def unprocessable(detail: str) -> BadRequest:
    """Return the error for a request that does not fit its schema."""
    return BadRequest(422, detail)


def _like(value: Any, pattern: Any) -> bool:
    if value is None:
        return False
    letters = (".*" if each == "%" else "." if each == "_" else re.escape(each) for each in f"%{pattern}%")
    return re.fullmatch("".join(letters), str(value), re.IGNORECASE | re.DOTALL) is not None


OPERATORS: Mapping[str, Operator] = {
    "any_": lambda value, wanted: value in wanted,
    "not_any_": lambda value, wanted: value not in wanted,
    "is_null_": lambda value, wanted: (value is None) is wanted,
    "before_": lambda value, wanted: value is not None and value <= wanted,
    "after_": lambda value, wanted: value is not None and value >= wanted,
    "like_": _like,
    "ge_": lambda value, wanted: value >= wanted,
    "le_": lambda value, wanted: value <= wanted,
    "eq_": lambda value, wanted: value == wanted,
}
OF_LISTS: Mapping[str, Operator] = {
    "all_": lambda value, wanted: set(wanted) <= set(value),
    "any_": lambda value, wanted: bool(set(wanted) & set(value)),
    "is_null_": lambda value, wanted: (not value) is wanted,
}
_MOMENTS = frozenset({"before_", "after_"})

Field = tuple[Get, frozenset[str]]
Spec = Mapping[str, "Field | Spec"]
"""By field, how to get it and which operators it has; or fields of its own."""

_ID = frozenset({"any_", "not_any_"})
_TIME = frozenset({"before_", "after_", "is_null_"})
_NAME = frozenset({"any_", "like_"})
_LIST = frozenset({"all_", "any_", "is_null_"})

_STATE: Spec = {
    "type": (lambda run: run.state.type, frozenset({"any_", "not_any_"})),
    "name": (lambda run: run.state.name, frozenset({"any_", "not_any_"})),
}


def run_spec(tables: Tables) -> Spec:
    """Return the fields of a `FlowRunFilter`."""
    return {
        "id": (lambda run: run.id, _ID),
        "name": (lambda run: run.name, _NAME),
        "tags": (lambda run: run.tags, _LIST),
        "deployment_id": (lambda run: run.deployment_id, frozenset({"any_", "is_null_"})),
        "work_queue_name": (
            lambda run: (tables.queue_of(run) or {}).get("name"),
            frozenset({"any_", "is_null_"}),
        ),
        "state": _STATE,
        "start_time": (lambda run: run.start_time, _TIME),
        "end_time": (lambda run: run.end_time, _TIME),
        "expected_start_time": (lambda run: run.expected_start_time, frozenset({"before_", "after_"})),
        "next_scheduled_start_time": (
            lambda run: run.next_scheduled_start_time,
            frozenset({"before_", "after_"}),
        ),
        "parent_flow_run_id": (tables.parent_of, frozenset({"any_"})),
        "parent_task_run_id": (lambda run: run.parent_task_run_id, frozenset({"any_", "is_null_"})),
        "idempotency_key": (lambda run: run.idempotency_key, _ID),
    }


def _of(key: str) -> Get:
    return lambda row: row.get(key)


TASK_RUN: Spec = {
    "id": (lambda run: run.id, frozenset({"any_"})),
    "name": (lambda run: run.name, _NAME),
    "tags": (lambda run: run.tags, frozenset({"all_", "is_null_"})),
    "state": {
        "type": (lambda task: task.states[-1].type if task.states else None, frozenset({"any_"})),
        "name": (lambda task: task.states[-1].name if task.states else None, frozenset({"any_"})),
    },
    "start_time": (lambda run: run.start_time, _TIME),
    "end_time": (lambda run: run.end_time, _TIME),
    "flow_run_id": (lambda run: run.flow_run_id, frozenset({"any_", "is_null_"})),
}
FLOW: Spec = {"id": (_of("id"), frozenset({"any_"})), "name": (_of("name"), _NAME)}
DEPLOYMENT: Spec = {
    "id": (_of("id"), _ID),
    "name": (_of("name"), _NAME),
    "paused": (_of("paused"), frozenset({"eq_"})),
    "tags": (_of("tags"), frozenset({"all_", "any_", "is_null_"})),
    "work_queue_name": (_of("work_queue_name"), frozenset({"any_"})),
}
POOL: Spec = {
    "id": (_of("id"), frozenset({"any_"})),
    "name": (_of("name"), frozenset({"any_"})),
    "type": (_of("type"), frozenset({"any_"})),
}
QUEUE: Spec = {
    "id": (_of("id"), frozenset({"any_"})),
    "name": (_of("name"), frozenset({"any_", "startswith_"})),
}
VARIABLE: Spec = {
    "id": (_of("id"), frozenset({"any_"})),
    "name": (_of("name"), _NAME),
    "tags": (_of("tags"), frozenset({"all_", "is_null_"})),
}
LOG: Spec = {
    "flow_run_id": (_of("flow_run_id"), frozenset({"any_"})),
    "task_run_id": (_of("task_run_id"), frozenset({"any_", "is_null_"})),
    "level": (_of("level"), frozenset({"ge_", "le_"})),
    "timestamp": (lambda line: moment_of(line["timestamp"]), frozenset({"before_", "after_"})),
}


def compiled(where: Json | None, spec: Spec, name: str) -> list[Test]:
    """Return one test for each criterion of a filter. Raises BadRequest for a field or operator that is not known."""
    tests: list[Test] = []
    for key, wanted in (where or {}).items():
        if key == "operator":
            if wanted != "and_":
                raise unprocessable(f"{name}.operator: the fake knows no {wanted!r}")
            continue
        if key not in spec:
            raise unprocessable(f"{name}.{key}: Extra inputs are not permitted")
        if wanted is None:
            continue
        known = spec[key]
        if isinstance(known, Mapping):
            tests += compiled(wanted, known, f"{name}.{key}")
        else:
            tests += _criteria(known[0], known[1], wanted, f"{name}.{key}")
    return tests


def _criteria(get: Get, operators: frozenset[str], wanted: Json, name: str) -> list[Test]:
    tests = []
    for key, value in wanted.items():
        if key == "operator":
            continue
        if key not in operators:
            raise unprocessable(f"{name}.{key}: Extra inputs are not permitted")
        if value is not None:
            tests.append(_criterion(get, key, value, name, lists="all_" in operators))
    return tests


def _criterion(get: Get, key: str, value: Any, name: str, *, lists: bool) -> Test:
    operator = (OF_LISTS if lists else OPERATORS)[key]
    if key in ("any_", "not_any_") and not lists:
        if not isinstance(value, list):
            raise unprocessable(f"{name}.{key}: Input should be a valid list")
        value = frozenset(value)
    if key in _MOMENTS:
        try:
            value = moment_of(value)
        except (TypeError, ValueError) as exc:
            raise unprocessable(f"{name}.{key}: Input should be a valid datetime") from exc
    return lambda row: operator(get(row), value)


def runs_like(tables: Tables, body: Json) -> list[Run]:
    """Return the runs that pass every filter of the body of a `/flow_runs/filter`."""
    where: Json = body.get("flow_runs") or {}
    tests = compiled(where, run_spec(tables), "flow_runs")
    deployments = compiled(body.get("deployments"), DEPLOYMENT, "deployments")
    flows = compiled(body.get("flows"), FLOW, "flows")
    pools = compiled(body.get("work_pools"), POOL, "work_pools")
    queues = compiled(body.get("work_pool_queues"), QUEUE, "work_pool_queues")

    def passes(run: Run) -> bool:
        queue = tables.queue_of(run)
        pool = tables.pools.get(queue["work_pool_name"]) if queue else None
        return (
            all(test(run) for test in tests)
            and _related(deployments, tables.deployments.get(run.deployment_id or ""))
            and _related(flows, tables.flows.get(run.flow_id))
            and _related(pools, pool)
            and _related(queues, queue)
        )

    return [run for run in _candidates(tables, where) if passes(run)]


def _related(tests: list[Test], row: Json | None) -> bool:
    return not tests or (row is not None and all(test(row) for test in tests))


def _candidates(tables: Tables, where: Json) -> list[Run]:
    """Return a small set of runs that has all which could pass."""

    def wanted(*path: str) -> list[str] | None:
        value: Any = where
        for key in (*path, "any_"):
            value = value.get(key) if isinstance(value, dict) else None
        return value if isinstance(value, list) else None

    if (ids := wanted("id")) is not None:
        return [tables.runs[each] for each in dict.fromkeys(ids) if each in tables.runs]
    if (keys := wanted("idempotency_key")) is not None:
        return [run for (_, key), run in tables.by_key.items() if key in keys]
    if (parents := wanted("parent_flow_run_id")) is not None:
        tasks = [task for parent in parents for task in tables.tasks_of.get(parent, {})]
        return [tables.by_parent_task[task] for task in tasks if task in tables.by_parent_task]
    if (deployments := wanted("deployment_id")) is not None:
        return [run for each in deployments for run in tables.by_deployment.get(each, {}).values()]
    if (types := wanted("state", "type")) is not None:
        return [run for each in dict.fromkeys(types) for run in tables.by_type.get(each, {}).values()]
    return list(tables.runs.values())


def task_runs_like(tables: Tables, body: Json) -> list[TaskRun]:
    """Return the task runs that pass every filter of the body of a `/task_runs/filter`."""
    tests = compiled(body.get("task_runs"), TASK_RUN, "task_runs")
    if flow_runs := body.get("flow_runs"):
        chosen = {run.id for run in runs_like(tables, {"flow_runs": flow_runs})}
        rows = [task for run_id in chosen for task in tables.tasks_of.get(run_id, {}).values()]
    else:
        rows = list(tables.task_runs.values())
    return [row for row in rows if all(test(row) for test in tests)]


SORTS: Mapping[str, tuple[Get, bool]] = {
    "ID_DESC": (lambda run: run.id, True),
    "START_TIME_ASC": (lambda run: run.start_time or run.expected_start_time, False),
    "START_TIME_DESC": (lambda run: run.start_time or run.expected_start_time, True),
    "EXPECTED_START_TIME_ASC": (lambda run: run.expected_start_time, False),
    "EXPECTED_START_TIME_DESC": (lambda run: run.expected_start_time, True),
    "NAME_ASC": (lambda run: run.name, False),
    "NAME_DESC": (lambda run: run.name, True),
    "NEXT_SCHEDULED_START_TIME_ASC": (lambda run: run.next_scheduled_start_time, False),
    "END_TIME_DESC": (lambda run: run.end_time, True),
}
"""How runs and task runs can be sorted, and whether backwards."""


def page_of(rows: list[Any], body: Json, sorts: Mapping[str, tuple[Get, bool]], default: str) -> list[Any]:
    """Return the page that a body asks for. Raises BadRequest for a limit or an order that Prefect refuses."""
    limit = PAGE if body.get("limit") is None else body["limit"]
    if not isinstance(limit, int) or limit < 0:
        raise unprocessable("Invalid limit: must be greater than or equal to 0.")
    if limit > PAGE:
        raise unprocessable(f"Invalid limit: must be less than or equal to {PAGE}.")
    order = body.get("sort") or default
    if order not in sorts:
        raise unprocessable(f"sort: Input should be one of {', '.join(sorts)}")
    get, backwards = sorts[order]
    # SQLite puts nothing before everything else
    rows = sorted(rows, key=lambda row: ((value := get(row)) is not None, value or 0), reverse=backwards)
    offset = int(body.get("offset") or 0)
    return rows[offset : offset + limit]


PAGE = 200
"""Rows in one page, and without a limit."""
