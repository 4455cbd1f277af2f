"""Every kind of action can be asked for in a conversation; what it names must be there, and said by somebody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from tests.planner.conftest import Maker
from tests.planner.planner_fixture import ALL, MemoryApi

from pilotage.planner.actions.forms import in_full, signature
from pilotage.planner.actions.types import ACTIONS, KINDS, ActionKind
from pilotage.planner.chat.citations import REFERENCES
from pilotage.planner.chat.tool_calls import refusal
from pilotage.planner.chat.tools import A_MODELS_WORD, Toolbox
from pilotage.telemetry.facts import DeploymentFact, StateType
from pilotage.telemetry.store.duckdb import DuckDBStore

EARLIER = "77777777-7777-4777-8777-777777777777"
STRANGE = "88888888-8888-4888-8888-888888888888"
REMEDY = "99999999-9999-4999-8999-999999999999"


class ProposalApi(MemoryApi):
    def consider(self, action: Any) -> dict[str, Any]:
        return {"outcome": "deny"}


@pytest.fixture
def control_api() -> ProposalApi:
    return ProposalApi()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBStore]:
    make = Maker()
    store = DuckDBStore(tmp_path_factory.mktemp("wishes") / "telemetry.duckdb")
    completed = {"state_type": StateType.COMPLETED, "state_name": "Completed", "state_message": ""}
    store.merge_runs(
        [
            make.run(parameters={"region": "eu", "day": "2026-11-21", "key": "[redacted]"}),
            make.run(run_id=EARLIER, parameters={"region": "us", "key": "[redacted]"}, **completed),
            make.run(run_id=STRANGE, deployment_id=REMEDY, parameters={"region": "mars"}, **completed),
        ]
    )
    store.add_queues([make.queue("fast", 1), make.queue("slow", 2)])
    store.merge_deployments(
        [
            DeploymentFact(
                deployment_id=make.deployment_id, name="nightly", flow_name="etl", updated=make.now
            ),
            DeploymentFact(deployment_id=REMEDY, name="vacuum", flow_name="mend", updated=make.now),
        ]
    )
    yield store
    store.close()


@pytest.fixture
def tools(store: DuckDBStore, make: Any, control_api: ProposalApi) -> Toolbox:
    return Toolbox(store=store, control_api=control_api, clock=lambda: make.now, on_behalf_of="ann")


def wishes(make: Any) -> dict[ActionKind, tuple[str, dict[str, Any]]]:
    """One of each kind, as a model would spell it."""
    run, deployment = make.run_id, "etl/nightly"
    return {
        "retry_run": (run, {"delay": "5m", "changes": {"region": {"from_run": EARLIER}}}),
        "resize_run": (run, {"memory_mb": 512}),
        "size_run": (run, {"memory_mb": 512}),
        "reschedule_run": (run, {"start": "+30m"}),
        "reserve_slot": ("pool/slow", {"starved_queue": "fast", "limit": 1, "hold": 600}),
        "cancel_run": (run, {}),
        "pause_deployment": (deployment, {"hold": "2 hours"}),
        "notify_owner": (run, {"severity": "info"}),
        "change_parameters": (run, {"changes": [{"name": "day", "value": "2026-11-22"}]}),
        "move_run": (run, {"queue": "slow"}),
        "set_priority": ("pool/fast", {"priority": 1, "hold": "PT10M"}),
        "set_limit": ("queue:pool/fast", {"limit": 3, "hold": "1h"}),
        "hold_queue": ("pool", {"hold": "10m"}),
        "release_queue": ("pool/fast", {}),
        "raise_retries": (run, {"retries": 2}),
        "cancel_tree": (f"run:{run}", {}),
        "launch_remediation": (run, {"deployment_id": "mend/vacuum"}),
        "send_directive": (run, {"directive": "drain"}),
        "suspend_run": (run, {"hold": "10m"}),
        "resume_run": (run, {}),
        "spread_runs": (deployment, {"first": "+1m", "wave": 5, "every": "1m"}),
        "catch_up": (deployment, {"keep": 1, "first": "+1m", "wave": 1, "every": 60}),
        "mark_crashed": (run, {}),
        "start_run": (run, {}),
        "release_slot": ("tag:database", {}),
        "override_result": (run, {"task": "rates", "value": 1.5}),
        "answer_run": (run, {"answers": {"go_on": True}}),
        "resolve_alert": (run, {}),
    }


def test_every_kind_can_be_asked_for_and_is_spelt_in_one_line(make: Any) -> None:
    assert set(ACTIONS) == set(KINDS) == set(ALL) >= set(wishes(make))
    assert signature("retry_run") == "retry_run(run; delay?, changes?)"
    assert signature("reserve_slot") == "reserve_slot(queue; starved_queue, limit, hold)"
    assert signature("set_limit") == "set_limit(limit; limit, hold)"
    told = in_full("send_directive")
    assert told["arguments"]["directive"]["enum"][:2] == ["checkpoint", "drain"]
    assert in_full("hold_queue")["arguments"]["hold"]["format"] == "duration"


@pytest.mark.parametrize("kind", ALL)
def test_a_wish_of_any_kind_is_handed_in_once(
    tools: Toolbox, control_api: ProposalApi, make: Any, kind: ActionKind
) -> None:
    # a kind that has no row above is asked for by its own example
    target, arguments = wishes(make).get(kind) or (make.run_id, dict(ACTIONS[kind].example))
    told = [tools.propose(kind, target, arguments) for _ in range(2)]
    assert told[0].get("outcome") == "allow", told
    assert told[0] == told[1]
    [(proposal, case)] = control_api.filed.values()
    assert proposal.action.kind == kind
    assert (case.found_by, proposal.playbook) == ("agent", "model")
    assert proposal.evidence[-1] == A_MODELS_WORD
    bound = bool(getattr(proposal.action, "run_id", "")) and kind not in ("notify_owner", "resolve_alert")
    assert bool(proposal.expected_state_id) == bound


def test_what_is_asked_for_again_later_is_wanted_again(
    tools: Toolbox, control_api: ProposalApi, make: Any
) -> None:
    later = Toolbox(
        store=tools.store,
        control_api=control_api,
        clock=lambda: make.now + timedelta(hours=1),
        on_behalf_of="ann",
    )
    tools.propose("hold_queue", "pool/fast", {"hold": "10m"})
    later.propose("hold_queue", "pool/fast", {"hold": "10m"})
    assert len(control_api.filed) == 2


def test_names_become_ids_and_references_become_values(
    tools: Toolbox, control_api: ProposalApi, make: Any
) -> None:
    tools.propose("pause_deployment", "etl/nightly", {"hold": "1h"})
    tools.propose("retry_run", make.run_id, {"changes": {"region": {"from_run": EARLIER}}})
    paused, retried = control_api.actions
    assert paused["deployment_id"] == make.deployment_id
    assert retried["changes"] == [{"name": "region", "value": "us"}]


@pytest.mark.parametrize(
    ("kind", "target", "arguments", "why"),
    [
        ("retry_run", STRANGE[::-1], {}, "does not know this run"),
        ("pause_deployment", "etl/weekly", {"hold": "1h"}, "no deployment has this id or name"),
        ("hold_queue", "pool/other", {"hold": "1h"}, "no queue 'other' was seen in pool pool"),
        ("hold_queue", "basin", {"hold": "1h"}, "no pool 'basin' was seen"),
        ("reserve_slot", "pool/slow", {"starved_queue": "x", "limit": 1, "hold": 60}, "no queue 'x'"),
        ("set_limit", "queue:pool/x", {"limit": 1, "hold": 60}, "no queue 'x'"),
        ("set_limit", "deployment:etl/x", {"limit": 1, "hold": 60}, "no deployment"),
        ("move_run", "RUN", {"queue": "x"}, "no queue 'x'"),
        ("launch_remediation", "RUN", {"deployment_id": "x"}, "no deployment"),
        ("change_parameters", "RUN", {"changes": {"planet": "eu"}}, "no run of this deployment has a parameter 'planet'"),
        ("change_parameters", "RUN", {"changes": {"region": {"from_run": STRANGE}}}, "none of this deployment"),
        ("change_parameters", "RUN", {"changes": {"region": {"from_run": "RUN"}}}, "did not complete"),
        ("change_parameters", "RUN", {"changes": {"key": {"from_run": EARLIER}}}, "kept secret"),
        ("change_parameters", "RUN", {"changes": {"region": "a whole sentence"}}, "not valid"),
        ("set_limit", "planet:earth", {"limit": 1, "hold": 60}, "not valid"),
        ("pause_deployment", "etl/nightly", {"hold": "9 weeks"}, "not valid"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_with_the_reason(
    tools: Toolbox,
    control_api: ProposalApi,
    make: Any,
    kind: str,
    target: str,
    arguments: dict[str, Any],
    why: str,
) -> None:
    given = json.loads(json.dumps(arguments).replace('"RUN"', f'"{make.run_id}"'))
    refused = tools.propose(kind, target.replace("RUN", make.run_id), given)
    assert refused["status"] == "refused"
    assert why in refused["error"]
    assert control_api.filed == {}


# -- and somebody must have said it


def why_refused(said: str, kind: str, target: str, arguments: dict[str, Any], *refs: str) -> str:
    """What the guard says of this call after these words and a look-up with these references."""
    citation = {"refs": [{"ref": ref, "page": ""} for ref in refs[:REFERENCES]]}
    beside = {"result": {}, "citation": citation, "named": list(refs), "seconds": 0}
    look_up = ToolMessage("{}", tool_call_id="c", artifact=beside)
    call = {"kind": kind, "target": target, "arguments": arguments}
    return refusal("draft", call, [HumanMessage(said), AIMessage(""), look_up])


@pytest.mark.parametrize(
    ("said", "kind", "target", "arguments", "refs"),
    [
        ("hold the queue fast of pool", "hold_queue", "pool/fast", {"hold": "10m"}, ()),
        ("hold the queue that waits", "hold_queue", "pool/fast", {"hold": "10m"}, ("queue:pool/fast",)),
        ("pause its deployment", "pause_deployment", EARLIER, {"hold": "1h"}, (f"deployment:{EARLIER}",)),
        ("retry it with region eu", "retry_run", EARLIER, {"changes": {"region": "eu"}}, (f"run:{EARLIER}",)),
        ("override the result of rates with 1.5", "override_result", EARLIER, {"task": "rates", "value": 1.5},
         (f"run:{EARLIER}",)),
        ("answer it: go_on is true", "answer_run", EARLIER, {"answers": {"go_on": True}}, (f"run:{EARLIER}",)),
        ("retry it with the region of then", "retry_run", EARLIER, {"changes": {"region": {"from_run": STRANGE}}},
         (f"run:{EARLIER}",)),
        ("set the limit of tag database to 3", "set_limit", "tag:database", {"limit": 3, "hold": "1h"}, ()),
        ("tell it to drain", "send_directive", EARLIER, {"directive": "drain"}, (f"run:{EARLIER}",)),
        ("yes", "retry_run", EARLIER, {}, (f"run:{EARLIER}",)),
        ("go ahead", "cancel_run", EARLIER, {}, (f"run:{EARLIER}",)),
        ("run it once more", "retry_run", EARLIER, {}, (f"run:{EARLIER}",)),
        ("Bitte noch einmal starten", "retry_run", EARLIER, {}, (f"run:{EARLIER}",)),
        ("Mets la file fast de pool en pause, dix minutes", "hold_queue", "pool/fast", {"hold": "10m"}, ()),
        ("retry the last of them", "retry_run", EARLIER, {}, (*(f"run:{n}" for n in range(40)), f"run:{EARLIER}")),
    ],
)  # fmt: skip
def test_what_somebody_has_named_may_be_drafted_in_any_language(
    said: str, kind: str, target: str, arguments: dict[str, Any], refs: tuple[str, ...]
) -> None:
    assert why_refused(said, kind, target, arguments, *refs) == ""


@pytest.mark.parametrize(
    ("said", "kind", "target", "arguments", "why"),
    [
        ("hold the queue fast of pool", "hold_queue", "pool/slow", {"hold": "10m"}, "nobody has named 'pool/slow'"),
        (f"override the result of rates of {EARLIER}", "override_result", EARLIER, {"task": "rates", "value": 7},
         "nobody has said '7'"),
        (f"move {EARLIER} to another queue", "move_run", EARLIER, {"queue": "mine"}, "nobody has said 'mine'"),
        (f"retry {EARLIER} with another region", "retry_run", EARLIER,
         {"changes": [{"name": "region", "value": "mars"}]}, "nobody has said 'mars'"),
        (f"fix {EARLIER}", "launch_remediation", EARLIER, {"deployment_id": REMEDY}, "nobody has said"),
        ("hold it", "hold_queue", "", {}, "nobody has named ''"),
    ],
)  # fmt: skip
def test_what_nobody_has_named_may_not(
    said: str, kind: str, target: str, arguments: dict[str, Any], why: str
) -> None:
    assert why in why_refused(said, kind, target, arguments)
