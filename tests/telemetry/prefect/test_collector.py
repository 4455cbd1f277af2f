"""The collector against a real Prefect server: everything arrives, soon, once, and without secrets."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.facts import StateType
from pilotage.telemetry.queries import runs as run_queries
from pilotage.telemetry.store.duckdb import DuckDBStore

pytestmark = pytest.mark.prefect


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    opened = DuckDBStore(tmp_path / "telemetry.duckdb")
    yield opened
    opened.close()


async def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """What the condition gives once it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {condition.__code__.co_consts}")


@asynccontextmanager
async def collecting(store: DuckDBStore, changed: set[str] | None = None, **options: Any) -> Any:
    from pilotage.telemetry.prefect.collector import PrefectCollector

    told = changed if changed is not None else set()
    collector = PrefectCollector(store, on_change=told.update, **options)
    stop = asyncio.Event()
    task = asyncio.create_task(collector.run(stop))
    try:
        yield collector
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)


def run_flow(env: dict[str, str], body: str, tmp_path: Path) -> str:
    """Runs a flow in a process of its own; returns the run's id, which the flow prints first."""
    script = tmp_path / f"flow_{time.monotonic_ns()}.py"
    script.write_text(
        "from prefect import flow, task, get_run_logger\n"
        "from prefect.runtime import flow_run\n" + textwrap.dedent(body)
    )
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=120)
    for line in done.stdout.splitlines():
        if line.startswith("RUN "):
            return line.split()[1]
    raise AssertionError(done.stdout + done.stderr)


FAILING = """
    @task
    def load():
        get_run_logger().warning("connecting with password=hunter2")

    @flow(name="collected")
    def collected(url: str = "https://u:s3cretpw@host/x"):
        print("RUN", flow_run.id, flush=True)
        load()
        get_run_logger().error("it broke\\x1b[2J")
        raise RuntimeError("no answer from https://u:s3cretpw@host/x")

    try:
        collected()
    except RuntimeError:
        pass
"""


def test_a_failed_run_arrives_with_its_logs_tasks_and_events(
    prefect_server: Any, store: DuckDBStore, tmp_path: Path
) -> None:
    async def scenario() -> tuple[str, set[str]]:
        changed: set[str] = set()
        async with collecting(store, changed) as collector:
            await until(lambda: collector.connected)
            run_id = await asyncio.to_thread(run_flow, prefect_server.env, FAILING, tmp_path)
            await until(lambda: run_id in changed and run_queries.run(store, run_id))
            await until(
                lambda: [line for line in run_queries.logs_of(store, run_id) if "it broke" in line.message]
            )
            await until(
                lambda: store.rows(
                    "SELECT 1 FROM events WHERE name='prefect.flow-run.Failed' AND run_id=?", [run_id]
                )
            )
            await until(lambda: store.rows("SELECT 1 FROM task_runs WHERE run_id = ?", [run_id]))
            assert collector.last_event is not None
            return run_id, changed

    run_id, changed = asyncio.run(scenario())
    run = run_queries.run(store, run_id)
    assert run is not None
    assert (run.state_type, run.flow_name, run.run_count) == (StateType.FAILED, "collected", 1)
    assert "no answer from https://u:[redacted]@host/x" in run.state_message
    assert run_id in changed
    lines = [line.message for line in run_queries.logs_of(store, run_id)]
    assert any("password=[redacted]" in line for line in lines)
    kept = json.dumps(
        [store.rows(f"FROM {table}") for table in ("runs", "logs", "events", "task_runs")], default=str
    )
    assert "hunter2" not in kept
    assert "s3cretpw" not in kept
    assert run in run_queries.failures_since(store, run.created)
    assert store.rows("SELECT event_id FROM events GROUP BY ALL HAVING count(*) > 1") == []
    assert store.rows("SELECT log_id FROM logs GROUP BY ALL HAVING count(*) > 1") == []


def test_a_failure_is_told_of_within_seconds(prefect_server: Any, store: DuckDBStore, tmp_path: Path) -> None:
    async def scenario() -> float:
        seen: dict[str, datetime] = {}

        def note(run_ids: frozenset[str]) -> None:
            for run_id in run_ids:
                run = run_queries.run(store, run_id)
                if run is not None and run.state_type is StateType.FAILED:
                    seen.setdefault(run_id, datetime.now(UTC))

        from pilotage.telemetry.prefect.collector import PrefectCollector

        collector, stop = PrefectCollector(store, on_change=note), asyncio.Event()
        task = asyncio.create_task(collector.run(stop))
        try:
            await until(lambda: collector.connected)
            run_id = await asyncio.to_thread(run_flow, prefect_server.env, FAILING, tmp_path)
            at = await until(lambda: seen.get(run_id))
        finally:
            stop.set()
            await asyncio.wait_for(task, 30)
        run = run_queries.run(store, run_id)
        assert run is not None
        assert run.ended is not None
        return float((at - run.ended).total_seconds())

    assert asyncio.run(scenario()) < 5


