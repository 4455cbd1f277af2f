"""Resolves what people call a proposal, an incident, a grant, a run or a deployment to its id.

An id may be cut short as long as it is the only one that begins so; runs and deployments go by their names too. What
fits several is refused with a list of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from pilotage.flows.api.client import ApiRejection
from pilotage.policies.ledger.protocol import Ledger
from pilotage.telemetry import times
from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.queries.runs import deployments_called, runs_called
from pilotage.telemetry.store.protocol import Store

Kind = Literal["proposal", "incident", "grant", "run", "deployment", "subject"]
"""What can be meant; a subject is a proposal, an incident or a run, or a deployment with one incident."""
LEAST = 4
"""Characters of an id that name its owner, as git has it; fewer are a slip of the finger."""
LISTED = 10
"""Owners of a name that a refusal lists."""
_OURS = re.compile(r"([pig])-([0-9a-f]{1,12})")
_PREFECTS = re.compile(r"[0-9a-f]{4,8}(?:-[0-9a-f-]*)?")
_LETTERS: dict[str, Kind] = {"p": "proposal", "i": "incident", "g": "grant"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """One thing that the words may mean."""

    id: str
    words: str
    """What tells it from the others, for a person who has to choose."""


class Resolver:
    """Looks ids and names up in the ledger and, for runs and deployments, in telemetry."""

    def __init__(self, ledger: Ledger, store: Callable[[], Store] | None = None) -> None:
        """`store` is asked when a name is looked up; without it the ledger's own ids are all that is known."""
        self._ledger = ledger
        self._store = store

    def resolve(self, words: str, kind: Kind) -> str:
        """Return the id that the words stand for.

        Raises ApiRejection: `ambiguous` with a list when several fit, `unknown-…` when none does.
        """
        given = words.strip()
        if whole := _whole(given, kind):
            return whole
        if kind == "subject":
            return self._subject(given)
        return only(given, kind, self._called(given, kind))

    def _called(self, words: str, kind: Kind) -> list[Named]:
        if kind in ("run", "deployment"):
            return self._in_telemetry(words, kind)
        ours = _OURS.fullmatch(words.lower())
        if ours is None or _LETTERS[ours[1]] != kind or len(ours[2]) < LEAST:
            return []
        return [
            Named(id=row["id"], words=_row_in_words(row))
            for row in self._ledger.beginning(kind, words.lower())
        ]

    def _in_telemetry(self, words: str, kind: Kind) -> list[Named]:
        if not words:
            return []
        short = words.lower() if _PREFECTS.fullmatch(words.lower()) else ""
        try:
            store = self._store() if self._store is not None else None
        except StoreError:
            store = None
        if store is None:
            rows = self._ledger.beginning("run", short) if short and kind == "run" else []
            return [Named(id=row["id"], words=_row_in_words(row)) for row in rows]
        if kind == "run":
            return [
                Named(
                    id=run.run_id,
                    words=f"{run.name}, {run.deployment_name or run.flow_name}, {run.state_name}, "
                    f"{times.local(run.started or run.next_start or run.created)}",
                )
                for run in runs_called(store, words, short)
            ]
        return [
            Named(id=deployment.deployment_id, words=f"{deployment.flow_name}/{deployment.name}")
            for deployment in deployments_called(store, words, short)
        ]

    def _subject(self, words: str) -> str:
        ours = _OURS.fullmatch(words.lower())
        if ours is not None:
            kind = _LETTERS[ours[1]]
            return only(words, kind, self._called(words, kind))
        runs = self._in_telemetry(words, "run")
        deployments = self._in_telemetry(words, "deployment")
        if runs or not deployments:
            return only(words, "subject", runs)
        incidents = [
            Named(id=row["id"], words=_row_in_words(row))
            for named in deployments
            for row in self._ledger.incidents_on(named.id)
        ]
        if not incidents:
            names = ", ".join(named.words for named in deployments)
            raise ApiRejection(
                "unknown-subject", f"Looking for what happened to {names}: it has no incident on record."
            )
        return only(words, "incident", incidents)


def _whole(words: str, kind: Kind) -> str:
    """The words when they are a whole id of that kind, in its usual spelling; else empty."""
    ours = _OURS.fullmatch(words.lower())
    if ours is not None and len(ours[2]) == 12 and kind in (_LETTERS[ours[1]], "subject"):
        return words.lower()
    if kind in ("run", "deployment", "subject") and len(words) in (32, 36):
        try:
            return str(UUID(words))
        except ValueError:
            return ""
    return ""


def only(words: str, kind: Kind, candidates: Sequence[Named]) -> str:
    """Return the id of the one that fits. Raises ApiRejection when none does, or several, which it lists."""
    match list(candidates):
        case [one]:
            return one.id
        case []:
            raise ApiRejection(f"unknown-{kind}", _nothing(words, kind))
        case several:
            lines = [f"  {candidate.id}  {candidate.words}" for candidate in several[:LISTED]]
            more = [f"  and {len(several) - LISTED} more"] if len(several) > LISTED else []
            raise ApiRejection(
                "ambiguous",
                "\n".join(
                    [f"Looking for {kind} {words!r}: {len(several)} fit. Give the id of one:", *lines, *more]
                ),
            )


_SEE: dict[Kind, str] = {
    "proposal": "See `pilotage proposals`",
    "incident": "See `pilotage incidents`",
    "grant": "See `pilotage grants`",
    "run": "Say /runs for those that telemetry has",
    "deployment": "Say /runs for what telemetry has",
    "subject": "Give a run, a proposal (p-…), an incident (i-…) or a deployment; see `pilotage incidents`",
}


def _nothing(words: str, kind: Kind) -> str:
    ids = f"an id may be cut to {LEAST} characters or more"
    names = ", and a name must be whole" if kind in ("run", "deployment", "subject") else ""
    what = "what happened to" if kind == "subject" else kind
    return f"Looking for {what} {words!r}: there is none. {_SEE[kind]}; {ids}{names}."


def _row_in_words(row: dict[str, str]) -> str:
    at = times.local(row["at"]) if row.get("at") else ""
    return ", ".join(part for part in (row.get("what", ""), row.get("status", ""), at) if part)
