"""What happened: facts, the store and its readers, forecasts. Heavy imports wait until they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pilotage.telemetry.store.connect import connect

__all__ = ["connect"]


def __getattr__(name: str) -> Any:
    """`connect`, imported when first used."""
    if name == "connect":
        from pilotage.telemetry.store.connect import connect

        return connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
