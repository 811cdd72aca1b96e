"""A conversation in our messages, in Bedrock's: system apart, turns that alternate, content in blocks.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Message.html, .../API_runtime_ContentBlock.html.
Whatever is no part of OpenAI's is taken for a block of Bedrock's own, as ``{"guardContent": ...}``, and goes through as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llm_master.errors import InvalidRequestError
from llm_master.providers.turns import native_content, refuse_no_turns, tool_calls
from llm_master.types import Message

FORMAT = "bedrock"
"""Under this name an answer keeps its own blocks for the next turn."""

IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"}

DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}

VIDEOS = {
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/quicktime": "mov",
    "video/x-matroska": "mkv",
    "video/mpeg": "mpeg",
    "video/x-flv": "flv",
    "video/x-ms-wmv": "wmv",
    "video/3gpp": "three_gp",
}
"""Media types that the API takes, and what it calls them."""

_S3 = "s3://"

Blocks = list[dict[str, Any]]


def conversation(messages: Sequence[Message]) -> tuple[Blocks, list[dict[str, Any]]]:
    """System instruction and turns.

    A system message amid the conversation, for which the API has no place, joins the first. Turns of one side that follow each
    other are made one, since the API wants them to alternate; so results of parallel calls stand together.

    Raises:
        InvalidRequestError: Content that the API does not take.
    """
    system: Blocks = []
    turns: list[dict[str, Any]] = []
    for position, message in enumerate(messages):
        role = message["role"]
        where = f"messages[{position}]"
        if role in ("system", "developer"):
            system += _content(message, where)
        elif role == "assistant":
            _join(turns, "assistant", _assistant(message, where))
        elif role in ("tool", "function"):
            _join(turns, "user", _result(message, where))
        else:
            _join(turns, "user", _content(message, where))
    refuse_no_turns(turns)
    return system, turns


def has_tools(turns: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a tool has been called in these turns."""
    return any("toolUse" in block or "toolResult" in block for turn in turns for block in turn["content"])


def cache_point(control: Any) -> dict[str, Any]:
    """The block that stands behind what is to be cached.

    Source: https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """
    point = {"type": "default"}
    if isinstance(control, Mapping) and isinstance(ttl := control.get("ttl"), str):
        point["ttl"] = ttl
    return {"cachePoint": point}


def _join(turns: list[dict[str, Any]], role: str, blocks: Blocks) -> None:
    if not blocks:  # the API refuses a turn that is empty
        return
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    else:
        turns.append({"role": role, "content": blocks})


def _assistant(message: Message, where: str) -> Blocks:
    blocks = native_content(message, FORMAT, where)
    if blocks is None:
        blocks = _content(message, where)
        blocks += [
            {"toolUse": {"toolUseId": _known_id(call.get("id")), "name": name, "input": arguments}}
            for call, name, arguments in tool_calls(message, where)
        ]
    # A turn of thoughts alone counts as the beginning of an answer, which newer models do not go on with.
    return blocks if any("reasoningContent" not in block for block in blocks) else []


def _result(message: Message, where: str) -> Blocks:
    blocks = _content({"content": message.get("content")}, where)
    result: dict[str, Any] = {"toolUseId": _known_id(message.get("tool_call_id")), "content": blocks}
    if message.get("is_error"):
        result["status"] = "error"
    after = [cache_point(message["cache_control"])] if message.get("cache_control") else []
    return [{"toolResult": result}, *after]


def _known_id(name: Any) -> str:
    """A call's id in the letters and the length that all models take; another provider may have made it otherwise."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", str(name))[-64:]


def _content(message: Mapping[str, Any], where: str) -> Blocks:
    content = message.get("content")
    blocks: Blocks = []
    if isinstance(content, str):
        if content.strip():  # the API refuses a blank text
            blocks.append({"text": content})
    elif isinstance(content, Sequence):
        for part in content:
            blocks += _blocks(part, where)
    elif content is not None:
        raise InvalidRequestError(f"{where}: content is a {type(content).__name__}: give a text or a list of parts")
    if message.get("cache_control") and blocks and "cachePoint" not in blocks[-1]:
        blocks.append(cache_point(message["cache_control"]))
    return blocks


def _blocks(part: Any, where: str) -> Blocks:
    """The blocks of one part: none of a blank text, two where it ends what is to be cached."""
    if isinstance(part, str):
        return [{"text": part}] if part.strip() else []
    if not isinstance(part, Mapping):
        raise InvalidRequestError(f"{where}: a part of its content is a {type(part).__name__}: give a dict with a type")
    kind = part.get("type")
    if kind in ("text", "input_text", "refusal"):
        text = str(part.get("refusal" if kind == "refusal" else "text") or "")
        blocks: Blocks = [{"text": text}] if text.strip() else []
    elif kind == "image_url":
        link = part.get("image_url")
        blocks = [_media("image", link.get("url") if isinstance(link, Mapping) else link, IMAGES, where)]
    elif kind == "file":
        blocks = [_file(part.get("file"), where)]
    elif kind == "input_audio":
        audio = part.get("input_audio")
        if not isinstance(audio, Mapping) or not audio.get("data"):
            raise InvalidRequestError(f"{where}: an audio part has no data")
        blocks = [{"audio": {"format": audio.get("format") or "wav", "source": {"bytes": audio["data"]}}}]
    elif kind is None:
        blocks = [dict(part)]  # one of Bedrock's own
    else:
        raise InvalidRequestError(f"{where}: a part of type {kind!r} is not known here: give text, image_url, file or input_audio")
    if part.get("cache_control") and blocks:
        blocks.append(cache_point(part["cache_control"]))
    return blocks


def _file(file: Any, where: str) -> dict[str, Any]:
    if not isinstance(file, Mapping) or not isinstance(data := file.get("file_data"), str) or not data:
        raise InvalidRequestError(f"{where}: a file has no data, and this API keeps no files: give file_data, or an s3:// address")
    if data.removeprefix("data:").startswith("video/"):
        return _media("video", data, VIDEOS, where)
    name = str(file.get("filename") or "document")
    if data.startswith(_S3):
        stem, _, ending = data.rpartition("/")[2].rpartition(".")
        return {"document": {"format": ending or "pdf", "name": _document_name(stem or name), "source": {"s3Location": {"uri": data}}}}
    block = _media("document", data, DOCUMENTS, where)
    block["document"]["name"] = _document_name(name)
    return block


def _document_name(name: str) -> str:
    """A name in the characters that the API allows."""
    return " ".join(re.sub(r"[^a-zA-Z0-9\s()\[\]-]", "-", name.rpartition(".")[0] or name).split())[:200] or "document"


def _media(kind: str, url: Any, known: Mapping[str, str], where: str) -> dict[str, Any]:
    if not isinstance(url, str) or not url:
        raise InvalidRequestError(f"{where}: {'an' if kind == 'image' else 'a'} {kind} has no URL and no data")
    if url.startswith(_S3):
        ending = url.rpartition(".")[2].lower()
        return {kind: {"format": "jpeg" if ending == "jpg" else ending, "source": {"s3Location": {"uri": url}}}}
    head, comma, data = url.partition(",")
    media, _, encoding = head.removeprefix("data:").partition(";")
    if not url.startswith("data:") or not comma or not encoding.endswith("base64"):
        raise InvalidRequestError(f"{where}: {kind} data must be data:TYPE;base64,DATA, or at an s3:// address")
    form = known.get(media.lower())
    if form is None:
        raise InvalidRequestError(f"{where}: this API takes {', '.join(known)}, not {media}")
    return {kind: {"format": form, "source": {"bytes": data}}}
