"""The operator's numbers: what `guardrails.yaml` may say, with units and defaults.

The logic stays in Cedar; these numbers reach it as facts. The usual change of policy is one number here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pilotage.planner.actions.types import KINDS, ActionKind
from pilotage.policies.autonomy import AutonomyRule
from pilotage.policies.cedar.calendar import Freeze, WeeklyWindow, Zone
from pilotage.policies.types import Mode
from pilotage.telemetry import yaml_text
from pilotage.telemetry.errors import ConfigError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def span(value: object) -> object:
    """The duration that a text such as `90s`, `5m`, `6h` or `1d` stands for; anything else as it is."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", value) if isinstance(value, str) else None
    return timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else value


Duration = Annotated[timedelta, BeforeValidator(span), Field(ge=timedelta(0), le=timedelta(days=365))]
Patterns = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=255)], ...], Field(strict=False)]
if TYPE_CHECKING:
    AllowedKind = str
else:
    AllowedKind = Literal[("*", *KINDS)]
ModePattern = Annotated[str, Field(max_length=500, pattern=rf"^[^:]+: [^=]+=({'|'.join(Mode)})$")]
ParameterPattern = Annotated[str, Field(max_length=500, pattern=r"^[^:]+: .+$")]
Count = Annotated[int, Field(ge=0, le=1_000_000)]


