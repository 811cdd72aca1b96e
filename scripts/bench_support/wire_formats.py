"""The same answer in the other wire formats, as their providers word it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from bench_support.wire import STREAM_HEAD, TEXT, WORDS, answer

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
_GEMINI_USAGE = {
    "promptTokenCount": 87,
    "candidatesTokenCount": 94,
    "totalTokenCount": 181,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 87}],
    "thoughtsTokenCount": 0,
}


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@cache
def whole(path_end: str) -> bytes:
    """An answer, for ``messages`` or ``generateContent``."""
    if path_end == "messages":
        content = [{"type": "text", "text": TEXT}]
        return answer(_json({**_ANTHROPIC, "content": content, "stop_reason": "end_turn", "usage": _ANTHROPIC_USAGE}))
    return answer(_json(_gemini(TEXT, finish="STOP")))


@cache
def whole_stream(path_end: str, count: int) -> bytes:
    """A stream with so many pieces of text, in one piece with its head."""
    texts = [WORDS[position % len(WORDS)] for position in range(count)]
    events = _anthropic_events(texts) if path_end == "messages" else [_gemini(text) for text in texts] + [_gemini("", finish="STOP")]
    named = path_end == "messages"
    body = b"".join((b"event: %s\n" % event["type"].encode() if named else b"") + b"data: " + _json(event) + b"\n\n" for event in events)
    return STREAM_HEAD + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"


def _anthropic_events(texts: list[str]) -> list[dict[str, Any]]:
    return [
        {"type": "message_start", "message": {**_ANTHROPIC, "content": [], "stop_reason": None, "usage": _ANTHROPIC_USAGE}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in texts),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 94}},
        {"type": "message_stop"},
    ]


def _gemini(text: str, *, finish: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "usageMetadata": _GEMINI_USAGE, "modelVersion": "gemini-2.5-flash", "responseId": "ncrIaJfYHbm"}
