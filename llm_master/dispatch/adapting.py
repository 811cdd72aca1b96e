"""What 429s teach of limits that nobody declared.

Two kinds are told apart. A 429 that says when to come again speaks of a rate: what was let through in the window that fits is the
limit from then on. One that does not speaks of requests in flight, unless nothing else was under way, or the rate that is known was
just reached: one less than there were is the limit. Both are raised again a little, after a long time without a 429 in which they
were reached: additive increase, and a decrease that knows where to go.
"""

from __future__ import annotations

from llm_master.dispatch.limits import REQUESTS, Taken, Window

WINDOWS = (1.0, 10.0, 60.0)
"""Seconds of the windows that providers count by."""

RAISE_AFTER = 120.0
"""Seconds without a 429 after which a rate that is reached is raised by a hundredth, or by one."""

PROBE_AFTER = 300.0
"""The same for requests in flight, raised by one; twice as long each time that it was in vain."""

_NO_LIMIT = 1 << 60
_SURE = 5
"""So many let through are enough to believe in at once."""


class Adaptive:
    """What one quota's 429s for one model have taught.

    Args:
        began: When the first request may have gone out.
        now: The clock's time.
        sent: How many have gone out since.

    Attributes:
        windows: What has gone out and was let through; one of them has a limit, once it was learnt.
        ceiling: As many requests in flight were too many; ``None`` where that was not seen.
    """

    __slots__ = (
        "_active",
        "_before",
        "_is_first",
        "_limited_at",
        "_passed",
        "_probe_after",
        "_probe_at",
        "_raised_at",
        "_seeds",
        "ceiling",
        "windows",
    )

    def __init__(self, began: float, now: float, sent: int) -> None:
        self.windows = tuple(Window(_NO_LIMIT, seconds, REQUESTS, "") for seconds in WINDOWS)
        self.ceiling: int | None = None
        self._active: Window | None = None
        # How many were let through when the last 429 came, and the one of the round before.
        self._passed = self._before = 0
        self._is_first = False
        self._limited_at = now
        self._raised_at = now
        self._probe_after = PROBE_AFTER
        self._probe_at = now
        # Nobody wrote down when they went: evenly, since it began.
        self._seeds: list[tuple[Window, Taken]] = []
        for window in self.windows:
            first = max(began, now - window.seconds)
            share = sent if began >= first else int(sent * (now - first) / (now - began))
            for part in range(10):
                amount = share * (part + 1) // 10 - share * part // 10
                taken = window.take((amount, 0, 0, 0), first + (now - first) * (part + 1) / 10)
                if taken is not None:
                    self._seeds.append((window, taken))

    def refused(self) -> None:
        """One of those that went out before anything was written down was not let through."""
        for window in self.windows:
            seed = next((taken for own, taken in reversed(self._seeds) if own is window and taken.amount > 0), None)
            window.give(seed, (-1, 0, 0, 0))

    def limited(self, now: float, in_flight: int, asked: float | None, *, is_new: bool) -> None:
        """A 429 came.

        Args:
            now: The clock's time.
            in_flight: How many requests were under way, that one included.
            asked: Seconds for which the provider asks to be left alone.
            is_new: It was sent after the last 429 had come. Of those that were under way together, the last ones know best:
                what was refused has left, what is let through is still there.
        """
        self._limited_at = now
        if not asked and self._active is not None and self._active.used(now) >= self._active.limit * 9 // 10:
            asked = self._active.seconds  # the rate that is known was reached: that explains it
        if not asked and in_flight > 1:
            if is_new and self.ceiling is not None and self._probe_at > now - 60.0:
                self._probe_after *= 2
            self.ceiling = in_flight if is_new or self.ceiling is None else min(self.ceiling, in_flight)
            self._probe_at = now + self._probe_after
            return
        if not asked:
            # Nothing else was under way, so it was a rate after all.
            self.ceiling, asked = None, WINDOWS[-1]
        window = next((window for window in self.windows if window.seconds >= asked - 0.5), None)
        if window is None:  # by the day: the pause itself is all that is to be known
            return
        active = self._active
        if active is not None and active.seconds > window.seconds:
            window = active
        elif active is not None and active is not window:
            active.limit = _NO_LIMIT
        passed = window.used(now)
        if is_new:
            self._before, self._is_first = self._passed, active is None
        self._passed = passed
        if self._is_first:
            # So few may have been let through for other reasons, as somebody else's use of the key: it has to come twice.
            believed = passed >= _SURE or (passed > 0 and passed == self._before)
            window.limit = min(window.limit, passed) if believed else _NO_LIMIT
            self._active = window if believed else None
        elif is_new:
            # What is known already is not far wrong; when exactly the provider counted is not known.
            window.limit = max(min(window.limit, passed), window.limit * 19 // 20, 1)
            self._active = window
        window.why = f"its 429s have taught that about {window.limit} requests in {window.seconds:g} s are let through"

    def answered(self, now: float, in_flight: int, cap: int | None) -> int | None:
        """An answer came; return how many may be in flight from now on, ``None`` for any number."""
        window = self._active
        long_ago = now - max(self._limited_at, self._raised_at) > RAISE_AFTER
        if window is not None and long_ago and window.used(now) >= window.limit:
            window.limit += max(1, window.limit // 100)
            self._raised_at = now
        if self.ceiling is None or cap is None:
            return cap
        if cap < self.ceiling - 1:
            return cap + 1
        if in_flight >= cap and now >= self._probe_at:
            self.ceiling += 1
            self._probe_at = now + 5.0
            return cap + 1
        return max(1, self.ceiling - 1)
