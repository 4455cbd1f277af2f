"""What look-ups say, in plain words for people: times local with their zone, spans in their units. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from pilotage.planner.detect.why import told
from pilotage.telemetry import times
from pilotage.telemetry.harmless import harmless

Result = Mapping[str, Any]
LINES = 12
"""Lines of a list that are told; how many there are is said."""


def quoted(value: Any, limit: int = 120) -> str:
    """Return somebody's name or text, harmless."""
    return harmless(value, limit)


def when(moment: Any) -> str:
    """Return a moment of a result as people read it, or `not known`."""
    return times.short(moment) if moment else "not known"


def span(seconds: float | None) -> str:
    """Return seconds as people read them, or `not known`."""
    if seconds is None:
        return "not known"
    return times.span(timedelta(seconds=round(seconds) if seconds >= 10 else round(seconds, 1)))


def listed(rows: Sequence[str], total: int | None = None) -> list[str]:
    """Return the rows as lines of a list, and how many more there are."""
    more = (len(rows) if total is None else total) - min(len(rows), LINES)
    return [*(f"- {row}" for row in rows[:LINES]), *([f"- and {more} more"] if more > 0 else [])]


def waits(found: Result, name: str) -> str:
    """Return why one thing waits."""
    state = f" is {found['state']}" if found["state"] else ""
    return f"{quoted(name)}{state}: {told(dict(found))}"


def all_that_waits(result: Result) -> str:
    """Return what waits, by cause."""
    if not result["causes"]:
        return "Nothing waits: every run that is due has been taken."
    lines = []
    for cause in result["causes"]:
        named = ", ".join(f"{run['name']} of {run['flow']}" for run in cause["runs"])
        more = (
            f" and {cause['count'] - len(cause['runs'])} more" if cause["count"] > len(cause["runs"]) else ""
        )
        lines.append(f"{cause['count']} ({named}{more}): {cause['words']} {cause['todo']}".strip())
    return "\n".join([f"{result['count']} runs wait, for {len(lines)} reasons:", *listed(lines)])


def why_failed(result: Result, past: Result) -> str:
    """Return why a run failed, what was decided about it, and what helped before."""
    lines = [
        f"{result['run_id']} {result['name']} of {result['flow']}: {result['state']}, {result['message']}"
    ]
    if result.get("waits"):
        lines.append(str(result["waits"]))
    if "failure_class" in result:
        lines.append(f"Taken for {result['failure_class']}: {'; '.join(result['because']) or 'no rule fits'}")
    lines += [
        f"- {when(d['at'])} {d['step']} {d['action']}: {d['outcome']} {', '.join(d['policies'])}".rstrip()
        for d in result["decisions"]
    ]
    if not result["decisions"]:
        lines.append("Nothing was proposed about it.")
    if past.get("similar"):
        lines += ["Before:", similar(past)]
    return "\n".join(lines)


def timeline(result: Result) -> str:
    """Return what happened to a run in order of time."""
    head = f"{result['run_id']} {result['name']} of {result['flow']}: {result['state']} {result['message']}".rstrip()
    steps = [f"{when(step['at'])} {step['what']}: {step['words']}" for step in result["steps"]]
    own = [
        f"due {when(result['due'])}",
        f"started {when(result['started'])}",
        f"ended {when(result['ended'])}",
    ]
    return "\n".join(
        [head, ", ".join(own) + f", {result['attempts']} attempts.", *(f"- {step}" for step in steps)]
    )


def forecast(result: Result) -> str:
    """Return one forecast."""
    reasons = "; ".join(result["reasons"]) or "no single reason stands out"
    return f"{result['p_fail']:.0%} chance of failing, says {result['model']}: {reasons}."


def riskiest(result: Result, deployment_id: str) -> str:
    """Return the riskiest runs, of all or of one deployment."""
    runs = [run for run in result["runs"] if deployment_id in ("", run.get("deployment_id"))]
    rows = [
        f"{run['run_id']} {run['name']} of {run['flow']} at {when(run['start'])}: {run['p_fail']:.0%} chance of failing, "
        f"says {run['model']}: {'; '.join(run['reasons']) or 'no single reason stands out'}"
        for run in runs
    ]
    return "\n".join(listed(rows)) or "No run of that is scheduled in this time, so there is no forecast."


def changed(result: Result, name: str) -> str:
    """Return what is different since a deployment last completed."""
    good = result["last_success"]
    if good is None:
        return f"{quoted(name)} has never completed, as far as is known, so there is nothing to compare with."
    last = f"{when(good['ended'])} (run {good['run_id']} {good['name']})"
    head = f"{quoted(name)} last completed at {last}; {result['runs_since']} runs since."
    rows = [
        f"{d['what']}: {d['before'] or 'nothing'} → {d['after'] or 'nothing'}" for d in result["differences"]
    ]
    rows += [f"{when(act['at'])} {act['kind']} by {act['by']}" for act in result["acts"]]
    return "\n".join([head, *(listed(rows) or ["Nothing that is kept is different."])])


