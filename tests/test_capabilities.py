"""What a model is known not to do is refused before anything is sent; and how an answer of a wanted form is asked for."""

from __future__ import annotations

import base64
import dataclasses
import json
from decimal import Decimal
from typing import Any

import attrs
import pytest
from servers.formats import ChatCompletions
from servers.scripted import ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    BaseLLMProvider,
    InvalidOutputError,
    InvalidRequestError,
    LLMConfig,
    LLMResponse,
    ModelConfig,
    ModelRegistry,
    ProviderConfig,
    QueryLLM,
    ServerError,
    Usage,
)
from llm_master.dispatch.capabilities import _OPTIONS
from llm_master.testing import FakeClock

CHAT = ChatCompletions()
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x80\x3e\x00\x00\x02\x00\x10\x00data\x00\x00\x00\x00"
PDF = b"%PDF-1.4\n1 0 obj\n<< >>\nendobj\ntrailer\n<< >>\n%%EOF\n"
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
def llm(server: ScriptedServer) -> QueryLLM:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False)
    return QueryLLM(LLMConfig(environment={}, clock=FakeClock(auto_advance=True)))


def knows(**capabilities: bool) -> str:
    ModelRegistry.register("acme/large", ModelConfig(capabilities=capabilities))
    return "acme/large"


def data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def user(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, *parts]}]


# Media

MEDIA = {
    "images": ({"images": [PNG]}, "vision", "read images"),
    "an image by its address": ({"images": ["https://example.com/cat.png"]}, "vision", "read images"),
    "image_paths": ({"image_paths": ["cat.png"]}, "vision", "read images"),
    "parts": ({"parts": ["This:", {"type": "image", "path": "cat.png"}]}, "vision", "read images"),
    "audio_paths": ({"audio_paths": ["note.wav"]}, "audio_input", "hear audio"),
    "a PDF file": ({"files": ["report.pdf"]}, "pdf", "read PDF files"),
    "a PDF by its address": ({"files": ["https://example.com/report.pdf"]}, "pdf", "read PDF files"),
    "a PDF by its content": ({"files": ["report"]}, "pdf", "read PDF files"),
    "an image by its content": ({"files": ["picture"]}, "vision", "read images"),
}


@pytest.fixture(autouse=True)
def _files(tmp_path: Any) -> None:
    for name, data in {"cat.png": PNG, "picture": PNG, "note.wav": WAV, "report.pdf": PDF, "report": PDF}.items():
        (tmp_path / name).write_bytes(data)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("arguments", "capability", "said"), MEDIA.values(), ids=MEDIA)
async def test_media_that_the_model_cannot_read_are_refused_by_name(
    llm: QueryLLM, server: ScriptedServer, arguments: Any, capability: str, said: str, stream: bool
) -> None:
    with pytest.raises(InvalidRequestError, match=f"acme/large is known not to {said}, so nothing was sent.*ModelRegistry.register"):
        await llm.query(knows(**{capability: False}), prompt="What is this?", stream=stream, **arguments)
    assert server.requests == []


@pytest.mark.parametrize(
    ("messages", "capability"),
    [
        (user({"type": "image_url", "image_url": {"url": data_uri("image/png", PNG)}}), "vision"),
        (user({"type": "image_url", "image_url": "https://example.com/cat.png"}), "vision"),
        (user({"type": "input_image", "image_url": "https://example.com/cat.png"}), "vision"),
        ([{"role": "user", "content": "What?", "images": [PNG]}], "vision"),
        ([{"role": "user", "content": "What?", "image_paths": "cat.png"}], "vision"),
        (
            [*user({"type": "image", "path": "cat.png"}), {"role": "assistant", "content": "A cat."}, {"role": "user", "content": "?"}],
            "vision",
        ),
        (
            [
                {"role": "user", "content": "?"},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "look"}}]},
                {"role": "tool", "tool_call_id": "1", "content": [{"type": "image", "path": "cat.png"}]},
            ],
            "vision",
        ),
        (user({"type": "input_audio", "input_audio": {"data": base64.b64encode(WAV).decode(), "format": "wav"}}), "audio_input"),
        (user({"type": "file", "file": {"filename": "a.pdf", "file_data": data_uri("application/pdf", PDF)}}), "pdf"),
        (user({"type": "video_url", "video_url": {"url": "https://example.com/cat.mp4"}}), "video_input"),
    ],
)
async def test_whatever_their_spelling_and_wherever_they_stand(
    llm: QueryLLM, server: ScriptedServer, messages: Any, capability: str
) -> None:
    for capabilities in ({capability: False}, {capability: True}, {}):
        server.reset()
        server.answer_json(CHAT.answer("A cat."))
        if capabilities.get(capability) is False:
            with pytest.raises(InvalidRequestError, match="known not to"):
                await llm.query(knows(**capabilities), messages)
            assert server.requests == []
        else:
            await llm.query(knows(**capabilities), messages)
            assert len(server.requests) == 1, "what is not known is asked"


