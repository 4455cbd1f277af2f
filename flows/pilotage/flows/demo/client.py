"""What the demo asks of Prefect, as any user could: start runs, look at them. Plain HTTP, so the stage stays light."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx

from pilotage.telemetry.errors import OrchestratorError

WITHIN = timedelta(minutes=1)
"""How long one request is asked again, unless told otherwise: SQLite answers 503 while it is locked."""
LONGEST_PAUSE = 5.0
"""Seconds between two askings, at most."""


class DemoClient:
    """A context manager around one HTTP client."""

    def __init__(self, api_url: str, auth_string: str, *, within: timedelta = WITHIN) -> None:
        self._within = within.total_seconds()
        user, _, password = auth_string.partition(":")
        self._client = httpx.Client(base_url=api_url, auth=(user, password), timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def start(
        self,
        flow: str,
        *,
        parameters: dict[str, Any] | None = None,
        after: timedelta = timedelta(0),
        tags: Sequence[str] = (),
    ) -> str:
        """The id of a new run of the flow's shipped deployment, due after `after`."""
        deployment = self._json("GET", f"/deployments/name/{flow}/demo")
        state = {
            "type": "SCHEDULED",
            "name": "Scheduled",
            "state_details": {"scheduled_time": (datetime.now(UTC) + after).isoformat()},
        }
        body = {
            "state": state,
            "parameters": {**deployment["parameters"], **(parameters or {})},
            "tags": list(tags),
            # a busy SQLite may answer 503 after the run was made: asked again, it is the same run
            "idempotency_key": uuid4().hex,
        }
        return str(self._json("POST", f"/deployments/{deployment['id']}/create_flow_run", json=body)["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        """The run as Prefect has it now."""
        reply: dict[str, Any] = self._json("GET", f"/flow_runs/{run_id}")
        return reply

    def _json(self, method: str, path: str, **more: Any) -> Any:
        problem, pause, began = "", 0.1, time.monotonic()
        while not problem or time.monotonic() - began < self._within:
            if problem:
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            try:
                answer = self._client.request(method, path, **more)
            except httpx.TransportError as exc:
                problem = repr(exc)
                continue
            if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                problem = answer.text[:300] or "503"
                continue
            if answer.is_error:
                raise OrchestratorError(
                    f"Asking Prefect for {path}: it answered {answer.status_code}: {answer.text[:300]}"
                )
            return answer.json()
        raise OrchestratorError(
            f"Asking Prefect for {path}: no answer within {self._within:.0f} s ({problem}).", transient=True
        )
