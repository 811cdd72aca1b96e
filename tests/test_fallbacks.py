"""Fallbacks: who answers in place of a model that fails, with which options, and when nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, ClassVar

import pytest

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    BaseLLMProvider,
    ContentPolicyError,
    ContextWindowExceededError,
    InvalidRequestError,
    LLMConfig,
    LLMError,
    LLMResponse,
    MissingApiKeyError,
    ModelConfig,
    ModelNotFoundError,
    ModelRegistry,
    ProviderConfig,
    QueryLLM,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
    UnknownModelError,
    Usage,
)
from llm_master.testing import FakeClock


class Party(BaseLLMProvider):
    """Does one step of its model's script: raises it or answers with it."""

    script: ClassVar[dict[str, list[Any]]]
    asked: ClassVar[list[tuple[str, str, list[Any], dict[str, Any]]]]

    async def generate(self, messages: Any, model: str, **options: Any) -> LLMResponse | str:
        cls = type(self)
        cls.asked.append((self.config.name, model, list(messages), options))
        step = cls.script[model].pop(0)
        if isinstance(step, BaseException):
            raise step
        return LLMResponse(step, f"{model}-served", Usage(1_000_000, 0, cached_tokens=0))

    async def stream(self, messages: Any, model: str, **options: Any) -> AsyncIterator[str]:
        answer = await self.generate(messages, model, **options)
        assert isinstance(answer, LLMResponse)
        yield "Hel"
        if answer.content == "breaks":
            raise ServerError("broke", status=500)
        yield "lo"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto_advance=True)


def parties(script: dict[str, list[Any]], **row: Any) -> type[Party]:
    """Two providers, acme and other, whose models do as scripted."""
    cls = type("AsParty", (Party,), {"script": script, "asked": []})
    for name in ("acme", "other"):
        PROVIDER_CONFIGS[name] = ProviderConfig(**{"provider_class": cls, "requires_key": False, "max_retries": 0, **row})
    return cls


def llm_of(clock: FakeClock, **fields: Any) -> QueryLLM:
    return QueryLLM(LLMConfig(environment={}, clock=clock, **fields))


def down() -> ServerError:
    return ServerError("down", status=503)


MAY_FALL = [
    ServerError("x", status=500),
    AuthenticationError("x", status=401),
    RateLimitError("x", status=429, retry_after=3600),
    ContextWindowExceededError("x", status=400),
    ContentPolicyError("x", status=400),
]


@pytest.mark.parametrize("error", MAY_FALL, ids=lambda error: type(error).__name__)
async def test_fallback_model_alone_is_enough(clock: FakeClock, error: LLMError) -> None:
    cls = parties({"m": [error], "n": ["Hello"]})
    ModelRegistry.register("other/n", ModelConfig(input_price_per_million=3, output_price_per_million=0))
    answer = await llm_of(clock).query("acme/m", prompt="Hi", fallback_model="other/n", temperature=1)
    assert (answer.content, answer.provider, answer.model_name, answer.cost) == ("Hello", "other", "other/n", Decimal(3))
    receipt = answer.receipt
    assert (receipt.model_name, receipt.provider, receipt.cost) == ("acme/m", "acme", Decimal(3))
    first, second = receipt.attempts
    assert first.then.endswith("fallback to 'other/n'")
    assert second.why == "fallback, since 'acme/m' failed; registered in ModelRegistry"
    assert (second.provider, second.model, second.model_served) == ("other", "n", "n-served")
    assert [asked[:2] for asked in cls.asked] == [("acme", "m"), ("other", "n")]
    assert clock.sleeps == []


@pytest.mark.parametrize("error", [InvalidRequestError("x", status=400), ModelNotFoundError("x", status=404), ValueError("x")])
async def test_what_is_wrong_with_the_request_is_raised(clock: FakeClock, error: Exception) -> None:
    cls = parties({"m": [error], "n": ["Hello"]})
    with pytest.raises(type(error)):
        await llm_of(clock).query("acme/m", prompt="Hi", fallback_model="other/n")
    assert len(cls.asked) == 1


