"""Every command of the table shows what the API, telemetry and the log say, and decides only in its caller's name."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from tests.console.console_stack import PEOPLE, UI, ConsoleStack

from pilotage.console.session.commands.registry import COMMANDS
from pilotage.console.session.events import Event
from pilotage.console.session.services import user_with
from pilotage.telemetry.facts import DecisionFact, EventFact, QueueFact
from pilotage.telemetry.forecasts import Forecast
from pilotage.telemetry.queries import runs

ESCAPES = "\x1b[2J\x1b]0;owned\x07 [red]approve[/red] \u202e"


def say(port: ConsoleStack, words: str, who: str = "pat", thread: str = "t-1") -> list[Event]:
    """What followed in the thread after these words."""
    user = user_with(port.paths, port.tokens[who])
    port.engine.log.open_thread("pat", "test", thread)
    for name in PEOPLE:
        port.engine.log.share(thread, name, "pat", writes=True)

    async def turn() -> int:
        said = await port.engine.say(user, thread, words)
        await port.engine.wait(thread)
        return said.seq

    seq = asyncio.run_coroutine_threadsafe(turn(), port.loop).result(60)
    return port.engine.log.after(seq, thread)


def blocks(events: list[Event], kind: str = "") -> list[dict[str, Any]]:
    found = [event.payload["block"] for event in events if event.type == "block"]
    return [block for block in found if kind in ("", block["kind"])]


def cards(events: list[Event]) -> list[dict[str, Any]]:
    return [event.payload["card"] for event in events if event.type == "card"]


def problem(events: list[Event]) -> str:
    return next((str(event.payload["text"]) for event in events if event.type == "error"), "")


def cells(block: dict[str, Any]) -> str:
    return str(block["rows"])


@pytest.fixture
def prefect_probe(port: ConsoleStack) -> str:
    """A system with something of everything; the id of its failed run."""
    run_id, now = port.failed_run(), datetime.now(UTC)
    states = [("Running", 120), ("Failed", 60), ("heartbeat", 50)]
    port.store.add_events(
        [
            EventFact(
                event_id=f"e-{name}",
                occurred=now - timedelta(seconds=ago),
                name=f"prefect.flow-run.{name}",
                resource_id=f"prefect.flow-run.{run_id}",
                run_id=run_id,
                payload={}
                if name == "heartbeat"
                else {"validated_state": {"type": name.upper(), "name": name}},
            )
            for name, ago in states
        ]
    )
    port.store.add_queues(
        [
            QueueFact(
                at=now, pool="p", queue="default", priority=1, limit=2, pool_limit=4, waiting=3, running=2
            )
        ]
    )
    port.store.add_forecasts(
        [
            Forecast(
                run_id=run_id, made_at=now, p_fail=0.42, model="ewma", trained_on=9, reasons=("3 in a row",)
            )
        ]
    )
    return run_id


READING = [name for name, command in COMMANDS.items() if command.reads]


def test_every_reading_command_answers_everybody(port: ConsoleStack, prefect_probe: str) -> None:
    proposal_id = port.proposal(prefect_probe)["proposal_id"]
    about = {
        "why": proposal_id, "evidence": proposal_id, "show": proposal_id, "simulate": proposal_id, "run": prefect_probe,
        "policy": f"test retry_run run={prefect_probe}", "incident": port.ledger.incident_of(prefect_probe),
    }  # fmt: skip
    for name, who in product(READING, ("pat", "vic")):
        events = say(port, f"/{name} {about.get(name, '')}".strip(), who)
        assert not problem(events), (name, problem(events))
        assert blocks(events) or cards(events), name
        assert events[-1].type == "done"
        assert events[-1].payload["ok"]


def test_no_words_after_a_command_break_the_engine(port: ConsoleStack) -> None:
    odd = ("", "p-000000000000 x=1", ESCAPES, "all but", "=", "'")
    for name, rest in product([*COMMANDS, "nonsense"], odd):
        if name not in ("stop", "resume"):
            events = say(port, f"/{name} {rest}")
            assert events[-1].type in ("done", "answer"), (name, rest)
            assert "The server's output says more" not in problem(events), (name, rest)


def test_the_inbox_shows_what_waits_and_hides_what_was_put_off_for_this_person_only(
    port: ConsoleStack,
) -> None:
    one, two = (port.proposal()["proposal_id"] for _ in range(2))
    assert one in cells(blocks(say(port, "/inbox"))[0])
    say(port, f"/snooze {one} 2h")
    now = blocks(say(port, "/inbox"))
    assert one not in cells(now[0])
    assert two in cells(now[0])
    assert "1 snoozed" in now[1]["text"]
    assert one in cells(blocks(say(port, "/inbox all"))[0])
    assert one in cells(blocks(say(port, "/inbox", "ann"))[0])


def test_a_vote_counts_in_the_name_of_the_caller_and_its_card_follows(port: ConsoleStack) -> None:
    proposal_id = port.proposal()["proposal_id"]
    shown = say(port, f"/show {proposal_id}", "ann")
    (card,) = cards(shown)
    assert card["open"]
    assert card["who_may"] == ["1 more approver", "not planner"]
    after = cards(say(port, f"/approve {proposal_id} before the open", "ann"))[0]
    assert after["status"] == "allowed"
    assert [(vote["voter"], vote["reason"]) for vote in after["votes"]] == [("ann", "before the open")]


def test_who_may_not_vote_is_refused_and_told_why(port: ConsoleStack) -> None:
    proposal_id = port.proposal()["proposal_id"]
    assert "vic" in problem(say(port, f"/approve {proposal_id}", "vic"))
    assert port.control_api("pat").call("proposal", proposal_id=proposal_id)["status"] == "needs_approval"


def test_a_rejection_says_why(port: ConsoleStack) -> None:
    proposal_id = port.proposal()["proposal_id"]
    assert "say why" in problem(say(port, f"/reject {proposal_id}", "ann"))
    assert cards(say(port, f"/reject {proposal_id} not tonight", "ann"))[0]["status"] == "rejected"


def test_one_decision_over_a_list_leaves_out_who_is_opted_out_and_tells_each_result(
    port: ConsoleStack,
) -> None:
    ids = [port.proposal()["proposal_id"] for _ in range(4)]
    assert "Say /inbox first" in problem(say(port, "/approve all", "ann"))
    say(port, "/inbox", "ann")
    late = port.proposal()["proposal_id"]
    port.control_api("ann").call(
        "vote",
        proposal_id=ids[1],
        digest=port.control_api("ann").call("proposal", proposal_id=ids[1])["digest"],
        decision="reject",
        reason="already",
    )
    (result,) = blocks(say(port, f"/approve all but {ids[0]} all looked at", "ann"))
    told = {row[0]["text"]: row[1] for row in result["rows"]}
    assert told == {ids[1]: "no", ids[2]: "yes", ids[3]: "yes"}
    standing = {
        one: port.control_api("pat").call("proposal", proposal_id=one)["status"] for one in (*ids, late)
    }
    assert standing == {
        ids[0]: "needs_approval",
        ids[1]: "rejected",
        ids[2]: "allowed",
        ids[3]: "allowed",
        late: "needs_approval",
    }


def test_all_is_what_was_shown_to_this_person_and_not_what_another_looked_at_in_the_thread(
    port: ConsoleStack,
) -> None:
    mine = [port.proposal()["proposal_id"] for _ in range(2)]
    say(port, "/inbox", "ann")
    later = port.proposal()["proposal_id"]
    say(port, "/inbox", "vic")
    (result,) = blocks(say(port, "/approve all", "ann"))
    assert {row[0]["text"] for row in result["rows"]} == set(mine)
    assert port.control_api("pat").call("proposal", proposal_id=later)["status"] == "needs_approval"


def test_all_that_only_somebody_else_looked_at_is_nothing(port: ConsoleStack) -> None:
    waiting = port.proposal()["proposal_id"]
    say(port, "/inbox", "vic")
    assert "Say /inbox first" in problem(say(port, "/approve all", "ann"))
    assert port.control_api("pat").call("proposal", proposal_id=waiting)["status"] == "needs_approval"


def test_all_votes_on_the_digests_that_the_list_had(port: ConsoleStack) -> None:
    waiting = port.proposal()
    shown = next(event for event in say(port, "/inbox", "ann") if event.type == "block")
    block = shown.payload["block"]
    assert block["digests"] == {waiting["proposal_id"]: waiting["digest"]}
    other = {**block, "digests": {waiting["proposal_id"]: "0" * 64}}
    port.engine.log.append("t-1", "block", "pilotage", {"turn": 0, "block": other, "for": "ann"})
    assert "another text than the one filed" in problem(say(port, "/approve all", "ann"))
    assert port.control_api("pat").call("proposal", proposal_id=waiting["proposal_id"])["status"] == (
        "needs_approval"
    )


def test_an_edit_is_another_proposal_judged_from_nothing(port: ConsoleStack) -> None:
    old = port.proposal()["proposal_id"]
    events = say(port, f"/edit {old} delay=90s")
    (card,) = cards(events)
    assert f"takes the place of {old}" in blocks(events)[0]["text"]
    assert port.control_api("pat").call("proposal", proposal_id=old)["status"] != "needs_approval"
    assert card["proposal_id"] != old
    assert card["action"]["delay"] == "PT1M30S"
    assert card["proposer"] == "pat"
    assert card["status"] == "needs_approval"
    assert "not pat" in card["who_may"]
    assert "is none of its fields" in problem(say(port, f"/edit {old} memory_mb=1"))
    assert problem(say(port, f"/approve {card['proposal_id']}"))


def test_a_stop_works_without_telemetry_and_shows_in_the_status(port: ConsoleStack) -> None:
    port.paths.store_socket.unlink()
    assert "stopped: pat" in blocks(say(port, "/stop looking into it"))[0]["text"]
    assert "pat" in blocks(say(port, "/status"))[0]["pairs"]["stopped"]


def test_a_run_is_drawn_over_time_from_its_states_alone(port: ConsoleStack, prefect_probe: str) -> None:
    about, drawn = blocks(say(port, f"/run {prefect_probe}"))
    assert about["pairs"]["chance of failing"] == "42%, says ewma"
    assert [span["state"] for span in drawn["lanes"][0]["spans"]] == ["Running", "Failed"]


def test_numbers_say_what_they_are_and_what_is_assumed(port: ConsoleStack, prefect_probe: str) -> None:
    found, note = blocks(say(port, "/kpi 7 15"))
    values = {row[0]: row[1] for row in found["rows"]}
    assert values["time to recover"] == "not enough data"
    assert all(row[4] and row[5] for row in found["rows"])
    assert "15 minutes" in note["text"]
    assert "say /kpi DAYS MINUTES" in problem(say(port, "/kpi soon"))


def test_what_may_be_done_is_told_for_the_person_the_agent_and_both(port: ConsoleStack) -> None:
    commands, actions, lent = blocks(say(port, "/permissions", "vic"))
    assert lent["rows"] == []
    assert {row[1] for row in commands["rows"]} == {"no"}
    assert {row[2] for row in commands["rows"]} == {"no"}
    by_kind = {row[0]: row[1:] for row in actions["rows"]}
    assert by_kind["retry_run"] == ["no", "yes", "no"]


def test_conversations_are_found_by_their_words(port: ConsoleStack) -> None:
    say(port, "why is the nightly load late?", thread="t-load")
    say(port, "/whoami", thread="t-who")
    found = cells(blocks(say(port, "/history nightly", thread="t-who"))[0])
    assert "t-load" in found
    assert "t-who" not in found


def test_a_look_up_can_be_opened_and_the_answer_says_what_it_rests_on(port: ConsoleStack) -> None:
    port.failed_run()
    events = say(port, "failures", thread="t-2")
    call = next(event for event in events if event.type == "tool_call")
    result = next(event for event in events if event.type == "tool_result")
    assert call.payload["n"] == result.payload["n"] == 1
    assert result.payload["seconds"] >= 0
    assert result.payload["rows"] == 1
    assert result.payload["tool"] in blocks(say(port, "/show 1", thread="t-2"))[0]["title"]
    assert result.payload["tool"] in cells(blocks(say(port, "/last", thread="t-2"))[0])
    assert "has none" in problem(say(port, "/show 7", thread="t-2"))


def test_a_question_about_a_proposal_names_its_run_and_none_of_its_words(
    port: ConsoleStack, prefect_probe: str
) -> None:
    proposal_id = port.proposal(prefect_probe)["proposal_id"]
    events = say(port, f"/ask {proposal_id} why did it happen?")
    assert events[-1].type == "answer"
    call = next(event for event in events if event.type == "tool_call")
    assert call.payload["arguments"] == {"run_id": prefect_probe}


def test_the_story_says_why_this_and_not_another(port: ConsoleStack, prefect_probe: str) -> None:
    proposal_id = port.proposal(prefect_probe, alternatives=("cancel_run: it may still complete",))[
        "proposal_id"
    ]
    told, reasons = blocks(say(port, f"/why {proposal_id}"))
    assert [step["step"] for step in told["steps"]][:1] == ["found"]
    assert "cancel_run" in reasons["pairs"]["considered and not taken"]


def test_the_audit_is_walked_and_its_end_is_shown(port: ConsoleStack) -> None:
    proposal_id = port.proposal()["proposal_id"]
    whole, entries, *notes = blocks(say(port, "/audit 1"))
    assert whole["pairs"]["whole"] == "yes"
    assert proposal_id in cells(entries)
    assert [row[2] for row in entries["rows"]] == ["proposed"]
    assert notes[0]["text"].startswith("1 of 2 shown; the next: /audit after=")
    assert notes[1]["text"].startswith("1 that changed nothing are folded")
    _, every, *_ = blocks(say(port, "/audit all"))
    assert [row[2] for row in every["rows"]][:2] == ["judged", "proposed"]
    (of_planner, *_) = blocks(say(port, "/audit person=planner"))
    assert [row[3] for row in of_planner["rows"]] == ["planner"]


def test_a_decision_in_telemetry_is_not_needed_to_show_numbers(port: ConsoleStack) -> None:
    port.store.add_decisions(
        [
            DecisionFact(
                decision_id="a-1",
                at=datetime.now(UTC),
                proposal_id="p-1",
                incident_id="i-1",
                run_id=None,
                step="proposed",
                action="retry_run",
                outcome="",
            )
        ]
    )
    assert blocks(say(port, "/kpi"))


def test_a_right_to_approve_is_lent_in_words_and_the_mode_is_policed(port: ConsoleStack) -> None:
    lent = blocks(say(port, "/delegate vic 2h on leave", "ann"))[0]["pairs"]
    assert (lent["from"], lent["to"]) == ("ann", "vic")
    assert blocks(say(port, "/permissions"))[-1]["rows"][0][:2] == ["vic", "approves for ann"]
    assert "NAME 8h REASON" in problem(say(port, "/delegate vic", "ann"))
    proposal_id = port.proposal()["proposal_id"]
    assert cards(say(port, f"/approve {proposal_id}", "vic"))[0]["status"] == "allowed"
    assert problem(say(port, "/mode auto", "vic"))
    assert "mode shadow" in blocks(say(port, "/mode shadow looking first"))[0]["text"]
    assert blocks(say(port, "/mode"))[0]["pairs"]["now"] == "shadow"


def test_what_would_be_said_of_an_action_is_told_without_handing_it_in(
    port: ConsoleStack, prefect_probe: str
) -> None:
    before = len(port.control_api("pat").call("proposals", limit=50))
    verdict = blocks(say(port, f"/policy test retry_run run={prefect_probe}"))[0]["pairs"]
    assert verdict["verdict"] == "needs_approval"
    assert "approver" in verdict["missing"]
    assert verdict["taken back"] == "always"
    assert "none of its fields" in problem(say(port, f"/policy test retry_run run={prefect_probe} force=yes"))
    assert "Valid are retry_run" in problem(say(port, "/simulate delete_everything"))
    assert len(port.control_api("pat").call("proposals", limit=50)) == before


def test_a_vote_on_what_has_moved_on_is_refused_and_says_so(port: ConsoleStack) -> None:
    row = port.proposal()
    say(port, f"/show {row['proposal_id']}", "ann")
    port.control_api("ann").call(
        "vote", proposal_id=row["proposal_id"], digest=row["digest"], decision="reject", reason="no"
    )
    assert problem(say(port, f"/approve {row['proposal_id']}", "ann"))
    assert port.control_api("pat").call("proposal", proposal_id=row["proposal_id"])["status"] == "rejected"


def test_a_run_is_found_by_its_name_and_by_the_beginning_of_its_id(
    port: ConsoleStack, prefect_probe: str
) -> None:
    for words in ("brave-otter", prefect_probe[:8]):
        facts = blocks(say(port, f"/run {words}"))[0]["pairs"]
        assert facts["run"]["ref"] == f"run:{prefect_probe}"
        assert facts["in Prefect"] == f"{UI}/runs/flow-run/{prefect_probe}"
        assert facts["because"] == "3 in a row"
        assert prefect_probe in blocks(say(port, f"/forecast {words}"))[0]["title"]
    port.failed_run()
    assert "2 fit" in problem(say(port, "/why brave-otter"))
    assert "there is none" in problem(say(port, "/why brave-badger"))


def test_a_run_about_which_nothing_was_decided_has_its_facts_and_no_error(
    port: ConsoleStack, prefect_probe: str
) -> None:
    facts, words = blocks(say(port, f"/why {prefect_probe}"))
    assert facts["pairs"]["state"] == "Failed"
    assert "nothing was proposed" in words["text"]


def test_an_incident_begins_with_what_it_is_and_how_it_stands(port: ConsoleStack, prefect_probe: str) -> None:
    row = port.proposal(prefect_probe)
    facts, runs, plan, told = blocks(say(port, f"/why {row['incident_id']}"))
    assert facts["pairs"]["status"] == "waiting"
    assert facts["pairs"]["subject"]["ref"] == f"run:{prefect_probe}"
    assert prefect_probe in cells(runs)
    assert "needs_approval" in cells(plan)
    assert told["steps"]


def test_the_status_begins_with_what_is_broken_and_who_waits(port: ConsoleStack, prefect_probe: str) -> None:
    port.proposal(prefect_probe)
    told = blocks(say(port, "/status"))[0]["pairs"]
    assert told["failed in the last day"] == "1"
    assert told["running"] == "2"
    assert told["late"] == "0"
    assert told["incidents open"].startswith("1, the oldest for ")


def test_what_can_be_taken_back_is_listed_with_how_far(port: ConsoleStack) -> None:
    assert "Nothing was injected" in blocks(say(port, "/undo"))[0]["empty"]
    proposal_id = port.proposal()["proposal_id"]
    say(port, f"/approve {proposal_id}", "ann")
    port.work()
    ((found, *_, way_back),) = blocks(say(port, "/undo"))[0]["rows"]
    assert (found["text"], way_back) == (proposal_id, "always")
    assert "undone" in str(cards(say(port, f"/undo {proposal_id}"))[0]["status"])


def test_trying_an_action_shows_before_and_after(port: ConsoleStack, prefect_probe: str) -> None:
    verdict, changes, _ = blocks(say(port, f"/simulate resize_run run={prefect_probe} memory_mb=256"))
    assert [row[1:] for row in changes["rows"]] == [["128 MiB", "256 MiB"], ["Failed", "AwaitingRetry"]]
    assert verdict["pairs"]["takes"] == "not known: no like run completed yet"


def test_one_answer_decides_the_plan_of_an_incident_but_for_what_is_left_out(port: ConsoleStack) -> None:
    incident_id, rows = port.plan_of(3)
    left_out = rows[1]["run_id"]
    (plan,) = blocks(say(port, f"/approve {incident_id} but {left_out[:8]} looked at it", "ann"), "table")
    assert plan["title"] == f"approve {incident_id}: 2 of 2 counted"
    stands = [port.ledger.status(row["proposal_id"]) for row in rows]
    assert stands == ["allowed", "needs_approval", "allowed"]
    assert "say why" in problem(say(port, f"/reject {incident_id}", "ann"))
    say(port, f"/reject {incident_id} not now", "ann")
    assert port.ledger.status(rows[1]["proposal_id"]) == "rejected"
    assert "nothing of it waits" in problem(say(port, f"/approve {incident_id}", "ann"))


def test_an_incident_is_looked_at_split_merged_given_up_and_handed_over(port: ConsoleStack) -> None:
    incident_id, rows = port.plan_of(3)
    run_id = rows[2]["run_id"]
    assert not problem(say(port, f"/ack {incident_id} at my desk"))
    assert "pat" in cells(blocks(say(port, "/handover 2h", "vic"), "table")[0])
    new = blocks(say(port, f"/split {incident_id} {run_id[:8]}"), "pairs")[0]["title"].split()[-1]
    assert port.ledger.incident_of(run_id) == new
    say(port, f"/merge {incident_id} {new}")
    assert port.ledger.incident_of(run_id) == incident_id
    say(port, f"/waive {incident_id} {run_id} done by hand")
    assert port.ledger.status(rows[2]["proposal_id"]) == "expired"
    decided = blocks(say(port, "/handover", "vic"), "table")[2]
    for step in ("incident_acknowledged", "incident_split", "incident_merged", "incident_waived"):
        assert step in cells(decided)
    assert "see /incidents" in problem(say(port, "/waive p-1"))


def drafts(events: list[Event]) -> list[dict[str, Any]]:
    return [dict(event.payload) for event in events if event.type == "draft"]


def test_a_draft_is_sent_by_the_person_who_was_shown_it_and_by_nobody_else(port: ConsoleStack) -> None:
    run_id = port.failed_run()
    [shown] = drafts(say(port, f"retry {run_id}", "pat", thread="t-d"))
    draft_id = shown["draft"]["draft_id"]
    assert port.ledger.proposals(None, 10) == []
    assert run_id in shown["words"]
    assert "no such draft" in problem(say(port, f"/send {draft_id}", "ann", thread="t-d"))
    assert "no such draft" in problem(say(port, f"/send {draft_id}", "pat", thread="t-other"))
    assert "name the draft" in problem(say(port, "/send yes please", "pat", thread="t-d"))
    assert port.ledger.proposals(None, 10) == []
    [sent] = cards(say(port, f"/send {draft_id}", "pat", thread="t-d"))
    assert (sent["status"], sent["kind"]) == ("needs_approval", "retry_run")
    row = port.control_api("vic").call("proposal", proposal_id=sent["proposal_id"])
    assert row["proposal"]["on_behalf_of"] == "pat"


def test_a_draft_whose_run_has_moved_on_is_not_sent(port: ConsoleStack) -> None:
    run_id = port.failed_run()
    [shown] = drafts(say(port, f"retry {run_id}", "pat", thread="t-m"))
    run = runs.run(port.store, run_id)
    assert run is not None
    port.store.merge_runs([replace(run, state_id="s-2", updated=run.updated + timedelta(minutes=1))])
    assert "has changed" in problem(say(port, f"/send {shown['draft']['draft_id']}", "pat", thread="t-m"))
    assert port.ledger.proposals(None, 10) == []
