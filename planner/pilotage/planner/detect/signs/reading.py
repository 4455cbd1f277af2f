# ruff: noqa: E501 - a long pattern reads better on a line
"""Read the structured signs out of a text: exception types, codes of known sources, exit codes, waits and sizes.

Pure. Texts are untrusted: whatever they hold can only choose among the rows of closed tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

READ_CHARS = 6_000
"""Characters of one text that are read: its first and last halves, since a traceback ends with its cause."""

_RAW_WORD = re.compile(r"\w+")
_SPOKEN = re.compile(
    r"(?:exception[:.]?|exception \(|failed:|error:|infrastructure:|timeout:|could not start:|started:|configuration:"
    r"|raised|created:|interrupted by)\s+(?:[A-Za-z_]\w*\.)*(?P<type>[A-Za-z_]\w*)(?=:|\s*\(|\s*$|>)",
    re.MULTILINE,
)
"""A sentence of Prefect's: `Flow run encountered an exception: ValueError: bad`, also as `ValueError('bad')`."""
_TRACED = re.compile(
    r"^[ \t|+]*(?P<module>(?:[A-Za-z_]\w*\.)*)(?P<type>[A-Za-z_]\w*)(?=: |:$|\s*$)", re.MULTILINE
)
"""The last line of a traceback."""
_TYPE_NAME = re.compile(
    r"(?:Error|Exception|Timeout|Expired|Violation|NotFound|Denied|Exists|Failure|Exit|Interrupt|Warning|Abort\w*|Canceled"
    r"|Cancelled|Fault|Exceeded|Unavailable|Required|Run|Result|Locked|Died|Killed\w*|Failed|Detected)$"
)
_STATE = re.compile(r"\b(?:sql ?state|pgcode|sqlcode)\W{1,6}([0-9A-Z]{5})\b", re.IGNORECASE)
_STATE_BRACKETED = re.compile(r"[\[(']([0-9A-Z]{5})[\])']")
_SNOWFLAKE = re.compile(r"\b(\d{6}) \(([0-9A-Z]{5}|None|n/a)\)")
_ERRNO = re.compile(r"\b(?:errno|oserror|winerror|os error)\W{1,3}(-?\d{1,5})\b", re.IGNORECASE)
_MYSQL = re.compile(
    r"(?:mysql|mariadb|pymysql|mysqldb|operationalerror|programmingerror|integrityerror|dataerror|interfaceerror|"
    r"databaseerror|internalerror|notsupportederror|\berror)[^\n]{0,30}?[(: ](?P<code>[1-4]\d{3})[,:)](?! Client| Server)",
    re.IGNORECASE,
)
_MSSQL = re.compile(
    r"sql server[^\n]{0,400}?\((?P<code>\d{2,5})\)|\bmsg (?P<msg>\d{2,5}), level", re.IGNORECASE
)
_ORACLE = re.compile(r"\b((?:ORA|TNS|DPY|DPI|PLS)-\d{3,5})\b")
_CLICKHOUSE = re.compile(
    r"\b[Cc]ode: (\d{1,4})\.?\s{1,4}DB::(?:\w{1,40})?Exception|ClickHouse error code (\d{1,4})\b"
)
_RAISED_IN = re.compile(
    r"^[ \t|+]*(?P<package>[A-Za-z_]\w*)\.(?:\w+\.)*[A-Za-z_]\w*(?=: |:$|\s*$)|^[^\n]{0,200}?: \((?P<driver>[A-Za-z_]\w*)\.",
    re.MULTILINE,
)
"""The package of a traceback's last line, and of the driver that SQLAlchemy wraps: `(psycopg2.errors.OutOfMemory) …`."""
_GRPC = re.compile(
    r"(?:StatusCode\.|status = |status[\"']?\s*[:=]\s*[\"']?|code = |rpc error: code = |_InactiveRpcError[^\n]{0,40}status = "
    r"StatusCode\.)(?P<code>[A-Z_]{5,25}|[A-Z][a-z]+(?:[A-Z][a-z]+)*)\b"
)
_AADSTS = re.compile(r"\bAADSTS\d{4,8}\b")
_EXIT = re.compile(
    r"(?:exit(?:ed|ing)?(?: with| due to)?(?: an?)?(?: unexpected)?(?: non-?zero)?(?: error)?(?: status)?(?: exit)?[- ]?"
    r"(?:code|status)?(?: is|:|=|::)?|return(?:ed)?[- ](?:non-zero exit )?(?:code|status)(?: of)?|exitcode|exit_code|rc)"
    r"[\"']?[:=\s]+[\"'(]?(?P<code>-?\d{1,10})\b",
    re.IGNORECASE,
)
_SIGNAL = re.compile(
    r"\b(?:signal[: ]+(?P<number>\d{1,2})\b|(?P<name>SIG(?:KILL|TERM|SEGV|ABRT|BUS|ILL|FPE|INT|HUP|XCPU)))\b"
)
SIGNALS = {"SIGHUP": 1, "SIGINT": 2, "SIGILL": 4, "SIGABRT": 6, "SIGBUS": 7, "SIGFPE": 8, "SIGKILL": 9, "SIGSEGV": 11,
           "SIGTERM": 15, "SIGXCPU": 24}  # fmt: skip
