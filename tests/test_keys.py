"""Keys: each is used, none that is known to be of no use is asked, and those that share a quota are no capacity for each other."""

from __future__ import annotations

import asyncio
import collections
import logging
import random
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    BaseLLMProvider,
    ConfigurationError,
    DeadlineExceededError,
    InsufficientFundsError,
    InvalidRequestError,
    LLMConfig,
    LLMError,
    PermissionDeniedError,
    ProviderConfig,
    QueryLLM,
    RateLimitError,
    ServerError,
)
from llm_master.dispatch.keys import UNPROVEN
from llm_master.testing import FakeClock

Behaviour = Callable[[], Any]


class Keyed(BaseLLMProvider):
    """Does what the key says: each key's behaviour answers, raises or is awaited."""

    keys: ClassVar[dict[str, Behaviour]]
    asked: ClassVar[list[tuple[str, str]]]
    most: ClassVar[collections.Counter[str]]
    inside: ClassVar[collections.Counter[str]]

    async def generate(self, messages: Any, model: str, **options: Any) -> str:
        cls = type(self)
        name = (self.api_key or "").split("-")[1]
        cls.asked.append((name, model))
        cls.inside[name] += 1
        cls.most[name] = max(cls.most[name], cls.inside[name])
        try:
            did = cls.keys[name]()
            if asyncio.iscoroutine(did):
                did = await did
        finally:
            cls.inside[name] -= 1
        return f"{did}: {messages[-1]['content']}"


def good() -> str:
    return "good"


def refuses(kind: type[LLMError], **how: Any) -> Behaviour:
    def refuse() -> Any:
        raise kind("no", **how)

    return refuse


def asked(cls: type[Keyed]) -> dict[str, int]:
    return dict(collections.Counter(name for name, _ in cls.asked))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def keyed(clock: FakeClock, keys: dict[str, Behaviour], fields: dict[str, Any] | None = None, **row: Any) -> tuple[type[Keyed], QueryLLM]:
    counters = {"most": collections.Counter(), "inside": collections.Counter()}
    cls = type("AsKeyed", (Keyed,), {"keys": keys, "asked": [], **counters})
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=cls, **row)
    environment = {f"ACME_API_KEY_{number}": f"sk-{name}-0123456789" for number, name in enumerate(keys, 1)}
    return cls, QueryLLM(LLMConfig(environment=environment, clock=clock, **(fields or {})))


async def ask(llm: QueryLLM, prompt: str = "Hello", model: str = "acme/m", **arguments: Any) -> str:
    return str(await llm.query(model, prompt=prompt, **arguments))


async def begun(*queries: Any) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(query) for query in queries]
    for _ in range(10):
        await asyncio.sleep(0)
    return tasks


# Which key


async def test_every_key_is_used_the_least_used_first(clock: FakeClock) -> None:
    cls, llm = keyed(clock, {"a": good, "b": good, "c": good})
    for _ in range(9):
        await ask(llm)
    assert [name for name, _ in cls.asked] == ["a", "b", "c"] * 3


async def test_idle_keys_go_before_those_at_work_however_much_they_were_used(clock: FakeClock) -> None:
    gate = asyncio.Event()
    cls, llm = keyed(clock, {"a": good, "b": lambda: gate.wait()})
    cls.keys["a"] = lambda: gate.wait()
    await begun(ask(llm))
    cls.keys["b"] = good
    for _ in range(5):
        await ask(llm)
    assert [name for name, _ in cls.asked] == ["a", *"bbbbb"]
    gate.set()


async def test_an_unproven_key_takes_four_at_once_until_it_has_answered(clock: FakeClock) -> None:
    gate = asyncio.Event()
    cls, llm = keyed(clock, {"a": gate.wait, "b": gate.wait})
    tasks = await begun(*(ask(llm) for _ in range(20)))
    assert asked(cls) == {"a": UNPROVEN, "b": UNPROVEN} == {"a": 4, "b": 4}
    gate.set()
    assert [await task for task in tasks] == ["True: Hello"] * 20
    gate.clear()
    tasks = await begun(*(ask(llm) for _ in range(20)))
    assert sum(cls.inside.values()) == 20, "a key that has answered takes what comes"
    gate.set()
    await asyncio.gather(*tasks)


