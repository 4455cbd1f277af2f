"""The registry of failure rules: every table of signs, in the order of strength.

Rows are read from the top and the first that fits decides, so what is structured and certain stands above what is
worded and likely. Golden examples, which anybody can extend, are in `tests/planner/failures.yaml`; a site's own rows
(`failure_rules.yaml`) come before or after these.
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
)
from pilotage.planner.detect.signs.rule import FailureRule

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
    # what is left when nothing says why
    *prefect.MAY_START,
    *prefect.LAST,
)