async def test_media_are_never_dropped(llm: QueryLLM, server: ScriptedServer) -> None:
    with pytest.raises(InvalidRequestError, match="read images"):
        await llm.query(knows(vision=False), prompt="What is this?", images=[PNG], on_unsupported="drop")
    assert server.requests == []


async def test_a_text_file_is_text_for_every_model(llm: QueryLLM, server: ScriptedServer, tmp_path: Any) -> None:
    (tmp_path / "notes.txt").write_text("Milk, bread")
    server.answer_json(CHAT.answer("Shopping."))
    await llm.query(knows(vision=False, pdf=False), prompt="What is this?", files=["notes.txt"])
    assert "Milk, bread" in json.dumps(server.request.json)


async def test_a_url_is_not_fetched_for_a_model_that_cannot_read_it(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False, takes_urls=())
    llm = QueryLLM(LLMConfig(environment={}, allow_private_urls=True))
    with pytest.raises(InvalidRequestError, match="read images"):
        await llm.query(knows(vision=False), prompt="?", images=[f"{server.url}/cat.png"])
    assert server.requests == []


# Options

OPTIONS = {
    "tools": ({"tools": [WEATHER]}, "tools", "call tools"),
    "functions": ({"functions": [WEATHER["function"]]}, "tools", "call tools"),
    "reasoning_effort": ({"reasoning_effort": "low"}, "reasoning", "reason by reasoning_effort"),
    "web_search_options": ({"web_search_options": {}}, "web_search", "search the web"),
    "modalities: audio": ({"modalities": ["text", "audio"]}, "audio_output", "speak"),
    "modalities: image": ({"modalities": ["text", "image"]}, "image_output", "make images"),
    "modalities: IMAGE": ({"modalities": ["IMAGE"]}, "image_output", "make images"),
}


@pytest.mark.parametrize(("arguments", "capability", "said"), OPTIONS.values(), ids=OPTIONS)
async def test_options_that_ask_for_it_are_refused_by_name(
    llm: QueryLLM, server: ScriptedServer, arguments: Any, capability: str, said: str
) -> None:
    model = knows(**{capability: False})
    for stream in (False, True):
        with pytest.raises(InvalidRequestError, match=f"acme/large is known not to {said}, so nothing was sent"):
            await llm.query(model, prompt="Hi", stream=stream, **arguments)
    with pytest.raises(InvalidRequestError, match=said):
        llm.plan(model, prompt="Hi", **arguments)
    with pytest.raises(InvalidRequestError, match=said):
        llm.stream(model, prompt="Hi", **arguments)
    assert server.requests == []


