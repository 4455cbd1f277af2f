"""What may never happen, whoever words it: permanent faults retried, living runs started again, memory at its size."""

from __future__ import annotations

import json
import random
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from pilotage.planner.detect.diagnosis import DEFAULT_CURE
from pilotage.planner.detect.failure_rules import FAILURE_RULES
from pilotage.planner.detect.reasoning import reason
from pilotage.planner.detect.report import failure_text, report_on
from pilotage.planner.detect.rulebook import Rulebook
from pilotage.planner.detect.signs.rule import FailureRule, phrases
from pilotage.planner.findings import Cure, FailureClass
from pilotage.telemetry.facts import StateType

AGAIN = {"retry_now", "retry_later"}
FLOW = "Flow run encountered an exception: "
PASSING = (
    "Connection reset by peer", "Read timed out.", "503 Service Unavailable, please try again later",
    "temporarily unavailable",
    "Max retries exceeded", "server disconnected", "deadline exceeded", "Temporary failure in name resolution",
)  # fmt: skip
PERMANENT = (
    "botocore.exceptions.ClientError: An error occurred (AccessDenied) when calling the PutObject operation: Access Denied",
    "azure.core.exceptions.ClientAuthenticationError: AADSTS7000215: Invalid client secret provided",
    "ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired",
    'psycopg2.errors.UndefinedColumn: column "region" does not exist',
    'psycopg2.errors.UniqueViolation: duplicate key value violates unique constraint "orders_pkey"',
    "openai.RateLimitError: Error code: 429 - {'error': {'code': 'insufficient_quota', 'type': 'insufficient_quota'}}",
    "ModuleNotFoundError: No module named 'pandas'",
    "KeyError: 'region'",
    "pydantic_core._pydantic_core.ValidationError: 1 validation error for Order",
    "polars.exceptions.SchemaError: type String is incompatible with expected type Float64",
    'cimpl.KafkaException: KafkaError{code=MSG_SIZE_TOO_LARGE,val=10,str="Broker: Message size too large"}',
    "clickhouse_driver.errors.ServerException: Code: 516.\nDB::Exception: default: Authentication failed",
    "google.auth.exceptions.RefreshError: ('invalid_grant: Bad Request', {'error': 'invalid_grant'})",
    "snowflake.connector.errors.ProgrammingError: 001003 (42000): SQL compilation error: syntax error line 1",
)  # fmt: skip
DURING = "\n\nDuring handling of the above exception, another exception occurred:\n\n"


def remedy(message: str, *logs: str, state: str = "FAILED") -> str:
    text = failure_text({"state_type": state, "message": message, "log_tail": logs}, "here")
    return report_on(text, second_opinion=False).remedy


def traced(exception: str) -> str:
    return f'Traceback (most recent call last):\n  File "a.py", line 1, in f\n{exception}'


def labelled() -> list[dict[str, Any]]:
    """Every failure that was labelled here."""
    shipped = [
        (files("pilotage.planner") / "detect" / "texts" / name).read_text("utf-8")
        for name in ("provoked.jsonl", "published.jsonl")
    ]
    data = Path(__file__).parent / "data"
    beside = [path.read_text("utf-8") for path in sorted(data.glob("failure_texts_*.jsonl"))]
    return [json.loads(line) for text in shipped + beside for line in text.splitlines()]


@pytest.mark.parametrize("permanent", PERMANENT, ids=lambda text: text.split(":")[0])
def test_a_permanent_sign_beside_passing_words_is_never_retried_for_certain(permanent: str) -> None:
    kind, said = permanent.split(": ", 1)
    name = kind.rpartition(".")[2]
    for passing in PASSING:
        cause, wrapped = traced(permanent), traced(f"requests.exceptions.ConnectionError: {passing}")
        head = "ERROR | Encountered exception during execution: "
        shown = (
            (f"{FLOW}{name}: {said} ({passing})",),
            (f"{FLOW}{name}: {passing}: {said}",),
            (f"{FLOW}ConnectionError: {passing}", f"{head}ConnectionError('x')\n{cause}{DURING}{wrapped}"),
            (f"{FLOW}{name}: {said}", f"{head}{name}('x')\n{wrapped}{DURING}{cause}"),
            ("1/2 states failed.", f"ERROR | {cause}", f"ERROR | {wrapped}"),
            ("1/2 states failed.", f"ERROR | {wrapped}", f"ERROR | {cause}"),
        )
        for message, *logs in shown:
            assert remedy(message, *logs) not in AGAIN, (message, logs)


