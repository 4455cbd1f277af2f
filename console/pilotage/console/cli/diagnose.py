"""`pilotage diagnose` and `pilotage rules`: what is wrong with a failed run, and a site's own rules. Both only read."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotage.console.cli.options import AsJson, StateDir, told
from pilotage.console.render.text import OUT, harmless, print_json, print_pairs, print_table
from pilotage.telemetry.errors import ConfigError

if TYPE_CHECKING:
    from pilotage.planner.detect.report import DiagnosisReport
    from pilotage.planner.detect.rulebook import Rulebook

rules_app = typer.Typer(help="Check and try a site's own failure rules.", no_args_is_help=True)
RULES_VARIABLE = "PILOTAGE_FAILURE_RULES"
"""Where a site's own rules are read from when no option names them."""
Rules = Annotated[
    Path | None,
    typer.Option("--rules", help="A file of a site's own failure rules.", show_default=f"${RULES_VARIABLE}"),
]
RulesFile = Annotated[Path, typer.Argument(help="The file of rules.")]


def diagnose(
    subject: Annotated[
        str | None,
        typer.Argument(help="A flow run's id, or a file with a failure a line; - reads standard input."),
    ] = None,
    message: Annotated[
        str | None, typer.Option("--message", help="The message of the state it ended in.")
    ] = None,
    state: Annotated[str, typer.Option("--state", help="Failed, TimedOut or Crashed.")] = "Failed",
    log: Annotated[
        list[str] | None, typer.Option("--log", help="A log line as `LEVEL | text`; may be given again.")
    ] = None,
    rules: Rules = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """What is wrong with a failed run, by whom that is said, how sure, and the remedy. Needs no server for texts."""
    with told(as_json):
        book = _book(rules)
        if (subject is None) == (message is None and not log):
            raise ConfigError("Diagnosing: give a run's id, a file, or --message (and --log).")
        if subject is None:
            reports: Iterator[DiagnosisReport] = iter(
                [_of_words(message or "", state, tuple(log or ()), book)]
            )
            many = False
        elif many := (subject == "-" or subject.endswith((".jsonl", ".ndjson")) or Path(subject).is_file()):
            reports = _of_file(subject, book)
        else:
            reports = iter([_of_run(subject, state_dir, book)])
        if as_json and many:
            for report in reports:
                sys.stdout.write(json.dumps(report.as_json(), ensure_ascii=True) + "\n")
        elif as_json:
            print_json(next(reports).as_json())
        elif many:
            print_table(
                "Diagnoses",
                ("failure", "class", "by", "rule", "sure", "remedy", "because"),
                (
                    (
                        r.id,
                        r.narrower_class,
                        r.by,
                        r.rule_id,
                        f"{r.confidence:.0%}",
                        r.remedy,
                        next(iter(r.evidence), ""),
                    )
                    for r in reports
                ),
                empty="The file holds no failure.",
            )
        else:
            _show(next(reports))


def _show(report: DiagnosisReport) -> None:
    shown: dict[str, object] = {
        "class": report.narrower_class,
        "by": f"{report.by}{f', {report.rule_id}' if report.rule_id else ''}",
        "sure": f"{report.confidence:.0%}",
        "remedy": report.remedy,
        "actions": ", ".join(report.actions) or "none",
    }
    print_pairs("diagnosis", shown | {f"because {i}": note for i, note in enumerate(report.evidence, 1)})


def _book(path: Path | None) -> Rulebook:
    from pilotage.planner.detect.reasoning import EXAMPLES  # start-up time: the tables

    if path is None:
        named = os.environ.get(RULES_VARIABLE, "")
        if not named:
            return EXAMPLES
        path = Path(named)
    from pilotage.planner.detect.site_rules import load_rules  # start-up time: yaml

    return load_rules(path).book()


def _of_words(message: str, state: str, logs: tuple[str, ...], book: Rulebook) -> DiagnosisReport:
    from pilotage.planner.detect.report import FailureText, report_on, state_named

    state_type, name = state_named(state)
    return report_on(
        FailureText(state_type=state_type, state_name=name, message=message, log_tail=logs), book
    )


def _of_file(name: str, book: Rulebook) -> Iterator[DiagnosisReport]:
    from pilotage.planner.detect.report import failure_text, report_on

    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Reading {name}: {error}. Name a file with one JSON object a line.") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            row: Any = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"Reading {where}: it is no JSON: {error}. Give one JSON object a line."
            ) from error
        yield report_on(failure_text(row, where), book)