def compared(result: Result) -> str:
    """Return two runs side by side."""
    heads = [
        f"{run['run_id']} {run['name']} of {run['flow']}: {run['state']}, took {span(run['seconds'])}"
        for run in (result["first"], result["second"])
    ]
    rows = [
        f"{d['what']}: {d['before'] or 'nothing'} → {d['after'] or 'nothing'}" for d in result["differences"]
    ]
    return "\n".join([*heads, *(listed(rows) or ["Nothing that is kept differs."])])


def durations(result: Result, name: str) -> str:
    """Return how long runs of a deployment take."""
    usual, lately, last = result["usual"], result["lately"], result["last"]
    lines = [
        f"{quoted(name)} takes {span(usual['p50'])} in the median and {span(usual['p95'])} in nineteen of twenty, "
        f"of {usual['runs']} runs; the newest {lately['runs']} took {span(lately['p50'])}."
        if usual["runs"]
        else f"What is usual for {quoted(name)} is not known: no run of it completed at the first attempt."
    ]
    if last:
        lines.append(f"The last one ({last['name']}, {last['state']}) took {span(last['seconds'])}.")
    lines += [f"{run['name']} has been running for {span(run['seconds'])}." for run in result["running"]]
    return " ".join(lines)


def how_often(result: Result, name: str) -> str:
    """Return how runs ended in a stretch of time."""
    if not result["ended"]:
        return f"No run of {quoted(name)} ended from {when(result['since'])} to {when(result['until'])}."
    states = ", ".join(f"{n} {state}" for state, n in result["by_state"].items())
    return (
        f"Of {result['ended']} runs of {quoted(name)} that ended from {when(result['since'])} to {when(result['until'])}, "
        f"{result['failed']} failed: {states}."
    )


def who_decided(result: Result, name: str) -> str:
    """Return who took which step."""
    rows = [
        f"{when(s['at'])} {s['step']} by {s['by'] or 'nobody'}: {s['words']} {s['proposal_id']}".rstrip()
        for s in result["steps"]
    ]
    return "\n".join(listed(rows)) or f"Nothing about {quoted(name)} was decided by pilotage or through it."


def done(result: Result) -> str:
    """Return what was changed in Prefect."""
    between = f"From {when(result['since'])} to {when(result['until'])}"
    head = f"{between}: {result['count']} changes in Prefect, {result['told']} messages to owners."
    rows = [
        f"{when(c['at'])} {c['action']} {c['run_id']} ({c['proposal_id']}): {c['stands']}; approved by {c['approved_by']}"
        for c in result["changes"]
    ]
    return "\n".join([head, *listed(rows, result["count"])])


def log_lines(result: Result, name: str) -> str:
    """Return lines of a log."""
    rows = [
        f"{when(line['at'])} {'>' if line['matches'] else ' '} {line['quote']}" for line in result["lines"]
    ]
    return (
        "\n".join([f"{quoted(name)} ({result['run_id']}):", *rows])
        if rows
        else "No log line of this run is kept."
    )


def limits(result: Result) -> str:
    """Return the limits and who holds their slots."""
    rows = [
        f"{row['limit']}: {row['taken']} of {row['slots']} taken"
        + (f", full since {when(row['full_since'])}" if row["full"] and row["full_since"] else "")
        + (f"; held by {', '.join(h['run_id'] for h in row['holders'])}" if row["holders"] else "")
        for row in result["limits"]
    ]
    return "\n".join(listed(rows)) or "No such concurrency limit is known."


def workers(result: Result) -> str:
    """Return the workers and when they were heard."""
    rows = [
        f"{w['worker']} of pool {w['pool']}: {w['status'] or 'status not known'}, heard "
        + (f"{span(w['seconds_ago'])} ago" if w["seconds_ago"] is not None else "never")
        for w in result["workers"]
    ]
    rows += [
        f"queue {q['queue']}: last asked for by a worker {when(q['last_polled'])}" for q in result["queues"]
    ]
    return "\n".join(listed(rows)) or "No worker is known."


def automations(result: Result) -> str:
    """Return what automations did, and which there are."""
    rows = [f"{when(f['at'])} {f['by']}: {f['did']} {', '.join(f['to'])}" for f in result["fired"]]
    known = [
        f"{a['automation']}: {', '.join(a['actions']) or 'no action'}"
        + ("" if a["enabled"] else " (disabled)")
        for a in result["automations"]
    ]
    fired = listed(rows) or ["None fired in that time, as far as is known."]
    return "\n".join([*fired, "There are:", *(listed(known) or ["- none"])])


