"""The same answer in the other wire formats, as their providers word it."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import accumulate, starmap
from typing import Any

from bench_support.wire import STREAM_HEAD, TEXT, WORDS, answer


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _events(contents: Iterable[Any]) -> bytes:
    return b"".join(b"data: " + _json(content) + b"\n\n" for content in contents)


def _named_events(contents: Iterable[Any]) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (content["type"].encode(), _json(content)) for content in contents)


@dataclass(frozen=True)
class WireFormat:
    """One of them.

    Attributes:
        label: Whose it is.
        provider_class: Who speaks it.
        path: What the path of its requests begins with, or, without a slash, what stands in it, in lower case.
        whole: The answer, of a text.
        stream: The body of a stream, of its pieces of text.
        streams: What stands in path or body of a request for a stream.
        row: What the row says beside.
        key: The key, where it is not the usual one.
    """

    label: str
    provider_class: str
    path: bytes
    whole: Callable[[str], Any]
    stream: Callable[[list[str]], bytes]
    streams: bytes = b'"stream":true'
    row: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None


_ANTHROPIC_USAGE = {
    "input_tokens": 87,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 94,
    "service_tier": "standard",
}
_ANTHROPIC: dict[str, Any] = {
    "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "stop_sequence": None,
}


def _anthropic(text: str) -> Any:
    return {**_ANTHROPIC, "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "usage": _ANTHROPIC_USAGE}


def _anthropic_stream(texts: list[str]) -> bytes:
    return _named_events(
        [
            {"type": "message_start", "message": {**_ANTHROPIC, "content": [], "stop_reason": None, "usage": _ANTHROPIC_USAGE}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in texts),
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 94}},
            {"type": "message_stop"},
        ]
    )


_GEMINI_USAGE = {
    "promptTokenCount": 87,
    "candidatesTokenCount": 94,
    "totalTokenCount": 181,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 87}],
    "thoughtsTokenCount": 0,
}


def _gemini(text: str, finish: str | None = "STOP") -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "usageMetadata": _GEMINI_USAGE, "modelVersion": "gemini-2.5-flash", "responseId": "ncrIaJfYHbm"}


_RESPONSES_USAGE = {
    "input_tokens": 87,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 94,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 181,
}


def _responses(text: str, status: str = "completed") -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"id": "msg_68a1", "type": "message", "status": status, "role": "assistant", "content": [part]}
    done = status == "completed"
    return {
        "id": "resp_68a1",
        "object": "response",
        "created_at": 1767225600,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": "gpt-4o-mini-2024-07-18",
        "output": [item] if done else [],
        "usage": _RESPONSES_USAGE if done else None,
    }


def _responses_stream(texts: list[str]) -> bytes:
    text, where = "".join(texts), {"item_id": "msg_68a1", "output_index": 0, "content_index": 0}
    item = _responses(text)["output"][0]
    begun = {**item, "status": "in_progress", "content": []}
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    contents = [
        {"type": "response.created", "response": _responses("", "in_progress")},
        {"type": "response.in_progress", "response": _responses("", "in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": begun},
        {"type": "response.content_part.added", **where, "part": part},
        *({"type": "response.output_text.delta", **where, "delta": piece, "logprobs": [], "obfuscation": "AbCdEfGh"} for piece in texts),
        {"type": "response.output_text.done", **where, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **where, "part": {**part, "text": text}},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": _responses(text)},
    ]
    return _named_events({**content, "sequence_number": number} for number, content in enumerate(contents))


_YANDEX_USAGE = {
    "inputTextTokens": "87",
    "completionTokens": "94",
    "totalTokens": "181",
    "completionTokensDetails": {"reasoningTokens": "0"},
}


def _yandex(text: str, status: str = "FINAL") -> dict[str, Any]:
    alternative = {"message": {"role": "assistant", "text": text}, "status": f"ALTERNATIVE_STATUS_{status}"}
    return {"result": {"alternatives": [alternative], "usage": _YANDEX_USAGE, "modelVersion": "23.10.2024"}}


def _yandex_stream(texts: list[str]) -> bytes:
    """Lines, of which each repeats all that was said before: a thousand pieces are megabytes."""
    said = list(accumulate(texts))
    return b"".join(_json(line) + b"\n" for line in (*(_yandex(text, "PARTIAL") for text in said), _yandex(said[-1])))


_COHERE_USAGE = {"billed_units": {"input_tokens": 80, "output_tokens": 90}, "tokens": {"input_tokens": 87, "output_tokens": 94}}


def _cohere(text: str) -> Any:
    message = {"role": "assistant", "content": [{"type": "text", "text": text}]}
    return {"id": "c14c80c3-18eb", "message": message, "finish_reason": "COMPLETE", "usage": _COHERE_USAGE}


def _cohere_stream(texts: list[str]) -> bytes:
    return _named_events(
        [
            {"type": "message-start", "id": "29f14a5a-11de", "delta": {"message": {"role": "assistant"}}},
            {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
            *({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": text}}}} for text in texts),
            {"type": "content-end", "index": 0},
            {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": _COHERE_USAGE}},
        ]
    )


def _ollama(text: str, *, done: bool = True) -> dict[str, Any]:
    said = {"model": "llama3.2", "created_at": "2026-11-01T10:00:00.123456Z", "message": {"role": "assistant", "content": text}}
    counts = {"done_reason": "stop", "total_duration": 4883583458, "prompt_eval_count": 87, "eval_count": 94, "eval_duration": 4799921000}
    return {**said, "done": done, **(counts if done else {})}


def _ollama_stream(texts: list[str]) -> bytes:
    return b"".join(_json(line) + b"\n" for line in [*(_ollama(text, done=False) for text in texts), _ollama("")])


_BEDROCK_USAGE = {"inputTokens": 87, "outputTokens": 94, "totalTokens": 181, "cacheReadInputTokens": 0, "cacheWriteInputTokens": 0}


def _bedrock(text: str) -> Any:
    message = {"role": "assistant", "content": [{"text": text}]}
    return {"output": {"message": message}, "stopReason": "end_turn", "usage": _BEDROCK_USAGE, "metrics": {"latencyMs": 900}}


def _bedrock_stream(texts: list[str]) -> bytes:
    contents: list[tuple[str, dict[str, Any]]] = [
        ("messageStart", {"role": "assistant", "p": "abcdefghij"}),
        *(("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}, "p": "abcdefghijklmnop"}) for text in texts),
        ("contentBlockStop", {"contentBlockIndex": 0, "p": "abc"}),
        ("messageStop", {"stopReason": "end_turn", "p": "abc"}),
        ("metadata", {"usage": _BEDROCK_USAGE, "metrics": {"latencyMs": 900}, "p": "abc"}),
    ]
    return b"".join(starmap(_frame, contents))


def _frame(name: str, payload: dict[str, Any]) -> bytes:
    headers = b""
    for header, value in ((":event-type", name), (":content-type", "application/json"), (":message-type", "event")):
        headers += struct.pack(">B", len(header)) + header.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
    body = _json(payload)
    lengths = struct.pack(">II", len(headers) + len(body) + 16, len(headers))
    message = lengths + struct.pack(">I", zlib.crc32(lengths)) + headers + body
    return message + struct.pack(">I", zlib.crc32(message))


_SIGNED_KEY = "aws-keys:AKIDEXAMPLE123456789:wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY:" + "IQoJb3JpZ2luX2Vj" * 40
_BEDROCK = WireFormat(
    "Bedrock's", "llm_master.providers.bedrock:BedrockProvider", b"converse", _bedrock, _bedrock_stream, streams=b"/converse-stream"
)

FORMATS: dict[str, WireFormat] = {
    "anthropic": WireFormat("Anthropic's", "llm_master.providers.anthropic:AnthropicProvider", b"/messages", _anthropic, _anthropic_stream),
    "cohere": WireFormat("Cohere's", "llm_master.providers.cohere:CohereProvider", b"/v2/chat", _cohere, _cohere_stream),
    "gemini": WireFormat(
        "Gemini's",
        "llm_master.providers.gemini:GeminiProvider",
        b"generatecontent",
        _gemini,
        lambda texts: _events([*(_gemini(text, None) for text in texts), _gemini("")]),
        streams=b":streamgeneratecontent",
    ),
    "ollama": WireFormat("Ollama's", "llm_master.providers.ollama:OllamaProvider", b"/api/chat", _ollama, _ollama_stream),
    "bedrock": _BEDROCK,
    # The same, each request signed with a temporary access key.
    "signed": replace(_BEDROCK, label="Bedrock's signed", key=_SIGNED_KEY, row={"region": "us-east-1"}),
    "responses": WireFormat("Responses'", "llm_master.providers.responses:ResponsesProvider", b"/responses", _responses, _responses_stream),
    "yandex": WireFormat(
        "YandexGPT's", "llm_master.providers.yandex:YandexProvider", b"/completion", _yandex, _yandex_stream, row={"folder_id": "b1g"}
    ),
}


def format_at(path: bytes) -> str | None:
    """The format whose requests go to a path in lower case; ``None`` for chat completions."""
    return next(
        (name for name, form in FORMATS.items() if path.startswith(form.path) or (b"/" not in form.path and form.path in path)), None
    )


@cache
def whole(name: str) -> bytes:
    """A whole HTTP answer."""
    return answer(_json(FORMATS[name].whole(TEXT)))


@cache
def whole_stream(name: str, count: int) -> bytes:
    """A stream with so many pieces of text, in one piece with its head."""
    body = FORMATS[name].stream([WORDS[position % len(WORDS)] for position in range(count)])
    return STREAM_HEAD + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
