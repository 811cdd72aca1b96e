"""One event loop's connection to Redis: batches of operations, each in one round trip."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from llm_master.storage.shared_script import SCRIPT

if TYPE_CHECKING:
    from llm_master.storage.shared import SharedStore

BOUND = 0.25
"""Seconds that a round trip may take until Redis counts as away."""

_LATE = 0.05
"""Seconds by which a timer is late where it was this process that stood still, and not Redis."""

CONNECT = 2.0
"""Seconds that connecting may take, which nobody waits for longer than for a round trip."""

_SLICES = 10
"""Parts in which that time is counted."""

KEPT = 30.0
"""Seconds for which a place in flight is kept without news of whoever holds it."""

_NEWS = 10.0
"""Seconds between two pieces of news."""

_LINGER = 0.002
"""Seconds for which what nobody waits for lets others catch up, so that one round trip serves an answer and the next request."""

Op: TypeAlias = list[Any]
Reply: TypeAlias = list[Any]

_DIGEST = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()  # how EVALSHA names it
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class _Pending:
    """One who waits for a reply."""

    __slots__ = ("future", "op")

    def __init__(self, op: Op, future: asyncio.Future[Reply | None]) -> None:
        self.op = op
        self.future = future


class Link:
    """One event loop's connection. At most one call is under way; what is to be said meanwhile goes together with the next."""

    def __init__(self, store: SharedStore, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._store = store
        self._client: Any = None
        self._era = 0
        self._out: list[tuple[Op, _Pending | None]] = []
        self._runner: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        # Connecting, and whether that takes so long that nobody waits for it.
        self._connecting: asyncio.Task[None] | None = None
        self._is_late = False
        self._closed = False
        # Who holds which places: they are told of again and again, so that those of a dead process come free.
        self._holders: dict[str, Sequence[str]] = {}
        self._news: asyncio.TimerHandle | None = None

    async def take(
        self,
        holder: str,
        states: Sequence[str],
        uses: str,
        windows: Sequence[Sequence[Any]],
        places: Sequence[tuple[str, int]],
    ) -> Reply | None:
        """Take all of it or nothing.

        Args:
            holder: A name for whoever takes, of its own.
            states: States that forbid it, if they are set.
            uses: What counts the takings.
            windows: Of each: name, limit, length and grain in microseconds, amount.
            places: Of each: name, how many.

        Returns:
            ``[1, time (µs), uses, pieces]``; ``[0, "state" | "window" | "place", which, wait (µs), the state]``; ``None`` where
            Redis is away.
        """
        store = self._store
        if store.is_away and self._connecting is None and store.may_try():
            self._connecting = self.loop.create_task(self._connect())
        if store.is_away or self._is_late:
            return None
        pending = _Pending(["take", holder, states, uses, windows, places, int(KEPT * 1e6)], self.loop.create_future())
        self._say(pending.op, pending)
        # Where the caller is cancelled, its future is: what comes for it then is given back.
        reply = await pending.future
        if places and reply is not None and reply[0] == 1:
            self._holders[holder] = [name for name, _ in places]
            if self._news is None:
                self._news = self.loop.call_later(_NEWS, self._tell_news)
        return reply

    def give(self, holder: str, changes: Sequence[Sequence[Any]], places: Sequence[str]) -> None:
        """Correct windows (name, piece, change, its end in µs or 0), and free places. From any thread; nobody waits for it."""
        self.tell(["give", holder, changes, places])

    def set(self, name: str, value: str, seconds: float) -> None:
        """Set a state for so long. From any thread."""
        self.tell(["set", name, value, max(1, int(seconds * 1000))])

    def clear(self, name: str) -> None:
        """Take a state back. From any thread."""
        self.tell(["clear", name])

    def tell(self, op: Op) -> None:
        """Say something that no reply is waited for; it is lost where Redis is away."""
        if asyncio._get_running_loop() is self.loop:
            self._tell(op)
        else:
            with contextlib.suppress(RuntimeError):  # its loop was closed; places come free by themselves
                self.loop.call_soon_threadsafe(self._tell, op)

    def _tell(self, op: Op) -> None:
        if op[0] == "give":
            self._holders.pop(op[1], None)
        if not self._store.is_away:
            self._say(op, None)

    def _say(self, op: Op, pending: _Pending | None) -> None:
        if self._closed:
            self._store.link()._say(op, pending)
            return
        self._out.append((op, pending))
        if self._runner is not None:
            return
        if pending is not None or op[0] == "set":  # bad news go at once
            self._start()
        elif self._later is None:
            self._later = self.loop.call_later(_LINGER, self._start)

    def _start(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._runner is None and self._out:
            self._runner = self.loop.create_task(self._run())

    async def _run(self) -> None:
        batch: list[tuple[Op, _Pending | None]] = []
        try:
            while self._out:
                batch, self._out = self._out, []
                replies = await self._send([op for op, _ in batch])
                for index, (_, pending) in enumerate(batch):
                    if pending is not None:
                        self._hand_over(pending, replies[index] if replies is not None else None)
        finally:
            self._runner = None
            for _, pending in (*batch, *self._out):
                if pending is not None and not pending.future.done():  # cancelled, as its loop ends
                    pending.future.set_result(None)

    def _hand_over(self, pending: _Pending, reply: Reply | None) -> None:
        if not pending.future.done():
            pending.future.set_result(reply)
        elif reply is not None and reply[0] == 1:
            _, holder, _, _, windows, places, _ = pending.op
            changes = [[window[0], piece, -window[4], 0] for window, piece in zip(windows, reply[3], strict=True) if piece]
            self._out.append((["give", holder, changes, [name for name, _ in places]], None))

    async def _send(self, ops: list[Op]) -> list[Any] | None:
        store = self._store
        if store.is_away:
            return None
        payload = _encode(ops)
        for again in (True, False):
            if (self._client is None or self._era != store.era) and not await self._connected():
                return None
            try:
                async with asyncio.timeout(None) as bound:
                    watch = _Watch(self.loop, bound)
                    try:
                        return await self._evaluate(self._client, payload)
                    finally:
                        watch.cancel()
            except _failures() as exc:
                await self._drop()
                # It may be the connection alone that has ended, as where Redis was started anew.
                if not again or not isinstance(exc, _broken()) or isinstance(exc, TimeoutError):
                    store.lost(exc)
                    return None
        return None

    async def _connected(self) -> bool:
        """Whether there is a connection by the time that one waits for it."""
        if self._connecting is None:
            self._connecting = self.loop.create_task(self._connect())
        connecting = self._connecting
        for _ in range(_SLICES):  # of which one counts once, though this process stood still meanwhile
            await asyncio.wait({connecting}, timeout=BOUND / _SLICES)
            if connecting.done():
                return self._client is not None
        self._is_late = True
        return False

    async def _connect(self) -> None:
        """Connect, and see whether Redis does what is asked of it."""
        store = self._store
        try:
            await self._drop()
            async with asyncio.timeout(CONNECT):
                client = _made(store.url)
                try:
                    await self._evaluate(client, _encode([]))
                except BaseException:
                    await _closed(client)
                    raise
        except _failures() as exc:
            store.lost(exc)
        else:
            self._client, self._era = client, store.era
            store.found()
        finally:
            store.tried()
            self._connecting, self._is_late = None, False

    async def _evaluate(self, client: Any, payload: bytes) -> list[Any]:
        prefix = self._store.prefix
        try:
            replies = await client.evalsha(_DIGEST, 0, prefix, payload)
        except client_library().exceptions.NoScriptError:
            replies = await client.eval(SCRIPT, 0, prefix, payload)
        found: list[Any] = _decode(replies)
        return found

    def _tell_news(self) -> None:
        self._news = None
        if self._holders:
            self._tell(["keep", [[name, holder] for holder, names in self._holders.items() for name in names], int(KEPT * 1e6)])
            self._news = self.loop.call_later(_NEWS, self._tell_news)

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _closed(client)

    async def close(self) -> None:
        """Say what is still to be said, and close the connection."""
        if self._news is not None:
            self._news.cancel()
        self._start()
        if self._runner is not None:
            await asyncio.wait([self._runner], timeout=BOUND)
        self._closed = True
        self._store.forget(self)
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting], timeout=BOUND)
        await self._drop()


