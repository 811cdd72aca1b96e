"""What Anthropic really answered, served again over real HTTP; and what it was really asked, said in our messages.

The reader and the converter at the end of this file are written from the format alone and share nothing with the library.
The recordings are not part of the project; where their folder is absent, this is skipped.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from servers.scripted import ScriptedServer

import llm_master
from llm_master import InvalidOutputError, LLMResponse, QueryLLM
from llm_master.testing import FakeClock

WIRE = Path(__file__).resolve().parents[2] / "shared" / "wire" / "anthropic.jsonl"
KEY = "sk-ant-recorded-0123456789"
NOTHING = {"type": "message", "model": "m", "content": [], "stop_reason": "end_turn", "stop_sequence": None, "usage": {}}

if not WIRE.is_file():
    pytest.skip("the recordings are not here", allow_module_level=True)


def _recordings() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for line in WIRE.read_text("utf-8").splitlines():
        recording = json.loads(line)
        if "/v1/messages" not in recording["url"]:
            continue
        name = recording["id"]
        while name in found:
            name += "'"
        found[name] = recording
    return found


RECORDINGS = _recordings()


def _has_native(request: dict[str, Any]) -> bool:
    return any(
        block["type"] not in ("text", "tool_use")
        for message in request["messages"]
        if message["role"] == "assistant" and isinstance(message["content"], list)
        for block in message["content"]
    )


def _of(kind: str) -> list[Any]:
    return [
        pytest.param(recording, id=name)
        for name, recording in RECORDINGS.items()
        if kind == ("error" if recording["status"] >= 400 else "whole" if recording["response"] is not None else "stream")
    ]


def _of_each_shape() -> list[Any]:
    """Of the whole answers that hold the same kinds of blocks, one."""
    shapes: dict[Any, Any] = {}
    for name, recording in RECORDINGS.items():
        if recording["status"] < 400 and recording["response"] is not None:
            answer = recording["response"]
            details = [(block["type"], *sorted(key for key, value in block.items() if value)) for block in answer["content"]]
            shapes.setdefault(f"{details} {answer['stop_reason']}", pytest.param(recording, id=name))
    return list(shapes.values())


def _asked(*, native: bool = False) -> list[Any]:
    return [
        pytest.param(recording, id=name)
        for name, recording in RECORDINGS.items()
        if recording["url"].partition("?")[0].endswith("/messages") and (not native or _has_native(recording["request"]))
    ]


def test_there_are_recordings_of_every_kind() -> None:
    assert len(_of("whole")) > 100 and len(_of("stream")) > 8 and len(_of("error")) > 0 and len(_asked(native=True)) > 8


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto_advance=True)


@pytest.fixture
def llm(clock: FakeClock, server: ScriptedServer) -> QueryLLM:
    return QueryLLM(anthropic_api_base=server.base_url, anthropic_api_key=KEY, clock=clock)


# Answers


@pytest.mark.parametrize("recording", _of("whole"))
async def test_whole_answer(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any]) -> None:
    server.answer(json.dumps(recording["response"]), headers=recording["headers"])
    answer = await llm.query(_model(recording), prompt="hi")
    _compare(answer, _read(recording["response"]))
    assert answer.raw == recording["response"]
    assert answer.receipt.attempts[0].model_served == recording["response"]["model"]


@pytest.mark.parametrize("split", [False, True], ids=["at once", "in pieces"])
@pytest.mark.parametrize("recording", _of("stream"))
async def test_stream(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any], split: bool) -> None:
    text = recording["response_text"].encode()
    server.answer_sse(*(_awkward_pieces(text) if split else [text]), headers=recording["headers"])
    await _compare_stream(llm, recording, _assembled(recording["response_text"]))


@pytest.mark.parametrize("recording", _of_each_shape())
async def test_a_whole_answer_streamed_is_the_same(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any]) -> None:
    server.answer_sse(_streamed(recording["response"]))
    await _compare_stream(llm, recording, recording["response"])


@pytest.mark.parametrize("recording", _of("stream"))
async def test_a_streamed_answer_whole_is_the_same(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any]) -> None:
    message = _assembled(recording["response_text"])
    server.answer_json(message)
    _compare(await llm.query(_model(recording), prompt="hi"), _read(message))


@pytest.mark.parametrize("recording", _of("error"))
async def test_error(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any]) -> None:
    server.answer(json.dumps(recording["response"]), status=recording["status"], headers=recording["headers"])
    with pytest.raises(llm_master.ProviderError) as caught:
        await llm.query(_model(recording), prompt="hi")
    error = recording["response"]["error"]
    assert type(caught.value).__name__ == {404: "ModelNotFoundError"}[recording["status"]]
    assert (caught.value.status, caught.value.provider, caught.value.code) == (recording["status"], "anthropic", error["type"])
    assert error["message"] in str(caught.value)
    assert KEY not in f"{caught.value!r} {caught.value.receipt!r}"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("recording", [*_of_each_shape(), *_of("stream")])
async def test_an_answer_goes_back_as_it_came(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any], streamed: bool) -> None:
    message = recording["response"] or _assembled(recording["response_text"])
    if streamed:
        server.answer_sse(recording.get("response_text") or _streamed(message))
        async with llm.stream(_model(recording), prompt="hi") as stream:
            async for _ in stream:
                pass
        answer = stream.response
    else:
        server.answer_json(message)
        answer = await llm.query(_model(recording), prompt="hi")
    server.answer_json(message)
    results = [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in answer.tool_calls]
    await llm.query(_model(recording), [{"role": "user", "content": "hi"}, answer.message, *results, {"role": "user", "content": "and?"}])
    turns = server.requests[-1].json["messages"]
    assert turns[1]["role"] == "assistant"
    assert _normal(turns[1]["content"]) == _normal(message["content"])


# Requests


@pytest.mark.parametrize("recording", _asked())
async def test_request(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any]) -> None:
    """Said in OpenAI's form, with Anthropic's own blocks of an assistant under ``_native``."""
    await _ask(llm, server, recording, native_in_content=False)


@pytest.mark.parametrize("recording", _asked(native=True))
async def test_request_with_native_blocks_in_the_content(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any]) -> None:
    await _ask(llm, server, recording, native_in_content=True)


async def _ask(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any], *, native_in_content: bool) -> None:
    recorded = recording["request"]
    messages, options = _said(recorded, native_in_content=native_in_content)
    before = json.dumps([messages, options])
    if recorded.get("stream"):
        server.answer_sse(_streamed(NOTHING))
        await llm.stream(_model(recording), messages, **options).connect()
    else:
        server.answer_json(NOTHING)
        with contextlib.suppress(InvalidOutputError):  # where a form was asked for, nothing is not of it
            await llm.query(_model(recording), messages, **options)
    request = server.request
    assert _normal_request(request.json) == _normal_request(recorded)
    assert (request.method, request.path) == ("POST", "/v1/messages")
    assert request.headers["x-api-key"] == KEY and request.headers["anthropic-version"] == "2023-06-01"
    assert json.dumps([messages, options]) == before, "the caller's messages were changed"


def _model(recording: dict[str, Any]) -> str:
    return f"anthropic/{recording['request']['model']}"


async def _compare_stream(llm: QueryLLM, recording: dict[str, Any], message: dict[str, Any]) -> None:
    expected = _read(message)
    text = ""
    async with llm.stream(_model(recording), prompt="hi") as stream:
        async for piece in stream:
            text += piece
    assert text == expected.content
    _compare(stream.response, expected)
    assert stream.response.receipt.attempts[0].model_served == message["model"]


def _compare(answer: LLMResponse, expected: Expected) -> None:
    assert answer.content == expected.content
    assert answer.reasoning == expected.reasoning
    assert [(call.id, call.name, call.arguments, call.error) for call in answer.tool_calls] == [
        (*call, None) for call in expected.tool_calls
    ]
    assert answer.finish_reason == expected.finish_reason
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens) == (expected.input, expected.output)
    assert (usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (expected.cached, expected.written, expected.thought)
    assert (usage.web_searches or 0, usage.cache_write_1h_tokens or 0) == (expected.searches, expected.written_1h)
    assert [
        (citation.raw, citation.url, citation.title, citation.text, answer.content[citation.start : citation.end])
        for citation in answer.citations
    ] == expected.citations


def _awkward_pieces(text: bytes) -> list[bytes]:
    """Cut inside characters, between the line ends that part two events, inside ``data:``, and here and there."""
    cuts = {1, 2, 7, len(text) - 1, *range(997, len(text), 997)}
    inside = [place for place in range(1, len(text)) if text[place] & 0xC0 == 0x80]
    ends = [place + 1 for place in range(len(text)) if text.startswith(b"\n\n", place)]
    cuts |= {*inside[:8], *ends[:6], *(end + 3 for end in ends[6:10])}
    places = [0, *sorted(cut for cut in cuts if 0 < cut < len(text)), len(text)]
    return [text[start:end] for start, end in zip(places, places[1:], strict=False)]


# The reader: https://docs.anthropic.com/en/api/messages, said as plainly as possible.


class Expected(NamedTuple):
    content: str
    reasoning: str | None
    tool_calls: list[tuple[str, str, dict[str, Any]]]
    finish_reason: str | None
    input: int
    output: int
    cached: int | None
    written: int | None
    written_1h: int
    thought: int | None
    searches: int
    citations: list[Any]


def _read(message: dict[str, Any]) -> Expected:
    blocks = message["content"]
    usage = message["usage"]
    reasons = {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "tool_use": "tool_calls",
        "max_tokens": "length",
        "refusal": "content_filter",
    }
    return Expected(
        "".join(block["text"] for block in blocks if block["type"] == "text"),
        "".join(block["thinking"] for block in blocks if block["type"] == "thinking") or None,
        [(block["id"], block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"],
        reasons.get(message["stop_reason"], message["stop_reason"]),
        usage["input_tokens"] + (usage.get("cache_read_input_tokens") or 0) + (usage.get("cache_creation_input_tokens") or 0),
        usage["output_tokens"],
        usage.get("cache_read_input_tokens"),
        usage.get("cache_creation_input_tokens"),
        (usage.get("cache_creation") or {}).get("ephemeral_1h_input_tokens", 0),
        (usage.get("output_tokens_details") or {}).get("thinking_tokens"),
        (usage.get("server_tool_use") or {}).get("web_search_requests", 0),
        [
            (note, note.get("url"), note.get("title", note.get("document_title")), note["cited_text"], block["text"])
            for block in blocks
            if block["type"] == "text"
            for note in block.get("citations") or []
        ],
    )


def _assembled(text: str) -> dict[str, Any]:
    """The message that a stream's events make."""
    message: dict[str, Any] = {}
    inputs: dict[int, str] = {}
    for line in text.splitlines():
        if not line.startswith("data:"):
            continue
        event = json.loads(line[5:])
        if event["type"] == "message_start":
            message = event["message"]
        elif event["type"] == "content_block_start":
            assert event["index"] == len(message["content"])
            message["content"].append(event["content_block"])
        elif event["type"] == "content_block_delta":
            block, delta = message["content"][event["index"]], event["delta"]
            if delta["type"] == "input_json_delta":
                inputs[event["index"]] = inputs.get(event["index"], "") + delta["partial_json"]
            elif delta["type"] == "citations_delta":
                block["citations"] = [*(block.get("citations") or []), delta["citation"]]
            else:
                field = delta["type"].removesuffix("_delta")
                block[field] = block.get(field, "") + delta[field]
        elif event["type"] == "message_delta":
            message |= event["delta"]
            message["usage"] |= event["usage"]
    for index, written in inputs.items():
        if written:
            message["content"][index]["input"] = json.loads(written)
    return message


