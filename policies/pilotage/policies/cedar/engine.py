"""The Cedar adapter: the only importer of cedarpy.

It parses once and evaluates many times, always with the schema (without it, JSON from outside could smuggle
entities in) and always with ids as `{type, id}` objects (ids as text can break out of their quotes).
What Cedar's own validation passes and we do not is checked by `policy_lint`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import cedarpy
from pydantic_core import to_json

from pilotage.policies.cedar.declared import declared_in
from pilotage.policies.cedar.lint import problems_in
from pilotage.policies.cedar.protocol import EngineRequest, Entity, PolicyNote, RawAnswer, Uid
from pilotage.policies.cedar.scopes import ActionUid, may_apply, reads_approvals
from pilotage.telemetry.errors import ConfigError

NAMESPACE = "Pilotage"
SLICES = 64
"""Parsed entity slices that are remembered; one decision asks about the same slice several times."""


Heads = tuple[str, ActionUid, str]
"""What the head of a policy is compared with: type of the principal, action, type of the resource."""


class ScopedPolicies:
    """Parsed policies that are asked only what their heads can match. Types and ids have their namespaces here.

    The others could neither decide nor fail, so leaving them out changes no answer.
    """

    def __init__(self, policies: Mapping[str, Mapping[str, Any]], schema: Any) -> None:
        """`policies` in Cedar's JSON form by the engine's own ids, which they keep; `schema` a cedarpy handle."""
        self._policies = {name: dict(policy) for name, policy in policies.items()}
        self._groups = _groups_of_actions(schema)
        self._known: dict[Heads, Any] = {}

    @property
    def policies(self) -> Mapping[str, Mapping[str, Any]]:
        """All policies in Cedar's JSON form by the engine's ids."""
        return self._policies

    def applicable(self, principal_type: str, action: ActionUid, resource_type: str) -> Any:
        """The cedarpy handle of the policies that can apply to such questions; made once for each kind of question."""
        heads = (principal_type, action, resource_type)
        if heads not in self._known:
            self._known[heads] = _policy_set(
                {name: policy for name, policy in self._policies.items() if self._may_apply(policy, heads)}
            )
        return self._known[heads]

    def changed(self, name: str, policy: Mapping[str, Any] | None) -> ScopedPolicies:
        """The same but for one policy, or without it. What neither the old nor the new one applies to is shared."""
        other = copy.copy(self)
        other._policies = {**self._policies, name: dict(policy or {})}
        if policy is None:
            del other._policies[name]
        touched = [changed for changed in (self._policies.get(name), policy) if changed is not None]
        other._known = {
            heads: handle
            for heads, handle in self._known.items()
            if not any(self._may_apply(changed, heads) for changed in touched)
        }
        return other

    def _may_apply(self, policy: Mapping[str, Any], heads: Heads) -> bool:
        principal_type, action, resource_type = heads
        actions = {action, *self._groups.get(action, ())}
        return may_apply(policy, principal_type, actions, resource_type)


class CedarEngine:
    """A validated set of Cedar policies with its schema. Immutable; safe to share between threads."""

    def __init__(
        self, schema: str, files: Mapping[str, str], *, known_notes: Mapping[str, PolicyNote]
    ) -> None:
        self._schema_text = schema
        self._schema = cedarpy.Schema.from_str(schema)
        self._declared = declared_in(str(self._schema))
        policies = static_policies("\n".join(files[name] for name in sorted(files)))
        self._scoped = ScopedPolicies(policies, self._schema)
        self._records = dict(known_notes)
        self._hard_denials = _ids_without_approvals(policies)
        # only remembers what the same arguments gave before
        self._slice = lru_cache(maxsize=SLICES)(self._parsed)

    def __reduce__(self) -> tuple[Any, ...]:
        """Parsed policies cannot travel to another process; their texts can."""
        policies = policies_as_text(list(self._scoped.policies.values()))
        return _made_again, (self._schema_text, {"policies": policies}, self._records)

    def with_policy(self, policy_id: str, policy: Mapping[str, Any] | None) -> CedarEngine:
        """The same engine but for the policy with this `@id`: another in Cedar's JSON form, or none. Not validated."""
        (name,) = (
            name
            for name, scoped_policy in self._scoped.policies.items()
            if _id_of(scoped_policy) == policy_id
        )
        other = object.__new__(CedarEngine)  # copying would go by `__reduce__` and parse everything again
        other.__dict__.update(self.__dict__)
        other._scoped = self._scoped.changed(name, policy)
        other._hard_denials = _ids_without_approvals(other._scoped.policies)
        return other

    @classmethod
    def compiled(cls, schema: str, files: Mapping[str, str]) -> CedarEngine:
        """The engine for these texts (by file name). Raises ConfigError naming every problem and file."""
        try:
            handle = cedarpy.Schema.from_str(schema)
        except ValueError as exc:
            raise ConfigError(
                f"loading policies: schema.cedarschema does not parse: {exc}; correct it"
            ) from exc
        problems: list[str] = []
        notes: dict[str, PolicyNote] = {}
        for name in sorted(files):
            problems += _problems_of_file(name, files[name], handle, notes)
        if not notes and not problems:
            problems.append("no policy in any file; nothing would ever be permitted")
        if problems:
            raise ConfigError(
                "loading policies: " + "; ".join(problems) + "; the former bundle stays in force"
            )
        return cls(schema, files, known_notes=notes)

    def notes(self) -> Mapping[str, PolicyNote]:
        """The annotations by policy id."""
        return self._records

    def evaluate(
        self, requests: Sequence[EngineRequest], entities: Sequence[Entity]
    ) -> tuple[RawAnswer, ...]:
        """One raw answer for each request. Raises ValueError when the entities break the schema."""
        slice_ = self._slice(to_json([self._entity(entity) for entity in entities]).decode())
        return tuple(
            self._answer(
                cedarpy.is_authorized(
                    self._request(request),
                    self._scoped.applicable(
                        f"{NAMESPACE}::{request.principal.type}",
                        (f"{NAMESPACE}::Action", request.action),
                        f"{NAMESPACE}::{request.resource.type}",
                    ),
                    slice_,
                    self._schema,
                )
            )
            for request in requests
        )

    def _entity(self, entity: Entity) -> dict[str, Any]:
        return {
            "uid": _uid(entity.uid),
            "attrs": self._declared.of_entity(entity.uid.type, entity.attributes),
            "parents": [_uid(parent) for parent in entity.parents],
        }

    def _request(self, request: EngineRequest) -> dict[str, str | dict[str, str]]:
        return {
            "principal": _uid(request.principal),
            "action": {"type": f"{NAMESPACE}::Action", "id": request.action},
            "resource": _uid(request.resource),
            "context": to_json(self._declared.of_context(request.action, request.context)).decode(),
        }

    def _parsed(self, entities: str) -> Any:
        return cedarpy.Entities.from_json_str(entities, self._schema)

    def _answer(self, result: Any) -> RawAnswer:
        diagnostics = result.diagnostics
        errors = [str(error) for error in diagnostics.errors]
        if result.decision is cedarpy.Decision.NoDecision and not errors:
            errors.append("the engine made no decision")
        ids = diagnostics.id_annotations_by_reason
        deciding = tuple(sorted(str(ids.get(reason, reason)) for reason in diagnostics.reasons))
        return RawAnswer(
            allowed=bool(result.allowed),
            deciding=deciding,
            errors=tuple(errors),
            hard_denials=()
            if result.allowed
            else tuple(policy_id for policy_id in deciding if policy_id in self._hard_denials),
        )


