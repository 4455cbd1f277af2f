"""Asking only the policies whose head can match, and asking once where no approval helps, changes no answer.

The reference puts every question to the whole set, as cedarpy parses it from the text, and knows no shortcut.
"""

from __future__ import annotations

import json
import pickle
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cedarpy
import pytest

from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE, Bundle
from pilotage.policies.cedar.engine import policies_as_json
from pilotage.policies.cedar.protocol import EngineRequest, Entity, PolicyNote, RawAnswer, Uid
from pilotage.policies.cedar.scopes import reads_approvals
from pilotage.policies.testing.cases import CASES_FILE, Prepared, cases_in
from pilotage.policies.types import Mode, Verdict

ACTION = 'Pilotage::Action::"retry_run"'
HEADS = {
    "principal is": f"principal is Pilotage::Agent, action == {ACTION}, resource",
    "principal is in": 'principal is Pilotage::User in Pilotage::Role::"admin", action, resource',
    "principal ==": f'principal == Pilotage::Agent::"caller", action == {ACTION}, resource',
    "action of a group": 'principal, action in Pilotage::Action::"disruptive", resource',
    "action of groups": (
        'principal, action in [Pilotage::Action::"reversible", Pilotage::Action::"approve"], resource'
    ),
    "every action": "principal, action, resource",
    "resource is": f"principal, action == {ACTION}, resource is Pilotage::Run",
    "resource is another": "principal, action, resource is Pilotage::WorkQueue",
    "resource in": f'principal, action == {ACTION}, resource in Pilotage::Team::"data"',
    "resource ==": (
        f'principal, action == {ACTION}, resource == Pilotage::Run::"11111111-1111-4111-8111-111111111111"'
    ),
}
"""Every form that the head of a policy can have."""


class WholeSet:
    """Every policy is asked every question; what it was asked is kept."""

    def __init__(self, bundle: Bundle) -> None:
        self._records = bundle.notes
        self._schema = cedarpy.Schema.from_str(bundle.schema)
        texts = (bundle.texts[name] for name in sorted(bundle.texts))
        self._policies = cedarpy.PolicySet.from_str("\n".join(texts))
        self.asked: list[tuple[EngineRequest, tuple[Entity, ...]]] = []

    def notes(self) -> Mapping[str, PolicyNote]:
        return self._records

    def evaluate(
        self, requests: Sequence[EngineRequest], entities: Sequence[Entity]
    ) -> tuple[RawAnswer, ...]:
        self.asked += [(one, tuple(entities)) for one in requests]
        written = json.dumps(
            [
                {
                    "uid": uid(one.uid),
                    "attrs": dict(one.attributes),
                    "parents": [uid(of) for of in one.parents],
                }
                for one in entities
            ]
        )
        slice_ = cedarpy.Entities.from_json_str(written, self._schema)
        return tuple(self._answer(one, slice_) for one in requests)

    def _answer(self, request: EngineRequest, slice_: Any) -> RawAnswer:
        asked = {
            "principal": uid(request.principal),
            "action": {"type": "Pilotage::Action", "id": request.action},
            "resource": uid(request.resource),
            "context": dict(request.context),
        }
        result = cedarpy.is_authorized(asked, self._policies, slice_, self._schema)
        ids = result.diagnostics.id_annotations_by_reason
        return RawAnswer(
            allowed=result.decision is cedarpy.Decision.Allow,
            deciding=tuple(sorted(ids.get(one, one) for one in result.diagnostics.reasons)),
            errors=tuple(str(error) for error in result.diagnostics.errors),
        )


def uid(of: Uid) -> dict[str, str]:
    return {"type": f"Pilotage::{of.type}", "id": of.id}


