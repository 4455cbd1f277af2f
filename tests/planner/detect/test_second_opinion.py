"""The classifier: it speaks where no sign decides, says how sure it is, and otherwise says nothing."""

from __future__ import annotations

from collections import Counter

import pytest

from pilotage.planner.detect.diagnosis import Diagnosis, Line
from pilotage.planner.detect.report import failure_text, report_on
from pilotage.planner.detect.second_opinion import (
    SILENT_BELOW,
    classifier,
    document_of,
    shipped_texts,
    with_second_opinion,
)
from pilotage.planner.findings import FailureClass

UNKNOWN = Diagnosis(failure_class=FailureClass.UNKNOWN)


def test_what_a_row_decided_is_not_asked_again() -> None:
    made = Diagnosis(failure_class=FailureClass.AUTH, rule_id="auth-text")
    assert with_second_opinion(made, "whatever", []) is made


@pytest.mark.parametrize("message", ["", "1/3 states failed."])
def test_a_sentence_that_says_nothing_is_no_text_to_judge(message: str) -> None:
    assert with_second_opinion(UNKNOWN, message, []) is UNKNOWN


def test_it_is_silent_or_at_least_as_sure_as_it_must_be() -> None:
    said = [
        classifier().opinion(text) for text in ("the tide was out", "zzz qqq", "login rejected by warehouse")
    ]
    assert all(opinion is None or opinion.probability >= SILENT_BELOW for opinion in said)


def test_it_has_learned_what_ships() -> None:
    rows = list(shipped_texts())
    frequent = {label for label, n in Counter(row["expected_class"] for row in rows).items() if n >= 3}
    known = [row for row in rows if row["expected_class"] in frequent]
    said = [classifier().opinion(document_of(row["message"], [])) for row in known]
    told = [
        (row["expected_class"], opinion.label) for row, opinion in zip(known, said, strict=True) if opinion
    ]
    assert len(told) > len(known) / 4
    assert sum(expected == found for expected, found in told) >= 0.9 * len(told)


def test_a_report_says_by_whom() -> None:
    rows = [row for row in shipped_texts() if row["expected_class"] == "auth"]
    made = with_second_opinion(UNKNOWN, rows[0]["message"], [Line(level=40, text=rows[0]["message"])])
    assert made.by in {"classifier", "rule"}
    assert (made.by == "classifier") == (made.failure_class is not FailureClass.UNKNOWN)
    nobody = report_on(
        failure_text({"message": "RuntimeError: the tide was out"}, "here"), second_opinion=False
    )
    assert (nobody.by, nobody.remedy) == ("nobody", "tell_owner")
