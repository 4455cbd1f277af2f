"""Builds a feature table in memory, within the memory that its work pool gave it.

The pool `pilotage` passes the job variable `memory_mb` as the environment variable `PILOTAGE_MEMORY`. The
limit is real: RLIMIT_AS, counted from what Python and Prefect hold already, so that a run which needs more
dies of a MemoryError from the allocator. (Linux enforces RLIMIT_AS; macOS does not.)
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import flow, get_run_logger, task

MIB = 1024 * 1024
CHUNK_MB = 8
DEFAULT_MEMORY_MB = 128


def granted_mb() -> int:
    """What the pool gave this run, in MiB."""
    return int(os.environ.get("PILOTAGE_MEMORY", f"{DEFAULT_MEMORY_MB} MiB").removesuffix("MiB"))


@contextmanager
def memory_limit(megabytes: int) -> Iterator[None]:
    """Limit the address space of the process inside the block to this much more than it holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + megabytes * MIB, hard))
    try:
        yield
    finally:
        # Prefect still has to report how it ended, which takes memory too
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@task
def build_table(needs_mb: int, limit_mb: int) -> int:
    """How many blocks the table has."""
    table: list[bytearray] = []
    with memory_limit(limit_mb):
        try:
            for _ in range(0, needs_mb, CHUNK_MB):
                table.append(bytearray(CHUNK_MB * MIB))
            return len(table)
        finally:
            table.clear()


@flow(name="build-features")
def build_features(needs_mb: int = 64) -> int:
    """How many blocks of features were built."""
    limit = granted_mb()
    get_run_logger().info("building with at most %d MiB", limit)
    return build_table(needs_mb, limit)


if __name__ == "__main__":
    build_features()
