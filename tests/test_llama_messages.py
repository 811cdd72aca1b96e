"""A real server that speaks Anthropic's Messages API: llama.cpp's ``/v1/messages``, with the models of ``servers/llama.py``."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import Any

import pytest
from servers.llama import CONTEXT, SENTENCE, SLOTS, LlamaServer
from servers.scripted import eventually

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    ContextWindowExceededError,
    InvalidRequestError,
    ProviderConfig,
    QueryLLM,
    ReasoningDelta,
    StreamEnd,
    TextDelta,
    ToolCallDelta,
)
from llm_master.providers.anthropic import AnthropicProvider

pytestmark = pytest.mark.servers

MODEL = "attic/tiny"
LONG = {"temperature": 0, "max_tokens": CONTEXT - 200}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture
def llm(llama: LlamaServer) -> QueryLLM:
    """The reciting model, behind Anthropic's wire format."""
    PROVIDER_CONFIGS["attic"] = ProviderConfig(provider_class=AnthropicProvider, base_url=llama.base_url, requires_key=False)
    return QueryLLM()


@pytest.fixture
def babbling(llama_with_key: LlamaServer) -> QueryLLM:
    """The random model, which wants its key and never stops by itself."""
    row = ProviderConfig(provider_class=AnthropicProvider, base_url=llama_with_key.base_url, api_key=llama_with_key.api_key)
    PROVIDER_CONFIGS["attic"] = row
    return QueryLLM()


def counted(llama: LlamaServer, messages: list[Any], **rest: Any) -> int:
    """Tokens of a conversation in Anthropic's form, by the server's own count."""
    body = json.dumps({"model": "tiny", "max_tokens": 1, "messages": messages, **rest}).encode()
    request = urllib.request.Request(f"{llama.base_url}/messages/count_tokens", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return int(json.load(answer)["input_tokens"])


async def test_a_chat(llm: QueryLLM, llama: LlamaServer) -> None:
    answer = await llm.query(MODEL, prompt="What do you say?", temperature=0)
    assert answer.content == str(answer) == SENTENCE
    assert (answer.finish_reason, answer.provider, answer.model_name) == ("stop", "attic", MODEL)
    # What an earlier test left in the slot's cache is still input.
    assert answer.usage.input_tokens == counted(llama, [{"role": "user", "content": "What do you say?"}])
    assert answer.usage.output_tokens == len(SENTENCE.split()) + 1
    (attempt,) = answer.receipt.attempts
    assert (attempt.status, attempt.key, attempt.error) == (200, None, None)


async def test_a_stream_is_the_whole_answer_in_pieces(llm: QueryLLM) -> None:
    whole = await llm.query(MODEL, prompt="hi", temperature=0)
    async with llm.stream(MODEL, prompt="hi", temperature=0) as stream:
        pieces = [piece async for piece in stream]
    answer = stream.response
    assert len(pieces) > 5 and "".join(pieces) == answer.content == whole.content == SENTENCE
    assert answer.finish_reason == whole.finish_reason == "stop"
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (whole.usage.input_tokens, whole.usage.output_tokens)


async def test_the_same_prompt_again_is_cached_and_still_counted(llm: QueryLLM) -> None:
    prompt = "one two three four five six seven eight nine ten " * 5
    first, second = [await llm.query(MODEL, prompt=prompt, temperature=0) for _ in range(2)]
    assert first.usage.input_tokens == second.usage.input_tokens
    assert second.usage.cached_tokens is not None and 0 <= second.usage.cached_tokens <= (second.usage.input_tokens or 0)


async def test_max_tokens_ends_it_with_length(llm: QueryLLM) -> None:
    answer = await llm.query(MODEL, prompt="hi", temperature=0, max_completion_tokens=5)
    assert (answer.content, answer.finish_reason, answer.usage.output_tokens) == ("Hello from a tiny model:", "length", 5)


async def test_stop_ends_it_before_the_word(llm: QueryLLM) -> None:
    answer = await llm.query(MODEL, prompt="hi", temperature=0, stop="tiny")
    assert answer.content == SENTENCE.partition("tiny")[0] and answer.finish_reason == "stop"


async def test_system_messages_arrive(llm: QueryLLM, llama: LlamaServer) -> None:
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": [{"type": "text", "text": "Go on."}]},
    ]
    answer = await llm.query(MODEL, [{"role": "system", "content": "Be brief, and then briefer."}, *turns], temperature=0)
    assert answer.content == SENTENCE
    without = counted(llama, turns)
    assert answer.usage.input_tokens == counted(llama, turns, system="Be brief, and then briefer.") > without + 20


