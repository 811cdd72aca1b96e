"""Gemini's generateContent on Google AI and on Vertex AI: what goes out, what comes back, what is refused before it is sent.

Sources: https://ai.google.dev/api/generate-content, https://cloud.google.com/docs/authentication/application-default-credentials
"""

from __future__ import annotations

import asyncio
import copy
import contextlib
import json
import urllib.parse
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from servers.scripted import ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    ConfigurationError,
    ContentPolicyError,
    Image,
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
from llm_master.providers.gemini import GeminiProvider
from llm_master.providers.sse import SSEParser
from llm_master.testing import FakeClock

KEY = "AIza-secret-0123456789"
MODEL = "gemini/gemini-2.5-flash"
NEW = "gemini/gemini-3-flash-preview"
PIXEL = "data:image/png;base64,iVBORw0KGgo="
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "W", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
SOURCE = {"web": {"uri": "https://example.com", "title": "T"}}
COUNTED = {"promptTokenCount": 8, "candidatesTokenCount": 3, "thoughtsTokenCount": 4, "totalTokenCount": 15}


def answer_of(*parts: Any, finish: str | None = "STOP", usage: Any = COUNTED, **candidate: Any) -> dict[str, Any]:
    content = {"role": "model", "parts": [{"text": part} if isinstance(part, str) else part for part in parts]}
    reason = {"finishReason": finish} if finish is not None else {}
    return {
        "candidates": [{"content": content, "index": 0, **reason, **candidate}],
        "modelVersion": "gemini-x",
        "responseId": "r1",
        "usageMetadata": usage,
    }


CALLS = [
    {"functionCall": {"name": "weather", "args": {"city": "Zürich"}}, "thoughtSignature": "c2lnbmF0dXJl"},
    {"functionCall": {"name": "time", "args": {}}},
    {"functionCall": {"id": "own1", "name": "weather", "args": {"city": "Rome"}}},
]
CHUNKS: list[dict[str, Any]] = [
    answer_of({"text": "Let me see: ", "thought": True}, finish=None, usage={"promptTokenCount": 8}),
    answer_of({"text": "日本?", "thought": True}, finish=None, usage={"promptTokenCount": 8}),
    answer_of("It ", finish=None, usage=None),
    answer_of("rains.", {"executableCode": {"language": "PYTHON", "code": "1"}}, finish=None),
    answer_of({"text": "", "thoughtSignature": "dGV4dA=="}, finish=None),
    answer_of(*CALLS[:2], finish=None),
    answer_of(CALLS[2], groundingMetadata={"groundingChunks": [SOURCE]}),
]
PARTS = [
    {"text": "Let me see: 日本?", "thought": True},
    {"text": "It rains."},
    {"executableCode": {"language": "PYTHON", "code": "1"}},
    {"text": "", "thoughtSignature": "dGV4dA=="},
    *CALLS,
]


def sse(*chunks: dict[str, Any]) -> str:
    return "".join(f"data: {json.dumps(chunk, ensure_ascii=False)}\r\n\r\n" for chunk in chunks)


def read(*pieces: bytes) -> tuple[list[Any], StreamEnd]:
    """Deltas and end of a stream that arrives in these pieces. Ids that the library made are left out."""
    parser = SSEParser()
    reader = GeminiProvider(ProviderConfig(name="gemini")).reader("gemini-x", 200, "req_1")
    deltas = [delta for piece in pieces for delta in reader.read(parser.feed(piece))]
    deltas += reader.read(parser.end())
    if reader.failure is not None:
        raise reader.failure
    for delta in deltas:
        if isinstance(delta, ToolCallDelta) and delta.id is not None and delta.id.startswith("call_"):
            delta.id = "made"
    return deltas, reader.end()


DELTAS = [
    ReasoningDelta("Let me see: "),
    ReasoningDelta("日本?"),
    "It ",
    "rains.",
    ToolCallDelta(0, "made", "weather", '{"city":"Zürich"}'),
    ToolCallDelta(1, "made", "time", "{}"),
    ToolCallDelta(2, "own1", "weather", '{"city":"Rome"}'),
]


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in zip(at, at[1:], strict=False)]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto_advance=True)


@pytest.fixture
def llm(clock: FakeClock, server: ScriptedServer) -> QueryLLM:
    return QueryLLM(gemini_api_base=f"{server.url}/v1beta", gemini_api_key=KEY, clock=clock)


async def streamed(llm: QueryLLM, *arguments: Any, **options: Any) -> LLMResponse:
    async with llm.stream(*arguments, **options) as stream:
        async for _ in stream:
            pass
    return stream.response


async def sent(llm: QueryLLM, server: ScriptedServer, *messages: Any, model: str = MODEL, **options: Any) -> Any:
    """The body that arrives, and nothing else is looked at."""
    server.answer_json(answer_of("ok"))
    with contextlib.suppress(InvalidOutputError):  # "ok" is not of any form that was asked for
        await llm.query(model, list(messages) or [{"role": "user", "content": "hi"}], **options)
    return server.requests[-1].json


# Streams


@settings(deadline=None, max_examples=120)
@given(st.lists(st.integers(0, len(sse(*CHUNKS).encode())), max_size=40), st.sampled_from(["\r\n", "\n"]))
def test_any_split_of_the_bytes_gives_the_same(cuts: list[int], end: str) -> None:
    deltas, closing = read(*split(sse(*CHUNKS).replace("\r\n", end).encode(), cuts))
    assert deltas == DELTAS
    assert closing == read(sse(*CHUNKS).encode())[1]
    assert closing.native == {"format": "gemini", "content": PARTS}
    assert (closing.finish_reason, [citation.raw for citation in closing.citations]) == ("tool_calls", [SOURCE])


