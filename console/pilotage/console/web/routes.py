"""The HTTP API: each route is one question to the engine, in the name of whoever the request proved to be."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import RedirectResponse, StreamingResponse

from pilotage.console.session.commands.registry import COMMANDS, Setting
from pilotage.console.session.engine import Engine
from pilotage.console.session.pages import forecasts_over_time, incident_page_of, log_lines
from pilotage.console.session.ports import User
from pilotage.console.web.auth import Access, Reader, Writer, refuse_foreign
from pilotage.console.web.errors import Refusal, note_refusal
from pilotage.console.web.schemas import (
    Accepted,
    Because,
    BulkResult,
    BulkResults,
    BulkVote,
    Edit,
    EventOut,
    IncidentId,
    Lend,
    Lent,
    Me,
    Message,
    NewThread,
    PlanVoteIn,
    Problem,
    ProposalId,
    RunId,
    Shown,
    SignIn,
    Snooze,
    Stopped,
    ThreadId,
    ThreadOut,
    Undone,
    VoteIn,
    Ways,
)
from pilotage.console.web.sessions import COOKIE
from pilotage.console.web.sse import Seen, Tail
from pilotage.flows.api.client import ApiRejection
from pilotage.telemetry.errors import PilotageError

NO: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 403, 404, 409, 422, 429, 503)
}
STATE_COOKIE = "pilotage_sign_in"
"""Ties the answer of an identity provider to the browser that asked."""
router = APIRouter(prefix="/api", responses=NO)
Limit = Annotated[int, Query(ge=1, le=1000)]
Seq = Annotated[int, Query(ge=0, le=2**53)]


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


# -- who


@router.post("/sign-in", status_code=200)
async def sign_in(request: Request, response: Response, given: SignIn) -> Me:
    """Signs a browser in with a one-time code, or with a name and a password."""
    refuse_foreign(request)
    access: Access = request.app.state.access
    if given.code:
        token = access.sessions.redeem(given.code) or ""
        if not token:
            raise Refusal(401, "bad-code", "Signing in: this link was used or is too old. Ask for a new one.")
    else:
        token = await asyncio.to_thread(request.app.state.password, given.name, given.password)
    user = await access.identify(token)
    key, session = access.sessions.open(user)
    response.set_cookie(
        COOKIE, key, httponly=True, samesite="strict", secure=request.url.scheme == "https", path="/"
    )
    return await _me(request, user, session.csrf)


@router.get("/sign-in/ways")
async def ways_to_sign_in(request: Request) -> Ways:
    """How one may sign in beside a one-time link and a password."""
    try:
        return Ways(oidc=await asyncio.to_thread(request.app.state.federation.offered))
    except PilotageError:
        return Ways(oidc=False)  # whoever cannot be asked signs nobody in either


@router.get("/sign-in/oidc", status_code=303, response_class=RedirectResponse)
async def sign_in_elsewhere(request: Request) -> RedirectResponse:
    """Sends the browser to the team's identity provider."""
    begun: Mapping[str, str] = await asyncio.to_thread(request.app.state.federation.begin)
    response = RedirectResponse(begun["url"], status_code=303)
    # lax, for it is another site that sends the browser back
    response.set_cookie(
        STATE_COOKIE,
        begun["state"],
        max_age=600,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
        path="/api/sign-in/oidc",
    )
    return response


