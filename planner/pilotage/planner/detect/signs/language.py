# ruff: noqa: E501 - a table reads better with a row on a line
"""Signs in how things are named and worded, for what no table knows: words of a type's name, sentences that want a change.

A table of names can never hold every exception. Their authors name them by a small vocabulary, though
(`DeviceQuotaExceededError`), and whoever wants something changed says so (`must be`, `is not supported`). What is read here
is weak: it decides where nothing else does, and it stands against a row that would try something again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pilotage.planner.detect.signs.rule import FailureRule
from pilotage.planner.findings import Cure
from pilotage.planner.findings import FailureClass as F

_NAME_PARTS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


def name_parts(name: str) -> str:
    """Return the words of a type's name in lower case, with blanks around each: ` quota exceeded error `."""
    return f" {' '.join(part.lower() for part in _NAME_PARTS.findall(name))} "


def _kind(
    kind: str, failure_class: F, because: str, *words: str, cure: Cure | None = None
) -> tuple[FailureRule, tuple[str, ...]]:
    rule = FailureRule(
        id=f"name-{kind}", failure_class=failure_class, because=f"its type is named for {because}", strength="weak",
        cure=cure, sure=0.7,
    )  # fmt: skip
    return rule, tuple(f" {word} " for word in words)


NAME_KINDS = (
    _kind("quota", F.QUOTA_SPENT, "a quota or an account that is spent",
          "quota exceeded", "insufficient quota", "billing", "payment", "insufficient funds", "insufficient balance", "credit", "credits", "subscription", "plan limit", "suspended"),
    _kind("rate", F.RATE_LIMITED, "a rate limit",
          "rate limit", "rate limited", "ratelimit", "rate exceeded", "too many requests", "throttle", "throttled", "throttling", "slow down", "backoff", "flood wait", "request limit"),
    _kind("certificate", F.CERTIFICATE, "a certificate", "certificate", "cert", "host key", "hostname mismatch"),
    _kind("memory", F.OUT_OF_MEMORY, "memory", "memory", "oom", "heap space"),
    _kind("time-out", F.TRANSIENT, "what passes",
          "timeout", "timed out", "time out", "deadline exceeded", "unavailable", "unreachable", "temporary", "temporarily", "transient", "retryable", "retriable", "disconnected", "reset"),
    _kind("not-ready", F.DEPENDENCY, "what is not there yet", "not ready", "upstream", "not available yet", "freshness"),
    _kind("auth", F.AUTH, "credentials or a right",
          "auth", "authentication", "authorization", "authenticate", "unauthorized", "unauthenticated", "forbidden", "denied", "permission", "permissions", "credential", "credentials", "token", "login", "password", "api key", "not allowed", "access", "privilege", "privileges", "consent", "signature", "scope"),
    _kind("capacity", F.CAPACITY, "a lack of room",
          "capacity", "no slots", "insufficient resources", "resources unavailable", "no workers", "no available", "unschedulable", "queue full", "pool exhausted"),
    _kind("environment", F.ENVIRONMENT, "what is missing or wrong where it runs",
          "config", "configuration", "misconfigured", "improperly configured", "settings", "environment", "env var", "import", "module", "package", "dependency", "dependencies", "driver", "library", "executable", "command not found", "plugin", "version", "profile", "not installed", "license", "entrypoint", "bootstrap"),
    _kind("absent", F.DEPENDENCY, "something that is not there",
          "not found", "no such", "does not exist", "doesnt exist", "not exist", "missing", "unknown topic", "unknown table", "absent", "no result found", cure=Cure.OWNER),
    _kind("input", F.BAD_INPUT, "input that does not fit",
          "invalid", "validation", "validator", "malformed", "illegal", "bad request", "unprocessable", "parse", "parser", "parsing", "decode", "decoding", "decoder", "encode", "encoding", "encoder", "schema", "format", "mismatch", "duplicate", "already exists", "exists", "conflict", "constraint", "violation", "integrity", "out of bounds", "out of range", "too large", "too long", "too big", "corrupt", "corrupted", "checksum", "data", "record", "value", "empty", "expectation", "quality", "deserialize", "deserialization", "conversion", "convert", "cast", "null", "required", "expired", "precondition", "rejected", "unexpected"),
    _kind("code", F.CODE_BUG, "a mistake of the code",
          "syntax", "type", "attribute", "argument", "parameter", "compilation", "compile", "not implemented", "unsupported", "not supported", "programming", "usage", "undefined", "index", "key", "column", "assertion", "assert", "misuse", "not callable", "deprecated", "state", "recursion", "serialization", "pickling", "template", "query", "sql", "operation"),
    _kind("worker", F.CRASHED, "a process that was lost", "died", "dead", "killed", "crashed", "lost", "evicted", "preempted", "terminated"),
    _kind("passing", F.TRANSIENT, "what passes",
          "connection", "connect", "connectivity", "disconnect", "network", "socket", "transport", "retry", "retries", "refused", "closed", "aborted", "interrupted", "broken pipe", "overloaded", "busy", "deadlock", "lock", "locked", "server", "gateway", "remote", "dns", "unreachable", "lease", "stream", "protocol", "communication", "internal", "incomplete", "truncated", "eof"),
)  # fmt: skip
"""Words of type names with the class that they stand for; the first row that has one decides."""

