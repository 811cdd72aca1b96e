"""A clock that a test turns."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

from llm_master.clock import Clock


class _Timer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock(Clock):
    """Time that passes only when told to.

    ::

        clock = FakeClock()
        task = asyncio.create_task(QueryLLM(clock=clock).query(...))
        await clock.advance(10)

    Args:
        start: What ``monotonic()`` says at first. ``time()`` says the same plus ``epoch``.
        auto_advance: A ``sleep`` moves the clock by itself and returns, so that code which waits runs through at once.
        epoch: Seconds since 1970 at ``start``.

    Attributes:
        sleeps: Every wait that was asked for, in seconds, in order.
    """

    def __init__(self, start: float = 0.0, *, auto_advance: bool = False, epoch: float = 1_800_000_000.0) -> None:
        self._now = start
        self._epoch = epoch - start
        self._auto_advance = auto_advance
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = itertools.count()
        self.sleeps: list[float] = []
        self._advancing: set[asyncio.Task[None]] = set()

    def monotonic(self) -> float:
        """Seconds on this clock."""
        return self._now

    def time(self) -> float:
        """Seconds since 1970 on this clock."""
        return self._epoch + self._now

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been advanced so far."""
        self.sleeps.append(seconds)
        if self._auto_advance:
            await self.advance(seconds)
            return
        woken = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, lambda: _wake(woken))
        try:
            await woken
        finally:
            timer.cancel()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> _Timer:
        """Call ``callback`` when the clock has been advanced so far."""
        timer = _Timer(callback)
        heapq.heappush(self._timers, (self._now + max(0.0, seconds), next(self._order), timer))
        return timer

    def wake_later(self, seconds: float, callback: Callable[[], object]) -> _Timer:
        """The same for one who waits for just that: counted among the ``sleeps``, and with ``auto_advance`` nobody waits long."""
        self.sleeps.append(seconds)
        timer = self.call_later(seconds, callback)
        if self._auto_advance:
            task = asyncio.get_running_loop().create_task(self.advance(seconds))
            self._advancing.add(task)
            task.add_done_callback(self._advancing.discard)
        return timer

    async def advance(self, seconds: float) -> None:
        """Let time pass: timers that fall due are called in order, and whoever they wake runs before the next."""
        end = self._now + seconds
        await _let_others_run()
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, due)
            if timer.callback is not None:
                timer.callback()
                await _let_others_run()
        self._now = end
        await _let_others_run()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _let_others_run() -> None:
    # A few turns of the loop: one wakes a future's waiter, the next what that one set off.
    for _ in range(5):
        await asyncio.sleep(0)
