"""What can be leased: the keys that serve one model, each with its limits, and those who wait for one."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from llm_master.dispatch.keys import EXHAUSTED, KeyState, Share
from llm_master.dispatch.limits import NEVER, NOW, ONE, OUTPUT, REQUESTS, SOON, TOKENS, Announced, Ask, InFlight, Limit, Need, Window
from llm_master.dispatch.retry import spoken
from llm_master.types import Usage

if TYPE_CHECKING:
    from llm_master.clock import Clock
    from llm_master.dispatch.pool import Pool, Waiter
    from llm_master.dispatch.sharing import Names

Blocked: TypeAlias = tuple[float, Limit | None, str]
"""How long a slot is not to be had (seconds, ``SOON``, ``NEVER`` where nobody waits for it), by which limit, and why."""


class Ring:
    """The keys of one provider's row, and in which order they are used."""

    __slots__ = ("current", "sequential", "states")

    def __init__(self, states: Sequence[KeyState], *, sequential: bool) -> None:
        self.states = tuple(states)
        self.sequential = sequential
        # Of the sequential mode: the key that is used until it fails.
        self.current = 0

    def failed(self, state: KeyState) -> None:
        """Go on to the next key, if it was the current one that failed."""
        if self.states[self.current] is state:
            self.current = (self.current + 1) % len(self.states)


class Slot:
    """One key for one model: what must be free for a request."""

    __slots__ = ("_own", "clock", "limits", "names", "places", "position", "provider", "share", "state", "windows")

    def __init__(self, position: int, state: KeyState, share: Share, limits: Sequence[Limit], clock: Clock) -> None:
        self.position = position
        self.state = state
        self.share = share
        self._own = tuple(limits)
        self.limits: tuple[Limit, ...] = ()
        # The same, apart: each call goes through them several times.
        self.places: tuple[InFlight, ...] = ()
        self.windows: tuple[Window | Announced, ...] = ()
        self.clock = clock
        # What its states are called where they are kept, if they are.
        self.names: Names | None = None
        # The object that speaks with this key; whoever makes requests puts it here.
        self.provider: Any = None
        self.refresh()

    def refresh(self) -> None:
        """Take over limits that the share has learnt."""
        self.limits = (*self._own, *self.share.limits)
        self.places = tuple(limit for limit in self.limits if isinstance(limit, InFlight))
        self.windows = tuple(limit for limit in self.limits if isinstance(limit, (Window, Announced)))

    def blocked(self, need: Need, now: float, ahead: int = 0, most: float = NEVER) -> Blocked:
        """Why it is not to be had, and for how long."""
        state, share = self.state, self.share
        name = state.name or "the provider"
        if state.until > now:
            after = f"asked again in {spoken(state.until - now)}"
            return (
                NEVER,
                None,
                f"{name} was refused as invalid ({after})" if state.condition == "invalid" else f"{name} has no funds ({after})",
            )
        if state.denied.get(share.model, 0.0) > now:
            return NEVER, None, f"{name} may not use {share.model} (asked again in {spoken(state.denied[share.model] - now)})"
        longest: Blocked = (NOW, None, "")
        if share.until > now:
            left = share.until - now
            state_of_it = "is exhausted" if left > EXHAUSTED else "is rate limited"
            longest = (left, None, f"{name} {state_of_it} for {share.model} for another {spoken(left)}")
        for limit in self.limits:
            wait = limit.wait(need, now)
            if ahead and limit.kind == REQUESTS and isinstance(limit, Window):
                wait = max(wait, limit.wait_behind(ahead, now, most))
            if wait > longest[0] or (wait == SOON and longest[0] == NOW):
                longest = (wait, limit, limit.why)
        if longest[0] == NOW:
            if state.cap is not None and state.in_flight >= state.cap:
                return SOON, None, f"{name} has not answered yet, and takes {state.cap} at once until it does"
            if share.cap is not None and share.in_flight >= share.cap:
                return SOON, None, f"{name} was rate limited, and takes {share.cap} at once for now"
        return longest


class Line:
    """All slots that can serve one model of one provider, and those who wait for one."""

    __slots__ = (
        "__weakref__",
        "_input_ratio",
        "_output",
        "_room",
        "_room_out",
        "common",
        "counts_tokens",
        "gone",
        "in_flight",
        "learnt",
        "model",
        "pool",
        "queue",
        "ring",
        "slots",
        "smallest",
    )

    def __init__(self, pool: Pool, ring: Ring, model: str, slots: Sequence[Slot]) -> None:
        self.pool = pool
        self.ring = ring
        self.model = model
        self.slots = tuple(slots)
        self.queue: deque[Waiter] = deque()
        self.in_flight = 0
        # Those in the queue who do not wait any more.
        self.gone = 0
        self.measure()
        # Learnt of the answers: counted tokens for an estimated one, and how many come out. Until then, rather too many.
        self._input_ratio = 1.25
        self._output = 500.0
        # How often: who waits has his need worked out anew.
        self.learnt = 0

    def measure(self) -> None:
        """Take over from the slots what their limits mean for a request's tokens."""
        windows = [limit for slot in self.slots for limit in slot.limits if isinstance(limit, Window)]
        self.counts_tokens = any(window.kind != REQUESTS for window in windows) or any(slot.share.counts_tokens for slot in self.slots)
        # Where they are full, no key is to be had, and none need be looked at.
        self.common = tuple(place for place in self.slots[0].places if all(place in slot.places for slot in self.slots))
        # What has no more tokens than this is too large for none of them.
        self.smallest = min((window.limit for window in windows if window.kind != REQUESTS), default=0)
        self._room = min((window.limit for window in windows if window.kind == TOKENS), default=None)
        self._room_out = min((window.limit for window in windows if window.kind == OUTPUT), default=None)

    def full(self) -> InFlight | None:
        """What lets nobody in, whatever the key."""
        for place in self.common:
            if place.inside >= place.limit:
                return place
        return None

    def need(self, ask: Ask) -> Need:
        """What a request is taken to need, by all that the answers have taught so far."""
        if ask is None:
            return ONE
        estimated, most = ask
        tokens_in = int(estimated * self._input_ratio) + 1
        tokens_out = int(self._output) + 1
        # What comes out is a guess, which must not make a request look impossible.
        if most is not None and tokens_out > most:
            tokens_out = most
        if self._room is not None:
            tokens_out = max(0, min(tokens_out, self._room - tokens_in))
        if self._room_out is not None and tokens_out > self._room_out:
            tokens_out = self._room_out
        return 1, tokens_in + tokens_out, tokens_in, tokens_out

    def too_large(self, need: Need) -> str | None:
        """Why no key could ever take this, or ``None``."""
        reason = None
        for slot in self.slots:
            for limit in slot.limits:
                if isinstance(limit, Window) and need[limit.kind] > limit.limit:
                    reason = f"it has about {need[limit.kind]} tokens by estimate, and {limit.why}"
                    break
            else:
                return None
        return reason

    def learn(self, estimated: int, usage: Usage) -> None:
        """Correct the estimates by what was counted: at once upwards, slowly downwards.

        Too much costs little, since it is given back with the answer; too little is a 429.
        """
        self.learnt += 1
        if usage.input_tokens and estimated:
            ratio = min(max(_ROOM * usage.input_tokens / estimated, 0.2), 5.0)
            self._input_ratio = max(ratio, self._input_ratio + (ratio - self._input_ratio) * _DECAY)
        if usage.output_tokens is not None:
            self._output = max(usage.output_tokens, self._output + (usage.output_tokens - self._output) * _DECAY)


_ROOM = 1.05
_DECAY = 0.02
