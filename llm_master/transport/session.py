"""One session of the HTTP client per event loop: made on first use, closed with its loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from llm_master.transport.lookup import Lookup

if TYPE_CHECKING:
    import aiohttp

    from llm_master.transport import Endpoint
    from llm_master.transport.timed import TimedBody

CONNECT_TIMEOUT = 30.0
"""Seconds for one TCP and TLS handshake."""

_sessions: dict[asyncio.AbstractEventLoop, Session] = {}
_lock = threading.Lock()


class Session:
    """aiohttp's session on one event loop, with what is needed to close it at the right time."""

    __slots__ = ("_closing", "_http", "_keeper", "active", "closers", "contexts", "draining", "opened", "retired", "timed")

    def __init__(self) -> None:
        import aiohttp

        # asyncio reads into fresh 256 KiB buffers, which glibc serves by mmap, a page fault for each 4 KiB, until a
        # larger block has once been freed: then it keeps them on the heap. Measured: 15 % less CPU per call.
        bytes(1 << 20)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=_connection_limit(),
                socket_factory=self._new_socket,
                resolver=Lookup(),  # type: ignore[arg-type]  # aiohttp's base class would be a top-level import
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
        )
        # A body that notes when it is sent; in a file of its own, since its class derives from aiohttp's.
        from llm_master.transport.timed import TimedBody

        self.timed = TimedBody
        self.active = 0
        self.opened = 0
        self.contexts = 0
        self.draining: set[aiohttp.ClientResponse] = set()
        self.closers: list[Callable[[], Awaitable[object]]] = []
        self.retired = False
        self._keeper: AsyncGenerator[None, None] | None = None
        self._closing: asyncio.Future[None] | None = None

    async def send(self, endpoint: Endpoint, method: str, body: TimedBody | None) -> aiohttp.ClientResponse:
        """Send a request; return when the head of its answer has arrived.

        A server may close a kept connection at any time. Where that is met before the request was written, nobody has
        seen it, so it goes out on another connection at once and is no attempt. Once it was written, the server may have
        begun to work on it, and what to do is for the engine to decide, and for the receipt to say.
        """
        while True:
            opened = self.opened
            try:
                return await self._http.request(
                    method,
                    endpoint._url,
                    data=body,
                    headers=endpoint._headers,
                    allow_redirects=False,
                    ssl=endpoint._ssl,
                    proxy=endpoint._proxy,
                )
            except Exception as exc:
                if self.opened != opened or not _was_never_written(exc):
                    raise

    def _new_socket(self, address: tuple[Any, ...]) -> socket.socket:
        self.opened += 1
        return socket.socket(*address[:3])

    async def close(self) -> None:
        """Close what is open: connections that wait for their end, others' clients, and the rest."""
        for response in self.draining:
            response.close()
        self.draining.clear()
        closers, self.closers = self.closers, []
        for close in closers:
            await close()
        if not self._http.closed:
            await self._http.close()

    async def close_if_idle(self) -> None:
        """Close it, unless calls are in flight."""
        if not self.active:
            await self.close()

    def close_soon(self) -> None:
        """Close it once the running step of the loop has ended."""
        # Kept by the session until it ends: asyncio itself holds its tasks only weakly.
        self._closing = asyncio.ensure_future(self.close_if_idle())


def _was_never_written(exc: Exception) -> bool:
    """Whether a connection was found closed before the whole request had been handed to it."""
    import aiohttp

    return any(isinstance(error, aiohttp.ClientConnectionResetError) for error in (exc, exc.__cause__))


def current_session() -> Session:
    """The running loop's session, made on first use."""
    loop = asyncio.get_running_loop()
    session = _sessions.get(loop)
    return session if session is not None else _new_session(loop)


def _new_session(loop: asyncio.AbstractEventLoop) -> Session:
    session = Session()
    with _lock:
        # A loop that was closed without shutting down its generators left its session behind; it cannot be used again.
        for old in [known for known in _sessions if known.is_closed()]:
            del _sessions[old]
        _sessions[loop] = session
    session._keeper = keeper = _close_with_loop(loop, session)
    # The first step registers the generator with the loop and ends at the yield, so nothing has to be awaited.
    step = keeper.__anext__()
    with contextlib.suppress(StopIteration):
        step.send(None)
    return session


async def _close_with_loop(loop: asyncio.AbstractEventLoop, session: Session) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        with _lock:
            if _sessions.get(loop) is session:
                del _sessions[loop]
        await session.close()


def close_with_loop(close: Callable[[], Awaitable[object]]) -> None:
    """Have ``close`` awaited when the running loop's session is closed: for a client of somebody else's."""
    current_session().closers.append(close)


def enter() -> None:
    """Note that a context uses the running loop's session."""
    current_session().contexts += 1


async def leave() -> None:
    """Close the running loop's session when no other context uses it; calls in flight end first."""
    loop = asyncio.get_running_loop()
    session = _sessions.get(loop)
    if session is None:
        return
    session.contexts -= 1
    if session.contexts > 0:
        return
    with _lock:
        _sessions.pop(loop, None)
    session.retired = True
    if not session.active and session._keeper is not None:
        await session._keeper.aclose()


def _connection_limit() -> int:
    """Connections at once: what the process may open, less a reserve. Calls beyond it wait for a free one."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 0
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if soft == resource.RLIM_INFINITY else max(64, soft - 128)