unknown_parts = st.sampled_from([{"brandNew": {"text": "no text"}}, {"fileData": {"fileUri": "x"}}, {"videoMetadata": {}}])
unknown_values = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.just([1, {"text": "x"}]), st.just({"a": {}}))


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, len(CHUNKS) - 1), unknown_parts), max_size=5),
    st.dictionaries(st.just("brandNew"), unknown_values),
    st.lists(st.integers(0, len(CHUNKS) - 1), max_size=3),
)
@example([], {"brandNew": {"finishReason": "SAFETY"}}, [0])
def test_what_is_not_known_is_passed_over(inserted: list[tuple[int, Any]], extra: dict[str, Any], empty: list[int]) -> None:
    chunks: list[dict[str, Any]] = []
    for place, chunk in enumerate(copy.deepcopy(CHUNKS)):
        if place in empty:
            chunks.append({"responseId": "r1", "candidates": [{"index": 1, "content": {"parts": [{"text": "another"}]}}], **extra})
        candidate = chunk["candidates"][0]
        candidate["content"]["parts"] += [part for at, part in inserted if at == place]
        for inner in (chunk, candidate, candidate["content"], chunk["usageMetadata"] or {}):
            inner.update(extra)
        chunks.append(chunk)
    deltas, closing = read(sse(*chunks).encode())
    assert deltas == DELTAS
    assert (closing.finish_reason, [citation.raw for citation in closing.citations]) == ("tool_calls", [SOURCE])
    assert closing.usage == read(sse(*CHUNKS).encode())[1].usage


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}, ServerError),
        ({"code": 500, "message": "An internal error.", "status": "INTERNAL"}, ServerError),
        ({"code": 429, "message": "Resource has been exhausted.", "status": "RESOURCE_EXHAUSTED"}, RateLimitError),
        ({"code": 400, "message": "Bad.", "status": "INVALID_ARGUMENT"}, InvalidRequestError),
    ],
    ids=lambda value: value["status"] if isinstance(value, dict) else "",
)
async def test_an_error_in_mid_stream(llm: QueryLLM, server: ScriptedServer, error: dict[str, Any], expected: type[LLMError]) -> None:
    server.answer_sse(sse(answer_of("Half ", finish=None), answer_of("a sen", finish=None), {"error": error}))
    with pytest.raises(StreamInterruptedError) as caught:
        await streamed(llm, MODEL, prompt="hi")
    assert type(caught.value.__cause__) is expected
    assert error["message"] in str(caught.value)
    assert caught.value.response.content == "Half a sen" and caught.value.response.usage.input_tokens == 8
    assert len(server.requests) == 1