class _Watch:
    """Ends a round trip that takes too long, unless it was this process that stood still."""

    __slots__ = ("_bound", "_due", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, bound: asyncio.Timeout) -> None:
        self._loop = loop
        self._bound = bound
        self._arm()

    def _arm(self) -> None:
        self._due = self._loop.time() + BOUND
        self._handle = self._loop.call_at(self._due, self._end)

    def _end(self) -> None:
        if self._loop.time() - self._due > _LATE:
            self._arm()
        else:
            self._bound.reschedule(self._loop.time())

    def cancel(self) -> None:
        self._handle.cancel()


def client_library() -> Any:
    """The ``redis`` package, loaded on first use.

    Raises:
        ImportError: It is not installed.
    """
    import redis.asyncio

    return redis


async def _closed(client: Any) -> None:
    with contextlib.suppress(OSError, client_library().exceptions.RedisError, RuntimeError):
        async with asyncio.timeout(_LATE):  # of one that does not answer, nothing is waited for
            await client.aclose()


def _broken() -> tuple[type[Exception], ...]:
    return (OSError, client_library().exceptions.ConnectionError)


def _failures() -> tuple[type[Exception], ...]:
    # A URL that redis cannot use is a ValueError. TimeoutError is an OSError.
    return (OSError, client_library().exceptions.RedisError, ValueError)


def _made(url: str) -> Any:
    redis = client_library()
    # Whoever calls has a bound of its own, and tries again by rules of its own.
    retry = redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0)
    return redis.asyncio.Redis.from_url(url, single_connection_client=True, retry=retry, socket_timeout=None)
