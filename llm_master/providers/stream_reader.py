"""From the pieces of a stream to its events: what the readers of all formats have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from llm_master.errors import ProviderError, ServerError
from llm_master.providers.bodies import error_under_200
from llm_master.providers.failures import UNREADABLE
from llm_master.types import LLMResponse, ReasoningDelta, StreamEnd, StreamEvent, ToolCallDelta, Usage, WireAnswer


class StreamReader:
    """Events of one stream from its pieces, and what only its end tells.

    Attributes:
        began: Something has been handed out.
        done: The stream has said that it is over.
        failure: What broke it, once the events before it have been handed out.
        usage: What it cost, once it has come; a format that learns it by and by says it by ``usage_so_far``.
        served: The model that answers, once known.
    """

    def __init__(self, model: str, status: int | None, request_id: str | None) -> None:
        self.model = model
        self.wire = WireAnswer(status, request_id)
        self.served: str | None = None
        self.began = False
        self.done = False
        self.failure: Exception | None = None
        self.usage: Usage | None = None

    def read(self, pieces: Sequence[bytes]) -> list[str | StreamEvent]:
        """Events of the data that arrived together.

        What comes before a piece that is an error is returned, and the error stands in ``failure``.
        """
        events: list[str | StreamEvent] = []
        for data in pieces:
            try:
                events.extend(self.events_of(data))
            except (ProviderError, *UNREADABLE) as exc:
                self.fail(exc, data)
                break
            if self.done:
                break
        self.began = self.began or bool(events)
        return events

    def fail(self, exc: Exception, data: bytes) -> None:
        """Note what broke the stream: an error that it holds, or ``data`` that cannot be read."""
        if isinstance(exc, ProviderError):
            exc.status = exc.status or self.wire.status
            exc.request_id = exc.request_id or self.wire.request_id
            self.failure = exc
        else:
            self.failure = self.broken(f"the stream holds what cannot be read ({exc}): {data[:120]!r}")

    def error(self, content: Any) -> ProviderError:
        """The error for an error object in the stream."""
        return error_under_200(content, self.model, status=self.wire.status, request_id=self.wire.request_id)

    def broken(self, message: str) -> ServerError:
        """The error for a stream that is none, or was cut off."""
        return ServerError(message, status=self.wire.status, model=self.model, request_id=self.wire.request_id)

    def usage_so_far(self) -> Usage | None:
        """Usage, if it has come."""
        return self.usage

    def events_of(self, data: bytes) -> Iterable[str | StreamEvent]:
        """Events of one piece. Raises ``ProviderError`` or ``msgspec.DecodeError``."""
        raise NotImplementedError

    def ended(self) -> StreamEnd:
        """The last event, once all pieces were read.

        Raises:
            ServerError: The stream was cut off, or its pieces make no answer.
        """
        try:
            return self.end()
        except UNREADABLE as exc:
            raise self.broken(f"the stream's pieces make no answer ({exc})") from exc

    def end(self) -> StreamEnd:
        """The last event. Raises ``ServerError`` where the stream was cut off."""
        raise NotImplementedError


def as_events(answer: LLMResponse) -> list[str | StreamEvent]:
    """A whole answer as the events of a stream."""
    events: list[str | StreamEvent] = []
    if answer.reasoning:
        events.append(ReasoningDelta(answer.reasoning))
    if answer.content:
        events.append(answer.content)
    events += [ToolCallDelta(i, call.id, call.name, call.text or "") for i, call in enumerate(answer.tool_calls)]
    events.append(
        StreamEnd(
            finish_reason=answer.finish_reason,
            usage=answer.usage,
            model_name=answer.model_name,
            citations=answer.citations,
            images=answer.images,
            audio=answer.audio,
            native=answer.native,
            wire=answer.wire,
        )
    )
    return events
