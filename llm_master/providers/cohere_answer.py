"""Answers of Cohere's v2 chat, whole and streamed.

Sources: https://docs.cohere.com/reference/chat, https://docs.cohere.com/reference/chat-stream
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from llm_master.media import Citation
from llm_master.providers.bodies import error_under_200, unreadable
from llm_master.providers.cohere_messages import FORMAT
from llm_master.providers.counts import count
from llm_master.providers.failures import BAD_JSON
from llm_master.providers.stream_reader import StreamReader
from llm_master.types import LLMResponse, ReasoningDelta, StreamEnd, StreamEvent, ToolCall, ToolCallDelta, Usage, WireAnswer

FINISH_REASONS = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "TOOL_CALL": "tool_calls",
    "MAX_TOKENS": "length",
    "ERROR_LIMIT": "length",
    "ERROR_TOXIC": "content_filter",
}
"""Finish reasons in the field's words; any other stays as it is. ``ERROR`` is no answer at all."""

_PASSAGES = ("snippet", "text", "content")
"""Where a document of the caller's own may have its text: its fields are free."""


class WireTokens(msgspec.Struct):
    """``usage.tokens`` and ``usage.billed_units``, whose numbers are often floats."""

    input_tokens: Any = None
    output_tokens: Any = None
    search_units: Any = None


class WireUsage(msgspec.Struct):
    """``usage``."""

    tokens: WireTokens | None = None
    billed_units: WireTokens | None = None
    cached_tokens: Any = None


class WireMessage(msgspec.Struct):
    """``message`` of an answer. In an error's body it is a text."""

    content: Any = None
    tool_calls: Any = None
    tool_plan: Any = None
    citations: Any = None


class WireChat(msgspec.Struct):
    """A whole answer."""

    message: WireMessage | str | None = None
    finish_reason: Any = None
    usage: WireUsage | None = None
    error: Any = None


class WirePiece(msgspec.Struct):
    """``delta.message.content`` of an event."""

    type: Any = None
    text: Any = None
    thinking: Any = None


class WireDeltaMessage(msgspec.Struct):
    """``delta.message`` of an event. Here each field is one thing, not a list of them."""

    content: WirePiece | list[Any] | str | None = None
    tool_calls: Any = None
    tool_plan: Any = None
    citations: Any = None


class WireDelta(msgspec.Struct):
    """``delta`` of an event."""

    message: WireDeltaMessage | str | None = None
    finish_reason: Any = None
    usage: WireUsage | None = None
    error: Any = None


class WireEvent(msgspec.Struct):
    """One event of a stream."""

    type: Any = None
    index: Any = None
    delta: WireDelta | None = None
    message: Any = None
    error: Any = None


_chat = msgspec.json.Decoder(WireChat).decode
_event = msgspec.json.Decoder(WireEvent).decode


