"""The Responses API: what goes out, what comes back, and what is refused before it is sent.

Sources: https://platform.openai.com/docs/api-reference/responses, https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

import base64
import copy
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.scripted import ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    ContentPolicyError,
    InvalidRequestError,
    LLMResponse,
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
from llm_master.generators.responses import responses
from llm_master.providers.base import load
from llm_master.providers.responses import ENCRYPTED_REASONING, LOGPROBS, ResponsesProvider
from llm_master.providers.sse import SSEParser
from llm_master.testing import FakeClock

KEY = "sk-responses-0123456789"
MODEL = "acme/gpt-5"
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
PNG = base64.b64encode(PIXEL).decode()
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 10},
    "output_tokens": 50,
    "output_tokens_details": {"reasoning_tokens": 20},
    "total_tokens": 150,
}
URL = {"type": "url_citation", "url": "https://example.com", "title": "Example", "start_index": 0, "end_index": 5}
FILE = {"type": "file_citation", "file_id": "file-1", "filename": "notes.txt", "index": 3}
CONTAINER = {
    "type": "container_file_citation",
    "container_id": "c",
    "file_id": "file-2",
    "filename": "plot.png",
    "start_index": 0,
    "end_index": 0,
}
THOUGHT = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "**One**\n\nFirst."}, {"type": "summary_text", "text": "Then."}],
    "encrypted_content": "gAAAA",
}
SEARCH = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}
OPEN = {"id": "ws_2", "type": "web_search_call", "status": "completed", "action": {"type": "open_page", "url": "https://example.com"}}
PICTURE = {
    "id": "ig_1",
    "type": "image_generation_call",
    "status": "completed",
    "result": PNG,
    "revised_prompt": "A dot",
    "output_format": "png",
}
CUSTOM = {"id": "ctc_1", "type": "custom_tool_call", "status": "completed", "call_id": "call_3", "name": "run", "input": 'print("日本")'}


def said(text: str, *notes: Any, id: str = "msg_1", **more: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": list(notes), "logprobs": []}
    return {"id": id, "type": "message", "status": "completed", "role": "assistant", "content": [part], **more}


def called(number: int, name: str, arguments: str, **more: Any) -> dict[str, Any]:
    return {"id": f"fc_{number}", "type": "function_call", "status": "completed", "call_id": f"call_{number}", "name": name} | {
        "arguments": arguments,
        **more,
    }


def response(*items: Any, **fields: Any) -> dict[str, Any]:
    head = {"id": "resp_1", "object": "response", "status": "completed", "error": None, "incomplete_details": None}
    return {**head, "model": "gpt-5-2025", "output": list(items), "usage": USAGE, **fields}


WEATHER, TIME = called(1, "weather", '{"city": "Zürich"}'), called(2, "time", "{}")
EVERYTHING = [
    THOUGHT,
    SEARCH,
    OPEN,
    said("It rains.", URL, FILE),
    said(" Now: ", URL, CONTAINER, id="msg_2"),
    PICTURE,
    WEATHER,
    TIME,
    CUSTOM,
]


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "sequence_number": 7, **fields}


def events_of(whole: dict[str, Any], *, cut: int = 1) -> list[dict[str, Any]]:
    """The events that make a response, its texts cut into pieces of ``cut`` characters."""
    begun = {**whole, "status": "in_progress", "output": [], "usage": None, "service_tier": "auto"}
    events = [event("response.created", response=begun), event("response.in_progress", response=begun)]

    def pieces(kind: str, text: str, **where: Any) -> None:
        for at in range(0, len(text), cut):
            events.append(event(f"response.{kind}.delta", **where, delta=text[at : at + cut]))
        events.append(event(f"response.{kind}.done", **where, text=text))

    for index, item in enumerate(whole["output"]):
        where = {"item_id": item["id"], "output_index": index}
        begun_item = {
            **item,
            **{key: type(item[key])() for key in ("content", "summary", "arguments", "input") if key in item},
            "result": None,
        }
        events.append(event("response.output_item.added", output_index=index, item=begun_item))
        for place, part in enumerate(item.get("content", ())):
            kind = part["type"]
            events.append(event("response.content_part.added", **where, content_index=place, part={**part, kind: "", "text": ""}))
            pieces(kind, part.get("text", part.get("refusal", "")), **where, content_index=place)
            for note in part.get("annotations", ()):
                events.append(event("response.output_text.annotation.added", **where, content_index=place, annotation=note))
        for place, part in enumerate(item.get("summary", ())):
            events.append(event("response.reasoning_summary_part.added", **where, summary_index=place, part={**part, "text": ""}))
            pieces("reasoning_summary_text", part["text"], **where, summary_index=place)
        if item["type"] == "function_call":
            pieces("function_call_arguments", item["arguments"], **where)
        elif item["type"] == "custom_tool_call":
            pieces("custom_tool_call_input", item["input"], **where)
        elif item["type"] == "image_generation_call":
            events.append(event("response.image_generation_call.partial_image", **where, partial_image_index=0, partial_image_b64=PNG))
        elif item["type"] == "web_search_call":
            events.append(event("response.web_search_call.searching", **where))
        events.append(event("response.output_item.done", output_index=index, item=item))
    return [*events, event(f"response.{whole['status']}", response=whole)]


def sse(*events: Any) -> str:
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events)


def provider() -> ResponsesProvider:
    return ResponsesProvider(ProviderConfig(name="acme", base_url="https://api.acme.example/v1", api_key=KEY))


def read(body: Any) -> LLMResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return provider().read_answer(data, status=200, request_id="req_1", model="gpt-5")


def read_stream(*pieces: bytes) -> tuple[list[Any], StreamEnd]:
    """Deltas and end of a stream that arrives in these pieces."""
    parser = SSEParser()
    reader = provider().reader("gpt-5", 200, "req_1")
    deltas = [delta for piece in pieces for delta in reader.read(parser.feed(piece))]
    deltas += reader.read(parser.end())
    if reader.failure is not None:
        raise reader.failure
    return deltas, reader.end()


def assembled(deltas: list[Any], end: StreamEnd) -> tuple[Any, ...]:
    """What a stream says, as it can be compared with a whole answer."""
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        if isinstance(delta, ToolCallDelta):
            call = calls.setdefault(delta.index, ["", "", ""])
            call[0], call[1], call[2] = call[0] or delta.id or "", call[1] or delta.name or "", call[2] + delta.arguments
    content = "".join(delta for delta in deltas if isinstance(delta, str))
    reasoning = "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta)) or None
    return content, reasoning, list(calls.values()), end.finish_reason, end.usage, end.citations, end.images, end.native, end.model_name


def parts_of(answer: LLMResponse) -> tuple[Any, ...]:
    calls = [[call.id, call.name, call.text] for call in answer.tool_calls]
    return (
        *(answer.content, answer.reasoning, calls, answer.finish_reason, answer.usage),
        *(answer.citations, answer.images, answer.native, answer.model_name),
    )


@pytest.fixture
def llm(server: ScriptedServer) -> QueryLLM:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=ResponsesProvider, base_url=server.base_url, api_key=KEY)
    return QueryLLM(clock=FakeClock(auto_advance=True))


async def streamed(llm: QueryLLM, *arguments: Any, **options: Any) -> LLMResponse:
    async with llm.stream(*arguments, **options) as stream:
        async for _ in stream:
            pass
    return stream.response


async def sent(llm: QueryLLM, server: ScriptedServer, *messages: Any, model: str = MODEL, **options: Any) -> Any:
    """The body that arrives, and nothing else is looked at."""
    server.answer_json(response(said("ok")))
    await llm.query(model, list(messages) or [{"role": "user", "content": "hi"}], **options)
    return server.requests[-1].json


def translated(model: str = "gpt-5", **options: Any) -> Any:
    return provider().translate(model, options)


# Answers


def test_everything_that_an_answer_may_hold() -> None:
    answer = read(response(*EVERYTHING, service_tier="default"))
    assert answer.content == "It rains. Now: "
    assert answer.reasoning == "**One**\n\nFirst.\n\nThen."
    assert [(call.id, call.name, call.arguments, call.error) for call in answer.tool_calls] == [
        ("call_1", "weather", {"city": "Zürich"}, None),
        ("call_2", "time", {}, None),
        ("call_3", "run", {"input": 'print("日本")'}, None),
    ]
    assert (answer.finish_reason, answer.model_name) == ("tool_calls", "gpt-5-2025")
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (100, 50, 150)
    assert (usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens, usage.web_searches) == (30, 10, 20, 1)
    assert usage.others_worked and not read(response(said("x"))).usage.others_worked
    assert [(note.url, note.title, note.start, note.end, note.raw) for note in answer.citations] == [
        ("https://example.com", "Example", 0, 5, URL),
        (None, "notes.txt", None, None, FILE),
        ("https://example.com", "Example", 9, 14, URL),
        (None, "plot.png", None, None, CONTAINER),
    ]
    assert answer.content[9:14] == " Now:"
    (image,) = answer.images
    assert (image.data, image.media_type, image.revised_prompt) == (PIXEL, "image/png", "A dot")
    assert answer.native == {"format": "responses", "by": "acme", "content": EVERYTHING}
    assert answer.wire is not None
    assert (answer.wire.status, answer.wire.request_id, answer.wire.service_tier) == (200, "req_1", "default")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": "completed"}, "stop"),
        ({"status": "complete"}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "incomplete", "incomplete_details": None}, "incomplete"),
        ({"status": "queued", "background": True}, None),
        ({"status": "in_progress", "output": None}, None),
    ],
)
def test_finish_reason(fields: Any, expected: str | None) -> None:
    assert read(response(said("Hello"), **fields)).finish_reason == expected


async def test_an_answer_that_is_made_in_the_background(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(response(status="queued", background=True, usage=None))
    answer = await llm.query(MODEL, prompt="hi", background=True)
    assert (answer.content, answer.finish_reason, answer.usage.total_tokens) == ("", None, None)
    assert answer.raw["id"] == "resp_1"
    assert server.request.json["background"] is True


async def test_how_far_it_is_and_at_last_the_answer(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(response(status="queued", background=True, usage=None))
    server.answer_json(response(status="in_progress", background=True, usage=None))
    server.answer_json(response(said("Done."), background=True))
    answer = await llm.query(MODEL, prompt="hi", background=True, max_tokens=50)
    while answer.finish_reason is None:
        answer = await llm.query(MODEL, prompt="hi", retrieve=answer.raw["id"])
    assert (answer.content, answer.finish_reason, answer.usage.total_tokens) == ("Done.", "stop", 150)
    assert [(request.method, request.path) for request in server.requests] == [
        ("POST", "/v1/responses"),
        *[("GET", "/v1/responses/resp_1")] * 2,
    ]
    assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}" and server.requests[-1].body == b""


async def test_what_cannot_be_retrieved(llm: QueryLLM, server: ScriptedServer) -> None:
    plan = llm.plan(MODEL, prompt="hi", retrieve="resp_1")
    assert (plan.method, plan.url, plan.body) == ("GET", f"{server.base_url}/responses/resp_1", None) and KEY not in str(plan)
    for id in ("../files", "..", "", 5, "a/b", "a?b"):
        with pytest.raises(InvalidRequestError, match="retrieve is"):
            await llm.query(MODEL, prompt="hi", retrieve=id)
    for other in ({"temperature": 0}, {"max_tokens": 5}, {"background": True}):
        with pytest.raises(InvalidRequestError, match=f"'{next(iter(other))}'"):
            await llm.query(MODEL, prompt="hi", retrieve="resp_1", **other)
    with pytest.raises(InvalidRequestError, match="given for a stream"):
        await streamed(llm, MODEL, prompt="hi", retrieve="resp_1")
    assert server.requests == []
    server.answer_json({"error": {"message": "Response with id 'resp_1' not found.", "type": "invalid_request_error"}}, status=404)
    with pytest.raises(ProviderError, match="not found"):
        await llm.query(MODEL, prompt="hi", retrieve="resp_1")


def test_a_refusal_is_the_text_where_there_is_no_other() -> None:
    refusal = {"type": "refusal", "refusal": "I cannot help with that."}
    alone = response({**said(""), "content": [refusal]})
    assert (read(alone).content, read(alone).finish_reason) == ("I cannot help with that.", "stop")
    after = response({**said("Well."), "content": [*said("Well.")["content"], refusal]})
    assert read(after).content == "Well."
    for whole in (alone, after):
        assert assembled(*read_stream(sse(*events_of(whole, cut=4)).encode())) == parts_of(read(whole))


def test_open_models_show_their_reasoning_itself() -> None:
    thought = {"id": "rs_1", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "We need Paris."}]}
    whole = response(thought, said("Paris."))
    assert read(whole).reasoning == "We need Paris."
    assert assembled(*read_stream(sse(*events_of(whole, cut=3)).encode())) == parts_of(read(whole))


def test_what_our_message_can_say_needs_no_native_form() -> None:
    for items in ([], [said("Hello")], [said("Let me see."), WEATHER, TIME], [WEATHER]):
        assert read(response(*items)).native is None
    for items in (
        [said("Hello", URL)],
        [said("Hello", phase="final_answer")],
        [WEATHER, said("after its call")],
        [said("one"), said("two", id="msg_2")],
        [called(1, "weather", "{}", namespace="maps")],
        [CUSTOM],
        [THOUGHT, WEATHER],
        [{"id": "mcpr_1", "type": "mcp_approval_request", "name": "n", "arguments": "{}", "server_label": "s"}],
    ):
        assert read(response(*items)).native == {"format": "responses", "by": "acme", "content": items}


def test_arguments_that_are_no_json_are_a_tool_call_all_the_same() -> None:
    (call,) = read(response(called(1, "weather", '{"city": '), status="incomplete")).tool_calls
    assert (call.arguments, call.text) == ({}, '{"city": ') and "'weather'" in str(call.error)


@pytest.mark.parametrize("result", ["", None, 5, "no base64!", {"a": 1}])
def test_an_image_that_is_none(result: Any) -> None:
    assert read(response({**PICTURE, "result": result})).images == []


def test_images_by_their_bytes_or_their_address() -> None:
    def image(result: str) -> Any:
        (found,) = read(response({"id": "ig_1", "type": "image_generation_call", "result": result})).images
        return found

    assert image(PNG).media_type == "image/png"
    assert image(base64.b64encode(b"\xff\xd8\xff").decode()).media_type == "image/jpeg"
    assert image(base64.b64encode(b"RIFF....WEBP").decode()).media_type == "image/webp"
    assert image(base64.b64encode(b"what").decode()).media_type is None
    assert image(f"data:image/gif;base64,{PNG}").media_type == "image/gif"
    assert image("https://example.com/a.png").url == "https://example.com/a.png"


def test_what_a_gateway_bills_is_the_cost() -> None:
    assert read(response(said("x"), usage={**USAGE, "cost": 0.25})).usage.cost == Decimal("0.25")
    assert read(response(said("x"), usage=None)).usage.input_tokens is None


# Errors


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        ("server_error", "The server had an error.", ServerError),
        ("vector_store_timeout", "Took too long.", ServerError),
        ("rate_limit_exceeded", "Rate limit reached for gpt-5.", RateLimitError),
        ("invalid_prompt", "The prompt is malformed.", InvalidRequestError),
        ("invalid_prompt", "Your prompt was flagged as potentially violating our usage policy.", ContentPolicyError),
        ("image_content_policy_violation", "No.", ContentPolicyError),
        ("bio_policy", "No.", ContentPolicyError),
        ("failed_to_download_image", "Could not get it.", InvalidRequestError),
        ("image_too_large", "Too large.", InvalidRequestError),
    ],
)
def test_a_response_that_failed_is_the_error_that_its_code_means(code: str, message: str, expected: type[ProviderError]) -> None:
    failed = response(status="failed", error={"code": code, "message": message})
    stream = sse(*events_of(response())[:2], event("response.failed", response=failed)).encode()
    error_event = sse(*events_of(response())[:2], event("error", code=code, message=message, param=None)).encode()
    nested = sse(event("error", error={"code": code, "message": message, "type": "x"})).encode()
    for attempt in (lambda: read(failed), lambda: read_stream(stream), lambda: read_stream(error_event), lambda: read_stream(nested)):
        with pytest.raises(ProviderError) as caught:
            attempt()
        assert type(caught.value) is expected
        assert message in str(caught.value) and (caught.value.status, caught.value.request_id) == (200, "req_1")


def test_a_response_that_failed_and_does_not_say_why() -> None:
    with pytest.raises(ServerError, match="does not say why"):
        read(response(status="failed"))
    with pytest.raises(ServerError, match="does not say why"):
        read_stream(sse(event("response.failed", response={"status": "failed"})).encode())


async def test_a_response_that_somebody_cancelled_is_not_made_again(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(response(status="cancelled"))
    with pytest.raises(ProviderError, match="was cancelled"):
        await llm.query(MODEL, prompt="hi")
    assert len(server.requests) == 1


async def test_a_stream_that_fails_tells_what_it_cost(llm: QueryLLM, server: ScriptedServer) -> None:
    failed = response(status="failed", error={"code": "server_error", "message": "Lost."})
    server.answer_sse(sse(*events_of(response(said("Hello")))[:6], event("response.failed", response=failed)))
    with pytest.raises(StreamInterruptedError) as caught:
        await streamed(llm, MODEL, prompt="hi")
    assert caught.value.response.usage.input_tokens == 100
    assert caught.value.response.content == "He"


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"null",
            b"[]",
            b"7",
            b'"x"',
            b"<html>nothing here</html>",
            b"{",
            b"{}",
            b'{"output": null}',
            b'{"output": {}}',
            b'{"output": [1]}',
        ),
        b'{"error": "no"}',
        b'{"detail": "Not here"}',
        b'{"object": "list", "data": []}',
        b'{"choices": [{"message": {"content": "hi"}}]}',
        b"\xff\xfe",
    ],
)
def test_a_body_that_is_no_response(body: bytes) -> None:
    with pytest.raises(ProviderError) as caught:
        read(body)
    assert caught.value.status == 200


@pytest.mark.parametrize("cut", [2, 5, -1])
def test_a_stream_that_ends_early_was_cut_off(cut: int) -> None:
    with pytest.raises(ServerError, match="ended without response.completed"):
        read_stream(sse(*events_of(response(said("Hello")))[:cut]).encode() + b"data: [DONE]\n\n")


values: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 9), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["type", "text", "content", "id"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_whatever_is_wrong_with_a_field_it_is_an_answer_or_a_providers_error(data: st.DataObject) -> None:
    whole = copy.deepcopy(response(*EVERYTHING))
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(whole)
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(values)
    stream = [event(f"response.{kind}", response=whole) for kind in ("created", "completed")]
    for item in whole["output"] if isinstance(whole["output"], list) else ():
        stream.insert(1, event("response.output_item.done", output_index=data.draw(values), item=item))
    for attempt in (lambda: read(whole), lambda: read_stream(sse(*stream).encode())):
        try:
            attempt()
        except ProviderError as error:
            assert str(error)


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(events_of(response(*EVERYTHING))[:-1]),
    st.sampled_from(["type", "delta", "item", "response", "output_index", "item_id"]),
    values,
)
def test_whatever_is_wrong_with_an_event(one: dict[str, Any], field: str, value: Any) -> None:
    broken = {**one, field: value}
    try:
        deltas, _ = read_stream(f"data: {json.dumps(broken)}\n\n{sse(*events_of(response(said('Hello'))))}".encode())
    except ProviderError as error:
        assert str(error)
    else:
        assert "".join(delta for delta in deltas if isinstance(delta, str)).endswith("Hello") or field == "delta"


# Streams


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.lists(st.integers(0, 20_000), max_size=40), st.sampled_from(["\n", "\r\n"]))
def test_a_stream_in_any_pieces_says_what_the_whole_answer_says(cut: int, cuts: list[int], end: str) -> None:
    whole = response(*EVERYTHING)
    stream = sse(*events_of(whole, cut=cut)).replace("\n", end).encode()
    at = sorted({min(place, len(stream)) for place in cuts} | {0, len(stream)})
    pieces = [stream[a:b] for a, b in zip(at, at[1:], strict=False)]
    assert assembled(*read_stream(*pieces)) == parts_of(read(whole))


items = st.one_of(
    st.text(max_size=9).map(said),
    st.lists(st.text(max_size=6), max_size=3).map(
        lambda texts: {**THOUGHT, "summary": [{"type": "summary_text", "text": text} for text in texts]}
    ),
    st.sampled_from([WEATHER, TIME, CUSTOM, SEARCH, PICTURE]),
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(items, max_size=5), st.integers(1, 4), st.sampled_from(["all", "no indexes", "no items", "end only", "no output at the end"])
)
def test_any_answer_is_the_same_streamed_or_not(output: list[Any], cut: int, server_is: str) -> None:
    """Also from servers that leave out what they can."""
    named = [
        {**item, "id": f"item_{number}", **({"call_id": f"call_{number}"} if "call_id" in item else {})}
        for number, item in enumerate(output)
    ]
    whole = response(*named)
    events = events_of(whole, cut=cut)
    if server_is == "no indexes":
        events = [{key: value for key, value in one.items() if not key.endswith("_index")} for one in events]
    elif server_is == "no items":
        events = [one for one in events if "output_item" not in one["type"] and "arguments" not in one["type"]]
    elif server_is == "end only":
        events = events[-1:]
    elif server_is == "no output at the end":
        events[-1] = {**events[-1], "response": {key: value for key, value in whole.items() if key != "output"}}
    assert assembled(*read_stream(sse(*events).encode())) == parts_of(read(whole))


def test_the_text_of_a_custom_tool_comes_in_pieces() -> None:
    whole = response(said("Let me see."), CUSTOM)
    deltas, _ = read_stream(sse(*events_of(whole, cut=5)).encode())
    pieces = [delta.arguments for delta in deltas if isinstance(delta, ToolCallDelta)]
    assert len(pieces) > 3 and json.loads("".join(pieces)) == {"input": CUSTOM["input"]}


def test_an_event_may_be_named_outside_its_data_only() -> None:
    whole = response(THOUGHT, said("Hello"), WEATHER)
    events = events_of(whole, cut=2)
    stream = "".join(
        f"event: {one['type']}\ndata: {json.dumps({key: value for key, value in one.items() if key != 'type'})}\n\n" for one in events
    )
    assert assembled(*read_stream(stream.encode())) == parts_of(read(whole))


def test_annotations_count_where_the_end_does_not_repeat_them() -> None:
    whole = response(said("It rains.", URL), said(" Now: ", URL, id="msg_2"))
    events = [one for one in events_of(whole, cut=3) if one["type"] != "response.output_item.done"]
    events[-1] = {**events[-1], "response": {"status": "completed"}}
    deltas, end = read_stream(sse(*events).encode())
    assert "".join(deltas) == "It rains. Now: "
    assert end.citations == read(whole).citations
    assert (end.model_name, end.usage) == ("gpt-5-2025", end.usage)


def test_events_nobody_knows_are_passed_over() -> None:
    whole = response(said("Hello"), WEATHER)
    events = events_of(whole)
    for number, unknown in enumerate(
        [
            event("ping"),
            event("response.mood.delta", delta="good"),
            event("response.code_interpreter_call_code.delta", output_index=0, delta="print()"),
            event("response.item_hint", output_index=9, item=TIME),
            event("response.mcp_call.failed", error={"message": "a tool of theirs"}),
            {"type": None},
            {"brand": "new"},
        ]
    ):
        events.insert(2 + 2 * number, unknown)
    stream = "".join(f"data: {json.dumps(one)}\n\n" for one in events)
    assert assembled(*read_stream(stream.encode())) == parts_of(read(whole))


async def test_the_response_at_the_end_of_a_stream_is_raw(llm: QueryLLM, server: ScriptedServer) -> None:
    whole = response(*EVERYTHING)
    server.answer_sse(sse(*events_of(whole, cut=5)))
    server.answer_json(whole)
    first, second = await streamed(llm, MODEL, prompt="hi"), await llm.query(MODEL, prompt="hi")
    assert first.raw == second.raw == whole
    assert parts_of(first) == parts_of(second)


async def test_a_server_that_does_not_stream(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(response(*EVERYTHING))
    answer = await streamed(llm, MODEL, prompt="hi")
    assert (answer.content, len(answer.tool_calls), answer.finish_reason) == ("It rains. Now: ", 3, "tool_calls")


# Messages


async def test_system_messages_keep_their_place_and_role(llm: QueryLLM, server: ScriptedServer) -> None:
    messages = [{"role": role, "content": f"{role} says"} for role in ("system", "developer", "user", "system")]
    body = await sent(llm, server, *messages, instructions="Be kind.")
    assert body["input"] == messages and body["instructions"] == "Be kind."


async def test_parts_of_a_user_message(llm: QueryLLM, server: ScriptedServer) -> None:
    uri = f"data:image/png;base64,{PNG}"
    pdf = {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}
    parts = [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": uri}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "high"}},
        {"type": "image_url", "image_url": "https://example.com/b.png"},
        {"type": "file", "file": pdf},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"file_data": "https://example.com/b.pdf"}},
        {"type": "input_image", "file_id": "file-2", "detail": "low"},
        "and that",
    ]
    body = await sent(llm, server, {"role": "user", "content": parts})
    assert body["input"] == [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Look:"},
                {"type": "input_image", "image_url": uri, "detail": "auto"},
                {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "high"},
                {"type": "input_image", "image_url": "https://example.com/b.png", "detail": "auto"},
                {"type": "input_file", **pdf},
                {"type": "input_file", "file_id": "file-1"},
                {"type": "input_file", "file_url": "https://example.com/b.pdf"},
                {"type": "input_image", "file_id": "file-2", "detail": "low"},
                {"type": "input_text", "text": "and that"},
            ],
        }
    ]


async def test_an_assistants_turn(llm: QueryLLM, server: ScriptedServer) -> None:
    calls = [
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": '}},
        {"id": "call_2", "type": "function", "function": {"name": "time", "arguments": {"zone": "CET"}}},
        {"id": "call_3", "type": "custom", "custom": {"name": "run", "input": "1+1"}},
    ]
    picture = [{"type": "text", "text": "here:"}, {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    body = await sent(
        llm,
        server,
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": calls, "phase": "commentary"},
        {"role": "tool", "tool_call_id": "call_1", "content": "bad arguments"},
        {"role": "tool", "tool_call_id": "call_2", "content": picture},
        {"role": "tool", "tool_call_id": "call_3", "content": None},
        {"role": "assistant", "content": [{"type": "text", "text": "Done."}, {"type": "refusal", "refusal": "No more."}]},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "ok"},
    )
    assert body["input"][1:-1] == [
        {"type": "message", "role": "assistant", "content": "Let me see.", "phase": "commentary"},
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": '},
        {"type": "function_call", "call_id": "call_2", "name": "time", "arguments": '{"zone":"CET"}'},
        {"type": "custom_tool_call", "call_id": "call_3", "name": "run", "input": "1+1"},
        {"type": "function_call_output", "call_id": "call_1", "output": "bad arguments"},
        {
            "type": "function_call_output",
            "call_id": "call_2",
            "output": [
                {"type": "input_text", "text": "here:"},
                {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"},
            ],
        },
        {"type": "custom_tool_call_output", "call_id": "call_3", "output": ""},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Done."}, {"type": "refusal", "refusal": "No more."}],
        },
    ]


@pytest.mark.parametrize("how", ["whole", "streamed"])
async def test_an_answer_goes_back_as_it_came(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    whole = response(*EVERYTHING)
    if how == "whole":
        server.answer_json(whole)
        answer = await llm.query(MODEL, prompt="hi")
    else:
        server.answer_sse(sse(*events_of(whole, cut=6)))
        answer = await streamed(llm, MODEL, prompt="hi")
    results = [{"role": "tool", "tool_call_id": call.id, "content": call.name} for call in answer.tool_calls]
    message = json.loads(json.dumps(answer.message))
    body = await sent(llm, server, {"role": "user", "content": "hi"}, message, *results)
    assert body["input"][1 : 1 + len(EVERYTHING)] == EVERYTHING
    assert [(item["type"], item["call_id"]) for item in body["input"][1 + len(EVERYTHING) :]] == [
        ("function_call_output", "call_1"),
        ("function_call_output", "call_2"),
        ("custom_tool_call_output", "call_3"),
    ]
    assert answer.message == message


async def test_what_another_provider_kept_is_left_out(llm: QueryLLM, server: ScriptedServer) -> None:
    native = {"format": "anthropic", "content": [{"type": "thinking", "thinking": "t", "signature": "s"}]}
    body = await sent(
        llm,
        server,
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Hello", "_native": native},
        {"role": "user", "content": "?"},
    )
    assert body["input"][1] == {"type": "message", "role": "assistant", "content": "Hello"}


@pytest.mark.parametrize("how", ["whole", "streamed"])
async def test_what_another_server_of_the_same_api_kept_is_said_in_our_words(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    """Ids and encrypted thoughts are of use only where they come from."""
    PROVIDER_CONFIGS["other"] = PROVIDER_CONFIGS["acme"]
    llm = QueryLLM(clock=FakeClock(auto_advance=True))  # sees the row
    whole = response(THOUGHT, said("Let me see."), WEATHER, TIME)
    if how == "whole":
        server.answer_json(whole)
        answer = await llm.query("other/gpt-5", prompt="hi")
    else:
        server.answer_sse(sse(*events_of(whole, cut=6)))
        answer = await streamed(llm, "other/gpt-5", prompt="hi")
    results = [{"role": "tool", "tool_call_id": call.id, "content": "x"} for call in answer.tool_calls]
    messages = [{"role": "user", "content": "hi"}, json.loads(json.dumps(answer.message)), *results]
    assert (await sent(llm, server, *messages, model="other/gpt-5"))["input"][1:5] == whole["output"]
    assert (await sent(llm, server, *messages))["input"][1:4] == [
        {"type": "message", "role": "assistant", "content": "Let me see."},
        *({key: item[key] for key in ("type", "call_id", "name", "arguments")} for item in (WEATHER, TIME)),
    ]


async def test_items_of_the_apis_own_go_through(llm: QueryLLM, server: ScriptedServer) -> None:
    screenshot = {"type": "computer_call_output", "call_id": "cu_1", "output": {"type": "computer_screenshot", "image_url": "data:"}}
    tools = {"role": "developer", "type": "additional_tools", "tools": []}
    body = await sent(llm, server, {"role": "user", "content": "hi"}, tools, {"role": "tool", **screenshot})
    assert body["input"][1:] == [tools, screenshot]


@pytest.mark.parametrize("how", [{"previous_response_id": "resp_1"}, {"conversation": "conv_1"}])
async def test_a_result_of_a_call_that_the_api_keeps(llm: QueryLLM, server: ScriptedServer, how: dict[str, str]) -> None:
    body = await sent(llm, server, {"role": "tool", "tool_call_id": "call_1", "content": "18 °C"}, **how)
    assert body == {"model": "gpt-5", "input": [{"type": "function_call_output", "call_id": "call_1", "output": "18 °C"}], **how}


@pytest.mark.parametrize(
    ("message", "said_of_it"),
    [
        ({"role": "tool", "tool_call_id": "call_9", "content": "x"}, r"messages\[1\] is the result of tool call 'call_9'"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}, "the audio is missing"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "the image is missing"),
        ({"role": "user", "content": [{"type": "file", "file": {"filename": "a.pdf"}}]}, "has no file: give"),
        ({"role": "user", "content": 5}, "content is a int"),
        ({"role": "user", "content": [5]}, r"messages\[1\]\.content\[0\] is a int"),
        ({"role": "assistant", "content": "x", "tool_calls": ["f"]}, "a tool call is 'f'"),
        ({"role": "assistant", "content": "x", "tool_calls": [{"id": "c", "type": "function"}]}, "a tool call is"),
        ({"role": "assistant", "content": "x", "_native": {"format": "responses"}}, "_native has no content"),
    ],
)
async def test_a_message_that_cannot_be_said(llm: QueryLLM, server: ScriptedServer, message: dict[str, Any], said_of_it: str) -> None:
    with pytest.raises(InvalidRequestError, match=said_of_it):
        await llm.query(MODEL, [{"role": "user", "content": "hi"}, message])
    assert server.requests == []


# Options


def test_options_by_the_names_of_chat_completions() -> None:
    result = translated(
        max_completion_tokens=100,
        temperature=0,
        reasoning_effort="low",
        reasoning={"summary": "auto"},
        verbosity="low",
        response_format={"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": SCHEMA}},
        logprobs=True,
        top_logprobs=2,
        parallel_tool_calls=False,
        metadata={"a": "b"},
        store=True,
        user="u",
        service_tier="flex",
        brand_new=1,
    )
    assert result.options == {
        "max_output_tokens": 100,
        "temperature": 0,
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "place", "strict": True, "schema": SCHEMA}},
        "include": [LOGPROBS],
        "top_logprobs": 2,
        "parallel_tool_calls": False,
        "metadata": {"a": "b"},
        "store": True,
        "user": "u",
        "service_tier": "flex",
        "brand_new": 1,
    }
    assert result.renamed == {
        "max_completion_tokens": "max_output_tokens",
        "reasoning_effort": "reasoning.effort",
        "verbosity": "text.verbosity",
        "response_format": "text.format",
        "logprobs": "include",
    }
    assert (result.dropped, result.unsupported) == ([], [])


def test_the_apis_own_names_go_through() -> None:
    own = {
        "max_output_tokens": 100,
        "previous_response_id": "resp_1",
        "conversation": "conv_1",
        "include": ["file_search_call.results"],
        "truncation": "auto",
        "background": True,
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "max_tool_calls": 3,
        "text": {"verbosity": "low"},
        "reasoning": {"effort": "high"},
        "instructions": "Be brief.",
    }
    assert translated(**own).options == own
    assert translated(include="file_search_call.results").options == {"include": ["file_search_call.results"]}
    assert translated(stream_options={"include_usage": True, "include_obfuscation": False}).options == {
        "stream_options": {"include_obfuscation": False}
    }


async def test_names_that_the_engine_lets_through(llm: QueryLLM, server: ScriptedServer) -> None:
    own = {"previous_response_id": "resp_1", "include": ["x"], "truncation": "auto", "max_tool_calls": 3, "text": {"verbosity": "low"}}
    own |= {"instructions": "Be brief.", "prompt_cache_options": {"mode": "implicit"}, "conversation": "conv_1", "background": False}
    body = await sent(llm, server, **own)
    assert body == {"model": "gpt-5", "input": [{"role": "user", "content": "hi"}], **own}


@pytest.mark.parametrize(
    ("name", "neutral", "meant"),
    [
        ("n", 1, 2),
        ("frequency_penalty", 0, 0.5),
        ("presence_penalty", 0.0, -1),
        ("logit_bias", {}, {"50256": -100}),
        ("modalities", ["text"], ["text", "audio"]),
        ("stop", [], "END"),
        ("stream_options", {"include_usage": True}, {"brand_new": True}),
        ("stream_options", {}, {"include_usage": "x"}),
    ],
)
def test_what_the_api_has_no_word_for(name: str, neutral: Any, meant: Any) -> None:
    assert (translated(**{name: neutral}).dropped, translated(**{name: neutral}).options) == ([name], {})
    assert (translated(**{name: meant}).unsupported, translated(**{name: meant}).options) == ([name], {})


@pytest.mark.parametrize("name", ["seed", "audio", "prediction", "functions", "function_call"])
def test_what_the_api_has_no_word_for_at_all(name: str) -> None:
    assert translated(**{name: 1}).unsupported == [name]


def test_a_format_that_asks_for_nothing_is_left_out() -> None:
    assert translated(response_format={"type": "text"}).dropped == ["response_format"]
    assert translated(logprobs=False).dropped == ["logprobs"]


def test_formats() -> None:
    def form(value: Any) -> Any:
        return translated(response_format=value).options["text"]["format"]

    assert form({"type": "json_object"}) == {"type": "json_object"}
    flat = {"type": "json_schema", "name": "place", "schema": SCHEMA}
    assert form(flat) == flat
    assert form({"type": "json_schema", "json_schema": {"schema": SCHEMA}}) == {**flat, "name": "answer"}
    with pytest.raises(InvalidRequestError, match="response_format has no schema"):
        form({"type": "json_schema", "json_schema": {"name": "place"}})


def test_tools() -> None:
    function = {"name": "weather", "description": "W", "parameters": SCHEMA}
    builtin = [{"type": "web_search"}, {"type": "mcp", "server_label": "s", "server_url": "https://example.com"}]
    grammar = {"syntax": "lark", "definition": "start: /a/"}
    tools = [
        {"type": "function", "function": function},
        {"type": "function", "function": {**function, "strict": True}, "defer_loading": True},
        {"type": "function", "function": {"name": "bare", "parameters": None, "strict": None}},
        {"type": "function", "name": "flat", "parameters": SCHEMA},
        {"type": "custom", "custom": {"name": "run", "format": {"type": "grammar", "grammar": grammar}}},
        {"type": "custom", "name": "flat_custom"},
        *builtin,
    ]
    before = copy.deepcopy(tools)
    assert translated(tools=tools).options["tools"] == [
        {"type": "function", **function, "strict": False},
        {"type": "function", **function, "strict": True, "defer_loading": True},
        {"type": "function", "name": "bare", "parameters": {"type": "object", "properties": {}}, "strict": False},
        {"type": "function", "name": "flat", "parameters": SCHEMA},
        {"type": "custom", "name": "run", "format": {"type": "grammar", **grammar}},
        {"type": "custom", "name": "flat_custom"},
        *builtin,
    ]
    assert tools == before


@pytest.mark.parametrize("first", ["tools", "web_search_options"])
def test_a_search_models_options_are_the_tool_that_searches(first: str) -> None:
    options = {
        "web_search_options": {"search_context_size": "low", "user_location": {"type": "approximate", "approximate": {"country": "CH"}}},
        "tools": [{"type": "code_interpreter"}],
    }
    ordered = {first: options[first], **options}
    tools = translated(**ordered).options["tools"]
    assert tools == [
        {"type": "code_interpreter"},
        {"type": "web_search", "search_context_size": "low", "user_location": {"type": "approximate", "country": "CH"}},
    ]


def test_the_choice_of_a_tool() -> None:
    def choice(value: Any) -> Any:
        return translated(tool_choice=value).options["tool_choice"]

    for word in ("auto", "required", "none"):
        assert choice(word) == word
    assert choice({"type": "function", "function": {"name": "f"}}) == {"type": "function", "name": "f"}
    assert choice({"type": "custom", "custom": {"name": "f"}}) == {"type": "custom", "name": "f"}
    assert choice({"type": "web_search"}) == {"type": "web_search"}
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "mcp", "server_label": "s"}]}
    assert choice({"type": "allowed_tools", "allowed_tools": allowed}) == {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "f"}, {"type": "mcp", "server_label": "s"}],
    }


@pytest.mark.parametrize("model", ["gpt-5", "gpt-5.4-mini", "o3", "o4-mini", "openai/gpt-oss-120b", "deepseek-v4"])
def test_what_is_not_stored_takes_its_reasoning_along(model: str) -> None:
    assert translated(model, store=False).options == {"store": False, "include": [ENCRYPTED_REASONING]}
    assert translated(model, store=False, include=[ENCRYPTED_REASONING, "x"]).options["include"] == [ENCRYPTED_REASONING, "x"]
    assert "include" not in translated(model, store=True).options and translated(model).options == {}


@pytest.mark.parametrize("model", ["gpt-4.1", "gpt-4o-mini", "openai/gpt-4o", "gpt-3.5-turbo", "chatgpt-4o-latest", "ft:gpt-4o:org"])
def test_a_model_without_reasoning_is_not_asked_for_it(model: str) -> None:
    assert translated(model, store=False).options == {"store": False}


@pytest.mark.parametrize(
    "options", [{"reasoning": "high"}, {"text": 5}, {"reasoning": "x", "reasoning_effort": "low"}, {"web_search_options": True}]
)
def test_a_value_that_cannot_be_read(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=rf"^{next(iter(options))} is .*: give a dict"):
        translated(**options)


# Counts, limits, the plan, and where the class is named


async def test_count_of_tokens(server: ScriptedServer) -> None:
    asked = ResponsesProvider(ProviderConfig(base_url=server.base_url, api_key=KEY))
    server.answer_json({"object": "response.input_tokens", "input_tokens": 42})
    messages = [{"role": "user", "content": "hi"}]
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert await asked.count_tokens(messages, "gpt-5", tools=tools, temperature=1, max_tokens=5, reasoning_effort="low") == 42
    assert server.request.path == "/v1/responses/input_tokens"
    assert server.request.headers["authorization"] == f"Bearer {KEY}"
    assert server.request.json == {
        "model": "gpt-5",
        "input": messages,
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False}],
        "reasoning": {"effort": "low"},
    }
    server.answer_json({"error": {"message": "no such path"}}, status=404)
    assert await asked.count_tokens(messages, "gpt-5") is None
    server.answer_json({"error": {"message": "not for you"}}, status=403)
    with pytest.raises(PermissionDeniedError, match="not for you"):
        await asked.count_tokens(messages, "gpt-5")
    server.answer_json({"tokens": 1})
    with pytest.raises(ServerError, match="cannot be read"):
        await asked.count_tokens(messages, "gpt-5")


def test_limits_in_the_headers() -> None:
    limits = provider().rate_limits(
        {"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-tokens": "29000", "x-ratelimit-reset-tokens": "1m30s"}
    )
    assert (limits.requests_limit, limits.tokens_remaining, limits.requests_reset) == (500, 29_000, None)
    assert limits.tokens_reset is not None


async def test_health_costs_nothing(server: ScriptedServer) -> None:
    server.answer_json({"data": []})
    assert await ResponsesProvider(ProviderConfig(base_url=server.base_url, api_key=KEY)).health_check()
    assert (server.request.method, server.request.path) == ("GET", "/v1/models")


async def test_a_plan_sends_nothing(llm: QueryLLM, server: ScriptedServer) -> None:
    plan = await llm.plan(MODEL, prompt="hi", max_tokens=5, stream=True)
    assert plan.url == f"{server.base_url}/responses" and KEY not in repr(plan)
    assert plan.body == {"model": "gpt-5", "input": [{"role": "user", "content": "hi"}], "max_output_tokens": 5, "stream": True}
    assert plan.renamed == {"max_tokens": "max_output_tokens"} and server.requests == []


def test_without_a_key_no_header_is_sent() -> None:
    assert ResponsesProvider(ProviderConfig(base_url="http://localhost")).headers({}) == {}


def test_a_row_names_the_class_in_its_generate_map() -> None:
    value = "llm_master.generators.responses:responses"
    row = ProviderConfig(base_url="https://api.acme.example/v1", generate_map={"responses/{model}": value, "responses-{model}": value})
    assert load(row.generate_map["responses/{model}"], "generate_map") is responses is ResponsesProvider
