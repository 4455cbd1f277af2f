"""Lets a run of each type of work pool fail for memory on a real server, and shows what its worker would then submit.

`python -m tests.compat.pool_stories` makes a pool of each type from the template that the integration's own worker class
ships, lets a run of it crash with Prefect's words for exit code 137, waits until `pilotage up` has given it more memory by
its rules alone, and has the worker's own class prepare the job. It prints a table, writes `.bench/pools.json`, and ends
with 1 when a size is not where that worker reads it. It fetches the integrations: run by `make workers`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio
import prefect.context
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import State
from prefect.states import Crashed, Pending, Running
from tests.compat.versions import CACHE
from tests.flows.running_controller import RunningController, eventually, running_controller

from pilotage.flows.dev.embedded import EmbeddedPrefect

RESULTS = Path(__file__).parents[2] / ".bench" / "pools.json"
SCRIPT = Path(__file__).with_name("worker_job.py")
INTEGRATIONS = (
    "prefect==3.8.8",
    "prefect-kubernetes==0.8.0",
    "prefect-aws==0.7.12",
    "prefect-docker==0.7.4",
    "prefect-gcp==0.6.22",
    "prefect-azure==0.4.13",
    "prefect-snowflake==0.28.9",
)
KILLED = (
    "Flow run infrastructure exited with non-zero status code 137. "
    "Process was killed, likely due to an out-of-memory (OOM) condition."
)
WITHIN = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolType:
    """One type of pool: its worker's class, what an owner wrote, and where the job tells its memory."""

    module: str
    worker: str
    before: Mapping[str, Any]
    path: tuple[str | int, ...]
    """Of the size in the prepared job."""
    after: object
    """What has to stand there."""
    needs: Mapping[str, Any] = field(default_factory=dict)
    """Job variables that the type requires and that have nothing to do with memory."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What the pool's owner made the template's defaults."""
    told: str = "resize_run"
    """The action that comes of it."""


