"""Limits: how much may go out in any rolling window, and how much at once.

Each says how long a need would have to wait (:data:`NOW`, :data:`SOON`, seconds, or for ever), takes it, and gives it back or
corrects it. None of them waits itself, and none locks: the pool that holds them does both.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol, TypeAlias

Need: TypeAlias = tuple[int, int, int, int]
"""What one request takes: itself (1), all its tokens, those of its input, those of its output."""

ONE: Need = (1, 0, 0, 0)

Ask: TypeAlias = tuple[int, int | None] | None
"""What is known of a request's tokens: those that go in, by estimate; at most how many come out. ``None``: they are not counted."""

REQUESTS, TOKENS, INPUT, OUTPUT = range(4)
COUNTED = ("requests", "tokens", "input tokens", "output tokens")

NOW = 0.0
SOON = -1.0
"""It fits as soon as another request is done, and nobody knows when that is."""

NEVER = math.inf

MARGIN = 0.1
"""Seconds by which a window is taken longer than it is. A request reaches the provider a little after it was sent, and not always
by the same time; a window is kept at the provider if that varies by no more than this."""

MARGIN_SHARE = 0.0033
"""The same as a share of longer windows, whose providers are less exact."""

_ROUNDED = 1e-6
"""Seconds that may be lost by adding and subtracting times."""

_SLOTS = 4096
"""Into so many pieces a window's log is divided at most; what falls into one leaves it together, as late as its last."""


class Limit(Protocol):
    """What every limit has."""

    kind: int
    why: str

    def wait(self, need: Need, now: float) -> float:
        """Seconds until ``need`` would fit."""


class Taken:
    """A piece of a window's log: what was sent in it, and when it leaves."""

    __slots__ = ("amount", "began", "ends")

    def __init__(self, amount: int, began: float, ends: float) -> None:
        self.amount = amount
        self.began = began
        self.ends = ends


class Window:
    """At most ``limit`` in any window of ``seconds``, wherever it begins.

    Args:
        limit: Requests or tokens.
        seconds: Length of the window.
        kind: What is counted: ``REQUESTS``, ``TOKENS``, ``INPUT`` or ``OUTPUT``.
        why: What to say when it makes somebody wait.

    Attributes:
        name: What it is called where processes share it.
        span_us: For how long a request counts, in microseconds.
        grain_us: How long a piece of its log is, in microseconds.
    """

    __slots__ = ("_grain", "_held", "_held_until", "_log", "_used", "kind", "limit", "name", "seconds", "span", "why")

    def __init__(self, limit: int, seconds: float, kind: int, why: str) -> None:
        self.limit = limit
        self.seconds = seconds
        self.span = seconds + max(MARGIN, MARGIN_SHARE * seconds)
        self.kind = kind
        self.why = why
        self.name = ""
        self._grain = self.span / _SLOTS
        self._log: deque[Taken] = deque()
        self._used = 0
        # Other processes have used it up, for a need of so much and more.
        self._held = 0
        self._held_until = 0.0

    @property
    def span_us(self) -> int:
        """For how long a request counts, in microseconds."""
        return int(self.span * 1e6)

    @property
    def grain_us(self) -> int:
        """How long a piece of its log is, in microseconds."""
        return int(self._grain * 1e6)

    def used(self, now: float) -> int:
        """How much went out within the window that ends now."""
        log = self._log
        while log and log[0].ends <= now + _ROUNDED:
            gone = log.popleft()
            self._used -= gone.amount
            gone.ends = 0.0  # whoever comes to correct it sees that it is over
        return self._used

    def wait(self, need: Need, now: float) -> float:
        """Seconds until ``need`` fits."""
        log = self._log
        if log and log[0].ends <= now + _ROUNDED:
            self.used(now)
        amount = need[self.kind]
        excess = self._used + amount - self.limit
        held = self._held_until - now if self._held_until > now and amount >= self._held else NOW
        if excess <= 0:
            return held
        for piece in self._log:
            excess -= piece.amount
            if excess <= 0:
                return max(piece.ends - now, held)
        return NEVER

    def hold(self, need: Need, until: float, now: float) -> None:
        """Nothing as large as this goes out before ``until``: other processes have taken what was left."""
        amount = need[self.kind]
        if self._held_until <= now or amount <= self._held:
            self._held, self._held_until = amount, until

    def wait_behind(self, ahead: int, now: float, most: float) -> float:
        """Seconds until one more request fits behind so many others; exact only from ``most`` on.

        The n-th from now goes a window after the (n - limit)-th.
        """
        number = self.used(now) + ahead + 1
        rounds, place = divmod(number - 1, self.limit)
        if rounds * self.span < most:
            return NOW
        place += 1
        for piece in self._log:
            place -= piece.amount
            if place <= 0:
                return piece.ends - now + (rounds - 1) * self.span
        return rounds * self.span

    def take(self, need: Need, now: float) -> Taken | None:
        """Write ``need`` into the log."""
        amount = need[self.kind]
        if amount == 0:
            return None
        self._used += amount
        log = self._log
        if log and now - log[-1].began < self._grain:
            piece = log[-1]
            piece.amount += amount
            piece.ends = now + self.span
        else:
            piece = Taken(amount, now, now + self.span)
            log.append(piece)
        return piece

    def sent(self, taken: Taken, at: float) -> None:
        """It stays in the window from when it was sent; with all of its piece."""
        if taken.ends and at + self.span > taken.ends:
            taken.ends = at + self.span

    def give(self, taken: Taken | None, change: Need) -> None:
        """Correct what was taken, unless it has left the window."""
        amount = change[self.kind]
        if amount and taken is not None and taken.ends:
            taken.amount += amount
            self._used += amount


