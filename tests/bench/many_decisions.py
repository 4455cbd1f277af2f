"""Fills a real ledger with very many recorded decisions, faster than deciding each of them would.

Every proposal has an id, a run and a digest of its own; counts, times, environments and owners vary as they do
in an installation where runs fail all the time. Some thousand situations are really judged, and the verdict stands for all
decisions of the same situation; whoever replays them cannot know that, and judges each again.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

from pilotage.planner.actions.types import (
    Action,
    CancelRun,
    NotifyOwner,
    RescheduleRun,
    ResizeRun,
    RetryRun,
    SetPriority,
    target_of,
)
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.digests import digest_of
from pilotage.policies.gate.gate import Gate, LedgerFacts
from pilotage.policies.json_values import timestamp
from pilotage.policies.ledger.rows import as_text, proposal_row
from pilotage.policies.ledger.schema import proposals, verdicts
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.ledger_facts import Autonomy
from pilotage.policies.types import FiledProposal, Identity, Mode, TargetFacts

SITUATIONS = 3000
IN_ONE_TRANSACTION = 5000
PILOT = Identity(name="pilot", kind="agent", roles=frozenset({"agent"}))
AUTONOMY: tuple[Autonomy, ...] = ("standard", "earned", "demoted")
KINDS = {"retry": 50, "resize": 15, "move": 15, "tell": 10, "rank": 5, "cancel": 5}
"""What is proposed, with weights: mostly retries, as in an installation where runs fail."""


def filled(ledger: SqlLedger, bundle: Bundle, count: int, until: datetime, seed: int = 1) -> dict[str, int]:
    """Writes this many decisions of the 20 days before `until`; how many had which outcome."""
    rng, gate = random.Random(seed), Gate(bundle)
    incident_contexts = [_situation(rng) for _ in range(min(count, SITUATIONS))]
    verdicts_of: dict[int, tuple[str, str]] = {}
    outcomes: dict[str, int] = {}
    written: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for number in range(1, count + 1):
        at = until - timedelta(seconds=rng.randrange(60, 20 * 86_400))
        place = rng.randrange(len(incident_contexts))
        kind, told, counted = incident_contexts[place]
        filed = _filed(number, kind, at)
        target = TargetFacts(target=target_of(filed.proposal.action), read_at=at, **told)
        if place not in verdicts_of:
            verdict = gate.judge(filed, target, counted, at)
            verdicts_of[place] = verdict.outcome.value, as_text(verdict)
        outcome, text = verdicts_of[place]
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        decided = {
            "proposal_id": filed.proposal.id,
            "stage": counted.stage,
            "outcome": outcome,
            "verdict": text,
            "target_facts": as_text(target),
            "ledger_facts": as_text(counted),
            "at": timestamp(at),
        }
        written.append((proposal_row(filed), decided))
        if len(written) == IN_ONE_TRANSACTION:
            _write(ledger, written)
            written = []
    _write(ledger, written)
    return outcomes


def _situation(rng: random.Random) -> tuple[str, dict[str, Any], LedgerFacts]:
    """A kind of action, what is known of the target, and what the ledger counts."""
    (kind,) = rng.choices(list(KINDS), weights=list(KINDS.values()))
    state = {"move": "SCHEDULED", "cancel": "RUNNING"}.get(kind, "FAILED")
    target = {
        "state_type": state if rng.random() < 0.95 else "COMPLETED",
        "state_id": f"{rng.randrange(2**32):08x}",
        "deployment_id": f"{rng.randrange(40):08x}-2222-4222-8222-222222222222",
        "deployment_name": f"flow-{rng.randrange(40)}/main",
        "env": rng.choices(["dev", "staging", "prod", ""], weights=[45, 15, 35, 5])[0],
        "tier": rng.choices([0, 1, 2], weights=[5, 60, 35])[0],
        "team": rng.choice(["data", "web", "risk", ""]),
        "memory_mb": rng.choice([256, 384]),
        "seconds_to_start": rng.randrange(0, 3600),
    }
    return kind, target, _counted(rng)


def _counted(rng: random.Random) -> LedgerFacts:
    return LedgerFacts(
        stage="judge" if rng.random() < 0.5 else "inject",
        mode=rng.choices([Mode.AUTO, Mode.APPROVE, Mode.SHADOW], weights=[90, 5, 5])[0],
        actions_1h=min(60, int(rng.expovariate(1 / 8))),
        actions_of_run_24h=rng.choices([0, 1, 2, 3], weights=[70, 15, 10, 5])[0],
        actions_of_deployment_1h=min(20, int(rng.expovariate(1 / 3))),
        seconds_since_same_target=rng.choice([None, None, rng.randrange(1, 3600)]),
        other_targets_1h=min(30, int(rng.expovariate(1 / 4))),
        evidence_tainted=rng.random() < 0.3,
        autonomy=rng.choices(AUTONOMY, weights=[80, 15, 5])[0],
    )


def _write(ledger: SqlLedger, written: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    if written:
        with ledger.writing("filling a ledger") as connection:
            connection.execute(proposals.insert(), [proposal for proposal, _ in written])
            connection.execute(verdicts.insert(), [decided for _, decided in written])


def _filed(number: int, kind: str, at: datetime) -> FiledProposal:
    action = _action(kind, f"{number:08x}-1111-4111-8111-111111111111", at)
    proposal = Proposal(
        id=f"p-{number:012x}",
        incident_id=f"i-{number // 2:012x}",
        action=action,
        evidence=(f"run:{number:08x}-1111-4111-8111-111111111111",),
        playbook="retry-transient",
        expires_at=at + timedelta(minutes=10),
    )
    case = CaseFile(subject=target_of(action), failure_class="transient", fingerprint=f"{number % 97:08x}")
    return FiledProposal(
        proposal=proposal, case=case, proposer=PILOT, digest=digest_of(proposal, PILOT), filed_at=at
    )


def _action(kind: str, run_id: str, at: datetime) -> Action:
    match kind:
        case "retry":
            return RetryRun(run_id=run_id)
        case "resize":
            return ResizeRun(run_id=run_id, memory_mb=512)
        case "move":
            return RescheduleRun(run_id=run_id, start=at + timedelta(minutes=30))
        case "tell":
            return NotifyOwner(run_id=run_id)
        case "cancel":
            return CancelRun(run_id=run_id)
        case _:
            return SetPriority(pool="p", queue="q", priority=3, hold=timedelta(minutes=30))
