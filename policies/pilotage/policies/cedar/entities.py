"""From facts to what the engine is asked: pure translation, complete or refused.

A parent that is left out of the slice makes a forbid silently not apply, so every slice carries the
principal, the resource and all their ancestors, and what safety rests on is an attribute of the resource.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from pilotage.planner.actions.types import Action, deployment_of, queue_of, run_of
from pilotage.policies.cedar.guardrails import Guardrails
from pilotage.policies.cedar.protocol import Entity, Uid
from pilotage.policies.roles import INCLUDES, Role, expanded
from pilotage.policies.types import FiledProposal, Identity, TargetFacts

HANDS_OFF = "pilotage:hands-off"
"""The tag by which an owner keeps everybody's hands off a deployment."""

ASK_OWNER = "pilotage:ask-owner"
"""The tag by which a team is asked before anything of its deployment is changed."""


class MissingFact(ValueError):
    """A fact that the decision needs is not there; the gate turns it into a refusal."""


def whole(asked: Iterable[Uid], entities: Iterable[Entity]) -> tuple[Entity, ...]:
    """The entities, when those that are asked about and every parent of every one are among them.

    Raises MissingFact otherwise: the engine passes over what is missing, and so would a forbid.
    """
    there = tuple(entities)
    known = {entity.uid for entity in there}
    named = {*asked, *(parent for entity in there for parent in entity.parents)}
    if missing := sorted(f"{uid.type} {uid.id}" for uid in named - known):
        raise MissingFact(f"nothing is known about {', '.join(missing)}")
    return there


def principal(identity: Identity) -> tuple[Uid, tuple[Entity, ...]]:
    """The caller as principal, with its roles and teams."""
    person = identity.kind == "user"
    uid = Uid(type="User" if person else "Agent", id=identity.name)
    roles = [Uid(type="Role", id=role) for role in sorted(identity.roles)]
    teams = [Uid(type="Team", id=team) for team in sorted(identity.teams)] if person else []
    above = expanded(identity.roles)
    if unknown := sorted(identity.roles - above):
        raise MissingFact(f"{identity.name} has roles that do not exist: {', '.join(unknown)}")
    return uid, (
        Entity(uid=uid, attributes={"name": identity.name}, parents=(*roles, *teams)),
        *(_role_entity(role) for role in sorted(above)),
        *(Entity(uid=team) for team in teams),
    )


@cache
def _role_entity(role: str) -> Entity:
    return Entity(
        uid=Uid(type="Role", id=role),
        parents=tuple(Uid(type="Role", id=other) for other in INCLUDES[Role(role)]),
    )


def resource(action: Action, target: TargetFacts, guardrails: Guardrails) -> tuple[Uid, tuple[Entity, ...]]:
    """The target as resource, with its deployment and team. Raises MissingFact."""
    shared: dict[str, Any] = {
        "env": target.env,
        "production": guardrails.production(target.env),
        "tier": target.tier,
        "hands_off": HANDS_OFF in target.tags,
        "ask_owner": ASK_OWNER in target.tags,
    }
    teams = (Uid(type="Team", id=target.team),) if target.team else ()
    team_entities = tuple(Entity(uid=team) for team in teams)
    match action:
        case _ if limit := action.limit_changed():
            uid = Uid(type="Limit", id=limit)
            return uid, (Entity(uid=uid, attributes=shared),)
        case _ if queue := queue_of(action):
            uid = Uid(type="WorkQueue", id="/".join(queue))
            return uid, (Entity(uid=uid, attributes={"pool": queue[0], **shared}),)
        case _ if deployment_id := deployment_of(action):
            uid = Uid(type="Deployment", id=deployment_id)
            return uid, (
                Entity(uid=uid, attributes={**shared, "paused": target.paused}, parents=teams),
                *team_entities,
            )
        case _ if run_id := run_of(action):
            if not target.state_type:
                raise MissingFact(f"the state of run {run_id}")
            uid = Uid(type="Run", id=run_id)
            run = {
                "state": target.state_type,
                "run_count": target.run_count,
                "memory_mb": target.memory_mb,
                "death": target.death,
                "default_memory_mb": target.default_memory_mb,
                "proven_memory_mb": target.proven_memory_mb,
                "repeatable": target.repeatable,
                "half_done": target.half_done,
                **shared,
            }
            if not target.deployment_id:
                return uid, (Entity(uid=uid, attributes=run),)
            above = Uid(type="Deployment", id=target.deployment_id)
            return uid, (
                Entity(uid=uid, attributes=run, parents=(above,)),
                Entity(uid=above, attributes={**shared, "paused": target.paused}, parents=teams),
                *team_entities,
            )
        case _:
            raise MissingFact(f"what {action.kind} is done to")


def arguments(action: Action, target: TargetFacts, filed_at: datetime) -> dict[str, Any]:
    """Return the typed arguments of an action as the schema names them; durations in whole seconds."""
    starts_at = target.read_at + timedelta(seconds=target.seconds_to_start)
    return action.policy_arguments(filed_at=filed_at, starts_at=starts_at)


def proposal_resource(filed: FiledProposal, now: datetime) -> tuple[Uid, tuple[Entity, ...]]:
    """A filed proposal as the resource of a vote or an undo."""
    uid = Uid(type="Proposal", id=filed.proposal.id)
    return uid, (
        Entity(
            uid=uid,
            attributes={
                "proposer": filed.proposer.name,
                "on_behalf_of": filed.proposal.on_behalf_of,
                "digest": filed.digest,
                "expired": filed.proposal.expires_at <= now,
            },
        ),
    )
