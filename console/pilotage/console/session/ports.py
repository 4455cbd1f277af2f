"""Who uses a skin, and how they ask the desk and look at telemetry. Values and protocols: no I/O here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pilotage.planner.chat.parts import ChatPart


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One person, as their token proved. The desk looks at the token again with every call."""

    name: str
    roles: frozenset[str]
    token: str = field(repr=False)


class Asks(Protocol):
    """The desk in one person's name; see `pilotage.flows.api.client.DeskClient`."""

    def call(self, op: str, **arguments: Any) -> Any:
        """The result of one operation. Raises DeskRefusal when the answer is no, DeskError when nobody is there."""
        ...


class Answers(Protocol):
    """What answers questions; see `pilotage.planner.chat.agent.ChatAgent`."""

    def answer(self, text: str, session: str) -> AsyncIterator[ChatPart]:
        """The parts of the answer, ending with one `final`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """What composition gives the engine: how to reach the desk, telemetry and the agent for one caller."""

    desk: Callable[[Caller], Asks]
    looks: Callable[[Caller], Any]
    """The caller's Toolbox: its public methods are the look-ups."""
    agent: Callable[[Caller], Answers]
    model: Callable[[], Mapping[str, Any]] = dict
    """`{name, mock, configured}` of the language model, as far as settings tell."""
    close: Callable[[], None] = lambda: None
    """Lets go of what was opened."""