async def test_a_lone_key_is_not_held_back(clock: FakeClock) -> None:
    gate = asyncio.Event()
    cls, llm = keyed(clock, {"a": gate.wait})
    await begun(*(ask(llm) for _ in range(20)))
    assert asked(cls) == {"a": 20}
    gate.set()


async def test_sequential_keys_are_used_one_until_it_fails(clock: FakeClock) -> None:
    cls, llm = keyed(clock, {"a": good, "b": good, "c": good}, rotation_mode="sequential")
    for _ in range(3):
        await ask(llm)
    cls.keys["a"] = refuses(RateLimitError, status=429, retry_after=5)
    await ask(llm)
    cls.keys["a"] = good
    await clock.advance(10)
    for _ in range(2):
        await ask(llm)
    assert "".join(name for name, _ in cls.asked) == "aaa" + "ab" + "bb", "the next one stays, though the first has recovered"


async def test_keys_of_a_higher_priority_are_used_as_long_as_they_can_be(clock: FakeClock) -> None:
    cls, llm = keyed(clock, {"a": good, "b": good, "c": good}, key_priorities={"ACME_API_KEY_2": 5, "acme_api_key_3": 5})
    for _ in range(4):
        await ask(llm)
    cls.keys["b"] = cls.keys["c"] = refuses(RateLimitError, status=429, retry_after=60)
    await ask(llm)
    assert "".join(name for name, _ in cls.asked) == "bcbc" + "bca"


async def test_a_key_that_stands_twice_counts_once_and_is_told(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    cls = type("AsKeyed", (Keyed,), {"keys": {"a": good}, "asked": [], "most": collections.Counter(), "inside": collections.Counter()})
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=cls)
    same = "sk-a-0123456789"
    llm = QueryLLM(LLMConfig(environment={"ACME_API_KEY_1": same, "ACME_API_KEY_2": f" {same} ", "ACME_API_KEY_3": ""}, clock=clock))
    assert len(llm._engine.snapshot.keys["acme"]) == 1
    assert "$ACME_API_KEY_2 holds the same key as $ACME_API_KEY_1: it counts once" in caplog.text
    assert same not in caplog.text


# What an error does to a key


async def test_a_key_that_is_refused_is_not_asked_again_for_300_seconds(clock: FakeClock) -> None:
    cls, llm = keyed(clock, {"a": refuses(AuthenticationError, status=401), "b": good})
    answer = await llm.query("acme/m", prompt="Hello")
    assert [attempt.key for attempt in answer.receipt.attempts] == ["ACME_API_KEY_1 …6789", "ACME_API_KEY_2 …6789"]
    assert answer.receipt.attempts[0].then == "the key is not used for 300 s; another key at once"
    for _ in range(20):
        await ask(llm)
    assert asked(cls)["a"] == 1
    await clock.advance(301)
    for _ in range(20):
        await ask(llm)
    assert asked(cls)["a"] == 2, "one request finds out, and no more"
    cls.keys["a"] = good
    await clock.advance(301)
    for _ in range(20):
        await ask(llm)
    assert asked(cls) == {"a": 13, "b": 50}, "and it is one of them again, not the one that has to catch up"


async def test_when_every_key_is_invalid_nothing_is_sent_and_the_error_says_so(clock: FakeClock) -> None:
    cls, llm = keyed(clock, {"a": refuses(AuthenticationError, status=401), "b": refuses(AuthenticationError, status=401)})
    with pytest.raises(AuthenticationError) as first:
        await ask(llm)
    assert len(first.value.receipt.attempts) == len(cls.asked) == 2
    with pytest.raises(AuthenticationError, match="no key of acme can be used") as second:
        await ask(llm)
    error = second.value
    assert (error.status, error.receipt.attempts, len(cls.asked)) == (401, [], 2)
    assert "ACME_API_KEY_1 …6789 was refused as invalid (asked again in 300 s); ACME_API_KEY_2 …6789" in str(error)
    assert "sk-a-" not in f"{error!r}{error.receipt!r}"


