"""One injector with real parts that is killed, with SIGKILL, at a chosen step. Run as a script by the tests.

`python dying_injector.py LEDGER PROPOSAL_ID STEP`, where STEP is one of
  admitted   after the outbox row was written, before it is claimed
  claimed    after the claim, before the lever is asked
  effect     after Prefect took the change, before the delivery is recorded
  none       nowhere: it goes on to the end
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime, timedelta

from pilotage.flows.announce import Announcer
from pilotage.flows.injector import Injector, InjectorLimits
from pilotage.flows.levers import build_levers
from pilotage.flows.prefect_api import PrefectApi
from pilotage.flows.prefect_facts import PrefectFacts
from pilotage.flows.receipts import Check, Delivery, Lever
from pilotage.planner.actions import Action
from pilotage.policies.bundle import Bundle
from pilotage.policies.gate import Gate
from pilotage.policies.sql_ledger import SqlLedger
from pilotage.policies.verdicts import Mode


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Dying:
    """A lever that ends the process before or after the real one has worked."""

    def __init__(self, lever: Lever, step: str) -> None:
        self._lever, self._step = lever, step
        self.kind, self.window, self.undoable = lever.kind, lever.window, lever.undoable

    async def execute(self, action: Action, *, mark: str, expected_state_id: str, message: str) -> Delivery:
        if self._step == "claimed":
            die()
        delivery = await self._lever.execute(
            action, mark=mark, expected_state_id=expected_state_id, message=message
        )
        if self._step == "effect":
            die()
        return delivery

    async def verify(self, action: Action, delivery: Delivery, *, mark: str) -> Check:
        return await self._lever.verify(action, delivery, mark=mark)

    async def undo(self, action: Action, delivery: Delivery, *, mark: str) -> Delivery:
        return await self._lever.undo(action, delivery, mark=mark)


async def main(path: str, proposal_id: str, step: str) -> None:
    async def let_go(run_id: str, after: datetime) -> bool:
        return True

    async def drained(pool: str, queue: str) -> bool:
        return False

    ledger = SqlLedger(f"sqlite:///{path}")
    api = PrefectApi.from_prefect_settings()
    levers = build_levers(let_go=let_go, announcer=Announcer(api=api), api=api)
    injector = Injector(
        ledger=ledger,
        gate=Gate(Bundle.load()),
        facts=PrefectFacts(api),
        levers={kind: Dying(lever, step) for kind, lever in levers.items()},
        mode=lambda: Mode.AUTO,
        stopped=lambda: "",
        clock=lambda: datetime.now(UTC),
        owner=f"test-{os.getpid()}",
        drained=drained,
        limits=InjectorLimits(lease=timedelta(milliseconds=200)),
    )
    if ledger.status(proposal_id) == "filed":
        filed = ledger.filed(proposal_id)
        assert filed is not None
        await injector.judge(filed)
    if ledger.status(proposal_id) == "allowed":
        await injector.admit(proposal_id)
    if step == "admitted":
        die()
    deadline = asyncio.get_running_loop().time() + 30
    while ledger.status(proposal_id) == "admitted" and asyncio.get_running_loop().time() < deadline:
        if not await injector.deliver():
            await asyncio.sleep(0.05)
    await api.close()
    ledger.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
