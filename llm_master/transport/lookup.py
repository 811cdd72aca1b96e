"""Looking up hosts, each in a thread of its own.

The event loop has a handful of threads for all that blocks. A few hosts whose look-up hangs, as all do where the network is
away, would take them all: then a server on this very machine would not be found, and the program could not end before the
last of them has given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class Lookup:
    """A resolver for aiohttp, which has the answers for some seconds."""

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list[dict[str, Any]]:
        """The addresses of a host.

        Raises:
            OSError: It has none, or they cannot be found out.
        """
        found = await _in_a_thread(host, port, family)
        return [
            {"hostname": host, "host": address[0], "port": address[1], "family": kind, "proto": protocol, "flags": _NUMERIC}
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """There is nothing to close."""


def _in_a_thread(host: str, port: int, family: int) -> asyncio.Future[list[Any]]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[Any]] = loop.create_future()

    def tell(found: list[Any] | BaseException) -> None:
        if future.done():  # nobody waits any more
            return
        if isinstance(found, BaseException):
            future.set_exception(found)
        else:
            future.set_result(found)

    def look_up() -> None:
        found: list[Any] | BaseException
        try:
            found = _addresses(host, port, family)
        except Exception as exc:
            found = exc  # raised where it is awaited
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, found)

    # A thread that hangs must not keep the program from ending.
    threading.Thread(target=look_up, name=f"look up {host}", daemon=True).start()
    return future


def _addresses(host: str, port: int, family: int) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
    except socket.gaierror:
        if host != "localhost":
            raise
        # Where there is no network but this machine, the flag may leave nothing.
        return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
