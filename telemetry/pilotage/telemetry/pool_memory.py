"""Read and write the memory of a run in the job variables of its type of work pool.

Each type has its own variables and its own form: a quantity ("512Mi"), whole MiB, Docker's text ("512m"), GB as a
number. The table `ADAPTERS` has one row a type. MiB is the unit everywhere else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pilotage.telemetry.pool_cpu import (
    CLOUD_RUN,
    CORE,
    FARGATE,
    change_cpu,
    cloud_run_cpu,
    cpu_of,
    fargate_pair,
)

MIB = 1024**2
SITE_VARIABLE = "memory_mb"
"""Whole MiB; read by the templates of process pools that define it, and by any other template that a site extends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryAdapter:
    """How one type of work pool is told the memory of a run."""

    reads: tuple[str, ...]
    """The job variables that give the size, the limit first; all of them that are set move together."""
    parse: Callable[[object], float | None]
    """Bytes, from the type's own form or from text or a number of it; None for anything else."""
    form: Callable[[int], object]
    """The type's own form of a size in MiB."""
    follows: tuple[str, ...] = ()
    """Variables that grow with the size where they are set, and are never below it."""
    fit: Callable[[int], int] = int
    """The largest size that the form can tell, not above this one, in MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryChange:
    """The job variables that give a run another size."""

    variables: Mapping[str, Any]
    memory_mb: int
    """What they give, in MiB: never more than was asked for."""


# -- forms ---------------------------------------------------------------------------------------------------

_QUANTITY = re.compile(r"(\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d{1,2}))?(m|k|[MGTP]|[KMGTP]i)?")
_QUANTITY_UNITS = {
    "": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50,
}  # fmt: skip
_DOCKER = re.compile(r"(\d+\.?\d*|\.\d+) ?([bkmgt]?)b?")
_DOCKER_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_ACI_STEPS = 10
"""Azure takes tenths of a GB."""


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _quantity(value: object) -> float | None:
    """Return the bytes of a Kubernetes quantity; a bare number is bytes."""
    if not isinstance(value, str):
        return _number(value)
    match = _QUANTITY.fullmatch(value.strip())
    if match is None:
        return None
    number, exponent, unit = match.groups()
    return _number(float(number) * 10.0 ** int(exponent or 0) * _QUANTITY_UNITS[unit or ""])


def _docker(value: object) -> float | None:
    """Return the bytes of Docker's form; its units are powers of 1024, and a bare number is bytes."""
    if not isinstance(value, str):
        return _number(value)
    match = _DOCKER.fullmatch(value.strip().lower())
    return _number(float(match[1]) * _DOCKER_UNITS[match[2]]) if match else None


def _mebibytes(value: object) -> float | None:
    number = _number(value)
    return number * MIB if number else None


def _gigabytes(value: object) -> float | None:
    number = _number(value)
    return number * 1024 * MIB if number else None


def _tenths_of_gb(mib: int) -> float:
    # of a size that fits: its fraction of a MiB was cut off
    return math.ceil(mib * _ACI_STEPS / 1024) / _ACI_STEPS


def _fit_tenths(mib: int) -> int:
    return mib * _ACI_STEPS // 1024 * 1024 // _ACI_STEPS


_WHOLE_MIB = MemoryAdapter(reads=(SITE_VARIABLE,), parse=_mebibytes, form=int)
_PODS = MemoryAdapter(reads=("memory_limit", "memory_request"), parse=_quantity, form=lambda mib: f"{mib}Mi")
_CLOUD_RUN = MemoryAdapter(reads=("memory",), parse=_quantity, form=lambda mib: f"{mib}Mi")
_ECS = MemoryAdapter(reads=("memory",), parse=_mebibytes, form=int)
_ACI = MemoryAdapter(
    reads=("memory",),
    parse=_gigabytes,
    form=_tenths_of_gb,
    fit=_fit_tenths,
)
_DOCKER_POOL = MemoryAdapter(
    reads=("mem_limit",), parse=_docker, form=lambda mib: f"{mib}m", follows=("memswap_limit",)
)
ADAPTERS: Mapping[str, MemoryAdapter] = {
    "kubernetes": _PODS,
    "snowpark-container-service": _PODS,
    "ecs": _ECS,
    "docker": _DOCKER_POOL,
    "cloud-run": _CLOUD_RUN,
    "cloud-run-v2": _CLOUD_RUN,
    "azure-container-instance": _ACI,
    "process": _WHOLE_MIB,
}
"""By type of work pool without `:push`."""
VARIABLES = tuple(dict.fromkeys(name for each in (_WHOLE_MIB, *ADAPTERS.values()) for name in each.reads))
"""Every job variable that gives a size."""