@pytest.mark.parametrize("row", [r for r in labelled() if r["permanent"]], ids=lambda row: str(row["id"]))
def test_a_permanent_failure_stays_one_in_any_order_and_with_passing_words_beside_it(
    row: dict[str, Any],
) -> None:
    chance = random.Random(row["id"])
    for passing in chance.sample(PASSING, 2):
        shuffled = chance.sample(row["log_tail"], len(row["log_tail"]))
        noise = [f"WARNING | urllib3.connectionpool: {passing}", "INFO | Retrying in 5 seconds"]
        assert remedy(row["message"], *noise, *shuffled, state=row["state_type"]) not in AGAIN
        assert remedy(row["message"], *shuffled, *noise, state=row["state_type"]) not in AGAIN


@pytest.mark.parametrize(
    "row",
    [r for r in labelled() if "may_still_be_running" in (r["expected_class"], r["missing_class"])],
    ids=lambda row: str(row["id"]),
)
def test_a_run_that_may_live_is_not_started_again_whatever_else_is_logged(row: dict[str, Any]) -> None:
    chance = random.Random(row["id"])
    for passing in PASSING:
        lines = [*row["log_tail"], f"ERROR | {passing}", f"WARNING | {passing}"]
        shuffled = chance.sample(lines, len(lines))
        assert remedy(row["message"], *shuffled, state=row["state_type"]) not in AGAIN | {"more_memory"}


@pytest.mark.parametrize(
    "row", [r for r in labelled() if r["expected_class"] == "out_of_memory"], ids=lambda row: str(row["id"])
)
def test_what_memory_ended_never_goes_again_at_its_size_whatever_else_is_logged(row: dict[str, Any]) -> None:
    chance = random.Random(row["id"])
    for passing in PASSING:
        lines = [*row["log_tail"], f"ERROR | {passing}", f"WARNING | {passing}"]
        shuffled = chance.sample(lines, len(lines))
        assert remedy(row["message"], *shuffled, state=row["state_type"]) not in AGAIN


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("PermissionError: [Errno 13] Permission non accordée: '/srv/out'", {"tell_owner"}),
        ("PermissionError: [WinError 5] Zugriff verweigert: 'D:\\\\out'", {"tell_owner"}),
        ("OSError: [Errno 28] 设备上没有空间: '/data/a'", {"tell_owner", "retry_later"}),
        ("FileNotFoundError: [Errno 2] Datei oder Verzeichnis nicht gefunden: 'a.csv'", {"tell_owner"}),
        ("OSError: [Errno 12] Speicher kann nicht zugewiesen werden", {"more_memory"}),
        ("OSError: [WinError 1455] ページング ファイルが小さすぎます。", {"more_memory"}),
        ("ConnectionRefusedError: [Errno 111] Verbindungsaufbau abgelehnt", AGAIN),
        ("ConnectionResetError: [WinError 10054] Une connexion a dû être fermée par l’hôte distant", AGAIN),
        ("DatabaseError: ORA-01017: nom utilisateur/mot de passe non valide", {"tell_owner"}),
        ("OperationalError: (1213, 'Verklemmung beim Versuch, die Sperre zu erhalten')", AGAIN),
    ],
)
def test_what_an_operating_system_says_in_another_language_is_read_by_its_number(
    said: str, expected: set[str]
) -> None:
    assert remedy(FLOW + said) in expected


