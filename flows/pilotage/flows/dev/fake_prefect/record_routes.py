"""Routes about what is written down: variables, events, logs, artifacts; and the server itself."""

from __future__ import annotations

import base64
import json
from typing import Any

from pilotage.flows.dev.fake_prefect.calls import NO_CONTENT, Call, Reply, Route
from pilotage.flows.dev.fake_prefect.engine import not_found
from pilotage.flows.dev.fake_prefect.filters import (
    LOG,
    VARIABLE,
    BadRequest,
    compiled,
    page_of,
    unprocessable,
)
from pilotage.flows.dev.fake_prefect.records import Json, moment_of, text_of

EVENT_PAGE = 50
"""Events in one page; Prefect refuses more."""
LONGEST_VARIABLE = 5000
"""Characters of a variable's value as JSON."""

# -- variables ------------------------------------------------------------------------------------------------


def _fits(body: Json) -> None:
    if len(json.dumps(body.get("value"))) > LONGEST_VARIABLE:
        raise unprocessable(f"value: Variable value must be less than {LONGEST_VARIABLE} characters")


def create_variable(call: Call) -> Reply:
    body = call.fields("name", "value", "tags", required=["name", "value"])
    _fits(body)
    if body["name"] in call.tables.variables:
        raise BadRequest(409, f"A variable with the name {body['name']!r} already exists.")
    now = text_of(call.now)
    variable = {
        "id": call.tables.new_id(call.now),
        "created": now,
        "updated": now,
        "name": body["name"],
        "value": body["value"],
        "tags": body.get("tags") or [],
    }
    call.tables.variables[body["name"]] = variable
    return Reply(201, variable)


def _variable(call: Call) -> Json:
    if (variable := call.tables.variables.get(call.path["name"])) is None:
        raise not_found("Variable")
    return variable


def read_variable(call: Call) -> Reply:
    return Reply(200, _variable(call))


def update_variable(call: Call) -> Reply:
    body, variable = call.fields("name", "value", "tags"), _variable(call)
    _fits(body)
    variable |= {**body, "updated": text_of(call.now)}
    return NO_CONTENT


def delete_variable(call: Call) -> Reply:
    del call.tables.variables[_variable(call)["name"]]
    return NO_CONTENT


def filter_variables(call: Call) -> Reply:
    tests = compiled(call.json.get("variables"), VARIABLE, "variables")
    rows = [row for row in call.tables.variables.values() if all(test(row) for test in tests)]
    sorts = {
        "NAME_ASC": (lambda row: row["name"], False),
        "NAME_DESC": (lambda row: row["name"], True),
        "CREATED_DESC": (lambda row: row["created"], True),
        "UPDATED_DESC": (lambda row: row["updated"], True),
    }
    return Reply(200, page_of(rows, call.json, sorts, "NAME_ASC"))


# -- events ---------------------------------------------------------------------------------------------------

_EVENT_FIELDS = {
    "occurred": {"since", "until"},
    "event": {"prefix", "exclude_prefix", "name", "exclude_name"},
    "resource": {"id", "id_prefix", "labels", "distinct"},
    "related": {"id", "role", "resources_in_roles", "labels"},
    "any_resource": {"id", "id_prefix", "labels"},
    "id": {"id"},
    "text": {"query"},
}
_KNOWN = {"occurred", "event", "resource", "related", "any_resource", "id"}


def emit(call: Call) -> Reply:
    if not isinstance(call.body, list):
        raise unprocessable("body: Input should be a valid list")
    for event in call.body:
        if not isinstance(event, dict) or "occurred" not in event or "id" not in event:
            raise unprocessable("event: occurred and id are required")
        call.engine.emit(event, call.now)
    return NO_CONTENT


def filter_events(call: Call) -> Reply:
    where = call.json.get("filter") or {}
    limit = call.json.get("limit", EVENT_PAGE)
    if not isinstance(limit, int) or not 0 <= limit <= EVENT_PAGE:
        raise unprocessable(f"limit: Input should be less than or equal to {EVENT_PAGE}")
    return _event_page(call, where, limit, 0)


def next_events(call: Call) -> Reply:
    try:
        where, limit, offset = json.loads(base64.b64decode(call.query["page-token"]))
    except (KeyError, ValueError) as exc:
        raise BadRequest(403, "Forbidden") from exc
    return _event_page(call, where, limit, offset)


def _event_page(call: Call, where: Json, limit: int, offset: int) -> Reply:
    _is_sound(where)
    events = [event for event in call.tables.events.values() if _passes(event, where)]
    backwards = where.get("order", "DESC") == "DESC"
    events.sort(key=lambda event: (moment_of(event["occurred"]), event["id"]), reverse=backwards)
    page, rest = events[offset : offset + limit], len(events) - offset - limit
    link = None
    if rest > 0 and limit:
        token = base64.b64encode(json.dumps([where, limit, offset + limit]).encode()).decode()
        link = f"http://fake/api/events/filter/next?page-token={token}"
    return Reply(200, {"events": page, "total": len(events), "next_page": link})


def _is_sound(where: Json) -> None:
    for key, criteria in where.items():
        if key == "order":
            continue
        if key not in _EVENT_FIELDS:
            raise unprocessable(f"filter.{key}: Extra inputs are not permitted")
        for each in criteria if isinstance(criteria, list) else [criteria or {}]:
            if unknown := set(each) - _EVENT_FIELDS[key]:
                raise unprocessable(f"filter.{key}.{min(unknown)}: Extra inputs are not permitted")
        if key not in _KNOWN:
            raise BadRequest(501, f"the fake does not filter events by {key}")


