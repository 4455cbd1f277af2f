"""Where a pilotage installation keeps its things. Light: every command starts by asking this module.

One directory holds all state. Which one, first match wins: the caller's argument (a flag), the variable
`PILOTAGE_STATE_DIR`, the key `state_dir` of `pilotage.toml` in the working directory, `~/.pilotage`.
"""

from __future__ import annotations

import fcntl
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pilotage.telemetry.errors import ConfigError
from pilotage.telemetry.store.paths import socket_path

CONFIG_NAME = "pilotage.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatePaths:
    """The paths inside one state directory."""

    root: Path

    @property
    def telemetry(self) -> Path:
        """The DuckDB file; only the controller opens it."""
        return self.root / "telemetry.duckdb"

    @property
    def ledger(self) -> Path:
        """The SQLite ledger; only the controller opens it."""
        return self.root / "ledger.sqlite"

    @property
    def users(self) -> Path:
        """Names, roles and token hashes of people."""
        return self.root / "users.toml"

    @property
    def token(self) -> Path:
        """The token of the person who owns this directory, mode 0600."""
        return self.root / "token"

    @property
    def stop_file(self) -> Path:
        """The kill switch: while it exists nothing is admitted or delivered."""
        return self.root / "STOP"

    @property
    def lock(self) -> Path:
        """Held by the one controller of this directory."""
        return self.root / "up.lock"

    @property
    def checkpoints(self) -> Path:
        """LangGraph's half-done thinking; may be deleted at any time."""
        return self.root / "agent" / "checkpoints.sqlite"

    @property
    def conversations(self) -> Path:
        """What the chat remembers of what was said to it; may be deleted at any time, and is then forgotten."""
        return self.root / "agent" / "conversations.sqlite"

    @property
    def model_book(self) -> Path:
        """What the language model has cost, and what its endpoint can do."""
        return self.root / "agent" / "models.sqlite"

    @property
    def forecast_models(self) -> Path:
        """The forecast's models, a directory for each; without them the plain rate serves until one is trained."""
        return self.root / "agent" / "forecast"

    @property
    def config(self) -> Path:
        """Settings of this installation, read when the working directory has none."""
        return self.root / CONFIG_NAME

    @property
    def log(self) -> Path:
        """What the agent process printed."""
        return self.root / "agent" / "agent.log"

    @property
    def api_socket(self) -> Path:
        """Where proposals, votes and questions are handed in."""
        return socket_path(self.root, "desk")

    @property
    def store_socket(self) -> Path:
        """Where telemetry is read."""
        return socket_path(self.root, "store")


def paths(state_dir: Path | str | None = None) -> StatePaths:
    """The places of the state directory that the caller, the environment or `pilotage.toml` names.

    Raises ConfigError when `pilotage.toml` is not TOML.
    """
    chosen = state_dir or os.environ.get("PILOTAGE_STATE_DIR") or _from_config(Path.cwd() / CONFIG_NAME)
    return StatePaths(root=Path(chosen or Path.home() / ".pilotage").expanduser().absolute())


def runner_of(paths: StatePaths) -> str | None:
    """Return the process id of the `pilotage up` that holds this state directory, or None when none does.

    Raises ConfigError when its lock file cannot be opened by this user.
    """
    try:
        with paths.lock.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "unknown"
            fcntl.flock(file, fcntl.LOCK_UN)
            return None
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ConfigError(
            f"Reading {paths.lock}: {exc.strerror}. Ask as the user who runs `pilotage up` there."
        ) from exc


def _from_config(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        state_dir = tomllib.loads(path.read_text()).get("state_dir")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"Reading {path}: it is not valid TOML ({exc}). Mend that line or remove the file."
        ) from exc
    return str(state_dir) if state_dir else None