@pytest.mark.parametrize(
    "said",
    [
        "RetryError: RetryError[<Future at 0x7f state=finished raised KeyError>]",
        "RetryError: RetryError[<Future at 0x7f state=finished raised ValidationError>]",
        "ConnectionError: could not sync: caused by AuthenticationError: bad key",
        "TransientError: wrapped: ValidationError: 1 validation error for Order",
    ],
)
def test_a_wrapper_named_for_what_passes_does_not_hide_what_does_not(said: str) -> None:
    assert remedy(FLOW + said) not in AGAIN


def test_a_row_that_says_that_it_knows_better_decides_all_the_same() -> None:
    text = f"{FLOW}BatchError: orders failed: AuthenticationError: bad key, node 7 is draining"
    for despite, again in (
        (frozenset[str](), False),
        (frozenset({"auth-type"}), True),
        (frozenset({"*"}), True),
    ):
        draining = FailureRule(
            id="draining", failure_class=FailureClass.TRANSIENT, because="the node drains", strength="code",
            phrases=phrases("is draining"), despite=despite,
        )  # fmt: skip
        made = reason(StateType.FAILED, "Failed", text, [], Rulebook((draining, *FAILURE_RULES)))
        assert made.rule_id == "draining"
        assert (made.cure is Cure.SECONDS) is again


def test_every_row_that_another_knows_better_than_exists_and_is_for_somebody() -> None:
    by_id = {rule.id: rule for rule in FAILURE_RULES}
    for rule in FAILURE_RULES:
        for other in rule.despite - {"*"}:
            known = by_id[other]
            assert (known.cure or DEFAULT_CURE[known.failure_class]) is Cure.OWNER, (rule.id, other)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("ConnectError: All connection attempts failed", False),
        ("ConnectionError: [Errno -3] Temporary failure in name resolution", False),
        ("RemoteDisconnected: Remote end closed connection without response", True),
        ("RuntimeError: the control plane hiccuped, timed out", True),
        ("RuntimeError: Failed to run ECS task: RESOURCE:MEMORY", False),
    ],
)
def test_a_submission_that_was_sent_and_not_refused_may_have_been_made(said: str, kept: bool) -> None:
    found = remedy(f"Failed to submit flow run to infrastructure: {said}", state="CRASHED")
    assert found in ({"hold", "ask"} if kept else AGAIN)


@pytest.mark.parametrize(
    ("raised", "ours"),
    [
        ("MemoryError: cannot allocate 3 GiB", True),
        ("pyarrow.lib.ArrowMemoryError: malloc of size 4294967296 failed", True),
        ("redis.exceptions.ResponseError: not enough memory for the command", False),
        ("sqlalchemy.exc.OperationalError: (psycopg2.errors.OutOfMemory) out of memory", False),
        ("clickhouse_connect.driver.exceptions.DatabaseError: memory limit reached", False),
    ],
)
def test_memory_that_a_server_is_short_of_is_not_the_runs(raised: str, ours: bool) -> None:
    kind, said = raised.split(": ", 1)
    found = remedy(f"{FLOW}{kind.rpartition('.')[2]}: {said}", f"ERROR | it failed\n{traced(raised)}")
    assert (found == "more_memory") is ours


def test_a_query_that_asks_for_more_than_its_server_has_is_for_the_owner() -> None:
    said = (
        "ServerException: Code: 241.\nDB::Exception: memory limit exceeded: would use 9 GiB "
        "(attempt to allocate chunk of {}), maximum: 14.40 GiB. OvercommitTracker"
    )
    assert remedy(FLOW + said.format("64.00 GiB")) == "tell_owner"
    assert remedy(FLOW + said.format("4.00 MiB")) == "retry_later"


def test_a_permanent_failure_that_is_cut_off_is_hardly_ever_retried() -> None:
    """What is left of a text can be less than what decided."""
    cut, again = 0, []
    for row in labelled():
        for share in (0.6, 0.75, 0.9) if row["permanent"] else ():
            message = row["message"][: int(len(row["message"]) * share)]
            logs = [line[: int(len(line) * share)] for line in row["log_tail"]]
            cut += 1
            if remedy(message, *logs, state=row["state_type"]) in AGAIN:
                again.append((row["id"], share))
    assert cut > 300
    assert len(again) <= 0.02 * cut, again
