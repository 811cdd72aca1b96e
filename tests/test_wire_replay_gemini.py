"""What Gemini really answered, on Google AI and on Vertex AI, served again over real HTTP; and what it was really asked,
said in our messages.

The reader and the converter at the end of this file are written from the format alone and share nothing with the library.
The recordings are not part of the project; where their folder is absent, this is skipped.
"""

from __future__ import annotations

import contextlib
import json
import mimetypes
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from servers.scripted import ScriptedServer

import llm_master
from llm_master import Citation, ContentPolicyError, InvalidOutputError, LLMResponse, QueryLLM
from llm_master.testing import FakeClock

WIRE = Path(__file__).resolve().parents[2] / "shared" / "wire"
PROVIDERS = ("gemini", "vertex")
KEY = "AIza-recorded-0123456789"
NOTHING = {"candidates": [{"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": "STOP", "index": 0}]}

if not WIRE.is_dir():
    pytest.skip("the recordings are not here", allow_module_level=True)


def _recordings() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for provider in PROVIDERS:
        for line in (WIRE / f"{provider}.jsonl").read_text("utf-8").splitlines():
            recording = json.loads(line)
            if "enerateContent" not in recording["url"]:
                continue
            if isinstance(recording["request"], str):
                recording["request"] = json.loads(recording["request"])
            if recording["response"] is None and not recording["response_text"].startswith("data:"):
                recording["response"] = json.loads(recording["response_text"])
            name = recording["id"]
            while name in found:
                name += "'"
            found[name] = recording
    return found


RECORDINGS = _recordings()


def _refused(answer: dict[str, Any] | None) -> bool:
    """A filter refused prompt or answer."""
    if answer is None:
        return False
    reasons = [candidate.get("finishReason") for candidate in answer.get("candidates", [])]
    return bool(answer.get("promptFeedback", {}).get("blockReason")) or bool({"SAFETY", "MODEL_ARMOR"} & set(reasons))


def _kind(recording: dict[str, Any]) -> str:
    if recording["status"] >= 400:
        return "error"
    if recording["response"] is None:
        return "stream"
    return "refused" if _refused(recording["response"]) else "whole"


def _of(*kinds: str) -> list[Any]:
    return [pytest.param(recording, id=name) for name, recording in RECORDINGS.items() if _kind(recording) in kinds]


def _of_each_shape() -> list[Any]:
    """Of the whole answers that hold the same kinds of parts, one."""
    shapes: dict[str, Any] = {}
    for name, recording in RECORDINGS.items():
        if _kind(recording) == "whole":
            answer = recording["response"]
            (candidate,) = answer["candidates"]
            has = {key for key, value in candidate.items() if value} - {"avgLogprobs", "finishMessage", "index", "logprobsResult"}
            parts = [sorted(part) + sorted(part.get("functionCall", ())) for part in _parts(answer)]
            shapes.setdefault(f"{sorted(has)} {parts} {candidate['finishReason']}", pytest.param(recording, id=name))
    return list(shapes.values())


def _parts(answer: dict[str, Any]) -> list[dict[str, Any]]:
    parts = answer["candidates"][0].get("content", {}).get("parts", []) if answer.get("candidates") else []
    assert isinstance(parts, list)
    return parts


def _with_signed_calls() -> list[Any]:
    """Of the requests with signed calls that have the same turns, one."""
    shapes: dict[str, Any] = {}
    for name, recording in RECORDINGS.items():
        turns = _camel(_turns(recording["request"]))
        if any({"thoughtSignature", "functionCall"} <= part.keys() for turn in turns if turn["role"] == "model" for part in turn["parts"]):
            parts = [[sorted(part) + sorted(part.get("functionResponse", ())) for part in turn["parts"]] for turn in turns]
            shapes.setdefault(f"{recording['provider']} {parts}", pytest.param(recording, id=name))
    return list(shapes.values())


def _turns(request: dict[str, Any]) -> list[dict[str, Any]]:
    contents = request["contents"]
    return contents if isinstance(contents, list) else [contents]


def _camel(value: Any) -> Any:
    """Names as the API answers with them; it takes snake_case as well. What users named is left alone."""
    if isinstance(value, list):
        return [_camel(item) for item in value]
    if not isinstance(value, dict):
        return value
    theirs = {"args", "response", "parametersJsonSchema", "responseJsonSchema", "parameters", "responseSchema", "labels"}
    camel = {re.sub(r"_([a-z])", lambda found: found[1].upper(), key): inner for key, inner in value.items()}
    return {key: inner if key in theirs else _camel(inner) for key, inner in camel.items()}


