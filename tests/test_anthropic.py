"""Anthropic's Messages API: what goes out, what comes back, and what is refused before it is sent.

Sources: https://docs.anthropic.com/en/api/messages, https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

import copy
import contextlib
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from servers.scripted import ScriptedServer

from llm_master import (
    AuthenticationError,
    ContextWindowExceededError,
    InsufficientFundsError,
    InvalidOutputError,
    InvalidRequestError,
    LLMError,
    LLMResponse,
    ModelConfig,
    ModelNotFoundError,
    ModelRegistry,
    PermissionDeniedError,
    ProviderConfig,
    ProviderError,
    QueryLLM,
    RateLimitError,
    ReasoningDelta,
    ServerError,
    StreamEnd,
    StreamInterruptedError,
    ToolCallDelta,
)
from llm_master.providers.anthropic import AnthropicProvider
from llm_master.providers.failures import failure_of, retry_after
from llm_master.providers.sse import SSEParser
from llm_master.types import RateLimitState
from llm_master.testing import FakeClock

KEY = "sk-ant-secret-0123456789"
MODEL = "anthropic/claude-sonnet-4-5"
PIXEL = "data:image/png;base64,iVBORw0KGgo="
CACHE = {"type": "ephemeral", "ttl": "1h"}
CITATION = {"type": "web_search_result_location", "url": "https://example.com", "title": "T", "cited_text": "c", "encrypted_index": "e"}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "W", "parameters": {"type": "object", "properties": {}}}}


def message(*content: Any, stop: str | None = "end_turn", usage: Any = None, **rest: Any) -> dict[str, Any]:
    blocks = [{"type": "text", "text": block} if isinstance(block, str) else block for block in content]
    counts = usage if usage is not None else {"input_tokens": 5, "output_tokens": 2}
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": blocks, "stop_reason": stop} | {
        "stop_sequence": None,
        "usage": counts,
        **rest,
    }


THINKING = {"type": "thinking", "thinking": "Let me see: 日本?", "signature": "c2lnbmF0dXJl"}
REDACTED = {"type": "redacted_thinking", "data": "ZW5jcnlwdGVk"}
CALLS = [
    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Zürich"}},
    {"type": "tool_use", "id": "toolu_2", "name": "time", "input": {}},
]
SEARCH = [
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "weather"}},
    {
        "type": "web_search_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": [{"type": "web_search_result", "url": "https://example.com"}],
    },
    {"type": "text", "text": "It rains.", "citations": [CITATION]},
]
START: dict[str, Any] = {"type": "message_start", "message": message(stop=None, usage={"input_tokens": 5, "output_tokens": 1})}
STOP: list[dict[str, Any]] = [
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 7}},
    {"type": "message_stop"},
]


def block(index: int, content: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": content},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def said(index: int, *texts: str) -> list[dict[str, Any]]:
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": text} for text in texts))


def called(index: int, call: dict[str, Any], *texts: str) -> list[dict[str, Any]]:
    return block(index, {**call, "input": {}}, *({"type": "input_json_delta", "partial_json": text} for text in texts))


EVENTS: list[dict[str, Any]] = [
    START,
    {"type": "ping"},
    *block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "Let me see: "},
        {"type": "thinking_delta", "thinking": "日本?"},
        {"type": "signature_delta", "signature": "c2lnbmF0dXJl"},
    ),
    *block(1, REDACTED),
    *called(2, SEARCH[0], "", '{"query": "wea', 'ther"}'),
    *block(3, SEARCH[1]),
    *block(
        4,
        {"type": "text", "text": "", "citations": []},
        {"type": "citations_delta", "citation": CITATION},
        {"type": "text_delta", "text": "It "},
        {"type": "text_delta", "text": "rains."},
    ),
    *called(5, CALLS[0], "", '{"city": "Zü', 'rich"}'),
    *called(6, CALLS[1], ""),
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {
            "input_tokens": 50,
            "cache_read_input_tokens": 30,
            "cache_creation_input_tokens": 20,
            "output_tokens": 70,
            "server_tool_use": {"web_search_requests": 1},
        },
    },
    {"type": "message_stop"},
]
DELTAS = [
    ReasoningDelta("Let me see: "),
    ReasoningDelta("日本?"),
    "It ",
    "rains.",
    ToolCallDelta(0, "toolu_1", "weather", ""),
    ToolCallDelta(0, arguments=""),
    ToolCallDelta(0, arguments='{"city": "Zü'),
    ToolCallDelta(0, arguments='rich"}'),
    ToolCallDelta(1, "toolu_2", "time", ""),
    ToolCallDelta(1, arguments=""),
]
WHOLE = [THINKING, REDACTED, *SEARCH, *CALLS]


def sse(*events: dict[str, Any]) -> str:
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events)


def read(*pieces: bytes) -> tuple[list[Any], StreamEnd]:
    """Deltas and end of a stream that arrives in these pieces."""
    parser = SSEParser()
    reader = AnthropicProvider(ProviderConfig(name="anthropic")).reader("claude-x", 200, "req_1")
    deltas = [delta for piece in pieces for delta in reader.read(parser.feed(piece))]
    deltas += reader.read(parser.end())
    if reader.failure is not None:
        raise reader.failure
    return deltas, reader.end()


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in zip(at, at[1:], strict=False)]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto_advance=True)


@pytest.fixture
def llm(clock: FakeClock, server: ScriptedServer) -> QueryLLM:
    return QueryLLM(anthropic_api_base=server.base_url, anthropic_api_key=KEY, clock=clock)


async def streamed(llm: QueryLLM, *arguments: Any, **options: Any) -> LLMResponse:
    async with llm.stream(*arguments, **options) as stream:
        async for _ in stream:
            pass
    return stream.response


async def sent(llm: QueryLLM, server: ScriptedServer, *messages: Any, model: str = MODEL, **options: Any) -> Any:
    """The body that arrives, and nothing else is looked at."""
    server.answer_json(message("ok"))
    with contextlib.suppress(InvalidOutputError):  # "ok" is not of any form that was asked for
        await llm.query(model, list(messages) or [{"role": "user", "content": "hi"}], **options)
    return server.requests[-1].json


# Streams


@settings(deadline=None, max_examples=120)
@given(st.lists(st.integers(0, len(sse(*EVENTS).encode())), max_size=40), st.sampled_from(["\n", "\r\n"]))
def test_any_split_of_the_bytes_gives_the_same(cuts: list[int], end: str) -> None:
    deltas, closing = read(*split(sse(*EVENTS).replace("\n", end).encode(), cuts))
    assert deltas == DELTAS
    assert closing.native == {"format": "anthropic", "content": WHOLE}
    assert closing == read(sse(*EVENTS).encode())[1]


def test_byte_by_byte() -> None:
    deltas, closing = read(*(bytes([byte]) for byte in sse(*EVENTS).encode()))
    assert deltas == DELTAS
    assert closing == read(sse(*EVENTS).encode())[1]


unknown_values = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.just([1, {"type": "text"}]), st.just({"a": {}}))
unknown_events = st.sampled_from(
    [
        {"type": "ping"},
        {"type": "ping", "index": 99},
        {"type": "message_annotation", "index": 0, "note": {"text": "no text"}},
        {"type": "content_block_hint", "index": 0, "content_block": {"type": "text", "text": "no text"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "mood_delta", "mood": "good", "text": "no text"}},
        {"type": "usage_update", "usage": None},
    ]
)


@settings(deadline=None, max_examples=120)
@given(
    st.lists(st.tuples(st.integers(3, len(EVENTS) - 1), unknown_events), max_size=8), st.dictionaries(st.just("brand_new"), unknown_values)
)
@example([], {"brand_new": {"type": "error"}})
def test_what_is_not_known_is_passed_over(inserted: list[tuple[int, Any]], extra: dict[str, Any]) -> None:
    events: list[dict[str, Any]] = []
    for place, event in enumerate(copy.deepcopy(EVENTS)):
        events += [other for at, other in inserted if at == place]
        for inner in (event, event.get("delta"), event.get("message"), event.get("usage")):
            if inner is not None:
                inner.update(extra)
        events.append(event)
    deltas, closing = read(sse(*events).encode())
    assert deltas == DELTAS
    assert closing == read(sse(*EVENTS).encode())[1]


async def test_a_ping_before_everything_is_no_output(llm: QueryLLM, server: ScriptedServer) -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    server.answer_sse(sse({"type": "ping"}, START, {"type": "ping"}, overloaded))
    server.answer_sse(sse({"type": "ping"}, START, *said(0, "Hel", "lo"), *STOP))
    answer = await streamed(llm, MODEL, prompt="hi")
    assert answer.content == "Hello"
    first, second = answer.receipt.attempts
    assert first.error.startswith("ServerError") and "Overloaded" in first.error and second.error is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("overloaded_error", ServerError),
        ("api_error", ServerError),
        ("timeout_error", ServerError),
        ("rate_limit_error", RateLimitError),
        ("invalid_request_error", InvalidRequestError),
        ("authentication_error", AuthenticationError),
        ("permission_error", PermissionDeniedError),
        ("not_found_error", ModelNotFoundError),
        ("billing_error", InsufficientFundsError),
    ],
)
async def test_an_error_in_mid_stream(llm: QueryLLM, server: ScriptedServer, kind: str, expected: type[LLMError]) -> None:
    error = {"type": "error", "error": {"type": kind, "message": "It broke."}, "request_id": "req_7"}
    server.answer_sse(sse(START, *said(0, "Half ", "a sen")[:-1], error))
    stream = llm.stream(MODEL, prompt="hi")
    with pytest.raises(StreamInterruptedError) as caught:
        async for _ in stream:
            pass
    assert type(caught.value.__cause__) is expected
    assert caught.value.code == kind and "It broke." in str(caught.value)
    assert caught.value.response.content == stream.response.content == "Half a sen"
    assert caught.value.response.usage.input_tokens == 5
    assert len(server.requests) == 1


@pytest.mark.parametrize("kept", [0, 1, 2, 3], ids=["nothing", "start", "block start", "empty delta"])
async def test_a_stream_cut_off_before_its_output_is_asked_again(llm: QueryLLM, server: ScriptedServer, kept: int) -> None:
    server.answer_sse(sse(*[START, *said(0, "")][:kept]))
    server.answer_sse(sse(START, *said(0, "Whole."), *STOP))
    assert (await streamed(llm, MODEL, prompt="hi")).content == "Whole."
    assert len(server.requests) == 2


async def test_a_stream_cut_off_after_its_output_is_interrupted(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_sse(sse(START, *said(0, "Half ", "a sen")))
    with pytest.raises(StreamInterruptedError) as caught:
        await streamed(llm, MODEL, prompt="hi")
    assert isinstance(caught.value.__cause__, ServerError)
    assert caught.value.response.content == "Half a sen"
    assert caught.value.response.finish_reason is None


async def test_a_stream_that_says_why_it_ends_is_whole_without_its_stop_event(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_sse(sse(START, *said(0, "Whole."), STOP[0]))
    answer = await streamed(llm, MODEL, prompt="hi")
    assert (answer.content, answer.finish_reason, answer.usage.output_tokens) == ("Whole.", "stop", 7)


async def test_streams_that_ended_leave_their_connection_to_the_next(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_sse(sse(START, *said(0, "One."), *STOP), times=3)
    async with llm:
        for _ in range(3):
            assert (await streamed(llm, MODEL, prompt="hi")).content == "One."
    assert {request.connection for request in server.requests} == {0}


async def test_a_refusal_to_stream_is_asked_again(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, status=529)
    server.answer_sse(sse(START, *said(0, "Whole."), *STOP))
    answer = await streamed(llm, MODEL, prompt="hi")
    assert [attempt.status for attempt in answer.receipt.attempts] == [529, 200]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "lost"}},
        {"type": "content_block_delta", "index": 3, "delta": {"type": "signature_delta", "signature": "s"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": None}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta"}},
        {"type": "content_block_delta", "index": -4, "delta": {"type": "text_delta", "text": "lost"}},
        {"type": "content_block_delta", "index": 0, "delta": None},
        {"type": "content_block_start", "index": 1, "content_block": None},
        {"type": "content_block_start", "index": 5, "content_block": {"type": "thinking", "thinking": None}},
        {"type": "message_delta", "delta": None, "usage": None},
        {"type": "message_start", "message": None},
    ],
    ids=json.dumps,
)
async def test_an_event_out_of_order_is_no_crash(llm: QueryLLM, server: ScriptedServer, event: dict[str, Any]) -> None:
    """What can be read is read, or the error is one of ours."""
    server.answer_sse(sse(START, *said(0, "Hello"), event, *STOP), times=None)
    try:
        answer = await streamed(llm, MODEL, prompt="hi")
    except LLMError as exc:
        assert isinstance(exc, StreamInterruptedError) and exc.response.content == "Hello"
    else:
        assert answer.content.startswith("Hello") and answer.finish_reason == "stop"


async def test_a_whole_answer_to_a_stream(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(message(*WHOLE, stop="tool_use"))
    answer = await streamed(llm, MODEL, prompt="hi")
    assert (answer.content, answer.reasoning, answer.finish_reason) == ("It rains.", THINKING["thinking"], "tool_calls")
    assert answer.native == {"format": "anthropic", "content": WHOLE}


# Answers


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("max_tokens", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
        ("something_new", "something_new"),
    ],
)
async def test_finish_reasons(llm: QueryLLM, server: ScriptedServer, theirs: str, ours: str) -> None:
    server.answer_json(message("ok", stop=theirs))
    assert (await llm.query(MODEL, prompt="hi")).finish_reason == ours
    server.answer_sse(sse(START, *said(0, "ok"), {"type": "message_delta", "delta": {"stop_reason": theirs}}, {"type": "message_stop"}))
    assert (await streamed(llm, MODEL, prompt="hi")).finish_reason == ours


both_ways = pytest.mark.parametrize("how", ["whole", "streamed"])


async def answered(llm: QueryLLM, server: ScriptedServer, how: str) -> LLMResponse:
    """The answer with everything in it."""
    if how == "whole":
        usage = {"input_tokens": 50, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 20, "output_tokens": 70}
        server.answer_json(message(*WHOLE, stop="tool_use", usage={**usage, "server_tool_use": {"web_search_requests": 1}}))
        return await llm.query(MODEL, prompt="hi")
    server.answer_sse(sse(*EVENTS))
    return await streamed(llm, MODEL, prompt="hi")


@both_ways
async def test_everything_that_an_answer_holds(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    answer = await answered(llm, server, how)
    assert (answer.content, answer.reasoning, answer.finish_reason) == ("It rains.", THINKING["thinking"], "tool_calls")
    assert [(call.id, call.name, call.arguments) for call in answer.tool_calls] == [
        ("toolu_1", "weather", {"city": "Zürich"}),
        ("toolu_2", "time", {}),
    ]
    (citation,) = answer.citations
    assert (citation.raw, citation.url, citation.title, citation.text) == (CITATION, "https://example.com", "T", "c")
    assert answer.content[citation.start : citation.end] == "It rains."
    usage = answer.usage
    assert (usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens) == (100, 30, 20)
    assert (usage.output_tokens, usage.web_searches) == (70, 1)


@both_ways
async def test_thinking_and_server_tools_go_back_as_they_came(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    answer = await answered(llm, server, how)
    results = [{"role": "tool", "tool_call_id": call.id, "content": call.name} for call in answer.tool_calls]
    body = await sent(llm, server, {"role": "user", "content": "hi"}, answer.message, *results)
    assert body["messages"][1] == {"role": "assistant", "content": WHOLE}
    assert body["messages"][2:] == [
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "weather"},
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": "time"},
            ],
        }
    ]
    json.dumps(answer.message)  # may be kept by the user


async def test_what_only_another_provider_understands_is_not_sent(llm: QueryLLM, server: ScriptedServer) -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}]
    native = {"format": "gemini", "content": [{"text": "Hm.", "thoughtSignature": "x"}]}
    turn = {"role": "assistant", "content": "Hm.", "tool_calls": calls, "_native": native}
    result = {"role": "tool", "tool_call_id": "c1", "content": "warm"}
    body = await sent(llm, server, {"role": "user", "content": "hi"}, turn, result)
    assert body["messages"][1]["content"] == [
        {"type": "text", "text": "Hm."},
        {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}},
    ]


async def test_arguments_that_are_no_object(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_sse(sse(START, *called(0, CALLS[0], '{"city": "Zü'), *STOP))
    (call,) = (await streamed(llm, MODEL, prompt="hi")).tool_calls
    assert (call.arguments, call.text) == ({}, '{"city": "Zü') and "not JSON" in call.error


@pytest.mark.parametrize(
    "body",
    [
        {"type": "message", "content": [{"type": "text", "text": None}], "usage": None},
        {"type": "message", "content": [{"type": "text"}, {"type": "thinking", "thinking": None}], "usage": {}},
        {"type": "message", "content": [{}, {"type": None}], "usage": {"input_tokens": None}},
    ],
    ids=json.dumps,
)
async def test_an_answer_with_holes_is_no_crash(llm: QueryLLM, server: ScriptedServer, body: dict[str, Any]) -> None:
    server.answer_json(body, times=None)
    try:
        answer = await llm.query(MODEL, prompt="hi")
    except LLMError as exc:
        assert isinstance(exc, ServerError)
    else:
        assert answer.content == "" and answer.usage.input_tokens is None


@pytest.mark.parametrize(
    "body", [{}, {"type": "message"}, {"type": "message", "content": None}, [], "x", {"content": "text"}], ids=json.dumps
)
async def test_no_answer_is_a_server_error(llm: QueryLLM, server: ScriptedServer, body: Any) -> None:
    server.answer_json(body, times=None)
    with pytest.raises(ServerError) as caught:
        await llm.query(MODEL, prompt="hi")
    assert caught.value.status == 200 and len(server.requests) == 3


CITED: list[tuple[dict[str, Any], tuple[Any, Any]]] = [
    (CITATION, ("https://example.com", "T")),
    (
        {
            "type": "char_location",
            "cited_text": "c",
            "document_index": 0,
            "document_title": "Doc",
            "start_char_index": 0,
            "end_char_index": 1,
        },
        (None, "Doc"),
    ),
    (
        {
            "type": "page_location",
            "cited_text": "c",
            "document_index": 0,
            "document_title": None,
            "start_page_number": 1,
            "end_page_number": 2,
        },
        (None, None),
    ),
    (
        {
            "type": "content_block_location",
            "cited_text": "c",
            "document_index": 0,
            "document_title": "B",
            "start_block_index": 0,
            "end_block_index": 1,
        },
        (None, "B"),
    ),
    (
        {
            "type": "search_result_location",
            "cited_text": "c",
            "source": "kb://1",
            "title": "S",
            "search_result_index": 0,
            "start_block_index": 0,
            "end_block_index": 1,
        },
        ("kb://1", "S"),
    ),
]
"""https://docs.anthropic.com/en/docs/build-with-claude/citations#response-structure: each kind, its address and its title."""


