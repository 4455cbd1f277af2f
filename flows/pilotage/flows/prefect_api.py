"""Knows how to talk to Prefect's REST API; turns everything foreign into `OrchestratorError` in one place.

The raw routes are used because Prefect's Python client overwrites `transition_id`, which is what makes our
writes recognisable, and has no guarded write. Nothing here ever sends `force`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

import httpx

from pilotage.flows.prefect_views import DeploymentView, PoolView, QueueView, RunView, StateView, Transition
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.facts import StateType

T = TypeVar("T")

TRIES = 6
"""Prefect answers 503 when SQLite is locked; with waits of 0.1 s to 3.2 s that has always been enough."""
FIRST_WAIT = 0.1
PAGE = 200
"""Rows in one page; Prefect refuses more."""
_WORTH_ANOTHER_TRY = frozenset({408, 425, 429, 500, 502, 503, 504})


class PrefectApi:
    """Prefect's REST API, for one event loop at a time. Every method raises OrchestratorError only."""

    def __init__(
        self,
        api_url: str,
        *,
        auth_string: str = "",
        api_key: str = "",
        headers: Mapping[str, str] | None = None,
        verify: Any = True,
        transport: httpx.AsyncBaseTransport | None = None,
        first_wait: float = FIRST_WAIT,
    ) -> None:
        self.api_url = api_url.rstrip("/")
        self._first_wait = first_wait
        sent = dict(headers or {})
        user, _, password = auth_string.partition(":")
        if api_key and not auth_string:
            sent["Authorization"] = f"Bearer {api_key}"
        self._client = httpx.AsyncClient(
            base_url=self.api_url,
            auth=(user, password) if auth_string else None,
            headers=sent,
            verify=verify,
            transport=transport,
            timeout=httpx.Timeout(30, connect=5),
            follow_redirects=True,
        )

    @classmethod
    def from_prefect_settings(cls) -> PrefectApi:
        """The API of the active Prefect profile and environment. Raises OrchestratorError without one."""
        from prefect.settings import get_current_settings  # takes two seconds to import

        settings = get_current_settings()
        if not settings.api.url:
            raise OrchestratorError(
                "Looking for the Prefect server: neither PREFECT_API_URL nor the active profile names one. "
                "Set PREFECT_API_URL, or run `prefect config set PREFECT_API_URL=…`."
            )
        secret, key = settings.api.auth_string, settings.api.key
        return cls(
            settings.api.url,
            auth_string=secret.get_secret_value() if secret else "",
            api_key=key.get_secret_value() if key else "",
            headers=settings.client.custom_headers,
            verify=not settings.api.tls_insecure_skip_verify,
        )

    async def close(self) -> None:
        """Nothing; the connections are closed."""
        await self._client.aclose()

    @property
    def ui_url(self) -> str:
        """Where people look: a server of one's own serves its UI beside the API."""
        return self.api_url.removesuffix("/api")

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[PrefectApi]:
        """The API itself, closed at the end."""
        try:
            yield self
        finally:
            await self.close()

    # -- runs ---------------------------------------------------------------------------------------------

    async def run(self, run_id: str) -> RunView:
        """The flow run as it is now."""
        return await self._read("GET", f"/flow_runs/{run_id}", RunView.read)

    async def history(self, run_id: str) -> tuple[StateView, ...]:
        """Every state of the run, oldest first."""
        states = await self._read(
            "GET", "/flow_run_states/", _each(StateView.read), params={"flow_run_id": run_id}
        )
        return tuple(sorted(states, key=lambda state: state.at))

    async def runs(self, where: Mapping[str, Any], *, limit: int = PAGE) -> tuple[RunView, ...]:
        """The runs that Prefect's `FlowRunFilter` finds, next to start first."""
        body = {"flow_runs": where, "limit": limit, "sort": "NEXT_SCHEDULED_START_TIME_ASC"}
        return await self._read("POST", "/flow_runs/filter", _each(RunView.read), json=body)

    async def runs_of_queue(
        self, pool: str, queue: str, where: Mapping[str, Any], *, limit: int = PAGE
    ) -> tuple[RunView, ...]:
        """The runs of one queue of one pool that the filter finds, latest start first."""
        body = {
            "flow_runs": where,
            "work_pools": {"name": {"any_": [pool]}},
            "work_pool_queues": {"name": {"any_": [queue]}},
            "limit": limit,
            "sort": "START_TIME_DESC",
        }
        return await self._read("POST", "/flow_runs/filter", _each(RunView.read), json=body)

    async def set_state(
        self,
        run_id: str,
        type_: StateType,
        name: str,
        *,
        message: str,
        mark: str,
        scheduled_for: datetime | None = None,
    ) -> Transition:
        """The ruling on a proposed state, whatever the run's present one. Prefer `set_state_if`."""
        body = {"state": _state(type_, name, message, mark, scheduled_for), "force": False}
        return await self._read("POST", f"/flow_runs/{run_id}/set_state", Transition.read, json=body)

    async def set_state_if(
        self,
        run_id: str,
        among: Sequence[StateType],
        type_: StateType,
        name: str,
        *,
        message: str,
        mark: str,
        scheduled_for: datetime | None = None,
        due_after: datetime | None = None,
    ) -> Transition:
        """The ruling on a proposed state, made only if the run is `among` these state types.

        With `due_after` it must also be scheduled for later than that. Ruling `NONE` when it is not so.
        Prefect filters and writes in two transactions: a window of milliseconds stays open, so verify.
        """
        where: dict[str, Any] = {"id": {"any_": [run_id]}, "state": {"type": {"any_": list(among)}}}
        if due_after is not None:
            where["next_scheduled_start_time"] = {"after_": due_after.isoformat()}
        body = {
            "flow_runs": where,
            "state": _state(type_, name, message, mark, scheduled_for),
            "force": False,
            "limit": 1,
        }

        def first(reply: Any) -> Transition:
            results = reply["results"]
            return Transition.read(results[0]) if results else Transition(ruling="NONE", state=None)

        return await self._read("POST", "/flow_runs/bulk_set_state", first, json=body)

    async def set_job_variables(self, run_id: str, variables: Mapping[str, Any]) -> None:
        """Nothing; the run's job variables are these and no others. Only for a SCHEDULED run."""
        await self._send("PATCH", f"/flow_runs/{run_id}", json={"job_variables": dict(variables)})

    async def add_labels(self, run_id: str, labels: Mapping[str, str | int | float | bool]) -> None:
        """Nothing; the run has these labels besides those it had."""
        await self._send("PATCH", f"/flow_runs/{run_id}/labels", json=dict(labels))

    # -- pools and queues ---------------------------------------------------------------------------------

    async def pool(self, name: str) -> PoolView:
        """The work pool."""
        return await self._read("GET", f"/work_pools/{name}", PoolView.read)

    async def queues(self, pool: str) -> tuple[QueueView, ...]:
        """Every queue of the pool, first served first."""
        found = await self._read("POST", f"/work_pools/{pool}/queues/filter", _each(QueueView.read), json={})
        return tuple(sorted(found, key=lambda queue: queue.priority))

    async def set_queue_limit(self, pool: str, queue: str, limit: int | None) -> None:
        """Nothing; the queue has this limit, or none."""
        await self._send("PATCH", f"/work_pools/{pool}/queues/{queue}", json={"concurrency_limit": limit})

    async def set_queue_paused(self, pool: str, queue: str, paused: bool) -> None:
        """Nothing; the queue hands out no runs, or does again."""
        await self._send("PATCH", f"/work_pools/{pool}/queues/{queue}", json={"is_paused": paused})

    # -- deployments --------------------------------------------------------------------------------------

    async def deployment(self, deployment_id: str) -> DeploymentView:
        """The deployment."""
        return await self._read("GET", f"/deployments/{deployment_id}", DeploymentView.read)

    async def deployments_of_queue(
        self, pool: str, queue: str, *, limit: int = PAGE
    ) -> tuple[DeploymentView, ...]:
        """The deployments whose runs go to this queue, at most `limit`."""
        body = {
            "work_pools": {"name": {"any_": [pool]}},
            "work_pool_queues": {"name": {"any_": [queue]}},
            "limit": limit,
        }
        return await self._read("POST", "/deployments/filter", _each(DeploymentView.read), json=body)

    async def flow_name(self, flow_id: str) -> str:
        """The name of a flow."""
        return await self._read("GET", f"/flows/{flow_id}", lambda reply: str(reply["name"]))

    async def pause_deployment(self, deployment_id: str) -> None:
        """Nothing; its schedules stop, and Prefect has deleted its future auto-scheduled runs."""
        await self._send("POST", f"/deployments/{deployment_id}/pause_deployment")

    async def resume_deployment(self, deployment_id: str) -> None:
        """Nothing; its schedules run again, and their next runs exist."""
        await self._send("POST", f"/deployments/{deployment_id}/resume_deployment")
        await self._send("POST", f"/deployments/{deployment_id}/schedule", json={})

    # -- what people see ----------------------------------------------------------------------------------

    async def emit(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Nothing; Prefect took the events. One that it has already by its id stays one."""
        await self._send("POST", "/events", json=[dict(event) for event in events])

    async def event_exists(self, event_id: str, since: datetime) -> bool:
        """Whether the event can be read back; Prefect writes events in batches, seconds later."""
        where = {"id": {"id": [event_id]}, "occurred": {"since": (since - timedelta(minutes=1)).isoformat()}}
        body = {"filter": where, "limit": 1}
        return await self._read("POST", "/events/filter", lambda reply: bool(reply["events"]), json=body)

    async def worker_let_go(self, run_id: str, since: datetime) -> bool:
        """Whether a worker has reported the end of the run's process since then, as far as events are written.

        Fits `LetGo` of the retry lever. A store that listens to events knows it seconds earlier.
        """
        where = {
            "event": {"name": ["prefect.worker.executed-flow-run"]},
            "related": {"id": [f"prefect.flow-run.{run_id}"]},
            "occurred": {"since": since.isoformat()},
        }
        body = {"filter": where, "limit": 1}
        return await self._read("POST", "/events/filter", lambda reply: bool(reply["events"]), json=body)

    async def put_artifact(self, run_id: str, key: str, markdown: str, *, description: str) -> None:
        """Nothing; the run shows this text under the key. Prefect keeps earlier versions."""
        body = {
            "key": key,
            "type": "markdown",
            "description": description,
            "data": markdown,
            "flow_run_id": run_id,
        }
        await self._send("POST", "/artifacts/", json=body)

    # -- what has to survive a crash ----------------------------------------------------------------------

    async def variable(self, name: str) -> Any:
        """The value of a Prefect variable, or None."""
        reply = await self._send("GET", f"/variables/name/{name}", none_on_404=True)
        return None if reply is None else reply.json()["value"]

    async def variables_like(self, part: str) -> dict[str, Any]:
        """The Prefect variables whose names contain this."""
        body = {"variables": {"name": {"like_": f"%{part}%"}}, "limit": PAGE}
        return await self._read(
            "POST",
            "/variables/filter",
            lambda reply: {each["name"]: each["value"] for each in reply},
            json=body,
        )

    async def set_variable(self, name: str, value: Any) -> None:
        """Nothing; the variable has this value."""
        changed = await self._send(
            "PATCH", f"/variables/name/{name}", json={"value": value}, none_on_404=True
        )
        if changed is None:
            await self._send("POST", "/variables/", json={"name": name, "value": value, "tags": ["pilotage"]})

    async def delete_variable(self, name: str) -> None:
        """Nothing; there is no such variable."""
        await self._send("DELETE", f"/variables/name/{name}", none_on_404=True)

    # -- the one door -------------------------------------------------------------------------------------

    async def _read(self, method: str, route: str, parse: Callable[[Any], T], **sent: Any) -> T:
        answer = await self._send(method, route, **sent)
        try:
            return parse(answer.json() if answer else None)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise OrchestratorError(
                f"{method} {route}: Prefect's reply has another shape than we know ({error!r}). "
                "Is the server a Prefect 3.8?"
            ) from error

    async def _send(
        self, method: str, route: str, *, none_on_404: bool = False, **sent: Any
    ) -> httpx.Response | None:
        for attempt in range(TRIES):
            if attempt:
                wait = self._first_wait * 2 ** (attempt - 1)
                await asyncio.sleep(wait * random.uniform(0.8, 1.2))  # noqa: S311
            last = attempt == TRIES - 1
            try:
                answer = await self._client.request(method, route, **sent)
            except Exception as error:
                translated = translate(error, method, route, self.api_url)
                if last or not translated.transient:
                    raise translated from error
                continue
            if answer.is_success:
                return answer
            if answer.status_code == httpx.codes.NOT_FOUND and none_on_404:
                return None
            if answer.status_code == httpx.codes.FORBIDDEN and "CSRF" in answer.text and not last:
                await self._fetch_csrf_token()
                continue
            refused = refusal(answer.status_code, answer.text, method, route)
            if last or not refused.transient:
                raise refused
        raise AssertionError("the last try returns or raises")

    async def _fetch_csrf_token(self) -> None:
        caller = self._client.headers.get("Prefect-Csrf-Client") or str(uuid4())
        answer = await self._client.get("/csrf-token", params={"client": caller})
        if answer.is_success:
            self._client.headers["Prefect-Csrf-Client"] = caller
            self._client.headers["Prefect-Csrf-Token"] = answer.json()["token"]


def translate(error: Exception, method: str, route: str, api_url: str) -> OrchestratorError:
    """Our error for whatever the HTTP client raised: transient when the network was at fault."""
    match error:
        case httpx.UnsupportedProtocol() | httpx.LocalProtocolError():
            transient, advice = False, f"Is {api_url!r} the address of a Prefect API?"
        case httpx.TimeoutException():
            transient, advice = True, "The server is slow or gone; it will be asked again."
        case httpx.TransportError() | OSError():
            transient, advice = True, f"Is the Prefect server at {api_url} up? It will be asked again."
        case _:
            transient, advice = False, "This is not a fault of the network; read the cause."
    return OrchestratorError(
        f"{method} {route}: {type(error).__name__}: {error}. {advice}", transient=transient
    )


def refusal(status: int, text: str, method: str, route: str) -> OrchestratorError:
    """Our error for an HTTP status that is none of success: transient when another try may be answered."""
    match status:
        case 401 | 403:
            advice = "Prefect refuses our credential; check PREFECT_API_AUTH_STRING or PREFECT_API_KEY."
        case 404:
            advice = "It does not exist, or was deleted."
        case 422:
            advice = "Prefect does not understand what we sent; is the server a Prefect 3.8?"
        case _ if status in _WORTH_ANOTHER_TRY:
            advice = "The server is busy or unwell; it will be asked again."
        case _:
            advice = "Read the server's log."
    return OrchestratorError(
        f"{method} {route}: Prefect answered {status}: {text[:300]}. {advice}",
        transient=status in _WORTH_ANOTHER_TRY,
    )


def _state(
    type_: StateType, name: str, message: str, mark: str, scheduled_for: datetime | None
) -> dict[str, Any]:
    details: dict[str, Any] = {"transition_id": mark}
    if scheduled_for is not None:
        details["scheduled_time"] = scheduled_for.isoformat()
    return {"type": type_.value, "name": name, "message": message, "state_details": details}


def _each(read: Callable[[Mapping[str, Any]], T]) -> Callable[[Any], tuple[T, ...]]:
    return lambda reply: tuple(read(each) for each in reply)
