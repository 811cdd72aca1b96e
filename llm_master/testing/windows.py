"""Strict limits: what a server that counts exactly lets through, and when there is room again."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable, Sequence
from typing import Protocol

import attrs

from llm_master.testing.script import Limit


class Count(Protocol):
    """What a limit counts, for one key, one model or whatever has a count of its own. Amounts are above 0, or 0 for nothing."""

    def wait(self, now: float, amount: int) -> float:
        """Seconds until ``amount`` fits: 0 if it does now, infinity if it never will."""

    def take(self, now: float, amount: int) -> None:
        """Count ``amount``, which fits."""

    def release(self) -> None:
        """What was taken is done."""

    def remaining(self, now: float) -> int:
        """How much fits now."""

    def reset(self, now: float) -> float:
        """Seconds until all is as it was at first."""


class SlidingWindow:
    """At most ``limit`` in any interval (t - window, t]. A request that fits is never refused.

    Args:
        limit: The most in any interval.
        window: Seconds.
    """

    __slots__ = ("_ends", "_limit", "_used", "_window")

    def __init__(self, limit: int, window: float) -> None:
        self._limit = limit
        self._window = window
        # When each amount leaves the window. One sum decides and foretells, so that rounding cannot make them differ.
        self._ends: collections.deque[tuple[float, int]] = collections.deque()
        self._used = 0

    def wait(self, now: float, amount: int) -> float:
        """Seconds until ``amount`` fits: 0 if it does now, infinity if it never will."""
        self._forget(now)
        too_much = self._used + amount - self._limit
        if too_much <= 0:
            return 0.0
        for end, taken in self._ends:
            too_much -= taken
            if too_much <= 0:
                return end - now
        return math.inf

    def take(self, now: float, amount: int) -> None:
        """Count ``amount``, which fits. ``now`` is never before that of the call before."""
        self._ends.append((now + self._window, amount))
        self._used += amount

    def release(self) -> None:
        """What is done counts on, until it leaves the window."""

    def remaining(self, now: float) -> int:
        """How much fits now."""
        self._forget(now)
        return self._limit - self._used

    def reset(self, now: float) -> float:
        """Seconds until the window is empty."""
        self._forget(now)
        return self._ends[-1][0] - now if self._ends else 0.0

    def _forget(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            self._used -= self._ends.popleft()[1]


class InFlight:
    """At most ``limit`` at once. When one will be done is not known."""

    __slots__ = ("_limit", "_used")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0

    def wait(self, now: float, amount: int) -> float:
        """0 if there is room, else infinity."""
        return 0.0 if self._used < self._limit else math.inf

    def take(self, now: float, amount: int) -> None:
        """One more is in flight."""
        self._used += 1

    def release(self) -> None:
        """One is done."""
        self._used -= 1

    def remaining(self, now: float) -> int:
        """How many fit now."""
        return self._limit - self._used

    def reset(self, now: float) -> float:
        """0: it is not known."""
        return 0.0


@attrs.frozen
class Asked:
    """What a request counts as.

    Attributes:
        key: The raw key that it came with; ``None`` without one.
        name: How that key is called.
        model: The model that it asks for.
        input_tokens: Tokens that it holds.
        output_tokens: Tokens that its answer will hold.
    """

    key: str | None
    name: str | None
    model: str | None
    input_tokens: int = 0
    output_tokens: int = 0

    def amount(self, what: str) -> int:
        """How much of a limit it takes."""
        if what == "tokens":
            return self.input_tokens + self.output_tokens
        return self.input_tokens if what == "input_tokens" else self.output_tokens if what == "output_tokens" else 1


@attrs.frozen
class Verdict:
    """Whether a request is let through, and what is to be said of it.

    Attributes:
        counts: What it takes from until it is done; empty where it is refused.
        refused_by: The limit that it does not fit; ``None`` where it is let through.
        wait: Seconds until it would fit; infinity where that is not known, or never.
        headers: The ``x-ratelimit-*`` headers, and ``retry-after`` where it is refused.
    """

    counts: Sequence[Count] = ()
    refused_by: Limit | None = None
    wait: float = 0.0
    headers: dict[str, str] = attrs.field(factory=dict)


ADMITTED = Verdict()


class Admission:
    """All limits of a server: a request takes from every one that it falls under, or from none.

    Args:
        limits: The limits.
    """

    def __init__(self, limits: Iterable[Limit]) -> None:
        self._limits = tuple(limits)
        self._counts: dict[tuple[int, str | None, str | None], Count] = {}

    def admit(self, asked: Asked, now: float) -> Verdict:
        """Let a request through, or refuse it. ``now`` is never before that of the call before."""
        if not self._limits:
            return ADMITTED
        under = [(limit, self._count(number, limit, asked)) for number, limit in enumerate(self._limits) if _falls_under(asked, limit)]
        refused, wait = None, 0.0
        for limit, count in under:
            if (needed := count.wait(now, asked.amount(limit.what))) > wait:
                refused, wait = limit, needed
        if refused is None:
            for limit, count in under:
                count.take(now, asked.amount(limit.what))
        headers = _headers(under, now)
        if refused is None:
            return Verdict(counts=[count for _, count in under], headers=headers)
        if wait < math.inf:
            headers["retry-after-ms"] = str(math.ceil(wait * 1000))
            headers["retry-after"] = str(math.ceil(wait))
        elif refused.what == "concurrency":
            headers["retry-after"] = "1"  # as good a guess as any
        return Verdict(refused_by=refused, wait=wait, headers=headers)

    def _count(self, number: int, limit: Limit, asked: Asked) -> Count:
        group = (number, asked.key if "key" in limit.by else None, asked.model if "model" in limit.by else None)
        count = self._counts.get(group)
        if count is None:
            count = InFlight(limit.limit) if limit.what == "concurrency" else SlidingWindow(limit.limit, limit.window)
            self._counts[group] = count
        return count


def _falls_under(asked: Asked, limit: Limit) -> bool:
    return (limit.model is None or limit.model == asked.model) and (limit.key is None or limit.key in (asked.key, asked.name))


def _headers(under: list[tuple[Limit, Count]], now: float) -> dict[str, str]:
    """The tightest of each kind. Source: https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers."""
    tightest: dict[str, tuple[int, Limit, Count]] = {}
    for limit, count in under:
        left = count.remaining(now)
        if limit.what not in tightest or left < tightest[limit.what][0]:
            tightest[limit.what] = (left, limit, count)
    headers = {}
    for what, (left, limit, count) in tightest.items():
        kind = what.replace("_", "-")
        headers[f"x-ratelimit-limit-{kind}"] = str(limit.limit)
        headers[f"x-ratelimit-remaining-{kind}"] = str(left)
        if what != "concurrency":
            headers[f"x-ratelimit-reset-{kind}"] = f"{math.ceil(count.reset(now) * 1000)}ms"
    return headers


def peak(events: Iterable[tuple[float, int]], window: float) -> int:
    """The most in any interval (t - window, t].

    Args:
        events: Times, in their order, and amounts.
        window: Seconds.
    """
    held: collections.deque[tuple[float, int]] = collections.deque()
    now_in = most = 0
    for at, amount in events:
        held.append((at + window, amount))
        now_in += amount
        while held[0][0] <= at:
            now_in -= held.popleft()[1]
        most = max(most, now_in)
    return most