def test_there_are_recordings_of_every_kind() -> None:
    assert {recording["provider"] for recording in RECORDINGS.values()} == set(PROVIDERS)
    assert len(_of("whole")) > 150 and len(_of("stream")) > 5 and len(_of("error")) > 1 and len(_of("refused")) > 2
    assert len(_with_signed_calls()) > 15


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto_advance=True)


def _llm(recording: dict[str, Any], server: ScriptedServer, clock: FakeClock) -> QueryLLM:
    """The provider at the recorded address, on our server."""
    base = server.url + "/" + recording["url"].split("/", 3)[3].partition("/models/")[0]
    return QueryLLM(**{f"{recording['provider']}_api_base": base, f"{recording['provider']}_api_key": KEY}, clock=clock)


def _model(recording: dict[str, Any]) -> str:
    return f"{recording['provider']}/{_wire_id(recording)}"


def _wire_id(recording: dict[str, Any]) -> str:
    return str(recording["url"].partition("/models/")[2].partition(":")[0])


# Answers


@pytest.mark.parametrize("recording", _of("whole"))
async def test_whole_answer(server: ScriptedServer, clock: FakeClock, recording: dict[str, Any]) -> None:
    server.answer(json.dumps(recording["response"]), headers=recording["headers"])
    answer = await _llm(recording, server, clock).query(_model(recording), prompt="hi")
    _compare(answer, _read([recording["response"]]))
    assert answer.raw == recording["response"]
    assert answer.receipt.attempts[0].model_served == recording["response"]["modelVersion"]


@pytest.mark.parametrize("split", [False, True], ids=["at once", "in pieces"])
@pytest.mark.parametrize("recording", _of("stream"))
async def test_stream(server: ScriptedServer, clock: FakeClock, recording: dict[str, Any], split: bool) -> None:
    text = recording["response_text"].encode()
    server.answer_sse(*(_awkward_pieces(text) if split else [text]), headers=recording["headers"])
    await _compare_stream(_llm(recording, server, clock), recording, _chunks(recording["response_text"]))


@pytest.mark.parametrize("recording", _of_each_shape())
async def test_a_whole_answer_streamed_is_the_same(server: ScriptedServer, clock: FakeClock, recording: dict[str, Any]) -> None:
    chunks = _streamed(recording["response"])
    server.answer_sse("".join(f"data: {json.dumps(chunk)}\r\n\r\n" for chunk in chunks))
    await _compare_stream(_llm(recording, server, clock), recording, [recording["response"]])


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("recording", _of("refused"))
async def test_refused(server: ScriptedServer, clock: FakeClock, recording: dict[str, Any], streamed: bool) -> None:
    answer = recording["response"]
    llm = _llm(recording, server, clock)
    if streamed:
        server.answer_sse(f"data: {json.dumps(answer)}\r\n\r\n")
    else:
        server.answer_json(answer)
    with pytest.raises(ContentPolicyError) as caught:
        if streamed:
            await llm.stream(_model(recording), prompt="hi").connect()
        else:
            await llm.query(_model(recording), prompt="hi")
    feedback = answer.get("promptFeedback", {})
    candidate = answer["candidates"][0] if answer.get("candidates") else {}
    assert (feedback.get("blockReason") or candidate["finishReason"]) in str(caught.value)
    assert (feedback.get("blockReasonMessage") or candidate.get("finishMessage") or "") in str(caught.value)
    for rating in candidate.get("safetyRatings", []):
        assert (rating["category"] in str(caught.value)) is rating.get("blocked", False)
    assert (caught.value.provider, caught.value.status) == (recording["provider"], 200)
    assert len(server.requests) == 1


@pytest.mark.parametrize("recording", _of("error"))
async def test_error(server: ScriptedServer, clock: FakeClock, recording: dict[str, Any]) -> None:
    server.answer(json.dumps(recording["response"]), status=recording["status"], headers=recording["headers"])
    with pytest.raises(llm_master.ProviderError) as caught:
        await _llm(recording, server, clock).query(_model(recording), prompt="hi")
    error = recording["response"]["error"]
    assert type(caught.value).__name__ == {"INVALID_ARGUMENT": "InvalidRequestError"}[error["status"]]
    assert (caught.value.status, caught.value.provider) == (recording["status"], recording["provider"])
    assert error["message"] in str(caught.value)
    assert KEY not in f"{caught.value!r} {caught.value.receipt!r}"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("recording", [*_of_each_shape(), *_of("stream")])
