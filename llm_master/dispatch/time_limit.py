"""A bound on waiting: one timer, and nothing else on the way that ends in time."""

from __future__ import annotations

import asyncio
from types import TracebackType

from llm_master.clock import Clock, TimerHandle


class TimeLimitPassed(Exception):
    """The time of a :class:`TimeLimit` is over."""


class TimeLimit:
    """Cancels what its ``with`` block awaits after so many seconds, and raises :class:`TimeLimitPassed` from it.

    As ``asyncio.timeout``, on a clock of ours and at a third of its cost. A cancellation by anybody else passes through.
    """

    __slots__ = ("_cancelling", "_clock", "_handle", "_seconds", "_task", "passed")

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self.passed = False

    def __enter__(self) -> TimeLimit:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("llm_master must be awaited in an asyncio task")
        self._task: asyncio.Task[object] = task
        self._cancelling = task.cancelling()
        self._handle: TimerHandle = self._clock.call_later(self._seconds, self._pass)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self._handle.cancel()
        if self.passed and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeLimitPassed from exc

    def _pass(self) -> None:
        self.passed = True
        self._task.cancel()
