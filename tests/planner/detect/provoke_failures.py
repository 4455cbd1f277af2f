"""Provoke failures in the libraries that flows use, and record what they print in Prefect's words.

Run with the libraries to be tried installed; a library that is absent is skipped and named on stderr:

    python tests/planner/detect/provoke_failures.py --out texts.jsonl [--postgres]

Each scenario carries its label, which was given before any diagnosis saw its text. Prefect's own functions turn
the exception into a state message, so the words are those of the installed release. Everything runs on loopback;
the few failures of an operating system that cannot be had here (a quota, a stale handle) are raised with its words.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import importlib
import importlib.metadata
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LICENCE = "Apache-2.0"
"""The texts are of our own making: printed by the library when this script makes it fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One way to fail, and what a careful engineer would make of it."""

    name: str
    library: str
    run: Callable[[], object]
    cause: str
    failure_class: str
    remedy: str
    classes_too: tuple[str, ...]
    remedies_too: tuple[str, ...]
    permanent: bool
    wrap: str
    note: str


SCENARIOS: list[Scenario] = []


def fails(
    library: str,
    cause: str,
    label: str,
    remedy: str,
    *,
    classes_too: str = "",
    remedies_too: str = "",
    permanent: bool | None = None,
    wrap: str = "flow",
    note: str = "",
) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """Register a function that fails when it is called, with its label."""

    def register(run: Callable[[], object]) -> Callable[[], object]:
        SCENARIOS.append(
            Scenario(
                name=run.__name__.replace("_", "-"),
                library=library,
                run=run,
                cause=cause,
                failure_class=label,
                remedy=remedy,
                classes_too=tuple(classes_too.split()),
                remedies_too=tuple(remedies_too.split()),
                permanent=remedy == "tell_owner" if permanent is None else permanent,
                wrap=wrap,
                note=note,
            )
        )
        return run

    return register


def lib(name: str) -> Any:
    """Import a library by name: none of them but Prefect's own is a dependency of the project."""
    return importlib.import_module(name)


# --- a server that misbehaves -------------------------------------------------------------------------------

ANSWERS: dict[str, tuple[int, dict[str, str], str]] = {
    "/429": (429, {"Retry-After": "30"}, '{"error": "Too Many Requests"}'),
    "/503": (503, {}, "upstream connect error or disconnect/reset before headers"),
    "/502": (502, {"Content-Type": "text/html"}, "<html><head><title>502 Bad Gateway</title></head></html>"),
    "/504": (504, {}, "upstream request timeout"),
    "/500": (500, {}, '{"detail": "Internal Server Error"}'),
    "/401": (401, {}, '{"message": "Bad credentials"}'),
    "/403": (403, {}, '{"message": "Forbidden"}'),
    "/404": (404, {}, '{"detail": "Not Found"}'),
    "/410": (410, {}, '{"detail": "Gone"}'),
    "/413": (413, {}, "Request Entity Too Large"),
    "/422": (422, {}, '{"detail": [{"loc": ["body", "day"], "msg": "field required", "type": "missing"}]}'),
    "/400": (400, {}, '{"error": "invalid_request", "message": "day must be YYYY-MM-DD"}'),
    "/html": (200, {"Content-Type": "text/html"}, "<html>please log in</html>"),
    "/quota": (403, {}, '{"error": {"code": 403, "errors": [{"reason": "dailyLimitExceeded"}]}}'),
    "/openai-quota/chat/completions": (
        429,
        {"Content-Type": "application/json"},
        '{"error": {"message": "You exceeded your current quota, please check your plan and billing details.",'
        ' "type": "insufficient_quota", "param": null, "code": "insufficient_quota"}}',
    ),
    "/openai-rate/chat/completions": (
        429,
        {"Content-Type": "application/json"},
        '{"error": {"message": "Rate limit reached for gpt-4o in organization org-0 on tokens per min (TPM):'
        ' Limit 30000, Used 29500, Requested 1200. Please try again in 1.4s.", "type": "tokens",'
        ' "param": null, "code": "rate_limit_exceeded"}}',
    ),
    "/openai-key/chat/completions": (
        401,
        {"Content-Type": "application/json"},
        '{"error": {"message": "Incorrect API key provided: sk-***.", "type": "invalid_request_error",'
        ' "param": null, "code": "invalid_api_key"}}',
    ),
    "/openai-long/chat/completions": (
        400,
        {"Content-Type": "application/json"},
        '{"error": {"message": "This model\'s maximum context length is 128000 tokens. However, your messages'
        ' resulted in 140211 tokens. Please reduce the length of the messages.", "type":'
        ' "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}}',
    ),
    "/openai-503/chat/completions": (
        503,
        {"Content-Type": "application/json"},
        '{"error": {"message": "The server is currently overloaded with other requests.", "type":'
        ' "server_error", "param": null, "code": null}}',
    ),
}


class Misbehaving(BaseHTTPRequestHandler):
    """Answer as the path says: a status, a cut body, nothing for long, or a closed connection."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/slow":
            time.sleep(3)
        if path in ("/slow", "/drop"):
            self.close_connection = True
            return
        if path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True
            return
        if path == "/loop":
            self.send_response(302)
            self.send_header("Location", "/loop")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status, headers, body = ANSWERS.get(path, (404, {}, "no such path"))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_PUT = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent."""


WEB = ""
TLS = ""
SILENT_PORT = 0
"""A port that accepts and says nothing."""
CLOSED_PORT = 0
DIRECTORY = Path()


def free_port() -> int:
    """Find a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def self_signed(directory: Path, days: int) -> Path:
    """Write a certificate and its key for `other.example.com`, ending `days` from now."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other.example.com")])
    end = datetime.now(UTC) + timedelta(days=days)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(end - timedelta(days=30))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("other.example.com")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"server{days}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


@contextlib.contextmanager
def surroundings() -> Iterator[None]:
    """Start what the scenarios fail against, and stop it."""
    global WEB, TLS, SILENT_PORT, CLOSED_PORT, DIRECTORY
    with contextlib.ExitStack() as stack:
        DIRECTORY = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pilotage-texts-")))
        DIRECTORY.chmod(0o755)
        for days in (20, -5):
            self_signed(DIRECTORY, days)
        for secure in (False, True):
            server = ThreadingHTTPServer(("127.0.0.1", 0), Misbehaving)
            if secure:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(DIRECTORY / "server20.pem")
                server.socket = context.wrap_socket(server.socket, server_side=True)
                TLS = f"https://localhost:{server.server_port}"
            else:
                WEB = f"http://127.0.0.1:{server.server_port}"
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        SILENT_PORT = silent.getsockname()[1]
        CLOSED_PORT = free_port()
        yield


# --- the standard library -----------------------------------------------------------------------------------


@fails("stdlib", "code", "code_bug", "tell_owner")
def none_has_no_attribute() -> None:
    row: Any = None
    row.strip()


@fails("stdlib", "code", "code_bug", "tell_owner", classes_too="bad_input")
def key_missing() -> None:
    {"id": 1}["customer_id"]


@fails("stdlib", "code", "code_bug", "tell_owner", wrap="task")
def wrong_argument_count() -> None:
    step: Any = lambda a: a  # noqa: E731
    step(1, 2)


@fails("stdlib", "code", "code_bug", "tell_owner", classes_too="bad_input")
def division_by_zero() -> None:
    print(1 / 0)


@fails("stdlib", "code", "code_bug", "tell_owner")
def name_not_defined() -> None:
    eval("total_rows + 1")  # noqa: S307


@fails("stdlib", "code", "code_bug", "tell_owner", wrap="task")
def unbound_local() -> None:
    exec("def f():\n    print(rows)\n    rows = 1\nf()")  # noqa: S102


