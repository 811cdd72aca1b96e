"""Anthropic's answers, whole and streamed.

Sources: https://docs.anthropic.com/en/api/messages#response-content, https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec

from llm_master.media import Citation
from llm_master.providers.anthropic_messages import FORMAT
from llm_master.providers.bodies import error_under_200, unreadable
from llm_master.providers.failures import BAD_JSON
from llm_master.providers.stream_reader import StreamReader
from llm_master.types import LLMResponse, ReasoningDelta, StreamEnd, StreamEvent, ToolCall, ToolCallDelta, Usage, WireAnswer

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
"""Stop reasons in the field's words; any other stays as it is."""


class CacheCreation(msgspec.Struct):
    """``usage.cache_creation``."""

    ephemeral_1h_input_tokens: Any = None


class OutputDetails(msgspec.Struct):
    """``usage.output_tokens_details``."""

    thinking_tokens: Any = None


class WireUsage(msgspec.Struct):
    """``usage``. ``input_tokens`` is only what was neither read from the cache nor written to it."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: CacheCreation | None = None
    output_tokens_details: OutputDetails | None = None
    server_tool_use: dict[str, Any] | None = None
    service_tier: Any = None
    iterations: list[dict[str, Any]] | None = None


class WireMessage(msgspec.Struct):
    """A whole answer, or what ``message_start`` holds of it."""

    content: list[dict[str, Any]] | None = None
    model: Any = None
    stop_reason: Any = None
    usage: WireUsage | None = None
    error: Any = None
    type: Any = None


class WireDelta(msgspec.Struct):
    """``delta`` of an event."""

    type: Any = None
    text: Any = None
    thinking: Any = None
    signature: Any = None
    partial_json: Any = None
    citation: Any = None
    stop_reason: Any = None


class WireEvent(msgspec.Struct):
    """One event of a stream."""

    type: Any = None
    index: int = 0
    delta: WireDelta | None = None
    content_block: dict[str, Any] | None = None
    message: WireMessage | None = None
    usage: WireUsage | None = None
    error: Any = None


_message = msgspec.json.Decoder(WireMessage).decode
_event = msgspec.json.Decoder(WireEvent).decode


def read_answer(body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
    """Make an answer of the body of a 2xx.

    Raises:
        ProviderError: The body holds an error, cannot be read, or has no answer in it.
    """
    try:
        message = _message(body)
    except BAD_JSON as exc:
        raise unreadable(body, exc, status, request_id, model) from exc
    if message.error or message.content is None:
        raise error_under_200(msgspec.json.decode(body), model, status=status, request_id=request_id)
    usage = message.usage
    response = LLMResponse(
        "".join(block.get("text") or "" for block in message.content if block.get("type") == "text"),
        message.model if isinstance(message.model, str) else model,
        read_usage(usage),
        finish_reason=FINISH_REASONS.get(message.stop_reason, message.stop_reason),
        wire=WireAnswer(status, request_id, body, usage.service_tier if usage is not None else None),
    )
    _fill(response, message.content)
    return response


def _fill(response: LLMResponse, blocks: list[dict[str, Any]]) -> None:
    """What stands in blocks beside the text. Blocks that our messages cannot say are kept for the next turn."""
    plain = True
    said = 0
    for block in blocks:
        kind = block.get("type")
        if kind == "tool_use":
            arguments = block.get("input")
            text = msgspec.json.encode(arguments).decode() if arguments is not None else ""
            response.tool_calls.append(ToolCall.from_text(block.get("id", ""), block.get("name", ""), text))
        elif kind == "thinking":
            response.reasoning = (response.reasoning or "") + (block.get("thinking") or "")
        begins, said = said, said + len(block.get("text") or "" if kind == "text" else "")
        if kind == "text" and block.get("citations"):
            response.citations += [_citation(note, begins, said) for note in block["citations"]]
        elif kind in ("text", "tool_use"):
            continue
        plain = False
    response.reasoning = response.reasoning or None
    if not plain:
        response.native = {"format": FORMAT, "content": blocks}


def _citation(note: Any, start: int, end: int) -> Citation:
    """A citation of a text block, which stands from ``start`` to ``end`` of the answer's text and is supported as a whole.

    Source: https://docs.anthropic.com/en/docs/build-with-claude/citations#citation-types
    """
    if not isinstance(note, dict):
        return Citation(start=start, end=end)
    # A search result of the caller's own has a source, which need not be an address.
    url, title = note.get("url") or note.get("source"), note.get("title") or note.get("document_title")
    return Citation(url, title, text=note.get("cited_text"), start=start, end=end, raw=note)


def read_usage(wire: WireUsage | None) -> Usage:
    """Bring Anthropic's convention to ours: its input leaves out what the cache served and what was written to it."""
    if wire is None:
        return Usage()
    read, written = wire.cache_read_input_tokens, wire.cache_creation_input_tokens
    details = wire.output_tokens_details
    return Usage(
        input_tokens=None if wire.input_tokens is None else wire.input_tokens + (read or 0) + (written or 0),
        output_tokens=wire.output_tokens,
        cached_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=wire.cache_creation.ephemeral_1h_input_tokens if wire.cache_creation is not None else None,
        reasoning_tokens=details.thinking_tokens if details is not None else None,
        web_searches=(wire.server_tool_use or {}).get("web_search_requests"),
        others_worked=any(iteration.get("model") for iteration in wire.iterations or ()),
    )


