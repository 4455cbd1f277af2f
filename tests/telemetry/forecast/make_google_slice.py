"""Cuts the slice of Google's 2011 cell trace that the forecaster ships with. Run by hand, with the trace's path.

Kept: jobs that ended as FINISH or FAIL and were submitted in one contiguous stretch of time, so that what was
known at each submission is what was known then. KILL, EVICT and LOST are left out: like Prefect's CANCELLED
they say nothing about the program.
"""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

FIRST_DAY = 9
ROWS = 20_000
TARGET = Path(__file__).parents[3] / "telemetry/pilotage/telemetry/forecast/google2011_slice.parquet"


def main(trace: str) -> None:
    """Writes the slice."""
    with duckdb.connect() as connection:
        connection.execute(
            """
            COPY (
                SELECT (dense_rank() OVER (ORDER BY workflow_id))::INTEGER AS workflow,
                    (submit_s - 86400 * $day)::INTEGER AS submitted, (start_s - 86400 * $day)::INTEGER AS started,
                    (end_s - 86400 * $day)::INTEGER AS ended, outcome = 'FAIL' AS failed
                FROM (
                    FROM read_parquet($trace)
                    WHERE outcome IN ('FINISH', 'FAIL') AND submit_s >= 86400 * $day AND end_s IS NOT NULL
                    ORDER BY submit_s LIMIT $rows
                ) ORDER BY submitted, workflow
            ) TO $target (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 19)
            """,
            {"day": FIRST_DAY, "rows": ROWS, "trace": trace, "target": str(TARGET)},
        )
        counted = "SELECT count(*), sum(failed::INT), max(submitted) FROM read_parquet(?)"
        print(connection.execute(counted, [str(TARGET)]).fetchone())
    print(TARGET, TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main(sys.argv[1])