REASONS = {
    400: "bad request", 401: "unauthorized", 402: "payment required", 403: "forbidden", 404: "not found",
    405: "method not allowed", 406: "not acceptable", 407: "proxy authentication required", 408: "request time",
    409: "conflict", 410: "gone", 411: "length required", 412: "precondition failed", 413: "payload too large",
    414: "uri too long", 415: "unsupported media type", 416: "range not satisfiable", 422: "unprocessable",
    423: "locked", 424: "failed dependency", 425: "too early", 426: "upgrade required", 428: "precondition required",
    429: "too many requests", 431: "request header fields", 451: "unavailable for legal", 500: "internal server error",
    501: "not implemented", 502: "bad gateway", 503: "service unavailable", 504: "gateway time", 505: "http version",
    507: "insufficient storage", 509: "bandwidth limit", 511: "network authentication", 520: "web server", 521: "web server",
    522: "connection timed", 523: "origin is unreachable", 524: "a timeout occurred", 525: "ssl handshake", 526: "invalid ssl",
    529: "overloaded",
}  # fmt: skip
_HTTP_BEFORE = re.compile(
    r"(?:http(?:/\d(?:\.\d)?)?(?: ?error| ?status(?: ?code)?| ?code| ?response)?|status(?:[ _]?code)?|statuscode|"
    r"response(?: code| status)?|error[ _]code|error_code|code|server error|client error|httperror|error|returned|got|received|"
    r"with|answered|responded with|status code of)"
    r"[\"']?(?:\s{1,9}is|\s{1,9}was|\s{1,9}of)?\s{0,9}[:=]?\s{0,9}[\"'(<\[]{0,2}(?P<code>[45]\d\d)\b(?!\.\d|[\w-]*\d)",
    re.IGNORECASE,
)
_HTTP_AFTER = re.compile(
    r"\b(?P<code>[45]\d\d)(?:\s{1,9}(?:client|server) error\b|\s{1,9}(?:GET|POST|PUT|PATCH|DELETE|HEAD)\s{1,9}https?:|, message=|\s{1,9}response\b"
    r"|[\"')]?\s{0,9}[-–:,]?\s{0,9}[\"'(]?(?P<reason>[A-Za-z][A-Za-z' -]{3,32}))"
)
_HTTP_LEADING = re.compile(r"(?:Error|Exception|[A-Z]\w+): \(?(?P<code>[45]\d\d)\)?[ ,:]")
_HTTP_AWS = re.compile(r"occurred \(([45]\d\d)\)")
_AWS = re.compile(r"An error occurred \((?P<type>[A-Z]\w+)\)")
_REPLY = re.compile(
    r"(?:\bSMTP\w+: \(?\[?\(?|\berror_(?:perm|temp|reply|proto): |['\"{]: \()[\"'(]{0,3}([45]\d\d)[ ,-]"
)
"""Reply codes of SMTP and FTP: 4yz passes, 5yz does not."""
_WAIT = re.compile(
    r"(?:retry[- _]?after|retrydelay|try again (?:in|after)|retry (?:in|after)|wait(?: for)?|reset(?:s)? in)[\"']?"
    r"\s{0,9}[:=]?\s{0,9}[\"']?(?:about |approximately )?(?P<n>\d{1,9}(?:\.\d{1,9})?)\s{0,9}(?P<unit>ms|milliseconds|s\b|sec|seconds|m\b|min|minutes|h\b|hours?|[\"',}\n]|$)",
    re.IGNORECASE,
)
_UNTIL = re.compile(
    r"(?:retry[- _]?after|(?:try|retry)(?: again)? (?:at|after)|reset(?:s)? at"
    r"|(?:maintenance|unavailable|banned|blocked|limited)[^\n]{0,60} until)[\"']?\s{0,9}[:=]?\s{0,9}[\"']?"
    r"(?:(?P<http>(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT)"
    r"|(?P<iso>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)))",
    re.IGNORECASE,
)
"""A moment: the date of HTTP's `Retry-After`, or ISO 8601 with its zone."""
_HEADER = re.compile(r"retry-after[\"']?\s{0,9}[:=]\s{0,9}[\"']?\d", re.IGNORECASE)
"""HTTP's header with a number, which says what it says wherever it stands."""
_SIZE = re.compile(
    r"(?:allocat\w+|malloc of size|requested|tried to allocate|need(?:ed|s)?)\s+(?:a total of )?(?P<n>\d+(?:\.\d*)?)\s*"
    r"(?P<unit>[KMGTPE]i?B|bytes)\b",
    re.IGNORECASE,
)
_QUOTA = re.compile(
    r"requested: (?P<asked>[^\n]{1,200}?), used: [^\n]{1,200}?, limited: (?P<limit>[^\n]{1,200})"
)
_AMOUNT = re.compile(
    r"([a-z./-]{0,60}?(?:cpu|memory|storage|pods|gpu)[a-z.-]{0,60})=(\d{1,18}(?:\.\d{1,18})?)([a-zA-Z]{0,9})"
)
_UNIT = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30,
         "Ti": 2.0**40, "Pi": 2.0**50, "P": 1e15}  # fmt: skip
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}