@pytest.mark.parametrize("how", ["whole", "streamed"])
async def test_a_tool_called_and_its_result_sent_back(llm: QueryLLM, llama: LlamaServer, how: str) -> None:
    messages: list[Any] = [{"role": "user", "content": "Is it warm?"}]
    arguments = {"tools": [WEATHER], "tool_choice": "required", "temperature": 0}
    if how == "whole":
        asked = await llm.query(MODEL, messages, **arguments)
    else:
        async with llm.stream(MODEL, messages, **arguments) as stream:
            async for _ in stream:
                pass
        asked = stream.response
    (call,) = asked.tool_calls
    assert asked.finish_reason == "tool_calls"
    assert call.name == "get_weather" and call.arguments["city"] in ("Paris", "Rome") and call.id and call.error is None
    messages += [asked.message, {"role": "tool", "tool_call_id": call.id, "content": "It is warm there."}]
    answer = await llm.query(MODEL, messages, temperature=0)
    assert answer.content == SENTENCE
    theirs = [
        {"role": "user", "content": "Is it warm?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "It is warm there."}]},
    ]
    assert answer.usage.input_tokens == counted(llama, theirs)


async def test_events_of_a_tool_call(llm: QueryLLM) -> None:
    async with llm.stream(MODEL, prompt="Is it warm?", tools=[WEATHER], tool_choice="required", temperature=0) as stream:
        events = [event async for event in stream.events()]
    assert isinstance(events[-1], StreamEnd) and events[-1].finish_reason == "tool_calls"
    deltas = [event for event in events[:-1] if not isinstance(event, (TextDelta, ReasoningDelta))]
    assert deltas and all(isinstance(delta, ToolCallDelta) for delta in deltas)
    assert json.loads("".join(delta.arguments for delta in deltas)) == stream.response.tool_calls[0].arguments


async def test_a_result_without_its_call_is_refused_here(llm: QueryLLM, llama: LlamaServer) -> None:
    with pytest.raises(InvalidRequestError, match="call_9"):
        await llm.query(MODEL, [{"role": "user", "content": "hi"}, {"role": "tool", "tool_call_id": "call_9", "content": "x"}])
    assert llama.busy_slots() == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_wrong_request_is_refused_there(llm: QueryLLM, stream: bool) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await llm.query(MODEL, prompt="hi", top_p="a lot", stream=stream)
    assert (caught.value.status, caught.value.provider) == (400, "attic")
    assert len(caught.value.receipt.attempts) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_too_long_a_prompt_exceeds_the_context_window(llm: QueryLLM, stream: bool) -> None:
    with pytest.raises(ContextWindowExceededError, match=str(CONTEXT)) as caught:
        await llm.query(MODEL, prompt="hi " * CONTEXT, stream=stream)
    assert caught.value.status == 400


async def test_with_its_key(babbling: QueryLLM, llama_with_key: LlamaServer) -> None:
    answer = await babbling.query(MODEL, prompt="hi", temperature=0, max_tokens=20)
    assert answer.usage.output_tokens == 20 and len(answer.content) >= 10 and answer.finish_reason == "length"
    assert str(llama_with_key.api_key) not in repr(answer.receipt)


async def test_without_the_right_key(llama_with_key: LlamaServer) -> None:
    row = ProviderConfig(provider_class=AnthropicProvider, base_url=llama_with_key.base_url, api_key="sk-wrong-0123456789")
    PROVIDER_CONFIGS["attic"] = row
    with pytest.raises(AuthenticationError) as caught:
        await QueryLLM().query(MODEL, prompt="hi")
    assert caught.value.status == 401
    assert "sk-wrong-0123456789" not in f"{caught.value!r} {caught.value.receipt!r}"


async def test_a_cancelled_query_frees_its_slot(babbling: QueryLLM, llama_with_key: LlamaServer) -> None:
    async with babbling:
        task = asyncio.create_task(babbling.query(MODEL, prompt="on and on", **LONG))
        assert await eventually(lambda: llama_with_key.busy_slots() == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await eventually(lambda: llama_with_key.busy_slots() == 0)


async def test_a_cancelled_stream_frees_its_slot(babbling: QueryLLM, llama_with_key: LlamaServer) -> None:
    began = asyncio.Event()

    async def listen() -> None:
        async with babbling.stream(MODEL, prompt="on and on", **LONG) as stream:
            async for _ in stream:
                began.set()
                await asyncio.Event().wait()

    async with babbling:
        task = asyncio.create_task(listen())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await eventually(lambda: llama_with_key.busy_slots() == 0)
        assert (await babbling.query(MODEL, prompt="hi", temperature=0, max_tokens=5)).usage.output_tokens == 5


async def test_a_stopped_stream_keeps_what_came(babbling: QueryLLM, llama_with_key: LlamaServer) -> None:
    async with babbling:
        stream = babbling.stream(MODEL, prompt="on and on", **LONG)
        pieces = []
        async for piece in stream:
            pieces.append(piece)
            if len(pieces) == 5:
                await stream.stop()
        assert len(pieces) == 5 and stream.response.content == "".join(pieces)
        assert "stopped" in stream.response.receipt.attempts[0].then
        assert await eventually(lambda: llama_with_key.busy_slots() == 0)


async def test_many_at_once(llm: QueryLLM) -> None:
    async with llm:
        answers = await asyncio.gather(*(llm.query(MODEL, prompt=f"hi {n}", temperature=0) for n in range(4 * SLOTS)))
    assert [answer.content for answer in answers] == [SENTENCE] * (4 * SLOTS)
