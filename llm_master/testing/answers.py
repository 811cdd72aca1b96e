"""The bodies that a fault server sends, in the shapes of OpenAI's API.

Source: https://platform.openai.com/docs/api-reference/chat, /chat-streaming, /embeddings/create, /models/list,
https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

CREATED = 1_700_000_000
"""``created`` of every answer: the same at every run."""

DIMENSIONS = 8
"""Numbers of a vector, unless the request says how many."""

DONE = b"data: [DONE]\n\n"

GARBAGE_JSON = b'{"id": "chatcmpl-1", "choices": [{"index": 0, "mess'
GARBAGE_HTTP = b"\x16\x03\x01 this is no HTTP\r\n\r\n\x00\xff"

_KINDS = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    402: ("insufficient_quota", "insufficient_quota"),
    403: ("permission_error", None),
    404: ("invalid_request_error", "model_not_found"),
    408: ("timeout", None),
    409: ("conflict", None),
    413: ("invalid_request_error", "request_too_large"),
    429: ("requests", "rate_limit_exceeded"),
    503: ("service_unavailable", None),
    529: ("overloaded_error", None),
}


def tokens_of(text: str) -> int:
    """One for every four characters, the last rounded up."""
    return (len(text) + 3) // 4


def texts_of(body: Mapping[str, Any], field: str) -> list[str]:
    """The texts of a request: of each of its ``messages``, or each ``input``. Images and audio have none.

    Raises:
        ValueError: The field is missing or is of another form; the message says so.
    """
    if field == "input":
        given = body.get("input")
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
            raise ValueError("'input' must be a non-empty string, or a list of such")
        return texts
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) and "role" in message for message in messages):
        raise ValueError("'messages' must be a non-empty list of objects with 'role' and 'content'")
    return [_text(message.get("content")) for message in messages]


def last_question(body: Mapping[str, Any]) -> str:
    """The text of the last message of the user; of the last message, if there is none."""
    messages = body["messages"]
    return _text(next((message for message in reversed(messages) if message["role"] == "user"), messages[-1]).get("content"))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def usage(input_tokens: int, output_tokens: int) -> dict[str, int]:
    """Usage of a chat answer."""
    return {"prompt_tokens": input_tokens, "completion_tokens": output_tokens, "total_tokens": input_tokens + output_tokens}


def chat(number: int, model: str, text: str, used: Mapping[str, Any]) -> bytes:
    """A whole chat answer. An empty ``used`` is left out."""
    answer: dict[str, Any] = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
    }
    if used:
        answer["usage"] = used
    return msgspec.json.encode(answer)


def chat_events(number: int, model: str, text: str, used: Mapping[str, Any] | None) -> Iterator[bytes]:
    """The events of a chat answer: the role, a word each, the reason of the end, the usage unless ``None``, ``[DONE]``."""
    head = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": CREATED, "model": model}

    def event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        return _event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})

    yield event({"role": "assistant", "content": ""})
    for word in re.findall(r"\S*\s*", text):
        if word:
            yield event({"content": word})
    yield event({}, "stop")
    if used is not None:
        yield _event({**head, "choices": [], "usage": used})
    yield DONE


def _event(content: Any) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(content)


def embeddings(model: str, texts: Iterable[str], body: Mapping[str, Any], used: Mapping[str, Any]) -> bytes:
    """Vectors, in the encoding that the request wants. Equal texts have equal vectors, and others have others."""
    size = body.get("dimensions") or DIMENSIONS
    data = []
    for index, text in enumerate(texts):
        vector: Any = _vector(text, size)
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    answer: dict[str, Any] = {"object": "list", "data": data, "model": model}
    if used:
        answer["usage"] = used
    return msgspec.json.encode(answer)


def _vector(text: str, size: int) -> list[float]:
    # Sixteen bits each, which a 32-bit float holds exactly.
    digest = hashlib.shake_128(text.encode()).digest(2 * size)
    return [number / 0x10000 for number in struct.unpack(f"<{size}H", digest)]


def models(names: Iterable[str]) -> bytes:
    """The list of models."""
    listed = [{"id": name, "object": "model", "created": CREATED, "owned_by": "fault-server"} for name in names]
    return msgspec.json.encode({"object": "list", "data": listed})


def error(status: int, message: str | None = None, *, code: str | None = None, param: str | None = None) -> bytes:
    """An error that fits the status."""
    kind, known_code = _KINDS.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    said = message or f"The fault server's script answers this request with {status}."
    return msgspec.json.encode({"error": {"message": said, "type": kind, "param": param, "code": code or known_code}})
