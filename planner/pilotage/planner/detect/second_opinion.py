"""Ask a text classifier where no sign decides. It is trained at its first use from the texts that ship beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pilotage.planner.detect.diagnosis import DEFAULT_CURE, Diagnosis, Line
from pilotage.planner.detect.reasoning import parsed_lines, says_nothing
from pilotage.planner.findings import Cure, FailureClass

if TYPE_CHECKING:
    from pilotage.telemetry.forecast.text_classifier import TextClassifier

SILENT_BELOW = 0.75
"""The classifier says nothing when it is less sure: then nobody has decided."""


def shipped_texts() -> Iterator[dict[str, Any]]:
    """Yield the labelled failure texts that ship with the package."""
    for file in sorted(
        files("pilotage.planner.detect").joinpath("texts").iterdir(), key=lambda file: file.name
    ):
        if file.name.endswith(".jsonl"):
            for line in file.read_text(encoding="utf-8").splitlines():
                yield json.loads(line)


def document_of(message: str, lines: Sequence[Line]) -> str:
    """Return what the classifier reads of a failure: its message, and its loud lines from the newest."""
    return "\n".join([message, *(line.text for line in reversed(lines) if line.level >= 30)])


@cache
def classifier() -> TextClassifier:
    """Return the classifier, trained once in a process; about two seconds with the import of scikit-learn."""
    from pilotage.telemetry.forecast.text_classifier import TextClassifier  # start-up time: scikit-learn

    rows = list(shipped_texts())
    return TextClassifier(
        [document_of(row["message"], list(parsed_lines(row["log_tail"]))) for row in rows],
        [row["expected_class"] for row in rows],
        [row["source"] for row in rows],
        SILENT_BELOW,
    )


def with_second_opinion(diagnosis: Diagnosis, message: str, lines: Sequence[Line]) -> Diagnosis:
    """Return the diagnosis, or the classifier's where no row decided and it is sure enough."""
    document = document_of(message, lines)
    if diagnosis.failure_class is not FailureClass.UNKNOWN or says_nothing(document):
        return diagnosis
    opinion = classifier().opinion(document)
    if opinion is None:
        return diagnosis
    taken_for = FailureClass(opinion.label)
    return replace(
        diagnosis,
        failure_class=taken_for,
        by="classifier",
        because=f"no sign decides; its words are most like those of {taken_for} failures",
        confidence=opinion.probability,
        cure=DEFAULT_CURE.get(taken_for, Cure.UNCLEAR),
    )
