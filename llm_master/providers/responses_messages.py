"""A conversation in our messages, in the items of the Responses API.

Source: https://platform.openai.com/docs/api-reference/responses/create#responses_create-input

System and developer messages stay items where they stand, each with its role, instead of becoming ``instructions``: so
their order and their parts are kept, and what is said once holds for the turns that follow by ``previous_response_id``,
which ``instructions`` do not. Whatever is no part of OpenAI's chat completions goes through as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llm_master.errors import InvalidRequestError
from llm_master.providers.turns import native_content
from llm_master.types import Message

FORMAT = "responses"
"""Under this name an answer keeps its own items for the next turn."""

Items = list[dict[str, Any]]


def conversation(messages: Sequence[Message], *, continued: bool, by: str = "") -> Items:
    """The ``input`` of a request.

    Args:
        messages: The conversation.
        continued: Whether the API keeps an earlier part of it, in which the calls of results may stand.
        by: Name of the provider's row: items that another's answers kept are unknown here, and said in our words instead.

    Raises:
        InvalidRequestError: A tool result without its call, or content that the API does not take.
    """
    items: Items = []
    calls: dict[str, str] = {}
    for position, message in enumerate(messages):
        role = message["role"]
        where = f"messages[{position}]"
        if message.get("type", "message") != "message":
            # An item of the API's own, with a role because every message has one here: no item's role is "tool".
            own = [{key: value for key, value in message.items() if key != "role" or value != "tool"}]
        elif role in ("tool", "function"):
            items.append(_result(message, where, calls, continued=continued))
            continue
        elif role == "assistant":
            own = _assistant(message, where, by)
        else:
            own = [{"role": role, "content": _content(message.get("content"), where)}]
        items += own
        for item in own:
            if "call_id" in item:
                calls[str(item["call_id"])] = str(item.get("type"))
    return items


def _assistant(message: Message, where: str, by: str) -> Items:
    if (native := native_content(message, FORMAT, where, by)) is not None:
        return native
    items: Items = []
    if content := message.get("content"):
        # Some servers tell an assistant's message from others by its type alone.
        item = {"type": "message", "role": "assistant", "content": _content(content, where, text="output_text")}
        if "phase" in message:
            item["phase"] = message["phase"]
        items.append(item)
    return items + [_call(call, where) for call in message.get("tool_calls") or ()]


def _call(call: Any, where: str) -> dict[str, Any]:
    kind = call.get("type", "function") if isinstance(call, Mapping) else None
    function = call.get(kind) if isinstance(kind, str) else None
    if not isinstance(function, Mapping):
        raise InvalidRequestError(f"{where}: a tool call is {call!r}: give a dict as an answer's message has it")
    if kind == "custom":
        return {"type": "custom_tool_call", "call_id": call.get("id"), "name": function.get("name"), "input": function.get("input") or ""}
    # As the model wrote them, even if that is no JSON: the conversation must be able to go on with it.
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments or {}).decode()
    return {"type": "function_call", "call_id": call.get("id"), "name": function.get("name"), "arguments": arguments}


def _result(message: Message, where: str, calls: Mapping[str, str], *, continued: bool) -> dict[str, Any]:
    call = str(message.get("tool_call_id"))
    if call not in calls and not continued:
        raise InvalidRequestError(
            f"{where} is the result of tool call {call!r}, and no message before it makes that call: put the assistant's message "
            "with its tool_calls before the result, or give previous_response_id"
        )
    # A call of one kind takes no result of another.
    kind = "custom_tool_call_output" if calls.get(call) == "custom_tool_call" else "function_call_output"
    return {"type": kind, "call_id": call, "output": _content(message.get("content"), where)}


def _content(content: Any, where: str, *, text: str = "input_text") -> str | Items:
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, Sequence):
        return [_part(part, where, text) for part in content]
    raise InvalidRequestError(f"{where}: content is a {type(content).__name__}: give a text or a list of parts")


def _part(part: Any, where: str, text: str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": text, "text": part}
    if not isinstance(part, Mapping):
        raise InvalidRequestError(f"{where}: a part of its content is a {type(part).__name__}: give a dict with a type")
    kind = part.get("type")
    if kind in ("text", "input_text"):
        return {**part, "type": text}
    if kind == "image_url":
        link = part.get("image_url")
        image = dict(link) if isinstance(link, Mapping) else {"url": link}
        if not isinstance(url := image.pop("url", None), str) or not url:
            raise InvalidRequestError(f'{where}: an image has no URL: give {{"type": "image_url", "image_url": {{"url": ...}}}}')
        return {"type": "input_image", "image_url": url, "detail": "auto", **image}
    if kind == "file":
        return _file(part.get("file"), where)
    if kind == "input_audio":
        raise InvalidRequestError(f"{where}: the Responses API takes no audio: ask a model that hears over chat completions")
    return dict(part)


def _file(file: Any, where: str) -> dict[str, Any]:
    if not isinstance(file, Mapping) or not any(file.get(key) for key in ("file_data", "file_id", "file_url")):
        raise InvalidRequestError(f"{where}: a file has no content: give it file_data, file_id or file_url")
    item = {"type": "input_file", **file}
    if str(file.get("file_data") or "").startswith(("https://", "http://")):
        item["file_url"] = item.pop("file_data")
        item.pop("filename", None)  # its address has one
    return item
