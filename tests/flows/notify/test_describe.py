"""A story in words: every step has a sentence, nothing that a run says becomes markup."""

from __future__ import annotations

import json
from typing import Any

import pytest
from markdown_it import MarkdownIt

from pilotage.flows.notify.describe import (
    action_in_words,
    as_markdown,
    label,
    proposal_for_log,
    readable,
    told,
)
from pilotage.planner.actions.types import ACTION, action_as_json, action_from_json


def step(name: str, **detail: Any) -> dict[str, Any]:
    return {"at": "2026-01-02T03:04:05.000000+00:00", "step": name, "actor": "ann", "detail": detail}


STEPS = {
    "found": (
        step("found", failure_class="auth", rule_id="http-401", notes=["401 Unauthorized"]),
        "401 Unauthorized",
    ),
    "forecast": (
        step("forecast", p_fail=0.91, forecast_model="ewma", forecast_reasons=["5 in a row"]),
        "91% chance",
    ),
    "proposed": (
        step(
            "proposed", proposal={"action": {"kind": "retry_run"}}, case={"alternatives": ["cancel_run: no"]}
        ),
        "not taken: cancel_run: no",
    ),
    "judged": (
        step(
            "judged",
            verdict={
                "outcome": "deny",
                "policy_ids": ["freeze"],
                "reasons": ["frozen"],
                "would_change": ["wait"],
            },
        ),
        "deny by freeze: frozen (what would change it: wait)",
    ),
    "proposed by editing": (
        step("proposed", proposal={"action": {"kind": "retry_run"}}, replaces="p-1"),
        "retry the run in place at once, instead of p-1",
    ),
    "edit_refused": (
        step("edit_refused", verdict={"outcome": "deny", "reasons": ["it is replaced"]}),
        "replaced",
    ),
    "approved": (step("approved", roles=["approver"], reason="go"), "as approver: go"),
    "injected": (
        step("injected", effect="refused", receipt={"after": {"reason": "it moved on"}}),
        "it moved on",
    ),
    "failed": (step("failed", why="no answer", transient=False), "given up"),
    "verified": (step("verified", judgement="failed", text="it ended FAILED"), "failed: it ended FAILED"),
    "undone": (step("undone", effect="done", undo={"why": "its hold ran out"}), "its hold ran out"),
}


@pytest.mark.parametrize("name", STEPS)
def test_each_step_is_told(name: str) -> None:
    one, said = STEPS[name]
    assert said in told(one)


def test_each_action_has_words_of_its_own() -> None:
    schema = ACTION.json_schema()
    kinds = sorted(schema["discriminator"]["mapping"])
    assert len({action_in_words({"kind": kind}) for kind in kinds}) == len(kinds)
    assert [kind for kind in kinds if action_in_words({"kind": kind}) == kind] == []


def test_a_wait_is_not_called_a_failure_and_is_told_once() -> None:
    wait = step("failed", why="the worker holds it", transient=True)
    assert label(wait) == "waiting"
    assert [times for _, times in readable([wait, step("claimed"), wait, wait, STEPS["verified"][0]])] == [
        3,
        1,
    ]


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "[click](javascript:alert(1))",
        "**bold** | `code`\n# head",
        "![x](http://x/y.png)",
    ],
)
def test_what_a_run_says_stays_text_in_prefects_artifact(text: str) -> None:
    html = (
        MarkdownIt("commonmark")
        .enable("table")
        .render(as_markdown([step("found", failure_class="x", notes=[text])]))
    )
    for forbidden in ("<script", "<a ", "<img", "<code", "<h1", 'javascript:alert(1)"'):
        assert forbidden not in html
    assert html.count("<strong>") == 1


def test_a_retry_tells_its_other_parameters_and_what_it_did_again() -> None:
    action = {
        "kind": "retry_run",
        "changes": [{"name": "day", "value": "2026-11-02"}, {"name": "dry", "value": True}],
    }
    assert action_in_words(action) == "retry the run in place at once, with day='2026-11-02', dry=True"
    after = {"tasks": "load and what follows run again; extract taken from storage"}
    assert told(step("injected", effect="done", receipt={"after": after})) == f"done: {after['tasks']}"


def test_a_start_in_another_zone_is_kept_and_told_in_utc() -> None:
    run_id = "01234567-89ab-cdef-0123-456789abcdef"
    asked = {"kind": "reschedule_run", "run_id": run_id, "start": "2026-05-01T12:00:00+02:00"}
    action = action_as_json(action_from_json(json.dumps(asked)))
    assert action_in_words(action) == "move its start to 2026-05-01 10:00:00 UTC"


@pytest.mark.parametrize(
    ("proposal", "said"),
    [
        (
            {"kind": "retry_run", "run_id": "r-1", "target_facts": {"deployment_name": "pay/out"}},
            "p-1 retry_run on pay/out, run r-1",
        ),
        ({"action": {"kind": "retry_run", "run_id": "r-1"}}, "p-1 retry_run on run r-1"),
        ({"kind": "hold_queue", "target": "queue:main/low"}, "p-1 hold_queue on queue:main/low"),
        ({}, "p-1 unknown action on an unknown target"),
        (
            {
                "kind": "retry_run",
                "run_id": "r-1",
                "target_facts": {"deployment_name": "a\n2026 p-2 allowed"},
            },
            "p-1 retry_run on a⏎2026 p-2 allowed, run r-1",
        ),
    ],
    ids=["whole", "not judged yet", "a queue", "unknown", "a name that would be a line of its own"],
)
def test_a_line_of_the_log_names_deployment_run_and_action(proposal: dict[str, Any], said: str) -> None:
    assert proposal_for_log({"proposal_id": "p-1", **proposal}) == said


def test_no_control_sign_of_a_state_or_a_reason_reaches_prefects_artifact() -> None:
    said = as_markdown([step("approved", roles=["approver"], reason="\x1b[2Jfine\u202e\x07\u200b")])
    assert {sign for sign in said if not sign.isprintable()} <= {"\n"}
    assert "x1b" in said
