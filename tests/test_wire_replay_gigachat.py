"""What GigaChat really answered, served again over real HTTP; and what it was really asked, said in our messages.

The readers at the end of this file are written from the format alone and share nothing with the library. The recordings are
not part of the project; where their folder is absent, this is skipped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest
from servers.scripted import ScriptedServer

from llm_master import PROVIDER_CONFIGS, LLMConfig, ModelConfig, ModelNotFoundError, ModelRegistry, QueryLLM
from llm_master.providers.gigachat import GigaChatProvider
from llm_master.testing import FakeClock

WIRE = Path(__file__).resolve().parents[2] / "shared" / "wire" / "gigachat.jsonl"
KEY = "cmVjb3JkZWQ6c2VjcmV0"

if not WIRE.is_file():
    pytest.skip("the recordings are not here", allow_module_level=True)

RECORDINGS = [json.loads(line) for line in WIRE.read_text("utf-8").splitlines()]
TOKENS = [recording for recording in RECORDINGS if recording["url"].endswith("/oauth")]


def _of(ending: str, *, streams: bool | None = None, status: int = 200) -> list[Any]:
    return [
        pytest.param(recording, id=recording["id"])
        for recording in RECORDINGS
        if recording["url"].partition("?")[0].endswith(ending)
        and recording["status"] == status
        and (streams is None or (recording["response"] is None) == streams)
    ]


def test_there_are_recordings_of_every_kind() -> None:
    assert len(TOKENS) > 20 and len(_of("/chat/completions", streams=False)) > 10 and len(_of("/chat/completions", streams=True)) > 2


def _over(server: ScriptedServer, recording: dict[str, Any]) -> QueryLLM:
    """The provider at the path of the recording, with the token that was recorded before it."""
    before = RECORDINGS[RECORDINGS.index(recording) - 1]
    assert before["url"].endswith("/oauth")
    server.answer_json({name: "a-token" if value == "REDACTED" else value for name, value in before["response"].items()})
    address = server.url + urlsplit(recording["url"]).path.partition("/chat/completions")[0]
    return QueryLLM(LLMConfig(environment={"GIGACHAT_API_BASE": address, "GIGACHAT_API_KEY": KEY}, clock=FakeClock(auto_advance=True)))


@pytest.mark.parametrize("recording", _of("/chat/completions", streams=False))
async def test_whole_answer(server: ScriptedServer, recording: dict[str, Any]) -> None:
    llm = _over(server, recording)
    server.answer_json(recording["response"], headers=recording["headers"])
    answer = await llm.query(f"gigachat/{recording['request']['model']}", prompt="hi")
    _compare(answer, _read(recording["response"]))
    assert answer.raw == recording["response"]
    assert answer.receipt.attempts[0].model_served == recording["response"]["model"]
    assert server.requests[1].headers["authorization"] == "Bearer a-token"


@pytest.mark.parametrize("split", [False, True], ids=["at once", "in pieces"])
@pytest.mark.parametrize("recording", _of("/chat/completions", streams=True))
async def test_stream(server: ScriptedServer, recording: dict[str, Any], split: bool) -> None:
    llm = _over(server, recording)
    text = recording["response_text"].encode()
    pieces = [text[position : position + 7] for position in range(0, len(text), 7)] if split else [text]
    server.answer(*pieces, headers=recording["headers"], framing="chunked")
    async with llm.stream(f"gigachat/{recording['request']['model']}", prompt="hi") as stream:
        said = [piece async for piece in stream]
    events = [json.loads(line[6:]) for line in recording["response_text"].splitlines() if line.startswith("data: {")]
    assert said == [text for text in (_read(event)["content"] for event in events) if text]
    whole = {**_read(events[-1]), "content": "".join(said)}
    _compare(stream.response, whole)


@pytest.mark.parametrize("recording", _of("/chat/completions", status=404))
async def test_error(server: ScriptedServer, recording: dict[str, Any]) -> None:
    llm = _over(server, recording)
    server.answer_json(recording["response"], status=404, headers=recording["headers"])
    with pytest.raises(ModelNotFoundError, match="No such model"):
        await llm.query(f"gigachat/{recording['request']['model']}", prompt="hi")


@pytest.mark.parametrize("recording", [*_of("/models"), *_of("/tokens/count")])
async def test_beside_the_chat(server: ScriptedServer, recording: dict[str, Any]) -> None:
    row = attrs.evolve(PROVIDER_CONFIGS["gigachat"], base_url=f"{server.url}/api/v1", api_key="a-token")
    provider = GigaChatProvider(row)
    provider.key_source = "GIGACHAT_ACCESS_TOKEN"
    server.answer_json(recording["response"], headers=recording["headers"])
    if recording["method"] == "GET":
        assert await provider.list_models() == [model["id"] for model in recording["response"]["data"]]
    else:
        asked = recording["request"]
        messages = [{"role": "user", "content": text} for text in asked["input"]]
        assert await provider.count_tokens(messages, asked["model"]) == sum(count["tokens"] for count in recording["response"])
        assert server.request.json == asked
    assert server.request.path == urlsplit(recording["url"]).path


@pytest.mark.parametrize("recording", _of("/chat/completions"))
def test_what_was_asked(server: ScriptedServer, recording: dict[str, Any]) -> None:
    """The same request, said in our messages."""
    asked = recording["request"]
    ModelRegistry.register(f"gigachat/{asked['model']}", ModelConfig(capabilities=["chat", "json_schema"]))
    address = server.url + urlsplit(recording["url"]).path.partition("/chat/completions")[0]
    llm = QueryLLM(LLMConfig(environment={"GIGACHAT_API_BASE": address, "GIGACHAT_API_KEY": KEY}))
    messages, options = _in_our_words(asked)
    plan = llm.plan(f"gigachat/{asked['model']}", messages, **options)
    # The state of functions is in answers only, and no message of ours had been one.
    turns = [{name: value for name, value in turn.items() if name != "tools_state_id"} for turn in asked["messages"]]
    assert plan.body == {**asked, "messages": turns}
    assert server.requests == []


# From here on, only the format.


def _compare(answer: Any, expected: dict[str, Any]) -> None:
    usage = answer.usage
    found = {
        "content": answer.content,
        "finish": answer.finish_reason,
        "calls": [(call.name, call.arguments) for call in answer.tool_calls],
        "usage": (usage.input_tokens, usage.output_tokens, usage.cached_tokens),
    }
    assert found == {name: expected[name] for name in found}


def _read(content: dict[str, Any]) -> dict[str, Any]:
    """An answer or an event, of either version."""
    usage = content.get("usage") or {}
    if "choices" in content:
        choice = content["choices"][0]
        message = choice.get("message") or choice["delta"]
        text, calls = message["content"] or "", [message["function_call"]] if message.get("function_call") else []
        reason, cached = choice.get("finish_reason"), usage.get("precached_prompt_tokens")
        counts = (usage.get("prompt_tokens", 0) + (cached or 0), usage.get("completion_tokens"), cached)
    else:
        parts = [part for message in content.get("messages", ()) for part in message["content"]]
        text = "".join(part.get("text", "") for part in parts)
        calls = [part["function_call"] for part in parts if "function_call" in part]
        reason = content.get("finish_reason")
        details = usage.get("input_tokens_details", {})
        counts = (usage.get("input_tokens"), usage.get("output_tokens"), details.get("cached_tokens"))
    return {
        "content": text,
        "finish": {"function_call": "tool_calls"}.get(reason, reason),
        "calls": [(call["name"], call["arguments"]) for call in calls],
        "usage": counts,
    }


def _in_our_words(asked: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    messages: list[Any] = []
    for turn in asked["messages"]:
        parts = [{"text": turn["content"]}] if isinstance(turn["content"], str) else turn["content"]
        calls = [part["function_call"] for part in parts if "function_call" in part]
        for part in parts:
            if "function_result" in part:
                messages.append({"role": "tool", "tool_call_id": "c0", "content": json.dumps(part["function_result"]["result"])})
        if calls:
            made = [
                {"id": f"c{n}", "type": "function", "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])}}
                for n, call in enumerate(calls)
            ]
            messages.append({"role": "assistant", "content": None, "tool_calls": made})
        elif turn["role"] != "tool":
            messages.append({"role": turn["role"], "content": "".join(part["text"] for part in parts)})
    options: dict[str, Any] = {}
    if asked.get("stream"):
        options["stream"] = True
    wanted = asked.get("response_format") or asked.get("model_options", {}).get("response_format")
    if wanted and wanted["type"] == "json_schema":
        inner = {name: wanted[name] for name in ("schema", "strict") if name in wanted}
        options["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", **inner}}
    elif wanted:
        options["extra_body"] = {"model_options": {"response_format": wanted}}
    tools: list[Any] = []
    for tool in asked.get("tools", ()):
        if "functions" in tool:
            tools += [{"type": "function", "function": function} for function in tool["functions"]["specifications"]]
        else:
            tools.append(tool)
    if tools:
        options["tools"] = tools
    if config := asked.get("tool_config"):
        if "function_name" in config:
            options["tool_choice"] = {"type": "function", "function": {"name": config["function_name"]}}
        else:
            options.setdefault("extra_body", {})["tool_config"] = config
    return messages, options
