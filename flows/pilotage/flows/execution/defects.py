"""What fails for a reason that nobody foresaw: it is tried a few times, then set aside, told of, and tried again later."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

log = logging.getLogger("pilotage.injector")

TRIES = 3
"""An unknown exception is a fault of ours or of a package: it does not go away by itself."""
AGAIN = timedelta(hours=1)
"""After this what was set aside is tried once more: a package may have been mended meanwhile."""
_COUNTED = re.compile(r"\(defect, try (\d+) of \d+\)$")


def defect(exc: BaseException, last_error: str) -> tuple[str, bool]:
    """Return what to write down of an unknown exception, and whether a further try is worth it.

    `last_error` is what was written down of the try before, which counts: it outlives a restart.
    """
    before = _COUNTED.search(last_error)
    tries = int(before.group(1)) + 1 if before else 1
    return f"{type(exc).__name__}: {exc} (defect, try {tries} of {TRIES})", tries < TRIES


@dataclass(slots=True)
class _Case:
    why: str
    tries: int
    until: datetime | None = None


class Defects:
    """What cannot be verified or taken back at the moment, by proposal."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._cases: dict[str, _Case] = {}

    def skip(self, proposal_id: str) -> bool:
        """Whether it is set aside now."""
        case = self._cases.get(proposal_id)
        return case is not None and case.until is not None and self._clock() < case.until

    def failed(self, proposal_id: str, doing: str, exc: BaseException, *, certain: bool = False) -> None:
        """Note a failure; after `TRIES`, or at once where it is `certain`, it is set aside and told of."""
        case = self._cases.setdefault(proposal_id, _Case(why="", tries=0))
        case.tries += 1
        case.why = f"{doing}: {type(exc).__name__}: {exc}"
        if certain or case.tries >= TRIES:
            case.until = self._clock() + AGAIN
            log.error("%s %s is set aside for an hour: %s", doing, proposal_id, case.why, exc_info=exc)
        else:
            log.warning("%s", case.why, exc_info=exc)

    def over(self, proposal_id: str) -> None:
        """It went well."""
        self._cases.pop(proposal_id, None)

    def rows(self) -> list[str]:
        """What is set aside now and why, in words."""
        return [f"{proposal_id}: {case.why}" for proposal_id, case in self._cases.items() if case.until]
