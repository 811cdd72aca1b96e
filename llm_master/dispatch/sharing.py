"""What outlives or leaves the process: limits that hold over several, and what is known of keys.

Where it is kept is not known here. Keys and quotas are named by fingerprints.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from llm_master.dispatch.keys import KeyState, Refusal
from llm_master.dispatch.limits import REQUESTS, Need, Window
from llm_master.dispatch.retry import KeyEffect
from llm_master.errors import AuthenticationError, InsufficientFundsError, PermissionDeniedError, ProviderError

if TYPE_CHECKING:
    from llm_master.dispatch.lease import Lease
    from llm_master.dispatch.line import Slot

_SALT = "llm_master: what is shared of a key"
_LENGTH = 20
"""Hexadecimal digits of a fingerprint: none too few to tell keys apart, and none to find one by, which has far more in it."""

_SPREAD = (0.0002, 0.003)
"""Seconds by which processes that wait for the same moment come apart."""

_LOOK = 1.0
"""Seconds after which tokens are looked for again at the latest: what others give back comes before their window moves on."""

_PLACE = (0.01, 0.16)
"""Seconds until a place that another process holds is looked for again: at first, and at most."""


def fingerprint(*parts: str) -> str:
    """A name that says nothing of what it stands for."""
    text = "\0".join((_SALT, *parts))
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


@attrs.frozen
class Names:
    """What a slot's states and counts are called where they are kept."""

    key: str
    denied: str
    cooling: str
    uses: str

    @classmethod
    def of(cls, key: str, quota: str, model: str) -> Names:
        """Those of a key and a quota, given by their fingerprints, for one model."""
        return cls(f"{key}:state", f"{key}:{model}:denied", f"{quota}:{model}:cooling", f"{key}:uses")


class Keeper(Protocol):
    """Who is told what becomes of keys."""

    def failed(self, slot: Slot, effect: KeyEffect, seconds: float) -> None:
        """A key, or its quota, is not to be used for so long."""

    def proved(self, slot: Slot) -> None:
        """A key that was barred has answered."""

    def met(self, slot: Slot, states: Sequence[KeyState]) -> None:
        """A slot was made, of a provider with these keys: take over what is known of it."""


class Link(Protocol):
    """A way to what is shared, of one event loop: see ``storage/shared.py``."""

    async def take(
        self,
        holder: str,
        states: Sequence[str],
        uses: str,
        windows: Sequence[Sequence[Any]],
        places: Sequence[tuple[str, int]],
    ) -> Sequence[Any] | None:
        """Take all or nothing; ``None`` where it is not known."""

    def give(self, holder: str, changes: Sequence[Sequence[Any]], places: Sequence[str]) -> None:
        """Correct windows, and free places."""

    def set(self, name: str, value: str, seconds: float) -> None:
        """Set a state for so long."""

    def clear(self, name: str) -> None:
        """Take a state back."""


class Store(Protocol):
    """What is shared."""

    def link(self) -> Link:
        """The running loop's way to it."""


class Memory(Protocol):
    """What is remembered over restarts: see ``storage/state_file.py``."""

    def recall(self, name: str) -> tuple[str, float] | None:
        """A state, and for how many seconds it still holds."""

    def note(self, name: str, value: str, seconds: float) -> None:
        """Set a state for so long."""

    def clear(self, name: str) -> None:
        """Take a state back."""

    def uses(self, name: str) -> int | None:
        """How often it was used, as far as is known."""

    def counts(self, name: str, state: KeyState) -> None:
        """Whose ``uses`` is to be remembered under a name."""


class Claim:
    """What a lease has taken of what is shared. Given back with the lease."""

    __slots__ = ("_at", "_holder", "_link", "_pieces", "_places", "late")

    def __init__(self, link: Link, holder: str, at: int, pieces: Sequence[tuple[Window, str]], places: Sequence[tuple[str, int]]) -> None:
        self._link = link
        self._holder = holder
        self._at = at
        self._pieces = pieces
        self._places = places
        # Seconds by which the request was sent later than it was leased.
        self.late = 0.0

    def give(self, change: Need) -> None:
        """Correct what was taken, and free the places."""
        changes = []
        for window, piece in self._pieces:
            ends = self._at + int((self.late + window.span) * 1e6) if self.late else 0
            if (amount := change[window.kind]) or ends:
                changes.append((window.name, piece, amount, ends))
        if changes or self._places:
            self._link.give(self._holder, changes, [name for name, _ in self._places])


