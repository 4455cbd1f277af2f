"""What the doctor looks at: values gathered from files, settings, the running process and the Prefect server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pilotage.policies.types import Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why something could not be looked at. The message says what to do."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentFacts:
    """One deployment of the server."""

    name: str
    """`flow/deployment`."""
    tags: tuple[str, ...]
    pool: str = ""
    """Its work pool; empty for a deployment that serves itself."""
    queue: str = ""
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """One queue of a work pool."""

    name: str
    status: str
    """READY, NOT_READY or PAUSED, as Prefect says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    """One work pool."""

    name: str
    type: str
    paused: bool
    variables: tuple[str, ...]
    """The job variables that its base job template knows."""
    workers_online: int
    queues: tuple[QueueFacts, ...] = ()

    @property
    def takes_workers(self) -> bool:
        """Whether a worker of the user's own must serve it; push and managed pools need none."""
        return not self.type.endswith((":push", ":managed"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What the Prefect server says of itself."""

    version: str
    deployments: tuple[DeploymentFacts, ...] = ()
    pools: tuple[PoolFacts, ...] = ()
    last_heartbeat: datetime | None = None
    """Of any flow run in the last day."""
    long_runs: int = 0
    """Runs of the last day that lasted long enough to send a heartbeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFacts:
    """One person of the users file."""

    name: str
    is_admin: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeFacts:
    """How far the loop goes, or would go at the next start."""

    mode: Mode
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFacts:
    """Which policies are in force."""

    configured: str
    """Hash of those that the settings name."""
    in_force: str
    """Hash of those that decide now; empty for an installation that never started."""
    resume_votes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookFacts:
    """Where people are told."""

    configured: bool
    tried: bool = False
    problem: str = ""
    """Why the test was not taken; empty when it was, or was not tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """The optional language model."""

    configured: bool
    endpoint: str = ""
    name: str = ""
    problem: str = ""
    models: tuple[str, ...] = ()
    """The models that the endpoint lists; empty when it lists none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorFacts:
    """Everything that the checks are made of."""

    pilotage: str
    """Version of this package."""
    client: str
    """Version of the installed Prefect."""
    settings: Problem | None
    """What is wrong with them."""
    root: Path
    """The state directory."""
    directory: Problem | None
    """Why it cannot be used."""
    exists: bool
    """Whether it is there yet."""
    loose: Mapping[Path, int]
    """Permissions of what others may open."""
    token: str | Problem
    """Whose token is at hand."""
    token_file: Path
    users: tuple[UserFacts, ...] | Problem
    running: str
    """Process id of `pilotage up`, or empty."""
    mode: ModeFacts | Problem
    policies: PolicyFacts | Problem
    webhook: WebhookFacts
    model: ModelFacts
    api_url: str | Problem
    server: ServerFacts | Problem
    key_refused: bool = False
    """Whether the server is there and refuses the credential."""
