"""How a command reaches the truth: the API when the controller runs, the files when it does not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotage.flows.api.client import ApiClient, ApiRejection, TokenMissing, token_for, token_path
from pilotage.flows.config.paths import StatePaths, paths, runner_of
from pilotage.telemetry.errors import ApiError

OFFLINE = frozenset(
    {
        "status",
        "incidents",
        "incident",
        "handover",
        "proposals",
        "proposal_page",
        "proposal_choices",
        "incident_page",
        "audit_page",
        "proposal",
        "why",
        "audit_verify",
        "policies",
        "policy_files",
        "grants",
        "store_status",
    }
)
"""What can be read from the files of an installation at rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Asks in the name of the person whose token is at hand."""

    where: StatePaths
    token_file: Path | None = None

    def ask(self, op: str, **arguments: Any) -> Any:
        """The answer of the API, or of the files when `pilotage up` is not running and the question only reads.

        Raises ApiRejection when the answer is no, TokenMissing when nothing proves who asks, ApiError when there is
        neither API nor file.
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
            return ApiClient(self.where.api_socket, token).call(op, **arguments)
        except ApiRejection as exc:
            if exc.kind == "unknown-identity":
                path = token_path(self.where, self.token_file)
                raise ApiRejection(exc.kind, f"{exc} The token that you sent is in {path}.") from exc
            raise
        except ApiError:
            if not offline:
                raise
            return self._from_files(op, **arguments)

    def _from_files(self, op: str, **arguments: Any) -> Any:
        from pilotage.flows.api.offline import OfflineReader  # start-up time: SQLAlchemy

        return OfflineReader(self.where).answer(op, **arguments)


def asker(state_dir: Path | None, token_file: Path | None) -> Asker:
    """An asker for the state directory in force."""
    return Asker(where=paths(state_dir), token_file=token_file)
