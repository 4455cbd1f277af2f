# ruff: noqa: E501 - a table reads better with a row on a line
"""The rule table of failures: which signs in a state, an exit code, an exception or a text mean which class.

Rows are read from the top and the first that fits decides, so what is certain stands above what is likely. A
row fits when every column it fills is true. Golden examples of each row, which anybody can extend, are in
`tests/planner/failures.yaml`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pilotage.planner.findings import FailureClass
from pilotage.telemetry.facts import StateType

ENDED_BADLY = frozenset({StateType.FAILED, StateType.CRASHED})
KILLED = frozenset({-9, 137})
"""SIGKILL as a process worker sees it and as a container runtime reports it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRule:
    """One row. A column left at its default asks for nothing."""

    id: str
    failure_class: FailureClass
    because: str
    """The row in words, for the evidence."""
    state_types: frozenset[StateType] = ENDED_BADLY
    state_names: frozenset[str] = frozenset()
    exceptions: re.Pattern[str] | None = None
    """Must match the whole name of the exception's type, without its module."""
    exit_codes: frozenset[int] = frozenset()
    text: re.Pattern[str] | None = None
    """Must be found in the texts that `where` names."""
    where: Literal["message", "logs", "anywhere"] = "message"
    """`logs` are lines of level WARNING and above; a chatty INFO line decides nothing."""


def _names(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives))


def _text(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE)


_OOM_HINT = _text(
    r"\boom[- _]?kill",
    r"\boomkilled\b",
    r"out of memory: kill",
    r"memory cgroup out of memory",
    r"oom_reaper",
)
# Prefect's own explanation of -9 says "exceeding memory limits, or by manual cancellation" for every SIGKILL:
# it is a guess, not a hint, and must not match.
_UNAUTHORISED = _text(
    r"\b401 unauthori[sz]ed\b",
    r"\b403 forbidden\b",
    r"\bstatus(?: code)?:? (?:401|403)\b",
    r"invalid (?:credentials|api[- ]?key|access token|password)",
    r"bad credentials",
    r"(?:password|token) authentication failed",
    r"authentication failed",
    r"access ?denied",
    r"permission denied for (?:table|schema|database|relation)",
    r"(?:access |session |api )?token (?:has |is )?expired",
    r"invalidaccesskeyid",
    r"signaturedoesnotmatch",
    r"not authori[sz]ed to perform",
)
_RATE_LIMITED = _text(
    r"\b429\b.{0,40}too many requests",
    r"too many requests",
    r"rate[- ]?limit(?:ed| exceeded| reached)",
    r"\bslow ?down\b.{0,60}request rate",
    r"throttlingexception",
    r"quota exceeded.{0,40}per (?:second|minute|hour)",
)
_UNAVAILABLE = _text(
    r"\b50[0234] (?:internal server error|bad gateway|service unavailable|gateway time-?out)\b",
    r"\bstatus(?: code)?:? 50[0234]\b",
    r"service (?:is )?(?:temporarily )?unavailable",
)
_NETWORK = _text(
    r"connection (?:reset|aborted|refused|timed out|closed)",
    r"all connection attempts failed",
    r"server disconnected",
    r"remote end closed connection",
    r"temporary failure in name resolution",
    r"network is unreachable",
    r"broken pipe",
    r"read timed out",
    r"deadlock detected",
    r"database is locked",
    r"could not serialize access",
    r"eof occurred in violation of protocol",
)
_ABSENT = _text(
    r"name or service not known",
    r"nodename nor servname",
    r"no such host",
    r"no such (?:bucket|table|topic|queue)\b",
    r"relation \S+ does not exist",
    r"upstream (?:data|dataset|table|partition|file)\b.{0,60}(?:missing|not (?:ready|found|available))",
    r"is in maintenance mode",
    r"nosuchkey|nosuchbucket",
)
_NETWORK_ERRORS = (
    r"ConnectError|ConnectTimeout|ReadTimeout|WriteTimeout|PoolTimeout|ReadError|WriteError|RemoteProtocolError",
    r"Connection(?:Reset|Refused|Aborted)?Error|BrokenPipeError|APIConnectionError|APITimeoutError",
    r"ProtocolError|IncompleteRead|ChunkedEncodingError|NewConnectionError|MaxRetryError|SSLEOFError",
    r"ServerDisconnectedError|ClientConnectorError|ClientOSError|EndpointConnectionError|gaierror",
)

F = FailureClass
CRASHED = frozenset({StateType.CRASHED})

