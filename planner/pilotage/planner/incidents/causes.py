"""The cause keys of a finding: short texts that are equal for failures which may have one cause. Pure.

The strongest key comes first. What a failure says about a shared thing (a host, a table, a credential) is read from
its own words, which are untrusted: they choose a key, and a key only ever groups.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pilotage.planner.findings import FORECASTS, NOT_A_FAILURE, FailureClass, Finding
from pilotage.planner.log_templates import normalised
from pilotage.telemetry.facts import RunFact

FAMILY: Mapping[FailureClass, str] = MappingProxyType(
    {
        FailureClass.TRANSIENT: "passing",
        FailureClass.DEPENDENCY: "passing",
        FailureClass.RATE_LIMITED: "rate",
        FailureClass.AUTH: "auth",
        FailureClass.CERTIFICATE: "certificate",
        FailureClass.QUOTA_SPENT: "quota",
        FailureClass.INFRASTRUCTURE: "platform",
        FailureClass.CAPACITY: "capacity",
        FailureClass.ENVIRONMENT: "environment",
        FailureClass.BAD_INPUT: "input",
        FailureClass.CODE_BUG: "code",
    }
)
"""Classes whose failures can have a cause outside of the deployment, and which of them can have the same."""
OF_A_POOL = frozenset({FailureClass.INFRASTRUCTURE, FailureClass.CAPACITY})
"""Classes that are trouble of the pool where the run is executed."""
OUTSIDE = frozenset(FAMILY) - {FailureClass.BAD_INPUT, FailureClass.CODE_BUG}
"""Classes for which the same host or the same words in two deployments count as one cause."""
PREFECTS_OWN = frozenset({"api-unreachable", "api-database"})
"""Rows of the rule table that blame Prefect itself."""
_READ = 4000
"""Characters of a message in which a shared thing is looked for."""
_HOST = r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62}\.)*[A-Za-z0-9_-]{1,63})"
_PORT = r"(?:(?::|, ?port[= ]?)(?P<port>\d{2,5}))?"
_HOSTS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\b[a-z][a-z0-9+.-]{{1,20}}://(?:[^\s/@'\"]{{1,200}}@)?{_HOST}{_PORT}",
        rf"\bhost=['\"]?{_HOST}['\"]?{_PORT}",
        rf"\b(?:server at|to server on|host name|hostname|resolve host) ['\"]?{_HOST}['\"]?{_PORT}",
        rf"\b(?:connect to|connecting to|connection to) ['\"]?{_HOST}['\"]?{_PORT}",
        rf"\b(?:getaddrinfo failed for|host) ['\"]{_HOST}['\"]",
        rf"\(['\"]{_HOST}['\"], ?(?P<port>\d{{2,5}})\)",
    )
)
_TABLE = re.compile(
    r"\b(?:relation|table|lock on|deadlock .{0,40} on) ['\"`](?P<table>[A-Za-z_][\w.$-]{0,100})['\"`]", re.I
)
_CREDENTIAL = re.compile(
    r"\b(?:user|role|principal|credential|service account|secret) ['\"`](?P<credential>[\w.@$/-]{1,100})['\"`]",
    re.I,
)


def causes_of(
    finding: Finding, run: RunFact | None, words: Sequence[str] = (), *, failed_children: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the cause keys of a finding, the strongest first.

    `words` are the texts that decided, such as the log line shown; `failed_children` are the ids of failed runs that
    this run started: it failed because of them, so their cause comes first.
    """
    if finding.cause:
        return (finding.cause,)
    if finding.failure_class in FORECASTS and run is not None:
        return (f"forecast:{run.deployment_id or run.flow_name}:{finding.failure_class}",)
    if finding.failure_class in NOT_A_FAILURE or run is None:
        return (f"ongoing:{finding.fingerprint or finding.subject}",)
    keys = [
        *(f"run:{child}" for child in failed_children[:20]),
        f"fault:{finding.fingerprint or finding.subject}",
    ]
    family = FAMILY.get(finding.failure_class)
    if family is None:
        return tuple(keys)
    if finding.rule_id in PREFECTS_OWN:
        return (*keys, f"prefect:{finding.rule_id}")
    text = "\n".join((run.state_message, *words))[:_READ]
    shared = _shared(text, family) if finding.failure_class in OUTSIDE else []
    if not shared and finding.failure_class in OUTSIDE and (said := normalised(run.state_message)):
        template = hashlib.sha256(f"{family}\0{said}".encode()).hexdigest()[:16]
        where = f":{run.pool}" if finding.failure_class in OF_A_POOL and run.pool else ""
        shared = [f"words:{family}:{template}{where}"]
    return tuple(dict.fromkeys((*keys, *shared)))


def _shared(text: str, family: str) -> list[str]:
    """The keys of what the text names: hosts, tables, credentials."""
    keys = []
    if family == "auth" and (found := _CREDENTIAL.search(text)):
        keys.append(f"credential:{found['credential'].lower()}")
    hosts = dict.fromkeys(
        host for pattern in _HOSTS for match in pattern.finditer(text) if (host := _named(match))
    )
    keys += [f"host:{family}:{host}" for host in list(hosts)[:3]]
    if found := _TABLE.search(text):
        keys.append(f"table:{family}:{found['table'].lower()}")
    return keys


_NO_HOSTS = frozenset(
    {"developer.mozilla.org", "docs.prefect.io", "httpstatuses.com", "the", "a", "server", "host", "port"}
)
"""Hosts that error texts name for explanation, and words that are no host."""
_HERE = frozenset({"localhost", "127.0.0.1", "0.0.0.0"})  # noqa: S104 - names that are read, nothing is bound
"""One's own machine: only with a port does it name a service."""


def _named(match: re.Match[str]) -> str:
    """The host that a match names, with its port where it is one's own machine; empty when it names none."""
    host = match["host"].lower().rstrip(".")
    port = match.groupdict().get("port") or ""
    if host in _HERE:
        return f"{host}:{port}" if port else ""
    return "" if host in _NO_HOSTS else host
