"""`pilotage policy …`: what authors of policy use. It reads bundles and the ledger, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotage.console.cli.options import AsJson, StateDir
from pilotage.console.cli.options import told as _told
from pilotage.console.render.text import OUT, harmless, print_json, print_pairs, print_table, when

if TYPE_CHECKING:
    from pilotage.policies.cedar.bundle import Bundle
    from pilotage.policies.testing.cases import Prepared

app = typer.Typer(help="Check, test, explain and try out policies.", no_args_is_help=True)

Policies = Annotated[
    Path | None,
    typer.Option("--policies", help="A directory with a bundle.", show_default="the shipped one"),
]
OrInForce = Annotated[
    Path | None,
    typer.Option(
        "--policies", help="A directory with a bundle.", show_default="what is in force, or the shipped one"
    ),
]
Numbers = Annotated[
    Path | None,
    typer.Option("--guardrails", help="A YAML file in place of its own numbers.", show_default=False),
]
Cases = Annotated[
    Path | None, typer.Option("--cases", help="A file of cases.", show_default="the bundle's cases.yaml")
]
EXIT_FAILED = 1


@app.command("check")
def check(
    directory: Annotated[
        Path | None, typer.Argument(help="A directory with a bundle.", show_default="the shipped one")
    ] = None,
    policies: Policies = None,
    guardrails: Numbers = None,
    as_json: AsJson = False,
) -> None:
    """Parse, validate against the schema and lint. Says every flaw of every file; exit code 2 when there is one."""
    with _told(as_json):
        bundle = _bundle(directory or policies, guardrails)
        report_json = {
            "ok": True,
            "hash": bundle.hash,
            "directory": str(bundle.directory),
            "policies": len(bundle.notes),
            "files": sorted(bundle.texts),
        }
        if as_json:
            print_json(report_json)
        else:
            print_pairs("sound", {**report_json, "files": ", ".join(sorted(bundle.texts))})


@app.command("test")
def run_cases(
    policies: Policies = None,
    guardrails: Numbers = None,
    cases: Cases = None,
    coverage: Annotated[bool, typer.Option("--coverage", help="Fail when a policy decides no case.")] = False,
    mutate: Annotated[
        bool, typer.Option("--mutate", help="Bend every policy a little; fail when too few are noticed.")
    ] = False,
    least: Annotated[float, typer.Option(min=0, max=1, help="Share of mutants to be noticed.")] = 0.9,
    as_json: AsJson = False,
) -> None:
    """Run the bundle's cases."""
    from pilotage.policies.testing.tools import cases_of, on_its_numbers, tested  # start-up time: Cedar

    with _told(as_json):
        bundle = _bundle(policies, guardrails)
        if guardrails is None and cases is None:
            bundle = on_its_numbers(bundle)
        report = tested(bundle, cases_of(bundle, cases), mutants=mutate)
        if as_json:
            print_json(report.as_json())
        else:
            OUT.print(
                f"{report.cases} cases, {len(report.failed)} failed; "
                f"{report.coverage:.0%} of {report.policies} policies decide something"
            )
            for failed_case in report.failed:
                OUT.print(
                    harmless(f"FAILED {failed_case.case}: wanted {failed_case.wanted}, got {failed_case.got}")
                )
            for name in report.undecided:
                OUT.print(harmless(f"decides no case: {name}"))
            if report.mutation is not None:
                total = report.mutation.killed + len(report.mutation.survivors)
                OUT.print(f"{report.mutation.score:.1%} of {total} mutants were noticed")
                for mutant in report.mutation.survivors:
                    OUT.print(harmless(f"unnoticed: {mutant.policy_id}: {mutant.change}"))
    unnoticed = report.mutation is not None and report.mutation.score < least
    if report.failed or (coverage and report.undecided) or unnoticed:
        raise typer.Exit(EXIT_FAILED)


