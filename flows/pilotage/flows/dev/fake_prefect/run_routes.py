"""Routes about flow runs, task runs and their inputs."""

from __future__ import annotations

from pilotage.flows.dev.fake_prefect.calls import NO_CONTENT, Call, Reply, Route
from pilotage.flows.dev.fake_prefect.engine import not_found, policy_from, proposed_from
from pilotage.flows.dev.fake_prefect.filters import (
    SORTS,
    BadRequest,
    page_of,
    runs_like,
    task_runs_like,
    unprocessable,
)
from pilotage.flows.dev.fake_prefect.records import Json, Run, TaskRun
from pilotage.flows.dev.fake_prefect.rules import Proposed

BULK = 50
"""Runs that one call moves at most."""
_CREATED = (
    "state",
    "name",
    "parameters",
    "context",
    "infrastructure_document_id",
    "empirical_policy",
    "tags",
)
_OF_DEPLOYMENT = (
    *_CREATED,
    *("enforce_parameter_schema", "idempotency_key", "labels", "parent_task_run_id", "work_queue_name"),
    "job_variables",
)
_OF_FLOW = (
    *_CREATED,
    *("flow_id", "flow_version", "parent_task_run_id", "labels", "idempotency_key", "work_pool_name"),
    *("work_queue_name", "job_variables", "deployment_id"),
)
_UPDATED = ("name", "flow_version", "parameters", "empirical_policy", "tags", "infrastructure_pid")


def reply_of(call: Call, run: Run) -> Json:
    """Return a run as JSON."""
    return run.reply(call.tables.queue_of(run))


def _run(call: Call) -> Run:
    if (run := call.tables.runs.get(call.path["id"])) is None:
        raise not_found("Flow run")
    return run


def read_run(call: Call) -> Reply:
    return Reply(200, reply_of(call, _run(call)))


def read_states(call: Call) -> Reply:
    run = call.tables.runs.get(call.query.get("flow_run_id", ""))
    return Reply(200, [state.reply() for state in run.states] if run else [])


def filter_runs(call: Call) -> Reply:
    page = page_of(runs_like(call.tables, call.json), call.json, SORTS, "ID_DESC")
    return Reply(200, [reply_of(call, run) for run in page])


def list_runs_without_parameters(call: Call) -> Reply:
    """Answer what Prefect's own page draws its dots from."""
    page = page_of(runs_like(call.tables, call.json), call.json, SORTS, "EXPECTED_START_TIME_DESC")
    return Reply(200, [{"id": run.id, "state_type": run.state.type} for run in page])


def count_runs(call: Call) -> Reply:
    return Reply(200, len(runs_like(call.tables, call.json)))


def create_run(call: Call) -> Reply:
    body = call.fields(*_OF_FLOW, required=["flow_id"])
    if body["flow_id"] not in call.tables.flows:
        raise BadRequest(409, "Data integrity conflict: there is no such flow")
    queue_id = None
    if pool := body.get("work_pool_name"):
        queue_id = queue_id_of(call, pool, body.get("work_queue_name") or "default")
    first = proposed_from(body["state"]) if body.get("state") else Proposed(type="PENDING", name="Pending")
    run = _made(call, body, body["flow_id"], body.get("deployment_id"), queue_id)
    return _created(call, run, first)


def create_run_of_deployment(call: Call) -> Reply:
    deployment = call.tables.deployments.get(call.path["id"])
    if deployment is None:
        raise not_found("Deployment")
    body = call.fields(*_OF_DEPLOYMENT)
    queue_id = deployment["work_queue_id"]
    if wanted := body.get("work_queue_name"):
        queue_id = queue_id_of(call, deployment["work_pool_name"], wanted)
    first = proposed_from(body.get("state") or {"type": "SCHEDULED"})
    parameters = {**deployment["parameters"], **(body.get("parameters") or {})}
    tags = sorted({*deployment["tags"], *(body.get("tags") or ())})
    run = _made(
        call,
        {**body, "parameters": parameters, "tags": tags, "job_variables": body.get("job_variables") or {}},
        deployment["flow_id"],
        deployment["id"],
        queue_id,
    )
    return _created(call, run, first)