def upcoming(load: Result, fires: Result | None) -> str:
    """Return what starts soon."""
    rows = [
        f"{when(r['start'])} {r['name']} of {r['flow']} ({r['run_id']}), pool {r['pool']}"
        for r in load["runs"]
    ]
    lines = [
        f"{load['count']} runs start from {when(load['since'])} to {when(load['until'])}.",
        *listed(rows, load["count"]),
    ]
    if load["starts_by_hour"]:
        hour, most = max(load["starts_by_hour"].items(), key=lambda item: item[1])
        lines.append(f"Most start in the hour of {when(hour)}: {most}.")
    for schedule in (fires or {}).get("schedules", ()):
        state = "" if schedule["active"] else " (inactive)"
        lines.append(
            f"Schedule {schedule['fires']} {schedule['timezone']}{state}: next {when(schedule['next_due'])}."
        )
    return "\n".join(lines)


def runs(result: Result) -> str:
    """Return a list of runs."""
    rows = [
        f"{r['run_id']} {r['name']} of {r['flow_name']}: {r['state_type']} ({r['state_name']})"
        for r in result["runs"]
    ]
    return "\n".join(listed(rows)) or "No run of that time fits."


def failures(result: Result) -> str:
    """Return what failed, the newest last."""
    if not result["failures"]:
        return "No run failed in that time."
    rows = [
        f"{f['run_id']} {f['name']} of {f['flow']}: {f['failure_class']}, {f['message']}"
        for f in result["failures"]
    ]
    return "\n".join([f"{result['count']} failed:", *listed(rows[::-1], result["count"])])


def status(state: Result, waiting: Result) -> str:
    """Return how it goes: what is broken first, then who waits."""
    counts = ", ".join(f"{n} {name}" for name, n in state["runs_by_state"].items()) or "no runs yet"
    trouble = [cause for cause in waiting["causes"] if cause["trouble"]]
    held = (
        "; ".join(f"{cause['count']} wait: {cause['words']}" for cause in trouble[:3])
        or "nothing stands still"
    )
    queued = "; ".join(state["queues_waiting"]) or "no queue waits"
    return f"Failed in the last day: {state['failed_in_last_day']}. {held}. Queues: {queued}. Runs: {counts}."


def incidents(result: Result) -> str:
    """Return the incidents."""
    rows = [
        f"{when(i['since'])} {i['incident_id']} run {i['run_id']}: {i['failure_class'] or 'class unknown'}, "
        f"{i['step']} {i['action']} {i['outcome']}".rstrip()
        for i in result["incidents"]
    ]
    return "\n".join(listed(rows)) or "No incident in that time."


def similar(result: Result) -> str:
    """Return what was like it before."""
    rows = [
        f"- {s['incident_id']} at {when(s['at'])} ({s['failure_class']}, {s['likeness']:.0%} alike): "
        + (
            "; ".join(f"{d['action']} {d['step']} {d['outcome']}".rstrip() for d in s["done"])
            or "nothing was done"
        )
        for s in result["similar"]
    ]
    return "\n".join(rows) or "Nothing like it is on record."


def needs_me(result: Result) -> str:
    """Return what waits for people."""
    if "error" in result:
        return f"It cannot be told: {result['error']}."
    rows = [
        f"{w['proposal_id']} {w['action']} on {w['target']}, expires {when(w['expires'])}"
        + ("" if w["yours_to_decide"] else " (not yours to decide)")
        for w in result["waiting"]
    ]
    return "\n".join([f"{result['count']} wait for a person.", *listed(rows, result["count"])])


def queues(result: Result) -> str:
    """Return the queues."""
    rows = [
        f"{q['queue']}: priority {q['priority']}, {q['running']} running, {q['waiting']} waiting"
        + (", paused" if q["paused"] else "")
        for q in result["queues"]
    ]
    return "\n".join(listed(rows)) or "No queue was seen yet."


def proposals(result: Result) -> str:
    """Return the newest steps of proposals."""
    rows = [
        f"{when(d['at'])} {d['proposal_id']} {d['step']} {d['action']}: {d['outcome']}"
        for d in result["decisions"]
    ]
    return "\n".join(listed(rows)) or "Nothing was proposed yet."


def drafted(result: Result) -> str:
    """Return that something is drafted, and how it is sent."""
    return f"Drafted, and not handed in: send it with `/send {result['draft_id']}`."


def kpis(result: Result) -> str:
    """Return what the work is worth."""
    rate = "none" if result["success_rate"] is None else f"{result['success_rate']:.1%}"
    p50 = result["recovery_seconds"]["p50"]
    recovery = f" Recovery took {span(p50)} in the median." if p50 is not None else ""
    return (
        f"In {result['days']} days {result['ended']} runs ended, {rate} of them well. Proposed {result['proposed']}, "
        f"injected {result['injected']}, verified {result['verified']}.{recovery}"
    )


def costs(result: Result) -> str:
    """Return what the model cost."""
    rows = [
        f"{d['day']} {d['model']}: {d['calls']} calls, {d['input_tokens']} tokens in, {d['output_tokens']} out, "
        f"cost {d['cost']}"
        for d in result["days"]
    ]
    return "\n".join(listed(rows)) or "No call of a model is on record."