async def test_an_error_before_the_output_is_met_by_asking_again(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_sse(sse({"error": {"code": 503, "message": "Overloaded.", "status": "UNAVAILABLE"}}))
    server.answer_sse(sse(answer_of("Whole.")))
    assert (await streamed(llm, MODEL, prompt="hi")).content == "Whole."
    assert len(server.requests) == 2


async def test_a_stream_without_its_finish_reason(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_sse(sse(answer_of("", finish=None)))  # without output it is asked again
    server.answer_sse(sse(answer_of("Half a sen", finish=None)))
    with pytest.raises(StreamInterruptedError) as caught:
        await streamed(llm, MODEL, prompt="hi")
    assert caught.value.response.content == "Half a sen" and isinstance(caught.value.__cause__, ServerError)
    assert len(server.requests) == 2


async def test_a_whole_answer_to_a_stream(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(answer_of(*PARTS))
    answer = await streamed(llm, MODEL, prompt="hi")
    assert (answer.content, answer.finish_reason, len(answer.tool_calls)) == ("It rains.", "tool_calls", 3)


async def test_the_other_form_of_a_stream(llm: QueryLLM, server: ScriptedServer) -> None:
    """A proxy that does not pass on ``alt=sse`` gets one JSON array: readable, or an error that says so."""
    server.answer_json([answer_of("Hel", finish=None), answer_of("lo")], times=None)
    try:
        answer = await streamed(llm, MODEL, prompt="hi")
    except LLMError as exc:
        assert isinstance(exc, ServerError) and "cannot be read" in str(exc)
    else:
        assert answer.content == "Hello"


# Answers


both_ways = pytest.mark.parametrize("how", ["whole", "streamed"])


async def answered(llm: QueryLLM, server: ScriptedServer, how: str, *chunks: dict[str, Any], model: str = MODEL) -> LLMResponse:
    if how == "whole":
        parts = [part for chunk in chunks for candidate in chunk["candidates"] for part in candidate["content"]["parts"]]
        last = chunks[-1]
        server.answer_json({**last, "candidates": [{**last["candidates"][0], "content": {"role": "model", "parts": parts}}]})
        return await llm.query(model, prompt="hi")
    server.answer_sse(sse(*chunks))
    return await streamed(llm, model, prompt="hi")


@both_ways
async def test_everything_that_an_answer_holds(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    answer = await answered(llm, server, how, *CHUNKS)
    assert (answer.content, answer.reasoning, answer.finish_reason) == ("It rains.", "Let me see: 日本?", "tool_calls")
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [
        ("weather", {"city": "Zürich"}),
        ("time", {}),
        ("weather", {"city": "Rome"}),
    ]
    assert answer.tool_calls[2].id == "own1" and len({call.id for call in answer.tool_calls} - {""}) == 3
    (citation,) = answer.citations
    assert (citation.raw, citation.url, citation.title, citation.start) == (SOURCE, "https://example.com", "T", None)
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens, usage.total_tokens) == (8, 7, 4, 15)


@both_ways
async def test_signatures_go_back_and_ids_only_where_the_api_gave_them(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    answer = await answered(llm, server, how, *CHUNKS)
    results = [{"role": "tool", "tool_call_id": call.id, "content": f'{{"n": {n}}}'} for n, call in enumerate(answer.tool_calls)]
    body = await sent(llm, server, {"role": "user", "content": "hi"}, json.loads(json.dumps(answer.message)), *reversed(results))
    user, model, tools = body["contents"]
    assert (user["role"], model["role"], tools["role"]) == ("user", "model", "user")
    signed = [part.get("thoughtSignature") for part in model["parts"] if "functionCall" in part]
    assert signed == ["c2lnbmF0dXJl", None, None]
    assert [part for part in model["parts"] if "functionCall" in part] == CALLS
    assert any(part.get("thoughtSignature") == "dGV4dA==" for part in model["parts"] if "text" in part)
    by_number = sorted(tools["parts"], key=lambda part: part["functionResponse"]["response"]["n"])
    assert by_number == [
        {"functionResponse": {"name": "weather", "response": {"n": 0}}},
        {"functionResponse": {"name": "time", "response": {"n": 1}}},
        {"functionResponse": {"id": "own1", "name": "weather", "response": {"n": 2}}},
    ]


async def test_results_without_ids_stand_in_the_order_of_their_calls(llm: QueryLLM, server: ScriptedServer) -> None:
    """Without an id, only the order tells which result belongs to which call of one function."""
    server.answer_json(answer_of(*({"functionCall": {"name": "weather", "args": {"city": city}}} for city in ("Rome", "Oslo"))))
    answer = await llm.query(MODEL, prompt="hi")
    rome, oslo = answer.tool_calls
    results = [{"role": "tool", "tool_call_id": call.id, "content": call.arguments["city"]} for call in (oslo, rome)]
    body = await sent(llm, server, {"role": "user", "content": "hi"}, answer.message, *results)
    assert [part["functionResponse"]["response"] for part in body["contents"][2]["parts"]] == [{"result": "Rome"}, {"result": "Oslo"}]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("MALFORMED_FUNCTION_CALL", "malformed_function_call"),
        ("OTHER", "other"),
        ("NEW", "new"),
    ],
)
async def test_finish_reasons(llm: QueryLLM, server: ScriptedServer, theirs: str, ours: str) -> None:
    for how in ("whole", "streamed"):
        assert (await answered(llm, server, how, answer_of("ok", finish=theirs))).finish_reason == ours


@both_ways
async def test_an_empty_candidate(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    """All its tokens were thoughts: an answer without text, which says why and what it cost."""
    counts = {"promptTokenCount": 8, "thoughtsTokenCount": 20, "totalTokenCount": 28}
    for content in ({"role": "model"}, {}, None):
        chunk = {"candidates": [{"content": content, "finishReason": "MAX_TOKENS", "index": 0}], "usageMetadata": counts}
        if how == "whole":
            server.answer_json(chunk)
            answer = await llm.query(MODEL, prompt="hi")
        else:
            server.answer_sse(sse(chunk))
            answer = await streamed(llm, MODEL, prompt="hi")
        assert (answer.content, answer.finish_reason) == ("", "length")
        assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.reasoning_tokens) == (8, 20, 20)


@pytest.mark.parametrize("body", [{}, {"candidates": []}, {"candidates": None, "usageMetadata": COUNTED}, [], "x"], ids=json.dumps)
@both_ways
async def test_no_candidate_at_all(llm: QueryLLM, server: ScriptedServer, body: Any, how: str) -> None:
    if how == "whole":
        server.answer_json(body, times=None)
    else:
        server.answer_sse(f"data: {json.dumps(body)}\r\n\r\n", times=None)
    with pytest.raises(ServerError) as caught:
        await (llm.query(MODEL, prompt="hi") if how == "whole" else streamed(llm, MODEL, prompt="hi"))
    assert caught.value.status == 200 and len(server.requests) == 3


BLOCKS: dict[str, dict[str, Any]] = {
    "prompt": {"promptFeedback": {"blockReason": "SAFETY", "safetyRatings": [{"category": "HARM_X", "blocked": True}]}},
    "prompt with a message": {"promptFeedback": {"blockReason": "MODEL_ARMOR", "blockReasonMessage": "It was SAFETY of HARM_X."}},
    "candidate": {"candidates": [{"finishReason": "SAFETY", "safetyRatings": [{"category": "HARM_X", "blocked": True}]}]},
    "candidate with a message": {"candidates": [{"finishReason": "PROHIBITED_CONTENT", "finishMessage": "SAFETY, HARM_X"}]},
    "candidate with an empty content": {
        "candidates": [{"content": {}, "finishReason": "SAFETY", "safetyRatings": [{"category": "HARM_X", "blocked": True}]}]
    },
}


@both_ways
@pytest.mark.parametrize("case", BLOCKS)
async def test_a_safety_block(llm: QueryLLM, server: ScriptedServer, case: str, how: str) -> None:
    body = {**BLOCKS[case], "usageMetadata": {"promptTokenCount": 8}}
    if how == "whole":
        server.answer_json(body)
    else:
        server.answer_sse(sse(body))
    with pytest.raises(ContentPolicyError, match=r"(?s)SAFETY.*HARM_X") as caught:
        await (llm.query(MODEL, prompt="hi") if how == "whole" else streamed(llm, MODEL, prompt="hi"))
    assert caught.value.code in ("SAFETY", "MODEL_ARMOR", "PROHIBITED_CONTENT")
    assert (caught.value.status, caught.value.provider) == (200, "gemini")
    assert caught.value.receipt.attempts[0].status == 200
    assert len(server.requests) == 1


async def test_a_safety_block_in_mid_stream(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_sse(sse(answer_of("Half ", finish=None), answer_of(finish="SAFETY")))
    with pytest.raises(StreamInterruptedError) as caught:
        await streamed(llm, MODEL, prompt="hi")
    assert isinstance(caught.value.__cause__, ContentPolicyError) and caught.value.response.content == "Half "
    assert caught.value.response.usage.input_tokens == 8


@pytest.mark.parametrize(
    "part",
    [{"text": None}, {"functionCall": None}, {"functionCall": {}}, {"functionCall": {"name": "f", "args": None}}, {"inlineData": None}, {}],
    ids=json.dumps,
)
async def test_a_part_with_holes_is_no_crash(llm: QueryLLM, server: ScriptedServer, part: dict[str, Any]) -> None:
    server.answer_json(answer_of("Hello", part), times=None)
    try:
        answer = await llm.query(MODEL, prompt="hi")
    except LLMError as exc:
        assert isinstance(exc, ServerError)
    else:
        assert answer.content == "Hello"


@both_ways
async def test_usage_and_cost(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    ModelRegistry.register(
        "gemini/gemini-priced",
        ModelConfig(input_price_per_million="0.3", output_price_per_million="2.5", cached_input_price_per_million="0.03"),
    )
    counts = {
        "promptTokenCount": 1000,
        "toolUsePromptTokenCount": 50,
        "cachedContentTokenCount": 600,
        "candidatesTokenCount": 30,
        "thoughtsTokenCount": 70,
        "totalTokenCount": 1150,
    }
    answer = await answered(llm, server, how, answer_of("ok", usage=counts), model="gemini/gemini-priced")
    usage = answer.usage
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.reasoning_tokens) == (1050, 600, 100, 70)
    assert answer.cost == (450 * Decimal("0.3") + 600 * Decimal("0.03") + 100 * Decimal("2.5")) / 1_000_000
    assert answer.receipt.cost_state == "exact"


async def test_images_in_an_answer(llm: QueryLLM, server: ScriptedServer) -> None:
    image = {"mimeType": "image/png", "data": "iVBORw0KGgo="}
    server.answer_json(answer_of("Here.", {"inlineData": image}))
    answer = await llm.query("gemini/gemini-9-flash-image", prompt="hi", modalities=["text", "image"])
    assert (answer.content, answer.images) == ("Here.", [Image(b"\x89PNG\r\n\x1a\n", media_type="image/png")])
    assert server.request.json["generationConfig"] == {"responseModalities": ["TEXT", "IMAGE"]}


# Errors


KEY_INVALID = {
    "code": 400,
    "message": "API key not valid. Please pass a valid API key.",
    "status": "INVALID_ARGUMENT",
    "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}],
}


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (400, KEY_INVALID, AuthenticationError),
        (400, {"message": "Unable to submit request because it must include at least one parts field", "status": "INVALID_ARGUMENT"}, InvalidRequestError),
        (403, {"message": "Method doesn't allow unregistered callers.", "status": "PERMISSION_DENIED"}, PermissionDeniedError),
        (404, {"message": "models/x is not found for API version v1beta", "status": "NOT_FOUND"}, ModelNotFoundError),
        (429, {"message": "Resource has been exhausted (e.g. check quota).", "status": "RESOURCE_EXHAUSTED"}, RateLimitError),
        (500, {"message": "An internal error has occurred.", "status": "INTERNAL"}, ServerError),
        (503, {"message": "The model is overloaded.", "status": "UNAVAILABLE"}, ServerError),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)  # fmt: skip
async def test_errors(llm: QueryLLM, server: ScriptedServer, status: int, error: Any, expected: type[ProviderError]) -> None:
    for body in ({"error": error}, [{"error": error}]):  # a stream's error comes in a list
        server.reset()
        server.answer_json(body, status=status, times=None)
        with pytest.raises(ProviderError) as caught:
            await llm.query(MODEL, prompt="hi")
        assert type(caught.value) is expected
        assert (caught.value.status, caught.value.provider) == (status, "gemini")
        assert error["message"] in str(caught.value)


RETRY_INFO = {
    "error": {
        "code": 429,
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []},
            {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "39.5s"},
        ],
    }
}