class InFlight:
    """At most ``limit`` requests at once. Whoever takes a place, or gives it back, counts ``inside``.

    Attributes:
        name: What it is called where processes share it.
        held_until: Other processes have taken all places, and until then it is not looked again.
        held_for: For how long, the last time.
    """

    __slots__ = ("held_for", "held_until", "inside", "kind", "limit", "name", "why")

    def __init__(self, limit: int, why: str) -> None:
        self.limit = limit
        self.name = ""
        self.held_until = 0.0
        self.held_for = 0.0
        self.inside = 0
        self.kind = REQUESTS
        self.why = why

    def wait(self, need: Need, now: float) -> float:
        """``NOW``, ``SOON``, or how long it is held."""
        if self.inside >= self.limit:
            return SOON
        return self.held_until - now if self.held_until > now else NOW

    def hold(self, seconds: tuple[float, float], spread: float, now: float) -> None:
        """Other processes have all places: look again after the first of these at first, then later, up to the second."""
        if self.held_until <= now:
            self.held_for = min(self.held_for * 2, seconds[1]) or seconds[0]
            self.held_until = now + self.held_for * spread


class Announced:
    """What the provider's headers say is left, for one kind of what is counted.

    It holds until the reset that came with it. Where the limit is known, what was used is taken to come back evenly until then, as
    with a token bucket: with a fixed window, which gives everything back at its end, that is too early at worst by a 429.
    """

    __slots__ = ("_at", "_ceiling", "_mark", "_rate", "_sent", "_until", "kind", "why")

    def __init__(self, kind: int, sent: list[int]) -> None:
        self.kind = kind
        self.why = f"the provider's headers said that no {COUNTED[kind]} were left"
        self._sent = sent  # all that went out so far, by kind; counted by whoever owns it
        self._mark = -1
        self._ceiling = 0.0
        self._rate = 0.0
        self._at = 0.0
        self._until = 0.0

    def learn(self, mark: int, remaining: int, limit: int | None, reset: float, now: float) -> bool:
        """Take over what an answer's headers say; whether they are the latest, and make sense.

        Args:
            mark: What had been sent when its request was, itself included; of two answers, the later request's holds.
            remaining: What was left then.
            limit: Of how much.
            reset: Seconds until all of it is there again.
            now: The clock's time.
        """
        if mark < self._mark or not 0 < reset < NEVER or limit == 0:
            return False
        self._mark = mark
        self._ceiling = mark + remaining
        self._rate = (limit - remaining) / reset if limit is not None and limit > remaining else 0.0
        self._at = now
        self._until = now + reset
        return True

    def wait(self, need: Need, now: float) -> float:
        """Seconds until as much is left."""
        if now >= self._until:
            return NOW
        missing = self._sent[self.kind] + need[self.kind] - self._ceiling - self._rate * (now - self._at)
        if missing <= 0:
            return NOW
        left = self._until - now
        return min(missing / self._rate, left) if self._rate else left

    def take(self, need: Need, now: float) -> None:
        """Nothing to write down: what goes out is counted by its owner."""

    def sent(self, taken: Taken, at: float) -> None:
        """Of no account."""

    def give(self, taken: Taken | None, change: Need) -> None:
        """Nothing to correct: the next answer's headers know."""
