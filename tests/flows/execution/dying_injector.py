"""One injector with real parts that is killed, with SIGKILL, at a chosen boundary. Run as a script by the tests.

It reads orders from its input, one JSON object a line, and forks a process for each, so that a death costs
no start. What came of it is one JSON object on its output: how the process ended, and how many writes to Prefect it
had made. Boundaries, in the order in which a change comes to them:

  filed      before the verdict is looked for
  judged     after the verdict was recorded
  admitted   after the outbox row was written
  claimed    after the claim, before the lever is asked
  write:N    after Prefect has answered the Nth write of the lever
  effect     after the lever has returned, before the delivery is recorded
  recorded   after the delivery was recorded
  verified   after the lever has looked at the target, before the outcome is recorded
  undo:N     after Prefect has answered the Nth write of the way back
  undone     after the lever has returned from the way back, before that is recorded
  none       nowhere: it goes on to the end
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypedDict

import httpx

from pilotage.flows.execution.injector import Injector, InjectorLimits
from pilotage.flows.execution.receipts import Check, Delivery, Lever
from pilotage.flows.levers import build_levers
from pilotage.flows.levers.catch_up import CatchUpLever
from pilotage.flows.levers.mark_crashed import MarkCrashedLever
from pilotage.flows.levers.release_slot import ReleaseSlotLever
from pilotage.flows.levers.reschedule_run import RescheduleLever
from pilotage.flows.levers.spread_runs import SpreadLever
from pilotage.flows.notify.notifier import Notifier
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.guard import ADMITTED
from pilotage.flows.prefect.target_facts import PrefectFacts
from pilotage.planner.actions.types import Action
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.gate.gate import Gate
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import Mode

SETTLE = timedelta(milliseconds=300)
"""No worker serves the targets of these tests, so none has to let go of a run."""


AHEAD = timedelta(minutes=5)
"""How far the clock of whoever looks for the dead is set ahead."""
SETTABLE = frozenset({"SCHEDULED", "PAUSED", "CANCELLING", "CANCELLED", "CRASHED"})
"""State types that levers propose for runs; CRASHED for one that is proven dead."""


class Order(TypedDict):
    """What one process is to do."""

    ledger: str
    bundle: str
    proposal: str
    step: str
    undo: bool
    """Whether it also takes the change back."""


class MortalApi(PrefectApi):
    """An API that counts its writes and ends the process after one of them."""

    phase = ""
    deadly = ""
    writes: int = 0

    def enter(self, phase: str) -> None:
        """Count writes from one again."""
        self.phase, self.writes = phase, 0

    async def _send(
        self, method: str, route: str, *, none_on: tuple[int, ...] = (), **sent: Any
    ) -> httpx.Response | None:
        if why := why_never(method, route, sent.get("json")):
            raise AssertionError(f"{method} {route} {sent}: {why}")
        answer = await super()._send(method, route, none_on=none_on, **sent)
        if method != "GET" and not route.endswith("/filter"):
            self.writes += 1
            if f"{self.phase}:{self.writes}" == self.deadly:
                die()
        return answer


def why_never(method: str, route: str, body: Any) -> str:
    """Why no lever may ever send this to Prefect, or an empty text."""
    said: dict[str, Any] = body if isinstance(body, dict) else {}
    state: dict[str, Any] = said.get("state") or {}
    type_, name = state.get("type"), state.get("name")
    if said.get("force"):
        return "force: Prefect's rules are the last guard"
    ours = route.startswith("/variables/name/pilotage_") or "/input/pilotage-" in route
    if method == "DELETE" and not ours:
        return "nothing but our own notes and inputs is deleted"
    if method == "PATCH" and route.startswith("/deployments"):
        return "a deployment that is changed loses its future runs"
    if said.get("limit", 1) == 0 or said.get("concurrency_limit", 1) == 0:
        return "a limit of 0 makes tasks fail"
    if route.startswith("/task_runs/") and route.endswith("/set_state") and type_ != "COMPLETED":
        return "states of task runs from outside are ignored"
    if route.startswith("/flow_runs/") and route.endswith("set_state"):
        if type_ == "PAUSED" and not (state.get("state_details") or {}).get("pause_reschedule"):
            return f"{name} from outside does not stop the tasks"
        guard = ((said.get("flow_runs") or {}).get("state") or {}).get("type") or {}
        resumes = type_ == "RUNNING" and guard.get("any_") == ["PAUSED"]
        if type_ not in SETTABLE and not resumes:
            return f"{type_} from outside does not end a process"
    return ""


class Dying:
    """A lever that ends the process before or after the real one has worked."""

    def __init__(self, lever: Lever, step: str, api: MortalApi, told: dict[str, int]) -> None:
        self._lever, self._step, self._api, self._told = lever, step, api, told
        self.kind, self.window, self.undoable = lever.kind, lever.window, lever.undoable
        self.writes = lever.writes

    async def execute(
        self, action: Action, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        die_at("claimed", self._step)
        self._api.enter("write")
        delivery = await self._lever.execute(
            action, idempotency_key=idempotency_key, expected_state_id=expected_state_id, message=message
        )
        self._told["writes"] = self._api.writes
        die_at("effect", self._step)
        return delivery

    async def verify(self, action: Action, delivery: Delivery, *, idempotency_key: str) -> Check:
        self._api.enter("verify")
        check = await self._lever.verify(action, delivery, idempotency_key=idempotency_key)
        die_at("verified", self._step)
        return check

    async def undo(self, action: Action, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        self._api.enter("undo")
        back = await self._lever.undo(action, delivery, idempotency_key=idempotency_key)
        self._told["undo_writes"] = self._api.writes
        die_at("undone", self._step)
        return back


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(here: str, step: str) -> None:
    if here == step:
        die()


async def carry_out(order: Order, told: dict[str, int]) -> None:
    """Take the proposal all its way, or end the process at the step."""

    async def worker_has_released(run_id: str, after: datetime) -> bool:
        return True

    async def drained(pool: str, queue: str) -> bool:
        return False

    step, proposal_id = order["step"], order["proposal"]
    ledger = SqlLedger(f"sqlite:///{order['ledger']}")
    api = MortalApi.from_prefect_settings(guard=ADMITTED)
    api.deadly = step
    levers = {
        **build_levers(worker_has_released=worker_has_released, notifier=Notifier(), api=api),
        "reschedule_run": RescheduleLever(api, settle=SETTLE),
        "spread_runs": SpreadLever(api, settle=SETTLE),
        "catch_up": CatchUpLever(api, settle=SETTLE),
        # the dead have been silent for minutes by this clock
        "mark_crashed": MarkCrashedLever(
            api, probe=lambda run_id, pid: "gone", clock=lambda: datetime.now(UTC) + AHEAD
        ),
        "release_slot": ReleaseSlotLever(
            api, worker_has_released=worker_has_released, probe=lambda run_id, pid: "gone", lapse=timedelta(0)
        ),
    }
    injector = Injector(
        ledger=ledger,
        gate=Gate(Bundle.load(Path(order["bundle"]) if order["bundle"] else None)),
        facts=PrefectFacts(api),
        levers={kind: Dying(lever, step, api, told) for kind, lever in levers.items()},
        mode=lambda: Mode.AUTO,
        stopped=lambda: "",
        clock=lambda: datetime.now(UTC),
        owner=f"test-{os.getpid()}",
        drained=drained,
        limits=InjectorLimits(lease=timedelta(milliseconds=200)),
    )
    if ledger.status(proposal_id) == "filed":
        die_at("filed", step)
        filed = ledger.filed(proposal_id)
        assert filed is not None
        verdict = await injector.judge(filed)
        assert ledger.status(proposal_id) == "allowed", verdict
        die_at("judged", step)
    if ledger.status(proposal_id) == "allowed":
        await injector.admit(proposal_id)
        die_at("admitted", step)
    deadline = asyncio.get_running_loop().time() + 60
    while ledger.status(proposal_id) == "admitted" and asyncio.get_running_loop().time() < deadline:
        if not await injector.deliver():
            await asyncio.sleep(0.05)
    die_at("recorded", step)
    await injector.verify()
    if order["undo"]:
        await injector.undo(proposal_id, by="pat", why="a test")
    await api.close()
    ledger.close()


def forked(order: Order) -> dict[str, int]:
    """How the process ended and what it said before."""
    ours, its = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)  # the output is the parent's
        code = 1
        try:
            told: dict[str, int] = {}
            asyncio.run(carry_out(order, told))
            os.write(its, json.dumps(told).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(its)
    with os.fdopen(ours, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return {**(json.loads(said) if said else {}), "code": os.waitstatus_to_exitcode(status)}


def main() -> None:
    import prefect.settings  # noqa: F401  two seconds, once instead of in each process

    for line in sys.stdin:
        print(json.dumps(forked(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
