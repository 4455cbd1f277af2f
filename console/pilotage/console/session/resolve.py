"""What people call a proposal or a run in the chat, as its whole id: the API resolves it."""

from __future__ import annotations

import re

from pilotage.console.session.command import Setting
from pilotage.flows.api.client import ApiRejection

SHORT_PROPOSAL = re.compile(r"p-[0-9a-f]{4,12}", re.IGNORECASE)
"""A proposal's id, whole or cut short."""
_PROPOSAL = re.compile(r"p-[0-9a-f]{12}")
_RUN = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_OURS = re.compile(r"[pi]-[0-9a-f]{12}")


def is_ours(words: str) -> bool:
    """Whether it is the whole id of a proposal or an incident."""
    return _OURS.fullmatch(words) is not None


def run_meant(s: Setting, words: str) -> str:
    """Return the id of the run that these words name. Raises ApiRejection when there is no such run, or several."""
    return words if _RUN.fullmatch(words) else _resolved(s, words, "run")


def proposal_meant(s: Setting, words: str) -> str:
    """Return the id of the proposal whose id begins so. Raises ApiRejection when there is none, or several."""
    return words if _PROPOSAL.fullmatch(words) else _resolved(s, words, "proposal")


def deployment_meant(s: Setting, words: str) -> str:
    """Return the id of the deployment that these words name. Raises ApiRejection when there is none, or several."""
    return words if _RUN.fullmatch(words) else _resolved(s, words, "deployment")


def subject_meant(s: Setting, words: str) -> str:
    """Return the id of the proposal, incident or run that is meant; a deployment stands for its only incident."""
    return words if _OURS.fullmatch(words) or _RUN.fullmatch(words) else _resolved(s, words, "subject")


def _resolved(s: Setting, words: str, kind: str) -> str:
    if not words:
        raise ApiRejection(
            f"unknown-{kind}", f"Looking for a {kind}: none is named. Give its id or its name."
        )
    return str(s.control_api.call("resolve", words=words, kind=kind)["id"])