class Guardrails(BaseModel):
    """Every number that policies use."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_attempts_per_run: Count = 3
    """Retries and resizes of one run within 24 hours."""
    max_actions_per_hour: Count = 60
    """Changes of any kind, all targets together, within one hour; notifications do not count."""
    max_actions_per_deployment_per_hour: Count = 20
    """Changes to one deployment and its runs within one hour."""
    max_forecast_actions_per_hour: Count = 10
    """Changes made for what is only forecast, within one hour; they never use up what failures need."""
    max_notifications_per_hour: Count = 120
    """Notifications to owners within one hour."""
    cooldown: Duration = timedelta(seconds=5)
    """How long a target is left alone after a change was admitted."""
    max_memory_mb: Count = 16_384
    """The largest size that a run may be given, in MiB."""
    max_memory_factor: Annotated[int, Field(ge=1, le=16)] = 2
    """The new size is at most this many times the present one."""
    max_shift: Duration = timedelta(hours=6)
    """How far the start of a scheduled run may move, either way."""
    max_boost_back: Duration = timedelta(minutes=65)
    """How far before the moment of filing a boosted start may lie: an hour, and five minutes for the way."""
    max_slot_hold: Duration = timedelta(hours=1)
    """How long a reserved slot may stand."""
    max_pause_hold: Duration = timedelta(hours=24)
    """How long a deployment may stay paused."""
    min_slots: Count = 1
    """A busy queue is never capped at fewer slots than this."""
    max_targets_per_hour: Count = 30
    """Blast radius: distinct targets changed within one hour."""
    max_actions_per_fingerprint: Count = 20
    """Changes for one and the same fault within 24 hours."""
    max_fruitless: Count = 3
    """Loop breaker: changes for the same fault that failed in a row; one that helps starts the count again."""
    max_failed_outcomes_per_hour: Count = 4
    """Circuit breaker: bad outcomes on one deployment within one hour that open it."""
    circuit_pause: Duration = timedelta(minutes=15)
    """How long an open circuit stays shut to everything; after that, one change at a time tries it."""
    max_break_glass: Duration = timedelta(hours=1)
    """The longest that one breaking of the glass lasts."""
    max_waiting: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Proposals of one proposer that wait for people at the same time; what is beyond is denied."""
    escalate_after: Duration = timedelta(minutes=15)
    """How long a proposal waits for approvals before admins are told."""
    max_delegation: Duration = timedelta(days=14)
    """The longest that one delegation of the right to approve lasts."""
    autonomy_threshold: Annotated[int, Field(ge=50, le=100)] = 90
    """Percent: the lower 95 % confidence bound of the success rate at which a kind of action on a deployment
    earns autonomy. 90 takes 35 good outcomes and no bad one."""
    autonomy_regain: Annotated[int, Field(ge=1, le=1000)] = 5
    """Good outcomes in a row, each approved by a person, that end a demotion."""
    facts_max_age: Duration = timedelta(seconds=10)
    """Facts about the target older than this do not count at injection."""
    resume_votes: Annotated[int, Field(ge=1, le=10)] = 2
    """How many people lift the kill switch; an installation of one person sets 1."""
    publish_votes: Annotated[int, Field(ge=1, le=10)] = 2
    """How many admins put another bundle in force; an installation of one person sets 1."""
    publish_window: Duration = timedelta(hours=24)
    """How long a bundle that was put to the vote waits for the other admins."""
    non_production: Annotated[tuple[str, ...], Field(strict=False)] = (
        "dev",
        "test",
        "staging",
        "sandbox",
        "demo",
    )
    """Environments (tag `env:…`) that are not production; every other name, and none, is production."""
    freeze: Annotated[tuple[Freeze, ...], Field(strict=False)] = ()
    """Times in which nothing disruptive is done."""
    weekly_freeze: Annotated[tuple[WeeklyWindow, ...], Field(strict=False)] = ()
    """The same every week by the local clock, such as `Fri 16:00 to Mon 06:00`."""
    time_zone: Zone = "UTC"
    """Whose clock `weekly_freeze` and the clock facts go by: a name of the IANA database."""
    allowed_actions: Annotated[tuple[AllowedKind, ...], Field(strict=False)] = ("*",)
    """The kinds of action that are done at all; `*` is every kind that a policy permits."""
    allowed_deployments: Patterns = ("*",)
    """The deployments that are acted on, as `flow/deployment` with `*` and `?`; `*` is also runs without one."""
    allowed_queues: Patterns = ("*",)
    """The queues that are acted on, as `pool/queue` with `*` and `?`."""
    allowed_parameters: Annotated[tuple[ParameterPattern, ...], Field(strict=False)] = ("*: *",)
    """The parameters that are changed and the answers that are given, as `flow/deployment: name` for any value
    or `flow/deployment: name=value`, with `*` and `?`; a value that is no text is spelt as JSON."""

    modes: Annotated[tuple[ModePattern, ...], Field(strict=False)] = ()
    """Narrower modes, as `flow/deployment: kind=mode` with `*` and `?`. Of those that fit and the installation's own
    the strictest holds: a row here can take freedom away, and never gives any."""

    def lists_action(self, kind: ActionKind) -> bool:
        """Return whether a kind of action is done at all."""
        return "*" in self.allowed_actions or kind in self.allowed_actions

    def mode_for(self, installation: Mode, kinds: Iterable[ActionKind], deployment: str) -> Mode:
        """The mode in force for these kinds of action on the deployment with this full name."""
        rows = [row.rpartition("=") for row in self.modes]
        names = [f"{deployment}: {kind}" for kind in kinds]
        fitting = [
            Mode(mode) for pattern, _, mode in rows if any(_matches(name, [pattern]) for name in names)
        ]
        return Mode.strictest(installation, *fitting)

    def production(self, env: str) -> bool:
        """Whether this environment counts as production; case and space around it do not matter."""
        return env.strip().lower() not in {name.strip().lower() for name in self.non_production}

    def frozen_at(self, now: datetime) -> bool:
        """Whether `now` lies in a freeze window."""
        local = now.astimezone(ZoneInfo(self.time_zone))
        return any(window.start <= now < window.end for window in self.freeze) or any(
            window.holds(local) for window in self.weekly_freeze
        )

    def lists_deployment(self, name: str) -> bool:
        """Whether runs of the deployment with this full name may be acted on."""
        return _matches(name, self.allowed_deployments)

    def lists_queue(self, pool: str, queue: str) -> bool:
        """Whether this queue may be acted on."""
        return _matches(f"{pool}/{queue}", self.allowed_queues)

    def lists_parameter(self, deployment: str, name: str, value: object) -> bool:
        """Whether this parameter of the deployment with this full name may be given this value."""
        spelt = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        patterns = (pattern if "=" in pattern else f"{pattern}=*" for pattern in self.allowed_parameters)
        return _matches(f"{deployment}: {name}={spelt}", patterns)

    def autonomy_rule(self) -> AutonomyRule:
        """What promotes and what ends a demotion."""
        return AutonomyRule(threshold=self.autonomy_threshold, regain=self.autonomy_regain)

    def limits(self) -> dict[str, int]:
        """The numbers as Cedar's `Limits`: durations in whole seconds."""
        return {
            "max_attempts_per_run": self.max_attempts_per_run,
            "max_actions_per_hour": self.max_actions_per_hour,
            "max_actions_per_deployment_per_hour": self.max_actions_per_deployment_per_hour,
            "max_notifications_per_hour": self.max_notifications_per_hour,
            "cooldown": int(self.cooldown.total_seconds()),
            "max_memory_mb": self.max_memory_mb,
            "max_memory_factor": self.max_memory_factor,
            "max_shift": int(self.max_shift.total_seconds()),
            "max_boost_back": int(self.max_boost_back.total_seconds()),
            "max_slot_hold": int(self.max_slot_hold.total_seconds()),
            "max_pause_hold": int(self.max_pause_hold.total_seconds()),
            "min_slots": self.min_slots,
            "max_targets_per_hour": self.max_targets_per_hour,
            "max_actions_per_fingerprint": self.max_actions_per_fingerprint,
            "max_fruitless": self.max_fruitless,
            "max_failed_outcomes_per_hour": self.max_failed_outcomes_per_hour,
            "max_forecast_actions_per_hour": self.max_forecast_actions_per_hour,
            "circuit_pause": int(self.circuit_pause.total_seconds()),
        }


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def guardrails_from_text(text: str, path: Path) -> Guardrails:
    """The guardrails in this YAML text. Raises ConfigError naming the file, the key and what is valid."""
    try:
        loaded: Any = yaml_text.loaded(text)
    except yaml.YAMLError as exc:
        raise ConfigError(f"reading guardrails {path}: not YAML ({exc}); correct the line it names") from exc
    if loaded is None:
        loaded = {}
    if not isinstance(loaded, dict):
        raise ConfigError(
            f"reading guardrails {path}: found {type(loaded).__name__}; write `key: value` lines"
        )
    try:
        return Guardrails.model_validate(loaded)
    except ValidationError as exc:
        problems = "; ".join(_problem(error) for error in exc.errors())
        raise ConfigError(f"reading guardrails {path}: {problems}") from exc


def _problem(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the file"
    if error["type"] == "extra_forbidden":
        return f"`{key}` is not a guardrail; valid keys are {', '.join(Guardrails.model_fields)}"
    hint = ", or a duration such as 90s, 5m, 6h, 1d" if "delta" in error["type"] else ""
    return f"`{key}` is {str(error['input'])[:80]!r}; valid: {error['msg']}{hint}"
