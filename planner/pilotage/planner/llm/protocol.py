"""What a language model is to us: typed answers, prose, and a stream with tools."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from pydantic import BaseModel

from pilotage.telemetry.errors import ModelError

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage, BaseMessage

    from pilotage.planner.llm.budget import LlmBudget

Answer = TypeVar("Answer", bound=BaseModel)
CHARS_PER_TOKEN = 4
"""By which tokens are estimated where nobody counts them; English text has about so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What was asked of a model so far."""

    calls: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A piece of an answer as it arrives."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer, complete and checked, possibly with tool calls."""

    message: AIMessage


class ToolsLacking(ModelError):
    """The endpoint cannot call tools; it can still be asked for typed answers."""


class LanguageModel(Protocol):
    """A model behind an endpoint. Its methods raise ModelError, and nothing else, for want of an answer."""

    @property
    def name(self) -> str:
        """What it is called at its endpoint."""
        ...

    @property
    def down(self) -> bool:
        """True while it has just failed and is not asked."""
        ...

    @property
    def calls_tools(self) -> bool:
        """False once its endpoint has refused tools."""
        ...

    @property
    def usage(self) -> Usage:
        """Calls and tokens so far."""
        ...

    @property
    def book(self) -> LlmBudget | None:
        """Where its spending is kept, or None."""
        ...

    async def ask_typed(self, schema: type[Answer], messages: Sequence[BaseMessage]) -> Answer:
        """An answer that the schema accepts."""
        ...

    async def ask_text(self, messages: Sequence[BaseMessage]) -> str:
        """An answer in prose."""
        ...

    def stream(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[Any] = (),
        *,
        choice: Literal["auto", "none"] = "auto",
    ) -> AsyncIterator[Token | Reply]:
        """Tokens as they come, and at the end the one whole reply. Raises ToolsLacking where there are no tools.

        `none` asks for words, though the tools are shown.
        """
        ...
