"""Routes: several targets under one name, and the strategies that choose among them."""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Protocol

from llm_master.clock import Clock
from llm_master.dispatch.choosing import Outlook, choose
from llm_master.dispatch.health import Health
from llm_master.dispatch.limits import NEVER, ONE
from llm_master.dispatch.line import Line
from llm_master.dispatch.target import Target
from llm_master.errors import LLMError
from llm_master.model_registry import ModelRegistry
from llm_master.settings.routes import RouteTarget

_NOBODY: frozenset[Any] = frozenset()

PROBE_EVERY = 20
"""Of ``best-available``: one request in so many goes to the target that was longest not asked, so that it may get better."""


BEST_FOR = 0.05
"""Seconds for which it stays the best without being compared again, as long as it does not fail."""


class Resolves(Protocol):
    """What is asked of an engine here."""

    def target(self, model_name: str) -> Target:
        """A name, resolved."""


class Member:
    """A target of a route at work."""

    __slots__ = ("_engine", "_line", "_version", "health", "model", "options", "weight")

    def __init__(self, engine: Resolves, target: RouteTarget, health: Health) -> None:
        self._engine = engine
        self.model = target.model
        self.weight = target.weight
        self.options = target.options
        self.health = health
        self._line: Line | None = None
        self._version = -1

    @property
    def engine(self) -> Any:
        """Who makes calls to it."""
        return self._engine

    def target(self) -> Target:
        """The target, resolved. Raises what resolving raises."""
        return self._engine.target(self.model)

    def is_free(self, now: float) -> bool:
        """Whether a request could be sent there now."""
        if not self.health.may_be_asked(now):
            return False
        line = self.line()
        return line is not None and line.pool.waiting == 0 and choose(line, ONE, _NOBODY, now) is not None

    def line(self) -> Line | None:
        """Where requests to it queue; ``None`` where it cannot be asked, for want of a key or of anything else."""
        if self._version != ModelRegistry.CONFIGS.version:
            self._version = ModelRegistry.CONFIGS.version
            try:
                self._line = self._engine.target(self.model).line
            except LLMError:  # it is said when nobody else is left
                self._line = None
        return self._line

    def free_in(self, now: float) -> float:
        """Seconds until a request could be sent there; ``NEVER`` if that is not worth waiting for."""
        line = self.line()
        if line is None:
            return NEVER
        return max(Outlook(line, ONE, _NOBODY, now).wait, self.health.closed_in(now))

    def price(self) -> Decimal | None:
        """A million tokens in and a million out, as far as that is known."""
        try:
            model = self.target().model
        except LLMError:
            return None
        if model is None or model.input_price_per_million is None or model.output_price_per_million is None:
            return None
        return model.input_price_per_million + model.output_price_per_million


class Route:
    """Targets and a strategy; the state that choosing needs. Shared by all calls of one engine."""

    def __init__(self, name: str, strategy: str, members: Sequence[Member], clock: Clock) -> None:
        self.name = name
        self.strategy = strategy
        self.members: list[Member] = list(members)
        self.clock = clock
        self.turn = itertools.count()
        # What strategies need not work out for each call.
        self.sums: list[float] = []
        self.best: Member | None = None
        self.best_until = self.best_success = 0.0
        self.by_price: list[Member] = []
        self.priced_as_of: tuple[int, int] | None = None
        self._choose = STRATEGIES[strategy]

    def pick(self, tried: set[Member]) -> Member | None:
        """The next target: one that is free, by the strategy; else the one that will be soonest. ``None`` if all were tried."""
        now = self.clock.monotonic()
        member = self._choose(self, tried, now)
        if member is None:
            left = [(member.free_in(now), number, member) for number, member in enumerate(self.members) if member not in tried]
            member = min(left)[2] if left else None
        if member is not None:
            member.health.pick(now)
        return member


def _scan(members: Sequence[Member], start: int, tried: set[Member], now: float) -> Member | None:
    """The first that is free, from ``start`` on and around."""
    for offset in range(len(members)):
        member = members[(start + offset) % len(members)]
        if member not in tried and member.is_free(now):
            return member
    return None


def _round_robin(route: Route, tried: set[Member], now: float) -> Member | None:
    return _scan(route.members, next(route.turn) % len(route.members), tried, now)