@router.get("/sign-in/oidc/callback", status_code=303, response_class=RedirectResponse)
async def signed_in_elsewhere(
    request: Request,
    state: Annotated[str, Query(max_length=200)] = "",
    code: Annotated[str, Query(max_length=4000)] = "",
    error: Annotated[str, Query(max_length=200)] = "",
) -> RedirectResponse:
    """Takes the browser that the identity provider sends back, and signs it in."""
    mine = request.cookies.get(STATE_COOKIE, "")
    begun_here = hmac.compare_digest(mine.encode(), state.encode())
    access: Access = request.app.state.access
    # what is wrong with either is for the controller to refuse: that is a row of the sign-in log
    token = await asyncio.to_thread(
        request.app.state.federation.finish, state if begun_here else "", "" if error else code
    )
    user = await access.identify(token)
    key, _ = access.sessions.open(user)
    response = RedirectResponse("/", status_code=303)
    response.delete_cookie(STATE_COOKIE, path="/api/sign-in/oidc", httponly=True, samesite="lax")
    response.set_cookie(
        COOKIE, key, httponly=True, samesite="strict", secure=request.url.scheme == "https", path="/"
    )
    return response


@router.post("/sign-out", status_code=204)
async def sign_out(request: Request, user: Writer) -> Response:
    """Ends the browser's session."""
    access: Access = request.app.state.access
    access.sessions.end(request.cookies.get(COOKIE, ""))
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response


@router.get("/me")
async def me(request: Request, user: Reader) -> Me:
    """Who the caller is."""
    access: Access = request.app.state.access
    session = access.session(request)
    return await _me(request, user, session.csrf if session else "")


async def _me(request: Request, user: User, csrf: str) -> Me:
    status = await _engine(request).ask(user, "status")
    around = await _engine(request).ask(user, "surroundings")
    return Me(
        name=user.name,
        roles=sorted(user.roles),
        csrf=csrf,
        ui=around["ui"],
        mode=status["mode"],
        stopped=str(status["stopped"] or ""),
    )


# -- talking


@router.get("/threads")
async def threads(
    request: Request, user: Reader, search: Annotated[str, Query(max_length=200)] = "", limit: Limit = 100
) -> list[ThreadOut]:
    """The conversations that the caller may read, the last active first."""
    rows = await asyncio.to_thread(_engine(request).threads, user, limit, search)
    return [ThreadOut.of(thread) for thread in rows]


@router.post("/threads", status_code=201)
async def open_thread(request: Request, user: Writer, given: NewThread) -> ThreadOut:
    """A new conversation."""
    return ThreadOut.of(await asyncio.to_thread(_engine(request).open_thread, user, given.title))


@router.get("/threads/{thread}/events")
async def events(
    request: Request, user: Reader, thread: ThreadId, after: Seq = 0, limit: Limit = 500
) -> list[EventOut]:
    """The rows of a conversation that follow `after`, oldest first."""
    await _engine(request).may(user, thread, "read")
    rows = await asyncio.to_thread(_engine(request).log.after, after, thread, limit)
    return [EventOut.of(event) for event in rows]


@router.post("/threads/{thread}/messages", status_code=202)
async def say(request: Request, user: Writer, thread: ThreadId, given: Message) -> Accepted:
    """Says something; the answer follows in the thread's events."""
    said = await _engine(request).say(user, thread, given.text)
    return Accepted(seq=said.seq)


@router.post("/threads/{thread}/interrupt", status_code=204)
async def interrupt(request: Request, user: Writer, thread: ThreadId) -> Response:
    """Stops the answer that is being given. What was proposed in it stays filed."""
    await _engine(request).interrupt(user, thread)
    return Response(status_code=204)


