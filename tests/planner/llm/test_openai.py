"""The real client against the scripted server: every way an endpoint can let us down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool as as_tool
from pydantic import BaseModel, ConfigDict

from pilotage.planner.llm.openai import DOWN_FOR, STRUCTURED_OUTPUT_STRATEGIES, OpenAIModel
from pilotage.planner.llm.protocol import Reply, Token
from pilotage.planner.llm.scripted.server import ScriptedLLM
from pilotage.planner.llm.scripted.steps import Step, cut, hang, html, malformed, status, text, tool
from pilotage.telemetry.errors import ModelError


class Colour(BaseModel):
    """One colour."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["red", "green"]


RED = '{"name": "red"}'


@as_tool
def look(run_id: str) -> str:
    """Looks a run up."""
    return run_id


class SteppingClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def endpoint(script: Any, **more: Any) -> Iterator[tuple[OpenAIModel, ScriptedLLM]]:
    with ScriptedLLM(script) as llm:
        settings: dict[str, Any] = {"timeout": 5.0, "max_retries": 0} | more
        model = OpenAIModel(base_url=llm.base_url, api_key="k-test", model="scripted", **settings)
        try:
            yield model, llm
        finally:
            asyncio.run(model.aclose())


def ask(model: OpenAIModel, said: str = "hello") -> str:
    return asyncio.run(model.ask_text([HumanMessage(said)]))


def ask_colour(model: OpenAIModel) -> Colour:
    return asyncio.run(model.ask_typed(Colour, [HumanMessage("which colour?")]))


async def _streamed(model: OpenAIModel, tools: Any = ()) -> list[Token | Reply]:
    return [part async for part in model.stream([HumanMessage("go")], tools)]


def streamed(model: OpenAIModel, tools: Any = ()) -> list[Token | Reply]:
    return asyncio.run(_streamed(model, tools))


def test_an_answer_arrives_with_its_token_counts() -> None:
    with endpoint([text("all is well")]) as (model, llm):
        assert ask(model) == "all is well"
        assert (model.usage.calls, model.usage.prompt_tokens, model.usage.completion_tokens) == (1, 11, 7)
        assert llm.requests[0]["model"] == "scripted"


def test_a_stream_gives_tokens_and_then_the_whole_reply_with_counts() -> None:
    with endpoint([text("a b c")]) as (model, _):
        *tokens, reply = streamed(model)
        assert [part.text for part in tokens if isinstance(part, Token)] == ["a ", "b ", "c"]
        assert isinstance(reply, Reply)
        assert reply.message.text == "a b c"
        assert model.usage.completion_tokens == 7


def test_a_tool_call_in_fragments_is_put_together() -> None:
    with endpoint([tool("look", {"run_id": "r-123456789"})]) as (model, llm):
        [reply] = streamed(model, [look])
        assert isinstance(reply, Reply)
        assert reply.message.tool_calls[0]["args"] == {"run_id": "r-123456789"}
        assert llm.requests[0]["tools"][0]["function"]["name"] == "look"


def test_a_rate_limit_is_waited_out_once() -> None:
    with endpoint([status(429, retry_after=0), text("ok")], max_retries=1) as (model, llm):
        assert ask(model) == "ok"
        assert len(llm.requests) == 2


@pytest.mark.parametrize(
    ("step", "found", "transient"),
    [
        (status(429), "HTTP 429", True),
        (status(500), "HTTP 500", True),
        (status(503), "HTTP 503", True),
        (status(401, "bad key"), "HTTP 401", False),
        (malformed(), "cannot be read", True),
        (html(), "cannot be read", True),
        (text("half", finish="length"), "cut short", True),
        (text(" "), "empty answer", True),
    ],
    ids=["429", "500", "503", "401", "malformed JSON", "html", "length", "empty"],
)
def test_a_failing_endpoint_is_a_model_error(step: Step, found: str, transient: bool) -> None:
    with endpoint([step]) as (model, _):
        with pytest.raises(ModelError, match=found) as caught:
            ask(model)
        assert caught.value.transient is transient


@pytest.mark.parametrize(
    "step",
    [cut("a b c d e"), cut("a b c d e", cleanly=True), malformed(), status(500), text("x", finish="length")],
    ids=["reset", "clean cut", "malformed", "500", "length"],
)
def test_a_stream_that_ends_badly_is_a_model_error(step: Step) -> None:
    with endpoint([step]) as (model, _), pytest.raises(ModelError):
        streamed(model)


def test_broken_tool_arguments_are_a_model_error_and_not_a_silent_stop() -> None:
    with endpoint([tool("look", '{"run_id": ')]) as (model, _), pytest.raises(ModelError, match="not JSON"):
        streamed(model, [look])


def test_an_answer_that_comes_too_late_is_a_model_error() -> None:
    with (
        endpoint([hang(30)], timeout=0.3) as (model, _),
        pytest.raises(ModelError, match="no answer in time"),
    ):
        ask(model)