async def test_an_answer_goes_back_as_it_came(server: ScriptedServer, clock: FakeClock, recording: dict[str, Any], streamed: bool) -> None:
    """With its thought signatures, each on its part; and with no id of a call that the API did not give."""
    llm = _llm(recording, server, clock)
    chunks = [recording["response"]] if recording["response"] else _chunks(recording["response_text"])
    if streamed:
        chunks = _streamed(recording["response"]) if recording["response"] else chunks
        server.answer_sse("".join(f"data: {json.dumps(chunk)}\r\n\r\n" for chunk in chunks))
        async with llm.stream(_model(recording), prompt="hi") as stream:
            async for _ in stream:
                pass
        answer = stream.response
    else:
        server.answer_json(_joined(chunks))
        answer = await llm.query(_model(recording), prompt="hi")
    server.answer_json(NOTHING)
    results = [{"role": "tool", "tool_call_id": call.id, "content": '{"done": true}'} for call in answer.tool_calls]
    await llm.query(_model(recording), [{"role": "user", "content": "hi"}, answer.message, *results, {"role": "user", "content": "and?"}])
    contents = server.requests[-1].json["contents"]
    given = [part for chunk in chunks for part in _parts(chunk)]
    assert contents[1]["role"] == "model"
    assert _merged(contents[1]["parts"]) == _merged(given)
    expected = [
        {**{key: part["functionCall"][key] for key in ("id", "name") if key in part["functionCall"]}, "response": {"done": True}}
        for part in given
        if "functionCall" in part
    ]
    assert [part["functionResponse"] for part in contents[2]["parts"] if "functionResponse" in part] == expected


# Requests


@pytest.mark.parametrize("recording", _of("whole", "stream", "refused", "error"))
async def test_request(server: ScriptedServer, clock: FakeClock, recording: dict[str, Any]) -> None:
    """Said in OpenAI's form, with Gemini's own parts of an assistant under ``_native``."""
    await _ask(server, clock, recording, signed_calls=False)


@pytest.mark.parametrize("recording", _with_signed_calls())
async def test_request_with_signatures_in_the_tool_calls(server: ScriptedServer, clock: FakeClock, recording: dict[str, Any]) -> None:
    """Said as Google's own OpenAI-compatible API says them: ``extra_content.google.thought_signature``."""
    await _ask(server, clock, recording, signed_calls=True)


async def _ask(server: ScriptedServer, clock: FakeClock, recording: dict[str, Any], *, signed_calls: bool) -> None:
    recorded = _camel(recording["request"])
    messages, options = _said(recorded, signed_calls=signed_calls)
    before = json.dumps([messages, options])
    llm = _llm(recording, server, clock)
    if "streamGenerateContent" in recording["url"]:
        server.answer_sse(f"data: {json.dumps(NOTHING)}\r\n\r\n")
        await llm.stream(_model(recording), messages, **options).connect()
    else:
        server.answer_json(NOTHING)
        with contextlib.suppress(InvalidOutputError):  # where a form was asked for, nothing is not of it
            await llm.query(_model(recording), messages, **options)
    request = server.request
    assert _normal(_camel(request.json)) == _normal(recorded)
    assert (request.method, request.path) == ("POST", "/" + recording["url"].split("/", 3)[3])
    assert request.headers["x-goog-api-key"] == KEY and KEY not in request.path
    assert json.dumps([messages, options]) == before, "the caller's messages were changed"


async def _compare_stream(llm: QueryLLM, recording: dict[str, Any], chunks: list[dict[str, Any]]) -> None:
    expected = _read(chunks)
    text = ""
    async with llm.stream(_model(recording), prompt="hi") as stream:
        async for piece in stream:
            text += piece
    assert text == expected.content
    _compare(stream.response, expected)
    assert stream.response.receipt.attempts[0].model_served == chunks[0]["modelVersion"]


def _compare(answer: LLMResponse, expected: Expected) -> None:
    assert answer.content == expected.content
    assert answer.reasoning == expected.reasoning
    assert [(call.name, call.arguments, call.error) for call in answer.tool_calls] == [
        (name, arguments, None) for _, name, arguments in expected.tool_calls
    ]
    for call, (id, _, _) in zip(answer.tool_calls, expected.tool_calls, strict=True):
        assert call.id == id if id is not None else call.id
    assert len({call.id for call in answer.tool_calls}) == len(answer.tool_calls)
    assert answer.finish_reason == expected.finish_reason
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens) == (expected.input, expected.output)
    assert (usage.cached_tokens or 0, usage.reasoning_tokens or 0, usage.cache_write_tokens) == (expected.cached, expected.thought, None)
    assert [_cited(citation, answer.content) for citation in answer.citations] == expected.citations


