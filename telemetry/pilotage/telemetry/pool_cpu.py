"""Which CPU goes with which memory on each type of work pool, and how it is written in that type's job variables.

Thousandths of a core are the unit everywhere. Fargate sells pairs, Cloud Run wants a CPU for every few GiB; where a size
needs more CPU than a run has, the CPU moves with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

CORE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuAdapter:
    """How one type of work pool is told the CPU of a run."""

    reads: tuple[str, ...]
    """The job variables that give it, the limit first; all of them that are set move together."""
    parse: Callable[[object], int | None]
    """Thousandths of a core, from the type's own form or from text or a number of it; None for anything else."""
    form: Callable[[int], object]
    """The type's own form."""
    default: int
    """What a run has whose variable is not set."""


_CORES = re.compile(r"(\d+\.?\d*|\.\d+)(m?)")


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _milli(number: float | None) -> int | None:
    return math.ceil(round(number, 6)) if number else None


def _quantity(value: object) -> int | None:
    """Return the thousandths of a Kubernetes quantity: `500m`, `0.5`, `2`."""
    match = _CORES.fullmatch(value.strip()) if isinstance(value, str) else None
    if match:
        return _milli(_number(float(match[1]) * (1 if match[2] else CORE)))
    return _cores(value)


def _cores(value: object) -> int | None:
    number = _number(value)
    return _milli(number * CORE) if number else None


def _units(value: object) -> int | None:
    """Return the thousandths of CPU units, of which a core has 1024."""
    number = _number(value)
    return _milli(number * CORE / 1024) if number else None


_PODS = CpuAdapter(
    reads=("cpu_limit", "cpu_request"), parse=_quantity, form=lambda milli: f"{milli}m", default=CORE
)
_CLOUD_RUN = CpuAdapter(reads=("cpu",), parse=_quantity, form=lambda milli: f"{milli}m", default=CORE)
_ECS = CpuAdapter(
    reads=("cpu",), parse=_units, form=lambda milli: math.ceil(milli * 1024 / CORE), default=CORE
)
_ACI = CpuAdapter(reads=("cpu",), parse=_cores, form=lambda milli: milli / CORE, default=CORE)
CPU_ADAPTERS: Mapping[str, CpuAdapter] = {
    "kubernetes": _PODS,
    "snowpark-container-service": _PODS,
    "ecs": _ECS,
    "cloud-run": _CLOUD_RUN,
    "cloud-run-v2": _CLOUD_RUN,
    "azure-container-instance": _ACI,
}
"""By type of work pool without `:push`. Docker's worker and process pools have no variable for it."""


FARGATE: Mapping[int, tuple[int, ...]] = {
    256: (512, 1024, 2048),
    512: tuple(range(1024, 4097, 1024)),
    1024: tuple(range(2048, 8193, 1024)),
    2048: tuple(range(4096, 16_385, 1024)),
    4096: tuple(range(8192, 30_721, 1024)),
    8192: tuple(range(16_384, 61_441, 4096)),
    16_384: tuple(range(32_768, 122_881, 8192)),
}
"""MiB that a Fargate task may have, by CPU units (AWS: Amazon ECS task definition parameters for Fargate)."""
CLOUD_RUN: Mapping[int, int] = {1: 4096, 2: 8192, 4: 16_384, 6: 24_576, 8: 32_768}
"""The most MiB that Cloud Run gives to so many CPUs (Google: Cloud Run, memory limits)."""
_CLOUD_RUN_SHARES = ((500, 512), (CORE, 1024))
"""And to less than half a CPU, and to less than one."""


def cpu_of(variables: Mapping[str, Any], pool_type: str) -> int | None:
    """Return the thousandths of a core that job variables give; None when they give none or one that cannot be read."""
    adapter = CPU_ADAPTERS.get(pool_type.partition(":")[0])
    for name in adapter.reads if adapter else ():
        if adapter and variables.get(name) is not None:
            return adapter.parse(variables[name])
    return None


def fargate_pair(units: int, above: int, memory_mb: int) -> tuple[int, int] | None:
    """Return the fewest thousandths of a core, more than `units`, that go with a size above `above`, and that size.

    The size is the largest one up to `memory_mb`. None where no task has such a one.
    """
    for more, sizes in sorted(FARGATE.items()):
        larger = [size for size in sizes if above < size <= memory_mb]
        if more > units and larger:
            return more * CORE // 1024, larger[-1]
    return None


def cloud_run_cpu(has: int, memory_mb: int) -> int | None:
    """Return the thousandths of a core that so much memory needs, where `has` are too few; else None."""
    most = next((mib for share, mib in _CLOUD_RUN_SHARES if has < share), 0) or max(
        (mib for cpus, mib in CLOUD_RUN.items() if cpus * CORE <= has), default=0
    )
    if memory_mb <= most:
        return None
    return next((cpus * CORE for cpus, mib in sorted(CLOUD_RUN.items()) if memory_mb <= mib), None)


def missing(name: str, template: Mapping[str, Any], used: frozenset[str]) -> str:
    """Return why a variable of the template cannot be set, or an empty string."""
    if name not in template:
        return f"has no variable {name!r}, so Prefect would drop it"
    return "" if name in used else f"has a variable {name!r} that its job configuration does not use"


def change_cpu(
    pool_type: str,
    template: Mapping[str, Any],
    used: frozenset[str],
    variables: Mapping[str, Any],
    cpu_milli: int,
) -> dict[str, Any] | str:
    """Return the job variables that give a run so many thousandths of a core, or why there are none.

    Requests move with limits, each in the proportion that it had, and are never above them.
    """
    adapter = CPU_ADAPTERS.get(pool_type.partition(":")[0])
    if adapter is None:
        return "is of a type whose worker reads no CPU"
    if why := missing(adapter.reads[0], template, used):
        return why
    present = [name for name in adapter.reads if variables.get(name) is not None] or [adapter.reads[0]]
    now = adapter.parse(variables.get(present[0]))
    moved: dict[str, Any] = {present[0]: adapter.form(cpu_milli)}
    for name in present[1:]:
        old = adapter.parse(variables[name])
        moved[name] = adapter.form(
            min(cpu_milli, math.ceil(old * cpu_milli / now) if old and now else cpu_milli)
        )
    return moved
