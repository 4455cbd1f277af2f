"""The refusals that are ours and not a policy's: id, reason, and what would make the answer another one.

Each begins with `!`, so that no policy id can be mistaken for one.
"""

from __future__ import annotations

from collections.abc import Mapping

from pilotage.policies.types import Outcome, Verdict

REFUSALS: Mapping[str, tuple[str, str]] = {
    "!default-deny": ("no policy permits it", "a policy that permits it"),
    "!evaluation-error": ("a policy could not be evaluated, so nothing is allowed", "the error is corrected"),
    "!missing-fact": ("a fact that the decision needs is missing", "Prefect can be asked again"),
    "!unreachable": (
        "Prefect could not be asked about the target",
        "Prefect answers: then it is judged again by itself",
    ),
    "!stale-facts": ("the facts about the target are too old (guardrail facts_max_age)", "fresh facts"),
    "!stale-target": (
        "the target has moved on since this was proposed",
        "a new proposal on its present state",
    ),
    "!precondition": (
        "the lever would refuse it by what is known of the target",
        "the target is another one, or in another state",
    ),
    "!not-needed": ("its run needs nothing more", "the run fails again"),
    "!diagnosed-anew": (
        "what has been logged since reads as another failure, which another attempt would repeat",
        "a new proposal on what the run shows now, or a person who retries it",
    ),
    "!server-lacks": (
        "this Prefect server cannot carry the action",
        "a newer Prefect server, and `pilotage up` again",
    ),
    "!nobody-behind": (
        "an agent proposes it for a person whom nobody knows",
        "a person of that name stands in the users file",
    ),
    "!expired": ("the proposal has expired", "a new proposal"),
    "!tampered": (
        "the stored proposal does not match its digest",
        "a new proposal; look into who wrote to the ledger",
    ),
    "!vetoed": ("a person rejected it", "a new proposal"),
    "!stopped": ("the kill switch is set", "people with the right to do so resume: `pilotage resume`"),
    "!already-admitted": ("it was admitted before", "nothing: one proposal is carried out at most once"),
    "!not-filed": ("no such proposal was filed", "the id of a filed proposal"),
    "!closed": ("the proposal is no longer open", "a new proposal"),
    "!not-editable": (
        "only what is open or denied can be edited",
        "another proposal, or an edit of the one that took its place",
    ),
    "!voted-before": ("this person has voted on it", "another person votes"),
    "!asked-already": (
        "people are being asked about the same action on the same target",
        "an answer to that proposal",
    ),
    "!too-many-waiting": (
        "as many proposals of this proposer wait for people as guardrail max_waiting grants",
        "answers to some of them, or guardrail max_waiting is raised",
    ),
    "!lent-by-proposer": (
        "the right to approve was lent by whoever proposed it or is behind it",
        "another person votes by a right of their own",
    ),
    "!narrowed-token": (
        "a token that was narrowed to some roles cannot break the glass, nor use what its person broke",
        "the person asks with their own token or password",
    ),
    "!refused-request": ("it was refused before any policy was asked", "what the reason names"),
    "!in-force": ("these policies are in force already", "nothing: there is nothing to publish"),
    "!not-put-to-the-vote": (
        "these policies are not put to the vote",
        "`pilotage policy published` shows what is",
    ),
    "!bad-bundle": (
        "the bundle is not sound",
        "it is corrected; `pilotage policy check` and `test` say where",
    ),
    "!other-digest": (
        "the vote is for another text than the one filed",
        "look at the proposal again and vote again",
    ),
}


def refused(refusal: str, *, detail: str = "", bundle: str = "", errors: tuple[str, ...] = ()) -> Verdict:
    """The denial with this id; `detail` is added to its reason."""
    reason, would_change = REFUSALS[refusal]
    return Verdict(
        outcome=Outcome.DENY,
        policy_ids=(refusal,),
        reasons=(f"{reason}: {detail}" if detail else reason,),
        would_change=(would_change,),
        bundle=bundle,
        errors=errors,
    )
