"""How a fault server's answers go out, with all that can go wrong on the way."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import struct
import sys
from collections.abc import Mapping, Sequence

from aiohttp import web

from llm_master.testing.script import Fault
from llm_master.testing.seen import SeenRequest

_FLUSHED = 0.002
"""Seconds between two looks whether all bytes have left, where a connection is about to be cut."""


async def whole(request: web.BaseRequest, seen: SeenRequest, status: int, headers: Mapping[str, str], body: bytes) -> web.StreamResponse:
    """Send an answer at once."""
    response = web.Response(status=status, headers=headers, body=body)
    seen.status = status
    # Not left to aiohttp, so that the request is in flight until this is done.
    await response.prepare(request)
    await response.write_eof()
    seen.finished = True
    return response


async def in_pieces(
    request: web.BaseRequest,
    seen: SeenRequest,
    status: int,
    fault: Fault,
    headers: Mapping[str, str],
    pieces: Sequence[bytes],
    *,
    stream: bool,
) -> web.StreamResponse:
    """Send an answer as the fault says.

    Args:
        request: What is answered.
        seen: What is remembered of it.
        status: Its status.
        fault: When to fall silent, and after how many bytes to end.
        headers: Those of the answer.
        pieces: The events of a stream, or a whole body as one piece.
        stream: Whether it goes in chunks, without a stated length.
    """
    response = web.StreamResponse(status=status, headers=headers)
    if not stream:
        (body,) = pieces
        response.content_length = len(body)
        pieces = [part for part in (body[: fault.stall_after], body[fault.stall_after :]) if part]
    seen.status = status
    await response.prepare(request)
    # A plain body that falls silent before its first byte has one part, too, but stands before it.
    silent_before = min(fault.stall_after, len(pieces)) if stream else min(fault.stall_after, 1)
    cut = fault.reset_after if fault.close_after is None else fault.close_after
    left = math.inf if cut is None else cut
    for number, piece in enumerate([*pieces, b""]):
        if fault.stall and number == silent_before:
            await pause(fault.stall)
        elif fault.chunk_delay and 0 < number < len(pieces):
            await pause(fault.chunk_delay)
        if part := piece if left >= len(piece) else piece[: int(left)]:
            await response.write(part)
            left -= len(part)
        if left <= 0:
            break
    if cut is not None:
        await cut_off(request, reset=fault.reset_after is not None)
        return response
    await response.write_eof()
    seen.finished = True
    return response


async def raw(request: web.BaseRequest, data: bytes) -> web.StreamResponse:
    """Send bytes instead of an answer, and close the connection."""
    if request.transport is not None:
        request.transport.write(data)
    await cut_off(request, reset=False)
    return web.Response()


async def cut_off(request: web.BaseRequest, *, reset: bool) -> web.StreamResponse:
    """Close the connection when what was written has left: in order, or by a reset."""
    transport = request.transport
    while transport is not None and not transport.is_closing() and _unsent(transport):  # noqa: ASYNC110  # transports tell nobody
        await asyncio.sleep(_FLUSHED)
    if transport is None or transport.is_closing():
        return web.Response()
    if reset:
        # A socket that does not linger says RST instead of FIN.
        linger_none = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_none)
        transport.abort()
    else:
        transport.close()
    return web.Response()


def _unsent(transport: asyncio.Transport) -> int:
    """Bytes that wait here or in the system, which a reset would throw away."""
    if waiting := transport.get_write_buffer_size():
        return waiting
    try:
        import fcntl
        import termios
    except ImportError:  # Windows, where what the system has is not known
        return 0
    try:
        answer = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:  # not a system that tells it of sockets
        return 0
    return int.from_bytes(answer, sys.byteorder)


async def pause(seconds: float) -> None:
    """Wait; of infinity, until the client hangs up, which cancels whoever answers it."""
    if seconds == math.inf:
        await asyncio.get_running_loop().create_future()
    else:
        await asyncio.sleep(seconds)
