"""Recognises a delivery in Prefect: by its key in a run's state history, or in a variable.

A run's states keep the `transition_id` that they were set with, so a mark found in the history says that an
earlier delivery had its effect. Queues and deployments keep nothing of the kind, so levers on those write a
Prefect variable *before* they change anything: it holds what undo restores, and it outlives a crash.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pilotage.flows.execution.receipts import Delivery, Effect
from pilotage.flows.execution.receipts import step_key as step_key
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import RunView, StateView, moment
from pilotage.flows.prefect.writes import Purpose as Purpose
from pilotage.telemetry.facts import StateType

PREFIX = "pilotage_"
"""Begins the name of every note."""
_LATE = timedelta(minutes=5)
"""How late a hold may be taken back."""
_ROOM = 4800
"""Characters that a note may have as JSON; Prefect takes 5000."""


def marked(history: Iterable[StateView], idempotency_key: str) -> StateView | None:
    """The state that was set under this mark, or None."""
    return next((state for state in history if state.transition_id == idempotency_key), None)


def after(history: Iterable[StateView], idempotency_key: str) -> tuple[StateView, ...]:
    """The states that came after the one set under this mark."""
    states = tuple(history)
    for index, state in enumerate(states):
        if state.transition_id == idempotency_key:
            return states[index + 1 :]
    return ()


def refused(reason: str) -> Delivery:
    """A delivery that changed nothing, and why."""
    return Delivery(effect=Effect.REFUSED, reason=reason)


class ChangeRecords:
    """What levers must remember across a crash, kept in Prefect as variables named after the mark."""

    def __init__(self, api: PrefectApi) -> None:
        self._api = api

    async def read(self, purpose: Purpose, idempotency_key: str) -> Mapping[str, Any] | None:
        """The note, or None."""
        value = await self._api.variable(_name(purpose, idempotency_key))
        return value if isinstance(value, dict) else None

    async def write(self, purpose: Purpose, idempotency_key: str, note: Mapping[str, Any]) -> None:
        """Store the record in Prefect."""
        await self._api.set_variable(_name(purpose, idempotency_key), dict(note))

    async def forget(self, purpose: Purpose, idempotency_key: str) -> None:
        """Delete the record; it need not exist."""
        await self._api.delete_variable(_name(purpose, idempotency_key))

    async def of(self, purpose: Purpose) -> dict[str, Mapping[str, Any]]:
        """Every note of this purpose, by mark."""
        prefix = f"{PREFIX}{purpose}_"
        variables = await self._api.variables_like(prefix)
        return {
            name.removeprefix(prefix): value for name, value in variables.items() if isinstance(value, dict)
        }

    async def standing(self, about: str, *purposes: Purpose) -> str:
        """Why this may not be changed now: another change of ours to it stands and will be taken back. Or empty.

        Two changes of one thing come back right only if the later is taken back first, and holds end when they end.
        """
        for purpose in purposes:
            for note in (await self.of(purpose)).values():
                if note.get("about") == about and not note.get("undone") and _until(note) > self._api.now():
                    return f"a change of ours to {about} stands already; it has to be taken back first"
        return ""

    def tombstone(self, note: Mapping[str, Any], refused: str = "") -> dict[str, Any]:
        """Return what is left of the note on a change that was taken back, or stays as it is: then with the reason.

        It is kept so that a delivery which is repeated after this does not make the change again.
        """
        kept = {"at": note["at"]} if "at" in note else {}
        undone = self._api.now().isoformat()
        return {**kept, "undone": undone, **({"refused": refused} if refused else {})}

    def held_record(self, about: str, hold: timedelta) -> dict[str, Any]:
        """Return the beginning of a note on a change that ends by itself: what it is about, and until when."""
        now = self._api.now()
        return {"at": now.isoformat(), "about": about, "until": (now + hold + _LATE).isoformat()}


def untouched(run: RunView, history: Sequence[StateView], expected_state_id: str) -> bool:
    """Whether nobody has touched the run since it was in the expected state; any will do when none is named."""
    if not expected_state_id or run.state.id == expected_state_id:
        return True
    # Prefect itself turns Scheduled into Late when time passes, also after the history was read: that is no touch
    states = [state.id for state in history]
    if run.state.name != "Late" or expected_state_id not in states:
        return False
    return all(state.name == "Late" for state in history[states.index(expected_state_id) + 1 :])


async def still_running(
    api: PrefectApi,
    run_id: str,
    *,
    idempotency_key: str,
    expected_state_id: str,
    only: str,
    states: Collection[StateType] = (StateType.RUNNING,),
) -> RunView | Delivery:
    """The run in one of these states that nobody has touched since; or the delivery that ends here, done before or refused.

    `only` says why no other run will do.
    """
    history = await api.history(run_id)
    if ours := marked(history, idempotency_key):
        return Delivery(effect=Effect.ALREADY, after={"at": ours.at.isoformat()})
    run = await api.run(run_id)
    if run.state.type not in states:
        return refused(f"the run is {run.state.name}; {only}")
    if not untouched(run, history, expected_state_id):
        return refused("the run has moved on since this was proposed")
    return run


def fits_a_record(value: Mapping[str, Any]) -> bool:
    """Whether Prefect takes this as one variable."""
    return len(repr(value)) <= _ROOM


def as_before(buried: Mapping[str, Any]) -> Delivery:
    """What an undo says that is asked again of a tombstone: the same as the first time."""
    return refused(buried["refused"]) if buried.get("refused") else Delivery(effect=Effect.ALREADY)


def _until(note: Mapping[str, Any]) -> datetime:
    # a note that was left by a delivery which was given up must not stand for ever
    return moment(str(note["until"])) if note.get("until") else datetime.max.replace(tzinfo=UTC)


def _name(purpose: Purpose, idempotency_key: str) -> str:
    return f"{PREFIX}{purpose}_{idempotency_key}"
