"""What processes share through Redis: one script call per round trip, and never more than a moment's wait for it.

Redis being away is no failure: whoever asks is told that nothing is known (``None``), one warning is logged, and connecting is
tried again beside the calls that come, until it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import msgspec

from llm_master.errors import ConfigurationError
from llm_master.storage.shared_script import SCRIPT
from llm_master.transport import close_with_loop

logger = logging.getLogger("llm_master.storage")

BOUND = 0.25
"""Seconds that a round trip may take until Redis counts as away."""

_LATE = 0.05
"""Seconds by which a timer is late where it was this process that stood still, and not Redis."""

_PAUSES = (0.1, 5.0)
"""Seconds between two tries to connect: at first, and at most."""

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
_open: weakref.WeakValueDictionary[tuple[str, str], SharedStore] = weakref.WeakValueDictionary()
_open_lock = threading.Lock()


def shared_at(url: str, prefix: str) -> SharedStore:
    """The store at this address: one per process, whoever asks.

    Raises:
        ConfigurationError: The ``redis`` package is not installed.
    """
    try:
        _redis()
    except ImportError as exc:
        raise ConfigurationError(
            f"redis_url is set and the redis package cannot be imported ({exc}): pip install 'llm_master[redis]'"
        ) from None
    with _open_lock:
        store = _open.get((url, prefix))
        if store is None:
            store = _open[url, prefix] = SharedStore(url, prefix)
        return store


class SharedStore:
    """Limits, states and use counts in one Redis.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``. Its password is shown nowhere.
        prefix: What all names begin with.

    Attributes:
        is_away: Redis is not to be had for now.
    """

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = f"{prefix}:"
        self.is_away = False
        # Counts outages: a connection of before one is not used after it.
        self.era = 0
        self._lock = threading.Lock()
        self._next_try = 0.0
        self._pause = _PAUSES[0]
        self._trying = False
        self._links: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Link] = weakref.WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<SharedStore at {shown(self.url)}>"

    def link(self) -> Link:
        """The running loop's connection, made on first use."""
        loop = asyncio.get_running_loop()
        link = self._links.get(loop)
        if link is None:
            link = self._links[loop] = Link(self, loop)
            close_with_loop(link.close)
        return link

    def forget(self, link: Link) -> None:
        """A link was closed."""
        if self._links.get(link.loop) is link:
            del self._links[link.loop]

    def lost(self, error: BaseException) -> None:
        """A round trip failed: go on without Redis, and say so once."""
        with self._lock:
            now = time.monotonic()
            if self.is_away:
                self._pause = min(self._pause * 2, _PAUSES[1])
            else:
                self._pause = _PAUSES[0]
                self.era += 1
            first, self.is_away = not self.is_away, True
            # Not all processes at the same moment.
            self._next_try = now + self._pause * random.uniform(0.75, 1.0)
        if first:
            logger.warning(
                "Redis at %s is away (%s): limits and key states hold for this process alone until it is back. Check that it runs there, "
                "and LLM_MASTER_REDIS_URL (redis_url) with its password",
                shown(self.url),
                _said(error, self.url),
            )

    def found(self) -> None:
        """A round trip went well."""
        with self._lock:
            again, self.is_away = self.is_away, False
        if again:
            logger.info("Redis at %s is back: limits and key states are shared again", shown(self.url))

    def may_try(self) -> bool:
        """Whether it is time to look if Redis is back; whoever is told so does it."""
        with self._lock:
            if self._trying or time.monotonic() < self._next_try:
                return False
            self._trying = True
            return True

    def tried(self) -> None:
        """The look is over."""
        self._trying = False


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
        self._looks: set[asyncio.Task[None]] = set()
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
        if store.is_away:
            if store.may_try():
                look = self.loop.create_task(self._look())
                self._looks.add(look)
                look.add_done_callback(self._looks.discard)
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
        try:
            replies = await self._call(ops)
        except _failures() as exc:
            store.lost(exc)
            await self._drop()
            return None
        return replies

    async def _call(self, ops: list[Op]) -> list[Any]:
        """One round trip.

        Raises:
            OSError: No connection, or no answer in time.
            redis.exceptions.RedisError: Redis says no.
        """
        if self._client is not None and self._era != self._store.era:
            await self._drop()
        payload = _encode(ops)
        async with asyncio.timeout(None) as bound:
            watch = self._watch(bound)
            try:
                if self._client is not None:
                    try:
                        return await self._evaluate(payload)
                    except _broken():
                        # It may be the connection alone that has ended, as where Redis was started anew.
                        await self._drop()
                self._client = _connect(self._store.url)
                self._era = self._store.era
                return await self._evaluate(payload)
            finally:
                watch.cancel()

    def _watch(self, bound: asyncio.Timeout) -> _Watch:
        return _Watch(self.loop, bound)

    async def _evaluate(self, payload: bytes) -> list[Any]:
        prefix = self._store.prefix
        try:
            replies = await self._client.evalsha(_DIGEST, 0, prefix, payload)
        except _redis().exceptions.NoScriptError:
            replies = await self._client.eval(SCRIPT, 0, prefix, payload)
        found: list[Any] = _decode(replies)
        return found

    async def _look(self) -> None:
        """See whether Redis is back."""
        store = self._store
        try:
            try:
                await self._call([])
            except _failures() as exc:
                store.lost(exc)
                await self._drop()
            else:
                store.found()
        finally:
            store.tried()

    def _tell_news(self) -> None:
        self._news = None
        if self._holders:
            self._tell(["keep", [[name, holder] for holder, names in self._holders.items() for name in names], int(KEPT * 1e6)])
            self._news = self.loop.call_later(_NEWS, self._tell_news)

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(OSError, _redis().exceptions.RedisError, RuntimeError):
                async with asyncio.timeout(_LATE):  # of one that does not answer, nothing is waited for
                    await client.aclose()

    async def close(self) -> None:
        """Say what is still to be said, and close the connection."""
        if self._news is not None:
            self._news.cancel()
        self._start()
        if self._runner is not None:
            await asyncio.wait([self._runner], timeout=BOUND)
        self._closed = True
        self._store.forget(self)
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


def _redis() -> Any:
    import redis.asyncio

    return redis


def _broken() -> tuple[type[Exception], ...]:
    return (OSError, _redis().exceptions.ConnectionError)


def _failures() -> tuple[type[Exception], ...]:
    # A URL that redis cannot use is a ValueError. TimeoutError is an OSError.
    return (OSError, _redis().exceptions.RedisError, ValueError)


def _connect(url: str) -> Any:
    redis = _redis()
    # Whoever calls has a bound of its own, and tries again by rules of its own.
    retry = redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0)
    return redis.asyncio.Redis.from_url(url, single_connection_client=True, retry=retry, socket_timeout=None)


def shown(url: str) -> str:
    """A URL without what may be secret in it."""
    try:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
        return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"
    except ValueError:
        return "the address given"


def _said(error: BaseException, url: str) -> str:
    text = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
    with contextlib.suppress(ValueError):
        if password := urlsplit(url).password:
            text = text.replace(password, "…")
    return text
