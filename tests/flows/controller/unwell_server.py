"""A server on loopback that passes on what it is asked, answers 503, or accepts and never answers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlsplit

Manner = Literal["pass on", "answer 503", "never answer"]
_REPLY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy"


class UnwellServer:
    """The server; `manner` may be changed at any time, which breaks what is connected."""

    def __init__(self, manner: Manner, upstream: str = "") -> None:
        self._upstream = (urlsplit(upstream).hostname, urlsplit(upstream).port)
        self._manner = manner
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.asked = threading.Event()
        """Set by each connection that comes in."""
        self.api_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/api"
        threading.Thread(target=self._accept, daemon=True).start()

    def turn(self, manner: Manner) -> None:
        """Behave like this from now on."""
        self._manner = manner
        self.asked.clear()
        self._hang_up()

    def close(self) -> None:
        """Close every socket; the threads end by that."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._hang_up()

    def _hang_up(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._sockets.clear()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(caller)
            self.asked.set()
            match self._manner:
                case "pass on":
                    server = socket.create_connection(self._upstream)
                    self._sockets.append(server)
                    for source, sink in ((caller, server), (server, caller)):
                        threading.Thread(target=_copy, args=(source, sink), daemon=True).start()
                case "answer 503":
                    threading.Thread(target=_refuse, args=(caller,), daemon=True).start()
                case "never answer":
                    pass


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(65536):
            sink.sendall(block)
        sink.shutdown(socket.SHUT_WR)


def _refuse(caller: socket.socket) -> None:
    with contextlib.suppress(OSError):
        caller.recv(65536)
        caller.sendall(_REPLY)
        caller.close()


@contextmanager
def unwell_server(manner: Manner, upstream: str = "") -> Iterator[UnwellServer]:
    """The server until the end of the block."""
    server = UnwellServer(manner, upstream)
    try:
        yield server
    finally:
        server.close()
