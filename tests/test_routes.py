"""Routes and the Router: who is chosen, who takes over, who is left alone and gets better; and the guides' own examples."""

from __future__ import annotations

import asyncio
import collections
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest

from llm_master import (
    PROVIDER_CONFIGS,
    BaseLLMProvider,
    BaseProvider,
    ConfigurationError,
    GenerationParams,
    InvalidRequestError,
    LLMConfig,
    LLMResponse,
    ModelConfig,
    ModelNotFoundError,
    ModelRegistry,
    ProviderConfig,
    QueryLLM,
    RateLimitError,
    Router,
    ServerError,
    StreamInterruptedError,
    Usage,
)
from llm_master.dispatch.health import OPEN_FOR, OPENS_AFTER
from llm_master.dispatch.routes import STRATEGIES
from llm_master.settings import routes as declared
from llm_master.testing import FakeClock, Fault, FaultServer

NAMES = ("a", "b", "c")


class Party(BaseLLMProvider):
    """Does what its row's name says: each has a behaviour that answers, raises or is awaited."""

    does: ClassVar[dict[str, Callable[[], Any]]]
    asked: ClassVar[list[str]]

    async def generate(self, messages: Any, model: str, **options: Any) -> LLMResponse:
        cls = type(self)
        name = self.config.name
        cls.asked.append(name)
        did = cls.does[name]()
        if asyncio.iscoroutine(did):
            await did
        return LLMResponse(f"{name}: {messages[-1]['content']} {sorted(options.items())}", model, Usage(10, 5))

    async def stream(self, messages: Any, model: str, **options: Any) -> Any:
        yield (await self.generate(messages, model, **options)).content
        if self.config.name == "c":
            raise ServerError("broke", status=500)


def fine() -> None:
    pass


def down() -> None:
    raise ServerError("down", status=503)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto_advance=True)


def parties(does: dict[str, Callable[[], Any]] | None = None, **row: Any) -> type[Party]:
    cls = type("AsParty", (Party,), {"does": {**dict.fromkeys(NAMES, fine), **(does or {})}, "asked": []})
    for name in NAMES:
        PROVIDER_CONFIGS[name] = ProviderConfig(**{"provider_class": cls, "requires_key": False, "max_retries": 0, **row})
    return cls


def llm_of(clock: FakeClock, strategy: str = "round-robin", targets: Any = ("a/m", "b/m", "c/m"), **fields: Any) -> QueryLLM:
    routes = {"fast": {"targets": list(targets), "strategy": strategy}}
    return QueryLLM(LLMConfig(environment={}, clock=clock, routes=routes, **fields))


async def ask(llm: QueryLLM, count: int = 1, **arguments: Any) -> list[str]:
    return [str(await llm.query("fast", prompt="Hi", **arguments))[0] for _ in range(count)]


# Strategies


async def test_round_robin_takes_turns(clock: FakeClock) -> None:
    parties()
    assert "".join(await ask(llm_of(clock), 7)) == "abcabca"


async def test_first_available_asks_the_first_that_can_be(clock: FakeClock) -> None:
    cls = parties(max_concurrent=1)
    gate = asyncio.Event()
    llm = llm_of(clock, "first-available")
    cls.does["a"] = gate.wait
    first = asyncio.create_task(ask(llm))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await ask(llm, 2) == ["b", "b"], "a is at work, and takes one at once"
    gate.set()
    assert await first == ["a"]


async def test_weighted_follows_the_weights_and_random_none(clock: FakeClock) -> None:
    random.seed(5)
    parties()
    targets = [{"model": "a/m", "weight": 8}, {"model": "b/m", "weight": 2}, {"model": "c/m", "weight": 0}]
    weighted = collections.Counter(await ask(llm_of(clock, "weighted", targets), 500))
    assert 350 < weighted["a"] < 450 and weighted["b"] == 500 - weighted["a"]
    even = collections.Counter(await ask(llm_of(clock, "random"), 600))
    assert all(150 < even[name] < 250 for name in NAMES)


async def test_least_cost_asks_the_cheapest_that_can_be_and_takes_unknown_for_dear(clock: FakeClock) -> None:
    cls = parties()
    ModelRegistry.register("b/m", ModelConfig(input_price_per_million=1, output_price_per_million=2))
    ModelRegistry.register("c/m", ModelConfig(input_price_per_million=0.5, output_price_per_million=9))
    llm = llm_of(clock, "least-cost")
    assert await ask(llm, 2) == ["b", "b"]
    cls.does["b"] = down
    assert await ask(llm) == ["c"]