@fails("stdlib", "code", "code_bug", "tell_owner")
def recursion_too_deep() -> None:
    step: Any = lambda n: step(n + 1)  # noqa: E731
    step(0)


@fails("stdlib", "code", "code_bug", "tell_owner")
def event_loop_is_running() -> None:
    import asyncio

    async def inner() -> None:
        waiting = asyncio.sleep(0)
        try:
            asyncio.run(waiting)
        finally:
            waiting.close()

    asyncio.run(inner())


@fails("stdlib", "code", "code_bug", "tell_owner", classes_too="bad_input", wrap="task")
def int_of_text() -> None:
    int("12,5")


@fails("stdlib", "data", "bad_input", "tell_owner", classes_too="code_bug")
def not_utf8() -> None:
    b"Gr\xfc\xdfe".decode()


@fails("stdlib", "data", "bad_input", "tell_owner")
def json_cut_off() -> None:
    json.loads('{"rows": [1, 2')


@fails("stdlib", "data", "bad_input", "tell_owner", wrap="task")
def csv_field_too_large() -> None:
    import csv

    list(csv.reader(["x" * 200_000]))


@fails("stdlib", "data", "bad_input", "tell_owner", classes_too="code_bug")
def bad_date() -> None:
    import datetime

    datetime.datetime.strptime("2026-13-01", "%Y-%m-%d")  # noqa: DTZ007


@fails("stdlib", "data", "bad_input", "tell_owner")
def not_a_zip() -> None:
    import io
    import zipfile

    zipfile.ZipFile(io.BytesIO(b"PK no"))


@fails("stdlib", "data", "bad_input", "tell_owner", classes_too="transient", remedies_too="retry_later ask")
def gzip_cut_off() -> None:
    import gzip

    gzip.decompress(gzip.compress(b"rows" * 1000)[:-12])


@fails("stdlib", "data", "bad_input", "tell_owner", wrap="task")
def xml_mismatched() -> None:
    lib("xml.etree.ElementTree").fromstring("<rows><row></rows>")


@fails("stdlib", "file absent", "dependency", "tell_owner", remedies_too="retry_later ask", permanent=False)
def input_file_absent() -> None:
    Path("/data/in/orders_20261122.csv").read_text()


@fails("stdlib", "permissions", "auth", "tell_owner", classes_too="environment infrastructure")
def directory_not_writable() -> None:
    raise PermissionError(13, os.strerror(13), "/mnt/exports/daily.parquet")


@fails(
    "stdlib", "disk full", "infrastructure", "tell_owner", classes_too="capacity", remedies_too="retry_later"
)
def no_space_left() -> None:
    with open("/dev/full", "w") as full:
        full.write("rows" * 10_000)


@fails(
    "stdlib", "disk full", "infrastructure", "tell_owner", classes_too="capacity", remedies_too="retry_later"
)
def disk_quota_exceeded() -> None:
    import errno

    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/home/etl/.cache/part-0007")


@fails("stdlib", "platform limits", "infrastructure", "tell_owner", remedies_too="retry_later", wrap="task")
def too_many_open_files() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, before[1]))
    try:
        for _ in range(100):
            kept.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for descriptor in kept:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@fails(
    "stdlib", "storage", "infrastructure", "tell_owner", classes_too="transient", remedies_too="retry_later"
)
def stale_file_handle() -> None:
    import errno

    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), "/mnt/nfs/landing/2026-11-22")


@fails(
    "stdlib",
    "storage",
    "infrastructure",
    "tell_owner",
    classes_too="transient",
    remedies_too="retry_later ask",
)
def input_output_error() -> None:
    import errno

    raise OSError(errno.EIO, os.strerror(errno.EIO), "/mnt/data/chunk-3.bin")


@fails("stdlib", "network", "transient", "retry_now", remedies_too="retry_later", classes_too="dependency")
def refused() -> None:
    socket.create_connection(("127.0.0.1", CLOSED_PORT), timeout=1)


@fails("stdlib", "network", "transient", "retry_now", remedies_too="retry_later", wrap="task")
def broken_pipe() -> None:
    here, there = socket.socketpair()
    there.close()
    with here:
        here.sendall(b"rows")


@fails("stdlib", "network", "transient", "retry_now", remedies_too="retry_later", classes_too="timed_out")
def socket_timed_out() -> None:
    with socket.create_connection(("127.0.0.1", SILENT_PORT)) as connection:
        connection.settimeout(0.05)
        connection.recv(1)


@fails("stdlib", "network", "transient", "retry_later", remedies_too="retry_now", classes_too="dependency")
def no_route_to_host() -> None:
    import errno

    raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))


@fails(
    "stdlib",
    "dns",
    "dependency",
    "tell_owner",
    classes_too="transient bad_input",
    remedies_too="retry_later ask",
)
def name_not_known() -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@fails("stdlib", "network", "transient", "retry_now", remedies_too="retry_later")
def remote_end_closed() -> None:
    lib("urllib.request").urlopen(WEB + "/drop", timeout=2)


@fails("stdlib", "service 5xx", "transient", "retry_now", remedies_too="retry_later", wrap="task")
def urllib_503() -> None:
    lib("urllib.request").urlopen(WEB + "/503", timeout=2)


@fails("stdlib", "certificate", "certificate", "tell_owner", classes_too="auth infrastructure")
def urllib_self_signed() -> None:
    lib("urllib.request").urlopen(TLS + "/404", timeout=2)


