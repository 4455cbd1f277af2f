"""The same story at the terminal and in a pipe, with a real Prefect server, a run that really runs out of memory, and a
scripted model: a question, its evidence, the card, an edit, another person's yes, the change, its verification."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import PrefectServer
from tests.console.tui.test_app import line, line_of, on_screen, seen, until
from tests.flows.conftest import PrefectProbe
from tests.flows.running_controller import SCRIPTED_MODEL, RunningController, eventually, running_controller
from textual.pilot import Pilot

from pilotage.console.tui.app import TerminalApp
from pilotage.console.tui.panes import Inbox
from pilotage.flows.config.credentials import PREFECT_KEYS
from pilotage.planner.llm.scripted.demo_replies import demo_script
from pilotage.planner.llm.scripted.server import ScriptedLLM

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600)]
THREAD = "t-story"


def in_a_pipe(ship: RunningController, who: str, *words: str) -> list[dict[str, Any]]:
    """The events that `pilotage ask --json` prints to this person."""
    ran = subprocess.run(
        [sys.executable, "-m", "pilotage.console", "ask", *words, "--json", "--thread", THREAD],
        env={
            "PATH": os.environ["PATH"],
            "PILOTAGE_STATE_DIR": str(ship.paths.root),
            "PILOTAGE_TOKEN_FILE": str(ship.paths.root / f"{who}.token"),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return [json.loads(row) for row in ran.stdout.splitlines()]


def test_from_a_question_to_a_verified_change(
    prefect_probe: PrefectProbe,
    prefect_server: PrefectServer,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root: Path = tmp_path_factory.mktemp("s")
    with (
        ScriptedLLM(demo_script) as llm,
        running_controller(
            root,
            prefect_server.env,
            mode="approve",
            settings=SCRIPTED_MODEL.format(url=llm.base_url),
            forked=prefect_server.embedded,
        ) as ship,
    ):
        run_id = prefect_probe.start("build-features/demo", needs_mb=160)
        assert prefect_probe.ended(run_id, within=150).state_type == "FAILED"
        old = eventually(
            lambda: next((r for r in ship.proposals_on(run_id) if r["status"] == "needs_approval"), None),
            within=120,
            what="a proposal that waits",
        )

        # in a pipe: the answer comes in pieces, with what it rests on
        told = in_a_pipe(ship, "pat", f"why did {run_id} fail?")
        assert [row["type"] for row in told][:2] == ["tool_call", "tool_result"]
        answer = told[-1]["payload"]
        pieces = "".join(row["payload"]["text"] for row in told if row["type"] == "delta")
        assert answer["text"].strip() == pieces.strip()
        assert answer["mock"]
        assert any(ref["ref"] == f"run:{run_id}" for cited in answer["citations"] for ref in cited["refs"])

        # on the screen: the card from the inbox, edited by keys
        for key in PREFECT_KEYS:
            monkeypatch.delenv(key, raising=False)
        monkeypatch.setenv("PILOTAGE_STATE_DIR", str(root))
        monkeypatch.setenv("PILOTAGE_CONFIG", str(root / "pilotage.toml"))

        async def edits(app: TerminalApp, pilot: Pilot[None]) -> None:
            await until(
                pilot, lambda: "Here is what the records say" in seen(app), "what was said in the pipe"
            )
            await until(pilot, lambda: app.query_one(Inbox).row_count == 1, "the inbox")
            await pilot.press("f3", "enter")
            await until(pilot, lambda: "128 MiB → 192 MiB" in seen(app, "#card"), "the card")
            await pilot.press("f9")
            assert line_of(app) == f"/edit {old['proposal_id']} memory_mb=192"
            await line(app, pilot, f"/edit {old['proposal_id']} memory_mb=256")
            await until(pilot, lambda: "128 MiB → 256 MiB" in seen(app), "the card of the edit")
            await pilot.press("f7", "enter")
            await until(pilot, lambda: "error:" in seen(app), "that nobody approves what they proposed")
            await line(app, pilot, "/share ann")
            await until(pilot, lambda: "ann" in seen(app), "with whom it is shared")

        on_screen(ship, edits, thread=THREAD)
        new = next(
            row
            for row in ship.proposals_on(run_id)
            if row["status"] == "needs_approval" and row["proposer"] == "pat"
        )

        # in a pipe again: somebody else says yes, and stays until it is verified
        told = in_a_pipe(ship, "ann", f"/approve {new['proposal_id']} looked at it", "--wait", "150")
        steps = [row["payload"]["step"] for row in told if row["type"] == "step"]
        assert [step for step in steps if step in ("injected", "verified")] == ["injected", "verified"]
        cards = [row["payload"]["card"] for row in told if row["type"] == "card"]
        assert [vote["voter"] for vote in cards[-1]["votes"]] == ["ann"]
        assert cards[-1]["status"] == "verified"
        assert prefect_probe.run(run_id).state_type == "COMPLETED"
        assert {row["thread"] for row in told} == {THREAD}
