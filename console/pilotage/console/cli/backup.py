"""`pilotage backup FILE` and `pilotage restore FILE`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pilotage.console.cli.client import asker
from pilotage.console.cli.options import AsJson, StateDir, TokenFile, told
from pilotage.console.render.text import ERR, OUT, harmless, print_json
from pilotage.flows.config.paths import StatePaths, paths, runner_of
from pilotage.telemetry.errors import ConfigError


def join(app: typer.Typer) -> None:
    """Add the two commands."""
    app.command("backup")(backup)
    app.command("restore")(restore)


def backup(
    file: Annotated[Path, typer.Argument(help="Where to; it must not be there yet.")],
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Write the whole installation to one file, also while it runs. The file holds keys: keep it as a secret."""
    import shutil

    from pilotage.flows.controller.backup import at_rest, write_backup

    with told(as_json):
        where = paths(state_dir)
        target = file.expanduser().absolute()
        if target.exists():
            raise ConfigError(f"Backing up to {file}: there is a file of that name. Name another one.")
        if not target.parent.is_dir():
            raise ConfigError(f"Backing up to {file}: {target.parent} is no directory. Make it first.")
        if runner_of(where) is not None:
            ERR.print("asking the running `pilotage up` for a copy", highlight=False)
            shutil.move(Path(asker(state_dir, token_file).ask("backup")["path"]), target)
        else:
            write_backup(
                where,
                target,
                telemetry=at_rest(where),
                now=datetime.now(UTC),
                say=lambda text: ERR.print(harmless(text), highlight=False),
            )
        size = target.stat().st_size
        if as_json:
            print_json({"file": str(target), "bytes": size})
        else:
            OUT.print(harmless(f"written: {target} ({size:,} bytes). It holds keys: keep it as a secret."))


def restore(
    file: Annotated[Path, typer.Argument(help="What `pilotage backup` wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Move what is in the state directory aside.")
    ] = False,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup back as the state directory. It stands still until somebody says `pilotage resume`."""
    from pilotage.flows.controller.backup import restore_backup

    with told(as_json):
        where = paths(state_dir)
        contents, former = restore_backup(
            where, file.expanduser().absolute(), replace=replace, now=datetime.now(UTC), check=_broken_log
        )
        if as_json:
            print_json(
                {
                    "state_dir": str(where.root),
                    "made_at": contents.made_at.isoformat(),
                    "version": contents.version,
                    "former": str(former) if former else None,
                }
            )
            return
        OUT.print(harmless(f"restored: {where.root}, as it was at {contents.made_at.isoformat()}"))
        if former:
            OUT.print(harmless(f"what was there is in {former}"))
        OUT.print("it is stopped: what was done after the backup is not on its record. Next: pilotage up,")
        OUT.print("look at `pilotage proposals`, then `pilotage resume`")


def _broken_log(where: StatePaths) -> str:
    """What is wrong with the audit log of a directory, or an empty text."""
    from pilotage.flows.api.offline import OfflineReader  # start-up time: SQLAlchemy

    verified = OfflineReader(where).answer("audit_verify")
    return "" if verified["ok"] else f"its audit log is broken at row {verified['first_bad']}"
