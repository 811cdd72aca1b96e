"""How a target has done lately: its latency, its failures, and whether it is left alone for now."""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from typing import Literal, TypeAlias

from llm_master.types import Usage

State: TypeAlias = Literal["healthy", "degraded", "unhealthy"]

OPENS_AFTER = 3
"""Failures in a row after which a target is left alone."""

OPEN_FOR = 10.0
OPEN_AT_MOST = 300.0
"""Seconds for which it is, twice as long each time that it fails on being tried again."""

PROBE = 60.0
"""Seconds that the one request may take which tries it again, before another does."""

_SMOOTH = 0.2
_RECENT = 100


class Health:
    """What is known of one target.

    Attributes:
        total: Requests that ended; ``failed`` of them with an error that is the target's.
        latency: Peak-EWMA of seconds: a slow answer counts at once, a fast one slowly; 0 as long as nothing was measured.
        picked: When it was last chosen, on the monotonic clock.
    """

    __slots__ = (
        "_failures",
        "_latencies",
        "_open_until",
        "_opened",
        "_recent",
        "cost",
        "failed",
        "input_tokens",
        "last_error",
        "latency",
        "output_tokens",
        "picked",
        "success",
        "total",
        "unknown_costs",
    )

    def __init__(self) -> None:
        self.total = 0
        self.failed = 0
        self.latency = 0.0
        # How likely the next request succeeds, by an exponential average.
        self.success = 1.0
        self.picked = float("-inf")
        self.last_error: str | None = None
        self.input_tokens = 0
        self.output_tokens = 0
        self.cost = Decimal()
        self.unknown_costs = 0
        self._latencies: deque[float] = deque(maxlen=_RECENT)
        self._recent: deque[bool] = deque(maxlen=_RECENT)
        self._failures = 0
        self._open_until = 0.0
        self._opened = 0

    def may_be_asked(self, now: float) -> bool:
        """Whether it is not left alone."""
        return self._open_until <= now

    def closed_in(self, now: float) -> float:
        """Seconds until it may be asked again."""
        return max(0.0, self._open_until - now)

    def pick(self, now: float) -> None:
        """It was chosen. One that has been left alone is tried by one request only."""
        self.picked = now
        if self._failures >= OPENS_AFTER:
            self._open_until = now + PROBE

    def answered(self, latency: float, usage: Usage, cost: Decimal | None) -> None:
        """It answered."""
        self.total += 1
        self._failures = self._opened = 0
        self._open_until = 0.0
        self.success += _SMOOTH * (1.0 - self.success)
        # The peak counts at once; from there it sinks. The unmeasured begins with what is measured first.
        self.latency = latency if latency > self.latency else self.latency + _SMOOTH * (latency - self.latency)
        self._latencies.append(latency)
        self._recent.append(True)
        self.input_tokens += usage.input_tokens or 0
        self.output_tokens += usage.output_tokens or 0
        if cost is not None:
            self.cost += cost
        else:
            self.unknown_costs += 1

    def broke(self, error: Exception, now: float) -> None:
        """It failed, in a way that is its own and not the request's."""
        self.total += 1
        self.failed += 1
        self.last_error = f"{type(error).__name__}: {error}"
        self._recent.append(False)
        self.success += _SMOOTH * (0.0 - self.success)
        self._failures += 1
        if self._failures >= OPENS_AFTER:
            self._open_until = now + min(OPEN_AT_MOST, OPEN_FOR * 2.0 ** min(self._opened, 10))
            self._opened += 1

    @property
    def mean_latency(self) -> float | None:
        """Mean seconds of the last 100 answers; ``None`` before the first."""
        return sum(self._latencies) / len(self._latencies) if self._latencies else None

    @property
    def error_rate(self) -> float | None:
        """Share of the last 100 requests that failed; ``None`` before the first."""
        return self._recent.count(False) / len(self._recent) if self._recent else None

    def state(self, now: float) -> State:
        """In one word."""
        if not self.may_be_asked(now) or self._failures >= OPENS_AFTER:
            return "unhealthy"
        return "degraded" if (self.error_rate or 0.0) > 0.2 else "healthy"
