"""The roles: what each may be called, which includes which, and who fills which seat of an approval.

The table here is the only one. The Cedar slice takes its Role entities from it, the identity book checks
names against it, and the seats of approvals are matched with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum


class Role(StrEnum):
    """What a caller is trusted with."""

    VIEWER = "viewer"
    """Reads; proposes, votes and commands nothing."""
    OPERATOR = "operator"
    """Proposes actions, stops everything, undoes."""
    APPROVER = "approver"
    """Votes on proposals, stops everything, votes to resume."""
    ADMIN = "admin"
    """All of that, and sets the mode."""
    AGENT = "agent"
    """A agent process; proposes within the agents' rules."""


INCLUDES: Mapping[Role, tuple[Role, ...]] = {
    Role.VIEWER: (),
    Role.OPERATOR: (Role.VIEWER,),
    Role.APPROVER: (Role.VIEWER,),
    Role.ADMIN: (Role.OPERATOR, Role.APPROVER),
    Role.AGENT: (),
}
"""Role to the roles that it includes."""

OWNER = "owner"
"""A seat, not a role: filled by an approver of the team that owns the target."""
APPROVAL_ROLES: tuple[str, ...] = (Role.APPROVER, OWNER, Role.ADMIN)
"""The kinds of seat that an approval may ask for, cheapest first."""


def expanded(roles: Collection[str]) -> frozenset[str]:
    """The given roles and everything that they include; names that are no roles are left out."""
    held: set[str] = set()
    waiting = [role for role in Role if role.value in set(roles)]
    while waiting:
        role = waiting.pop()
        if role not in held:
            held.add(role)
            waiting.extend(INCLUDES[role])
    return frozenset(held)
