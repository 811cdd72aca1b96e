"""What is called beside a query, and cannot break it: the user's hooks, and observers that see it from beginning to end."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from llm_master.types import Attempt, LLMResponse, Receipt

if TYPE_CHECKING:
    from llm_master.dispatch.call import Call

logger = logging.getLogger("llm_master.hooks")

_running: set[asyncio.Future[Any]] = set()
"""Asynchronous hooks under way: an event loop keeps no strong reference to its tasks."""

_warned: set[tuple[str, type[BaseException]]] = set()
"""Failures of observers that were told: one that fails does so with each query."""


class Observer(Protocol):
    """Sees queries. What it raises is told in the log once per kind, and breaks nothing.

    A response is an ``LLMResponse`` or a ``Result``, of a stream that did not reach its end what had come.
    """

    def refused(self, model_name: str, error: Exception) -> None:
        """A query could not even be begun: its model is not known, an option cannot be one."""

    def began(self, call: Call, *, stream: bool) -> Any:
        """A query begins, in the task that will send it. What this returns is handed to the methods below."""

    def left(self, state: Any) -> None:
        """In the task of ``began``: it has its answer, or its stream's first piece, and goes on to other things."""

    def attempt(self, state: Any, attempt: Attempt, receipt: Receipt, response: Any) -> None:
        """An attempt has ended, with a response or without."""

    def ended(self, state: Any, receipt: Receipt, response: Any, error: BaseException | None) -> None:
        """The query has ended, once, in whatever task or thread: answered, failed, cancelled, stopped, or given up.

        The last two bring no error; the last attempt's ``then`` tells them from an answer.
        """


class Watch:
    """One query, as its observers see it."""

    __slots__ = ("_open", "_receipt", "_seers")

    def __init__(self, observers: tuple[Observer, ...], call: Call, *, stream: bool) -> None:
        self._open = True
        # Not the call, which holds this: a stream that nobody holds any more is then collected at once.
        self._receipt = call.receipt
        self._seers: list[tuple[Observer, Any]] = []
        for observer in observers:
            with _unbroken(observer):
                self._seers.append((observer, observer.began(call, stream=stream)))

    def left(self) -> None:
        """The task goes on."""
        for observer, state in self._seers:
            with _unbroken(observer):
                observer.left(state)

    def attempt(self, attempt: Attempt, response: Any) -> None:
        """An attempt has ended."""
        for observer, state in self._seers:
            with _unbroken(observer):
                observer.attempt(state, attempt, self._receipt, response)

    def ended(self, response: Any, error: BaseException | None) -> None:
        """The query has ended."""
        self._open = False
        for observer, state in self._seers:
            with _unbroken(observer):
                observer.ended(state, self._receipt, response, error)

    def __del__(self) -> None:
        # At the interpreter's end nobody is there to be told.
        if self._open and self._seers and not sys.is_finalizing():
            attempts = self._receipt.attempts
            if attempts and attempts[-1].latency is None:
                attempts[-1].then = "abandoned"
                self.attempt(attempts[-1], None)
            self.ended(None, None)


@attrs.frozen
class Hooks:
    """Who listens to the queries of one engine.

    Attributes:
        on_attempt: Called with the attempt and the receipt when an attempt has ended, well or not.
        on_response: Called with each answer; of a stream, at its end.
        observers: See all of each query.
    """

    on_attempt: Callable[[Attempt, Receipt], Any] | None = None
    on_response: Callable[[LLMResponse], Any] | None = None
    observers: tuple[Observer, ...] = ()

    def refused(self, model_name: str, error: Exception) -> None:
        """Tell of a query that could not be begun."""
        for observer in self.observers:
            with _unbroken(observer):
                observer.refused(model_name, error)

    def began(self, call: Call, *, stream: bool) -> Watch | None:
        """Tell of a query that begins; what watches it, if anybody does."""
        if self.observers:
            call.watch = Watch(self.observers, call, stream=stream)
        return call.watch

    def attempt(self, call: Call, response: Any) -> None:
        """Tell of an attempt that has ended; once, though a stream that is stopped while it connects ends twice."""
        attempt = call.attempt
        if attempt is None or attempt is call.told:
            return
        call.told = attempt
        if self.on_attempt is not None:
            _call("on_attempt", self.on_attempt, attempt, call.receipt)
        if call.watch is not None:
            call.watch.attempt(attempt, response)

    def response(self, response: Any) -> None:
        """Tell of an answer."""
        if self.on_response is not None:
            _call("on_response", self.on_response, response)


async def observed(hooks: Hooks, call: Call, answer: Coroutine[Any, Any, Any]) -> Any:
    """Await a call's answer, and tell of its beginning and its end."""
    watch = hooks.began(call, stream=False)
    try:
        response = await answer
    except BaseException as exc:
        call.over(getattr(exc, "response", None), exc)
        raise
    else:
        call.over(response)
        return response
    finally:
        if watch is not None:
            watch.left()


class _unbroken:  # noqa: N801  # used as a word, and a class since a generator costs each query several times as much
    """What an observer raises is told once per kind, and goes no further: the answer is there, and nobody asked for it but to be seen."""

    __slots__ = ("_observer",)

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def __enter__(self) -> None:
        """Nothing is to be done before."""

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> bool:
        if not isinstance(exc, Exception):  # none, or one that must not be held up
            return False
        known = (type(self._observer).__name__, type(exc))
        if known not in _warned:
            _warned.add(known)
            logger.warning("observing with %s failed; the call goes on, and this is not told again", known[0], exc_info=exc)
        return True


def _call(name: str, hook: Callable[..., Any], *arguments: Any) -> None:
    try:
        result = hook(*arguments)
    except Exception:  # the user's code, beside a call that it must not break
        logger.warning("the hook %s raised; the call goes on", name, exc_info=True)
        return
    if inspect.isawaitable(result):
        # Beside the call, which does not wait for it.
        task = asyncio.ensure_future(result)
        _running.add(task)
        task.add_done_callback(lambda done: _ended(name, done))


def _ended(name: str, task: asyncio.Future[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("the hook %s raised; the call went on", name, exc_info=error)