_BESIDE = ("cpu", "launch_type")
"""Job variables that say which sizes are allowed."""


# -- what a cloud allows -------------------------------------------------------------------------------------

_ECS_CPU = 1024
"""What prefect-aws gives a task whose `cpu` is not set."""
_NOT_FARGATE = frozenset({"EC2", "EXTERNAL"})
_SMALLEST_TASK = 64
_LARGEST_MIB = 1_048_576


def allowed_sizes(variables: Mapping[str, Any], pool_type: str = "") -> tuple[int, ...]:
    """Return the only sizes in MiB that the infrastructure takes, smallest first; empty when any will do.

    They are those that go with the CPU, then the larger ones for which the CPU has to move as well. Without a
    `pool_type`, variables count as those of a Fargate task if their size is one that Fargate knows.
    """
    kind = _kind(pool_type)
    if kind not in ("", "ecs") or variables.get("launch_type") in _NOT_FARGATE:
        return ()
    cpu = variables.get("cpu")
    units = _number(_ECS_CPU if cpu is None else cpu)
    sizes = FARGATE.get(int(units), ()) if units else ()
    if kind and sizes:
        more = {size for cpus, sold in FARGATE.items() if cpus > int(units or 0) for size in sold}
        return (*sizes, *sorted(size for size in more if size > sizes[-1]))
    if kind:
        return sizes
    names = [name for name in VARIABLES if variables.get(name) is not None]
    return sizes if names == ["memory"] and _number(variables["memory"]) in sizes else ()


# -- reading -------------------------------------------------------------------------------------------------


def memory_of(variables: Mapping[str, Any], pool_type: str = "") -> int | None:
    """Return the size that job variables give, in whole MiB; None when they give none or one that cannot be read.

    Without a `pool_type` the form is told from the variable's name. A bare number under `memory` has three meanings:
    below 64 it is GB (Azure), up to the largest size of an action MiB (ECS), above that bytes (Cloud Run).
    """
    for name in _adapter(pool_type).reads if pool_type else ():
        if variables.get(name) is not None:
            return _whole(_adapter(pool_type).parse(variables[name]))
    for name in (SITE_VARIABLE,) if pool_type else VARIABLES:
        if variables.get(name) is not None:
            return _whole(_PARSE_BY_NAME[name](variables[name]))
    return None


