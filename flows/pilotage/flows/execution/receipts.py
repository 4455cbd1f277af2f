"""What was done and what came of it: receipts, effects and outcomes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID, uuid5

from pilotage.flows.prefect.writes import Write
from pilotage.planner.actions.types import Action, action_as_json, action_from_json


class Effect(StrEnum):
    """How one delivery ended."""

    DONE = "done"
    """Prefect accepted the change now."""
    ALREADY = "already"
    """Our own mark was found: an earlier delivery had done it."""
    REFUSED = "refused"
    """The target had moved on, or Prefect said no; nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a lever did at one target."""

    effect: Effect
    reason: str = ""
    """Why, when it was refused."""
    before: Mapping[str, Any] = field(default_factory=dict)
    """What undo would restore, as plain JSON."""
    after: Mapping[str, Any] = field(default_factory=dict)


def step_key(idempotency_key: str, step: str) -> str:
    """The mark of one step of a delivery: the same for the same step, whenever it is taken."""
    return str(uuid5(UUID(idempotency_key), step))


class Judgement(StrEnum):
    """What verification says."""

    PENDING = "pending"
    VERIFIED = "verified"
    """The target reached the state that the action promised."""
    FAILED = "failed"
    """It did not, or something worse happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One look at the target after delivery."""

    judgement: Judgement
    detail: str
    final_state: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Proof of one change, and how to take it back."""

    proposal_id: str
    idempotency_key: str
    action: Action
    effect: Effect
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    delivered_at: datetime
    undo_at: datetime | None = None
    """When it is undone by itself, for actions that hold something."""


class Lever(Protocol):
    """One way to change Prefect. Every method looks at Prefect again; none trusts what it was told before.

    Each method takes an action of the lever's own class: the registry gives a kind the lever that is named by it.
    """

    kind: str
    """The action kind that it carries out."""
    window: timedelta
    """How long verification may take before the outcome counts as failed."""
    undoable: str
    """What `undo` restores, or why it cannot; one sentence, shown to people."""

    @property
    def writes(self) -> Sequence[Write]:
        """Every request by which it, or its `undo`, changes Prefect: no other is sent for it."""
        ...

    async def execute(
        self, action: Any, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. Repeating it with the same mark has no second effect.

        `message` goes into the Prefect state, so that the UI shows who did it and why.
        Raises OrchestratorError when Prefect could not be asked; transient ones may be repeated.
        """
        ...

    async def verify(self, action: Any, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the promise was kept yet."""
        ...

    async def undo(self, action: Any, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the way back; REFUSED with a reason where there is none."""
        ...


def receipt_as_json(receipt: Receipt) -> dict[str, Any]:
    """The receipt as plain JSON values, for the ledger."""
    return {
        "proposal_id": receipt.proposal_id,
        "mark": receipt.idempotency_key,
        "action": action_as_json(receipt.action),
        "effect": receipt.effect.value,
        "before": dict(receipt.before),
        "after": dict(receipt.after),
        "delivered_at": receipt.delivered_at.isoformat(),
        "undo_at": receipt.undo_at.isoformat() if receipt.undo_at else None,
    }


def receipt_from_json(value: Mapping[str, Any]) -> Receipt:
    """The receipt that `receipt_as_json` wrote. Raises KeyError or ValueError on anything else."""
    return Receipt(
        proposal_id=value["proposal_id"],
        idempotency_key=value["mark"],
        action=action_from_json(json.dumps(value["action"])),
        effect=Effect(value["effect"]),
        before=value["before"],
        after=value["after"],
        delivered_at=datetime.fromisoformat(value["delivered_at"]),
        undo_at=datetime.fromisoformat(value["undo_at"]) if value.get("undo_at") else None,
    )
