"""A conversation in our messages, in those of Ollama's own API: content as one text, images beside it, arguments as objects.

Source: https://docs.ollama.com/api/chat
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_master.errors import InvalidRequestError
from llm_master.providers.turns import native_content, refuse_no_turns, tool_calls
from llm_master.types import Message

FORMAT = "ollama"
"""Under this name an answer keeps its thoughts for the next turn."""


def conversation(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as the API takes them.

    Raises:
        InvalidRequestError: A tool result without its call, or content that the API does not take.
    """
    turns: list[dict[str, Any]] = []
    # Of each call its name, which a result repeats: older servers know calls by nothing else.
    names: dict[str, str] = {}
    others = 0
    for position, message in enumerate(messages):
        role = message["role"]
        where = f"messages[{position}]"
        if role in ("system", "developer"):
            turns.append({"role": "system", **_content(message.get("content"), where)})
            continue
        others += 1
        if role in ("tool", "function"):
            call = str(message.get("tool_call_id"))
            if call not in names:
                raise InvalidRequestError(
                    f"{where} is the result of tool call {call!r}, and no message before it makes that call: "
                    "put the assistant's message with its tool_calls before the result"
                )
            turns.append({"role": "tool", **_content(message.get("content"), where), "tool_name": names[call], "tool_call_id": call})
        elif role == "assistant":
            turn = _assistant(message, where, names)
            if len(turn) > 2 or turn["content"]:  # one without a word is worth nothing to the model
                turns.append(turn)
        else:
            turns.append({"role": "user", **_content(message.get("content"), where)})
    refuse_no_turns([None] * others)
    return turns


def _assistant(message: Message, where: str, names: dict[str, str]) -> dict[str, Any]:
    turn = {"role": "assistant", **_content(message.get("content"), where)}
    thoughts = "".join(str(part.get("thinking") or "") for part in native_content(message, FORMAT, where) or ())
    if thoughts:
        turn["thinking"] = thoughts
    made: list[dict[str, Any]] = []
    for call, name, arguments in tool_calls(message, where):
        id = str(call.get("id"))
        names[id] = str(name)
        made.append({"id": id, "function": {"index": len(made), "name": name, "arguments": arguments}})
    if made:
        turn["tool_calls"] = made
    return turn


def _content(content: Any, where: str) -> dict[str, Any]:
    """``content`` and ``images`` of a message."""
    if content is None:
        return {"content": ""}
    if isinstance(content, str):
        return {"content": content}
    if not isinstance(content, Sequence):
        raise InvalidRequestError(f"{where}: content is a {type(content).__name__}: give a text or a list of parts")
    texts: list[str] = []
    images: list[str] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, Mapping):
            raise InvalidRequestError(f"{where}: a part of its content is a {type(part).__name__}: give a dict with a type")
        kind = part.get("type")
        if kind in ("text", "input_text"):
            texts.append(str(part.get("text", "")))
        elif kind == "refusal":
            texts.append(str(part.get("refusal", "")))
        elif kind == "image_url":
            images.append(_image(part.get("image_url"), where))
        else:
            raise InvalidRequestError(f"{where}: this API takes no {kind!r}, but only text and images")
    return {"content": "\n".join(texts), "images": images} if images else {"content": "\n".join(texts)}


def _image(link: Any, where: str) -> str:
    """The base64 of an image. A URL has been fetched, but for a plan, which shows it as it is."""
    url = link.get("url") if isinstance(link, Mapping) else link
    if not isinstance(url, str) or not url:
        raise InvalidRequestError(f"{where}: an image has no URL and no data")
    if not url.startswith("data:"):
        return url
    head, comma, data = url.partition(",")
    if not comma or not head.endswith("base64"):
        raise InvalidRequestError(f"{where}: a data URI must be data:TYPE;base64,DATA")
    return data
