"""LangChain's messages as those of OpenAI's chat completions, which every provider's translation reads.

Source of the shapes: ``langchain_core.messages`` and ``langchain_core.messages.content`` (standard content blocks, version 1).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage

from llm_master.errors import InvalidRequestError
from llm_master.messages import MediaPolicy, has_media, normalized
from llm_master.messages.parts import pending_in

NATIVE = "_native"
"""Where an answer's own form is kept in ``additional_kwargs``; it has the same name in the messages of ``QueryLLM``."""

_ROLES: tuple[tuple[type, str], ...] = ((SystemMessage, "system"), (HumanMessage, "user"), (AIMessage, "assistant"), (ToolMessage, "tool"))

_LANGCHAINS_OWN = ("id", "index", "annotations", "extras")
"""Keys of a standard block by which LangChain keeps books, and which no API takes."""

_NOT_SENT = frozenset(
    "reasoning thinking redacted_thinking tool_call tool_call_chunk invalid_tool_call tool_use function_call server_tool_call "
    "server_tool_call_chunk server_tool_result".split()
)
"""Blocks of an assistant's turn that its ``tool_calls`` say as well, or that only their provider understands, who has them in its native form."""


_ANY_SIZE = MediaPolicy(max_bytes=2**62)
"""What is too big is said when it is sent, by what the provider takes."""


def to_conversation(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """The conversation as ``QueryLLM`` takes it.

    Raises:
        InvalidRequestError: A message, or a content block, of a kind that cannot be sent; a block that names a file of this machine.
    """
    conversation = [_message(message, f"messages[{position}]") for position, message in enumerate(messages)]
    _refuse_paths(conversation)
    return conversation


def _refuse_paths(conversation: list[dict[str, Any]]) -> None:
    """Refuse what ``QueryLLM`` would read from this machine's files.

    There a program names its own files. LangChain's blocks have no word for a path, and often are what a user of the program sent.
    """
    if not has_media(conversation):
        return
    for message in normalized(conversation, _ANY_SIZE):
        content = message["content"]
        for part in content if isinstance(content, list) else ():
            if (pending := pending_in(part)) is not None and not pending.is_url:
                raise pending.item.refused(
                    "is a path, and files of this machine are not read for a block: give base64 with mime_type, or an http(s) URL"
                )


def _message(message: BaseMessage, where: str) -> dict[str, Any]:
    role = message.role if isinstance(message, ChatMessage) else next((role for kind, role in _ROLES if isinstance(message, kind)), None)
    if role is None:
        raise InvalidRequestError(
            f"{where} is a {type(message).__name__}, which no model can be sent: give a SystemMessage, HumanMessage, AIMessage, ToolMessage or ChatMessage"
        )
    said: dict[str, Any] = {"role": role, "content": _content(message, where)}
    if message.name:
        said["name"] = message.name
    if isinstance(message, ToolMessage):
        # Its status is not sent: most APIs have no field for it, and what went wrong stands in the content.
        said["tool_call_id"] = message.tool_call_id
    elif isinstance(message, AIMessage):
        if calls := list(_tool_calls(message)):
            said["tool_calls"] = calls
            said["content"] = said["content"] or None
        if (native := message.additional_kwargs.get(NATIVE)) is not None:
            said["_native"] = native
    return said


def _tool_calls(message: AIMessage) -> Iterator[dict[str, Any]]:
    for call in message.tool_calls:
        yield _tool_call(call["id"], call["name"], msgspec.json.encode(call["args"]).decode())
    for broken in message.invalid_tool_calls:
        # What the model wrote was no JSON object, and no API takes it back; that the call was made must stay for its result to refer to.
        yield _tool_call(broken["id"], broken["name"], "{}")


def _tool_call(id: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    return {"id": id or "", "type": "function", "function": {"name": name or "", "arguments": arguments}}


def _content(message: BaseMessage, where: str) -> Any:
    if isinstance(message.content, str):
        return message.content
    parts = []
    for position, block in enumerate(message.content):
        if isinstance(block, str):
            if block:
                parts.append({"type": "text", "text": block})
        elif not (isinstance(message, AIMessage) and block.get("type") in _NOT_SENT):
            parts.append(_part(block, f"{where}.content[{position}]"))
    # An assistant's turn of text alone is a text for every API; a list is not.
    if isinstance(message, AIMessage) and all(part.get("type") == "text" and len(part) == 2 for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A content block as a part. What is no standard block of LangChain's is a provider's own, and stays as it is."""
    kind = block.get("type")
    if kind == "non_standard" and isinstance(block.get("value"), Mapping):
        return dict(block["value"])
    translate = _TRANSLATIONS.get(kind) if isinstance(kind, str) else None
    # With a source or an inner dict of its own, it is an API's block that has only its type's name in common.
    if translate is None or isinstance(block.get("source"), Mapping) or isinstance(block.get(str(kind)), Mapping):
        return dict(block)
    part = translate(block, where)
    extras = block.get("extras") or {}
    return {**part, **{name: given[name] for given in (extras, block) for name in ("cache_control",) if name in given}}


def _text(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key not in _LANGCHAINS_OWN}


def _plain_text(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    text = block.get("text")
    if text is None and (data := _base64(block)) is not None:
        try:
            text = base64.b64decode(data, validate=True).decode()
        except ValueError:
            raise InvalidRequestError(
                f"{where}: a block of type 'text-plain' has content that is no UTF-8 text in base64: give text"
            ) from None
    if text is None:
        return _file(block, where)
    title = block.get("title")
    return {"type": "text", "text": f"{title}:\n{text}" if title else text}


def _image(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    if block.get("file_id"):
        return {"type": "input_image", "file_id": block["file_id"]}
    detail = block.get("detail") or (block.get("extras") or {}).get("detail")
    part: dict[str, Any] = {"type": "image", "image": _source(block, where)}
    return {**part, "detail": detail} if detail else part


def _audio(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {"type": "audio", "source": _source(block, where)}


def _video(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": _source(block, where)}}


def _file(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    if block.get("file_id"):
        return {"type": "file", "file": {"file_id": block["file_id"]}}
    extras = block.get("extras") or block.get("metadata") or {}
    name = block.get("filename") or extras.get("filename") or extras.get("name")
    named = {"filename": name} if name else {}
    source = _source(block, where)
    return {"type": "file", "file_data" if source.startswith("data:") else "url": source, **named}


def _source(block: Mapping[str, Any], where: str) -> str:
    """The URL of a block, or its content as a ``data:`` URI."""
    if isinstance(block.get("url"), str):
        return str(block["url"])
    data = _base64(block)
    if data is None:
        raise InvalidRequestError(f"{where}: a block of type {block['type']!r} has no content: give url, base64 with mime_type, or file_id")
    # Where its media type is not said, what the bytes are tells.
    return f"data:{block.get('mime_type') or 'application/octet-stream'};base64,{data}"


def _base64(block: Mapping[str, Any]) -> str | None:
    """In blocks of version 0 it stands under ``data``."""
    data = block.get("base64") or block.get("data")
    return data if isinstance(data, str) and data else None


_TRANSLATIONS: dict[str, Callable[[Mapping[str, Any], str], dict[str, Any]]] = {
    "text": _text,
    "text-plain": _plain_text,
    "image": _image,
    "audio": _audio,
    "video": _video,
    "file": _file,
}
