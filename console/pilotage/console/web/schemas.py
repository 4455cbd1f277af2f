"""What goes over HTTP, typed: the source of the OpenAPI description."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pilotage.console.session.engine import LONGEST_MESSAGE
from pilotage.console.session.events import Event, Thread

ThreadId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.@-]{1,80}$")]
ProposalId = Annotated[str, Field(pattern=r"^p-[0-9a-f]{4,12}$")]
IncidentId = Annotated[str, Field(pattern=r"^i-[0-9a-f]{4,12}$")]
RunId = Annotated[str, Field(pattern=r"^[0-9a-f-]{36}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Reason = Annotated[str, Field(max_length=500)]
_Block = dict[str, Any]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SignIn(_In):
    """A one-time code, or a name and a password."""

    code: Annotated[str, Field(max_length=200)] = ""
    name: Annotated[str, Field(max_length=80)] = ""
    password: Annotated[str, Field(max_length=1024)] = ""


class NewThread(_In):
    title: Annotated[str, Field(max_length=200)] = ""


class Message(_In):
    text: Annotated[str, Field(min_length=1, max_length=LONGEST_MESSAGE)]


class VoteIn(_In):
    """An answer to exactly the proposal that the caller saw, named by its digest."""

    digest: Digest
    decision: Literal["approve", "reject"]
    reason: Reason = ""


class PlanVoteIn(_In):
    """An answer to the steps of an incident's plan that the caller saw, each named by its digest."""

    decision: Literal["approve", "reject"]
    reason: Reason = ""
    seen: Annotated[dict[ProposalId, Digest], Field(min_length=1, max_length=5000)]


class BulkItem(_In):
    proposal_id: ProposalId
    digest: Digest


class BulkVote(_In):
    """One answer to several proposals; each is counted for itself."""

    decision: Literal["approve", "reject"]
    reason: Reason = ""
    items: Annotated[list[BulkItem], Field(min_length=1, max_length=100)]


class Edit(_In):
    """The whole edited action; it becomes a proposal of the caller's own, judged from nothing."""

    action: dict[str, Any]
    thread: ThreadId = "floor"


class Snooze(_In):
    minutes: Annotated[int, Field(ge=1, le=7 * 24 * 60)]


class Lend(_In):
    """To whom the caller lends their own right to approve, and for how long."""

    to: Annotated[str, Field(min_length=1, max_length=80)]
    hours: Annotated[int, Field(ge=1, le=24 * 365)]
    reason: Annotated[str, Field(min_length=1, max_length=500)]


class Lent(BaseModel):
    giver: str
    taker: str
    until: str


class Because(_In):
    reason: Reason = ""


class Ways(BaseModel):
    """How one may sign in beside a one-time link and a password."""

    oidc: bool
    """By the team's identity provider."""


class Me(BaseModel):
    """Who the caller is, and what the page needs to know at once."""

    name: str
    roles: list[str]
    csrf: str
    """To be sent as X-CSRF-Token with whatever changes something; empty for bearer tokens."""
    ui: str
    """Prefect's own pages."""
    mode: str
    stopped: str
    """Who pulled the kill switch and why; empty while it is not."""


class ThreadOut(BaseModel):
    id: str
    title: str
    by: str
    at: datetime
    last_seq: int

    @classmethod
    def of(cls, thread: Thread) -> ThreadOut:
        """The thread as it goes out."""
        return cls(id=thread.id, title=thread.title, by=thread.by, at=thread.at, last_seq=thread.last_seq)


class EventOut(BaseModel):
    """One row of the log; `payload` depends on `type`."""

    seq: int
    thread: str
    type: str
    by: str
    at: datetime
    payload: dict[str, Any]

    @classmethod
    def of(cls, event: Event) -> EventOut:
        """The event as it goes out."""
        return cls(
            seq=event.seq,
            thread=event.thread,
            type=event.type,
            by=event.by,
            at=event.at,
            payload=dict(event.payload),
        )


class Accepted(BaseModel):
    """The message's own number; the answer follows in the thread's events."""

    seq: int


class Shown(BaseModel):
    blocks: list[_Block]


class BulkResult(BaseModel):
    proposal_id: str
    ok: bool
    error: str = ""
    card: dict[str, Any] | None = None


class BulkResults(BaseModel):
    results: list[BulkResult]


class Undone(BaseModel):
    proposal_id: str
    effect: str
    reason: str


class Stopped(BaseModel):
    stopped: str
    votes_missing: int = 0


class Problem(BaseModel):
    class Inner(BaseModel):
        kind: str
        message: str

    error: Inner