@app.command("explain")
def explain(
    subject: Annotated[str, typer.Argument(help="The @id of a policy, or a proposal (p-…).")],
    policies: OrInForce = None,
    guardrails: Numbers = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """A policy: its text, its numbers, its cases. A proposal: each decision, and the same made again now."""
    from pilotage.policies.testing.tools import explained  # start-up time: Cedar

    with _told(as_json):
        bundle, cases = _wanted(policies, guardrails, state_dir)
        if subject.startswith("p-"):
            rows = _decisions_of(subject, bundle, state_dir)
            if as_json:
                print_json(rows)
            else:
                print_table(
                    subject,
                    ("at", "stage", "outcome", "policies", "with this bundle", "policies", "because"),
                    [
                        (
                            when(row["at"]),
                            row["stage"],
                            row["outcome"],
                            ", ".join(row["policy_ids"]),
                            row["again"]["outcome"],
                            ", ".join(row["again"]["policy_ids"]),
                            "; ".join(row["again"]["reasons"]),
                        )
                        for row in rows
                    ],
                    empty="",
                )
            return
        explanation = explained(bundle, subject, cases)
        if as_json:
            print_json(explanation)
        else:
            shown = {key: value for key, value in explanation.items() if key not in ("text", "decides")}
            print_pairs(subject, {**shown, "guardrails": _pairs(explanation["guardrails"])})
            OUT.print(harmless(explanation["text"], limit=4000))
            for name in explanation["decides"]:
                OUT.print(harmless(f"decides: {name}"))


@app.command("whatif")
def whatif(
    proposal: Annotated[str, typer.Argument(help="A proposal (p-…).")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="target.FIELD=VALUE or ledger.FIELD=VALUE; may be given again."),
    ] = None,
    vote: Annotated[
        list[str] | None,
        typer.Option("--vote", help="NAME=ROLE,ROLE (team:TEAM is a team); may be given again."),
    ] = None,
    policies: OrInForce = None,
    guardrails: Numbers = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Judge a proposal's last decision again with other facts, votes, numbers or policies. Changes nothing."""
    import yaml

    from pilotage.policies.replay.what_if import what_if  # start-up time: Cedar
    from pilotage.telemetry.errors import ConfigError

    with _told(as_json):
        bundle, _ = _wanted(policies, guardrails, state_dir)
        past = [recorded for recorded in _past(state_dir, None, proposal) if recorded.ledger is not None]
        if not past or past[-1].ledger is None:
            raise ConfigError(f"asking what if of {proposal}: no decision with its facts is recorded")
        last = past[-1]
        verdict = what_if(
            bundle,
            filed=last.filed,
            target=last.target,
            ledger=past[-1].ledger,
            at=last.at,
            changes={key: yaml.safe_load(value) for key, value in _assigned(set_)},
            approvals={name: roles.split(",") for name, roles in _assigned(vote)},
        )
        result = {
            "was": {"outcome": last.outcome, "policy_ids": list(last.policy_ids)},
            "outcome": verdict.outcome.value,
            "policy_ids": list(verdict.policy_ids),
            "reasons": list(verdict.reasons),
            "requirements": dict(verdict.requirements),
            "would_change": list(verdict.would_change),
        }
        if as_json:
            print_json(result)
        else:
            print_pairs(
                proposal,
                {
                    "was": f"{last.outcome} ({', '.join(last.policy_ids)})",
                    "would be": f"{verdict.outcome.value} ({', '.join(verdict.policy_ids)})",
                    "because": "; ".join(verdict.reasons),
                    "still missing": _pairs(verdict.requirements) or "nothing",
                    "would change it": "; ".join(verdict.would_change),
                },
            )


@app.command("replay")
def replay(
    policies: OrInForce = None,
    guardrails: Numbers = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How far back.")] = 30,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """The time machine: make the recorded decisions again under this bundle.

    It also judges what the playbooks would have proposed about failed runs, starved or sick queues and crowds of runs
    that nobody acted on. Shows what would have changed; changes nothing."""
    from datetime import UTC, datetime, timedelta

    from pilotage.flows.config.paths import paths  # start-up time: Cedar, SQLAlchemy, DuckDB
    from pilotage.flows.config.settings import load_settings
    from pilotage.flows.replay.report import replay_report

    with _told(as_json):
        bundle, _ = _wanted(policies, guardrails, state_dir)
        since = datetime.now(UTC) - timedelta(days=days)
        report = replay_report(paths(state_dir), load_settings(), bundle, since)
        if as_json:
            print_json(report)
        else:
            _show_replay(f"the last {days} days under {bundle.hash[:12]}", report)


def _show_replay(title: str, report: dict[str, Any]) -> None:
    print_pairs(
        title,
        {
            **{key: report[key] for key in ("decisions", "same", "other_policies", "skipped")},
            "moves": _pairs(report["moves"]) or "none",
            "approvals asked": _pairs(report["approvals_asked"]),
            "minutes of waiting saved": report["minutes_saved"],
            "allowed, known bad": report["allowed_known_bad"],
            "stopped, known good": report["stopped_known_good"],
        },
    )
    columns = ("action", "before", "after", "by", "outcome")
    print_table(
        "changed",
        ("proposal", *columns),
        [(change["proposal_id"], *_change(change)) for change in report["changed"]],
        empty="nothing would have been decided otherwise",
    )
    playbooks = report["playbooks"]
    if "unknown" in playbooks:
        OUT.print(harmless(f"What playbooks would have proposed is unknown. {playbooks['unknown']}"))
        return
    before, after = playbooks["before"], playbooks["after"]
    print_pairs(
        "trouble that nothing was proposed about, as the playbooks would have",
        {
            "failed runs": playbooks["failures"],
            "queues and crowds": _pairs(playbooks["standing"]),
            "acted on then": playbooks["proposed_then"],
            "class not told by rule": playbooks["undiagnosed"],
            "playbook wants nothing": playbooks["unplanned"],
            "proposals": playbooks["proposals"],
            **{
                key.replace("_", " "): f"{before[key]} under {playbooks['current'][:12]}, now {after[key]}"
                for key in after
            },
            "moves": _pairs(playbooks["moves"]) or "none",
        },
    )
    print_table(
        "changed",
        ("incident", *columns),
        [(change["incident_id"], *_change(change)) for change in playbooks["changed"]],
        empty="both would have decided the same",
    )
    for assumption in playbooks["assumed"]:
        OUT.print(harmless(f"supposed: {assumption}"))


def _change(change: dict[str, Any]) -> tuple[str, str, str, str, str]:
    return (
        change["kind"],
        change["before"],
        change["after"],
        ", ".join(change["policies_after"]),
        change["outcome"],
    )


def _bundle(policies: Path | None, guardrails: Path | None) -> Bundle:
    from pilotage.policies.cedar.bundle import Bundle  # start-up time: Cedar

    return Bundle.load(policies, guardrails=guardrails)


def _wanted(
    policies: Path | None, guardrails: Path | None, state_dir: Path | None
) -> tuple[Bundle, tuple[Prepared, ...]]:
    """The bundle that was named, else what is in force here, else the shipped one; with its cases."""
    from pilotage.flows.config.paths import paths  # start-up time: Cedar, SQLAlchemy
    from pilotage.flows.replay.report import published_here
    from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE, Bundle
    from pilotage.policies.publishing import files_to_publish, renumbered
    from pilotage.policies.testing.cases import CASES_FILE, cases_among

    files, where = (None, Path()) if policies is not None else published_here(paths(state_dir))
    if files is None:
        where = policies or DEFAULT_BUNDLE
        files = files_to_publish(where, None)
    bundle = Bundle.of(renumbered(files, guardrails), where, numbers=guardrails)
    return bundle, cases_among(files, where, bundle.guardrails)[0] if CASES_FILE in files else ()


def _past(state_dir: Path | None, since: Any, proposal: str) -> Iterator[Any]:
    from pilotage.flows.api.offline_ledger import reading_ledger  # start-up time: SQLAlchemy
    from pilotage.flows.api.resolve import Resolver
    from pilotage.flows.config.paths import paths

    with reading_ledger(paths(state_dir)) as ledger:
        wanted = Resolver(ledger).resolve(proposal, "proposal") if proposal else ""
        yield from ledger.decisions(since, wanted)


def _decisions_of(proposal: str, bundle: Bundle, state_dir: Path | None) -> list[dict[str, Any]]:
    from pilotage.policies.gate.gate import Gate
    from pilotage.policies.gate.recorded import made_again  # start-up time: Cedar
    from pilotage.telemetry.errors import ConfigError

    gate = Gate(bundle)
    rows: list[dict[str, Any]] = []
    for recorded in _past(state_dir, None, proposal):
        verdict = made_again(gate, recorded)
        rows.append(
            {
                "at": recorded.at.isoformat(),
                "stage": recorded.stage,
                "outcome": recorded.outcome,
                "policy_ids": list(recorded.policy_ids),
                "bundle": recorded.bundle,
                "again": {
                    "outcome": verdict.outcome.value if verdict else "facts not recorded",
                    "policy_ids": list(verdict.policy_ids) if verdict else [],
                    "reasons": list(verdict.reasons) if verdict else [],
                },
            }
        )
    if not rows:
        raise ConfigError(f"explaining {proposal}: no decision on it is recorded; see `pilotage proposals`")
    return rows


def _assigned(given: list[str] | None) -> list[tuple[str, str]]:
    from pilotage.telemetry.errors import ConfigError

    pairs = []
    for assignment in given or ():
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"reading {assignment!r}: there is no `=` in it; write NAME=VALUE")
        pairs.append((key.strip(), value))
    return pairs


def _pairs(values: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in dict(values).items())
