"""The process of one ad hoc statement: limits itself, opens the file read only, answers once and ends.

It is started by `adhoc_sql.py` with an empty environment. Standard input has `{"path", "sql", "rows", "memory", "cpu"}`;
standard output gets `S` when the statement begins, then one status byte (`A` an Arrow stream, `C` the same with rows cut
off, `R` a refusal in words, `E` an error in words, `M` out of memory) and the body. The system ends it when it takes
more than it may.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pilotage.telemetry.store.adhoc_rules import refusal

NICE = 10
"""How much this process gives way to the others of the machine."""
BATCH = 1_000


def main() -> None:
    """Answers the one statement on standard input."""
    asked = json.load(sys.stdin)
    connection = duckdb.connect(
        asked["path"],
        read_only=True,
        config={
            "threads": 1,
            "memory_limit": f"{asked['memory']}B",
            "python_enable_replacements": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        },
    )
    for setting in ("TimeZone = 'UTC'", "temp_directory = ''", "enable_external_access = false"):
        connection.execute(f"SET GLOBAL {setting}")
    connection.execute("SET lock_configuration = true")
    _limit(asked["memory"], asked["cpu"])
    sys.stdout.buffer.write(b"S")
    sys.stdout.buffer.flush()
    status, body = _answer(connection, asked["sql"], asked["rows"])
    sys.stdout.buffer.write(status + body)
    sys.stdout.buffer.flush()
    os._exit(0)  # nothing here needs an orderly end


def _limit(memory: int, cpu: float) -> None:
    """From now on: after everybody else, so much more memory, so much more CPU time, no file, no core."""
    os.nice(NICE)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + cpu) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statm = Path("/proc/self/statm")
    if statm.exists():  # elsewhere DuckDB's own memory_limit and the watcher's hold
        size = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))


def _answer(connection: Any, sql: str, rows: int) -> tuple[bytes, bytes]:
    try:
        if why := refusal(connection.cursor(), sql):
            return b"R", why.encode("utf-8", "replace")
        reader = connection.execute(sql).to_arrow_reader(BATCH)
        batches, count = [], 0
        for batch in reader:
            batches.append(batch)
            count += batch.num_rows
            if count > rows:
                break
        table = pa.Table.from_batches(batches, schema=reader.schema).slice(0, rows)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return (b"C" if count > rows else b"A"), sink.getvalue().to_pybytes()
    except MemoryError:
        return b"M", b""
    except (duckdb.Error, pa.ArrowException) as exc:
        error_text = str(exc).strip().split("\n\n")[0].replace("\n", " ")[:400]
        short = (
            isinstance(exc, duckdb.OutOfMemoryException | pa.ArrowMemoryError) or "bad_alloc" in error_text
        )
        return b"M" if short else b"E", error_text.encode("utf-8", "replace")


if __name__ == "__main__":
    main()