@fails("stdlib", "certificate", "certificate", "tell_owner", classes_too="auth infrastructure", wrap="task")
def certificate_of_another_host() -> None:
    context = ssl.create_default_context(cafile=str(DIRECTORY / "server20.pem"))
    port = int(TLS.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as raw:
        context.wrap_socket(raw, server_hostname="localhost")


@fails("stdlib", "certificate", "certificate", "tell_owner", classes_too="auth infrastructure")
def certificate_expired() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(DIRECTORY / "server-5.pem")
    client = ssl.create_default_context(cafile=str(DIRECTORY / "server-5.pem"))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(outgoing, incoming, server_side=True)
    side = client.wrap_bio(incoming, outgoing, server_hostname="other.example.com")
    for _ in range(6):
        for end in (side, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()


@fails("stdlib", "certificate", "certificate", "tell_owner", classes_too="transient bad_input code_bug infrastructure",
       note="plain HTTP where TLS was expected")  # fmt: skip
def tls_to_a_plain_port() -> None:
    lib("urllib.request").urlopen(WEB.replace("http:", "https:"), timeout=2)


@fails("stdlib", "memory", "out_of_memory", "more_memory", classes_too="code_bug bad_input",
       remedies_too="tell_owner", note="asks for more than any machine has")  # fmt: skip
def memory_error() -> None:
    bytearray(1 << 62)


@fails(
    "stdlib",
    "shell",
    "code_bug",
    "tell_owner",
    classes_too="unknown dependency bad_input",
    remedies_too="ask",
)
def command_returned_2() -> None:
    subprocess.run(["sh", "-c", "exit 2"], check=True)


@fails("stdlib", "memory", "out_of_memory", "more_memory", classes_too="crashed",
       remedies_too="retry_later ask retry_now", note="a child killed by SIGKILL")  # fmt: skip
def command_killed() -> None:
    subprocess.run(["sh", "-c", "kill -9 $$"], check=True)


@fails("stdlib", "time limit", "timed_out", "tell_owner", classes_too="transient", remedies_too="retry_later ask retry_now",
       permanent=False)  # fmt: skip
def command_timed_out() -> None:
    subprocess.run(["sleep", "5"], check=True, timeout=0.05)


@fails("stdlib", "image", "environment", "tell_owner", classes_too="infrastructure dependency")
def command_absent() -> None:
    subprocess.run(["ogr2ogr-of-nobody", "--version"], check=True)


@fails("stdlib", "image", "environment", "tell_owner", classes_too="infrastructure", wrap="load")
def module_absent() -> None:
    importlib.import_module("acme_warehouse")


@fails("stdlib", "image", "environment", "tell_owner", classes_too="infrastructure code_bug", wrap="load")
def name_not_importable() -> None:
    exec("from json import parse_rows")  # noqa: S102


@fails("stdlib", "flow code", "environment", "tell_owner", classes_too="code_bug infrastructure", wrap="load")
def syntax_error_in_flow() -> None:
    compile("def flow(:\n    pass\n", "flow.py", "exec")


@fails(
    "stdlib",
    "configuration",
    "environment",
    "tell_owner",
    classes_too="code_bug bad_input infrastructure auth",
)
def environment_variable_absent() -> None:
    os.environ["WAREHOUSE_DSN"]


@fails("stdlib", "code", "code_bug", "tell_owner", wrap="task")
def pickle_of_a_lambda() -> None:
    import pickle

    pickle.dumps(lambda: 1)


@fails("stdlib", "code", "code_bug", "tell_owner", classes_too="unknown bad_input", remedies_too="ask")
def assertion_without_text() -> None:
    rows: list[int] = []
    assert rows


@fails("stdlib", "data", "bad_input", "tell_owner", classes_too="code_bug unknown")
def assertion_on_counts() -> None:
    raise AssertionError("row count mismatch: source=10432 target=10429")


@fails("stdlib", "code", "code_bug", "tell_owner", wrap="task")
def not_serializable() -> None:
    json.dumps({"when": object()})


@fails("sqlite3", "database busy", "transient", "retry_now", remedies_too="retry_later")
def sqlite_locked() -> None:
    import sqlite3

    path = DIRECTORY / "busy.db"
    with contextlib.closing(sqlite3.connect(path)) as first:
        first.execute("create table if not exists t(a)")
        first.execute("begin immediate")
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as second:
            second.execute("begin immediate")


@fails("sqlite3", "schema drift", "code_bug", "tell_owner", classes_too="bad_input dependency")
def sqlite_no_column() -> None:
    import sqlite3

    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("create table t(a)")
        database.execute("select region from t")


@fails("sqlite3", "not idempotent", "bad_input", "tell_owner", classes_too="code_bug", wrap="task")
def sqlite_unique() -> None:
    import sqlite3

    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("create table loads(day primary key)")
        for _ in range(2):
            database.execute("insert into loads values ('2026-11-22')")


@fails("sqlite3", "storage", "infrastructure", "tell_owner", classes_too="bad_input dependency")
def sqlite_malformed() -> None:
    import sqlite3

    path = DIRECTORY / "broken.db"
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4080)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("select * from sqlite_master").fetchall()


@fails("sqlite3", "permissions", "environment", "tell_owner", classes_too="auth infrastructure")
def sqlite_readonly() -> None:
    import sqlite3

    path = DIRECTORY / "fixed.db"
    sqlite3.connect(path).close()
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        database.execute("create table t(a)")


# --- HTTP clients -------------------------------------------------------------------------------------------


def requests_get(path: str, base: str = "", **options: Any) -> None:
    """Fetch with requests and raise for the status."""
    lib("requests").get((base or WEB) + path, timeout=options.pop("timeout", 2), **options).raise_for_status()


def httpx_get(path: str, base: str = "", **options: Any) -> None:
    """Fetch with httpx and raise for the status."""
    lib("httpx").get((base or WEB) + path, timeout=options.pop("timeout", 2), **options).raise_for_status()


def aiohttp_get(path: str, base: str = "", total: float = 2) -> None:
    """Fetch with aiohttp and raise for the status."""
    import asyncio

    aiohttp = lib("aiohttp")

    async def fetch() -> None:
        patience = aiohttp.ClientTimeout(total=total)
        async with (
            aiohttp.ClientSession(timeout=patience) as session,
            session.get((base or WEB) + path) as answer,
        ):
            answer.raise_for_status()
            await answer.read()

    asyncio.run(fetch())


def table_of(library: str, get: Callable[..., None], rows: list[tuple[Any, ...]]) -> None:
    """Register one scenario a row: name, cause, label, remedy, classes too, remedies too, path and options."""
    for index, (name, cause, label, remedy, classes_too, remedies_too, path, options) in enumerate(rows):

        def run(path: str = path, options: dict[str, Any] = options) -> None:
            get(path, **{key: value() if callable(value) else value for key, value in options.items()})

        run.__name__ = f"{library}-{name}"
        fails(
            library,
            cause,
            label,
            remedy,
            classes_too=classes_too,
            remedies_too=remedies_too,
            permanent=remedy == "tell_owner" and "retry" not in remedies_too,
            wrap="task" if index % 3 == 2 else "flow",
        )(run)


REFUSED: dict[str, Any] = {"base": lambda: f"http://127.0.0.1:{CLOSED_PORT}"}
SECURE: dict[str, Any] = {"base": lambda: TLS}
NOWHERE: dict[str, Any] = {"base": "http://warehouse.invalid"}

table_of(
    "requests",
    requests_get,
    [
        ("429", "rate limit", "rate_limited", "retry_later", "", "", "/429", {}),
        ("502", "service 5xx", "transient", "retry_now", "", "retry_later", "/502", {}),
        ("500", "service 5xx", "transient", "retry_later", "dependency", "retry_now ask", "/500", {}),
        ("401", "auth", "auth", "tell_owner", "", "", "/401", {}),
        ("403", "auth", "auth", "tell_owner", "", "", "/403", {}),
        ("404", "absent", "dependency", "tell_owner", "bad_input code_bug", "retry_later ask", "/404", {}),
        ("413", "data", "bad_input", "tell_owner", "code_bug", "", "/413", {}),
        ("400", "data", "bad_input", "tell_owner", "code_bug", "", "/400", {}),
        ("read-timeout", "network", "transient", "retry_now", "timed_out", "retry_later", "/slow", {"timeout": 0.1}),
        ("dropped", "network", "transient", "retry_now", "", "retry_later", "/drop", {}),
        ("cut-body", "network", "transient", "retry_now", "", "retry_later", "/cut", {}),
        ("refused", "network", "transient", "retry_now", "dependency", "retry_later", "/x", REFUSED),
        ("self-signed", "certificate", "certificate", "tell_owner", "auth infrastructure", "", "/x", SECURE),
        ("redirect-loop", "absent", "code_bug", "tell_owner", "bad_input dependency auth", "ask", "/loop", {}),
        ("no-scheme", "code", "code_bug", "tell_owner", "bad_input", "", "/x", {"base": "warehouse.internal"}),
        ("no-such-host", "dns", "dependency", "retry_later", "transient bad_input", "retry_now tell_owner ask", "/x",
         NOWHERE),
    ],
)  # fmt: skip
table_of(
    "httpx",
    httpx_get,
    [
        ("429", "rate limit", "rate_limited", "retry_later", "", "", "/429", {}),
        ("503", "service 5xx", "transient", "retry_now", "", "retry_later", "/503", {}),
        ("504", "service 5xx", "transient", "retry_now", "timed_out", "retry_later", "/504", {}),
        ("401", "auth", "auth", "tell_owner", "", "", "/401", {}),
        ("410", "absent", "dependency", "tell_owner", "bad_input code_bug", "ask", "/410", {}),
        ("422", "data", "bad_input", "tell_owner", "code_bug", "", "/422", {}),
        ("read-timeout", "network", "transient", "retry_now", "timed_out", "retry_later", "/slow", {"timeout": 0.1}),
        ("dropped", "network", "transient", "retry_now", "", "retry_later", "/drop", {}),
        ("cut-body", "network", "transient", "retry_now", "", "retry_later", "/cut", {}),
        ("refused", "network", "transient", "retry_now", "dependency", "retry_later", "/x", REFUSED),
        ("self-signed", "certificate", "certificate", "tell_owner", "auth infrastructure", "", "/x", SECURE),
        ("bad-scheme", "code", "code_bug", "tell_owner", "bad_input", "", "/x", {"base": "ftp://files"}),
    ],
)  # fmt: skip
table_of(
    "aiohttp",
    aiohttp_get,
    [
        ("429", "rate limit", "rate_limited", "retry_later", "", "", "/429", {}),
        ("503", "service 5xx", "transient", "retry_now", "", "retry_later", "/503", {}),
        ("403", "auth", "auth", "tell_owner", "", "", "/403", {}),
        ("dropped", "network", "transient", "retry_now", "", "retry_later", "/drop", {}),
        (
            "total-timeout",
            "network",
            "transient",
            "retry_now",
            "timed_out",
            "retry_later",
            "/slow",
            {"total": 0.1},
        ),
        ("refused", "network", "transient", "retry_now", "dependency", "retry_later", "/x", REFUSED),
        ("self-signed", "certificate", "certificate", "tell_owner", "auth infrastructure", "", "/x", SECURE),
    ],
)


@fails(
    "requests",
    "data",
    "bad_input",
    "tell_owner",
    classes_too="transient dependency auth",
    remedies_too="retry_later ask",
)
def requests_html_for_json() -> None:
    lib("requests").get(WEB + "/html", timeout=2).json()


@fails("urllib3", "service 5xx", "transient", "retry_later", remedies_too="retry_now", wrap="task")
def urllib3_retries_spent() -> None:
    urllib3 = lib("urllib3")
    retries = urllib3.Retry(total=1, status_forcelist=[503], backoff_factor=0)
    urllib3.PoolManager().request("GET", WEB + "/503", retries=retries)


@fails("urllib3", "network", "transient", "retry_later", remedies_too="retry_now", classes_too="dependency")
def urllib3_refused() -> None:
    lib("urllib3").PoolManager().request("GET", f"http://127.0.0.1:{CLOSED_PORT}/x", retries=1)


def ask_openai(which: str) -> None:
    """Ask the model API that answers as `which` says."""
    client = lib("openai").OpenAI(base_url=f"{WEB}/openai-{which}", api_key="none", max_retries=0)
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])


