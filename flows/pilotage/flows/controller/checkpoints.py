"""Vouches for the audit log every now and then: a signed checkpoint is written where the ledger is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from pilotage.flows.config.paths import StatePaths
from pilotage.policies.audit.ed25519 import Ed25519Signer
from pilotage.policies.ledger.checkpoint_job import sign_checkpoint
from pilotage.policies.ledger.protocol import Ledger

KEY_FILE = "audit.key"
"""In the state directory, mode 0600."""
PAUSE = timedelta(minutes=10)
"""Between two checkpoints: what is younger than that could be rewritten unseen."""


def signer_of(paths: StatePaths) -> Ed25519Signer:
    """The signer of this installation; its key is made when there is none. Raises ConfigError."""
    return Ed25519Signer.kept_at(paths.root / KEY_FILE)


class CheckpointSigner:
    """A step of the loop. It holds the loop by an InvariantError when the log is not what it was."""

    def __init__(
        self, *, ledger: Ledger, paths: StatePaths, directory: Path, clock: Callable[[], datetime]
    ) -> None:
        self._ledger = ledger
        self._directory = directory
        self._clock = clock
        self._signer = signer_of(paths)
        self._origin = f"pilotage {paths.root.name}"
        self._next: datetime | None = None

    async def sign_checkpoint(self) -> bool:
        """Whether a checkpoint was due and the log had something to vouch for."""
        now = self._clock()
        if self._next is not None and now < self._next:
            return False
        path = await asyncio.to_thread(
            sign_checkpoint, self._ledger, self._signer, self._directory, self._origin, now
        )
        self._next = now + PAUSE
        return path is not None
