"""Commands that people rarely need and must be able to rely on: lending, breaking the glass, editing, trust, the mode."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pilotage.console.cli.client import asker
from pilotage.console.cli.options import AsJson, Proposal, Reason, StateDir, TokenFile, a_mode, told
from pilotage.console.render.text import (
    OUT,
    harmless,
    joined,
    print_json,
    print_pairs,
    print_table,
    standing_of,
    when,
    where_of,
)
from pilotage.telemetry.errors import ConfigError

autonomy_app = typer.Typer(
    help="How far each kind of action is trusted on each deployment.", no_args_is_help=True
)
mode_app = typer.Typer(help="How far the loop may go: observe, shadow, approve, auto.", no_args_is_help=True)

MustReason = Annotated[str, typer.Option("--reason", help="Why, for the record; it must be said.")]


def join(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.command()(amend)
    app.command("break-glass")(break_glass)
    app.command("mend-glass")(revoke_break_glass)
    app.command()(delegate)
    app.command()(grants)
    app.add_typer(autonomy_app, name="autonomy")
    app.add_typer(mode_app, name="mode")


def amend(
    proposal: Proposal,
    set_: Annotated[list[str], typer.Option("--set", help="FIELD=VALUE of its action; may be given again.")],
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Edit a proposal. The edited action is your own new proposal, judged from nothing, for others to approve."""
    import json

    with told(as_json):
        user = asker(state_dir, token_file)
        seen = user.ask("proposal", proposal_id=proposal)
        proposal, action = seen["proposal_id"], dict(seen["action"])
        for assignment in set_:
            key, equals, value = assignment.partition("=")
            if not equals or key not in action or key == "kind":
                fields = ", ".join(sorted(set(action) - {"kind"}))
                raise ConfigError(
                    f"editing {proposal}: {assignment!r} is no FIELD=VALUE; its fields are {fields}"
                )
            try:
                action[key] = value if isinstance(action[key], str) else json.loads(value)
            except ValueError as exc:
                raise ConfigError(
                    f"editing {proposal}: {value!r} is no JSON value for {key} ({exc})"
                ) from exc
        reply = user.ask("amend", proposal_id=proposal, action=action)
        if as_json:
            print_json(reply)
            return
        print_pairs(
            f"{reply['proposal_id']}, instead of {proposal}",
            {
                "action": reply["kind"],
                **{key: value for key, value in reply["action"].items() if key != "kind"},
                "on": where_of(reply),
                "verdict": reply["verdict"].get("outcome", "unjudged"),
                "policies": joined(reply["verdict"].get("policy_ids", ())),
                "because": joined(reply["verdict"].get("reasons", ())),
                "still missing": joined(reply["verdict"].get("requirements", {})) or "nothing",
                "status": standing_of(reply),
            },
        )