def _streamed(message: dict[str, Any]) -> str:
    """The events of a stream that make this message."""
    usage = {**message["usage"], "output_tokens": 1, "output_tokens_details": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None, "usage": usage}},
        {"type": "ping"},
    ]
    for index, block in enumerate(message["content"]):
        kind = block["type"]
        deltas: list[dict[str, Any]] = []
        begun = block
        if kind == "text":
            half = len(block["text"]) // 2
            begun = {"type": "text", "text": ""} | ({"citations": []} if block.get("citations") else {})
            deltas = [{"type": "citations_delta", "citation": note} for note in block.get("citations") or []]
            deltas += [{"type": "text_delta", "text": text} for text in (block["text"][:half], block["text"][half:])]
        elif kind == "thinking":
            half = len(block["thinking"]) // 2
            begun = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": text} for text in (block["thinking"][:half], block["thinking"][half:])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        elif "input" in block:
            begun = {**block, "input": {}}
            text = json.dumps(block["input"]) if block["input"] else ""
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in ("", text[:5], text[5:])]
        events.append({"type": "content_block_start", "index": index, "content_block": begun})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    events.append({"type": "message_delta", "delta": delta, "usage": message["usage"]})
    events.append({"type": "message_stop"})
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)


# The converter: a recorded request in OpenAI's words, and in Anthropic's own where OpenAI has none.


