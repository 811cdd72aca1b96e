"""How the keys stand: read when somebody asks, so that nothing of it costs a call."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import attrs

from llm_master.dispatch.keys import EXHAUSTED
from llm_master.dispatch.line import Line, Slot

KeyCondition: TypeAlias = Literal["available", "cooling", "exhausted", "invalid", "no_funds", "denied"]
CONDITIONS: tuple[KeyCondition, ...] = get_args(KeyCondition)


@attrs.frozen(kw_only=True)
class KeyStatus:
    """How one key stands with one model.

    Attributes:
        provider: Name of the provider's row.
        key: The key's name and last four characters, never the key; ``None`` of a provider that wants none.
        quota: Whose limits it has; keys of one quota cool together.
        model: Wire id.
        condition: ``available``; ``cooling`` after a 429, ``exhausted`` after one that lasts more than 600 s; ``invalid``;
            ``no_funds``; ``denied``: it may not use this model.
        seconds: Until it is tried again; 0 where it is available.
        in_flight: Requests under way with this key, of all models.
        uses: Requests sent with it so far, of all models.
        waiting: How many queries wait for any key to this model.
    """

    provider: str
    key: str | None
    quota: str
    model: str
    condition: KeyCondition
    seconds: float
    in_flight: int
    uses: int
    waiting: int


def statuses(provider: str, line: Line) -> list[KeyStatus]:
    """How the keys of one line stand."""
    pool = line.pool
    with pool.lock:
        now = pool.clock.monotonic()
        waiting = sum(not waiter.gone for waiter in line.queue)
        return [_status(provider, line.model, slot, waiting, now) for slot in line.slots]


def _status(provider: str, model: str, slot: Slot, waiting: int, now: float) -> KeyStatus:
    state, share = slot.state, slot.share
    condition: KeyCondition = "available"
    until = now
    # What holds for the key alone is worse than what time heals.
    if state.until > now:
        condition, until = "invalid" if state.condition == "invalid" else "no_funds", state.until
    elif (denied := state.denied.get(model, 0.0)) > now:
        condition, until = "denied", denied
    elif share.until > now:
        condition, until = "exhausted" if share.until - now > EXHAUSTED else "cooling", share.until
    return KeyStatus(
        provider=provider,
        key=state.name,
        quota=share.quota,
        model=model,
        condition=condition,
        seconds=until - now,
        in_flight=state.in_flight,
        uses=state.uses,
        waiting=waiting,
    )
