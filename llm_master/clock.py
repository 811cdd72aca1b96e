"""Time, as everything that waits sees it.

Whoever waits takes a :class:`Clock`, so that tests replace it by
``llm_master.testing.FakeClock`` and no test sleeps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class TimerHandle(Protocol):
    """What :meth:`Clock.call_later` returns."""

    def cancel(self) -> None:
        """Take the timer back; after it fired this does nothing."""


class Clock:
    """The system's clock. All times are seconds."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back. For waits and latencies."""
        return time.monotonic()

    def time(self) -> float:
        """Seconds since the epoch. For what is shown or compared with a server's date."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait at least ``seconds``."""
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> TimerHandle:
        """Call ``callback`` on the running event loop after ``seconds``."""
        return asyncio.get_running_loop().call_later(seconds, callback)

    def wake_later(self, seconds: float, callback: Callable[[], object]) -> TimerHandle:
        """The same for one who waits for just that, as in ``sleep``, and has nothing to do before."""
        return self.call_later(seconds, callback)


SYSTEM_CLOCK = Clock()