def _said(request: dict[str, Any], *, native_in_content: bool) -> tuple[list[Any], dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if system := request.get("system"):
        messages.append({"role": "system", "content": system})  # text, or text parts, which both APIs write alike
    for turn in request["messages"]:
        blocks = [{"type": "text", "text": turn["content"]}] if isinstance(turn["content"], str) else turn["content"]
        if turn["role"] == "assistant":
            messages.append(_assistant(blocks, native_in_content=native_in_content))
            continue
        others = [_part(block) for block in blocks if block["type"] != "tool_result"]
        messages += [_result(block) for block in blocks if block["type"] == "tool_result"]
        if others:
            messages.append({"role": turn["role"], "content": _plain(others)})
    return messages, _options(request)


def _plain(parts: list[dict[str, Any]]) -> Any:
    return parts[0]["text"] if len(parts) == 1 and parts[0].keys() == {"type", "text"} else parts


def _part(block: dict[str, Any]) -> dict[str, Any]:
    source = block.get("source", {})
    rest = {"cache_control": block["cache_control"]} if block.get("cache_control") else {}
    if block["type"] == "image" and source["type"] in ("url", "base64"):
        url = source["url"] if source["type"] == "url" else f"data:{source['media_type']};base64,{source['data']}"
        return {"type": "image_url", "image_url": {"url": url}, **rest}
    if block["type"] == "document" and source["type"] == "base64":
        return {"type": "file", "file": {"file_data": f"data:{source['media_type']};base64,{source['data']}"}, **rest}
    if block["type"] == "document" and source["type"] == "file":
        return {"type": "file", "file": {"file_id": source["file_id"]}, **rest}
    return block  # text is written alike; anything else only Anthropic has


def _result(block: dict[str, Any]) -> dict[str, Any]:
    content = block.get("content")
    message = {"role": "tool", "tool_call_id": block["tool_use_id"], "content": content}
    if isinstance(content, list):
        message["content"] = _plain([_part(part) for part in content]) if content else ""
    return message | {key: block[key] for key in ("is_error", "cache_control") if block.get(key)}


def _assistant(blocks: list[dict[str, Any]], *, native_in_content: bool) -> dict[str, Any]:
    calls = [
        {"id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": json.dumps(block["input"])}}
        for block in blocks
        if block["type"] == "tool_use"
    ]
    message: dict[str, Any] = {"role": "assistant"}
    others = [block for block in blocks if block["type"] != "tool_use"]
    if any(block["type"] != "text" for block in others):
        if native_in_content:
            message["content"] = others
        else:
            message["content"] = "".join(block["text"] for block in blocks if block["type"] == "text") or None
            message["_native"] = {"format": "anthropic", "content": blocks}
    else:
        message["content"] = _plain(others) if others else None
    if calls:
        message["tool_calls"] = calls
    return message