table_of(
    "openai",
    lambda path: ask_openai(path),
    [
        ("quota", "quota spent", "quota_spent", "tell_owner", "rate_limited", "", "quota", {}),
        ("rate", "rate limit", "rate_limited", "retry_later", "", "retry_now", "rate", {}),
        ("key", "auth", "auth", "tell_owner", "", "", "key", {}),
        ("long", "data", "bad_input", "tell_owner", "code_bug", "", "long", {}),
        ("503", "service 5xx", "transient", "retry_later", "rate_limited", "retry_now", "503", {}),
    ],
)


# --- data frames and files ----------------------------------------------------------------------------------


@fails("numpy", "memory", "out_of_memory", "more_memory", remedies_too="tell_owner")
def numpy_too_large() -> None:
    lib("numpy").zeros((600_000, 400_000))


@fails("numpy", "code", "code_bug", "tell_owner", classes_too="bad_input", wrap="task")
def numpy_shapes() -> None:
    numpy = lib("numpy")
    numpy.zeros((3, 2)) + numpy.zeros((4, 2))


@fails("pandas", "schema drift", "bad_input", "tell_owner", classes_too="code_bug")
def pandas_column_absent() -> None:
    lib("pandas").DataFrame({"a": [1]})["unit_price"]


@fails("pandas", "schema drift", "bad_input", "tell_owner", classes_too="code_bug", wrap="task")
def pandas_columns_absent() -> None:
    lib("pandas").DataFrame({"a": [1]})[["order_id", "sku"]]


@fails("pandas", "data", "bad_input", "tell_owner")
def pandas_empty_file() -> None:
    import io

    lib("pandas").read_csv(io.StringIO(""))


@fails("pandas", "data", "bad_input", "tell_owner")
def pandas_ragged_csv() -> None:
    import io

    lib("pandas").read_csv(io.StringIO("a,b\n1,2\n1,2,3,4\n"))


@fails("pandas", "data", "bad_input", "tell_owner", classes_too="code_bug", wrap="task")
def pandas_nan_to_int() -> None:
    lib("pandas").Series([1.0, None]).astype(int)


@fails("pandas", "data", "bad_input", "tell_owner", classes_too="code_bug")
def pandas_bad_date() -> None:
    lib("pandas").to_datetime(["2026-02-31"], format="%Y-%m-%d")


@fails("pandas", "data", "bad_input", "tell_owner", classes_too="code_bug", wrap="task")
def pandas_merge_not_unique() -> None:
    pandas = lib("pandas")
    left, right = pandas.DataFrame({"k": [1, 1]}), pandas.DataFrame({"k": [1, 1]})
    left.merge(right, on="k", validate="one_to_one")


@fails("pandas", "code", "code_bug", "tell_owner")
def pandas_truth_of_series() -> None:
    bool(lib("pandas").Series([1, 2]) > 1)


@fails("pandas", "image", "environment", "tell_owner", classes_too="infrastructure code_bug")
def pandas_optional_dependency() -> None:
    lib("pandas").DataFrame({"a": [1]}).to_hdf(str(DIRECTORY / "x.h5"), key="a")


@fails("polars", "schema drift", "bad_input", "tell_owner", classes_too="code_bug")
def polars_column_absent() -> None:
    lib("polars").DataFrame({"a": [1]}).select("unit_price")


@fails("polars", "data", "bad_input", "tell_owner", classes_too="code_bug", wrap="task")
def polars_strict_cast() -> None:
    polars = lib("polars")
    polars.DataFrame({"amount": ["12", "n/a"]}).with_columns(polars.col("amount").cast(polars.Int64))


@fails("polars", "data", "bad_input", "tell_owner", classes_too="code_bug")
def polars_stack_mismatch() -> None:
    polars = lib("polars")
    polars.concat([polars.DataFrame({"a": [1]}), polars.DataFrame({"a": ["x"]})])


@fails("polars", "data", "bad_input", "tell_owner")
def polars_not_parquet() -> None:
    path = DIRECTORY / "broken.parquet"
    path.write_bytes(b"not parquet at all")
    lib("polars").read_parquet(path)


@fails("pyarrow", "data", "bad_input", "tell_owner")
def pyarrow_not_parquet() -> None:
    path = DIRECTORY / "cut.parquet"
    path.write_bytes(b"PAR1" + b"\0" * 20)
    lib("pyarrow.parquet").read_table(path)


@fails("pyarrow", "schema drift", "bad_input", "tell_owner", classes_too="code_bug", wrap="task")
def pyarrow_field_absent() -> None:
    lib("pyarrow").table({"a": [1]}).cast(lib("pyarrow").schema([("b", "int64")]))


@fails("pyarrow", "data", "bad_input", "tell_owner", classes_too="code_bug")
def pyarrow_overflow() -> None:
    lib("pyarrow").array([300], type=lib("pyarrow").int8())


@fails("pyarrow", "data", "bad_input", "tell_owner", classes_too="code_bug")
def pyarrow_mixed() -> None:
    lib("pyarrow").array([1, "x"])


@fails("pandera", "data", "bad_input", "tell_owner")
def pandera_check() -> None:
    pandera, pandas = lib("pandera.pandas"), lib("pandas")
    schema = pandera.DataFrameSchema({"price": pandera.Column(float, pandera.Check.ge(0))})
    schema.validate(pandas.DataFrame({"price": [1.0, -3.0]}))