_NOT_TELLING = re.compile(
    r"^(?:Error|Exception|.*(?:RuntimeError|APIError|ApiError|ClientError|ServiceError|HTTPError))$"
)


def kind_of_type(name: str) -> FailureRule | None:
    """Return what a type that no table knows is named for, or None when its name does not tell."""
    parts = name_parts(name)
    return next((rule for rule, words in NAME_KINDS if any(word in parts for word in words)), None)


_WANTS_CHANGE = re.compile(
    r"\b(?:must(?: not)? (?:be|have|match|contain|specify|provide|start|exist|set)|has to be|needs to be|should be (?:a|an|one)\b|"
    r"(?:is|are|was|were) (?:not|no longer) (?:\w+ )?(?:supported|allowed|permitted|valid|defined|installed|recognized|"
    r"recognised|enabled|configured|found|compatible|registered|available in)|"
    r"not (?:supported|permitted|implemented|found|valid|defined)\b|"
    r"unsupported|invalid|malformed|illegal|incorrect|mismatch(?:ed)?|misconfigur\w+|unrecogni[sz]ed|unknown (?!error|host|server)"
    r"|(?:does|do|did) not (?:exist|match|have|support|contain|allow|accept)|doesn't (?:exist|match|have|support)|"
    r"no such|could not find|couldn't find|cannot find|can't find|unable to find|cannot be (?:null|none|empty|parsed|cast|used|"
    r"found|converted|changed|applied)|(?:is|are) required|required (?:field|parameter|argument|property|permission)|"
    r"missing (?:required|value|argument|parameter|field|key|column)|already (?:exists|defined|in use)|duplicate|"
    r"expected .{1,80}?\b(?:but|got|found|received|instead)\b|has (?:been )?(?:expired|disabled|deleted|removed|deprecated|"
    r"suspended|deactivated|revoked)|(?:been|is|was) (?:disabled|deleted|removed|deprecated|suspended|deactivated|revoked|"
    r"misconfigured)|denied|unauthori[sz]ed|forbidden|syntax error|parse error|too (?:large|long|big)|exceeds? the (?:maximum|limit)|"
    r"(?:please )?(?:check|verify|make sure|ensure|specify|provide|install|upgrade|enable|configure|contact|grant|correct|update)"
    r" (?:that|your|the|a|an|you)\b)",
    re.IGNORECASE,
)
"""Sentences that want something changed before it can work; none goes over the end of a line."""
_WANTS_HINTS = (
    "must", "has to be", "needs to be", "should be ", " not", "not ", "no longer", "unsupported", "invalid", "malformed",
    "illegal", "incorrect", "mismatch", "misconfigur", "unrecogni", "unknown ", "doesn't", "no such", "couldn't", "can't",
    "unable to find", "required", "missing ", "already ", "duplicate", "expected ", "expired", "disabled", "deleted",
    "removed", "deprecated", "suspended", "deactivated", "revoked", "denied", "unauthori", "forbidden", "syntax error",
    "parse error", "too l", "too b", "exceed", "check ", "verify ", "make sure ", "ensure ", "specify ", "provide ",
    "install ", "upgrade ", "enable ", "configure ", "contact ", "grant ", "correct ", "update ",
)  # fmt: skip
"""One of these is in each line in which it finds something: to look for words is cheaper."""


