"""What is read out of a text before any of its words: types, codes, waits, sizes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pilotage.planner.detect.diagnosis import Line
from pilotage.planner.detect.failure_rules import FAILURE_RULES
from pilotage.planner.detect.reasoning import parsed_lines, reason
from pilotage.planner.detect.report import failure_text, report_on
from pilotage.planner.detect.signs.reading import (
    asked_to_wait,
    beyond_quota,
    bytes_wanted,
    read,
    seconds_to_wait,
)
from pilotage.telemetry.errors import ConfigError
from pilotage.telemetry.facts import StateType

QUOTA = (
    'pods "a" is forbidden: exceeded quota: q, requested: memory={}, used: memory=1Gi, limited: memory=2Gi'
)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("HTTPError: 503 Server Error: Service Unavailable for url: https://x", "http:503"),
        ("Client error '429 Too Many Requests' for url 'https://x'", "http:429"),
        ("ClientResponseError: 502, message='Bad Gateway', url='https://x'", "http:502"),
        ("Error code: 401 - {'error': {}}", "http:401"),
        ("An error occurred (403) when calling the HeadObject operation: Forbidden", "http:403"),
        ("OSError: [Errno 28] No space left on device", "errno:28"),
        ("000606 (57P03): No active warehouse selected", "snowflake:000606"),
        ("[SQLSTATE 40001] could not serialize", "sqlstate:40001"),
        ("(pymysql.err.OperationalError) (1213, 'Deadlock found')", "mysql:1213"),
        ("ORA-12541: TNS:no listener", "oracle:ORA-12541"),
        ("<_InactiveRpcError status = StatusCode.UNAVAILABLE>", "grpc:UNAVAILABLE"),
        ("rpc error: code = ResourceExhausted desc = x", "grpc:RESOURCE_EXHAUSTED"),
        ("Flow run infrastructure exited with non-zero status code 137.", "exit:137"),
        ("killed by SIGKILL", "signal:9"),
        ("SMTPDataError: (421, b'4.3.0 Temporary System Problem')", "reply:421"),
    ],
)
def test_a_code_is_read_in_the_ways_it_is_written(text: str, code: str) -> None:
    assert code in read(text).codes


def test_the_path_of_a_frame_is_no_sign() -> None:
    text = "Traceback:\n  File \"/srv/standby/deadlock/flow.py\", line 7, in run\n    x()\nKeyError: 'a'"
    assert "standby" not in read(text).lowered
    assert "keyerror: " in read(text).lowered
    assert "/data/standby" in read('FileNotFoundError: File "/data/standby/x.csv" is not there').lowered


@pytest.mark.parametrize("text", ["wrote 503 rows in 429 s", "took 4.503 s", "id 500123", "package 404b"])
def test_a_number_that_only_looks_like_a_status_is_none(text: str) -> None:
    assert not {code for code in read(text).codes if code.startswith("http:")}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Retry-After: 30", 30),
        ("Please try again in 20s.", 20),
        ("retry after 2 minutes", 120),
        ("'retryDelay': '59.5s'", 59.5),
        ("Please try again later", None),
    ],
)
def test_a_wait_that_is_asked_for_is_read(text: str, seconds: float | None) -> None:
    assert seconds_to_wait(text) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("503. Retry-After: Mon, 02 Nov 2026 12:02:00 GMT", 121),
        ("headers: {'retry-after': 'Mon, 02 Nov 2026 12:02:00 GMT'}", 121),
        ("in maintenance until 2026-11-02T13:01:00+01:00", 61),
        ("Retry-After: 45", 45),
        # what is over, no date, and dates of other things
        ("Retry-After: Mon, 02 Nov 2026 11:00:00 GMT", None),
        ("Retry-After: Mon, 99 Nov 2026 11:00:00 GMT", None),
        ("the certificate is valid until 2026-12-24T00:00:00Z", None),
        ("loading 45 rows, wait 10 s", None),
    ],
)
def test_until_when_the_other_side_is_not_to_be_asked_is_read(text: str, seconds: float | None) -> None:
    assert asked_to_wait(text, datetime(2026, 11, 2, 12, tzinfo=UTC)) == seconds


def test_a_size_beyond_any_machine_is_not_cured_by_a_size() -> None:
    def remedy(size: str) -> str:
        message = (
            f"Flow run encountered an exception: _ArrayMemoryError: Unable to allocate {size} for an array"
        )
        return report_on(failure_text({"message": message}, "here")).remedy

    assert bytes_wanted("Unable to allocate 2.00 KiB for an array") == 2048
    assert remedy("7.45 GiB") == "more_memory"
    assert remedy("95.4 TiB") == "tell_owner"


def test_a_request_above_the_quota_itself_is_for_the_owner() -> None:
    assert not beyond_quota(QUOTA.format("1536Mi"))
    assert beyond_quota(QUOTA.format("3Gi"))


def test_a_chain_of_exceptions_is_followed_to_its_root() -> None:
    trace = (
        "Traceback (most recent call last):\nbotocore.exceptions.ClientError: An error occurred (SlowDown) when calling "
        "the PutObject operation: Please reduce your request rate.\n\nThe above exception was the direct cause of the "
        "following exception:\n\nTraceback (most recent call last):\nExportError: could not export"
    )
    message = "Flow run encountered an exception: ExportError: could not export"
    made = reason(StateType.FAILED, "Failed", message, [Line(level=40, text=trace)])
    assert (made.failure_class, made.line) == ("rate_limited", 0)


def test_the_logs_of_a_crash_are_read_as_those_of_a_failure() -> None:
    lines = list(parsed_lines(["ERROR | fatal: Authentication failed for 'https://git.example.com/x'"]))
    crashed = reason(
        StateType.CRASHED, "Crashed", "Flow run process exited with non-zero status code 1.", lines
    )
    failed = reason(StateType.FAILED, "Failed", "1/1 states failed.", lines)
    assert crashed.failure_class == failed.failure_class == "auth"


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_a_chatty_line_decides_nothing(level: str) -> None:
    made = reason(
        StateType.FAILED, "Failed", "1/3 states failed.", list(parsed_lines([f"{level} | 401 Unauthorized"]))
    )
    assert made.failure_class == "unknown"


def test_every_phrase_of_the_tables_has_a_word_to_be_found_by() -> None:
    empty = [(r.id, p.text) for r in FAILURE_RULES for p in (*r.phrases, *r.also, *r.unless) if not p.key]
    assert not empty


def test_every_phrase_is_found_in_itself() -> None:
    lost = [
        (rule.id, phrase.text)
        for rule in FAILURE_RULES
        for phrase in rule.phrases
        if phrase.key not in read(phrase.text.replace("*", " x ")).tokens
        or not phrase.found_in(phrase.text.replace("*", " x ").lower())
    ]
    assert not lost


@pytest.mark.parametrize("row", [{"state_type": "ODD"}, {"log_tail": 3}, {"message": ["a"]}])
def test_a_row_that_cannot_be_read_is_named(row: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="file, line 3: "):
        failure_text(row, "file, line 3")


def test_a_run_that_completed_needs_nothing() -> None:
    report = report_on(failure_text({"state_type": "COMPLETED", "message": "429"}, "here"))
    assert (report.remedy, report.actions) == ("nothing", ())
