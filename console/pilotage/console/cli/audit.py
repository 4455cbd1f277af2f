"""`pilotage audit …`: verify the log against its own chain and against checkpoints kept elsewhere, export, vouch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from pilotage.console.cli.client import asker
from pilotage.console.cli.options import AsJson, StateDir, TokenFile
from pilotage.console.cli.options import told as _told
from pilotage.console.render.text import OUT, harmless, print_json

app = typer.Typer(help="The tamper-evident log of every decision.", no_args_is_help=True)

EXIT_BROKEN = 1


@app.command("verify")
def verify(
    checkpoints: Annotated[
        Path | None,
        typer.Option(help="A directory of checkpoints kept elsewhere, or one of them.", show_default=False),
    ] = None,
    public_key: Annotated[
        str,
        typer.Option(help="The key that signed them, or a file with it.", show_default="the one beside them"),
    ] = "",
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Recompute the log: an edited or missing row is found; with checkpoints also a cut or rewritten log."""
    with _told(as_json):
        if checkpoints is None:
            reply: dict[str, Any] = asker(state_dir, token_file).ask("audit_verify")
        else:
            reply = _held_against(checkpoints, public_key, state_dir)
        if as_json:
            print_json(reply)
        elif reply["ok"]:
            held = f", as {reply['checkpoints']} checkpoints say" if reply.get("checkpoints") else ""
            cut = f" (the first {reply['cut']} cut behind a signed checkpoint)" if reply.get("cut") else ""
            OUT.print(
                harmless(f"whole: {reply['length']} rows{cut}, head {str(reply.get('head'))[:16]}{held}")
            )
        else:
            OUT.print(harmless(f"BROKEN at row {reply.get('first_bad')}: {reply.get('why')}"))
    if not reply["ok"]:
        raise typer.Exit(EXIT_BROKEN)


@app.command("checkpoint")
def checkpoint(
    to: Annotated[Path, typer.Option(help="A directory elsewhere: another disk, host or repository.")],
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Sign what the log is now, and write it elsewhere. A log that broke its earlier word is not signed."""
    from datetime import UTC, datetime

    from pilotage.flows.api.offline_ledger import reading_ledger  # start-up time: SQLAlchemy
    from pilotage.flows.config.paths import paths
    from pilotage.flows.controller.checkpoints import signer_of
    from pilotage.policies.ledger.checkpoint_job import sign_checkpoint

    with _told(as_json):
        where = paths(state_dir)
        with reading_ledger(where) as ledger:
            signer = signer_of(where)
            path = sign_checkpoint(ledger, signer, to, f"pilotage {where.root.name}", datetime.now(UTC))
        shown = {"checkpoint": str(path) if path else None, "public_key": signer.public()}
        if as_json:
            print_json(shown)
        else:
            OUT.print(harmless(f"written: {path}" if path else "the log is empty: nothing to vouch for"))
            OUT.print(harmless(f"public key: {signer.public()}"))


@app.command("export")
def export(state_dir: StateDir = None) -> None:
    """The whole log as JSON lines on standard output, oldest first."""
    import sys

    from pilotage.flows.api.offline_ledger import reading_ledger  # start-up time: SQLAlchemy
    from pilotage.flows.config.paths import paths

    with _told(as_json=False), reading_ledger(paths(state_dir)) as ledger:
        for line in ledger.export_audit():
            sys.stdout.write(line + "\n")


def _held_against(checkpoints: Path, public_key: str, state_dir: Path | None) -> dict[str, Any]:
    from pilotage.flows.api.offline_ledger import reading_ledger  # start-up time: SQLAlchemy
    from pilotage.flows.config.paths import paths
    from pilotage.policies.audit.checkpoints import kept_in
    from pilotage.policies.ledger.checkpoint_job import verifier_for

    verifier = verifier_for(checkpoints, public_key)
    kept = kept_in(checkpoints, verifier)
    with reading_ledger(paths(state_dir)) as ledger:
        return asdict(ledger.verify_audit(kept, verifier))
