"""The registry of failure rules: every table of signs, in the order of strength.

Rows are read from the top and the first that fits decides, so what is structured and certain stands above what is
worded and likely. Golden examples, which anybody can extend, are in `tests/planner/failures.yaml`; a site's own rows
(`failure_rules.yaml`) come before or after these; a package adds rows by an entry point of `pilotage.failure_rules`.
"""

from __future__ import annotations

from pilotage.planner.detect.signs import (
    clouds,
    containers,
    databases,
    libraries,
    memory,
    phrases,
    prefect,
    protocols,
    servers,
)
from pilotage.planner.detect.signs.rule import FailureRule
from pilotage.planner.plugins import broken, plugins

GROUP = "pilotage.failure_rules"


def _added() -> list[FailureRule]:
    """Return the rows of installed packages: each entry point gives one row or several. Raises ConfigError."""
    rules: list[FailureRule] = []
    for name, added in plugins(GROUP):
        given = [added] if isinstance(added, FailureRule) else list(added)
        if not all(isinstance(each, FailureRule) for each in given):
            raise broken(GROUP, name, "it is neither a FailureRule nor a sequence of them")
        rules += given
    return rules


FAILURE_RULES: tuple[FailureRule, ...] = (
    # what forbids everything else, and what is said by Prefect itself
    *prefect.ALIVE,
    *libraries.RESULT_LOST,
    *prefect.ENDS,
    # codes of sources that somebody keeps
    *clouds.MONEY,
    *clouds.MODELS,
    *protocols.CERTIFICATES,
    *prefect.MESSAGES,
    *servers.SERVERS,
    *memory.MEMORY,
    *containers.CONTAINERS,
    *protocols.REPLIES,
    *clouds.AZURE,
    *clouds.RATE,
    *clouds.GOOGLE,
    *clouds.AWS,
    *databases.CANCELLED_QUERY,
    *databases.NUMBERS,
    *databases.NAMES,
    *protocols.HTTP,
    *protocols.GRPC,
    *protocols.ERRNO,
    # words, families of exceptions, exceptions of the language
    *phrases.PHRASES,
    *libraries.FAMILIES,
    *libraries.BUILTINS,
    # those of installed packages decide where none of ours does
    *_added(),
    # what is left when nothing says why
    *prefect.MAY_START,
    *prefect.LAST,
)