def policies_as_json(text: str) -> list[dict[str, Any]]:
    """The policies of this text in Cedar's JSON form. Raises ValueError when it does not parse."""
    return list(static_policies(text).values())


def policies_as_text(policies: Sequence[Mapping[str, Any]]) -> str:
    """The Cedar text of policies in Cedar's JSON form. Raises ValueError when it stands for none."""
    numbered = {f"policy{number}": dict(policy) for number, policy in enumerate(policies)}
    return str(cedarpy.policies_from_json_str(_form(numbered)))


def _made_again(schema: str, files: Mapping[str, str], notes: Mapping[str, PolicyNote]) -> CedarEngine:
    return CedarEngine(schema, files, known_notes=notes)


def static_policies(text: str) -> dict[str, dict[str, Any]]:
    """The policies of this text by the engine's own ids. Raises ValueError when it does not parse."""
    parsed: dict[str, Any] = json.loads(cedarpy.policies_to_json_str(text))
    return dict(parsed["staticPolicies"])


def _policy_set(policies: Mapping[str, Mapping[str, Any]]) -> Any:
    return cedarpy.PolicySet.from_json_str(_form(policies))


def _form(policies: Mapping[str, Mapping[str, Any]]) -> str:
    return json.dumps({"staticPolicies": policies, "templates": {}, "templateLinks": []})


def _ids_without_approvals(policies: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """The `@id` of every policy that is blind to approvals."""
    seeing = {_id_of(policy) for policy in policies.values() if reads_approvals(policy["conditions"])}
    return frozenset(_id_of(policy) for policy in policies.values()) - seeing - {""}


def _id_of(policy: Mapping[str, Any]) -> str:
    return str((policy.get("annotations") or {}).get("id") or "")


def _groups_of_actions(schema: Any) -> dict[ActionUid, frozenset[ActionUid]]:
    """Each action of the schema with every group above it."""
    actions = json.loads(str(cedarpy.Entities.from_json_str("[]", schema)))
    above = {
        (action["uid"]["type"], action["uid"]["id"]): {(of["type"], of["id"]) for of in action["parents"]}
        for action in actions
    }
    return {uid: frozenset(_ancestors(uid, above)) for uid in above}


def _ancestors(uid: ActionUid, above: Mapping[ActionUid, set[ActionUid]]) -> set[ActionUid]:
    actions: set[ActionUid] = set()
    waiting = [uid]
    while waiting:
        for parent in above.get(waiting.pop(), set()) - actions:
            actions.add(parent)
            waiting.append(parent)
    return actions


def _problems_of_file(name: str, text: str, schema: Any, notes: dict[str, PolicyNote]) -> list[str]:
    try:
        parsed: dict[str, Any] = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as exc:
        return [f"{name} does not parse: {exc}"]
    checked = cedarpy.validate_policies(text, schema)
    ids = checked.id_annotations_by_policy_id
    problems = [
        f"{name}: policy {ids.get(error.policy_id, error.policy_id)}: {error.error}"
        for error in checked.errors
    ]
    problems += [f"{name}: {problem}" for problem in problems_in(text, parsed)]
    for policy in parsed["staticPolicies"].values():
        annotations = policy.get("annotations") or {}
        policy_id = annotations.get("id") or ""
        if policy_id in notes:
            problems.append(f"{name}: @id {policy_id} is also in {notes[policy_id].file}")
        elif policy_id:
            notes[policy_id] = PolicyNote(
                policy_id=policy_id,
                effect=cast("Any", policy["effect"]),
                reason=annotations.get("reason") or "",
                would_change=annotations.get("would_change") or "",
                file=name,
            )
    return problems


def _uid(uid: Uid) -> dict[str, str]:
    return {"type": f"{NAMESPACE}::{uid.type}", "id": uid.id}
