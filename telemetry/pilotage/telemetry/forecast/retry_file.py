"""Reads decisions about retries from Parquet or CSV. docs/forecast.md has the format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pilotage.telemetry.errors import ConfigError
from pilotage.telemetry.forecast.run_history import Flags, Floats, Ints, canonical, coded
from pilotage.telemetry.store.table_file import quoted, read_table_file

ALIASES = {
    "chain": ("chain", "chain_id", "run_id", "id"),
    "workflow": ("workflow", "deployment", "workflow_id", "job_name", "name"),
    "attempt": ("attempt", "attempt_number", "run_attempt", "try"),
    "decided_at": ("decided_at", "created_at", "at"),
    "outcome": ("outcome", "result", "conclusion"),
    "known_at": ("known_at", "ended_at", "completed_at"),
    "failure_class": ("failure_class", "class"),
    "log_tail": ("log_tail", "log", "message"),
}
"""Column names that are understood, the documented one first."""
REQUIRED = ("chain", "workflow", "attempt", "decided_at", "outcome")
KNOWN_AFTER_S = 3_600.0
"""When an outcome is taken to be known, where the file does not say and no later attempt of its chain shows it."""
LOG_CHARS = 6_000
"""Characters at the end of a log that are read."""
YES = frozenset({"1", "1.0", "TRUE", "T", "YES", "Y", "INTERMITTENT", "FLAKY", "PASS", "RECOVERED"})
NO = frozenset(
    {
        "0",
        "0.0",
        "FALSE",
        "F",
        "NO",
        "N",
        "REGULAR",
        "PERMANENT",
        "BROKEN",
        "STARTUP_FAILURE",
        "NOT_RECOVERED",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryDecisions:
    """Moments at which somebody had to say whether to try again, in the order of time; an element each."""

    chain: tuple[str, ...]
    workflow: Ints
    attempt: Floats
    decided: Floats
    """Seconds."""
    known: Floats
    """When the outcome was known, seconds; infinite where there is none."""
    succeeded: Flags
    """Whether the attempt that was decided on succeeded; False where its outcome is not known."""
    failure_class: tuple[str, ...]
    log_tail: tuple[str, ...]
    """The end of the log of what had failed; empty where there is none."""
    stamped: bool
    """Whether `decided` is epoch seconds."""

    def __len__(self) -> int:
        """Return the number of decisions."""
        return len(self.chain)

    def has_outcome(self) -> Flags:
        """Return which outcomes are known at all."""
        return np.isfinite(self.known)


def succeeded(word: str) -> bool | None:
    """Return whether an outcome means success; None where it says nothing."""
    upper = word.strip().upper()
    if upper in YES or canonical(upper) == "COMPLETED":
        return True
    if canonical(upper) == "RUNNING":
        return None
    if upper in NO or canonical(upper) in ("FAILED", "CRASHED", "CANCELLED"):
        return False
    raise ConfigError(
        f"Reading the outcome {word!r} of an attempt: it is neither success nor failure. Use COMPLETED and FAILED."
    )


def read_decisions(path: Path) -> RetryDecisions:
    """Return the decisions of a file in the order of time. Raises ConfigError when it holds none."""
    if not path.is_file():
        raise ConfigError(f"Reading the attempts {path}: there is no such file. Name a Parquet or CSV file.")
    stamped = False

    def select(types: Mapping[str, str]) -> dict[str, str]:
        nonlocal stamped
        lower = {name.lower(): name for name in reversed(list(types))}
        columns: dict[str, str] = {}
        for ours, names in ALIASES.items():
            free = (lower[a] for a in names if a in lower and lower[a] not in columns.values())
            if (column := next(free, None)) is not None:
                columns[ours] = column
        if missing := [name for name in REQUIRED if name not in columns]:
            raise ConfigError(
                f"Reading the attempts {path}: it has no column {', '.join(missing)}; found {', '.join(types)}. "
                "docs/forecast.md describes the format."
            )
        kind = types[columns["decided_at"]]
        stamped = "TIME" in kind or kind.startswith(("VARCHAR", "DATE"))
        wanted = {}
        for ours in ALIASES:
            if ours not in columns:
                wanted[ours] = "NULL::DOUBLE" if ours == "known_at" else "NULL::VARCHAR"
            elif ours in ("decided_at", "known_at"):
                wanted[ours] = _seconds(columns[ours], types[columns[ours]])
            elif ours == "attempt":
                wanted[ours] = f"CAST({quoted(columns[ours])} AS DOUBLE)"
            elif ours == "log_tail":
                wanted[ours] = f"right(CAST({quoted(columns[ours])} AS VARCHAR), {LOG_CHARS})"
            else:
                wanted[ours] = f"CAST({quoted(columns[ours])} AS VARCHAR)"
        return wanted

    table = read_table_file(path, select)
    decided = np.ma.filled(np.ma.asarray(table["decided_at"], dtype=np.float64), np.nan)
    kept = np.flatnonzero(np.isfinite(decided))
    if not len(kept):
        raise ConfigError(f"Reading the attempts {path}: no row has a time of decision.")
    attempt = np.nan_to_num(np.ma.filled(np.ma.asarray(table["attempt"], dtype=np.float64), 1.0), nan=1.0)
    order = kept[np.lexsort((attempt[kept], decided[kept]))]

    def texts(name: str) -> tuple[str, ...]:
        column = np.ma.filled(np.ma.asarray(table[name]).astype(object), "")[order]
        return tuple("" if value is None or value != value else str(value) for value in column)

    outcomes = [succeeded(word) for word in texts("outcome")]
    said = np.ma.filled(np.ma.asarray(table["known_at"], dtype=np.float64), np.nan)[order]
    chain, decided = texts("chain"), decided[order]
    known = _known_at(chain, decided, said)
    return RetryDecisions(
        chain=chain,
        workflow=coded(texts("workflow")),
        attempt=attempt[order],
        decided=decided,
        known=np.where([outcome is None for outcome in outcomes], np.inf, known),
        succeeded=np.array([bool(outcome) for outcome in outcomes]),
        failure_class=texts("failure_class"),
        log_tail=texts("log_tail"),
        stamped=stamped or float(decided.min(initial=np.inf)) > 1e8,
    )


def _seconds(column: str, kind: str) -> str:
    name = quoted(column)
    if kind.startswith("VARCHAR"):
        return f"epoch(CAST({name} AS TIMESTAMPTZ))"
    return f"epoch({name})" if "TIME" in kind or kind == "DATE" else f"CAST({name} AS DOUBLE)"


def _known_at(chain: tuple[str, ...], decided: Floats, said: Floats) -> Floats:
    """Return when each outcome was known: as the file says, else at the chain's next decision or after KNOWN_AFTER_S."""
    known = decided + KNOWN_AFTER_S
    following: dict[str, float] = {}
    for place in range(len(chain) - 1, -1, -1):
        known[place] = min(known[place], following.get(chain[place], np.inf))
        following[chain[place]] = decided[place]
    return np.where(np.isfinite(said), np.maximum(said, decided), known)