@fails("pandera", "schema drift", "bad_input", "tell_owner", wrap="task")
def pandera_column_absent() -> None:
    pandera, pandas = lib("pandera.pandas"), lib("pandas")
    pandera.DataFrameSchema({"price": pandera.Column(float)}).validate(pandas.DataFrame({"cost": [1.0]}))


@fails("pandera", "data", "bad_input", "tell_owner")
def pandera_lazy() -> None:
    pandera, pandas = lib("pandera.pandas"), lib("pandas")
    schema = pandera.DataFrameSchema({"price": pandera.Column(float, pandera.Check.ge(0), nullable=False)})
    schema.validate(pandas.DataFrame({"price": [None, -3.0]}), lazy=True)


@fails("scikit-learn", "data", "bad_input", "tell_owner", classes_too="code_bug")
def sklearn_nan() -> None:
    lib("sklearn.linear_model").LinearRegression().fit([[float("nan")], [1.0]], [0, 1])


@fails("scikit-learn", "schema drift", "bad_input", "tell_owner", classes_too="code_bug", wrap="task")
def sklearn_feature_count() -> None:
    lib("sklearn.linear_model").LinearRegression().fit([[1.0], [2.0]], [0, 1]).predict([[1.0, 2.0]])


@fails("scikit-learn", "code", "code_bug", "tell_owner")
def sklearn_not_fitted() -> None:
    lib("sklearn.linear_model").LinearRegression().predict([[1.0]])


@fails("duckdb", "schema drift", "bad_input", "tell_owner", classes_too="code_bug dependency")
def duckdb_no_column() -> None:
    lib("duckdb").sql("select region from (select 1 as a)").fetchall()


@fails(
    "duckdb",
    "absent",
    "dependency",
    "tell_owner",
    classes_too="code_bug bad_input",
    remedies_too="retry_later ask",
)
def duckdb_no_table() -> None:
    lib("duckdb").sql("select * from stg_orders").fetchall()


@fails("duckdb", "data", "bad_input", "tell_owner", classes_too="code_bug", wrap="task")
def duckdb_conversion() -> None:
    lib("duckdb").sql("select cast('n/a' as integer)").fetchall()


@fails("duckdb", "memory", "out_of_memory", "more_memory", remedies_too="tell_owner")
def duckdb_memory() -> None:
    base = lib("duckdb").connect(config={"memory_limit": "20MB", "temp_directory": ""})
    base.sql("create table t as select range a, repeat('x', 500) b from range(2000000)")


