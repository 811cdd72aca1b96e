"""What real providers really answered, served again over real HTTP.

What the library makes of it is compared with what the small reader at the end of this file makes of it, which is written
from the format alone and shares nothing with the library. The recordings are not part of the project; where their folder
is absent, this is skipped.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import openai
import pytest
from servers.scripted import ScriptedServer

import llm_master
from llm_master import PROVIDER_CONFIGS, LLMResponse, QueryLLM, StreamInterruptedError
from llm_master.testing import FakeClock

WIRE = Path(__file__).resolve().parents[2] / "shared" / "wire"
PROVIDERS = ("openai", "groq", "mistral", "deepseek", "cerebras", "openrouter", "huggingface", "zai", "ollama")
KEY = "sk-recorded-0123456789"

if not WIRE.is_dir():
    pytest.skip("the recordings are not here", allow_module_level=True)


class Sdk(openai.AsyncOpenAI):
    """No stock class, so that calls go through the SDK."""


def _recordings() -> dict[str, tuple[str, dict[str, Any]]]:
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for provider in PROVIDERS:
        path = WIRE / f"{provider}.jsonl"
        for line in path.read_text("utf-8").splitlines() if path.exists() else ():
            recording = json.loads(line)
            if "/chat/completions" not in recording["url"]:
                continue
            name = recording["id"]
            while name in found:
                name += "'"
            found[name] = provider, recording
    return found


RECORDINGS = _recordings()


def _of(kind: str) -> list[Any]:
    return [
        pytest.param(provider, recording, id=name)
        for name, (provider, recording) in RECORDINGS.items()
        if kind == ("error" if recording["status"] >= 400 else "stream" if recording["request"].get("stream") else "whole")
    ]


def test_there_are_recordings_of_every_kind() -> None:
    assert {provider for provider, _ in RECORDINGS.values()} == set(PROVIDERS)
    assert len(_of("whole")) > 100 and len(_of("stream")) > 20 and len(_of("error")) > 3


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto_advance=True)


@pytest.fixture
def llm(clock: FakeClock, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> QueryLLM:
    for provider in PROVIDERS:
        monkeypatch.setenv(f"{provider.upper()}_API_BASE", server.base_url)
        monkeypatch.setenv(f"{provider.upper()}_API_KEY", KEY)
    return QueryLLM(clock=clock)


@pytest.mark.parametrize(("provider", "recording"), _of("whole"))
async def test_whole_answer(llm: QueryLLM, server: ScriptedServer, provider: str, recording: dict[str, Any]) -> None:
    server.answer(json.dumps(recording["response"]), headers=recording["headers"])
    answer = await llm.query(**_as_said(provider, recording["request"]))
    _compare(answer, _read_whole(recording["response"]))
    assert answer.receipt.attempts[0].model_served == recording["response"]["model"]
    assert answer.raw == recording["response"]
    _check_request(server, recording["request"])


@pytest.mark.parametrize("split", [False, True], ids=["at once", "in pieces"])
@pytest.mark.parametrize(("provider", "recording"), _of("stream"))
async def test_stream(llm: QueryLLM, server: ScriptedServer, provider: str, recording: dict[str, Any], split: bool) -> None:
    text = recording["response_text"].encode()
    server.answer_sse(*(_awkward_pieces(text) if split else [text]), headers=recording["headers"])
    expected = _read_stream(recording["response_text"])
    stream = llm.stream(**_as_said(provider, recording["request"]))
    await _compare_stream(stream, expected)
    _check_request(server, recording["request"])


@pytest.mark.parametrize(("provider", "recording"), _of("error"))
async def test_error(llm: QueryLLM, server: ScriptedServer, clock: FakeClock, provider: str, recording: dict[str, Any]) -> None:
    server.answer(json.dumps(recording["response"]), status=recording["status"], headers=recording["headers"], times=None)
    error = recording["response"]["error"]
    expected = _error_class(recording["status"], error)
    with pytest.raises(llm_master.ProviderError) as caught:
        await llm.query(**_as_said(provider, recording["request"]))
    assert type(caught.value).__name__ == expected
    assert (caught.value.status, caught.value.provider) == (recording["status"], provider)
    assert error["message"] in str(caught.value) and provider in str(caught.value)
    assert caught.value.model == recording["request"]["model"]
    assert caught.value.code == str(error["code"] or error["type"])
    assert KEY not in f"{caught.value!r} {caught.value.receipt!r}"
    sends = len(server.requests)
    assert len(caught.value.receipt.attempts) == sends
    assert (sends > 1) is (expected == "RateLimitError")
    _check_request(server, recording["request"], sends)


@pytest.mark.parametrize("how", ["whole", "streamed"])
@pytest.mark.parametrize(("provider", "recording"), _of("whole"))
async def test_an_answer_goes_back_with_what_its_api_wants(
    llm: QueryLLM, server: ScriptedServer, provider: str, recording: dict[str, Any], how: str
) -> None:
    """Reasoning above all, as it came: also where it came in pieces, and after a time in a file."""
    message = recording["response"]["choices"][0]["message"]
    said = {**_as_said(provider, recording["request"]), "response_format": None}
    if how == "whole":
        server.answer(json.dumps(recording["response"]))
        answer = await llm.query(**said)
    else:
        server.answer_sse(_in_pieces(recording["response"]))
        async with llm.stream(**said) as stream:
            async for _ in stream:
                pass
        answer = stream.response
    server.answer(json.dumps(recording["response"]))
    results = [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in answer.tool_calls]
    messages = [*recording["request"]["messages"], json.loads(json.dumps(answer.message)), *results, {"role": "user", "content": "and?"}]
    await llm.query(**{**said, "messages": messages, "tools": None, "tool_choice": None})
    sent = server.requests[-1].json["messages"][len(recording["request"]["messages"])]
    expected: dict[str, Any] = {"role": "assistant", "content": message.get("content") or ("" if not answer.tool_calls else None)}
    wanted = {"deepseek": "reasoning_content", "zai": "reasoning_content", "openrouter": "reasoning_details"}.get(provider)
    if wanted and message.get(wanted):
        expected[wanted] = message[wanted]
    files = [note for note in message.get("annotations") or [] if note["type"] == "file"]
    if files and provider == "openrouter":
        expected["annotations"] = files
    calls = sent.pop("tool_calls", [])
    assert sent == expected
    assert [(call["id"], call["function"]) for call in calls] == [
        (call["id"], call["function"]) for call in message.get("tool_calls") or []
    ]


def _in_pieces(response: dict[str, Any]) -> str:
    """The stream that makes this answer, its texts in pieces of nine characters."""
    message = response["choices"][0]["message"]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]

    def cut(text: str) -> list[str]:
        return [text[at : at + 9] for at in range(0, len(text), 9)]

    for field in ("reasoning_content", "reasoning"):
        if not message.get("reasoning_details"):
            deltas += [{field: piece} for piece in cut(message.get(field) or "")]
    for detail in message.get("reasoning_details") or []:
        text = next((key for key in ("text", "summary") if detail.get(key)), None)
        if text is None:
            deltas.append({"reasoning_details": [detail]})
            continue
        head = {key: detail[key] for key in ("type", "format", "index", "id") if key in detail}
        deltas += [{"reasoning": piece, "reasoning_details": [{**head, text: piece}]} for piece in cut(detail[text])]
        if "signature" in detail:
            deltas.append({"reasoning_details": [{**head, text: "", "signature": detail["signature"]}]})
    content = message.get("content")
    if isinstance(content, str):
        deltas += [{"content": piece} for piece in cut(content)]
    for part in content if isinstance(content, list) else []:
        if part["type"] == "thinking":
            deltas += [
                {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": piece}]}]}
                for inner in part["thinking"]
                for piece in cut(inner["text"])
            ]
        else:
            deltas += [{"content": piece} for piece in cut(part["text"])]
    if message.get("annotations"):
        deltas.append({"annotations": message["annotations"]})
    deltas += [{"tool_calls": [{**call, "index": index}]} for index, call in enumerate(message.get("tool_calls") or [])]
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": response["choices"][0]["finish_reason"]}]})
    return "".join(f"data: {json.dumps({'model': response['model'], **chunk})}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


@pytest.mark.parametrize(("provider", "recording"), [*_of("stream"), *_of("whole")[::7]])
async def test_through_the_sdk(llm: QueryLLM, server: ScriptedServer, clock: FakeClock, provider: str, recording: dict[str, Any]) -> None:
    """A row with a ``client_class`` of the user's own reads the same out of the same answers."""
    row = PROVIDER_CONFIGS[provider]
    PROVIDER_CONFIGS[provider] = llm_master.ProviderConfig(client_class=Sdk, base_url=row.base_url, renames=row.renames)
    said = _as_said(provider, recording["request"])
    llm = QueryLLM(clock=clock)
    if recording["response"] is None:
        server.answer_sse(recording["response_text"], headers=recording["headers"])
        await _compare_stream(llm.stream(**said), _read_stream(recording["response_text"]))
    else:
        server.answer(json.dumps(recording["response"]), headers=recording["headers"])
        _compare(await llm.query(**said), _read_whole(recording["response"]))
    assert "AsyncOpenAI" in server.request.headers["user-agent"] or "Sdk" in server.request.headers["user-agent"]
    _check_request(server, recording["request"])


