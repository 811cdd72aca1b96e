"""Hedging: what takes too long is asked once more elsewhere, seldom enough, and the receipt tells all of it."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any, ClassVar

import pytest

from llm_master import (
    PROVIDER_CONFIGS,
    BaseLLMProvider,
    ConfigurationError,
    LLMConfig,
    LLMResponse,
    ModelConfig,
    ModelRegistry,
    ProviderConfig,
    QueryLLM,
    ServerError,
    Usage,
)
from llm_master.dispatch.hedging import ENOUGH
from llm_master.testing import FakeClock


class Timed(BaseLLMProvider):
    """Takes as long as its script says, else a second; an error in it is raised then."""

    clock: ClassVar[FakeClock]
    script: ClassVar[list[Any]]
    asked: ClassVar[list[str]]
    ended: ClassVar[list[str]]

    async def generate(self, messages: Any, model: str, **options: Any) -> LLMResponse:
        cls = type(self)
        name = (self.api_key or self.config.name).split("-")[-1]
        cls.asked.append(name)
        seconds, error = cls.script.pop(0) if cls.script else (1.0, None)
        try:
            await cls.clock.sleep(seconds)
        finally:
            cls.ended.append(name)
        if error is not None:
            raise error
        return LLMResponse(name, model, Usage(1_000_000, 0, cached_tokens=0))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def timed(clock: FakeClock, **fields: Any) -> tuple[type[Timed], QueryLLM]:
    cls = type("AsTimed", (Timed,), {"clock": clock, "script": [], "asked": [], "ended": []})
    row = fields.pop("row", {})
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=cls, max_retries=0, **row)
    ModelRegistry.register("acme/m", ModelConfig(input_price_per_million=2, output_price_per_million=0))
    keys = {"acme": ["key-number-one", "key-number-two"]}
    return cls, QueryLLM(LLMConfig(environment={}, api_keys=keys, clock=clock, **{"hedge": 1.0, **fields}))


async def ask(llm: QueryLLM, clock: FakeClock, seconds: float = 1.0, model: str = "acme/m") -> LLMResponse:
    task = asyncio.create_task(llm.query(model, prompt="Hi"))
    await clock.advance(seconds)
    assert task.done(), "not within its time"
    return await task


async def warm(llm: QueryLLM, clock: FakeClock, model: str = "acme/m") -> None:
    for _ in range(ENOUGH):
        await ask(llm, clock, model=model)


async def test_what_takes_too_long_is_asked_once_more_with_the_other_key(clock: FakeClock) -> None:
    cls, llm = timed(clock)
    await warm(llm, clock)
    cls.asked.clear()
    cls.script = [(60.0, None), (0.5, None)]
    answer = await ask(llm, clock, 1.5)
    assert len(set(cls.asked)) == 2 and answer.content == cls.asked[1]
    first, second = answer.receipt.attempts
    assert first.then == "cancelled: the other answered first" and first.latency == 1.5
    assert second.why.startswith("hedge: no answer from 'acme/m' after 1 s, which 95 % do not take")
    assert answer.cost == second.cost == Decimal(2)
    assert first.cost_state == "estimated" and first.cost is not None and answer.receipt.cost == second.cost + first.cost
    assert answer.receipt.cost_state == "estimated"
    assert cls.ended[-2:] == [*reversed(cls.asked)], "the loser is ended"
    assert {slot.state.in_flight for slot in llm._engine.target("acme/m").line.slots} == {0}


async def test_the_first_may_still_win(clock: FakeClock) -> None:
    cls, llm = timed(clock)
    await warm(llm, clock)
    cls.asked.clear()
    cls.script = [(1.2, None), (5.0, None)]
    answer = await ask(llm, clock, 1.2)
    assert answer.content == cls.asked[0] and len(answer.receipt.attempts) == 2


async def test_of_one_that_fails_the_other_answers(clock: FakeClock) -> None:
    cls, llm = timed(clock)
    await warm(llm, clock)
    cls.script = [(1.2, ServerError("down", status=503)), (3.0, None)]
    answer = await ask(llm, clock, 4.0)
    assert [attempt.status for attempt in answer.receipt.attempts] == [503, None]
    cls.script = [(1.2, ServerError("down", status=503)), (1.0, ServerError("also down", status=503))]
    with pytest.raises(ServerError, match="also down"):
        await ask(llm, clock, 4.0)


async def test_one_quota_is_not_asked_twice(clock: FakeClock) -> None:
    cls, llm = timed(clock, row={"quota": "team"})
    await warm(llm, clock)
    cls.asked.clear()
    cls.script = [(9.0, None)]
    await ask(llm, clock, 9.0)
    assert len(cls.asked) == 1


async def test_it_is_not_asked_twice_more_often_than_agreed(clock: FakeClock) -> None:
    cls, llm = timed(clock, hedge=0.1)
    await warm(llm, clock)
    cls.asked.clear()
    for _ in range(40):
        cls.script = [(1.5, None), (1.0, None)]
        await ask(llm, clock, 2.0)
        cls.script = []
    assert len(cls.asked) - 40 <= 0.1 * 60


async def test_before_enough_is_known_nobody_is_asked_twice(clock: FakeClock) -> None:
    cls, llm = timed(clock)
    cls.script = [(30.0, None)]
    await ask(llm, clock, 30.0)
    assert len(cls.asked) == 1


async def test_a_route_is_hedged_by_another_target(clock: FakeClock) -> None:
    cls, _ = timed(clock)
    PROVIDER_CONFIGS["other"] = ProviderConfig(provider_class=cls, requires_key=False, max_retries=0)
    routes = {"fast": {"targets": ["acme/m", "other/m"], "strategy": "first-available"}}
    llm = QueryLLM(LLMConfig(environment={}, api_keys={"acme": "key-number-one"}, clock=clock, hedge=1.0, routes=routes))
    await warm(llm, clock, "fast")
    cls.script = [(60.0, None), (0.5, None)]
    answer = await ask(llm, clock, 1.5, "fast")
    assert (answer.provider, answer.model_name) == ("other", "other/m")


async def test_cancelled_both_are(clock: FakeClock) -> None:
    cls, llm = timed(clock)
    await warm(llm, clock)
    cls.ended.clear()
    cls.script = [(60.0, None), (60.0, None)]
    task = asyncio.create_task(llm.query("acme/m", prompt="Hi"))
    await clock.advance(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(cls.ended) == ["one", "two"]
    assert {slot.state.in_flight for slot in llm._engine.target("acme/m").line.slots} == {0}


@pytest.mark.parametrize("hedge", [0, -1, 1.5, True, "often"])
def test_a_share_that_can_be_none_is_refused(hedge: Any) -> None:
    with pytest.raises(ConfigurationError, match="hedge is .*: give a share above 0"):
        QueryLLM(hedge=hedge)
