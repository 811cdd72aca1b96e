"""The bytes that the upstream answers with, as a well-known API words them, and what the clients ask."""

from __future__ import annotations

import base64
import json
import struct
from functools import cache
from typing import Any

MODEL = "gpt-4o-mini"
KEY = "bench-key-of-ordinary-length-0123456789"
MESSAGES: list[Any] = [{"role": "user", "content": "Why do services limit the rate of requests, and what should a client do about it?"}]

TEXT = (
    "A rate limit keeps one client from taking what belongs to all. A token bucket fills at a fixed rate and lets a "
    "short burst through; a sliding window counts what came in the last interval and is stricter at its borders. A "
    "client does best to pace its requests evenly, to honour the Retry-After header, and to add jitter to its back-off, "
    "so that many workers do not wake in the same instant.\n\n1. Pace requests.\n2. Honour Retry-After.\n3. Add jitter."
)
WORDS = (" token", " rate", " limit", " the", " a", " window", ",", " bucket", " of", " requests")

_USAGE = {
    "prompt_tokens": 87,
    "completion_tokens": 94,
    "total_tokens": 181,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
_COMMON = {"id": "chatcmpl-C8ZJ2wYf3w8k3pQm1aXyBvTn5sDgH", "created": 1767225600, "model": "gpt-4o-mini-2024-07-18"}
_SERVER = {"service_tier": "default", "system_fingerprint": "fp_560af6e559"}
_HEADERS = (
    b"date: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: bench\r\nx-request-id: req_5f1c0a7e2b9d4c3f\r\n"
    b"openai-processing-ms: 412\r\nopenai-version: 2020-10-01\r\n"
    b"x-ratelimit-limit-requests: 10000\r\nx-ratelimit-limit-tokens: 200000\r\n"
    b"x-ratelimit-remaining-requests: 9999\r\nx-ratelimit-remaining-tokens: 199900\r\n"
    b"x-ratelimit-reset-requests: 6ms\r\nx-ratelimit-reset-tokens: 30ms\r\n"
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n" + _HEADERS + b"\r\n"


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def answer(body: bytes) -> bytes:
    """A whole HTTP answer with a JSON body."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % len(body) + _HEADERS + b"\r\n" + body


@cache
def completion() -> bytes:
    """The answer to a chat completion: 1.1 kB of JSON."""
    message: dict[str, Any] = {"role": "assistant", "content": TEXT, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return answer(_json({**_COMMON, "object": "chat.completion", "choices": [choice], "usage": _USAGE, **_SERVER}))


@cache
def events(count: int) -> tuple[bytes, ...]:
    """The HTTP chunks of a stream with so many pieces of text: first the role, last finish, usage and end."""
    texts = [_event({"content": WORDS[position % len(WORDS)]}) for position in range(count)]
    role = _event({"role": "assistant", "content": "", "refusal": None})
    end = _http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return (role, *texts, _event({}, finish="stop"), _event(None, usage=_USAGE) + end)


@cache
def whole_stream(count: int) -> bytes:
    """The same in one piece, with its head."""
    return STREAM_HEAD + b"".join(events(count))


def _event(delta: dict[str, Any] | None, *, finish: str | None = None, usage: dict[str, Any] | None = None) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    body = {**_COMMON, "object": "chat.completion.chunk", **_SERVER, "choices": choices, "usage": usage}
    return _http_chunk(b"data: " + _json(body) + b"\n\n")


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


@cache
def embeddings(count: int) -> bytes:
    """The answer to so many inputs: vectors of 1,536 numbers in base64, as it is given to whoever asks for that."""
    vector = base64.b64encode(struct.pack("<1536f", *(number / 1536 for number in range(1536)))).decode()
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(count)]
    usage = {"prompt_tokens": 18 * count, "total_tokens": 18 * count}
    return answer(_json({"object": "list", "data": data, "model": "text-embedding-3-small", "usage": usage}))