async def test_least_busy_asks_who_has_the_fewest_in_flight(clock: FakeClock) -> None:
    gate = asyncio.Event()
    cls = parties(dict.fromkeys(NAMES, gate.wait))
    llm = llm_of(clock, "least-busy")
    tasks = [asyncio.create_task(ask(llm)) for _ in range(6)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert collections.Counter(cls.asked) == {"a": 2, "b": 2, "c": 2}
    gate.set()
    await asyncio.gather(*tasks)


async def test_least_latency_asks_the_faster_and_still_hears_of_the_slower(clock: FakeClock) -> None:
    random.seed(3)
    parties({"a": lambda: clock.sleep(5), "b": lambda: clock.sleep(0.1), "c": lambda: clock.sleep(0.2)})
    asked = collections.Counter(await ask(llm_of(clock, "least-latency"), 300))
    assert asked["b"] > 150 and asked["c"] > 50 and 0 < asked["a"] < 30


async def test_best_available_starves_nobody_who_was_not_measured(clock: FakeClock) -> None:
    parties({"a": lambda: clock.sleep(0.1), "b": lambda: clock.sleep(0.01), "c": lambda: clock.sleep(1)})
    asked = await ask(llm_of(clock, "best-available"), 200)
    assert sorted(asked[:3]) == ["a", "b", "c"], "the unmeasured have their turn first"
    counted = collections.Counter(asked)
    assert counted["b"] > 150 and counted["a"] > 2 and counted["c"] > 2, "the best gets most, the others are heard of"


async def test_a_sick_target_is_left_alone_tried_again_and_recovers(clock: FakeClock) -> None:
    cls = parties({"a": down})
    llm = llm_of(clock, "first-available")
    for _ in range(20):
        assert await ask(llm) == ["b"]
    assert cls.asked.count("a") == OPENS_AFTER
    await clock.advance(OPEN_FOR + 1)
    assert await ask(llm, 5) == ["b"] * 5
    assert cls.asked.count("a") == OPENS_AFTER + 1, "one request tried it again"
    await clock.advance(OPEN_FOR + 1)
    await ask(llm)
    assert cls.asked.count("a") == OPENS_AFTER + 1, "and it is left alone for twice as long"
    await clock.advance(OPEN_FOR)
    cls.does["a"] = fine
    assert await ask(llm, 3) == ["a"] * 3


def test_every_declared_strategy_is_there() -> None:
    assert set(STRATEGIES) == set(declared.STRATEGIES)


# Who takes over


async def test_the_others_answer_where_one_fails_and_the_receipt_tells(clock: FakeClock) -> None:
    cls = parties({"a": down})
    answer = await llm_of(clock).query("fast", prompt="Hi", temperature=1)
    assert answer.content == "b: Hi [('temperature', 1)]", "of one question, the options are everybody's"
    assert (answer.provider, answer.model_name, answer.receipt.model_name) == ("b", "b/m", "fast")
    first, second = answer.receipt.attempts
    assert first.why == "route 'fast', round-robin; named before the model"
    assert first.then == "given up after 0 repetitions (max_retries); next of the route is 'b/m'"
    assert second.why == "route 'fast', since 'a/m' failed; named before the model"
    assert cls.asked == ["a", "b"]


async def test_a_429_sends_the_request_on_at_once(clock: FakeClock) -> None:
    def busy() -> None:
        raise RateLimitError("busy", status=429, retry_after=5)

    cls = parties({"a": busy, "b": busy})
    llm = llm_of(clock, "first-available")
    assert await ask(llm, 3) == ["c", "c", "c"]
    assert (cls.asked.count("a"), cls.asked.count("b"), clock.sleeps) == (1, 1, [])


async def test_when_all_are_limited_the_last_is_waited_for(clock: FakeClock) -> None:
    cls = parties(rpm=1)
    llm = llm_of(clock)
    assert await ask(llm, 3) == ["a", "b", "c"]
    answer = await llm.query("fast", prompt="Hi", deadline=100)
    assert answer.receipt.attempts[-1].wait > 0
    assert len(cls.asked) == 4


async def test_a_route_goes_on_after_404_and_not_after_400(clock: FakeClock) -> None:
    def missing() -> None:
        raise ModelNotFoundError("no such model", status=404)

    def wrong() -> None:
        raise InvalidRequestError("wrong", status=400)

    cls = parties({"a": missing, "b": fine})
    assert await ask(llm_of(clock, "first-available")) == ["b"]
    cls.does["a"] = wrong
    with pytest.raises(InvalidRequestError, match="wrong"):
        await ask(llm_of(clock, "first-available"))


async def test_fallback_model_comes_after_the_whole_route(clock: FakeClock) -> None:
    cls = parties(dict.fromkeys(("a", "b"), down))
    answer = await llm_of(clock, targets=["a/m", "b/m"]).query("fast", prompt="Hi", fallback_model="c/m")
    assert (cls.asked, answer.model_name) == (["a", "b", "c"], "c/m")


async def test_when_all_fail_the_last_error_is_raised_with_every_attempt(clock: FakeClock) -> None:
    parties(dict.fromkeys(NAMES, down))
    with pytest.raises(ServerError) as caught:
        await ask(llm_of(clock))
    assert [attempt.provider for attempt in caught.value.receipt.attempts] == ["a", "b", "c"]


async def test_a_target_that_cannot_be_asked_is_passed_over(clock: FakeClock) -> None:
    parties()
    llm = llm_of(clock, "first-available", ["openai/gpt-4.1", "b/m"])
    assert await ask(llm) == ["b"], "there is no key for the first"
    llm = llm_of(clock, targets=["openai/gpt-4.1", "groq/x"])
    with pytest.raises(ConfigurationError, match=r"no target of route 'fast' can be asked this:\n(.|\n)*OPENAI_API_KEY(.|\n)*GROQ_API_KEY"):
        await ask(llm)


async def test_a_stream_goes_on_to_another_target_before_its_first_piece_only(clock: FakeClock) -> None:
    cls = parties({"a": down})
    llm = llm_of(clock, "first-available")
    async with llm.stream("fast", prompt="Hi") as stream:
        assert "".join([text async for text in stream]) == "b: Hi []"
    cls.does["b"] = down
    with pytest.raises(StreamInterruptedError):
        async for _ in llm.stream("fast", prompt="Hi"):
            pass
    assert cls.asked == ["a", "b", "a", "b", "c"]


async def test_options_of_a_target_are_beneath_those_of_the_call(clock: FakeClock) -> None:
    parties()
    llm = llm_of(clock, targets=[{"model": "a/m", "options": {"temperature": 0.5, "seed": 1}}])
    assert (await llm.query("fast", prompt="Hi", temperature=1)).content == "a: Hi [('seed', 1), ('temperature', 1)]"
    plan = llm.plan("fast", prompt="Hi")
    assert plan.provider == "a" and plan.why == "route 'fast', round-robin; named before the model"


# Declared


async def test_a_route_of_a_file_and_one_within_another(clock: FakeClock, tmp_path: Path) -> None:
    parties()
    file = tmp_path / "llm_master.toml"
    file.write_text(
        """
[routes.pair]
targets = ["b/m", { model = "c/m", weight = 3 }]
strategy = "weighted"

[routes.fast]
targets = ["a/m", { model = "pair", weight = 8 }]
strategy = "weighted"
"""
    )
    llm = QueryLLM(LLMConfig(environment={}, config_file=file, clock=clock))
    members = llm._engine.routes["fast"].members
    assert [(member.model, member.weight) for member in members] == [("a/m", 1.0), ("b/m", 2.0), ("c/m", 6.0)]
    assert str(await llm.query("pair", prompt="Hi"))[0] in "bc"


@pytest.mark.parametrize(
    ("route", "said"),
    [
        (
            {"targets": ["a/m"], "strategy": "round_robbin"},
            "strategy is 'round_robbin': did you mean 'round-robin'\\? give one of round-robin, we",
        ),
        ({"targets": [{"model": "a/m", "weight": 0}, {"model": "b/m", "weight": 0}]}, "all weights are 0: give at least one"),
        ({"targets": [{"model": "a/m", "weight": -1}]}, r"targets\[0\].weight is -1"),
        ({"targets": []}, "it has no targets"),
        ([], "it has no targets"),
        ({"targets": ["a/m", "a/m"]}, "'a/m' is a target twice"),
        ({"targets": ["a/m", "fast"]}, r"route 'fast' leads to itself \(fast -> fast\)"),
        ({"target": ["a/m"]}, "'target' is no field"),
        ({"targets": ["a/m", 7]}, r"targets\[1\] names no model"),
        ({"targets": [{"model": "a/m", "wieght": 1}]}, r"targets\[0\].wieght is no field"),
    ],
)
def test_a_route_that_can_be_none_is_told_with_the_remedy(clock: FakeClock, route: Any, said: str) -> None:
    parties()
    with pytest.raises(ConfigurationError, match=said):
        QueryLLM(LLMConfig(environment={}, clock=clock, routes={"fast": route}))


async def test_what_takes_no_route_says_so(clock: FakeClock) -> None:
    parties()
    with pytest.raises(ConfigurationError, match="'fast' is a route, of several models"):
        await llm_of(clock).embed("fast", "text")


# The Router


class Mine(BaseProvider):
    """A provider in the short form, as users write them: it keeps what it was asked."""

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self.prompts: list[str] = []

    async def generate(self, prompt: str, params: GenerationParams | None = None) -> str:
        self.prompts.append(prompt)
        if self.model == "sick":
            raise ServerError("down", status=503)
        return f"{self.config.name} says: {prompt}, at {params.temperature if params else None}"


def mine(name: str, model: str = "large") -> Mine:
    return Mine(ProviderConfig(name=name, model=model, max_retries=0))


def router_of(clock: FakeClock, strategy: str = "round-robin") -> Router:
    return Router(strategy=strategy, config=LLMConfig(environment={}, clock=clock))


async def test_the_router_asks_the_very_objects_that_it_was_given(clock: FakeClock) -> None:
    router = router_of(clock)
    first, second = mine("One"), mine("Two")
    router.add_provider(first)
    router.add_provider(second)
    answers = [str(await router.route(f"no. {number}", GenerationParams(temperature=0.2))) for number in range(4)]
    assert answers[:2] == ["One says: no. 0, at 0.2", "Two says: no. 1, at 0.2"]
    assert (first.prompts, second.prompts) == (["no. 0", "no. 2"], ["no. 1", "no. 3"])


async def test_the_router_falls_over_and_counts(clock: FakeClock) -> None:
    router = router_of(clock, "first-available")
    router.add_provider(mine("sick", "sick"))
    router.add_provider("mock/static")
    answer = await router.route("Hello")
    assert answer.provider == "mock" and len(answer.receipt.attempts) == 2
    metrics = router.get_metrics()
    assert (metrics["sick"].total_requests, metrics["sick"].failed_requests, metrics["sick"].successful_requests) == (1, 1, 0)
    assert "down" in (metrics["sick"].last_error or "") and metrics["sick"].avg_latency_ms is None
    assert metrics["mock/static"].successful_requests == 1 and metrics["mock/static"].total_tokens > 0
    assert metrics["mock/static"].health_status == "healthy"
    for _ in range(3):
        await router.route("Hello")
    assert router.get_metrics()["sick"].health_status == "unhealthy"


async def test_the_router_streams(clock: FakeClock) -> None:
    router = router_of(clock)
    router.add_provider(mine("One"))
    texts = [text async for text in router.route_stream("Hello", {"temperature": 1})]
    assert "".join(texts) == "One says: Hello, at 1"
    assert router.get_metrics()["One"].total_requests == 1


async def test_what_a_router_refuses(clock: FakeClock) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'least-cost'"):
        Router(strategy="least_costs")
    router = router_of(clock)
    with pytest.raises(ConfigurationError, match="no provider yet"):
        await router.route("Hello")
    router.add_provider(mine("One"))
    with pytest.raises(ConfigurationError, match="'One' is in this router already"):
        router.add_provider(mine("One"))
    with pytest.raises(ConfigurationError, match="is no provider"):
        router.add_provider(7)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="no provider serves"):
        router.add_provider("no-such-model")
    with pytest.raises(InvalidRequestError, match="params is a str"):
        await router.route("Hello", "hot")  # type: ignore[arg-type]


