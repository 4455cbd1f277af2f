"""Run a Python module in a process forked from the fork server, and behave as that process does.

`python -S fork_client.py SOCKET MODULE ARGS…` ends with the exit code, or by the signal, of the forked process, and
passes signals on to it. Without a server at SOCKET it becomes `python -m MODULE ARGS…`. It imports the standard
library only and takes 20 ms to start, where importing Prefect takes one to three seconds of CPU.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def _connect(path: str) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        return None
    return connection


def _end_by(number: int) -> None:
    """End this process by the signal, without a core file of its own."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), number)


def main() -> int:
    """Return the exit code of the forked process."""
    path, module, *arguments = sys.argv[1:]
    connection = _connect(path)
    if connection is None:
        os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606  what was asked for
    # A signal that comes before the server has forked waits in the socket until it has.
    for number in FORWARDED:
        signal.signal(number, lambda received, _: connection.sendall(f"{int(received)}\n".encode()))
    request = {"module": module, "arguments": arguments, "env": dict(os.environ), "cwd": os.getcwd()}
    body = json.dumps(request).encode()
    header = len(body).to_bytes(8, "big")
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    socket.send_fds(connection, [header], [0, 1, 2])
    connection.sendall(body)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    answer = b""
    while not answer.endswith(b"\n"):
        received = connection.recv(64)
        if not received:
            print("The fork server ended before the process that it forked.", file=sys.stderr)
            return 1
        answer += received
    status = int(answer)  # as subprocess says it: negative for a signal
    if status < 0:
        _end_by(-status)
    return status


if __name__ == "__main__":
    sys.exit(main())
