"""From the claims of an identity provider to an identity: a mapping, and nothing that it does not say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pilotage.policies.roles import Role
from pilotage.policies.types import Identity

RULE = re.compile(r"[^=]{1,200}=.{1,400}")
"""`claim=value`; a claim within another is named with dots, such as `realm_access.roles=ops`."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,79}")
_EMAIL = "email"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRules:
    """Which claims make whom."""

    name_claim: str = _EMAIL
    roles: Mapping[str, tuple[str, ...]]
    """Role to the rules of which one must hold."""
    teams: Mapping[str, tuple[str, ...]]


def identity_from(claims: Mapping[str, Any], rules: ClaimRules) -> Identity | str:
    """Return who somebody with these claims is; or why nobody, in words for that person."""
    name = claims.get(rules.name_claim)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"the identity provider says no usable {rules.name_claim}"
    if rules.name_claim == _EMAIL and claims.get("email_verified") is not True:
        return "the identity provider has not verified the address"
    roles = frozenset(
        role for role, ways in rules.roles.items() if role != Role.AGENT and _any_holds(claims, ways)
    )
    if not roles:
        return "no claim gives a role here; an admin maps claims to roles in the settings (oidc.roles)"
    teams = frozenset(team for team, ways in rules.teams.items() if _any_holds(claims, ways))
    return Identity(name=name, kind="user", roles=roles, teams=teams)


def _any_holds(claims: Mapping[str, Any], ways: tuple[str, ...]) -> bool:
    return any(_holds(claims, *way.split("=", 1)) for way in ways)


def _holds(claims: Mapping[str, Any], claim: str, wanted: str) -> bool:
    value: Any = claims.get(claim)
    if value is None:
        value = claims
        for part in claim.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    given = value if isinstance(value, list) else [value]
    return any(isinstance(each, str | bool | int) and _text(each) == wanted for each in given)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