def _as_said(provider: str, request: dict[str, Any]) -> dict[str, Any]:
    """The recorded request as a user of the library would say it."""
    options = {name: value for name, value in request.items() if name not in ("model", "stream", "stream_options")}
    return {"model_name": f"{provider}/{request['model']}", **options}


def _check_request(server: ScriptedServer, recorded: dict[str, Any], sends: int = 1) -> None:
    """Every field that was recorded arrived as it was, and nothing else."""
    requests = server.requests
    assert len(requests) == sends
    for request in requests:
        sent = request.json
        asked_for_usage = sent.pop("stream_options", None)
        assert asked_for_usage in (None, {"include_usage": True})
        if "stream_options" in recorded:
            assert asked_for_usage == recorded["stream_options"]
        assert sent.pop("stream", False) == recorded.get("stream", False)
        expected = {name: value for name, value in recorded.items() if name not in ("stream", "stream_options")}
        assert sent == expected
        assert request.method == "POST" and request.path == "/v1/chat/completions"
        assert request.headers["authorization"] == f"Bearer {KEY}"


async def _compare_stream(stream: Any, expected: Expected) -> None:
    text = ""
    if expected.error is None:
        async for piece in stream:
            text += piece
    else:
        with pytest.raises(StreamInterruptedError) as caught:
            async for piece in stream:
                text += piece
        assert caught.value.code == expected.error["code"]
        assert expected.error["message"] in str(caught.value)
        assert type(caught.value.__cause__).__name__ == _error_class(expected.error["status_code"], expected.error)
        assert caught.value.response is stream.response
    assert text == expected.content
    _compare(stream.response, expected)


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
    assert usage.cost == expected.billed
    if expected.billed is not None:
        assert answer.cost == expected.billed
        assert answer.receipt.cost_state == "billed"
    assert [citation.raw for citation in answer.citations] == expected.citations