def test_a_dead_port_is_a_model_error() -> None:
    with ScriptedLLM([]) as llm:
        gone = llm.base_url
    model = OpenAIModel(base_url=gone, api_key="", model="scripted", max_retries=0)
    with pytest.raises(ModelError, match="no connection"):
        ask(model)
    asyncio.run(model.aclose())


# -- the circuit


def test_after_two_failures_the_model_rests_and_then_is_asked_again() -> None:
    clock = SteppingClock()
    with endpoint([status(500), status(500), text("back")], clock=clock) as (model, llm):
        for _ in range(2):
            with pytest.raises(ModelError):
                ask(model)
        resting = model.down
        with pytest.raises(ModelError, match="rests"):
            ask(model)
        assert len(llm.requests) == 2
        clock.now += DOWN_FOR
        assert (resting, model.down) == (True, False)
        assert ask(model) == "back"


def test_an_answer_between_two_failures_keeps_the_model_up() -> None:
    with endpoint([status(500), text("ok"), status(500)]) as (model, _):
        with pytest.raises(ModelError):
            ask(model)
        ask(model)
        with pytest.raises(ModelError):
            ask(model)
        assert not model.down


# -- typed answers


def test_a_typed_answer_comes_by_the_first_rung() -> None:
    with endpoint([text(RED)]) as (model, llm):
        assert ask_colour(model).name == "red"
        sent = llm.requests[0]["response_format"]
        assert sent["type"] == "json_schema"
        assert "strict" not in sent["json_schema"]


def test_an_invalid_answer_is_repaired_once() -> None:
    with endpoint([text('{"name": "mauve"}'), text(RED)]) as (model, llm):
        assert ask_colour(model).name == "red"
        assert "did not validate" in llm.requests[1]["messages"][-1]["content"]


def _rung_of(body: dict[str, Any]) -> str:
    kind = (body.get("response_format") or {}).get("type")
    if kind:
        return {"json_schema": "json_schema", "json_object": "json_mode"}[kind]
    return "function_calling" if body.get("tools") else "prompt"


@pytest.mark.parametrize("lowest", STRUCTURED_OUTPUT_STRATEGIES)
def test_an_endpoint_that_lacks_a_rung_is_asked_on_the_next_and_remembered(lowest: str) -> None:
    def script(body: dict[str, Any]) -> Step:
        if _rung_of(body) != lowest:
            return status(400, "not supported here")
        return (
            tool("Colour", RED)
            if lowest == "function_calling"
            else text(f"<think>{{}}</think>Sure!\n```json\n{RED}\n```")
        )

    with endpoint(script) as (model, llm):
        assert ask_colour(model).name == "red"
        assert [_rung_of(body) for body in llm.requests] == list(
            STRUCTURED_OUTPUT_STRATEGIES[: STRUCTURED_OUTPUT_STRATEGIES.index(lowest) + 1]
        )
        assert model.strategy == lowest
        ask_colour(model)
        assert _rung_of(llm.requests[-1]) == lowest
        assert len(llm.requests) == STRUCTURED_OUTPUT_STRATEGIES.index(lowest) + 2


def test_a_model_that_never_answers_validly_is_a_model_error_after_every_rung() -> None:
    with endpoint(lambda body: text("no idea")) as (model, llm):
        with pytest.raises(ModelError, match="no valid Colour"):
            ask_colour(model)
        assert len(llm.requests) == 2 * len(STRUCTURED_OUTPUT_STRATEGIES)


def test_an_endpoint_that_is_down_is_not_asked_on_every_rung() -> None:
    with endpoint([status(500)]) as (model, llm):
        with pytest.raises(ModelError):
            ask_colour(model)
        assert len(llm.requests) == 1


# -- secrets


def test_a_secret_never_reaches_the_request_body_whoever_says_it() -> None:
    secret = "hunter2hunter2"
    with endpoint([text("ok"), text(RED), text("ok")]) as (model, llm):
        said = [HumanMessage(f"log: password={secret}"), AIMessage(f"I saw token={secret}")]
        asyncio.run(model.ask_text(said))
        asyncio.run(model.ask_typed(Colour, said))

        async def go() -> None:
            async for _ in model.stream(said):
                pass

        asyncio.run(go())
        assert len(llm.requests) == 3
        assert secret not in json.dumps(llm.requests)
        assert "password=" in json.dumps(llm.requests)


def test_the_key_is_in_no_error_message() -> None:
    with endpoint([status(401, "wrong key k-test"), text("x")]) as (model, _):
        with pytest.raises(ModelError) as caught:
            ask(model)
        assert "Authorization" not in str(caught.value)
        ask(model)


# -- the scripted server itself


def _twice(script: Any) -> None:
    with endpoint(script) as (model, _):
        for _ in range(2):
            with suppress(ModelError):
                ask(model)


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ([text("1")], "after the script's end"),
        ([text("1"), text("2"), text("3")], "1 replies never fetched"),
        ([text("1"), text("2", expects=lambda body: "temperature" in body)], "did not expect"),
    ],
    ids=["one too few", "one too many", "another request"],
)
def test_the_script_is_strict(script: Any, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        _twice(script)
