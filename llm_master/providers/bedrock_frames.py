"""The frames of ``application/vnd.amazon.eventstream``, from bytes in any pieces to the events in them.

Source: https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html (the encoding is the same for all services)
"""

from __future__ import annotations

import struct
import zlib

import msgspec

_PRELUDE = struct.Struct(">III")
_CHECKSUM = struct.Struct(">I")
_ENDS = 16
"""Bytes of a frame beside its headers and its payload: lengths, checksum of the lengths, checksum of all before."""

_LONGEST = 32 * 2**20
"""Bytes. No service sends frames as long, so that a length above it is a damaged one."""

_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value, by its type."""

_SIZED = (6, 7)
"""Types of a value that has its length before it: bytes, text."""

DAMAGED = "damaged"


class Frame(bytes):
    """The payload of one frame, JSON.

    Attributes:
        name: What it holds: ``contentBlockDelta``, or the kind of exception.
        kind: ``event``, ``exception``, ``error``, or ``damaged`` where the bytes were no frame.
    """

    name = ""
    kind = "event"


class FrameParser:
    """Feed it bytes as they arrive; it returns the payload of every frame that became complete.

    It has the methods of ``SSEParser``, in whose place it stands. After bytes that are no frame nothing more is read.
    """

    __slots__ = ("_known", "_lost", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._lost = False
        # Nearly all frames of a stream have the very same headers.
        self._known: dict[bytes, tuple[str, str, bytes | None]] = {}

    def feed(self, piece: bytes) -> list[bytes]:
        """Take the next bytes; return the payloads of the frames that they complete."""
        if self._lost:
            return []
        data = self._rest + piece if self._rest else piece
        frames: list[bytes] = []
        at, size = 0, len(data)
        while size - at >= _PRELUDE.size:
            total, headed, checksum = _PRELUDE.unpack_from(data, at)
            if zlib.crc32(data[at : at + 8]) != checksum or not _ENDS + headed <= total <= _LONGEST:
                return [*frames, self._damaged("the lengths of a frame do not fit their checksum")]
            end = at + total
            if end > size:
                break
            if zlib.crc32(data[at : end - 4]) != _CHECKSUM.unpack_from(data, end - 4)[0]:
                return [*frames, self._damaged("a frame does not fit its checksum")]
            body = at + _PRELUDE.size + headed
            headers = data[at + _PRELUDE.size : body]
            known = self._known.get(headers)
            if known is None:
                try:
                    known = self._known[headers] = _meaning(headers)
                except (IndexError, struct.error, UnicodeDecodeError):
                    return [*frames, self._damaged("the headers of a frame cannot be read")]
            frame = Frame(data[body : end - 4] if known[2] is None else known[2])
            frame.kind, frame.name = known[0], known[1]
            frames.append(frame)
            at = end
        self._rest = data[at:]
        return frames

    def end(self) -> list[bytes]:
        """Nothing: a frame that the stream ended in is none. Whoever reads the events knows whether they were all."""
        return []

    def _damaged(self, why: str) -> Frame:
        self._lost = True
        frame = Frame(msgspec.json.encode({"message": why}))
        frame.kind = DAMAGED
        return frame


def _meaning(headers: bytes) -> tuple[str, str, bytes | None]:
    """Kind and name of a frame, and its payload where a header holds that."""
    found = _headers(headers)
    kind = found.get(":message-type", "event")
    if kind == "error":
        return kind, found.get(":error-code", ""), msgspec.json.encode({"message": found.get(":error-message", "")})
    return kind, found.get(f":{kind}-type", ""), None


def _headers(data: bytes) -> dict[str, str]:
    """The headers that are text."""
    found = {}
    at = 0
    while at < len(data):
        begins = at + 1
        ends = begins + data[at]
        name, form = data[begins:ends].decode(), data[ends]
        at = ends + 1
        if form in _SIZED:
            (length,) = struct.unpack_from(">H", data, at)
            value = data[at + 2 : at + 2 + length]
            at += 2 + length
            if form == _SIZED[1]:
                found[name] = value.decode()
        elif form in _FIXED:
            at += _FIXED[form]
        else:
            raise IndexError(f"a header of type {form}")
    return found