@pytest.mark.parametrize(("arguments", "capability", "said"), OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("known", [{}, {"vision": False}, None])
async def test_what_is_not_known_is_asked(
    llm: QueryLLM, server: ScriptedServer, arguments: Any, capability: str, said: str, known: Any
) -> None:
    server.answer_json(CHAT.answer("Hello"))
    model = knows(**(known if known is not None else {capability: True}))
    await llm.query(model, prompt="Hi", **arguments)
    name, value = next(iter(arguments.items()))
    assert server.request.json[name] == value


@pytest.mark.parametrize(("arguments", "capability", "said"), OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("by", ["call", "settings"])
async def test_options_can_be_dropped_and_the_receipt_says_so(
    server: ScriptedServer, llm: QueryLLM, arguments: Any, capability: str, said: str, by: str
) -> None:
    server.answer_json(CHAT.answer("Hello"))
    if by == "settings":
        llm = QueryLLM(LLMConfig(environment={}, on_unsupported="drop"))
    more = {"on_unsupported": "drop"} if by == "call" else {}
    answer = await llm.query(knows(**{capability: False}), prompt="Hi", temperature=0, **arguments, **more)
    assert answer.receipt.dropped == tuple(arguments)
    assert server.request.json == {"model": "large", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0}


async def test_what_means_nothing_without_a_dropped_option_goes_with_it(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(CHAT.answer("Hello"))
    answer = await llm.query(
        knows(tools=False, audio_output=False),
        prompt="Hi",
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "wav"},
        on_unsupported="drop",
    )
    assert set(answer.receipt.dropped) == {"tools", "tool_choice", "parallel_tool_calls", "modalities", "audio"}
    assert server.request.json.keys() == {"model", "messages"}


@pytest.mark.parametrize("arguments", [{"tools": []}, {"reasoning_effort": "none"}, {"reasoning_effort": None}, {"modalities": ["text"]}])
async def test_options_that_ask_for_nothing_are_none_of_it(llm: QueryLLM, server: ScriptedServer, arguments: Any) -> None:
    server.answer_json(CHAT.answer("Hello"))
    answer = await llm.query(knows(tools=False, reasoning=False, audio_output=False, image_output=False), prompt="Hi", **arguments)
    assert answer.receipt.dropped == ()


async def test_all_that_is_lacking_is_said_at_once(llm: QueryLLM) -> None:
    with pytest.raises(InvalidRequestError, match="known not to call tools or reason by reasoning_effort"):
        await llm.query(knows(tools=False, reasoning=False), prompt="Hi", tools=[WEATHER], reasoning_effort="low")


async def test_a_correction_holds_from_the_next_call_on(llm: QueryLLM, server: ScriptedServer) -> None:
    with pytest.raises(InvalidRequestError):
        await llm.query(knows(vision=False), prompt="?", images=[PNG])
    server.answer_json(CHAT.answer("A cat."))
    await llm.query(knows(vision=True), prompt="?", images=[PNG])
    assert len(server.requests) == 1


def test_every_option_of_the_table_is_tested() -> None:
    assert {name for arguments, _, _ in OPTIONS.values() for name in arguments} == {*_OPTIONS, "modalities"}


# Models of another kind


async def test_a_model_that_does_not_chat_is_not_asked_to(llm: QueryLLM, server: ScriptedServer) -> None:
    model = knows(chat=False, embedding=True)
    for stream in (False, True):
        with pytest.raises(InvalidRequestError, match="acme/large is known not to chat, so nothing was sent"):
            await llm.query(model, prompt="Hi", stream=stream)
    assert server.requests == []
    server.answer_vectors()
    assert len(await llm.embed(model, "Hi")) == 1


@pytest.mark.parametrize("makes", ["image_output", "audio_output", "speech"])
async def test_a_model_that_makes_something_else_is_asked_for_it(llm: QueryLLM, server: ScriptedServer, makes: str) -> None:
    server.answer_json(CHAT.answer("Here."))
    assert (await llm.query(knows(**{"chat": False, makes: True}), prompt="Hi")).content == "Here."


@pytest.mark.parametrize(
    ("method", "arguments", "capability", "said"),
    [
        ("embed", ("acme/large", "a"), "embedding", "make embeddings"),
        ("rerank", ("acme/large", "a", ["b"]), "rerank", "rerank"),
        ("moderate", ("a", "acme/large"), "moderation", "moderate"),
        ("speech", ("acme/large", "a"), "speech", "speak"),
    ],
)
async def test_an_operation_that_the_model_does_not_do(
    llm: QueryLLM, server: ScriptedServer, method: str, arguments: Any, capability: str, said: str
) -> None:
    knows(**{capability: False})
    with pytest.raises(InvalidRequestError, match=f"acme/large is known not to {said}, so nothing was sent"):
        await getattr(llm, method)(*arguments)
    assert server.requests == []


# Structured output: the way


@dataclasses.dataclass
class Place:
    city: str
    people: int


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
FITS = '{"city": "Rome", "people": 3000000}'
ROME = Place("Rome", 3_000_000)
CALL = ("call_1", "Place", json.loads(FITS))

WAYS = {
    "known to take schemas": ({"json_schema": True}, {}, "json_schema"),
    "nothing known": ({}, {}, "json_schema"),
    "the row's way": ({}, {"structured_output": "tool"}, "tool"),
    "the row's way: JSON mode": ({}, {"structured_output": "json_object"}, "json_object"),
    "the row's way: words": ({}, {"structured_output": "prompt"}, "prompt"),
    "the model knows better than its row": ({"json_schema": True}, {"structured_output": "prompt"}, "json_schema"),
    "no schemas but tools": ({"json_schema": False, "tools": True, "json_mode": True}, {}, "tool"),
    "no schemas but JSON mode": ({"json_schema": False, "json_mode": True}, {}, "json_object"),
    "no schemas, no tools, JSON mode": ({"json_schema": False, "tools": False, "json_mode": True}, {}, "json_object"),
    "none of it": ({"json_schema": False, "tools": False, "json_mode": False}, {}, "prompt"),
    "no schemas, nothing else known": ({"json_schema": False}, {}, "prompt"),
    "the row's way is a tool and the model has none": ({"tools": False}, {"structured_output": "tool"}, "prompt"),
    "the row's way is JSON mode and the model has none": ({"json_mode": False}, {"structured_output": "json_object"}, "prompt"),
}


def asked(body: Any) -> str:
    """By which way a request asks for a form."""
    if body.get("response_format", {}).get("type") == "json_schema":
        assert body["response_format"]["json_schema"]["schema"]["properties"].keys() == SCHEMA["properties"].keys()
        assert "tools" not in body and len(body["messages"]) == 1
        return "json_schema"
    if "tools" in body:
        assert body["tools"][-1]["function"]["name"] == body["tool_choice"]["function"]["name"] == "Place"
        assert body["tools"][-1]["function"]["parameters"]["required"] == ["city", "people"]
        return "tool"
    assert body["messages"][0]["role"] == "system" and "people" in body["messages"][0]["content"]
    if "response_format" in body:
        assert body["response_format"] == {"type": "json_object"}
        return "json_object"
    return "prompt"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("capabilities", "row", "way"), WAYS.values(), ids=WAYS)
async def test_the_way_and_what_the_receipt_says_of_it(server: ScriptedServer, capabilities: Any, row: Any, way: str, stream: bool) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False, **row)
    llm = QueryLLM(LLMConfig(environment={}))
    model = knows(**capabilities)
    if stream:
        halves = [FITS[:9], FITS[9:]]
        server.answer_sse(*(CHAT.stream(calls=[CALL]) if way == "tool" else CHAT.stream(*halves)))
        async with llm.stream(model, prompt="Where?", response_format=Place) as found:
            text = "".join([piece async for piece in found])
        answer = found.response
        assert json.loads(text) == json.loads(FITS) and text == answer.content
    else:
        server.answer_json(CHAT.answer(calls=[CALL]) if way == "tool" else CHAT.answer(FITS))
        answer = await llm.query(model, prompt="Where?", response_format=Place)
    assert asked(server.request.json) == way == answer.receipt.structured_output
    assert (answer.parsed, answer.tool_calls, answer.finish_reason) == (ROME, [], "stop")
    assert json.loads(answer.content) == json.loads(FITS)