def _made(call: Call, body: Json, flow_id: str, deployment_id: str | None, queue_id: str | None) -> Run:
    run_id = call.tables.new_id(call.now)
    return Run(
        id=run_id,
        name=body.get("name") or f"run-{run_id[-6:]}",
        flow_id=flow_id,
        deployment_id=deployment_id,
        work_queue_id=queue_id,
        parameters=dict(body.get("parameters") or {}),
        tags=list(body.get("tags") or ()),
        labels={**system_labels(flow_id, deployment_id), **(body.get("labels") or {})},
        job_variables=body.get("job_variables"),
        policy=policy_from(body.get("empirical_policy")),
        idempotency_key=body.get("idempotency_key"),
        parent_task_run_id=body.get("parent_task_run_id"),
        created=call.now,
        updated=call.now,
    )


def system_labels(flow_id: str, deployment_id: str | None) -> Json:
    """Return the labels that Prefect gives every run."""
    return {"prefect.flow.id": flow_id} | ({"prefect.deployment.id": deployment_id} if deployment_id else {})


def _created(call: Call, made: Run, first: Proposed) -> Reply:
    run = call.engine.new_run(made, first, call.now)
    return Reply(201 if run is made else 200, reply_of(call, run))


def queue_id_of(call: Call, pool: str, queue: str) -> str:
    """Return the id of a queue. Raises BadRequest when there is none."""
    for each in call.tables.queues_of(pool):
        if each["name"] == queue:
            return str(each["id"])
    raise not_found(f"Work pool queue '{pool}/{queue}'")


def update_run(call: Call) -> Reply:
    body = call.fields(*_UPDATED, "job_variables")
    run = _run(call)
    if body.get("job_variables") is not None:
        if run.state.type != "SCHEDULED":
            raise BadRequest(400, f"Job variables for a flow run in state {run.state.type} cannot be updated")
        if run.deployment_id not in call.tables.deployments:
            raise BadRequest(400, "A deployment for the flow run could not be found")
        run.job_variables = body["job_variables"]
    if "parameters" in body:
        run.parameters = body["parameters"]
    if "tags" in body:
        run.tags = list(body["tags"])
    if "empirical_policy" in body:
        run.policy = policy_from(body["empirical_policy"])
    run.name = body.get("name") or run.name
    run.infrastructure_pid = body.get("infrastructure_pid", run.infrastructure_pid)
    run.updated = call.now
    return NO_CONTENT


def update_labels(call: Call) -> Reply:
    run = _run(call)
    run.labels = run.labels | call.json
    return NO_CONTENT


def delete_run(call: Call) -> Reply:
    if not call.tables.drop_run(call.path["id"]):
        raise not_found("Flow run")
    return NO_CONTENT


def set_state(call: Call) -> Reply:
    run = call.tables.runs.get(call.path["id"])
    body = call.json
    proposed = proposed_from(body.get("state"))
    if run is None:
        raise not_found("Flow run")
    before = run.state
    answer = call.engine.answer(run, proposed, call.now, force=bool(body.get("force")))
    return Reply(200 if run.state is before else 201, answer)


def bulk_set_state(call: Call) -> Reply:
    body = call.json
    limit = body.get("limit", BULK)
    if not isinstance(limit, int) or not 1 <= limit <= BULK:
        raise unprocessable(f"limit: Input should be between 1 and {BULK}")
    matching = runs_like(call.tables, body)
    results = []
    for run in sorted(matching, key=lambda run: run.id)[:limit]:
        # a state for each: what a rule writes into it is not the next one's
        answer = call.engine.answer(
            run, proposed_from(body.get("state")), call.now, force=bool(body.get("force"))
        )
        results.append({"flow_run_id": run.id, **answer})
    proposed_from(body.get("state"))
    return Reply(200, {"results": results})


def resume(call: Call) -> Reply:
    run = _run(call)
    if run.state.type != "PAUSED":
        details = {"type": "abort_details", "reason": "Cannot resume a flow run that is not paused."}
        return Reply(200, {"state": None, "status": "ABORT", "details": details})
    if run.state.details.get("run_input_keyset"):
        raise BadRequest(501, "the fake resumes no run that waits for input: answer it by its steps")
    if run.state.details.get("pause_reschedule"):
        proposed = Proposed(type="SCHEDULED", name="Resuming")
    else:
        proposed = Proposed(type="RUNNING", name="Running")
    return Reply(201, call.engine.answer(run, proposed, call.now, force=False))


