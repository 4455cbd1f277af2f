"""`pilotage doctor` on a healthy installation beside a real Prefect server, and on ones that were really broken."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from tests.conftest import PrefectServer
from tests.flows.conftest import PrefectProbe
from tests.flows.controller.unwell_server import unwell_server
from typer.testing import CliRunner

from pilotage.console.cli.main import app
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.doctor import gather
from pilotage.flows.doctor.checks import Level, Row, exit_code, run_checks
from pilotage.flows.doctor.facts import DoctorFacts, ServerFacts
from pilotage.flows.doctor.gather import Request, gather_facts
from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE
from pilotage.policies.identity.users import IdentityBook
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.telemetry.prefect import servers

pytestmark = pytest.mark.prefect
EXAMPLES = "pilotage"
"""The pool of the session's worker."""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory with two admins, the first one's token and a ledger."""
    monkeypatch.chdir(tmp_path)
    for name in ("PILOTAGE_STATE_DIR", "PILOTAGE_CONFIG", "PILOTAGE_TOKEN_FILE"):
        monkeypatch.setenv(name, "")  # restored when the test ends, whatever reading the settings sets
        monkeypatch.delenv(name)
    paths = StatePaths(root=tmp_path / "state")
    paths.root.mkdir(mode=0o700)
    book = IdentityBook(paths.users)
    paths.token.write_text(book.add("ada", roles=("admin",)))
    book.add("bob", roles=("admin",))
    SqlLedger(f"sqlite:///{paths.ledger}").close()
    for path in paths.root.iterdir():
        path.chmod(0o600)
    return paths.root


def examine(root: Path, **asked: Any) -> tuple[DoctorFacts, dict[str, Row]]:
    facts = asyncio.run(gather_facts(Request(state_dir=root, **asked)))
    return facts, {row.check: row for row in run_checks(facts)}


def settings(root: Path, **values: str) -> None:
    path = root / "pilotage.toml"
    path.touch(mode=0o600)
    path.write_text(
        "".join(f"{key.replace('__', '.')} = {json.dumps(value)}\n" for key, value in values.items())
    )


def test_a_healthy_installation_beside_a_real_server(
    root: Path, prefect_probe: PrefectProbe, prefect_server: PrefectServer
) -> None:
    facts, _ = examine(root)
    assert facts.api_url == prefect_server.api_url
    assert isinstance(facts.server, ServerFacts)
    # other tests leave pools and deployments of their own on the session's server
    pools = tuple(pool for pool in facts.server.pools if pool.name == EXAMPLES)
    deployments = tuple(each for each in facts.server.deployments if each.name.endswith("/demo"))
    assert [queue.name for pool in pools for queue in pool.queues if queue.name == "high"] == ["high"]
    assert "memory_mb" in pools[0].variables
    assert "settle-trades/demo" in {each.name for each in deployments}
    rows = run_checks(replace(facts, server=replace(facts.server, pools=pools, deployments=deployments)))
    levels = {row.check: row.result.level for row in rows}
    assert not {name: level for name, level in levels.items() if level > Level.NOTE and name != "heartbeats"}
    assert {
        levels[name] for name in ("credentials", "server", "workers", "queues", "memory", "users", "token")
    } == {Level.OK}


def test_a_program_reads_the_same_and_nothing_else(root: Path, prefect_probe: PrefectProbe) -> None:
    ran = CliRunner().invoke(app, ["doctor", "--state-dir", str(root), "--json"])
    told = json.loads(ran.stdout)
    assert (
        ran.exit_code == told["exit_code"] == {"ok": 0, "note": 0, "warning": 1, "broken": 2}[told["worst"]]
    )
    assert {"check", "level", "found", "todo"} == set(told["checks"][0])
    shown = CliRunner().invoke(app, ["doctor", "--state-dir", str(root)])
    assert "what to do" in shown.output
    assert shown.exit_code == ran.exit_code


def test_the_doctor_changes_nothing(root: Path, prefect_probe: PrefectProbe) -> None:
    (root / "loose").touch()
    (root / "loose").chmod(0o644)
    before = {path: (path.stat().st_mode, path.read_bytes()) for path in sorted(root.iterdir())}
    examine(root)
    after = {
        path: (path.stat().st_mode, path.read_bytes())
        for path in sorted(root.iterdir())
        if not path.name.endswith(("-wal", "-shm"))
    }
    assert after == before


def test_the_lines_for_prefect_yaml_are_those_of_the_servers_deployments(prefect_probe: PrefectProbe) -> None:
    told = json.loads(CliRunner().invoke(app, ["doctor", "tags", "--json"]).stdout)
    lines = CliRunner().invoke(app, ["doctor", "tags"]).stdout
    listed = (yaml.safe_load(lines) or {}).get("deployments", []) if told else []
    assert [each["deployment"].partition("/")[2] for each in told] == [each["name"] for each in listed]
    for missing, given in zip(told, listed, strict=True):
        assert given["tags"][: len(missing["tags"])] == missing["tags"]


class Hook(BaseHTTPRequestHandler):
    answer = 202
    heard: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append(json.loads(body))
        self.send_response(self.answer)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hook(answer: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    heard: list[dict[str, Any]] = []
    handler = type("AnyHook", (Hook,), {"answer": answer, "heard": heard})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", heard
        finally:
            server.shutdown()
            serving.join()


def test_a_test_alert_is_sent_only_when_asked_for_and_resolved_at_once(
    root: Path, prefect_probe: PrefectProbe
) -> None:
    with hook(202) as (url, heard):
        settings(root, webhook_url=url, webhook_routing_key="key-1")
        assert "--send-test" in examine(root)[1]["webhook"].result.found
        assert heard == []
        assert examine(root, send_test=True)[1]["webhook"].result.level is Level.OK
    assert [body["event_action"] for body in heard] == ["trigger", "resolve"]
    assert len({body["dedup_key"] for body in heard}) == 1
    assert "nothing is wrong" in heard[0]["payload"]["summary"]


def wrong_setting(root: Path) -> None:
    settings(root, mode="yolo")


def file_in_the_way(root: Path) -> None:
    shutil.rmtree(root)
    root.touch()


def files_for_others(root: Path) -> None:
    (root / "ledger.sqlite").chmod(0o644)


def no_token(root: Path) -> None:
    (root / "token").unlink()


def wrong_token(root: Path) -> None:
    (root / "token").write_text("nobody's")


def no_admin(root: Path) -> None:
    users = root / "users.toml"
    users.write_text(users.read_text().replace('"admin"', '"viewer"'))


def one_admin(root: Path) -> None:
    IdentityBook(root / "users.toml").remove("bob")


def damaged_users(root: Path) -> None:
    (root / "users.toml").write_text("[users\n")


def damaged_ledger(root: Path) -> None:
    (root / "ledger.sqlite").write_bytes(b"no database at all, but a text that is long enough" * 100)


def damaged_policies(root: Path) -> None:
    shutil.copytree(DEFAULT_BUNDLE, root / "mine")
    (root / "mine" / "actions.cedar").write_text("permit (")
    settings(root, policies=str(root / "mine"))


def dead_model(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings(root, llm__base_url=f"http://127.0.0.1:{port}/v1")


BROKEN: dict[str, tuple[Callable[[Path], None], str, Level, str]] = {
    "a wrong setting": (wrong_setting, "settings", Level.BROKEN, "yolo|mode"),
    "a file where the directory should be": (file_in_the_way, "state directory", Level.BROKEN, "is a file"),
    "a ledger that others may read": (files_for_others, "permissions", Level.WARNING, "0644"),
    "no token": (no_token, "token", Level.BROKEN, "no such file"),
    "a wrong token": (wrong_token, "token", Level.BROKEN, "nobody"),
    "no admin": (no_admin, "users", Level.BROKEN, "no admin"),
    "one admin": (one_admin, "users", Level.WARNING, "admin: ada"),
    "a damaged users file": (damaged_users, "users", Level.BROKEN, "TOML"),
    "a damaged ledger": (damaged_ledger, "mode", Level.BROKEN, "ledger"),
    "policies that do not load": (damaged_policies, "policies", Level.BROKEN, "actions.cedar"),
    "a model endpoint that is down": (dead_model, "model", Level.WARNING, "ConnectError"),
}


@pytest.mark.parametrize(("damage", "check", "level", "found"), BROKEN.values(), ids=BROKEN.keys())
def test_what_was_really_broken_is_named(
    damage: Callable[[Path], None],
    check: str,
    level: Level,
    found: str,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a server, which is another row."""
    damage(root)
    with temporary_settings({PREFECT_API_URL: None}):
        _, rows = examine(root)
    row = rows[check]
    assert row.result.level is level
    assert any(word in row.result.found for word in found.split("|"))
    assert row.result.todo


