"""The kill switch and the mode, kept in the ledger so that they hold over restarts and without any model."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pilotage.policies.audit import chain as log
from pilotage.policies.audit.chain import Entry
from pilotage.policies.json_values import moment, timestamp
from pilotage.policies.ledger.protocol import SignInStep, Stop
from pilotage.policies.ledger.schema import switches
from pilotage.policies.ledger.transaction import Transactions
from pilotage.policies.types import Mode, Verdict

_STOP = "stop"
_MODE = "mode"
_ASKED_MODE = "asked mode"


class SwitchRepository:
    """The part of the ledger that sets and lifts switches."""

    def stop(self: Transactions, by: str, reason: str, at: datetime) -> bool:
        """True when the kill switch is set now, False when it was already."""
        with self.writing("setting the kill switch") as connection:
            if stop_in(connection) is not None:
                return False
            value = {"by": by, "reason": reason, "at": timestamp(at), "resume_votes": []}
            put_switch(connection, _STOP, json.dumps(value))
            log.append(connection, Entry(event="stopped", at=at, actor=by, detail={"reason": reason}))
            return True

    def resume_vote(self: Transactions, by: str, needed: int, at: datetime) -> bool:
        """True when this vote lifts the kill switch; one vote for each person, `needed` in all."""
        with self.writing("voting to resume") as connection:
            stop = stop_in(connection)
            if stop is None:
                return False
            cast = sorted({*stop.resume_votes, by})
            lifted = len(cast) >= max(1, needed)
            if lifted:
                connection.execute(switches.delete().where(switches.c.name == _STOP))
            else:
                value = {"by": stop.by, "reason": stop.reason, "at": timestamp(stop.at), "resume_votes": cast}
                put_switch(connection, _STOP, json.dumps(value))
            event = "resumed" if lifted else "resume_vote"
            log.append(
                connection, Entry(event=event, at=at, actor=by, detail={"votes": cast, "needed": needed})
            )
            return lifted

    def stopped(self: Transactions) -> Stop | None:
        """The kill switch, or None when it is not set."""
        with self.reading("reading the kill switch") as connection:
            return stop_in(connection)

    def set_mode(
        self: Transactions, mode: Mode, by: str, at: datetime, *, reason: str = "", asked: bool = False
    ) -> None:
        """Keeps the mode over restarts. `asked` when a person asked for it, which further starts heed."""
        with self.writing("setting the mode") as connection:
            put_switch(connection, _MODE, mode.value)
            if asked:
                put_switch(connection, _ASKED_MODE, mode.value)
            detail = {"mode": mode, "reason": reason, "asked": asked}
            log.append(connection, Entry(event="mode_set", at=at, actor=by, detail=detail))

    def asked_mode(self: Transactions) -> Mode | None:
        """The mode that a person asked for last, or None when nobody ever did."""
        with self.reading("reading the mode") as connection:
            switch = get_switch(connection, _ASKED_MODE)
            return Mode(switch) if switch else None

    def refuse_command(
        self: Transactions, command: str, by: str, verdict: Verdict, at: datetime, **detail: object
    ) -> None:
        """Keeps that somebody gave a command that they may not give."""
        with self.writing(f"refusing {command}") as connection:
            record = {"command": command, "verdict": verdict, **detail}
            log.append(connection, Entry(event="command_refused", at=at, actor=by, detail=record))

    def record_sign_in(
        self: Transactions, step: SignInStep, name: str, at: datetime, **detail: object
    ) -> None:
        """Keeps that somebody signed in, failed to, or that sessions of theirs were ended."""
        with self.writing("writing the sign-in log") as connection:
            log.append(connection, Entry(event=step, at=at, actor=name, detail=detail))

    def mode(self: Transactions) -> Mode | None:
        """The mode that was set last, or None when none ever was."""
        with self.reading("reading the mode") as connection:
            switch = get_switch(connection, _MODE)
            return Mode(switch) if switch else None


def stop_in(connection: sa.Connection) -> Stop | None:
    """The kill switch within a transaction."""
    switch = get_switch(connection, _STOP)
    if switch is None:
        return None
    value: dict[str, Any] = json.loads(switch)
    return Stop(
        by=value["by"],
        reason=value["reason"],
        at=moment(value["at"]),
        resume_votes=tuple(value["resume_votes"]),
    )


def get_switch(connection: sa.Connection, name: str) -> str | None:
    """The value of a switch within a transaction, or None when it is not set."""
    return connection.execute(sa.select(switches.c.value).where(switches.c.name == name)).scalar_one_or_none()


def put_switch(connection: sa.Connection, name: str, value: str | None) -> None:
    """Sets a switch within a transaction, or clears it."""
    connection.execute(switches.delete().where(switches.c.name == name))
    if value is not None:
        connection.execute(switches.insert().values(name=name, value=value))
