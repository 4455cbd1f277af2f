"""The error tree of the whole project. It lives in the lowest package so that every package can raise from it.

    PilotageError                 never raised itself
    ├─ ConfigError                a person must edit something: path, line or key, what would be valid
    ├─ AdapterError               something outside failed: .system, .transient; always `raise ... from exc`
    │  ├─ StoreError              the telemetry store
    │  ├─ LedgerError             the ledger of proposals, verdicts and receipts
    │  │  └─ UnreadableRowError   one row of it is nothing that we know; the others are
    │  ├─ OrchestratorError       Prefect
    │  │  └─ StoppedError         the kill switch was pulled between two writes to it
    │  ├─ ModelError              the language model
    │  ├─ CheckpointError         where the agent's memory is kept
    │  └─ ApiError               the socket between the controller and everybody else
    └─ InvariantError             we are wrong; the loop stops and holds

A message has three parts: what was attempted, what was found, what to do.
"""

from __future__ import annotations


class PilotageError(Exception):
    """The root; never raised itself."""


class ConfigError(PilotageError):
    """A person must edit something. The message names the path, the line or key, and what would be valid."""


class AdapterError(PilotageError):
    """Something outside failed. `transient` says whether the same call may succeed later."""

    system: str = "something outside"

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class StoreError(AdapterError):
    """The telemetry store could not be read or written."""

    system = "telemetry store"


class LedgerError(AdapterError):
    """The ledger could not be read or written; nothing may be injected until it can."""

    system = "ledger"


class UnreadableRowError(LedgerError):
    """What one row of the ledger says cannot be read. It is set aside; nothing else is held up by it."""


class OrchestratorError(AdapterError):
    """Prefect refused, failed or could not be reached."""

    system = "Prefect"


class StoppedError(OrchestratorError):
    """The kill switch was pulled: the next write to Prefect was not sent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, transient=True)


class ModelError(AdapterError):
    """The language model gave no usable answer; rules answer instead."""

    system = "language model"


class CheckpointError(AdapterError):
    """The agent's memory could not be opened, read or written; it goes on without."""

    system = "checkpoints"


class ApiError(AdapterError):
    """The controller could not be reached, or refused the caller."""

    system = "pilotage up"


class InvariantError(PilotageError):
    """We are wrong. The loop stops and holds."""
