"""What servers of the Responses API really answered, served again over real HTTP; and what they were really asked, said in our messages.

The reader and the converter at the end of this file are written from the format alone and share nothing with the library.
The recordings are not part of the project; where their folder is absent, this is skipped.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from servers.scripted import ScriptedServer

import llm_master
from llm_master import PROVIDER_CONFIGS, InvalidOutputError, LLMResponse, ProviderConfig, QueryLLM
from llm_master.providers.responses import ResponsesProvider
from llm_master.testing import FakeClock

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "wire"
FILES = [FOLDER / f"{name}.jsonl" for name in ("openai", "deepseek", "ollama")]
KEY = "sk-recorded-0123456789"
NOTHING = {"id": "resp_1", "object": "response", "status": "completed", "model": "m", "output": []}

if not all(file.is_file() for file in FILES):
    pytest.skip("the recordings are not here", allow_module_level=True)


def _recordings() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for file in FILES:
        for line in file.read_text("utf-8").splitlines():
            recording = json.loads(line)
            if "/responses" not in recording["url"]:
                continue
            name = recording["id"]
            while name in found:
                name += "'"
            found[name] = recording
    return found


RECORDINGS = _recordings()


def _kind(recording: dict[str, Any]) -> str:
    path = urlsplit(recording["url"]).path
    if not path.endswith("/responses"):
        return path.rpartition("/")[2]
    return "error" if recording["status"] >= 400 else "whole" if recording["response"] is not None else "stream"


def _of(*kinds: str) -> list[Any]:
    return [pytest.param(recording, id=name) for name, recording in RECORDINGS.items() if _kind(recording) in kinds]


def _of_each_shape() -> list[Any]:
    """Of the whole answers that hold the same kinds of items, one."""
    shapes: dict[str, Any] = {}
    for name, recording in RECORDINGS.items():
        if _kind(recording) == "whole":
            items = recording["response"]["output"]
            details = [(item["type"], *sorted(key for key, value in item.items() if value)) for item in items]
            shapes.setdefault(f"{details}", pytest.param(recording, id=name))
    return list(shapes.values())


def test_there_are_recordings_of_every_kind() -> None:
    assert len(_of("whole")) > 100 and len(_of("stream")) > 15 and len(_of("error")) == 3 and len(_of("input_tokens")) == 3
    assert len(_of_each_shape()) > 15


@pytest.fixture
def llm(server: ScriptedServer) -> QueryLLM:
    PROVIDER_CONFIGS["recorded"] = ProviderConfig(provider_class=ResponsesProvider, base_url=server.base_url, api_key=KEY)
    return QueryLLM(clock=FakeClock(auto_advance=True))


# Answers


@pytest.mark.parametrize("recording", _of("whole"))
async def test_whole_answer(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any]) -> None:
    server.answer(json.dumps(recording["response"]), headers=recording["headers"])
    answer = await llm.query(_model(recording), prompt="hi")
    _compare(answer, recording["response"])


@pytest.mark.parametrize("split", [False, True], ids=["at once", "in pieces"])
@pytest.mark.parametrize("recording", _of("stream"))
async def test_stream(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any], split: bool) -> None:
    text = recording["response_text"].encode()
    server.answer_sse(*(_awkward_pieces(text) if split else [text]), headers=recording["headers"])
    await _compare_stream(llm, recording, _last(recording["response_text"]))


@pytest.mark.parametrize("poor", [False, True], ids=["all events", "few fields"])
@pytest.mark.parametrize("recording", _of_each_shape())
async def test_a_whole_answer_streamed_is_the_same(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any], poor: bool) -> None:
    server.answer_sse(_streamed(recording["response"], poor=poor))
    await _compare_stream(llm, recording, recording["response"])


@pytest.mark.parametrize("recording", _of("stream"))
async def test_a_streamed_answer_whole_is_the_same(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any]) -> None:
    response = _last(recording["response_text"])
    server.answer_json(response)
    _compare(await llm.query(_model(recording), prompt="hi"), response)


@pytest.mark.parametrize("recording", _of("stream"))
async def test_a_stream_that_breaks_off_is_no_answer(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any]) -> None:
    server.answer_sse(recording["response_text"].partition("event: response.completed")[0], times=None)
    with pytest.raises(llm_master.ProviderError, match="ended without"):
        async with llm.stream(_model(recording), prompt="hi") as stream:
            async for _ in stream:
                pass


@pytest.mark.parametrize("recording", _of("error"))
async def test_error(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any]) -> None:
    server.answer(json.dumps(recording["response"]), status=recording["status"], headers=recording["headers"])
    with pytest.raises(llm_master.InvalidRequestError) as caught:
        await llm.query(_model(recording), prompt="hi")
    error = recording["response"]["error"]
    assert isinstance(caught.value, llm_master.ModelNotFoundError) == (error["code"] == "model_not_found")
    assert (caught.value.status, caught.value.provider) == (recording["status"], "recorded")
    assert error["message"] in str(caught.value)
    assert KEY not in f"{caught.value!r} {caught.value.receipt!r}"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("recording", [*_of_each_shape(), *_of("stream")])
async def test_an_answer_goes_back_as_it_came(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any], streamed: bool) -> None:
    response = recording["response"] or _last(recording["response_text"])
    if streamed:
        server.answer_sse(recording.get("response_text") or _streamed(response))
        async with llm.stream(_model(recording), prompt="hi") as stream:
            async for _ in stream:
                pass
        answer = stream.response
    else:
        server.answer_json(response)
        answer = await llm.query(_model(recording), prompt="hi")
    server.answer_json(NOTHING)
    results = [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in answer.tool_calls]
    stored = json.loads(json.dumps(answer.message))
    await llm.query(_model(recording), [{"role": "user", "content": "hi"}, stored, *results, {"role": "user", "content": "and?"}])
    items = server.requests[-1].json["input"]
    assert items[0] == {"role": "user", "content": "hi"} and items[-1] == {"role": "user", "content": "and?"}
    sent = items[1 : len(items) - 1 - len(results)]
    if answer.native is not None:
        assert sent == response["output"]
    else:
        # Nothing but a text and calls: said again in short, with the same meaning.
        assert [_meaning(item) for item in sent] == [_meaning(item) for item in response["output"]]
    assert [item["call_id"] for item in items[len(items) - 1 - len(results) : -1]] == [call.id for call in answer.tool_calls]


# Requests


@pytest.mark.parametrize("recording", _of("whole", "stream", "error"))
async def test_request(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any]) -> None:
    """Said in the form of chat completions, with the API's own items of an assistant under ``_native``."""
    recorded = recording["request"]
    messages, options = _said(recorded)
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
    assert (request.method, request.path) == ("POST", "/v1/responses")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert json.dumps([messages, options]) == before, "the caller's messages were changed"


