"""What pilotage looks for in Prefect's sentences stands in the sources of every version that it supports."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.compat.make_messages import MESSAGES, sentences_of, sources_below
from tests.compat.versions import VERSIONS

from pilotage.planner.detect.failures import diagnose_run
from pilotage.planner.detect.signs.reading import exit_code_in
from pilotage.telemetry.facts import RunFact, StateType

ROWS: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("phrases.yaml").read_text())
IDS = [row["meaning"].replace(" ", "-") for row in ROWS]
FAILURES = [row for row in ROWS if "class" in row]


@cache
def versions_by_text() -> dict[str, frozenset[str]]:
    said: dict[str, frozenset[str]] = {}
    for row in json.loads(MESSAGES.read_text()):
        said[row["text"]] = said.get(row["text"], frozenset()) | set(row["versions"])
    return said


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_every_supported_version_says_it_in_words_that_we_know(row: dict[str, Any]) -> None:
    known = [versions_by_text().get(wording) for wording in row["wordings"]]
    assert all(known), f"no version says one of {row['wordings']}"
    saying = frozenset[str]().union(*(each or () for each in known))
    expected = VERSIONS[VERSIONS.index(row["since"]) :] if "since" in row else VERSIONS
    assert saying == set(expected), f"{row['meaning']}: known wordings are those of {sorted(saying)} only"


@pytest.mark.parametrize("row", FAILURES, ids=[row["meaning"].replace(" ", "-") for row in FAILURES])
def test_every_wording_gets_its_class(row: dict[str, Any]) -> None:
    for wording in row["wordings"]:
        parts = enumerate(re.split("[{}]", wording))
        filled = [str(row["filled"][part]) if at % 2 else part for at, part in parts]
        message = "".join(filled) + str(row.get("followed_by", ""))
        finding = diagnose_run(_failed(row, message), (), datetime.now(UTC))
        assert (finding.failure_class, finding.rule_id) == (row["class"], row["rule"]), message
        if "exit_code" in row:
            assert exit_code_in(message) == row["exit_code"]


def test_the_installed_prefect_says_what_was_written_down() -> None:
    installed = version("prefect")
    assert installed in VERSIONS, (
        f"Prefect {installed} is installed; add it to VERSIONS and make the data again"
    )
    spec = find_spec("prefect")
    assert spec is not None
    assert spec.origin is not None
    written = {
        (row["module"], row["text"])
        for row in json.loads(MESSAGES.read_text())
        if installed in row["versions"]
    }
    assert sentences_of(sources_below(Path(spec.origin).parent)) == written


def _failed(row: dict[str, Any], message: str) -> RunFact:
    name = str(row.get("state", "Failed"))
    now = datetime.now(UTC)
    return RunFact(
        run_id="r",
        name="run",
        flow_name="flow",
        state_type=StateType.CRASHED if name == "Crashed" else StateType.FAILED,
        state_name=row.get("name", name),
        state_id="s",
        state_message=message,
        created=now,
        updated=now,
    )