def test_a_webhook_that_refuses_is_named(root: Path, prefect_probe: PrefectProbe) -> None:
    with hook(403) as (url, _):
        settings(root, webhook_url=url)
        row = examine(root, send_test=True)[1]["webhook"]
    assert row.result.level is Level.BROKEN
    assert "403" in row.result.found


def test_a_wrong_key_is_the_credentials_fault_and_not_the_servers(
    root: Path, prefect_probe: PrefectProbe
) -> None:
    with temporary_settings({PREFECT_API_AUTH_STRING: "admin:wrong"}):
        _, rows = examine(root)
    assert rows["credentials"].result.level is Level.BROKEN
    assert "PREFECT_API_AUTH_STRING" in rows["credentials"].result.todo
    assert "server" not in rows


def test_a_server_that_never_answers_is_waited_for_a_while(
    root: Path, prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "PATIENCE", 1.0)
    with unwell_server("never answer") as server, temporary_settings({PREFECT_API_URL: server.api_url}):
        _, rows = examine(root)
    assert rows["server"].result.level is Level.BROKEN
    assert "no answer within 1 s" in rows["server"].result.found
    assert "credentials" not in rows


def test_an_old_server_is_named(
    root: Path, prefect_probe: PrefectProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "OLDEST_SERVER", "3.99.0")
    _, rows = examine(root)
    assert rows["server"].result.level is Level.BROKEN
    assert "pilotage needs 3.99.0 or later" in rows["server"].result.found
    assert exit_code(rows.values()) == 2


def test_no_address_is_named_and_nothing_is_started(root: Path) -> None:
    with temporary_settings({PREFECT_API_URL: None}):
        _, rows = examine(root)
    assert rows["address"].result.level is Level.BROKEN
    assert "PREFECT_API_URL" in rows["address"].result.todo
    assert os.listdir(root)
