"""The wire format of OpenAI's chat completions, as all who speak it write it.

Source: https://platform.openai.com/docs/api-reference/chat. The types below name only what is read; whatever else a
provider sends is passed over, and leaf values are not checked, since providers differ in exactly those.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from llm_master.errors import ProviderError, ServerError
from llm_master.media import Audio, Citation, Image
from llm_master.providers import chat_extras as extras
from llm_master.providers.bodies import error_under_200, unreadable
from llm_master.providers.chat_usage import WireUsage, read_usage
from llm_master.providers.counts import count
from llm_master.providers.failures import BAD_JSON, error_of, failure_of
from llm_master.types import LLMResponse, ToolCall, ToolCallDelta, WireAnswer


class WireMessage(msgspec.Struct):
    """``choices[].message``, or ``choices[].delta`` of a stream."""

    content: Any = None
    tool_calls: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None
    reasoning_steps: Any = None
    refusal: Any = None
    annotations: Any = None
    images: Any = None
    audio: Any = None
    executed_tools: Any = None


class Choice(msgspec.Struct):
    """``choices[]`` of an answer."""

    message: WireMessage | None = None
    finish_reason: Any = None
    error: Any = None


class ChunkChoice(msgspec.Struct):
    """``choices[]`` of a chunk."""

    delta: WireMessage | None = None
    finish_reason: Any = None
    index: Any = 0
    error: Any = None
    usage: WireUsage | None = None


class GroqPart(msgspec.Struct):
    """``x_groq``, where an older form of the stream has its usage."""

    usage: WireUsage | None = None


class ChatCompletion(msgspec.Struct):
    """A whole answer."""

    choices: list[Choice] | None = None
    model: Any = None
    usage: WireUsage | None = None
    error: Any = None
    service_tier: Any = None
    citations: Any = None
    search_results: Any = None
    web_search: Any = None
    images: Any = None
    usage_breakdown: Any = None


class Chunk(msgspec.Struct):
    """One event of a stream."""

    choices: list[ChunkChoice] | None = None
    model: Any = None
    usage: WireUsage | None = None
    error: Any = None
    service_tier: Any = None
    citations: Any = None
    search_results: Any = None
    web_search: Any = None
    images: Any = None
    usage_breakdown: Any = None
    x_groq: GroqPart | None = None


_completion = msgspec.json.Decoder(ChatCompletion)
read_chunk = msgspec.json.Decoder(Chunk).decode
"""Decode one event of a stream. Raises ``msgspec.DecodeError``."""


def read_answer(body: bytes, *, status: int, request_id: str | None, model: str, returns: Sequence[str] = ()) -> LLMResponse:
    """Make an answer of the body of a 2xx; of its message, keep the fields ``returns`` for the next turn.

    Raises:
        ProviderError: The body holds an error, cannot be read, or has no answer in it.
    """
    try:
        answer = _completion.decode(body)
    except BAD_JSON as exc:
        raise unreadable(body, exc, status, request_id, model) from exc
    if answer.error:
        raise error_under_200(msgspec.json.decode(body), model, status=status, request_id=request_id)
    if not answer.choices:
        raise _no_answer(body, status, request_id, model)
    choice = answer.choices[0]
    message = choice.message
    if choice.error:
        raise error_under_200({"error": choice.error}, model, status=status, request_id=request_id)
    if message is None:
        raise _no_answer(body, status, request_id, model)
    if choice.finish_reason.__class__ is str and choice.finish_reason in extras.GAVE_UP:
        raise gave_up(choice.finish_reason, status, request_id, model)
    content = message.content
    reasoning = message.reasoning_content or message.reasoning
    if content.__class__ is not str:
        content, thinking = split_content(content)
        reasoning = reasoning or thinking
        if not content and message.refusal:
            content = str(message.refusal)
    response = LLMResponse(
        content,
        answer.model if answer.model.__class__ is str else model,
        read_usage(answer.usage),
        finish_reason=choice.finish_reason,
        reasoning=reasoning if reasoning.__class__ is str and reasoning else None,
        wire=WireAnswer(status, request_id, body, answer.service_tier),
    )
    # What few answers have; a test of each is cheaper than a field set for all.
    if message.tool_calls:
        response.tool_calls = read_tool_calls(message.tool_calls)
    if message.annotations or answer.citations or answer.search_results or answer.web_search:
        response.citations = read_citations(message.annotations, answer.search_results or answer.citations or answer.web_search)
    if message.images or answer.images:
        response.images = read_images(message.images or answer.images)
    if message.audio:
        response.audio = read_audio(message.audio)
        if response.audio is not None and not response.content:
            # What is said is the text, where there is no other.
            response.content = response.audio.transcript or ""
    if message.content.__class__ is list:
        response.citations += extras.references(message.content)
    if message.executed_tools or answer.usage_breakdown:
        add_executed(response, message.executed_tools, answer.usage_breakdown)
    if message.reasoning_steps and response.reasoning is None:
        response.reasoning = extras.thoughts(message.reasoning_steps)
    if returns:
        response.native = extras.kept(message, returns)
    return response


def add_executed(response: LLMResponse, tools: Any, breakdown: Any) -> None:
    """What tools that the provider ran by itself have brought. They have prices of their own, and so have the models behind them."""
    response.usage.others_worked = works_of_others(tools, breakdown)
    executed = extras.ExecutedTools()
    executed.add(tools)
    response.citations = response.citations or executed.citations()
    response.images = response.images or executed.images()


def works_of_others(tools: Any, breakdown: Any) -> bool:
    """Whether the answer's tokens are not all there is to pay."""
    return bool(tools) or (isinstance(breakdown, dict) and bool(breakdown.get("models")))