async def test_a_key_without_funds_is_tried_again_after_an_hour(clock: FakeClock) -> None:
    cls, llm = keyed(clock, {"a": refuses(InsufficientFundsError, status=402), "b": good})
    for _ in range(5):
        await ask(llm)
    await clock.advance(3000)
    await ask(llm)
    assert asked(cls)["a"] == 1
    await clock.advance(601)
    for _ in range(3):
        await ask(llm)
    assert asked(cls)["a"] == 2
    cls.keys["b"] = refuses(InsufficientFundsError, status=402)
    for said in ("no", "no key of acme can be used: ACME_API_KEY_1 …6789 has no funds"):
        with pytest.raises(InsufficientFundsError, match=said):
            await ask(llm)


async def test_a_key_that_may_not_use_a_model_is_used_for_others(clock: FakeClock) -> None:
    cls, llm = keyed(clock, {"a": good, "b": good})

    def only_small() -> str:
        if cls.asked[-1][1] == "large":
            raise PermissionDeniedError("not this one", status=403)
        return "good"

    cls.keys["a"] = only_small
    for _ in range(4):
        await ask(llm, model="acme/large")
    assert cls.asked.count(("a", "large")) == 1
    for _ in range(4):
        await ask(llm, model="acme/small")
    assert cls.asked.count(("a", "small")) >= 2
    cls.keys["b"] = refuses(PermissionDeniedError, status=403)
    with pytest.raises(PermissionDeniedError):
        await ask(llm, model="acme/large")
    with pytest.raises(PermissionDeniedError, match="may not use large"):
        await ask(llm, model="acme/large")


async def test_a_429_cools_one_key_and_freezes_no_other(clock: FakeClock) -> None:
    cls, llm = keyed(clock, {"a": refuses(RateLimitError, status=429, retry_after=60), "b": good})
    for _ in range(10):
        await ask(llm)
    assert (asked(cls), clock.monotonic()) == ({"a": 1, "b": 10}, 0)
    await ask(llm, model="acme/other")
    await ask(llm, model="acme/other")
    assert cls.asked.count(("a", "other")) == 1, "nor for another model"


@pytest.mark.parametrize("quota", ["team", {"ACME_API_KEY_1": "team", "acme_api_key_2": "team"}])
async def test_keys_of_one_quota_cool_together(clock: FakeClock, quota: Any) -> None:
    cls, llm = keyed(clock, {"a": refuses(RateLimitError, status=429, retry_after=30), "b": good}, quota=quota)
    (task,) = await begun(llm.query("acme/m", prompt="Hello"))
    await clock.advance(29)
    assert asked(cls) == {"a": 1} and not task.done(), "rotation within a quota is no capacity"
    await clock.advance(2)
    receipt = (await task).receipt
    assert [attempt.wait for attempt in receipt.attempts] == [0, 30]
    assert receipt.attempts[0].then == "rate limited: again in 30 s, as the provider asks"


async def test_a_limit_holds_for_a_quota_over_all_its_keys_and_rows(clock: FakeClock) -> None:
    cls, _ = keyed(clock, {"a": good, "b": good}, rpm=3, quota="team")
    PROVIDER_CONFIGS["other"] = ProviderConfig(provider_class=cls, quota="team", requires_key=True)
    llm = QueryLLM(LLMConfig(environment={"ACME_API_KEY_1": "sk-a-0123456789", "OTHER_API_KEY": "sk-b-0123456789"}, clock=clock))
    queries = [llm.query(f"{name}/m", prompt="Hello") for name in ("acme", "other", "acme", "other", "acme")]
    await begun(*queries)
    assert len(cls.asked) == 3
    await clock.advance(61)
    assert len(cls.asked) == 5