@both_ways
async def test_every_kind_of_citation_with_the_text_that_it_supports(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    blocks: list[dict[str, Any]] = [{"type": "text", "text": "Grüße 🗾: "}, {"type": "thinking", "thinking": "hm", "signature": "c2ln"}]
    for number, (note, _) in enumerate(CITED):
        blocks += [{"type": "text", "text": f"Satz {number}. ", "citations": [note]}, {"type": "text", "text": "Und: "}]
    blocks[-1] = {"type": "text", "text": "Ende.", "citations": [CITATION, CITATION]}
    if how == "whole":
        server.answer_json(message(*blocks))
        answer = await llm.query(MODEL, prompt="hi")
    else:
        events = [START]
        for index, block in enumerate(blocks):
            text = block.get("text", "")
            begun = {"type": "text", "text": ""} if block["type"] == "text" else block
            events.append({"type": "content_block_start", "index": index, "content_block": begun})
            deltas = [{"type": "citations_delta", "citation": note} for note in block.get("citations", [])]
            deltas += [{"type": "text_delta", "text": piece} for piece in (text[:2], text[2:]) if piece]
            events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": index})
        server.answer_sse(sse(*events, *STOP))
        answer = await streamed(llm, MODEL, prompt="hi")
    found = [((c.url, c.title), c.text, c.raw, answer.content[c.start : c.end]) for c in answer.citations]
    expected = [(shown, "c", note, f"Satz {number}. ") for number, (note, shown) in enumerate(CITED)]
    assert found == expected + [(("https://example.com", "T"), "c", CITATION, "Ende.")] * 2
    assert answer.native["content"][0] == blocks[0] and answer.native["content"][2]["citations"] == [CITATION]


# Counts


async def test_tokens_are_counted(server: ScriptedServer) -> None:
    provider = AnthropicProvider(ProviderConfig(name="anthropic", base_url=server.base_url, api_key=KEY))
    server.answer_json({"input_tokens": 2095})
    options = provider.translate(
        "claude-sonnet-4-5", {"tools": [WEATHER], "reasoning_effort": "low", "temperature": 1, "stop": "x"}
    ).options
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    assert await provider.count_tokens(messages, "claude-sonnet-4-5", **options) == 2095
    assert (server.request.method, server.request.path) == ("POST", "/v1/messages/count_tokens")
    assert server.request.headers["x-api-key"] == KEY
    body = server.request.json
    assert body.keys() == {"model", "messages", "system", "tools", "thinking"}, "nothing that the endpoint does not know"
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 1024} and body["tools"][0]["name"] == "weather"


