"""What Cohere's chat really answered, served again over real HTTP; and what it was really asked, said in our messages.

The reader and the converter at the end of this file are written from the format alone and share nothing with the library.
The recordings are not part of the project; where their folder is absent, this is skipped. Embeddings: ``test_wire_replay_embeddings.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from servers.scripted import ScriptedServer

from llm_master import LLMResponse, QueryLLM
from llm_master.testing import FakeClock

WIRE = Path(__file__).resolve().parents[2] / "shared" / "wire" / "cohere.jsonl"
KEY = "co-recorded-0123456789"
NOTHING = {"id": "1", "message": {"role": "assistant"}, "finish_reason": "COMPLETE"}

if not WIRE.is_file():
    pytest.skip("the recordings are not here", allow_module_level=True)


def _recordings() -> list[Any]:
    """Whole answers; no stream and no error has been recorded."""
    lines = map(json.loads, WIRE.read_text("utf-8").splitlines())
    return [pytest.param(recording, id=recording["id"]) for recording in lines if recording["url"].endswith("/v2/chat")]


RECORDINGS = _recordings()


def test_there_are_recordings() -> None:
    assert len(RECORDINGS) > 5


@pytest.fixture
def llm(server: ScriptedServer) -> QueryLLM:
    return QueryLLM(cohere_api_base=server.url, cohere_api_key=KEY, clock=FakeClock(auto_advance=True))


def _model(recording: dict[str, Any]) -> str:
    return f"cohere/{recording['request']['model']}"


@pytest.mark.parametrize("recording", RECORDINGS)
async def test_whole_answer(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any]) -> None:
    server.answer(json.dumps(recording["response"]), headers=recording["headers"])
    answer = await llm.query(_model(recording), prompt="hi")
    _compare(answer, recording["response"])
    assert answer.raw == recording["response"]


@pytest.mark.parametrize("recording", RECORDINGS)
@pytest.mark.parametrize("cut", [False, True], ids=["at once", "in pieces"])
async def test_a_whole_answer_streamed_is_the_same(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any], cut: bool) -> None:
    text = _streamed(recording["response"]).encode()
    server.answer_sse(*([text[place : place + 97] for place in range(0, len(text), 97)] if cut else [text]))
    await _compare_stream(llm, recording, recording["response"])


@pytest.mark.parametrize("recording", RECORDINGS)
async def test_an_answer_goes_back_as_it_came(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any]) -> None:
    server.answer_json(recording["response"], times=2)
    answer = await llm.query(_model(recording), prompt="hi")
    results = [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in answer.tool_calls]
    await llm.query(_model(recording), [{"role": "user", "content": "hi"}, answer.message, *results, {"role": "user", "content": "and?"}])
    sent = server.requests[-1].json["messages"][1]
    came = dict(recording["response"]["message"])
    assert _normal(sent) == _normal(came)


@pytest.mark.parametrize("native", [False, True], ids=["as content", "as native"])
@pytest.mark.parametrize("recording", RECORDINGS)
async def test_request(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any], native: bool) -> None:
    recorded = recording["request"]
    messages, options = _said(recorded, native=native)
    before = json.dumps([messages, options])
    server.answer_json(NOTHING)
    await llm.query(_model(recording), messages, **options)
    sent = server.request
    assert sent.json | {"messages": None} == {key: value for key, value in recorded.items() if value is not None} | {"messages": None}
    assert [_normal(turn) for turn in sent.json["messages"]] == [_normal(turn) for turn in recorded["messages"]]
    assert (sent.method, sent.path, sent.headers["authorization"]) == ("POST", "/v2/chat", f"Bearer {KEY}")
    assert json.dumps([messages, options]) == before, "the caller's messages were changed"


async def _compare_stream(llm: QueryLLM, recording: dict[str, Any], response: dict[str, Any]) -> None:
    async with llm.stream(_model(recording), prompt="hi") as stream:
        text = "".join([piece async for piece in stream])
    assert text == stream.response.content
    _compare(stream.response, response)


# The reader: https://docs.cohere.com/reference/chat#response


def _compare(answer: LLMResponse, response: dict[str, Any]) -> None:
    message, usage = response["message"], response["usage"]
    content = message.get("content") or []
    assert answer.content == "".join(block["text"] for block in content if block["type"] == "text")
    thoughts = "".join(block["thinking"] for block in content if block["type"] == "thinking") + message.get("tool_plan", "")
    assert answer.reasoning == (thoughts or None)
    assert [(call.id, call.name, call.arguments, call.error) for call in answer.tool_calls] == [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]), None) for call in message.get("tool_calls", ())
    ]
    words = {"COMPLETE": "stop", "STOP_SEQUENCE": "stop", "MAX_TOKENS": "length", "TOOL_CALL": "tool_calls"}
    assert answer.finish_reason == words[response["finish_reason"]]
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (usage["tokens"]["input_tokens"], usage["tokens"]["output_tokens"])
    assert answer.usage.cached_tokens == usage.get("cached_tokens")
    billed = usage["billed_units"]
    assert (answer.usage.billed_input_tokens, answer.usage.billed_output_tokens) == (billed["input_tokens"], billed["output_tokens"])


def _streamed(response: dict[str, Any]) -> str:
    """The events that make this answer: https://docs.cohere.com/docs/streaming, https://docs.cohere.com/docs/tool-use-streaming"""
    message = response["message"]
    events: list[dict[str, Any]] = [{"type": "message-start", "id": response["id"], "delta": {"message": {"role": "assistant"}}}]
    for index, block in enumerate(message.get("content") or ()):
        kind = block["type"]
        half = len(block[kind]) // 2
        events.append({"type": "content-start", "index": index, "delta": {"message": {"content": {"type": kind, kind: ""}}}})
        for piece in (block[kind][:half], block[kind][half:]):
            events.append({"type": "content-delta", "index": index, "delta": {"message": {"content": {kind: piece}}}})
        events.append({"type": "content-end", "index": index})
    for word in message.get("tool_plan", "").split(" ") if message.get("tool_plan") else ():
        word = word if events[-1]["type"] != "tool-plan-delta" else f" {word}"
        events.append({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": word}}})
    for index, call in enumerate(message.get("tool_calls", ())):
        text = call["function"]["arguments"]
        begun = {**call, "function": {"name": call["function"]["name"], "arguments": ""}}
        events.append({"type": "tool-call-start", "index": index, "delta": {"message": {"tool_calls": begun}}})
        for piece in (text[:3], text[3:]):
            delta = {"message": {"tool_calls": {"function": {"arguments": piece}}}}
            events.append({"type": "tool-call-delta", "index": index, "delta": delta})
        events.append({"type": "tool-call-end", "index": index})
    delta = {name: response[name] for name in ("finish_reason", "usage") if name in response}
    events.append({"type": "message-end", "id": response["id"], "delta": delta})
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


# The converter: a recorded request in OpenAI's words


def _said(request: dict[str, Any], *, native: bool) -> tuple[list[Any], dict[str, Any]]:
    messages = []
    for turn in request["messages"]:
        content = turn.get("content")
        message = {key: value for key, value in turn.items() if key not in ("tool_plan", "citations")}
        if turn["role"] == "assistant":
            message.setdefault("content", None)
            beside = {key: turn[key] for key in ("tool_plan", "citations") if turn.get(key)}
            if native and (isinstance(content, list) or beside):
                message["content"] = "".join(block.get("text", "") for block in content or ())
                message["_native"] = {"format": "cohere", "content": content or [], **beside}
            else:
                message |= beside
        messages.append(message)
    options: dict[str, Any] = {}
    names = {"p": "top_p", "k": "top_k", "stop_sequences": "stop"}
    for name, value in request.items():
        if value is None or name in ("model", "messages", "stream"):
            continue
        if name == "tool_choice":
            options[name] = value.lower()
        else:
            options[names.get(name, name)] = value
    return messages, options


def _normal(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn with its content in blocks."""
    normal = {key: value for key, value in turn.items() if value not in (None, [], "")}
    if isinstance(normal.get("content"), str):
        normal["content"] = [{"type": "text", "text": normal["content"]}]
    if "tool_calls" in normal:
        normal["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
            for call in normal["tool_calls"]
        ]
    return normal