class Sharing:
    """Has each lease taken from what all processes share, too, before anything is sent."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._number = itertools.count()
        self._process = os.urandom(6).hex()
        # Name -> how often a key was used by all, when it was last heard of.
        self._seen: dict[str, int] = {}

    async def admit(self, lease: Lease) -> bool:
        """Whether it may be sent; if not, it was given back, and its limits know how long to wait.

        Where what is shared is away, the process's own limits are all there is.
        """
        slot, need = lease.slot, lease.need
        names = slot.names
        assert names is not None
        windows = [limit for limit in slot.windows if isinstance(limit, Window) and limit.name and need[limit.kind]]
        taken = [(window.name, window.limit, window.span_us, window.grain_us, need[window.kind]) for window in windows]
        places = [(place.name, place.limit) for place in slot.places]
        holder = f"{self._process}:{os.getpid()}:{next(self._number)}"  # a fork has the same of all but its process id
        link = self._store.link()
        try:
            reply = await link.take(holder, (names.key, names.denied, names.cooling), names.uses, taken, places)
        except BaseException:
            lease.unsent()
            raise
        if reply is None:
            return True
        if reply[0]:
            pieces = [(window, piece) for window, piece in zip(windows, reply[3], strict=True) if piece]
            if pieces or places:
                lease.claim = Claim(link, holder, reply[1], pieces, places)
            with lease.pool.lock:
                self._count(slot, reply[2])
                for place in slot.places:
                    place.held_for = 0.0
            return True
        _, kind, which, wait, value = reply
        with lease.pool.lock:
            now = lease.pool.clock.monotonic()
            seconds = wait / 1e6 + random.uniform(*_SPREAD)
            if kind == "state":
                learn(slot, ("key", "denied", "cooling")[which], value, now + seconds)
            elif kind == "window":
                window = windows[which]
                window.hold(need, now + (seconds if window.kind == REQUESTS else min(seconds, _LOOK)), now)
            else:
                slot.places[which].hold(_PLACE, random.uniform(0.75, 1.25), now)
            lease.refused()
        return False

    def failed(self, slot: Slot, effect: KeyEffect, seconds: float) -> None:
        """Tell the others."""
        if (state := _state(slot, effect)) is not None and seconds > 0:
            self._store.link().set(*state, seconds)

    def proved(self, slot: Slot) -> None:
        """Tell the others."""
        if slot.names is not None:
            self._store.link().clear(slot.names.key)

    def met(self, slot: Slot, states: Sequence[KeyState]) -> None:
        """What the others know is learnt with the first lease."""

    def _count(self, slot: Slot, uses: int) -> None:
        """Count what others have used a key for; from the first time on, so that a new key does not have to catch up."""
        assert slot.names is not None
        seen = self._seen.get(slot.names.uses, uses)
        self._seen[slot.names.uses] = uses
        slot.state.uses += max(0, uses - seen - 1)


class Remembering:
    """Has what becomes of keys remembered over restarts."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def failed(self, slot: Slot, effect: KeyEffect, seconds: float) -> None:
        """Write it down."""
        if (state := _state(slot, effect)) is not None and seconds > 0:
            self._memory.note(*state, seconds)

    def proved(self, slot: Slot) -> None:
        """Strike it out."""
        if slot.names is not None:
            self._memory.clear(slot.names.key)

    def met(self, slot: Slot, states: Sequence[KeyState]) -> None:
        """Take over what was written down."""
        names = slot.names
        assert names is not None
        now = slot.clock.monotonic()
        for kind, name in (("key", names.key), ("denied", names.denied), ("cooling", names.cooling)):
            if (known := self._memory.recall(name)) is not None:
                learn(slot, kind, known[0], now + known[1])
        if slot.state.uses == 0:
            # One that nobody has used yet does not have to catch up with the others.
            uses = self._memory.uses(names.uses)
            slot.state.uses = uses if uses is not None else min(_used(states, slot.state), default=0)
        self._memory.counts(names.uses, slot.state)


def _used(states: Iterable[KeyState], but: KeyState) -> list[int]:
    return [state.uses for state in states if state is not but and state.uses]


def _state(slot: Slot, effect: KeyEffect) -> tuple[str, str] | None:
    """How an effect is written: name and value."""
    names = slot.names
    if names is None or effect == "none":
        return None
    if effect == "limited":
        return names.cooling, "limited"
    return (names.denied, effect) if effect == "denied" else (names.key, effect)


_TOLD: dict[str, tuple[type[ProviderError], int, str]] = {
    "invalid": (AuthenticationError, 401, "it was refused as invalid"),
    "no_funds": (InsufficientFundsError, 402, "it has no funds"),
    "denied": (PermissionDeniedError, 403, "it may not use this model"),
}


def learn(slot: Slot, kind: str, value: str, until: float) -> None:
    """Take over what another process, or an earlier one, has found of a key. The pool's lock is held.

    Args:
        slot: The key and the model.
        kind: ``key``, ``denied`` or ``cooling``.
        value: The effect that was found.
        until: Until when it holds, on the monotonic clock.
    """
    state, share = slot.state, slot.share
    if kind == "cooling":
        if until > share.until:
            share.until, share.cap = until, 1
        return
    error, status, text = _TOLD.get(value, _TOLD["invalid"])
    refusal = Refusal(error, f"{state.name or 'the provider'}: {text}, as another process has found", status)
    if kind == "denied":
        state.denied[share.model] = max(until, state.denied.get(share.model, 0.0))
        state.refusal = refusal
    elif until > state.until:
        state.bar("no funds" if value == "no_funds" else "invalid", until, refusal)