def read_answer(body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
    """Make an answer of the body of a 2xx.

    Raises:
        ProviderError: The body holds an error, cannot be read, or has no answer in it.
    """
    try:
        answer = _chat(body)
    except BAD_JSON as exc:
        raise unreadable(body, exc, status, request_id, model) from exc
    message = answer.message
    if not isinstance(message, WireMessage) or answer.error or answer.finish_reason == "ERROR":
        raise error_under_200(_said(answer.error, answer.finish_reason, body), model, status=status, request_id=request_id)
    response = LLMResponse(
        "",
        model,
        read_usage(answer.usage),
        finish_reason=FINISH_REASONS.get(answer.finish_reason, answer.finish_reason),
        wire=WireAnswer(status, request_id, body),
    )
    for call in message.tool_calls if isinstance(message.tool_calls, list) else ():
        if isinstance(call, dict):
            name, text = _function(call)
            response.tool_calls.append(ToolCall.from_text(call.get("id") or "", name or "", text))
    content = [{"type": "text", "text": message.content}] if isinstance(message.content, str) else message.content
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    _fill(response, blocks, message.tool_plan, message.citations)
    return response


def _said(error: Any, finish_reason: Any, data: bytes) -> Any:
    """The content of an error: its text, or whatever there is."""
    if not error and finish_reason == "ERROR":
        error = "the generation failed, and finish_reason ERROR is all that is said of it"
    return {"error": {"message": error}} if isinstance(error, str) else msgspec.json.decode(data)


def _function(call: dict[str, Any]) -> tuple[str | None, str]:
    """Name and arguments of a call; the arguments are JSON text, or a piece of it."""
    function = call.get("function")
    if not isinstance(function, dict):
        return None, ""
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = "" if arguments is None else msgspec.json.encode(arguments).decode()
    return function.get("name") or None, arguments


def _fill(response: LLMResponse, blocks: list[dict[str, Any]], plan: Any, citations: Any) -> None:
    """What stands in blocks. What our messages cannot say is kept for the next turn.

    The plan is what the model thinks of the tools before it calls them, so it is reasoning and no answer.
    """
    reasoning: list[str] = []
    begins: list[int] = []
    plain = True
    for block in blocks:
        begins.append(len(response.content))
        if block.get("type", "text") == "text":
            response.content += _text(block.get("text"))
            continue
        plain = False
        if block.get("type") == "thinking":
            reasoning.append(_text(block.get("thinking")))
    plan, citations = _text(plan), citations if isinstance(citations, list) else []
    if plan:
        reasoning.append(plan)
    response.reasoning = "".join(reasoning) or None
    response.citations = [found for citation in citations if isinstance(citation, dict) for found in _citations(citation, begins)]
    if not plain or plan or citations:
        response.native = {"format": FORMAT, "content": blocks}
        if plan:
            response.native["tool_plan"] = plan
        if citations:
            response.native["citations"] = citations


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _citations(citation: dict[str, Any], begins: list[int]) -> Iterator[Citation]:
    """Each source of a citation, with the part of the answer's text that it supports.

    Source: https://docs.cohere.com/docs/rag-citations. Of a thought or a plan that part is not in the text.
    """
    start, end = citation.get("start"), citation.get("end")
    block = citation.get("content_index") or 0
    if citation.get("type") not in (None, "TEXT_CONTENT") or not isinstance(start, int) or not isinstance(end, int):
        start = end = None
    elif isinstance(block, int) and 0 <= block < len(begins):
        start, end = start + begins[block], end + begins[block]
    for source in sources if isinstance(sources := citation.get("sources"), list) else ():
        if not isinstance(source, dict):
            continue
        held = source.get("document") or source.get("tool_output")
        held = held if isinstance(held, dict) else {}
        texts = {name: value for name, value in held.items() if isinstance(value, str)}
        yield Citation(
            texts.get("url"),
            texts.get("title") or source.get("id"),
            text=next((texts[name] for name in _PASSAGES if name in texts), None),
            start=start,
            end=end,
            raw=citation,
        )


def read_usage(wire: WireUsage | None) -> Usage:
    """Bring Cohere's two counts to ours.

    ``tokens`` is what the model read and wrote, with the API's own instructions and with what its cache served: that is our
    convention. ``billed_units`` leaves out what the API added, and is what costs.
    """
    if wire is None:
        return Usage()
    usage = Usage(cached_tokens=count(wire.cached_tokens))
    if (tokens := wire.tokens) is not None:
        usage.input_tokens, usage.output_tokens = count(tokens.input_tokens), count(tokens.output_tokens)
    if (billed := wire.billed_units) is not None:
        usage.billed_input_tokens, usage.billed_output_tokens = count(billed.input_tokens), count(billed.output_tokens)
        usage.search_units = count(billed.search_units)
        if tokens is None:
            usage.input_tokens, usage.output_tokens = usage.billed_input_tokens, usage.billed_output_tokens
    return usage


class EventReader(StreamReader):
    """Events of one stream. Keeps the blocks as they grow, since the next turn may need them whole."""

    def __init__(self, model: str, status: int | None, request_id: str | None) -> None:
        super().__init__(model, status, request_id)
        self._blocks: dict[tuple[Any, str], list[str]] = {}
        self._plan: list[str] = []
        self._citations: list[dict[str, Any]] = []
        self._slots: dict[Any, int] = {}
        self._calls = 0
        self._finish_reason: str | None = None

    def events_of(self, data: bytes) -> Iterator[str | StreamEvent]:
        """Events of one event of theirs."""
        if data == b"[DONE]":
            self.done = True
            return
        event = _event(data)
        delta = event.delta
        message = delta.message if delta is not None else None
        if event.error:
            raise self.error(_said(event.error, None, data))
        if delta is not None and (delta.error or delta.finish_reason == "ERROR"):
            raise self.error(_said(delta.error, delta.finish_reason, data))
        if isinstance(message, WireDeltaMessage):
            if (piece := message.content).__class__ is WirePiece:
                yield from self._piece(event.index, piece)
            if plan := _text(message.tool_plan):
                self._plan.append(plan)
                yield ReasoningDelta(plan)
            if message.tool_calls:
                yield from self._call(event, message.tool_calls)
            if message.citations:
                noted = message.citations if isinstance(message.citations, list) else [message.citations]
                self._citations += [citation for citation in noted if isinstance(citation, dict)]
        if event.type == "message-end":
            self.done = True
            if delta is not None:
                self._finish_reason = FINISH_REASONS.get(delta.finish_reason, delta.finish_reason)
                self.usage = read_usage(delta.usage) if delta.usage is not None else None
        elif event.type is None and isinstance(event.message, str):
            raise self.error(msgspec.json.decode(data))

    def _piece(self, index: Any, piece: WirePiece) -> Iterator[str | StreamEvent]:
        for kind, text in (("thinking", piece.thinking), ("text", piece.text)):
            if text.__class__ is str and text:
                self._blocks.setdefault((index, kind), []).append(text)
                yield text if kind == "text" else ReasoningDelta(text)

    def _call(self, event: WireEvent, calls: Any) -> Iterator[ToolCallDelta]:
        for call in calls if isinstance(calls, list) else [calls]:
            if not isinstance(call, dict):
                continue
            name, arguments = _function(call)
            if event.type == "tool-call-start":
                self._slots[event.index] = self._calls
                self._calls += 1
                yield ToolCallDelta(self._calls - 1, call.get("id") or None, name, arguments)
            elif arguments:
                yield ToolCallDelta(self._slots.get(event.index, max(0, self._calls - 1)), arguments=arguments)

    def end(self) -> StreamEnd:
        """The last event.

        Raises:
            ServerError: The stream ended without saying why the model stopped.
        """
        if not self.done:
            raise self.broken("the stream ended without message-end")
        assembled = LLMResponse("", self.model)
        blocks = [{"type": kind, kind: "".join(pieces)} for (_, kind), pieces in self._blocks.items()]
        _fill(assembled, blocks, "".join(self._plan), self._citations)
        return StreamEnd(
            finish_reason=self._finish_reason,
            usage=self.usage,
            citations=assembled.citations,
            native=assembled.native,
            wire=self.wire,
        )
