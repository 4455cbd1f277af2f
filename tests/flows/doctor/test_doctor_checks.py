"""Each breakage has its row, its level and its way out; a healthy installation has none."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilotage.flows.doctor.checks import CHECKS, Level, exit_code, run_checks
from pilotage.flows.doctor.facts import (
    DeploymentFacts,
    DoctorFacts,
    ModeFacts,
    ModelFacts,
    PolicyFacts,
    PoolFacts,
    Problem,
    QueueFacts,
    ServerFacts,
    UserFacts,
    WebhookFacts,
)
from pilotage.flows.doctor.tags import has_tag, missing_tags, prefect_yaml
from pilotage.policies.types import Mode

TAGS = ("env:dev", "tier:2", "team:core")
POOL = PoolFacts(
    name="main",
    type="kubernetes",
    paused=False,
    variables=("image", "memory_limit"),
    workers_online=2,
    queues=(QueueFacts(name="default", status="READY"),),
)
PAY = DeploymentFacts(name="pay/out", tags=TAGS, pool="main", queue="default")
SERVER = ServerFacts(
    version="3.9.1", deployments=(PAY,), pools=(POOL,), last_heartbeat=datetime(2026, 8, 1, tzinfo=UTC)
)
HEALTHY = DoctorFacts(
    pilotage="0.1.0",
    client="3.8.8",
    settings=None,
    root=Path("/var/pilotage"),
    directory=None,
    exists=True,
    loose={},
    token="ada",
    token_file=Path("/var/pilotage/token"),
    users=(UserFacts(name="ada", is_admin=True), UserFacts(name="bob", is_admin=True)),
    running="4711",
    mode=ModeFacts(mode=Mode.APPROVE, source="in force"),
    policies=PolicyFacts(configured="a" * 64, in_force="a" * 64),
    webhook=WebhookFacts(configured=True),
    model=ModelFacts(configured=True, endpoint="http://127.0.0.1:8080/v1", name="small", models=("small",)),
    api_url="http://127.0.0.1:4200/api",
    server=SERVER,
)
SAID = Problem(message="Trying this: that was found. Do something.")


def pool(**changes: Any) -> ServerFacts:
    return replace(SERVER, pools=(replace(POOL, **changes),))


def deployment(**changes: Any) -> ServerFacts:
    return replace(SERVER, deployments=(PAY, replace(PAY, name="pay/in", **changes)))


BREAKAGES: dict[str, tuple[dict[str, Any], str, Level, str, str]] = {
    "settings that cannot be read": ({"settings": SAID}, "settings", Level.BROKEN, "found", "Do something."),
    "no address": ({"api_url": SAID, "server": SAID}, "address", Level.BROKEN, "found", "Do something."),
    "a refused key": (
        {"server": SAID, "key_refused": True},
        "credentials",
        Level.BROKEN,
        "found",
        "Do something.",
    ),
    "a server that does not answer": ({"server": SAID}, "server", Level.BROKEN, "found", "Do something."),
    "a state directory that cannot be used": (
        {"directory": SAID},
        "state directory",
        Level.BROKEN,
        "found",
        "Do something.",
    ),
    "files that others may open": (
        {"loose": {Path("/var/pilotage/ledger.sqlite"): 0o644}},
        "permissions",
        Level.WARNING,
        "ledger.sqlite (0644)",
        "chmod",
    ),
    "a token that proves nobody": ({"token": SAID}, "token", Level.BROKEN, "found", "Do something."),
    "users that cannot be read": ({"users": SAID}, "users", Level.BROKEN, "found", "Do something."),
    "no admin": (
        {"users": (UserFacts(name="ann", is_admin=False),)},
        "users",
        Level.BROKEN,
        "no admin",
        "users add",
    ),
    "a single admin": (
        {"users": (UserFacts(name="ada", is_admin=True),)},
        "users",
        Level.WARNING,
        "admin: ada",
        "besides ada",
    ),
    "a mode that cannot be read": ({"mode": SAID}, "mode", Level.BROKEN, "found", "Do something."),
    "policies that do not load": ({"policies": SAID}, "policies", Level.BROKEN, "found", "Do something."),
    "policies that were never published": (
        {"policies": PolicyFacts(configured="b" * 64, in_force="a" * 64)},
        "policies",
        Level.WARNING,
        "aaaaaaaaaaaa is in force",
        "policy publish",
    ),
    "no webhook where something is done": (
        {"webhook": WebhookFacts(configured=False)},
        "webhook",
        Level.WARNING,
        "nobody is told",
        "webhook_url",
    ),
    "a webhook that refuses": (
        {"webhook": WebhookFacts(configured=True, tried=True, problem="the webhook answered 403")},
        "webhook",
        Level.BROKEN,
        "403",
        "webhook_routing_key",
    ),
    "a model that does not answer": (
        {"model": replace(HEALTHY.model, problem="no answer (ConnectError)")},
        "model",
        Level.WARNING,
        "rules answer instead",
        "llm.base_url",
    ),
    "a model of another name": (
        {"model": replace(HEALTHY.model, models=("big",))},
        "model",
        Level.WARNING,
        "does not list small",
        "big",
    ),
    "a pool without a worker": (
        {"server": pool(workers_online=0)},
        "workers",
        Level.WARNING,
        "no worker is online for main",
        "prefect worker start --pool main",
    ),
    "a queue that nobody polls": (
        {"server": pool(queues=(QueueFacts(name="default", status="NOT_READY"),))},
        "queues",
        Level.WARNING,
        "main/default",
        "--work-queue",
    ),
    "a paused queue": (
        {"server": pool(queues=(QueueFacts(name="default", status="PAUSED"),))},
        "queues",
        Level.WARNING,
        "paused: main/default",
        "Resume",
    ),
    "a paused pool": (
        {"server": pool(paused=True)},
        "queues",
        Level.WARNING,
        "paused: main",
        "Resume",
    ),
    "runs without heartbeats": (
        {"server": replace(SERVER, last_heartbeat=None, long_runs=3)},
        "heartbeats",
        Level.WARNING,
        "3 runs lasted long enough",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY",
    ),
    "a deployment without env:": (
        {"server": deployment(tags=("tier:1", "team:a"))},
        "tags",
        Level.WARNING,
        "1 of 2 without `env:`, so production (as pay/in)",
        "pilotage doctor tags",
    ),
    "a deployment without team:": (
        {"server": deployment(tags=("env:dev", "tier:1"))},
        "tags",
        Level.NOTE,
        "1 of 2 without `team:`",
        "pilotage doctor tags",
    ),
    "a template without memory": (
        {"server": pool(variables=("image", "memory"))},
        "memory",
        Level.NOTE,
        "template of main",
        "`memory_limit` or `memory_request`",
    ),
}


def test_a_healthy_installation_has_every_row_and_exits_with_nothing() -> None:
    rows = run_checks(HEALTHY)
    assert [row.check for row in rows] == [name for name, _ in CHECKS]
    assert {row.result.level for row in rows} == {Level.OK}
    assert exit_code(rows) == 0


@pytest.mark.parametrize(
    ("changes", "check", "level", "found", "todo"), BREAKAGES.values(), ids=BREAKAGES.keys()
)
def test_what_is_broken_is_named_with_what_to_do(
    changes: dict[str, Any], check: str, level: Level, found: str, todo: str
) -> None:
    rows = run_checks(replace(HEALTHY, **changes))
    result = {row.check: row.result for row in rows}[check]
    assert result.level is level
    assert found in result.found
    assert todo in result.todo
    assert exit_code(rows) == {Level.NOTE: 0, Level.WARNING: 1, Level.BROKEN: 2}[level]
    blamed = {row.check for row in rows if row.result.level > Level.OK}
    assert blamed == {check}, "one fault is told once"


def test_a_first_start_is_no_fault() -> None:
    fresh = replace(
        HEALTHY,
        exists=False,
        token=SAID,
        users=(),
        running="",
        mode=ModeFacts(mode=Mode.SHADOW, source="at the first start"),
        policies=PolicyFacts(configured="a" * 64, in_force=""),
        webhook=WebhookFacts(configured=False),
        model=ModelFacts(configured=False),
    )
    assert exit_code(run_checks(fresh)) == 0


def test_pools_that_need_no_worker_are_not_asked_for_one() -> None:
    rows = run_checks(replace(HEALTHY, server=pool(type="ecs:push", workers_online=0, variables=("memory",))))
    assert exit_code(rows) == 0


@pytest.mark.parametrize(
    ("tags", "kind", "said"),
    [
        (("env:dev",), "env", True),
        (("env:dev", "env:prod"), "env", False),
        (("env:",), "env", False),
        (("environment:dev",), "env", False),
        (("tier:0",), "tier", True),
        (("tier:high",), "tier", False),
        (("team:core",), "team", True),
        (("team:",), "team", False),
    ],
)
def test_a_tag_counts_as_policy_reads_it(tags: tuple[str, ...], kind: str, said: bool) -> None:
    assert has_tag(tags, kind) is said


def test_the_lines_for_prefect_yaml_are_yaml_that_keeps_the_tags_that_are_there() -> None:
    odd = DeploymentFacts(name='a flow\n# x/it\'s: "odd"', tags=("nightly: yes", "team:core"))
    missing = missing_tags([PAY, odd])
    assert [each.deployment for each in missing] == [odd.name]
    assert missing[0].missing == ("env", "tier")
    read = yaml.safe_load("\n".join(prefect_yaml(missing)))
    (only,) = read["deployments"]
    assert only["name"] == 'it\'s: "odd"'
    assert only["tags"][:2] == ["nightly: yes", "team:core"]
    assert missing_tags([replace(odd, tags=tuple(only["tags"]))]) == ()
