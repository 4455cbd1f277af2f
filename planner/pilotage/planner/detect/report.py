"""Diagnose texts outside of a running installation: what `pilotage diagnose` prints, a value a failure.

It takes the fields of a failure text (`id, state_type, state_name, message, log_tail`) and needs no server, no store and
no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pilotage.planner.detect.diagnosis import Diagnosis, Line
from pilotage.planner.detect.reasoning import EXAMPLES, parsed_lines, reason
from pilotage.planner.detect.remedy import Remedy, RemedyContext, choose
from pilotage.planner.detect.rulebook import Rulebook
from pilotage.planner.findings import FailureClass
from pilotage.planner.parameters import RemedyCosts
from pilotage.telemetry.errors import ConfigError
from pilotage.telemetry.facts import StateType
from pilotage.telemetry.harmless import harmless
from pilotage.telemetry.redaction import redact

BROADER: Mapping[FailureClass, str] = {FailureClass.ENVIRONMENT: "infrastructure"}
"""What a narrow class is printed as where collections of failure texts have one word for both."""
ACTIONS: Mapping[Remedy, tuple[str, ...]] = {
    Remedy.RETRY_NOW: ("retry_run",),
    Remedy.RETRY_LATER: ("retry_run",),
    Remedy.MORE_MEMORY: ("resize_run",),
    Remedy.TELL_OWNER: ("notify_owner",),
    Remedy.HOLD: ("notify_owner",),
    Remedy.ASK: ("notify_owner",),
    Remedy.NOTHING: (),
}
"""The kinds of action that a remedy asks for; policy decides on each."""
_FAILED = frozenset({StateType.FAILED, StateType.CRASHED})
_NAMES = {"failed": StateType.FAILED, "timedout": StateType.FAILED, "crashed": StateType.CRASHED}


class FailureText(BaseModel):
    """One failure as it is read from a file: labels and notes beside these fields are not looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(default="", max_length=500)
    state_type: StateType = StateType.FAILED
    state_name: str = ""
    message: str | None = ""
    log_tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnosisReport:
    """The answer for one failure text."""

    id: str
    failure_class: str
    """The class, in the vocabulary of collections of failure texts: `environment` is printed as `infrastructure`."""
    narrower_class: str
    """The failure class itself."""
    by: str
    """`rule`, `classifier`, or `nobody` where nothing decided."""
    rule_id: str
    confidence: float
    remedy: str
    actions: tuple[str, ...]
    evidence: tuple[str, ...]
    """What decided, in words, and the line that it stands in, redacted and quoted."""

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return asdict(self)


def failure_text(row: Mapping[str, Any], where: str) -> FailureText:
    """Return a typed failure text. Raises ConfigError that names `where` and the field."""
    try:
        return FailureText.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the line"
        raise ConfigError(
            f"Reading {where}: {field}: {first['msg']}. Fields are id, state_type, state_name, message and log_tail."
        ) from error


def state_named(name: str) -> tuple[StateType, str]:
    """Return the type of a state by its name, whatever its case. Raises ConfigError for one that no run ends badly in."""
    known = _NAMES.get(name.strip().lower())
    if known is None:
        raise ConfigError(
            f"Reading --state {name!r}: no such end of a run. Valid are Failed, TimedOut and Crashed."
        )
    return known, {"timedout": "TimedOut"}.get(name.strip().lower(), name.strip().capitalize())


def report_on(
    text: FailureText,
    book: Rulebook = EXAMPLES,
    costs: RemedyCosts | None = None,
    context: RemedyContext | None = None,
    *,
    second_opinion: bool = True,
) -> DiagnosisReport:
    """Return the report on one failure text. Without `second_opinion` only rules are asked."""
    if text.state_type not in _FAILED:
        return DiagnosisReport(
            id=text.id, failure_class="unknown", narrower_class="unknown", by="nobody", rule_id="", confidence=0.0,
            remedy=Remedy.NOTHING, actions=(), evidence=(f"the run is {text.state_type}, which is no failure",),
        )  # fmt: skip
    lines = list(parsed_lines(text.log_tail))
    diagnosis = reason(
        text.state_type, text.state_name or text.state_type.capitalize(), text.message or "", lines, book
    )
    return report_of(text.id, diagnosis, text.message or "", lines, costs, context)


def report_of(
    subject: str,
    diagnosis: Diagnosis,
    message: str,
    lines: Sequence[Line],
    costs: RemedyCosts | None = None,
    context: RemedyContext | None = None,
) -> DiagnosisReport:
    """Return the report of a diagnosis that is made."""
    remedy = choose(diagnosis.cure, diagnosis.confidence, costs, context)
    shown = lines[diagnosis.line].text if diagnosis.line is not None else message
    evidence = [diagnosis.because] if diagnosis.because else []
    if shown:
        evidence.append(harmless(redact(shown[:4000]), 200))
    if diagnosis.wait_seconds is not None:
        evidence.append(f"the other side asked to wait {diagnosis.wait_seconds:g} s")
    return DiagnosisReport(
        id=subject,
        failure_class=BROADER.get(diagnosis.failure_class, diagnosis.failure_class.value),
        narrower_class=diagnosis.failure_class.value,
        by=diagnosis.by if diagnosis.failure_class is not FailureClass.UNKNOWN else "nobody",
        rule_id=diagnosis.rule_id,
        confidence=round(diagnosis.confidence, 3),
        remedy=remedy.value,
        actions=ACTIONS[remedy],
        evidence=tuple(evidence),
    )
