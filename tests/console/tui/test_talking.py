"""The agent behind the engine: what was said is known to the next process, and `/context` tells what it cost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.console.console_stack import ConsoleStack

from pilotage.console.session.engine import Engine
from pilotage.console.session.events import Event
from pilotage.console.session.log import EventLog
from pilotage.console.session.services import services_for, user_with
from pilotage.planner.llm.scripted.server import ScriptedLLM
from pilotage.planner.llm.scripted.steps import text, tool

SETTINGS = """
[llm]
base_url = "{url}"
model = "m"
[llm.budget]
tokens_per_day = 3600
"""


def talk(port: ConsoleStack, config: Path, *said: tuple[str, str]) -> list[Event]:
    """What followed in the thread `t-9`, said by these people to an engine that ends with it."""
    log = port.paths.root / "talking.sqlite"

    async def go() -> list[Event]:
        engine = Engine(log=EventLog(log), services=services_for(port.paths, config=config))
        try:
            for who, words in said:
                user = user_with(port.paths, port.tokens[who])
                engine.log.open_thread(user.name, "", "t-9")
                engine.log.share("t-9", "vic", "pat", writes=True)
                first = await engine.say(user, "t-9", words)
                await engine.wait("t-9")
            return engine.log.after(first.seq, "t-9")
        finally:
            await engine.close()

    return asyncio.run(go())


def test_a_conversation_outlives_its_engine_and_tells_what_it_cost(
    port: ConsoleStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "pilotage.toml"
    monkeypatch.setenv("PILOTAGE_CONFIG", str(config))  # settings name it to whoever this process starts
    monkeypatch.setenv("PILOTAGE_STATE_DIR", str(port.paths.root))
    script = [tool("queues", {}), text("None waits."), text("Of the queues."), text("Nothing yet.")]
    with ScriptedLLM(script) as llm:
        config.write_text(SETTINGS.format(url=llm.base_url))
        talk(port, config, ("pat", "how are the queues?"))
        talk(port, config, ("pat", "and what did I ask first?"), ("vic", "and what did I ask first?"))
        [block, _] = talk(port, config, ("pat", "/context"))
    said = [[m["content"] for m in request["messages"] if m["role"] == "user"] for request in llm.requests]
    assert said[2] == ["how are the queues?", "and what did I ask first?"]
    assert said[3] == ["and what did I ask first?"]  # another person's memory
    told = dict(block.payload["block"]["pairs"])
    assert (told["calls of the model"], told["tokens in"], told["tokens out"]) == ("4", "44", "28")
    assert told["cost"].startswith("not known: no price is set")
    assert told["of a day's budget"] == "2.00%"
    assert "2.00%" in {told[name] for name in told if name.startswith("of the day")}
