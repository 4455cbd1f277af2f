"""Settings of the controller and the agent: one table of precedence.

First match wins: flags, environment (`PILOTAGE_MODE`, `PILOTAGE_LLM__BASE_URL`, …), `pilotage.toml`
(working directory, else state directory, or the file named by `--config`), the defaults below.
Prefect's own connection comes from the active Prefect profile and its variables, never from here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from pilotage.flows.config.oidc import OidcSettings
from pilotage.flows.config.paths import CONFIG_NAME, StatePaths, paths
from pilotage.flows.config.retention import RetentionSettings
from pilotage.planner.llm.budget import Budget
from pilotage.planner.parameters import PlaybookParameters
from pilotage.policies.types import Mode
from pilotage.telemetry.errors import ConfigError


class LLMSettings(BaseModel):
    """The optional language model. Without `base_url` and `api_key` there is none, and rules do the whole loop."""

    model_config = ConfigDict(extra="forbid")

    base_url: str = ""
    """Any OpenAI-compatible endpoint, such as `http://127.0.0.1:8080/v1`."""
    api_key: SecretStr = SecretStr("")
    """Its key; empty for local servers."""
    model: str = "gpt-5-mini"
    """The model's name as the endpoint knows it."""
    timeout: timedelta = timedelta(seconds=20)
    """How long one reply may take."""
    max_tokens: int = Field(default=0, ge=0)
    """Of one reply; 0 leaves it to the endpoint. A small model that repeats itself goes on for as long as it may."""
    calls_tools: bool = True
    """False for an endpoint that ignores tools and does not say so; then each look-up is a typed answer."""
    remembered_tokens: int = Field(default=8000, ge=0)
    """Of what was said before in a conversation, as a prompt repeats it; less for a model with a small window."""
    budget: Budget = Field(default_factory=Budget)
    """How many tokens may be spent, at which prices."""

    @property
    def configured(self) -> bool:
        """Whether there is a model at all."""
        return bool(self.base_url or self.api_key.get_secret_value())


class LoopSettings(BaseModel):
    """How often the loop looks, and how long it trusts what it saw."""

    model_config = ConfigDict(extra="forbid")

    queue_interval: timedelta = timedelta(seconds=5)
    """Between two snapshots of queues and pools."""
    tick: timedelta = timedelta(seconds=1)
    """Between two looks of the planner and of the injector."""
    lease: timedelta = timedelta(seconds=60)
    """How long one delivery may take before another may repeat it under the same mark."""
    deliveries_at_once: int = Field(default=4, ge=1, le=32)
    """Deliveries under way side by side; one at a time for a target."""
    train_interval: timedelta = timedelta(minutes=10)
    """Between two looks whether the forecast is to be trained again: after 15 % more ended attempts, or a day."""
    horizon: timedelta = timedelta(minutes=30)
    """How far ahead scheduled runs are forecast."""
    requests_a_minute: int = Field(default=0, ge=0)
    """Requests to Prefect above which collecting waits; 0 for no limit. What acts is counted and does not wait."""
    max_attempts: int = Field(default=1000, ge=1)
    """Deliveries tried, seconds apart, before an entry is given up and a person is told: more than an hour's outage."""


