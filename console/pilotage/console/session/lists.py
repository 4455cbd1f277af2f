"""Lists as every frontend shows them: a page of lines that differ, how many there are in all, and how to read on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pilotage.console.session.command import Setting
from pilotage.flows.api.client import ApiRejection
from pilotage.flows.notify.describe import action_in_words
from pilotage.telemetry.errors import PilotageError
from pilotage.telemetry.facts import RunFact
from pilotage.telemetry.queries import runs as runs_known

PAGE = 30
"""Rows of one page, unless another number is asked for."""
Asked = dict[str, Any]
PROPOSALS = frozenset({"status", "deployment", "team", "kind", "env", "incident", "sort", "after"})
INCIDENTS = frozenset({"state", "deployment", "team", "sort", "after"})
AUDIT = frozenset({"incident", "person", "policy", "event", "after"})
RUNS = frozenset({"state", "deployment", "after"})


def asked_of(rest: str, keys: frozenset[str]) -> Asked:
    """Return what a line asks for: `key=value` filters, and the other words, which are searched.

    Raises ApiRejection for a key that the list does not have.
    """
    asked: Asked = {}
    words = []
    for word in rest.split():
        key, mark, value = word.partition("=")
        if mark and key in keys:
            asked[key] = value
        elif mark and key.isalpha():
            raise ApiRejection("invalid", f"Reading {word!r}: this list knows {', '.join(sorted(keys))}.")
        else:
            words.append(word)
    return {**asked, "words": " ".join(words)} if words else asked


def read_on(command: str, rest: str, page: Mapping[str, Any]) -> str:
    """Return how many of how many are shown, and the line that shows the next; empty where all are."""
    shown, count = len(page["rows"]), page["count"]
    if not page["next"]:
        return f"These are the last of {count}." if shown < count else ""
    words = " ".join(word for word in rest.split() if not word.startswith("after="))
    return f"{shown} of {count} shown; the next: /{command} {words} after={page['next']}".replace("  ", " ")


def proposal_page(s: Setting, asked: Asked) -> dict[str, Any]:
    """One page of proposals as lines: `{rows, count, next}`; `asked` as the API's `proposal_page` takes it."""
    page = s.control_api.call("proposal_page", **{"limit": PAGE, **asked})
    names = _names(s, [row["run_id"] for row in page["rows"] if row["run_id"]])
    return {**page, "rows": [proposal_line(row, names.get(row["run_id"], "")) for row in page["rows"]]}


def proposal_line(row: Mapping[str, Any], run_name: str = "") -> dict[str, Any]:
    """One proposal in the few values by which a person tells it from the next."""
    case, facts = row["case"], row["target_facts"]
    return {
        "proposal_id": row["proposal_id"],
        "digest": row["digest"],
        "incident_id": row.get("part_of") or row["incident_id"],
        "kind": row["kind"],
        "words": action_in_words(row["action"]),
        "deployment": facts.get("deployment_name") or case.get("deployment") or "",
        "env": facts.get("env", ""),
        "tier": facts.get("tier"),
        "team": facts.get("team", ""),
        "target": row["target"],
        "run_id": row["run_id"],
        "run_name": run_name,
        "cause": case.get("failure_class", ""),
        "error": case.get("error") or next(iter(case.get("notes") or ()), ""),
        "p_fail": case.get("p_fail"),
        "proposer": row["proposer"],
        "missing": dict(row["verdict"].get("requirements") or {}),
        "votes": len(row["votes"]),
        "status": row["status"],
        "open": row["status"] in ("filed", "needs_approval", "held"),
        "filed_at": row["filed_at"],
        "expires_at": row["expires_at"],
        "outcome": row["outcome"].get("judgement", ""),
        "outcome_detail": row["outcome"].get("detail", ""),
    }


def incident_page(s: Setting, asked: Asked) -> dict[str, Any]:
    """One page of incidents: `{rows, count, counts, next}`; each row has `says`, its cause in a sentence."""
    page = s.control_api.call("incident_page", **{"limit": PAGE, **asked})
    return {**page, "rows": [{**row, "says": cause_in_words(row)} for row in page["rows"]]}


def cause_in_words(row: Mapping[str, Any]) -> str:
    """What is wrong with what, and with how many runs, as one sentence."""
    about = row.get("deployment") or row["subject"]
    what = str(row["failure_class"] or "trouble").replace("_", " ")
    runs = row["runs"] if isinstance(row["runs"], int) else len(row["runs"])
    many = f" in {runs} runs" if runs > 1 else ""
    error = f": {row['error']}" if row.get("error") else ""
    return f"{what} of {about}{many}{error}"


def audit_page(s: Setting, asked: Asked) -> dict[str, Any]:
    """One page of the audit log: `{rows, count, folded, next}`."""
    return dict(s.control_api.call("audit_page", **{"limit": PAGE, **asked}))


def run_page(s: Setting, asked: Asked) -> dict[str, Any]:
    """One page of runs, the last changed first: `{rows, count, next}`, the rows as facts."""
    words, state, deployment, after = (
        str(asked.get(key, "")) for key in ("words", "state", "deployment", "after")
    )
    limit = int(asked.get("limit", PAGE))
    store = s.toolbox.store
    try:
        return runs_known.run_page(
            store, words=words, state=state, deployment=deployment, after=after, limit=limit
        )
    except ValueError as exc:
        raise ApiRejection(
            "bad-request", f"Reading on after {after[:80]!r}: it is no end of a page. Begin again."
        ) from exc


def run_line(run: RunFact) -> dict[str, Any]:
    """One run in the few values by which a person tells it from the next."""
    return {
        "run_id": run.run_id,
        "name": run.name,
        "flow": run.flow_name,
        "deployment": f"{run.flow_name}/{run.deployment_name}" if run.deployment_name else run.flow_name,
        "state": run.state_name,
        "state_type": run.state_type,
        "message": (run.state_message or "")[:300],
        "queue": f"{run.pool}/{run.queue}" if run.pool and run.queue else "",
        "attempts": run.run_count,
        "started": run.started,
        "ended": run.ended,
        "updated": run.updated,
    }


def _names(s: Setting, run_ids: Sequence[str]) -> dict[str, str]:
    """The names of runs; empty when telemetry is away: a list stands without them."""
    if not run_ids:
        return {}
    try:
        return {key: run.name for key, run in runs_known.runs_of(s.toolbox.store, run_ids).items()}
    except PilotageError:
        return {}
