"""How a person is told no: who they are, what it takes, and what would change the answer."""

from __future__ import annotations

from datetime import datetime

from pilotage.flows.api.client import ApiRejection
from pilotage.policies.gate.capabilities import commands_open_to
from pilotage.policies.gate.gate import Command, Gate
from pilotage.policies.roles import INCLUDES, Role, expanded
from pilotage.policies.types import Identity, Mode, Verdict

_PEOPLE = (Role.VIEWER, Role.OPERATOR, Role.APPROVER, Role.ADMIN)


def refusal(
    what: str,
    caller: Identity,
    verdict: Verdict,
    gate: Gate,
    command: Command | str,
    *,
    mode: Mode,
    now: datetime,
    kind: str = "denied",
) -> ApiRejection:
    """The refusal to raise, after it was written down.

    The roles that it takes are those for which this gate says yes to `command`.
    """
    roles = ", ".join(sorted(caller.roles)) or "nobody yet"
    enough = {role for role in _PEOPLE if _open_to(role, command, gate, mode, now)}
    smallest = [role for role in _PEOPLE if role in enough and not expanded(set(INCLUDES[role])) & enough]
    if verdict.policy_ids == ("!default-deny",) and smallest and not expanded(caller.roles) & enough:
        why = f"{' or '.join(smallest)} is needed"
    else:
        why = "; ".join((*verdict.reasons, *verdict.would_change)) or "no rule allows it"
    return ApiRejection(kind, f"{what}: you are {caller.name} ({roles}); {why}.", recorded=True)


def _open_to(role: Role, command: str, gate: Gate, mode: Mode, now: datetime) -> bool:
    somebody = Identity(name="somebody", kind="user", roles=frozenset({role.value}))
    return commands_open_to(gate, somebody, mode, now)[command]
