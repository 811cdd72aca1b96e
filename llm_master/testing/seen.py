"""What a fault server remembers of a request."""

from __future__ import annotations

from typing import Any

import attrs


@attrs.define(eq=False)
class SeenRequest:
    """A request that arrived.

    Attributes:
        number: Counts requests from 1 on. The answer carries it, as ``x-request-id: req-7`` and in the echo.
        at: Seconds on the server's monotonic clock, when the whole request had arrived.
        method: ``POST``, ``GET``, ...
        path: Path of the URL.
        key: What its API key is called: the name it was given, else its last four characters; ``None`` without one.
        model: The model it asked for.
        stream: Whether it asked for a stream.
        status: The status that it got; ``None`` where it got no head, or not yet.
        allowed: Whether it passed the checks of key, model, form and limits. Only such count against limits.
        step: Which step of the script answered it, from 0 on; ``None`` for none.
        in_flight: Requests in flight when it arrived, itself among them.
        input_tokens: Tokens of its texts.
        output_tokens: Tokens of the answer that was due.
        finished: Whether its answer was sent to the end.
        body: The JSON that it held; ``None`` where it held none.
    """

    number: int
    at: float
    method: str
    path: str
    key: str | None = None
    model: str | None = None
    stream: bool = False
    status: int | None = None
    allowed: bool = False
    step: int | None = None
    in_flight: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    finished: bool = False
    body: Any = None
