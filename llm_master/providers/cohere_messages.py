"""A conversation in our messages, in those of Cohere's v2 chat, which are nearly OpenAI's.

Source: https://docs.cohere.com/reference/chat#request.body.messages
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llm_master.errors import InvalidRequestError
from llm_master.providers.turns import native_content, refuse_no_turns, tool_calls
from llm_master.types import Message

FORMAT = "cohere"
"""Under this name an answer keeps its thoughts, its plan and its citations for the next turn."""

_BESIDE = ("tool_plan", "citations")
"""What an assistant's message holds beside its content, and only this API knows."""

_KINDS = {
    "user": ("text", "image_url"),
    "assistant": ("text", "thinking"),
    "tool": ("text", "document"),
    "system": ("text",),
}
"""Which parts a message of a role may hold."""


def conversation(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as the API takes them.

    Raises:
        InvalidRequestError: A tool result without its call, or content that the API does not take.
    """
    turns: list[dict[str, Any]] = []
    calls: set[str] = set()
    others = 0
    for position, message in enumerate(messages):
        role = message["role"]
        where = f"messages[{position}]"
        if role in ("system", "developer"):
            turns.append({"role": "system", "content": _content(message.get("content"), "system", where)})
            continue
        others += 1
        if role in ("tool", "function"):
            call = str(message.get("tool_call_id"))
            if call not in calls:
                raise InvalidRequestError(
                    f"{where} is the result of tool call {call!r}, and no message before it makes that call: "
                    "put the assistant's message with its tool_calls before the result"
                )
            turns.append({"role": "tool", "tool_call_id": call, "content": _content(message.get("content"), "tool", where)})
        elif role == "assistant":
            turn = _assistant(message, where)
            calls.update(call["id"] for call in turn.get("tool_calls", ()))
            if len(turn) > 1:  # one without a word is worth nothing to the model
                turns.append(turn)
        else:
            turns.append({"role": "user", "content": _content(message.get("content"), "user", where)})
    refuse_no_turns([None] * others)
    return turns


def _assistant(message: Message, where: str) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": "assistant"}
    native = native_content(message, FORMAT, where)
    content = native if native is not None else _content(message.get("content"), "assistant", where)
    if content:
        turn["content"] = content
    beside = message["_native"] if native is not None else message
    turn |= {name: beside[name] for name in _BESIDE if beside.get(name)}
    made = []
    for call, name, arguments in tool_calls(message, where):
        text = call["function"].get("arguments") if arguments else "{}"
        if not isinstance(text, str):
            text = msgspec.json.encode(arguments).decode()
        made.append({"id": str(call.get("id")), "type": "function", "function": {"name": name, "arguments": text}})
    if made:
        turn["tool_calls"] = made
    return turn


def _content(content: Any, role: str, where: str) -> str | list[dict[str, Any]]:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise InvalidRequestError(f"{where}: content is a {type(content).__name__}: give a text or a list of parts")
    return [_part(part, role, where) for part in content]


def _part(part: Any, role: str, where: str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise InvalidRequestError(f"{where}: a part of its content is a {type(part).__name__}: give a dict with a type")
    kind = part.get("type")
    if kind in ("text", "input_text"):
        return {"type": "text", "text": part.get("text", "")}
    if kind == "refusal":
        return {"type": "text", "text": part.get("refusal", "")}
    if kind not in _KINDS[role]:
        raise InvalidRequestError(f"{where}: this API takes no {kind!r} from {role}, but only {' and '.join(_KINDS[role])}")
    if kind == "image_url" and isinstance(part.get("image_url"), str):
        return {"type": "image_url", "image_url": {"url": part["image_url"]}}
    return dict(part)