def test_the_guides_first_example_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    """Of https://github.com/MikhailMalorod/Multi-LLM-Orchestrator (MIT), README.md, but for the import path."""
    # fmt: off
    import asyncio

    from llm_master import Router
    from llm_master.providers import MockProvider, ProviderConfig

    async def main():  # type: ignore[no-untyped-def]
        # Initialize router with round-robin strategy
        router = Router(strategy="round-robin")

        # Add providers
        for i in range(3):
            config = ProviderConfig(name=f"provider-{i+1}", model="mock-normal")
            router.add_provider(MockProvider(config))

        # Make a request
        response = await router.route("What is Python?")
        print(response)

    asyncio.run(main())
    # fmt: on
    assert capsys.readouterr().out == "Mock response to: What is Python?\n"


async def test_the_guides_modes_of_the_mock(clock: FakeClock) -> None:
    from llm_master.providers import MockProvider

    router = router_of(clock)
    for mode in ("mock-timeout", "mock-ratelimit", "mock-auth-error", "mock-unhealthy", "mock-normal"):
        router.add_provider(MockProvider(ProviderConfig(name=mode, model=mode, max_retries=0)))
    answer = await router.route("Hello")
    assert answer.content == "Mock response to: Hello" and len(answer.receipt.attempts) == 5
    assert answer.cost is None or answer.cost == Decimal()


