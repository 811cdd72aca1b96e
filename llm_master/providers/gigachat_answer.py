"""GigaChat's answers, whole and streamed, of both versions of its chat API.

Sources: https://developers.sber.ru/docs/ru/gigachat/api/reference/rest/post-chat,
https://github.com/ai-forever/gigachat/blob/main/MIGRATION_GUIDE.md (the second version)
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from llm_master.errors import ProviderError, ServerError
from llm_master.media import Citation
from llm_master.providers.bodies import error_under_200, unreadable
from llm_master.providers.counts import whole
from llm_master.providers.failures import BAD_JSON, UNREADABLE
from llm_master.providers.gigachat_messages import FORMAT
from llm_master.providers.sse import NamedEvent
from llm_master.providers.stream_reader import StreamReader
from llm_master.types import LLMResponse, ReasoningDelta, StreamEnd, StreamEvent, ToolCall, ToolCallDelta, Usage, WireAnswer

FINISH_REASONS = {"function_call": "tool_calls", "blacklist": "content_filter"}
"""Finish reasons in the field's words; any other is that already, or stays as it is."""

WORKING = "function_in_progress"
"""Role of what only tells how long a built-in function will still take."""


class InputDetails(msgspec.Struct):
    """``usage.input_tokens_details``."""

    cached_tokens: Any = None


class WireUsage(msgspec.Struct):
    """``usage``, by the words of both versions."""

    prompt_tokens: Any = None
    completion_tokens: Any = None
    precached_prompt_tokens: Any = None
    input_tokens: Any = None
    output_tokens: Any = None
    input_tokens_details: InputDetails | None = None


class WireMessage(msgspec.Struct):
    """A message, or a piece of one. In the second version ``content`` is a list of parts."""

    role: Any = None
    content: Any = None
    reasoning_content: Any = None
    function_call: Any = None
    functions_state_id: Any = None
    tools_state_id: Any = None
    tool_state_id: Any = None
    finish_reason: Any = None


class WireChoice(msgspec.Struct):
    """``choices[]``, of an answer or a chunk."""

    message: WireMessage | None = None
    delta: WireMessage | None = None
    finish_reason: Any = None
    index: Any = 0


class WireCompletion(msgspec.Struct):
    """An answer or a chunk: ``choices`` in the first version, ``messages`` in the second. An error is ``status`` and ``message``."""

    choices: list[WireChoice] | None = None
    messages: list[WireMessage] | None = None
    model: Any = None
    usage: WireUsage | None = None
    finish_reason: Any = None
    tools_state_id: Any = None
    tool_state_id: Any = None
    error: Any = None
    message: Any = None


_decode = msgspec.json.Decoder(WireCompletion).decode


