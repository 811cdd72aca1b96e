"""Answers of the Responses API (https://platform.openai.com/docs/api-reference/responses/object)."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable
from typing import Any

import attrs
import msgspec

from llm_master.errors import ProviderError
from llm_master.media import Citation, Image, from_data_uri
from llm_master.providers import chat_format as fmt
from llm_master.providers import chat_usage
from llm_master.providers.bodies import unreadable
from llm_master.providers.failures import BAD_JSON, error_of, failure_of
from llm_master.providers.responses_messages import FORMAT
from llm_master.types import LLMResponse, ToolCall, Usage, WireAnswer

_NOT_THE_SERVERS_FAULT = frozenset(
    "invalid_prompt invalid_image invalid_image_format invalid_base64_image invalid_image_url image_too_large image_too_small "
    "image_parse_error invalid_image_mode image_file_too_large unsupported_image_media_type empty_image_file failed_to_download_image "
    "image_file_not_found data_residency_mismatch".split()
)
"""Codes of a failed response that mean what a 400 means."""

_CALL_KEYS = frozenset({"id", "type", "status", "call_id", "name", "arguments"})
_MESSAGE_KEYS = frozenset({"id", "type", "status", "role", "content"})
"""What of an item our own messages can say."""

CALLS = ("function_call", "custom_tool_call")
"""Items that are calls of the caller's own functions."""

_UNFINISHED = ("queued", "in_progress")
_SOURCES = ("url_citation", "file_citation", "container_file_citation", "file_path")


class WireUsage(msgspec.Struct):
    """``usage``. Its input includes what the cache served, its output the reasoning."""

    input_tokens: Any = None
    output_tokens: Any = None
    total_tokens: Any = None
    input_tokens_details: chat_usage.InputDetails | None = None
    output_tokens_details: chat_usage.OutputDetails | None = None
    cost: Any = None
    cost_details: Any = None
    is_byok: Any = None
    cost_in_usd_ticks: Any = None
    num_sources_used: Any = None


class WireResponse(msgspec.Struct):
    """A response, as the whole answer or in the first and last events of a stream."""

    status: Any = None
    output: list[dict[str, Any]] | None = None
    model: Any = None
    usage: WireUsage | None = None
    error: Any = None
    incomplete_details: Any = None
    service_tier: Any = None


class WireCount(msgspec.Struct):
    """A count of a request's tokens."""

    input_tokens: int


read_response = msgspec.json.Decoder(WireResponse).decode
"""Decode a response. Raises ``msgspec.DecodeError``."""


def read_answer(
    body: bytes, *, status: int, request_id: str | None, model: str, call_types: Collection[str] = CALLS, by: str = ""
) -> LLMResponse:
    """Make an answer of the body of a 2xx.

    Args:
        body: The body.
        status: HTTP status.
        request_id: The provider's own id of the request.
        model: The wire id.
        call_types: Items of these types are calls that the caller is to answer.
        by: Name of the provider's row, which alone can read the items that are kept for the next turn.

    Raises:
        ProviderError: The body holds an error, cannot be read, or has no answer in it.
    """
    try:
        wire = read_response(body)
    except BAD_JSON as exc:
        raise unreadable(body, exc, status, request_id, model) from exc
    if wire.error or wire.status in ("failed", "cancelled") or (wire.output is None and wire.status not in _UNFINISHED):
        raise failed(wire.status, msgspec.json.decode(body), model, status, request_id)
    response = LLMResponse(
        "",
        wire.model if wire.model.__class__ is str else model,
        read_usage(wire.usage),
        wire=WireAnswer(status, request_id, body, wire.service_tier),
    )
    fill(response, wire.output or [], call_types, by)
    response.finish_reason = finish_reason(wire, calls=bool(response.tool_calls))
    return response


def read_usage(wire: WireUsage | None) -> Usage:
    """Usage by the names of chat completions, whose conventions are the same."""
    if wire is None:
        return Usage()
    return chat_usage.read_usage(
        chat_usage.WireUsage(
            prompt_tokens=wire.input_tokens,
            completion_tokens=wire.output_tokens,
            total_tokens=wire.total_tokens,
            prompt_tokens_details=wire.input_tokens_details,
            completion_tokens_details=wire.output_tokens_details,
            cost=wire.cost,
            cost_details=wire.cost_details,
            is_byok=wire.is_byok,
            cost_in_usd_ticks=wire.cost_in_usd_ticks,
            num_sources_used=wire.num_sources_used,
        )
    )


def finish_reason(wire: WireResponse, *, calls: bool) -> str | None:
    """Why the model stopped, in the words of chat completions; ``None`` while it has not."""
    if wire.status in _UNFINISHED:
        return None
    if wire.status == "incomplete":
        reason = wire.incomplete_details.get("reason") if isinstance(wire.incomplete_details, dict) else None
        return "length" if reason == "max_output_tokens" else reason if isinstance(reason, str) else "incomplete"
    return "tool_calls" if calls else "stop"


