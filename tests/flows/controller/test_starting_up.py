"""What `pilotage up` begins with beside a real Prefect server, and what it goes on with after a restart."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.states import Failed, Pending, Running
from tests.conftest import PrefectServer
from tests.flows.conftest import PrefectProbe
from tests.flows.running_controller import RunningController, eventually, running_controller

from pilotage.flows.config.state_directory import loose_paths

pytestmark = pytest.mark.prefect


def beginning(ship: RunningController, start: int = 0) -> list[str]:
    """The lines of a start that are for its reader, which come before those of the log."""
    lines = eventually(
        lambda: (
            [line for line in ship.log.read_text()[start:].splitlines() if line.startswith("pilotage: ")]
            if "what waits for you" in ship.log.read_text()[start:]
            else None
        ),
        what="a greeting",
    )
    return list(lines)


def test_a_start_is_ten_lines_a_restart_keeps_the_mode_and_every_file_is_its_owners(
    prefect_probe: PrefectProbe, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    root = tmp_path / "state"
    with running_controller(root, prefect_server.env, mode="auto", forked=prefect_server.embedded) as ship:
        lines = beginning(ship)
        assert len(lines) <= 10
        text = "\n".join(lines)
        assert prefect_server.api_url in text
        assert "mode auto" in text
        assert "as this start was told" in text
        assert "deployments" in text
        run_id = prefect_probe.start("fetch-quotes/demo", at=datetime.now(UTC) + timedelta(hours=6))
        prefect_probe.move(
            run_id,
            Pending(),
            Running(),
            Failed(message="Flow run encountered an exception: ConnectError: refused"),
        )
        about = eventually(
            lambda: [
                line for line in ship.log.read_text().splitlines() if "pilotage." in line and run_id in line
            ],
            what="a line about the proposal",
        )
        assert "retry_run on fetch-quotes/demo" in about[0]
        # other runs of the session's server may be proposed on too
        named = [line for line in ship.log.read_text().splitlines() if " p-" in line and "pilotage." in line]
        assert [line for line in named if not re.search(r" p-\w+ \w+ on ", line)] == []
        ship.agent_pid()
        assert loose_paths(root) == ()
        read = len(ship.log.read_text())
    with running_controller(root, prefect_server.env, mode=None, forked=prefect_server.embedded) as ship:
        text = "\n".join(beginning(ship, read))
        assert "mode auto" in text
        assert "kept from the last start" in text
        ship.control_api().call("set_mode", mode="approve", reason="quarter end")
        read = len(ship.log.read_text())
    with running_controller(root, prefect_server.env, mode=None, forked=prefect_server.embedded) as ship:
        assert "mode approve" in "\n".join(beginning(ship, read))
