"""Streams of the Responses API (https://platform.openai.com/docs/api-reference/responses-streaming)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import attrs
import msgspec

from llm_master.media import Citation
from llm_master.providers import responses_answer as answer
from llm_master.providers.sse import NamedEvent
from llm_master.providers.stream_reader import StreamReader
from llm_master.types import LLMResponse, ReasoningDelta, StreamEnd, StreamEvent, ToolCallDelta, Usage

_TEXT = "response.output_text.delta"
_THOUGHTS = frozenset({"response.reasoning_summary_text.delta", "response.reasoning_text.delta"})
_ITEMS = ("response.output_item.added", "response.output_item.done")
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})


class WireEvent(msgspec.Struct):
    """One event of a stream. A whole response in it is decoded only where it is read."""

    type: Any = None
    delta: Any = None
    output_index: Any = None
    item_id: Any = None
    summary_index: Any = None
    content_index: Any = None
    item: dict[str, Any] | None = None
    annotation: Any = None
    response: msgspec.Raw = msgspec.Raw()
    error: Any = None


_event = msgspec.json.Decoder(WireEvent).decode


@attrs.define
class _Call:
    """A call of the stream: its place among them, whether its arguments have been handed out, and how they end."""

    position: int
    said: bool = False
    rest: str = ""


class ResponseReader(StreamReader):
    """Events of one stream. Text comes from the deltas; whatever they left out, from the response at the end."""

    def __init__(
        self, model: str, status: int | None, request_id: str | None, call_types: Collection[str] = answer.CALLS, by: str = ""
    ) -> None:
        super().__init__(model, status, request_id)
        self._call_types, self._by = call_types, by
        self._length = 0
        self._begin = 0
        self._refused = False
        self._thought: tuple[Any, ...] | None = None
        self._items: dict[Any, dict[str, Any] | None] = {}
        self._open: dict[Any, _Call] = {}
        self._calls: dict[str, _Call] = {}
        self._citations: list[Citation] = []
        self._end: StreamEnd | None = None

    def events_of(self, data: bytes) -> Iterable[str | StreamEvent]:
        """Events of one event of theirs, with a short way for a piece of text, which nearly all are."""
        if data == b"[DONE]":  # some servers end every stream by it; it says nothing of the answer
            return ()
        event = _event(data)
        if event.type == _TEXT and event.delta.__class__ is str:
            self._length += len(event.delta)
            return (event.delta,) if event.delta else ()
        return self._rest(event, data)

    def _rest(self, event: WireEvent, data: bytes) -> Iterator[str | StreamEvent]:
        kind = event.type or (data.name if isinstance(data, NamedEvent) else "")
        if kind in ("error", "response.error") or (event.error and not str(kind).startswith("response.")):
            raise answer.failed(None, msgspec.json.decode(data), self.model, self.wire.status, self.wire.request_id)
        if kind.__class__ is not str:
            return
        if event.delta.__class__ is str:
            yield from self._delta(kind, event)
        elif kind in _ITEMS and event.item is not None:
            yield from self._item(kind, event, event.item)
        elif event.response:
            yield from self._whole_response(kind, bytes(event.response))
        elif kind == "response.content_part.added":
            self._begin = self._length
        elif kind == "response.reasoning_summary_part.added" and self._thought is not None:
            self._thought = ()
        elif kind == "response.output_text.annotation.added":
            self._citations += answer.citations([event.annotation], self._begin)

    def _delta(self, kind: Any, event: WireEvent) -> Iterator[str | StreamEvent]:
        delta = event.delta
        if not delta:
            return
        if kind == _TEXT:  # as the event's name only
            self._length += len(delta)
            yield delta
        elif kind in _THOUGHTS:
            part = (kind, event.output_index, event.item_id, event.summary_index, event.content_index)
            if self._thought not in (None, part):
                yield ReasoningDelta("\n\n")  # parts are paragraphs, and come without what parts them
            self._thought = part
            yield ReasoningDelta(delta)
        elif kind == "response.function_call_arguments.delta":
            if (call := self._open.get(_key(event))) is not None:
                call.said = True
                yield ToolCallDelta(call.position, arguments=delta)
        elif kind == "response.custom_tool_call_input.delta":
            if (call := self._open.get(_key(event))) is not None:
                # Bare text, which becomes the argument "input".
                text = msgspec.json.encode(delta).decode()[1:-1]
                yield ToolCallDelta(call.position, arguments=text if call.said else f'{{"input":"{text}')
                call.said, call.rest = True, '"}'
        elif kind == "response.refusal.delta" and not self._length:
            self._refused = True
            yield delta

    def _item(self, kind: Any, event: WireEvent, item: dict[str, Any]) -> Iterator[StreamEvent]:
        key = _key(event)
        done = kind == _ITEMS[1]
        # The place is kept from the beginning: items may end in another order.
        self._items[key] = item if done else None
        if item.get("type") in self._call_types:
            yield from self._call(item, done=done)
            self._open[key] = self._calls[answer.call_id(item)]

    def _call(self, item: dict[str, Any], *, done: bool) -> Iterator[StreamEvent]:
        """What of a call has not been handed out yet."""
        name = answer.call_id(item)
        call = self._calls.get(name)
        if call is None:
            call = self._calls[name] = _Call(len(self._calls))
            yield ToolCallDelta(call.position, name, str(item.get("name") or ""))
        if done and not call.said and (arguments := answer.arguments(item)):
            call.said = True
            yield ToolCallDelta(call.position, arguments=arguments)
        if done and call.rest:
            yield ToolCallDelta(call.position, arguments=call.rest)
            call.rest = ""

    def _whole_response(self, kind: Any, body: bytes) -> Iterator[str | StreamEvent]:
        wire = answer.read_response(body)
        if wire.model.__class__ is str and wire.model:
            self.served = wire.model
        if wire.service_tier is not None:
            self.wire.service_tier = wire.service_tier
        if kind not in _ENDS:
            return
        if wire.usage is not None:
            self.usage = answer.read_usage(wire.usage)
        wire.status = wire.status or kind.removeprefix("response.")
        if wire.error or wire.status in ("failed", "cancelled"):
            raise answer.failed(wire.status, {"error": wire.error}, self.model, self.wire.status, self.wire.request_id)
        self.wire.body = body
        items = wire.output or [item for item in self._items.values() if item is not None]
        whole = LLMResponse("", self.model, self.usage or Usage())
        answer.fill(whole, items, self._call_types, self._by)
        if self._thought is None and whole.reasoning:
            yield ReasoningDelta(whole.reasoning)
        if not self._length and not self._refused and whole.content:
            yield whole.content
        for item in items:
            if item.get("type") in self._call_types:
                yield from self._call(item, done=True)
        self._end = StreamEnd(
            finish_reason=answer.finish_reason(wire, calls=bool(self._calls)),
            usage=whole.usage,
            model_name=self.served,
            citations=whole.citations or self._citations,
            images=whole.images,
            native=whole.native,
            wire=self.wire,
        )
        self.done = True

    def end(self) -> StreamEnd:
        """The last event.

        Raises:
            ServerError: The stream ended without the response that ends it.
        """
        if self._end is None:
            raise self.broken("the stream ended without response.completed, response.incomplete or response.failed")
        return self._end


def _key(event: WireEvent) -> Any:
    """By what the events of one item are known. Some servers give no index."""
    if isinstance(event.output_index, int):
        return event.output_index
    return str(event.item_id or (event.item or {}).get("id"))