def _passes(event: Json, where: Json) -> bool:
    occurred, named = where.get("occurred") or {}, where.get("event") or {}
    at = moment_of(event["occurred"])
    own = event["resource"]["prefect.resource.id"]
    others = [each["prefect.resource.id"] for each in event["related"]]
    since, until = moment_of(occurred.get("since")), moment_of(occurred.get("until"))
    ids = (where.get("id") or {}).get("id")
    return (
        (at is not None and (since is None or at >= since) and (until is None or at <= until))
        and (ids is None or event["id"] in ids)
        and _is_named(event["event"], named)
        and _has(where.get("resource"), [own])
        and _has(where.get("related"), others)
        and _has(where.get("any_resource"), [own, *others])
    )


def _is_named(name: str, wanted: Json) -> bool:
    names, prefixes = wanted.get("name"), wanted.get("prefix")
    if name in (wanted.get("exclude_name") or ()):
        return False
    if any(name.startswith(each) for each in wanted.get("exclude_prefix") or ()):
        return False
    if names is None and prefixes is None:
        return True
    return name in (names or ()) or any(name.startswith(each) for each in prefixes or ())


def _has(wanted: Any, names: list[str]) -> bool:
    for each in wanted if isinstance(wanted, list) else [wanted or {}]:
        ids, prefixes = each.get("id"), each.get("id_prefix")
        if ids is not None and not set(ids) & set(names):
            return False
        if prefixes is not None and not any(name.startswith(p) for name in names for p in prefixes):
            return False
    return True


# -- logs and artifacts ---------------------------------------------------------------------------------------


def create_logs(call: Call) -> Reply:
    if not isinstance(call.body, list):
        raise unprocessable("body: Input should be a valid list")
    for line in call.body:
        for name in ("name", "level", "message", "timestamp"):
            if name not in line:
                raise unprocessable(f"{name}: Field required")
        run_id = line.get("flow_run_id")
        call.tables.logs[run_id or ""].append(
            {
                "id": call.tables.new_id(call.now),
                "created": text_of(call.now),
                "updated": text_of(call.now),
                **{name: line[name] for name in ("name", "level", "message")},
                "timestamp": text_of(moment_of(line["timestamp"])),
                "flow_run_id": run_id,
                "task_run_id": line.get("task_run_id"),
            }
        )
    return Reply(201)


def filter_logs(call: Call) -> Reply:
    where = call.json.get("logs") or {}
    tests = compiled(where, LOG, "logs")
    wanted = (where.get("flow_run_id") or {}).get("any_")
    lists = (
        call.tables.logs.values() if wanted is None else [call.tables.logs.get(each, []) for each in wanted]
    )
    rows = [line for lines in lists for line in lines if all(test(line) for test in tests)]
    sorts = {
        "TIMESTAMP_ASC": (lambda line: moment_of(line["timestamp"]), False),
        "TIMESTAMP_DESC": (lambda line: moment_of(line["timestamp"]), True),
    }
    return Reply(200, page_of(rows, call.json, sorts, "TIMESTAMP_ASC"))


def create_artifact(call: Call) -> Reply:
    fields = ("key", "type", "description", "data", "metadata_", "flow_run_id", "task_run_id")
    body = call.fields(*fields)
    now = text_of(call.now)
    artifact = {"id": call.tables.new_id(call.now), "created": now, "updated": now, **body}
    call.tables.artifacts.append(artifact)
    return Reply(201, artifact)


def filter_artifacts(call: Call) -> Reply:
    wanted = (((call.json.get("flow_runs") or {}).get("id")) or {}).get("any_")
    rows = [row for row in call.tables.artifacts if wanted is None or row.get("flow_run_id") in wanted]
    return Reply(200, rows[:200])


def create_automation(call: Call) -> Reply:
    fields = ("name", "description", "enabled", "tags", "trigger", "actions", "owner_resource")
    body = call.fields(
        *fields, "actions_on_trigger", "actions_on_resolve", required=["name", "trigger", "actions"]
    )
    now = text_of(call.now)
    automation = {"id": call.tables.new_id(call.now), "created": now, "updated": now, "enabled": True, **body}
    call.tables.automations.append(automation)
    return Reply(201, automation)


def filter_automations(call: Call) -> Reply:
    sorts = {"NAME_ASC": (lambda row: row["name"], False)}
    return Reply(200, page_of(call.tables.automations, call.json, sorts, "NAME_ASC"))


# -- the server -----------------------------------------------------------------------------------------------


def health(call: Call) -> Reply:
    return Reply(200, True)


def no_csrf(call: Call) -> Reply:
    raise unprocessable("CSRF protection is disabled.")


ROUTES: tuple[Route, ...] = (
    ("POST", "/variables", create_variable),
    ("POST", "/variables/filter", filter_variables),
    ("GET", "/variables/name/{name}", read_variable),
    ("PATCH", "/variables/name/{name}", update_variable),
    ("DELETE", "/variables/name/{name}", delete_variable),
    ("POST", "/events", emit),
    ("POST", "/events/filter", filter_events),
    ("GET", "/events/filter/next", next_events),
    ("POST", "/logs", create_logs),
    ("POST", "/logs/filter", filter_logs),
    ("POST", "/artifacts", create_artifact),
    ("POST", "/artifacts/filter", filter_artifacts),
    ("POST", "/automations", create_automation),
    ("POST", "/automations/filter", filter_automations),
    ("GET", "/health", health),
    ("GET", "/csrf-token", no_csrf),
)