def _wanted_changes(text: str) -> Iterator[str]:
    """Yield the words by which a text asks for a change, in their order."""
    for line in text.split("\n"):
        lowered = line.lower()
        if any(hint in lowered for hint in _WANTS_HINTS):
            yield from (found[0] for found in _WANTS_CHANGE.finditer(line))


_PASSES = re.compile(
    r"\b(?:timed?[- ]?out|temporar\w+|transient (?:error|fault|failure)|locked by|(?:is|was) locked|unavailable|overload\w*|"
    r"throttl\w+|too many (?:requests|connections)|rate.?limit\w*|reset by peer|connection (?:\w+ )?(?:reset|refused|aborted|lost|closed|"
    r"dropped|timed|error|failed|broken|terminated)|disconnected|unreachable|deadlock\w*|gateway|busy|lock (?:wait|timeout)|"
    r"serializ\w+ (?:failure|access)|50[0234]|429|name resolution|remote end closed|socket (?:is )?closed|broken pipe|eof|failover|preempt\w*|evict\w*|"
    r"spot|capacity|slow ?down|internal server error|insufficient (?:cpu|capacity|resources))\b",
    re.IGNORECASE,
)
"""Words of what passes."""


_POLITE = re.compile(
    r"^(?:please )?(?:check|verify|make sure|ensure|contact)\b|^(?:required|is required|are required|already in use|unknown |"
    r"no such|forbidden|not found)",
    re.IGNORECASE,
)
"""What is said of faults that pass, too."""


def insists_on_change(text: str) -> str:
    """Return the words by which a text asks for a change, politeness left aside, or an empty string."""
    return next((found for found in _wanted_changes(text) if not _POLITE.match(found)), "")


_NEVER_LEFT = re.compile(
    r"connect(?:ion)? ?timeout|connecttimeout|connecterror|all connection attempts failed|connection refused|econnrefused|"
    r"failed to establish a new connection|name resolution|could not resolve|failed to resolve|getaddrinfo|no route to host|"
    r"unreachable|newconnectionerror|cannot connect|could not connect|failed to connect|no attempt was made",
    re.IGNORECASE,
)
"""What shows that a request was never received: there was no connection to send it on."""


def never_left(text: str) -> bool:
    """Return whether a text shows that a request was not received by anybody."""
    return _NEVER_LEFT.search(text) is not None


def wants_change(text: str) -> str:
    """Return the words by which a text asks for a change, or an empty string."""
    return next(_wanted_changes(text), "")


PASSING = FailureRule(
    id="worded-as-passing", failure_class=F.TRANSIENT, because="it is worded as something that passes, and asks for no change",
    strength="weak", sure=0.6,
)  # fmt: skip
"""What is left where no row and no name tells and only the wording does."""


def speaks_of_passing(text: str) -> bool:
    """Return whether a text has words of something that passes."""
    return _PASSES.search(text) is not None


_SERVER_ERROR = re.compile(r"\b500\b|(?:internal )?server error", re.IGNORECASE)


_AGAIN = re.compile(r"\b(?:try(?:ing)? (?:\w+ ){0,3}again|retry(?:ing|able)?|re-?try)\b", re.IGNORECASE)


def asks_for_another_try(text: str) -> bool:
    """Return whether a text invites another try, as texts do that want a change first, too."""
    return _AGAIN.search(text) is not None


def without_server_error(text: str) -> str:
    """Return a text without the words for HTTP 500, which servers answer for what passes and for what does not."""
    return _SERVER_ERROR.sub("", text)


