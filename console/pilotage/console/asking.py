"""How a command reaches the truth: the desk when the keyed process runs, the files when it does not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotage.flows.desk_client import DeskClient, DeskRefusal, token_for
from pilotage.flows.places import Places, places
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

        Raises DeskRefusal when the answer is no, DeskError when there is neither desk nor file.
        """
        try:
            return DeskClient(self.where.desk_socket, token_for(self.where, self.token_file)).call(
                op, **arguments
            )
        except DeskRefusal:
            raise
        except DeskError:
            if op not in OFFLINE or not self.where.ledger.exists():
                raise
            from pilotage.flows.files_at_rest import FilesAtRest  # start-up time: SQLAlchemy

            return FilesAtRest(self.where).answer(op, **arguments)


def asker(state_dir: Path | None, token_file: Path | None) -> Asker:
    """An asker for the state directory in force."""
    return Asker(where=places(state_dir), token_file=token_file)