async def test_a_count_that_is_refused(server: ScriptedServer) -> None:
    provider = AnthropicProvider(ProviderConfig(name="anthropic", base_url=server.base_url, api_key=KEY))
    # As recorded: a model that there is not.
    error = {"type": "not_found_error", "message": "model: claude-does-not-exist"}
    server.answer_json({"type": "error", "error": error, "request_id": "req_1"}, status=404)
    with pytest.raises(ModelNotFoundError, match="claude-does-not-exist"):
        await provider.count_tokens([{"role": "user", "content": "hello"}], "claude-does-not-exist")


@pytest.mark.parametrize("body", ["", "{}", "[]", '{"input_tokens": null}'])
async def test_a_count_that_is_none(server: ScriptedServer, body: str) -> None:
    provider = AnthropicProvider(ProviderConfig(name="anthropic", base_url=server.base_url, api_key=KEY))
    server.answer(body)
    with pytest.raises(ServerError):
        await provider.count_tokens([{"role": "user", "content": "hello"}], "claude-sonnet-4-5")


# Errors


@pytest.mark.parametrize(
    ("status", "kind", "text", "expected"),
    [
        (400, "invalid_request_error", "max_tokens: must be greater than 0", InvalidRequestError),
        (400, "invalid_request_error", "prompt is too long: 200001 tokens > 200000 maximum", ContextWindowExceededError),
        (400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API.", InsufficientFundsError),
        (401, "authentication_error", "invalid x-api-key", AuthenticationError),
        (402, "billing_error", "billing", InsufficientFundsError),
        (403, "permission_error", "Your key may not use this resource.", PermissionDeniedError),
        (404, "not_found_error", "model: claude-none", ModelNotFoundError),
        (413, "request_too_large", "Request exceeds the maximum size", InvalidRequestError),
        (429, "rate_limit_error", "This request would exceed your organization's rate limit", RateLimitError),
        (500, "api_error", "Internal server error", ServerError),
        (504, "timeout_error", "Timeout", ServerError),
        (529, "overloaded_error", "Overloaded", ServerError),
    ],
)
async def test_errors(llm: QueryLLM, server: ScriptedServer, status: int, kind: str, text: str, expected: type[ProviderError]) -> None:
    body = {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_1"}
    server.answer_json(body, status=status, headers={"request-id": "req_1"}, times=None)
    with pytest.raises(ProviderError) as caught:
        await llm.query(MODEL, prompt="hi")
    assert type(caught.value) is expected
    assert (caught.value.status, caught.value.code, caught.value.request_id, caught.value.provider) == (status, kind, "req_1", "anthropic")
    assert text in str(caught.value)
    assert (len(server.requests) > 1) is (expected in (RateLimitError, ServerError))


@pytest.mark.parametrize(("kind", "expected"), [("overloaded_error", ServerError), ("invalid_request_error", InvalidRequestError)])
async def test_an_error_under_200(llm: QueryLLM, server: ScriptedServer, kind: str, expected: type[ProviderError]) -> None:
    server.answer_json({"type": "error", "error": {"type": kind, "message": f"No, {KEY}."}}, times=None)
    with pytest.raises(ProviderError, match=r"No, .*\.") as caught:
        await llm.query(MODEL, prompt="hi")
    assert type(caught.value) is expected and caught.value.status == 200 and caught.value.code == kind
    assert len(server.requests) == (3 if expected is ServerError else 1)
    assert KEY not in f"{caught.value!r} {caught.value} {caught.value.receipt!r}"


LIMITS = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-requests-reset": "2026-01-02T03:04:05Z",
    "anthropic-ratelimit-tokens-limit": "90000",
    "anthropic-ratelimit-tokens-remaining": "80000",
    "anthropic-ratelimit-tokens-reset": "2026-01-02T03:04:06Z",
    "anthropic-ratelimit-input-tokens-limit": "50000",
    "anthropic-ratelimit-input-tokens-remaining": "0",
    "anthropic-ratelimit-input-tokens-reset": "2026-01-02T03:04:35Z",
    "anthropic-ratelimit-output-tokens-limit": "10000",
    "anthropic-ratelimit-output-tokens-remaining": "9000",
    "anthropic-ratelimit-output-tokens-reset": "2026-01-02T03:05:05+00:00",
}
NOW = 1767323045.0  # 2026-01-02T03:04:05Z


def test_rate_limit_headers() -> None:
    # By the server's own clock, whatever this machine's says.
    limits = AnthropicProvider(ProviderConfig(name="anthropic")).rate_limits({**LIMITS, "date": "Fri, 02 Jan 2026 03:04:05 GMT"})
    assert (limits.requests_limit, limits.requests_remaining, limits.requests_reset) == (50, 49, 0)
    assert (limits.tokens_limit, limits.tokens_remaining, limits.tokens_reset) == (90000, 80000, 1)
    assert (limits.input_tokens_limit, limits.input_tokens_remaining, limits.input_tokens_reset) == (50000, 0, 30)
    assert (limits.output_tokens_limit, limits.output_tokens_remaining, limits.output_tokens_reset) == (10000, 9000, 60)


@pytest.mark.parametrize("value", ["", "soon", "-", "12.5.7", "2026-99-99T00:00:00Z", "inf", "nan", "-3"])
def test_rate_limit_headers_that_cannot_be_read_are_unknown(value: str) -> None:
    provider = AnthropicProvider(ProviderConfig(name="anthropic"))
    assert provider.rate_limits(dict.fromkeys(LIMITS, value)) == RateLimitState()
    assert provider.rate_limits({}) is None


def test_the_wait_after_a_429_is_that_of_the_limit_that_is_used_up() -> None:
    failure = failure_of({"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}})
    assert retry_after(LIMITS, failure, now=NOW) == 30
    assert retry_after({**LIMITS, "anthropic-ratelimit-output-tokens-remaining": "0"}, failure, now=NOW) == 60
    assert retry_after(LIMITS, failure, now=NOW + 100) == 0
    assert retry_after({**LIMITS, "retry-after": "7"}, failure, now=NOW) == 7


async def test_a_429_whose_limit_comes_back_too_late_fails_now_and_says_when(llm: QueryLLM, server: ScriptedServer) -> None:
    headers = {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": "2999-01-01T00:00:00Z"}
    server.answer_json({"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}, status=429, headers=headers)
    with pytest.raises(RateLimitError) as caught:
        await llm.query(MODEL, prompt="hi")
    assert caught.value.retry_after > 10**9 and len(server.requests) == 1


# Money


@pytest.fixture
def priced() -> str:
    ModelRegistry.register(
        "anthropic/claude-priced",
        ModelConfig(
            input_price_per_million=3,
            output_price_per_million=15,
            cached_input_price_per_million="0.3",
            cache_write_price_per_million="3.75",
            cache_write_1h_price_per_million=6,
            price_per_web_search="0.01",
        ),
    )
    return "anthropic/claude-priced"


COUNTED = {
    "input_tokens": 10,
    "cache_read_input_tokens": 1_000,
    "cache_creation_input_tokens": 500,
    "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 200},
    "output_tokens": 40,
    "output_tokens_details": {"thinking_tokens": 12},
    "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 5},
    "service_tier": "standard",
}


@both_ways
async def test_cost_with_cache_and_searches(priced: str, server: ScriptedServer, clock: FakeClock, how: str) -> None:
    llm = QueryLLM(anthropic_api_base=server.base_url, anthropic_api_key=KEY, clock=clock)
    if how == "whole":
        server.answer_json(message("ok", usage=COUNTED))
        answer = await llm.query(priced, prompt="hi")
    else:
        counts = {key: COUNTED[key] for key in ("output_tokens", "output_tokens_details", "server_tool_use")}
        begun = {**COUNTED, "output_tokens": 1, "output_tokens_details": None, "server_tool_use": None}
        start = {"type": "message_start", "message": message(stop=None, usage=begun)}
        server.answer_sse(sse(start, *said(0, "ok"), {**STOP[0], "usage": counts}, STOP[1]))
        answer = await streamed(llm, priced, prompt="hi")
    usage = answer.usage
    assert (usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens) == (1510, 1000, 500, 200)
    assert (usage.output_tokens, usage.reasoning_tokens, usage.web_searches, usage.total_tokens) == (40, 12, 2, 1550)
    in_millionths = 10 * 3 + 1_000 * Decimal("0.3") + 300 * Decimal("3.75") + 200 * 6 + 40 * 15
    assert answer.cost == answer.receipt.cost == in_millionths / 1_000_000 + Decimal("0.02")
    assert isinstance(answer.cost, Decimal) and answer.receipt.cost_state == "exact"


async def test_cached_input_never_makes_a_cost_below_zero(priced: str, llm: QueryLLM, server: ScriptedServer) -> None:
    """Their input leaves out the cached: subtracted from it once more, this was -0.45 dollars."""
    server.answer_json(message("", usage={"input_tokens": 10, "cache_read_input_tokens": 150_010, "output_tokens": 0}))
    answer = await llm.query(priced, prompt="hi")
    assert answer.cost == (10 * 3 + 150_010 * Decimal("0.3")) / 1_000_000 == Decimal("0.045033")


@pytest.mark.parametrize("tier", ["priority", "batch"])
async def test_at_another_tier_the_list_price_is_not_the_cost(priced: str, llm: QueryLLM, server: ScriptedServer, tier: str) -> None:
    server.answer_json(message("ok", usage={**COUNTED, "service_tier": tier}))
    answer = await llm.query(priced, prompt="hi")
    assert (answer.cost, answer.receipt.cost_state) == (None, "unknown")


async def test_what_another_model_did_inside_is_not_priced_as_this_one(priced: str, llm: QueryLLM, server: ScriptedServer) -> None:
    """The advisor's tokens stand in ``iterations`` only, and have its own price."""
    iterations = [
        {"type": "message", "input_tokens": 10, "output_tokens": 30},
        {"type": "advisor_message", "model": "claude-opus-4-8", "input_tokens": 2518, "output_tokens": 22},
        {"type": "message", "input_tokens": 5, "output_tokens": 10},
    ]
    counts = {"input_tokens": 15, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0, "output_tokens": 40}
    server.answer_json(message("ok", usage={**counts, "iterations": iterations}))
    answer = await llm.query(priced, prompt="hi")
    assert answer.receipt.cost_state != "exact"


# Requests


async def test_the_request(llm: QueryLLM, server: ScriptedServer) -> None:
    body = await sent(llm, server, {"role": "user", "content": "hi"}, max_tokens=9, temperature=0.5)
    request = server.request
    assert (request.method, request.path) == ("POST", "/v1/messages")
    assert request.headers["x-api-key"] == KEY and request.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in request.headers and "anthropic-beta" not in request.headers
    assert body == {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "temperature": 0.5}


async def test_names_that_lead_here(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(message("ok"), times=None)
    for name in ("claude-sonnet-4-5", "anthropic/claude-sonnet-4-5", "anthropic:claude-sonnet-4-5"):
        assert (await llm.query(name, prompt="hi")).provider == "anthropic"
    assert {request.json["model"] for request in server.requests} == {"claude-sonnet-4-5"}


async def test_betas_go_into_a_header(llm: QueryLLM, server: ScriptedServer) -> None:
    body = await sent(llm, server, betas=["files-api-2025-04-14", "context-1m-2025-08-07"])
    assert server.request.headers["anthropic-beta"] == "files-api-2025-04-14,context-1m-2025-08-07"
    assert "betas" not in body


def test_a_plan_shows_everything_and_sends_nothing(llm: QueryLLM, server: ScriptedServer) -> None:
    plan = llm.plan(MODEL, prompt="hi", stop="END", n=1, max_completion_tokens=5)
    assert (plan.provider, plan.model, plan.url) == ("anthropic", "claude-sonnet-4-5", f"{server.base_url}/messages")
    assert plan.body["stop_sequences"] == ["END"] and plan.body["max_tokens"] == 5
    assert plan.renamed == {"stop": "stop_sequences", "max_completion_tokens": "max_tokens"} and plan.dropped == ("n",)
    assert "anthropic-version" in plan.headers and KEY not in repr(plan)
    assert server.requests == []


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-sonnet-4-5", 64_000),
        ("claude-opus-4-1", 32_000),
        ("claude-3-5-haiku-latest", 8_192),
        ("claude-nobody-knows", 4_096),
    ],
)
async def test_how_much_the_model_may_write_if_nobody_says(llm: QueryLLM, server: ScriptedServer, model: str, expected: int) -> None:
    assert (await sent(llm, server, model=f"anthropic/{model}"))["max_tokens"] == expected
    assert (await sent(llm, server, model=f"anthropic/{model}", max_tokens=7))["max_tokens"] == 7
    assert (await sent(llm, server, model=f"anthropic/{model}", max_completion_tokens=8))["max_tokens"] == 8


@pytest.mark.parametrize("effort", ["minimal", "low", "medium", "high"])
async def test_the_default_leaves_room_for_the_thinking(llm: QueryLLM, server: ScriptedServer, effort: str) -> None:
    body = await sent(llm, server, model="anthropic/claude-3-7-sonnet-latest", reasoning_effort=effort)
    assert body["max_tokens"] > body["thinking"]["budget_tokens"] >= 1024


# Requests: messages


async def test_system_messages(llm: QueryLLM, server: ScriptedServer) -> None:
    user = {"role": "user", "content": "hi"}
    body = await sent(llm, server, {"role": "system", "content": "One."}, {"role": "developer", "content": "Two."}, user)
    assert body["system"] == "One.\n\nTwo." and body["messages"] == [user]
    late = {"role": "system", "content": "Be brief."}
    old = await sent(llm, server, {"role": "system", "content": "One."}, user, late, {"role": "user", "content": "go"})
    assert old["system"] == "One.\n\nBe brief." and [turn["role"] for turn in old["messages"]] == ["user", "user"]
    new = await sent(llm, server, {"role": "system", "content": "One."}, user, late, model="anthropic/claude-opus-4-8")
    assert new["system"] == "One." and [turn["role"] for turn in new["messages"]] == ["user", "system"]


async def test_images_and_files(llm: QueryLLM, server: ScriptedServer) -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.jpg"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
        {"type": "file", "file": {"file_data": "data:text/plain;base64,Z3LDvG4="}},
        {"type": "file", "file": {"file_id": "file_1"}},
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}, "citations": {"enabled": True}},
    ]
    body = await sent(llm, server, {"role": "user", "content": parts})
    assert body["messages"][0]["content"] == [
        parts[0],
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.jpg"}},
        {"type": "document", "title": "a.pdf", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "grün"}},
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        parts[6],
    ]


async def test_parallel_calls_and_their_results(llm: QueryLLM, server: ScriptedServer) -> None:
    calls = [
        {"id": f"c{number}", "type": "function", "function": {"name": "weather", "arguments": text}}
        for number, text in enumerate(['{"city": "Rome"}', "", "{}"])
    ]
    image = {"type": "image_url", "image_url": {"url": PIXEL}}
    body = await sent(
        llm,
        server,
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "I look.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "cold"},
        {"role": "tool", "tool_call_id": "c0", "content": [{"type": "text", "text": "warm"}, image]},
        {"role": "tool", "tool_call_id": "c2", "content": "no such city", "is_error": True},
        {"role": "user", "content": "And?"},
    )
    assert [turn["role"] for turn in body["messages"]] in (["user", "assistant", "user", "user"], ["user", "assistant", "user"])
    assert body["messages"][1]["content"] == [
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "c0", "name": "weather", "input": {"city": "Rome"}},
        {"type": "tool_use", "id": "c1", "name": "weather", "input": {}},
        {"type": "tool_use", "id": "c2", "name": "weather", "input": {}},
    ]
    assert body["messages"][2]["content"][:3] == [
        {"type": "tool_result", "tool_use_id": "c1", "content": "cold"},
        {
            "type": "tool_result",
            "tool_use_id": "c0",
            "content": [
                {"type": "text", "text": "warm"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
            ],
        },
        {"type": "tool_result", "tool_use_id": "c2", "content": "no such city", "is_error": True},
    ]


async def test_cache_control_is_kept_wherever_it_stands(llm: QueryLLM, server: ScriptedServer) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    tool = {**WEATHER, "cache_control": CACHE}
    body = await sent(
        llm,
        server,
        {"role": "system", "content": [{"type": "text", "text": "Long.", "cache_control": CACHE}]},
        {"role": "user", "content": "hi", "cache_control": CACHE},
        {"role": "assistant", "content": "Hm.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "warm", "cache_control": CACHE},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": PIXEL}, "cache_control": CACHE}, {"type": "text", "text": "?"}],
        },
        tools=[tool],
    )
    assert body["system"] == [{"type": "text", "text": "Long.", "cache_control": CACHE}]
    user, _, result, last = body["messages"]
    assert user["content"] == [{"type": "text", "text": "hi", "cache_control": CACHE}]
    assert result["content"][0]["cache_control"] == CACHE
    assert last["content"][0]["cache_control"] == CACHE and "cache_control" not in last["content"][1]
    assert body["tools"][0]["cache_control"] == CACHE and "type" not in body["tools"][0]


