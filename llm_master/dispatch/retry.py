"""What an error does: one table from error to action, and the waits that follow."""

from __future__ import annotations

import random
from typing import Literal, TypeAlias

import attrs

from llm_master import errors as e

Action: TypeAlias = Literal["backoff", "cool", "raise"]
"""``backoff``: again after a random wait, ``max_retries`` times. ``cool``: again when the provider's limit allows, as long
as the deadline does. ``raise``: never again."""

ACTIONS: tuple[tuple[type[e.LLMError], Action], ...] = (
    (e.RateLimitError, "cool"),
    (e.ServerError, "backoff"),
    (e.ProviderConnectionError, "backoff"),
    (e.RequestTimeoutError, "backoff"),
    (e.LLMError, "raise"),
)
"""The first that fits holds."""

COOLING = (10.0, 30.0, 60.0, 120.0)
"""Seconds to wait after the first, second, ... 429 in a row that does not say how long."""

BACKOFF_BASE = 0.5
BACKOFF_CAP = 8.0


@attrs.frozen
class Decision:
    """Whether to send again: after ``wait`` seconds, or not at all if it is ``None``; and why."""

    wait: float | None
    why: str


def spoken(seconds: float) -> str:
    """Seconds as people read them."""
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def action_for(error: Exception) -> Action:
    """The table's action for an error; what is no error of this library is raised."""
    return next((action for kind, action in ACTIONS if isinstance(error, kind)), "raise")


@attrs.define
class Retries:
    """The count of one query's sends, and the decision after each failure.

    Attributes:
        max_retries: Repetitions after failures that may pass.
        max_attempts: Sends of the query over everything.
    """

    max_retries: int
    max_attempts: int
    sends: int = 0
    _failures: int = 0
    _limited: int = 0

    def decide(self, error: Exception, left: float) -> Decision:
        """What to do after ``error``, with ``left`` seconds to the deadline."""
        action = action_for(error)
        if action == "raise":
            return Decision(None, "sending it again would not help")
        if self.sends >= self.max_attempts:
            return Decision(None, f"given up: {self.sends} sends, which is max_attempts")
        asked = getattr(error, "retry_after", None)
        if action == "cool":
            wait = asked if asked is not None else COOLING[min(self._limited, len(COOLING) - 1)]
            self._limited += 1
            why = f"rate limited: again in {spoken(wait)}" + (", as the provider asks" if asked is not None else "")
        else:
            if self._failures >= self.max_retries:
                return Decision(None, f"given up after {self._failures} repetitions (max_retries)")
            # Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
            wait = random.uniform(0, min(BACKOFF_CAP, BACKOFF_BASE * 2**self._failures))
            self._failures += 1
            wait = max(wait, asked or 0.0)
            why = f"may pass: again in {spoken(wait)}"
        if wait >= left:
            return Decision(None, f"given up: it could be sent again in {spoken(wait)}, and the deadline is in {spoken(max(left, 0))}")
        return Decision(wait, why)