class PageSettings(BaseModel):
    """When and how often people are paged about incidents."""

    model_config = ConfigDict(extra="forbid")

    after: timedelta = timedelta(seconds=60)
    """An incident that pilotage sees to by itself is told of when it lasts longer."""
    per_hour: int = Field(default=10, ge=1)
    """Incidents paged one by one within an hour; the rest are folded into one page."""
    escalate_after: timedelta = timedelta(minutes=15)
    """A question that nobody answers for so long is asked again, more urgently."""
    quiet_from: int | None = Field(default=None, ge=0, le=23)
    """Hour of the day, UTC, from which what can wait is not told; empty for no quiet hours."""
    quiet_to: int = Field(default=7, ge=0, le=23)
    """Hour of the day, UTC, until which it waits."""
    channels: dict[str, tuple[SecretStr, ...]] = Field(default_factory=dict)
    """Addresses as apprise has them (Slack, Teams, mail, …) by team, which is the tag `team:` of a deployment; those under
    `"*"` are told of every incident."""
    templates: Path | None = None
    """A directory with `title.txt` and `text.txt`, Jinja templates of what channels are told; empty for our own."""
    console_url: str = ""
    """Address of pilotage's own page, as people reach it; empty for none."""


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(env_prefix="PILOTAGE_", env_nested_delimiter="__", extra="forbid")

    state_dir: Path = Field(default_factory=lambda: paths().root)
    """One directory for telemetry, ledger, users and sockets."""
    mode: Mode | None = None
    """observe, shadow, approve or auto; empty to go on in the mode of the last start, which is shadow at first."""
    policies: Path | None = None
    """A directory with your own Cedar bundle; empty for the shipped one."""
    guardrails: Path | None = None
    """A YAML file with your own numbers, laid over the bundle's."""
    failure_rules: Path | None = None
    """A YAML file with your own failure rules; empty for `failure_rules.yaml` in the state directory, if it is there."""
    checkpoints: Path | None = None
    """A directory away from the state directory where signed checkpoints of the audit log are written; empty for none."""
    webhook_url: SecretStr = SecretStr("")
    """Where owners are told, in the shape of PagerDuty's Events API v2; empty for nowhere."""
    webhook_routing_key: SecretStr = SecretStr("")
    """The integration key that PagerDuty wants in each call; other receivers may ignore it."""
    agent_memory: SecretStr = SecretStr("")
    """`postgresql://…`: where the agent keeps conversations and half-done thinking; empty for files in `state_dir`."""
    llm: LLMSettings = Field(default_factory=LLMSettings)
    loop: LoopSettings = Field(default_factory=LoopSettings)
    pages: PageSettings = Field(default_factory=PageSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    oidc: OidcSettings = Field(default_factory=OidcSettings)
    planner: PlaybookParameters = Field(default_factory=PlaybookParameters)
    """Numbers of the playbooks."""

    @model_validator(mode="before")
    @classmethod
    def _as_it_was_set_before(cls, given: Any) -> Any:
        """`retention_days` of an older installation is the life of events, and goes on to be."""
        if not isinstance(given, dict) or "retention_days" not in given:
            return given
        days, kept = given["retention_days"], {k: v for k, v in given.items() if k != "retention_days"}
        if not str(days).isdigit():
            return given
        lives = kept.get("retention")
        return {**kept, "retention": {"events": f"P{days}D", **(lives if isinstance(lives, dict) else {})}}

    @field_validator("webhook_url")
    @classmethod
    def _an_http_address(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and not value.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("it must be empty or begin with http:// or https://")
        return value

    @property
    def paths(self) -> StatePaths:
        """The paths inside the state directory."""
        return StatePaths(root=self.state_dir.expanduser().absolute())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags over environment over file."""
        toml = TomlConfigSettingsSource(settings_cls, toml_file=_config_file())
        return init_settings, env_settings, toml


_NAMED = "PILOTAGE_CONFIG"


def _config_file() -> Path | None:
    named = os.environ.get(_NAMED)
    candidates = [Path(named)] if named else [Path.cwd() / CONFIG_NAME, paths().config]
    return next((path for path in candidates if path.is_file()), None)


def load_settings(*, config: Path | None = None, **flags: Any) -> Settings:
    """The settings in force, flags given as keyword arguments (None means not given).

    Raises ConfigError naming each wrong key, where it came from and what would be valid.
    """
    if config is not None:
        if not config.is_file():
            raise ConfigError(
                f"Reading settings from {config}: there is no such file. Write it or leave --config out."
            )
        os.environ[_NAMED] = str(config)
    given = {key: value for key, value in flags.items() if value is not None}
    if "state_dir" in given:
        os.environ["PILOTAGE_STATE_DIR"] = str(Path(given["state_dir"]).expanduser().absolute())
    try:
        return Settings(**given)
    except ValidationError as exc:
        raise ConfigError("Reading settings: " + "; ".join(_complaints(exc, given))) from exc
    except ValueError as exc:  # the TOML itself
        raise ConfigError(f"Reading settings from {_config_file()}: {exc}. Mend that line.") from exc


def _complaints(error: ValidationError, flags: Mapping[str, Any]) -> Iterator[str]:
    valid = ", ".join(Settings.model_fields)
    for each in error.errors(include_url=False, include_input=False):
        keys = [str(part) for part in each["loc"]]
        hint = f" Valid keys are: {valid}." if each["type"] == "extra_forbidden" else ""
        yield f"`{'.'.join(keys)}` of {_source(keys, flags)}: {each['msg']}.{hint}"


def _source(keys: Sequence[str], flags: Mapping[str, Any]) -> str:
    """Where a value came from, by the order of precedence: the flag, the variable or the file to correct."""
    if keys and keys[0] in flags:
        return f"the flag --{keys[0].replace('_', '-')}"
    set_variables = {name.upper() for name in os.environ}
    for depth in range(len(keys), 0, -1):
        name = ("PILOTAGE_" + "__".join(keys[:depth])).upper()
        if name in set_variables:
            return f"the environment's {name}"
    return str(_config_file() or "the environment and flags")