def _of_run(run_id: str, state_dir: Path | None, book: Rulebook) -> DiagnosisReport:
    from pilotage.flows.config.paths import paths
    from pilotage.planner.detect.diagnosis import Line
    from pilotage.planner.detect.failures import diagnosis_of
    from pilotage.planner.detect.report import report_of
    from pilotage.telemetry import connect
    from pilotage.telemetry.queries import runs as run_queries  # start-up time: the store

    store = connect(paths(state_dir).root)
    try:
        run = run_queries.run(store, run_id)
        if run is None:
            raise ConfigError(
                f"Diagnosing {run_id}: the telemetry does not know such a run, and there is no such file. "
                "Give the whole id of a flow run, a file, or --message."
            )
        logs = run_queries.logs_of(store, run_id, 200)
    finally:
        store.close()
    diagnosis, shown = diagnosis_of(run, logs, book)
    lines = [Line(level=40, text=shown.message)] if shown is not None and diagnosis.line is not None else []
    from dataclasses import replace

    return report_of(run_id, replace(diagnosis, line=0 if lines else None), run.state_message, lines)


@rules_app.command("check")
def check_rules(file: RulesFile, as_json: AsJson = False) -> None:
    """Read a file of rules, say what is wrong with it, and name each row that another one keeps from deciding."""
    from pilotage.planner.detect.site_rules import load_rules, shadows_of

    with told(as_json):
        rules = load_rules(file)
        shadows = shadows_of(rules)
        if as_json:
            print_json(
                {
                    "before": [rule.id for rule in rules.before],
                    "after": [rule.id for rule in rules.after],
                    "shadowed": [{"rule": s.rule_id, "by": s.by, "because": s.because} for s in shadows],
                }
            )
        else:
            OUT.print(harmless(f"{file}: {len(rules.before)} rules before ours, {len(rules.after)} after"))
            for shadow in shadows:
                OUT.print(harmless(f"shadowed: {shadow.rule_id} by {shadow.by}: {shadow.because}"))
    raise typer.Exit(1 if shadows else 0)


@rules_app.command("test")
def try_rules(
    file: RulesFile,
    examples: Annotated[
        Path | None,
        typer.Option("--examples", help="Failure texts with `expected_class`, one JSON object a line."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try a file of rules on its own examples, and on labelled failure texts."""
    from pilotage.planner.detect.report import failure_text, report_on
    from pilotage.planner.detect.site_rules import failed_examples, load_rules

    with told(as_json):
        rules = load_rules(file)
        wrong = [
            {"message": e.message, "expected": e.failure_class.value, "found": diagnosed.value, "rule": rule}
            for e, diagnosed, rule in failed_examples(rules)
        ]
        tried = len(rules.examples)
        if examples is not None:
            book = rules.book()
            for number, line in enumerate(examples.read_text(encoding="utf-8").splitlines(), 1):
                row = json.loads(line)
                report = report_on(failure_text(row, f"{examples}, line {number}"), book)
                tried += 1
                fine = {
                    row["expected_class"],
                    row.get("missing_class") or "",
                    *row.get("also_acceptable", ()),
                }
                if not fine & {report.failure_class, report.narrower_class}:
                    wrong.append(
                        {"message": str(row.get("message")), "expected": row["expected_class"],
                         "found": report.narrower_class, "rule": report.rule_id}
                    )  # fmt: skip
        if not tried:
            raise ConfigError(
                f"Testing {file}: it has no examples. Add some under `examples:`, or name --examples."
            )
        if as_json:
            print_json({"tried": tried, "wrong": wrong})
        else:
            print_table(
                f"{tried - len(wrong)} of {tried} examples as expected",
                ("message", "expected", "found", "by rule"),
                ((w["message"], w["expected"], w["found"], w["rule"]) for w in wrong),
                empty=f"{tried} of {tried} examples are taken for what they are.",
            )
    raise typer.Exit(1 if wrong else 0)


def join(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(diagnose)
    app.add_typer(rules_app, name="rules")
