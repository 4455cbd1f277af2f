"""How a no is told over HTTP: one table from the kinds of refusal to status codes, one shape of body."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pilotage.console.session.engine import Engine
from pilotage.console.session.ports import User
from pilotage.flows.api.client import ApiRejection
from pilotage.telemetry.errors import AdapterError, PilotageError

log = logging.getLogger("pilotage.console")

STATUS = {
    "unknown-identity": 401,
    "not-signed-in": 401,
    "wrong-password": 401,
    "not-vouched-for": 401,
    "no-provider": 404,
    "wrong-role": 403,
    "not-shared": 403,
    "denied": 403,
    "vote-refused": 403,
    "stale": 409,
    "closed": 409,
    "observe": 409,
    "ambiguous": 409,
    "unknown-proposal": 404,
    "unknown-incident": 404,
    "unknown-run": 404,
    "unknown-deployment": 404,
    "unknown-grant": 404,
    "unknown-subject": 404,
    "unknown-operation": 404,
    "unknown-thread": 404,
    "unknown-person": 404,
    "bad-request": 422,
    "invalid": 422,
    "too-many-tries": 429,
}
"""By kind of refusal; what is not here is 400."""


class Refusal(Exception):
    """A no of the web layer itself."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


def body(kind: str, message: str) -> dict[str, dict[str, str]]:
    """The shape of every error: `{"error": {"kind", "message"}}`."""
    return {"error": {"kind": kind, "message": message}}


def install(app: FastAPI) -> None:
    """Makes every error of the app come out in that shape."""

    @app.exception_handler(Refusal)
    async def ours(request: Request, exc: Refusal) -> JSONResponse:
        await note_refusal(request, exc)
        return JSONResponse(body(exc.kind, str(exc)), exc.status)

    @app.exception_handler(ApiRejection)
    async def control_api(request: Request, exc: ApiRejection) -> JSONResponse:
        await note_refusal(request, exc)
        return JSONResponse(body(exc.kind, str(exc)), STATUS.get(exc.kind, 400))

    @app.exception_handler(PilotageError)
    async def pilotage(request: Request, exc: PilotageError) -> JSONResponse:
        if isinstance(exc, AdapterError):
            return JSONResponse(body("unavailable", str(exc)), 503)
        return JSONResponse(body("error", str(exc)), 400)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, exc: RequestValidationError) -> JSONResponse:
        wrong = "; ".join(
            f"{'.'.join(str(p) for p in error['loc'])}: {error['msg']}" for error in exc.errors()
        )
        refusal = Refusal(422, "invalid", f"Reading the request: {wrong}.")
        await note_refusal(request, refusal)
        return JSONResponse(body(refusal.kind, str(refusal)), refusal.status)

    @app.exception_handler(HTTPException)
    async def http(request: Request, exc: HTTPException) -> JSONResponse:
        name = HTTPStatus(exc.status_code).phrase
        return JSONResponse(
            body(name.lower().replace(" ", "-"), f"{request.method} {request.url.path}: {name}."),
            exc.status_code,
            headers=exc.headers,
        )


async def note_refusal(request: Request, refusal: Refusal | ApiRejection, about: str = "") -> None:
    """Have a refusal written to the audit log, unless it is there, nobody proved who asks, or nothing would change.

    The refusal stands whether that succeeds or not.
    """
    user: User | None = getattr(request.state, "user", None)
    done = isinstance(refusal, ApiRejection) and refusal.recorded
    if user is None or done or request.method in ("GET", "HEAD", "OPTIONS"):
        return
    route = request.scope.get("route")
    name = f"{request.method} {getattr(route, 'path', request.url.path)}"
    named = about or str(request.path_params.get("proposal_id") or request.path_params.get("thread") or "")
    engine: Engine = request.app.state.engine
    try:
        await engine.ask(user, "note_refusal", request=name, kind=refusal.kind, why=str(refusal), about=named)
    except PilotageError as exc:
        log.warning("writing down that %s was refused to %s: %s", name, user.name, exc)