@pytest.mark.parametrize("empty", ["", None, []], ids=repr)
async def test_an_empty_answer_goes_back_in_no_form_that_is_refused(llm: QueryLLM, server: ScriptedServer, empty: Any) -> None:
    """``all messages must have non-empty content except for the optional final assistant message``; so of text blocks."""
    body = await sent(
        llm, server, {"role": "user", "content": "hi"}, {"role": "assistant", "content": empty}, {"role": "user", "content": "well?"}
    )
    for turn in body["messages"]:
        assert turn["content"], turn
        assert not isinstance(turn["content"], list) or all(part.get("text") != "" for part in turn["content"])
    assert body["messages"][0]["content"] == "hi" and body["messages"][-1]["content"] == "well?"


REFUSED_MESSAGES: dict[str, tuple[list[Any], str]] = {
    "a result without its call": ([{"role": "user", "content": "hi"}, {"role": "tool", "tool_call_id": "c9", "content": "x"}], "c9"),
    "a result before its call": (
        [
            {"role": "tool", "tool_call_id": "c9", "content": "x"},
            {"role": "assistant", "tool_calls": [{"id": "c9", "function": {"name": "f", "arguments": "{}"}}]},
        ],
        "c9",
    ),
    "their own result without its call": (
        [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c9", "content": "x"}]}],
        "c9",
    ),
    "a result without an id": ([{"role": "user", "content": "hi"}, {"role": "tool", "content": "x"}], "messages[1]"),
    "an image type": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/bmp;base64,Qk0="}}]}],
        "image/bmp",
    ),
    "a file type": (
        [{"role": "user", "content": [{"type": "file", "file": {"file_data": "data:application/zip;base64,UEsDBAA="}}]}],
        "application/zip",
    ),
    "audio": ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]}], "audio"),
    "no image at all": ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "messages[0]"),
    "a data URI that is none": ([{"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png,abc"}]}], "data URI"),
    "text that is no base64": (
        [{"role": "user", "content": [{"type": "file", "file": {"file_data": "data:text/plain;base64,a"}}]}],
        "messages[0]",
    ),
    "text that is no UTF-8": (
        [{"role": "user", "content": [{"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}}]}],
        "messages[0]",
    ),
    "content of no kind": ([{"role": "user", "content": 7}], "int"),
    "a part of no kind": ([{"role": "user", "content": [7]}], "int"),
    "arguments that are no object": (
        [{"role": "assistant", "tool_calls": [{"id": "c9", "function": {"name": "f", "arguments": "[1]"}}]}],
        "c9",
    ),
    "a tool call of no kind": ([{"role": "assistant", "tool_calls": [5]}], "messages[0]"),
    "their own turn without its blocks": ([{"role": "assistant", "content": "x", "_native": {"format": "anthropic"}}], "messages[0]"),
    "nothing but a system message": ([{"role": "system", "content": "Be brief."}], "system"),
    "arguments that are no JSON": (
        [{"role": "assistant", "tool_calls": [{"id": "c9", "function": {"name": "f", "arguments": "{"}}]}],
        "c9",
    ),
}


@pytest.mark.parametrize("case", REFUSED_MESSAGES)
async def test_messages_that_are_refused_before_sending(llm: QueryLLM, server: ScriptedServer, case: str) -> None:
    messages, named = REFUSED_MESSAGES[case]
    with pytest.raises(InvalidRequestError) as caught:
        await llm.query(MODEL, messages)
    assert named in str(caught.value)
    assert server.requests == []


# Requests: options


RENAMED: list[tuple[dict[str, Any], dict[str, Any], dict[str, str]]] = [
    ({"max_completion_tokens": 5}, {"max_tokens": 5}, {"max_completion_tokens": "max_tokens"}),
    ({"stop": "END"}, {"stop_sequences": ["END"]}, {"stop": "stop_sequences"}),
    ({"stop": ["A", "B"]}, {"stop_sequences": ["A", "B"]}, {"stop": "stop_sequences"}),
    ({"user": "u1"}, {"metadata": {"user_id": "u1"}}, {"user": "metadata.user_id"}),
    ({"top_p": 0.5, "top_k": 3, "service_tier": "auto"}, {"top_p": 0.5, "top_k": 3, "service_tier": "auto"}, {}),
    ({"tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}, {}),
    ({"tool_choice": "required"}, {"tool_choice": {"type": "any"}}, {}),
    ({"tool_choice": "none"}, {"tool_choice": {"type": "none"}}, {}),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"tool_choice": {"type": "tool", "name": "f"}}, {}),
    ({"tool_choice": {"type": "tool", "name": "f"}}, {"tool_choice": {"type": "tool", "name": "f"}}, {}),
    (
        {"parallel_tool_calls": False},
        {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        {"parallel_tool_calls": "tool_choice.disable_parallel_tool_use"},
    ),
    (
        {"parallel_tool_calls": False, "tool_choice": "required"},
        {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
        {"parallel_tool_calls": "tool_choice.disable_parallel_tool_use"},
    ),
    (
        {"tool_choice": "required", "parallel_tool_calls": False},
        {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
        {"parallel_tool_calls": "tool_choice.disable_parallel_tool_use"},
    ),
    ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, {"thinking": {"type": "enabled", "budget_tokens": 2000}}, {}),
    ({"context_management": {"edits": []}}, {"context_management": {"edits": []}}, {}),
    ({"brand_new_option": [1]}, {"brand_new_option": [1]}, {}),
    ({"tools": [WEATHER]}, {"tools": [{"name": "weather", "description": "W", "input_schema": WEATHER["function"]["parameters"]}]}, {}),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
        {"tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}, "strict": True}]},
        {},
    ),
    (
        {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]},
        {},
    ),
    (
        {"tools": [{"name": "own", "input_schema": {"type": "object"}}]},
        {"tools": [{"name": "own", "input_schema": {"type": "object"}}]},
        {},
    ),
]


@pytest.mark.parametrize(("options", "expected", "renamed"), RENAMED, ids=[json.dumps(options)[:70] for options, _, _ in RENAMED])
async def test_options_in_their_words(
    llm: QueryLLM, server: ScriptedServer, options: dict[str, Any], expected: dict[str, Any], renamed: dict[str, str]
) -> None:
    server.answer_json(message("ok"))
    before = copy.deepcopy(options)
    answer = await llm.query(MODEL, prompt="hi", **options)
    body = server.request.json
    rest = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 64_000}
    assert body == {**rest, **expected}
    assert answer.receipt.renamed == renamed and answer.receipt.dropped == ()
    assert options == before


async def test_a_user_and_metadata_are_both_kept_in_either_order(llm: QueryLLM, server: ScriptedServer) -> None:
    for options in ({"user": "u1", "metadata": {"more": "m"}}, {"metadata": {"more": "m"}, "user": "u1"}):
        assert (await sent(llm, server, **options))["metadata"] == {"user_id": "u1", "more": "m"}


NEUTRAL: dict[str, Any] = {
    "n": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0.0,
    "logprobs": False,
    "logit_bias": {},
    "stream_options": {"include_usage": True},
    "store": False,
    "parallel_tool_calls": True,
    "response_format": {"type": "text"},
}


async def test_values_that_ask_for_what_happens_anyway_are_dropped(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(message("ok"))
    answer = await llm.query(MODEL, prompt="hi", **NEUTRAL)
    assert server.request.json.keys() == {"model", "messages", "max_tokens"}
    assert set(answer.receipt.dropped) == set(NEUTRAL)


REFUSED: dict[str, Any] = {
    "audio": {"voice": "x"},
    "frequency_penalty": 0.5,
    "function_call": "auto",
    "functions": [],
    "logit_bias": {"50": 1},
    "logprobs": True,
    "modalities": ["text", "audio"],
    "n": 2,
    "prediction": {"type": "content", "content": "x"},
    "presence_penalty": 0.5,
    "prompt_cache_key": "x",
    "seed": 7,
    "store": True,
    "top_logprobs": 3,
    "verbosity": "low",
    "web_search_options": {},
}


@pytest.mark.parametrize("name", REFUSED)
async def test_an_option_that_cannot_be_carried_is_refused_by_name_or_dropped_and_listed(
    llm: QueryLLM, server: ScriptedServer, name: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"(?s)anthropic.*'{name}'"):
        await llm.query(MODEL, prompt="hi", **{name: REFUSED[name]})
    with pytest.raises(InvalidRequestError, match=name):
        llm.plan(MODEL, prompt="hi", **{name: REFUSED[name]})
    assert server.requests == []
    server.answer_json(message("ok"))
    answer = await llm.query(MODEL, prompt="hi", on_unsupported="drop", **{name: REFUSED[name]})
    assert answer.receipt.dropped == (name,) and answer.receipt.renamed == {}
    assert server.request.json.keys() == {"model", "messages", "max_tokens"}


def as_format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


REFUSED_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"thinking": {"type": "enabled", "budget_tokens": 2000}, "temperature": 0.2}, "temperature"),
    ({"thinking": {"type": "adaptive"}, "temperature": 0}, "temperature"),
    ({"reasoning_effort": "low", "temperature": 0.7}, "temperature"),
    ({"thinking": {"type": "enabled", "budget_tokens": 2000}, "top_k": 5}, "top_k"),
    ({"reasoning_effort": "low", "tool_choice": "required", "tools": [WEATHER]}, "tool_choice"),
    ({"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 2000}, "max_tokens"),
    ({"reasoning_effort": "high", "max_tokens": 100}, "max_tokens"),
    ({"temperature": 1.5}, "temperature"),
    ({"temperature": -1}, "temperature"),
    ({"tool_choice": "sometimes"}, "sometimes"),
    ({"reasoning_effort": "a bit"}, "a bit"),
    ({"response_format": {"type": "json_schema"}}, "schema"),
    ({"response_format": {"type": "xml"}}, "xml"),
    ({"stop": 5}, "stop"),
    ({"tools": "weather"}, "tools"),
    ({"tools": [5]}, "tools"),
    ({"tool_choice": 5}, "tool_choice"),
    ({"output_config": 5}, "output_config"),
    ({"response_format": as_format({"type": "object", "properties": 5, "additionalProperties": False})}, "properties"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
    ({"thinking": {"type": "enabled", "budget_tokens": 2000}, "top_p": 0.5}, "top_p"),
    (
        {
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]},
            }
        },
        "allowed_tools",
    ),
]


@pytest.mark.parametrize(("options", "named"), REFUSED_VALUES, ids=[json.dumps(options)[:70] for options, _ in REFUSED_VALUES])
async def test_values_that_are_refused_before_sending(llm: QueryLLM, server: ScriptedServer, options: dict[str, Any], named: str) -> None:
    server.answer_json(message("ok"))
    with pytest.raises(InvalidRequestError) as caught:
        await llm.query(MODEL, prompt="hi", **options)
    assert named in str(caught.value)
    assert server.requests == []


async def test_no_calls_at_all_are_never_parallel(llm: QueryLLM, server: ScriptedServer) -> None:
    """``disable_parallel_tool_use`` is no field of the choice of none."""
    body = await sent(llm, server, tools=[WEATHER], tool_choice="none", parallel_tool_calls=False)
    assert body["tool_choice"] == {"type": "none"}


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "written"),
    [
        ("claude-sonnet-4-5", "low", {"type": "enabled", "budget_tokens": 1024}, None),
        ("claude-sonnet-4-5-20250929", "medium", {"type": "enabled", "budget_tokens": 4096}, None),
        ("claude-opus-4-20250514", "high", {"type": "enabled", "budget_tokens": 16_384}, None),
        ("claude-opus-4-6", "low", {"type": "adaptive"}, {"effort": "low"}),
        ("claude-opus-4-6", "minimal", {"type": "adaptive"}, {"effort": "low"}),
        ("claude-sonnet-5", "high", {"type": "adaptive"}, {"effort": "high"}),
        ("claude-opus-5-5", "xhigh", {"type": "adaptive"}, {"effort": "xhigh"}),
        ("claude-sonnet-4-5", "none", {"type": "disabled"}, None),
    ],
)
async def test_reasoning_effort(
    llm: QueryLLM, server: ScriptedServer, model: str, effort: str, thinking: dict[str, Any], written: dict[str, Any] | None
) -> None:
    body = await sent(llm, server, model=f"anthropic/{model}", reasoning_effort=effort, max_tokens=20_000)
    assert body["thinking"] == thinking
    assert body.get("output_config") == written
    assert "reasoning_effort" not in body


