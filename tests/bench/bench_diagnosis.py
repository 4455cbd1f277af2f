"""How often a failure is taken for what it is, and what would have been done: rules, classifier, and what never may happen.

`make bench-diagnosis` measures the texts that ship with the package and those that lie with the tests, and others where
`TEXTS=a.jsonl,b.jsonl` names them (fields in `planner/pilotage/planner/detect/texts/README.md`). The classifier learns from
the shipped texts, so for those only the rules' figures say anything.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from pilotage.planner.detect.report import DiagnosisReport, failure_text, report_on
from pilotage.planner.detect.second_opinion import shipped_texts

SAME = {"environment": "infrastructure"}
"""A class beside the older word that collections use for it."""
AGAIN = {"retry_now", "retry_later"}
WITH_THE_TESTS = Path(__file__).parents[1] / "planner" / "detect" / "data"


def accepted_classes(row: dict[str, Any]) -> set[str]:
    """Return the classes that count as right or acceptable, with the wider word of a narrow one."""
    named = {row["expected_class"], row.get("missing_class") or "", *row.get("also_acceptable", ())} - {""}
    return named | {SAME[name] for name in named if name in SAME}


def figures(rows: Sequence[dict[str, Any]], reports: Sequence[DiagnosisReport]) -> dict[str, Any]:
    """Return what a set of labelled texts says about the reports on it."""
    pairs = list(zip(rows, reports, strict=True))
    right = Counter[str]()
    expected, found = Counter[str](), Counter[str]()
    confusion = Counter[tuple[str, str]]()
    for row, report in pairs:
        wanted = row.get("missing_class") or row["expected_class"]
        got = report.narrower_class
        fine = bool({got, report.failure_class} & accepted_classes(row))
        confusion_of = wanted if fine else got
        expected[wanted] += 1
        found[confusion_of] += 1
        right[wanted] += confusion_of == wanted
        confusion[wanted, confusion_of] += 1
    f1 = [
        2 * right[label] / (expected[label] + found[label]) if expected[label] + found[label] else 0.0
        for label in expected
    ]
    permanent = [(row, report) for row, report in pairs if row.get("permanent")]
    alive = [
        (row, report)
        for row, report in pairs
        if "may_still_be_running" in (row["expected_class"], row.get("missing_class"))
    ]
    memory = [(row, report) for row, report in pairs if row["expected_class"] == "out_of_memory"]

    def retried(of: Sequence[tuple[dict[str, Any], DiagnosisReport]]) -> list[str]:
        return [row["id"] for row, report in of if report.remedy in AGAIN]

    remedies = [
        (row, report)
        for row, report in pairs
        if report.remedy in {row["expected_remedy"], *row.get("remedy_also_acceptable", ())}
    ]
    return {
        "texts": len(pairs),
        "class_right": sum(r.failure_class == row["expected_class"] or r.narrower_class in
                           (row["expected_class"], row.get("missing_class")) for row, r in pairs) / len(pairs),
        "class_right_or_acceptable": sum(right.values()) / len(pairs),
        "remedy_right": sum(r.remedy == row["expected_remedy"] for row, r in pairs) / len(pairs),
        "remedy_right_or_acceptable": len(remedies) / len(pairs),
        "macro_f1": sum(f1) / len(f1),
        "by": dict(Counter(report.by for report in reports)),
        "permanent": len(permanent), "permanent_retried": retried(permanent),
        "may_be_alive": len(alive), "may_be_alive_retried": retried(alive),
        "memory": len(memory), "memory_retried_at_its_size": retried(memory),
        "confusion": {f"{wanted} -> {got}": n for (wanted, got), n in sorted(confusion.items()) if wanted != got},
    }  # fmt: skip


def texts_a_second(rows: Sequence[dict[str, Any]], seconds: float = 1.0) -> dict[str, float]:
    """Return how many texts a second rules alone diagnose, by the clock and by the processor's time."""
    texts = [failure_text(row, "the bench") for row in rows]
    done, began, worked = 0, time.perf_counter(), time.process_time()
    while time.process_time() - worked < seconds:
        for text in texts:
            report_on(text, second_opinion=False)
        done += len(texts)
    return {
        "by_the_clock": done / (time.perf_counter() - began),
        "by_processor_time": done / (time.process_time() - worked),
    }


def measured(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of rules alone and of rules with the classifier."""
    texts = [failure_text(row, row.get("id", "")) for row in rows]
    return {
        "rules": figures(rows, [report_on(text, second_opinion=False) for text in texts]),
        "rules_and_classifier": figures(rows, [report_on(text) for text in texts]),
        "texts_a_second": texts_a_second(rows),
    }


def shown(name: str, of: dict[str, Any]) -> None:
    """Print the figures of one set."""
    print(f"\n{name}")
    for who in ("rules", "rules_and_classifier"):
        told = of[who]
        print(
            f"  {who}: {told['texts']} texts, class right {told['class_right']:.1%}, right or acceptable "
            f"{told['class_right_or_acceptable']:.1%}, remedy right {told['remedy_right']:.1%}, right or acceptable "
            f"{told['remedy_right_or_acceptable']:.1%}, macro-F1 {told['macro_f1']:.3f}, by {told['by']}"
        )
        print(
            f"    retried: of {told['permanent']} permanent {told['permanent_retried']}, of {told['may_be_alive']} that "
            f"may be alive {told['may_be_alive_retried']}, of {told['memory']} out of memory "
            f"{told['memory_retried_at_its_size']}"
        )
        print(f"    confused (expected -> found): {told['confusion']}")
    speed = of["texts_a_second"]
    clock, worked = speed["by_the_clock"], speed["by_processor_time"]
    print(f"  texts a second with rules alone: {clock:.0f} ({worked:.0f} of processor time)")


def main(paths: Sequence[str]) -> None:
    """Measure the sets that are named, or the shipped one and those of the tests; write .bench/diagnosis.json."""
    sets = {
        str(path): [json.loads(line) for line in Path(path).read_text().splitlines() if line.strip()]
        for path in paths or sorted(map(str, WITH_THE_TESTS.glob("failure_texts_*.jsonl")))
    }
    if not paths:
        sets = {"shipped": list(shipped_texts())} | sets
    results = {name: measured(rows) for name, rows in sets.items()}
    for name, of in results.items():
        shown(name, of)
    out = Path(".bench")
    out.mkdir(exist_ok=True)
    (out / "diagnosis.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:] or [path for path in os.environ.get("TEXTS", "").split(",") if path])