@both_ways
async def test_retry_info_says_how_long_to_wait(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    server.answer_json(RETRY_INFO, status=429)
    answer = await answered(llm, server, how, answer_of("ok"))
    first, second = answer.receipt.attempts
    assert first.error.startswith("RateLimitError") and second.wait == 39.5


async def test_the_key_goes_into_a_header_and_nowhere_else(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json({"error": {**KEY_INVALID, "message": f"API key not valid: {KEY}"}}, status=400)
    with pytest.raises(AuthenticationError) as caught:
        await llm.query(MODEL, prompt="hi")
    request = server.request
    assert request.headers["x-goog-api-key"] == KEY and "authorization" not in request.headers
    assert KEY not in request.path and request.path == "/v1beta/models/gemini-2.5-flash:generateContent"
    assert KEY not in f"{caught.value!r} {caught.value} {caught.value.receipt!r}"
    plan = llm.plan(MODEL, prompt="hi", stream=True)
    assert KEY not in repr(plan) and plan.url.endswith(":streamGenerateContent?alt=sse") and len(server.requests) == 1


# Requests: messages


async def test_names_that_lead_here(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(answer_of("ok"), times=None)
    for name in ("gemini-2.5-flash", "gemini/gemini-2.5-flash", "googleai:gemini-2.5-flash", "gemini/models/gemini-2.5-flash"):
        assert (await llm.query(name, prompt="hi")).provider == "gemini"
    assert {request.path for request in server.requests} == {"/v1beta/models/gemini-2.5-flash:generateContent"}


async def test_system_messages_and_turns(llm: QueryLLM, server: ScriptedServer) -> None:
    body = await sent(
        llm,
        server,
        {"role": "system", "content": "One."},
        {"role": "developer", "content": [{"type": "text", "text": "Two."}]},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    )
    assert body == {
        "systemInstruction": {"parts": [{"text": "One."}, {"text": "Two."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "hi"}]},
            {"role": "model", "parts": [{"text": "Hello."}]},
            {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
        ],
    }


async def test_images_and_files(llm: QueryLLM, server: ScriptedServer) -> None:
    native = {"fileData": {"fileUri": "https://youtu.be/x", "mimeType": "video/mp4"}, "videoMetadata": {"fps": 0.2}}
    parts = [
        {"type": "image_url", "image_url": {"url": PIXEL}},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.webp?size=1"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0="}},
        {"type": "file", "file": {"file_id": "gs://bucket/a.pdf"}},
        native,
    ]
    body = await sent(llm, server, {"role": "user", "content": parts})
    assert body["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
        {"fileData": {"mimeType": "image/webp", "fileUri": "https://example.com/cat.webp?size=1"}},
        {"inlineData": {"mimeType": "audio/mp3", "data": "AAAA"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}},
        {"fileData": {"mimeType": "application/pdf", "fileUri": "gs://bucket/a.pdf"}},
        native,
    ]


async def test_calls_of_another_provider_and_their_results(llm: QueryLLM, server: ScriptedServer) -> None:
    calls = [
        {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": text}}
        for number, (name, text) in enumerate([("weather", '{"city": "Rome"}'), ("time", "")])
    ]
    native = {"format": "anthropic", "content": [{"type": "thinking", "thinking": "x", "signature": "s"}]}
    body = await sent(
        llm,
        server,
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": calls, "_native": native},
        {"role": "tool", "tool_call_id": "c1", "content": "12:00"},
        {"role": "tool", "tool_call_id": "c0", "content": '{"degrees": 21}'},
        {"role": "user", "content": "And?"},
    )
    assert body["contents"][1]["parts"] == [
        {"functionCall": {"id": "c0", "name": "weather", "args": {"city": "Rome"}}},
        {"functionCall": {"id": "c1", "name": "time", "args": {}}},
    ]
    assert body["contents"][2]["parts"] == [
        {"functionResponse": {"id": "c1", "name": "time", "response": {"result": "12:00"}}},
        {"functionResponse": {"id": "c0", "name": "weather", "response": {"degrees": 21}}},
    ]
    assert "signature" not in json.dumps(body) and body["contents"][3]["parts"] == [{"text": "And?"}]


@pytest.mark.parametrize("content", ["", None, []], ids=repr)
async def test_no_turn_is_without_parts(llm: QueryLLM, server: ScriptedServer, content: Any) -> None:
    """The API refuses one: ``it must include at least one parts field``."""
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": content}, {"role": "user", "content": "well?"}]
    body = await sent(llm, server, *turns)
    assert all(turn["parts"] for turn in body["contents"])
    assert body["contents"][-1]["parts"] == [{"text": "well?"}]


REFUSED_MESSAGES: dict[str, tuple[list[Any], str]] = {
    "a result without its call": ([{"role": "user", "content": "hi"}, {"role": "tool", "tool_call_id": "c9", "content": "x"}], "c9"),
    "an image type": ([{"role": "user", "content": [{"type": "image_url", "image_url": "data:application/zip;base64,UEsDBAA="}]}], "application/zip"),
    "no image at all": ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "messages[0]"),
    "a data URI that is none": ([{"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png,abc"}]}], "data URI"),
    "content of no kind": ([{"role": "user", "content": 7}], "int"),
    "a part of no kind": ([{"role": "user", "content": [7]}], "int"),
    "a part of another provider": ([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}], "tool_result"),
    "arguments that are no object": (
        [{"role": "assistant", "tool_calls": [{"id": "c9", "function": {"name": "f", "arguments": "[1]"}}]}],
        "c9",
    ),
    "a tool call of no kind": ([{"role": "assistant", "tool_calls": [5]}], "messages[0]"),
    "its own turn without its parts": ([{"role": "assistant", "content": "x", "_native": {"format": "gemini"}}], "messages[0]"),
    "nothing but a system message": ([{"role": "system", "content": "Be brief."}], "system"),
    "arguments that are no JSON": (
        [{"role": "assistant", "tool_calls": [{"id": "c9", "function": {"name": "f", "arguments": "{"}}]}],
        "c9",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_MESSAGES)
