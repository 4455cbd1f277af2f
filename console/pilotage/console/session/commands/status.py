"""Commands that show how it stands."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pilotage.console.render.statuses import PROPOSAL, legend
from pilotage.console.render.text import collection_in_words, joined
from pilotage.console.session.blocks import Block, chart, link, moment, pairs, table, text, timeline
from pilotage.console.session.command import Setting
from pilotage.console.session.lists import (
    INCIDENTS,
    PROPOSALS,
    RUNS,
    asked_of,
    incident_page,
    proposal_page,
    read_on,
    run_page,
)
from pilotage.console.session.resolve import run_meant
from pilotage.flows.api.client import ApiRejection
from pilotage.telemetry.errors import PilotageError
from pilotage.telemetry.facts import QueueFact, RunFact
from pilotage.telemetry.forecast.upcoming import last_forecast, riskiest
from pilotage.telemetry.kpis import LEAST, MINUTES_BY_HAND, Kpi, measured
from pilotage.telemetry.queries import runs as runs_known
from pilotage.telemetry.queries.timelines import states_of, tasks_of

INBOX = "Waiting for a person"
"""The title by which `/approve all` finds what was seen."""
ROWS = 30
DAY = timedelta(days=1)


def status(s: Setting, rest: str) -> list[Block]:
    """Mode, kill switch, collector, and how many proposals stand where; with `legend`, what every status means."""
    if rest.strip().lstrip("-") == "legend":
        rows = [(entry["group"], entry["status"], entry["means"]) for entry in legend()]
        return [table("Statuses", ("of", "status", "which means"), rows, empty="")]
    reply = s.control_api.call("status")
    collector = reply.get("collector") or {}
    stands = [
        (name, count, PROPOSAL.get(name, ""))
        for name, count in sorted((reply.get("proposals") or {}).items())
    ]
    return [
        pairs(
            "pilotage",
            {
                "mode": reply["mode"],
                "stopped": reply["stopped"] or "no",
                "collector": ("connected" if collector.get("connected") else "NOT connected to Prefect"),
                "last event": moment(collector.get("last_event")) or "none yet",
                **({"last error": collector["last_error"]} if collector.get("last_error") else {}),
                **collection_in_words(collector),
                "policies": str(reply.get("bundle") or "")[:16],
                "model": model_in_words(s.model),
                **_queues_in_words(s),
            },
        ),
        table("Proposals", ("status", "how many", "which means"), stands, empty="Nothing was proposed yet."),
    ]


def _queues_in_words(s: Setting) -> dict[str, str]:
    """What runs, waits and went wrong; when telemetry is away that is said, for the rest stands without it."""
    now = s.clock()
    oldest = s.control_api.call("incident_page", state="open", sort="oldest", limit=1)
    begun = [row["opened_at"] for row in oldest["rows"]]
    rows = {"incidents open": f"{oldest['count']}, the oldest for {ago(begun[0], now)}" if begun else "none"}
    try:
        store = s.toolbox.store
        queues, late = runs_known.queue_snapshots(store), runs_known.waiting_runs(store, now)
        failed = runs_known.failures_since(store, now - DAY)
    except PilotageError as exc:
        return {"runs": f"not known: {exc}", **rows}
    longest = f", the longest for {ago(late[0].next_start, now)}" if late else ""
    return {
        "running": str(sum(queue.running for queue in queues)),
        "late": f"{len(late)}{longest}",
        "failed in the last day": str(len(failed)),
        **rows,
    }


def model_in_words(model: Mapping[str, Any]) -> str:
    """Which model answers, with the badge of one that is none."""
    if not model.get("configured"):
        return "none: rules answer"
    return (
        f"{model.get('name')} [MOCK: scripted, not a model]" if model.get("mock") else str(model.get("name"))
    )


def inbox(s: Setting, rest: str) -> list[Block]:
    """What waits for a person, without what this person wants to see later: a page, with how many there are in all."""
    whole, wanted = rest.strip() == "all", "" if rest.strip() == "all" else rest
    now = s.clock()
    later = [] if whole else [key for key, until in s.log.snoozed(s.user.name).items() if until > now]
    asked = {"status": "needs_approval", **asked_of(wanted, PROPOSALS)}
    page = proposal_page(s, {**asked, "without": later})
    rows = page["rows"]
    asleep = proposal_page(s, {**asked, "limit": 1})["count"] - page["count"] if later else 0
    notes = [
        read_on("inbox", rest, page),
        f"{asleep} snoozed; /inbox all shows them." if asleep else "",
    ]
    return [
        table(
            INBOX,
            ("proposal", "age", "action", "on", "run", "cause", "missing", "expires"),
            (
                (
                    link(row["proposal_id"], "proposal", row["proposal_id"]),
                    ago(row["filed_at"], now),
                    row["words"],
                    _place(row),
                    link(row["run_name"] or row["run_id"][:8], "run", row["run_id"])
                    if row["run_id"]
                    else row["target"],
                    ": ".join(part for part in (row["cause"], row["error"][:80]) if part),
                    joined(row["missing"]),
                    f"in {ago(now.isoformat(), row['expires_at'])}",
                )
                for row in rows
            ),
            empty=f"Nothing waits for a person{' now' if asleep else ''}.",
        )
        | {"digests": {row["proposal_id"]: row["digest"] for row in rows}},
        *(text(note) for note in notes if note),
    ]


def _place(row: Mapping[str, Any]) -> str:
    return f"{row['deployment']} ({row['env']}, tier {row['tier']})" if row["env"] else row["deployment"]


def ago(since: Any, until: Any) -> str:
    """The time between two moments in the largest unit that fits: 45s, 12m, 3h, 2d."""
    begin, end = (
        each if isinstance(each, datetime) else datetime.fromisoformat(str(each)) for each in (since, until)
    )
    seconds = max(0.0, (end - begin).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def incidents(s: Setting, rest: str) -> list[Block]:
    """What went wrong, the last first: a page, with how many are open in all."""
    page = incident_page(s, asked_of(rest, INCIDENTS))
    counts, note = page["counts"], read_on("incidents", rest, page)
    return [
        table(
            "Incidents",
            ("since", "incident", "what is wrong", "runs", "actions", "status"),
            (
                (
                    moment(row["opened_at"]),
                    link(row["incident_id"], "incident", row["incident_id"]),
                    row["says"],
                    f"{row['runs']}, {row['runs_open']} not done" if row["runs"] > 1 else row["runs"],
                    joined(row["kinds"]),
                    row["status"],
                )
                for row in page["rows"]
            ),
            empty="No incident on record." if not rest.strip() else "No incident fits.",
        ),
        text(f"{counts['open']} open, {counts['over']} over. {note}".strip()),
    ]


def subject_of(incident: Mapping[str, Any]) -> Any:
    """What the incident is about: the deployment whose run it is, with the way to the run, or the queue or the like."""
    run_id = str(incident.get("run_id") or "")
    if not run_id:
        return incident["subject"]
    facts = (row.get("target_facts") or {} for row in incident["proposals"])
    named = [name for each in facts if (name := each.get("deployment_name"))]
    return link(", ".join([*named[:1], f"run {run_id[:8]}"]), "run", run_id)


def runs(s: Setting, rest: str) -> list[Block]:
    """The runs that changed last; words of `rest` are looked for in names, flows, deployments and states."""
    page = run_page(s, asked_of(rest, RUNS))
    note = read_on("runs", rest, page)
    shown = table(
        f"Runs with {rest.strip()!r}" if rest.strip() else "Runs",
        ("changed", "run", "flow", "state", "queue", "id"),
        (_run_row(run) for run in page["rows"]),
        empty="No run fits." if rest.strip() else "No run was seen yet.",
    )
    return [shown, text(note)] if note else [shown]


def _run_row(run: RunFact) -> tuple[Any, ...]:
    return (
        moment(run.updated.isoformat()),
        link(run.name, "run", run.run_id),
        f"{run.flow_name}/{run.deployment_name}" if run.deployment_name else run.flow_name,
        run.state_name,
        queue_link(run.pool, run.queue),
        run.run_id,
    )


def run(s: Setting, rest: str) -> list[Block]:
    """One run: where it stands, and its states and tasks over time."""
    known_run = _known_run(s, rest.strip())
    entered = states_of(s.toolbox.store, known_run.run_id)
    ends = [*(_iso(each.at) for each in entered[1:]), ""]
    lanes = [
        {
            "label": "run",
            "spans": [
                {"state": each.name, "start": _iso(each.at), "end": end}
                for each, end in zip(entered, ends, strict=False)
            ],
        },
        *(
            {
                "label": task.name,
                "spans": [{"state": task.state_name, "start": _iso(task.started), "end": _iso(task.ended)}],
            }
            for task in tasks_of(s.toolbox.store, known_run.run_id)
        ),
    ]
    return [run_facts(s, known_run), timeline("Over time", lanes)]


def _known_run(s: Setting, words: str) -> RunFact:
    run_id = run_meant(s, words)
    if (run := runs_known.run(s.toolbox.store, run_id)) is None:
        raise ApiRejection(
            "unknown-run", f"Looking for run {run_id!r}: telemetry has none. Say /runs for those it has."
        )
    return run


def run_facts(s: Setting, run: RunFact) -> Block:
    """Where a run stands, what is forecast of it and why, and where Prefect shows it."""
    about: dict[str, Any] = {
        "run": link(run.name, "run", run.run_id),
        "flow": run.flow_name,
        "deployment": link(run.deployment_name or "", "deployment", run.deployment_id)
        if run.deployment_id
        else "",
        "queue": queue_link(run.pool, run.queue),
        "state": run.state_name,
        "message": run.state_message,
        "attempts": run.run_count,
        "due": moment(_iso(run.next_start)),
        "started": moment(_iso(run.started)),
        "ended": moment(_iso(run.ended)),
    }
    if forecast := last_forecast(s.toolbox.store, run.run_id):
        about["chance of failing"] = f"{forecast.p_fail:.0%}, says {forecast.model}"
        about["because"] = "; ".join(forecast.reasons) or "no single reason stands out"
    if ui := str(s.control_api.call("surroundings").get("ui") or "").rstrip("/"):
        about["in Prefect"] = f"{ui}/runs/flow-run/{run.run_id}"
    return pairs("Run", {name: value for name, value in about.items() if value not in ("", None)})


def queue_link(pool: str | None, name: str | None) -> Any:
    """A cell that leads to a queue, or an empty one."""
    return link(f"{pool}/{name}", "queue", f"{pool}/{name}") if pool and name else ""


def _iso(moment: datetime | None) -> str:
    return moment.isoformat() if moment else ""


def queue(s: Setting, rest: str) -> list[Block]:
    """Queues with their slots, limits and waits."""
    queue_snapshots = runs_known.queue_snapshots(s.toolbox.store)
    now = s.clock()
    return [
        table(
            "Queues",
            ("queue", "rank", "running", "slots", "waiting", "longest wait", "state"),
            (
                (
                    queue_link(q.pool, q.queue),
                    q.priority,
                    q.running,
                    _slots(q.limit, q.pool_limit),
                    q.waiting,
                    ago(q.oldest_due, now) if q.oldest_due else "",
                    _served(q),
                )
                for q in queue_snapshots
            ),
            empty="No queue was seen yet.",
        ),
        table(
            "Late runs",
            ("late", "run", "flow", "state", "queue", "id"),
            (
                (ago(run.next_start, now), *_run_row(run)[1:])
                for run in runs_known.waiting_runs(s.toolbox.store, now)[:ROWS]
                if run.next_start
            ),
            empty="No run is late.",
        ),
    ]


def _served(q: QueueFact) -> str:
    """Whether a queue hands out: only one that somebody asks for runs does."""
    if q.paused:
        return "pool paused" if q.pool_paused else "paused"
    return "nobody asks for its runs" if q.status == "NOT_READY" else "handing out"


def _slots(limit: int | None, of_pool: int | None) -> str:
    own = "no limit" if limit is None else str(limit)
    return own if of_pool is None else f"{own}, pool {of_pool}"


def forecast(s: Setting, rest: str) -> list[Block]:
    """The riskiest of the next runs, or what is forecast of one run and why."""
    if rest.strip():
        return _one_forecast(s, run_meant(s, rest.strip()))
    now = s.clock()
    risks = riskiest(s.toolbox.store, now, ROWS)
    rows = [
        (
            f"{risk.forecast.p_fail:.0%}",
            link(risk.run.name, "run", risk.run.run_id),
            risk.run.flow_name,
            _due(risk.run, now),
            "; ".join(risk.forecast.reasons) or "no single reason stands out",
            f"{risk.forecast.model}, from {risk.forecast.trained_on} runs",
        )
        for risk in risks
    ]
    blocks = [
        table(
            "Riskiest of the next runs",
            ("p(fail)", "run", "flow", "starts", "because", "says"),
            rows,
            empty="No scheduled run has a forecast: runs are forecast shortly before they start.",
        )
    ]
    if risks:
        names = [risk.run.name for risk in risks[:10]]
        chances = [round(risk.forecast.p_fail, 3) for risk in risks[:10]]
        blocks.append(chart("Chance of failing", x=names, y=chances, unit="share"))
    return blocks


def _due(run: RunFact, now: datetime) -> str:
    if run.next_start is None:
        return ""
    return f"in {ago(now, run.next_start)}" if run.next_start > now else f"{ago(run.next_start, now)} late"


def _one_forecast(s: Setting, run_id: str) -> list[Block]:
    forecast = last_forecast(s.toolbox.store, run_id)
    if forecast is None:
        return [text(f"Nothing was forecast of run {run_id}: only runs about to start are.")]
    return [
        pairs(
            f"Forecast of {run_id}",
            {
                "chance of failing": f"{forecast.p_fail:.0%}",
                "says": f"{forecast.model}, from {forecast.trained_on} ended runs",
                "because": "; ".join(forecast.reasons) or "no single reason stands out",
                "made": moment(forecast.made_at.isoformat()),
            },
        )
    ]


def kpi(s: Setting, rest: str) -> list[Block]:
    """What the work is worth, each number with its definition and formula."""
    given = rest.split()
    try:
        days = float(given[0]) if given else 7.0
        minutes = float(given[1]) if len(given) > 1 else MINUTES_BY_HAND
        if not (0 < days <= 3650 and 0 <= minutes <= 1440):
            raise ValueError
    except ValueError as exc:
        raise ApiRejection(
            "invalid", f"Reading {rest!r}: say /kpi DAYS MINUTES as two numbers, such as /kpi 30 12."
        ) from exc
    kpis = measured(s.toolbox.store, s.clock() - timedelta(days=days), minutes_by_hand=minutes)
    return [
        table(
            f"The last {days:g} days",
            ("measure", "value", "between", "from", "which is", "made as"),
            ((kpi.name, _value(kpi), _between(kpi), kpi.cases, kpi.definition, kpi.formula) for kpi in kpis),
            empty="",
        ),
        text(
            f"Times are medians with their middle half, shares have 95 % intervals; from fewer than {LEAST} cases none "
            f"is told. {minutes:g} minutes by hand are an assumption: /kpi {days:g} MINUTES takes yours."
        ),
    ]


def _value(kpi: Kpi) -> str:
    return "not enough data" if kpi.value is None else _amount(kpi.value, kpi.unit)


def _between(kpi: Kpi) -> str:
    if kpi.low is None or kpi.high is None:
        return ""
    return f"{_amount(kpi.low, kpi.unit)} and {_amount(kpi.high, kpi.unit)}"


def _amount(value: float, unit: str) -> str:
    match unit:
        case "share":
            return f"{value:.0%}"
        case "hours":
            return f"{value:.2f} h"
        case _:
            return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"
