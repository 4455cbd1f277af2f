"""The demo for people: live progress on standard error, the result as a table, or as JSON for a program."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Literal

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from pilotage.console.render.text import ERR, OUT, harmless, joined, print_json
from pilotage.flows.demo.runner import DemoRunner

FIELDS = (
    "case",
    "title",
    "run_id",
    "run_url",
    "failure_class",
    "evidence",
    "forecast",
    "action",
    "verdict",
    "policy_ids",
    "reasons",
    "approved_by",
    "injected",
    "outcome",
    "seconds_to_recovery",
    "ended_after",
    "waits_for",
    "ok",
)


COMMON = ("FAILED (Failed): ", "CRASHED (Crashed): ", "Flow run encountered an exception: ")
"""What every state message begins with, and a table can do without."""


def show_demo(*, llm: str | None, keep: bool, as_json: bool) -> bool:
    """Whether all eight incidents ended as they should."""
    began = time.monotonic()
    with _language_model(llm) as llm_url, Status("setting up", console=ERR) as spinner:

        def say(text: str) -> None:
            spinner.update(text)
            ERR.print(Text.assemble((f"[{time.monotonic() - began:6.1f}s] ", "dim"), harmless(text)))

        stage = DemoRunner(say=say, llm_url=llm_url)
        with _terminated_like_interrupted():
            try:
                stage.set_up()
                rows = stage.play()
                ok = all(row["ok"] for row in rows)
                seconds = time.monotonic() - began
                time_spent = {
                    "seconds": round(seconds, 1),
                    "phases": {name: round(spent, 1) for name, spent in stage.phases.seconds.items()},
                    "cpu_seconds": stage.cpu_seconds(),
                    "slowness": round(stage.patience.slowness, 1),
                }
                spinner.stop()
                if as_json:
                    result = {"incidents": [{key: row[key] for key in FIELDS} for row in rows], "ok": ok}
                    print_json(
                        {**result, "time": time_spent, **({"left_running": stage.urls()} if keep else {})}
                    )
                else:
                    OUT.print(result_table(rows))
                    OUT.print(
                        f"{sum(1 for row in rows if row['ok'])} of {len(rows)} ended as they should, in {seconds:.0f} s."
                    )
                    OUT.print(time_table(rows, time_spent))
                    OUT.print("Runs, in the order of the table (the server lives on with --keep):")
                    for url in dict.fromkeys(row["run_url"] for row in rows):
                        OUT.print(harmless(f"  {url}"))
                if keep:
                    _keep(stage, OUT if not as_json else ERR)
            finally:
                spinner.stop()
                stage.take_down()
    return ok


COLUMNS: tuple[tuple[str, Literal["left", "right"], int], ...] = (
    ("", "left", 1),
    ("incident", "left", 3),
    ("diagnosis", "left", 4),
    ("p(fail)", "right", 1),
    ("proposed → verdict", "left", 4),
    ("injected → outcome", "left", 5),
    ("s", "right", 1),
)
"""Heading, side and share of the width."""


def result_table(rows: list[dict[str, Any]]) -> Table:
    """One row an incident; the first eight signs of a run's id stand for it and are a link in a terminal."""
    table = Table(title="What happened", title_justify="left", header_style="bold", show_lines=True)
    for heading, side, share in COLUMNS:
        table.add_column(
            heading, overflow="fold", justify=side, ratio=share if share > 1 else None, no_wrap=share == 1
        )
    for row in rows:
        mark = ("✓ ", "green") if row["ok"] else ("✗ ", "red")
        incident = Text.assemble(f"{row['title']}\nrun ", (row["run_id"][:8], f"link {row['run_url']}"))
        evidence = joined(row["evidence"][:1])
        for common in COMMON:
            evidence = evidence.replace(common, "")
        diagnosis = Text.assemble((row["failure_class"], "bold"), "\n", harmless(evidence, limit=80))
        verdict = Text.assemble(
            (row["action"], "bold"), " → ", harmless(row["verdict"]), "\n", (joined(row["policy_ids"]), "dim")
        )
        if row["approved_by"]:
            verdict.append_text(Text.assemble("\napproved by ", harmless(joined(row["approved_by"]))))
        if row["verdict"] == "deny":
            verdict.append_text(Text.assemble("\n", harmless(joined(row["reasons"][:1]))))
        table.add_row(
            Text.assemble(mark, str(row["case"])),
            incident,
            diagnosis,
            "" if row["forecast"] is None else f"{row['forecast']:.2f}",
            verdict,
            Text.assemble(
                harmless(row["injected"]),
                " → ",
                harmless(row["outcome"]),
                harmless(f"\nwaits for {row['waits_for']}" if row["waits_for"] else ""),
            ),
            "" if row["seconds_to_recovery"] is None else f"{row['seconds_to_recovery']:.0f}",
        )
    return table


def time_table(rows: list[dict[str, Any]], spent: dict[str, Any]) -> Table:
    """Return where the time went: seconds by phase, the story that ended last, and CPU seconds by process."""
    table = Table(title="Where the time went", title_justify="left", header_style="bold")
    table.add_column("phase")
    table.add_column("s", justify="right")
    for name, seconds in spent["phases"].items():
        table.add_row(name, f"{seconds:.0f}")
    ended = [row for row in rows if row["ended_after"] is not None]
    for row in sorted(ended, key=lambda row: float(row["ended_after"]))[-3:]:
        table.add_row(harmless(f"  {row['title']} ended after"), f"{row['ended_after']:.0f}")
    for name, seconds in spent["cpu_seconds"].items():
        table.add_row(f"CPU of {name}", f"{seconds:.0f}")
    return table


def _keep(stage: DemoRunner, console: Console) -> None:
    """Waits, with everything running, until the person has seen enough."""
    console.print("\nLeft running; Ctrl-C stops everything")
    for name, value in stage.urls().items():
        console.print(harmless(f"  {name}: {value}"), soft_wrap=True)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            signal.pause()


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Makes SIGTERM end the demo as Ctrl-C does: with everything taken down."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _language_model(llm: str | None) -> Iterator[str]:
    """The URL of the model that was asked for: scripted, somebody's endpoint, or none."""
    if llm != "scripted":
        yield llm or ""
        return
    from pilotage.planner.llm.scripted.demo_replies import demo_script
    from pilotage.planner.llm.scripted.server import ScriptedLLM

    with ScriptedLLM(demo_script) as scripted:
        yield scripted.base_url
