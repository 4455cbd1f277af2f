"""What the controller and the processes that it keeps use of the machine, where `/proc` tells."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pilotage.flows.api.measures import Usage

_NAMES = {"pilotage.flows.agent.process": "agent", "pilotage.flows.agent.training": "training"}
"""What a child is called, by the module that it runs."""
_PROC = Path("/proc")


def usage_by_process(pid: int | None = None) -> dict[str, Usage]:
    """The usage of process `pid`, by default this one, and of all its descendants, by name; empty without `/proc`.

    Descendants of one name are added up, and what is none of ours is `other`.
    """
    own = pid or os.getpid()
    found: dict[str, Usage] = {}
    for each in (own, *_descendants(own)):
        used = _usage(each)
        if used is None:
            continue
        name = "controller" if each == own else _name(each)
        before = found.get(name, Usage(cpu_seconds=0.0, resident_bytes=0))
        found[name] = Usage(
            cpu_seconds=before.cpu_seconds + used.cpu_seconds,
            resident_bytes=before.resident_bytes + used.resident_bytes,
        )
    return found


def _descendants(pid: int) -> Iterator[int]:
    for children in (_PROC / str(pid) / "task").glob("*/children"):
        try:
            ids = [int(word) for word in children.read_text().split()]
        except (OSError, ValueError):  # it has ended meanwhile
            continue
        for child in ids:
            yield child
            yield from _descendants(child)


def _usage(pid: int) -> Usage | None:
    try:
        # the name in brackets may hold anything, blanks as well
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    ticks = int(fields[11]) + int(fields[12])
    return Usage(
        cpu_seconds=ticks / os.sysconf("SC_CLK_TCK"), resident_bytes=pages * os.sysconf("SC_PAGE_SIZE")
    )


def _name(pid: int) -> str:
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "other"
    return next((name for module, name in _NAMES.items() if module in words), "other")
