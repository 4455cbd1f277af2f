"""The command line: `pilotage …`. Light at start; what is heavy is imported by the command that needs it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from pilotage.console.cli import (
    audit,
    backup,
    bench,
    bundles,
    chat,
    diagnose,
    doctor,
    forecast,
    forecast_trials,
    governance,
    history,
    incidents,
    lists,
    policy,
    publish,
    store,
    users,
)
from pilotage.console.cli.client import Asker, asker
from pilotage.console.cli.options import (
    EXIT_ERROR,
    EXIT_REFUSED,
    NOT_YOU,
    AsJson,
    Proposal,
    Reason,
    StateDir,
    TokenFile,
    a_mode,
    told,
)
from pilotage.console.render import statuses
from pilotage.console.render.text import (
    ERR,
    OUT,
    collection_in_words,
    harmless,
    joined,
    print_json,
    print_pairs,
    print_table,
    standing_of,
    when,
    where_of,
)
from pilotage.flows.api.client import ApiRejection, TokenMissing
from pilotage.telemetry.errors import ApiError, ConfigError, PilotageError

app = typer.Typer(
    name="pilotage",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(audit.app, name="audit")
app.add_typer(users.app, name="users")
app.add_typer(doctor.app, name="doctor")
app.add_typer(policy.app, name="policy")
app.add_typer(forecast.app, name="forecast")
app.add_typer(bench.app, name="bench")
app.add_typer(history.app, name="history")
app.add_typer(store.app, name="store")
app.add_typer(forecast_trials.queue_app, name="queue")
forecast_trials.join(forecast.app)
publish.join(policy.app)
bundles.join(policy.app)
chat.join(app)
backup.join(app)
diagnose.join(app)
incidents.join(app)
lists.join(app)


def _show_version(asked: bool) -> None:
    """Print the installed versions on one line and end."""
    if asked:
        versions = ", ".join(f"{name} {version(name)}" for name in ("pilotage", "prefect"))
        OUT.print(f"{versions}, Python {platform.python_version()}")
        raise typer.Exit


@app.callback()
def before_every_command(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """An adaptive pilot for Prefect: it forecasts failures, proposes remediation, and acts only within policy."""


@app.command()
def up(
    state_dir: StateDir = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="observe, shadow, approve or auto.", show_default="as at the last start; the first is shadow"
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.", show_default="pilotage.toml")] = None,
    as_json: AsJson = False,
) -> None:
    """Watch the Prefect server of the active profile, in the mode of the last start; in shadow nothing is injected."""
    with told(as_json):
        if mode is not None:
            a_mode(mode, "--mode")
        from pilotage.flows.controller.run import run_up  # start-up time: Prefect

        run_up(
            config=config,
            state_dir=state_dir,
            mode=mode,
            say=lambda text: (
                print_json({"said": text})
                if as_json
                else ERR.print(harmless(f"pilotage: {text}"), soft_wrap=True)
            ),
        )


@app.command()
def demo(
    llm: Annotated[
        str | None,
        typer.Option(help="`scripted` for the scripted model; a configured one is used by itself."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running and print the URLs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the whole loop on a Prefect server of its own: eight incidents on real runs."""
    from pilotage.console.cli.demo import show_demo  # start-up time: Prefect

    with told(as_json):
        ok = show_demo(llm=llm, keep=keep, as_json=as_json)
    raise typer.Exit(0 if ok else EXIT_ERROR)