@router.get(
    "/stream",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def stream(
    request: Request,
    user: Reader,
    thread: Annotated[ThreadId | None, Query()] = None,
    after: Seq = 0,
    last_event_id: Annotated[str | None, Header(pattern=r"^[0-9]{1,16}$")] = None,
) -> StreamingResponse:
    """Rows as they are written, as server-sent events whose ids are `seq`; resumes by Last-Event-ID.

    The stream ends by itself after some minutes, and whoever asks for more proves again who they are.
    """
    tail: Tail = request.app.state.tail
    start = int(last_event_id) if last_event_id else after
    engine = _engine(request)
    if thread is not None:
        await engine.may(user, thread, "read")
    return StreamingResponse(
        tail.frames(start, thread, seen=Seen(engine.log, user)),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )


# -- deciding


@router.get("/proposals")
async def proposals(
    request: Request,
    user: Reader,
    status: Annotated[str | None, Query(pattern=r"^[a-z_]{1,40}$")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[dict[str, Any]]:
    """Cards, the newest first, all or those of one status; `snoozed_until` is the caller's own."""
    engine = _engine(request)
    rows = await engine.ask(user, "proposals", status=status, limit=limit)
    later = await asyncio.to_thread(engine.log.snoozed, user.name)
    cards = [await engine.card(user, row) for row in rows]
    return [card | {"snoozed_until": later.get(card["proposal_id"])} for card in cards]


@router.get("/proposals/{proposal_id}")
async def proposal(request: Request, user: Reader, proposal_id: ProposalId) -> dict[str, Any]:
    """One card, as it stands now."""
    return await _engine(request).card(user, proposal_id)


@router.post("/proposals/{proposal_id}/vote")
async def vote(request: Request, user: Writer, proposal_id: ProposalId, given: VoteIn) -> dict[str, Any]:
    """Approves or rejects exactly what the caller saw. 403 when the vote does not count, 409 when it is stale."""
    return await _vote(_engine(request), user, proposal_id, given.digest, given.decision, given.reason)


@router.post("/votes")
async def votes(request: Request, user: Writer, given: BulkVote) -> BulkResults:
    """One answer to several proposals; each is counted for itself and has its own result."""
    results = []
    for item in given.items:
        try:
            card = await _vote(
                _engine(request), user, item.proposal_id, item.digest, given.decision, given.reason
            )
            results.append(BulkResult(proposal_id=item.proposal_id, ok=True, card=card))
        except (PilotageError, Refusal) as exc:
            if isinstance(exc, ApiRejection | Refusal):
                await note_refusal(request, exc, about=item.proposal_id)
            results.append(BulkResult(proposal_id=item.proposal_id, ok=False, error=str(exc)))
    return BulkResults(results=results)


async def _vote(
    engine: Engine, user: User, proposal_id: str, digest: str, decision: str, reason: str
) -> dict[str, Any]:
    seen = await engine.card(user, proposal_id)
    if seen["digest"] != digest or not seen["open"]:
        why = f"it is {seen['status']} now" if seen["digest"] == digest else "it is another one already"
        raise Refusal(409, "stale", f"Answering {proposal_id}: {why}. Look at it again.")
    return await engine.decide(user, seen["proposal_id"], digest, decision, reason)


@router.get("/incidents/{incident_id}")
async def incident(request: Request, user: Reader, incident_id: IncidentId) -> dict[str, Any]:
    """One incident with its runs, and its proposals, each with its digest; and what its page shows beside."""
    found: dict[str, Any] = await _engine(request).ask(user, "incident", incident_id=incident_id)
    setting = await _engine(request).setting(user)
    return await asyncio.to_thread(incident_page_of, setting, found)


@router.get("/runs/{run_id}/logs")
async def logs(request: Request, user: Reader, run_id: RunId, limit: Limit = 200) -> list[dict[str, Any]]:
    """The last kept lines of a run's log, oldest first."""
    setting = await _engine(request).setting(user)
    return await asyncio.to_thread(log_lines, setting, run_id, limit)


@router.get("/runs/{run_id}/forecasts")
async def forecasts(request: Request, user: Reader, run_id: RunId) -> list[dict[str, Any]]:
    """What was forecast of a run, oldest first, each with its interval and its model."""
    setting = await _engine(request).setting(user)
    return await asyncio.to_thread(forecasts_over_time, setting, run_id)


@router.post("/incidents/{incident_id}/vote")
async def vote_incident(
    request: Request, user: Writer, incident_id: IncidentId, given: PlanVoteIn
) -> dict[str, Any]:
    """One answer to the plan of an incident as the caller saw it; each step is counted for itself."""
    reply: dict[str, Any] = await _engine(request).ask(
        user,
        "vote_incident",
        incident_id=incident_id,
        seen=given.seen,
        decision=given.decision,
        reason=given.reason,
    )
    return reply


@router.post("/incidents/{incident_id}/ack")
async def acknowledge(
    request: Request, user: Writer, incident_id: IncidentId, given: Because
) -> dict[str, Any]:
    """Says that the caller looks at an incident, so that nobody else is asked."""
    found: dict[str, Any] = await _engine(request).ask(
        user, "acknowledge", incident_id=incident_id, reason=given.reason
    )
    return found


@router.post("/proposals/{proposal_id}/edit", status_code=201)
async def edit(request: Request, user: Writer, proposal_id: ProposalId, given: Edit) -> dict[str, Any]:
    """Files the edited action as a proposal of the caller's own and gives its card."""
    return await _engine(request).edit(user, proposal_id, given.action, given.thread)


@router.post("/proposals/{proposal_id}/snooze", status_code=202)
async def snooze(request: Request, user: Writer, proposal_id: ProposalId, given: Snooze) -> Accepted:
    """Puts a card away for a while, for this caller alone. It goes on to expire."""
    return Accepted(seq=(await _engine(request).snooze(user, proposal_id, given.minutes)).seq)


@router.post("/proposals/{proposal_id}/undo")
async def undo(request: Request, user: Writer, proposal_id: ProposalId, given: Because) -> Undone:
    """Takes back what a proposal changed, where there is a way."""
    reply = await _engine(request).ask(user, "undo", proposal_id=proposal_id, reason=given.reason)
    return Undone(
        proposal_id=reply["proposal_id"], effect=reply["effect"], reason=str(reply.get("reason") or "")
    )


@router.post("/delegations", status_code=201)
async def delegate(request: Request, user: Writer, given: Lend) -> Lent:
    """Lends the caller's right to approve to another person for a while."""
    reply = await _engine(request).ask(user, "delegate", to=given.to, hours=given.hours, reason=given.reason)
    return Lent(**reply)


@router.post("/stop")
async def stop(request: Request, user: Writer, given: Because) -> Stopped:
    """Pulls the kill switch."""
    reply = await _engine(request).ask(user, "stop", reason=given.reason)
    return Stopped(stopped=str(reply["stopped"] or ""))


@router.post("/resume")
async def resume(request: Request, user: Writer) -> Stopped:
    """Votes to start again."""
    reply = await _engine(request).ask(user, "resume")
    return Stopped(stopped=str(reply["stopped"] or ""), votes_missing=int(reply["votes_missing"]))


# -- looking


@router.get("/actions")
async def actions(request: Request, user: Reader) -> dict[str, Any]:
    """The JSON schema of every kind of action, by kind: what forms are made from."""
    schemas: Mapping[str, Any] = await asyncio.to_thread(_schemas)
    return dict(schemas)


def _schemas() -> dict[str, Any]:
    from pilotage.planner.actions.types import ACTION  # start-up time

    whole = ACTION.json_schema()
    kinds = whole["discriminator"]["mapping"]
    definitions = whole["$defs"]
    return {
        kind: {**definitions[ref.rsplit("/", 1)[-1]], "$defs": definitions} for kind, ref in kinds.items()
    }


@router.get("/show/{command}")
async def show(
    request: Request,
    user: Reader,
    command: Annotated[str, PathParameter(pattern=r"^[a-z]{1,20}$")],
    about: Annotated[str, Query(max_length=1000)] = "",
) -> Shown:
    """What a command that only reads shows, as blocks."""
    known = COMMANDS.get(command)
    if known is None or not getattr(known, "reads", False):
        raise Refusal(
            404, "unknown-command", f"Showing {command}: there is no such command. See /api/show/help."
        )
    setting: Setting = await _engine(request).setting(user)
    return Shown(blocks=await asyncio.to_thread(known.run, setting, about.strip()))
