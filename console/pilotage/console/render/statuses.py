"""Every status word that pilotage shows, with what it means: the one table behind the legend, the cards and the docs.

`python -m pilotage.console.render.statuses` prints `docs/statuses.md`.
"""

from __future__ import annotations

from collections.abc import Mapping

PROPOSAL: Mapping[str, str] = {
    "filed": "handed in, not judged yet",
    "held": "held back; judged again when what holds it is gone",
    "needs_approval": "waits for a person",
    "allowed": "policy lets it pass; in observe and shadow nothing is injected",
    "denied": "policy says no, whoever approves",
    "admitted": "on its way to Prefect",
    "delivered": "injected; its promise is being checked",
    "verified": "injected, and the promise was kept",
    "undone": "taken back",
    "failed": "given up, or its promise was not kept",
    "refused": "refused when it was to be injected",
    "expired": "expired before anybody decided",
    "rejected": "rejected by a person",
    "replaced": "edited by a person; the edit took its place",
    "unknown": "never handed in, as far as the ledger knows",
}
"""Where a proposal stands."""
INCIDENT: Mapping[str, str] = {
    "open": "something that may change it is judged or under way",
    "waiting": "a proposal about it waits for a person",
    "recovered": "over: the work of its runs is done, or what was wrong was put right",
    "resolved": "over without pilotage: its runs were superseded or waived, or it was not found again",
    "told": "open: nothing was changed, its owner was told",
    "held": "open: nothing was changed and nobody was told: every proposal was denied, refused, expired or is held",
}
"""How an incident stands."""
VERDICT: Mapping[str, str] = {
    "allow": "policy lets it pass by itself",
    "needs_approval": "policy asks for people; the card says which and how many",
    "deny": "policy says no; the card says what would change that",
    "unjudged": "no verdict yet",
}
"""What policy says of a proposal."""
MODE: Mapping[str, str] = {
    "observe": "nothing is proposed",
    "shadow": "proposed and judged, never injected, and nothing is sent to Prefect",
    "approve": "every action needs a person",
    "auto": "policy decides",
    "not running": "nobody runs `pilotage up` here; what is shown was read from the files",
}
"""How far the loop may go."""
EFFECT: Mapping[str, str] = {
    "done": "Prefect accepted the change now",
    "already": "an earlier delivery had made the change",
    "refused": "the target had moved on, or Prefect said no; nothing was changed",
}
"""How a delivery or an undo ended."""
OUTCOME: Mapping[str, str] = {
    "pending": "not known yet whether the promise was kept",
    "verified": "the target reached the state that the action promised",
    "failed": "it did not, or something worse happened",
}
"""What verification found."""
AUTONOMY: Mapping[str, str] = {
    "standard": "policy alone says what this kind of action may do on this deployment",
    "earned": "good outcomes let it do more by itself",
    "demoted": "a bad outcome or a person took its autonomy away",
}
"""How far a kind of action is trusted on a deployment."""
STEP: Mapping[str, str] = {
    "found": "trouble was found and classified",
    "forecast": "how likely the run was to fail",
    "proposed": "an action was handed in",
    "judged": "policy was asked",
    "approved": "a person voted for it",
    "rejected": "a person vetoed it",
    "vote_refused": "a vote did not count",
    "edit_refused": "an edit came too late or was not allowed",
    "replaced": "a person edited it; the edit took its place",
    "admitted": "policy was asked again just before, and let it pass",
    "refused": "policy was asked again just before, and said no; or the target had moved on",
    "waiting": "it is tried again, or waits for a person after all",
    "claimed": "a delivery was begun",
    "injected": "the change was sent to Prefect",
    "failed": "a delivery failed for good",
    "gave_up": "it was given up",
    "verified": "whether the promise was kept",
    "undone": "the change was taken back",
    "expired": "nobody decided in time",
    "incident_resolved": "each of its runs is recovered, superseded or waived",
    "incident_merged": "it turned out to be part of another incident",
    "incident_split": "a person made some of its runs an incident of their own",
    "incident_acknowledged": "a person looks at it, so nobody else is asked",
    "incident_waived": "a person said that runs of it need not be done any more",
    "escalated": "nobody voted for long, so others were asked too",
    "promoted": "a kind of action earned autonomy on a deployment",
    "demoted": "a kind of action lost autonomy on a deployment",
    "autonomy_set": "a person set the autonomy of a kind of action",
    "mode_set": "how far the loop may go was changed",
    "stopped": "the kill switch was pulled",
    "resume_vote": "a person voted to start again",
    "resumed": "the kill switch was released",
    "command_refused": "a command was refused",
    "signed_in": "a person signed in",
    "sign_in_failed": "somebody did not sign in",
    "sessions_ended": "a person was signed out",
    "glass_broken": "a person broke the glass",
    "glass_refused": "a person was not allowed to break the glass",
    "glass_mended": "broken glass was ended before its time",
    "glass_review": "broken glass ran out; somebody looks at what was done under it",
    "delegated": "a person lent their right to approve",
    "delegation_refused": "a person was not allowed to lend it",
    "delegation_ended": "a person took it back",
    "audit_cut": "entries of the audit log past their age were cut, behind a signed checkpoint",
    "policy_published": "other policies are in force",
    "policy_refused": "policies were not published",
    "policy_replaced": "another bundle was put to the vote instead",
    "policy_vetoed": "an admin vetoed policies",
    "policy_lapsed": "policies did not get their votes in time",
    "policy_proposed": "policies were put to the vote",
    "policy_approved": "an admin voted for policies that are put to the vote",
}
"""What a step of a story says."""
GROUPS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "proposal": ("Where a proposal stands", PROPOSAL),
    "incident": ("How an incident stands", INCIDENT),
    "verdict": ("What policy says", VERDICT),
    "mode": ("How far the loop may go", MODE),
    "effect": ("How a delivery or an undo ended", EFFECT),
    "outcome": ("What verification found", OUTCOME),
    "autonomy": ("How far a kind of action is trusted", AUTONOMY),
    "step": ("The steps of a story", STEP),
}
"""Every group of words: its title and its words."""


def legend() -> list[dict[str, str]]:
    """Return every word once for each group it is in: `{group, status, means}`."""
    return [
        {"group": group, "status": word, "means": means}
        for group, (_, words) in GROUPS.items()
        for word, means in words.items()
    ]


def as_markdown() -> str:
    """Return the page of the documentation."""
    parts = [
        "# Statuses",
        "",
        "Every status word that pilotage shows, in the terminal, on the page and in `--json`, and what it means. "
        "`pilotage status --legend` prints the same.",
    ]
    for title, words in GROUPS.values():
        parts += ["", f"## {title}", "", "| status | which means |", "|---|---|"]
        parts += [f"| `{word}` | {means} |" for word, means in words.items()]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
