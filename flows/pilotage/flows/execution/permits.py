"""Opens the way into Prefect for one admitted row of the outbox, and for two chores of pilotage's own.

A permit names the requests that the lever of the row's kind declares, and the row's target. Whether there is such a
row is asked of the ledger here, once more, and whether its proposal is still the one that was voted on: what a caller
says of it counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

from pilotage.flows.execution.receipts import step_key
from pilotage.flows.prefect.guard import Permit, permitted
from pilotage.flows.prefect.writes import Purpose, Reach, Write, edit_queue, keep_note
from pilotage.planner.actions.types import Action, CancelTree, LimitAction, LimitScope
from pilotage.policies.digests import digest_of, idempotency_key_of
from pilotage.policies.ledger.protocol import Ledger
from pilotage.policies.types import FiledProposal, OutboxEntry
from pilotage.telemetry.errors import OrchestratorError

Step = Literal["delivering", "verifying", "undoing"]
_STATE: dict[Step, str] = {"delivering": "claimed", "verifying": "delivered", "undoing": "delivered"}
"""How the row is at each step."""


def permit_for(ledger: Ledger, proposal_id: str, step: Step, writes: Sequence[Write]) -> Permit:
    """Return the permit of one step of a proposal. Raises OrchestratorError when the ledger has admitted none."""
    filed, entry = ledger.outbox_row(proposal_id) or (None, None)
    if filed is None or entry is None or (why := _unfit(filed, entry, step)):
        raise OrchestratorError(
            f"{step} {proposal_id}: the ledger has no row of the outbox for this"
            + (f" ({why})" if filed else "")
            + ". Nothing is sent to Prefect without one; find out who asked."
        )
    allowed = [each for each in writes if each.verifying] if step == "verifying" else list(writes)
    action = filed.proposal.action
    return Permit(
        about=f"{action.kind} of {proposal_id}",
        writes=allowed,
        reach=reach_of(action, entry.idempotency_key),
    )


def reach_of(action: Action, key: str) -> Reach:
    """Return what the writes of an action may be about, as far as the action itself says so."""
    run, deployment, queue = action.run_changed(), action.deployment_changed(), action.queue_changed()
    back = step_key(key, "undo")

    def hold_key(pool: str, name: str) -> frozenset[str]:
        return frozenset({key, back} | {step_key(each, f"{pool}/{name}") for each in (key, back)})

    return Reach(
        keys=frozenset({key, back}),
        runs={run} - {""},
        deployments={deployment} - {""},
        sources={str(getattr(action, "deployment_id", ""))} - {""},
        queues={queue} if queue else set(),
        limits=frozenset(_limits(action)),
        below=isinstance(action, CancelTree),
        hold_key=hold_key,
    )


@contextmanager
def releasing_queues() -> Iterator[None]:
    """Let the queues be opened that deliveries left on hold when their process died: each has a note that says so."""
    reach = Reach(all_holds=True)
    writes = (edit_queue("is_paused", "concurrency_limit"), *keep_note("hold"))
    with permitted(Permit(about="releasing queues at the start", writes=writes, reach=reach)):
        yield


@contextmanager
def clearing_notes() -> Iterator[None]:
    """Let pilotage's own old notes be deleted."""
    deletes = [write for write in keep_note(*get_args(Purpose)) if write.method == "DELETE"]
    with permitted(Permit(about="clearing old notes", writes=deletes, reach=Reach())):
        yield


def _unfit(filed: FiledProposal, entry: OutboxEntry, step: Step) -> str:
    """Why this row opens no way for this step, or an empty text."""
    if entry.state != _STATE[step]:
        return f"its row is {entry.state}"
    digest = digest_of(filed.proposal, filed.proposer)
    if not digest == filed.digest == entry.digest or idempotency_key_of(digest) != entry.idempotency_key:
        return "its text is not the one that was admitted"
    return ""


def _limits(action: Action) -> Iterator[str]:
    if isinstance(action, LimitAction):
        scope = action.scope
        if scope is LimitScope.GLOBAL:
            yield action.name
        elif scope in (LimitScope.TAG, LimitScope.DEPLOYMENT):
            yield f"{scope.value}:{action.name}"