def read_answer(body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
    """Make an answer of the body of a 2xx.

    Raises:
        ProviderError: The body holds an error, cannot be read, or has no answer in it.
    """
    try:
        answer = _decode(body)
    except BAD_JSON as exc:
        raise unreadable(body, exc, status, request_id, model) from exc
    messages = _messages(answer)
    if answer.error or (not messages and answer.message):
        raise error_under_200(msgspec.json.decode(body), model, status=status, request_id=request_id)
    if not messages:
        raise ServerError(f"answered {status} without any message: {body[:120]!r}", status=status, model=model, request_id=request_id)
    said = _Said()
    text = "".join(event for message in messages for event in said.events(message) if event.__class__ is str)
    said.state = _state(answer) or said.state
    return LLMResponse(
        text,
        answer.model if answer.model.__class__ is str else model,
        read_usage(answer.usage),
        finish_reason=_finish(answer),
        reasoning="".join(said.reasoning) or None,
        tool_calls=[ToolCall.from_text(call.id or "", call.name or "", call.arguments) for call in said.calls],
        citations=said.citations,
        native=said.native(),
        wire=WireAnswer(status, request_id, body),
    )


def read_usage(wire: WireUsage | None) -> Usage:
    """Bring both conventions to ours.

    In the first version ``prompt_tokens`` are what is billed, the cached ones taken off; in the second ``input_tokens`` are all.
    """
    if wire is None:
        return Usage()
    if wire.input_tokens is None and wire.output_tokens is None:
        prompt, cached = whole(wire.prompt_tokens), whole(wire.precached_prompt_tokens)
        given, output = None if prompt is None else prompt + (cached or 0), whole(wire.completion_tokens)
    else:
        given, output = whole(wire.input_tokens), whole(wire.output_tokens)
        cached = whole(wire.input_tokens_details.cached_tokens) if wire.input_tokens_details is not None else None
    return Usage(given, output, cached)


def _messages(answer: WireCompletion) -> Sequence[WireMessage]:
    """The messages of an answer or chunk. Of several choices (``n`` above 1) the first, and they are never mixed."""
    if answer.messages:
        return answer.messages
    for choice in answer.choices or ():
        if not choice.index:
            message = choice.message or choice.delta
            return (message,) if message is not None else ()
    return ()


def _finish(answer: WireCompletion) -> str | None:
    reason = answer.finish_reason
    if reason is None and answer.choices:
        reason = next((choice.finish_reason for choice in answer.choices if not choice.index), None)
    if reason is None and answer.messages:
        reason = next((message.finish_reason for message in answer.messages if message.finish_reason is not None), None)
    return FINISH_REASONS.get(reason, reason) if isinstance(reason, str) else None


def _only_text(messages: list[WireMessage] | None) -> str | None:
    """The text of a piece of the second version that holds one text and nothing else: nearly all."""
    if messages is None or len(messages) != 1:
        return None
    message = messages[0]
    parts = message.content
    if parts.__class__ is not list or len(parts) != 1 or message.function_call is not None or message.reasoning_content is not None:
        return None
    if (
        message.tools_state_id is not None
        or message.tool_state_id is not None
        or message.finish_reason is not None
        or message.role == WORKING
    ):
        return None
    part = parts[0]
    text = part.get("text") if part.__class__ is dict and len(part) == 1 else None
    return text if text.__class__ is str else None


def _state(carrier: WireCompletion | WireMessage) -> str | None:
    state = carrier.tools_state_id or carrier.tool_state_id
    return state if isinstance(state, str) else None


class _Said:
    """What an answer's messages said so far, beside their text."""

    def __init__(self) -> None:
        self.calls: list[ToolCallDelta] = []
        self.reasoning: list[str] = []
        self.citations: list[Citation] = []
        self.state: str | None = None

    def events(self, message: WireMessage) -> Iterator[str | StreamEvent]:
        """Events of a message, or of a piece of one."""
        state = _state(message) or message.functions_state_id
        if isinstance(state, str):
            self.state = state
        if message.role == WORKING:
            return
        if message.reasoning_content.__class__ is str and message.reasoning_content:
            self.reasoning.append(message.reasoning_content)
            yield ReasoningDelta(message.reasoning_content)
        content = message.content
        for part in content if isinstance(content, list) else (content,):
            if isinstance(part, str):
                if part:
                    yield part
            elif isinstance(part, dict):
                yield from self._part(part)
        if isinstance(message.function_call, dict):
            yield self._call(message.function_call)

    def _part(self, part: dict[str, Any]) -> Iterator[str | StreamEvent]:
        if isinstance(text := part.get("text"), str) and text:
            yield text
        if isinstance(call := part.get("function_call"), dict):
            yield self._call(call)
        inline = part.get("inline_data")
        sources = inline.get("sources") if isinstance(inline, dict) else None
        for source in sources.values() if isinstance(sources, dict) else ():
            if isinstance(source, dict):
                self.citations.append(Citation(source.get("url"), source.get("title"), raw=source))

    def _call(self, call: dict[str, Any]) -> ToolCallDelta:
        arguments = call.get("arguments")
        if not isinstance(arguments, str):
            arguments = msgspec.json.encode(arguments or {}).decode()
        # The API does not name its calls, and a result must name one.
        made = ToolCallDelta(len(self.calls), f"call_{uuid.uuid4().hex[:24]}", str(call.get("name") or ""), arguments)
        self.calls.append(made)
        return made

    def native(self) -> dict[str, Any] | None:
        """What our messages cannot say, and the next turn needs."""
        return None if self.state is None else {"format": FORMAT, "state": self.state}


class CompletionReader(StreamReader):
    """Events of one stream, of either version. ``hide`` takes out of an error what it may not show."""

    def __init__(self, model: str, status: int | None, request_id: str | None, hide: Callable[[ProviderError], None]) -> None:
        super().__init__(model, status, request_id)
        self._hide = hide
        self._said = _Said()
        self._finish_reason: str | None = None

    def read(self, pieces: Sequence[bytes]) -> list[str | StreamEvent]:
        """As the base's, with a short way for the chunks that hold one piece of text and nothing else: nearly all."""
        events: list[str | StreamEvent] = []
        for data in pieces:
            if data == b"[DONE]":
                self.done = True
                break
            try:
                chunk = _decode(data)
                if chunk.usage is None and (choices := chunk.choices) and (delta := (choice := choices[0]).delta) is not None:
                    text = delta.content
                    if (
                        text.__class__ is str
                        and text
                        and choice.finish_reason is None
                        and not choice.index
                        and delta.function_call is None
                        and not delta.reasoning_content
                        and delta.functions_state_id is None
                        and delta.role != WORKING
                    ):
                        if chunk.model.__class__ is str:
                            self.served = chunk.model
                        events.append(text)
                        continue
                elif chunk.usage is None and chunk.finish_reason is None and (text := _only_text(chunk.messages)):
                    events.append(text)
                    continue
                events.extend(self._rest(chunk, data))
            except (ProviderError, *UNREADABLE) as exc:
                self.fail(exc, data)
                break
        self.began = self.began or bool(events)
        return events

    def fail(self, exc: Exception, data: bytes) -> None:
        """As the base's, without the token that some errors repeat."""
        if isinstance(exc, ProviderError):
            self._hide(exc)
        super().fail(exc, data)

    def _rest(self, chunk: WireCompletion, data: bytes) -> Iterator[str | StreamEvent]:
        messages = _messages(chunk)
        name = data.name if isinstance(data, NamedEvent) else ""
        if chunk.error or name == "error" or (chunk.message and not messages):
            raise self.error(msgspec.json.decode(data))
        if chunk.model.__class__ is str and chunk.model:
            self.served = chunk.model
        if chunk.usage is not None:
            self.usage = read_usage(chunk.usage)
        if (reason := _finish(chunk)) is not None:
            self._finish_reason = reason
        self._said.state = _state(chunk) or self._said.state
        for message in messages:
            yield from self._said.events(message)

    def end(self) -> StreamEnd:
        """The last event. A stream that ended without saying so was cut off. The second version sends no ``[DONE]``.

        Raises:
            ServerError: Neither ``[DONE]`` nor a finish reason came.
        """
        if not self.done and self._finish_reason is None:
            raise self.broken("the stream ended without [DONE] and without a finish reason")
        return StreamEnd(
            finish_reason=self._finish_reason,
            usage=self.usage,
            model_name=self.served,
            citations=self._said.citations,
            native=self._said.native(),
            wire=self.wire,
        )
