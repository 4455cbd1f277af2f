"""Write the base job templates of the workers that Prefect's integrations ship, as `pool_templates/TYPE.json`.

Run it with a Python that has prefect-kubernetes, prefect-aws, prefect-docker, prefect-gcp, prefect-azure and
prefect-snowflake; the project's own has none of them. Titles and descriptions are left out.
"""

from __future__ import annotations

import importlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

WORKERS = (
    ("prefect-kubernetes", "prefect_kubernetes.worker", "KubernetesWorker"),
    ("prefect-aws", "prefect_aws.workers.ecs_worker", "ECSWorker"),
    ("prefect-docker", "prefect_docker.worker", "DockerWorker"),
    ("prefect-gcp", "prefect_gcp.workers.cloud_run", "CloudRunWorker"),
    ("prefect-gcp", "prefect_gcp.workers.cloud_run_v2", "CloudRunWorkerV2"),
    ("prefect-gcp", "prefect_gcp.workers.vertex", "VertexAIWorker"),
    ("prefect-azure", "prefect_azure.workers.container_instance", "AzureContainerWorker"),
    ("prefect-snowflake", "prefect_snowflake.experimental.workers.spcs", "SPCSWorker"),
    ("prefect", "prefect.workers.process", "ProcessWorker"),
)
TARGET = Path(__file__).with_name("pool_templates")
_PROSE = ("title", "description", "examples", "example")


def bare(value: Any, *, names: bool = False) -> Any:
    """Return the template without its prose; `names` says that the keys are names of variables."""
    if isinstance(value, list):
        return [bare(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: bare(each, names=key in ("properties", "definitions", "$defs"))
        for key, each in value.items()
        if names or key not in _PROSE
    }


def main() -> None:
    """Write every template whose worker can be imported, and say which cannot."""
    for package, module, name in WORKERS:
        try:
            worker = getattr(importlib.import_module(module), name)
        except ImportError as error:
            print(f"{package}: {name}: {error}")
            continue
        template = worker.get_default_base_job_template()
        told = {
            "type": worker.type,
            "package": f"{package} {version(package)}",
            "base_job_template": {
                "variables": bare(template["variables"]),
                "job_configuration": template["job_configuration"],
            },
        }
        path = TARGET / f"{worker.type}.json"
        path.write_text(json.dumps(told, indent=1) + "\n")
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
