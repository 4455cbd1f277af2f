"""A scripted OpenAI-compatible server: real sockets for the real client, and no model behind them.

It plays a list of steps, or asks a callable what to reply, and it is strict: a request that the script does
not expect and a reply that nobody fetched are both errors. `requests` shows what a model would have seen.

    with ScriptedLLM([text("hello"), status(429, retry_after=0), cut("half an ans")]) as llm:
        OpenAIModel(base_url=llm.base_url, ...)

Standard library only. `python -m pilotage.planner.llm.scripted.server --port 0` serves the demo's script and prints
its base URL.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from pilotage.planner.llm.scripted.demo_replies import demo_script
from pilotage.planner.llm.scripted.steps import Script, Step, status

FRAGMENT = 7
"""Characters of tool arguments in one streamed piece; real servers cut them anywhere."""
TEAPOT = 418
"""What an unexpected request gets: no client retries it."""


class ScriptedLLM:
    """The server, as a context manager. Leaving it checks that the script was played to its end."""

    def __init__(self, script: Script, *, port: int = 0) -> None:
        self._script: Callable[[dict[str, Any]], Step] | list[Step] = (
            script if callable(script) else list(script)
        )
        self._port = port
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.requests: list[dict[str, Any]] = []
        """Every request body, in the order of arrival."""
        self.errors: list[str] = []
        """What the script did not expect."""
        self.base_url = ""

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", self._port), self)
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.02},
            name="scripted-llm",
            daemon=True,
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if kind is not None:
            return
        unused = 0 if callable(self._script) else len(self._script)
        if self.errors or unused:
            raise AssertionError(
                f"Playing the script: {self.errors or 'all expected'}, {unused} replies never fetched. "
                "Give the script one step for each request, no more."
            )

    def step_for(self, body: dict[str, Any]) -> Step:
        """The reply to one request; a refusal when the script has none."""
        with self._lock:
            self.requests.append(body)
            if callable(self._script):
                return self._script(body)
            if not self._script:
                self.errors.append("a request after the script's end")
                return status(TEAPOT, "the script has no reply left")
            step = self._script.pop(0)
        if step.expects is not None and not step.expects(body):
            self.errors.append("a request that its step did not expect")
            return status(TEAPOT, "the script expected another request")
        return step

    def pause(self, seconds: float) -> None:
        """Waits, but no longer than the server lives."""
        self._closing.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], script: ScriptedLLM) -> None:
        super().__init__(address, _Exchange)
        self.script = script

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that gave up is often the point
            super().handle_error(request, client_address)


@dataclass(slots=True)
class _Pieces:
    """The streamed form of one step."""

    step: Step
    deltas: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.deltas.append({"role": "assistant", "content": ""})
        words = (self.step.content or "").replace(" ", " \0").split("\0")
        self.deltas += [{"content": word} for word in words if word]
        for index, call in enumerate(self.step.tool_calls):
            named = {"name": call["function"]["name"], "arguments": ""}
            self.deltas.append(
                {"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": named}]}
            )
            arguments = call["function"]["arguments"]
            for at in range(0, len(arguments), FRAGMENT):
                part = {"arguments": arguments[at : at + FRAGMENT]}
                self.deltas.append({"tool_calls": [{"index": index, "function": part}]})


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is inherited
        return

    def do_GET(self) -> None:
        models = {"object": "list", "data": [{"id": "scripted", "object": "model"}]}
        self._whole(200, json.dumps(models).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self.path.endswith("/chat/completions"):
            self._whole(404, b'{"error": {"message": "only /chat/completions is served"}}')
            return
        step = self.server.script.step_for(body)
        self.server.script.pause(step.delay)
        envelope = {"id": "chatcmpl-scripted", "created": 1, "model": body.get("model", "scripted")}
        if step.raw is not None:
            self._whole(step.status, step.raw, step.headers, step.content_type)
        elif body.get("stream"):
            wanted = (body.get("stream_options") or {}).get("include_usage", False)
            self._stream(step, envelope, wanted and step.counts)
        else:
            message: dict[str, Any] = {"role": "assistant", "content": step.content}
            if step.tool_calls:
                message["tool_calls"] = list(step.tool_calls)
            choice = {"index": 0, "message": message, "finish_reason": _finish(step)}
            whole = envelope | {"object": "chat.completion", "choices": [choice]}
            whole |= {"usage": _usage(step)} if step.counts else {}
            self._whole(200, json.dumps(whole).encode())

    def _whole(
        self,
        code: int,
        body: bytes,
        headers: tuple[tuple[str, str], ...] = (),
        kind: str = "application/json",
    ) -> None:
        self.send_response(code)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, step: Step, envelope: dict[str, Any], with_usage: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for sent, delta in enumerate(_Pieces(step).deltas):
            if step.cut_after is not None and sent >= step.cut_after:
                self._cut(step)
                return
            self._event(envelope, {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
            self.server.script.pause(step.pace)
        last = {"index": 0, "delta": {}, "finish_reason": _finish(step)}
        self._event(envelope, {"choices": [last]})
        if with_usage:
            self._event(envelope, {"choices": [], "usage": _usage(step)})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _cut(self, step: Step) -> None:
        if step.cut_cleanly:
            self._chunk(b"")
            return
        self.close_connection = True
        # lingering for no time makes closing send a reset instead of a polite end
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _event(self, envelope: dict[str, Any], more: dict[str, Any]) -> None:
        event = envelope | {"object": "chat.completion.chunk"} | more
        self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _chunk(self, payload: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(payload), payload) if payload else b"0\r\n\r\n")
        self.wfile.flush()


def _finish(step: Step) -> str:
    return step.finish or ("tool_calls" if step.tool_calls else "stop")


def _usage(step: Step) -> dict[str, int]:
    prompt, completion = step.usage
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves the demo's script until it is interrupted. Exit code 0."""
    parser = argparse.ArgumentParser(description="A scripted OpenAI-compatible server.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    port: int = parser.parse_args(arguments).port
    try:
        with ScriptedLLM(demo_script, port=port) as llm:
            print(llm.base_url, flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
