"""The pool: all keys and limits that belong together, and those who wait for them.

Fast path: nobody waits, a slot is free, it is taken under a short lock. Else one queues. Waiters are served in the order in which
they came (the higher ``priority`` first), when something is given back or when a timer says that a window has moved on; nobody
polls, and nobody holds anything while he waits. What the first in order waits for, nobody behind him takes, be his need ever so
small: so no one starves. In simulations, letting small requests pass large ones brought no more through.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import threading
from collections import deque

from llm_master.clock import Clock, TimerHandle
from llm_master.dispatch.choosing import Outlook, choose
from llm_master.dispatch.keys import KeyState, Share
from llm_master.dispatch.lease import Lease
from llm_master.dispatch.limits import NEVER, ONE, Ask, Limit, Need
from llm_master.dispatch.line import Line
from llm_master.dispatch.sharing import Keeper, Sharing

_SOONEST = 0.001
"""Seconds after which is looked again at the earliest: a time that was rounded down would else be looked for again and again."""


class NoCapacity(Exception):
    """No key can be had in time.

    Attributes:
        wait: Seconds until one could be at the earliest; infinite where that is not worth waiting for.
        why: What stands in the way.
    """

    def __init__(self, wait: float, why: str) -> None:
        super().__init__(why)
        self.wait = wait
        self.why = why


class Waiter:
    """One who waits, on a loop of his own."""

    __slots__ = ("ask", "error", "future", "gone", "learnt", "lease", "loop", "need", "order", "refused", "until", "why")

    def __init__(self, order: tuple[int, int], ask: Ask, need: Need, refused: frozenset[KeyState], until: float) -> None:
        self.order = order
        self.ask = ask
        self.need = need
        self.learnt = 0
        self.refused = refused
        self.until = until
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.lease: Lease | None = None
        self.error: NoCapacity | None = None
        self.gone = False
        self.why = ""

    def need_now(self, line: Line) -> Need:
        """Its need, by what the answers have taught meanwhile."""
        if self.ask is not None and self.learnt != line.learnt:
            self.learnt, self.need = line.learnt, line.need(self.ask)
        return self.need

    def wake(self) -> bool:
        """Let it go on; whether its loop is still there."""
        if asyncio._get_running_loop() is self.loop:
            self._wake()
            return True
        try:
            self.loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # its loop was closed, and whoever waited on it is gone
            return False
        return True

    def _wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class Pool:
    """Keys and limits that belong together, over all event loops and threads.

    Attributes:
        lock: Held while anything of it changes. Reentrant: what is collected as garbage gives its lease back, in whatever
            thread and wherever that happens.
        waiting: How many wait.
        keeper: Who is told what becomes of keys.
        sharing: The same, where each lease must be granted by what all processes share.
    """

    def __init__(self, clock: Clock, keeper: Keeper | None = None) -> None:
        self.clock = clock
        self.keeper = keeper
        self.sharing = keeper if isinstance(keeper, Sharing) else None
        # Whether times that the system's clock says can be compared with this one's.
        self.is_real = type(clock).monotonic is Clock.monotonic
        self.lock = threading.RLock()
        self.waiting = 0
        self.lines: list[Line] = []
        self._tickets = itertools.count()
        self._serving = False
        self._again = False
        self._timer: _Timer | None = None

    def ticket(self) -> int:
        """A place in the order of those who come."""
        return next(self._tickets)

    def lease(self, line: Line, ask: Ask, refused: frozenset[KeyState]) -> Lease | None:
        """A lease, if one can be had now and nobody waits."""
        with self.lock:
            if self.waiting:
                return None
            now = self.clock.monotonic()
            need = ONE if ask is None else line.need(ask)
            slot = choose(line, need, refused, now)
            return Lease(line, slot, ask, need, now) if slot is not None else None

    async def wait(self, line: Line, ask: Ask, refused: frozenset[KeyState], order: tuple[int, int], until: float) -> tuple[Lease, str]:
        """A lease, waited for if need be; and why it had to wait.

        Args:
            line: Where.
            ask: What is known of the request's tokens.
            refused: Keys that are not to be used.
            order: Lower goes first: minus the priority, then the ticket.
            until: When waiting has no sense any more, on the monotonic clock; the caller sets the timer for it.

        Raises:
            NoCapacity: None can be had in time; told as soon as it is known.
        """
        with self.lock:
            now = self.clock.monotonic()
            need = line.need(ask)
            outlook = Outlook(line, need, refused, now, ahead=_ahead(line, order), most=until - now, whole=False)
            if now + outlook.wait >= until:
                raise NoCapacity(outlook.wait, outlook.why)
        # Made outside the lock, since to make it may collect garbage that gives leases back; a place is looked for below.
        waiter = Waiter(order, ask, need, refused, until)
        waiter.why = outlook.why or "others came first"
        with self.lock:
            _enqueue(line, waiter)
            self.waiting += 1
            # Behind others there is nothing to be had, or whoever is first would have it; unless he may not use each key.
            if line.queue[-1] is not waiter or len(line.queue) - line.gone == 1 or line.queue[0].refused:
                self.serve()
        try:
            await waiter.future
        except BaseException:  # cancelled, or its loop was closed before it woke
            with self.lock:
                if waiter.lease is not None:
                    waiter.lease.unsent()
                elif not waiter.gone:
                    self._leave(waiter)
                    line.gone += 1
                    self._tidy(line)
                    if self.waiting:
                        self.serve()
            raise
        if waiter.error is not None:
            raise waiter.error
        assert waiter.lease is not None
        return waiter.lease, waiter.why

    def refresh(self, share: Share) -> None:
        """A share has learnt of a limit."""
        for line in self.lines:
            if slots := [slot for slot in line.slots if slot.share is share]:
                for slot in slots:
                    slot.refresh()
                line.measure()

    def serve(self) -> None:
        """Give what is free to those who wait, in their order. The lock is held."""
        if self._serving:  # from within: a lease was collected as garbage just now
            self._again = True
            return
        self._serving = True
        try:
            self._again = True
            while self._again:
                self._again = False
                self._serve()
        finally:
            self._serving = False

    def _serve(self) -> None:
        now = self.clock.monotonic()
        heads = [(line.queue[0].order, position, 0) for position, line in enumerate(self.lines) if line.queue]
        heapq.heapify(heads)
        claimed: set[Limit] = set()
        next_at, next_waiter = NEVER, None
        while heads:
            _, position, index = heapq.heappop(heads)
            line = self.lines[position]
            queue = line.queue
            waiter = queue[index]
            if waiter.gone:
                del queue[index]
                line.gone -= 1
            elif (slot := choose(line, waiter.need_now(line), waiter.refused, now, claimed)) is not None:
                lease = Lease(line, slot, waiter.ask, waiter.need, now)
                del queue[index]
                self._leave(waiter)
                waiter.lease = lease
                if not waiter.wake():
                    waiter.lease = None
                    lease.unsent()
            elif (full := line.full()) is not None:
                # Until another is done; what else may be in the way is seen then.
                claimed.add(full)
                continue
            else:
                outlook = Outlook(line, waiter.need, waiter.refused, now)
                if now + outlook.wait >= waiter.until:
                    del queue[index]
                    self._leave(waiter)
                    waiter.error = NoCapacity(outlook.wait, outlook.why)
                    waiter.wake()
                else:
                    claimed |= outlook.limits
                    at = now + max(outlook.alarm, _SOONEST)
                    if at < next_at:
                        next_at, next_waiter = at, waiter
                    if not waiter.refused:  # else one behind him may use a key that he may not
                        continue
                    index += 1
            if index < len(queue):
                heapq.heappush(heads, (queue[index].order, position, index))
        if next_waiter is not None:
            self._arm(next_at, next_waiter, now)

    def _leave(self, waiter: Waiter) -> None:
        waiter.gone = True
        self.waiting -= 1

    def _tidy(self, line: Line) -> None:
        """Drop those who are gone, once they are the most; not while the queue is gone through."""
        if not self._serving and line.gone * 2 > len(line.queue):
            line.queue = deque(waiter for waiter in line.queue if not waiter.gone)
            line.gone = 0

    def _arm(self, at: float, waiter: Waiter, now: float) -> None:
        timer = self._timer
        if timer is not None and timer.holds(at):
            return
        if timer is not None:
            timer.cancel()
        self._timer = _Timer(self, at, waiter, at - now)

    def wake(self, timer: _Timer) -> None:
        """A timer has gone off."""
        with self.lock:
            if self._timer is timer:
                self._timer = None
            if self.waiting:
                self.serve()


class _Timer:
    """Looks again at a time, on the loop of one who waits: whoever waits keeps his loop running."""

    __slots__ = ("_handle", "_pool", "at", "waiter")

    def __init__(self, pool: Pool, at: float, waiter: Waiter, seconds: float) -> None:
        self._pool = pool
        self.at = at
        self.waiter = waiter
        self._handle: TimerHandle | None = None
        if asyncio._get_running_loop() is waiter.loop:
            self._start(seconds)
        else:
            # Where its loop was closed, the waiter is collected, and whoever is next is served then.
            with contextlib.suppress(RuntimeError):
                waiter.loop.call_soon_threadsafe(self._start, seconds)

    def _start(self, seconds: float) -> None:
        self._handle = self._pool.clock.wake_later(seconds, lambda: self._pool.wake(self))

    def holds(self, at: float) -> bool:
        """Whether it goes off by then, and is sure to."""
        return self.at <= at and not self.waiter.gone

    def cancel(self) -> None:
        """Not needed any more. On another loop it is left alone: going off for nothing does no harm."""
        if self._handle is not None and asyncio._get_running_loop() is self.waiter.loop:
            self._handle.cancel()


def _ahead(line: Line, order: tuple[int, int]) -> int:
    """How many of a line are served before one with this order."""
    queue = line.queue
    if not queue or queue[-1].order <= order:
        return len(queue) - line.gone
    return sum(waiter.order < order and not waiter.gone for waiter in queue)


def _enqueue(line: Line, waiter: Waiter) -> None:
    queue = line.queue
    if not queue or queue[-1].order <= waiter.order:
        queue.append(waiter)
        return
    # One who comes again, or goes before others, belongs near the front.
    queue.insert(next(index for index, other in enumerate(queue) if other.order > waiter.order), waiter)
