"""Which slot a request goes to; and where none is free, when one will be."""

from __future__ import annotations

from llm_master.dispatch.keys import KeyState
from llm_master.dispatch.limits import NEVER, NOW, Limit, Need
from llm_master.dispatch.line import Line, Slot

_BUSY = 1 << 40
"""An idle key goes before any that is at work, however much the two were used."""

_PRIORITY = 1 << 50


def choose(line: Line, need: Need, refused: frozenset[KeyState], now: float, claimed: set[Limit] | None = None) -> Slot | None:
    """The slot that a request goes to now: idle keys first, then those below their limits, each by least use."""
    if line.common and line.full() is not None:
        return None
    best = None
    best_rank = NEVER
    ring = line.ring
    for slot in line.slots:
        state = slot.state
        if ring.sequential:
            rank = (slot.position - ring.current) % len(line.slots)
        else:
            rank = state.uses + _BUSY if state.in_flight else state.uses
        if state.priority:
            rank -= state.priority * _PRIORITY
        if rank >= best_rank:
            continue
        share = slot.share
        if (
            state.until > now
            or share.until > now
            or (state.cap is not None and state.in_flight >= state.cap)
            or (share.cap is not None and share.in_flight >= share.cap)
            or (refused and state in refused)
            or (state.denied and state.denied.get(share.model, 0.0) > now)
            or (claimed and not claimed.isdisjoint(slot.limits))
        ):
            continue
        for place in slot.places:
            if place.inside >= place.limit or place.held_until > now:
                break
        else:
            for window in slot.windows:
                if window.wait(need, now):
                    break
            else:
                best, best_rank = slot, rank
    return best


class Outlook:
    """When a request can be sent at the earliest, seen from now.

    Attributes:
        wait: Seconds, at least; ``NEVER`` if that is not worth waiting for.
        alarm: Seconds after which time alone may have freed a slot.
        why: Why not now.
        limits: What stands in the way, at each key the one that does so longest.
    """

    __slots__ = ("alarm", "limits", "wait", "why")

    def __init__(
        self, line: Line, need: Need, refused: frozenset[KeyState], now: float, *, ahead: int = 0, most: float = NEVER, whole: bool = True
    ) -> None:
        """Look at the slots; unless the ``whole`` is wanted, only as far as the first that may be had soon."""
        self.wait = self.alarm = NEVER
        self.limits: set[Limit] = set()
        self.why = ""
        reasons: dict[str, None] = {}
        if ahead:
            ahead //= len({slot.share for slot in line.slots})
        for slot in line.slots:
            if refused and slot.state in refused:
                continue
            wait, limit, why = slot.blocked(need, now, ahead, most)
            reasons[why] = None
            if limit is not None:
                self.limits.add(limit)
            if 0 < wait < self.alarm:
                self.alarm = wait
            wait = max(wait, NOW)  # "soon" is now, as far as anybody knows
            if wait < self.wait:
                self.wait, self.why = wait, why
                if wait == NOW and not whole:
                    return
        if self.wait == NEVER:
            self.why = "; ".join(reasons) or "no other key is left"
