"""Finds what installed packages add to the registries of detectors, playbooks, failure rules, actions and levers."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

from pilotage.telemetry.errors import ConfigError


def plugins(group: str) -> Iterator[tuple[str, Any]]:
    """Yield `(name, object)` for each entry point of a group, in the order of names.

    `group` is one of `pilotage.actions`, `pilotage.detectors`, `pilotage.failure_rules`, `pilotage.levers` and
    `pilotage.playbooks`. Raises ConfigError that names the distribution when one cannot be imported.
    """
    for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, entry.value)):
        try:
            yield entry.name, entry.load()
        except Exception as exc:
            raise broken(group, entry.name, f"{type(exc).__name__}: {exc}") from exc


def broken(group: str, name: str, why: str) -> ConfigError:
    """Return the error of a plug-in that cannot be used."""
    packages = [e.dist.name for e in entry_points(group=group, name=name) if e.dist is not None]
    return ConfigError(
        f"Loading the plug-in {name} ({group}) of {', '.join(packages) or 'an unknown package'}: {why}. "
        "Mend the package or uninstall it."
    )
