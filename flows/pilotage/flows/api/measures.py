"""The measures of an installation: which there are, and their values from what was read. No clock, no database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

MOST_NAMES = 200
"""Deployments or queues that get a line of their own; the rest are added up under `OTHERS`."""
OTHERS = "(others)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One measure as Prometheus knows it."""

    name: str
    kind: Literal["gauge", "counter"]
    """A counter starts at 0 with the controller and only grows."""
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One value."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    value: float


def _gauge(name: str, says: str, *labels: str) -> Measure:
    return Measure(name=f"pilotage_{name}", kind="gauge", help=says, labels=labels)


def _counter(name: str, says: str, *labels: str) -> Measure:
    return Measure(name=f"pilotage_{name}_total", kind="counter", help=says, labels=labels)


MEASURES = (
    _gauge("info", "Always 1; mode and policies in force.", "mode", "bundle"),
    _gauge("stopped", "1 while the kill switch is pulled."),
    _gauge("broken_glass", "Break-glass grants in force."),
    _gauge("incidents_open", "Incidents that are open."),
    _gauge("unresolved_failures", "Failed runs of open incidents, by deployment.", "deployment"),
    _gauge("proposals", "Proposals by status.", "status"),
    _counter("verdicts", "Verdicts by stage (judge, admit) and outcome.", "stage", "outcome"),
    _counter("deliveries", "Deliveries by what they did (done, already, refused).", "effect"),
    _counter("delivery_failures", "Deliveries that failed; transient ones are tried again.", "transient"),
    _counter("outcomes", "Final words of verification (verified, failed).", "judgement"),
    _counter("undone", "Changes that were taken back."),
    _counter("audit_entries", "Rows of the audit log."),
    _gauge("outbox_waiting", "Admitted proposals that are not delivered yet."),
    _gauge("outbox_oldest_seconds", "How long the oldest of them has waited."),
    _gauge("collector_connected", "1 while Prefect's event stream stands."),
    _gauge("collector_lag_seconds", "Since the newest event that was received; grows while nothing happens."),
    _gauge("collector_watermark_age_seconds", "Up to how long ago everything has been read from Prefect."),
    _gauge(
        "deliveries_set_aside",
        "Deliveries that cannot be verified or taken back: a lever is gone, or a defect.",
    ),
    _gauge("collector_set_aside", "Rows that Prefect has and cannot send."),
    _counter("prefect_requests", "Requests to Prefect, by who asks (collector, levers).", "by"),
    _counter("prefect_request_failures", "Requests to Prefect that were not answered.", "by"),
    _counter("prefect_request_seconds", "Seconds spent waiting for Prefect.", "by"),
    _counter("loop_turns", "Turns of the controller's loop."),
    _counter("loop_step_seconds", "Seconds spent in each step of the loop.", "step"),
    _counter("loop_step_failures", "Steps that failed and are tried in the next turn.", "step"),
    _gauge("loop_last_turn_seconds", "How long the last turn took."),
    _gauge("queue_depth", "Due runs that no worker has taken.", "pool", "queue"),
    _gauge("lateness_seconds", "How late the latest due run is.", "pool", "queue"),
    _gauge("runs_unfinished", "Runs that have not ended, by state type.", "state"),
    _gauge("forecast_age_seconds", "Since the newest forecast was made."),
    _gauge("forecast_model_age_seconds", "Since the model that serves was trained."),
    _gauge("forecast_scored", "Forecasts of the last 30 days whose runs have ended."),
    _gauge("forecast_brier", "Their mean squared error; 0 is best."),
    _gauge("forecast_calibration_error", "Mean distance of forecast and frequency over ten bins; 0 is best."),
    _counter("llm_calls", "Calls of a language model, since the installation began."),
    _counter("llm_tokens", "Tokens spent on a language model, by kind (prompt, completion).", "kind"),
    _counter("llm_cost", "What they cost, in the currency of the configured prices."),
    _gauge("file_bytes", "Size of the files of the state directory.", "file"),
    _counter(
        "process_cpu_seconds", "Processor time of the controller and the processes it keeps.", "process"
    ),
    _gauge("process_resident_bytes", "Memory of the controller and the processes it keeps.", "process"),
)
"""Every measure there is. A dashboard or an alert may name no other; a test holds them to it."""