def test_the_guides_metrics_as_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    """Of its docs/observability.md, but for the import path."""
    # fmt: off
    import asyncio

    from llm_master import Router
    from llm_master.providers import MockProvider, ProviderConfig

    async def main():  # type: ignore[no-untyped-def]
        router = Router(strategy="round-robin")

        # Add provider
        config = ProviderConfig(name="provider-1", model="mock-normal")
        router.add_provider(MockProvider(config))

        # Make requests
        for i in range(10):
            await router.route(f"Request {i}")

        # Access token metrics
        metrics = router.get_metrics()
        for provider_name, provider_metrics in metrics.items():
            print(f"Provider: {provider_name}")
            print(f"  Total requests: {provider_metrics.total_requests}")
            print(f"  Prompt tokens: {provider_metrics.total_prompt_tokens}")
            print(f"  Completion tokens: {provider_metrics.total_completion_tokens}")
            print(f"  Total tokens: {provider_metrics.total_tokens}")
            print(f"  Total cost: {provider_metrics.total_cost:.2f} RUB")

    asyncio.run(main())
    # fmt: on
    shown = capsys.readouterr().out
    assert "Provider: provider-1\n  Total requests: 10\n  Prompt tokens: 20\n" in shown and "Total cost: 0.00" in shown


async def test_the_guides_custom_provider_as_it_stands(fault_server: FaultServer) -> None:
    """Of its docs/providers/custom_provider.md, shortened by its comments, but for the import path and the address."""
    httpx = pytest.importorskip("httpx", reason="httpx, which the guide uses, is not installed")
    # fmt: off
    from llm_master import AuthenticationError, ProviderError

    class YourProvider(BaseProvider):
        DEFAULT_BASE_URL: str = fault_server.base_url
        DEFAULT_MODEL: str = "your-model"

        def __init__(self, config: ProviderConfig) -> None:
            super().__init__(config)
            # Set default base_url if not provided
            if not self.config.base_url:
                self.config.base_url = self.DEFAULT_BASE_URL  # type: ignore[misc]

            # Initialize HTTP client
            self._client = httpx.AsyncClient(
                timeout=self.config.timeout,
                verify=self.config.verify_ssl
            )

        async def generate(self, prompt: str, params: GenerationParams | None = None) -> str:
            url = f"{self.config.base_url}/completions"
            headers = {"Authorization": f"Bearer {self.config.api_key}", "Content-Type": "application/json"}
            payload = {"prompt": prompt, "model": self.config.model or self.DEFAULT_MODEL}

            async def make_request() -> str:
                response = await self._client.post(url, json=payload, headers=headers)
                if response.status_code == 401:
                    raise AuthenticationError("Invalid API key")
                elif response.status_code == 429:
                    raise RateLimitError("Rate limit exceeded")
                elif response.status_code != 200:
                    raise ProviderError(f"API error: {response.status_code}")
                data = response.json()
                return str(data["text"])

            return await self._retry_with_backoff(make_request)

    router = Router(strategy="round-robin")

    config = ProviderConfig(
        name="your-provider",
        api_key="your_api_key",
        model="your-model"
    )
    fault_server.script(Fault(path="/completions", body={"text": "Hello to you"}))
    provider = YourProvider(config)
    router.add_provider(provider)

    response = await router.route("Hello, world!")
    # fmt: on
    await provider._client.aclose()
    assert str(response) == "Hello to you"
    (request,) = fault_server.requests
    assert request.path.endswith("/completions")
