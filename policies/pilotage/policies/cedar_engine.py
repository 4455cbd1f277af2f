"""The Cedar adapter: the only importer of cedarpy.

It parses once and evaluates many times, always with the schema (without it, JSON from outside could smuggle
entities in) and always with ids as `{type, id}` objects (ids as text can break out of their quotes).
What Cedar's own validation passes and we do not is checked by `policy_lint`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import cedarpy

from pilotage.policies.engines import EngineRequest, Entity, PolicyNote, RawAnswer, Uid
from pilotage.policies.policy_lint import problems_in
from pilotage.telemetry.errors import ConfigError

NAMESPACE = "Pilotage"


class CedarEngine:
    """A validated set of Cedar policies with its schema. Immutable; safe to share between threads."""

    def __init__(
        self, schema: str, files: Mapping[str, str], *, known_notes: Mapping[str, PolicyNote]
    ) -> None:
        self._schema = cedarpy.Schema.from_str(schema)
        self._policies = cedarpy.PolicySet.from_str("\n".join(files[name] for name in sorted(files)))
        self._notes = dict(known_notes)

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
        return self._notes

    def evaluate(
        self, requests: Sequence[EngineRequest], entities: Sequence[Entity]
    ) -> tuple[RawAnswer, ...]:
        """One raw answer for each request. Raises ValueError when the entities break the schema."""
        slice_ = cedarpy.Entities.from_json_str(
            json.dumps([_entity(entity) for entity in entities]), self._schema
        )
        return tuple(
            self._answer(cedarpy.is_authorized(_request(request), self._policies, slice_, self._schema))
            for request in requests
        )

    def _answer(self, result: Any) -> RawAnswer:
        told = result.diagnostics
        errors = [str(error) for error in told.errors]
        if result.decision is cedarpy.Decision.NoDecision and not errors:
            errors.append("the engine made no decision")
        ids = told.id_annotations_by_reason
        return RawAnswer(
            allowed=bool(result.allowed),
            deciding=tuple(sorted(str(ids.get(reason, reason)) for reason in told.reasons)),
            errors=tuple(errors),
        )


def policies_as_json(text: str) -> list[dict[str, Any]]:
    """The policies of this text in Cedar's JSON form. Raises ValueError when it does not parse."""
    parsed: dict[str, Any] = json.loads(cedarpy.policies_to_json_str(text))
    return list(parsed["staticPolicies"].values())


def policies_as_text(policies: Sequence[Mapping[str, Any]]) -> str:
    """The Cedar text of policies in Cedar's JSON form. Raises ValueError when it stands for none."""
    numbered = {f"policy{number}": dict(policy) for number, policy in enumerate(policies)}
    form = {"staticPolicies": numbered, "templates": {}, "templateLinks": []}
    return str(cedarpy.policies_from_json_str(json.dumps(form)))


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


def _entity(entity: Entity) -> dict[str, Any]:
    return {
        "uid": _uid(entity.uid),
        "attrs": dict(entity.attributes),
        "parents": [_uid(parent) for parent in entity.parents],
    }


def _request(request: EngineRequest) -> dict[str, Any]:
    return {
        "principal": _uid(request.principal),
        "action": {"type": f"{NAMESPACE}::Action", "id": request.action},
        "resource": _uid(request.resource),
        "context": dict(request.context),
    }
