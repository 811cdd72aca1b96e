"""One event loop in a thread of its own, for callers that have none or must not wait on theirs."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from llm_master.errors import ConfigurationError

T = TypeVar("T")

_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None
_lock = threading.Lock()


def run_in_background(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on the background loop and wait for its result. An interrupt cancels it.

    Raises:
        ConfigurationError: Called on the background loop itself, where waiting would never end.
    """
    future = _start(make)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def iterate_in_background(make: Callable[[], AsyncGenerator[T, None]]) -> Iterator[T]:
    """Run an asynchronous generator on the background loop and yield what it yields.

    It goes on while the caller is busy with an item. Left early, or interrupted, the iteration cancels it.

    Raises:
        ConfigurationError: As :func:`run_in_background`.
    """
    arrived: queue.SimpleQueue[tuple[T] | None] = queue.SimpleQueue()

    async def pump() -> None:
        try:
            async with contextlib.aclosing(make()) as source:
                async for item in source:
                    arrived.put((item,))
        finally:
            arrived.put(None)

    future = _start(pump)
    try:
        while (item := arrived.get()) is not None:
            yield item[0]
        future.result()
    finally:
        future.cancel()


def _start(make: Callable[[], Coroutine[Any, Any, T]]) -> concurrent.futures.Future[T]:
    loop = _background_loop()
    if threading.current_thread() is _thread:
        raise ConfigurationError(
            "query_sync(), or another method without await, was called inside its own event loop, where it would wait for itself: await there"
        )
    return asyncio.run_coroutine_threadsafe(make(), loop)


def _background_loop() -> asyncio.AbstractEventLoop:
    global _loop, _thread
    with _lock:
        if _loop is None or _loop.is_closed() or _thread is None or not _thread.is_alive():
            started = threading.Event()
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_serve, args=(_loop, started), name="llm_master", daemon=True)
            _thread.start()
            started.wait()
            # Before the interpreter takes daemon threads down, so that connections are closed and not dropped.
            atexit.register(_shut_down)
        return _loop


def _serve(loop: asyncio.AbstractEventLoop, started: threading.Event) -> None:
    asyncio.set_event_loop(loop)
    loop.call_soon(started.set)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _shut_down() -> None:
    loop, thread = _loop, _thread
    if loop is not None and thread is not None and thread.is_alive():
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=5)