async def test_a_fallback_gets_its_own_options_and_the_whole_conversation(clock: FakeClock) -> None:
    cls = parties({"m": [down()], "n": ["Hello"]})
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi", "name": "Ann"}]
    answer = await llm_of(clock).query(
        "acme/m", messages, tools=tools, temperature=1, extra_body={"x": 1}, fallback_model="other/n", fallback_config={"top_p": 0.5}
    )
    (_, _, first, theirs), (_, _, second, ours) = cls.asked
    assert first == second == messages
    assert theirs == {"temperature": 1, "x": 1, "tools": tools}
    assert ours == {"top_p": 0.5, "tools": tools} == dict(answer.receipt.options)
    assert [dict(attempt.options) for attempt in answer.receipt.attempts] == [theirs, ours]


async def test_fallbacks_are_asked_in_their_order_and_the_last_error_is_raised(clock: FakeClock) -> None:
    cls = parties({"m": [down()], "n": [down()], "o": [ServerError("also down", status=500)]})
    with pytest.raises(ServerError, match="also down") as caught:
        await llm_of(clock).query("acme/m", prompt="Hi", fallback_model=["other/n", "acme/o"])
    assert [model for _, model, _, _ in cls.asked] == ["m", "n", "o"]
    assert len(caught.value.receipt.attempts) == 3


async def test_repetitions_come_before_fallbacks_and_each_target_has_its_own(clock: FakeClock) -> None:
    cls = parties({"m": [down(), down()], "n": [down(), "Hello"]}, max_retries=1)
    assert (await llm_of(clock).query("acme/m", prompt="Hi", fallback_model="other/n")).content == "Hello"
    assert [model for _, model, _, _ in cls.asked] == ["m", "m", "n", "n"]


async def test_max_attempts_counts_over_all_targets(clock: FakeClock) -> None:
    cls = parties({"m": [down()] * 3, "n": [down()] * 3}, max_retries=9)
    with pytest.raises(ServerError):
        await llm_of(clock, max_attempts=2).query("acme/m", prompt="Hi", fallback_model="other/n")
    assert len(cls.asked) == 2


@pytest.mark.parametrize(("retry_after", "waits"), [(5, True), (9.9, True), (11, False), (None, False)])
async def test_with_a_fallback_a_limit_is_waited_for_ten_seconds_at_most(clock: FakeClock, retry_after: float, *, waits: bool) -> None:
    cls = parties({"m": [RateLimitError("slow", status=429, retry_after=retry_after), "Hello"], "n": ["Hello"]})
    await llm_of(clock).query("acme/m", prompt="Hi", fallback_model="other/n")
    assert [model for _, model, _, _ in cls.asked] == ["m", "m" if waits else "n"]
    assert clock.sleeps == ([retry_after] if waits else [])


async def test_a_declared_limit_is_waited_for_ten_seconds_at_most_too(clock: FakeClock) -> None:
    cls = parties({"m": ["Hello", "Hello"], "n": ["Hello"]}, rpm=1)
    llm = llm_of(clock)
    await llm.query("acme/m", prompt="Hi", fallback_model="other/n")
    answer = await llm.query("acme/m", prompt="Hi", fallback_model="other/n")
    assert [model for _, model, _, _ in cls.asked] == ["m", "n"]
    (attempt,) = answer.receipt.attempts
    assert attempt.why.startswith("acme had no capacity in time (rpm of acme is 1 (requests per minute)); ")


async def test_a_fallback_while_waiting_for_a_place() -> None:
    clock = FakeClock()
    gate = asyncio.Event()

    class Held(Party):
        async def generate(self, messages: Any, model: str, **options: Any) -> LLMResponse | str:
            if self.config.name == "acme":
                await gate.wait()
            return f"{self.config.name} says"

    for name in ("acme", "other"):
        PROVIDER_CONFIGS[name] = ProviderConfig(provider_class=Held, requires_key=False, max_concurrent=1)
    llm = llm_of(clock)
    first = asyncio.create_task(llm.query("acme/m", prompt="Hi"))
    second = asyncio.create_task(llm.query("acme/m", prompt="Hi", fallback_model="other/m"))
    await clock.advance(9.9)
    assert not second.done()
    await clock.advance(0.2)
    answer = await second
    assert answer.content == "other says" and answer.receipt.attempts[0].wait == 10
    gate.set()
    assert (await first).content == "acme says"