async def test_messages_that_are_refused_before_sending(llm: QueryLLM, server: ScriptedServer, case: str) -> None:
    messages, named = REFUSED_MESSAGES[case]
    with pytest.raises(InvalidRequestError) as caught:
        await llm.query(MODEL, messages)
    assert named in str(caught.value)
    assert server.requests == []


# Requests: options


DECLARED = {"name": "weather", "description": "W", "parametersJsonSchema": WEATHER["function"]["parameters"]}
RENAMED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"temperature": 1.5, "top_p": 0.5, "seed": 3}, {"generationConfig": {"temperature": 1.5, "topP": 0.5, "seed": 3}}),
    ({"top_k": 5, "max_tokens": 9}, {"generationConfig": {"topK": 5, "maxOutputTokens": 9}}),
    ({"max_completion_tokens": 9, "n": 2}, {"generationConfig": {"maxOutputTokens": 9, "candidateCount": 2}}),
    ({"presence_penalty": 1, "frequency_penalty": 2}, {"generationConfig": {"presencePenalty": 1, "frequencyPenalty": 2}}),
    ({"logprobs": True, "top_logprobs": 3}, {"generationConfig": {"responseLogprobs": True, "logprobs": 3}}),
    ({"stop": "END"}, {"generationConfig": {"stopSequences": ["END"]}}),
    ({"stop": ["A", "B"]}, {"generationConfig": {"stopSequences": ["A", "B"]}}),
    ({"response_format": {"type": "json_object"}}, {"generationConfig": {"responseMimeType": "application/json"}}),
    ({"service_tier": "flex"}, {"serviceTier": "flex"}),
    ({"tools": [WEATHER, {"googleSearch": {}}]}, {"tools": [{"functionDeclarations": [DECLARED]}, {"googleSearch": {}}]}),
    ({"tool_choice": "auto"}, {"toolConfig": {"functionCallingConfig": {"mode": "AUTO"}}}),
    ({"tool_choice": "required"}, {"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}),
    ({"tool_choice": "none"}, {"toolConfig": {"functionCallingConfig": {"mode": "NONE"}}}),
    (
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}},
    ),
    (
        {"toolConfig": {"includeServerSideToolInvocations": True}, "tool_choice": "auto"},
        {"toolConfig": {"includeServerSideToolInvocations": True, "functionCallingConfig": {"mode": "AUTO"}}},
    ),
    (
        {"tool_choice": "auto", "toolConfig": {"includeServerSideToolInvocations": True}},
        {"toolConfig": {"includeServerSideToolInvocations": True, "functionCallingConfig": {"mode": "AUTO"}}},
    ),
    ({"safetySettings": [{"category": "X", "threshold": "Y"}]}, {"safetySettings": [{"category": "X", "threshold": "Y"}]}),
    ({"cachedContent": "cachedContents/1", "labels": {"a": "b"}}, {"cachedContent": "cachedContents/1", "labels": {"a": "b"}}),
    ({"generationConfig": {"topK": 4}, "temperature": 0}, {"generationConfig": {"topK": 4, "temperature": 0}}),
    ({"thinkingConfig": {"thinkingBudget": 5}}, {"generationConfig": {"thinkingConfig": {"thinkingBudget": 5}}}),
    ({"extra_body": {"brandNew": 1}}, {"brandNew": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("options", "expected"), RENAMED, ids=[json.dumps(options)[:70] for options, _ in RENAMED])
async def test_options_in_their_words(llm: QueryLLM, server: ScriptedServer, options: dict[str, Any], expected: dict[str, Any]) -> None:
    before = copy.deepcopy(options)
    assert await sent(llm, server, **options) == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], **expected}
    assert options == before


