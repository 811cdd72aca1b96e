"""Server-sent events, from bytes in any pieces to the data of each event.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations


class NamedEvent(bytes):
    """Data of an event that had a name, as in ``event: error``."""

    name = ""


class SSEParser:
    """Feed it bytes as they arrive; it returns the data of every event that became complete.

    Lines may end in LF, CRLF or CR; comments, ``id:`` and ``retry:`` are passed over; data over several lines is
    joined by LF. Bytes stay bytes, so a character that is split over two packets is whole again when it is decoded.
    """

    __slots__ = ("_rest", "_started")

    def __init__(self) -> None:
        self._rest = b""
        self._started = False

    def feed(self, piece: bytes) -> list[bytes]:
        """Take the next bytes; return the data of the events that they complete."""
        text = self._rest + piece if self._rest else piece
        if not self._started:
            if len(text) < 3 and b"\xef\xbb\xbf".startswith(text):
                self._rest = text
                return []
            self._started = True
            text = text.removeprefix(b"\xef\xbb\xbf")
        held = b""
        if b"\r" in text:
            if text.endswith(b"\r"):  # its LF may come with the next packet
                text, held = text[:-1], b"\r"
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        cut = text.rfind(b"\n\n")
        if cut < 0:
            self._rest = text + held
            return []
        whole, self._rest = text[:cut], text[cut + 2 :] + held
        if whole.startswith(b"data: "):
            # Nearly always every event is one line of data, and this is done for each token of each answer: split at
            # what stands between two such events, and let one count of the line ends prove that there is nothing else.
            pieces = whole[6:].split(b"\n\ndata: ")
            if whole.count(b"\n") == 2 * (len(pieces) - 1):
                return pieces
        return [data for block in whole.split(b"\n\n") if (data := _data(block)) is not None]

    def end(self) -> list[bytes]:
        """Return the data of a last event that the stream ended without closing by an empty line."""
        rest, self._rest = self._rest, b""
        data = _data(rest.replace(b"\r\n", b"\n").replace(b"\r", b"\n")) if rest else None
        return [] if data is None else [data]


def _data(block: bytes) -> bytes | None:
    """The data of one event's lines, or ``None`` if it has none."""
    lines: list[bytes] = []
    name = b""
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value
    if not lines:
        return None
    data = b"\n".join(lines)
    if not name:
        return data
    event = NamedEvent(data)
    event.name = name.decode(errors="replace")
    return event
