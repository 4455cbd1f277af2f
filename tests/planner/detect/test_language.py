"""What is read of names and wording where no table knows better, and what holds a retry back."""

from __future__ import annotations

import pytest

from pilotage.planner.detect.diagnosis import DEFAULT_CURE, Line
from pilotage.planner.detect.failure_rules import FAILURE_RULES
from pilotage.planner.detect.reasoning import EXAMPLES, reason
from pilotage.planner.detect.report import FailureText, report_on
from pilotage.planner.detect.signs.language import kind_of_type, may_be_alive, speaks_of_memory, wants_change
from pilotage.planner.findings import Cure
from pilotage.planner.findings import FailureClass as F
from pilotage.telemetry.facts import StateType

FLOW = "Flow run encountered an exception: "


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DeviceQuotaExceededError", F.QUOTA_SPENT),
        ("PartnerRateLimitReachedException", F.RATE_LIMITED),
        ("VaultTokenDeniedError", F.AUTH),
        ("LedgerSchemaMismatch", F.BAD_INPUT),
        ("MissingPluginConfigError", F.ENVIRONMENT),
        ("BrokerConnectionRefused", F.TRANSIENT),
        ("OrderBookNotFound", F.DEPENDENCY),
    ],
)
def test_a_type_that_no_table_knows_is_what_it_is_named_for(name: str, expected: F) -> None:
    assert name not in EXAMPLES.known_types
    made = reason(StateType.FAILED, "Failed", f"{FLOW}{name}: 17", [])
    assert made.failure_class is expected


def test_names_agree_with_the_tables_on_whether_another_try_helps() -> None:
    """The tables were written name by name, so they are the measure of reading names."""
    told, agree = 0, 0
    again = (Cure.SECONDS, Cure.MINUTES)
    for rule in FAILURE_RULES:
        if rule.codes or rule.phrases or rule.also:
            continue
        for name in rule.exceptions:
            kind = kind_of_type(name)
            if kind is not None:
                told += 1
                wanted, read = (r.cure or DEFAULT_CURE[r.failure_class] for r in (rule, kind))
                agree += (wanted in again) == (read in again)
    assert told > 500
    assert agree / told > 0.9


@pytest.mark.parametrize(
    "text",
    [
        "SaleError: internal error: region must be set, please try again",
        "ClientError: the server is restarting because flag x is not supported",
    ],
)
def test_what_asks_for_a_change_is_not_tried_again_for_a_polite_word(text: str) -> None:
    assert wants_change(text)
    assert report_on(FailureText(message=FLOW + text), second_opinion=False).remedy == "tell_owner"


@pytest.mark.parametrize(
    ("message", "log"),
    [
        ("", "WARNING | submission returned HTTP 503; cannot verify whether an execution was started"),
        (
            "Flow run infrastructure exited with non-zero status code -1.",
            "ERROR | 0/3 nodes: Insufficient cpu",
        ),
        ("Failed to submit flow run to infrastructure: ReadTimeout: read timed out", ""),
        ("It went wrong.", ""),
    ],
)
def test_a_crash_whose_end_nobody_saw_is_never_retried_unasked(message: str, log: str) -> None:
    text = FailureText(state_type=StateType.CRASHED, message=message, log_tail=(log,) if log else ())
    assert report_on(text).remedy in ("hold", "ask")


@pytest.mark.parametrize(
    ("state_type", "message", "logs"),
    [
        (StateType.CRASHED, "Flow run infrastructure exited with non-zero status code 137.", []),
        (StateType.CRASHED, "Flow run process exited with non-zero status code -9.", []),
        (StateType.CRASHED, "Flow run process exited with non-zero status code -15.", ["it exceeded its memory budget"]),
        (StateType.FAILED, f"{FLOW}KilledWorker: x", []),
        (StateType.FAILED, f"{FLOW}ConnectionError: peer reset", ["node is low on memory"]),
    ],
)  # fmt: skip
def test_what_memory_may_have_ended_never_goes_again_at_its_size(
    state_type: StateType, message: str, logs: list[str]
) -> None:
    name = state_type.capitalize()
    made = reason(state_type, name, message, [Line(level=30, text=text) for text in logs])
    assert made.cure is Cure.MEMORY


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("TimeoutError: Max wait time of 600 seconds exceeded while waiting for job 7", "ask"),
        ("DatabaseError: Query exceeded per-node memory limit of 4GB", "tell_owner"),
        ("ClusterError: The spark driver has stopped unexpectedly and is restarting", "more_memory"),
        ("ResourceLimitExceeded: the account-level service limit is 0 Instances", "tell_owner"),
        ("LocalProtocolError: Illegal header value", "tell_owner"),
    ],
)
def test_what_another_try_would_repeat_or_double_is_not_tried(said: str, remedy: str) -> None:
    assert report_on(FailureText(message=FLOW + said), second_opinion=False).remedy == remedy


def test_advice_says_nothing_of_a_runs_memory() -> None:
    assert not speaks_of_memory("Typically caused by the system ending a process for exceeding memory limits")
    assert not speaks_of_memory("0/5 nodes are available: 5 Insufficient memory.")
    assert not may_be_alive("the process has exited")


def test_an_allocation_that_no_machine_holds_is_for_the_owner() -> None:
    text = FailureText(message=f"{FLOW}MemoryError: Unable to allocate 926. GiB for an array")
    assert report_on(text).remedy == "tell_owner"


def test_a_request_beyond_the_limit_itself_is_for_the_owner() -> None:
    asked = "RateLimitError: 429 tokens per min (TPM): Limit 30000, Requested 38021."
    assert report_on(FailureText(message=FLOW + asked)).remedy == "tell_owner"
    fits = "RateLimitError: 429 tokens per min (TPM): Limit 30000, Used 29000, Requested 2021."
    assert report_on(FailureText(message=FLOW + fits)).remedy == "retry_later"
