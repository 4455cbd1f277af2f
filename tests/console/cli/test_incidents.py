"""An incident at the command line: shown, answered as a whole, looked at, regrouped, handed over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.console.cli_stack import CliStack, cli_stack

HOST = "host:passing:prices.example"


@pytest.fixture
def shore(tmp_path: Path) -> Iterator[CliStack]:
    with cli_stack(tmp_path) as made:
        yield made


def three(shore: CliStack) -> tuple[str, list[dict[str, Any]]]:
    """The id of an incident of three runs, and its waiting proposals as the incident tells of them."""
    for _ in range(3):
        shore.waiting(HOST)
    _, (found,) = shore.run("vic", "incidents")
    return found["incident_id"], found["proposals"]


def status(shore: CliStack, rows: list[dict[str, Any]]) -> list[str]:
    return [str(shore.ledger.status(row["proposal_id"])) for row in rows]


def test_one_answer_decides_a_whole_plan_but_for_the_run_that_is_left_out(shore: CliStack) -> None:
    incident_id, rows = three(shore)
    code, reply = shore.run("ann", "approve", incident_id[:8], "--but", rows[1]["run_id"][:8])
    assert code == 0
    assert [one["counted"] for one in reply["results"]] == [True, True]
    assert status(shore, rows) == ["allowed", "needs_approval", "allowed"]
    code, said = shore.say("ann", "reject", incident_id, "--reason", "not during the close")
    assert (code, "1 of 1 counted" in said) == (0, True)
    assert status(shore, rows) == ["allowed", "rejected", "allowed"]
    code, reply = shore.run("ann", "approve", incident_id)
    assert (code, reply["error"]["kind"]) == (3, "nothing-waits")


def test_a_vote_that_may_not_be_cast_counts_for_none_and_says_so(shore: CliStack) -> None:
    incident_id, rows = three(shore)
    code, reply = shore.run("vic", "approve", incident_id)
    assert code == 3
    assert not any(one["counted"] for one in reply["results"])
    assert status(shore, rows) == ["needs_approval"] * 3


def test_only_what_was_seen_is_decided(shore: CliStack) -> None:
    incident_id, rows = three(shore)
    api = shore.api("ann")
    seen = {rows[0]["proposal_id"]: rows[0]["digest"], rows[1]["proposal_id"]: "0" * 64}
    reply = api.call("vote_incident", incident_id=incident_id, seen=seen, decision="approve")
    assert [one["counted"] for one in reply["results"]] == [True, False]
    assert status(shore, rows) == ["allowed", "needs_approval", "needs_approval"]
    stranger = shore.waiting()
    code, refused = shore.refused(
        "ann",
        "vote_incident",
        incident_id=incident_id,
        seen={stranger["proposal_id"]: "x"},
        decision="approve",
    )
    assert (code, "is no proposal about it" in refused) == ("bad-request", True)


def test_who_looks_is_kept_until_it_is_over(shore: CliStack) -> None:
    incident_id, _ = three(shore)
    code, reply = shore.run("olga", "incident", "ack", incident_id, "--reason", "at my desk")
    assert (code, reply["acknowledged"]["by"], reply["acknowledged"]["reason"]) == (0, "olga", "at my desk")
    code, said = shore.say("vic", "incident", "show", incident_id)
    assert (code, "looked at by" in said, "Plan" in said) == (0, True, True)
    code, reply = shore.run("vic", "incident", "ack", incident_id)
    assert (code, reply["error"]["kind"]) == (3, "wrong-role")
    code, reply = shore.run("olga", "incident", "waive", incident_id, "--reason", "done by hand")
    assert (code, reply["status"], reply["acknowledged"]) == (0, "resolved", {})
    code, reply = shore.run("olga", "incident", "ack", incident_id)
    assert (code, "no open incident" in reply["error"]["message"]) == (3, True)


def test_people_split_merge_and_waive(shore: CliStack) -> None:
    incident_id, rows = three(shore)
    run_id = rows[2]["run_id"]
    code, new = shore.run("ann", "incident", "split", incident_id, "--run", run_id[:8])
    assert (code, [run["run_id"] for run in new["runs"]]) == (0, [run_id])
    code, kept = shore.run("ann", "incident", "merge", incident_id, new["incident_id"])
    assert (code, len(kept["runs"])) == (0, 3)
    code, reply = shore.run(
        "ann", "incident", "waive", incident_id, "--run", run_id, "--reason", "late anyway"
    )
    assert (code, sorted(run["state"] for run in reply["runs"])) == (0, ["open", "open", "waived"])
    assert shore.ledger.status(rows[2]["proposal_id"]) == "expired"
    code, reply = shore.run("ann", "incident", "split", incident_id, "--run", "ffff0000")
    assert (code, reply["error"]["kind"]) == (3, "unknown-run")
    assert {"incident_split", "incident_merged", "incident_waived"} <= set(shore.events())


def test_a_shift_is_handed_over_with_what_is_open_over_and_decided(shore: CliStack) -> None:
    incident_id, rows = three(shore)
    other = shore.waiting("fault:other")
    shore.run("ann", "approve", rows[0]["proposal_id"], "--reason", "looked at it")
    shore.run("olga", "incident", "waive", other["incident_id"], "--reason", "done by hand")
    code, told = shore.run("vic", "handover", "--hours", "4")
    assert code == 0
    assert told["counts"] == {"opened": 2, "open": 1, "over": 1, "decided": 3}
    assert told["open"][0]["incident_id"] == incident_id
    assert told["open"][0]["answer"].startswith(f"pilotage approve {incident_id}")
    # the policies were put in force by whoever installed them
    assert [(row["who"], row["step"]) for row in told["decided"][1:]] == [
        ("ann", "approved"),
        ("olga", "incident_waived"),
    ]
    assert told["over"][0]["resolution"] == "1 waived"
    code, said = shore.say("vic", "handover")
    for words in ("2 incidents opened", "looked at it", "done by hand", "wanted to allow"):
        assert words in said
