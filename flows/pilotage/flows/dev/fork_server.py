"""Import Prefect once and fork every flow run from there: for the demo and for tests, on Linux.

A process that runs a flow imports Prefect first, which takes it longer than the flow itself. A worker of our own
starts `fork_client.py` instead, which asks this server to fork; what runs in the fork is `prefect.engine`, with the
environment, the working directory and the output of the client, as if it had been started there. The fork lives no
longer than its client, and the server no longer than whoever started it.

Run as `python -m pilotage.flows.dev.fork_server PARENT SOCKET [MODULE…]`, as the leader of a process group; PARENT
is the process id of the starter, and each MODULE is imported too before the first fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import shlex
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pilotage.flows.dev import fork_client

PRELOADED = (
    "prefect.main",
    "prefect.engine",
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect.deployments.steps",
    "prefect.deployments.steps.pull",
    "prefect.events.clients",
    "prefect.logging.handlers",
    "prefect.runner",
    "prefect._internal.metrics",
)
"""What a flow run imports before it reaches the flow."""
MAX_SOCKET_PATH = 100
"""Linux takes 107 bytes."""
_LOOK_EVERY = 0.5
"""Seconds between two looks at the starter."""
_PR_SET_PDEATHSIG = 1


def available(path: Path) -> bool:
    """Return whether a fork server can listen at this path on this machine."""
    return sys.platform == "linux" and len(os.fsencode(path)) <= MAX_SOCKET_PATH


def command(path: Path, module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module in a fork of the server at `path`, or by itself where there is none."""
    return [sys.executable, "-S", str(Path(fork_client.__file__)), str(path), module, *arguments]


def shell_command(path: Path, module: str) -> str:
    """Return `command` as one line, as a work pool's template wants it."""
    return shlex.join(command(path, module))


@dataclass(slots=True)
class _Fork:
    process_id: int
    connection: socket.socket


class ForkServer:
    """Serve requests to fork, one after another, in one thread."""

    def __init__(self, path: Path, *, parent: int) -> None:
        self._parent = parent
        self._forks: dict[int, _Fork] = {}
        self._by_connection: dict[socket.socket, _Fork] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        os.chmod(path, 0o600)
        self._listener.listen(64)
        self._wake, self._woken = socket.socketpair()
        for each in (self._wake, self._woken):
            each.setblocking(False)

    def serve(self) -> None:
        """Serve until the starter is gone. Linux then ends the forks."""
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        while os.getppid() == self._parent:
            for key, _ in self._selector.select(_LOOK_EVERY):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._wake:
                    with contextlib.suppress(BlockingIOError):
                        while self._wake.recv(4096):
                            pass
                elif isinstance(key.fileobj, socket.socket):
                    self._hear(key.fileobj)
            self._reap()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(30)
        try:
            header, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
            wanted = int.from_bytes(header, "big")
            body = b""
            while len(body) < wanted:
                part = connection.recv(min(65536, wanted - len(body)))
                if not part:
                    raise ConnectionError("the client left")
                body += part
            request = json.loads(body)
        except (OSError, ValueError):
            connection.close()
            return
        server = os.getpid()
        process_id = os.fork()
        if process_id == 0:
            self._become(server, connection, descriptors, request)
        with contextlib.suppress(OSError):  # the fork does the same: whoever comes first
            os.setpgid(process_id, process_id)
        for descriptor in descriptors:
            os.close(descriptor)
        fork = _Fork(process_id, connection)
        self._forks[process_id] = self._by_connection[connection] = fork
        self._selector.register(connection, selectors.EVENT_READ)

    def _hear(self, connection: socket.socket) -> None:
        """Pass on what the client was sent; when the client is gone, end the fork and all that it started."""
        fork = self._by_connection[connection]
        try:
            received = connection.recv(256)
        except OSError:
            received = b""
        with contextlib.suppress(ProcessLookupError):
            for line in received.split():
                os.kill(fork.process_id, int(line))
            if not received:
                os.killpg(fork.process_id, signal.SIGKILL)
        if not received:
            self._forget(connection)

    def _reap(self) -> None:
        while self._forks:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            process_id = ended.si_pid
            # members that outlived their leader; its number is not given away before it is waited for
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process_id, signal.SIGKILL)
            _, status = os.waitpid(process_id, 0)
            fork = self._forks.pop(process_id)
            if fork.connection in self._by_connection:
                with contextlib.suppress(OSError):
                    fork.connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                self._forget(fork.connection)

    def _forget(self, connection: socket.socket) -> None:
        self._by_connection.pop(connection)
        self._selector.unregister(connection)
        connection.close()

    def _become(
        self, server: int, connection: socket.socket, descriptors: list[int], request: dict[str, Any]
    ) -> NoReturn:
        """Turn this fork into what the client asked for. The code that runs sees a fresh process."""
        code = 1
        try:
            os.setpgid(0, 0)
            _die_with_the_server(server)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for each in (self._listener, self._wake, self._woken, connection, *self._by_connection):
                each.close()
            self._selector.close()
            for target, descriptor in enumerate(descriptors):
                os.dup2(descriptor, target)
                os.close(descriptor)
            os.chdir(request["cwd"])
            os.environ.clear()
            os.environ.update(request["env"])
            _read_settings_again()
            sys.argv = [request["module"], *request["arguments"]]
            sys.path[0] = request["cwd"]
            sys.path[1:1] = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
            runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as exc:
            code = _exit_code(exc)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            _finish(code)


def _exit_code(exc: SystemExit) -> int:
    if exc.code is None or isinstance(exc.code, int):
        return exc.code or 0
    print(exc.code, file=sys.stderr)
    return 1


def _finish(code: int) -> NoReturn:
    """End as the interpreter would: other threads are waited for and exit handlers run, then the process ends."""
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter itself calls before `atexit`
        import atexit

        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _die_with_the_server(server: int) -> None:
    """Ask Linux for SIGKILL when the server dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != server:
        os._exit(1)


def _read_settings_again() -> None:
    # Prefect reads its settings once, when first imported
    import prefect.context

    prefect.context.refresh_global_settings_context()


def main() -> None:
    """Preload, then listen at the path in the second argument."""
    parent, path, *more = int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
    for name in (*PRELOADED, *more):
        with contextlib.suppress(ImportError):  # another version of Prefect may have no such module: no harm
            importlib.import_module(name)
    if threading.active_count() != 1:
        raise SystemExit(f"Forking would lose threads: {[each.name for each in threading.enumerate()]}")
    gc.collect()
    gc.freeze()  # forks share these pages as long as their collector does not go through them
    ForkServer(path, parent=parent).serve()


if __name__ == "__main__":
    main()