@pytest.mark.parametrize("capabilities", [{"json_schema": False, "tools": True}, {"json_schema": False, "tools": True, "json_mode": True}])
async def test_with_the_users_own_tools_it_is_asked_in_words(llm: QueryLLM, server: ScriptedServer, capabilities: Any) -> None:
    server.answer_json(CHAT.answer(FITS))
    answer = await llm.query(knows(**capabilities), prompt="Where?", response_format=Place, tools=[WEATHER])
    assert answer.receipt.structured_output == "prompt" and answer.parsed == ROME
    assert [tool["function"]["name"] for tool in server.request.json["tools"]] == ["weather"]
    assert "tool_choice" not in server.request.json and "response_format" not in server.request.json


async def test_a_call_of_the_users_own_tool_is_an_answer(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(CHAT.answer(calls=[("call_1", "weather", {})]))
    answer = await llm.query(knows(json_schema=False), prompt="Where?", response_format=Place, tools=[WEATHER], repair=True)
    assert (answer.parsed, answer.tool_calls[0].name, len(server.requests)) == (None, "weather", 1)


async def test_just_json_by_json_mode_where_the_model_has_it(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(CHAT.answer('{"a": 1}'), times=2)
    for capabilities, way in (({"json_mode": True, "json_schema": False}, "json_object"), ({"json_mode": False}, "prompt")):
        answer = await llm.query(knows(**capabilities), prompt="JSON?", response_format={"type": "json_object"})
        assert (answer.parsed, answer.receipt.structured_output) == ({"a": 1}, way)


async def test_a_provider_that_cannot_stream_gives_the_tools_arguments_as_text(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False, structured_output="tool")
    ModelRegistry.register("acme/large", ModelConfig(supports_streaming=False))
    server.answer_json(CHAT.answer(calls=[CALL]))
    async with QueryLLM(LLMConfig(environment={})).stream("acme/large", prompt="Where?", response_format=Place) as stream:
        text = "".join([piece async for piece in stream])
    assert (json.loads(text), stream.response.parsed, stream.response.tool_calls) == (json.loads(FITS), ROME, [])


# Structured output: answers that do not fit

PRICED = ModelConfig(input_price_per_million=10_000, cached_input_price_per_million=10_000, output_price_per_million=20_000)
PROSE = "Rome, I should think. It is lovely in spring."
TOO_FEW = '{"city": "Rome"}'


async def test_prose_where_json_was_asked(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(CHAT.answer(PROSE))
    with pytest.raises(InvalidOutputError, match="Rome, I should think") as caught:
        await llm.query("acme/large", prompt="Where?", response_format=Place)
    error = caught.value
    assert error.response.content == PROSE and error.response.usage.total_tokens == 150
    assert error.receipt is error.response.receipt
    assert (error.provider, error.model, error.status) == ("acme", "large", 200)
    (attempt,) = error.receipt.attempts
    assert attempt.error.startswith("InvalidOutputError") and "repair=True" in attempt.then and attempt.status == 200
    assert "repair=True" in str(error)
    assert len(server.requests) == 1, "not asked again unless agreed"


@pytest.mark.parametrize("way", ["json_schema", "tool", "json_object", "prompt"])
async def test_repair_asks_exactly_once_more(server: ScriptedServer, way: str) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False, structured_output=way)
    ModelRegistry.register("acme/large", PRICED)
    server.answer_json(CHAT.answer(calls=[("c", "Place", {"city": "Rome"})]) if way == "tool" else CHAT.answer(TOO_FEW))
    server.answer_json(CHAT.answer(calls=[CALL]) if way == "tool" else CHAT.answer(FITS))
    answer = await QueryLLM(LLMConfig(environment={})).query("acme/large", prompt="Where?", response_format=Place, repair=True)
    assert answer.parsed == ROME
    first, second = server.requests
    assert asked(first.json) == way
    *before, said, question = second.json["messages"]
    assert before == first.json["messages"]
    assert said["role"] == "assistant" and json.loads(said["content"]) == json.loads(TOO_FEW)
    assert question["role"] == "user" and "people" in question["content"]
    assert {**second.json, "messages": None} == {**first.json, "messages": None}
    invalid, valid = answer.receipt.attempts
    assert invalid.error.startswith("InvalidOutputError") and invalid.then == "asked once more" and valid.error is None
    assert answer.cost == valid.cost == Decimal(2)
    assert answer.receipt.cost == 2 * answer.cost and answer.receipt.cost_state == "exact"


async def test_after_a_second_failure_it_is_an_error_that_holds_the_second_answer(llm: QueryLLM, server: ScriptedServer) -> None:
    ModelRegistry.register("acme/large", PRICED)
    server.answer_json(CHAT.answer(PROSE))
    server.answer_json(CHAT.answer(TOO_FEW))
    server.answer_json(CHAT.answer(FITS))
    with pytest.raises(InvalidOutputError, match="people") as caught:
        await llm.query("acme/large", prompt="Where?", response_format=Place, repair=True)
    assert len(server.requests) == 2
    assert caught.value.response.content == TOO_FEW
    assert "asked once more already" in str(caught.value) and "repair=True" not in str(caught.value)
    assert [attempt.then for attempt in caught.value.receipt.attempts] == ["asked once more", "raised: it was asked once more already"]
    assert caught.value.receipt.cost == 4


async def test_a_failure_that_may_pass_is_met_also_when_asking_once_more(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(CHAT.answer(PROSE))
    server.answer_json({"error": {"message": "Down."}}, status=503)
    server.answer_json(CHAT.answer(FITS))
    answer = await llm.query("acme/large", prompt="Where?", response_format=Place, repair=True)
    assert answer.parsed == ROME
    assert [attempt.status for attempt in answer.receipt.attempts] == [200, 503, 200]


async def test_a_failure_for_good_when_asking_once_more_keeps_the_first_cost(llm: QueryLLM, server: ScriptedServer) -> None:
    ModelRegistry.register("acme/large", PRICED)
    server.answer_json(CHAT.answer(PROSE))
    server.answer_json({"error": {"message": "Down."}}, status=503, times=None)
    with pytest.raises(ServerError) as caught:
        await llm.query("acme/large", prompt="Where?", response_format=Place, repair=True)
    assert caught.value.receipt.cost == 2


async def test_a_good_answer_is_not_asked_again(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(CHAT.answer(FITS))
    answer = await llm.query("acme/large", prompt="Where?", response_format=Place, repair=True)
    assert (answer.parsed, len(server.requests), len(answer.receipt.attempts)) == (ROME, 1, 1)


async def test_cut_off_is_said(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(CHAT.answer('{"city": "Ro', finish="length"))
    with pytest.raises(InvalidOutputError, match="cut off at max_tokens: give more") as caught:
        await llm.query("acme/large", prompt="Where?", response_format=Place, max_tokens=5)
    assert caught.value.response.finish_reason == "length"


@pytest.mark.parametrize(("arguments", "said"), [({}, "response_format"), ({"response_format": Place, "stream": True}, "stream")])
async def test_repair_where_it_cannot_be(llm: QueryLLM, server: ScriptedServer, arguments: Any, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"repair=True.*{said}"):
        await llm.query("acme/large", prompt="Where?", repair=True, **arguments)
    with pytest.raises(InvalidRequestError, match="repair"):
        llm.stream("acme/large", prompt="Where?", repair=True, response_format=Place)
    assert server.requests == []


async def test_invalid_output_of_a_stream_comes_after_its_text(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_sse(*CHAT.stream(PROSE[:5], PROSE[5:]))
    stream = llm.stream("acme/large", prompt="Where?", response_format=Place)
    text = ""
    with pytest.raises(InvalidOutputError) as caught:
        async for piece in stream:
            text += piece
    assert text == PROSE == stream.response.content
    assert caught.value.response is stream.response and caught.value.receipt is stream.response.receipt
    assert stream.response.usage.total_tokens == 150
    assert stream.response.receipt.attempts[0].error.startswith("InvalidOutputError")
    assert [piece async for piece in stream] == []


@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("way", ["json_schema", "tool"])
async def test_invalid_output_of_what_cannot_stream_comes_after_its_text_too(server: ScriptedServer, way: str, events: bool) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False, structured_output=way)
    ModelRegistry.register("acme/large", attrs.evolve(PRICED, supports_streaming=False))
    server.answer_json(CHAT.answer(PROSE))
    stream = QueryLLM(LLMConfig(environment={})).stream("acme/large", prompt="Where?", response_format=Place)
    seen = []
    with pytest.raises(InvalidOutputError) as caught:
        async for piece in stream.events() if events else stream:
            seen.append(piece if isinstance(piece, str) else piece.text)
    assert seen == [PROSE]
    assert stream.response.content == caught.value.response.content == PROSE
    assert caught.value.receipt.cost == stream.response.cost == 2


async def test_a_users_own_provider_is_asked_in_its_rows_way() -> None:
    class Own(BaseLLMProvider):
        async def generate(self, messages, model, **options):
            seen.append((list(messages), options))
            return LLMResponse(FITS, "own-1", Usage(1, 1))

    seen: list[Any] = []
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=Own, requires_key=False, structured_output="prompt")
    answer = await QueryLLM(LLMConfig(environment={})).query("acme/large", prompt="Where?", response_format=Place)
    assert answer.parsed == ROME
    assert seen[0][1] == {} and seen[0][0][0]["role"] == "system"
