"""What monitoring asks: `/metrics` in Prometheus' text format, `/livez` and `/readyz` for whoever keeps processes alive.

`/metrics` takes the token of anybody who may read, since names of deployments and queues stand in it. The two probes take
none and name nothing of the site.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from pilotage.console.web.auth import Reader
from pilotage.flows.api.measures import MEASURES
from pilotage.telemetry.errors import PilotageError
from pilotage.telemetry.harmless import harmless

Status = Callable[[], Awaitable[Mapping[str, Any]]]
"""Asks the controller for its `status`. Raises PilotageError when it does not answer."""
router = APIRouter(include_in_schema=False)


@router.get("/livez")
async def live() -> dict[str, str]:
    """This process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def ready(request: Request) -> JSONResponse:
    """Whether the installation does its work: 200, or 503 with the reasons."""
    status: Status | None = request.app.state.status
    try:
        reply = await status() if status is not None else {}
        reasons = unready(reply)
    except PilotageError:
        reasons = ["the controller does not answer"]
    return JSONResponse(
        {"status": "not ready" if reasons else "ok", "reasons": reasons}, status_code=503 if reasons else 200
    )


@router.get("/metrics")
async def metrics(request: Request, user: Reader) -> Response:
    """Every measure in Prometheus' text format."""
    samples = await request.app.state.engine.ask(user, "measures")
    return Response(as_text(samples), media_type=CONTENT_TYPE_PLAIN_0_0_4)


def unready(status: Mapping[str, Any]) -> list[str]:
    """Return why the installation does not do its work, in fixed words; empty when it does.

    A pulled kill switch is no reason: it was pulled on purpose, and a restart would not help.
    """
    collector = status.get("collector") or {}
    reasons = []
    if not collector.get("connected"):
        reasons.append("Prefect's event stream does not stand")
    if collector.get("stands_still"):
        reasons.append("what is read from Prefect is older than two minutes")
    return reasons


def as_text(samples: Iterable[Mapping[str, Any]]) -> bytes:
    """Return samples, as the operation `measures` gives them, in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Samples(list(samples)))
    return generate_latest(registry)


class _Samples(Collector):
    """Values that were read already, as prometheus_client wants them."""

    def __init__(self, samples: Sequence[Mapping[str, Any]]) -> None:
        self._by_name: dict[str, list[Mapping[str, Any]]] = {}
        for sample in samples:
            self._by_name.setdefault(str(sample["name"]), []).append(sample)

    def collect(self) -> Iterable[Metric]:
        """Yield a family for each measure that has a value."""
        for measure in MEASURES:
            samples = self._by_name.get(measure.name)
            if not samples:
                continue
            kind = CounterMetricFamily if measure.kind == "counter" else GaugeMetricFamily
            family = kind(measure.name, measure.help, labels=measure.labels)
            for sample in samples:
                labels = [harmless(str(sample["labels"][name]), 200) for name in measure.labels]
                family.add_metric(labels, float(sample["value"]))
            yield family
