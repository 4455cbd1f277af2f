"""How a person is told no: who they are, what it takes, and what would change the answer."""

from __future__ import annotations

from collections.abc import Callable

from pilotage.flows.desk_client import DeskRefusal
from pilotage.policies.roles import INCLUDES, Role, expanded
from pilotage.policies.verdicts import Identity, Outcome, Verdict

PEOPLE_ROLES = (Role.VIEWER, Role.OPERATOR, Role.APPROVER, Role.ADMIN)
"""The roles that people have, the smallest first."""


def refusal(
    what: str,
    caller: Identity,
    verdict: Verdict,
    ask: Callable[[Identity], Verdict],
    *,
    kind: str = "denied",
) -> DeskRefusal:
    """The refusal to raise. `ask` puts the same question for somebody else, which tells the roles it takes."""
    roles = ", ".join(sorted(caller.roles)) or "without a role"
    enough = [role for role in PEOPLE_ROLES if _would(ask, role)]
    needed = [role for role in enough if not expanded(set(INCLUDES[role])) & set(enough)]
    if verdict.policy_ids == ("!default-deny",) and needed and not expanded(caller.roles) & set(enough):
        why = f"you are {roles}; {' or '.join(needed)} is needed"
    else:
        why = "; ".join((*verdict.reasons, *verdict.would_change)) or "no rule allows it"
        why = f"you are {roles}; {why}"
    return DeskRefusal(kind, f"{what}: {caller.name}, {why}.")


def _would(ask: Callable[[Identity], Verdict], role: Role) -> bool:
    somebody = Identity(name="somebody else", kind="user", roles=frozenset({role.value}))
    return ask(somebody).outcome is Outcome.ALLOW