def test_what_happened_while_nobody_collected_is_caught_up(
    prefect_server: Any, store: DuckDBStore, tmp_path: Path
) -> None:
    from pilotage.telemetry.prefect.collector import PrefectCollector

    first = run_flow(prefect_server.env, FAILING, tmp_path)
    asyncio.run(PrefectCollector(store).backfill())
    assert run_queries.run(store, first) is not None
    second = run_flow(prefect_server.env, FAILING, tmp_path)

    async def events_of_second() -> list[dict[str, Any]]:
        collector = PrefectCollector(store)

        def found() -> list[dict[str, Any]]:
            return store.rows("SELECT name FROM events WHERE run_id = ?", [second])

        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            await collector.reconcile(datetime.now(UTC) - timedelta(minutes=5))
            if {"prefect.flow-run.Failed"} <= {row["name"] for row in found()}:
                break
        return found()

    names = {row["name"] for row in asyncio.run(events_of_second())}
    assert {"prefect.flow-run.Running", "prefect.flow-run.Failed"} <= names
    assert store.rows("SELECT count(*) AS n FROM runs WHERE run_id = ?", [second]) == [{"n": 1}]
    assert store.watermark("prefect") is not None


async def api(method: str, path: str, body: Any = None) -> Any:
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        response = await client.request(method, path, json=body)  # type: ignore[arg-type]
        return response.json() if response.content else None


