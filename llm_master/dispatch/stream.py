"""``LLMStream``: an answer as it arrives."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Generator, Iterator
from decimal import Decimal
from types import TracebackType
from typing import Any, Literal

from llm_master.clock import TimerHandle
from llm_master.dispatch.call import Call
from llm_master.dispatch.retry import rule_for
from llm_master.dispatch.sending import pieces, total_cost
from llm_master.dispatch.settling import cost_of, settle
from llm_master.dispatch.time_limit import TimeLimit, TimeLimitPassed
from llm_master.errors import InvalidOutputError, LLMError, ProviderError, ServerError, StreamInterruptedError
from llm_master.types import (
    AudioDelta,
    CostState,
    LLMResponse,
    ReasoningDelta,
    StreamEnd,
    StreamEvent,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)


class LLMStream:
    """A model's answer in pieces. An asynchronous iterator of its text, and an asynchronous context manager.

    ::

        async with llm.stream(model_name="gpt-4.1", prompt="Tell me more") as stream:
            async for text in stream:
                print(text, end="")
        stream.response.usage

    Until the first piece, failures are met as those of a whole answer are. After it nothing is sent again: a failure is a
    ``StreamInterruptedError`` with what had arrived. Dropped, it gives its connection free.
    """

    __slots__ = (
        "__weakref__",
        "_call",
        "_cancelling",
        "_done",
        "_end",
        "_interrupted",
        "_ready",
        "_reasoning",
        "_response",
        "_since",
        "_source",
        "_task",
        "_text",
        "_tools",
        "_watch",
        "_whole",
    )

    def __init__(self, call: Call) -> None:
        self._call = call
        self._source: AsyncIterator[Any] | None = None
        self._ready: Iterator[Any] = iter(())
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._tools: dict[int, list[str]] = {}
        self._end: StreamEnd | None = None
        self._whole: LLMResponse | None = None
        self._response: LLMResponse | None = None
        self._done = False
        # Set while a task waits for the next piece, for the watch.
        self._task: asyncio.Task[Any] | None = None
        self._since = 0.0
        self._interrupted: Literal["gap", "deadline", "stop"] | None = None
        self._cancelling = 0
        self._watch: TimerHandle | None = None

    def __aiter__(self) -> LLMStream:
        return self

    async def __anext__(self) -> str:
        while True:
            # Pieces that arrived together wait here: no suspension, no timer, no clock for them.
            for event in self._ready:
                if event.__class__ is str:
                    self._text.append(event)
                    return event
                if (text := self._note(event)) is not None:
                    return text
            await self._more()

    async def events(self) -> AsyncIterator[StreamEvent]:
        """The deltas of every kind: text, reasoning, tool calls, and the end with finish reason and usage."""
        while True:
            for event in self._ready:
                self._note(event)
                if not isinstance(event, LLMResponse):
                    yield TextDelta(event) if isinstance(event, str) else event
            try:
                await self._more()
            except StopAsyncIteration:
                return

    async def __aenter__(self) -> LLMStream:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the stream and close its connection; after its end this does nothing."""
        await self.stop()

    def stop(self) -> Awaitable[None]:
        """End the stream now; what came so far stays in ``response``.

        Takes effect at once. Awaited, it returns when the connection is closed.
        """
        source, self._source = self._source, None
        self._ready = iter(())
        if not self._done:
            self._close_attempt("stopped by the caller")
            if self._task is not None and self._task is not _current_task():
                # Another task waits for the next piece. It is woken, and closes the source on its way out.
                self._interrupt("stop")
                source = None
        return _Closing(source)

    @property
    def response(self) -> LLMResponse:
        """The whole answer, once the stream has ended; before that, what has arrived so far."""
        return self._response if self._response is not None else self._assembled()

    async def connect(self) -> LLMStream:
        """Wait for the first delta. The first iteration does it if nobody did."""
        if self._source is None and not self._done:
            await self._connect()
        return self

    async def _connect(self) -> None:
        call = self._call
        self._task = asyncio.current_task()
        self._since = call.clock.monotonic()
        watch = call.hooks.began(call, stream=True) if call.hooks is not None else None
        try:
            if call.before is not None:
                await call.prepare()
            await self._open()
        except BaseException as exc:
            self._done = True
            if self._interrupted == "stop" and isinstance(exc, asyncio.CancelledError):
                self._fail(exc)
            call.over(None, exc)
            raise
        finally:
            self._task = None
            if watch is not None:
                watch.left()

    async def _open(self) -> None:
        call = self._call
        while True:
            attempt = call.begun() or await call.begin()
            limit, is_deadline = call.time_left()
            try:
                # In here, since a provider's stream() that is no generator may raise at once.
                source = pieces(call)
                with TimeLimit(call.clock, limit):
                    first = await source.__anext__()
            except BaseException as exc:
                ended = isinstance(exc, StopAsyncIteration)
                await call.failed(ServerError("the stream ended before it began") if ended else exc, is_deadline=is_deadline)
                continue
            self._source = source
            attempt.first_delta = call.clock.monotonic() - call.began
            if call.lease is not None:
                call.lease.answered()
            self._arm()
            self._arrived(first)
            return

    async def _more(self) -> None:
        """Wait for the next pieces; raises ``StopAsyncIteration`` at the end."""
        source = self._source
        if source is None:
            if self._done:
                raise StopAsyncIteration
            await self._connect()
            return
        self._task = asyncio.current_task()
        self._since = self._call.clock.monotonic()
        try:
            piece = await source.__anext__()
        except StopAsyncIteration:
            if not self._done:
                await self._finish()
            raise
        except BaseException as exc:
            self._fail(exc)
            raise  # _fail returns only for what must pass through as it is
        finally:
            self._task = None
        if self._interrupted is not None:
            # Interrupted, and the provider answered all the same: the interruption still holds.
            self._fail(asyncio.CancelledError())
        self._arrived(piece)

    def _arrived(self, piece: Any) -> None:
        self._ready = iter(piece if isinstance(piece, list) else (piece,))

    def _note(self, event: Any) -> str | None:
        """Keep what an event brings; return its text, if it is one."""
        if isinstance(event, TextDelta):
            event = event.text
        if isinstance(event, str):
            self._text.append(event)
            return event
        if isinstance(event, ReasoningDelta):
            self._reasoning.append(event.text)
        elif isinstance(event, ToolCallDelta):
            call = self._tools.setdefault(event.index, ["", "", ""])
            call[0] = call[0] or event.id or ""
            call[1] = call[1] or event.name or ""
            call[2] += event.arguments
        elif isinstance(event, StreamEnd):
            self._end = event
        elif isinstance(event, LLMResponse):
            self._whole = event
        elif not isinstance(event, AudioDelta):  # the whole of the audio comes with the end
            raise TypeError(f"a provider's stream yields str and stream events, not {type(event).__name__}")
        return None

    def _assembled(self) -> LLMResponse:
        if self._whole is not None:
            return self._whole
        end = self._end or StreamEnd()
        return LLMResponse(
            "".join(self._text),
            end.model_name or self._call.target.route.model,
            end.usage or Usage(),
            finish_reason=end.finish_reason,
            reasoning="".join(self._reasoning) or None,
            tool_calls=[ToolCall.from_text(*self._tools[index]) for index in sorted(self._tools)],
            citations=end.citations,
            images=end.images,
            audio=end.audio,
            native=end.native,
            wire=end.wire,
        )

    async def _finish(self) -> None:
        self._done = True
        self._disarm()
        call = self._call
        response = self._assembled()
        if call.attempt is not None:
            response.latency = call.attempt.latency = call.clock.monotonic() - call.began
        await settle(call, response)
        self._response = response
        self._source = None
        if call.wanted is not None:
            from llm_master.structured import finish

            try:
                finish(call.wanted, "json_schema", response)  # a tool's arguments have been made text on the way
            except InvalidOutputError as exc:
                call.note_invalid(exc, "raised")
                call.over(response, exc)
                raise
            if call.hooks is not None:
                call.hooks.response(response)
        call.over(response)

    def _close_attempt(self, then: str, error: BaseException | None = None) -> None:
        """End without an end: the caller's wish, or a cancellation. Sent tokens are not known, so neither is the cost."""
        self._keep_what_came()
        call = self._call
        if call.lease is not None:
            call.lease.release()
        call.close_attempt(then, self._response)
        call.over(self._response, error)

    def _keep_what_came(self) -> None:
        self._done = True
        self._disarm()
        call = self._call
        response = self._assembled()
        response.model_name, response.provider, response.receipt = call.target.name, call.target.route.provider, call.receipt
        # Where the provider counted before the end, there may be more to come.
        cost = response.cost = cost_of(call, response.usage, response.wire)[0]
        known: tuple[Decimal | None, CostState] = (cost, "unknown" if cost is None else "estimated")
        call.receipt.cost, call.receipt.cost_state = known if call.spent is None else total_cost(call.spent, known)
        if call.attempt is not None:
            response.latency = call.attempt.latency = call.clock.monotonic() - call.began
            call.attempt.cost, call.attempt.cost_state = known
            call.attempt.model_served = self._end.model_name if self._end is not None else None
        self._response = response

    def _fail(self, exc: BaseException) -> None:
        """Turn what broke the stream into the right error; return for what must be raised as it is."""
        reason, self._interrupted = self._interrupted, None
        task = asyncio.current_task()
        ours = reason is not None and task is not None and task.uncancel() <= self._cancelling
        if ours and isinstance(exc, asyncio.CancelledError):
            if reason == "stop":
                raise StopAsyncIteration from None
            exc = TimeLimitPassed()
        if not isinstance(exc, Exception):
            if not self._done:
                self._close_attempt("cancelled", exc)
            return
        call = self._call
        error = call.translated(exc, is_deadline=reason == "deadline")
        if not self._done:
            self._keep_what_came()
        if call.lease is not None:
            call.lease.failed(rule_for(error).key, error, began=True)
        if not isinstance(error, LLMError):
            call.write_failure(error, "raised: output had begun")
            call.over(self._response, error)
            return
        interrupted = StreamInterruptedError(
            f"the stream broke after output began: {error}",
            status=getattr(error, "status", None),
            provider=call.target.route.provider,
            model=call.target.route.model,
            request_id=getattr(error, "request_id", None),
            code=error.code if isinstance(error, ProviderError) else None,
        )
        interrupted.response = self._response
        call.write_failure(interrupted, "raised: output had begun, and nothing may be glued to it")
        call.over(self._response, interrupted)
        raise interrupted from error

    # The watch: one timer, set anew only when it fires, so that a piece costs two assignments.

    def _arm(self) -> None:
        call = self._call
        now = call.clock.monotonic()
        gap = (self._since if self._task is not None else now) + call.timeout
        watched = weakref.ref(self)  # a strong one would keep an abandoned stream alive until it fires

        def look() -> None:
            stream = watched()
            if stream is not None:
                stream._look()

        self._watch = call.clock.call_later(max(0.0, min(gap, call.deadline_at) - now), look)

    def _disarm(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _look(self) -> None:
        if self._done:
            return
        call = self._call
        now = call.clock.monotonic()
        if now >= call.deadline_at:
            self._interrupt("deadline")
        elif self._task is not None and now >= self._since + call.timeout:
            self._interrupt("gap")
        else:
            self._arm()

    def _interrupt(self, reason: Literal["gap", "deadline", "stop"]) -> None:
        if self._task is not None:
            self._interrupted = reason
            self._cancelling = self._task.cancelling()
            self._task.cancel()
        elif self._source is not None:
            # Nobody waits just now: whoever comes next learns it, and the dropped source closes itself.
            self._interrupted = reason
            self._source = _passed()


class _Closing:
    """Closes a source when awaited; a source that is only dropped is closed by asyncio."""

    __slots__ = ("_source",)

    def __init__(self, source: AsyncIterator[Any] | None) -> None:
        self._source = source

    def __await__(self) -> Generator[Any, None, None]:
        source, self._source = self._source, None
        close = getattr(source, "aclose", None)
        if close is not None:
            yield from close().__await__()


async def _passed() -> AsyncIterator[Any]:
    raise TimeLimitPassed
    yield


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
