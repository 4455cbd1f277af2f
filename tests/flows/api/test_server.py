"""The API authenticates everybody, refuses plainly, and never falls over what it is sent."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotage.flows.api.client import ApiClient, ApiRejection, token_for
from pilotage.flows.api.server import AGENTS, PEOPLE, READERS, ApiServer, Operation
from pilotage.flows.config.paths import StatePaths
from pilotage.policies.types import Identity
from pilotage.telemetry.errors import ApiError, StoreError

ANN = Identity(name="ann", kind="user", roles=frozenset({"approver"}))
PLANNER = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))
TOKENS = {"token-of-ann": ANN, "token-of-planner": PLANNER}


async def whoami(caller: Identity) -> dict[str, Any]:
    return {"name": caller.name}


async def echo(caller: Identity, text: str) -> str:
    return text


async def broken(caller: Identity) -> None:
    raise RuntimeError("secret-detail")


async def refusing(caller: Identity) -> None:
    raise StoreError("Reading runs: the file is damaged. Restore it.")


OPERATIONS = {
    "whoami": Operation(run=whoami, roles=READERS),
    "echo": Operation(run=echo, roles=READERS),
    "vote": Operation(run=whoami, roles=PEOPLE),
    "record": Operation(run=whoami, roles=AGENTS),
    "broken": Operation(run=broken, roles=READERS),
    "refusing": Operation(run=refusing, roles=READERS),
}


@pytest.fixture
def control_api(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "desk.sock"
    started, loop = threading.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        server = ApiServer(path, OPERATIONS, TOKENS.get)
        await server.start()
        started.set()
        await stop.wait()
        await server.close()

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(10)
    yield path
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


def test_the_token_alone_says_who_is_calling(control_api: Path) -> None:
    assert ApiClient(control_api, "token-of-ann").call("whoami") == {"name": "ann"}
    assert ApiClient(control_api, "token-of-planner").call("whoami") == {"name": "planner"}


def test_no_argument_can_name_another_person(control_api: Path) -> None:
    with pytest.raises(ApiRejection) as refusal:
        ApiClient(control_api, "token-of-ann").call("whoami", caller="admin")
    assert refusal.value.kind == "bad-request"


@pytest.mark.parametrize(
    ("token", "op", "kind"),
    [
        ("", "whoami", "unknown-identity"),
        ("token-of-eve", "whoami", "unknown-identity"),
        ("token-of-ann", "no-such-thing", "unknown-operation"),
        ("token-of-ann", "record", "wrong-role"),
        ("token-of-planner", "vote", "wrong-role"),
    ],
)
def test_what_may_not_be_asked_is_refused_with_a_reason(
    control_api: Path, token: str, op: str, kind: str
) -> None:
    with pytest.raises(ApiRejection) as refusal:
        ApiClient(control_api, token).call(op)
    assert refusal.value.kind == kind


@pytest.mark.parametrize("sent", [b"\n", b"[]\n", b"{}\n", b"\xff\xfe\n", b'{"token": 1}\n', b"no newline"])
def test_a_malformed_request_gets_an_answer_and_the_desk_goes_on(control_api: Path, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(control_api))
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        reply = connection.makefile("rb").readline()
    assert json.loads(reply)["ok"] is False
    assert ApiClient(control_api, "token-of-ann").call("whoami") == {"name": "ann"}


def test_our_own_error_is_told_in_full_and_a_surprise_only_by_its_kind(control_api: Path) -> None:
    with pytest.raises(ApiRejection, match="Restore it"):
        ApiClient(control_api, "token-of-ann").call("refusing")
    with pytest.raises(ApiRejection, match="RuntimeError") as refusal:
        ApiClient(control_api, "token-of-ann").call("broken")
    assert "secret-detail" not in str(refusal.value)


def test_a_large_answer_arrives_whole(control_api: Path) -> None:
    text = "ä" * 1_000_000
    assert ApiClient(control_api, "token-of-ann").call("echo", text=text) == text


def test_only_this_user_can_open_the_socket(control_api: Path) -> None:
    assert stat.S_IMODE(control_api.stat().st_mode) == 0o600


def test_no_desk_is_an_error_that_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(ApiError, match="pilotage up"):
        ApiClient(tmp_path / "desk.sock", "token").call("whoami")


def test_without_a_token_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PILOTAGE_TOKEN_FILE", raising=False)
    with pytest.raises(ApiError, match="token"):
        token_for(StatePaths(root=tmp_path))
