"""How good a bundle's tests are: every policy is bent a little, and some case must notice.

A bent policy is a mutant; a mutant that no case notices survives and shows a gap: a boundary nobody tests,
or text that decides nothing. The bending works on Cedar's JSON form of one policy.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.cedar.engine import CedarEngine, policies_as_json
from pilotage.policies.testing.cases import Prepared

_BENT = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}
"""Each comparison with its nearest neighbour."""

Json = dict[str, Any]
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One bent policy."""

    policy_id: str
    change: str
    """What was bent, in words."""
    policy: Json | None
    """The bent policy, or None when it was left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MutationReport:
    """What the cases noticed."""

    killed: int
    survivors: tuple[Mutant, ...]

    @property
    def score(self) -> float:
        """The share of mutants that some case noticed; 1 when there were none."""
        total = self.killed + len(self.survivors)
        return self.killed / total if total else 1.0


def mutants_of(policy_id: str, policy: Json) -> Iterator[Mutant]:
    """Every way in which this policy is bent."""
    yield Mutant(policy_id=policy_id, change="policy left out", policy=None)
    if policy["principal"].get("op") != "All":
        yield _with(policy_id, policy, "principal scope left out", ("principal",), {"op": "All"})
    for entity in policy["action"].get("entities", ()):
        left = [kept for kept in policy["action"]["entities"] if kept is not entity]
        yield _with(policy_id, policy, f"action {entity['id']} left out", ("action", "entities"), left)
    for number, condition in enumerate(policy["conditions"]):
        left = [condition for place, condition in enumerate(policy["conditions"]) if place != number]
        yield _with(policy_id, policy, f"`{condition['kind']}` left out", ("conditions",), left)
        yield from _bent(policy_id, policy, ("conditions", number, "body"), condition["body"])


def mutated(bundle: Bundle, cases: Sequence[Prepared]) -> MutationReport:
    """The report for these cases on this bundle, all of which must hold on it unbent."""
    policies = _policies(bundle)
    whole = CedarEngine(bundle.schema, bundle.texts, known_notes=bundle.notes)
    # what every mutant shares is parsed beforehand
    for case in cases:
        case.asked(replace(bundle, engine=whole))
    killed, survivors = 0, []
    for policy_id, policy in policies.items():
        # the cases that name the policy are the likeliest to notice
        ordered = sorted(cases, key=lambda case: policy_id not in case.case.by_policies)
        for mutant in mutants_of(policy_id, policy):
            engine = whole.with_policy(policy_id, mutant.policy)
            if all(case.kept_by(replace(bundle, engine=engine)) for case in ordered):
                survivors.append(mutant)
            else:
                killed += 1
    return MutationReport(killed=killed, survivors=tuple(survivors))


def _policies(bundle: Bundle) -> dict[str, Json]:
    return {
        policy["annotations"]["id"]: policy
        for text in bundle.texts.values()
        for policy in policies_as_json(text)
    }


def _bent(policy_id: str, policy: Json, path: Path, node: Any) -> Iterator[Mutant]:
    match node:
        case {"Value": bool() as value}:
            yield _with(policy_id, policy, f"{value} is {not value}", path, {"Value": not value})
        case {"Value": int() as value}:
            for near in (value + 1, value - 1):
                yield _with(policy_id, policy, f"{value} is {near}", path, {"Value": near})
        case {"Set": list() as members} if len(members) > 1:
            for member in members:
                left = [kept for kept in members if kept is not member]
                yield _with(policy_id, policy, f"{member} left out", path, {"Set": left})
        case dict() if len(node) == 1:
            ((operator, parts),) = node.items()
            if operator in _BENT:
                yield _with(
                    policy_id, policy, f"{operator} is {_BENT[operator]}", path, {_BENT[operator]: parts}
                )
            elif operator in ("&&", "||"):
                for side, other in (("left", "right"), ("right", "left")):
                    yield _with(policy_id, policy, f"{side} of {operator} left out", path, parts[other])
            elif operator == "!":
                yield _with(policy_id, policy, "`!` left out", path, parts["arg"])
            if isinstance(parts, dict):
                for name, part in parts.items():
                    yield from _bent(policy_id, policy, (*path, operator, name), part)
        case _:
            return


def _with(policy_id: str, policy: Json, change: str, path: Path, value: Any) -> Mutant:
    bent: Any = copy.deepcopy(policy)
    place = bent
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return Mutant(policy_id=policy_id, change=change, policy=bent)
