"""Routes about concurrency limits, their slots and leases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from pilotage.flows.dev.fake_prefect.calls import NO_CONTENT, Call, Reply, Route
from pilotage.flows.dev.fake_prefect.engine import not_found
from pilotage.flows.dev.fake_prefect.filters import BadRequest, unprocessable
from pilotage.flows.dev.fake_prefect.records import Json, text_of

SHORTEST, LONGEST = 60, 86400
"""Seconds that a lease may last."""
TAG_LEASE = timedelta(days=100 * 365)
"""Of a slot that was taken by the old routes, which know no lease."""


def create_limit(call: Call) -> Reply:
    fields = ("active", "name", "limit", "active_slots", "denied_slots", "slot_decay_per_second")
    body = call.fields(*fields, "avg_slot_occupancy_seconds", required=["name", "limit"])
    if call.tables.limit_named(body["name"]) is not None:
        raise BadRequest(409, "Data integrity conflict: there is a limit of this name")
    _is_sound(body)
    now = text_of(call.now)
    limit: Json = {
        "id": call.tables.new_id(call.now),
        "created": now,
        "updated": now,
        "active": body.get("active", True),
        "name": body["name"],
        "limit": body["limit"],
        "active_slots": body.get("active_slots") or 0,
        "slot_decay_per_second": body.get("slot_decay_per_second") or 0.0,
    }
    call.tables.limits[limit["id"]] = limit
    return Reply(201, limit)


def _is_sound(body: Json) -> None:
    if "limit" in body and (not isinstance(body["limit"], int) or body["limit"] < 0):
        raise unprocessable("limit: Input should be greater than or equal to 0")


def _limit(call: Call) -> Json:
    if (limit := call.tables.limit_named(call.path["name"])) is None:
        raise not_found("Concurrency Limit")
    return limit


def read_limit(call: Call) -> Reply:
    return Reply(200, _limit(call))


def update_limit(call: Call) -> Reply:
    fields = ("active", "name", "limit", "active_slots", "denied_slots", "slot_decay_per_second")
    body, limit = call.fields(*fields), _limit(call)
    _is_sound(body)
    limit |= {**body, "updated": text_of(call.now)}
    return NO_CONTENT


def delete_limit(call: Call) -> Reply:
    del call.tables.limits[_limit(call)["id"]]
    return NO_CONTENT


def filter_limits(call: Call) -> Reply:
    rows = sorted(call.tables.limits.values(), key=lambda limit: limit["name"])
    first = call.json.get("offset") or 0
    return Reply(200, rows[first : first + (call.json.get("limit") or 200)])


def _named(call: Call, names: list[str]) -> list[Json]:
    return [limit for name in names if (limit := call.tables.limit_named(name)) and limit["active"]]


def _taken(call: Call) -> list[Json]:
    body = call.json
    slots, limits = body.get("slots"), _named(call, body.get("names") or [])
    if not isinstance(slots, int) or slots < 1:
        raise unprocessable("slots: Input should be greater than 0")
    if any(limit["limit"] < slots for limit in limits):
        raise unprocessable("Slots requested is greater than the limit")
    if not call.tables.take_slots(tuple(limit["id"] for limit in limits), slots, call.now):
        raise BadRequest(423, "Locked")
    return limits


def _short(limits: list[Json]) -> list[Json]:
    return [{key: limit[key] for key in ("id", "name", "limit")} for limit in limits]


def increment(call: Call) -> Reply:
    return Reply(200, _short(_taken(call)))


def increment_with_lease(call: Call) -> Reply:
    lasts = _duration(call)
    limits = _taken(call)
    ids = tuple(limit["id"] for limit in limits)
    lease = call.tables.new_lease(
        ids, call.json["slots"], call.now + lasts, call.json.get("holder"), call.now
    )
    return Reply(200, {"lease_id": lease.id, "limits": _short(limits)})


def _duration(call: Call) -> timedelta:
    seconds = call.json.get("lease_duration", 300)
    if not SHORTEST <= seconds <= LONGEST:
        raise unprocessable(f"lease_duration: Input should be between {SHORTEST} and {LONGEST}")
    return timedelta(seconds=seconds)


def decrement(call: Call) -> Reply:
    limits = _named(call, call.json.get("names") or [])
    call.tables.give_slots(tuple(limit["id"] for limit in limits), call.json["slots"], call.now)
    return Reply(200, _short(limits))


def decrement_with_lease(call: Call) -> Reply:
    call.tables.end_lease(call.json["lease_id"], call.now)
    return NO_CONTENT


def renew(call: Call) -> Reply:
    if not call.tables.renew_lease(call.path["lease"], call.now + _duration(call), call.now):
        raise BadRequest(410, "Lease not found - it may have expired or been revoked")
    return NO_CONTENT


# -- the old routes, by tag -----------------------------------------------------------------------------------


def _of_tag(call: Call) -> Json:
    if (limit := call.tables.limit_named(f"tag:{call.path['tag']}")) is None:
        raise not_found("Concurrency limit")
    return limit


def create_tag(call: Call) -> Reply:
    """As Prefect does since 3.5: the limit of a tag is a global limit of the name `tag:TAG`."""
    body = call.fields("tag", "concurrency_limit", required=["tag", "concurrency_limit"])
    name, size = f"tag:{body['tag']}", body["concurrency_limit"]
    known = call.tables.limit_named(name)
    if known is not None:
        known["limit"] = size
    limit = known or create_limit(replace(call, body={"name": name, "limit": size})).json
    return Reply(200 if known else 201, _tag_reply(call, body["tag"], limit))


def read_tag(call: Call) -> Reply:
    return Reply(200, _tag_reply(call, call.path["tag"], _of_tag(call)))


def _tag_reply(call: Call, tag: str, limit: Json) -> Json:
    holders = [
        lease.holder["id"]
        for lease in call.tables.leases.values()
        if limit["id"] in lease.limit_ids and lease.holder and lease.holder["type"] == "task_run"
    ]
    return {
        "id": limit["id"],
        "created": limit["created"],
        "updated": limit["updated"],
        "tag": tag,
        "concurrency_limit": limit["limit"],
        "active_slots": holders,
    }


def filter_tags(call: Call) -> Reply:
    tagged = [limit for limit in call.tables.limits.values() if limit["name"].startswith("tag:")]
    return Reply(200, [_tag_reply(call, limit["name"].removeprefix("tag:"), limit) for limit in tagged])


def increment_tags(call: Call) -> Reply:
    limits = _named(call, [f"tag:{name}" for name in call.json["names"]])
    ids = tuple(limit["id"] for limit in limits)
    if not call.tables.take_slots(ids, 1, call.now):
        raise BadRequest(423, "Concurrency limit reached")
    holder = {"type": "task_run", "id": call.json["task_run_id"]}
    for limit_id in ids:
        call.tables.new_lease((limit_id,), 1, call.now + TAG_LEASE, holder, call.now)
    return Reply(200, _short(limits))


def decrement_tags(call: Call) -> Reply:
    limits = _named(call, [f"tag:{name}" for name in call.json["names"]])
    wanted = {limit["id"] for limit in limits}
    for lease in list(call.tables.leases.values()):
        holder = (lease.holder or {}).get("id")
        if holder == call.json["task_run_id"] and wanted & set(lease.limit_ids):
            call.tables.end_lease(lease.id, call.now)
    return Reply(200, _short(limits))


def reset_tag(call: Call) -> Reply:
    """Ends the leases and, as Prefect does, leaves the slots counted."""
    limit = _of_tag(call)
    for lease in [each for each in call.tables.leases.values() if limit["id"] in each.limit_ids]:
        del call.tables.leases[lease.id]
    return Reply(200)


ROUTES: tuple[Route, ...] = (
    ("POST", "/v2/concurrency_limits", create_limit),
    ("GET", "/v2/concurrency_limits/{name}", read_limit),
    ("PATCH", "/v2/concurrency_limits/{name}", update_limit),
    ("DELETE", "/v2/concurrency_limits/{name}", delete_limit),
    ("POST", "/v2/concurrency_limits/filter", filter_limits),
    ("POST", "/v2/concurrency_limits/increment", increment),
    ("POST", "/v2/concurrency_limits/increment-with-lease", increment_with_lease),
    ("POST", "/v2/concurrency_limits/decrement", decrement),
    ("POST", "/v2/concurrency_limits/decrement-with-lease", decrement_with_lease),
    ("POST", "/v2/concurrency_limits/leases/{lease}/renew", renew),
    ("POST", "/concurrency_limits", create_tag),
    ("GET", "/concurrency_limits/tag/{tag}", read_tag),
    ("POST", "/concurrency_limits/tag/{tag}/reset", reset_tag),
    ("POST", "/concurrency_limits/filter", filter_tags),
    ("POST", "/concurrency_limits/increment", increment_tags),
    ("POST", "/concurrency_limits/decrement", decrement_tags),
)
