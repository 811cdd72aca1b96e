"""How many requests may be in flight to one provider."""

from __future__ import annotations

import asyncio
import threading
from collections import deque


class Gate:
    """Lets so many in at once, in the order in which they came; over all event loops and threads.

    A place that is given to a waiter who has been cancelled goes to the next.
    """

    __slots__ = ("_inside", "_lock", "_waiting", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._inside = 0
        self._waiting: deque[_Waiter] = deque()
        # Reentrant: a waiter that is collected as garbage leaves, in whatever thread and wherever that happens.
        self._lock = threading.RLock()

    async def enter(self) -> None:
        """Wait for a place. Whoever has entered calls :meth:`leave` once."""
        with self._lock:
            if self._inside < self.limit and not self._waiting:
                self._inside += 1
                return
        # Made outside the lock, since to make it may collect garbage that leaves; so the place is looked for once more.
        waiter = _Waiter(asyncio.get_running_loop())
        with self._lock:
            if self._inside < self.limit and not self._waiting:
                self._inside += 1
                return
            self._waiting.append(waiter)
        try:
            await waiter.future
        except BaseException:  # cancelled, or its loop was closed before it woke
            with self._lock:
                given = waiter.admitted
                waiter.gone = True
            if given:
                self.leave()
            raise

    def leave(self) -> None:
        """Give the place to whoever waits longest."""
        with self._lock:
            while self._waiting:
                waiter = self._waiting.popleft()
                if not waiter.gone and waiter.admit():
                    return
            self._inside -= 1


class _Waiter:
    """One who waits, on a loop of his own."""

    __slots__ = ("_loop", "admitted", "future", "gone")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.future: asyncio.Future[None] = loop.create_future()
        self.admitted = False
        self.gone = False

    def admit(self) -> bool:
        """Wake it; whether its loop is still there."""
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # its loop was closed, and whoever waited on it is gone
            return False
        self.admitted = True
        return True

    def _wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)
