"""Lists have true counts, and every row of them is reached once, whatever the filter and the order."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

import pytest
import sqlalchemy as sa
from tests.policies.conftest import Make
from tests.policies.ledger.test_incidents import failure

from pilotage.policies.ledger.queries import AuditQuery, IncidentQuery, Person, ProposalQuery, ProposalSort
from pilotage.policies.ledger.schema import listed
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Identity, Outcome, TargetFacts, Verdict

MANY = 37
ANN = Person(name="ann", seats=frozenset({"approver"}))


def asks(role: str = "approver") -> Verdict:
    return Verdict(outcome=Outcome.NEEDS_APPROVAL, policy_ids=("p",), reasons=("r",), requirements={role: 1})


def fill(ledger: SqlLedger, filed: Make, now: datetime, many: int = MANY) -> list[FiledProposal]:
    made = []
    for number in range(1, many + 1):
        one = failure(
            filed,
            number,
            f"fault:{number % 5}",
            p_fail=None if number % 4 == 0 else number / 100,
            deployment=f"etl/d{number % 3}",
            error=f"Error number {number:03d}",
            failed_at=now + timedelta(seconds=number),
        )
        one = replace(one, filed_at=now + timedelta(seconds=number // 3))
        ledger.file(one)
        facts = TargetFacts(
            target=f"run:{number}",
            read_at=now,
            deployment_name=f"etl/d{number % 3}",
            team="data" if number % 2 else "web",
        )
        ledger.record_verdict(one.proposal.id, "judge", asks(), facts, now)
        made.append(one)
    return made


def walk(ledger: SqlLedger, query: ProposalQuery) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while True:
        page = ledger.proposal_page(query)
        rows += page["rows"]
        if not page["next"]:
            assert page["count"] == len(rows)
            return rows
        query = replace(query, after=page["next"])


@pytest.mark.parametrize("sort", ["newest", "oldest", "expiry", "risk", "deployment"])
@pytest.mark.parametrize("limit", [1, 5, 200])
def test_every_row_is_reached_once_and_counted(
    ledger: SqlLedger, filed: Make, now: datetime, sort: ProposalSort, limit: int
) -> None:
    fill(ledger, filed, now)
    rows = walk(ledger, ProposalQuery(status="needs_approval", sort=sort, limit=limit))
    ids = [row["proposal_id"] for row in rows]
    assert len(ids) == len(set(ids)) == MANY
    match sort:
        case "newest":
            assert [row["filed_at"] for row in rows] == sorted(
                (row["filed_at"] for row in rows), reverse=True
            )
        case "risk":
            risks = [-1 if row["case"]["p_fail"] is None else row["case"]["p_fail"] for row in rows]
            assert risks == sorted(risks, reverse=True)
        case "deployment":
            names = [row["target_facts"]["deployment_name"] for row in rows]
            assert names == sorted(names)


def test_what_comes_and_goes_between_two_pages_hides_and_repeats_nothing(
    ledger: SqlLedger, filed: Make, now: datetime
) -> None:
    fill(ledger, filed, now, 20)
    query = ProposalQuery(status="needs_approval", limit=8)
    first = ledger.proposal_page(query)
    gone = first["rows"][3]["proposal_id"]
    answered = ledger.filed(gone)
    assert answered is not None
    voter = Identity(name="ann", kind="user", roles=frozenset({"approver"}))
    allow = Verdict(outcome=Outcome.ALLOW, policy_ids=("v",), reasons=("r",))
    ledger.vote(gone, answered.digest, voter, "reject", "no", allow, now)
    ledger.file(replace(failure(filed, 99, "fault:new"), filed_at=now + timedelta(hours=1)))
    rest = walk_on(ledger, query, first["next"])
    seen = [row["proposal_id"] for row in first["rows"]] + rest
    assert len(seen) == len(set(seen)) == 20
    assert ledger.proposal_page(query)["count"] == 19


def walk_on(ledger: SqlLedger, query: ProposalQuery, after: str) -> list[str]:
    ids: list[str] = []
    while after:
        page = ledger.proposal_page(replace(query, after=after))
        ids += [row["proposal_id"] for row in page["rows"]]
        after = page["next"]
    return ids


def test_filters_and_words_narrow_rows_and_count_alike(ledger: SqlLedger, filed: Make, now: datetime) -> None:
    fill(ledger, filed, now)
    waits = ProposalQuery(status="needs_approval", limit=200)
    assert ledger.proposal_page(replace(waits, deployment="etl/d1"))["count"] == 13
    assert ledger.proposal_page(replace(waits, team="data"))["count"] == 19
    assert ledger.proposal_page(replace(waits, deployment="etl/d1", team="data"))["count"] == 7
    assert ledger.proposal_page(replace(waits, kind="resize_run")) == {"rows": [], "count": 0, "next": ""}
    found = ledger.proposal_page(replace(waits, words="ERROR 007"))
    assert [row["proposal_id"] for row in found["rows"]] == ["p-000000000007"]
    assert ledger.proposal_page(replace(waits, words="100%"))["count"] == 0
    assert ledger.proposal_page(replace(waits, without=("p-000000000007",)))["count"] == MANY - 1
    part = ledger.proposal_page(replace(waits, incident="i-000000000001"))
    assert part["count"] == len(range(1, MANY + 1, 5))
    choices = ledger.proposal_choices("needs_approval")
    assert choices["team"] == {"data": 19, "web": 18}
    assert sum(choices["deployment"].values()) == sum(choices["kind"].values()) == MANY


def test_mine_is_what_this_person_can_still_approve(ledger: SqlLedger, filed: Make, now: datetime) -> None:
    (one, two, three, four) = fill(ledger, filed, now, 4)
    ledger.record_verdict(two.proposal.id, "judge", asks("admin"), None, now)
    ledger.record_verdict(three.proposal.id, "judge", asks("owner"), None, now)
    voter = Identity(name="ann", kind="user", roles=frozenset({"approver"}))
    allow = Verdict(outcome=Outcome.ALLOW, policy_ids=("v",), reasons=("r",))
    ledger.vote(four.proposal.id, four.digest, voter, "approve", "", allow, now)

    def mine(person: Person) -> set[str]:
        rows = ledger.proposal_page(ProposalQuery(status="needs_approval", mine=person))["rows"]
        return {row["proposal_id"] for row in rows}

    assert mine(ANN) == {one.proposal.id}
    assert mine(replace(ANN, teams=frozenset({"data"}))) == {one.proposal.id, three.proposal.id}
    assert mine(replace(ANN, teams=frozenset({"web"}))) == {one.proposal.id}
    assert mine(Person(name="eve", seats=frozenset({"admin"}))) == {two.proposal.id}
    assert mine(Person(name="vic", seats=frozenset())) == set()
    assert mine(Person(name=one.proposer.name, seats=frozenset({"approver"}))) == set()


@pytest.mark.parametrize("sort", ["newest", "oldest"])
def test_incidents_are_counted_reached_and_found(
    ledger: SqlLedger, filed: Make, now: datetime, sort: Literal["newest", "oldest"]
) -> None:
    fill(ledger, filed, now)
    ids: list[str] = []
    after = ""
    while True:
        page = ledger.incident_page(IncidentQuery(limit=2, sort=sort, after=after))
        ids += [row["incident_id"] for row in page["rows"]]
        assert page["count"] == 5
        assert page["counts"] == {"open": 5, "over": 0}
        if not (after := page["next"]):
            break
    assert len(ids) == len(set(ids)) == 5
    (line,) = ledger.incident_page(IncidentQuery(words="number 003"))["rows"]
    whole = ledger.incident(line["incident_id"])
    assert whole is not None
    assert (line["runs"], line["waiting"], line["status"]) == (
        len(whole["runs"]),
        len(whole["proposals"]),
        whole["status"],
    )
    assert (line["deployment"], line["error"], line["subject"]) == (
        whole["deployment"],
        whole["error"],
        whole["subject"],
    )
    assert ledger.incident_page(IncidentQuery(state="over"))["count"] == 0
    assert ledger.incident_page(IncidentQuery(deployment="etl/none"))["count"] == 0


def test_the_audit_log_is_read_by_incident_and_person_and_folds_what_changed_nothing(
    ledger: SqlLedger, filed: Make, now: datetime
) -> None:
    (one, _) = fill(ledger, filed, now, 2)
    voter = Identity(name="ann", kind="user", roles=frozenset({"approver"}))
    allow = Verdict(outcome=Outcome.ALLOW, policy_ids=("may-vote",), reasons=("r",))
    ledger.vote(one.proposal.id, one.digest, voter, "approve", "looks right", allow, now)

    def steps(**query: Any) -> list[str]:
        return [row["step"] for row in ledger.audit_page(AuditQuery(**query))["rows"]]

    assert steps(person="ann") == ["approved"]
    assert steps(person="an") == []
    assert steps(policy="may-vote") == ["approved"]
    assert steps(incident="i-000000000001") == ["approved", "judged", "proposed"]
    folded = ledger.audit_page(AuditQuery(changes=True, limit=1))
    assert (folded["count"], folded["folded"], folded["rows"][0]["step"]) == (3, 2, "approved")
    behind = ledger.audit_page(AuditQuery(changes=True, limit=5, after=folded["next"]))
    assert [row["step"] for row in behind["rows"]] == ["proposed", "proposed"]
    assert steps(words="LOOKS right") == ["approved"]


def test_what_an_older_version_filed_is_listed_when_the_ledger_is_opened(
    ledger: SqlLedger, filed: Make, now: datetime
) -> None:
    fill(ledger, filed, now, 9)
    query = ProposalQuery(status="needs_approval", words="error", team="data", sort="deployment")
    before = ledger.proposal_page(query)
    with ledger.writing("forgetting") as connection:
        connection.execute(listed.delete().where(listed.c.proposal_id != "p-000000000002"))
    assert ledger.proposal_page(query)["count"] == 0
    url = ledger._engine.url.render_as_string(hide_password=False)
    again = SqlLedger(url)
    try:
        assert again.proposal_page(query) == before
    finally:
        again.close()


@pytest.mark.parametrize("cursor", ["x", "!", "WzFd", "eyJhIjogMX0", "WyJhIiwgMl0", "bnVsbA"])
def test_a_cursor_that_is_none_is_refused(ledger: SqlLedger, cursor: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which of them Python says does not matter
        ledger.proposal_page(ProposalQuery(after=cursor))


def test_each_order_of_what_waits_is_read_along_an_index(ledger: SqlLedger) -> None:
    if ledger._engine.dialect.name != "sqlite":
        pytest.skip("SQLite says how it reads; PostgreSQL decides by how much there is")
    for column in ("filed_at", "expires_at", "risk", "deployment"):
        with ledger.reading("asking how it would be read") as connection:
            wanted = (
                sa.select(listed.c.proposal_id)
                .where(listed.c.status == "needs_approval")
                .order_by(listed.c[column].desc(), listed.c.proposal_id.desc())
            )
            text = str(wanted.compile(compile_kwargs={"literal_binds": True}))
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all()
        words = " ".join(str(row) for row in plan)
        assert f"listed_by_{column}" in words
        assert "TEMP B-TREE" not in words
