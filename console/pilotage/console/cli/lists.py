"""`pilotage proposals`, `incidents`, `inbox` and `audit list`: filtered, sorted, with true counts, page by page."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pilotage.console.cli import audit, incidents
from pilotage.console.cli.client import Asker, asker
from pilotage.console.cli.options import AsJson, Limit, StateDir, TokenFile, told
from pilotage.console.render.text import (
    OUT,
    harmless,
    joined,
    print_json,
    print_table,
    standing_of,
    when,
    where_of,
)

MOST = 200
"""Rows of one answer of the API; more are asked for page by page."""
Words = Annotated[str, typer.Option("--words", help="Only those with all of these words in them.")]
Deployment = Annotated[str, typer.Option(help="Only of this deployment, `flow/name`.")]
Team = Annotated[str, typer.Option(help="Only of this team.")]
Page = Annotated[
    str,
    typer.Option(
        "--page",
        help="`first`, or the `next` of the page before. With --json: `{rows, count, next}` instead of the rows.",
    ),
]
Sort = Annotated[str, typer.Option(help="newest, oldest, expiry, risk or deployment.")]


def join(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(proposals)
    app.command()(inbox)
    app.command("incidents")(list_incidents)
    incidents.incident_app.command("list")(list_incidents)
    audit.app.command("list")(list_audit)


def proposals(
    status: Annotated[
        str, typer.Option(help="Only those that stand there, such as needs_approval.", show_default=False)
    ] = "",
    deployment: Deployment = "",
    team: Team = "",
    kind: Annotated[str, typer.Option(help="Only this kind of action.")] = "",
    incident: Annotated[str, typer.Option(help="Only of this incident, i-….")] = "",
    words: Words = "",
    sort: Sort = "newest",
    page: Page = "",
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """What was proposed, and what became of it."""
    filters = {"status": status, "deployment": deployment, "team": team, "kind": kind, "incident": incident}
    with told(as_json):
        asked = {**filters, "words": words, "sort": sort}
        reply = _pages(asker(state_dir, token_file), "proposal_page", asked, page, limit)
        if as_json:
            print_json(reply if page else reply["rows"])
            return
        print_table(
            "Proposals",
            ("filed", "proposal", "action", "on", "target", "verdict", "policies", "status"),
            (
                (
                    when(row["filed_at"]),
                    row["proposal_id"],
                    row["kind"],
                    where_of(row),
                    row["target"],
                    row["verdict"].get("outcome", "unjudged"),
                    joined(row["verdict"].get("policy_ids", ())),
                    standing_of(row),
                )
                for row in reply["rows"]
            ),
            empty="No proposal on record."
            if not any(asked[key] for key in (*filters, "words"))
            else "None fits.",
        )
        _say_more(reply)


def inbox(
    mine: Annotated[bool, typer.Option("--mine", help="Only what your approval is missing of.")] = False,
    deployment: Deployment = "",
    team: Team = "",
    kind: Annotated[str, typer.Option(help="Only this kind of action.")] = "",
    words: Words = "",
    sort: Sort = "expiry",
    page: Page = "",
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """What waits for a person, what expires first at the top."""
    with told(as_json):
        filters = {"deployment": deployment, "team": team, "kind": kind, "words": words, "sort": sort}
        asked = {"status": "needs_approval", "mine": mine, **filters}
        reply = _pages(asker(state_dir, token_file), "proposal_page", asked, page, limit)
        if as_json:
            print_json(reply if page else reply["rows"])
            return
        print_table(
            "Waiting for a person",
            ("expires", "proposal", "action", "on", "target", "why", "missing"),
            (
                (
                    when(row["expires_at"]),
                    row["proposal_id"],
                    row["kind"],
                    where_of(row),
                    row["target"],
                    row["case"]["error"] or row["case"]["failure_class"],
                    joined(row["verdict"].get("requirements")),
                )
                for row in reply["rows"]
            ),
            empty="Nothing waits for you." if mine else "Nothing waits for a person.",
        )
        _say_more(reply)


def list_incidents(
    state: Annotated[str, typer.Option(help="open, over or all.")] = "all",
    deployment: Deployment = "",
    team: Team = "",
    words: Words = "",
    page: Page = "",
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """What went wrong lately, and how it stands."""
    with told(as_json):
        user = asker(state_dir, token_file)
        narrowed = any((state != "all", deployment, team, words))
        if as_json and not page and not narrowed:
            print_json(user.ask("incidents", limit=limit))  # each with all its runs and proposals
            return
        asked = {"state": state, "deployment": deployment, "team": team, "words": words}
        reply = _pages(user, "incident_page", asked, page, limit)
        if as_json:
            print_json(reply if page else reply["rows"])
            return
        print_table(
            "Incidents",
            ("since", "incident", "on", "runs", "class", "actions", "status"),
            (
                (
                    when(row["opened_at"]),
                    row["incident_id"],
                    row["deployment"] or row["subject"],
                    f"{row['runs']}, {row['runs_open']} not done" if row["runs"] > 1 else row["subject"],
                    row["failure_class"],
                    joined(row["kinds"]),
                    row["status"],
                )
                for row in reply["rows"]
            ),
            empty="No incident fits." if narrowed else "No incident on record.",
        )
        _say_more(reply)


def list_audit(
    incident: Annotated[str, typer.Option(help="Only of this incident, i-….")] = "",
    person: Annotated[str, typer.Option(help="Only what this person, or agent, did.")] = "",
    policy: Annotated[str, typer.Option(help="Only what rests on this policy.")] = "",
    event: Annotated[str, typer.Option(help="Only this step; see `pilotage status --legend`.")] = "",
    words: Words = "",
    everything: Annotated[
        bool, typer.Option("--all", help="With what changed nothing, which else is counted only.")
    ] = False,
    page: Page = "",
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Entries of the log, the newest first: by incident, person, policy, step or words."""
    from pilotage.flows.notify.describe import label
    from pilotage.flows.notify.describe import told as in_words  # start-up time

    with told(as_json):
        asked = {"incident": incident, "person": person, "policy": policy, "event": event, "words": words}
        reply = _pages(
            asker(state_dir, token_file), "audit_page", {**asked, "changes": not everything}, page, limit
        )
        if as_json:
            print_json(reply if page else reply["rows"])
            return
        print_table(
            "Audit",
            ("no", "at", "step", "who", "about", "what"),
            (
                (
                    row["seq"],
                    when(row["at"]),
                    label(row),
                    row["actor"],
                    row["proposal_id"] or row["incident_id"],
                    in_words(row),
                )
                for row in reply["rows"]
            ),
            empty="No entry fits." if any(asked.values()) else "The log is empty.",
        )
        if reply["folded"]:
            OUT.print(f"{reply['folded']} entries that changed nothing are folded; --all shows them.")
        _say_more(reply)


def _pages(user: Asker, op: str, asked: dict[str, Any], page: str, limit: int) -> dict[str, Any]:
    """As many pages of the API as make up `limit` rows, as one."""
    after = "" if page == "first" else page
    asked = {key: value for key, value in asked.items() if value not in ("", False)}
    reply = dict(user.ask(op, **asked, after=after, limit=min(limit, MOST)))
    while reply["next"] and len(reply["rows"]) < limit:
        left = min(limit - len(reply["rows"]), MOST)
        more = user.ask(op, **asked, after=reply["next"], limit=left)
        reply = {**reply, "rows": [*reply["rows"], *more["rows"]], "next": more["next"]}
    return reply


def _say_more(reply: dict[str, Any]) -> None:
    if reply["next"]:
        OUT.print(
            harmless(f"{len(reply['rows'])} of {reply['count']} shown; the next: --page {reply['next']}"),
            soft_wrap=True,
        )
