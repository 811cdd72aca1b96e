"""A conversation in our messages, as Gemini's contents.

Source: https://ai.google.dev/api/caching#Content. A part without ``type`` is taken for one of Gemini's own and goes through as it is.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llm_master.errors import InvalidRequestError
from llm_master.providers.turns import native_content, refuse_no_turns, tool_calls
from llm_master.types import Message

FORMAT = "gemini"
"""Under this name an answer keeps its own parts, with their thought signatures, for the next turn."""

NO_SIGNATURE = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="
"""``skip_thought_signature_validator`` in base64: https://ai.google.dev/gemini-api/docs/thought-signatures#faqs"""

_KINDS = ("image/", "audio/", "video/", "text/", "application/pdf", "application/json")

Parts = list[dict[str, Any]]


def conversation(messages: Sequence[Message], *, is_gemini_3: bool) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """System instruction and contents.

    Args:
        messages: The conversation.
        is_gemini_3: Whether the model is of the third generation: a function's result may then hold images and files,
            which else follow it, and a function call must carry a signature.

    Raises:
        InvalidRequestError: A tool result without its call, or content that the API does not take.
    """
    system: Parts = []
    contents: list[dict[str, Any]] = []
    # Of each call its name, which a result must repeat, and the id that the API knows it by, if it knows one.
    names: dict[str, tuple[str, str | None]] = {}
    for position, message in enumerate(messages):
        role = message["role"]
        where = f"messages[{position}]"
        if role in ("system", "developer"):
            system += _content(message.get("content"), where)
        elif role in ("tool", "function"):
            _add_result(contents, message, where, names, media_in_results=is_gemini_3)
        elif role == "assistant":
            # A turn has at least one part, though it be empty.
            parts = _assistant(message, where, names) or [{"text": ""}]
            if is_gemini_3:
                _sign(parts)
            contents.append({"role": "model", "parts": parts})
        else:
            contents.append({"role": "user", "parts": _content(message.get("content"), where) or [{"text": ""}]})
    refuse_no_turns(contents)
    for content in contents:
        if (results := content.pop("_results", None)) is not None:
            if any(known is None for known, _, _ in results):
                # Without an id, only the order tells which result belongs to which call of one function.
                results.sort(key=lambda result: result[1])
            content["parts"] = [part for _, _, parts in results for part in parts]
    return ({"parts": system} if system else None), contents


def _assistant(message: Message, where: str, names: dict[str, tuple[str, str | None]]) -> Parts:
    native = native_content(message, FORMAT, where)
    parts = native if native is not None else _content(message.get("content"), where)
    own = [part["functionCall"] for part in parts if isinstance(part.get("functionCall"), Mapping)]
    names.update((str(call.get("id")), (str(call.get("name")), call.get("id"))) for call in own)
    theirs = {call.get("id") for call in own}
    for call, function, arguments in tool_calls(message, where):
        name = call.get("id")
        names[str(name)] = (str(function), name if native is None or name in theirs else None)
        if native is not None:
            continue
        made: dict[str, Any] = {"functionCall": {"name": function, "args": arguments}}
        if name:
            made["functionCall"]["id"] = name
        # Where Google's own OpenAI-compatible answers keep it.
        google = (call.get("extra_content") or {}).get("google") or {}
        if signature := google.get("thought_signature") or call.get("thought_signature"):
            made["thoughtSignature"] = signature
        parts.append(made)
    return parts


def _sign(parts: Parts) -> None:
    """Give the first function call a stand-in for a signature, where it has none: another model made it."""
    first = next((part for part in parts if "functionCall" in part), None)
    if first is not None and "thoughtSignature" not in first:
        first["thoughtSignature"] = NO_SIGNATURE


def _add_result(
    contents: list[dict[str, Any]], message: Message, where: str, names: dict[str, tuple[str, str | None]], *, media_in_results: bool
) -> None:
    """Results of parallel calls stand together in one turn."""
    call = str(message.get("tool_call_id"))
    if call not in names:
        raise InvalidRequestError(
            f"{where} is the result of tool call {call!r}, and no message before it makes that call: "
            "put the assistant's message with its tool_calls before the result"
        )
    content = message.get("content")
    extra: Parts = []
    if isinstance(content, Sequence) and not isinstance(content, str):
        parts = _content(content, where)
        extra = [part for part in parts if "text" not in part]
        content = "\n".join(part["text"] for part in parts if "text" in part)
    name, known = names[call]
    response = {"name": name, "response": _object(content)}
    if extra and media_in_results:
        response["parts"], extra = extra, []
    result = {"functionResponse": response if known is None else {"id": known, **response}}
    last = contents[-1] if contents else None
    if last is None or "_results" not in last:
        last = {"role": "user", "_results": []}
        contents.append(last)
    last["_results"].append((known, list(names).index(call), [result, *extra]))


def _object(content: Any) -> Any:
    """The API wants an object as a function's result; anything else becomes its ``result``."""
    if content in ("", None):
        return {}
    if isinstance(content, str):
        try:
            decoded = msgspec.json.decode(content)
        except msgspec.DecodeError:
            decoded = content
        return decoded if isinstance(decoded, dict) else {"result": decoded}
    return content if isinstance(content, Mapping) else {"result": content}


def _content(content: Any, where: str) -> Parts:
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [{"text": content}]
    if isinstance(content, Sequence):
        return [_part(part, where) for part in content]
    raise InvalidRequestError(f"{where}: content is a {type(content).__name__}: give a text or a list of parts")


def _part(part: Any, where: str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"text": part}
    if not isinstance(part, Mapping):
        raise InvalidRequestError(f"{where}: a part of its content is a {type(part).__name__}: give a dict with a type")
    kind = part.get("type")
    if kind is None:
        return dict(part)
    if kind in ("text", "input_text"):
        return {"text": part.get("text", "")}
    if kind == "refusal":
        return {"text": part.get("refusal", "")}
    if kind == "image_url":
        link = part.get("image_url")
        return _data(link.get("url") if isinstance(link, Mapping) else link, where, "image/jpeg")
    if kind == "input_audio":
        audio = part.get("input_audio") or {}
        return {"inlineData": {"mimeType": f"audio/{audio.get('format', 'wav')}", "data": audio.get("data")}}
    if kind == "file":
        file = part.get("file") or {}
        return _data(file.get("file_data") or file.get("file_id"), where, "application/pdf")
    raise InvalidRequestError(f"{where}: a part of type {kind!r} is not known to this API: give text, image_url, input_audio or file")


def _data(url: Any, where: str, default: str) -> dict[str, Any]:
    if not isinstance(url, str) or not url:
        raise InvalidRequestError(f"{where}: an image or file has no URL and no data")
    if not url.startswith("data:"):
        guessed = mimetypes.guess_type(url.partition("?")[0])[0]
        return {"fileData": {"fileUri": url, "mimeType": guessed or default}}
    head, comma, data = url.partition(",")
    media, _, encoding = head.removeprefix("data:").partition(";")
    media = media.lower()
    if not comma or not encoding.endswith("base64"):
        raise InvalidRequestError(f"{where}: a data URI must be data:TYPE;base64,DATA")
    if not media.startswith(_KINDS):
        raise InvalidRequestError(f"{where}: this API takes images, audio, video, PDF and text, not {media}")
    return {"inlineData": {"mimeType": media, "data": data}}