@pytest.mark.parametrize(
    ("name", "value"), [("topK", 5), ("topP", 0.5), ("presencePenalty", 1), ("frequencyPenalty", 1), ("responseLogprobs", True)]
)
async def test_their_own_names_go_through(llm: QueryLLM, server: ScriptedServer, name: str, value: Any) -> None:
    assert (await sent(llm, server, **{name: value}))["generationConfig"] == {name: value}


async def test_their_own_name_of_the_service_tier_goes_through(llm: QueryLLM, server: ScriptedServer) -> None:
    assert (await sent(llm, server, serviceTier="flex"))["serviceTier"] == "flex"


async def test_several_allowed_tools(llm: QueryLLM, server: ScriptedServer) -> None:
    """OpenAI's form of what Gemini has a word for: https://platform.openai.com/docs/api-reference/chat/create#chat_create-tool_choice"""
    tools = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": tools}}
    body = await sent(llm, server, tool_choice=choice)
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f", "g"]}}


async def test_what_was_renamed_and_dropped_stands_in_the_receipt(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(answer_of("ok"))
    neutral = {"stream_options": {"include_usage": True}, "store": False, "logit_bias": {}, "parallel_tool_calls": True}
    answer = await llm.query(MODEL, prompt="hi", max_tokens=5, temperature=0, stop="E", tool_choice="none", **neutral)
    assert answer.receipt.renamed == {
        "max_tokens": "generationConfig.maxOutputTokens",
        "stop": "generationConfig.stopSequences",
        "tool_choice": "toolConfig.functionCallingConfig",
    }
    assert set(answer.receipt.dropped) == set(neutral)


REFUSED: dict[str, Any] = {
    "audio": {"voice": "x"},
    "function_call": "auto",
    "functions": [],
    "logit_bias": {"50": 1},
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "x"},
    "prompt_cache_key": "x",
    "store": True,
    "user": "u1",
    "verbosity": "low",
    "web_search_options": {},
    "metadata": {"a": "b"},
    "safety_identifier": "x",
}


@pytest.mark.parametrize("name", REFUSED)
async def test_an_option_that_cannot_be_carried_is_refused_by_name_or_dropped_and_listed(
    llm: QueryLLM, server: ScriptedServer, name: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"(?s)gemini.*'{name}'"):
        await llm.query(MODEL, prompt="hi", **{name: REFUSED[name]})
    assert server.requests == []
    server.answer_json(answer_of("ok"))
    answer = await llm.query(MODEL, prompt="hi", on_unsupported="drop", **{name: REFUSED[name]})
    assert answer.receipt.dropped == (name,)
    assert server.request.json == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


