"""The API's governance operations: policed, recorded, and of no use to whoever may not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from pilotage.flows.api.admin import AdminEndpoints, PeriodicMaintenance
from pilotage.flows.api.client import ApiRejection
from pilotage.flows.execution.mode import ModeSwitch
from pilotage.policies.gate.gate import Gate
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, Verdict

Make = Callable[..., Any]
RUN = "11111111-1111-4111-8111-111111111111"
ANN = Identity(name="ann", kind="user", roles=frozenset({"approver"}))
OLGA = Identity(name="olga", kind="user", roles=frozenset({"operator"}))
ADAM = Identity(name="adam", kind="user", roles=frozenset({"admin"}))


@pytest.fixture
def governance(ledger: SqlLedger, gate: Gate, facts_of: Make, now: datetime) -> AdminEndpoints:
    """Every target is a failed production run."""

    async def judge(filed: FiledProposal) -> Verdict:
        target = facts_of(filed, env="prod")
        ledger_facts = ledger.facts(filed, "judge", Mode.AUTO, now, target)
        verdict = gate.judge(filed, target, ledger_facts, now)
        ledger.record_verdict(filed.proposal.id, "judge", verdict, target, now, ledger_facts)
        return verdict

    return AdminEndpoints(
        ledger=ledger,
        gate=gate,
        judge=judge,
        mode=ModeSwitch(ledger, Mode.AUTO, lambda: now),
        clock=lambda: now,
        wake=lambda: None,
        current_identity={one.name: one for one in (ANN, OLGA, ADAM)}.get,
    )


def test_an_edited_proposal_is_the_editors_own_and_waits_for_somebody_else(
    governance: AdminEndpoints, ledger: SqlLedger, filed: Make
) -> None:
    ledger.file(filed())

    async def judged() -> None:
        await governance._judge(filed())

    asyncio.run(judged())  # it waits for an approver
    action = {"kind": "retry_run", "run_id": RUN, "delay": "PT30S"}
    told = asyncio.run(governance.amend(OLGA, filed().proposal.id, action))
    assert (told["proposer"], told["status"], told["action"]["delay"]) == ("olga", "needs_approval", "PT30S")
    assert told["verdict"]["policy_ids"] == ["prod-four-eyes"]
    old = ledger.proposal(filed().proposal.id) or {}
    assert (old["status"], old["replaced_by"]) == ("replaced", told["proposal_id"])
    assert told["replaces"] == filed().proposal.id
    last = ledger.story(filed().proposal.id)[-1]
    assert (last["step"], last["actor"], last["detail"]["by"]) == ("replaced", "olga", told["proposal_id"])
    assert asyncio.run(governance.amend(OLGA, filed().proposal.id, action))["status"] == "needs_approval"
    with pytest.raises(ApiRejection, match="no such proposal"):
        asyncio.run(governance.amend(OLGA, "p-00000000ffff", action))
    with pytest.raises(ApiRejection, match=f"it is replaced by {told['proposal_id']}.*Nothing was handed in"):
        asyncio.run(governance.amend(ADAM, filed().proposal.id, action))


def test_an_admin_breaks_the_glass_and_an_operator_mends_it(
    governance: AdminEndpoints, ledger: SqlLedger, filed: Make, now: datetime
) -> None:
    wanted: dict[str, Any] = {"minutes": 10, "reason": "outage", "kinds": ["retry_run"], "targets": ["run:*"]}
    with pytest.raises(ApiRejection, match=r"you are ann \(approver\); admin is needed"):
        asyncio.run(governance.break_glass(ANN, **wanted))
    with pytest.raises(ApiRejection, match="max_break_glass"):
        asyncio.run(governance.break_glass(ADAM, **{**wanted, "minutes": 61}))
    grant = asyncio.run(governance.break_glass(ADAM, **wanted))
    own = filed(proposer=ADAM)
    assert ledger.facts(own, "inject", Mode.AUTO, now).break_glass == grant["id"]
    assert asyncio.run(governance.revoke_break_glass(OLGA, grant["id"]))["ended"] is True
    assert ledger.facts(own, "inject", Mode.AUTO, now).break_glass == ""


def test_an_approver_lends_and_takes_back(
    governance: AdminEndpoints, ledger: SqlLedger, now: datetime
) -> None:
    asyncio.run(governance.delegate(ANN, to="olga", hours=8, reason="lunch"))
    assert ledger.acting(OLGA, now)[1] == "ann"
    assert asyncio.run(governance.end_delegations(ANN)) == {"ended": 1}
    assert ledger.acting(OLGA, now)[1] == ""
    with pytest.raises(ApiRejection, match=r"you are olga \(operator\); approver is needed"):
        asyncio.run(governance.delegate(OLGA, to="ann", hours=8, reason="lunch"))


def test_a_right_is_lent_to_somebody_else_who_is_there(governance: AdminEndpoints) -> None:
    for name in ("ann", "nobody"):
        with pytest.raises(ApiRejection, match="nobody else who is known"):
            asyncio.run(governance.delegate(ANN, to=name, hours=8, reason="lunch"))


def test_what_is_lent_now_can_be_seen(governance: AdminEndpoints) -> None:
    asyncio.run(governance.delegate(ANN, to="olga", hours=8, reason="lunch"))
    asyncio.run(
        governance.break_glass(ADAM, minutes=10, reason="outage", kinds=["retry_run"], targets=["run:*"])
    )
    told = asyncio.run(governance.grants(OLGA))
    (break_glass_grants,), (lent,) = told["glass"], told["delegations"]
    assert (break_glass_grants["holder"], break_glass_grants["kinds"], break_glass_grants["targets"]) == (
        "adam",
        ["retry_run"],
        ["run:*"],
    )
    assert (lent["giver"], lent["taker"], lent["reason"]) == ("ann", "olga", "lunch")
    asyncio.run(governance.end_delegations(ANN))
    asyncio.run(governance.revoke_break_glass(OLGA, break_glass_grants["id"]))
    assert asyncio.run(governance.grants(OLGA)) == {"glass": [], "delegations": []}


def test_only_an_admin_sets_the_mode_and_a_refusal_is_a_row(
    governance: AdminEndpoints, ledger: SqlLedger, filed: Make, now: datetime
) -> None:
    ledger.file(filed())
    with pytest.raises(ApiRejection, match="admin is needed"):
        asyncio.run(governance.set_mode(OLGA, "observe", "drill"))
    with pytest.raises(ApiRejection, match="observe, shadow, approve, auto"):
        asyncio.run(governance.set_mode(ADAM, "automatic"))
    assert ledger.status(filed().proposal.id) == "filed"
    told = asyncio.run(governance.set_mode(ADAM, "shadow", "drill"))
    assert told == {"mode": "shadow", "before": "auto", "lapsed": 1}
    assert ledger.status(filed().proposal.id) == "expired"
    steps = [(step["step"], step["actor"]) for step in ledger.entries(1, 100)]
    assert steps == [("command_refused", "olga"), ("mode_set", "adam"), ("expired", "clock")]


@pytest.mark.parametrize(
    ("configured", "asked", "holds"),
    [
        ("auto", None, "auto"),
        ("auto", "shadow", "shadow"),
        ("shadow", "auto", "shadow"),
        ("approve", "approve", "approve"),
    ],
)
def test_after_a_restart_the_stricter_of_what_is_configured_and_asked_holds(
    ledger: SqlLedger, now: datetime, configured: str, asked: str | None, holds: str
) -> None:
    ModeSwitch(ledger, Mode(configured), lambda: now).begin()
    if asked is not None:
        ModeSwitch(ledger, Mode(configured), lambda: now).ask(Mode(asked), "adam", "")
    again = ModeSwitch(ledger, Mode(configured), lambda: now)
    assert again.mode().value == holds
    assert (again.held_back is not None) == (holds != configured)


def start(ledger: SqlLedger, configured: str | None, now: datetime) -> ModeSwitch:
    switch = ModeSwitch(ledger, Mode(configured) if configured else None, lambda: now)
    switch.begin()
    return switch


def test_the_first_start_is_in_shadow(ledger: SqlLedger, now: datetime) -> None:
    first = start(ledger, None, now)
    assert first.mode() is Mode.SHADOW
    assert "first start" in first.source


@pytest.mark.parametrize("mode", ["observe", "shadow", "approve", "auto"])
def test_a_plain_start_goes_on_in_the_mode_that_was_given_or_set(
    ledger: SqlLedger, now: datetime, filed: Make, mode: str
) -> None:
    start(ledger, mode, now)
    ledger.file(filed())
    again = start(ledger, None, now)
    assert again.mode().value == mode
    assert again.source == "kept from the last start"
    assert ledger.status(filed().proposal.id) == "filed"  # nothing lapses by a restart
    again.ask(Mode.APPROVE, "adam", "quarter end")
    assert start(ledger, None, now).mode() is Mode.APPROVE


def test_a_plain_start_after_a_stricter_one_does_not_go_back_to_what_was_set_before(
    ledger: SqlLedger, now: datetime
) -> None:
    start(ledger, "shadow", now).ask(Mode.AUTO, "adam", "")
    start(ledger, "approve", now)
    assert start(ledger, None, now).mode() is Mode.APPROVE


def test_only_an_admin_sets_autonomy_and_never_to_earned(
    governance: AdminEndpoints, ledger: SqlLedger
) -> None:
    with pytest.raises(ApiRejection, match=r"you are ann \(approver\); admin is needed"):
        asyncio.run(governance.set_autonomy(ANN, "retry_run", "d", "demoted"))
    with pytest.raises(ApiRejection, match="earned is measured"):
        asyncio.run(governance.set_autonomy(ADAM, "retry_run", "d", "earned"))
    assert asyncio.run(governance.set_autonomy(ADAM, "retry_run", "d", "demoted", "drill"))["changed"]
    assert ledger.autonomy("retry_run", "d") == "demoted"
    with pytest.raises(ApiRejection, match="valid are retry_run"):
        asyncio.run(governance.set_autonomy(ADAM, "retry", "d", "demoted"))
    (told,) = asyncio.run(governance.autonomy(OLGA))
    assert (told["kind"], told["scope"], told["level"], told["by"]) == ("retry_run", "d", "demoted", "adam")
    assert [step["step"] for step in ledger.entries(0, 10)] == ["command_refused", "autonomy_set"]


def test_housekeeping_goes_by_the_guardrails(
    ledger: SqlLedger, gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    waiting = filed(expires_at=now + timedelta(hours=1))
    ledger.file(waiting)
    target = facts_of(waiting, env="prod")
    ledger_facts = ledger.facts(waiting, "judge", Mode.AUTO, now, target)
    verdict = gate.judge(waiting, target, ledger_facts, now)
    assert verdict.outcome is Outcome.NEEDS_APPROVAL
    ledger.record_verdict(waiting.proposal.id, "judge", verdict, target, now, ledger_facts)
    early = PeriodicMaintenance(ledger=ledger, gate=gate, clock=lambda: now + timedelta(minutes=14))
    due = PeriodicMaintenance(ledger=ledger, gate=gate, clock=lambda: now + timedelta(minutes=15))
    assert asyncio.run(early.keep())["escalated"] == 0
    assert asyncio.run(due.keep())["escalated"] == 1
    assert asyncio.run(due.keep())["escalated"] == 0
