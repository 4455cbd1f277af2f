"""What is wanted: a proposal has no force. It becomes something only when policy allows it."""

from __future__ import annotations

from typing import Annotated, Any, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from pilotage.planner.actions.types import Action, ActionKind


class Proposal(BaseModel):
    """One typed action and what it rests on. Who proposes it is not in it: the API authenticates that."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Annotated[str, Field(pattern=r"^p-[0-9a-f]{12}$")]
    """Derived from incident, action and attempt, so that filing twice is filing once."""
    incident_id: Annotated[str, Field(pattern=r"^i-[0-9a-f]{12}$")]
    action: Action
    expected_state_id: Annotated[str, Field(max_length=64)] = ""
    """The state id of the target run when this was thought of; a run that has moved on is left alone."""
    evidence: Annotated[
        tuple[Annotated[str, Field(max_length=300)], ...], Field(max_length=50, strict=False)
    ] = ()
    """References only, as in `Evidence.ref`."""
    playbook: Annotated[str, Field(max_length=80)] = ""
    """Which playbook, or `model` or `person`."""
    expires_at: AwareDatetime
    on_behalf_of: Annotated[str, Field(max_length=80)] = ""
    """The person for whom an agent acts, or empty."""


LONGEST_EXPLANATION = 8000
"""Characters of a model's prose that are kept; the API refuses more."""
Words = Annotated[str, Field(max_length=2000)]
Remarks = Annotated[tuple[Words, ...], Field(max_length=50)]


class CaseFile(BaseModel):
    """What was found and forecast around a proposal, for people to read.

    No decision rests on it, but that limits are counted by its fingerprint, and that its class is compared with what the
    run shows at the moment of acting, which can only tighten.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: Words
    failure_class: Words
    found_by: Words = ""
    rule_id: Words = ""
    fingerprint: Words = ""
    notes: Remarks = ()
    """Evidence in words; redacted, quoted, untrusted."""
    p_fail: Annotated[float, Field(ge=0, le=1)] | None = None
    forecast_model: Words = ""
    forecast_reasons: Remarks = ()
    expected_effect: Words = ""
    alternatives: Remarks = ()
    """Actions that were considered and not proposed, each with the reason."""
    explanation: Annotated[str, Field(max_length=LONGEST_EXPLANATION)] = ""
    """A language model's prose, marked as such; untrusted."""
    causes: Annotated[tuple[Annotated[str, Field(max_length=300)], ...], Field(max_length=30)] = ()
    """Cause keys, the strongest first: by them failures are grouped into incidents."""
    deployment: Words = ""
    """`flow/deployment` of the run that is in trouble, or its flow where it has no deployment."""
    error: Words = ""
    """The error's own line; redacted, quoted, untrusted."""
    failed_at: AwareDatetime | None = None
    """When the trouble began: the end of the failed run, or when a wait became too long."""


class ProposalApi(Protocol):
    """Where proposals are handed in. Composition gives the planner one; what is behind it is unknown here."""

    def file(self, proposal: Proposal, case: CaseFile) -> dict[str, Any]:
        """What became of it so far: `{"proposal_id", "outcome", "policy_ids", "reasons", …}`.

        Filing the same proposal again returns the same answer and does nothing else.
        Raises ApiError when the API cannot be reached or refuses the caller.
        """
        ...

    def permitted_kinds(self) -> tuple[ActionKind, ...]:
        """The kinds of action that this caller may propose at all."""
        ...