_LIMIT = ("containers", 0, "resources", "limits", "memory")
TYPES: dict[str, PoolType] = {
    "kubernetes": PoolType(
        module="prefect_kubernetes.worker",
        worker="KubernetesWorker",
        before={"memory_limit": "512Mi", "memory_request": "256Mi"},
        path=("job_manifest", "spec", "template", "spec", *_LIMIT),
        after="768Mi",
    ),
    "kubernetes, by the pool's template": PoolType(
        module="prefect_kubernetes.worker",
        worker="KubernetesWorker",
        before={},
        defaults={"memory_limit": "512Mi"},
        path=("job_manifest", "spec", "template", "spec", *_LIMIT),
        after="768Mi",
    ),
    "kubernetes, by a variable that it drops": PoolType(
        module="prefect_kubernetes.worker",
        worker="KubernetesWorker",
        before={"memory": "512Mi"},
        told="notify_owner",
        path=("job_manifest", "spec", "template", "spec", *_LIMIT),
        after=None,
    ),
    "ecs": PoolType(
        module="prefect_aws.workers.ecs_worker",
        worker="ECSWorker",
        before={"cpu": 1024, "memory": 2048},
        path=("task_definition", "memory"),
        after=3072,
    ),
    "docker": PoolType(
        module="prefect_docker.worker",
        worker="DockerWorker",
        before={"mem_limit": "512m"},
        path=("mem_limit",),
        after="768m",
    ),
    "cloud-run": PoolType(
        module="prefect_gcp.workers.cloud_run",
        worker="CloudRunWorker",
        before={"memory": "512Mi"},
        path=("job_body", "spec", "template", "spec", "template", "spec", *_LIMIT),
        after="768Mi",
    ),
    "cloud-run-v2": PoolType(
        module="prefect_gcp.workers.cloud_run_v2",
        worker="CloudRunWorkerV2",
        before={"memory": "512Mi"},
        path=("job_body", "template", "template", *_LIMIT),
        after="768Mi",
    ),
    "azure-container-instance": PoolType(
        module="prefect_azure.workers.container_instance",
        worker="AzureContainerWorker",
        before={"memory": 1.0},
        path=("memory",),
        needs={"resource_group_name": "etl", "subscription_id": "3f6bdb0e-6c1f-4d6a-9f0a-5a1b8f6f2d11"},
        after=1.5,
    ),
    "snowpark-container-service": PoolType(
        module="prefect_snowflake.experimental.workers.spcs",
        worker="SPCSWorker",
        before={"memory_limit": "1Gi", "memory_request": "1Gi"},
        path=("job_manifest", "spec", *_LIMIT),
        needs={
            "snowflake_credentials": {"account": "etl", "user": "worker", "password": "none"},
            "compute_pool": "etl.public.small",
            "image_registry": "etl/public/images",
        },
        after="1536Mi",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What came of one type of pool."""

    pool: str
    before: str
    proposal: str
    submitted: str
    """The size in the prepared job, or what went wrong."""
    right: bool


def integrations() -> Path:
    """Return the Python of an environment with Prefect's integrations, made the first time."""
    home = CACHE / "integrations"
    python, stamp = home / "bin" / "python", home / ".installed"
    if not stamp.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        options = ("--quiet", "--disable-pip-version-check")
        subprocess.run([str(python), "-m", "pip", "install", *options, *INTEGRATIONS], check=True)
        stamp.touch()
    return python


def asked(what: str, pool: PoolType, *more: str, env: Mapping[str, str]) -> dict[str, Any]:
    """Return what the worker's class answers (`worker_job.py`)."""
    command = [str(integrations()), str(SCRIPT), what, pool.module, pool.worker, *more]
    ran = subprocess.run(command, env=dict(env), check=True, text=True, stdout=subprocess.PIPE)
    return dict(json.loads(ran.stdout)[what])


async def crashed_run(kind: str, pool: PoolType, template: dict[str, Any]) -> str:
    """Return the id of a run, of a deployment on a new pool of this type, that crashed for memory."""
    for name, default in pool.defaults.items():
        template["variables"]["properties"][name]["default"] = default
    name = kind.replace(",", "").replace("'", "").replace(" ", "-")
    async with get_client() as client:
        type_ = kind.partition(",")[0]
        await client.create_work_pool(WorkPoolCreate(name=name, type=type_, base_job_template=template))
        deployment = await client.create_deployment(
            flow_id=await client.create_flow_from_name("load"),
            name=name,
            work_pool_name=name,
            entrypoint="load.py:load",
            tags=["env:dev", "pilotage:repeatable"],
            job_variables={**pool.before, **pool.needs},
            parameter_openapi_schema={"type": "object", "properties": {}},
        )
        run = await client.create_flow_run_from_deployment(deployment)
        states: tuple[State[Any], ...] = (Pending(), Running(), Crashed(message=KILLED))
        for state in states:
            await client.set_flow_run_state(run.id, state, force=True)
        return str(run.id)


def carried_out(up: RunningController, run_id: str, kind: str) -> dict[str, Any]:
    """Return the proposal of this kind of action that was carried out on the run."""

    def look() -> dict[str, Any] | None:
        rows = [row for row in up.proposals_on(run_id) if row["kind"] == kind]
        return next((row for row in rows if row["status"] not in ("filed", "allowed", "admitted")), None)

    return eventually(look, within=WITHIN, what=f"{kind} on run {run_id}")


def at(job: Any, path: tuple[str | int, ...]) -> Any:
    """Return what stands at this path of a prepared job, or None."""
    for step in path:
        try:
            job = job[step]
        except (KeyError, IndexError, TypeError):
            return None
    return job


def google_key(folder: Path) -> Path:
    """Return a file with a service account's key, fresh and known to nobody: Google's workers want one."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "etl",
        "private_key_id": "none",
        "private_key": pem.decode(),
        "client_email": "worker@etl.example",
        "token_uri": "http://127.0.0.1:9/token",
    }
    path = folder / "account.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(account))
    return path


def story(kind: str, up: RunningController, run_id: str, env: Mapping[str, str]) -> Told:
    """Return what became of a crashed run."""
    pool = TYPES[kind]
    row = carried_out(up, run_id, pool.told)
    job = asked("job", pool, run_id, env=env)
    found = at(job, pool.path)
    return Told(
        pool=kind,
        before=json.dumps(pool.before),
        proposal=f"{row['kind']} {row['status']}",
        submitted=json.dumps(found),
        right=found == pool.after,
    )


def main() -> int:
    """Print a row for each type as its story ends. Return the exit code."""
    integrations()
    with (
        tempfile.TemporaryDirectory(prefix="pilotage-pools-") as folder,
        EmbeddedPrefect(Path(folder) / "prefect") as server,
    ):
        os.environ.update(server.client_env)
        prefect.context.refresh_global_settings_context()
        with running_controller(Path(folder) / "state", server.env, mode="auto") as up:
            templates = {kind: asked("template", pool, env=server.env) for kind, pool in TYPES.items()}
            runs = {kind: anyio.run(crashed_run, kind, pool, templates[kind]) for kind, pool in TYPES.items()}
            told = []
            env = {**server.env, "GOOGLE_APPLICATION_CREDENTIALS": str(google_key(Path(folder)))}
            for kind, run_id in runs.items():
                told.append(story(kind, up, run_id, env))
                sys.stdout.write(row_of(told[-1]))
                sys.stdout.flush()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(each) for each in told], indent=2) + "\n")
    return 0 if all(each.right for each in told) else 1


def row_of(told: Told) -> str:
    """Return a line of the table."""
    return (
        f"{'✓' if told.right else '✗'} {told.pool:40} {told.before:58} {told.submitted:14} {told.proposal}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
