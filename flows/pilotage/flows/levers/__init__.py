"""One module for each way to change Prefect; `registry.py` lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pilotage.flows.levers.registry import build_levers as build_levers

__all__ = ["build_levers"]


def __getattr__(name: str) -> object:
    if name == "build_levers":
        from pilotage.flows.levers.registry import build_levers

        return build_levers
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
