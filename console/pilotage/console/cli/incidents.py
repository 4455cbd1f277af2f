"""`pilotage incidents`, `pilotage incident …` and `pilotage handover`: what is wrong, its plan, and who says what of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from pilotage.console.cli.client import Asker, asker
from pilotage.console.cli.options import EXIT_REFUSED, AsJson, Reason, StateDir, TokenFile, told
from pilotage.console.render.text import (
    OUT,
    harmless,
    joined,
    print_json,
    print_pairs,
    print_table,
    standing_of,
    when,
)

incident_app = typer.Typer(
    name="incident", no_args_is_help=True, help="One trouble: its runs, its plan, and what people say of it."
)
Incident = Annotated[str, typer.Argument(help="The incident's id, i-…; its beginning will do.")]
Runs = Annotated[
    list[str] | None, typer.Option("--run", help="Only this run, by its id; may be given again.")
]


def join(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(handover)
    app.add_typer(incident_app)


@incident_app.command("show")
def show_incident(
    incident: Incident, state_dir: StateDir = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """One incident: what is broken, its runs, its plan with what came of each step, what helped before."""
    with told(as_json):
        reply = asker(state_dir, token_file).ask("incident", incident_id=incident)
        print_json(reply) if as_json else print_incident(reply)


def print_incident(row: Mapping[str, Any]) -> None:
    """Print an incident for people."""
    looks = row["acknowledged"]
    pairs = {
        "status": row["status"],
        "on": row["deployment"] or row["subject"],
        "class": row["failure_class"],
        "error": row["error"],
        "since": when(row["opened_at"]),
        "over": when(row["resolved_at"]) if row["resolved_at"] else "",
        "resolution": row["resolution"],
        "reopened": f"{row['reopened']} times" if row["reopened"] else "",
        "looked at by": f"{looks['by']} since {when(looks['at'])}" if looks else "",
        "grouped by": joined(row["causes"][:5]),
        "page": row["told"].get("page", "none"),
    }
    print_pairs(f"Incident {row['incident_id']}", {name: value for name, value in pairs.items() if value})
    print_table(
        "Runs",
        ("since", "run", "class", "state", "why"),
        (
            (when(run["at"]), run["run_id"] or run["subject"], run["failure_class"], run["state"], run["why"])
            for run in row["runs"]
        ),
        empty="",
    )
    print_table(
        "Plan",
        ("filed", "proposal", "action", "on", "verdict", "status", "outcome"),
        (
            (
                when(step["filed_at"]),
                step["proposal_id"],
                step["kind"],
                step["target"],
                step["verdict"].get("outcome", "unjudged"),
                standing_of(step),
                step["outcome"].get("detail", ""),
            )
            for step in row["proposals"]
        ),
        empty="Nothing is proposed.",
    )
    if row["earlier"]:
        print_table(
            "Earlier, of the same cause",
            ("at", "incident", "how it ended", "what helped"),
            (
                (when(one["at"]), one["incident_id"], one["resolution"], one["helped"])
                for one in row["earlier"]
            ),
            empty="",
        )


@incident_app.command("why")
def why_incident(
    incident: Incident, state_dir: StateDir = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """The whole story of an incident, step by step; as `pilotage why`."""
    from pilotage.console.render.narrative import print_story  # start-up time

    with told(as_json):
        steps = asker(state_dir, token_file).ask("why", subject=incident)
        print_json(steps) if as_json else print_story(steps)


@incident_app.command("ack")
def acknowledge(
    incident: Incident,
    reason: Reason = "",
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Say that you look at an incident: its page is acknowledged, and nobody else is asked."""
    _say(state_dir, token_file, as_json, "acknowledge", incident_id=incident, reason=reason)


