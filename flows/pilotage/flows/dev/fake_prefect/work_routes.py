"""Routes about flows, deployments with their schedules, work pools, queues and workers."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

from pilotage.flows.dev.fake_prefect.calls import NO_CONTENT, Call, Reply, Route
from pilotage.flows.dev.fake_prefect.engine import not_found
from pilotage.flows.dev.fake_prefect.filters import (
    DEPLOYMENT,
    FLOW,
    POOL,
    QUEUE,
    BadRequest,
    compiled,
    page_of,
    unprocessable,
)
from pilotage.flows.dev.fake_prefect.records import Json, moment_of, text_of
from pilotage.flows.dev.fake_prefect.run_routes import queue_id_of, reply_of
from pilotage.flows.dev.fake_prefect.schedules import schedule_runs
from pilotage.flows.dev.fake_prefect.work import handed_out, online, polled, reranked

_BY_NAME = {"NAME_ASC": (lambda row: row["name"], False), "ID": (lambda row: row["id"], False)}
_SORTS = {
    **_BY_NAME,
    "NAME_DESC": (lambda row: row["name"], True),
    "CREATED_DESC": (lambda row: row["created"], True),
    "UPDATED_DESC": (lambda row: row["updated"], True),
}


def _row(call: Call, **fields: object) -> Json:
    now = text_of(call.now)
    return {"id": call.tables.new_id(call.now), "created": now, "updated": now, **fields}


# -- flows and deployments ------------------------------------------------------------------------------------


def create_flow(call: Call) -> Reply:
    body = call.fields("name", "tags", "labels", required=["name"])
    for flow in call.tables.flows.values():
        if flow["name"] == body["name"]:
            return Reply(200, flow)
    flow = _row(call, name=body["name"], tags=body.get("tags") or [], labels=body.get("labels") or {})
    call.tables.flows[flow["id"]] = flow
    return Reply(201, flow)


def read_flow(call: Call) -> Reply:
    if (flow := call.tables.flows.get(call.path["id"])) is None:
        raise not_found("Flow")
    return Reply(200, flow)


def filter_flows(call: Call) -> Reply:
    tests = compiled(call.json.get("flows"), FLOW, "flows")
    rows = [row for row in call.tables.flows.values() if all(test(row) for test in tests)]
    return Reply(200, page_of(rows, call.json, _SORTS, "NAME_ASC"))


_DEPLOYMENT: Json = {
    "version": None,
    "description": None,
    "paused": False,
    "concurrency_limit": None,
    "concurrency_options": None,
    "job_variables": {},
    "parameters": {},
    "tags": [],
    "labels": {},
    "last_polled": None,
    "parameter_openapi_schema": None,
    "path": None,
    "pull_steps": None,
    "entrypoint": None,
    "storage_document_id": None,
    "infrastructure_document_id": None,
    "created_by": None,
    "updated_by": None,
    "status": "NOT_READY",
    "enforce_parameter_schema": True,
}
_GIVEN = ("name", "flow_id", "schedules", "work_pool_name", "work_queue_name", "version_info")


def create_deployment(call: Call) -> Reply:
    body = call.fields(*_DEPLOYMENT, *_GIVEN, required=["name", "flow_id"])
    tables, pool = call.tables, body.get("work_pool_name")
    if body["flow_id"] not in tables.flows:
        raise BadRequest(409, "Data integrity conflict: there is no such flow")
    if pool and pool not in tables.pools:
        raise not_found(f'Work pool "{pool}"')
    known = next(
        (
            row
            for row in tables.deployments.values()
            if (row["flow_id"], row["name"]) == (body["flow_id"], body["name"])
        ),
        None,
    )
    queue = body.get("work_queue_name") or ("default" if pool else None)
    if pool and queue not in {each["name"] for each in tables.queues_of(pool)}:
        _add_queue(call, pool, {"name": queue})
    given = {key: value for key, value in body.items() if key in _DEPLOYMENT and value is not None}
    row: Json = {**_row(call), **_DEPLOYMENT, **(known or {}), **given}
    row |= {
        "name": body["name"],
        "flow_id": body["flow_id"],
        "work_pool_name": pool,
        "work_queue_name": queue,
        "work_queue_id": queue_id_of(call, pool, queue) if pool and queue else None,
        "concurrency_limit": None,
        "schedules": [_schedule(call, row["id"], each) for each in body.get("schedules") or ()],
        "concurrency_limit_id": _limit_of(call, row["id"], body.get("concurrency_limit")),
    }
    tables.deployments[row["id"]] = row
    return Reply(200 if known else 201, _deployment_reply(call, row))


def _schedule(call: Call, deployment_id: str, body: Json) -> Json:
    if not isinstance(body.get("schedule"), dict):
        raise unprocessable("schedules.schedule: Field required")
    schedule = dict(body["schedule"])
    if "interval" in schedule:
        schedule.setdefault("anchor_date", text_of(call.now))
    return _row(
        call,
        deployment_id=deployment_id,
        schedule=schedule,
        active=body.get("active", True),
        parameters=body.get("parameters") or {},
        slug=body.get("slug"),
        max_scheduled_runs=None,
    )


def _limit_of(call: Call, deployment_id: str, size: int | None) -> str | None:
    name = f"deployment:{deployment_id}"
    limit = call.tables.limit_named(name)
    if size is None:
        if limit is not None:
            del call.tables.limits[limit["id"]]
        return None
    if limit is None:
        limit = _row(call, name=name, limit=size, active=True, active_slots=0, slot_decay_per_second=0.0)
        call.tables.limits[limit["id"]] = limit
    limit["limit"] = size
    return str(limit["id"])


def _deployment_reply(call: Call, row: Json) -> Json:
    limit = call.tables.limits.get(row["concurrency_limit_id"] or "")
    shown = {key: value for key, value in row.items() if key != "concurrency_limit_id"}
    return {**shown, "global_concurrency_limit": limit}


def _deployment(call: Call) -> Json:
    if (row := call.tables.deployments.get(call.path["id"])) is None:
        raise not_found("Deployment")
    return row


def read_deployment(call: Call) -> Reply:
    return Reply(200, _deployment_reply(call, _deployment(call)))


def read_deployment_by_name(call: Call) -> Reply:
    for row in call.tables.deployments.values():
        flow = call.tables.flows[row["flow_id"]]
        if (flow["name"], row["name"]) == (call.path["flow"], call.path["name"]):
            return Reply(200, _deployment_reply(call, row))
    raise not_found("Deployment")


def filter_deployments(call: Call) -> Reply:
    body, tables = call.json, call.tables
    tests = compiled(body.get("deployments"), DEPLOYMENT, "deployments")
    flows = compiled(body.get("flows"), FLOW, "flows")
    pools = compiled(body.get("work_pools"), POOL, "work_pools")
    queues = compiled(body.get("work_pool_queues"), QUEUE, "work_pool_queues")

    def passes(row: Json) -> bool:
        queue, pool = (
            tables.queues.get(row["work_queue_id"] or ""),
            tables.pools.get(row["work_pool_name"] or ""),
        )
        return (
            all(test(row) for test in tests)
            and all(test(tables.flows[row["flow_id"]]) for test in flows)
            and (not pools or (pool is not None and all(test(pool) for test in pools)))
            and (not queues or (queue is not None and all(test(queue) for test in queues)))
        )

    rows = [row for row in tables.deployments.values() if passes(row)]
    return Reply(200, [_deployment_reply(call, row) for row in page_of(rows, body, _SORTS, "NAME_ASC")])


def delete_deployment(call: Call) -> Reply:
    row = _deployment(call)
    for run in list(call.tables.by_deployment[row["id"]].values()):
        if run.state.type == "SCHEDULED":
            call.tables.drop_run(run.id)
    del call.tables.deployments[row["id"]]
    return NO_CONTENT


def pause_deployment(call: Call) -> Reply:
    row = _deployment(call)
    row |= {"paused": True, "updated": text_of(call.now)}
    for run in list(call.tables.by_deployment[row["id"]].values()):
        waiting = run.state.type == "SCHEDULED" and run.state.name != "AwaitingConcurrencySlot"
        if waiting and run.auto_scheduled and run.run_count == 0:
            call.tables.drop_run(run.id)
    return Reply(200)


def resume_deployment(call: Call) -> Reply:
    _deployment(call).update(paused=False, updated=text_of(call.now))
    return Reply(200)


def schedule_deployment(call: Call) -> Reply:
    row, body = _deployment(call), call.json
    schedule_runs(
        call.engine,
        row,
        call.now,
        start=moment_of(body.get("start_time")),
        end=moment_of(body.get("end_time")),
        min_time=None if body.get("min_time") is None else timedelta(seconds=body["min_time"]),
        min_runs=body.get("min_runs"),
        max_runs=body.get("max_runs"),
    )
    return Reply(200)


def update_schedule(call: Call) -> Reply:
    row = _deployment(call)
    for schedule in row["schedules"]:
        if schedule["id"] == call.path["schedule"]:
            schedule |= {**call.json, "updated": text_of(call.now)}
            return NO_CONTENT
    raise not_found("Schedule")


# -- pools and queues -----------------------------------------------------------------------------------------


def create_pool(call: Call) -> Reply:
    fields = ("name", "type", "description", "base_job_template", "is_paused", "concurrency_limit")
    body = call.fields(*fields, "storage_configuration", required=["name"])
    if body["name"] in call.tables.pools:
        raise BadRequest(409, "A work pool with this name already exists.")
    pool = _row(
        call,
        name=body["name"],
        type=body.get("type") or "prefect-agent",
        description=body.get("description"),
        base_job_template=body.get("base_job_template") or {},
        is_paused=bool(body.get("is_paused")),
        concurrency_limit=body.get("concurrency_limit"),
        status="NOT_READY",
        storage_configuration={},
    )
    call.tables.pools[pool["name"]] = pool
    pool["default_queue_id"] = _add_queue(call, pool["name"], {"name": "default"})["id"]
    return Reply(201, pool)


def _pool(call: Call) -> Json:
    if (pool := call.tables.pools.get(call.path["pool"])) is None:
        raise not_found(f"Work pool '{call.path['pool']}'")
    return pool


def read_pool(call: Call) -> Reply:
    return Reply(200, _pool(call))


def filter_pools(call: Call) -> Reply:
    tests = compiled(call.json.get("work_pools"), POOL, "work_pools")
    rows = [row for row in call.tables.pools.values() if all(test(row) for test in tests)]
    return Reply(200, page_of(rows, call.json, _SORTS, "NAME_ASC"))


def update_pool(call: Call) -> Reply:
    fields = ("description", "is_paused", "base_job_template", "concurrency_limit", "storage_configuration")
    body, pool = call.fields(*fields), _pool(call)
    _limit_is_sound(body)
    pool |= {**body, "updated": text_of(call.now)}
    if "is_paused" in body:
        pool["status"] = "PAUSED" if body["is_paused"] else "NOT_READY"
    return NO_CONTENT


def _limit_is_sound(body: Json) -> None:
    limit = body.get("concurrency_limit")
    if limit is not None and (not isinstance(limit, int) or limit < 0):
        raise unprocessable("concurrency_limit: Input should be greater than or equal to 0")


def _add_queue(call: Call, pool: str, body: Json) -> Json:
    taken = [each["priority"] for each in call.tables.queues_of(pool)]
    rank = body.get("priority")
    if rank is None:
        gaps = (number for number, held in enumerate(taken, start=1) if number != held)
        rank = next(gaps, max(taken, default=0) + 1)
    queue = _row(
        call,
        name=body["name"],
        description=body.get("description") or "",
        is_paused=bool(body.get("is_paused")),
        concurrency_limit=body.get("concurrency_limit"),
        priority=rank,
        work_pool_id=call.tables.pools[pool]["id"],
        work_pool_name=pool,
        filter=None,
        last_polled=None,
        status="PAUSED" if body.get("is_paused") else "NOT_READY",
        active_slots=None,
    )
    call.tables.queues[queue["id"]] = queue
    if body.get("priority") is not None:
        reranked(call.tables.queues_of(pool), queue["id"], rank)
    return queue


_QUEUE = ("name", "description", "is_paused", "concurrency_limit", "priority", "last_polled", "filter")


def create_queue(call: Call) -> Reply:
    body, pool = call.fields(*_QUEUE, required=["name"]), _pool(call)
    if body["name"] in {each["name"] for each in call.tables.queues_of(pool["name"])}:
        raise BadRequest(409, "A work queue with this name already exists.")
    _queue_is_sound(body)
    return Reply(201, _add_queue(call, pool["name"], body))


def _queue_is_sound(body: Json) -> None:
    _limit_is_sound(body)
    rank = body.get("priority")
    if rank is not None and (not isinstance(rank, int) or rank < 1):
        raise unprocessable("priority: Input should be greater than 0")


def _queue(call: Call) -> Json:
    return call.tables.queues[queue_id_of(call, _pool(call)["name"], call.path["queue"])]


def read_queue(call: Call) -> Reply:
    return Reply(200, _queue(call))


def filter_queues(call: Call) -> Reply:
    tests = compiled(call.json.get("work_queues"), QUEUE, "work_queues")
    rows = [row for row in call.tables.queues_of(_pool(call)["name"]) if all(test(row) for test in tests)]
    by_rank = {"PRIORITY": (lambda row: row["priority"], False)}
    return Reply(200, page_of(rows, {**call.json, "sort": "PRIORITY"}, by_rank, "PRIORITY"))


def filter_all_queues(call: Call) -> Reply:
    tests = compiled(call.json.get("work_queues"), QUEUE, "work_queues")
    rows = [row for row in call.tables.queues.values() if all(test(row) for test in tests)]
    return Reply(200, page_of(rows, call.json, _SORTS, "NAME_ASC"))


def update_queue(call: Call) -> Reply:
    body, queue = call.fields(*_QUEUE), _queue(call)
    _queue_is_sound(body)
    queue |= {**body, "updated": text_of(call.now)}
    if "is_paused" in body:
        queue["status"] = "PAUSED" if body["is_paused"] else "NOT_READY"
    if body.get("priority") is not None:
        reranked(call.tables.queues_of(queue["work_pool_name"]), queue["id"], body["priority"])
    return NO_CONTENT


def delete_queue(call: Call) -> Reply:
    queue = _queue(call)
    if queue["name"] == "default":
        raise BadRequest(403, "Can't delete a pool's default queue.")
    del call.tables.queues[queue["id"]]
    _close_up(call.tables.queues_of(queue["work_pool_name"]))
    return NO_CONTENT


def delete_pool(call: Call) -> Reply:
    pool = _pool(call)["name"]
    for queue in call.tables.queues_of(pool):
        del call.tables.queues[queue["id"]]
    for of, worker in list(call.tables.workers):
        if of == pool:
            del call.tables.workers[of, worker]
    for deployment in call.tables.deployments.values():
        if deployment["work_pool_name"] == pool:
            deployment["work_pool_name"] = None  # the name of its queue stays
    del call.tables.pools[pool]
    return NO_CONTENT


def _close_up(queues: list[Json]) -> None:
    for before, after in pairwise(queues):
        after["priority"] = max(after["priority"], before["priority"] + 1)


# -- workers --------------------------------------------------------------------------------------------------


def heartbeat(call: Call) -> Reply:
    body, pool = call.json, _pool(call)
    if "name" not in body:
        raise unprocessable("name: Field required")
    key = pool["name"], body["name"]
    worker = call.tables.workers.get(key) or _row(call, name=body["name"], work_pool_id=pool["id"])
    worker |= {
        "updated": text_of(call.now),
        "last_heartbeat_time": text_of(call.now),
        "heartbeat_interval_seconds": body.get("heartbeat_interval_seconds")
        or worker.get("heartbeat_interval_seconds"),
    }
    call.tables.workers[key] = worker
    if not pool["is_paused"]:
        pool["status"] = "READY"
    return NO_CONTENT


def filter_workers(call: Call) -> Reply:
    pool = _pool(call)["name"]
    rows = [_worker_reply(call, worker) for (of, _), worker in call.tables.workers.items() if of == pool]
    rows.sort(key=lambda worker: worker["last_heartbeat_time"], reverse=True)
    return Reply(200, rows[: call.json.get("limit") or 200])


def _worker_reply(call: Call, worker: Json) -> Json:
    return {**worker, "status": "ONLINE" if online(worker, call.now) else "OFFLINE"}


def delete_worker(call: Call) -> Reply:
    if call.tables.workers.pop((_pool(call)["name"], call.path["worker"]), None) is None:
        raise not_found("Worker")
    return NO_CONTENT


def get_scheduled_runs(call: Call) -> Reply:
    body, pool = call.json, _pool(call)
    wanted = body.get("work_queue_names") or None
    before = moment_of(body.get("scheduled_before"))
    runs = handed_out(call.tables, pool, wanted, before, limit=body.get("limit") or 200)
    polled(call.tables, pool["name"], wanted, call.now)
    return Reply(
        200,
        [
            {"work_pool_id": pool["id"], "work_queue_id": run.work_queue_id, "flow_run": reply_of(call, run)}
            for run in runs
        ],
    )


ROUTES: tuple[Route, ...] = (
    ("POST", "/flows", create_flow),
    ("GET", "/flows/{id}", read_flow),
    ("POST", "/flows/filter", filter_flows),
    ("POST", "/deployments", create_deployment),
    ("GET", "/deployments/{id}", read_deployment),
    ("GET", "/deployments/name/{flow}/{name}", read_deployment_by_name),
    ("POST", "/deployments/filter", filter_deployments),
    ("DELETE", "/deployments/{id}", delete_deployment),
    ("POST", "/deployments/{id}/pause_deployment", pause_deployment),
    ("POST", "/deployments/{id}/resume_deployment", resume_deployment),
    ("POST", "/deployments/{id}/schedule", schedule_deployment),
    ("PATCH", "/deployments/{id}/schedules/{schedule}", update_schedule),
    ("POST", "/work_pools", create_pool),
    ("GET", "/work_pools/{pool}", read_pool),
    ("PATCH", "/work_pools/{pool}", update_pool),
    ("DELETE", "/work_pools/{pool}", delete_pool),
    ("POST", "/work_pools/filter", filter_pools),
    ("POST", "/work_pools/{pool}/queues", create_queue),
    ("GET", "/work_pools/{pool}/queues/{queue}", read_queue),
    ("PATCH", "/work_pools/{pool}/queues/{queue}", update_queue),
    ("DELETE", "/work_pools/{pool}/queues/{queue}", delete_queue),
    ("POST", "/work_pools/{pool}/queues/filter", filter_queues),
    ("POST", "/work_queues/filter", filter_all_queues),
    ("POST", "/work_pools/{pool}/workers/heartbeat", heartbeat),
    ("POST", "/work_pools/{pool}/workers/filter", filter_workers),
    ("DELETE", "/work_pools/{pool}/workers/{worker}", delete_worker),
    ("POST", "/work_pools/{pool}/get_scheduled_flow_runs", get_scheduled_runs),
)