def gave_up(reason: str, status: int | None, request_id: str | None, model: str) -> ServerError:
    """The error for an answer that the provider did not bring to its end."""
    message = f"the provider gave up in the middle of the answer (finish_reason {reason})"
    return ServerError(message, status=status, model=model, request_id=request_id, code=reason)


def split_content(content: Any) -> tuple[str, str | None]:
    """Text and reasoning of content that is no string: ``null``, or a list of parts."""
    if content is None:
        return "", None
    if not isinstance(content, list):
        return str(content), None
    text: list[str] = []
    thinking: list[str] = []
    for part in content:
        if isinstance(part, str):
            text.append(part)
        elif isinstance(part, dict):
            if part.get("type") == "thinking":
                inner = part.get("thinking")
                thinking.append(inner if isinstance(inner, str) else split_content(inner)[0])
            elif isinstance(part.get("text"), str):
                text.append(part["text"])
    return "".join(text), "".join(thinking) or None


def read_tool_calls(calls: Any) -> list[ToolCall]:
    """Tool calls of a whole answer. Arguments come as JSON text; some servers send the object itself."""
    result = []
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            continue
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = "" if arguments is None else msgspec.json.encode(arguments).decode()
        result.append(ToolCall.from_text(call.get("id") or "", function.get("name") or "", arguments))
    return result


def read_tool_call_deltas(calls: Any) -> list[ToolCallDelta]:
    """Pieces of tool calls in a chunk. A server that gives no index sends each call whole, in order."""
    result = []
    for position, call in enumerate(calls if isinstance(calls, list) else ()):
        if not isinstance(call, dict):
            continue
        function = call.get("function") or {}
        arguments = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            arguments = msgspec.json.encode(arguments).decode()
        index = call.get("index")
        result.append(
            ToolCallDelta(
                index if isinstance(index, int) else position, call.get("id") or None, function.get("name") or None, arguments or ""
            )
        )
    return result


def read_citations(annotations: Any, sources: Any) -> list[Citation]:
    """Sources of an answer: its URL annotations, or else the provider's own list of addresses or search results."""
    found = []
    for note in annotations if isinstance(annotations, list) else ():
        kind = note.get("type") if isinstance(note, dict) else None
        if not isinstance(kind, str) or not kind.endswith("_citation"):
            continue
        cited = note.get(kind, note)  # some put it into an object of its own
        if isinstance(cited, dict):
            found.append(
                Citation(
                    cited.get("url"),
                    cited.get("title") or cited.get("document_id") or cited.get("tool_call_id"),
                    text=cited.get("content"),
                    # Some say 0 and 0 where they do not know.
                    start=count(cited.get("start_index")) if cited.get("end_index") else None,
                    end=count(cited.get("end_index")) or None,
                    raw=cited,
                )
            )
    if found:
        return found
    for source in sources if isinstance(sources, list) else ():
        if isinstance(source, str):
            found.append(Citation(source))
        elif isinstance(source, dict):
            url, text = source.get("url") or source.get("link"), source.get("snippet") or source.get("content")
            found.append(Citation(url, source.get("title"), text=text, raw=source))
    return found


def read_images(images: Any) -> list[Image]:
    """Images beside the text: OpenAI-shaped parts as OpenRouter sends them, or the links that Perplexity found."""
    found = []
    for image in images if isinstance(images, list) else ():
        link = image.get("image_url") if isinstance(image, dict) else image
        url = link.get("url") if isinstance(link, dict) else link
        if isinstance(url, str) and url:
            found.append(Image.from_url(url))
    return found


def read_audio(audio: Any) -> Audio | None:
    """``message.audio``: base64, in the format that the request asked for, which the answer does not repeat."""
    if not isinstance(audio, dict) or not isinstance(audio.get("data"), str):
        return None
    try:
        data = base64.b64decode(audio["data"])
    except ValueError:
        return None
    return Audio(data, audio_type(data), transcript=audio.get("transcript"), id=audio.get("id"))


_SIGNATURES = ((b"RIFF", "audio/wav"), (b"ID3", "audio/mpeg"), (b"fLaC", "audio/flac"), (b"OggS", "audio/ogg"))


def audio_type(data: bytes) -> str:
    """The media type by the file's first bytes; bare samples have none of their own."""
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        return "audio/aac" if data[1] & 0x06 == 0 else "audio/mpeg"
    return "audio/pcm"


def _no_answer(body: bytes, status: int, request_id: str | None, model: str) -> ProviderError:
    content = msgspec.json.decode(body)
    failure = failure_of(content)
    if isinstance(content, dict) and (content.get("detail") or content.get("message")):
        # An error that is not called one, as some proxies write it.
        return error_of(status, {}, failure, model=model)
    return ServerError(f"answered {status} without any choice: {failure.message}", status=status, model=model, request_id=request_id)


def first_choice(choices: Sequence[ChunkChoice]) -> ChunkChoice | None:
    """The choice that the stream shows; further ones (``n`` above 1) are never mixed into it."""
    return next((choice for choice in choices if not choice.index), None)
