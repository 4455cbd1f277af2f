"""Which tags deployments lack, and the lines for `prefect.yaml` that add them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pilotage.flows.doctor.facts import DeploymentFacts
from pilotage.telemetry.harmless import harmless

KINDS = ("env", "tier", "team")
"""What policy reads from tags, as in `env:dev`."""
_SUGGESTED = {
    "env": "- env:prod      # what it counts as without; or env:dev, env:test, …",
    "tier": "- tier:1        # what it counts as without; 0 is what nobody can be without",
    "team": "# - team:NAME   # who owns it, is told, and may decide",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingTags:
    """A deployment and the kinds of tag that it lacks."""

    deployment: str
    tags: tuple[str, ...]
    missing: tuple[str, ...]


def missing_tags(deployments: Iterable[DeploymentFacts]) -> tuple[MissingTags, ...]:
    """Return the deployments that lack a kind of tag, by name."""
    uses = (
        MissingTags(
            deployment=each.name,
            tags=each.tags,
            missing=tuple(kind for kind in KINDS if not has_tag(each.tags, kind)),
        )
        for each in sorted(deployments, key=lambda each: each.name)
    )
    return tuple(each for each in uses if each.missing)


def has_tag(tags: Iterable[str], kind: str) -> bool:
    """Whether the tags say one thing of this kind, as policy reads them: two environments are as good as none."""
    said = {tag.removeprefix(f"{kind}:") for tag in tags if tag.startswith(f"{kind}:")}
    match kind:
        case "env":
            return len(said) == 1 and said != {""}
        case "tier":
            return any(value.isdecimal() for value in said)
        case _:
            return any(said)


def prefect_yaml(missing: Iterable[MissingTags]) -> Iterator[str]:
    """Yield the lines to put into `prefect.yaml`; the tags that a deployment has already are repeated."""
    yield "deployments:"
    for each in missing:
        flow, _, name = each.deployment.partition("/")
        yield f"# flow {harmless(flow)}: no {', '.join(f'{kind}:' for kind in each.missing)}"
        yield f"- name: {json.dumps(name)}"
        yield "  tags:"
        yield from (f"  - {json.dumps(tag)}" for tag in each.tags)
        yield from (f"  {_SUGGESTED[kind]}" for kind in each.missing)