@fails(
    "duckdb",
    "database busy",
    "transient",
    "retry_later",
    remedies_too="retry_now",
    classes_too="infrastructure",
)
def duckdb_file_locked() -> None:
    path = str(DIRECTORY / "one.duckdb")
    holder = subprocess.Popen(
        [sys.executable, "-c",
         f"import duckdb,sys; c=duckdb.connect({path!r}); print('held', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        lib("duckdb").connect(path)
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()


@fails(
    "duckdb", "absent", "dependency", "tell_owner", remedies_too="retry_later ask", classes_too="bad_input"
)
def duckdb_no_files() -> None:
    lib("duckdb").sql("select * from read_parquet('/landing/2026-11-22/*.parquet')").fetchall()


@fails("openpyxl", "data", "bad_input", "tell_owner")
def openpyxl_not_a_workbook() -> None:
    path = DIRECTORY / "report.xlsx"
    path.write_bytes(b"<html>please log in</html>")
    lib("openpyxl").load_workbook(path)


@fails("openpyxl", "absent", "bad_input", "tell_owner", classes_too="dependency code_bug", wrap="task")
def openpyxl_no_sheet() -> None:
    lib("openpyxl").Workbook()["Umsatz"]


# --- validation and configuration ---------------------------------------------------------------------------


@fails("pydantic", "parameters", "bad_input", "tell_owner", wrap="parameters")
def pydantic_wrong_type() -> None:
    pydantic = lib("pydantic")
    pydantic.create_model("Order", quantity=(int, ...), day=(str, ...))(quantity="many")


@fails(
    "pydantic", "configuration", "environment", "tell_owner", classes_too="bad_input code_bug infrastructure"
)
def settings_absent() -> None:
    settings = lib("pydantic_settings")
    created: Any = type(
        "Settings",
        (settings.BaseSettings,),
        {"__annotations__": {"warehouse_url": str}, "__module__": __name__},
    )
    created()


@fails("jsonschema", "data", "bad_input", "tell_owner")
def jsonschema_required() -> None:
    lib("jsonschema").validate({"id": 1}, {"type": "object", "required": ["currency"]})


@fails("pyyaml", "configuration", "bad_input", "tell_owner", classes_too="code_bug environment")
def yaml_broken() -> None:
    lib("yaml").safe_load("tables:\n  - a\n - b: [")


@fails("jinja2", "code", "code_bug", "tell_owner", classes_too="bad_input", wrap="task")
def jinja_undefined() -> None:
    jinja2 = lib("jinja2")
    jinja2.Template("{{ run.day }}", undefined=jinja2.StrictUndefined).render()


@fails("jinja2", "absent", "environment", "tell_owner", classes_too="code_bug dependency infrastructure")
def jinja_template_absent() -> None:
    jinja2 = lib("jinja2")
    jinja2.Environment(loader=jinja2.DictLoader({}), autoescape=True).get_template("daily.sql.j2")


@fails("jwt", "auth", "auth", "tell_owner")
def jwt_wrong_signature() -> None:
    jwt = lib("jwt")
    jwt.decode(jwt.encode({"sub": "etl"}, "a" * 32), "b" * 32, algorithms=["HS256"])


@fails("cryptography", "auth", "auth", "tell_owner", classes_too="bad_input environment")
def fernet_other_key() -> None:
    fernet = lib("cryptography.fernet").Fernet
    fernet(fernet.generate_key()).decrypt(fernet(fernet.generate_key()).encrypt(b"secret"))


@fails("tenacity", "network", "transient", "retry_later", classes_too="dependency", remedies_too="retry_now",
       note="the root stands in the cause")  # fmt: skip
def tenacity_spent() -> None:
    tenacity = lib("tenacity")

    @tenacity.retry(stop=tenacity.stop_after_attempt(2))  # type: ignore[untyped-decorator]
    def step() -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    step()


# --- databases, brokers, stores -----------------------------------------------------------------------------


@fails("sqlalchemy", "schema drift", "code_bug", "tell_owner", classes_too="bad_input dependency")
def sqlalchemy_no_table() -> None:
    sqlalchemy = lib("sqlalchemy")
    with sqlalchemy.create_engine("sqlite://").connect() as connection:
        connection.execute(sqlalchemy.text("select * from dim_customer"))


@fails("sqlalchemy", "database busy", "transient", "retry_later", remedies_too="retry_now",
       classes_too="infrastructure code_bug capacity")  # fmt: skip
def sqlalchemy_pool_spent() -> None:
    sqlalchemy = lib("sqlalchemy")
    engine = sqlalchemy.create_engine(
        f"sqlite:///{DIRECTORY}/pool.db", poolclass=sqlalchemy.pool.QueuePool, pool_size=1, max_overflow=0,
        pool_timeout=0.05)  # fmt: skip
    with engine.connect():
        engine.connect()


@fails(
    "sqlalchemy",
    "image",
    "environment",
    "tell_owner",
    classes_too="infrastructure code_bug bad_input",
    wrap="task",
)
def sqlalchemy_no_dialect() -> None:
    lib("sqlalchemy").create_engine("teradatasql2://host/db")


@fails("sqlalchemy", "not idempotent", "bad_input", "tell_owner", classes_too="code_bug")
def sqlalchemy_not_null() -> None:
    sqlalchemy = lib("sqlalchemy")
    with sqlalchemy.create_engine("sqlite://").connect() as connection:
        connection.execute(sqlalchemy.text("create table orders(id integer not null)"))
        connection.execute(sqlalchemy.text("insert into orders values (null)"))


@fails("pymysql", "network", "transient", "retry_later", remedies_too="retry_now", classes_too="dependency")
def pymysql_refused() -> None:
    lib("pymysql").connect(host="127.0.0.1", port=CLOSED_PORT)


@fails("redis", "network", "transient", "retry_later", remedies_too="retry_now", classes_too="dependency")
def redis_refused() -> None:
    lib("redis").Redis(port=CLOSED_PORT).ping()


@fails(
    "redis",
    "network",
    "transient",
    "retry_now",
    remedies_too="retry_later",
    classes_too="timed_out",
    wrap="task",
)
def redis_timeout() -> None:
    retry = lib("redis.retry").Retry(lib("redis.backoff").NoBackoff(), 0)
    lib("redis").Redis(port=SILENT_PORT, socket_timeout=0.05, retry=retry).ping()


@fails("pymongo", "network", "transient", "retry_later", remedies_too="retry_now", classes_too="dependency")
def pymongo_refused() -> None:
    lib("pymongo").MongoClient(port=CLOSED_PORT, serverSelectionTimeoutMS=60).admin.command("ping")


@fails("kafka", "network", "transient", "retry_later", remedies_too="retry_now", classes_too="dependency")
def kafka_no_brokers() -> None:
    lib("kafka").KafkaProducer(bootstrap_servers=f"127.0.0.1:{CLOSED_PORT}", api_version_auto_timeout_ms=100)


@fails("grpc", "network", "transient", "retry_now", remedies_too="retry_later", classes_too="dependency")
def grpc_unavailable() -> None:
    with lib("grpc").insecure_channel(f"127.0.0.1:{CLOSED_PORT}") as channel:
        channel.unary_unary("/jobs.Jobs/Run")(b"", timeout=2)


@fails(
    "grpc",
    "network",
    "transient",
    "retry_now",
    remedies_too="retry_later",
    classes_too="timed_out",
    wrap="task",
)
def grpc_deadline() -> None:
    with lib("grpc").insecure_channel(f"127.0.0.1:{SILENT_PORT}") as channel:
        channel.unary_unary("/jobs.Jobs/Run")(b"", timeout=0.2, wait_for_ready=True)


@fails("paramiko", "network", "transient", "retry_now", remedies_too="retry_later", classes_too="dependency")
def paramiko_refused() -> None:
    lib("paramiko").SSHClient().connect("127.0.0.1", port=CLOSED_PORT, timeout=1)


@fails("paramiko", "data", "auth", "tell_owner", classes_too="bad_input environment")
def paramiko_bad_key() -> None:
    path = DIRECTORY / "id_broken"
    path.write_text("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n")
    lib("paramiko").RSAKey.from_private_key_file(str(path))


@fails(
    "clickhouse", "network", "transient", "retry_later", remedies_too="retry_now", classes_too="dependency"
)
def clickhouse_refused() -> None:
    lib("clickhouse_connect").get_client(host="127.0.0.1", port=CLOSED_PORT)


@fails("oracledb", "network", "transient", "retry_later", remedies_too="retry_now", classes_too="dependency")
def oracle_refused() -> None:
    lib("oracledb").connect(user="etl", password="none", dsn=f"127.0.0.1:{CLOSED_PORT}/orcl")


AWS = {"aws_access_key_id": "AKIA-NONE", "aws_secret_access_key": "none", "region_name": "eu-west-1"}


@fails("boto3", "auth", "auth", "tell_owner", classes_too="environment")
def boto_no_credentials() -> None:
    session = lib("botocore.session").Session(profile=None)
    session.set_config_variable("region", "eu-west-1")
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    session.create_client("s3").list_buckets()


@fails("boto3", "network", "transient", "retry_later", remedies_too="retry_now", classes_too="dependency")
def boto_refused() -> None:
    config = lib("botocore.config").Config(retries={"max_attempts": 0})
    lib("boto3").client(
        "s3", endpoint_url=f"http://127.0.0.1:{CLOSED_PORT}", config=config, **AWS
    ).list_buckets()


@fails("boto3", "code", "code_bug", "tell_owner", classes_too="bad_input", wrap="task")
def boto_parameters() -> None:
    lib("boto3").client("s3", **AWS).put_object(Bucket="acme", Body=b"")


@fails("boto3", "configuration", "environment", "tell_owner", classes_too="bad_input code_bug infrastructure")
def boto_no_region() -> None:
    lib("botocore.session").Session(profile=None).create_client("sqs")


@fails(
    "moto",
    "absent",
    "dependency",
    "tell_owner",
    classes_too="bad_input code_bug",
    remedies_too="retry_later ask",
)
def s3_no_such_key() -> None:
    with lib("moto").mock_aws():
        s3 = lib("boto3").client("s3", **AWS)
        s3.create_bucket(Bucket="acme", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        s3.get_object(Bucket="acme", Key="in/2026-11-22.csv")


@fails(
    "moto", "absent", "bad_input", "tell_owner", classes_too="dependency environment code_bug", wrap="task"
)
def s3_no_such_bucket() -> None:
    with lib("moto").mock_aws():
        lib("boto3").client("s3", **AWS).list_objects_v2(Bucket="acme-landing")


@fails("moto", "absent", "dependency", "tell_owner", classes_too="bad_input code_bug environment")
def dynamo_no_table() -> None:
    with lib("moto").mock_aws():
        lib("boto3").client("dynamodb", **AWS).get_item(TableName="runs", Key={"id": {"S": "1"}})


@fails("moto", "not idempotent", "bad_input", "tell_owner", classes_too="code_bug", wrap="task")
def dynamo_condition() -> None:
    with lib("moto").mock_aws():
        dynamo = lib("boto3").client("dynamodb", **AWS)
        dynamo.create_table(
            TableName="runs", BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}])  # fmt: skip
        for _ in range(2):
            dynamo.put_item(
                TableName="runs", Item={"id": {"S": "1"}}, ConditionExpression="attribute_not_exists(id)"
            )


@fails(
    "moto",
    "absent",
    "environment",
    "tell_owner",
    classes_too="dependency auth bad_input infrastructure code_bug",
)
def secret_absent() -> None:
    with lib("moto").mock_aws():
        lib("boto3").client("secretsmanager", **AWS).get_secret_value(SecretId="warehouse/password")


@fails(
    "fsspec",
    "absent",
    "dependency",
    "tell_owner",
    classes_too="bad_input",
    remedies_too="retry_later ask",
    wrap="task",
)
def fsspec_absent() -> None:
    lib("fsspec").filesystem("memory").open("landing/2026-11-22.json")


@fails("fsspec", "image", "environment", "tell_owner", classes_too="code_bug bad_input infrastructure")
def fsspec_protocol() -> None:
    lib("fsspec").filesystem("s4")


@fails("git", "flow code", "environment", "tell_owner", classes_too="infrastructure auth", wrap="pull")
def git_repository_absent() -> None:
    clone(str(DIRECTORY / "no-such-repository.git"))


@fails("git", "network", "transient", "retry_later", classes_too="infrastructure environment dependency",
       remedies_too="retry_now", wrap="pull")  # fmt: skip
def git_refused() -> None:
    clone(f"http://127.0.0.1:{CLOSED_PORT}/acme/flows.git")


@fails(
    "git",
    "service 5xx",
    "transient",
    "retry_now",
    classes_too="infrastructure",
    remedies_too="retry_later",
    wrap="pull",
)
def git_502() -> None:
    clone(WEB + "/502")


@fails(
    "git", "flow code", "environment", "tell_owner", classes_too="infrastructure auth dependency", wrap="pull"
)
def git_404() -> None:
    clone(WEB + "/404")


@fails(
    "git",
    "certificate",
    "certificate",
    "tell_owner",
    classes_too="infrastructure environment auth",
    wrap="pull",
)
def git_self_signed() -> None:
    clone(TLS + "/acme/flows.git")


def clone(url: str) -> None:
    """Clone as Prefect's pull step does, and fail in its words."""
    done = subprocess.run(
        ["git", "clone", "--depth", "1", url, str(DIRECTORY / "clone")],
        capture_output=True, text=True, env={**os.environ, "GIT_TERMINAL_PROMPT": "0"}, check=False)  # fmt: skip
    raise RuntimeError(
        f"Failed to clone repository {url!r} with exit code {done.returncode}.\nError: {done.stderr.strip()}"
    )


# --- PostgreSQL ---------------------------------------------------------------------------------------------

POSTGRES = ""


@contextlib.contextmanager
def postgres() -> Iterator[None]:
    """Start a PostgreSQL of this machine with narrow limits, and stop it."""
    global POSTGRES
    initdb, server = shutil.which("initdb"), shutil.which("postgres")
    if initdb is None or server is None:
        print("skipped: PostgreSQL is not installed", file=sys.stderr)
        yield
        return
    with tempfile.TemporaryDirectory(prefix="pilotage-pg-") as directory:
        as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            shutil.chown(directory, "postgres")
            as_user = {"user": "postgres"}
        data, port = f"{directory}/data", free_port()
        pipe: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
        subprocess.run([initdb, "-D", data, "-U", "etl", "-A", "trust"], check=True, **pipe, **as_user)
        hba = Path(data, "pg_hba.conf")
        hba.write_text(
            "host all locked 127.0.0.1/32 scram-sha-256\nhost forbidden all 127.0.0.1/32 reject\n"
            "host all all 127.0.0.1/32 trust\n"
        )
        settings = [f"port={port}", "listen_addresses=127.0.0.1", "max_connections=6", "fsync=off",
                    "superuser_reserved_connections=1", f"unix_socket_directories={directory}",
                    "deadlock_timeout=50ms", "work_mem=64kB", "temp_file_limit=1024"]  # fmt: skip
        running = subprocess.Popen(
            [server, "-D", data, *(part for setting in settings for part in ("-c", setting))],
            **pipe,
            **as_user,
        )
        POSTGRES = f"host=127.0.0.1 port={port} dbname=postgres user=etl"
        psycopg = lib("psycopg")
        try:
            for _ in range(100):
                with contextlib.suppress(psycopg.OperationalError), psycopg.connect(POSTGRES) as connection:
                    connection.execute("create role locked login password 'right'")
                    connection.execute("create role reader login")
                    connection.execute(
                        "create table accounts(id int primary key, amount numeric(5,2) not null)"
                    )
                    connection.execute("insert into accounts values (1, 1), (2, 2)")
                    break
                time.sleep(0.1)
            yield
        finally:
            running.terminate()
            running.wait()
            POSTGRES = ""


def sql(*statements: str, who: str = "", library: str = "psycopg") -> None:
    """Run statements in one session of PostgreSQL."""
    if not POSTGRES:
        raise ModuleNotFoundError("no PostgreSQL: run with --postgres")
    with contextlib.closing(lib(library).connect(f"{POSTGRES} {who}")) as connection:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)