def _awkward_pieces(text: bytes) -> list[bytes]:
    """Cut inside characters, between the line ends that part two events, inside ``data:``, and here and there."""
    cuts = {1, 2, 7, len(text) - 1, *range(997, len(text), 997)}
    inside = [place for place in range(1, len(text)) if text[place] & 0xC0 == 0x80]
    ends = [place for place in range(len(text)) if text.startswith(b"\r\n\r\n", place)]
    cuts |= {*inside[:8], *(end + offset for end, offset in zip(ends, (1, 2, 3, 4, 6, 7), strict=False))}
    places = [0, *sorted(cut for cut in cuts if 0 < cut < len(text)), len(text)]
    return [text[start:end] for start, end in zip(places, places[1:], strict=False)]


# The reader: https://ai.google.dev/api/generate-content, said as plainly as possible.


class Expected(NamedTuple):
    content: str
    reasoning: str | None
    tool_calls: list[tuple[str | None, str, dict[str, Any]]]
    finish_reason: str | None
    input: int | None
    output: int | None
    cached: int
    thought: int
    citations: list[tuple[Any, Any, Any, str | None]]
    """Chunk, address, title, and the sentence that it supports; ``None`` where no support names the chunk."""


def _cited(citation: Citation, content: str) -> tuple[Any, Any, Any, str | None]:
    sentence = content[citation.start : citation.end] if citation.start is not None else None
    return citation.raw, citation.url, citation.title, sentence


def _expected_citations(candidates: list[dict[str, Any]]) -> list[tuple[Any, Any, Any, str | None]]:
    metadata = [candidate["groundingMetadata"] for candidate in candidates if "groundingMetadata" in candidate]
    chunks = [chunk for one in metadata for chunk in one.get("groundingChunks", [])]
    supports = [support for one in metadata for support in one.get("groundingSupports", [])]
    pairs = [(index, support["segment"]["text"]) for support in supports for index in support["groundingChunkIndices"]]
    pairs += [(index, None) for index in range(len(chunks)) if index not in {index for index, _ in pairs}]
    found = []
    for index, sentence in pairs:
        (inner,) = chunks[index].values()
        found.append((chunks[index], inner.get("uri"), inner.get("title"), sentence))
    return found


def _read(chunks: list[dict[str, Any]]) -> Expected:
    parts = [part for chunk in chunks for part in _parts(chunk)]
    candidates = [candidate for chunk in chunks for candidate in chunk.get("candidates", [])]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    reason = [candidate["finishReason"] for candidate in candidates if "finishReason" in candidate][-1]
    usage = chunks[-1]["usageMetadata"]
    tools = usage.get("toolUsePromptTokenCount", 0)
    total = usage.get("totalTokenCount")
    return Expected(
        "".join(part.get("text", "") for part in parts if not part.get("thought")),
        "".join(part.get("text", "") for part in parts if part.get("thought")) or None,
        [(call.get("id"), call["name"], call.get("args", {})) for call in calls],
        "tool_calls" if reason == "STOP" and calls else {"STOP": "stop", "MAX_TOKENS": "length"}.get(reason, reason.lower()),
        usage["promptTokenCount"] + tools,
        total - usage["promptTokenCount"] - tools,  # candidates and thoughts
        usage.get("cachedContentTokenCount", 0),
        usage.get("thoughtsTokenCount", 0),
        _expected_citations(candidates),
    )


def _chunks(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]


