"""What a bundle must not contain although the engine would take it.

Cedar's validation gives no warnings: look-alike letters, duplicate ids, a permit for everybody and approvals
used the wrong way round all pass it. The checks read Cedar's JSON form of the policies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from pilotage.policies.cedar.scopes import reads_approvals


def problems_in(text: str, parsed: dict[str, Any]) -> list[str]:
    """What is wrong with one file, in words; `parsed` is its JSON form."""
    problems = []
    strange = next((number for number, line in enumerate(text.splitlines(), 1) if not line.isascii()), 0)
    if strange:
        problems.append(f"line {strange} has a letter outside ASCII; a look-alike letter never matches")
    if parsed.get("templates"):
        problems.append("has a policy template; templates are not supported")
    policies = list(parsed["staticPolicies"].values())
    ids = [str((policy.get("annotations") or {}).get("id") or "") for policy in policies]
    problems += [
        f"@id {name} is used {times} times" for name, times in Counter(ids).items() if name and times > 1
    ]
    for policy, name in zip(policies, ids, strict=True):
        problems += _problems_of_policy(policy, name or "without @id")
    return problems


def _problems_of_policy(policy: dict[str, Any], name: str) -> Iterator[str]:
    annotations = policy.get("annotations") or {}
    if not annotations.get("id"):
        yield f"a {policy['effect']} has no @id; give it one"
    if not annotations.get("reason"):
        yield f"{policy['effect']} {name} has no @reason; say why in words"
    if policy["effect"] == "permit" and policy["principal"].get("op") == "All":
        yield f"permit {name} has no principal scope; write `principal in …` or `principal is …`"
    loosening = "unless" if policy["effect"] == "forbid" else "when"
    for condition in policy["conditions"]:
        if not _monotone(condition["body"], allowed_here=condition["kind"] == loosening):
            yield (
                f"{policy['effect']} {name} uses approvals other than as `approvals.role >= n` "
                f"in `{loosening}`; more approvals must never take a right away"
            )


def _monotone(node: Any, *, allowed_here: bool) -> bool:
    """Whether approvals occur only as `approvals.role >= literal`, joined by `&&` and `||`."""
    if not reads_approvals(node):
        return True
    if not allowed_here or not isinstance(node, dict) or len(node) != 1:
        return False
    ((operator, parts),) = node.items()
    match operator:
        case "&&" | "||":
            return _monotone(parts["left"], allowed_here=True) and _monotone(
                parts["right"], allowed_here=True
            )
        case ">=":
            return (
                isinstance(parts["right"].get("Value"), int)
                and set(parts["left"]) == {"."}
                and parts["left"]["."]["left"].get(".", {}).get("attr") == "approvals"
            )
        case _:
            return False
