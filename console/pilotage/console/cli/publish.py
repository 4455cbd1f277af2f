"""`pilotage policy publish | veto | published`: which policies are in force, and by whose votes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pilotage.console.cli.client import Asker, asker
from pilotage.console.cli.options import AsJson, Reason, StateDir, TokenFile, told
from pilotage.console.render.text import OUT, harmless, print_json, print_pairs, print_table, when
from pilotage.telemetry.errors import ConfigError


def join(app: typer.Typer) -> None:
    """Adds these commands to `pilotage policy`."""
    app.command()(publish)
    app.command()(veto)
    app.command()(published)


def publish(
    directory: Annotated[
        Path | None,
        typer.Argument(help="The bundle that you vote for.", show_default="the shipped one"),
    ] = None,
    guardrails: Annotated[
        Path | None, typer.Option("--guardrails", help="A YAML file in place of its own numbers.")
    ] = None,
    bundle: Annotated[
        str, typer.Option("--bundle", help="Instead: the hash of one that the ledger has; 8 letters do.")
    ] = "",
    previous: Annotated[
        bool, typer.Option("--previous", help="Instead: the one that was in force before.")
    ] = False,
    reason: Reason = "",
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Vote for a bundle; with the last vote it is in force.

    The first admin puts it to the vote, the last one needed (guardrail publish_votes) puts it in force at once. It
    must be sound and keep its own cases; the vote is on its exact content."""
    with told(as_json):
        if sum((directory is not None, bool(bundle), previous)) > 1 or (
            guardrails is not None and (bundle or previous)
        ):
            raise ConfigError(
                "publishing: more than one bundle was named; name a directory, --bundle or --previous"
            )
        user = asker(state_dir, token_file)
        if bundle or previous:
            meant = user.ask("policy_files", bundle=bundle)["bundle"] if bundle else _before(user)
            reply = user.ask("publish_policy", bundle=meant, reason=reason)
        else:
            from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE  # start-up time: Cedar
            from pilotage.policies.publishing import files_to_publish

            files = files_to_publish(directory or DEFAULT_BUNDLE, guardrails)
            reply = user.ask("publish_policy", files=files, reason=reason)
        if as_json:
            print_json(reply)
        else:
            _show(reply)


def veto(
    bundle: Annotated[
        str, typer.Argument(help="The hash of what is put to the vote.", show_default="whatever it is")
    ] = "",
    reason: Reason = "",
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Take off the table what is put to the vote; one admin is enough."""
    with told(as_json):
        user = asker(state_dir, token_file)
        waiting = user.ask("policies")["candidate"]
        if waiting is None or not waiting["bundle"].startswith(bundle):
            raise ConfigError("vetoing: that is not put to the vote; see `pilotage policy published`")
        reply = user.ask("veto_policy", bundle=waiting["bundle"], reason=reason)
        if as_json:
            print_json(reply)
        else:
            OUT.print(harmless(f"vetoed {reply['bundle'][:12]}; what was in force stays so"))


def published(state_dir: StateDir = None, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """What is in force, what is put to the vote, and what was in force before."""
    with told(as_json):
        reply = asker(state_dir, token_file).ask("policies")
        if as_json:
            print_json(reply)
            return
        waiting = reply["candidate"]
        if waiting:
            print_pairs(
                "put to the vote",
                {
                    "bundle": waiting["bundle"],
                    "by": waiting["by"],
                    "reason": waiting["reason"],
                    "voted": f"{', '.join(waiting['voters'])} ({len(waiting['voters'])} of {reply['needed'] or '?'})",
                    "until": when(waiting["until"]),
                },
            )
        print_table(
            "Published",
            ("since", "bundle", "how", "by", "reason", ""),
            [
                (
                    when(row["at"]),
                    row["bundle"][:12],
                    row["how"],
                    ", ".join(row["people"]),
                    row["reason"],
                    "in force" if number == 0 and row["bundle"] == reply["in_force"] else "",
                )
                for number, row in enumerate(reply["published"])
            ],
            empty="Nothing was published yet.",
        )


def _before(user: Asker) -> str:
    """The hash of what was in force before this."""
    known = user.ask("policies", limit=1000)
    before = [row["bundle"] for row in known["published"][1:] if row["bundle"] != known["in_force"]]
    if not before:
        raise ConfigError("publishing the previous policies: nothing else was ever in force")
    return str(before[0])


def _show(reply: dict[str, Any]) -> None:
    changes = reply["changes"]
    numbers = [f"{key} {change['old']} -> {change['new']}" for key, change in changes["guardrails"].items()]
    missing = reply["needed"] - len(reply["voters"])
    print_pairs(
        f"{'in force' if reply['published'] else 'put to the vote'}: {reply['bundle'][:12]}",
        {
            **{
                f"policies {key}": ", ".join(changes[key]) or "none"
                for key in ("added", "removed", "changed")
            },
            "schema": "changed" if changes["schema_changed"] else "the same",
            "guardrails": "; ".join(numbers) or "the same",
            "voted": ", ".join(reply["voters"]),
        },
    )
    if not reply["published"]:
        OUT.print(
            harmless(
                f"{missing} more admin(s) must vote until {when(reply['until'])}: they read it with `pilotage policy "
                f"fetch {reply['bundle'][:12]}`, and vote with `pilotage policy publish --bundle {reply['bundle'][:12]}`"
            )
        )
