"""How a command reaches the truth: the desk when the keyed process runs, the files when it does not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotage.flows.api.client import DeskClient, DeskRefusal, TokenMissing, token_for, token_path
from pilotage.flows.config.paths import Places, places, runner_of
from pilotage.telemetry.errors import DeskError

OFFLINE = frozenset(
    {
        "status",
        "incidents",
        "proposals",
        "proposal",
        "why",
        "audit_verify",
        "policies",
        "policy_files",
        "grants",
    }
)
"""What can be read from the files of an installation at rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Asks in the name of the person whose token is at hand."""

    where: Places
    token_file: Path | None = None

    def ask(self, op: str, **arguments: Any) -> Any:
        """The answer of the desk, or of the files when nobody is at the desk and the question only reads.

        Raises DeskRefusal when the answer is no, TokenMissing when nothing proves who asks, DeskError when there is
        neither desk nor file.
        """
        offline = op in OFFLINE and self.where.ledger.exists()
        try:
            token = token_for(self.where, self.token_file)
        except TokenMissing:
            # the files of an installation at rest are read by whoever may open them
            if not offline or runner_of(self.where) is not None:
                raise
            return self._from_files(op, **arguments)
        try:
            return DeskClient(self.where.desk_socket, token).call(op, **arguments)
        except DeskRefusal as exc:
            if exc.kind == "unknown-identity":
                path = token_path(self.where, self.token_file)
                raise DeskRefusal(exc.kind, f"{exc} The token that you sent is in {path}.") from exc
            raise
        except DeskError:
            if not offline:
                raise
            return self._from_files(op, **arguments)

    def _from_files(self, op: str, **arguments: Any) -> Any:
        from pilotage.flows.api.offline import FilesAtRest  # start-up time: SQLAlchemy

        return FilesAtRest(self.where).answer(op, **arguments)


def asker(state_dir: Path | None, token_file: Path | None) -> Asker:
    """An asker for the state directory in force."""
    return Asker(where=places(state_dir), token_file=token_file)