REFUSED_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"tool_choice": "sometimes"}, "sometimes"),
    ({"reasoning_effort": "a bit"}, "a bit"),
    ({"response_format": {"type": "xml"}}, "xml"),
    ({"response_format": {"type": "json_schema"}}, "schema"),
    ({"response_schema": {"type": "object", "properties": 5}}, "properties"),
    ({"stop": 5}, "stop"),
    ({"tools": "weather"}, "tools"),
    ({"tools": [5]}, "tools"),
    ({"tool_choice": 5}, "tool_choice"),
    ({"modalities": "text"}, "modalities"),
    ({"generationConfig": 5}, "generationConfig"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
]


@pytest.mark.parametrize(("options", "named"), REFUSED_VALUES, ids=[json.dumps(options)[:70] for options, _ in REFUSED_VALUES])
def test_values_that_are_refused_before_sending(llm: QueryLLM, options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        llm.plan(MODEL, prompt="hi", **options)
    assert named in str(caught.value)


def test_an_effort_that_there_is_not(llm: QueryLLM) -> None:
    with pytest.raises(InvalidRequestError, match="a bit"):
        llm.plan(NEW, prompt="hi", reasoning_effort="a bit")


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        (MODEL, "none", {"thinkingBudget": 0}),
        (MODEL, "minimal", {"thinkingBudget": 512}),
        (MODEL, "low", {"thinkingBudget": 1024}),
        (MODEL, "medium", {"thinkingBudget": 8192}),
        (MODEL, "high", {"thinkingBudget": 24_576}),
        (NEW, "low", {"thinkingLevel": "low"}),
        (NEW, "high", {"thinkingLevel": "high"}),
        (NEW, "none", {"thinkingLevel": "minimal"}),
        ("gemini/gemini-4-argon", "medium", {"thinkingLevel": "medium"}),
    ],
)
async def test_reasoning_effort(llm: QueryLLM, server: ScriptedServer, model: str, effort: str, expected: dict[str, Any]) -> None:
    config = (await sent(llm, server, model=model, reasoning_effort=effort))["generationConfig"]["thinkingConfig"]
    assert config.pop("includeThoughts") is (effort not in ("none",) and (effort != "minimal" or model == MODEL))
    assert config == expected


CITY = {"type": "object", "properties": {"city": {"type": "string", "minLength": 1}}, "required": ["city"], "$defs": {}}


@pytest.mark.parametrize(
    "options",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": CITY, "strict": True}}},
        {"response_format": {"type": "json_schema", "schema": CITY}},
        {"response_schema": CITY},
    ],
    ids=["OpenAI's form", "without its envelope", "response_schema"],
)
async def test_a_schema(llm: QueryLLM, server: ScriptedServer, options: dict[str, Any]) -> None:
    body = await sent(llm, server, **options)
    assert body["generationConfig"] == {"responseMimeType": "application/json", "responseJsonSchema": CITY}


KEYWORDS: dict[str, Any] = {"not": {}, "if": {}, "patternProperties": {}, "dependentRequired": {}, "contains": {}}
PLACES: dict[str, Any] = {
    "schema": lambda part: part,
    "schema.properties.x": lambda part: {"type": "object", "properties": {"x": part}},
    "schema.$defs.x": lambda part: {**CITY, "$defs": {"x": part}},
    "schema.items": lambda part: {"type": "array", "items": part},
    "schema.anyOf[1]": lambda part: {"anyOf": [CITY, part]},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_keyword_that_is_not_allowed_is_named_with_its_place(llm: QueryLLM, keyword: str, place: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        llm.plan(MODEL, prompt="hi", response_schema=PLACES[place]({"type": "string", keyword: KEYWORDS[keyword]}))
    assert f"'{keyword}'" in str(caught.value) and f"at {place})" in str(caught.value)


def test_a_property_may_be_called_like_a_keyword(llm: QueryLLM) -> None:
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in KEYWORDS}}
    assert llm.plan(MODEL, prompt="hi", response_schema=schema).body["generationConfig"]["responseJsonSchema"] == schema


# Vertex AI


EXPRESS = "/v1beta1/publishers/google"
PROJECT = "/v1beta1/projects/p1/locations/global/publishers/google"


async def test_vertex_by_key(server: ScriptedServer, clock: FakeClock) -> None:
    llm = QueryLLM(vertex_api_base=server.url + EXPRESS, vertex_api_key=KEY, clock=clock)
    server.answer_json(answer_of("ok"), times=None)
    for name in ("vertex/gemini-2.5-flash", "vertexai:gemini-2.5-flash"):
        answer = await llm.query(name, prompt="hi", temperature=0)
        assert (answer.content, answer.provider) == ("ok", "vertex")
    for request in server.requests:
        assert request.path == f"{EXPRESS}/models/gemini-2.5-flash:generateContent"
        assert request.headers["x-goog-api-key"] == KEY and "authorization" not in request.headers
        assert request.json["generationConfig"] == {"temperature": 0}


@pytest.fixture
def account(tmp_path: Path, server: ScriptedServer) -> Path:
    """The file of a service account, whose tokens come from the scripted server."""
    pytest.importorskip("google.auth", reason="the extra vertex is not installed")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # small, since it guards nothing
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "account.json"
    path.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "p1",
                "private_key_id": "k1",
                "private_key": pem.decode(),
                "client_email": "robot@p1.iam.gserviceaccount.com",
                "token_uri": f"{server.url}/token",
            }
        )
    )
    return path


def token(name: str, seconds: int = 3600) -> dict[str, Any]:
    return {"access_token": name, "expires_in": seconds, "token_type": "Bearer"}


