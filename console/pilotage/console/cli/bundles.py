"""`pilotage policy fetch | diff`: to read what the ledger keeps, before a vote on it and after."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pilotage.console.cli.client import Asker, asker
from pilotage.console.cli.options import AsJson, StateDir, TokenFile, told
from pilotage.console.render.text import OUT, harmless, joined, print_json, print_pairs
from pilotage.telemetry.errors import ConfigError

if TYPE_CHECKING:
    from pilotage.policies.cedar.bundle import Bundle
    from pilotage.policies.testing.cases import Prepared

_HASH = re.compile("[0-9a-fA-F]{8,64}")


def join(app: typer.Typer) -> None:
    """Adds these commands to `pilotage policy`."""
    app.command()(fetch)
    app.command()(diff)


def fetch(
    bundle: Annotated[
        str,
        typer.Argument(
            help="The hash of a bundle; 8 letters do, all 64 are proof.",
            show_default="what is put to the vote",
        ),
    ] = "",
    to: Annotated[
        Path | None,
        typer.Option("--to", help="An empty or new directory.", show_default="./policies-HASH"),
    ] = None,
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Lay out a bundle that the ledger keeps as files to read, check, test and diff. What is written has its hash."""
    with told(as_json):
        user = asker(state_dir, token_file)
        whole, files = _kept(user, bundle or _put_to_the_vote(user))
        from pilotage.policies.publishing import laid_out  # start-up time: Cedar

        where = to or Path(f"policies-{whole[:12]}")
        shown = {"bundle": whole, "directory": str(where), "files": list(laid_out(files, whole, where))}
        if as_json:
            print_json(shown)
            return
        print_pairs(f"policies {whole[:12]}", {**shown, "files": joined(shown["files"])})
        OUT.print(
            harmless(
                f"See what it changes with `pilotage policy diff {whole[:12]}`, what it means with `pilotage policy "
                f"test --policies {where}`; then `pilotage policy publish --bundle {whole[:12]}`, or `veto`"
            )
        )


def diff(
    old: Annotated[
        str, typer.Argument(help="A directory with a bundle, or the hash of one that the ledger keeps.")
    ],
    new: Annotated[
        str,
        typer.Argument(
            help="Another.",
            show_default="the shipped one; after a hash alone, that one against what is in force",
        ),
    ] = "",
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """What changed between two bundles: policies, numbers, and the cases that they decide differently."""
    from pilotage.policies.testing.tools import differences, rewritten  # start-up time: Cedar

    with told(as_json):
        user = asker(state_dir, token_file)
        if not new and not Path(old).exists() and _HASH.fullmatch(old):
            old, new = str(user.ask("policies")["in_force"]), old
        (before, _), (after, cases) = (_meant(user, bundle) for bundle in (old, new))
        lines = rewritten(before, after)
        shown = {**differences(before, after, cases), "lines": lines}
        if as_json:
            print_json(shown)
        else:
            numbers = [
                f"{key} {change['old']} -> {change['new']}" for key, change in shown["guardrails"].items()
            ]
            print_pairs(
                f"{shown['old'][:12]} -> {shown['new'][:12]}",
                {
                    **{key: ", ".join(shown[key]) or "none" for key in ("added", "removed", "changed")},
                    "schema": "changed" if shown["schema_changed"] else "the same",
                    "guardrails": "; ".join(numbers) or "the same",
                },
            )
            for name, changed in lines.items():
                OUT.print(harmless(f"{name}:"))
                for line in changed:
                    OUT.print(harmless(line))
            for case in shown["cases"]:
                OUT.print(harmless(f"{case['case']}: {case['old']} -> {case['new']}"))


def _kept(user: Asker, bundle: str) -> tuple[str, dict[str, str]]:
    """The hash and the files of the bundle that the ledger keeps under a hash that begins so.

    Raises ConfigError when the files are not of the hash, ApiRejection when not exactly one bundle is meant.
    """
    reply = user.ask("policy_files", bundle=bundle.lower())
    whole, files = str(reply["bundle"]), dict(reply["files"])
    from pilotage.policies.cedar.bundle import hash_of  # start-up time: Cedar

    if not whole.startswith(bundle.lower()) or hash_of(files) != whole:
        raise ConfigError(
            f"fetching policies {bundle}: the API gave files of hash {hash_of(files)[:12]} as {whole[:12]}; "
            "find out who wrote to the ledger, and restore it"
        )
    return whole, files


def _meant(user: Asker, name: str) -> tuple[Bundle, tuple[Prepared, ...]]:
    """The bundle of this directory or hash, or the shipped one for an empty name, with its cases."""
    from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE, Bundle  # start-up time: Cedar
    from pilotage.policies.publishing import files_to_publish
    from pilotage.policies.testing.cases import cases_among

    where = Path(name) if name else DEFAULT_BUNDLE
    if where.exists() or not _HASH.fullmatch(name):
        files = files_to_publish(where, None)
    else:
        whole, files = _kept(user, name)
        where = Path(f"published {whole[:12]}")
    bundle = Bundle.of(files, where)
    return bundle, cases_among(files, where, bundle.guardrails)[0]


def _put_to_the_vote(user: Asker) -> str:
    waiting = user.ask("policies")["candidate"]
    if waiting is None:
        raise ConfigError(
            "fetching policies: nothing is put to the vote; name a hash of `pilotage policy published`"
        )
    return str(waiting["bundle"])
