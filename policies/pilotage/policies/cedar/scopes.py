"""What a policy's head alone says: to which questions it cannot apply, and whether approvals bear on it.

The checks read Cedar's JSON form of one policy. Both answers lean to the safe side: `may_apply` is false only
where the head can never match, `reads_approvals` is false only where no part of the text can see them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

ActionUid = tuple[str, str]
"""Type with namespace, and id."""


def may_apply(
    policy: Mapping[str, Any], principal_type: str, actions: Collection[ActionUid], resource_type: str
) -> bool:
    """Whether the head can match such a question; `actions` are the one asked about and all its groups.

    Types have their namespace. What `in` compares with depends on entities, so only types are looked at there.
    """
    return (
        _type_may_match(policy["principal"], principal_type)
        and _action_may_match(policy["action"], actions)
        and _type_may_match(policy["resource"], resource_type)
    )


def reads_approvals(node: Any) -> bool:
    """Whether this part of a policy can see approvals: by name, or by holding all of `context` or of its world."""
    match node:
        case {"has": {"left": left, "attr": str(attribute)}} if _holds_approvals(left):
            return attribute == "approvals"
        case {".": {"left": left, "attr": str(attribute)}} if _holds_approvals(left):
            return attribute == "approvals" or _holds_approvals(node)
        case dict():
            return (
                _holds_approvals(node)
                or node.get("attr") == "approvals"
                or any(reads_approvals(part) for part in node.values())
            )
        case list():
            return any(reads_approvals(part) for part in node)
        case _:
            return False


def _holds_approvals(node: Any) -> bool:
    """Whether this is `context` or `context.world`, the records that approvals lie in."""
    match node:
        case {"Var": "context"} | {".": {"left": {"Var": "context"}, "attr": "world"}}:
            return True
        case _:
            return False


def _type_may_match(scope: dict[str, Any], asked: str) -> bool:
    match scope:
        case {"op": "is", "entity_type": str(wanted)} | {"op": "==", "entity": {"type": str(wanted)}}:
            return wanted == asked
        case _:
            return True


def _action_may_match(scope: dict[str, Any], actions: Collection[ActionUid]) -> bool:
    match scope:
        case {"op": "==" | "in", "entity": dict(entity)}:
            named = [entity]
        case {"op": "in", "entities": list(entities)}:
            named = entities
        case _:
            return True
    return any((entity["type"], entity["id"]) in actions for entity in named)