async def test_a_limit_holds_for_each_key_that_has_a_quota_of_its_own(clock: FakeClock) -> None:
    cls, llm = keyed(clock, {"a": good, "b": good}, rpm=3)
    await begun(*(ask(llm) for _ in range(10)))
    assert asked(cls) == {"a": 3, "b": 3}
    await clock.advance(130)
    assert asked(cls) == {"a": 5, "b": 5}


async def test_after_a_429_one_request_tries_and_then_two_and_four(clock: FakeClock) -> None:
    waves: collections.Counter[float] = collections.Counter()

    async def answer() -> str:
        waves[clock.monotonic()] += 1
        at_once = clock.monotonic() == 0
        await clock.sleep(1)
        if at_once:
            raise RateLimitError("busy", status=429, retry_after=9)
        return "good"

    cls, llm = keyed(clock, {"a": answer})
    tasks = await begun(*(ask(llm) for _ in range(20)))
    await clock.advance(30)
    assert all(task.done() for task in tasks)
    assert list(waves.items()) == [(0, 20), (10, 1), (11, 2), (12, 4), (13, 8), (14, 5)]
    assert len(cls.asked) == 40


async def test_429s_that_ask_for_no_pause_do_not_get_a_storm(clock: FakeClock) -> None:
    cls, llm = keyed(clock, {"a": refuses(RateLimitError, status=429, retry_after=0)}, {"max_attempts": 1000})
    tasks = await begun(*(ask(llm, deadline=60) for _ in range(50)))
    await clock.advance(61)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, (RateLimitError, DeadlineExceededError)) for result in results)
    assert len(cls.asked) < 50 + 20


async def test_a_wait_that_cannot_end_in_time_is_a_rate_limit_error_that_says_when(clock: FakeClock) -> None:
    cls, llm = keyed(clock, {"a": refuses(RateLimitError, status=429, retry_after=120)})
    with pytest.raises(RateLimitError, match="given up: it could be sent again in 120 s, and the deadline is in 60 s"):
        await ask(llm, deadline=60)
    await clock.advance(20)
    with pytest.raises(RateLimitError, match="rate limited for m for another 100 s; capacity returns in 100 s") as caught:
        await ask(llm, deadline=60)
    assert (caught.value.retry_after, caught.value.status, len(cls.asked)) == (100, 429, 1)


@pytest.mark.parametrize("kind", [InvalidRequestError, ServerError])
async def test_a_request_that_is_wrong_is_not_tried_with_every_key(clock: FakeClock, kind: type[LLMError]) -> None:
    cls, llm = keyed(clock, {name: refuses(kind, status=400) for name in "abcd"}, max_retries=0)
    with pytest.raises(kind):
        await ask(llm)
    assert len(cls.asked) == 1


# The figures of a bad day


async def test_four_keys_one_dead_one_always_busy_and_3000_requests(clock: FakeClock) -> None:
    chance = random.Random(5)

    async def answer() -> str:
        await clock.sleep(chance.random())
        return "good"

    async def busy() -> str:
        await clock.sleep(0.05)
        raise RateLimitError("busy", status=429)

    cls, llm = keyed(clock, {"dead": refuses(AuthenticationError, status=401), "busy": busy, "one": answer, "two": answer})
    waiting = asyncio.Semaphore(200)
    answers: list[str] = []

    async def one(number: int) -> None:
        async with waiting:
            answers.append(await ask(llm, f"no. {number}"))

    tasks = [asyncio.create_task(one(number)) for number in range(3000)]
    while not all(task.done() for task in tasks):
        await clock.advance(1)
    assert sorted(answers) == sorted(f"good: no. {number}" for number in range(3000))
    assert asked(cls)["dead"] <= 20 and asked(cls)["busy"] <= 40