@app.command()
def status(
    legend: Annotated[bool, typer.Option("--legend", help="Instead: what every status word means.")] = False,
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Mode, kill switch, collector and how many proposals stand where."""
    if legend:
        words = statuses.legend()
        if as_json:
            print_json(words)
        else:
            rows = [(entry["group"], entry["status"], entry["means"]) for entry in words]
            print_table("Statuses", ("of", "status", "which means"), rows, empty="")
        return

    def show(reply: dict[str, Any]) -> None:
        collector = reply.get("collector") or {}
        for grant in reply.get("glass") or ():
            OUT.print(
                harmless(f"BREAK-GLASS by {grant['holder']} until {when(grant['until'])}: {grant['reason']}")
            )
        print_pairs(
            "pilotage",
            {
                "mode": reply.get("mode"),
                "stopped": reply.get("stopped") or "no",
                **{
                    f"collector {key}": when(value) if key in ("last_event", "read_until") else value
                    for key, value in collector.items()
                    if key not in ("set_aside", "stands_still", "defects")
                },
                **collection_in_words(collector),
                **{
                    f"proposals {standing_of({'status': key, 'mode': reply.get('mode')})}": value
                    for key, value in (reply.get("proposals") or {}).items()
                },
                "policies": str(reply.get("bundle") or "")[:12],
            },
        )

    _ask_and_show(state_dir, token_file, "status", as_json, show)


Decided = Annotated[
    str,
    typer.Argument(
        help="A proposal (p-…), or an incident (i-…) for all of its plan that waits; its beginning will do."
    ),
]
But = Annotated[
    list[str] | None,
    typer.Option("--but", help="Of an incident: not what is about this run, by its id; may be given again."),
]


@app.command()
def approve(
    subject: Decided,
    reason: Reason = "",
    but: But = None,
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Vote for a proposal, or for the plan of an incident, that waits for a person, in the name your token proves."""
    _decide(state_dir, token_file, subject, "approve", reason, but, as_json)


@app.command()
def reject(
    subject: Decided,
    reason: Reason = "",
    but: But = None,
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Veto a proposal, or the plan of an incident."""
    _decide(state_dir, token_file, subject, "reject", reason, but, as_json)


@app.command()
def why(
    subject: Annotated[
        str,
        typer.Argument(
            help="A proposal (p-…), an incident (i-…), a flow run or a deployment, by its id or name."
        ),
    ],
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """The whole story: facts, finding, forecast, proposal, policies, votes, injection, outcome; why it waits."""
    from pilotage.console.render.narrative import print_story, print_wait

    with told(as_json):
        user = asker(state_dir, token_file)
        steps: list[dict[str, Any]] = []
        refused: ApiRejection | None = None
        try:
            steps = user.ask("why", subject=subject)
        except ApiRejection as refusal:
            if refusal.kind != "unknown-subject":
                raise
            refused = refusal
        waits = None if subject[:2] in ("p-", "i-") else _waits(user, subject)
        if refused is not None and waits is None:
            raise refused
        if as_json:
            print_json(steps if refused is None else waits)
            return
        if waits is not None and waits["cause"] != "ended":
            print_wait(waits)
        if refused is None:
            print_story(steps)


def _waits(user: Asker, subject: str) -> dict[str, Any] | None:
    """Why a run waits, or why a deployment has none; None where nobody knows."""
    try:
        return dict(user.ask("waits", words=subject))
    except (ApiRejection, ApiError, TokenMissing):
        return None


@app.command()
def undo(
    proposal: Proposal,
    reason: Reason = "",
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Take back what a proposal changed, where there is a way."""

    def show(reply: dict[str, Any]) -> None:
        OUT.print(harmless(f"{reply['proposal_id']}: {reply['effect']} {reply.get('reason', '')}".strip()))

    with told(as_json):
        reply = asker(state_dir, token_file).ask("undo", proposal_id=proposal, reason=reason)
        print_json(reply) if as_json else show(reply)
    if reply["effect"] == "refused":
        raise typer.Exit(EXIT_REFUSED)


@app.command()
def stop(
    reason: Reason = "",
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Pull the kill switch. Works with Prefect, the agent and the loop all down."""
    import getpass

    from pilotage.flows.config.paths import StatePaths
    from pilotage.flows.execution.stop_file import pull

    with told(as_json):
        try:
            user = asker(state_dir, token_file)
        except ConfigError:  # a broken pilotage.toml must not keep anybody from stopping
            user = Asker(where=StatePaths(root=Path.home() / ".pilotage"), token_file=token_file)
        where = user.where
        try:
            reply = user.ask("stop", reason=reason)
        except PilotageError as exc:
            if isinstance(exc, ApiRejection) and exc.kind in NOT_YOU:
                raise
            if not where.root.is_dir():
                raise ConfigError(
                    f"Stopping {where.root}: there is no installation. Name the right one with --state-dir."
                ) from exc
            pull(where.stop_file, f"{getpass.getuser()} (at the files): {reason or 'no reason given'}")
            reply = {"stopped": where.stop_file.read_text().strip()}
            ERR.print(harmless(f"The API of {where.root} is no help; the stop file there holds."))
        print_json(reply) if as_json else OUT.print(harmless(f"stopped {where.root}: {reply['stopped']}"))


@app.command()
def resume(state_dir: StateDir = None, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Vote to start again after a stop; the guardrail resume_votes says how many people it takes."""

    def show(reply: dict[str, Any]) -> None:
        missing = reply["votes_missing"]
        OUT.print("running again" if not missing else f"still stopped: {missing} more must ask")

    _ask_and_show(state_dir, token_file, "resume", as_json, show)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 4280,
    public_host: Annotated[
        list[str] | None,
        typer.Option(help="Name under which people reach it through your TLS proxy; may be given again."),
    ] = None,
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.", show_default="pilotage.toml")] = None,
) -> None:
    """The console in the browser, and its HTTP API. Prints a link that signs you in once."""
    from pilotage.console.web.serve import serve as run  # start-up time: the server
    from pilotage.flows.config.paths import paths

    with told(as_json=False):
        run(
            paths(state_dir),
            token_file=token_file,
            config=config,
            host=host,
            port=port,
            public_hosts=tuple(public_host or ()),
            say=lambda text: OUT.print(harmless(text), soft_wrap=True),
        )


@app.command()
def mcp(
    http: Annotated[
        bool,
        typer.Option("--http", help="Serve over HTTP instead; each request brings its own bearer token."),
    ] = False,
    host: Annotated[str, typer.Option(help="Address for --http.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port for --http; 0 takes a free one.")] = 8472,
    public_host: Annotated[
        list[str] | None, typer.Option(help="A host name by which --http is reached; may be given again.")
    ] = None,
    state_dir: StateDir = None,
    token_file: TokenFile = None,
) -> None:
    """Serve the look-ups and `propose` to other agents over MCP, on standard input and output. Never `approve`."""
    from pilotage.console.mcp.server import run_mcp, serve_over_http
    from pilotage.flows.config.paths import paths

    with told(as_json=False):
        if http:
            serve_over_http(
                paths(state_dir), host=host, port=port, public_hosts=public_host or (), say=ERR.print
            )
        else:
            run_mcp(paths(state_dir), token_file)


def _ask_and_show(
    state_dir: Path | None,
    token_file: Path | None,
    op: str,
    as_json: bool,
    show: Callable[[Any], None],
    **arguments: Any,
) -> None:
    with told(as_json):
        reply = asker(state_dir, token_file).ask(op, **arguments)
        print_json(reply) if as_json else show(reply)


def _decide(
    state_dir: Path | None,
    token_file: Path | None,
    subject: str,
    decision: str,
    reason: str,
    but: list[str] | None,
    as_json: bool,
) -> None:
    with told(as_json):
        user = asker(state_dir, token_file)
        if subject.lower().startswith("i-"):
            incidents.decide(user, subject, decision, reason, tuple(but or ()), as_json)
        elif but:
            raise ConfigError(
                "Reading --but: it leaves runs out of an incident's plan; name an incident, i-…."
            )
        else:
            _vote(user, subject, decision, reason, as_json)


def _vote(user: Asker, proposal: str, decision: str, reason: str, as_json: bool) -> None:
    seen = user.ask("proposal", proposal_id=proposal)
    reply = user.ask(
        "vote", proposal_id=seen["proposal_id"], digest=seen["digest"], decision=decision, reason=reason
    )
    if as_json:
        print_json(reply)
        return
    print_pairs(
        f"{decision}: {reply['proposal_id']}",
        {
            "action": reply["kind"],
            "on": where_of(reply),
            "target": reply["target"],
            "digest": reply["digest"][:16],
            "verdict now": reply["verdict"]["outcome"],
            "policies": joined(reply["verdict"]["policy_ids"]),
            "still missing": joined(reply["verdict"]["requirements"]) or "nothing",
            "status": standing_of(reply),
        },
    )


governance.join(app)


def main() -> None:
    """The entry point."""
    try:
        app()
    except BrokenPipeError:
        sys.exit(0)
    except KeyboardInterrupt:
        ERR.print("interrupted")
        sys.exit(130)
