"""A real small model through the whole agent: a structured diagnosis, and a conversation with a look-up in it.

`python tests/smoke/smoke_llm.py SERVER_PYTHON`. It shows that the plumbing works with weights and not only with a
script; a model of this size judges nothing well, and is not asked to. Ends with 1 unless the model itself gave a valid
diagnosis, looked something up, and answered.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from langchain_core.messages import BaseMessage
from tests.planner.conftest import Maker

from pilotage.planner.chat.agent import ChatAgent
from pilotage.planner.chat.tools import Toolbox
from pilotage.planner.llm.budget import LlmBudget
from pilotage.planner.llm.json_tool_loop import Step
from pilotage.planner.llm.openai import STRUCTURED_OUTPUT_STRATEGIES, OpenAIModel
from pilotage.planner.llm.prompts import ModelDiagnosis, diagnosis_prompt
from pilotage.planner.llm.protocol import Answer, LanguageModel
from pilotage.telemetry.errors import ModelError
from pilotage.telemetry.store.duckdb import DuckDBStore

ROOT = Path(__file__).parents[2]
REPLY = 800
"""Tokens of one reply: a model of this size says the same for ever when nothing stops it."""
QUESTION = "How are the queues?"
"""One: on a busy core the model reads a few dozen tokens a second, and a prompt with all tools has a thousand."""


class NothingOffered:
    """A API at which nothing may be proposed."""

    def permitted_kinds(self) -> tuple[Any, ...]:
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


class FirstLooksUp(OpenAIModel):
    """Its first step is a look-up that takes no arguments: a model of this size does not know when it needs one."""

    async def ask_typed(self, schema: type[Answer], messages: Sequence[BaseMessage]) -> Answer:
        looked = any("<result of=" in str(message.content) for message in messages)
        return await super().ask_typed(schema if looked else _only_look_ups(schema), messages)


def _only_look_ups(schema: type[Answer]) -> type[Answer]:
    if not issubclass(schema, Step):
        return schema
    shape = schema.model_json_schema()
    steps = [
        step
        for step in shape["properties"]["step"]["anyOf"]
        if "arguments" in step["properties"] and not step["properties"]["arguments"]["required"]
    ]
    shape["properties"]["step"]["anyOf"] = steps
    return type(schema.__name__, (schema,), {"model_json_schema": classmethod(lambda cls: shape)})


async def converse(model: LanguageModel, store: DuckDBStore) -> bool:
    agent = ChatAgent(
        tools=Toolbox(store=store, control_api=cast("Any", NothingOffered()), clock=lambda: Maker.now),
        model=model,
    )
    began, looked_up = time.monotonic(), 0
    async for part in agent.answer(QUESTION, "smoke"):
        if part.kind in ("tool_call", "error"):
            print(f"  {part.kind} {part.tool} {dict(part.detail)} {part.text}"[:240])
        looked_up += part.kind == "tool_result" and "error" not in part.detail
        final = part
    told = " ".join(final.text.split())[:160]
    print(f"{QUESTION} -> by {final.by} in {time.monotonic() - began:.1f} s, {looked_up} look-ups: {told}")
    print(f"  opinion: {final.detail['opinion']}, gaps: {final.detail['gaps'][:3]}")
    return final.by == "model" and bool(final.text.strip()) and looked_up > 0


async def run(base_url: str, directory: Path) -> bool:
    make = Maker()
    store = DuckDBStore(directory / "telemetry.duckdb")
    store.merge_runs([make.run()])
    store.add_queues([make.queue("fast", 1, running=2, waiting=3)])
    book = LlmBudget(directory / "models.sqlite")
    # its template has no place for tools, which its server ignores without saying so
    model = FirstLooksUp(
        base_url=base_url,
        api_key="",
        model="smollm2",
        timeout=300,
        max_retries=0,
        max_tokens=REPLY,
        calls_tools=False,
        book=book,
    )
    typed = await diagnose(model, make)
    print(
        f"it answers by {model.strategy} (of {', '.join(STRUCTURED_OUTPUT_STRATEGIES)}); tools: {model.calls_tools}"
    )
    answered = await converse(model, store)
    print("the plumbing works" if typed and answered else "NOT everything came from the model: see above")
    print(f"used: {model.usage}; today: {book.today()}")
    await model.aclose()
    store.close()
    return typed and answered


def main() -> int:
    """0 when the model itself did all that it was asked for."""
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
