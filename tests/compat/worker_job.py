"""What a worker would submit for a flow run: run by the Python of an environment that has Prefect's integrations.

`python worker_job.py template MODULE CLASS` prints the base job template that the worker's class ships,
`python worker_job.py job MODULE CLASS RUN_ID` the job that it prepares for this run, both as JSON. Nothing of ours is
imported.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from typing import Any
from uuid import UUID


async def prepared(worker: Any, run_id: UUID) -> dict[str, Any]:
    """Return the worker's own job configuration for a run, resolved and prepared as before it is submitted."""
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        run = await client.read_flow_run(run_id)
        pool = await client.read_work_pool(str(run.work_pool_name))
        job = await worker.job_configuration.resolve_for_flow_run(
            run, client=client, work_pool=pool, worker_name="a worker"
        )
    return dict(job.model_dump(mode="json"))


def main() -> None:
    """Print what was asked for."""
    asked, module, name, *run_id = sys.argv[1:]
    worker = getattr(importlib.import_module(module), name)
    told = (
        worker.get_default_base_job_template()
        if asked == "template"
        else asyncio.run(prepared(worker, UUID(run_id[0])))
    )
    print(json.dumps({"type": worker.type, asked: told}))


if __name__ == "__main__":
    main()
