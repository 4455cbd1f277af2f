"""Ids may be cut short and runs and deployments go by name, wherever a person gives one; what fits several is listed."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.console.console_stack import ConsoleStack
from tests.console.session.test_commands import blocks, cards, problem, say
from typer.testing import CliRunner

from pilotage.console.cli.main import app
from pilotage.flows.api.client import ApiRejection
from pilotage.flows.api.resolve import Named, only
from pilotage.flows.config.paths import StatePaths
from pilotage.telemetry.facts import DeploymentFact
from pilotage.telemetry.queries.runs import run
from pilotage.telemetry.store.duckdb import DuckDBStore


def cli(port: ConsoleStack, who: str, *arguments: str) -> tuple[int, str]:
    """What `pilotage …` of this person exits with and prints."""
    token = port.paths.root / f"{who}.token"
    token.write_text(port.tokens[who])
    here = ("--state-dir", str(port.paths.root), "--token-file", str(token))
    result = CliRunner().invoke(app, [*arguments, *here])
    return result.exit_code, result.output


def cut(row: dict[str, Any], length: int = 8) -> str:
    return str(row["proposal_id"])[:length]


def test_every_command_that_takes_a_proposal_takes_its_beginning(port: ConsoleStack) -> None:
    first, second, third = (port.proposal(port.failed_run()) for _ in range(3))
    for command in (("why", cut(first)), ("policy", "explain", cut(first)), ("policy", "whatif", cut(first))):
        code, said = cli(port, "pat", *command) if command[0] == "why" else _policy(port, *command)
        assert code == 0, (command, said)
    code, said = cli(port, "pat", "amend", cut(second), "--set", "delay=PT5M", "--json")
    assert (code, json.loads(said)["replaces"]) == (0, second["proposal_id"])
    assert cli(port, "ann", "approve", cut(first))[0] == 0
    assert port.ledger.proposal(first["proposal_id"])["status"] == "allowed"  # type: ignore[index]
    assert cli(port, "ann", "reject", cut(third), "--reason", "no")[0] == 0
    port.work()
    code, said = cli(port, "pat", "undo", cut(first), "--json")
    assert json.loads(said)["proposal_id"] == first["proposal_id"]


def _policy(port: ConsoleStack, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments, "--state-dir", str(port.paths.root)])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    "words",
    [
        "/show {}",
        "/evidence {}",
        "/why {}",
        "/simulate {}",
        "/snooze {} 2h",
        "/approve {}",
        "/reject {} no",
        "/edit {} delay=5m",
    ],
)
def test_every_slash_command_that_takes_a_proposal_takes_its_beginning(
    port: ConsoleStack, words: str
) -> None:
    filed = port.proposal(port.failed_run())
    who = "ann" if "approve" in words or "reject" in words else "pat"
    events = say(port, words.format(cut(filed)), who)
    assert problem(events) == ""
    whole = filed["proposal_id"]
    assert blocks(events) or cards(events) or port.engine.log.snoozed("pat")
    if "snooze" in words:
        assert set(port.engine.log.snoozed("pat")) == {whole}
    if "edit" in words:
        assert cards(events)[0]["replaces"] == whole


def test_the_page_takes_the_beginning_of_an_id(port: ConsoleStack) -> None:
    filed = port.proposal(port.failed_run())
    with port.client("ann") as client:
        card = client.get(f"/api/proposals/{cut(filed)}").json()
        assert card["proposal_id"] == filed["proposal_id"]
        vote = {"digest": filed["digest"], "decision": "approve"}
        assert client.post(f"/api/proposals/{cut(filed)}/vote", json=vote).status_code == 200
        assert client.get("/api/proposals/p-0000").status_code == 404
    assert [vote["voter"] for vote in port.ledger.proposal(filed["proposal_id"])["votes"]] == ["ann"]  # type: ignore[index]


def test_a_run_and_a_deployment_go_by_their_names(port: ConsoleStack) -> None:
    run_id = port.failed_run(name="brave-otter")
    filed = port.proposal(run_id)
    port.store.merge_deployments(
        [DeploymentFact(deployment_id="d-1", name="nightly", flow_name="etl", updated=datetime.now(UTC))]
    )
    by_name = cli(port, "pat", "why", "brave-otter", "--json")
    assert by_name == cli(port, "pat", "why", run_id, "--json")
    assert cli(port, "pat", "why", run_id[:6], "--json") == by_name
    for name in ("etl/nightly", "nightly"):
        code, said = cli(port, "pat", "why", name, "--json")
        assert code == 0
        assert {step["incident_id"] for step in json.loads(said)} == {filed["incident_id"]}
    for command in (
        "/run brave-otter",
        f"/run {run_id[:5]}",
        "/why etl/nightly",
        "/forecast brave-otter",
        "/simulate cancel_run run=brave-otter",
    ):
        assert problem(say(port, command)) == "", command


def test_a_name_that_fits_several_lists_them_with_enough_to_choose(port: ConsoleStack) -> None:
    runs = [port.failed_run(name="twin") for _ in range(2)]
    code, said = cli(port, "pat", "why", "twin")
    assert code == 3
    for run_id in runs:
        (line,) = [line for line in said.splitlines() if run_id in line]
        assert all(word in line for word in ("twin", "nightly", "Failed", "UTC"))
    told = problem(say(port, "/run twin"))
    assert all(run_id in told for run_id in runs)
    port.store.merge_deployments(
        [DeploymentFact(deployment_id="d-1", name="nightly", flow_name="etl", updated=datetime.now(UTC))]
    )
    filed = [port.proposal(run_id) for run_id in runs]
    code, said = cli(port, "pat", "why", "etl/nightly")
    assert code == 3
    assert all(row["incident_id"] in said and f"run:{row['run_id']}" in said for row in filed)


def test_what_is_too_short_or_nothing_is_said_to_be_so(port: ConsoleStack) -> None:
    filed = port.proposal(port.failed_run())
    for words in (filed["proposal_id"][:5], "p-ffff0000", "nobody"):
        with pytest.raises(ApiRejection, match="4 characters") as refused:
            port.control_api("ann").call("proposal", proposal_id=words)
        assert refused.value.kind == "unknown-proposal"


def test_an_id_that_begins_two_is_never_voted_on(port: ConsoleStack) -> None:
    twins = [Named(id="p-aaaa00000000", words="retry_run"), Named(id="p-aaaa11111111", words="cancel_run")]
    with pytest.raises(ApiRejection) as refused:
        only("p-aaaa", "proposal", twins)
    assert refused.value.kind == "ambiguous"
    assert str(refused.value).splitlines()[1:] == [
        "  p-aaaa00000000  retry_run",
        "  p-aaaa11111111  cancel_run",
    ]


def test_names_are_resolved_also_when_nobody_runs(port: ConsoleStack, tmp_path: Path) -> None:
    run_id = port.failed_run(name="brave-otter")
    filed = port.proposal(run_id)
    with (
        contextlib.closing(sqlite3.connect(port.paths.ledger)) as kept,
        contextlib.closing(sqlite3.connect(StatePaths(root=tmp_path).ledger)) as copy,
    ):
        kept.backup(copy)
    at_rest = DuckDBStore(StatePaths(root=tmp_path).telemetry)
    known = run(port.store, run_id)
    assert known is not None
    at_rest.merge_runs([known])
    at_rest.close()
    token = tmp_path / "token"
    token.write_text("nobody asks for it")
    for words in (cut(filed), "brave-otter", run_id[:6]):
        result = CliRunner().invoke(
            app, ["why", words, "--state-dir", str(tmp_path), "--token-file", str(token), "--json"]
        )
        assert {step["run_id"] for step in json.loads(result.output)} == {run_id}, words
