"""The shipped deployments on a fake Prefect, reached over a loopback port by Prefect's own client and by ours."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import prefect.context
import pytest
import yaml
from prefect.utilities.callables import parameter_schema_from_entrypoint
from tests.conftest import PrefectServer

from pilotage.flows.dev.embedded import EXAMPLES, POOL, QUEUES, EmbeddedPrefect
from pilotage.flows.dev.fake_prefect import FakePrefect
from pilotage.flows.dev.fake_prefect.serve import serving


class FakeEmbedded(EmbeddedPrefect):
    """Makes pools and deployments on a fake server; there is no process."""

    def __init__(self, fake: FakePrefect) -> None:
        super().__init__(Path("nowhere"))
        self.fake = fake

    def create_pool(
        self, name: str = POOL, *, queues: Sequence[str] = QUEUES, concurrency_limit: int | None = None
    ) -> None:
        """As `EmbeddedPrefect.create_pool`."""
        if name in self.fake.tables.pools:
            return
        body: dict[str, Any] = {"name": name, "type": "process", "base_job_template": _template()}
        self.fake.ask("POST", "/work_pools/", body | {"concurrency_limit": concurrency_limit})
        for rank, queue in enumerate(queues, start=1):
            if queue != "default":
                self.fake.ask("POST", f"/work_pools/{name}/queues", {"name": queue, "priority": rank})
        for rank, queue in enumerate(queues, start=1):
            self.fake.ask("PATCH", f"/work_pools/{name}/queues/{queue}", {"priority": rank})

    def deploy_examples(self, *, within: timedelta = timedelta(0)) -> None:
        """As `EmbeddedPrefect.deploy_examples`."""
        for deployment in _shipped():
            flow = self.fake.ask("POST", "/flows/", {"name": deployment["flow"]})
            body = {key: value for key, value in deployment.items() if key != "flow"}
            self.fake.ask("POST", "/deployments/", body | {"flow_id": flow["id"]})


@contextmanager
def a_fake_server() -> Iterator[PrefectServer]:
    """A fake server with the shipped project, to which Prefect's settings of this process lead meanwhile."""
    fake = FakePrefect()
    with serving(fake) as api_url, pytest.MonkeyPatch.context() as patch:
        for key in [key for key in os.environ if key.startswith("PREFECT_")]:
            patch.delenv(key)
        patch.setenv("PREFECT_API_URL", api_url)
        patch.setenv("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "false")
        # there is no TLS on loopback; to prepare for it costs each client of Prefect's and of ours 30 ms
        unused = ssl.create_default_context()
        patch.setattr(ssl, "create_default_context", lambda *_, **__: unused)
        patch.setenv("PREFECT_API_TLS_INSECURE_SKIP_VERIFY", "true")
        prefect.context.refresh_global_settings_context()
        embedded = FakeEmbedded(fake)
        embedded.create_pool()
        embedded.deploy_examples()
        ui_url = api_url.removesuffix("/api")
        env = {key: value for key, value in os.environ.items() if not key.startswith("PILOTAGE_")}
        yield PrefectServer(api_url=api_url, ui_url=ui_url, auth_string="", env=env, embedded=embedded)
    prefect.context.refresh_global_settings_context()


@cache
def _template() -> Mapping[str, Any]:
    return dict(json.loads((EXAMPLES / "pool.json").read_text()))


@cache
def _shipped() -> tuple[dict[str, Any], ...]:
    """The deployments of the shipped project, as `prefect deploy --all` makes them."""
    found = []
    for each in yaml.safe_load((EXAMPLES / "prefect.yaml").read_text())["deployments"]:
        path, _, function = each["entrypoint"].partition(":")
        schema = parameter_schema_from_entrypoint(f"{EXAMPLES / path}:{function}").model_dump_for_openapi()
        found.append(
            {
                "flow": function.replace("_", "-"),
                "name": each["name"],
                "entrypoint": each["entrypoint"],
                "tags": each["tags"],
                "parameters": each.get("parameters") or {},
                "parameter_openapi_schema": schema,
                "work_pool_name": each["work_pool"]["name"],
                "work_queue_name": each["work_pool"]["work_queue_name"],
                "job_variables": each["work_pool"].get("job_variables") or {},
            }
        )
    return tuple(found)