@dataclass(slots=True, kw_only=True)
class StepCounts:
    """What the audit log has told since the start, counted entry by entry: no table is read twice."""

    seq: int
    """Number of the last entry that was counted."""
    entries: int = 0
    by: dict[tuple[str, tuple[tuple[str, str], ...]], int] = field(default_factory=dict)
    """By measure and labels."""

    def add(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Count entries as `Ledger.entries` returns them, in their order."""
        for entry in entries:
            self.seq = int(entry["seq"])
            self.entries += 1
            if counted := _counted(entry):
                self.by[counted] = self.by.get(counted, 0) + 1


def _counted(entry: Mapping[str, Any]) -> tuple[str, tuple[tuple[str, str], ...]] | None:
    detail = entry["detail"]
    match entry["step"]:
        case "judged" | "admitted" | "refused" as step:
            outcome = str((detail.get("verdict") or {}).get("outcome") or "")
            stage = "judge" if step == "judged" else "admit"
            return ("pilotage_verdicts_total", (("stage", stage), ("outcome", outcome))) if outcome else None
        case "injected":
            return "pilotage_deliveries_total", (("effect", str(detail.get("effect"))),)
        case "failed":
            return "pilotage_delivery_failures_total", (
                ("transient", str(bool(detail.get("transient"))).lower()),
            )
        case "verified":
            return "pilotage_outcomes_total", (("judgement", str(detail.get("judgement"))),)
        case "undone":
            return "pilotage_undone_total", ()
        case _:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What one client asked of Prefect since the start."""

    asked: int
    failed: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one process uses."""

    cpu_seconds: float
    resident_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What was read, as plain values. Nothing is asked for while measures are made of it."""

    now: datetime
    mode: str
    bundle: str
    stopped: bool
    broken_glass: int
    incidents_open: int
    unresolved: Mapping[str, int]
    """Failed runs of open incidents, by deployment's name."""
    proposals: Mapping[str, int]
    steps: StepCounts
    outbox_waiting: int
    outbox_oldest: datetime | None
    connected: bool
    last_event: datetime | None
    watermark: datetime | None
    set_aside: int
    defects: int
    requests: Mapping[str, Requests]
    turns: int
    last_turn_seconds: float
    step_seconds: Mapping[str, float]
    step_failures: Mapping[str, int]
    queues: Sequence[tuple[str, str, int, float]]
    """Pool, queue, due runs, seconds that the latest of them is late."""
    unfinished: Mapping[str, int]
    forecast_at: datetime | None
    model_at: datetime | None
    scored: int
    brier: float | None
    calibration_error: float | None
    llm_calls: int
    llm_prompt: int
    llm_completion: int
    llm_cost: float
    files: Mapping[str, int]
    processes: Mapping[str, Usage]


def samples_of(read: Readings) -> list[Sample]:
    """Return every value there is; what nothing is known of has none."""
    return [
        Sample(name=name, labels=dict(labels), value=float(value))
        for name, labels, value in _values(read)
        if value is not None
    ]


def _values(read: Readings) -> Iterator[tuple[str, Iterable[tuple[str, str]], float | None]]:
    def age(moment: datetime | None) -> float | None:
        return None if moment is None else max((read.now - moment).total_seconds(), 0.0)

    yield "pilotage_info", (("mode", read.mode), ("bundle", read.bundle)), 1
    alone: Mapping[str, float | None] = {
        "stopped": read.stopped,
        "broken_glass": read.broken_glass,
        "incidents_open": read.incidents_open,
        "undone_total": 0 if ("pilotage_undone_total", ()) not in read.steps.by else None,
        "audit_entries_total": read.steps.entries,
        "outbox_waiting": read.outbox_waiting,
        "outbox_oldest_seconds": age(read.outbox_oldest) or 0.0,
        "collector_connected": read.connected,
        "collector_lag_seconds": age(read.last_event),
        "collector_watermark_age_seconds": age(read.watermark),
        "collector_set_aside": read.set_aside,
        "deliveries_set_aside": read.defects,
        "loop_turns_total": read.turns,
        "loop_last_turn_seconds": read.last_turn_seconds,
        "forecast_age_seconds": age(read.forecast_at),
        "forecast_model_age_seconds": age(read.model_at),
        "forecast_scored": read.scored,
        "forecast_brier": read.brier,
        "forecast_calibration_error": read.calibration_error,
        "llm_calls_total": read.llm_calls,
        "llm_cost_total": read.llm_cost,
    }
    for name, value in alone.items():
        yield f"pilotage_{name}", (), value
    for (name, labels), count in read.steps.by.items():
        yield name, labels, count
    for deployment, count in _bounded(read.unresolved).items():
        yield "pilotage_unresolved_failures", (("deployment", deployment),), count
    by_label: tuple[tuple[str, str, Mapping[str, float]], ...] = (
        ("proposals", "status", read.proposals),
        ("loop_step_seconds_total", "step", read.step_seconds),
        ("loop_step_failures_total", "step", read.step_failures),
        ("runs_unfinished", "state", read.unfinished),
        ("llm_tokens_total", "kind", {"prompt": read.llm_prompt, "completion": read.llm_completion}),
        ("file_bytes", "file", read.files),
    )
    for name, label, values in by_label:
        for key, value in values.items():
            yield f"pilotage_{name}", ((label, key),), value
    for by, asked in read.requests.items():
        yield "pilotage_prefect_requests_total", (("by", by),), asked.asked
        yield "pilotage_prefect_request_failures_total", (("by", by),), asked.failed
        yield "pilotage_prefect_request_seconds_total", (("by", by),), asked.seconds
    for process, used in read.processes.items():
        yield "pilotage_process_cpu_seconds_total", (("process", process),), used.cpu_seconds
        yield "pilotage_process_resident_bytes", (("process", process),), used.resident_bytes
    fullest = sorted(read.queues, key=lambda row: -row[2])[:MOST_NAMES]
    for pool, queue, due, late in fullest:
        where = (("pool", pool), ("queue", queue))
        yield "pilotage_queue_depth", where, due
        yield "pilotage_lateness_seconds", where, late


def _bounded(counts: Mapping[str, int]) -> dict[str, int]:
    """The largest counts by name, the rest under one: a label with a million values would end the scraper."""
    largest = sorted(counts.items(), key=lambda row: (-row[1], row[0]))
    kept = dict(largest[:MOST_NAMES])
    if rest := sum(count for _, count in largest[MOST_NAMES:]):
        kept[OTHERS] = rest
    return kept
