"""A lease: one key and all its limits, taken all or nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llm_master.dispatch.keys import INVALID_FOR, NO_FUNDS_FOR, Refusal
from llm_master.dispatch.limits import ONE, REQUESTS, Ask, Need, Window
from llm_master.dispatch.line import Line, Slot
from llm_master.dispatch.retry import KeyEffect
from llm_master.types import RateLimitState, Usage

if TYPE_CHECKING:
    from llm_master.dispatch.pool import Pool
    from llm_master.dispatch.sharing import Claim

logger = logging.getLogger("llm_master.dispatch")


class Lease:
    """The right to send one request with one key. Given back once; one that nobody holds any more gives itself back."""

    __slots__ = ("_estimated", "_line", "_marks", "_number", "_open", "_places", "_taken", "_windows", "at", "claim", "need", "slot")

    def __init__(self, line: Line, slot: Slot, ask: Ask, need: Need, now: float) -> None:
        self._line = line
        self._estimated = ask[0] if ask is not None else 0
        self.slot = slot
        self.need = need
        self.at = now
        # What it has of what processes share.
        self.claim: Claim | None = None
        self._open = True
        share = slot.share
        state = slot.state
        line.in_flight += 1
        state.in_flight += 1
        state.uses += 1
        share.in_flight += 1
        sent = share.sent
        sent[0] += 1
        self._number = sent[0]
        if need is not ONE:
            sent[1] += need[1]
            sent[2] += need[2]
            sent[3] += need[3]
            self._marks: Sequence[int] = tuple(sent)
        # Those of now: a share may learn of others meanwhile.
        self._places = slot.places
        for place in slot.places:
            place.inside += 1
        self._windows = windows = slot.windows
        self._taken = [window.take(need, now) for window in windows] if windows else ()

    @property
    def pool(self) -> Pool:
        """The pool that it is of."""
        return self._line.pool

    def answered(self) -> None:
        """The first piece of an answer is there: the key is good, and its limit not reached."""
        pool = self._line.pool
        with pool.lock:
            self._proved()
            if pool.waiting:
                pool.serve()

    def done(self, usage: Usage | None, read: Callable[[], RateLimitState | None] | None, sent_at: float | None = None) -> None:
        """The answer is whole: settle what it took, and give the rest back.

        Args:
            usage: What was counted.
            read: Reads what the answer's headers say of the limits.
            sent_at: When the request was really sent, by the system's monotonic clock.
        """
        line, slot = self._line, self.slot
        share = slot.share
        with line.pool.lock:
            if slot.state.cap is not None or share.limited or share.cap is not None or share.adaptive is not None:
                self._proved()
            if read is not None:
                if share.unread > 0:
                    share.unread -= 1
                else:
                    self._learn(read)
            change = _NOTHING
            if self.need is not ONE and usage is not None:
                line.learn(self._estimated, usage)
                change = _change(self.need, usage)
            if sent_at is not None and sent_at > self.at + _LATE and line.pool.is_real:
                for window, taken in zip(self._windows, self._taken, strict=True):
                    if taken is not None:
                        window.sent(taken, sent_at)
                if self.claim is not None:
                    self.claim.late = sent_at - self.at
            self._give(change)

    def failed(self, effect: KeyEffect, error: Exception, *, began: bool = False) -> float | None:
        """The request failed; return for how long the quota cools, if it does.

        Args:
            effect: What the failure means for the key.
            error: What failed.
            began: The answer had begun.
        """
        refusal = Refusal.of(error)
        pool = self._line.pool
        with pool.lock:
            now = pool.clock.monotonic()
            state, share = self.slot.state, self.slot.share
            cooling = None
            if effect == "limited":
                cooling = share.cool(self._number, now, getattr(error, "retry_after", None), adapts=self._teaches(now))
            elif effect == "invalid":
                state.bar("invalid", now + INVALID_FOR, refusal)
            elif effect == "no_funds":
                state.bar("no funds", now + NO_FUNDS_FOR, refusal)
            elif effect == "denied":
                state.denied[share.model] = now + INVALID_FOR
                state.refusal = refusal
            if effect != "none":
                self._line.ring.failed(state)
                if pool.keeper is not None:
                    pool.keeper.failed(self.slot, effect, _BARRED.get(effect) or cooling or 0.0)
            # Of what the provider refused, it has counted no tokens; of what broke on the way, it may have.
            refused = refusal.status is not None and not began
            self._give((0, -self.need[1], -self.need[2], -self.need[3]) if refused else _NOTHING)
            return cooling

    def _teaches(self, now: float) -> bool:
        """Whether its 429 speaks of a limit that nobody declared; then it is no more counted as let through."""
        line, share = self._line, self.slot.share
        learnt = share.adaptive.windows if share.adaptive is not None else ()
        if self._places or any(isinstance(window, Window) and window.kind == REQUESTS and window not in learnt for window in self._windows):
            return False
        if share.adaptive is None:
            share.adapt(now)
            line.pool.refresh(share)
        assert share.adaptive is not None
        mine = [(window, taken) for window, taken in zip(self._windows, self._taken, strict=True) if window in share.adaptive.windows]
        for window, taken in mine:
            window.give(taken, (-1, 0, 0, 0))
        if not mine:
            share.adaptive.refused()
        return True

    def unsent(self) -> None:
        """Nothing was sent: take all of it back."""
        with self._line.pool.lock:
            need = self.need
            self._give((-1, -need[1], -need[2], -need[3]))

    def refused(self) -> None:
        """Other processes have what it would have taken: as if it had never been. The lock is held."""
        state, sent, need = self.slot.state, self.slot.share.sent, self.need
        state.uses -= 1
        for kind in range(len(sent)):
            sent[kind] -= need[kind]
        self._give((-1, -need[1], -need[2], -need[3]))

    def release(self) -> None:
        """Nobody knows what became of the request, as when its task is cancelled: what it took stays taken."""
        if self._open:
            with self._line.pool.lock:
                self._give(_NOTHING)

    def __del__(self) -> None:
        # Of a stream that nobody holds any more, in whatever thread it is collected.
        if self._open:
            self.release()

    def _proved(self) -> None:
        state, share = self.slot.state, self.slot.share
        if state.cap is not None:
            if state.condition != "available" and self._line.pool.keeper is not None:
                self._line.pool.keeper.proved(self.slot)
            state.proved(other for other in self._line.ring.states if other is not state)
        if share.limited or share.cap is not None or share.adaptive is not None:
            share.answered(self._line.pool.clock.monotonic())

    def _learn(self, read: Callable[[], RateLimitState | None]) -> None:
        line, share = self._line, self.slot.share
        try:
            state = read()
        except Exception as exc:  # the answer is there and paid for: whatever a provider's class makes of its headers does not take it away
            logger.warning("the headers of an answer could not be read for limits: %s: %s", type(exc).__name__, exc)
            return
        marks = self._marks if self.need is not ONE else (self._number, *share.sent[1:])
        if share.learn(marks, state, line.pool.clock.monotonic()):
            line.pool.refresh(share)
        if share.counts_tokens:
            line.counts_tokens = True

    def _give(self, change: Need) -> None:
        if not self._open:
            return
        self._open = False
        slot = self.slot
        self._line.in_flight -= 1
        slot.state.in_flight -= 1
        slot.share.in_flight -= 1
        for place in self._places:
            place.inside -= 1
        if self.claim is not None:
            self.claim.give(change)
            for place in self._places:
                place.held_until = 0.0  # this one's own is free
        if change is not _NOTHING:
            for window, taken in zip(self._windows, self._taken, strict=True):
                window.give(taken, change)
        pool = self._line.pool
        if pool.waiting:
            pool.serve()


_NOTHING: Need = (0, 0, 0, 0)
_BARRED: dict[KeyEffect, float] = {"invalid": INVALID_FOR, "denied": INVALID_FOR, "no_funds": NO_FUNDS_FOR}
_LATE = 0.02
"""Seconds by which a request may be sent after its lease without any window's knowing: their margins are far longer."""


def _change(need: Need, usage: Usage) -> Need:
    """By how much a settled request differs from what was taken; a count that is not known stays as it was."""
    tokens_in = usage.input_tokens - need[2] if usage.input_tokens is not None else 0
    tokens_out = usage.output_tokens - need[3] if usage.output_tokens is not None else 0
    return 0, tokens_in + tokens_out, tokens_in, tokens_out
