"""An OpenAI-compatible server that costs next to nothing: uvloop and a bare Protocol, ready-made bytes.

Prints its port and serves until its standard input ends. What stands before ``/v1`` in the path says how to answer:
``/n1000`` a stream of 1,000 pieces of text, ``/p2`` 2 ms between them, ``/l50`` after 50 ms, ``/hold`` not before the
client asks for it. ``/wait/500`` is answered once 500 requests are held, and ``/release`` answers these.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import cast

import uvloop

from bench_support import wire, wire_formats
from bench_support.file_limit import raise_file_limit

_FLAG = re.compile(r"/([lnp])([0-9.]+)")
_held: set[Connection] = set()
_waiting: list[tuple[int, Connection]] = []
_flags: dict[bytes, dict[str, float]] = {}


class Connection(asyncio.Protocol):
    """One client connection; requests on it follow each other."""

    def __init__(self) -> None:
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by descent

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        _held.discard(self)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        while (request := _split(data)) is not None:
            head, body, data = request
            self._answer(head.split(b" ", 2)[1], body)
        self._rest = data

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _answer(self, path: bytes, body: bytes) -> None:
        prefix, rest = _parted(path)
        if path.startswith(b"/wait/"):
            _waiting.append((int(path[6:]), self))
            _wake()
        elif path == b"/release":
            _release()
            self.write(wire.answer(b"{}"))
        elif prefix == b"/hold":
            _held.add(self)
            _wake()
        elif rest == b"/embeddings":
            self.write(wire.embeddings(body.count(b"a rate limit keeps")))
        elif (form := wire_formats.format_at(rest)) is not None:
            self._foreign(form, prefix, rest + body)
        else:
            self._complete(_flags_of(prefix), streaming=b'"stream":true' in body.replace(b": ", b":"))

    def _foreign(self, form: str, prefix: bytes, asked: bytes) -> None:
        count = int(_flags_of(prefix).get("n", 100))
        self.write(wire_formats.whole_stream(form, count) if wire_formats.FORMATS[form].streams in asked else wire_formats.whole(form))

    def _complete(self, flags: dict[str, float], *, streaming: bool) -> None:
        later = asyncio.get_running_loop().call_later
        count = int(flags.get("n", 100))
        if streaming and "p" in flags:
            self.write(wire.STREAM_HEAD)
            later(flags.get("l", 0) / 1e3, self._step, wire.events(count), 0, flags["p"] / 1e3)
            return
        data = wire.whole_stream(count) if streaming else wire.completion()
        if "l" in flags:
            later(flags["l"] / 1e3, self.write, data)
        else:
            self.write(data)

    def _step(self, events: tuple[bytes, ...], position: int, pace: float) -> None:
        self.write(events[position])
        if position + 1 < len(events) and self._transport is not None:
            asyncio.get_running_loop().call_later(pace, self._step, events, position + 1, pace)


def _parted(path: bytes) -> tuple[bytes, bytes]:
    """What says how to answer, and what says in which format: behind ``/v1``, or from another beginning of an API's paths on."""
    for beginning in (b"/v1", b"/v2", b"/api"):
        prefix, found, rest = path.partition(beginning)
        if found:
            return prefix, rest if beginning == b"/v1" else beginning + rest
    return path, b""


def _split(data: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Head and body of the first request, and what follows it; ``None`` while it is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower()
    _, found, length = head.partition(b"\r\ncontent-length:")
    stop = end + 4 + (int(length.partition(b"\r\n")[0]) if found else 0)
    return None if len(data) < stop else (head, data[end + 4 : stop], data[stop:])


def _flags_of(prefix: bytes) -> dict[str, float]:
    if prefix not in _flags:
        _flags[prefix] = {name: float(value) for name, value in _FLAG.findall(prefix.decode())}
    return _flags[prefix]


def _wake() -> None:
    for waiting in [pair for pair in _waiting if len(_held) >= pair[0]]:
        _waiting.remove(waiting)
        waiting[1].write(wire.answer(b"{}"))


def _release() -> None:
    for connection in list(_held):
        connection.write(wire.completion())
    _held.clear()


async def main() -> None:
    """Serve on a free port of loopback."""
    raise_file_limit()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=8192)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main())