def first_named(types: Iterable[str], known: frozenset[str]) -> FailureRule | None:
    """Return what the last of these types is named for, of those that no table knows."""
    unknown = [name for name in types if name not in known and not _NOT_TELLING.match(name)]
    return next((rule for name in reversed(unknown) if (rule := kind_of_type(name)) is not None), None)


def _hinted(hints: str, pattern: str) -> tuple[tuple[str, ...], re.Pattern[str]]:
    return tuple(hints.split("|")), re.compile(rf"\b(?:{pattern})", re.IGNORECASE)


_STILL_ALIVE = (
    _hinted("may |might |could ", r"(?:may|might|could) (?:still )?(?:be|have been) (?:still )?(?:running|alive|active|started|starting|created|executing|submitted|pending|queued)"),
    _hinted("still ", r"still (?:be )?(?:running|alive|active|executing|in progress)"),
    _hinted("continu", r"continu\w+ (?:to run|running|executing|in the background)"),
    _hinted("verify|determine|confirm|tell|know|establish", r"(?:cannot|could not|can't|unable to|failed to) (?:verify|determine|confirm|tell|know|establish) (?:if|whether|the (?:\w+ )?(?:state|status))"),
    _hinted("lost |losing ", r"(?:lost|losing) (?:contact|connection|track|communication|sight)\b.{0,40}\b(?:worker|job|run|pod|container|task|agent|executor|process)"),
    _hinted("heartbeat", r"(?:miss\w+|no|lost|without|stopped (?:sending|receiving)|absent)(?: \w+){0,3} heartbeats?|heartbeats? (?:was|were|has|have|is|are|timed|miss|stop)"),
    _hinted("already |zombie|orphan|duplicate ", r"already (?:running|started|executing|in progress|being executed|has a running)|zombie|orphan\w*|duplicate (?:run|execution|submission)"),
    _hinted("unknown|indeterminate|undetermined", r"(?:unknown|indeterminate|undetermined) (?:state|status|outcome)|(?:state|status|outcome) (?:is )?(?:unknown|indeterminate)"),
    _hinted("did not ", r"did not (?:confirm|acknowledge|complete)\b"),
    _hinted("watching|waiting for the |monitoring", r"(?:stopped|gave up|giving up|timed out|failed) (?:while )?(?:watching|waiting for the (?:job|pod|container|task|run)|monitoring)"),
)  # fmt: skip
"""Sentences by which somebody says that he does not know whether a process has ended, each behind words of which it has
one: to look for these is cheaper."""
_MEMORY = re.compile(
    r"\b(?:out of memory|oom\w*|bad_alloc|memoryerror|(?:cannot|could not|failed to|unable to) allocate|java heap|heap space|"
    r"killed by the kernel|memory (?:limit|budget|pressure|quota|exhausted|exceeded|allocation failed|usage (?:is )?(?:high|too|exceed\w*|above|over))|"
    r"(?:exceed\w*|over|reach\w*|above|hit|insufficient|not enough|too much|low on|run(?:ning)? out of|ran out of|no more|cannot allocate|"
    r"unmanaged|high) (?:\S+ ){0,4}(?:memory|rss|heap)|(?:memory|heap|rss)\b.{0,40}\b(?:exceed\w*|exhaust\w*|insufficient|full|killed))\b",
    re.IGNORECASE,
)
_ADVICE = re.compile(
    r"typically caused by|likely due to|increase the memory|check whether|memory limit in the job|consider profiling|"
    r"insufficient memory\b.{0,80}(?:preemption|node)|nodes? are available",
    re.IGNORECASE,
)
"""Lines of advice that accompany every end of a kind, and of schedulers: they say nothing of this run's memory."""


def may_be_alive(text: str) -> bool:
    """Return whether a text says that nobody knows whether the process has ended."""
    lowered = text.lower()
    return any(
        pattern.search(text) is not None
        for hints, pattern in _STILL_ALIVE
        if any(hint in lowered for hint in hints)
    )


def speaks_of_memory(text: str) -> bool:
    """Return whether a text says that memory was short, advice left aside."""
    return any(_MEMORY.search(line) and not _ADVICE.search(line) for line in text.splitlines())
