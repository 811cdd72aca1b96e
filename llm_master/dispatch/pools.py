"""From rows, keys and models to pools: which keys share which limits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llm_master.clock import Clock
from llm_master.dispatch.keys import Key, KeyState, Share
from llm_master.dispatch.limits import INPUT, OUTPUT, REQUESTS, TOKENS, InFlight, Limit, Window
from llm_master.dispatch.line import Line, Ring, Slot
from llm_master.dispatch.pool import Pool
from llm_master.dispatch.sharing import Keeper, Names, fingerprint
from llm_master.dispatch.status import KeyStatus, statuses
from llm_master.model_rows import ModelConfig
from llm_master.rows import RATES, ProviderConfig, canonical

_RATES: dict[str, tuple[float, int, str]] = {
    "rps": (1.0, REQUESTS, "requests per second"),
    "rpm": (60.0, REQUESTS, "requests per minute"),
    "rpd": (86400.0, REQUESTS, "requests per day"),
    "tpm": (60.0, TOKENS, "tokens per minute"),
    "input_tpm": (60.0, INPUT, "input tokens per minute"),
    "output_tpm": (60.0, OUTPUT, "output tokens per minute"),
}
assert tuple(_RATES) == RATES


class Pools:
    """All keys and limits of one engine.

    Args:
        rows: The rows, by canonical name.
        keys: The keys of each.
        clock: Tells the time.
        max_concurrent: Requests in flight to each provider whose row says nothing itself.
        keeper: Who shares limits and states with other processes, or remembers them.
    """

    def __init__(
        self,
        rows: Mapping[str, ProviderConfig],
        keys: Mapping[str, Sequence[Key]],
        clock: Clock,
        max_concurrent: int | None,
        keeper: Keeper | None = None,
    ) -> None:
        self._rows = rows
        self._keys = keys
        self._clock = clock
        self._max_concurrent = max_concurrent
        self._keeper = keeper
        # Quota -> its fingerprint, where there is a keeper.
        self._fingerprints: dict[str, str] = {}
        self._lock = threading.RLock()
        self._pools: dict[str, Pool] = {}
        self._rings: dict[str, Ring] = {}
        self._lines: dict[tuple[str, object, str], Line] = {}
        self._shares: dict[tuple[str, str], Share] = {}
        # (whose, which) -> the one limit that holds for all who share it.
        self._windows: dict[tuple[str, str], Window] = {}
        self._in_flight: dict[tuple[str, str], InFlight] = {}

    def line(self, provider: str, kind: object, model: str, config: ModelConfig | None, bind: Callable[[Key | None], Any]) -> Line:
        """Where requests for one model of one provider queue; made once, its limits as ``config`` has them now.

        Args:
            provider: Name of the row.
            kind: Tells lines of one model apart whose provider objects are of another class.
            model: Wire id.
            config: What is known of the model.
            bind: Makes the object that speaks with a key.
        """
        with self._lock:
            line = self._lines.get((provider, kind, model))
            if line is not None:
                with line.pool.lock:
                    for changed in [slot.share for slot in line.slots if self._limit_share(slot.share, config)]:
                        line.pool.refresh(changed)
                    if line.pool.waiting:
                        line.pool.serve()
                return line
            pool = self._pool(provider)
            ring = self._ring(provider)
            slots = []
            for position, state in enumerate(ring.states):
                quota = self._quota(provider, position)
                mine = self._name(provider, position, quota) if self._keeper is not None else ""
                share = self._shares.get((quota, model))
                if share is None:
                    share = self._shares[quota, model] = Share(quota, model, self._clock.monotonic())
                    self._limit_share(share, config)
                slot = Slot(position, state, share, self._limits(provider, position, quota), self._clock)
                slot.provider = bind(state.key)
                if self._keeper is not None:
                    slot.names = Names.of(mine, self._fingerprints[quota], model)
                    self._keeper.met(slot, ring.states)
                slots.append(slot)
            line = self._lines[provider, kind, model] = Line(pool, ring, model, slots)
            with pool.lock:
                pool.lines.append(line)
            return line

    def states(self) -> list[KeyStatus]:
        """How each key stands with each model that was asked so far."""
        with self._lock:
            lines = list(self._lines.items())
        return [status for (provider, _, _), line in lines for status in statuses(provider, line)]

    def _pool(self, provider: str) -> Pool:
        # Rows may share a quota, and what shares a limit waits in one place.
        name = "quotas" if self._rows[provider].quota else provider
        pool = self._pools.get(name)
        if pool is None:
            pool = self._pools[name] = Pool(self._clock, self._keeper)
        return pool

    def _ring(self, provider: str) -> Ring:
        ring = self._rings.get(provider)
        if ring is None:
            row = self._rows[provider]
            keys: Sequence[Key | None] = self._keys[provider] or (None,)
            priorities = {canonical(name): priority for name, priority in row.key_priorities.items()}
            states = [
                KeyState(key, priorities.get(canonical(key.source), 0) if key is not None else 0, alone=len(keys) == 1) for key in keys
            ]
            ring = self._rings[provider] = Ring(states, sequential=row.rotation_mode == "sequential")
        return ring

    def _quota(self, provider: str, position: int) -> str:
        """The quota of a key. One of its own has a name that none declared can have."""
        row = self._rows[provider]
        if isinstance(row.quota, str):
            return row.quota
        own = f"{provider}/{position}"
        if row.quota is None:
            return own
        declared = {canonical(name): quota for name, quota in row.quota.items()}
        return declared.get(canonical(self._keys[provider][position].source), own) if self._keys[provider] else own

    def _name(self, provider: str, position: int, quota: str) -> str:
        """The fingerprint of a key, by which other processes know it; wherever it stands among the keys there."""
        keys = self._keys[provider]
        # Without a key it is the address that has limits.
        mine = fingerprint("key", provider, keys[position].secret if keys else self._rows[provider].base_url or "")
        self._fingerprints.setdefault(quota, mine if quota == f"{provider}/{position}" else fingerprint("quota", quota))
        return mine

    def _limits(self, provider: str, position: int, quota: str) -> list[Limit]:
        """What holds for one key of a provider, whatever the model."""
        row = self._rows[provider]
        limits: list[Limit] = []
        if (most := row.max_concurrent or self._max_concurrent) is not None:
            limits.append(self._at_once(provider, "", most, f"max_concurrent of {provider} is {most} (requests in flight)"))
        if (most := row.max_concurrent_per_key) is not None:
            why = f"max_concurrent_per_key of {provider} is {most} (requests in flight)"
            limits.append(self._at_once(provider, str(position), most, why, self._name(provider, position, quota)))
        for field in RATES:
            # Of all rows that have keys of this quota, the strictest.
            declared = [
                (amount, name)
                for name, other in self._rows.items()
                if (amount := getattr(other, field)) is not None and (name == provider or self._has_quota(name, quota))
            ]
            if declared:
                amount, name = min(declared)
                seconds, kind, said = _RATES[field]
                key = (quota, field)
                if key not in self._windows:
                    self._windows[key] = window = Window(amount, seconds, kind, f"{field} of {name} is {amount} ({said})")
                    window.name = f"{self._fingerprints.get(quota, '')}:{field}"
                limits.append(self._windows[key])
        return limits

    def _has_quota(self, provider: str, quota: str) -> bool:
        declared = self._rows[provider].quota
        return declared == quota or (isinstance(declared, Mapping) and quota in declared.values())

    def _at_once(self, whose: str, which: str, most: int, why: str, name: str = "") -> InFlight:
        limit = self._in_flight.setdefault((whose, which), InFlight(most, why))
        limit.name = f"{name or fingerprint('provider', whose)}:at_once"
        return limit

    def _limit_share(self, share: Share, config: ModelConfig | None) -> bool:
        """Give a share the limits of its model; whether they are other ones than before. What was sent is remembered."""
        limits: list[Limit] = []
        whose = f"{share.quota}/{share.model}"
        if config is not None:
            if (most := config.max_concurrent) is not None:
                limit = self._at_once(whose, "", most, "", f"{self._fingerprints.get(share.quota, '')}:{share.model}")
                limit.limit, limit.why = most, f"max_concurrent of {share.model} is {most} (requests in flight)"
                limits.append(limit)
            for field, (seconds, kind, said) in _RATES.items():
                if (amount := getattr(config, f"rate_limit_{field}")) is not None:
                    window = self._windows.setdefault((whose, field), Window(amount, seconds, kind, ""))
                    window.name = f"{self._fingerprints.get(share.quota, '')}:{share.model}:{field}"
                    window.limit, window.why = amount, f"rate_limit_{field} of {share.model} is {amount} ({said})"
                    limits.append(window)
        found: list[Limit] = [*share.announced.values(), *(share.adaptive.windows if share.adaptive is not None else ())]
        before = [limit for limit in share.limits if limit not in found]
        share.limits = [*limits, *found]
        return before != limits
