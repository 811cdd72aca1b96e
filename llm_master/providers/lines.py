"""Newline-delimited JSON, from bytes in any pieces to the data of each line."""

from __future__ import annotations


class LineParser:
    """Feed it bytes as they arrive; it returns every line that became complete, without its end and without blank ones.

    JSON has no raw line end inside a value, so a line is a piece of JSON however its values are written. It has the methods
    of ``SSEParser``, in whose place it stands.
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """Take the next bytes; return the lines that they complete."""
        lines = piece.split(b"\n")
        rest = lines.pop()
        if lines and self._rest:
            lines[0] = b"".join((*self._rest, lines[0]))
            self._rest = []
        if rest:
            self._rest.append(rest)
        return [data for line in lines if (data := line.strip())]

    def end(self) -> list[bytes]:
        """Return a last line that the stream ended without closing."""
        data, self._rest = b"".join(self._rest).strip(), []
        return [data] if data else []