def test_queues_deployments_and_waiting_runs_are_seen_and_deleted_ones_forgotten(
    prefect_server: Any, store: DuckDBStore
) -> None:
    pool = f"collector-{time.monotonic_ns()}"

    async def scenario() -> None:
        await api("POST", "/work_pools/", {"name": pool, "type": "process", "concurrency_limit": 3})
        await api(
            "POST", f"/work_pools/{pool}/queues/", {"name": "high", "priority": 1, "concurrency_limit": 2}
        )
        flow = await api("POST", "/flows/", {"name": "queued"})
        deployment = await api(
            "POST",
            "/deployments/",
            {
                "name": "nightly",
                "flow_id": flow["id"],
                "work_pool_name": pool,
                "work_queue_name": "high",
                "tags": ["env:test"],
                "job_variables": {"memory_mb": 64, "env": {"DB_PASSWORD": "hunter2"}},
            },
        )
        due, later = [
            (
                await api(
                    "POST",
                    f"/deployments/{deployment['id']}/create_flow_run",
                    {
                        "state": {
                            "type": "SCHEDULED",
                            "state_details": {
                                "scheduled_time": (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
                            },
                        }
                    },
                )
            )["id"]
            for seconds in (-60, 600)
        ]

        def queue() -> Any:
            return next(
                (
                    one
                    for one in run_queries.queue_snapshots(store)
                    if (one.pool, one.queue) == (pool, "high")
                ),
                None,
            )

        async with collecting(store, interval=timedelta(seconds=1)):
            await until(lambda: queue() and queue().waiting == 1)
            snapshot = queue()
            assert (snapshot.priority, snapshot.limit, snapshot.pool_limit, snapshot.running) == (1, 2, 3, 0)
            assert snapshot.oldest_due < datetime.now(UTC) - timedelta(seconds=55)
            now = datetime.now(UTC)
            assert due in [run.run_id for run in run_queries.waiting_runs(store, now)]
            assert later in [
                run.run_id for run in run_queries.upcoming_runs(store, now, timedelta(minutes=15))
            ]
            seen = run_queries.deployment_of(store, due)
            assert seen is not None
            assert (seen.name, seen.flow_name, seen.queue, seen.tags) == (
                "nightly",
                "queued",
                "high",
                ("env:test",),
            )
            assert seen.job_variables == {"memory_mb": 64, "env": {"DB_PASSWORD": "[redacted]"}}
            run = run_queries.run(store, due)
            assert run is not None
            assert (run.deployment_name, run.pool, run.queue) == ("nightly", pool, "high")
            await api("DELETE", f"/flow_runs/{later}")
            # no event tells of either: the next poll and the next look at the site find them gone
            await until(lambda: run_queries.run(store, later) is None, seconds=90)
            await api("DELETE", f"/deployments/{deployment['id']}")
            await until(
                lambda: (
                    not store.rows("SELECT 1 FROM deployments WHERE deployment_id = ?", [deployment["id"]])
                ),
                seconds=90,
            )
            await api("DELETE", f"/work_pools/{pool}")

    asyncio.run(scenario())


class Relay:
    """A way to the server that can be cut and mended."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._cut = False
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def _spawn(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._cut:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            self._open += [near, far]
            self._spawn(self._pump, near, far)
            self._spawn(self._pump, far, near)

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while part := source.recv(65536):
                sink.sendall(part)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        self._cut = True
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._cut = False

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(timeout=5)
        for end in self._open:
            end.close()


def test_a_cut_connection_is_noticed_told_and_costs_nothing(
    prefect_server: Any, store: DuckDBStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    relay = Relay(int(prefect_server.api_url.split(":")[2].split("/")[0]))

    async def scenario() -> str:
        async with collecting(store, interval=timedelta(seconds=1)) as collector:
            await until(lambda: collector.connected)
            relay.cut()
            await until(lambda: not collector.connected and collector.last_error)
            run_id = await asyncio.to_thread(run_flow, prefect_server.env, FAILING, tmp_path)
            assert run_queries.run(store, run_id) is None
            relay.mend()
            await until(lambda: collector.connected, 60)
            await until(lambda: run_queries.run(store, run_id), 60)
            await until(
                lambda: store.rows(
                    "SELECT 1 FROM events WHERE name='prefect.flow-run.Failed' AND run_id=?", [run_id]
                )
            )
            await until(lambda: collector.last_error == "")
            return run_id

    try:
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{relay.port}/api"}):
            run_id = asyncio.run(scenario())
    finally:
        relay.close()
    names = [row["name"] for row in store.rows("SELECT name FROM events WHERE run_id = ?", [run_id])]
    assert names.count("prefect.flow-run.Running") == 1
    told = [
        record
        for record in caplog.records
        if record.name == "pilotage.telemetry" and record.levelname == "WARNING"
    ]
    assert told
    assert "Next attempt in" in told[0].getMessage()


def test_the_server_introduces_itself(prefect_server: Any) -> None:
    from pilotage.telemetry.prefect.http import check_server

    found = asyncio.run(check_server())
    assert found.version == "3.8.8"
    assert found.api_url.startswith("http://127.0.0.1")


def check_with(**settings: Any) -> Awaitable[Any]:
    from prefect.settings import temporary_settings

    from pilotage.telemetry.prefect import http

    async def checked() -> Any:
        import prefect.settings

        with temporary_settings({getattr(prefect.settings, name): value for name, value in settings.items()}):
            return await http.check_server()

    return checked()


def test_an_unreachable_server_is_a_transient_error_that_says_what_to_do(prefect_server: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(OrchestratorError, match="Start the server, or correct PREFECT_API_URL") as refused:
        asyncio.run(check_with(PREFECT_API_URL=f"http://127.0.0.1:{port}/api"))  # type: ignore[arg-type]
    assert refused.value.transient


def test_a_refused_key_is_no_transient_error(prefect_server: Any) -> None:
    with pytest.raises(OrchestratorError, match=r"refused the key.*PREFECT_API_AUTH_STRING") as refused:
        asyncio.run(check_with(PREFECT_API_AUTH_STRING="admin:wrong"))  # type: ignore[arg-type]
    assert not refused.value.transient


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>a page of somebody else</html>")

    def log_message(self, *_: object) -> None:
        pass


def test_a_page_instead_of_an_api_is_called_that() -> None:
    with HTTPServer(("127.0.0.1", 0), _Page) as page:
        serving = threading.Thread(target=page.serve_forever, daemon=True)
        serving.start()
        try:
            url = f"http://127.0.0.1:{page.server_port}/api"
            with pytest.raises(OrchestratorError, match=r"no Prefect API.*PREFECT_API_URL") as refused:
                asyncio.run(check_with(PREFECT_API_URL=url))  # type: ignore[arg-type]
        finally:
            page.shutdown()
            serving.join()
    assert not refused.value.transient


def test_no_address_is_said_instead_of_starting_a_server() -> None:
    with pytest.raises(OrchestratorError, match="no address is set"):
        asyncio.run(check_with(PREFECT_API_URL=None))  # type: ignore[arg-type]


def test_an_old_server_is_told_apart(prefect_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pilotage.telemetry.prefect import http, servers

    monkeypatch.setattr(servers, "OLDEST_SERVER", "3.99.0")
    with pytest.raises(OrchestratorError, match=r"version 3\.\d+\.\d+, and pilotage needs 3\.99\.0 or later"):
        asyncio.run(http.check_server())


def test_a_refused_key_ends_the_collector_with_that_error(prefect_server: Any, store: DuckDBStore) -> None:
    from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

    from pilotage.telemetry.prefect.collector import PrefectCollector

    with (
        temporary_settings({PREFECT_API_AUTH_STRING: "admin:wrong"}),
        pytest.raises(OrchestratorError, match="refused the key"),
    ):
        asyncio.run(PrefectCollector(store).run(asyncio.Event()))