@pytest.fixture(scope="module")
def every_head(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped bundle with a forbid for every form of head that fires and one that fails."""
    where: Path = tmp_path_factory.mktemp("heads") / "b"
    shutil.copytree(DEFAULT_BUNDLE, where)
    added = []
    for number, head in enumerate(HEADS.values()):
        # a forbid of every form would deny everything: each fires, and fails, at a count of its own
        ledger_facts = "context has world && context.world.budget.actions_1h"
        fails = (
            f"{ledger_facts} == {number + 30} && context.world.budget.actions_1h + 9223372036854775807 > 0"
        )
        added.append(
            f'@id("forbid-{number}") @reason("r") forbid ({head}) when {{ {ledger_facts} == {number} }};'
        )
        added.append(f'@id("fails-{number}") @reason("r") forbid ({head}) when {{ {fails} }};')
        if head.startswith("principal ") and not head.startswith("principal,"):
            added.append(f'@id("permit-{number}") @reason("r") permit ({head});')
    (where / "zz.cedar").write_text("\n".join(added))
    return Bundle.load(where)


@pytest.fixture(scope="module")
def cases() -> tuple[Prepared, ...]:
    return cases_in(DEFAULT_BUNDLE / CASES_FILE, Bundle.load().guardrails)


def varied(one: Prepared, rng: random.Random) -> Prepared:
    """The same question in a world that differs in some facts."""
    ledger = replace(
        one.ledger,
        stage=rng.choice(["judge", "inject"]),
        mode=rng.choice(list(Mode)),
        stopped=rng.random() < 0.1,
        actions_1h=rng.choice([*range(10), *range(30, 40), 20, 20, 20, 59, 60, 120]),
        actions_of_run_24h=rng.choice([0, 2, 3]),
        failed_1h=rng.choice([0, 0, 4]),
        seconds_since_failed=rng.choice([None, 1, 1000]),
        probing=rng.choice([0, 1]),
        break_glass=rng.choice(["", "", "g"]),
        evidence_tainted=rng.random() < 0.5,
        autonomy=rng.choice(["standard", "earned", "demoted"]),
    )
    target = replace(
        one.target,
        env=rng.choice(["", "prod", "dev"]),
        tier=rng.randrange(3),
        team=rng.choice(["", "data", "web"]),
        tags=rng.choice(
            [frozenset[str](), frozenset({"pilotage:hands-off"}), frozenset({"pilotage:ask-owner"})]
        ),
        state_type=rng.choice(["FAILED", "SCHEDULED", "RUNNING", "COMPLETED", "PAUSED"]),
    )
    return replace(one, ledger=ledger, target=target)


def agreed(one: Prepared, bundle: Bundle, whole: WholeSet) -> Verdict:
    narrow = one.asked(bundle)
    assert narrow == one.asked(replace(bundle, engine=whole)), one.case.case
    return narrow


def test_every_case_gets_the_verdict_of_the_whole_set(
    cases: tuple[Prepared, ...], every_head: Bundle
) -> None:
    for bundle in (Bundle.load(), every_head):
        whole = WholeSet(bundle)
        for one in cases:
            agreed(one, bundle, whole)


def test_so_does_every_case_in_other_worlds(cases: tuple[Prepared, ...], every_head: Bundle) -> None:
    whole, rng, seen = WholeSet(every_head), random.Random(7), set()
    for one in cases * 3:
        verdict = agreed(varied(one, rng), every_head, whole)
        seen |= {verdict.outcome.value, *verdict.policy_ids}
    # the comparison means something only when the added policies took part, failing ones included
    assert {"allow", "deny", "needs_approval", "!evaluation-error"} <= seen
    assert any(name.startswith("forbid-") for name in seen)
    assert any(name.startswith("permit-") for name in seen)


def test_questions_that_fit_no_schema_are_answered_alike(
    cases: tuple[Prepared, ...], every_head: Bundle
) -> None:
    whole, rng = WholeSet(every_head), random.Random(11)
    for one in cases:
        one.asked(replace(every_head, engine=whole))
    asked, refused = list(whole.asked), 0
    for _ in range(600):
        (first, around), (second, further), (third, _) = rng.choices(asked, k=3)
        mixed = replace(second, principal=first.principal, action=rng.choice([third.action, "no_such"]))
        known = {entity.uid: entity for entity in (*around, *further)}
        here = tuple(known.values())
        (expected,) = whole.evaluate([mixed], here)
        (found,) = every_head.engine.evaluate([mixed], here)
        assert (found.allowed, found.deciding) == (expected.allowed, expected.deciding)
        assert bool(found.errors) == bool(expected.errors)
        refused += bool(found.errors)
    assert 0 < refused < 600


@pytest.mark.parametrize(
    ("body", "sees"),
    [
        ("context.world.approvals.admin >= 1", True),
        ("context.world.trouble.probing >= 1", False),
        ("context.args.delay > 1", False),
        ("context.world has approvals", True),
        ("context.world has stage && resource.tier > 0", False),
        ("context == context", True),
        ("context.world == context.world", True),
        ("[context.world].contains(context.world)", True),
        ('{"a": context.world.approvals}.a.admin >= 1', True),
        ("if context.world.stopped then context.world.approvals.owner >= 1 else false", True),
    ],
)
def test_what_a_policy_can_see_of_approvals(body: str, sees: bool) -> None:
    (policy,) = policies_as_json(f"permit (principal, action, resource) when {{ {body} }};")
    assert reads_approvals(policy["conditions"]) is sees


def test_an_engine_travels_to_another_process_and_answers_there(
    cases: tuple[Prepared, ...], every_head: Bundle
) -> None:
    arrived: Bundle = pickle.loads(pickle.dumps(every_head))  # noqa: S301 - our own bytes
    assert arrived.hash == every_head.hash
    for one in cases[:20]:
        assert one.asked(arrived) == one.asked(every_head)
