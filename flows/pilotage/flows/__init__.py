"""Where decisions meet runs. A flow that listens to directives says `from pilotage.flows import steered`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pilotage.flows.listening import steered as steered

__all__ = ["steered"]


def __getattr__(name: str) -> object:
    if name == "steered":
        from pilotage.flows.listening import steered

        return steered
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