@incident_app.command("waive")
def waive(
    incident: Incident,
    reason: Annotated[str, typer.Option(help="Why these runs need not be done any more.")],
    run: Runs = None,
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Give up runs of an incident, all or those named: they need not be recovered any more."""
    _say(
        state_dir, token_file, as_json, "waive", incident_id=incident, reason=reason, run_ids=list(run or ())
    )


@incident_app.command("split")
def split(
    incident: Incident,
    run: Annotated[list[str], typer.Option("--run", help="A run of another cause; may be given again.")],
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Make some runs of an incident an incident of their own."""
    _say(state_dir, token_file, as_json, "split", incident_id=incident, run_ids=run)


@incident_app.command("merge")
def merge(
    incident: Incident,
    other: Annotated[list[str], typer.Argument(help="Incidents that have the same cause.")],
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Make other incidents part of this one."""
    _say(state_dir, token_file, as_json, "merge", incident_id=incident, others=other)


def _say(state_dir: StateDir, token_file: TokenFile, as_json: bool, op: str, **arguments: Any) -> None:
    with told(as_json):
        reply = asker(state_dir, token_file).ask(op, **arguments)
        print_json(reply) if as_json else print_incident(reply)


def decide(
    user: Asker, incident: str, decision: str, reason: str, without: Sequence[str], as_json: bool
) -> None:
    """Answer everything of an incident that waits for a person, but for these runs.

    Raises ApiRejection when nothing waits, Exit(3) when none of the votes counted.
    """
    from pilotage.flows.api.incidents import plan_seen  # start-up time

    row = user.ask("incident", incident_id=incident)
    seen = plan_seen(row, without)
    reply = user.ask(
        "vote_incident", incident_id=row["incident_id"], seen=seen, decision=decision, reason=reason
    )
    results = {result["proposal_id"]: result for result in reply["results"]}
    if as_json:
        print_json(reply)
    else:
        counted = sum(result["counted"] for result in reply["results"])
        print_table(
            f"{decision} {row['incident_id']}: {counted} of {len(results)} counted",
            ("proposal", "action", "on", "counted", "what became of it"),
            (
                (
                    step["proposal_id"],
                    step["kind"],
                    step["target"],
                    "yes" if results[step["proposal_id"]]["counted"] else "no",
                    results[step["proposal_id"]]["words"],
                )
                for step in row["proposals"]
                if step["proposal_id"] in results
            ),
            empty="",
        )
    if not any(result["counted"] for result in reply["results"]):
        raise typer.Exit(EXIT_REFUSED)


def handover(
    hours: Annotated[float, typer.Option(help="How far back the shift went.", min=0.1, max=168)] = 8.0,
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """What happened on this shift, what is open, what was decided by whom, what comes next."""
    with told(as_json):
        reply = asker(state_dir, token_file).ask("handover", hours=hours)
        if as_json:
            print_json(reply)
            return
        counts = reply["counts"]
        OUT.print(
            harmless(
                f"From {when(reply['since'])} to {when(reply['until'])}: {counts['opened']} incidents opened, "
                f"{counts['over']} over, {counts['open']} open; people decided {counts['decided']} times."
            )
        )
        print_table(
            "Open",
            ("since", "incident", "broken", "error", "runs", "done", "next", "wanted", "looked at by"),
            (
                (
                    when(row["since"]),
                    row["incident_id"],
                    row["broken"],
                    row["error"],
                    row["runs"],
                    joined(row["done"]),
                    row["next"],
                    row["wanted"],
                    row["looked_at_by"],
                )
                for row in reply["open"]
            ),
            empty="Nothing is open.",
        )
        print_table(
            "Over",
            ("over", "incident", "broken", "class", "how it ended", "done"),
            (
                (
                    when(row["over_at"]),
                    row["incident_id"],
                    row["broken"],
                    row["class"],
                    row["resolution"],
                    joined(row["done"]),
                )
                for row in reply["over"]
            ),
            empty="Nothing ended.",
        )
        print_table(
            "Decided",
            ("at", "who", "did", "about", "words"),
            (
                (when(row["at"]), row["who"], row["step"], row["about"], row["words"])
                for row in reply["decided"]
            ),
            empty="Nobody decided anything.",
        )
