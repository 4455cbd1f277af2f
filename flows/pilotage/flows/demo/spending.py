"""Where the time of the demo goes: seconds by phase, and CPU seconds by process."""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_PROC = Path("/proc")


@dataclass(slots=True)
class Phases:
    """Seconds by phase, in the order in which the phases began."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what happens inside, also when it fails."""
        began = time.monotonic()
        self.seconds.setdefault(name, 0.0)
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - began


def cpu_seconds(processes: Mapping[str, int]) -> dict[str, float]:
    """Return user and system time by name, of each process, its living descendants and those that it waited for.

    `processes` holds process ids by name. Empty where there is no /proc, as on macOS.
    """
    used: dict[int, float] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for path in _PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # the name in brackets may hold anything; what follows it are numbers, see proc(5)
            fields = path.read_text().rpartition(")")[2].split()
            children[int(fields[1])].append(int(path.parent.name))
            used[int(path.parent.name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def with_descendants(process_id: int) -> float:
        return used.get(process_id, 0.0) + sum(with_descendants(each) for each in children[process_id])

    if not used:
        return {}
    return {name: round(with_descendants(process_id), 1) for name, process_id in processes.items()}
