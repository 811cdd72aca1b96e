"""Bedrock's answers, whole and streamed.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_ResponseSyntax,
.../API_runtime_ConverseStreamOutput.html
"""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from llm_master.errors import ProviderError, ServerError
from llm_master.media import Citation, Image
from llm_master.providers.bedrock_frames import DAMAGED, Frame
from llm_master.providers.bedrock_messages import FORMAT
from llm_master.providers.bedrock_refusals import error_named, message_in
from llm_master.providers.bodies import unreadable
from llm_master.providers.counts import whole
from llm_master.providers.failures import BAD_JSON, UNREADABLE
from llm_master.providers.stream_reader import StreamReader
from llm_master.types import LLMResponse, ReasoningDelta, StreamEnd, StreamEvent, ToolCall, ToolCallDelta, Usage, WireAnswer

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
"""Stop reasons in the field's words; any other stays as it is."""


class WireUsage(msgspec.Struct, rename="camel"):
    """``usage``. ``input_tokens`` is only what was neither read from the cache nor written to it."""

    input_tokens: Any = None
    output_tokens: Any = None
    cache_read_input_tokens: Any = None
    cache_write_input_tokens: Any = None
    cache_details: Any = None


class WireTier(msgspec.Struct):
    """``serviceTier``."""

    type: Any = None


class WireMessage(msgspec.Struct):
    """``output.message``."""

    content: list[dict[str, Any]] | None = None


class WireOutput(msgspec.Struct):
    """``output``."""

    message: WireMessage | None = None


class WireAnswerBody(msgspec.Struct, rename="camel"):
    """A whole answer."""

    output: WireOutput | None = None
    stop_reason: Any = None
    usage: WireUsage | None = None
    service_tier: WireTier | None = None


class WireDelta(msgspec.Struct, rename="camel"):
    """``delta`` of an event."""

    text: Any = None
    tool_use: Any = None
    reasoning_content: Any = None
    citation: Any = None


class WireEvent(msgspec.Struct, rename="camel"):
    """One event of a stream, whichever it is."""

    content_block_index: int | None = None
    delta: WireDelta | None = None
    start: Any = None
    stop_reason: Any = None
    usage: WireUsage | None = None
    service_tier: WireTier | None = None


_answer = msgspec.json.Decoder(WireAnswerBody).decode
_event = msgspec.json.Decoder(WireEvent).decode


