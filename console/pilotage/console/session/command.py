"""What a command is and what it may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pilotage.console.session.blocks import Block
from pilotage.console.session.cards import Card
from pilotage.console.session.log import EventLog
from pilotage.console.session.ports import ApiPort, User


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a command may use."""

    user: User
    control_api: ApiPort
    make_toolbox: Callable[[], Any]
    """Gives the caller's Toolbox, when a command wants it: stopping must work without telemetry."""
    log: EventLog
    thread: str
    """Where it was said."""
    card: Callable[[Mapping[str, Any] | str], Card]
    """The card of a proposal, from the API's row or by its id."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """`{name, mock, configured}` of the language model."""
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    @property
    def toolbox(self) -> Any:
        """The caller's Toolbox; its `store` reads telemetry. Raises StoreError when there is none."""
        return self.make_toolbox()


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One row of the table."""

    usage: str
    help: str
    run: Callable[[Setting, str], list[Block]] = lambda s, rest: []
    asks: Callable[[Setting, str], str] | None = None
    """The question that goes to the agent instead of running anything."""
    reads: bool = False
    """Whether it changes nothing, so that anybody may have it shown at any time."""
