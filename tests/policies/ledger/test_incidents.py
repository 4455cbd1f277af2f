"""Incidents are rows: opened and joined when proposals are filed, closed run by run, regrouped by people."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.policies.conftest import PILOT, Make

from pilotage.planner.actions.types import NotifyOwner, RetryRun, Severity, StartRun
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Identity
from pilotage.telemetry.errors import LedgerError

HOST = "host:passing:prices.example"


def failure(
    filed: Make, number: int, *causes: str, run: int | None = None, proposer: Identity = PILOT, **case: Any
) -> FiledProposal:
    run_id = f"00000000-0000-4000-8000-{(run or number):012x}"
    one: FiledProposal = filed(
        RetryRun(run_id=run_id), number=number, incident_id=f"i-{number:012x}", proposer=proposer
    )
    said = {"subject": f"run:{run_id}", "failure_class": "transient", "fingerprint": f"f{run or number}"}
    return replace(one, case=one.case.model_copy(update={**said, "causes": causes, **case}))


def states(ledger: SqlLedger, incident_id: str) -> dict[str, str]:
    found = ledger.incident(incident_id)
    assert found is not None
    return {run["run_id"][-1]: run["state"] for run in found["runs"]}


def test_failures_of_one_cause_are_one_incident_and_others_are_their_own(
    ledger: SqlLedger, filed: Make
) -> None:
    for number, causes in enumerate([("fault:a", HOST), ("fault:b", HOST), ("fault:c",)], start=1):
        ledger.file(failure(filed, number, *causes))
    assert [(one["incident_id"], len(one["runs"])) for one in reversed(ledger.incidents())] == [
        ("i-000000000003", 1),
        ("i-000000000001", 2),
    ] or {one["incident_id"]: len(one["runs"]) for one in ledger.incidents()} == {
        "i-000000000001": 2,
        "i-000000000003": 1,
    }
    assert ledger.incident_of("i-000000000002") == "i-000000000001"
    whole = ledger.incident("i-000000000002")
    assert whole is not None
    assert len(whole["proposals"]) == 2


def test_a_run_whose_owner_is_told_of_what_is_no_runs_is_of_that_incident(
    ledger: SqlLedger, filed: Make
) -> None:
    witness = f"00000000-0000-4000-8000-{7:012x}"
    assert ledger.incident_of(witness) == ""
    told = filed(NotifyOwner(run_id=witness, severity=Severity.ERROR), number=1, incident_id="i-000000000001")
    about = {"subject": "pool:etl", "failure_class": "standstill", "causes": ("ongoing:no_worker:pool:etl",)}
    ledger.file(replace(told, case=told.case.model_copy(update=about)))
    assert ledger.incident_of(witness) == "i-000000000001"


def test_it_is_resolved_with_its_last_run_and_what_waited_lapses(
    ledger: SqlLedger, filed: Make, now: datetime
) -> None:
    for number in (1, 2):
        ledger.file(failure(filed, number, "fault:a"))
    incident = "i-000000000001"
    one, two = (row["subject"] for row in ledger.open_incident_runs())
    assert ledger.close_run(incident, one, "recovered", "completed", "pilotage", now)
    assert not ledger.close_run(incident, one, "recovered", "completed", "pilotage", now)
    assert ledger.status("p-000000000001") == "expired"
    found = ledger.incident(incident)
    assert found is not None
    assert (found["state"], found["status"]) == ("open", "open")
    assert ledger.close_run(incident, two, "superseded", "another did it", "pilotage", now)
    found = ledger.incident(incident)
    assert found is not None
    assert (found["state"], found["status"]) == ("resolved", "recovered")
    assert found["resolution"] == "1 recovered, 1 superseded"
    assert "incident_resolved" in [step["step"] for step in ledger.story(incident)]


def test_it_is_reopened_by_its_own_fault_and_a_later_one_is_linked_with_what_helped(
    ledger: SqlLedger, filed: Make, now: datetime
) -> None:
    ledger.file(failure(filed, 1, "fault:a", failed_at=now))
    (row,) = ledger.open_incident_runs()
    ledger.close_run(row["incident_id"], row["subject"], "recovered", "completed", "pilotage", now)
    soon = now + timedelta(minutes=5)
    ledger.file(failure(filed, 2, "fault:a", failed_at=soon))
    found = ledger.incident("i-000000000001")
    assert found is not None
    assert (found["state"], found["reopened"], len(found["runs"])) == ("open", 1, 2)
    for row in ledger.open_incident_runs():
        ledger.close_run(row["incident_id"], row["subject"], "recovered", "completed", "pilotage", soon)
    later = failure(filed, 3, "fault:a", failed_at=now + timedelta(days=2))
    ledger.file(replace(later, filed_at=now + timedelta(days=2)))
    found = ledger.incident("i-000000000003")
    assert found is not None
    assert [one["incident_id"] for one in found["earlier"]] == ["i-000000000001"]


def test_a_retry_that_failed_again_is_the_same_run_of_the_same_incident(
    ledger: SqlLedger, filed: Make, now: datetime
) -> None:
    ledger.file(failure(filed, 1, "fault:a", run=7))
    ledger.file(failure(filed, 2, "fault:other", run=7))
    (found,) = ledger.incidents()
    assert len(found["runs"]) == 1
    assert ledger.close_run(
        found["incident_id"], found["runs"][0]["subject"], "recovered", "", "pilotage", now
    )
    assert ledger.open_incident_runs() == []


def test_a_run_in_whose_place_another_is_to_be_made_says_so_until_that_is_through(
    ledger: SqlLedger, filed: Make
) -> None:
    run_id = f"00000000-0000-4000-8000-{7:012x}"
    instead = filed(StartRun(run_id=run_id), number=1, incident_id="i-000000000001")
    case = {"subject": f"run:{run_id}", "failure_class": "overlong", "causes": ("ongoing:a",)}
    ledger.file(replace(instead, case=instead.case.model_copy(update=case)))
    ledger.file(failure(filed, 2, "fault:b"))
    made = {row["occurrence_id"]: row["made"] for row in ledger.open_incident_runs()}
    assert made == {"i-000000000001": "p-000000000001", "i-000000000002": ""}


def test_people_waive_split_and_merge(ledger: SqlLedger, filed: Make, now: datetime) -> None:
    for number in (1, 2, 3):
        ledger.file(failure(filed, number, f"fault:{number}", HOST))
    runs = {row["run_id"][-1]: row["run_id"] for row in ledger.open_incident_runs()}
    new = ledger.split_incident("i-000000000001", [runs["3"]], "ann", now)
    assert new == "i-000000000003"
    assert (states(ledger, "i-000000000001"), states(ledger, new)) == (
        {"1": "open", "2": "open"},
        {"3": "open"},
    )
    # what was split off stays apart: the shared cause goes to the old one, its own fault to the new one
    ledger.file(failure(filed, 4, "fault:4", HOST))
    ledger.file(failure(filed, 5, "fault:f3", HOST))
    assert set(states(ledger, "i-000000000001")) == {"1", "2", "4"} or set(states(ledger, new)) == {"3"}
    assert ledger.merge_incidents("i-000000000001", [new], "ann", now) == 1
    assert ledger.incident_of("i-000000000003") == "i-000000000001"
    found = ledger.incident(new)
    assert found is not None
    assert found["incident_id"] == "i-000000000001"
    waived = ledger.waive_incident("i-000000000001", "ann", "done by hand", now, [runs["1"]])
    assert waived == 1
    assert states(ledger, "i-000000000001")["1"] == "waived"
    assert ledger.waive_incident("i-000000000001", "ann", "the rest too", now) > 1
    assert ledger.open_incident_runs() == []
    with pytest.raises(LedgerError, match="not none and not all"):
        ledger.split_incident("i-000000000001", [], "ann", now)


def test_what_a_person_wants_opens_no_incident(ledger: SqlLedger, filed: Make, person: Make) -> None:
    ledger.file(failure(filed, 1, "fault:a", proposer=person("pat", "operator")))
    assert ledger.incidents() == []
    ledger.file(failure(filed, 2, "fault:a"))
    assert [one["incident_id"] for one in ledger.incidents()] == ["i-000000000002"]


def test_trouble_that_is_no_failed_run_is_over_when_it_is_not_found_again(
    ledger: SqlLedger, filed: Make, now: datetime
) -> None:
    ledger.file(failure(filed, 1, "forecast:d:at_risk", failure_class="at_risk", failed_at=now))
    ledger.expire(now + timedelta(hours=1))
    assert ledger.settle_incidents(now + timedelta(minutes=5)) == []
    assert ledger.settle_incidents(now + timedelta(hours=1)) == ["i-000000000001"]
    (found,) = ledger.incidents()
    assert found["status"] == "resolved"
