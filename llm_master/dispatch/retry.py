"""What an error does: one table from error to action, and the waits that follow."""

from __future__ import annotations

import random
from typing import Literal, TypeAlias

import attrs

from llm_master import errors as e

KeyEffect: TypeAlias = Literal["none", "invalid", "denied", "no_funds", "limited"]
"""What an error means for the key: nothing; refused for all (300 s) or for this model; without funds (an hour); its quota cools."""

Action: TypeAlias = Literal["other_key", "cool", "backoff", "raise"]
"""``other_key``: at once with another key, which this request has not tried. ``cool``: with a key of another quota at once, else when
the limit allows, as long as the deadline does. ``backoff``: after a random wait, ``max_retries`` times. ``raise``: never again."""


@attrs.frozen
class Rule:
    """What an error does: to the key, to the request, and whether a fallback, or another target of a route, may answer instead."""

    error: type[e.LLMError]
    key: KeyEffect
    then: Action
    fallback: bool
    route: bool = False


TABLE: tuple[Rule, ...] = (
    Rule(e.AuthenticationError, "invalid", "other_key", fallback=True),
    Rule(e.PermissionDeniedError, "denied", "other_key", fallback=True),
    Rule(e.InsufficientFundsError, "no_funds", "other_key", fallback=True),
    Rule(e.RateLimitError, "limited", "cool", fallback=True),
    Rule(e.ServerError, "none", "backoff", fallback=True),
    Rule(e.ProviderConnectionError, "none", "backoff", fallback=True),
    Rule(e.RequestTimeoutError, "none", "backoff", fallback=True),
    Rule(e.ContextWindowExceededError, "none", "raise", fallback=True),
    Rule(e.ContentPolicyError, "none", "raise", fallback=True),
    Rule(e.ModelNotFoundError, "none", "raise", fallback=False, route=True),
    Rule(e.LLMError, "none", "raise", fallback=False),
)
"""The first that fits holds."""

_UNKNOWN = Rule(e.LLMError, "none", "raise", fallback=False)

BACKOFF_BASE = 0.5
BACKOFF_CAP = 8.0

FALLBACK_WAIT = 10.0
"""Seconds that a request waits for a limit at most where a fallback is there to answer."""


def rule_for(error: Exception) -> Rule:
    """The table's rule for an error; what is no error of this library is raised."""
    return next((rule for rule in TABLE if isinstance(error, rule.error)), _UNKNOWN)


def backoff(failures: int, asked: float | None) -> float:
    """Seconds before the next try after so many failures: random, so that those who failed together do not come together again.

    Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return max(random.uniform(0, min(BACKOFF_CAP, BACKOFF_BASE * 2.0**failures)), asked or 0.0)


def spoken(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


class RetryBudget:
    """How many repetitions a provider in trouble gets from this whole process, so that many requests are no storm.

    Each repetition takes one, each answer gives one back: at most as many repetitions as answers, and :attr:`FULL` beside.
    First sends are never held back, so that a provider which has recovered is noticed. The idea is that of gRPC's retry throttling:
    https://github.com/grpc/proposal/blob/master/A6-client-retries.md#throttling-retry-attempts-and-hedged-rpcs
    """

    __slots__ = ("left",)

    FULL = 100

    def __init__(self) -> None:
        self.left = self.FULL

    def take(self) -> bool:
        """Whether one more repetition may be."""
        if self.left <= 0:
            return False
        self.left -= 1
        return True

    def answered(self) -> None:
        """An answer came."""
        if self.left < self.FULL:
            self.left += 1


_budgets: dict[str, RetryBudget] = {}


def forget_budgets() -> None:
    """Give every provider a new one."""
    _budgets.clear()


def budget_of(address: str) -> RetryBudget:
    """The budget of the provider at an address, the same for all engines of this process."""
    return _budgets.setdefault(address, RetryBudget())
