"""The small installation that the questions of `golden.yaml` are about: a Monday morning after a bad night."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pilotage.telemetry.facts import (
    AskedFact,
    AutomationFact,
    DeploymentFact,
    LimitFact,
    LogLine,
    PoolFact,
    QueueFact,
    RunFact,
    ScheduleFact,
    StateType,
    WorkerFact,
)
from pilotage.telemetry.store.duckdb import DuckDBStore

NOW = datetime(2026, 11, 30, 9, 0, tzinfo=UTC)
DEPLOYMENTS = {
    "nightly-load/prod": "k8s-prod",
    "ingest-orders/eu": "k8s-prod",
    "ingest-orders/us": "k8s-prod",
    "dbt-transform/daily": "k8s-prod",
    "churn-model/weekly": "gpu",
    "sync-crm/hourly": "ecs-push",
    "invoice-export/monthly": "k8s-prod",
}


def deployment_id(name: str) -> str:
    return f"dddddddd-0000-4000-8000-{list(DEPLOYMENTS).index(name):012d}"


def run_id(n: int) -> str:
    return f"aaaaaaaa-0000-4000-8000-{n:012d}"


def a_run(n: int, name: str, deployment: str, state: StateType, hours: float, **changes: Any) -> RunFact:
    """A run that ended, or was due, so many hours before now."""
    moment = NOW - timedelta(hours=hours)
    ended = state in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    flow, _, short = deployment.partition("/")
    given: dict[str, Any] = {
        "run_id": run_id(n),
        "name": name,
        "flow_name": flow,
        "state_type": state,
        "state_name": "Late" if state == "SCHEDULED" and hours > 0 else str(state).capitalize(),
        "state_id": f"s-{n}",
        "deployment_id": deployment_id(deployment),
        "deployment_name": short,
        "pool": DEPLOYMENTS[deployment],
        "queue": "default",
        "run_count": 1 if ended or state == "RUNNING" else 0,
        "created": moment - timedelta(hours=1),
        "expected_start": moment - timedelta(minutes=10 * ended),
        "next_start": moment if state == "SCHEDULED" else None,
        "started": moment - timedelta(minutes=10) if ended else moment if state == "RUNNING" else None,
        "ended": moment if ended else None,
        "updated": moment,
        "parameters": {"region": "eu"},
        "auto_scheduled": True,
    }
    return RunFact(**{**given, **changes})


RUNS = (
    a_run(1, "brave-otter", "nightly-load/prod", StateType.FAILED, 6,
          state_message="Flow run encountered an exception: ConnectError: All connection attempts failed",
          parameters={"region": "us"}),
    a_run(2, "calm-heron", "nightly-load/prod", StateType.COMPLETED, 30),
    a_run(3, "dashing-ocelot", "churn-model/weekly", StateType.SCHEDULED, 2),
    a_run(4, "loud-finch", "dbt-transform/daily", StateType.CRASHED, 7,
          state_message="Process for flow run exited with status code: -9"),
    a_run(5, "shy-panda", "sync-crm/hourly", StateType.FAILED, 1, state_message="HTTP 429 Too Many Requests"),
    a_run(6, "old-moth", "sync-crm/hourly", StateType.CANCELLED, 20),
    a_run(7, "mild-crane", "invoice-export/monthly", StateType.FAILED, 50, state_message="ValueError: bad day"),
    a_run(8, "wild-goose", "ingest-orders/eu", StateType.RUNNING, 0.5),
    a_run(9, "soft-lynx", "nightly-load/prod", StateType.SCHEDULED, -14),
    a_run(10, "grey-swan", "churn-model/weekly", StateType.FAILED, 30, state_message="CUDA out of memory"),
    a_run(11, "tall-ibis", "ingest-orders/us", StateType.FAILED, 3, state_message="KeyError: 'order_id'"),
)  # fmt: skip


def fill(store: DuckDBStore) -> None:
    """Put the installation into an empty store."""
    store.merge_runs(list(RUNS))
    store.merge_deployments(
        [
            DeploymentFact(
                deployment_id=deployment_id(name), flow_name=name.partition("/")[0], name=name.partition("/")[2],
                pool=pool, queue="default", updated=NOW - timedelta(days=9),
            )
            for name, pool in DEPLOYMENTS.items()
        ]
    )  # fmt: skip
    polled = {"k8s-prod": NOW, "gpu": NOW - timedelta(hours=4), "ecs-push": NOW}
    store.add_queues(
        [
            QueueFact(
                at=NOW, pool=pool, queue="default", priority=1, pool_limit=4, status="READY", last_polled=at
            )
            for pool, at in polled.items()
        ]
    )
    store.add_logs(
        [
            LogLine(log_id="l-1", run_id=run_id(1), at=NOW - timedelta(hours=6, minutes=1), level=20, message="loading"),
            LogLine(
                log_id="l-2", run_id=run_id(1), at=NOW - timedelta(hours=6), level=40,
                message="ConnectError: All connection attempts failed",
            ),
        ]
    )  # fmt: skip
    store.replace(
        "pools",
        [
            PoolFact(pool=pool, type="process", status="NOT_READY" if pool == "gpu" else "READY", seen=NOW)
            for pool in ("k8s-prod", "gpu", "ecs-push")
        ],
    )
    store.replace(
        "workers",
        [
            WorkerFact(
                worker_id="w-1", pool="k8s-prod", name="k8s-1", status="ONLINE", heard=NOW, every=30, seen=NOW
            ),
            WorkerFact(
                worker_id="w-2",
                pool="gpu",
                name="gpu-1",
                status="OFFLINE",
                heard=NOW - timedelta(hours=4),
                every=30,
                seen=NOW,
            ),
        ],
    )
    store.replace(
        "limits",
        [
            LimitFact(
                limit_id="x-1",
                name="tag:database",
                limit=2,
                taken=2,
                full_since=NOW - timedelta(hours=1),
                seen=NOW,
            ),
            LimitFact(limit_id="x-2", name="warehouse", limit=5, taken=1, seen=NOW),
        ],
    )
    store.replace(
        "schedules",
        [
            ScheduleFact(
                schedule_id="h-1", deployment_id=deployment_id("nightly-load/prod"), cron="0 2 * * *",
                timezone="Europe/Vienna",
                last_due=NOW - timedelta(hours=8), next_due=NOW + timedelta(hours=16), every=86400,
                seen=NOW,
            )
        ],
    )  # fmt: skip
    store.replace(
        "automations",
        [
            AutomationFact(
                automation_id="m-1", name="cancel-stuck-runs", actions=("cancel-flow-run",), seen=NOW
            )
        ],
    )
    kinds = ("pools", "queues", "deployments", "limits", "tag_limits", "automations", "api")
    store.put(
        "asked",
        [
            AskedFact(kind=kind, at=NOW)
            for kind in (*kinds, *(f"workers:{pool}" for pool in DEPLOYMENTS.values()))
        ],
    )
