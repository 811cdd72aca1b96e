"""A conversation in our messages, in Anthropic's: system apart, content in blocks, tool results in user turns.

Source: https://docs.anthropic.com/en/api/messages#body-messages. Whatever is no part of OpenAI's is taken for a block of
Anthropic's own and goes through as it is, with its ``cache_control``, its signature and its citations.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llm_master.errors import InvalidRequestError
from llm_master.providers.turns import native_content, refuse_no_turns, tool_calls
from llm_master.types import Message

FORMAT = "anthropic"
"""Under this name an answer keeps its own blocks for the next turn."""

_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")

Blocks = list[dict[str, Any]]


def conversation(messages: Sequence[Message], *, keeps_system_in_place: bool) -> tuple[str | Blocks | None, list[dict[str, Any]]]:
    """System instruction and turns.

    Args:
        messages: The conversation.
        keeps_system_in_place: Whether the model takes a system message amid the conversation; else it joins the first.

    Raises:
        InvalidRequestError: A tool result without its call, or content that the API does not take.
    """
    system: list[Any] = []
    turns: list[dict[str, Any]] = []
    calls: set[str] = set()
    for position, message in enumerate(messages):
        role = message["role"]
        where = f"messages[{position}]"
        if role in ("system", "developer"):
            blocks = _content(message, where)
            if turns and (keeps_system_in_place or any(block.get("type") != "text" for block in blocks)):
                turns.append({"role": "system", "content": blocks})
            elif isinstance(message.get("content"), str) and "cache_control" not in message:
                system.append(message["content"])
            else:
                system += blocks
        elif role in ("tool", "function"):
            _add_result(turns, message, where, calls)
        elif role == "assistant":
            blocks = _assistant(message, where)
            calls |= {str(block.get("id")) for block in blocks if block.get("type") == "tool_use"}
            if blocks:  # the API refuses a turn that is empty
                turns.append({"role": "assistant", "content": blocks})
        else:
            turns.append({"role": "user", "content": _user(message, where, calls)})
    refuse_no_turns(turns)
    return _system(system), turns


def _system(parts: list[Any]) -> str | Blocks | None:
    if not parts:
        return None
    if all(isinstance(part, str) for part in parts):
        return "\n\n".join(parts)
    return [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]


def _user(message: Message, where: str, calls: set[str]) -> str | Blocks:
    content = message.get("content")
    if isinstance(content, str) and "cache_control" not in message:
        return content
    blocks = _content(message, where)
    for block in blocks:
        if block.get("type") == "tool_result":
            _check_call(str(block.get("tool_use_id")), where, calls)
    return blocks


def _assistant(message: Message, where: str) -> Blocks:
    if (native := native_content(message, FORMAT, where)) is not None:
        return native
    blocks = _content(message, where)
    for call, name, arguments in tool_calls(message, where):
        blocks.append({"type": "tool_use", "id": _known_id(call.get("id")), "name": name, "input": arguments})
    return blocks


def _add_result(turns: list[dict[str, Any]], message: Message, where: str, calls: set[str]) -> None:
    """Results of parallel calls stand together in one user turn."""
    call = _known_id(message.get("tool_call_id"))
    _check_call(call, where, calls)
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": call}
    content = message.get("content")
    if isinstance(content, str):
        block["content"] = content
    elif content is not None:
        block["content"] = _content({"content": content}, where)
    for key in ("is_error", "cache_control"):
        if key in message:
            block[key] = message[key]
    last = turns[-1] if turns else None
    if (
        last is not None
        and last["role"] == "user"
        and isinstance(last["content"], list)
        and last["content"][-1].get("type") == "tool_result"
    ):
        last["content"].append(block)
    else:
        turns.append({"role": "user", "content": [block]})


def _known_id(name: Any) -> str:
    """A call's id in the letters that the API allows; another provider may have made it of others."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", str(name))


def _check_call(call: str, where: str, calls: set[str]) -> None:
    if call not in calls:
        raise InvalidRequestError(
            f"{where} is the result of tool call {call!r}, and no message before it makes that call: "
            "put the assistant's message with its tool_calls before the result"
        )


def _content(message: Mapping[str, Any], where: str) -> Blocks:
    content = message.get("content")
    if content is None or content == "":
        blocks: Blocks = []
    elif isinstance(content, str):
        blocks = [{"type": "text", "text": content}]
    elif isinstance(content, Sequence):
        blocks = [_block(part, where) for part in content]
    else:
        raise InvalidRequestError(f"{where}: content is a {type(content).__name__}: give a text or a list of parts")
    if "cache_control" in message and blocks:
        blocks[-1] = {**blocks[-1], "cache_control": message["cache_control"]}
    return blocks


def _block(part: Any, where: str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise InvalidRequestError(f"{where}: a part of its content is a {type(part).__name__}: give a dict with a type")
    kind = part.get("type")
    if kind == "input_text":
        return {**part, "type": "text"}
    if kind == "image_url":
        link = part.get("image_url")
        block = {"type": "image", "source": _source(link.get("url") if isinstance(link, Mapping) else link, where, _IMAGES)}
    elif kind == "file":
        file = part.get("file") or {}
        if file.get("file_id"):
            block = {"type": "document", "source": {"type": "file", "file_id": file["file_id"]}}
        else:
            block = {"type": "document", "source": _source(file.get("file_data"), where, ("application/pdf", "text/plain"))}
            if file.get("filename"):
                block["title"] = file["filename"]
    elif kind == "input_audio":
        raise InvalidRequestError(f"{where}: this API takes no audio")
    elif kind == "refusal":
        block = {"type": "text", "text": part.get("refusal", "")}
    else:
        return dict(part)
    if "cache_control" in part:
        block["cache_control"] = part["cache_control"]
    return block


def _source(url: Any, where: str, kinds: Sequence[str]) -> dict[str, Any]:
    if not isinstance(url, str) or not url:
        raise InvalidRequestError(f"{where}: an image or file has no URL and no data")
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, comma, data = url.partition(",")
    media, _, encoding = head.removeprefix("data:").partition(";")
    media = media.lower().replace("image/jpg", "image/jpeg")
    if not comma or not encoding.endswith("base64"):
        raise InvalidRequestError(f"{where}: a data URI must be data:TYPE;base64,DATA")
    if media not in kinds:
        raise InvalidRequestError(f"{where}: this API takes {', '.join(kinds)}, not {media}")
    if media == "text/plain":
        try:
            return {"type": "text", "media_type": media, "data": base64.b64decode(data, validate=True).decode()}
        except ValueError as exc:
            raise InvalidRequestError(f"{where}: the data of a text file is no UTF-8 text in base64: {exc}") from exc
    return {"type": "base64", "media_type": media, "data": data}