async def test_a_stream_falls_back_before_its_first_delta_and_never_after(clock: FakeClock) -> None:
    cls = parties({"m": [down(), "breaks"], "n": ["Hello"]})
    llm = llm_of(clock)
    async with llm.stream("acme/m", prompt="Hi", fallback_model="other/n") as stream:
        assert "".join([text async for text in stream]) == "Hello"
    assert (stream.response.provider, stream.response.model_name) == ("other", "other/n")
    assert len(stream.response.receipt.attempts) == 2
    stream = await llm.query("acme/m", prompt="Hi", stream=True, fallback_model="other/n")
    texts = []
    with pytest.raises(StreamInterruptedError) as caught:
        async for text in stream:
            texts.append(text)
    assert texts == ["Hel"] and caught.value.response.content == "Hel"
    assert [model for _, model, _, _ in cls.asked] == ["m", "n", "m"], "nothing is glued to what was shown"


# The same model elsewhere


async def test_enable_fallback_asks_the_same_model_elsewhere_and_no_other(clock: FakeClock) -> None:
    cls = parties({"m": [down(), "Hello"], "large": [down()], "n": ["Hello"]})
    ModelRegistry.register("other/m", ModelConfig())
    llm = llm_of(clock, enable_fallback=True)
    answer = await llm.query("acme/m", prompt="Hi", temperature=1)
    assert [asked[:2] for asked in cls.asked] == [("acme", "m"), ("other", "m")]
    assert cls.asked[1][3] == {"temperature": 1}, "of the same model, the options mean the same"
    assert answer.model_name == "other/m"
    with pytest.raises(ServerError):
        await llm.query("acme/large", prompt="Hi")
    assert len(cls.asked) == 3, "nobody else has it, and no other model answers in its name"


async def test_a_gateway_that_declares_the_makers_name_serves_the_same_model(clock: FakeClock) -> None:
    cls = parties({"m": [down()], "acme/m": ["Hello"]})
    PROVIDER_CONFIGS["gateway"] = ProviderConfig(provider_class=cls, requires_key=False, models=["acme/m"])
    assert (await llm_of(clock, enable_fallback=True).query("acme/m", prompt="Hi")).provider == "gateway"


async def test_without_enable_fallback_nobody_else_is_asked(clock: FakeClock) -> None:
    cls = parties({"m": [down(), "Hello"]})
    ModelRegistry.register("other/m", ModelConfig())
    with pytest.raises(ServerError):
        await llm_of(clock).query("acme/m", prompt="Hi")
    assert len(cls.asked) == 1


# Bad input, told before anything is sent


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"fallback_model": ""}, InvalidRequestError, "fallback_model is"),
        ({"fallback_model": []}, InvalidRequestError, "fallback_model is"),
        ({"fallback_model": ["acme/n", 3]}, InvalidRequestError, "fallback_model is"),
        ({"fallback_config": {"top_p": 1}}, InvalidRequestError, "fallback_config is given without a fallback_model"),
        ({"fallback_model": "other/n", "fallback_config": "top_p"}, InvalidRequestError, "fallback_config is a str"),
        (
            {"fallback_model": "other/n", "fallback_config": {"temprature": 1}},
            InvalidRequestError,
            "fallback_model 'other/n': .*'temperature'",
        ),
        ({"fallback_model": "no-such-model"}, UnknownModelError, "fallback_model 'no-such-model': no provider serves"),
        ({"fallback_model": "openai/gpt-4.1"}, MissingApiKeyError, "fallback_model 'openai/gpt-4.1': .*OPENAI_API_KEY"),
        ({"falback_model": "other/n"}, InvalidRequestError, "did you mean 'fallback_model'"),
    ],
)
async def test_a_fallback_that_can_be_none(clock: FakeClock, arguments: dict[str, Any], kind: type[Exception], said: str) -> None:
    cls = parties({"m": ["Hello"]})
    with pytest.raises(kind, match=said):
        await llm_of(clock).query("acme/m", prompt="Hi", **arguments)
    assert cls.asked == []