def read_answer(body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
    """Make an answer of the body of a 2xx.

    Raises:
        ProviderError: The body cannot be read, or has no answer in it.
    """
    try:
        answer = _answer(body)
    except BAD_JSON as exc:
        raise unreadable(body, exc, status, request_id, model) from exc
    message = answer.output.message if answer.output is not None else None
    if message is None or message.content is None:
        raise ServerError(f"answered {status} without a message: {message_in(body)}", status=status, model=model, request_id=request_id)
    response = LLMResponse(
        "",
        model,
        read_usage(answer.usage),
        finish_reason=FINISH_REASONS.get(answer.stop_reason, answer.stop_reason),
        wire=WireAnswer(status, request_id, body, answer.service_tier.type if answer.service_tier is not None else None),
    )
    response.content = "".join(_fill(response, message.content))
    return response


def _fill(response: LLMResponse, blocks: Sequence[dict[str, Any]]) -> list[str]:
    """The texts of the blocks; what else stands in them goes into the answer. What our messages cannot say is kept whole."""
    texts: list[str] = []
    plain = True
    for block in blocks:
        if isinstance(text := block.get("text"), str):
            texts.append(text)
            continue
        if isinstance(call := block.get("toolUse"), dict):
            arguments = call.get("input")
            written = msgspec.json.encode(arguments).decode() if arguments is not None else ""
            response.tool_calls.append(ToolCall.from_text(call.get("toolUseId") or "", call.get("name") or "", written))
            continue
        plain = False
        if isinstance(thought := block.get("reasoningContent"), dict):
            inner = thought.get("reasoningText")
            said = inner.get("text") if isinstance(inner, dict) else None
            response.reasoning = ((response.reasoning or "") + (said or "")) or None
        elif isinstance(cited := block.get("citationsContent"), dict):
            start = sum(map(len, texts))
            texts += [part["text"] for part in _dicts(cited.get("content")) if isinstance(part.get("text"), str)]
            end = sum(map(len, texts))
            response.citations += [_citation(note, start, end) for note in _dicts(cited.get("citations"))]
        elif isinstance(image := block.get("image"), dict) and (made := _image(image)) is not None:
            response.images.append(made)
    if not plain:
        response.native = {"format": FORMAT, "content": list(blocks)}
    return texts


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _citation(note: dict[str, Any], start: int | None, end: int | None) -> Citation:
    """A citation of a block's text, which it supports as a whole."""
    location = note.get("location")
    web = location.get("web") if isinstance(location, dict) else None
    url = (web.get("url") if isinstance(web, dict) else None) or note.get("source")
    quoted = "".join(part["text"] for part in _dicts(note.get("sourceContent")) if isinstance(part.get("text"), str))
    return Citation(url, note.get("title"), text=quoted or None, start=start, end=end, raw=note)


def _image(block: dict[str, Any]) -> Image | None:
    source = block.get("source")
    try:
        data = base64.b64decode(source["bytes"]) if isinstance(source, dict) and source.get("bytes") else b""
    except (binascii.Error, TypeError):
        return None
    return Image(data, None, f"image/{block.get('format') or 'png'}") if data else None


def read_usage(wire: WireUsage | None) -> Usage:
    """Bring Bedrock's convention to ours: its input leaves out what the cache served and what was written to it.

    Source: https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """
    if wire is None:
        return Usage()
    read, written = whole(wire.cache_read_input_tokens), whole(wire.cache_write_input_tokens)
    fresh = whole(wire.input_tokens)
    usage = Usage(
        input_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        output_tokens=whole(wire.output_tokens),
        cached_tokens=read,
        cache_write_tokens=written,
    )
    for detail in _dicts(wire.cache_details):
        if detail.get("ttl") == "1h":
            usage.cache_write_1h_tokens = whole(detail.get("inputTokens"))
    return usage


class ConverseReader(StreamReader):
    """Events of one stream. Keeps the blocks as they grow, since the next turn may need them whole."""

    def __init__(self, model: str, status: int | None, request_id: str | None) -> None:
        super().__init__(model, status, request_id)
        self._texts: defaultdict[int, list[str]] = defaultdict(list)
        self._calls: dict[int, tuple[int, dict[str, Any], list[str]]] = {}
        self._thoughts: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        self._notes: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        self._stop_reason: str | None = None

    def read(self, pieces: Sequence[bytes]) -> list[str | StreamEvent]:
        """As the base's, with a short way for pieces of text: nearly all."""
        events: list[str | StreamEvent] = []
        for frame in pieces:
            try:
                if frame.__class__ is not Frame or frame.kind != "event":
                    raise self._broken_by(frame)
                event = _event(frame)
                if (delta := event.delta) is not None and (text := delta.text).__class__ is str:
                    if text:
                        self._texts[event.content_block_index or 0].append(text)
                        events.append(text)
                    continue
                events.extend(self._rest(frame.name, event))
            except (ProviderError, *UNREADABLE) as exc:
                self.fail(exc, frame)
                break
        self.began = self.began or bool(events)
        return events

    def _broken_by(self, frame: bytes) -> ProviderError:
        """The error for a frame that is no event."""
        said = message_in(frame)
        if not isinstance(frame, Frame) or frame.kind == DAMAGED:
            return self.broken(f"the stream is damaged: {said}")
        return error_named(frame.name, said, None, model=self.model)

    def _rest(self, name: str, event: WireEvent) -> Iterator[str | StreamEvent]:
        index = event.content_block_index or 0
        if event.delta is not None:
            yield from self._delta(index, event.delta)
        elif name == "contentBlockStart" and isinstance(event.start, dict):
            if isinstance(call := event.start.get("toolUse"), dict):
                position = len(self._calls)
                self._calls[index] = (position, call, [])
                yield ToolCallDelta(position, call.get("toolUseId"), call.get("name"), "")
        elif name == "messageStop":
            self._stop_reason = event.stop_reason
        elif name == "metadata":
            self.usage = read_usage(event.usage)
            if event.service_tier is not None:
                self.wire.service_tier = event.service_tier.type
            self.done = True

    def _delta(self, index: int, delta: WireDelta) -> Iterator[str | StreamEvent]:
        if isinstance(delta.tool_use, dict):
            position, _, pieces = self._calls.get(index) or self._calls.setdefault(index, (len(self._calls), {}, []))
            piece = delta.tool_use.get("input") or ""
            if not isinstance(piece, str):
                piece = msgspec.json.encode(piece).decode()
            if piece:
                pieces.append(piece)
                yield ToolCallDelta(position, arguments=piece)
        elif isinstance(thought := delta.reasoning_content, dict):
            block = self._thoughts[index]
            for part in ("text", "signature", "redactedContent"):
                if isinstance(said := thought.get(part), str) and said:
                    block[part] = block.get(part, "") + said
                    if part == "text":
                        yield ReasoningDelta(said)
        elif isinstance(delta.citation, dict):
            self._notes[index].append(delta.citation)

    def _blocks(self) -> list[dict[str, Any]]:
        """The blocks as a whole answer would have them."""
        blocks: dict[int, dict[str, Any]] = {}
        for index, texts in self._texts.items():
            blocks[index] = {"text": "".join(texts)}
        for index, notes in self._notes.items():
            blocks[index] = {"citationsContent": {"content": [blocks.get(index, {"text": ""})], "citations": notes}}
        for index, (_, call, pieces) in self._calls.items():
            try:
                arguments = msgspec.json.decode("".join(pieces) or "{}")
            except msgspec.DecodeError:
                arguments = {}  # the tool call itself says what was wrong with it
            blocks[index] = {"toolUse": {**call, "input": arguments}}
        for index, thought in self._thoughts.items():
            redacted = thought.pop("redactedContent", None)
            blocks[index] = {"reasoningContent": {"redactedContent": redacted} if redacted else {"reasoningText": {"text": "", **thought}}}
        return [blocks[index] for index in sorted(blocks)]

    def end(self) -> StreamEnd:
        """The last event.

        Raises:
            ServerError: The stream ended without saying why the model stopped.
        """
        if self._stop_reason is None:
            raise self.broken("the stream ended without a stop reason")
        assembled = LLMResponse("", self.model)
        _fill(assembled, self._blocks())
        return StreamEnd(
            finish_reason=FINISH_REASONS.get(self._stop_reason, self._stop_reason),
            usage=self.usage,
            citations=assembled.citations,
            native=assembled.native,
            wire=self.wire,
        )
