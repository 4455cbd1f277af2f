"""A table never breaks an id, in a terminal of 80 columns as little as in a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from io import StringIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text
from tests.console.console_stack import ConsoleStack

from pilotage.console.render.text import table_of

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
IDS = st.one_of(
    st.uuids().map(str),
    st.uuids().map(lambda uuid: f"run:{uuid}"),
    st.from_regex(r"[pig]-[0-9a-f]{12}", fullmatch=True),
)
WORDS = st.lists(
    st.sampled_from(["retry_run", "etl/nightly", "(staging,", "tier", "2)", "needs_approval"]), max_size=8
)


def lines(width: int, columns: list[str], rows: list[list[Text]]) -> list[str]:
    console = Console(width=width, record=True, file=StringIO())
    console.print(table_of(Text("T"), columns, rows, width))
    return console.export_text().splitlines()


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    ids=st.lists(st.tuples(IDS, IDS), min_size=1, max_size=3),
    prose=st.lists(WORDS, min_size=1, max_size=6),
    width=st.sampled_from([60, 80, 100, 124, 200]),
)
def test_ids_stay_whole_at_every_width(
    ids: list[tuple[str, str]], prose: list[list[str]], width: int
) -> None:
    columns = ["proposal", "target", *(f"column {n}" for n in range(len(prose)))]
    rows = [[Text(one), Text(other), *(Text(" ".join(words)) for words in prose)] for one, other in ids]
    told = lines(width, columns, rows)
    assert all(len(line) <= width for line in told)
    assert all(any(each in line for line in told) for pair in ids for each in pair)


def terminal(*command: str, columns: int) -> subprocess.Popen[bytes]:
    """The command at a terminal of so many columns; what it prints is read by `said`."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    started = subprocess.Popen(
        [sys.executable, "-m", "pilotage.console", *command],
        stdout=theirs, stdin=theirs, stderr=subprocess.STDOUT, env=environment | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    OURS[started.pid] = ours
    return started


OURS: dict[int, int] = {}


def said(started: subprocess.Popen[bytes]) -> str:
    """All that it printed, without colours."""
    ours, told = OURS.pop(started.pid), b""
    try:
        while piece := os.read(ours, 65536):
            told += piece
    except OSError:  # its side of the terminal is closed
        pass
    finally:
        os.close(ours)
        started.wait(60)
    return ESCAPE.sub("", told.decode())


@pytest.mark.parametrize("columns", [80])
def test_commands_in_a_real_terminal_show_whole_ids(port: ConsoleStack, columns: int) -> None:
    run_id = port.failed_run()
    filed = [port.proposal(run_id), port.proposal(port.failed_run())]
    token = port.paths.root / "pat.token"
    token.write_text(port.tokens["pat"])
    break_glass_grants = port.control_api("pat").call(
        "break_glass", minutes=5, reason="a long reason " * 6, kinds=["retry_run"], targets=[f"run:{run_id}"]
    )
    wanted = {
        ("proposals",): [*(row["proposal_id"] for row in filed), f"run:{run_id}"],
        ("incidents",): [row["incident_id"] for row in filed],
        ("why", filed[0]["proposal_id"]): [filed[0]["incident_id"], run_id],
        ("grants",): [break_glass_grants["id"], f"run:{run_id}"],
        ("policy", "explain", filed[0]["proposal_id"]): [filed[0]["proposal_id"]],
        ("ask", "/inbox"): [row["proposal_id"] for row in filed],
        ("ask", "/runs"): [run_id],
        ("status", "--legend"): ["needs_approval"],
    }
    started = {}
    for command in wanted:
        person = () if command[0] in ("policy",) or "--legend" in command else ("--token-file", str(token))
        started[command] = terminal(*command, "--state-dir", str(port.paths.root), *person, columns=columns)
    everything = {command: (said(process), process.returncode) for command, process in started.items()}
    for command, (told, code) in everything.items():
        assert code == 0, (command, told)
        assert max(len(line) for line in told.splitlines()) <= columns, command
        for each in wanted[command]:
            assert each in told, (command, told)
