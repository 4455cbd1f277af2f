"""`pilotage serve`: the page and the API on loopback, in a process that holds no key to Prefect."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from pilotage.console.session.follower import Watcher
from pilotage.console.session.listening import listening, reachable_as
from pilotage.console.session.ports import User
from pilotage.console.session.services import engine_for, user_with
from pilotage.console.web.app import Federation, create_app
from pilotage.console.web.sessions import Sessions
from pilotage.flows.api.client import ApiClient, token_for
from pilotage.flows.config.paths import StatePaths

CLOSING = 2
"""Seconds that open streams are given at the end."""


def serve(
    where: StatePaths,
    *,
    token_file: Path | None,
    config: Path | None,
    host: str,
    port: int,
    public_hosts: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """Serves until interrupted. `say` is given the address and a one-time link for the person at the terminal.

    Raises ApiError when no `pilotage up` answers, ApiRejection when the token is nobody's, ConfigError when the port
    is taken or the address is not loopback and no host name is given.
    """
    hosts = reachable_as(host, public_hosts)
    token = token_for(where, token_file)
    user = user_with(where, token)
    sock = listening(host, port)
    asyncio.run(_serve(where, user, config, sock, hosts, say))


async def _serve(
    where: StatePaths,
    user: User,
    config: Path | None,
    sock: socket.socket,
    hosts: Sequence[str],
    say: Callable[[str], None],
) -> None:
    engine = engine_for(where, config=config)
    sessions = Sessions()

    def password(name: str, given: str) -> str:
        return str(ApiClient(where.api_socket, "").call("sign_in", name=name, password=given)["token"])

    async def status() -> Mapping[str, Any]:
        reply: Mapping[str, Any] = await engine.ask(user, "status")
        return reply

    stranger = ApiClient(where.api_socket, "")
    federation = Federation(
        offered=lambda: bool(stranger.call("oidc_offered")["oidc"]),
        begin=lambda: stranger.call("oidc_begin"),
        finish=lambda state, code: str(stranger.call("oidc_finish", state=state, code=code)["token"]),
    )
    app = create_app(
        engine,
        identify=lambda each: user_with(where, each),
        password=password,
        sessions=sessions,
        hosts=hosts,
        status=status,
        federation=federation,
    )
    server = _Server(
        uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=CLOSING, server_header=False)
    )
    stop = asyncio.Event()
    watching = asyncio.create_task(Watcher(engine, user, ApiClient(where.api_socket, user.token)).run(stop))
    address, port = sock.getsockname()[:2]
    base = f"http://{address if ':' not in address else f'[{address}]'}:{port}"
    say(f"The console of {where.root} is at {base}/")
    code = sessions.issue_code(user.token)
    say(f"Sign in as {user.name} with this link, once, within ten minutes: {base}/#code={code}")
    try:
        _end_on_signals(server, app.state.tail.close)
        await server.serve(sockets=[sock])
    finally:
        stop.set()
        await asyncio.gather(watching, return_exceptions=True)
        await engine.close()


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn raises them again before what is open here could be closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures nothing."""
        yield


def _end_on_signals(server: uvicorn.Server, close: Callable[[], None]) -> None:
    """Ends the streams as soon as the server is told to stop, for it waits for open connections."""

    def end() -> None:
        close()
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end)
