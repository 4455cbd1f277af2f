"""What happened to one run: its states, tasks and decisions in order of time, and what it logged, line by line."""

from __future__ import annotations

from typing import Any

from pilotage.planner.chat.lookups.shapes import SHOWN, at, left_out, run_in_short, said
from pilotage.telemetry.queries import runs as run_queries
from pilotage.telemetry.queries.timelines import states_of, tasks_of
from pilotage.telemetry.store.protocol import Store

LINES = 1000
"""Log lines of a run that are read, the newest."""
AROUND = 3
"""Lines before and after one that is an error."""
ERROR = 40
MOST_STEPS = 60


def timeline(store: Store, run_id: str) -> dict[str, Any] | None:
    """Return everything about a run in order of time, or None where it is not known.

    `{run, steps, gaps}`; a step is `{at, what, words}`, `what` one of state, task, proposed, judged, voted, done.
    """
    run = run_queries.run(store, run_id)
    if run is None:
        return None
    steps = [
        {"at": at(seen.at), "what": "state", "words": f"{said(seen.type, 30)} ({said(seen.name, 60)})"}
        for seen in states_of(store, run_id)
    ]
    steps += [
        {"at": at(task.ended or task.started), "what": "task",
         "words": f"{said(task.name, 80)}: {task.state_type} {said(task.state_message, 120)}".strip()}
        for task in tasks_of(store, run_id, MOST_STEPS)
    ]  # fmt: skip
    steps += [
        {"at": at(step.at), "what": step.step, "proposal_id": step.proposal_id,
         "words": f"{step.action} {step.outcome} {said(step.actor, 60)}".strip()}
        for step in run_queries.decisions_about(store, run_id)
    ]  # fmt: skip
    steps.sort(key=lambda step: str(step["at"]))
    gaps = left_out(len(steps), "older steps", MOST_STEPS)
    if not any(step["what"] == "state" for step in steps):
        gaps.append("no event of this run is kept, so its states over time are not known")
    return run_in_short(run) | {
        "message": said(run.state_message, 300),
        "steps": steps[-MOST_STEPS:],
        "gaps": gaps,
    }


def log_lines(store: Store, run_id: str, words: str = "") -> dict[str, Any]:
    """Return the lines of a run's log that matter, each with some before and after it.

    With `words` those that contain them, else errors, else the last ones. `{run_id, lines, gaps}`; a line is
    `{log_id, at, level, quote, matches}`: the quote is redacted and is other people's text.
    """
    lines = run_queries.logs_of(store, run_id, LINES)
    wanted = words.lower().strip()
    hits = [
        n
        for n, line in enumerate(lines)
        if (wanted in line.message.lower() if wanted else line.level >= ERROR)
    ]
    near = {m for n in hits[-SHOWN:] for m in range(n - AROUND, n + AROUND + 1) if 0 <= m < len(lines)}
    chosen = sorted(near)[-2 * SHOWN :] or list(range(max(0, len(lines) - SHOWN), len(lines)))
    gaps = [] if lines else ["no log line of this run is kept"]
    if lines and not hits:
        gaps.append(
            f"no line has {said(words, 60)!r}" if wanted else "no line is an error; these are the last"
        )
    if len(lines) == LINES:
        gaps.append(f"only the newest {LINES} lines were read")
    gaps += left_out(len(lines), "lines of the log", len(chosen))
    return {
        "run_id": said(run_id, 60),
        "lines": [
            {
                "log_id": lines[n].log_id,
                "at": at(lines[n].at),
                "level": lines[n].level,
                "quote": said(lines[n].message, 500),
                "matches": n in hits,
            }
            for n in chosen
        ],
        "gaps": gaps,
    }
