"""The operator's numbers: what `guardrails.yaml` may say, with units and defaults.

The logic stays in Cedar; these numbers reach it as facts. The usual change of policy is one number here.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pilotage.telemetry.errors import ConfigError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def span(value: object) -> object:
    """The duration that a text such as `90s`, `5m`, `6h` or `1d` stands for; anything else as it is."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", value) if isinstance(value, str) else None
    return timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else value


Duration = Annotated[timedelta, BeforeValidator(span), Field(ge=timedelta(0), le=timedelta(days=365))]
Count = Annotated[int, Field(ge=0, le=1_000_000)]


class Freeze(BaseModel):
    """A time in which nothing disruptive is done."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    start: AwareDatetime
    end: AwareDatetime
    why: str = ""


class Guardrails(BaseModel):
    """Every number that policies use."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_attempts_per_run: Count = 3
    """Retries and resizes of one run within 24 hours."""
    max_actions_per_hour: Count = 60
    """Changes of any kind, all targets together, within one hour; notifications do not count."""
    max_actions_per_deployment_per_hour: Count = 20
    """Changes to one deployment and its runs within one hour."""
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
    facts_max_age: Duration = timedelta(seconds=10)
    """Facts about the target older than this do not count at injection."""
    resume_votes: Annotated[int, Field(ge=1, le=10)] = 2
    """How many people lift the kill switch; an installation of one person sets 1."""
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

    def production(self, env: str) -> bool:
        """Whether this environment counts as production; case and space around it do not matter."""
        return env.strip().lower() not in {name.strip().lower() for name in self.non_production}

    def frozen_at(self, now: datetime) -> bool:
        """Whether `now` lies in a freeze window."""
        return any(window.start <= now < window.end for window in self.freeze)

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
        }


def guardrails_from_text(text: str, path: Path) -> Guardrails:
    """The guardrails in this YAML text. Raises ConfigError naming the file, the key and what is valid."""
    try:
        loaded: Any = yaml.safe_load(text)
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