# Requests: schemas


CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}


async def test_a_schema(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(message('{"city": "Rome"}'))
    answer = await llm.query(MODEL, prompt="hi", response_format=as_format(CITY), output_config={"task_budget": {"total": 5}})
    config = server.request.json["output_config"]
    assert config == {"format": {"type": "json_schema", "schema": CITY}, "task_budget": {"total": 5}}
    assert answer.receipt.renamed == {"response_format": "output_config.format"}


KEYWORDS: dict[str, Any] = {
    "minimum": 1,
    "maximum": 1,
    "exclusiveMinimum": 1,
    "multipleOf": 2,
    "minLength": 1,
    "maxLength": 5,
    "maxItems": 3,
    "minItems": 2,
    "uniqueItems": True,
    "patternProperties": {},
    "not": {},
    "if": {},
    "oneOf": [{"type": "string"}],
}
PLACES: dict[str, Any] = {
    "schema.properties.x": lambda part: {"type": "object", "properties": {"x": part}, "additionalProperties": False},
    "schema.$defs.x": lambda part: {**CITY, "$defs": {"x": part}},
    "schema.properties.x.items": lambda part: {
        "type": "object",
        "properties": {"x": {"type": "array", "items": part}},
        "additionalProperties": False,
    },
    "schema.anyOf[1]": lambda part: {"anyOf": [CITY, part]},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_keyword_that_is_not_allowed_is_named_with_its_place(llm: QueryLLM, keyword: str, place: str) -> None:
    schema = PLACES[place]({"type": "string", keyword: KEYWORDS[keyword]})
    with pytest.raises(InvalidRequestError) as caught:
        llm.plan(MODEL, prompt="hi", response_format=as_format(schema))
    assert f"'{keyword}'" in str(caught.value) and place in str(caught.value)


def test_a_property_may_be_called_like_a_keyword(llm: QueryLLM) -> None:
    properties = {name: {"type": "string", "enum": ["minLength", "not"]} for name in KEYWORDS}
    schema = {"type": "object", "properties": properties, "required": list(KEYWORDS), "additionalProperties": False}
    assert llm.plan(MODEL, prompt="hi", response_format=as_format(schema)).body["output_config"]["format"]["schema"] == schema


@pytest.mark.parametrize("additional", [True, {"type": "string"}], ids=repr)
def test_an_open_object_is_refused(llm: QueryLLM, additional: Any) -> None:
    with pytest.raises(InvalidRequestError, match="additionalProperties"):
        llm.plan(MODEL, prompt="hi", response_format=as_format({**CITY, "additionalProperties": additional}))


def test_an_object_that_does_not_say_that_it_is_closed(llm: QueryLLM) -> None:
    """The API refuses it: ``For 'object' type, 'additionalProperties' must be explicitly set to false``."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    try:
        plan = llm.plan(MODEL, prompt="hi", response_format=as_format(schema))
    except InvalidRequestError as exc:
        assert "additionalProperties" in str(exc)
    else:
        assert plan.body["output_config"]["format"]["schema"]["additionalProperties"] is False
    assert "additionalProperties" not in schema