def _streamed(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The chunks of a stream that make this answer: a part each, long texts in two, and the rest with the last."""
    candidate = answer["candidates"][0]
    pieces: list[dict[str, Any]] = []
    for part in _parts(answer):
        if part.keys() <= {"text", "thought"} and len(part["text"]) > 1:
            half = len(part["text"]) // 2
            pieces += [{**part, "text": part["text"][:half]}, {**part, "text": part["text"][half:]}]
        else:
            pieces.append(part)
    rest = {key: value for key, value in answer.items() if key not in ("candidates", "usageMetadata")}
    usage = {"promptTokenCount": answer["usageMetadata"]["promptTokenCount"]}
    return [
        *(
            {**rest, "candidates": [{"content": {"role": "model", "parts": [piece]}, "index": 0}], "usageMetadata": usage}
            for piece in pieces
        ),
        {
            **answer,
            "candidates": [
                {**{k: v for k, v in candidate.items() if k != "content"}, "content": {"parts": [{"text": ""}], "role": "model"}}
            ],
        },
    ]


def _joined(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    parts = [part for chunk in chunks for part in _parts(chunk)]
    last = chunks[-1]
    return {**last, "candidates": [{**last["candidates"][0], "content": {"role": "model", "parts": parts}}]}


def _merged(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Texts that follow each other as one, empty ones left out."""
    merged: list[dict[str, Any]] = []
    for part in parts:
        plain = part.keys() <= {"text", "thought"}
        if plain and not part["text"]:
            continue
        if plain and merged and merged[-1].keys() == part.keys() and merged[-1].get("thought") == part.get("thought"):
            merged[-1] = {**part, "text": merged[-1]["text"] + part["text"]}
        else:
            merged.append(dict(part))
    return merged


# The converter: a recorded request in OpenAI's words, and in Gemini's own where OpenAI has none.


def _said(request: dict[str, Any], *, signed_calls: bool) -> tuple[list[Any], dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if system := request.get("systemInstruction"):
        messages.append({"role": "system", "content": _plain(list(map(_part, system["parts"])))})
    ids: list[str] = []  # of the calls that wait for their results
    for turn in _turns(request):
        if turn["role"] == "model":
            message = _assistant(turn["parts"], len(messages), signed_calls=signed_calls)
            ids += [call["id"] for call in message.get("tool_calls", [])]
            messages.append(message)
            continue
        for part in turn["parts"]:
            if "functionResponse" in part:
                response = part["functionResponse"]
                id = response.get("id", ids[0])
                ids.remove(id)
                content: Any = json.dumps(response["response"])
                if "parts" in response:
                    text = [{"type": "text", "text": content}] if response["response"] else []
                    content = [*text, *map(_part, response["parts"])]
                messages.append({"role": "tool", "tool_call_id": id, "content": content})
        if others := [_part(part) for part in turn["parts"] if "functionResponse" not in part]:
            messages.append({"role": "user", "content": _plain(others)})
    return messages, _options(request)


def _plain(parts: list[dict[str, Any]]) -> Any:
    return parts[0]["text"] if len(parts) == 1 and parts[0].keys() == {"type", "text"} else parts


def _part(part: dict[str, Any]) -> dict[str, Any]:
    if part.keys() == {"text"}:
        return {"type": "text", "text": part["text"]}
    if part.keys() == {"inlineData"}:
        uri = f"data:{part['inlineData']['mimeType']};base64,{part['inlineData']['data']}"
        if uri.startswith("data:image/"):
            return {"type": "image_url", "image_url": {"url": uri}}
        return {"type": "file", "file": {"file_data": uri}}
    if part.keys() == {"fileData"}:
        uri, kind = part["fileData"]["fileUri"], part["fileData"]["mimeType"]
        if mimetypes.guess_type(uri)[0] == kind:
            if kind.startswith("image/"):
                return {"type": "image_url", "image_url": {"url": uri}}
            return {"type": "file", "file": {"file_id": uri}}
    return part  # OpenAI's form has no word for the type of a file behind an address, and none for the rest


def _assistant(parts: list[dict[str, Any]], position: int, *, signed_calls: bool) -> dict[str, Any]:
    texts = [part for part in parts if part.keys() == {"text"}]
    called = [part for part in parts if "functionCall" in part]
    calls = []
    for number, part in enumerate(called):
        call = part["functionCall"]
        said: dict[str, Any] = {"id": call.get("id", f"call_{position}_{number}"), "type": "function"}
        said["function"] = {"name": call["name"], "arguments": json.dumps(call["args"])}
        if signed_calls and "thoughtSignature" in part:
            said["extra_content"] = {"google": {"thought_signature": part["thoughtSignature"]}}
        calls.append(said)
    message: dict[str, Any] = {"role": "assistant", "content": _plain(list(map(_part, texts))) if texts else None}
    if calls:
        message["tool_calls"] = calls
    is_said = all(part.keys() <= {"functionCall", "thoughtSignature"} and "id" in part["functionCall"] for part in called)
    if not (signed_calls and is_said) and len(texts) < len(parts):
        message["_native"] = {"format": "gemini", "content": parts}
    return message


def _options(request: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    config = dict(request.get("generationConfig", {}))
    renamed = {"temperature": "temperature", "maxOutputTokens": "max_tokens", "responseLogprobs": "logprobs", "logprobs": "top_logprobs"}
    schema = config.pop("responseJsonSchema", None) or config.pop("responseSchema", None)
    kind = config.pop("responseMimeType", None)
    if schema:
        options["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": _schema(schema)}}
    elif kind:
        options["response_format"] = {"type": "json_object"}
    for name, value in config.items():
        if name == "responseModalities":
            options["modalities"] = [kind.lower() for kind in value]
        elif name == "stopSequences":
            options["stop"] = value[0] if len(value) == 1 else value
        else:
            options[renamed.get(name, name)] = value
    for name, value in request.items():
        if name == "tools":
            tools = value if isinstance(value, list) else [value]
            options["tools"] = [said for tool in tools for said in _tool(tool)]
        elif name == "toolConfig":
            options |= _tool_config(value)
        elif name not in ("contents", "systemInstruction", "generationConfig"):
            options[name] = value
    return options


def _tool(tool: dict[str, Any]) -> list[dict[str, Any]]:
    if "functionDeclarations" not in tool:
        return [tool]
    return [
        {
            "type": "function",
            "function": {
                "name": function["name"],
                "description": function.get("description", ""),
                "parameters": _schema(function.get("parametersJsonSchema") or function.get("parameters") or {}),
            },
        }
        for function in tool["functionDeclarations"]
    ]


def _tool_config(config: dict[str, Any]) -> dict[str, Any]:
    calling = config.get("functionCallingConfig")
    choices = {"AUTO": "auto", "ANY": "required", "NONE": "none"}
    if calling is None or calling["mode"] not in choices or len(calling.get("allowedFunctionNames", "x")) > 1:
        return {"toolConfig": config}  # what OpenAI has no word for
    options: dict[str, Any] = {"tool_choice": choices[calling["mode"]]}
    for name in calling.get("allowedFunctionNames", []):
        options["tool_choice"] = {"type": "function", "function": {"name": name}}
    if rest := {key: value for key, value in config.items() if key != "functionCallingConfig"}:
        options["toolConfig"] = rest
    return options


def _schema(value: Any) -> Any:
    """A schema in Google's older dialect, with types in capitals, as JSON Schema."""
    if isinstance(value, list):
        return [_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    schema = {{"any_of": "anyOf"}.get(key, key): _schema(inner) for key, inner in value.items() if key not in ("property_ordering",)}
    if isinstance(schema.get("type"), str):
        schema["type"] = schema["type"].lower()
    return schema


# Two ways to say the same


def _plain_base64(value: Any) -> Any:
    """Base64 in its usual letters; the API takes those of URLs as well."""
    if isinstance(value, list):
        return [_plain_base64(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() >= {"data", "mimeType"}:
        return {**value, "data": value["data"].replace("-", "+").replace("_", "/")}
    return {key: _plain_base64(inner) for key, inner in value.items()}


def _normal(body: dict[str, Any]) -> dict[str, Any]:
    body = dict(body)
    body["contents"] = [
        {"role": turn.get("role", "user"), "parts": [_normal_part(part) for part in turn["parts"]]} for turn in _turns(body)
    ]
    if "systemInstruction" in body:
        body["systemInstruction"] = body["systemInstruction"]["parts"]
    config = dict(body.pop("generationConfig", {}))
    for name in ("responseJsonSchema", "responseSchema"):
        if name in config:
            config["schema"] = _schema(config.pop(name))
    if config:
        body["generationConfig"] = config
    tools = body.pop("tools", [])
    functions: list[dict[str, Any]] = []
    others = []
    for tool in tools if isinstance(tools, list) else [tools]:
        for function in tool.get("functionDeclarations", []):
            schema = _schema(function.get("parametersJsonSchema") or function.get("parameters") or {})
            if not schema.get("properties"):
                schema = {}  # a function without parameters may be declared with or without a schema
            functions.append({"name": function["name"], "description": function.get("description", ""), "schema": schema})
        if rest := {key: value for key, value in tool.items() if key != "functionDeclarations"}:
            others.append(rest)
    return {**body, "functions": functions, "other tools": others}


def _normal_part(part: dict[str, Any]) -> dict[str, Any]:
    part = _plain_base64(part)
    if "functionResponse" in part:
        response = part["functionResponse"]
        if response["response"] == {"result": ""}:  # nothing, said in so many words
            return {**part, "functionResponse": {**response, "response": {}}}
    return part
