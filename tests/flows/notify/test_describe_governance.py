"""Whatever people command has a sentence: nothing that a page or a log shows of it is empty."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pilotage.flows.notify.describe import told
from pilotage.flows.notify.describe_governance import governed

GRANT = {
    "holder": "ada", "kinds": ["retry_run"], "targets": ["run:*"],
    "until": "2027-03-01T12:10:00.000000+00:00", "reason": "outage",
}  # fmt: skip
NO = {"verdict": {"outcome": "deny", "reasons": ["a grant says why"]}}
LENT = {"giver": "ann", "taker": "bob", "until": "2027-03-01T20:00:00.000000+00:00", "reason": "holiday"}
TRUST = {
    "kind": "retry_run",
    "scope": "d-1",
    "before": "earned",
    "level": "demoted",
    "why": "it ended FAILED",
}
BUNDLE = {"bundle": "0123456789abcdef" * 4}
STEPS: dict[str, tuple[dict[str, Any], str]] = {
    "glass_broken": ({"grant": GRANT}, "BREAK-GLASS by ada, retry_run on run:*, until 2027-03-01 12:10 UTC: outage"),
    "glass_review": ({"grant": GRANT}, "look at what was done under it: ada"),
    "glass_refused": ({"grant": GRANT, **NO}, "a grant says why"),
    "delegated": ({"delegation": LENT}, "bob votes for ann until 2027-03-01 20:00 UTC: holiday"),
    "delegation_refused": ({"delegation": LENT, **NO}, "refused that bob votes for ann"),
    "delegation_ended": ({"ended": 2}, "2 delegation(s) taken back"),
    "promoted": (TRUST, "earned to demoted"),
    "demoted": (TRUST, "retry_run on d-1: earned to demoted: it ended FAILED"),
    "autonomy_set": (TRUST, "it ended FAILED"),
    "mode_set": ({"mode": "shadow", "reason": "drill"}, "mode shadow: drill"),
    "command_refused": ({"command": "set_mode", **NO}, "set_mode: a grant says why"),
    "signed_in": ({"how": "oidc", "roles": ["viewer"]}, "signed in by oidc as viewer"),
    "sign_in_failed": ({"how": "oidc", "why": "no claim gives a role"}, "did not sign in by oidc: no claim gives a role"),
    "sessions_ended": ({"of": "ann", "ended": 2}, "2 session(s) of ann ended"),
    "escalated": ({"to": "admin", "waited_since": "2027-03-01T12:00:00"}, "since 2027-03-01 12:00 UTC: every admin"),
    "replaced": ({"by": "p-2"}, "edited; p-2 takes its place"),
    "policy_published": (
        {**BUNDLE, "replaces": "f" * 64, "how": "votes"}, "0123456789ab in force instead of ffffffffffff"
    ),
    "policy_proposed": ({**BUNDLE, "voters": ["ada"], "needed": 2, "reason": "r"}, "1 of 2 votes: r"),
    "policy_approved": ({**BUNDLE, "voters": ["ada", "bob"], "needed": 2}, "2 of 2 votes"),
    "policy_refused": ({**BUNDLE, **NO}, "0123456789ab: a grant says why"),
    "policy_replaced": (BUNDLE, "policies 0123456789ab"),
    "policy_vetoed": ({**BUNDLE, "reason": "not now"}, "policies 0123456789ab: not now"),
    "policy_lapsed": (BUNDLE, "policies 0123456789ab"),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_each_command_is_told(name: str) -> None:
    detail, said = STEPS[name]
    assert said in told({"step": name, "detail": detail})


def test_every_step_of_grants_trust_and_publishing_has_a_row_here() -> None:
    ledger_code = Path(__file__).parents[3] / "policies" / "pilotage" / "policies" / "ledger"
    written = "".join(
        (ledger_code / f"{name}.py").read_text() for name in ("grants", "autonomy", "publications")
    )
    events = {word for word in re.findall(r'"([a-z_]+)"', written) if governed(word, {}) is not None}
    assert events - set(STEPS) == set()
    assert len(events) >= 12
