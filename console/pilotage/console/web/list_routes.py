"""Lists over HTTP: filtered, sorted, searched, with true counts, page by page."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from pilotage.console.session import lists
from pilotage.console.session.engine import Engine
from pilotage.console.web.auth import Reader
from pilotage.console.web.routes import NO
from pilotage.flows.notify.describe import label, told

router = APIRouter(prefix="/api/lists", responses=NO)
Text = Annotated[str, Field(max_length=300)]


class _Page(BaseModel):
    model_config = ConfigDict(extra="forbid")

    words: Annotated[str, Field(max_length=200)] = ""
    after: Annotated[str, Field(max_length=400, pattern=r"^[A-Za-z0-9_:+.\-]*$")] = ""
    limit: Annotated[int, Field(ge=1, le=200)] = lists.PAGE


class ProposalsWanted(_Page):
    """Which proposals; `snoozed` says whether those that the caller put off are among them."""

    status: Annotated[str, Field(pattern=r"^[a-z_]{0,40}$")] = ""
    deployment: Text = ""
    team: Text = ""
    kind: Text = ""
    env: Text = ""
    incident: Text = ""
    mine: bool = False
    snoozed: bool = False
    sort: Literal["newest", "oldest", "expiry", "risk", "deployment"] = "newest"


class IncidentsWanted(_Page):
    """Which incidents."""

    state: Literal["open", "over", "all"] = "all"
    deployment: Text = ""
    team: Text = ""
    sort: Literal["newest", "oldest"] = "newest"


class AuditWanted(_Page):
    """Which entries of the audit log; `changes` folds what changed nothing."""

    incident: Text = ""
    person: Text = ""
    policy: Text = ""
    event: Text = ""
    changes: bool = False


class RunsWanted(_Page):
    """Which runs."""

    state: Text = ""
    deployment: Text = ""


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


@router.get("/proposals")
async def proposals(
    request: Request, user: Reader, wanted: Annotated[ProposalsWanted, Query()]
) -> dict[str, Any]:
    """One page of proposals: `{rows, count, next, asleep}`; `asleep` counts those that the caller put off."""
    engine = _engine(request)
    asked = wanted.model_dump(exclude={"snoozed"})
    now = datetime.now(UTC)
    put_off = await asyncio.to_thread(engine.log.snoozed, user.name)
    later = {key: until for key, until in put_off.items() if until > now}
    without = [] if wanted.snoozed else list(later)
    setting = await engine.setting(user)
    page = await asyncio.to_thread(lists.proposal_page, setting, {**asked, "without": without})
    whole = page
    if without:
        whole = await engine.ask(user, "proposal_page", **{**asked, "after": "", "limit": 1})
    rows = [
        {**row, "snoozed_until": until.isoformat() if (until := later.get(row["proposal_id"])) else None}
        for row in page["rows"]
    ]
    return {**page, "rows": rows, "asleep": whole["count"] - page["count"]}


@router.get("/choices")
async def choices(
    request: Request, user: Reader, status: Annotated[str, Query(pattern=r"^[a-z_]{0,40}$")] = ""
) -> dict[str, dict[str, int]]:
    """What the proposals of a status can be filtered by, each value with its count."""
    found: dict[str, dict[str, int]] = await _engine(request).ask(user, "proposal_choices", status=status)
    return found


@router.get("/incidents")
async def incidents(
    request: Request, user: Reader, wanted: Annotated[IncidentsWanted, Query()]
) -> dict[str, Any]:
    """One page of incidents: `{rows, count, counts, next}`."""
    setting = await _engine(request).setting(user)
    return await asyncio.to_thread(lists.incident_page, setting, wanted.model_dump())


@router.get("/audit")
async def audit(request: Request, user: Reader, wanted: Annotated[AuditWanted, Query()]) -> dict[str, Any]:
    """One page of the audit log, the newest first: `{rows, count, folded, next}`; `words` say what a step was."""
    setting = await _engine(request).setting(user)
    page = await asyncio.to_thread(lists.audit_page, setting, wanted.model_dump())
    rows = [
        {
            **{key: value for key, value in row.items() if key != "detail"},
            "label": label(row),
            "words": told(row),
        }
        for row in page["rows"]
    ]
    return {**page, "rows": rows}


@router.get("/runs")
async def runs(request: Request, user: Reader, wanted: Annotated[RunsWanted, Query()]) -> dict[str, Any]:
    """One page of runs, the last changed first: `{rows, count, next}`."""
    setting = await _engine(request).setting(user)
    page = await asyncio.to_thread(lists.run_page, setting, wanted.model_dump())
    return {**page, "rows": [lists.run_line(run) for run in page["rows"]]}
