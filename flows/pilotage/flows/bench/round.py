"""A round of the bench: which worlds with which seeds meet one arm on one server, and what became of it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path

from pilotage.flows.bench.arms import Deed, Stage
from pilotage.flows.bench.outside import Outside
from pilotage.flows.bench.world import World
from pilotage.telemetry.errors import ConfigError

WORLDS = Path(__file__).parent / "worlds"
"""Where the shipped worlds lie."""
HORIZON = timedelta(minutes=9)
"""How long a round is watched, on a machine where a process starts in two seconds."""


@cache
def _module(source: str) -> object:
    """Return the module of a file, imported once."""
    path = Path(source)
    name = f"pilotage_bench_world_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"Reading a world from {path}: it is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def world_class(source: str) -> type[World]:
    """Return the class that `FILE.py:CLASS` names. Raises ConfigError when there is none."""
    file, _, name = source.rpartition(":")
    found = getattr(_module(file), name, None)
    if not (isinstance(found, type) and issubclass(found, World)):
        raise ConfigError(f"Looking for a world in {file}: {name} is no subclass of World.")
    return found


def sources_in(folder: Path) -> tuple[str, ...]:
    """Return the worlds of a folder, as `FILE.py:CLASS`, by file name. Raises ConfigError when there is none."""
    found = []
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith("_"):
            continue
        module = _module(str(path))
        for name, each in vars(module).items():
            if (
                isinstance(each, type)
                and issubclass(each, World)
                and each.name
                and each.__module__ == getattr(module, "__name__", "")
            ):
                found.append(f"{path}:{name}")
    if not found:
        raise ConfigError(
            f"Looking for worlds in {folder}: no file there has a subclass of pilotage.flows.bench.world.World "
            "with a name."
        )
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One world with one seed."""

    source: str
    """`FILE.py:CLASS`."""
    seed: int
    tagged: bool = True
    """Whether its owners have tagged what they own."""

    @property
    def name(self) -> str:
        """The class of fault."""
        return world_class(self.source).name

    @property
    def alone(self) -> bool:
        """Whether it has a round to itself."""
        return world_class(self.source).alone

    @property
    def key(self) -> str:
        """Its name on the server."""
        return f"{self.name}-{self.seed}" + ("" if self.tagged else "-untagged")

    def make(self) -> World:
        """Return the world."""
        return world_class(self.source)(self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Incidents that happen on one server at one time."""

    incidents: tuple[Incident, ...]
    horizon: timedelta = HORIZON
    mode: str = "auto"
    """Of pilotage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A round that was played."""

    stage: Stage
    outside: Outside
    deeds: tuple[Deed, ...]
    requests: int | None
    """To Prefect by the arm and everybody else; None where they were not counted."""


def incidents_of(
    sources: Iterable[str], seeds: Sequence[int], only: Sequence[str] = ()
) -> Iterator[Incident]:
    """Yield the incidents of worlds whose names are, or begin with, one of `only`; all when it is empty.

    Raises ConfigError when none has such a name.
    """
    known = list(sources)
    chosen = [
        source
        for source in known
        if not only or any(world_class(source).name.startswith(name) for name in only)
    ]
    if not chosen:
        names = ", ".join(sorted(world_class(source).name for source in known))
        raise ConfigError(f"Looking for worlds {', '.join(only)}: there are {names}.")
    for seed in seeds:
        for source in chosen:
            yield Incident(source=source, seed=seed)
