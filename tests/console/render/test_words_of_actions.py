"""What is read of an action is made from the action whose digest is approved, for every kind and every argument."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from tests.console.console_stack import ConsoleStack

from pilotage.console.session.cards import card_of
from pilotage.console.session.forms import edited
from pilotage.console.tui.drawing import card as drawn_card
from pilotage.flows.notify.describe import told as in_words
from pilotage.planner.actions.types import (
    ACTION,
    ACTIONS,
    Action,
    Directive,
    LimitScope,
    ParameterValue,
    RetryRun,
    Severity,
    action_as_json,
)
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.digests import digest_of
from pilotage.policies.ledger.amending import amended
from pilotage.policies.types import FiledProposal, Identity

TARGET = frozenset({"kind", "run_id"})
"""What names the target, which a card shows as such and an edit keeps."""
NAMES = st.sampled_from(["nightly", "default", "gpu", "etl-2"])
IDS = st.integers(1, 2**64).map(lambda number: str(UUID(int=number)))
VALUES = st.one_of(
    st.booleans(), st.integers(-99, 99), st.sampled_from(["monday", "1", "", "True"]), st.none()
)
PARAMETERS = st.lists(
    st.builds(ParameterValue, name=st.sampled_from(["day", "dry", "limit"]), value=VALUES),
    min_size=1, max_size=3, unique_by=lambda one: one.name,
).map(tuple)  # fmt: skip
SPANS = st.integers(1, 21_600).map(lambda seconds: timedelta(seconds=seconds))
MOMENTS = st.integers(0, 30_000_000).map(
    lambda seconds: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "run_id": IDS, "deployment_id": IDS, "delay": SPANS, "hold": SPANS, "every": SPANS,
    "changes": PARAMETERS, "answers": PARAMETERS, "value": VALUES,
    "memory_mb": st.integers(16, 65_536), "limit": st.integers(1, 99), "priority": st.integers(1, 99),
    "retries": st.integers(1, 10), "attempt": st.integers(1, 99), "keep": st.integers(1, 99),
    "wave": st.integers(1, 200), "most": st.integers(1, 1000),
    "pool": NAMES, "queue": NAMES, "busy_queue": NAMES, "starved_queue": NAMES, "name": NAMES,
    "task": st.sampled_from(["rates", "load"]), "severity": st.sampled_from(Severity),
    "directive": st.sampled_from(Directive), "scope": st.sampled_from(LimitScope),
    "start": MOMENTS, "missed": MOMENTS,
    "first": MOMENTS,
}  # fmt: skip


@st.composite
def two_that_differ(draw: st.DrawFn, kind: str, field: str) -> tuple[Action, Action]:
    """Two valid actions of the kind that are equal but for that field."""
    model = ACTIONS[kind]
    values = {name: draw(FIELDS[name]) for name in model.model_fields if name != "kind"}
    if "scope" in values:
        scopes = (
            [LimitScope.TAG, LimitScope.GLOBAL]
            if field == "scope" or kind == "release_slot"
            else list(LimitScope)
        )
        values["scope"] = LimitScope.QUEUE if field == "pool" else draw(st.sampled_from(scopes))
        if "pool" in values and values["scope"] is not LimitScope.QUEUE:
            values["pool"] = ""
        if values["scope"] is LimitScope.DEPLOYMENT:
            values["name"] = draw(IDS)
    wanted = IDS if field == "name" and values.get("scope") is LimitScope.DEPLOYMENT else FIELDS[field]
    if field == "scope":
        wanted = st.sampled_from([LimitScope.TAG, LimitScope.GLOBAL])
    other = draw(wanted.filter(lambda value: not _same(value, values[field])))
    return ACTION.validate_python({"kind": kind, **values}), ACTION.validate_python(
        {"kind": kind, **values, field: other}
    )


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


def row(action: Action, **more: Any) -> dict[str, Any]:
    """The API's row of a proposal of it."""
    return {
        "proposal_id": "p-0123456789ab", "digest": "d", "kind": action.kind, "status": "needs_approval",
        "action": action_as_json(action), **more,
    }  # fmt: skip


