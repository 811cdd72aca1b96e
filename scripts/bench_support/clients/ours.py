"""llm_master with everything on: a registered price, a cost for each answer, a receipt."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any, ClassVar

from attrs import evolve

from bench_support.wire import KEY, MESSAGES, MODEL
from bench_support.wire_formats import FORMATS
from llm_master import PROVIDER_CONFIGS, LLMConfig, LLMResponse, ModelConfig, ModelRegistry, ProviderConfig, QueryLLM

_numbers = count()


class Ours:
    """One ``QueryLLM`` is kept for all queries."""

    provider_class: str | None = None
    limits: Mapping[str, Any] = {}
    settings: ClassVar[dict[str, bool]] = {}
    key = KEY
    keys = 1

    def __init__(self, base_url: str, *, many: int | None = None) -> None:
        del many  # as many connections as the process may open files
        provider = f"bench{next(_numbers)}"
        self._model = f"{provider}/{MODEL}"
        PROVIDER_CONFIGS[provider] = ProviderConfig(base_url=base_url, provider_class=self.provider_class, **self.limits)
        ModelRegistry.register(
            self._model,
            ModelConfig(input_price_per_million=1, output_price_per_million=2, cached_input_price_per_million="0.5"),
        )
        self._llm = QueryLLM(
            LLMConfig(api_keys={provider: [self.key, *(f"{self.key}-{number}" for number in range(1, self.keys))]}, **self.settings)
        )

    async def call(self) -> int:
        return _length(await self._llm.query(self._model, MESSAGES, temperature=0.5))

    async def embed(self, texts: list[str]) -> int:
        return len(await self._llm.embed(self._model, texts))

    async def stream(self) -> int:
        texts: list[str] = []
        async with self._llm.stream(self._model, MESSAGES, temperature=0.5) as stream:
            async for text in stream:
                texts.append(text)  # noqa: PERF401  # as a user writes it
        if stream.response.cost is None:
            raise RuntimeError("the bench means to measure a stream that knows its cost, and this one does not")
        return len(texts)


class Constructed(Ours):
    """``await QueryLLM().query(...)``, as in scripts and web handlers."""

    def __init__(self, base_url: str, *, many: int | None = None) -> None:
        super().__init__(base_url, many=many)
        provider = self._model.partition("/")[0]
        PROVIDER_CONFIGS[provider] = evolve(PROVIDER_CONFIGS[provider], api_key=KEY)

    async def call(self) -> int:
        return _length(await QueryLLM().query(self._model, MESSAGES, temperature=0.5))


class Limited(Ours):
    """Four keys, and limits that are kept without being reached."""

    limits: Mapping[str, Any] = {"rpm": 10**7, "tpm": 10**10, "max_concurrent": 1000, "max_concurrent_per_key": 500}
    keys = 4


class Queued(Limited):
    """The same, of which 8 may be under way: with more callers, most wait."""

    limits: Mapping[str, Any] = {**Limited.limits, "max_concurrent": 8}


class Silent(Ours):
    """Nobody observes it, and nobody is looked for."""

    settings: ClassVar[dict[str, bool]] = {"telemetry": False}


class Counted(Ours):
    """Counted for Prometheus."""

    settings: ClassVar[dict[str, bool]] = {"telemetry": False, "metrics": True}


class Traced(Ours):
    """In a program that has OpenTelemetry set up, as its guide says; what it tells goes nowhere."""

    with_metrics = True

    def __init__(self, base_url: str, *, many: int | None = None) -> None:
        from opentelemetry import metrics, trace
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

        class Nowhere(SpanExporter):
            def export(self, spans: object) -> SpanExportResult:
                del spans
                return SpanExportResult.SUCCESS

        tracers = TracerProvider()
        tracers.add_span_processor(BatchSpanProcessor(Nowhere()))
        trace.set_tracer_provider(tracers)
        if self.with_metrics:
            metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))
        super().__init__(base_url, many=many)

    async def call(self) -> int:
        hooks = self._llm._engine.hooks
        if hooks is None or not hooks.observers:
            raise RuntimeError("the bench means to measure a call that is traced, and this one is not")
        return await super().call()


class Spans(Traced):
    """In a program that has set up spans and no metrics."""

    with_metrics = False


class BareSDK(Traced):
    """Nobody observes it, and beside each call the SDK is told what an observed call would tell it."""

    settings: ClassVar[dict[str, bool]] = {"telemetry": False}

    async def call(self) -> int:
        from opentelemetry import context, metrics, trace

        if self._tracer is None:
            self._tracer = trace.get_tracer("bench")
            meter = metrics.get_meter("bench")
            self._duration = meter.create_histogram("gen_ai.client.operation.duration")
            self._tokens = meter.create_histogram("gen_ai.client.token.usage")
        common = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "bench", "gen_ai.request.model": MODEL}
        asked = {**common, "server.address": "127.0.0.1", "server.port": 80, "gen_ai.request.temperature": 0.5}
        span = self._tracer.start_span(f"chat {MODEL}", kind=trace.SpanKind.CLIENT, attributes=asked)
        token = context.attach(trace.set_span_in_context(span))
        answer = await self._llm.query(self._model, MESSAGES, temperature=0.5)
        common["gen_ai.response.model"] = MODEL
        for kind, tokens in (("input", answer.usage.input_tokens), ("output", answer.usage.output_tokens)):
            self._tokens.record(tokens, {**common, "gen_ai.token.type": kind})
        self._duration.record(0.1, common)
        told = {"gen_ai.response.model": MODEL, "gen_ai.response.finish_reasons": ("stop",), "gen_ai.response.id": "one"}
        told |= {"gen_ai.usage.input_tokens": answer.usage.input_tokens, "gen_ai.usage.output_tokens": answer.usage.output_tokens}
        span.set_attributes(told)
        span.end()
        context.detach(token)
        return _length(answer)

    _tracer: Any = None
    _duration: Any = None
    _tokens: Any = None


class Foreign(Ours):
    """The same in another wire format."""

    def __init__(self, base_url: str, form: str, *, many: int | None = None) -> None:
        self.provider_class = FORMATS[form].provider_class
        self.limits = dict(FORMATS[form].row)
        self.key = FORMATS[form].key or KEY
        super().__init__(base_url, many=many)


def _length(answer: LLMResponse) -> int:
    if answer.cost is None or answer.receipt is None:
        raise RuntimeError("the bench means to measure a call with cost and receipt, and this one has none")
    return len(answer.content)