_FRAME = re.compile(r'^(?P<lead>[ \t|+]*File )"[^"\n]{1,500}"(?=, line \d)', re.MULTILINE)
"""The place of a frame of a traceback: the names of directories and files there say nothing of what went wrong."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one text shows."""

    lowered: str
    tokens: frozenset[str]
    """Its words in lower case."""
    names: frozenset[str]
    """Its words as they stand: type names and codes of known sources are among them."""
    spoken: tuple[str, ...]
    """Exception types in the places where they are reported, in the order of the text."""
    codes: frozenset[str]


def clipped(text: str) -> str:
    """Return the part of a text that is read."""
    return text if len(text) <= READ_CHARS else text[: READ_CHARS // 2] + "\n" + text[-READ_CHARS // 2 :]


@lru_cache(maxsize=256)
def read(text: str) -> Reading:
    """Return everything structured that a text shows."""
    text = _FRAME.sub(r'\g<lead>""', clipped(text))
    lowered = text.lower()
    names = frozenset(_RAW_WORD.findall(text))
    tokens = frozenset(name.lower() for name in names)
    return Reading(lowered, tokens, names, spoken_types(text), frozenset(_codes(text, lowered, tokens)))


def spoken_types(text: str) -> tuple[str, ...]:
    """Return the exception types that a text reports, in its order."""
    types = [(match.start("type"), match["type"]) for match in _SPOKEN.finditer(text)]
    types += [(match.start("type"), match["type"]) for match in _AWS.finditer(text)]
    if "\n" in text or ": " in text:
        types += [
            (match.start("type"), match["type"])
            for match in _TRACED.finditer(text)
            if match["module"] or _TYPE_NAME.search(match["type"]) or match["type"] in _BARE
        ]
    return tuple(dict.fromkeys(name for _, name in sorted(types) if name[:1].isupper() or name in _BARE))


def packages_in(text: str) -> frozenset[str]:
    """Return the packages whose exceptions a text reports."""
    return frozenset(m["package"] or m["driver"] for m in _RAISED_IN.finditer(clipped(text)))


_BARE = frozenset({"gaierror", "herror", "timeout", "error", "KeyboardInterrupt", "SystemExit", "Forbidden", "Unauthorized",
                   "Conflict", "BadRequest", "TooManyRequests", "NotFound", "Cancelled"})  # fmt: skip


def exit_code_in(text: str) -> int | None:
    """Return the exit code that a text reports, or None."""
    match = _EXIT.search(text[:READ_CHARS])
    return int(match["code"]) if match else None


def seconds_to_wait(text: str) -> float | None:
    """Return how long the other side asked to wait, in seconds, or None when it did not say."""
    lowered = text[:READ_CHARS].lower()
    # one of these words is in all that the pattern finds, and to look for them is cheaper
    if not any(hint in lowered for hint in ("retry", "again", "wait", "reset")):
        return None
    match = _WAIT.search(text[:READ_CHARS])
    if match is None:
        return None
    unit = match["unit"].lower()
    factor = 0.001 if unit.startswith(("ms", "milli")) else 60 if unit.startswith("m") else 1
    return float(match["n"]) * (3600 if unit.startswith("h") else factor)


def asked_to_wait(text: str, since: datetime) -> float | None:
    """Return for how long after a moment another side wants not to be asked, by its header or a date, in seconds."""
    found = _UNTIL.search(text[:READ_CHARS])
    if found is None:
        return seconds_to_wait(text) if _HEADER.search(text[:READ_CHARS]) else None
    try:
        until = (
            parsedate_to_datetime(found["http"]) if found["http"] else datetime.fromisoformat(found["iso"])
        )
    except ValueError:
        return None
    # dates have whole seconds
    left = (until - since).total_seconds() + 1
    return left if left > 0 else None


def bytes_wanted(text: str) -> float | None:
    """Return the size of an allocation that failed, in bytes, or None when the text does not say."""
    match = _SIZE.search(text[:READ_CHARS])
    if match is None:
        return None
    unit = match["unit"].lower()
    base = 1024.0 if "i" in unit else 1000.0
    return float(match["n"]) * (1.0 if unit == "bytes" else base ** _POWERS[unit[0]])


_ASKED = (
    re.compile(
        r"limit(?:ed to| of)?:? ?(?P<limit>\d[\d,]*)(?:\.0)?\b.{0,60}?(?:requested|requires?|required|asked(?: for)?|needed|attempted):? ?"
        r"(?P<asked>\d[\d,]*)", re.IGNORECASE
    ),
    re.compile(
        r"(?:requested|required|requires?|asked for|attempted)(?: to \w+)?:? ?(?P<asked>\d[\d,]*)\b.{0,60}?(?:limit|maximum|max|quota)"
        r"(?: \w+){0,3}:? ?(?P<limit>\d[\d,]*)", re.IGNORECASE
    ),
)  # fmt: skip


_SIZES = re.compile(
    r"(?:allocate|requested|asked for|requires?|needs?|chunk of)[^\n]{0,40}?(?P<asked>\d+(?:\.\d+)?) ?(?P<asked_unit>[KMGTP]i?B)\b"
    r"[^\n]{0,120}?(?:maximum|limit(?: of)?|available):? ?(?P<limit>\d+(?:\.\d+)?) ?(?P<limit_unit>[KMGTP]i?B)\b",
    re.IGNORECASE,
)


def _in_bytes(number: str, unit: str) -> float:
    return float(number) * (1024.0 if "i" in unit.lower() else 1000.0) ** _POWERS[unit[0].lower()]


def beyond_limit(text: str) -> bool:
    """Return whether a text says that more was asked for than its limit allows at once: no wait helps then."""
    sizes = _SIZES.finditer(text[:READ_CHARS])
    if any(_in_bytes(m["asked"], m["asked_unit"]) > _in_bytes(m["limit"], m["limit_unit"]) for m in sizes):
        return True
    return any(
        int(found["asked"].replace(",", "")) > int(found["limit"].replace(",", ""))
        for pattern in _ASKED
        for found in pattern.finditer(text[:READ_CHARS])
    )


def beyond_quota(text: str) -> bool:
    """Return whether a Kubernetes quota message asks for more than the quota's own limit: no wait helps then."""
    match = _QUOTA.search(text[:READ_CHARS])
    if match is None:
        return False
    limits = {name: float(n) * _UNIT.get(unit, 1.0) for name, n, unit in _AMOUNT.findall(match["limit"])}
    return any(
        float(n) * _UNIT.get(unit, 1.0) > limits[name]
        for name, n, unit in _AMOUNT.findall(match["asked"])
        if name in limits
    )


def _codes(text: str, lowered: str, tokens: frozenset[str]) -> set[str]:
    found: set[str] = set()
    numbers = [token for token in tokens if token.isdigit()]
    if any(len(number) == 3 and number[0] in "45" for number in numbers):
        replies = {f"reply:{code}" for code in _REPLY.findall(text)}
        found |= replies or _http(text)
    if "errno" in tokens or "winerror" in tokens or "os error" in lowered:
        found |= {f"errno:{code}" for code in _ERRNO.findall(text)}
    if "sqlstate" in tokens or "pgcode" in tokens or "sql state" in lowered:
        found |= _sqlstates(_STATE.findall(text))
    if "[" in text or "(" in text:
        found |= _sqlstates(code for code in _STATE_BRACKETED.findall(text) if code[:2] in _STATE_CLASSES)
        for number, state in _SNOWFLAKE.findall(text):
            found.add(f"snowflake:{number}")
            found |= _sqlstates([state]) if len(state) == 5 else set()
    if any(len(number) == 4 and number[0] in "1234" for number in numbers):
        found |= {f"mysql:{match['code']}" for match in _MYSQL.finditer(text)}
    if "sql server" in lowered or "msg" in tokens:
        found |= {f"mssql:{match['code'] or match['msg']}" for match in _MSSQL.finditer(text)}
    if "clickhouse" in lowered or "db::" in lowered:
        found |= {f"clickhouse:{one or other}" for one, other in _CLICKHOUSE.findall(text)}
    if tokens & {"ora", "tns", "dpy", "dpi", "pls"}:
        found |= {f"oracle:{code}" for code in _ORACLE.findall(text)}
    if ("status" in lowered or "rpc" in tokens) and tokens & _GRPC_WORDS:
        found |= {f"grpc:{_upper_snake(match['code'])}" for match in _GRPC.finditer(text)}
    if "aadsts" in lowered:
        found |= {f"aad:{code}" for code in _AADSTS.findall(text)}
    if "exit" in lowered or "return" in lowered or "rc" in tokens:
        found |= {f"exit:{match['code']}" for match in _EXIT.finditer(text)}
    if "sig" in lowered:
        for match in _SIGNAL.finditer(text):
            found.add(f"signal:{match['number'] or SIGNALS[match['name']]}")
    return found


_GRPC_WORDS = frozenset(
    {"unavailable", "aborted", "internal", "deadline_exceeded", "deadlineexceeded", "unknown", "data_loss", "cancelled",
     "resource_exhausted", "resourceexhausted", "unauthenticated", "permission_denied", "permissiondenied", "not_found",
     "notfound", "invalid_argument", "invalidargument", "out_of_range", "failed_precondition", "failedprecondition",
     "already_exists", "alreadyexists", "unimplemented"}
)  # fmt: skip
_STATE_CLASSES = frozenset(
    {"08", "0A", "21", "22", "23", "25", "26", "28", "2B", "34", "3D", "3F", "40", "42", "44", "53", "54", "55", "57", "58",
     "72", "HV", "P0", "XX", "HY", "IM", "S0", "S1"}
)  # fmt: skip


def _sqlstates(codes: Iterable[str]) -> set[str]:
    states = {code.upper() for code in codes}
    return {f"sqlstate:{code}" for code in states} | {f"sqlclass:{code[:2]}" for code in states}


def _http(text: str) -> set[str]:
    codes = {int(match["code"]) for match in _HTTP_BEFORE.finditer(text)}
    codes |= {int(match["code"]) for match in _HTTP_LEADING.finditer(text)}
    codes |= {int(code) for code in _HTTP_AWS.findall(text)}
    for match in _HTTP_AFTER.finditer(text):
        code, reason = int(match["code"]), (match["reason"] or "").strip().lower()
        if not reason or (REASONS.get(code) and reason.replace("-", " ").startswith(REASONS[code])):
            codes.add(code)
    return {f"http:{code}" for code in codes}


def _upper_snake(name: str) -> str:
    return name if name.isupper() else re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
