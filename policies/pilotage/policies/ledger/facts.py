"""What the ledger counts about one proposal: budgets from the outbox, votes, the kill switch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from pilotage.planner.actions.types import Action, target_of
from pilotage.policies.gate.gate import LedgerFacts, Stage
from pilotage.policies.json_values import moment, timestamp
from pilotage.policies.ledger.autonomy import autonomy_in
from pilotage.policies.ledger.grants import grant_in
from pilotage.policies.ledger.incidents import closed_in
from pilotage.policies.ledger.plans import EXPECTED, forecast_actions, units
from pilotage.policies.ledger.rows import ATTEMPTS, NOTIFY, as_text, deployment_of, run_of
from pilotage.policies.ledger.schema import outbox, proposals
from pilotage.policies.ledger.switches import stop_in
from pilotage.policies.ledger.trouble import detection_in
from pilotage.policies.ledger.votes import CurrentIdentity, plan_votes_in, votes_in
from pilotage.policies.types import FiledProposal, Identity, Mode, TargetFacts

CLEAN = ("deployment:", "forecast:", "incident:", "plan:", "queue:", "run:")
"""References to what Prefect or we ourselves counted. Anything else may quote text of user code or third parties, and
so may what a rule found in it."""
SILENT = frozenset({"", "SCHEDULED", "PENDING"})
"""States in which a run has said nothing yet in this attempt; empty for what is no run."""

HOLDS_OTHERS_UP = frozenset({"pause_deployment", "hold_queue", "catch_up"})
"""Kinds that keep runs of a deployment or a queue from being done."""
FAILING = 3
"""Failures in a row by which a deployment or a queue shows by itself that it had better be held."""
BACKLOG = 2
"""Overdue runs of a deployment of which older ones can be superseded."""


def tainted(evidence: Sequence[str], action: Action, target: TargetFacts | None) -> bool:
    """Whether a proposal may rest on text that a run's code or a third party wrote.

    Which references it names is its proposer's word, so it only makes things worse: one that names nothing clean at all
    is tainted, and so is every action on a run that has begun and everything that keeps a deployment or a queue from
    its work, whatever is named, but where a fact that was looked up here is the whole reason for it.
    """
    if not evidence or not all(ref.startswith(CLEAN) for ref in evidence):
        return True
    if target is None:
        return False
    silent = not target.run_count and target.state_type in SILENT
    if silent and action.kind not in HOLDS_OTHERS_UP:
        return False
    return not _proved_here(action, target)


def _proved_here(action: Action, target: TargetFacts) -> bool:
    """Whether what was asked of Prefect for this decision, and nothing that was written, is the reason."""
    match action.kind:
        case "mark_crashed":
            return bool(target.death)
        case "cancel_run":
            return bool(target.stuck)
        case "cancel_tree":
            return target.state_type in ("CRASHED", "CANCELLED")
        case "pause_deployment" | "hold_queue":
            return target.failing >= FAILING
        case "catch_up":
            return target.overdue >= BACKLOG
        case _:
            return False


def facts_in(
    connection: sa.Connection,
    filed: FiledProposal,
    stage: Stage,
    mode: Mode,
    now: datetime,
    target: TargetFacts | None,
    current_identity: CurrentIdentity | None = None,
) -> LedgerFacts:
    """What the outbox, the votes and the switches say within one transaction."""
    proposal = filed.proposal
    hour, day = timestamp(now - timedelta(hours=1)), timestamp(now - timedelta(hours=24))
    others = outbox.c.proposal_id != proposal.id
    notice = proposal.action.kind == NOTIFY
    alike = outbox.c.kind == NOTIFY if notice else outbox.c.kind != NOTIFY
    run_id, deployment_id = run_of(filed), deployment_in(connection, filed, target)

    def number(*conditions: Any) -> int:
        return connection.execute(
            sa.select(sa.func.count()).select_from(outbox).where(others, *conditions)
        ).scalar_one()

    def actions(*conditions: Any) -> int:
        """Changes, where the attempts of one incident's plan are one together, and those of its own are none."""
        return units(connection, filed, others, *conditions)

    last = connection.execute(
        sa.select(sa.func.max(outbox.c.admitted_at)).where(
            others, alike, outbox.c.target == target_of(proposal.action)
        )
    ).scalar_one_or_none()
    kind, wanted = proposal.action.kind, target_of(proposal.action)
    trouble = detection_in(
        connection,
        proposal_id=proposal.id,
        fingerprint=filed.case.fingerprint,
        deployment_id=deployment_id,
        target=wanted,
        now=now,
    )
    waiting = (proposals.c.id != proposal.id, proposals.c.status == "needs_approval")
    own = proposals.c.proposer == as_text(filed.proposer)
    # a person's edit of what an agent asked is another question; an agent asks nothing that anybody asked before
    alike_by = (own,) if filed.proposer.kind == "user" else ()
    radius = units(
        connection,
        filed,
        others,
        outbox.c.kind != NOTIFY,
        outbox.c.admitted_at > hour,
        outbox.c.target != wanted,
        distinct=outbox.c.target,
    )
    return LedgerFacts(
        stage=stage,
        mode=mode,
        stopped=stop_in(connection) is not None,
        actions_1h=actions(alike, outbox.c.admitted_at > hour),
        actions_of_run_24h=number(
            outbox.c.run_id == run_id, outbox.c.kind.in_(ATTEMPTS), outbox.c.admitted_at > day
        )
        if run_id
        else 0,
        actions_of_deployment_1h=actions(
            alike, outbox.c.deployment_id == deployment_id, outbox.c.admitted_at > hour
        )
        if deployment_id
        else 0,
        seconds_since_same_target=None if last is None else max(0, int((now - moment(last)).total_seconds())),
        votes=(
            *votes_in(connection, proposal.id, current_identity),
            *(() if _may_repeat(target) else plan_votes_in(connection, filed, now, current_identity)),
        ),
        evidence_tainted=tainted(proposal.evidence, proposal.action, target),
        other_targets_1h=radius,
        actions_of_fingerprint_24h=trouble.actions_of_fingerprint_24h,
        fruitless_of_fingerprint_24h=trouble.fruitless_of_fingerprint_24h,
        failed_1h=trouble.failed_1h,
        seconds_since_failed=trouble.seconds_since_failed,
        verified_since_failed=trouble.verified_since_failed,
        probing=trouble.probing,
        behind=person_behind(filed, current_identity),
        break_glass=grant_in(connection, filed, target, now),
        forecast=filed.case.failure_class in EXPECTED,
        forecast_actions_1h=forecast_actions(connection, others, outbox.c.admitted_at > hour),
        run_closed=closed_in(connection, proposal.incident_id),
        waiting=_count(connection, *waiting, own),
        waiting_alike=_count(
            connection, *waiting, *alike_by, proposals.c.kind == kind, proposals.c.target == wanted
        ),
        autonomy=autonomy_in(connection, kind, deployment_id or wanted),
    )


def _may_repeat(target: TargetFacts | None) -> bool:
    """Whether an attempt may do work twice: then what was said of the plan before that was known does not hold."""
    return target is not None and (
        target.repeatable == "no" or (target.half_done and target.repeatable != "yes")
    )


def _count(connection: sa.Connection, *conditions: Any) -> int:
    return connection.execute(
        sa.select(sa.func.count()).select_from(proposals).where(*conditions)
    ).scalar_one()


def deployment_in(connection: sa.Connection, filed: FiledProposal, target: TargetFacts | None) -> str:
    """The id of the deployment that an action bears on, or empty when nobody has said."""
    if target is not None and target.deployment_id:
        return target.deployment_id
    return deployment_of(filed) or str(
        connection.execute(
            sa.select(proposals.c.deployment_id).where(proposals.c.id == filed.proposal.id)
        ).scalar_one_or_none()
        or ""
    )


def person_behind(filed: FiledProposal, current_identity: CurrentIdentity | None) -> Identity | None:
    """The person whom an agent proposes for, as they stand now, with no more than the token that they asked with."""
    if current_identity is None or not filed.proposal.on_behalf_of:
        return None
    person = current_identity(filed.proposal.on_behalf_of)
    return person and person.narrowed(filed.proposer.scope)
