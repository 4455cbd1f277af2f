"""Flows that a worker runs in the tests of levers; they do what a test file tells them, and stand on their own."""

from __future__ import annotations

import time
from pathlib import Path

from prefect import flow, task
from prefect.context import FlowRunContext
from prefect.deployments import run_deployment
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput

from pilotage.flows import overridable


def waited_for(place: Path, within: float = 240) -> None:
    """Nothing, once there is such a file."""
    deadline = time.monotonic() + within
    while not place.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{place} did not come")
        time.sleep(0.2)


@task(persist_result=True, retries=0)
@overridable("price")
def price(place: str) -> int:
    """A task that cannot compute its result, ever."""
    with (Path(place) / "asked").open("a") as told:
        told.write("x")
    raise RuntimeError("the exchange is gone")


@flow
def needs_a_price(place: str) -> None:
    """Fails of its task until a value is put down for it."""
    (Path(place) / "price").write_text(str(price(place)))


class Say(RunInput):
    """What the flow waits for."""

    amount: int
    sure: bool = False


@flow
def asks(place: str) -> None:
    """Pauses until somebody answers, and writes the answer down."""
    said = pause_flow_run(wait_for_input=Say, timeout=600, poll_interval=1)
    (Path(place) / "said").write_text(f"{said.amount} {said.sure}")


def told_to_suspend(within: float = 120) -> None:
    """Nothing, once Prefect told this process of its suspension: it does so a while after the state is set."""
    context, deadline = FlowRunContext.get(), time.monotonic() + within
    assert context is not None
    while not context.flow_run_suspension_request.is_requested():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody told this process that it is suspended")
        time.sleep(0.05)


@task(persist_result=True)
def step(place: str, number: int) -> int:
    """One step of many; the first but one waits, so that a test can act meanwhile."""
    with (Path(place) / "steps").open("a") as done:
        done.write(f"{number} ")
    if number == 2:
        go = Path(place) / "go"
        waited_for(go)
        if go.read_text() == "suspended":
            told_to_suspend()
    return number


@flow(persist_result=True)
def steps(place: str) -> None:
    """Ten steps that keep their results."""
    for number in range(10):
        step(place, number)


@flow
def fails_once(place: str) -> None:
    """Fails in its first attempt, when it is told to."""
    idempotency_key = Path(place) / "attempts"
    before = idempotency_key.read_text() if idempotency_key.exists() else ""
    idempotency_key.write_text(before + "x")
    if not before:
        waited_for(Path(place) / "go")
        raise RuntimeError("the first attempt")


@flow
def below() -> None:
    """A subflow in its parent's process."""
    waited_for(Path("/nonexistent"))


@task
def starts_another(name: str) -> None:
    """Starts a run of another deployment as a child, and does not wait for it."""
    run_deployment(name, timeout=0)


@flow
def above(child: str) -> None:
    """Has a child that waits in a queue and a subflow in its own process."""
    starts_another(child)
    below()
