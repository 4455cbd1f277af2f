"""Uses what the installed example adds, the way pilotage does, and prints what came of it as JSON.

Run as `python exercise.py DIR`: DIR is for the store and for a bundle that names the action.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from pilotage.flows.dev.fake_prefect import FakePrefect
from pilotage.flows.execution.permits import reach_of
from pilotage.flows.levers import build_levers
from pilotage.flows.notify.describe import action_in_words
from pilotage.flows.notify.notifier import Notifier
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.guard import ADMITTED, Permit, permitted
from pilotage.planner.actions.types import KINDS, Action, action_from_json
from pilotage.planner.detect.diagnosis import Line
from pilotage.planner.detect.reasoning import EXAMPLES, reason
from pilotage.planner.detect.registry import DETECTORS, DetectorSnapshot
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.playbooks.plan import plan_for
from pilotage.planner.proposals import Proposal
from pilotage.planner.remediation import Background, IncidentContext
from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE, Bundle
from pilotage.policies.digests import digest_of
from pilotage.policies.gate.gate import Gate
from pilotage.policies.gate.permitted_kinds import permitted_kinds
from pilotage.policies.ledger_facts import LedgerFacts
from pilotage.policies.types import FiledProposal, Identity, Mode, TargetFacts
from pilotage.telemetry.facts import RunFact, StateType
from pilotage.telemetry.store.duckdb import DuckDBStore

NOW = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)
STATE = "11111111-1111-4111-8111-111111111111"
PILOT = Identity(name="pilot", kind="agent", roles=frozenset({"agent"}))
SCHEMA = """
  action label_run in [reversible] appliesTo { principal: [Agent, User], resource: [Run],
    context: { args: {}, world: World } };
  // Governance: policed by the same engine."""
PERMIT = """
@id("agent-labels")
@reason("agents may propose to label a run")
permit (principal in Pilotage::Role::"agent", action == Pilotage::Action::"label_run", resource);
"""


def naming(directory: Path) -> Bundle:
    """Return the default bundle with the action in its schema and one policy that permits it."""
    shutil.copytree(DEFAULT_BUNDLE, directory)
    schema = directory / "schema.cedarschema"
    schema.write_text(schema.read_text().replace("\n  // Governance: policed by the same engine.", SCHEMA))
    (directory / "labels.cedar").write_text(PERMIT)
    return Bundle.load(directory)


def judged(bundle: Bundle, proposal: Proposal, case: Any) -> dict[str, Any]:
    """Return what policy says of the proposal: `{outcome, policy_ids, offered}`."""
    filed = FiledProposal(
        proposal=proposal, case=case, proposer=PILOT, digest=digest_of(proposal, PILOT), filed_at=NOW
    )
    target = TargetFacts(
        target=proposal.action.target(), read_at=NOW, state_type="RUNNING", state_id=STATE, env="dev"
    )
    gate = Gate(bundle)
    verdict = gate.judge(filed, target, LedgerFacts(stage="judge", mode=Mode.AUTO), NOW)
    return {
        "outcome": verdict.outcome.value,
        "policy_ids": list(verdict.policy_ids),
        "offered": "label_run" in permitted_kinds(gate, PILOT),
    }


async def delivered(action: Action, fake: FakePrefect) -> list[str]:
    """Return the effects of carrying it out twice, of looking at it and of undoing it."""

    async def released(run_id: str, after: datetime) -> bool:
        return True

    guarded = PrefectApi("http://fake/api", transport=fake.transport, guard=ADMITTED)
    async with guarded.opened() as api:
        lever = build_levers(worker_has_released=released, notifier=Notifier(api=api), api=api)[action.kind]
        key = str(uuid4())
        told = {"idempotency_key": key, "expected_state_id": "", "message": "m"}
        with permitted(Permit(about="the example", writes=lever.writes, reach=reach_of(action, key))):
            first = await lever.execute(action, **told)
            again = await lever.execute(action, **told)
            check = await lever.verify(action, first, idempotency_key=key)
            back = await lever.undo(action, first, idempotency_key=key)
    return [first.effect.value, again.effect.value, check.judgement.value, back.effect.value]


def main(directory: Path) -> None:
    """Print `{kinds, found, playbook, proposed, words, denied, allowed, delivered, diagnosis}`."""
    fake = FakePrefect()
    flow = fake.ask("POST", "/flows/", {"name": "f"})
    made = fake.ask(
        "POST", "/flow_runs/", {"flow_id": flow["id"], "state": {"type": "RUNNING", "name": "Running"}}
    )
    run = RunFact(
        run_id=made["id"], name="r", flow_name="f", state_id=STATE,
        state_type=StateType.RUNNING, state_name="Running", created=NOW, updated=NOW, started=NOW,
    )  # fmt: skip
    store = DuckDBStore(directory / "t.duckdb")
    store.merge_runs([run])
    at = DetectorSnapshot(store=store, forecaster=_NoForecast(), parameters=PlaybookParameters(), now=NOW)
    (finding,) = (f for detector in DETECTORS for f in detector(at) if f.rule_id == "unowned-run")
    context = IncidentContext(
        finding=finding, run=run, forecast=None, around=Background(), now=NOW, parameters=PlaybookParameters()
    )
    plan = plan_for(context, KINDS)
    (proposal, case), *_ = plan.proposals
    proposal = Proposal.model_validate_json(proposal.model_dump_json())
    lines = [Line(level=40, text="warehouse zz9 was asleep")]
    print(json.dumps({
        "kinds": "label_run" in KINDS,
        "playbook": plan.playbook,
        "proposed": proposal.action.model_dump(mode="json"),
        "words": action_in_words(proposal.action.model_dump(mode="json")),
        "denied": judged(Bundle.load(), proposal, case),
        "allowed": judged(naming(directory / "bundle"), proposal, case),
        "delivered": asyncio.run(delivered(action_from_json(proposal.action.model_dump_json()), fake)),
        "diagnosis": reason(StateType.FAILED, "Failed", "it broke", lines, EXAMPLES).rule_id,
    }))  # fmt: skip
    store.close()


class _NoForecast:
    def forecast(self, run_ids: Any) -> tuple[()]:
        return ()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
