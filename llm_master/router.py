"""``Router``: several providers behind one object. An unnamed route, with the names that users of orchestrators know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import attrs

from llm_master.asking import on_route
from llm_master.dispatch.call import Call
from llm_master.dispatch.health import Health, State
from llm_master.dispatch.keys import Key
from llm_master.dispatch.routes import Member, Route
from llm_master.dispatch.stream import LLMStream
from llm_master.engine import Engine
from llm_master.engines import engine_for
from llm_master.errors import ConfigurationError, InvalidRequestError
from llm_master.provider_configs import LLMConfig, effective
from llm_master.providers.base import BaseLLMProvider
from llm_master.providers.short import BaseProvider, ShortForm
from llm_master.rows import canonical
from llm_master.settings.routes import RouteTarget, strategy_fault
from llm_master.types import GenerationParams, LLMResponse, Message


@attrs.frozen(kw_only=True)
class ProviderMetrics:
    """How a provider of a router has done. What is not known is ``None``.

    Attributes:
        total_requests: Requests that ended, repetitions included.
        successful_requests: Those that were answered.
        failed_requests: Those that failed, by the provider's fault.
        avg_latency_ms: Mean milliseconds of the last 100 answers.
        recent_error_rate: Share of the last 100 requests that failed, 0 to 1.
        health_status: ``healthy``, ``degraded`` (more than a fifth failed lately) or ``unhealthy`` (left alone for now).
        last_error: The last failure.
        total_prompt_tokens: Input tokens that were counted.
        total_completion_tokens: Output tokens that were counted.
        total_tokens: Both.
        total_cost: The sum of all costs that are known.
        unknown_costs: Answers whose cost is not known, and so not in it.
    """

    total_requests: int
    successful_requests: int
    failed_requests: int
    avg_latency_ms: float | None
    recent_error_rate: float | None
    health_status: State
    last_error: str | None
    total_prompt_tokens: int
    total_completion_tokens: int
    total_tokens: int
    total_cost: Decimal
    unknown_costs: int


class Router:
    """Asks one of several providers, and another where that one fails.

    ::

        router = Router(strategy="round-robin")
        router.add_provider(MyProvider(ProviderConfig(name="mine", model="large")))
        router.add_provider("gpt-4.1")
        response = await router.route("What is Python?")

    Args:
        strategy: ``round-robin``, ``weighted``, ``random``, ``first-available``, ``best-available``, ``least-latency``,
            ``least-cost`` or ``least-busy``; see docs/routes.md.
        config: Settings; the environment and ``.env`` where it says nothing.

    Raises:
        ConfigurationError: An unknown strategy; the known ones are offered.
    """

    def __init__(self, strategy: str = "round-robin", *, config: LLMConfig | None = None) -> None:
        if (fault := strategy_fault(strategy)) is not None:
            raise ConfigurationError(f"Router: {fault}")
        self.strategy = strategy
        self._config = config
        self._engine = engine_for(config)
        self._route = Route("router", strategy, (), self._engine.snapshot.options.clock)
        self._names: list[str] = []

    def add_provider(self, provider: BaseProvider | BaseLLMProvider | str, *, weight: float = 1.0) -> None:
        """Add a target.

        Args:
            provider: An object of a provider's class, made with its ``ProviderConfig``; or a model's name, as ``"gpt-4.1"``.
            weight: Its share, of ``weighted``.

        Raises:
            ConfigurationError: It is there already, or it is no provider.
        """
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight >= 0:
            raise ConfigurationError(f"weight is {weight!r}: give a number of at least 0")
        engine = self._engine
        if isinstance(provider, str):
            name = model = provider
            engine.target(model)  # a name that nobody serves is told now
        elif isinstance(provider, (BaseProvider, BaseLLMProvider)):
            name = provider.config.name or type(provider).__name__
            engine, model = _engine_of(provider, name, self._config)
        else:
            raise ConfigurationError(f"{provider!r} is no provider: give an object of a BaseProvider or BaseLLMProvider, or a model's name")
        if name in self._names:
            raise ConfigurationError(f"{name!r} is in this router already: give the other its own name, as ProviderConfig(name=...)")
        self._names.append(name)
        self._route.members.append(Member(engine, RouteTarget(model, float(weight)), Health()))

    async def route(
        self, prompt: str | Sequence[Message], params: GenerationParams | Mapping[str, Any] | None = None, **options: Any
    ) -> LLMResponse:
        """Ask one provider, and others where it fails.

        Args:
            prompt: A text, or a conversation.
            params: ``GenerationParams``, or options by name; what the provider takes by itself if ``None``.
            **options: The same, and what ``QueryLLM.query`` takes beside: ``tools``, ``response_format``, ``timeout``, ``deadline``.

        Raises:
            ConfigurationError: There is no provider yet, or none that can be asked.
            LLMError: All of them failed; the last one's error, with the receipt of all.
        """
        return await self._call(prompt, params, options).answer()  # type: ignore[no-any-return]

    def route_stream(
        self, prompt: str | Sequence[Message], params: GenerationParams | Mapping[str, Any] | None = None, **options: Any
    ) -> LLMStream:
        """The same in pieces; another provider answers only before the first piece."""
        return LLMStream(self._call(prompt, params, options))

    def get_metrics(self) -> dict[str, ProviderMetrics]:
        """How each provider has done, by its name."""
        now = self._route.clock.monotonic()
        return {name: _metrics(member.health, now) for name, member in zip(self._names, self._route.members, strict=True)}

    def _call(self, prompt: str | Sequence[Message], params: GenerationParams | Mapping[str, Any] | None, options: dict[str, Any]) -> Call:
        if not self._route.members:
            raise ConfigurationError("this router has no provider yet: add one with add_provider()")
        if isinstance(params, GenerationParams):
            params = {name: value for name, value in attrs.asdict(params).items() if value is not None}
        elif params is not None and not isinstance(params, Mapping):
            raise InvalidRequestError(f"params is a {type(params).__name__}: give GenerationParams, or a dict of options")
        options = {**(params or {}), **options}
        beside = [options.pop(name, None) for name in ("response_format", "tools", "timeout", "deadline", "extra_body")]
        said: tuple[Any, Any] = (None, prompt) if isinstance(prompt, str) else (prompt, None)
        return on_route(self._route, (*said, *beside), options)


def _engine_of(provider: BaseProvider | BaseLLMProvider, name: str, config: LLMConfig | None) -> tuple[Engine, str]:
    """An engine that knows this very object as a provider, and how its model is asked for there."""
    row = attrs.evolve(provider.config, name=canonical(name), provider_class=type(provider), requires_key=False)
    model = (provider.model if isinstance(provider, BaseProvider) else row.default_model) or "default"
    snapshot = effective(config or LLMConfig())
    key = Key.checked(row.api_key, f"{name}'s config") if row.api_key else None
    own = attrs.evolve(
        snapshot,
        rows={**snapshot.rows, row.name: attrs.evolve(row, default_model=model)},
        keys={**snapshot.keys, row.name: (key,) if key is not None else ()},
    )
    engine = Engine(own)
    speaks = provider if isinstance(provider, BaseLLMProvider) else ShortForm.around(provider)
    engine.adopt(row.name, key, speaks)
    return engine, f"{row.name}/{model}"


def _metrics(health: Health, now: float) -> ProviderMetrics:
    mean = health.mean_latency
    return ProviderMetrics(
        total_requests=health.total,
        successful_requests=health.total - health.failed,
        failed_requests=health.failed,
        avg_latency_ms=None if mean is None else mean * 1000,
        recent_error_rate=health.error_rate,
        health_status=health.state(now),
        last_error=health.last_error,
        total_prompt_tokens=health.input_tokens,
        total_completion_tokens=health.output_tokens,
        total_tokens=health.input_tokens + health.output_tokens,
        total_cost=health.cost,
        unknown_costs=health.unknown_costs,
    )
