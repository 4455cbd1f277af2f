"""Levers on real runs: a worker starts their processes, lets them go, ends them; a process hears what it is told.

What a lever decides, sends and takes back is looked at on the fake, lever by lever, in the files beside this one.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from tests.conftest import PrefectServer
from tests.flows.lever_bench import LeverBench

from pilotage.flows.execution.receipts import Effect, Judgement
from pilotage.planner.actions.types import (
    CancelRun,
    Directive,
    NotifyOwner,
    ResizeRun,
    RetryRun,
    SendDirective,
    Severity,
)

pytestmark = pytest.mark.prefect


def test_a_crashed_run_is_retried_in_place_and_recovers(bench: LeverBench, idempotency_key: str) -> None:
    run_id = bench.prefect_probe.start("settle-trades/demo", die_once=True)
    assert bench.prefect_probe.ended(run_id).state_type is not None
    bench.wait_for_worker(run_id)
    assert bench.state_name(run_id) == "Crashed"
    action = RetryRun(run_id=run_id)
    delivery = bench.execute(action, idempotency_key, expected=bench.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    check = bench.verified(action, delivery, idempotency_key)
    assert check.judgement is Judgement.VERIFIED, check
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert bench.prefect_probe.run(run_id).run_count == 2
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.REFUSED


def test_a_run_out_of_memory_is_given_more_and_recovers(bench: LeverBench, idempotency_key: str) -> None:
    run_id = bench.prefect_probe.start("build-features/demo", needs_mb=160)
    ended = bench.prefect_probe.ended(run_id).state
    assert ended is not None
    assert "MemoryError" in str(ended.message)
    bench.wait_for_worker(run_id)
    action = ResizeRun(run_id=run_id, memory_mb=192)
    delivery = bench.execute(action, idempotency_key, expected=str(ended.id))
    assert delivery.effect is Effect.DONE, delivery
    assert (delivery.before, delivery.after["memory_mb"]) == ({"memory_mb": None}, 192)
    check = bench.verified(action, delivery, idempotency_key)
    assert check.judgement is Judgement.VERIFIED, check
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert bench.prefect_probe.run(run_id).run_count == 2


def test_a_running_run_is_cancelled_by_its_worker(bench: LeverBench, idempotency_key: str) -> None:
    run_id = bench.prefect_probe.start("long-report/demo", seconds=120)
    deadline = time.monotonic() + 60
    while bench.state_name(run_id) != "Running":
        assert time.monotonic() < deadline, bench.state_name(run_id)
        time.sleep(0.3)
    action = CancelRun(run_id=run_id)
    delivery = bench.execute(action, idempotency_key)
    assert delivery.effect is Effect.DONE, delivery
    assert bench.verified(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.REFUSED


STEERED_FLOW = """
import sys, time
from prefect import flow, task
from pilotage.flows import steered

@task
def step(number):
    return number

@flow
def listens():
    with steered() as pilot:
        print("RUN", __import__("prefect.runtime", fromlist=["flow_run"]).flow_run.id, flush=True)
        deadline = time.monotonic() + 240
        number = 0
        while time.monotonic() < deadline:
            number += 1
            step(number)
            if "drain" in pilot.heard():
                return number
            time.sleep(0.2)
    raise RuntimeError("nobody said anything")

listens()
"""


def test_a_flow_that_listens_hears_a_directive_between_its_tasks(
    bench: LeverBench, idempotency_key: str, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    (tmp_path / "listens.py").write_text(STEERED_FLOW)
    process = subprocess.Popen(
        prefect_server.embedded.command("listens"),
        cwd=tmp_path,
        env=prefect_server.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        run_id = process.stdout.readline().split()[1]
        action = SendDirective(run_id=run_id, directive=Directive.DRAIN)
        delivery = bench.execute(action, idempotency_key)
        assert delivery.effect is Effect.DONE, delivery
        assert bench.verified(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
        assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    finally:
        process.kill()
        process.wait()
    assert bench.prefect_probe.run(run_id).state_type is not None
    assert bench.state_name(run_id) == "Completed"
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.REFUSED


def test_an_owner_is_told_by_an_event_that_prefect_writes_a_while_later(
    bench: LeverBench, idempotency_key: str
) -> None:
    action = NotifyOwner(run_id=bench.failed_run(), severity=Severity.CRITICAL)
    delivery = bench.execute(action, idempotency_key)
    assert delivery.effect is Effect.DONE
    assert bench.verified(action, delivery, idempotency_key, within=60).judgement is Judgement.VERIFIED