def failed(status: Any, content: Any, model: str, http_status: int | None, request_id: str | None) -> ProviderError:
    """The error for a response that failed, or for an error object in its place. It came under 200, so only its code tells."""
    error: ProviderError
    if status == "cancelled":
        # Somebody wanted it to end: to send it again would be against their will.
        error = ProviderError("the response was cancelled while it was made: ask again if that was not meant", model=model)
    elif status == "failed" and not content.get("error"):
        error = error_of(None, {}, failure_of({"message": "the response failed, and the API does not say why"}), model=model)
    else:
        failure = failure_of(content)
        if not _NOT_THE_SERVERS_FAULT.isdisjoint(failure.codes):
            failure = attrs.evolve(failure, status=400)
        error = error_of(None, {}, failure, model=model)
    error.status, error.request_id = http_status, request_id
    return error


def fill(response: LLMResponse, items: list[dict[str, Any]], call_types: Collection[str] = CALLS, by: str = "") -> None:
    """What stands in the output items. Those that our messages cannot say are kept for the next turn."""
    plain = True
    texts: list[str] = []
    thoughts: list[str] = []
    pages: list[Citation] = []
    begin = searches = 0
    for item in items:
        kind = item.get("type")
        if kind == "message":
            # Our message has one text, and its calls after it.
            plain = plain and not texts and not response.tool_calls and _says_only(item, _MESSAGE_KEYS)
            for part in _parts(item, "content"):
                text = _text_of(part)
                if text is None:
                    plain = False
                    if not begin and isinstance(refusal := part.get("refusal"), str):
                        texts.append(refusal)
                    continue
                if notes := part.get("annotations"):
                    plain = False
                    response.citations += citations(notes, begin)
                texts.append(text)
                begin += len(text)
        elif kind in call_types:
            plain = plain and kind == "function_call" and _says_only(item, _CALL_KEYS)
            response.tool_calls.append(ToolCall.from_text(call_id(item), str(item.get("name") or ""), arguments(item)))
        else:
            plain = False
            if kind == "reasoning":
                thoughts += [text for part in (*_parts(item, "content"), *_parts(item, "summary")) if (text := _text_of(part))]
            elif kind == "image_generation_call":
                if (image := _image(item)) is not None:
                    response.images.append(image)
                    response.usage.others_worked = True  # the model that drew it has tokens and prices of its own
            elif kind in ("code_interpreter_call", "file_search_call"):
                response.usage.others_worked = True  # each has a fee of its own, which nothing here counts
            elif kind == "search_results":
                pages += fmt.read_citations(None, item.get("results"))
            elif kind == "web_search_call":
                action = item.get("action")
                searches += item.get("status") == "completed" and isinstance(action, dict) and action.get("type") == "search"
    response.citations = response.citations or pages  # what a search found, where the text names none of it
    response.content = "".join(texts)
    response.reasoning = "\n\n".join(thoughts) or None
    if searches:
        response.usage.web_searches = searches
    if not plain:
        response.native = {"format": FORMAT, "by": by, "content": items} if by else {"format": FORMAT, "content": items}


def _says_only(item: dict[str, Any], keys: frozenset[str]) -> bool:
    return item.keys() <= keys or not any(value for key, value in item.items() if key not in keys)


def _parts(item: dict[str, Any], name: str) -> Iterable[dict[str, Any]]:
    parts = item.get(name)
    if isinstance(parts, str):
        return ({"text": parts},)
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else ()


def _text_of(part: dict[str, Any]) -> str | None:
    text = part.get("text")
    return text if isinstance(text, str) else None


def call_id(item: dict[str, Any]) -> str:
    """What a call's result must name."""
    return str(item.get("call_id") or item.get("id") or "")


def arguments(item: dict[str, Any]) -> str:
    """A call's arguments as JSON. A custom tool takes bare text, which becomes the argument ``input``."""
    if item.get("type") == "custom_tool_call":
        return msgspec.json.encode({"input": item.get("input") or ""}).decode()
    arguments = item.get("arguments")
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else msgspec.json.encode(arguments).decode()


def citations(notes: Any, begin: int) -> list[Citation]:
    """Sources of a part of the text that begins at ``begin``. Where in the text a file is meant, the API does not say."""
    found = []
    for note in notes if isinstance(notes, list) else ():
        if not isinstance(note, dict) or note.get("type") not in _SOURCES:
            continue
        cited = Citation(note.get("url"), note.get("title") or note.get("filename") or note.get("file_id"), raw=note)
        start, end = note.get("start_index"), note.get("end_index")
        if isinstance(start, int) and isinstance(end, int) and end > 0:  # 0 and 0 where it is not known
            cited.start, cited.end = begin + start, begin + end
        found.append(cited)
    return found


def _image(item: dict[str, Any]) -> Image | None:
    result = item.get("result")
    if not isinstance(result, str) or not result:
        return None
    prompt = item.get("revised_prompt")
    if result.startswith(("data:", "https://", "http://")):
        found = from_data_uri(result)
        return Image(found[1], None, found[0], revised_prompt=prompt) if found else Image(url=result, revised_prompt=prompt)
    try:
        data = base64.b64decode(result, validate=True)
    except ValueError:
        return None
    form = item.get("output_format")
    return Image(data, None, f"image/{form}" if isinstance(form, str) else _image_type(data), revised_prompt=prompt)


def _image_type(data: bytes) -> str | None:
    """The media type by the file's first bytes."""
    if data.startswith(b"\x89PNG"):
        return "image/png"
    if data.startswith(b"\xff\xd8"):
        return "image/jpeg"
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None
