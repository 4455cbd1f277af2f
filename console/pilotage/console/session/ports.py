"""Who uses a frontend, and how they ask the API and look at telemetry. Values and protocols: no I/O here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pilotage.planner.chat.parts import ChatPart


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One person, as their token proved. The API looks at the token again with every call."""

    name: str
    roles: frozenset[str]
    teams: frozenset[str] = frozenset()
    token: str = field(repr=False)


class ApiPort(Protocol):
    """The API in one person's name; see `pilotage.flows.api.client.ApiClient`."""

    def call(self, op: str, **arguments: Any) -> Any:
        """The result of one operation. Raises ApiRejection when the answer is no, ApiError when nobody is there."""
        ...


class AgentPort(Protocol):
    """What answers questions; see `pilotage.planner.chat.agent.ChatAgent`."""

    def answer(self, text: str, session: str) -> AsyncIterator[ChatPart]:
        """The parts of the answer, ending with one `final`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What composition gives the engine: how to reach the API, telemetry and the agent for one caller."""

    control_api: Callable[[User], ApiPort]
    toolbox: Callable[[User], Any]
    """The caller's Toolbox: its public methods are the look-ups."""
    agent: Callable[[User], AgentPort]
    model: Callable[[], Mapping[str, Any]] = dict
    """`{name, mock, configured}` of the language model, as far as settings tell."""
    close: Callable[[], None] = lambda: None
    """Lets go of what was opened."""
