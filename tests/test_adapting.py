"""Limits that nobody declared are learnt from 429s: few of them, and hardly less than the provider would have let through."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Any, ClassVar

import pytest

from llm_master import PROVIDER_CONFIGS, BaseLLMProvider, LLMConfig, ModelConfig, ModelRegistry, ProviderConfig, QueryLLM, RateLimitError
from llm_master.dispatch.adapting import Adaptive
from llm_master.testing import FakeClock


class Secretive(BaseLLMProvider):
    """Has a limit, of a rate or of requests in flight, and says so by 429s only."""

    clock: ClassVar[FakeClock]
    chance: ClassVar[random.Random]
    limit: ClassVar[int]
    window: ClassVar[float]
    latency: ClassVar[float]
    let: ClassVar[deque[float]]
    good: ClassVar[list[float]]
    bad: ClassVar[list[float]]
    inside: ClassVar[int] = 0
    silent: ClassVar[bool] = False

    async def generate(self, messages: Any, model: str, **options: Any) -> str:
        cls = type(self)
        now = cls.clock.monotonic()
        if cls.window:
            while cls.let and cls.let[0] <= now - cls.window:
                cls.let.popleft()
            if len(cls.let) >= cls.limit:
                cls.bad.append(now)
                raise RateLimitError("slow", status=429, retry_after=None if cls.silent else cls.let[0] + cls.window - now)
            cls.let.append(now)
        elif cls.inside >= cls.limit:
            cls.bad.append(now)
            await cls.clock.sleep(0.02)
            raise RateLimitError("slow", status=429)
        cls.inside += 1
        try:
            await cls.clock.sleep(cls.latency * (0.5 + cls.chance.random()))
        finally:
            cls.inside -= 1
        cls.good.append(now)
        return "Hello"


@pytest.mark.parametrize(
    ("limit", "window", "latency", "silent"),
    [
        pytest.param(600, 60.0, 0.5, False, id="600 per minute"),
        pytest.param(60, 60.0, 0.5, False, id="60 per minute"),
        pytest.param(600, 60.0, 0.5, True, id="600 per minute, not saying when to come again"),
        pytest.param(60, 60.0, 0.5, True, id="60 per minute, not saying when to come again"),
        pytest.param(10, 1.0, 0.5, False, id="10 per second"),
        pytest.param(100, 10.0, 0.5, False, id="100 in 10 s"),
        pytest.param(8, 0.0, 0.5, True, id="8 at once"),
        pytest.param(40, 0.0, 2.0, True, id="40 at once"),
        pytest.param(1, 0.0, 0.5, True, id="1 at once"),
    ],
)
async def test_after_a_minute_hardly_any_429_and_hardly_less_than_allowed(limit: int, window: float, latency: float, silent: bool) -> None:
    clock = FakeClock()
    how = {"limit": limit, "window": window, "latency": latency, "silent": silent, "clock": clock, "chance": random.Random(2)}
    cls = type("AsSecretive", (Secretive,), {**how, "let": deque(), "good": [], "bad": []})
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=cls, requires_key=False)
    llm = QueryLLM(LLMConfig(environment={}, clock=clock, max_attempts=10_000, deadline=1e6))
    until = 360.0

    async def ask_on_and_on() -> None:
        while clock.monotonic() < until:
            assert (await llm.query("acme/m", prompt="Hi")).content == "Hello"

    tasks = [asyncio.create_task(ask_on_and_on()) for _ in range(100)]
    while clock.monotonic() < until:
        await clock.advance(5)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) or result is None for result in results), results
    good = sum(at > 60 for at in cls.good)
    bad = sum(at > 60 for at in cls.bad)
    possible = limit / (window or latency) * (until - 60)
    assert bad <= 0.01 * (good + bad)
    assert good >= 0.9 * possible


async def test_declared_limits_are_taken_at_their_word() -> None:
    clock = FakeClock(auto_advance=True)
    how = {"limit": 1, "window": 0.0, "latency": 1.0, "clock": clock, "chance": random.Random(2)}
    cls = type("AsSecretive", (Secretive,), {**how, "let": deque(), "good": [], "bad": [], "inside": 1})
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=cls, requires_key=False)
    ModelRegistry.register("acme/m", ModelConfig(max_concurrent=4))
    llm = QueryLLM(LLMConfig(environment={}, clock=clock, max_attempts=1))
    with pytest.raises(RateLimitError):
        await llm.query("acme/m", prompt="Hi")
    assert llm._engine.target("acme/m").line.slots[0].share.adaptive is None


def test_what_was_under_way_together_is_one_lesson_and_its_last_word_counts() -> None:
    adaptive = Adaptive(began=0.0, now=10.0, sent=16)
    for number, in_flight in enumerate((16, 15, 12, 9)):
        adaptive.limited(10.0, in_flight, None, is_new=number == 0)
    assert adaptive.ceiling == 9, "eight are let through"
    assert [adaptive.answered(11.0, cap, cap) for cap in (1, 4, 7, 8)] == [2, 5, 8, 8]


def test_a_rate_is_raised_after_a_long_time_without_a_429_and_lowered_gently() -> None:
    adaptive = Adaptive(began=0.0, now=10.0, sent=101)
    adaptive.refused()
    adaptive.limited(10.0, 50, 40.0, is_new=True)
    (window,) = [window for window in adaptive.windows if window.limit < 10**9]
    assert (window.seconds, window.limit) == (60.0, 100)
    window.take((100, 0, 0, 0), 200.0)
    adaptive.answered(200.0, 5, None)
    assert window.limit == 101
    adaptive.answered(201.0, 5, None)
    assert window.limit == 101, "once in two minutes"
    adaptive.limited(202.0, 50, 3.0, is_new=True)
    assert window.limit == 100
    assert "about 100 requests in 60 s" in window.why


def test_a_pause_of_a_day_teaches_no_rate() -> None:
    adaptive = Adaptive(began=0.0, now=10.0, sent=5)
    adaptive.limited(10.0, 5, 40_000.0, is_new=True)
    assert all(window.limit > 10**9 for window in adaptive.windows) and adaptive.ceiling is None