def break_glass(
    reason: MustReason,
    kind: Annotated[list[str], typer.Option(help="A kind of action that it covers; may be given again.")],
    target: Annotated[
        list[str],
        typer.Option(help="run:…, queue:POOL/QUEUE, deployment:… or FLOW/DEPLOYMENT, with * and ?; again."),
    ],
    minutes: Annotated[int, typer.Option(min=1, max=24 * 60, help="How long.")] = 15,
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Let yourself go beyond budgets, cooldowns, breakers and freezes for a while. Everybody is told."""
    with told(as_json):
        reply = asker(state_dir, token_file).ask(
            "break_glass", minutes=minutes, reason=reason, kinds=kind, targets=target
        )
        if as_json:
            print_json(reply)
            return
        OUT.print(
            harmless(
                f"BREAK-GLASS by {reply['holder']} until {when(reply['until'])} ({reply['id']}): "
                f"{joined(kind)} on {joined(target)}. It lifts no approval, no kill switch and no hands-off. "
                f"End it with `pilotage mend-glass {reply['id']}`."
            )
        )


def revoke_break_glass(
    grant: Annotated[str, typer.Argument(help="The grant's id, g-…; its beginning will do.")],
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """End broken glass before its time; whoever may stop everything may do it."""
    with told(as_json):
        reply = asker(state_dir, token_file).ask("revoke_break_glass", grant_id=grant)
        if as_json:
            print_json(reply)
        else:
            OUT.print(harmless(f"{reply['grant']} {'ended' if reply['ended'] else 'stood no more'}"))


def delegate(
    to: Annotated[str, typer.Argument(help="Who votes in your place.", show_default=False)] = "",
    hours: Annotated[int, typer.Option(min=1, max=24 * 365, help="How long.")] = 8,
    reason: Reason = "",
    end: Annotated[bool, typer.Option("--end", help="Instead: take back all that you lent.")] = False,
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Lend your right to approve to another person for a while, or take it back."""
    with told(as_json):
        if bool(to) == end:
            raise ConfigError("delegating: name the person who votes in your place, or --end, and not both")
        user = asker(state_dir, token_file)
        if end:
            reply = user.ask("end_delegations")
            said = f"{reply['ended']} delegation(s) ended"
        else:
            reply = user.ask("delegate", to=to, hours=hours, reason=reason)
            said = f"{reply['taker']} votes for {reply['giver']} until {when(reply['until'])}"
        if as_json:
            print_json(reply)
        else:
            OUT.print(harmless(said))


def grants(state_dir: StateDir = None, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """The glass that is broken now, and who votes for whom."""
    with told(as_json):
        reply = asker(state_dir, token_file).ask("grants")
        if as_json:
            print_json(reply)
            return
        print_table(
            "Broken glass",
            ("until", "grant", "by", "kinds", "targets", "reason"),
            [
                (
                    when(g["until"]),
                    g["id"],
                    g["holder"],
                    joined(g["kinds"]),
                    joined(g["targets"]),
                    g["reason"],
                )
                for g in reply["glass"]
            ],
            empty="No glass is broken.",
        )
        print_table(
            "Lent rights to approve",
            ("until", "of", "to", "reason"),
            [(when(d["until"]), d["giver"], d["taker"], d["reason"]) for d in reply["delegations"]],
            empty="Nobody votes for anybody else.",
        )


@autonomy_app.command("show")
def autonomy_show(state_dir: StateDir = None, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Every kind of action on every deployment that was ever measured: outcomes, lower bound, level."""

    def row(grant: dict[str, Any]) -> tuple[object, ...]:
        measured = f"{grant['good']} good, {grant['bad']} bad"
        bound = f"{grant['lower_bound']:.0%} of {grant['threshold']:.0%}"
        return (
            grant["kind"],
            grant["deployment"] or grant["scope"],
            grant["level"],
            measured,
            bound,
            grant["why"],
        )

    with told(as_json):
        reply = asker(state_dir, token_file).ask("autonomy")
        if as_json:
            print_json(reply)
        else:
            print_table(
                "Autonomy",
                ("action", "on", "level", "outcomes", "lower bound", "since the last change"),
                map(row, reply),
                empty="Nothing was measured yet: every kind of action stands at standard.",
            )


@autonomy_app.command("set")
def autonomy_set(
    kind: Annotated[str, typer.Argument(help="The kind of action, such as retry_run.")],
    scope: Annotated[str, typer.Argument(help="FLOW/DEPLOYMENT or the id that `autonomy show` names.")],
    level: Annotated[str, typer.Argument(help="standard or demoted; earned is measured, never given.")],
    reason: Reason = "",
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Restore or take away the autonomy of one kind of action on one deployment."""
    with told(as_json):
        reply = asker(state_dir, token_file).ask(
            "set_autonomy", kind=kind, scope=scope, level=level, reason=reason
        )
        if as_json:
            print_json(reply)
        else:
            said = "is now" if reply["changed"] else "was already"
            OUT.print(harmless(f"{kind} on {scope} {said} {reply['level']}"))


@mode_app.command("show")
def mode_show(state_dir: StateDir = None, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """The mode in force."""
    with told(as_json):
        reply = {"mode": asker(state_dir, token_file).ask("status")["mode"]}
        if as_json:
            print_json(reply)
        else:
            OUT.print(harmless(reply["mode"]))


@mode_app.command("set")
def mode_set(
    mode: Annotated[str, typer.Argument(help="observe, shadow, approve or auto.")],
    reason: Reason = "",
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Change how far the loop may go, at once. After a restart the stricter of this and the settings holds."""
    with told(as_json):
        reply = asker(state_dir, token_file).ask("set_mode", mode=a_mode(mode, "MODE"), reason=reason)
        if as_json:
            print_json(reply)
        else:
            OUT.print(
                harmless(f"{reply['before']} -> {reply['mode']}; {reply['lapsed']} open proposal(s) lapsed")
            )