# -- inputs ---------------------------------------------------------------------------------------------------


def create_input(call: Call) -> Reply:
    body = call.json
    for name in ("key", "value"):
        if not isinstance(body.get(name), str):
            raise unprocessable(f"{name}: Field required")
    if call.path["id"] not in call.tables.runs:
        raise not_found("Flow run")
    inputs = call.tables.inputs[call.path["id"]]
    if body["key"] in inputs:
        raise BadRequest(409, "A flow run input with this key already exists.")
    inputs[body["key"]] = {
        "id": call.tables.new_id(call.now),
        "flow_run_id": call.path["id"],
        "key": body["key"],
        "value": body["value"],
        "sender": body.get("sender"),
    }
    return Reply(201)


def read_input(call: Call) -> Reply:
    stored = call.tables.inputs[call.path["id"]].get(call.path["key"])
    if stored is None:
        raise not_found("Flow run input")
    return Reply(200, text=stored["value"])


def delete_input(call: Call) -> Reply:
    if call.tables.inputs[call.path["id"]].pop(call.path["key"], None) is None:
        raise not_found("Flow run input")
    return NO_CONTENT


def filter_inputs(call: Call) -> Reply:
    body = call.json
    if "prefix" not in body:
        raise unprocessable("prefix: Field required")
    excluded = body.get("exclude_keys") or ()
    inputs = call.tables.inputs[call.path["id"]].values()
    matching = [
        each for each in inputs if each["key"].startswith(body["prefix"]) and each["key"] not in excluded
    ]
    return Reply(200, matching[: body.get("limit", 1)])


# -- task runs ------------------------------------------------------------------------------------------------


def _task(call: Call) -> TaskRun:
    if (task := call.tables.task_runs.get(call.path["id"])) is None:
        raise not_found("Task run")
    return task


def create_task_run(call: Call) -> Reply:
    for name in ("task_key", "dynamic_key"):
        if name not in call.json:
            raise unprocessable(f"{name}: Field required")
    task = call.engine.new_task_run(call.json, call.now)
    return Reply(201 if task.created == call.now else 200, task.reply())


def read_task_run(call: Call) -> Reply:
    return Reply(200, _task(call).reply())


def filter_task_runs(call: Call) -> Reply:
    page = page_of(task_runs_like(call.tables, call.json), call.json, SORTS, "ID_DESC")
    return Reply(200, [task.reply() for task in page])


def set_task_state(call: Call) -> Reply:
    proposed = proposed_from(call.json.get("state"))
    return Reply(201, call.engine.answer_task(_task(call), proposed, call.now))


ROUTES: tuple[Route, ...] = (
    ("GET", "/flow_runs/{id}", read_run),
    ("GET", "/flow_run_states", read_states),
    ("POST", "/flow_runs", create_run),
    ("POST", "/flow_runs/filter", filter_runs),
    ("POST", "/flow_runs/count", count_runs),
    ("POST", "/ui/flow_runs/history", list_runs_without_parameters),
    ("POST", "/flow_runs/bulk_set_state", bulk_set_state),
    ("PATCH", "/flow_runs/{id}", update_run),
    ("PATCH", "/flow_runs/{id}/labels", update_labels),
    ("DELETE", "/flow_runs/{id}", delete_run),
    ("POST", "/flow_runs/{id}/set_state", set_state),
    ("POST", "/flow_runs/{id}/resume", resume),
    ("POST", "/flow_runs/{id}/input", create_input),
    ("POST", "/flow_runs/{id}/input/filter", filter_inputs),
    ("GET", "/flow_runs/{id}/input/{key}", read_input),
    ("DELETE", "/flow_runs/{id}/input/{key}", delete_input),
    ("POST", "/deployments/{id}/create_flow_run", create_run_of_deployment),
    ("POST", "/task_runs", create_task_run),
    ("GET", "/task_runs/{id}", read_task_run),
    ("POST", "/task_runs/filter", filter_task_runs),
    ("POST", "/task_runs/{id}/set_state", set_task_state),
)
