"""APIs of models that think between their tool calls: DeepSeek's, Kimi's, Z.ai's.

Sources: https://api-docs.deepseek.com/guides/thinking_mode, https://platform.kimi.ai/docs/guide/use-kimi-k2-thinking-model,
https://docs.z.ai/guides/capabilities/thinking-mode
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from servers.format_chat_kin import THINKING
from servers.formats import CHAT
from servers.scripted import ScriptedServer

from llm_master import InsufficientFundsError, LLMConfig, LLMResponse, QueryLLM, ServerError, StreamInterruptedError
from llm_master.testing import FakeClock

ROWS = {"deepseek": "deepseek-flash", "moonshot": "kimi-k2.6", "zai": "glm-5.3"}
HI = {"role": "user", "content": "How is Rome?"}
KEY = "key-0123456789"
CALLS = [("call_00_x", "get_weather", {"city": "Rome"})]


@pytest.fixture
def llm(server: ScriptedServer) -> QueryLLM:
    names = (*ROWS, "openai")
    environment = {f"{name.upper()}_API_BASE": server.base_url for name in names} | {f"{name.upper()}_API_KEY": KEY for name in names}
    return QueryLLM(LLMConfig(environment=environment, clock=FakeClock(auto_advance=True)))


async def ask(llm: QueryLLM, server: ScriptedServer, how: str, model: str, messages: Any, thought: str, **options: Any) -> LLMResponse:
    """A thought, and then a call."""
    if how == "whole":
        whole = CHAT.answer("", CALLS)
        whole["choices"][0]["message"]["reasoning_content"] = thought
        server.answer_json(whole)
        return await llm.query(model, messages, **options)
    deltas = [{"reasoning_content": thought[at : at + 5]} for at in range(0, len(thought), 5)]
    chunks = [f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta}]})}\n\n" for delta in deltas]
    server.answer_sse(*chunks, *CHAT.stream(calls=CALLS))
    async with llm.stream(model, messages, **options) as stream:
        async for _ in stream:
            pass
    return stream.response


@pytest.mark.parametrize("how", ["whole", "streamed"])
@pytest.mark.parametrize("row", ROWS)
async def test_the_thoughts_before_a_call_go_back(llm: QueryLLM, server: ScriptedServer, row: str, how: str) -> None:
    model = f"{row}/{ROWS[row]}"
    first = await ask(llm, server, how, model, [HI], "I need the weather.")
    assert (first.reasoning, first.content) == ("I need the weather.", "")
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "18 °C"}
    second = await ask(llm, server, how, model, [HI, json.loads(json.dumps(first.message)), result], "It is warm.")
    server.answer_json(CHAT.answer("Warm."))
    last = {"role": "tool", "tool_call_id": second.tool_calls[0].id, "content": "18 °C"}
    await llm.query(model, [HI, first.message, result, second.message, last])
    body = server.requests[-1].json
    assert [message.get("reasoning_content") for message in body["messages"]] == [
        None,
        "I need the weather.",
        None,
        "It is warm.",
        None,
    ]
    THINKING.read("/chat/completions", body)


@pytest.mark.parametrize("row", ["deepseek", "moonshot"])
async def test_a_call_of_another_model_has_a_blank_for_its_thoughts(llm: QueryLLM, server: ScriptedServer, row: str) -> None:
    server.answer_json(CHAT.answer("", CALLS))
    first = await llm.query("openai/gpt-4.1", [HI])
    messages = [HI, first.message, {"role": "tool", "tool_call_id": "call_00_x", "content": "18 °C"}]
    before = json.dumps(messages)
    server.answer_json(CHAT.answer("Warm."), times=None)
    await llm.query(f"{row}/{ROWS[row]}", messages)
    body = server.requests[-1].json
    assert body["messages"][1]["reasoning_content"] == " "
    THINKING.read("/chat/completions", body)
    assert json.dumps(messages) == before, "the caller's messages were changed"
    # Where nothing is thought, nothing is missing.
    await llm.query(f"{row}/{ROWS[row]}", messages, thinking={"type": "disabled"})
    assert "reasoning_content" not in server.requests[-1].json["messages"][1]


async def test_what_the_caller_says_of_the_thoughts_holds(llm: QueryLLM, server: ScriptedServer) -> None:
    first = await ask(llm, server, "whole", "deepseek/deepseek-flash", [HI], "I need the weather.")
    message = {**first.message, "reasoning_content": ""}
    server.answer_json(CHAT.answer("Warm."))
    await llm.query("deepseek/deepseek-flash", [HI, message, {"role": "tool", "tool_call_id": "call_00_x", "content": "18 °C"}])
    assert server.requests[-1].json["messages"][1]["reasoning_content"] == ""


async def test_another_provider_is_not_sent_the_thoughts(llm: QueryLLM, server: ScriptedServer) -> None:
    first = await ask(llm, server, "whole", "deepseek/deepseek-flash", [HI], "I need the weather.")
    result = {"role": "tool", "tool_call_id": "call_00_x", "content": "18 °C"}
    server.answer_json(CHAT.answer("Warm."), times=None)
    await llm.query("openai/gpt-4.1", [HI, first.message, result])
    CHAT.read("/v1/chat/completions", server.requests[-1].json)
    # Of the same kind it is: these read each other's.
    await llm.query("moonshot/kimi-k2.6", [HI, first.message, result])
    assert server.requests[-1].json["messages"][1]["reasoning_content"] == "I need the weather."


async def test_thinking_is_asked_for_by_its_own_words(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(CHAT.answer("Warm."), times=None)
    await llm.query("deepseek/deepseek-flash", [HI], thinking={"type": "enabled"}, reasoning_effort="max", max_completion_tokens=9)
    assert server.requests[-1].json == {
        **{"model": "deepseek-flash", "messages": [HI], "thinking": {"type": "enabled"}, "reasoning_effort": "max", "max_tokens": 9}
    }
    await llm.query("zai/glm-5.3", [HI], thinking={"type": "enabled", "clear_thinking": False}, tool_stream=True)
    assert server.requests[-1].json["thinking"] == {"type": "enabled", "clear_thinking": False}


@pytest.mark.parametrize("reason", ["insufficient_system_resource", "network_error"])
async def test_an_answer_that_was_given_up_is_none(llm: QueryLLM, server: ScriptedServer, reason: str) -> None:
    server.answer_json(CHAT.answer("It is", finish=reason))
    server.answer_json(CHAT.answer("It is warm."))
    answer = await llm.query("deepseek/deepseek-flash", [HI])
    assert answer.content == "It is warm."
    assert [attempt.error_type for attempt in answer.receipt.attempts] == ["ServerError", None]
    server.answer_sse(*CHAT.stream("It is", finish=reason))
    with pytest.raises(StreamInterruptedError, match=reason) as caught:
        async with llm.stream("deepseek/deepseek-flash", [HI]) as stream:
            async for _ in stream:
                pass
    assert isinstance(caught.value.__cause__, ServerError)


async def test_no_money_is_no_money(llm: QueryLLM, server: ScriptedServer) -> None:
    body = {"error": {"message": "Insufficient Balance", "type": "unknown_error", "param": None, "code": "invalid_request_error"}}
    server.answer_json(body, status=402)
    with pytest.raises(InsufficientFundsError, match="Insufficient Balance"):
        await llm.query("deepseek/deepseek-flash", [HI])


async def test_cache_hits_and_what_a_search_found(llm: QueryLLM, server: ScriptedServer) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 9,
        "total_tokens": 109,
        "prompt_cache_hit_tokens": 64,
        "prompt_cache_miss_tokens": 36,
    }
    server.answer_json({**CHAT.answer("Warm."), "usage": usage})
    assert (await llm.query("deepseek/deepseek-flash", [HI])).usage.cached_tokens == 64
    # https://docs.z.ai/guides/tools/web-search
    page = {"title": "Rome", "link": "https://example.com/rome", "content": "18 °C", "refer": "ref_1", "media": "m", "icon": "i"}
    server.answer_json({**CHAT.answer("Warm."), "web_search": [page]})
    stream = CHAT.stream("Warm.")
    server.answer_sse(stream[0], f"data: {json.dumps({'choices': [], 'web_search': [page]})}\n\n", *stream[1:])
    whole = await llm.query("zai/glm-5.3", [HI])
    async with llm.stream("zai/glm-5.3", [HI]) as pieces:
        async for _ in pieces:
            pass
    for answer in (whole, pieces.response):
        assert [(note.url, note.title, note.text, note.raw) for note in answer.citations] == [
            ("https://example.com/rome", "Rome", "18 °C", page)
        ]
