"""Decides from a Prefect server's version whether it is accepted, what it lacks, and which actions it cannot carry."""

from __future__ import annotations

import re
from dataclasses import dataclass

OLDEST_SERVER = "3.6.16"
"""The first release with `POST /flow_runs/bulk_set_state`, on which every conditional change of a run stands."""
NEWEST_TRIED = "3.9.1"
"""The newest release that the tests ran against; a newer one of the same major version is accepted with a remark."""
USER_AGENT = "pilotage"
"""What our requests call themselves, so that they can be told apart in the access log of a server or proxy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """Something that servers before a release do not have."""

    since: str
    """The first release that has it."""
    what: str
    """The consequence, for a person, as the rest of "Prefect 3.6.16 …"."""
    kinds: frozenset[str] = frozenset()
    """Kinds of action that are not offered on such a server; empty where all of them work."""


LACKS: tuple[Lack, ...] = (
    Lack(
        since="3.6.22",
        what="sets no heartbeats by default, so a run that died unseen cannot be told from one that is busy",
        kinds=frozenset({"mark_crashed"}),
    ),
    Lack(
        since="3.7.5",
        what="leaves a cancelled run in Cancelling for good when its worker is gone; finish such a run by hand",
    ),
)
"""What differs between the accepted releases in a way that an operator notices; the oldest first."""


def numbers(version: str) -> tuple[int, int, int]:
    """Return major, minor and patch of a version such as `3.6.29` or `3.10.0rc1`. Raises ValueError for other text."""
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    if match is None:
        raise ValueError(f"{version!r} is no version")
    major, minor, patch = match.groups(default="0")
    return int(major), int(minor), int(patch)


def unfit(version: str) -> str:
    """Return why a server of this version cannot be used, or an empty text."""
    try:
        parsed = numbers(version)
    except ValueError:
        return f"it calls its version {version[:40]!r}, which is none of Prefect's"
    if parsed < numbers(OLDEST_SERVER):
        return f"it is version {version}, and pilotage needs {OLDEST_SERVER} or later"
    if parsed[0] > numbers(NEWEST_TRIED)[0]:
        return f"it is version {version}, and pilotage knows Prefect {numbers(NEWEST_TRIED)[0]} only"
    return ""


def lacks_of(version: str) -> tuple[Lack, ...]:
    """Return what a server of this version lacks. Raises ValueError for text that is no version."""
    return tuple(lack for lack in LACKS if numbers(version) < numbers(lack.since))


def kinds_not_offered(version: str) -> dict[str, str]:
    """Return the kinds of action that this server cannot carry, each with the reason in words."""
    return {
        kind: f"Prefect {version} (before {lack.since}) {lack.what}"
        for lack in lacks_of(version)
        for kind in sorted(lack.kinds)
    }


def remarks(version: str) -> tuple[str, ...]:
    """Return what a person should know of this server at the start, a line each; nothing when there is nothing."""
    lines = []
    for lack in lacks_of(version):
        without = f"; not offered here: {', '.join(sorted(lack.kinds))}" if lack.kinds else ""
        lines.append(f"Prefect {version} (before {lack.since}) {lack.what}{without}")
    if numbers(version) > numbers(NEWEST_TRIED):
        lines.append(
            f"Prefect {version} is newer than the newest that pilotage was tried with, {NEWEST_TRIED}"
        )
    return tuple(lines)