def _random(route: Route, tried: set[Member], now: float) -> Member | None:
    first = random.choice(route.members)
    if first not in tried and first.is_free(now):
        return first
    free = [member for member in route.members if member not in tried and member.is_free(now)]
    return random.choice(free) if free else None


def _weighted(route: Route, tried: set[Member], now: float) -> Member | None:
    if len(route.sums) != len(route.members):
        route.sums = list(itertools.accumulate(member.weight for member in route.members))
    first = _by_weight(route.members, route.sums)
    if first is not None and first not in tried and first.is_free(now):
        return first
    free = [member for member in route.members if member not in tried and member.is_free(now)]
    return _by_weight(free, list(itertools.accumulate(member.weight for member in free)))


def _by_weight(members: Sequence[Member], sums: Sequence[float]) -> Member | None:
    if not sums or sums[-1] <= 0:
        return None
    return members[min(bisect.bisect_right(sums, random.random() * sums[-1]), len(members) - 1)]


def _first_available(route: Route, tried: set[Member], now: float) -> Member | None:
    return _scan(route.members, 0, tried, now)


def _best_available(route: Route, tried: set[Member], now: float) -> Member | None:
    best = route.best
    probes = next(route.turn) % PROBE_EVERY == PROBE_EVERY - 1
    lately = best is not None and not probes and now < route.best_until and best.health.success >= route.best_success
    if lately and best is not None and best not in tried and best.is_free(now):
        return best  # it was a moment ago, and has not failed since
    if probes:
        longest = min(route.members, key=_picked)
        if longest not in tried and longest.is_free(now):
            return longest
    free = [member for member in route.members if member not in tried and member.is_free(now)]
    if not free:
        return None
    # Nobody stays unmeasured, and nobody is judged for ever by what he once did.
    if new := [member for member in free if member.health.total == 0]:
        return min(new, key=_picked)
    best = max(free, key=lambda member: (round(member.health.success, 2), -member.health.latency))
    route.best, route.best_until, route.best_success = best, now + BEST_FOR, best.health.success
    return best


def _picked(member: Member) -> float:
    return member.health.picked


def _least_latency(route: Route, tried: set[Member], now: float) -> Member | None:
    # Of two at random the better: as good as asking all, and no herd runs to the one that was best a moment ago.
    # https://linkerd.io/2016/03/16/beyond-round-robin-load-balancing-for-latency/
    members = route.members
    count = len(members)
    if count > 2 and not tried:
        one = int(random.random() * count)
        other = (one + 1 + int(random.random() * (count - 1))) % count
        better, worse = members[one], members[other]
        if _load(worse) < _load(better):
            better, worse = worse, better
        if better.is_free(now):
            return better
        if worse.is_free(now):
            return worse
    free = [member for member in members if member not in tried and member.is_free(now)]
    return min(free, key=_load) if free else None


def _load(member: Member) -> float:
    line = member.line()
    return member.health.latency * (1 + line.in_flight) if line is not None else NEVER


def _least_busy(route: Route, tried: set[Member], now: float) -> Member | None:
    start = next(route.turn) % len(route.members)
    best, fewest = None, NEVER
    for offset in range(len(route.members)):
        member = route.members[(start + offset) % len(route.members)]
        if member in tried or not member.is_free(now):
            continue
        line = member.line()
        if line is not None and line.in_flight < fewest:
            best, fewest = member, line.in_flight
            if fewest == 0:
                break
    return best


def _least_cost(route: Route, tried: set[Member], now: float) -> Member | None:
    as_of = (ModelRegistry.CONFIGS.version, len(route.members))
    if route.priced_as_of != as_of:
        route.priced_as_of = as_of
        prices = [(member.price(), number, member) for number, member in enumerate(route.members)]
        # Unknown is not cheap.
        route.by_price = [member for _, _, member in sorted(prices, key=lambda item: (item[0] is None, item[0] or Decimal(), item[1]))]
    return _scan(route.by_price, 0, tried, now)


STRATEGIES: dict[str, Callable[[Route, set[Member], float], Member | None]] = {
    "round-robin": _round_robin,
    "weighted": _weighted,
    "random": _random,
    "first-available": _first_available,
    "best-available": _best_available,
    "least-latency": _least_latency,
    "least-cost": _least_cost,
    "least-busy": _least_busy,
}
"""Strategy -> how it chooses a free target that was not tried."""