FAILURE_RULES: tuple[FailureRule, ...] = (
    # -- memory: certain signs only
    FailureRule(
        id="memory-error", failure_class=F.OUT_OF_MEMORY, because="the code ran into its memory limit",
        exceptions=_names(r"MemoryError|_?ArrayMemoryError|OutOfMemoryError"),
    ),
    FailureRule(
        id="memory-text", failure_class=F.OUT_OF_MEMORY, because="the message reports an allocation that failed",
        text=_text(r"cannot allocate memory", r"unable to allocate .{0,40}(?:[kmgt]i?b|bytes)", r"java heap space",
                   r"\bmemoryerror\b", r"std::bad_alloc", r"out of memory"),
    ),
    FailureRule(
        id="memory-exit-247", failure_class=F.OUT_OF_MEMORY, because="exit code 247 stands for high memory usage",
        exit_codes=frozenset({247}),
    ),
    FailureRule(
        id="memory-killed", failure_class=F.OUT_OF_MEMORY, because="killed, and the out-of-memory killer left a trace",
        exit_codes=KILLED, text=_OOM_HINT, where="anywhere",
    ),
    FailureRule(
        id="memory-crash-text", failure_class=F.OUT_OF_MEMORY, because="crashed, and the out-of-memory killer left a trace",
        state_types=CRASHED, text=_OOM_HINT, where="anywhere",
    ),
    # -- time
    FailureRule(
        id="timed-out-state", failure_class=F.TIMED_OUT, because="Prefect ended it at its time limit",
        state_names=frozenset({"TimedOut"}),
    ),
    FailureRule(
        id="timed-out-text", failure_class=F.TIMED_OUT, because="it ran longer than its time limit",
        text=_text(r"exceeded timeout of [\d.]+ second", r"activedeadlineexceeded|deadlineexceeded"),
    ),
    # -- the other side said why
    FailureRule(
        id="rate-limited", failure_class=F.RATE_LIMITED, because="the other side asked to slow down", text=_RATE_LIMITED,
    ),
    FailureRule(
        id="rate-limited-type", failure_class=F.RATE_LIMITED, because="the client raised a rate-limit error",
        exceptions=_names(r"RateLimitError|TooManyRequests|ThrottlingException|RateLimitExceeded"),
    ),
    FailureRule(
        id="auth-text", failure_class=F.AUTH, because="credentials were refused", text=_UNAUTHORISED,
    ),
    FailureRule(
        id="auth-type", failure_class=F.AUTH, because="the client raised an authentication error",
        exceptions=_names(r"AuthenticationError|PermissionDenied(?:Error)?|Unauthorized|Forbidden|InvalidCredentials\w*",
                          r"NoCredentialsError|RefreshError|InvalidTokenError|ExpiredSignatureError"),
    ),
    FailureRule(
        id="unavailable", failure_class=F.TRANSIENT, because="the other side answered that it is unavailable",
        text=_UNAVAILABLE,
    ),
    FailureRule(
        id="absent", failure_class=F.DEPENDENCY, because="something it needs is not there", text=_ABSENT,
    ),
    # -- the platform
    FailureRule(
        id="disk-full", failure_class=F.INFRASTRUCTURE, because="the disk or a quota is full",
        text=_text(r"no space left on device", r"disk quota exceeded", r"database or disk is full", r"errno 28\b"),
        where="anywhere",
    ),
    FailureRule(
        id="flow-not-found", failure_class=F.INFRASTRUCTURE, because="the worker could not find or load the flow's code",
        text=_text(r"could not find flow", r"flow(?: with name)? .{0,80} not found in", r"script at .{0,200} (?:encountered|not found)",
                   r"failed to (?:pull|clone)", r"pull step", r"entrypoint .{0,120} (?:not found|does not exist)"),
    ),
    FailureRule(
        id="image-missing", failure_class=F.INFRASTRUCTURE, because="the container could not be started",
        text=_text(r"imagepullbackoff|errimagepull|crashloopbackoff", r"pull access denied for", r"manifest unknown"),
        where="anywhere",
    ),
    FailureRule(
        id="not-executable", failure_class=F.INFRASTRUCTURE, because="the command could not be started",
        exit_codes=frozenset({125, 126, 127}),
    ),
    FailureRule(
        id="evicted", failure_class=F.CRASHED, because="the platform took the machine away",
        text=_text(r"\bevicted\b", r"node (?:was )?(?:preempted|lost|shut ?down|drained)", r"spot (?:instance )?interruption"),
        where="anywhere", state_types=CRASHED,
    ),
    FailureRule(
        id="submission-failed", failure_class=F.INFRASTRUCTURE, because="the infrastructure could not be created",
        state_types=CRASHED,
        text=_text(r"flow run could not be submitted to infrastructure", r"failed to submit flow run to infrastructure",
                   r"infrastructure (?:could not|failed to)"),
    ),
    # -- the network under it
    FailureRule(
        id="network-type", failure_class=F.TRANSIENT, because="the connection failed on its way",
        exceptions=_names(*_NETWORK_ERRORS),
    ),
    FailureRule(
        id="network-text", failure_class=F.TRANSIENT, because="the connection failed on its way", text=_NETWORK,
    ),
    FailureRule(
        id="timeout-type", failure_class=F.TRANSIENT, because="one call took too long, not the run",
        exceptions=_names(r"Timeout|TimeoutError|TimeoutException|ServerTimeoutError"),
    ),
    FailureRule(
        id="database-unreachable", failure_class=F.TRANSIENT, because="the database dropped the work",
        exceptions=_names(r"OperationalError|InterfaceError|SerializationFailure|DeadlockDetected"),
    ),
    # -- no retry helps
    FailureRule(
        id="bad-parameters", failure_class=F.BAD_INPUT, because="the parameters do not fit the flow",
        exceptions=_names(r"ParameterTypeError|ParameterBindError|SignatureMismatchError|ValidationError|ReservedArgumentError"),
    ),
    FailureRule(
        id="bad-record", failure_class=F.BAD_INPUT, because="a record could not be read",
        exceptions=_names(r"JSONDecodeError|UnicodeDecodeError|ParserError|BadZipFile|DataError|IntegrityError|SchemaError",
                          r"ArrowInvalid|ConversionException|NotNullViolation|UniqueViolation"),
    ),
    FailureRule(
        id="bad-value", failure_class=F.BAD_INPUT, because="a value that the code cannot accept",
        exceptions=_names(r"ValueError|InvalidOperation|OverflowError"),
    ),
    FailureRule(
        id="file-absent", failure_class=F.DEPENDENCY, because="a file that it needs is not there",
        exceptions=_names(r"FileNotFoundError|NotADirectoryError|NoSuchKey|NoSuchBucket|ObjectNotFound|MissingUpstream\w*"),
    ),
    FailureRule(
        id="os-permission", failure_class=F.AUTH, because="the operating system refused access",
        exceptions=_names(r"PermissionError"),
    ),
    FailureRule(
        id="import-failed", failure_class=F.INFRASTRUCTURE, because="a module is missing where the run is executed",
        exceptions=_names(r"ImportError|ModuleNotFoundError"),
    ),
    FailureRule(
        id="programming-error", failure_class=F.CODE_BUG, because="an exception that only changed code cures",
        exceptions=_names(r"KeyError|TypeError|AttributeError|IndexError|NameError|UnboundLocalError|ZeroDivisionError",
                          r"AssertionError|NotImplementedError|RecursionError|SyntaxError|IndentationError|LookupError",
                          r"MissingResult|UnfinishedRun|ProgrammingError|UndefinedColumn"),
    ),
    # -- what the logs say when the message does not
    FailureRule(
        id="auth-log", failure_class=F.AUTH, because="credentials were refused, says the log",
        text=_UNAUTHORISED, where="logs", state_types=frozenset({StateType.FAILED}),
    ),
    FailureRule(
        id="rate-limited-log", failure_class=F.RATE_LIMITED, because="the other side asked to slow down, says the log",
        text=_RATE_LIMITED, where="logs", state_types=frozenset({StateType.FAILED}),
    ),
    FailureRule(
        id="unavailable-log", failure_class=F.TRANSIENT, because="the other side was unavailable, says the log",
        text=_UNAVAILABLE, where="logs", state_types=frozenset({StateType.FAILED}),
    ),
    FailureRule(
        id="network-log", failure_class=F.TRANSIENT, because="the connection failed on its way, says the log",
        text=_NETWORK, where="logs", state_types=frozenset({StateType.FAILED}),
    ),
    # -- the process died
    FailureRule(
        id="killed", failure_class=F.CRASHED, because="the process was killed, and nothing says by whom",
        exit_codes=KILLED,
    ),
    FailureRule(
        id="crashed", failure_class=F.CRASHED, because="the process ended without a word of its own code",
        state_types=CRASHED,
    ),
)  # fmt: skip
