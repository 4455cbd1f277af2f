"""How well lines of one kind are put into one template: grouping accuracy as LogHub defines it, and lines a second.

`LOGS=DIR make bench-log_templates` reads every `NAME.csv` or `NAME.csv.gz` of a directory: the columns `content` (a line
without its header) and `event_id` (the template that somebody labelled it with), as LogHub's 2k sets have them (`Content`
and `EventId` are read too). The sets are free for research with citation and are not part of this repository.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.report import Row, beside, publish

from pilotage.planner.log_templates import grouped, masked


def grouping_accuracy(labels: Sequence[object], groups: Sequence[object]) -> float:
    """Return the share of lines whose group holds exactly the lines of their label (Zhu et al., ICSE-SEIP 2019)."""
    sizes = Counter(labels)
    members: dict[object, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    right = 0
    for indices in members.values():
        held = {labels[i] for i in indices}
        if len(held) == 1 and sizes[next(iter(held))] == len(indices):
            right += len(indices)
    return right / len(labels) if labels else 1.0


def groups_of(lines: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the template of each line."""
    words = [masked(line) for line in lines]
    groups = grouped(words)
    return [groups[one] for one in words]


def _rows(path: Path) -> tuple[list[str], list[str]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    read = csv.DictReader(io.StringIO(text, newline=""))
    rows = [{key.lower().replace("_", ""): value for key, value in row.items()} for row in read]
    return [row["content"] for row in rows], [row["eventid"] for row in rows]


def main(directory: str) -> None:
    """Measure every set of a directory; write .bench/log_templates.json."""
    rows: list[Row] = []
    accuracies: list[float] = []
    for path in sorted(Path(directory).glob("*.csv*")) if directory else []:
        lines, labels = _rows(path)
        name = path.name.split(".")[0].removesuffix("_2k")
        began = time.process_time()
        groups = groups_of(lines)
        spent = time.process_time() - began
        accuracies.append(grouping_accuracy(labels, groups))
        labelled = float(len(set(labels)))
        rows += [
            beside(f"{name}, grouping accuracy", "share", 1, ours=accuracies[-1]),
            beside(f"{name}, templates", "count", 1, ours=len(set(groups)), peer="labelled", theirs=labelled),
            beside(f"{name}, lines a second", "1/s", 1, ours=len(lines) / spent if spent else 0.0),
        ]
    if not accuracies:
        print("No set to measure: name a directory of labelled logs by LOGS=DIR.")
        return
    mean = sum(accuracies) / len(accuracies)
    publish("log_templates", [*rows, beside("mean grouping accuracy", "share", len(accuracies), ours=mean)])


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("LOGS", ""))