def read(row: Mapping[str, Any]) -> str:
    """What a person reads of the action on the card."""
    card = card_of(row)
    return "; ".join([card["words"], *(f"{one['what']}: {one['after']}" for one in card["changes"])])


CHOICES = [
    (kind, name) for kind, model in ACTIONS.items() for name in model.model_fields if name not in TARGET
]


@pytest.mark.parametrize(("kind", "field"), CHOICES, ids=lambda value: str(value))
@settings(max_examples=12, suppress_health_check=[HealthCheck.filter_too_much])
@given(data=st.data())
def test_no_argument_changes_without_a_word(kind: str, field: str, data: st.DataObject) -> None:
    if (kind, field) in {
        ("pause_deployment", "deployment_id"),
        ("spread_runs", "deployment_id"),
        ("catch_up", "deployment_id"),
    }:
        return  # the target, which the card names as such
    one, other = data.draw(two_that_differ(kind, field))
    assert read(row(one)) != read(row(other))


@pytest.mark.parametrize("kind", ACTIONS)
@settings(max_examples=8)
@given(data=st.data(), lie=st.text(max_size=20))
def test_what_the_old_case_said_is_not_said_of_an_edit(kind: str, data: st.DataObject, lie: str) -> None:
    name = next(iter(each for each in ACTIONS[kind].model_fields if each != "kind"))
    old, new = data.draw(two_that_differ(kind, name))
    marked = f"<<{lie}>>"
    case = CaseFile(
        subject="run", failure_class="oom", expected_effect=marked, alternatives=(marked,), explanation=marked
    )
    wanted = Proposal(
        id="p-0123456789ab",
        incident_id="i-0123456789ab",
        action=old,
        expires_at=datetime(2027, 1, 1, tzinfo=UTC),
    )
    who = Identity(name="planner", kind="agent")
    filed = FiledProposal(
        proposal=wanted, case=case, proposer=who, digest=digest_of(wanted, who), filed_at=wanted.expires_at
    )
    editor = Identity(name="pat", kind="user")
    edit = amended(filed, new, editor, filed.filed_at)
    assert edit.digest == digest_of(edit.proposal, editor)
    card = card_of(row(edit.proposal.action, case=edit.case.model_dump(), replaces=filed.proposal.id))
    kept_by_an_earlier_version = card_of(row(new, case=case.model_dump(), replaces=filed.proposal.id))
    for each in (card, kept_by_an_earlier_version):
        assert marked not in str(each)
        assert each["words"] == card_of(row(new))["words"]


def test_the_fields_that_people_edit_are_all_tried() -> None:
    assert {name for model in ACTIONS.values() for name in model.model_fields} - {"kind"} <= set(FIELDS)


def test_an_edited_delay_is_what_the_card_says(port: ConsoleStack) -> None:
    """A retry in one second, edited to five minutes: the second person reads five minutes, and nothing of one second."""
    run_id = port.failed_run()
    first = port.proposal(
        run_id, action=RetryRun(run_id=run_id, delay=timedelta(seconds=1)),
        expected_effect="the same run, tried again in 1 s, completes", alternatives=("1 s is short",),
    )  # fmt: skip
    action = edited(first["action"], "delay=PT5M", datetime.now(UTC))
    row = port.control_api("pat").call("amend", proposal_id=first["proposal_id"], action=action)
    card = card_of(row)
    assert card["action"]["delay"] == "PT5M"
    assert card["words"] == "retry the run in place in 5 min"
    console = Console(width=80, record=True, file=StringIO())
    console.print(drawn_card(card))
    seen = console.export_text()
    assert "5 min" in seen
    assert "1 s" not in seen
    told = [
        step
        for step in port.control_api("ann").call("why", subject=row["proposal_id"])
        if step["step"] == "proposed"
    ]
    assert "5 min" in in_words(told[0])
    assert "1 s" not in in_words(told[0])