def two_sessions(first: list[str], second: list[str], then_first: str, then_second: str) -> None:
    """Let two transactions meet: the second statement of the first runs beside that of the second."""
    if not POSTGRES:
        raise ModuleNotFoundError("no PostgreSQL: run with --postgres")
    psycopg = lib("psycopg")
    with contextlib.ExitStack() as stack:
        one, two = (stack.enter_context(contextlib.closing(psycopg.connect(POSTGRES))) for _ in range(2))
        for connection, statements in ((one, first), (two, second)):
            for statement in statements:
                connection.execute(statement)
        errors: list[Exception] = []

        def other() -> None:
            try:
                two.execute(then_second)
                two.commit()
            except Exception as error:
                errors.append(error)

        beside = threading.Thread(target=other)
        beside.start()
        time.sleep(0.3)
        try:
            one.execute(then_first)
            one.commit()
        except Exception as error:
            errors.append(error)
        beside.join(5)
        if errors:
            raise errors[0]


table_of(
    "psycopg",
    lambda path, **options: sql(*path.split(";"), **options),
    [
        ("unique", "not idempotent", "bad_input", "tell_owner", "code_bug", "",
         "insert into accounts values (1, 5)", {}),
        ("overflow", "data", "bad_input", "tell_owner", "code_bug", "", "insert into accounts values (9, 123456)", {}),
        ("not-null", "data", "bad_input", "tell_owner", "code_bug", "", "insert into accounts values (9, null)", {}),
        ("no-table", "absent", "dependency", "tell_owner", "code_bug bad_input", "retry_later ask",
         "select * from stg_payments", {}),
        ("no-column", "schema drift", "code_bug", "tell_owner", "bad_input dependency", "",
         "select region from accounts", {}),
        ("syntax", "code", "code_bug", "tell_owner", "", "", "selec 1", {}),
        ("denied", "auth", "auth", "tell_owner", "", "", "select * from accounts", {"who": "user=reader"}),
        ("statement-timeout", "time limit", "timed_out", "retry_later", "transient", "tell_owner ask retry_now",
         "set statement_timeout='20ms';select pg_sleep(2)", {}),
        ("lock-timeout", "database busy", "transient", "retry_later", "timed_out", "retry_now",
         "__lock__", {}),
        ("read-only", "database busy", "dependency", "tell_owner", "code_bug bad_input infrastructure transient",
         "retry_later ask", "set transaction read only;delete from accounts", {}),
        ("temp-files", "disk full", "infrastructure", "tell_owner", "out_of_memory capacity", "retry_later more_memory",
         "select a from generate_series(1, 500000) a order by a desc", {"who": "user=reader"}),
        ("admin-shutdown", "database busy", "transient", "retry_now", "", "retry_later",
         "select pg_terminate_backend(pg_backend_pid())", {}),
        ("bad-date", "data", "bad_input", "tell_owner", "code_bug", "", "select '2026-02-31'::date", {}),
        ("wrong-password", "auth", "auth", "tell_owner", "", "", "select 1", {"who": "user=locked password=wrong"}),
        ("no-database", "absent", "bad_input", "tell_owner", "dependency environment infrastructure", "",
         "select 1", {"who": "dbname=warehouse_v2"}),
        ("not-in-hba", "auth", "auth", "tell_owner", "infrastructure", "", "select 1", {"who": "dbname=forbidden"}),
        ("refused", "network", "transient", "retry_later", "dependency", "retry_now", "select 1",
         {"who": lambda: f"port={CLOSED_PORT}"}),
        ("connect-timeout", "network", "transient", "retry_later", "dependency timed_out", "retry_now", "select 1",
         {"who": lambda: f"port={SILENT_PORT} connect_timeout=2"}),
    ],
)  # fmt: skip
SCENARIOS[:] = [scenario for scenario in SCENARIOS if scenario.name != "psycopg-lock-timeout"]


