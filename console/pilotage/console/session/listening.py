"""Where a server of people or agents listens, and under which names it answers."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from pilotage.telemetry.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_LOCAL = frozenset({"127.0.0.1", "::1", "localhost"})


def reachable_as(host: str, public_hosts: Sequence[str]) -> list[str]:
    """Return the host names that are answered. Raises ConfigError for an address beyond this host without a name."""
    if host not in _LOCAL and not public_hosts:
        raise ConfigError(
            f"Serving at {host}: that can be reached from elsewhere. Name the host names that people use with "
            "--public-host, and put TLS in front of it."
        )
    return [*LOOPBACK, *public_hosts]


def listening(host: str, port: int) -> socket.socket:
    """Return a bound socket, for port 0 at a free one. Raises ConfigError when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as exc:
        sock.close()
        raise ConfigError(
            f"Serving at {host}:{port}: {exc.strerror}. Choose another with --port, 0 for a free one."
        ) from exc
    return sock
