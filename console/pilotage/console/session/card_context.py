"""What a card shows beside what the API says: how it is now, whom it concerns, what it takes, as telemetry knows it.

It is looked up while a person can still decide, and kept: afterwards telemetry would call "before" what was done.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from pilotage.console.session.cards import WAITING
from pilotage.console.session.changes import known_before
from pilotage.console.session.impact import takes, touched_by
from pilotage.telemetry.errors import PilotageError
from pilotage.telemetry.store.protocol import Store

FRESH = 10.0
"""Seconds for which it is not looked up again: an inbox is drawn often."""
MOST = 1000
"""Proposals of which it is kept; those looked at longest ago give way."""


class CardContext:
    """One for each engine. Thread-safe as dictionaries are: a look-up more does no harm."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[float, dict[str, Any]]] = OrderedDict()

    def of(self, row: Mapping[str, Any], store: Callable[[], Store]) -> dict[str, Any]:
        """What is known beside the API's row of one proposal; empty when telemetry is away."""
        proposal_id, now = str(row["proposal_id"]), time.monotonic()
        at, known = self._kept.get(proposal_id, (-FRESH, {}))
        if row["status"] not in WAITING or now - at < FRESH:
            return known
        action = row.get("action") or {}
        try:
            card_context = card_context_of(
                store(), action, str((row.get("target_facts") or {}).get("deployment_id") or "")
            )
        except PilotageError:
            return known
        self._kept[proposal_id] = (now, card_context)
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)
        return card_context


def card_context_of(store: Store, action: Mapping[str, Any], deployment_id: str) -> dict[str, Any]:
    """`{before, touches, takes}` of an action as of now. Raises StoreError when telemetry cannot be read."""
    return {
        "before": known_before(store, action),
        "touches": touched_by(store, action, datetime.now(UTC)),
        "takes": takes(store, action, deployment_id),
    }