@fails(
    "psycopg", "database busy", "transient", "retry_later", classes_too="timed_out", remedies_too="retry_now"
)
def psycopg_lock_timeout() -> None:
    two_sessions(
        ["set lock_timeout='30ms'"], ["update accounts set amount = 3 where id = 1"],
        "update accounts set amount = 4 where id = 1", "select pg_sleep(0.5)")  # fmt: skip


@fails("psycopg", "database busy", "transient", "retry_now", remedies_too="retry_later", wrap="task")
def psycopg_deadlock() -> None:
    two_sessions(
        ["update accounts set amount = 3 where id = 1"], ["update accounts set amount = 3 where id = 2"],
        "update accounts set amount = 4 where id = 2", "update accounts set amount = 4 where id = 1")  # fmt: skip


@fails("psycopg", "database busy", "transient", "retry_now", remedies_too="retry_later")
def psycopg_serialization() -> None:
    begin = "set transaction isolation level repeatable read"
    two_sessions(
        [begin, "select * from accounts"], [begin, "select * from accounts"],
        "update accounts set amount = amount + 1 where id = 1", "update accounts set amount = 7 where id = 1",
    )  # fmt: skip


@fails("psycopg", "database busy", "transient", "retry_later", remedies_too="retry_now",
       classes_too="rate_limited capacity dependency")  # fmt: skip
def psycopg_no_slots() -> None:
    if not POSTGRES:
        raise ModuleNotFoundError("no PostgreSQL: run with --postgres")
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(contextlib.closing(lib("psycopg").connect(f"{POSTGRES} user=reader")))


@fails("psycopg2", "schema drift", "code_bug", "tell_owner", classes_too="dependency bad_input", wrap="task")
def psycopg2_no_function() -> None:
    sql("select refresh_marts(1)", library="psycopg2")


@fails("psycopg2", "auth", "auth", "tell_owner")
def psycopg2_wrong_password() -> None:
    sql("select 1", who="user=locked password=wrong", library="psycopg2")


# --- Prefect's words ----------------------------------------------------------------------------------------

FRAME = 'Traceback (most recent call last):\n  File "flow.py", line {line}, in {where}\n'


def tidy(text: str) -> str:
    """Replace what differs between machines: ports, paths, hosts, addresses in memory."""
    text = re.sub(r"127\.0\.0\.1:\d+|localhost:\d+", "10.0.0.7:8443", text)
    text = re.sub(r"127\.0\.0\.1", "10.0.0.7", text)
    text = text.replace("host='localhost'", "host='10.0.0.7'")
    text = re.sub(r"\bport=\d{4,5}\b", "port=8443", text)
    text = re.sub(r"\bport \d{4,5}\b", "port 5432", text)
    text = text.replace(str(DIRECTORY), "/srv/etl").replace(getpass.getuser() + "@", "etl@")
    text = re.sub(r"/\S*/(?:lib/python3\.\d+|site-packages)/", "/opt/venv/lib/python3.11/", text)
    text = re.sub(r"/tmp/pilotage-pg-\w+", "/var/run/postgresql", text)
    text = re.sub(r"\S+/bin/python[\d.]* \(PID \d+\)", "/usr/bin/python3.11 (PID 4242)", text)
    text = re.sub(r"\bprocess \d+", "process 4242", text, flags=re.IGNORECASE)
    return re.sub(r"0x[0-9a-f]{6,}", "0x7f3a5c0b2d10", text)


def qualified(error: BaseException) -> str:
    """Name an exception as a traceback does."""
    kind = type(error)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def last_line(error: BaseException) -> str:
    """Format the line that ends a traceback."""
    return "".join(traceback.format_exception_only(error)).strip()


def traced(error: BaseException, where: str, line: int, depth: int = 0) -> str:
    """Format a traceback with one frame of the flow, and the cause before it."""
    own = FRAME.format(line=line, where=where) + last_line(error)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is None or depth > 2:
        return own
    joint = (
        "The above exception was the direct cause of the following exception:"
        if error.__cause__
        else "During handling of the above exception, another exception occurred:"
    )
    return f"{traced(cause, where, line - 2, depth + 1)}\n\n{joint}\n\n{own}"


def in_prefects_words(error: Exception, wrap: str) -> dict[str, Any]:
    """Say how the state and the logs of a run look that ended in this exception."""
    from prefect.states import format_exception

    said = format_exception(error)
    state = {"state_type": "FAILED", "state_name": "Failed"}
    if wrap == "parameters":
        message = f"Validation of flow parameters failed with error: {said}"
        return {**state, "message": message, "log_tail": [f"ERROR | {message}"]}
    if wrap in ("load", "pull"):
        headline = (
            "Unexpected exception encountered when trying to load flow"
            if wrap == "load"
            else "Flow could not be retrieved from deployment."
        )
        return {
            "state_type": "CRASHED",
            "state_name": "Crashed",
            "message": "Flow run infrastructure exited with non-zero status code 1."
            " Process exited with a general error.",
            "log_tail": [
                f"ERROR | {headline}\n{traced(error, '<module>', 3)}",
                "INFO | Check the flow run logs for an unhandled exception or assertion error.",
            ],
        }
    if isinstance(error, TimeoutError):
        message = f"Flow run failed due to timeout: {error!r}"
        return {
            "state_type": "FAILED",
            "state_name": "TimedOut",
            "message": message,
            "log_tail": [f"ERROR | {message}"],
        }
    if wrap == "task":
        return {
            **state,
            "message": "1/3 states failed.",
            "log_tail": [
                f"ERROR | Task run failed with exception: {error!r} - Retries are exhausted\n"
                + traced(error, "step", 12),
                f"ERROR | Finished in state Failed('Task run encountered an exception {said}')",
            ],
        }
    return {
        **state,
        "message": f"Flow run encountered an exception: {said}",
        "log_tail": [
            f"ERROR | Encountered exception during execution: {error!r}\n" + traced(error, "main", 31)
        ],
    }


def row_of(scenario: Scenario) -> dict[str, Any] | None:
    """Run a scenario and record what it printed; None when its library is absent."""
    try:
        scenario.run()
    except ModuleNotFoundError as error:
        if scenario.wrap != "load":
            print(f"skipped {scenario.name}: {error}", file=sys.stderr)
            return None
        failure: Exception = error
    except Exception as error:
        failure = error
    else:
        raise AssertionError(f"{scenario.name} did not fail")
    told = in_prefects_words(failure, scenario.wrap)
    try:
        release = importlib.metadata.version(scenario.library)
    except Exception:
        release = ""
    return {
        "id": f"ours-{scenario.name}",
        **{key: value for key, value in told.items() if key.startswith("state")},
        "message": tidy(told["message"]),
        "log_tail": [tidy(line) for line in told["log_tail"]],
        "expected_class": scenario.failure_class,
        "also_acceptable": list(scenario.classes_too),
        "expected_remedy": scenario.remedy,
        "remedy_also_acceptable": list(scenario.remedies_too),
        "missing_class": "",
        "permanent": scenario.permanent,
        "cause": scenario.cause,
        "source": f"provoked: {scenario.library} {release}".strip(),
        "licence": LICENCE,
        "note": scenario.note,
    }


def main() -> None:
    """Provoke everything that the installed libraries allow, and write one row a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--postgres", action="store_true", help="start the PostgreSQL of this machine too")
    parser.add_argument("--only", default="", help="libraries, comma-separated")
    options = parser.parse_args()
    wanted = set(filter(None, options.only.split(",")))
    rows = []
    with surroundings(), postgres() if options.postgres else contextlib.nullcontext():
        for scenario in SCENARIOS:
            if wanted and scenario.library not in wanted:
                continue
            row = row_of(scenario)
            if row is not None:
                rows.append(row)
    options.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"{len(rows)} of {len(SCENARIOS)} scenarios written", file=sys.stderr)


if __name__ == "__main__":
    main()