async def test_10000_requests_of_which_a_third_meets_faults(clock: FakeClock) -> None:
    """No hang, no lost answer, none in another's response, no deadline passed."""
    chance = random.Random(11)
    kinds: list[Callable[[], LLMError]] = [
        lambda: RateLimitError("busy", status=429, retry_after=chance.choice([0.0, 0.05, 0.2])),
        lambda: ServerError("down", status=503),
        lambda: InvalidRequestError("wrong", status=400),
        lambda: ServerError("down", status=500, retry_after=0.3),
    ]

    async def answer() -> str:
        draw = chance.random()
        await clock.sleep(chance.random() / 2)
        if draw < 0.002:
            await asyncio.Event().wait()  # it never answers
        if draw < 0.3:
            raise chance.choice(kinds)()
        return "good"

    cls, llm = keyed(clock, {name: answer for name in "abcd"}, {"max_attempts": 100}, max_retries=5, timeout=20, max_concurrent=400)
    ends: dict[int, tuple[float, float]] = {}
    results: dict[int, Any] = {}

    async def one(number: int) -> None:
        deadline = chance.choice([5.0, 30.0, 300.0])
        began = clock.monotonic()
        try:
            results[number] = await ask(llm, f"no. {number}", deadline=deadline)
        except LLMError as exc:
            results[number] = exc
        ends[number] = (clock.monotonic() - began, deadline)

    async def several(numbers: range) -> None:
        for number in numbers:
            await one(number)

    tasks = [asyncio.create_task(several(range(first, 10_000, 300))) for first in range(300)]
    while not all(task.done() for task in tasks):
        await clock.advance(5)
    assert len(results) == 10_000
    good_ones = [number for number, result in results.items() if isinstance(result, str)]
    assert all(results[number] == f"good: no. {number}" for number in good_ones)
    assert len(good_ones) > 8_000
    assert all(took <= deadline + 0.05 for took, deadline in ends.values())
    assert not any(cls.inside.values())
    states = {slot.state for line in llm._engine.target("acme/m").line.pool.lines for slot in line.slots}
    assert {state.in_flight for state in states} == {0}, "every lease was given back"


async def test_many_failures_at_once_are_no_storm_of_repetitions(clock: FakeClock) -> None:
    cls, llm = keyed(clock, {"a": refuses(ServerError, status=503)}, max_retries=5)
    tasks = await begun(*(ask(llm) for _ in range(1000)))
    await clock.advance(100)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert len(cls.asked) == 1000 + 100, "the first sends, and what the budget allows beside"
    assert sum("retry budget" in str(result.receipt.attempts[-1].then) for result in results) > 900  # type: ignore[union-attr]
    cls.keys["a"] = good
    assert await ask(llm) == "good: Hello"


# Bad input


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"rpm": 0}, "rpm is 0: give a whole number above 0"),
        ({"rps": -1}, "rps is -1"),
        ({"input_tpm": 0}, "input_tpm is 0"),
        ({"key_priorities": {"A": "high"}}, "key_priorities is"),
        ({"key_priorities": {"A": True}}, "key_priorities is"),
        ({"quota": ""}, "quota is ''"),
        ({"quota": {"A": 1}}, "quota is"),
    ],
)
def test_limits_that_can_be_none_are_refused(row: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        ProviderConfig(**row)


@pytest.mark.parametrize("deadline", [0, -5])
async def test_a_deadline_in_the_past_is_refused(clock: FakeClock, deadline: float) -> None:
    cls, llm = keyed(clock, {"a": good})
    with pytest.raises(InvalidRequestError, match="deadline is"):
        await ask(llm, deadline=deadline)
    assert cls.asked == []


# Telling


async def test_the_log_shows_each_attempt_masked(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "llm_master")
    _, llm = keyed(clock, {"a": refuses(AuthenticationError, status=401), "b": good})
    await ask(llm)
    lines = [record.getMessage() for record in caplog.records if record.name == "llm_master.dispatch"]
    assert lines == [
        "attempt 1: acme m with ACME_API_KEY_1 …6789: AuthenticationError: acme: no in 0.000 s; the key is not used for 300 s; another key at once",
        "attempt 2: acme m with ACME_API_KEY_2 …6789: answered in 0.000 s",
    ]
    assert "sk-" not in caplog.text
