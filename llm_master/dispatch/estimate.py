"""How many tokens a conversation has, without asking anybody.

No tokenizer is at hand for most models, and those there are want a download. What stands here is fitted to the counts that
providers returned for recorded requests; it is an estimate and called so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

_PER_MESSAGE = 4
_PER_REQUEST = 3
_MEDIA = {"image_url": 1000, "image": 1000, "input_image": 1000, "input_audio": 500, "file": 2000, "input_file": 2000, "document": 2000}
"""What a picture of usual size, some seconds of sound, a file of some pages come to with most providers."""


def text_tokens(text: str) -> int:
    """Tokens of a text: four letters of Latin script to a token, two thirds of a character of any other."""
    if text.isascii():
        return (len(text) + 3) // 4
    plain = sum(character < "\u0250" for character in text)
    return (plain + 3) // 4 + (len(text) - plain) * 2 // 3


def estimate_tokens(messages: Sequence[Mapping[str, Any]], tools: Any = None) -> int:
    """Tokens of a conversation with its tools."""
    total = _PER_REQUEST
    for message in messages:
        total += _PER_MESSAGE
        content = message.get("content")
        if isinstance(content, str):
            total += text_tokens(content)
        elif isinstance(content, Sequence):
            total += sum(map(_part_tokens, content))
        for call in message.get("tool_calls") or ():
            total += text_tokens(_as_text(call))
    return total + (text_tokens(_as_text(tools)) if tools else 0)


def _part_tokens(part: Any) -> int:
    if isinstance(part, str):
        return text_tokens(part)
    if not isinstance(part, Mapping):
        return 0
    text = part.get("text")
    return text_tokens(text) if isinstance(text, str) else _MEDIA.get(str(part.get("type")), 100)


def _as_text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def payload_tokens(payload: Any) -> int:
    """Tokens of all texts in what another operation than a chat is given."""
    if isinstance(payload, str):
        return text_tokens(payload)
    if isinstance(payload, Mapping):
        payload = payload.values()
    elif not isinstance(payload, Sequence):
        return 0
    return sum(map(payload_tokens, payload))