def read_count(body: bytes, *, status: int, request_id: str | None, model: str) -> int:
    """``input_tokens`` of ``/messages/count_tokens``."""
    try:
        count = msgspec.json.decode(body)["input_tokens"]
        if not isinstance(count, int):
            raise TypeError(f"input_tokens is {count!r}")
    except (*BAD_JSON, LookupError, TypeError) as exc:
        raise unreadable(body, exc, status, request_id, model) from exc
    return count


class MessageReader(StreamReader):
    """Events of one stream. Keeps the blocks as they grow, since the next turn needs them whole."""

    def __init__(self, model: str, status: int | None, request_id: str | None) -> None:
        super().__init__(model, status, request_id)
        self._blocks: dict[int, dict[str, Any]] = defaultdict(dict)
        self._pieces: dict[int, list[str]] = defaultdict(list)
        self._tools: dict[int, int] = {}
        self._usage = WireUsage()
        self._stop_reason: str | None = None

    def events_of(self, data: bytes) -> Iterator[str | StreamEvent]:
        """Events of one event of theirs."""
        event = _event(data)
        kind = event.type
        delta = event.delta
        if kind == "content_block_delta" and delta is not None:
            if delta.type == "text_delta":
                if delta.text:
                    self._pieces[event.index].append(delta.text)
                    yield delta.text
            elif delta.type == "input_json_delta":
                self._pieces[event.index].append(delta.partial_json or "")
                if event.index in self._tools:
                    yield ToolCallDelta(self._tools[event.index], arguments=delta.partial_json or "")
            elif delta.type == "thinking_delta":
                self._pieces[event.index].append(delta.thinking or "")
                if delta.thinking:
                    yield ReasoningDelta(delta.thinking)
            elif delta.type == "signature_delta":
                block = self._blocks[event.index]
                block["signature"] = block.get("signature", "") + (delta.signature or "")
            elif delta.type == "citations_delta":
                self._blocks[event.index].setdefault("citations", []).append(delta.citation)
        elif kind == "content_block_start" and event.content_block is not None:
            yield from self._begin(event.index, event.content_block)
        elif kind == "message_start" and event.message is not None:
            self.served = event.message.model
            self._merge(event.message.usage)
        elif kind == "message_delta":
            if delta is not None and delta.stop_reason is not None:
                self._stop_reason = delta.stop_reason
            self._merge(event.usage)
        elif kind == "message_stop":
            self.done = True
        elif kind == "error" or event.error:
            raise self.error(msgspec.json.decode(data))

    def _begin(self, index: int, block: dict[str, Any]) -> Iterator[str | StreamEvent]:
        self._blocks[index] = block
        kind = block.get("type")
        if kind == "text" and block.get("text"):
            self._pieces[index].append(block["text"])
            yield block["text"]
        elif kind == "tool_use":
            position = self._tools[index] = len(self._tools)
            given = block.get("input")
            arguments = msgspec.json.encode(given).decode() if given else ""
            if arguments:
                self._pieces[index].append(arguments)
            yield ToolCallDelta(position, block.get("id"), block.get("name"), arguments)

    def _merge(self, usage: WireUsage | None) -> None:
        """Later counts replace earlier ones; those that a later event leaves out hold."""
        for name in WireUsage.__struct_fields__ if usage is not None else ():
            if (value := getattr(usage, name)) is not None:
                setattr(self._usage, name, value)

    def _whole_blocks(self) -> list[dict[str, Any]]:
        for index, block in self._blocks.items():
            pieces = self._pieces[index]
            kind = block.get("type")
            if kind in ("text", "thinking"):
                block[kind] = "".join(pieces) or block.get(kind) or ""
            elif pieces and "input" in block:
                try:
                    block["input"] = msgspec.json.decode("".join(pieces) or "{}")
                except msgspec.DecodeError:
                    block["input"] = {}  # the tool call itself says what was wrong with it
        return [self._blocks[index] for index in sorted(self._blocks) if self._blocks[index]]

    def usage_so_far(self) -> Usage | None:
        """Usage, if it has come. Its output is counted only at the end."""
        return read_usage(self._usage) if self._usage.input_tokens is not None else None

    def end(self) -> StreamEnd:
        """The last event.

        Raises:
            ServerError: The stream ended without saying why the model stopped.
        """
        if not self.done and self._stop_reason is None:
            raise self.broken("the stream ended without message_stop and without a stop reason")
        self.wire.service_tier = self._usage.service_tier
        assembled = LLMResponse("", self.model)
        _fill(assembled, self._whole_blocks())
        return StreamEnd(
            finish_reason=FINISH_REASONS.get(self._stop_reason or "", self._stop_reason),
            usage=read_usage(self._usage),
            model_name=self.served,
            citations=assembled.citations,
            native=assembled.native,
            wire=self.wire,
        )
