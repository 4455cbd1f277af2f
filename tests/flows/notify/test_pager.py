"""One page an incident: sent once, repeated only for more, resolved at its end, folded in a flood, leaking nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.flows.notify.test_notifier import Receiver

from pilotage.flows.config.settings import PageSettings
from pilotage.flows.notify.notifier import Notifier, Told
from pilotage.flows.notify.pager import FOLDED, IncidentPager
from pilotage.planner.actions.types import NotifyOwner, RetryRun, Severity
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.digests import digest_of
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, TargetFacts, Verdict

NOW = datetime(2027, 3, 1, 2, 0, tzinfo=UTC)
AGENT = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))
SECRET = "hunter2hunter2"
NEEDS = Verdict(
    outcome=Outcome.NEEDS_APPROVAL, requirements={"approver": 1}, policy_ids=("prod-needs-approver",)
)
ALLOW = Verdict(outcome=Outcome.ALLOW)


class QuietNotifier(Notifier):
    """A notifier whose events go nowhere: Prefect is not what is tried here."""

    def __init__(self, url: str) -> None:
        super().__init__(webhook_url=url, routing_key="rk", ui_url="http://prefect.test", first_wait=0.0)
        self.events: list[tuple[str, str]] = []

    async def incident_event(self, incident_id: str, step: str, **_: Any) -> Told:
        self.events.append((incident_id, step))
        return Told(ok=True)


class Bench:
    """A ledger, a pager and the other end of its webhook, at a time that the test moves."""

    def __init__(self, path: Path, **rules: Any) -> None:
        self.now = NOW
        self.receiver = Receiver()
        self.ledger = SqlLedger(f"sqlite:///{path / 'ledger.sqlite'}")
        self.notifier = QuietNotifier(self.receiver.url)
        self.mode = Mode.AUTO
        self.pager = IncidentPager(
            ledger=self.ledger,
            notifier=self.notifier,
            mode=lambda: self.mode,
            clock=lambda: self.now,
            rules=PageSettings(**rules),
            console_url="http://pilotage.test",
        )

    def fail(
        self, number: int, verdict: Verdict, *, cause: str = "", notify: bool = False, team: str = ""
    ) -> FiledProposal:
        run_id = f"00000000-0000-4000-8000-{number:012x}"
        action = NotifyOwner(run_id=run_id, severity=Severity.ERROR) if notify else RetryRun(run_id=run_id)
        proposal = Proposal(
            id=f"p-{number:012x}",
            incident_id=f"i-{number:012x}",
            action=action,
            expires_at=NOW + timedelta(hours=4),
        )
        case = CaseFile(
            subject=f"run:{run_id}",
            failure_class="transient",
            fingerprint=f"f{number}",
            causes=(cause or f"fault:{number}",),
            deployment="etl/nightly",
            error=f"HTTPStatusError: 503 for url 'https://u:{SECRET}@prices.example/x'",
            failed_at=self.now,
        )
        filed = FiledProposal(
            proposal=proposal, case=case, proposer=AGENT, digest=digest_of(proposal, AGENT), filed_at=self.now
        )
        self.ledger.file(filed)
        target = TargetFacts(
            target=f"run:{run_id}",
            read_at=self.now,
            deployment_id="d-1",
            deployment_name="etl/nightly",
            env="prod",
            team=team,
        )
        self.ledger.record_verdict(proposal.id, "judge", verdict, target, self.now)
        return filed

    def keep(self, seconds: float = 0) -> list[dict[str, Any]]:
        self.now += timedelta(seconds=seconds)
        before = len(self.receiver.bodies)
        asyncio.run(self.pager.keep())
        return self.receiver.bodies[before:]

    def recover(self) -> None:
        for row in self.ledger.open_incident_runs():
            self.ledger.close_run(row["incident_id"], row["subject"], "recovered", "", "pilotage", self.now)

    def close(self) -> None:
        self.receiver.close()
        self.ledger.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, per_hour=3)
    yield made
    made.close()


def test_a_question_is_one_page_with_all_that_is_needed_to_answer_and_is_resolved(bench: Bench) -> None:
    bench.fail(1, NEEDS)
    (body,) = bench.keep()
    assert (body["event_action"], body["dedup_key"]) == ("trigger", "i-000000000001")
    summary, details = body["payload"]["summary"], body["payload"]["custom_details"]
    for said in (
        "etl/nightly",
        "transient",
        "HTTPStatusError: 503",
        "approver wanted to allow: retry the run",
    ):
        assert said in summary
    assert details["answer"].startswith("pilotage approve i-000000000001, or pilotage reject i-000000000001")
    assert details["since"].startswith("2027-03-01T02:00")
    assert {link["text"] for link in body["links"]} == {"Flow run in Prefect", "The incident in pilotage"}
    assert bench.keep() == bench.keep(60) == []
    bench.recover()
    (over,) = bench.keep()
    assert (over["event_action"], over["dedup_key"]) == ("resolve", "i-000000000001")
    assert bench.keep(1) == []
    assert [step for _, step in bench.notifier.events] == ["opened", "resolved"]


def test_what_recovers_by_itself_soon_wakes_nobody_and_what_lasts_is_told_once(bench: Bench) -> None:
    bench.fail(1, ALLOW)
    assert bench.keep(30) == []
    bench.recover()
    assert bench.keep(60) == []
    bench.fail(2, ALLOW)
    assert bench.keep(59) == []
    (body,) = bench.keep(2)
    assert body["payload"]["severity"] == "warning"
    assert "nothing is wanted yet" in body["payload"]["summary"]
    assert bench.keep(300) == []


def test_runs_of_one_cause_are_one_page_and_a_question_asked_in_vain_is_asked_again_once(
    bench: Bench,
) -> None:
    for number in range(1, 9):
        bench.fail(number, NEEDS, cause="host:passing:h")
    assert len(bench.keep()) == 1
    (again,) = bench.keep(16 * 60)
    assert (again["dedup_key"], "nobody answered for long" in again["payload"]["summary"]) == (
        "i-000000000001",
        True,
    )
    assert bench.keep(16 * 60) == []


def test_a_page_that_somebody_looks_at_is_acknowledged_and_not_escalated(bench: Bench) -> None:
    bench.fail(1, NEEDS)
    bench.keep()
    bench.ledger.acknowledge_incident("i-000000000001", "ann", "", bench.now)
    (body,) = bench.keep(1)
    assert (body["event_action"], body["dedup_key"]) == ("acknowledge", "i-000000000001")
    assert bench.keep(16 * 60) == []
    bench.recover()
    assert [body["event_action"] for body in bench.keep()] == ["resolve"]


def test_more_than_the_set_number_in_an_hour_are_folded_into_one(bench: Bench) -> None:
    for number in range(1, 8):
        bench.fail(number, NEEDS)
    keys = [body["dedup_key"] for body in bench.keep()]
    assert keys == ["i-000000000001", "i-000000000002", "i-000000000003", FOLDED]
    assert bench.keep(5) == []
    bench.recover()
    over = bench.keep()
    assert sorted(body["dedup_key"] for body in over if body["event_action"] == "resolve") == sorted(keys)


def test_the_owner_is_told_by_the_page_of_the_incident_and_not_twice(bench: Bench) -> None:
    filed = bench.fail(1, ALLOW, notify=True)
    run_id = filed.case.subject.removeprefix("run:")
    assert asyncio.run(bench.pager.tell_owner(run_id, Severity.ERROR)) == Told(ok=True)
    assert asyncio.run(bench.pager.tell_owner(run_id, Severity.ERROR)) == Told(ok=True)
    assert bench.keep(20) == []
    (body,) = bench.receiver.bodies
    assert "its owner is wanted" in body["payload"]["summary"]
    assert asyncio.run(bench.pager.tell_owner("another", Severity.ERROR)) is None


def test_no_byte_of_a_secret_or_of_the_address_leaves(bench: Bench) -> None:
    bench.fail(1, NEEDS)
    sent = json.dumps(bench.keep())
    assert SECRET not in sent
    assert bench.receiver.url not in sent
    assert sent.count('"rk"') == 1


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.SHADOW])
def test_nothing_is_sent_where_nothing_is_done(bench: Bench, mode: Mode) -> None:
    bench.mode = mode
    bench.fail(1, NEEDS)
    assert bench.keep() == []
    assert bench.notifier.events == []


def test_quiet_hours_hold_back_what_can_wait_and_nothing_else(tmp_path: Path) -> None:
    bench = Bench(tmp_path, quiet_from=22, quiet_to=7)
    try:
        bench.fail(1, ALLOW)
        assert bench.keep(120) == []
        bench.fail(2, NEEDS)
        assert [body["dedup_key"] for body in bench.keep()] == ["i-000000000002"]
        bench.now = NOW.replace(hour=8)
        assert [body["dedup_key"] for body in bench.keep()][:1] == ["i-000000000001"]
    finally:
        bench.close()
    assert replace(ALLOW) == ALLOW
