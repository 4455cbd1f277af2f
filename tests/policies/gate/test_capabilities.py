"""What people are told that they may do is what the gate would let them do."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.gate.capabilities import commands_open_to
from pilotage.policies.gate.gate import Gate
from pilotage.policies.types import Identity, Mode

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
GATE = Gate(Bundle.load(None))
OPEN = {
    "viewer": set(),
    "operator": {"stop", "undo"},
    "approver": {"vote", "stop", "resume", "delegate"},
    "admin": {
        "vote", "undo", "stop", "resume", "set_mode", "break_glass", "delegate", "set_autonomy", "publish_policy",
    },
}  # fmt: skip


@pytest.mark.parametrize("role", OPEN)
def test_each_role_is_told_what_the_shipped_rules_let_it_do(role: str) -> None:
    who = Identity(name="ann", kind="user", roles=frozenset({role}))
    told = commands_open_to(GATE, who, Mode.AUTO, NOW)
    assert {command for command, may in told.items() if may} == OPEN[role]


def test_an_agent_commands_nothing() -> None:
    agent = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))
    assert not any(commands_open_to(GATE, agent, Mode.AUTO, NOW).values())