def of_account(server: ScriptedServer, account: Any, clock: FakeClock) -> QueryLLM:
    return QueryLLM(vertex_api_base=server.url + EXPRESS, vertex_api_key=str(account), clock=clock)


async def test_vertex_by_service_account(server: ScriptedServer, account: Path, clock: FakeClock) -> None:
    llm = of_account(server, account, clock)
    server.answer_json(token("ya29.first"))
    server.answer_json(answer_of("ok"))
    server.answer_sse(sse(answer_of("ok")))
    assert (await llm.query("vertex/gemini-2.5-flash", prompt="hi")).content == "ok"
    assert (await streamed(llm, "vertex/gemini-2.5-flash", prompt="hi")).content == "ok"
    fetched, whole, stream = server.requests
    asked = urllib.parse.parse_qs(fetched.body.decode())
    assert fetched.path == "/token" and asked["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"] and asked["assertion"]
    assert whole.path == f"{PROJECT}/models/gemini-2.5-flash:generateContent"
    assert stream.path == f"{PROJECT}/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    for request in (whole, stream):
        assert request.headers["authorization"] == "Bearer ya29.first" and "x-goog-api-key" not in request.headers


async def test_many_calls_at_once_fetch_one_token(server: ScriptedServer, account: Path, clock: FakeClock) -> None:
    llm = of_account(server, account, clock)
    server.answer_json(token("ya29.first"))
    server.answer_json(answer_of("ok"), times=None)
    answers = await asyncio.gather(*(llm.query("vertex/gemini-2.5-flash", prompt="hi") for _ in range(8)))
    assert [answer.content for answer in answers] == ["ok"] * 8
    assert [request.path for request in server.requests].count("/token") == 1
    assert {request.headers["authorization"] for request in server.requests[1:]} == {"Bearer ya29.first"}


async def test_a_token_is_renewed_once_when_it_has_expired(server: ScriptedServer, account: Path, clock: FakeClock) -> None:
    llm = of_account(server, account, clock)
    server.answer_json(token("ya29.first", seconds=1))  # google-auth takes one as expired some minutes before its end
    server.answer_json(answer_of("one"))
    server.answer_json(token("ya29.second"))
    server.answer_json(answer_of("two"), times=2)
    assert (await llm.query("vertex/gemini-2.5-flash", prompt="hi")).content == "one"
    assert (await llm.query("vertex/gemini-2.5-flash", prompt="hi")).content == "two"
    assert (await llm.query("vertex/gemini-2.5-flash", prompt="hi")).content == "two"
    assert [request.path for request in server.requests].count("/token") == 2
    used = [request.headers["authorization"] for request in server.requests if request.path != "/token"]
    assert used == ["Bearer ya29.first", "Bearer ya29.second", "Bearer ya29.second"]


async def test_a_service_account_that_is_refused(server: ScriptedServer, account: Path, clock: FakeClock) -> None:
    server.answer_json({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, status=400, times=None)
    with pytest.raises(AuthenticationError, match="invalid_grant") as caught:
        await of_account(server, account, clock).query("vertex/gemini-2.5-flash", prompt="hi")
    assert caught.value.provider == "vertex"
    assert "PRIVATE KEY" not in f"{caught.value!r} {caught.value.receipt!r}"
    assert {request.path for request in server.requests} == {"/token"}


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"type": "service_account"}', '{"type": "nothing"}'], ids=repr)
async def test_a_service_account_that_cannot_be_read(server: ScriptedServer, tmp_path: Path, clock: FakeClock, content: str | None) -> None:
    pytest.importorskip("google.auth", reason="the extra vertex is not installed")
    path = tmp_path / "broken.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"broken\.json"):
        await of_account(server, path, clock).query("vertex/gemini-2.5-flash", prompt="hi")
    assert server.requests == []


def test_a_plan_fetches_no_token_and_shows_none(server: ScriptedServer, account: Path, clock: FakeClock) -> None:
    plan = of_account(server, account, clock).plan("vertex/gemini-2.5-flash", prompt="hi")
    assert plan.method == "POST" and plan.url.endswith("/models/gemini-2.5-flash:generateContent")
    assert "PRIVATE KEY" not in repr(plan) and server.requests == []


async def test_an_address_of_ones_own_is_kept(server: ScriptedServer, account: Path, clock: FakeClock) -> None:
    base = f"{server.url}/v1/projects/p2/locations/europe-west4/publishers/google"
    llm = QueryLLM(vertex_api_base=base, vertex_api_key=str(account), clock=clock)
    server.answer_json(token("ya29.first"))
    server.answer_json(answer_of("ok"))
    await llm.query("vertex/gemini-2.5-flash", prompt="hi")
    assert server.requests[1].path == "/v1/projects/p2/locations/europe-west4/publishers/google/models/gemini-2.5-flash:generateContent"


async def test_a_401_of_a_token_names_no_token(server: ScriptedServer, account: Path, clock: FakeClock) -> None:
    server.answer_json(token("ya29.first-secret"))
    error = {"code": 401, "message": "Invalid credentials ya29.first-secret", "status": "UNAUTHENTICATED"}
    server.answer_json({"error": error}, status=401, times=None)
    with pytest.raises(AuthenticationError) as caught:
        await of_account(server, account, clock).query("vertex/gemini-2.5-flash", prompt="hi")
    assert "ya29.first-secret" not in f"{caught.value!r} {caught.value.receipt!r}"


def test_the_rows() -> None:
    assert PROVIDER_CONFIGS["gemini"].base_url == "https://generativelanguage.googleapis.com/v1beta"
    assert (PROVIDER_CONFIGS["vertex"].base_url or "").endswith(EXPRESS)
