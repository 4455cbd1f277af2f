"""Where decisions meet runs. A flow that takes part says `from pilotage.flows import steered, overridable`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pilotage.flows.sdk.directives import steered as steered
    from pilotage.flows.sdk.overrides import overridable as overridable

__all__ = ["overridable", "steered"]


def __getattr__(name: str) -> object:
    if name == "steered":
        from pilotage.flows.sdk.directives import steered

        return steered
    if name == "overridable":
        from pilotage.flows.sdk.overrides import overridable

        return overridable
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
