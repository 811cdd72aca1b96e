"""llama.cpp's own ``/v1/responses``: a server of the Responses API that is not OpenAI's and leaves out what it can."""

from __future__ import annotations

from typing import Any

import pytest
from servers.llama import SENTENCE, LlamaServer

from llm_master import (
    PROVIDER_CONFIGS,
    InvalidRequestError,
    LLMResponse,
    ProviderConfig,
    QueryLLM,
    ReasoningDelta,
    StreamEnd,
    ToolCallDelta,
)
from llm_master.providers.responses import ResponsesProvider

pytestmark = pytest.mark.servers

MODEL = "acme/tiny"
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
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=ResponsesProvider, base_url=llama.base_url, requires_key=False)
    return QueryLLM()


async def streamed(llm: QueryLLM, *arguments: Any, **options: Any) -> LLMResponse:
    async with llm.stream(*arguments, **options) as stream:
        async for _ in stream:
            pass
    return stream.response


async def test_whole_and_streamed_answers_are_the_same(llm: QueryLLM) -> None:
    whole = await llm.query(MODEL, prompt="What do you say?", temperature=0)
    stream = await streamed(llm, MODEL, prompt="What do you say?", temperature=0)
    for answer in (whole, stream):
        assert (answer.content, answer.finish_reason, answer.reasoning, answer.tool_calls) == (SENTENCE, "stop", None, [])
        assert answer.raw["object"] == "response" and answer.receipt.attempts[0].model_served == "tiny"
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (stream.usage.input_tokens, stream.usage.output_tokens)
    assert whole.usage.input_tokens and whole.usage.output_tokens


async def test_it_streams_token_by_token(llm: QueryLLM) -> None:
    events = []
    async with llm.stream(MODEL, prompt="Hello", temperature=0) as stream:
        async for event in stream.events():
            events.append(event)
    assert len(events) > len(SENTENCE.split()) and isinstance(events[-1], StreamEnd)
    assert not [event for event in events if isinstance(event, (ReasoningDelta, ToolCallDelta))]


async def test_every_kind_of_turn_is_taken(llm: QueryLLM, llama: LlamaServer) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "And kind."}]},
        {"role": "user", "content": [{"type": "text", "text": "How is Rome?"}]},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "18 °C"}]},
        {"role": "assistant", "content": "18 °C."},
        {"role": "user", "content": "And now?"},
    ]
    answer = await llm.query(MODEL, messages, temperature=0, max_tokens=4, tools=[WEATHER], tool_choice="none")
    assert SENTENCE.startswith(answer.content) and answer.usage.output_tokens == 4
    again = await llm.query(MODEL, [*messages, answer.message, {"role": "user", "content": "More."}], temperature=0)
    assert again.content == SENTENCE
    assert again.usage.input_tokens > answer.usage.input_tokens


@pytest.mark.parametrize("how", ["whole", "streamed"])
async def test_a_tool_is_called(llm: QueryLLM, how: str) -> None:
    ask = llm.query if how == "whole" else lambda *arguments, **options: streamed(llm, *arguments, **options)
    options: dict[str, Any] = {"tools": [WEATHER], "tool_choice": "required", "temperature": 0, "max_tokens": 200}
    messages: list[Any] = [{"role": "user", "content": "How is the weather?"}]
    answer = await ask(MODEL, messages, **options)
    (call,) = answer.tool_calls
    assert (call.name, call.error, answer.finish_reason) == ("get_weather", None, "tool_calls")
    assert call.id and call.arguments["city"] in ("Paris", "Rome")
    messages += [answer.message, {"role": "tool", "tool_call_id": call.id, "content": "18 °C"}]
    assert (await ask(MODEL, messages, temperature=0)).content == SENTENCE


async def test_tokens_are_counted_as_they_are_billed(llm: QueryLLM, llama: LlamaServer) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello, how are you?"}]
    provider = ResponsesProvider(ProviderConfig(base_url=llama.base_url))
    counted = await provider.count_tokens(messages, "tiny", temperature=0)
    assert counted == (await llm.query(MODEL, messages, temperature=0)).usage.input_tokens


async def test_its_row_has_a_place_for_it(llama: LlamaServer) -> None:
    """Beside chat completions, under one row and one key."""
    llm = QueryLLM(llamacpp_api_base=llama.base_url)
    for model in ("llamacpp/responses/tiny", "llamacpp/tiny"):
        answer = await llm.query(model, prompt="What do you say?", temperature=0)
        assert (answer.content, answer.provider, answer.finish_reason) == (SENTENCE, "llamacpp", "stop")
        assert answer.raw["object"] == ("response" if "responses" in model else "chat.completion")


async def test_what_is_not_stored_may_be_asked_for_with_its_reasoning(llm: QueryLLM) -> None:
    """It stores nothing in any case, and does not mind being asked for what it has not."""
    answer = await llm.query(MODEL, prompt="What do you say?", temperature=0, store=False)
    assert answer.content == SENTENCE


async def test_its_refusals_are_errors(llm: QueryLLM) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await llm.query(MODEL, [{"role": "narrator", "content": "Once"}])
    assert caught.value.status == 400
    # It keeps nothing, and says so.
    with pytest.raises(InvalidRequestError, match="previous_response_id"):
        await llm.query(MODEL, prompt="hi", previous_response_id="resp_1")
