"""A real small model through the whole agent: a structured diagnosis, and conversations with tools and without.

`python tests/smoke/smoke_llm.py SERVER_PYTHON`. It shows that the plumbing works with weights and not only with a
script; a model of this size judges nothing well, and is not asked to. Ends with 1 when something is left without an
answer.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from tests.planner.conftest import Maker

from pilotage.planner.chat import ChatAgent
from pilotage.planner.model_book import ModelBook
from pilotage.planner.models import LanguageModel
from pilotage.planner.openai_model import LADDER, OpenAIModel
from pilotage.planner.prompts import ModelDiagnosis, diagnosis_prompt
from pilotage.planner.tools import Toolbox
from pilotage.telemetry.duckdb_store import DuckDBStore
from pilotage.telemetry.errors import ModelError

ROOT = Path(__file__).parents[2]
QUESTIONS = ("How are the queues?",)
"""One: on a busy core the model reads a few dozen tokens a second, and a prompt with all tools has thousands."""


class NothingOffered:
    """A desk at which nothing may be proposed."""

    def offered(self) -> tuple[Any, ...]:
        return ()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def diagnose(model: LanguageModel, make: Maker) -> bool:
    began = time.monotonic()
    prompt = diagnosis_prompt(make.run(), [make.log("HTTP 503 Service Unavailable from api.example.com")])
    try:
        answer = await model.ask_typed(ModelDiagnosis, prompt)
    except ModelError as error:
        print(f"diagnosis: no answer after {time.monotonic() - began:.1f} s: {error}")
        return False
    print(f"diagnosis: a valid {answer!r} in {time.monotonic() - began:.1f} s")
    return True


async def converse(model: LanguageModel, store: DuckDBStore) -> bool:
    agent = ChatAgent(
        tools=Toolbox(store=store, desk=cast("Any", NothingOffered()), clock=lambda: Maker.now), model=model
    )
    answered = True
    for number, question in enumerate(QUESTIONS):
        began, tokens = time.monotonic(), 0
        final = None
        async for part in agent.answer(question, f"smoke-{number}"):
            tokens += part.kind == "token"
            if part.kind in ("tool_call", "error"):
                print(f"  {part.kind} {part.tool} {dict(part.detail)} {part.text}"[:240])
            final = part if part.kind == "final" else final
        answered = answered and final is not None and bool(final.text.strip())
        if final is not None:
            told = " ".join(final.text.split())[:160]
            print(f"{question} -> by {final.by} in {time.monotonic() - began:.1f} s, {tokens} tokens: {told}")
            print(f"  opinion: {final.detail['opinion']}, gaps: {final.detail['gaps'][:3]}")
    return answered


async def run(base_url: str, directory: Path) -> bool:
    make = Maker()
    store = DuckDBStore(directory / "telemetry.duckdb")
    store.merge_runs([make.run()])
    store.add_queues([make.queue("fast", 1, running=2, waiting=3)])
    book = ModelBook(directory / "models.sqlite")
    model = OpenAIModel(base_url=base_url, api_key="", model="smollm2", timeout=60, max_retries=0, book=book)
    typed = await diagnose(model, make)
    print(f"it answers typed questions by {model.rung} (of {', '.join(LADDER)}); tools: {model.calls_tools}")
    answered = await converse(model, store)
    print(f"used: {model.usage}; today: {book.today()}")
    await model.aclose()
    store.close()
    return typed and answered


def main() -> int:
    """0 when everything was answered."""
    port = free_port()
    command = [sys.argv[1], str(ROOT / "tests/smoke/serve_small_model.py"), str(port)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        print(f"serving at {server.stdout.readline().strip() or 'nothing: the server did not start'}")
        with tempfile.TemporaryDirectory() as directory:
            good = asyncio.run(run(f"http://127.0.0.1:{port}/v1", Path(directory)))
        server.terminate()
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
