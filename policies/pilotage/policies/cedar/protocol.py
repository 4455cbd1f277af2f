"""What a policy engine is to the gate: one question in, one raw answer out, deciding ids and errors included.

A raw answer is not a verdict. Engines let a request through when a forbid fails to evaluate; the gate
does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Uid:
    """One entity, by type and id. The id is literal text: never parsed."""

    type: str
    """Without the namespace, such as `Run`."""
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """One entity with its attributes and its parents."""

    uid: Uid
    attributes: Mapping[str, Any] = field(default_factory=dict)
    parents: tuple[Uid, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """One question: may this principal do this to that resource in this context?"""

    principal: Uid
    action: str
    resource: Uid
    context: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """What the engine said."""

    allowed: bool
    """What the engine alone would do; means nothing when `errors` is not empty."""
    deciding: tuple[str, ...] = ()
    """The `@id` of the policies that decided, in order of id; empty when none applied."""
    errors: tuple[str, ...] = ()
    hard_denials: tuple[str, ...] = ()
    """Of a denial, the deciding policies that cannot see approvals: what they deny, no approval changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyNote:
    """What a policy's annotations say of it. They are shown to people; no decision rests on them."""

    policy_id: str
    effect: Literal["permit", "forbid"]
    reason: str
    would_change: str
    file: str


class PolicyEngine(Protocol):
    """A loaded, validated set of policies."""

    def notes(self) -> Mapping[str, PolicyNote]:
        """The annotations by policy id."""
        ...

    def evaluate(
        self, requests: Sequence[EngineRequest], entities: Sequence[Entity]
    ) -> tuple[RawAnswer, ...]:
        """One raw answer for each request, all over the same entities. May raise anything."""
        ...