def effective(
    template: Mapping[str, Any], deployment: Mapping[str, Any], run: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a worker merges: a template's defaults, then a deployment's variables, then a run's own.

    `template` has the properties of the base job template's variables. What it does not know is left out, since
    Prefect drops it.
    """
    defaults = {
        name: setting["default"] for name, setting in template.items() if setting.get("default") is not None
    }
    return {name: value for name, value in {**defaults, **deployment, **run}.items() if name in template}


def size_variables(base_job_template: object, pool_type: str) -> dict[str, Any]:
    """Return the variables of a base job template that bear on a run's size, each with its default or None.

    What is no template has none. A default of a process pool limits nothing: its worker hands it on and no more.
    """
    variables = base_job_template.get("variables") if isinstance(base_job_template, Mapping) else None
    properties = variables.get("properties") if isinstance(variables, Mapping) else None
    if not isinstance(properties, Mapping):
        return {}
    return {
        name: None if _kind(pool_type) == "process" else setting.get("default")
        for name in (*VARIABLES, *_BESIDE)
        if isinstance(setting := properties.get(name), Mapping)
    }


def _of_memory(value: object) -> float | None:
    number = _number(value)
    if number is None:
        return _quantity(value)
    if number < _SMALLEST_TASK:
        return _gigabytes(number)
    return _mebibytes(number) if number <= _LARGEST_MIB else number


_PARSE_BY_NAME: Mapping[str, Callable[[object], float | None]] = {
    SITE_VARIABLE: _mebibytes,
    "memory_limit": _quantity,
    "memory_request": _quantity,
    "mem_limit": _docker,
    "memory": _of_memory,
}


def _whole(size: float | None) -> int | None:
    return int(size // MIB) or None if size and math.isfinite(size) else None


def _kind(pool_type: str) -> str:
    return pool_type.partition(":")[0]


def _adapter(pool_type: str) -> MemoryAdapter:
    return ADAPTERS.get(_kind(pool_type), _WHOLE_MIB)


# -- writing -------------------------------------------------------------------------------------------------


def placeholders(job_configuration: object) -> frozenset[str]:
    """Return the variables that a base job template's configuration uses."""
    return frozenset(re.findall(r"\{\{\s*([\w-]+)\s*\}\}", repr(job_configuration)))


def change_memory(
    pool_type: str,
    template: Mapping[str, Any],
    used: frozenset[str],
    variables: Mapping[str, Any],
    memory_mb: int,
) -> MemoryChange | str:
    """Return the job variables that give a run `memory_mb` MiB at most, or why there are none.

    `template` has the properties of the base job template's variables, `used` those that its configuration uses and
    `variables` what the run has now (`effective`).
    """
    adapter = _adapter(pool_type)
    wanted = adapter.reads[0]
    if wanted not in template and SITE_VARIABLE in template:
        adapter = _WHOLE_MIB
    name = adapter.reads[0]
    if name not in template:
        return f"has no variable {wanted!r}, so Prefect would drop it"
    if name not in used:
        return f"has a variable {name!r} that its job configuration does not use"
    now = memory_of(variables, pool_type if adapter is not _WHOLE_MIB else "process")
    size = _fitting(adapter, variables, memory_mb)
    if isinstance(size, str):
        return size
    cpu_milli = None
    if now is not None and size <= now < memory_mb:
        on_fargate = adapter is _ECS and variables.get("launch_type") not in _NOT_FARGATE
        pair = fargate_pair(_cpu_units(variables), now, memory_mb) if on_fargate else None
        if pair is None:
            return (
                f"has no size above {now} and up to {memory_mb} MiB{_next(pool_type, variables, memory_mb)}"
            )
        cpu_milli, size = pair
    elif adapter is _CLOUD_RUN:
        cpu_milli = cloud_run_cpu(cpu_of(variables, pool_type) or CORE, size)
    moved = _moved(adapter, variables, now, size)
    if cpu_milli is None:
        return MemoryChange(variables=moved, memory_mb=size)
    cpu = change_cpu(pool_type, template, used, variables, cpu_milli)
    if isinstance(cpu, str):
        return f"{cpu}, and {size} MiB go with {cpu_milli / CORE:g} CPUs"
    return MemoryChange(variables=moved | cpu, memory_mb=size)


def _fitting(adapter: MemoryAdapter, variables: Mapping[str, Any], memory_mb: int) -> int | str:
    """Return the largest size that can be told and goes with the CPU, not above this one, or why there is none."""
    if adapter is _CLOUD_RUN:
        return min(memory_mb, max(CLOUD_RUN.values()))
    if adapter is not _ECS or variables.get("launch_type") in _NOT_FARGATE:
        return adapter.fit(memory_mb) or f"has no size up to {memory_mb} MiB"
    sizes = FARGATE.get(_cpu_units(variables), ())
    if not sizes:
        return f"gives {variables.get('cpu')!r} CPU units, which Fargate does not know"
    below = [size for size in sizes if size <= memory_mb]
    if not below:
        return f"gives CPU units with which Fargate takes {sizes[0]} to {sizes[-1]} MiB, not {memory_mb}"
    return below[-1]


def _cpu_units(variables: Mapping[str, Any]) -> int:
    cpu = variables.get("cpu")
    return int(_number(_ECS_CPU if cpu is None else cpu) or 0)


def _next(pool_type: str, variables: Mapping[str, Any], memory_mb: int) -> str:
    larger = [size for size in allowed_sizes(variables, pool_type) if size > memory_mb]
    return f"; the next is {larger[0]} MiB" if larger else ""


def _moved(
    adapter: MemoryAdapter, variables: Mapping[str, Any], now: int | None, size: int
) -> dict[str, Any]:
    """Return the new value of the size and of whatever moves with it, each in the proportion that it had."""
    present = [name for name in adapter.reads if variables.get(name) is not None] or [adapter.reads[0]]
    moved: dict[str, Any] = {present[0]: adapter.form(size)}
    for name in present[1:]:  # a request: never above the limit
        moved[name] = adapter.form(min(size, _scaled(adapter, variables[name], now, size)))
    for name in adapter.follows:  # swap and memory together: never below the memory; -1 is without end
        if variables.get(name) is not None and adapter.parse(variables[name]) is not None:
            moved[name] = adapter.form(max(size, _scaled(adapter, variables[name], now, size)))
    return moved


def _scaled(adapter: MemoryAdapter, value: object, now: int | None, size: int) -> int:
    old = _whole(adapter.parse(value))
    return math.ceil(old * size / now) if old and now else size
