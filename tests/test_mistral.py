"""Mistral: contents of chunks, both ways; its ids; its words.

Sources: https://docs.mistral.ai/api/#tag/chat, https://docs.mistral.ai/capabilities/reasoning,
https://docs.mistral.ai/capabilities/document_ai/document_qna, https://docs.mistral.ai/capabilities/audio_transcription
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.format_chat_kin import MISTRAL
from servers.formats import CHAT
from servers.media import PNG
from servers.scripted import ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    ContextWindowExceededError,
    InvalidRequestError,
    LLMConfig,
    LLMResponse,
    ProviderError,
    QueryLLM,
    RateLimitError,
    ReasoningDelta,
    ServerError,
    StreamInterruptedError,
)
from llm_master.providers.mistral import MistralProvider, call_id
from llm_master.testing import FakeClock

MODEL = "mistral/mistral-small-latest"
HI = {"role": "user", "content": "hi"}
KEY = "key-0123456789"
THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "Is it 4? Yes."}]}
SIGNED = {**THOUGHT, "signature": "c2lnbmVk", "closed": True}
REFERENCE = {"type": "reference", "reference_ids": [0, "doc-2"]}
PAGE = {"type": "tool_reference", "tool": "web_search", "title": "Sums", "url": "https://example.com/4", "description": "2 + 2"}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def answer(content: Any, **fields: Any) -> dict[str, Any]:
    whole: dict[str, Any] = CHAT.answer("x")
    whole["choices"][0]["message"] = {"role": "assistant", "content": content, "tool_calls": None}
    return {**whole, **fields}


def chunk(content: Any, finish: str | None = None) -> str:
    choice = {"index": 0, "delta": {"role": "assistant", "content": content}, "finish_reason": finish}
    return f"data: {json.dumps({'id': '1', 'object': 'chat.completion.chunk', 'model': 'served-1', 'choices': [choice]})}\n\n"


@pytest.fixture
def llm(server: ScriptedServer) -> QueryLLM:
    names = ("mistral", "openai", "anthropic")
    environment = {f"{name.upper()}_API_BASE": server.base_url for name in names} | {f"{name.upper()}_API_KEY": KEY for name in names}
    return QueryLLM(LLMConfig(environment=environment, clock=FakeClock(auto_advance=True)))


async def streamed(llm: QueryLLM, *arguments: Any, **options: Any) -> tuple[LLMResponse, list[Any]]:
    events = []
    async with llm.stream(*arguments, **options) as stream:
        async for event in stream.events():
            events.append(event)
    return stream.response, events


async def sent(llm: QueryLLM, server: ScriptedServer, *messages: Any, model: str = MODEL, **options: Any) -> Any:
    server.answer_json(answer("ok"))
    await llm.query(model, list(messages), **options)
    request = server.requests[-1]
    MISTRAL.read(request.path, request.json)
    return request.json


# Answers


async def test_thoughts_are_the_reasoning_and_go_back_as_they_came(llm: QueryLLM, server: ScriptedServer) -> None:
    content = [SIGNED, text("It is 4."), REFERENCE, text(" For sure.")]
    server.answer_json(answer(content))
    said = await llm.query(MODEL, prompt="2 + 2?")
    assert (said.content, said.reasoning) == ("It is 4. For sure.", "Is it 4? Yes.")
    body = await sent(llm, server, HI, json.loads(json.dumps(said.message)), {"role": "user", "content": "Why?"})
    assert body["messages"][1] == {"role": "assistant", "content": content}


async def test_a_stream_of_chunks_is_put_together(llm: QueryLLM, server: ScriptedServer) -> None:
    def think(said: str, **fields: Any) -> str:
        return chunk([{"type": "thinking", "thinking": [text(said)], **fields}])

    server.answer_sse(
        *(chunk(""), think("Is it"), think(" 4?"), think(" Yes.", signature="c2lnbmVk", closed=True), chunk([text("It ")])),
        *(chunk("is "), chunk("4."), chunk([REFERENCE]), chunk(" For"), chunk([text(" sure.")]), chunk("", "stop"), "data: [DONE]\n\n"),
    )
    said, events = await streamed(llm, MODEL, prompt="2 + 2?")
    assert [event.text for event in events if isinstance(event, ReasoningDelta)] == ["Is it", " 4?", " Yes."]
    assert (said.content, said.reasoning) == ("It is 4. For sure.", "Is it 4? Yes.")
    assert [note.title for note in said.citations] == ["0", "doc-2"]
    body = await sent(llm, server, HI, said.message, HI)
    assert body["messages"][1]["content"] == [SIGNED, text("It is 4."), REFERENCE, text(" For sure.")]


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.one_of(st.text(min_size=1, max_size=9).map(text), st.sampled_from([REFERENCE, PAGE])), max_size=5),
    st.text(min_size=1, max_size=12),
    st.booleans(),
    st.integers(1, 4),
)
def test_streamed_or_whole_an_answer_keeps_the_same(parts: list[Any], thought: str, as_text: bool, cut: int) -> None:
    first = {"type": "thinking", "thinking": [text(thought)]}
    content: list[Any] = [first]
    for part in parts:  # the API does not part a text in two
        if part["type"] == "text" and content[-1]["type"] == "text":
            content[-1] = text(content[-1]["text"] + part["text"])
        else:
            content.append(part)
    provider = MistralProvider(PROVIDER_CONFIGS["mistral"])
    whole = provider.read_answer(json.dumps(answer(content)).encode(), status=200, request_id=None, model="m")
    reader = provider.reader("m", 200, None)
    pieces = []
    for part in content:
        kind = part["type"]
        if kind not in ("text", "thinking"):
            pieces.append([part])
            continue
        said = part["text"] if kind == "text" else part["thinking"][0]["text"]
        for at in range(0, len(said), cut):
            piece = said[at : at + cut]
            pieces.append([{"type": kind, "thinking": [text(piece)]}] if kind == "thinking" else piece if as_text else [text(piece)])
    found = reader.read([chunk(piece)[6:].strip().encode() for piece in pieces] + [chunk("", "stop")[6:].strip().encode()])
    end = reader.end()
    assert "".join(event for event in found if isinstance(event, str)) == whole.content
    assert "".join(event.text for event in found if isinstance(event, ReasoningDelta)) == whole.reasoning == thought
    assert (end.native, end.citations) == (whole.native, whole.citations)
    assert whole.native is not None and whole.native["fields"]["content"] == content


async def test_a_text_in_parts_needs_no_native_form(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(answer([text("It is"), text(" 4.")]))
    said = await llm.query(MODEL, prompt="2 + 2?")
    assert (said.content, said.native) == ("It is 4.", None)


async def test_references_are_citations(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(answer([text("It is 4."), REFERENCE, PAGE, {"type": "reference", "reference_ids": None}, {"type": "new"}, None]))
    said = await llm.query(MODEL, prompt="2 + 2?")
    assert [(note.url, note.title, note.text, note.raw) for note in said.citations] == [
        (None, "0", None, REFERENCE),
        (None, "doc-2", None, REFERENCE),
        ("https://example.com/4", "Sums", "2 + 2", PAGE),
    ]


async def test_audio_is_billed_by_the_second_so_its_tokens_are_no_cost(llm: QueryLLM, server: ScriptedServer) -> None:
    heard = {"prompt_tokens": 400, "completion_tokens": 10, "total_tokens": 410, "prompt_audio_seconds": 30}
    server.answer_json(answer("A bell.", usage=heard))
    said = await llm.query(MODEL, prompt="What is it?")
    assert (said.usage.input_tokens, said.cost) == (400, None)


@pytest.mark.parametrize("how", ["whole", "streamed"])
async def test_an_answer_that_it_gave_up_is_an_error(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    if how == "whole":
        broken = answer("It is")
        broken["choices"][0]["finish_reason"] = "error"
        server.answer_json(broken, times=None)
        with pytest.raises(ServerError, match="gave up"):
            await llm.query(MODEL, prompt="2 + 2?")
    else:
        server.answer_sse(chunk("It is"), chunk("", "error"), "data: [DONE]\n\n", times=None)
        with pytest.raises(StreamInterruptedError, match="gave up") as caught:
            await streamed(llm, MODEL, prompt="2 + 2?")
        assert caught.value.response.content == "It is"


# Requests


@pytest.mark.parametrize("id", ["call_PTLP8xhu3uwZk4l3nlnrrJha", "toolu_01", "fc-1", "", "6SmIVvgTb"])
def test_ids_of_calls(id: str) -> None:
    made = call_id(id)
    assert len(made) == 9 and made.isalnum() and made.isascii()
    assert call_id(made) == made and call_id(id) == made
    assert (made == id) is (id == "6SmIVvgTb")
    assert call_id(None) is None


async def test_a_conversation_begun_elsewhere_goes_on(llm: QueryLLM, server: ScriptedServer) -> None:
    calls = [("call_PTLP8xhu3uwZk4l3", "get_weather", {"city": "Rome"}), ("call_2", "get_time", {})]
    server.answer_json(CHAT.answer("", calls))
    first = await llm.query("openai/gpt-4.1", prompt="hi")
    results = [{"role": "tool", "tool_call_id": call.id, "content": call.name} for call in first.tool_calls]
    body = await sent(llm, server, {"role": "developer", "content": "Be brief."}, HI, first.message, *results)
    said = MISTRAL.read("/v1/chat/completions", body)
    assert said.results == {"get_weather": "get_weather", "get_time": "get_time"} and said.system == "Be brief."
    # And back: what only Mistral understands is sent to nobody else.
    server.answer_json(answer([THOUGHT, text("18 °C.")]))
    second = await llm.query(MODEL, [HI, first.message, *results])
    server.answer_json(CHAT.answer("ok"))
    await llm.query("openai/gpt-4.1", [HI, first.message, *results, second.message, HI])
    CHAT.read("/v1/chat/completions", server.requests[-1].json)
    assert server.requests[-1].json["messages"][-2] == {"role": "assistant", "content": "18 °C."}


async def test_documents_images_and_recordings(llm: QueryLLM, server: ScriptedServer) -> None:
    pdf = "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.4\n").decode()
    wav = base64.b64encode(b"RIFF\0\0\0\0WAVEfmt ").decode()
    parts = [
        {"type": "file", "file": {"file_data": pdf, "filename": "a.pdf"}},
        {"type": "file", "file": {"file_id": "c0ffee"}},
        {"type": "file", "url": "https://example.com/b.pdf"},
        {"type": "document_url", "document_url": "https://example.com/c.pdf"},
        {"type": "input_audio", "input_audio": {"data": wav, "format": "wav"}},
        {"type": "audio", "url": "https://example.com/d.mp3"},
        {"type": "image_url", "image_url": {"url": "https://example.com/e.png"}},
        {"type": "image", "image": PNG},
    ]
    body = await sent(llm, server, {"role": "user", "content": parts})
    assert body["messages"][0]["content"] == [
        {"type": "document_url", "document_url": pdf, "document_name": "a.pdf"},
        {"type": "file", "file_id": "c0ffee"},
        {"type": "document_url", "document_url": "https://example.com/b.pdf", "document_name": "b.pdf"},
        {"type": "document_url", "document_url": "https://example.com/c.pdf"},
        {"type": "input_audio", "input_audio": wav},
        {"type": "input_audio", "input_audio": "https://example.com/d.mp3"},
        {"type": "image_url", "image_url": {"url": "https://example.com/e.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(PNG).decode()}},
    ]


async def test_its_own_options_and_messages(llm: QueryLLM, server: ScriptedServer) -> None:
    own = {"safe_prompt": True, "prompt_mode": "reasoning", "reasoning_effort": "high", "guardrails": [{"block_on_error": True}]}
    own |= {"prediction": {"type": "content", "content": "It"}, "tool_choice": "any", "prompt_cache_key": "k"}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    prefix = {"role": "assistant", "content": "It", "prefix": True}
    body = await sent(llm, server, HI, prefix, seed=7, max_completion_tokens=50, tools=tools, **own)
    assert body == {
        **{"model": "mistral-small-latest", "messages": [HI, prefix], "random_seed": 7, "max_tokens": 50, "tools": tools},
        **own,
    }


async def test_what_the_caller_gave_is_not_changed(llm: QueryLLM, server: ScriptedServer) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        HI,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "x"},
    ]
    before = json.dumps(messages)
    await sent(llm, server, *messages)
    assert json.dumps(messages) == before


# Errors


@pytest.mark.parametrize(
    ("status", "body", "expected", "said"),
    [
        (401, {"message": "Unauthorized", "request_id": "r"}, AuthenticationError, "Unauthorized"),
        (401, {"detail": "Unauthorized"}, AuthenticationError, "Unauthorized"),
        (
            422,
            {
                "object": "error",
                "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "top_k"], "msg": "Extra inputs are not permitted"}]},
                "type": "invalid_request_error",
                "code": None,
            },
            InvalidRequestError,
            "body.top_k: Extra inputs are not permitted",
        ),
        (422, {"detail": [{"loc": ["body", "model"], "msg": "Field required"}]}, InvalidRequestError, "body.model: Field required"),
        (
            400,
            {"object": "error", "message": "Prompt contains 40000 tokens, too many tokens for the model.", "code": "3051"},
            ContextWindowExceededError,
            "40000 tokens",
        ),
        (
            429,
            {"object": "error", "message": "Service tier capacity exceeded for this model.", "code": "3505", "raw_status_code": 429},
            RateLimitError,
            "capacity exceeded",
        ),
    ],
)
async def test_errors(llm: QueryLLM, server: ScriptedServer, status: int, body: Any, expected: type[ProviderError], said: str) -> None:
    server.answer_json(body, status=status, times=None)
    with pytest.raises(expected, match=said) as caught:
        await llm.query(MODEL, prompt="hi")
    assert caught.value.status == status
