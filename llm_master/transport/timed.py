"""A request's body that notes when it is handed to its connection."""

from __future__ import annotations

import time

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import BytesPayload


class TimedBody(BytesPayload):
    """Bytes that know when they were sent.

    A request may have to wait for its connection to be made, and for the event loop to come to it. What counts in a
    provider's window is when it arrives, and this is the nearest that can be known of it.

    Attributes:
        sent_at: By ``time.monotonic()``; ``None`` as long as it was not sent.
    """

    def __init__(self, value: bytes) -> None:
        super().__init__(value, content_type="application/json")
        self.sent_at: float | None = None

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write it, as far as the length goes that was announced."""
        self.sent_at = time.monotonic()
        # As the class above does it, less a copy and a coroutine.
        await writer.write(self._value if content_length is None or content_length >= len(self._value) else self._value[:content_length])
