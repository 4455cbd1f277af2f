"""The steps of people's commands in words: grants, trust, the mode, and which policies are in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pilotage.telemetry import times


def governed(step: str, detail: Mapping[str, Any]) -> str | None:
    """The sentence, or None for a step that is not of this kind."""
    match step:
        case "glass_broken" | "glass_refused" | "glass_review":
            return _break_glass(step, detail)
        case "delegated" | "delegation_refused":
            lent = detail.get("delegation") or {}
            said = f"{lent.get('taker')} votes for {lent.get('giver')} until {_time(lent.get('until'))}"
            why = f": {lent['reason']}" if lent.get("reason") else ""
            return f"{said}{why}" if step == "delegated" else f"refused that {said}: {_why(detail)}"
        case "delegation_ended":
            return f"{detail.get('ended')} delegation(s) taken back"
        case "promoted" | "demoted" | "autonomy_set":
            what = f"{detail.get('kind')} on {detail.get('scope')}"
            return f"{what}: {detail.get('before')} to {detail.get('level')}: {detail.get('why')}"
        case "mode_set":
            return f"mode {detail.get('mode')}" + _because(detail)
        case "command_refused":
            return f"{detail.get('command')}: {_why(detail)}"
        case "signed_in" | "sign_in_failed" | "sessions_ended":
            return _signing_in(step, detail)
        case "escalated":
            return (
                f"nobody voted since {_time(detail.get('waited_since'))}: every {detail.get('to')} is asked"
            )
        case "replaced" | "amended":  # the second in logs of earlier versions
            return f"edited; {detail.get('by')} takes its place"
        case _ if step.startswith("policy_"):
            return _policy(step, detail)
        case _:
            return None


def _break_glass(step: str, detail: Mapping[str, Any]) -> str:
    grant = detail.get("grant") or {}
    scope = f"{_list(grant.get('kinds'))} on {_list(grant.get('targets'))}"
    words = f"{grant.get('holder')}, {scope}, until {_time(grant.get('until'))}: {grant.get('reason')}"
    match step:
        case "glass_broken":
            return f"BREAK-GLASS by {words}"
        case "glass_review":
            return f"broken glass has run out, look at what was done under it: {words}"
        case _:
            return f"refused to break glass for {words}: {_why(detail)}"


def _signing_in(step: str, detail: Mapping[str, Any]) -> str:
    match step:
        case "signed_in":
            roles = f" as {_list(detail['roles'])}" if detail.get("roles") else ""
            return f"signed in by {detail.get('how')}{roles}"
        case "sign_in_failed":
            return f"did not sign in by {detail.get('how')}" + (
                f": {detail['why']}" if detail.get("why") else ""
            )
        case _:
            return f"{detail.get('ended')} session(s) of {detail.get('of')} ended"


def _policy(step: str, detail: Mapping[str, Any]) -> str:
    bundle = str(detail.get("bundle", ""))[:12]
    match step:
        case "policy_published":
            before = str(detail.get("replaces") or "")[:12] or "nothing"
            return f"policies {bundle} in force instead of {before}, by {detail.get('how')}" + _because(
                detail
            )
        case "policy_proposed" | "policy_approved":
            voted = f"{len(detail.get('voters') or ())} of {detail.get('needed')} votes"
            return f"policies {bundle}, {voted}" + _because(detail)
        case "policy_refused":
            return f"policies {bundle}: {_why(detail)}"
        case _:
            return f"policies {bundle}" + _because(detail)


def _why(detail: Mapping[str, Any]) -> str:
    verdict = detail.get("verdict") or {}
    return "; ".join(verdict.get("reasons") or verdict.get("policy_ids") or ("refused",))


def _because(detail: Mapping[str, Any]) -> str:
    return f": {detail['reason']}" if detail.get("reason") else ""


def _list(values: Sequence[str] | None) -> str:
    return ", ".join(values or ())


def _time(text: object) -> str:
    return times.local(text, "%Y-%m-%d %H:%M") if text else ""