@pytest.mark.parametrize("recording", _of("input_tokens"))
async def test_count_of_tokens(server: ScriptedServer, recording: dict[str, Any]) -> None:
    recorded = recording["request"]
    messages, options = _said(recorded)
    server.answer(json.dumps(recording["response"]), headers=recording["headers"])
    provider = ResponsesProvider(ProviderConfig(base_url=server.base_url, api_key=KEY))
    assert await provider.count_tokens(messages, recorded["model"], **options) == recording["response"]["input_tokens"]
    assert server.request.path == "/v1/responses/input_tokens"
    assert _normal_request(server.request.json) == _normal_request(recorded)


def _model(recording: dict[str, Any]) -> str:
    return f"recorded/{recording['request']['model']}"


async def _compare_stream(llm: QueryLLM, recording: dict[str, Any], response: dict[str, Any]) -> None:
    text = ""
    async with llm.stream(_model(recording), prompt="hi") as stream:
        async for piece in stream:
            text += piece
    assert text == _read(response).content
    _compare(stream.response, response)


def _compare(answer: LLMResponse, response: dict[str, Any]) -> None:
    expected = _read(response)
    assert answer.content == expected.content
    assert answer.reasoning == expected.reasoning
    assert [(call.id, call.name, call.text, call.error) for call in answer.tool_calls] == [(*call, None) for call in expected.tool_calls]
    assert answer.finish_reason == expected.finish_reason
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens) == (expected.input, expected.output)
    assert (usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (expected.cached, expected.written, expected.thought)
    assert (usage.web_searches or 0) == expected.searches
    assert [(note.url, note.title, note.raw) for note in answer.citations] == expected.citations
    for note in answer.citations:
        assert note.raw is not None
        if note.start is not None:
            assert (note.start, note.end) == (note.raw["start_index"], note.raw["end_index"])  # each has a single text
            assert answer.content[note.start : note.end]
    assert answer.raw == response
    assert answer.receipt.attempts[0].model_served == response["model"]


def _awkward_pieces(text: bytes) -> list[bytes]:
    """Cut inside characters, between the line ends that part two events, inside ``data:``, and here and there."""
    cuts = {1, 2, 7, len(text) - 1, *range(997, len(text), 997)}
    inside = [place for place in range(1, len(text)) if text[place] & 0xC0 == 0x80]
    ends = [place + 1 for place in range(len(text)) if text.startswith(b"\n\n", place)]
    cuts |= {*inside[:8], *ends[:6], *(end + 3 for end in ends[6:10])}
    places = [0, *sorted(cut for cut in cuts if 0 < cut < len(text)), len(text)]
    return [text[start:end] for start, end in zip(places, places[1:], strict=False)]


# The reader: https://platform.openai.com/docs/api-reference/responses/object, said as plainly as possible.


class Expected(NamedTuple):
    content: str
    reasoning: str | None
    tool_calls: list[tuple[str, str, str]]
    finish_reason: str | None
    input: int | None
    output: int | None
    cached: int | None
    written: int | None
    thought: int | None
    searches: int
    citations: list[Any]


def _read(response: dict[str, Any]) -> Expected:
    items = response["output"]
    usage = response["usage"] or {}
    parts = [part for item in items if item["type"] == "message" for part in item["content"]]
    thoughts = [item for item in items if item["type"] == "reasoning"]
    calls = [(item["call_id"], item["name"], item["arguments"]) for item in items if item["type"] == "function_call"]
    details = usage.get("input_tokens_details") or {}
    notes = [note for part in parts for note in part.get("annotations", ())]
    return Expected(
        "".join(part["text"] for part in parts if part["type"] == "output_text"),
        "\n\n".join(part["text"] for item in thoughts for part in [*(item.get("content") or ()), *item["summary"]]) or None,
        calls,
        None if response["status"] == "queued" else "tool_calls" if calls else "stop",
        usage.get("input_tokens"),
        usage.get("output_tokens"),
        details.get("cached_tokens"),
        details.get("cache_write_tokens"),
        (usage.get("output_tokens_details") or {}).get("reasoning_tokens"),
        sum(item["type"] == "web_search_call" and item["status"] == "completed" and item["action"]["type"] == "search" for item in items),
        [(note.get("url"), note.get("title") or note.get("filename"), note) for note in notes],
    )


def _last(text: str) -> dict[str, Any]:
    """The response that ends a stream; it must be what the events before it make."""
    events = [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]
    response: dict[str, Any] = events[-1]["response"]
    said = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert said == _read(response).content
    return response


def _streamed(response: dict[str, Any], *, poor: bool = False) -> str:
    """The events of a stream that make this response; a poor server's give no indexes, as llama.cpp's."""
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}, {"type": "response.in_progress", "response": begun}]

    def add(kind: str, **fields: Any) -> None:
        if poor:
            fields = {key: value for key, value in fields.items() if not key.endswith("_index")}
        events.append({"type": f"response.{kind}", **fields})

    def halves(kind: str, text: str, **where: Any) -> None:
        for piece in (text[: len(text) // 2], text[len(text) // 2 :]):
            add(f"{kind}.delta", **where, delta=piece)

    for index, item in enumerate(response["output"]):
        where = {"output_index": index, "item_id": item["id"]}
        empty = {"content": [], "summary": [], "arguments": ""}
        add("output_item.added", output_index=index, item={key: empty.get(key, value) for key, value in item.items()})
        if item["type"] == "message":
            for place, part in enumerate(item["content"]):
                add("content_part.added", **where, content_index=place, part={**part, "text": "", "annotations": []})
                halves("output_text", part["text"], **where, content_index=place)
                for note in part["annotations"]:
                    add("output_text.annotation.added", **where, content_index=place, annotation=note)
                add("output_text.done", **where, content_index=place, text=part["text"])
        elif item["type"] == "function_call":
            halves("function_call_arguments", item["arguments"], **where)
            add("function_call_arguments.done", **where, arguments=item["arguments"])
        elif item["type"] == "reasoning":
            for place, part in enumerate(item.get("content") or ()):
                halves("reasoning_text", part["text"], **where, content_index=place)
            for place, part in enumerate(item["summary"]):
                add("reasoning_summary_part.added", **where, summary_index=place, part={"type": "summary_text", "text": ""})
                halves("reasoning_summary_text", part["text"], **where, summary_index=place)
        add("output_item.done", output_index=index, item=item)
    events.append({"type": "response.completed", "response": response})
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)


def _meaning(item: dict[str, Any]) -> Any:
    if item["type"] == "message":
        content = item["content"]
        return item["role"], content if isinstance(content, str) else "".join(part["text"] for part in content)
    return item["call_id"], item["name"], item["arguments"]


# The converter: what a user of chat completions writes for a recorded request.


def _said(body: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    options = {
        key: value for key, value in body.items() if key not in ("model", "input", "stream", "tools", "text", "tool_choice", "reasoning")
    }
    if "tools" in body:
        options["tools"] = [_tool_said(tool) for tool in body["tools"]]
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice["type"] == "function":
        choice = {"type": "function", "function": {"name": choice["name"]}}
    elif isinstance(choice, dict):
        tools = [{"type": "function", "function": {"name": tool["name"]}} for tool in choice["tools"]]
        choice = {"type": "allowed_tools", "allowed_tools": {"mode": choice["mode"], "tools": tools}}
    if choice is not None:
        options["tool_choice"] = choice
    form = body.get("text", {}).get("format")
    if form is not None:
        inner = {key: value for key, value in form.items() if key != "type"}
        options["response_format"] = {"type": form["type"]} | ({"json_schema": inner} if inner else {})
    if "reasoning" in body:
        options["reasoning"] = {key: value for key, value in body["reasoning"].items() if key != "effort"}
        if body["reasoning"].get("effort") is not None:
            options["reasoning_effort"] = body["reasoning"]["effort"]
    messages: list[dict[str, Any]] = []
    for item in body["input"]:
        kind = item.get("type", "message")
        if kind == "message" and item["role"] != "assistant":
            messages.append({"role": item["role"], "content": _content_said(item["content"])})
        elif kind == "message" and isinstance(item["content"], str):
            messages.append({**item})
        elif kind == "additional_tools":
            messages.append(item)
        elif kind.endswith("_output") and kind != "tool_search_output":
            assert kind == "function_call_output"
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": _content_said(item["output"])})
        elif kind == "function_call" and item.keys() == {"type", "call_id", "name", "arguments"}:
            call = {"id": item["call_id"], "type": "function", "function": {"name": item["name"], "arguments": item["arguments"]}}
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        else:
            messages.append({"role": "assistant", "content": "", "_native": {"format": "responses", "content": [item]}})
    return messages, options


def _tool_said(tool: dict[str, Any]) -> dict[str, Any]:
    if tool["type"] != "function":
        return tool
    inner = {key: tool[key] for key in ("name", "description", "parameters", "strict") if key in tool}
    if inner.get("strict") is False:
        del inner["strict"]  # as everybody writes it
    return {"type": "function", "function": inner} | {key: value for key, value in tool.items() if key not in (*inner, "strict", "type")}


def _content_said(content: Any) -> Any:
    if isinstance(content, str):
        return content
    said = []
    for part in content:
        if part["type"] == "input_text":
            said.append({"type": "text", "text": part["text"]})
        elif part["type"] == "input_image" and "image_url" in part:
            said.append({"type": "image_url", "image_url": {"url": part["image_url"], "detail": part["detail"]}})
        elif part["type"] == "input_file":
            said.append({"type": "file", "file": {key: value for key, value in part.items() if key != "type"}})
        else:
            said.append(part)
    return said


def _normal_request(body: dict[str, Any]) -> dict[str, Any]:
    """Without what says nothing: null, an empty text of an assistant, what holds unless another is said."""
    body = {key: value for key, value in body.items() if value is not None and (key, value) != ("stream", False)}
    if body.get("text") == {"format": {"type": "text"}}:
        del body["text"]
    if "reasoning" in body:
        body["reasoning"] = {key: value for key, value in body["reasoning"].items() if value is not None}
    if "tools" in body:
        body["tools"] = [{key: value for key, value in tool.items() if value is not None} for tool in body["tools"]]
    items = [{**item, "type": item.get("type", "message")} for item in body["input"]]
    body["input"] = [item for item in items if (item.get("role"), item.get("content")) != ("assistant", "")]
    return body
