"""Limits: never more in any window, hardly less, in order, in time; learnt from headers; and what they say when they are in the way."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_master import (
    PROVIDER_CONFIGS,
    BaseLLMProvider,
    DeadlineExceededError,
    InvalidRequestError,
    LLMConfig,
    LLMResponse,
    ModelConfig,
    ModelRegistry,
    ProviderConfig,
    QueryLLM,
    RateLimitError,
    Usage,
)
from llm_master.dispatch.limits import INPUT, NEVER, REQUESTS, TOKENS, Announced, Need, Window
from llm_master.providers.limits import limits_in
from llm_master.testing import FakeClock
from llm_master.types import RateLimitState, WireAnswer


def requests(count: int) -> Need:
    return (count, 0, 0, 0)


# The window


STEPS = st.lists(st.tuples(st.floats(0, 30), st.integers(1, 6), st.integers(-3, 0)), min_size=1, max_size=80)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 20), st.sampled_from([1.0, 10.0, 60.0]), STEPS)
def test_no_window_wherever_it_begins_holds_more_than_the_limit(limit: int, seconds: float, steps: list[tuple[float, int, int]]) -> None:
    window = Window(limit, seconds, REQUESTS, "")
    now, sent = 0.0, []
    for pause, amount, change in steps:
        now += pause * seconds / 30
        amount = min(amount, limit)
        wait = window.wait(requests(amount), now)
        assert 0 <= wait <= window.span + 1e-9
        now += wait
        assert window.wait(requests(amount), now) == 0, "what it says is enough"
        taken = window.take(requests(amount), now)
        change = max(change, -amount)
        window.give(taken, requests(change))
        sent.append((now, amount + change))
    for begin, _ in sent:
        assert sum(amount for at, amount in sent if begin <= at < begin + seconds) <= limit
    assert window.used(now + window.span) == 0, "and all of it leaves"


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 7), st.integers(0, 7), st.integers(0, 40), st.floats(0, 80))
def test_who_queues_is_told_when_his_turn_comes(limit: int, before: int, ahead: int, later: float) -> None:
    def played() -> float:
        window, now = Window(limit, 60, REQUESTS, ""), began
        for number in range(min(before, limit)):
            window.take(requests(1), number / 10)
        for _ in range(ahead + 1):
            now += window.wait(requests(1), now)
            window.take(requests(1), now)
        return now - began

    began = later + 1  # after those before
    window = Window(limit, 60, REQUESTS, "")
    for number in range(min(before, limit)):
        window.take(requests(1), number / 10)
    actual = played()
    told = window.wait_behind(ahead, began, 0.0)
    # Requests that fall into one piece of the log leave it together, which makes it later by a piece at most.
    assert told <= actual + 1e-6
    assert told >= actual - 0.5
    assert window.wait_behind(ahead, began, actual + 200) == 0, "of what is near, it does not say how near"


def test_a_correction_after_the_window_has_gone_changes_nothing() -> None:
    window = Window(10, 60, TOKENS, "")
    taken = window.take((1, 8, 8, 0), 0.0)
    assert window.used(100.0) == 0
    window.give(taken, (0, -8, -8, 0))
    assert window.used(100.0) == 0
    assert window.wait((1, 11, 11, 0), 100.0) == NEVER
    assert window.take((1, 0, 0, 0), 100.0) is None


# Against a server that enforces a strict sliding window, in virtual time


class Strict(BaseLLMProvider):
    """Counts what arrives, a little after it was sent, and refuses what is too much in the window that ends then."""

    clock: ClassVar[FakeClock]
    limit: ClassVar[int]
    window: ClassVar[float]
    jitter: ClassVar[float] = 0.0
    counts: ClassVar[str] = "requests"
    chance: ClassVar[random.Random]
    log: ClassVar[deque[tuple[float, int]]]
    refused: ClassVar[int] = 0
    let: ClassVar[list[tuple[float, int]]]

    async def generate(self, messages: Any, model: str, **options: Any) -> LLMResponse:
        cls = type(self)
        await cls.clock.sleep(cls.chance.random() * cls.jitter)
        now = cls.clock.monotonic()
        tokens_in = len(messages[0]["content"]) // 4 + 7
        tokens_out = cls.chance.randrange(20, 80)
        amount = tokens_in + tokens_out if cls.counts == "tokens" else 1
        while cls.log and cls.log[0][0] <= now - cls.window:
            cls.log.popleft()
        if sum(amount for _, amount in cls.log) + amount > cls.limit:
            cls.refused += 1
            raise RateLimitError("too fast", status=429)
        cls.log.append((now, amount))
        cls.let.append((now, amount))
        await cls.clock.sleep(1.0)
        return LLMResponse("Hello", model, Usage(tokens_in, tokens_out))


async def against(limit: int, window: float, count: int, sizes: list[int], model: ModelConfig, **how: Any) -> type[Strict]:
    clock = FakeClock()
    more = {"clock": clock, "limit": limit, "window": window, "chance": random.Random(7), "log": deque(), "let": []}
    cls = type("AsStrict", (Strict,), {**more, **how})
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=cls, requires_key=False)
    ModelRegistry.register("acme/m", model)
    llm = QueryLLM(LLMConfig(environment={}, clock=clock, deadline=1e6))
    chance = random.Random(3)
    tasks = [asyncio.create_task(llm.query("acme/m", prompt="x" * chance.choice(sizes))) for _ in range(count)]
    while not all(task.done() for task in tasks):
        await clock.advance(5.0)
    assert [task.result().content for task in tasks] == ["Hello"] * count
    return cls


def share_of_the_permitted(cls: type[Strict]) -> float:
    """How long it would have taken at best, of how long it took: a full window at once, then a window each."""
    total = sum(amount for _, amount in cls.let)
    windows = -(-total // cls.limit) - 1
    return windows * cls.window / cls.let[-1][0]


@pytest.mark.parametrize("jitter", [0.0, 0.05])
async def test_2000_requests_at_600_per_minute(jitter: float) -> None:
    cls = await against(600, 60, 2000, [100], ModelConfig(rate_limit_rpm=600), jitter=jitter)
    assert cls.refused == 0
    assert share_of_the_permitted(cls) >= 0.98


async def test_a_small_limit_with_jitter() -> None:
    cls = await against(10, 1, 300, [100], ModelConfig(rate_limit_rps=10), jitter=0.05)
    assert cls.refused == 0
    assert share_of_the_permitted(cls) >= 0.85


async def test_tokens_of_mixed_sizes() -> None:
    cls = await against(100_000, 60, 1500, [40, 400, 2000, 4000, 8000], ModelConfig(rate_limit_tpm=100_000), jitter=0.05, counts="tokens")
    assert cls.refused == 0
    assert share_of_the_permitted(cls) >= 0.98


async def test_a_provider_without_declared_limits_is_met_by_its_429s_and_nothing_is_lost() -> None:
    clock = FakeClock()
    more = {"clock": clock, "limit": 20, "window": 60, "chance": random.Random(7), "log": deque(), "let": []}
    cls = type("AsStrict", (Strict,), more)
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=cls, requires_key=False)
    llm = QueryLLM(LLMConfig(environment={}, clock=clock, deadline=1e5))
    tasks = [asyncio.create_task(llm.query("acme/m", prompt="x")) for _ in range(60)]
    while not all(task.done() for task in tasks):
        await clock.advance(5.0)
    assert [task.result().content for task in tasks] == ["Hello"] * 60
    # The first 60 came at once, before anybody knew; then it is tried with one, two, four at a time.
    assert cls.refused < 100


# Who waits


class Slow(BaseLLMProvider):
    """Answers when it is told to."""

    asked: ClassVar[list[str]]
    gate: ClassVar[asyncio.Event]

    async def generate(self, messages: Any, model: str, **options: Any) -> str:
        type(self).asked.append(messages[0]["content"])
        await type(self).gate.wait()
        return "Hello"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def slow(**row: Any) -> type[Slow]:
    cls = type("AsSlow", (Slow,), {"asked": [], "gate": asyncio.Event()})
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=cls, requires_key=False, **row)
    return cls


def llm_of(clock: FakeClock, **fields: Any) -> QueryLLM:
    return QueryLLM(LLMConfig(environment={}, clock=clock, **fields))


async def begun(*queries: Any) -> list[asyncio.Task[Any]]:
    tasks = []
    for query in queries:
        tasks.append(asyncio.create_task(query))
        for _ in range(5):
            await asyncio.sleep(0)
    return tasks


async def test_those_who_cannot_be_served_in_time_are_told_at_once_and_when(clock: FakeClock) -> None:
    cls = slow(rpm=10)
    cls.gate.set()
    llm = llm_of(clock)
    tasks = await begun(*(llm.query("acme/m", prompt=f"{number}", deadline=100) for number in range(35)))
    failed = [task for task in tasks if task.done() and task.exception() is not None]
    assert clock.monotonic() == 0 and len(failed) == 15, "two windows begin within 100 s"
    error = failed[0].exception()
    assert isinstance(error, DeadlineExceededError) and error.receipt is not None and error.receipt.attempts == []
    assert "rpm of acme is 10" in str(error) and "capacity returns in 120 s" in str(error) and "more keys" in str(error)
    await clock.advance(61)
    assert cls.asked == [f"{number}" for number in range(20)]


async def test_the_higher_priority_goes_first_and_equals_in_their_order(clock: FakeClock) -> None:
    cls = slow(max_concurrent=1)
    llm = llm_of(clock)
    order = [("a", 0), ("b", 0), ("c", 2), ("d", 1), ("e", 2), ("f", -1)]
    tasks = await begun(*(llm.query("acme/m", prompt=name, priority=priority) for name, priority in order))
    cls.gate.set()
    await asyncio.gather(*tasks)
    assert cls.asked == ["a", "c", "e", "d", "b", "f"]
    with pytest.raises(InvalidRequestError, match="priority is 'high'"):
        await llm.query("acme/m", prompt="x", priority="high")  # type: ignore[arg-type]


async def test_nobody_small_passes_one_who_waits_for_tokens(clock: FakeClock) -> None:
    cls = slow(tpm=2000)
    llm = llm_of(clock)
    large, small = "x" * 4000, "y"
    tasks = await begun(*(llm.query("acme/m", prompt=prompt, max_tokens=10) for prompt in (large, large, small, small)))
    assert [text[0] for text in cls.asked] == ["x"], "the second is too much for now, and none of the small goes before it"
    cls.gate.set()
    await clock.advance(61)
    await asyncio.gather(*tasks)
    assert [text[0] for text in cls.asked] == ["x", "x", "y", "y"]
    assert "tpm of acme is 2000" in tasks[1].result().receipt.attempts[0].wait_reason


async def test_models_of_one_provider_share_its_limit_fairly_and_keep_their_own(clock: FakeClock) -> None:
    cls = slow(max_concurrent=2)
    cls.gate.set()
    ModelRegistry.register("acme/a", ModelConfig(rate_limit_rpm=1))
    llm = llm_of(clock)
    await begun(llm.query("acme/a", prompt="a1"), llm.query("acme/a", prompt="a2"), llm.query("acme/b", prompt="b1"))
    assert cls.asked == ["a1", "b1"], "who waits for a model's limit holds nobody else up"
    await clock.advance(61)
    assert cls.asked == ["a1", "b1", "a2"]


async def test_a_clock_that_jumps_ahead_is_time_that_has_passed(clock: FakeClock) -> None:
    cls = slow(rpm=1)
    cls.gate.set()
    llm = llm_of(clock)
    tasks = await begun(*(llm.query("acme/m", prompt=f"{number}", deadline=1e5) for number in range(3)))
    clock._now += 3600  # asleep for an hour: nothing was called meanwhile
    await clock.advance(0)
    assert cls.asked == ["0", "1"]
    await clock.advance(61)
    assert [task.done() for task in tasks] == [True] * 3


async def test_a_clock_that_is_set_changes_nothing(clock: FakeClock) -> None:
    cls = slow(rpm=1)
    cls.gate.set()
    llm = llm_of(clock)
    await begun(*(llm.query("acme/m", prompt=f"{number}", deadline=1e5) for number in range(2)))
    for epoch in (0.0, 4e9, -1e9):
        clock._epoch = epoch  # what the wall clock says is of no account for waits
        await clock.advance(10)
        assert cls.asked == ["0"]
    await clock.advance(31)
    assert cls.asked == ["0", "1"]


async def test_a_limit_that_is_registered_anew_holds_at_once_and_forgets_nothing(clock: FakeClock) -> None:
    cls = slow()
    cls.gate.set()
    ModelRegistry.register("acme/m", ModelConfig(rate_limit_rpm=10))
    llm = llm_of(clock)
    await begun(*(llm.query("acme/m", prompt="x") for _ in range(3)))
    ModelRegistry.register("acme/m", ModelConfig(rate_limit_rpm=4))
    tasks = await begun(*(llm.query("acme/m", prompt="x") for _ in range(2)))
    assert len(cls.asked) == 4 and tasks[0].done() and not tasks[1].done()
    ModelRegistry.register("acme/m", ModelConfig())
    await begun(llm.query("acme/m", prompt="free"))
    assert "free" in cls.asked


# Tokens


async def test_a_request_that_no_window_could_ever_hold_is_refused_with_the_limit(clock: FakeClock) -> None:
    cls = slow(tpm=1000)
    with pytest.raises(
        InvalidRequestError, match=r"acme/m can never be sent: it has about 1\d{3} tokens by estimate, and tpm of acme is 1000"
    ):
        await llm_of(clock).query("acme/m", prompt="x" * 4000)
    assert cls.asked == []


async def test_what_may_come_out_makes_no_request_impossible(clock: FakeClock) -> None:
    cls = slow(tpm=1000, output_tpm=100)
    cls.gate.set()
    assert (await llm_of(clock).query("acme/m", prompt="Hello", max_tokens=100_000)).content == "Hello"
    assert cls.asked == ["Hello"]


class Counted(BaseLLMProvider):
    """Says how many tokens it counted, and what its headers say."""

    usage: ClassVar[Usage] = Usage(1000, 10)
    headers: ClassVar[dict[str, str]] = {}
    asked: ClassVar[list[float]]
    clock: ClassVar[FakeClock]

    async def generate(self, messages: Any, model: str, **options: Any) -> LLMResponse:
        cls = type(self)
        cls.asked.append(cls.clock.monotonic())
        return LLMResponse("Hello", model, cls.usage, wire=WireAnswer(200, headers=cls.headers))

    def rate_limits(self, headers: Any) -> RateLimitState | None:
        return limits_in(headers)


def counting(clock: FakeClock, row: dict[str, Any] | None = None, **how: Any) -> type[Counted]:
    cls = type("AsCounted", (Counted,), {"asked": [], "clock": clock, **how})
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=cls, requires_key=False, **(row or {}))
    return cls


@pytest.mark.parametrize(("field", "usage"), [("tpm", Usage(990, 10)), ("input_tpm", Usage(1000, 0)), ("output_tpm", Usage(1, 1000))])
async def test_what_was_counted_replaces_what_was_estimated(clock: FakeClock, field: str, usage: Usage) -> None:
    cls = counting(clock, {field: 3000}, usage=usage)
    llm = llm_of(clock)
    tasks = await begun(*(llm.query("acme/m", prompt="short, it seemed") for _ in range(5)))
    assert len(cls.asked) <= 3, "1000 each were counted, which is three in a minute"
    await clock.advance(61)
    await clock.advance(61)
    assert all(task.done() for task in tasks)


async def test_tokens_of_a_request_that_was_refused_are_given_back(clock: FakeClock) -> None:
    class Refusing(Counted):
        async def generate(self, messages: Any, model: str, **options: Any) -> LLMResponse:
            type(self).asked.append(0.0)
            raise InvalidRequestError("no", status=400)

    cls = type("AsRefusing", (Refusing,), {"asked": [], "clock": clock})
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=cls, requires_key=False, tpm=1000)
    llm = llm_of(clock)
    for _ in range(5):
        with pytest.raises(InvalidRequestError, match="no"):
            await llm.query("acme/m", prompt="x" * 2000)
    assert (len(cls.asked), clock.monotonic()) == (5, 0)


# What headers say


def test_what_is_left_comes_back_evenly_where_the_limit_is_known() -> None:
    sent = [0, 0, 0, 0]
    announced = Announced(REQUESTS, sent)
    assert announced.wait(requests(1), 0.0) == 0, "nothing is known"
    sent[0] = 10
    announced.learn(10, 0, 60, 60.0, 100.0)
    assert announced.wait(requests(1), 100.0) == pytest.approx(1.0)
    assert announced.wait(requests(1), 101.0) == 0
    sent[0] = 11
    assert announced.wait(requests(1), 101.0) == pytest.approx(1.0)
    announced.learn(9, 50, 60, 60.0, 101.0)
    assert announced.wait(requests(1), 101.0) == pytest.approx(1.0), "an answer to an earlier request says nothing new"
    announced.learn(11, 5, None, 30.0, 101.0)
    sent[0] = 16
    assert announced.wait(requests(1), 101.0) == 30.0, "with no limit known, at the reset"
    assert announced.wait(requests(1), 131.0) == 0


@pytest.mark.parametrize("reset", [0.0, -1.0, float("inf"), float("nan")])
def test_headers_that_make_no_sense_limit_nothing(reset: float) -> None:
    announced = Announced(INPUT, [5, 5, 5, 5])
    announced.learn(5, 0, 10, reset, 0.0)
    announced.learn(5, 0, 0, 60.0, 0.0)
    assert announced.wait((1, 9, 9, 0), 0.0) == 0


async def test_what_the_headers_say_is_kept_without_a_429(clock: FakeClock) -> None:
    headers = {"x-ratelimit-limit-requests": "2", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "10s"}
    cls = counting(clock, headers=headers)
    llm = llm_of(clock)
    await llm.query("acme/m", prompt="Hello")
    (task,) = await begun(llm.query("acme/m", prompt="Hello"))
    await clock.advance(4.9)
    assert not task.done()
    await clock.advance(0.2)
    receipt = (await task).receipt
    assert cls.asked == [0, 5] and "no requests were left" in receipt.attempts[0].wait_reason
    assert receipt.attempts[0].wait == 5
    (other,) = await begun(llm.query("acme/other", prompt="Hello"))
    assert other.done(), "another model has its own"


async def test_tokens_that_the_headers_say_are_short_are_counted_from_then_on(clock: FakeClock) -> None:
    headers = {"x-ratelimit-limit-tokens": "1000", "x-ratelimit-remaining-tokens": "100", "x-ratelimit-reset-tokens": "9s"}
    cls = counting(clock, headers=headers, usage=Usage(10, 10))
    llm = llm_of(clock)
    await llm.query("acme/m", prompt="Hello")
    (task,) = await begun(llm.query("acme/m", prompt="x" * 1000))
    await clock.advance(9.1)
    assert task.done() and 1 < cls.asked[1] <= 9


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, None),
        ({"x-ratelimit-remaining": "7", "x-ratelimit-limit": "20", "x-ratelimit-reset": "3"}, (20, 7, 3.0)),
        (
            {"x-ratelimit-remaining": "7", "x-ratelimit-reset": "1767323105000", "date": "Fri, 02 Jan 2026 03:04:05 GMT"},
            (None, 7, 60.0),
        ),
        ({"x-ratelimit-remaining": "7", "x-ratelimit-reset": "1767323105", "date": "Fri, 02 Jan 2026 03:04:05 GMT"}, (None, 7, 60.0)),
        ({"x-ratelimit-remaining-requests": "nonsense"}, (None, None, None)),
    ],
)
def test_headers_of_gateways(headers: dict[str, str], said: tuple[Any, ...] | None) -> None:
    state = limits_in(headers)
    assert (state and (state.requests_limit, state.requests_remaining, state.requests_reset)) == said