def _awkward_pieces(text: bytes) -> list[Any]:
    """Cut inside characters, between the line ends that part two events, inside ``data:``, and here and there."""
    cuts = {1, 2, 7, len(text) - 1, *range(997, len(text), 997)}
    inside = [place for place in range(1, len(text)) if text[place] & 0xC0 == 0x80]
    ends = [place + 1 for place in range(len(text)) if text.startswith(b"\n\n", place)]
    cuts |= {*inside[:8], *ends[:6], *(end + 3 for end in ends[6:10])}
    places = [0, *sorted(cut for cut in cuts if 0 < cut < len(text)), len(text)]
    pieces: list[Any] = []
    for start, end in zip(places, places[1:], strict=False):
        pieces += [0.001, text[start:end]]
    return pieces


# The reader: OpenAI's format, and the variants of it that are known, said as plainly as possible.


class Expected(NamedTuple):
    content: str
    reasoning: str | None
    tool_calls: list[tuple[str, str, dict[str, Any]]]
    finish_reason: str | None
    input: int | None = None
    output: int | None = None
    cached: int | None = None
    written: int | None = None
    thought: int | None = None
    billed: Decimal | None = None
    citations: list[Any] = []  # noqa: RUF012
    error: dict[str, Any] | None = None


def _read_whole(response: dict[str, Any]) -> Expected:
    choice = response["choices"][0]
    message = choice["message"]
    content, reasoning = _text(message)
    calls = [_tool_call(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or []]
    return Expected(content, reasoning or None, calls, choice["finish_reason"], *_usage(response.get("usage")), _citations(message))


def _read_stream(text: str) -> Expected:
    content = reasoning = ""
    finish_reason = usage = error = None
    calls: dict[int, list[str]] = {}
    citations: list[Any] = []
    for line in text.splitlines():
        if not line.startswith("data:") or line.strip() == "data: [DONE]":
            continue
        chunk = json.loads(line[5:])
        error = error or chunk.get("error")
        usage = chunk.get("usage") or usage
        for choice in chunk.get("choices", []):
            if choice["index"] != 0:
                continue
            finish_reason = choice["finish_reason"] or finish_reason
            more, thought = _text(choice["delta"])
            content += more
            reasoning += thought
            citations += _citations(choice["delta"])
            for call in choice["delta"].get("tool_calls") or []:
                parts = calls.setdefault(call["index"], ["", "", ""])
                parts[0] = parts[0] or call.get("id") or ""
                parts[1] = parts[1] or call["function"].get("name") or ""
                parts[2] += call["function"].get("arguments") or ""
    found = [_tool_call(*calls[index]) for index in sorted(calls)] if error is None else []
    return Expected(content, reasoning or None, found, finish_reason, *_usage(usage), citations, error)


def _text(message: dict[str, Any]) -> tuple[str, str]:
    content, reasoning = message.get("content"), message.get("reasoning_content") or message.get("reasoning") or ""
    if isinstance(content, list):  # parts: text, and thinking, which holds parts itself
        reasoning += "".join(inner["text"] for part in content if part["type"] == "thinking" for inner in part["thinking"])
        content = "".join(part["text"] for part in content if part["type"] == "text")
    return content or "", reasoning


def _tool_call(id: str, name: str, arguments: str) -> tuple[str, str, dict[str, Any]]:
    return id, name, json.loads(arguments or "{}")


def _usage(usage: dict[str, Any] | None) -> tuple[Any, ...]:
    if usage is None:
        return (None,) * 6
    given = usage.get("prompt_tokens_details") or {}
    wrote = usage.get("completion_tokens_details") or {}
    # In order: OpenAI's place for it, DeepSeek's, Moonshot's and Together's, Mistral's.
    places = (given.get("cached_tokens"), *(usage.get(name) for name in ("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens")))
    return (
        usage["prompt_tokens"],
        usage["total_tokens"] - usage["prompt_tokens"],  # whatever completion_tokens leaves out
        next((count for count in places if count is not None), None),
        given.get("cache_write_tokens"),
        wrote.get("reasoning_tokens", usage.get("reasoning_tokens")),
        Decimal(str(usage["cost"])) if "cost" in usage else None,
    )


def _citations(message: dict[str, Any]) -> list[Any]:
    noted = [note["url_citation"] for note in message.get("annotations") or [] if note["type"] == "url_citation"]
    found: dict[str, Any] = {}
    for tool in message.get("executed_tools") or []:
        for page in (tool.get("search_results") or {}).get("results") or []:
            found.setdefault(page["url"], page)
    return noted or list(found.values())


def _error_class(status: int, error: dict[str, Any]) -> str:
    if error.get("code") == "insufficient_quota":
        return "InsufficientFundsError"
    if error.get("code") == "context_length_exceeded":
        return "ContextWindowExceededError"
    if error.get("code") == "model_not_found":
        return "ModelNotFoundError"
    names = {401: "AuthenticationError", 402: "InsufficientFundsError", 403: "PermissionDeniedError", 404: "ModelNotFoundError"}
    return {**names, 429: "RateLimitError"}.get(status, "ServerError" if status >= 500 else "InvalidRequestError")