def _options(request: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in request.items():
        if value is None or name in ("model", "messages", "system", "stream"):
            continue
        if name == "stop_sequences":
            options["stop"] = value
        elif name == "metadata":
            options["user"] = value["user_id"]
        elif name == "tools":
            options["tools"] = [_tool(tool) for tool in value]
        elif name == "tool_choice":
            choices = {"auto": "auto", "any": "required", "none": "none"}
            options["tool_choice"] = choices.get(value["type"]) or {"type": "function", "function": {"name": value["name"]}}
            if "disable_parallel_tool_use" in value:
                options["parallel_tool_calls"] = not value["disable_parallel_tool_use"]
        elif name == "output_config":
            if value.get("format"):
                schema = {"name": "answer", "schema": value["format"]["schema"], "strict": True}
                options["response_format"] = {"type": "json_schema", "json_schema": schema}
            if rest := {key: inner for key, inner in value.items() if key != "format"}:
                options["output_config"] = rest
        else:
            options[name] = value
    return options


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if "input_schema" not in tool:
        return tool
    own = ("name", "description", "input_schema", "strict", "type")
    function = {"name": tool["name"], "description": tool.get("description") or "", "parameters": tool["input_schema"]}
    if tool.get("strict"):
        function["strict"] = True
    return {"type": "function", "function": function, **{key: value for key, value in tool.items() if key not in own}}


# Two ways to say the same


def _normal_request(body: dict[str, Any]) -> dict[str, Any]:
    body = dict(body)
    if not body.get("stream"):
        body.pop("stream", None)
    if isinstance(body.get("system"), str):
        body["system"] = [{"type": "text", "text": body["system"]}]
    turns: list[dict[str, Any]] = []
    for turn in body["messages"]:
        content = turn["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if turns and turns[-1]["role"] == turn["role"] == "user":
            # The API reads user turns that follow each other as one.
            turns[-1] = {"role": "user", "content": turns[-1]["content"] + blocks}
        else:
            turns.append({"role": turn["role"], "content": blocks})
    body["messages"] = turns
    for tool in body.get("tools", ()):
        assert "function" not in tool, "a tool in OpenAI's form"
    normal = _normal(body)
    assert isinstance(normal, dict)
    return normal


def _normal(value: Any) -> Any:
    """Without what says nothing: null, an empty description, what holds unless another is said."""
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if not isinstance(value, dict):
        return value
    normal = {key: _normal(inner) if key not in ("input", "input_schema", "schema") else inner for key, inner in value.items()}
    if normal.get("type") in ("tool_result", "mcp_tool_result") and isinstance(normal.get("content"), str):
        normal["content"] = [{"type": "text", "text": normal["content"]}] if normal["content"] else []
    for key, neutral in (("description", ""), ("is_error", False), ("citations", []), ("caller", {"type": "direct"}), ("content", [])):
        if key in normal and normal[key] == neutral:
            del normal[key]
    return {key: inner for key, inner in normal.items() if inner is not None}
