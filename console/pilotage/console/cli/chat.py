"""`pilotage chat` and `pilotage ask`: talking, on a screen, line by line, or once in a pipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pilotage.console.cli.options import StateDir, TokenFile, told
from pilotage.console.render.text import ERR

Thread = Annotated[
    str,
    typer.Option("--thread", help="The conversation with this id; see /history.", show_default="a new one"),
]
Continue = Annotated[bool, typer.Option("--continue", help="The conversation in which you were last.")]
Fork = Annotated[
    str, typer.Option("--fork", help="A new one that begins as this one is now.", show_default=False)
]
Config = Annotated[Path | None, typer.Option(help="Settings file.", show_default="pilotage.toml")]


def join(app: typer.Typer) -> None:
    """Adds the two commands."""
    app.command("chat")(chat)
    app.command("ask")(ask)


def chat(
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    config: Config = None,
    thread: Thread = "",
    newest: Continue = False,
    fork: Fork = "",
    plain: Annotated[bool, typer.Option("--plain", help="Line by line, without panes.")] = False,
) -> None:
    """Talk: ask about runs; /inbox shows what waits for a person, /approve ID and /reject ID WHY answer it.

    Rules answer when no model is configured. /help tells the rest. Line by line where there is no terminal.
    """
    from pilotage.console.tui.session import Which, is_terminal  # start-up time: the engine
    from pilotage.flows.config.paths import paths

    with told(as_json=False):
        where, which = paths(state_dir), Which(thread=thread, newest=newest, fork=fork)
        if not plain and is_terminal():
            try:
                from pilotage.console.tui.app import run_screen  # the extra `tui`
            except ModuleNotFoundError as exc:
                if (exc.name or "").partition(".")[0] != "textual":
                    raise
                ERR.print("Panes need Textual: pip install 'pilotage[tui]'. Line by line it is.")
            else:
                run_screen(where, token_file=token_file, config=config, which=which)
                return
        from pilotage.console.tui.prompt import run_prompt

        run_prompt(where, token_file=token_file, config=config, which=which)


def ask(
    question: Annotated[
        str, typer.Argument(help="A question, or a command such as /status; `-` reads a question.")
    ],
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    config: Config = None,
    thread: Thread = "",
    newest: Continue = False,
    fork: Fork = "",
    commands: Annotated[
        bool,
        typer.Option("--commands", help="With `-`: what is read may be a command, such as /status."),
    ] = False,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to follow the proposals that were shown, to their end.")
    ] = 0.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Each event of the conversation as a line.")
    ] = False,
) -> None:
    """Ask once. Exit code 0: answered, 1: failed, 2: not understood, 3: refused."""
    from pilotage.console.tui.once import run_ask
    from pilotage.console.tui.session import Which  # start-up time: the engine
    from pilotage.flows.config.paths import paths

    with told(as_json):
        which = Which(thread=thread, newest=newest, fork=fork)
        code = run_ask(
            paths(state_dir),
            question,
            token_file=token_file,
            config=config,
            which=which,
            wait=wait,
            as_json=as_json,
            commands=commands,
        )
    raise typer.Exit(code)
