"""Spans and metrics, seen by OpenTelemetry's own SDK with its in-memory exporters, against a server that fails on demand."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from llm_master import PROVIDER_CONFIGS, ConfigurationError, LLMError, ModelConfig, ModelRegistry, ProviderConfig, QueryLLM
from llm_master import metrics as prometheus
from llm_master.testing import Fault, FaultServer

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")

from opentelemetry import context, metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

FIRST, SECOND = "sk-first-0123456789", "sk-second-0123456780"
SECRET = "what nobody else may read"


class Seen:
    """What the program's own OpenTelemetry has received."""

    def __init__(self, spans: InMemorySpanExporter, reader: InMemoryMetricReader) -> None:
        self._spans = spans
        self._reader = reader

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    @property
    def span(self) -> ReadableSpan:
        (span,) = self.spans
        return span

    def points(self, name: str) -> list[Any]:
        data = self._reader.get_metrics_data()
        if data is None:
            return []
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """The program has OpenTelemetry set up, for this test."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(shutdown_on_exit=False), MeterProvider([reader], shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    # A program sets them once for ever; a test takes them away again.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", tracers)
    monkeypatch.setattr(metrics._internal, "_METER_PROVIDER", meters)
    yield Seen(exporter, reader)
    tracers.shutdown()
    meters.shutdown()


def trial(server: FaultServer, *, keys: list[str] | None = None, **settings: Any) -> QueryLLM:
    PROVIDER_CONFIGS["trial"] = ProviderConfig(base_url=server.base_url)
    ModelRegistry.register("trial/large", ModelConfig(input_price_per_million=2, output_price_per_million=8))
    return QueryLLM(api_keys={"trial": keys or [FIRST]}, **settings)


async def test_a_query_is_one_span_with_the_names_of_the_conventions(fault_server: FaultServer, seen: Seen) -> None:
    answer = await trial(fault_server).query("trial/large", prompt=SECRET, temperature=0.5, max_tokens=50, top_p=0.9, stop="END", seed=1)
    span = seen.span
    assert (span.name, span.kind, span.status.status_code) == ("chat large", SpanKind.CLIENT, StatusCode.UNSET)
    assert span.attributes is not None and answer.receipt is not None
    told = dict(span.attributes)
    attempt = answer.receipt.attempts[0]
    host, port = fault_server.base_url.removeprefix("http://").removesuffix("/v1").split(":")
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "trial",
        "gen_ai.request.model": "large",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.seed": 1,
        "gen_ai.response.model": attempt.model_served,
        "gen_ai.response.finish_reasons": (answer.finish_reason,),
        "gen_ai.response.id": answer.raw["id"],
        "gen_ai.usage.input_tokens": answer.usage.input_tokens,
        "gen_ai.usage.output_tokens": answer.usage.output_tokens,
        "server.address": host,
        "server.port": int(port),
        "llm_master.key": attempt.key,
        "llm_master.request_id": attempt.request_id,
        "llm_master.cost": float(answer.cost or -1),
        "llm_master.currency": "USD",
    } | {
        name: value
        for name, value in told.items()
        if name in ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.reasoning.output_tokens")
    }
    assert span.events == ()
    for hidden in (SECRET, FIRST, answer.content):
        assert hidden not in span.to_json()


async def test_metrics_have_the_attributes_and_the_buckets_of_the_conventions(fault_server: FaultServer, seen: Seen) -> None:
    answer = await trial(fault_server).query("trial/large", prompt="Hello")
    (duration,) = seen.points("gen_ai.client.operation.duration")
    assert duration.count == 1 and 0 < duration.sum < 10
    assert duration.explicit_bounds[0] == 0.01 and duration.explicit_bounds[-1] == 81.92
    common = {"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model"}
    assert set(duration.attributes) == common
    tokens = {point.attributes["gen_ai.token.type"]: point for point in seen.points("gen_ai.client.token.usage")}
    assert {kind: point.sum for kind, point in tokens.items()} == {
        "input": answer.usage.input_tokens,
        "output": answer.usage.output_tokens,
    }
    assert set(tokens["input"].attributes) == common | {"gen_ai.token.type"}
    assert tokens["input"].explicit_bounds[-1] == 67108864
    assert seen.points("gen_ai.client.operation.time_to_first_chunk") == []
    assert duration.exemplars[0].span_id == seen.span.context.span_id  # one leads to the other


async def test_attempts_that_fail_are_events_and_the_answer_is_of_who_gave_it(fault_server: FaultServer, seen: Seen) -> None:
    fault_server.script(Fault(401), Fault(503, model="large", times=3))
    answer = await trial(fault_server, keys=[FIRST, SECOND]).query("trial/large", prompt=SECRET, fallback_model="trial/small")
    span = seen.span
    told = [dict(event.attributes or {}) for event in span.events]
    assert answer.receipt is not None
    for number, (event, attempt) in enumerate(zip(told, answer.receipt.attempts[:-1], strict=True), 1):
        assert event["llm_master.attempt"] == number
        assert event["llm_master.key"] == attempt.key
        assert event["http.response.status_code"] == attempt.status
        assert event["llm_master.then"] == attempt.then
        assert event["llm_master.wait"] == attempt.wait
    assert [event["error.type"] for event in told] == ["AuthenticationError", "ServerError", "ServerError", "ServerError"]
    assert span.attributes is not None
    assert span.name == "chat large"
    assert span.attributes["gen_ai.request.model"] == "small"
    assert span.attributes["llm_master.attempts"] == 5
    assert span.status.status_code is StatusCode.UNSET
    assert FIRST not in span.to_json() and SECOND not in span.to_json()


async def test_failures_end_the_span_with_their_class_and_no_message(fault_server: FaultServer, seen: Seen) -> None:
    llm = trial(fault_server)
    fault_server.script(Fault(400, body={"error": {"message": f"I will not say {SECRET}"}}))
    for name in ("trial/large", "nobody-knows-this"):
        with pytest.raises(LLMError):
            await llm.query(name, prompt="Hello")
    refused, unknown = seen.spans
    for span, kind in ((refused, "InvalidRequestError"), (unknown, "UnknownModelError")):
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == kind
        assert span.attributes is not None and span.attributes["error.type"] == kind
        assert SECRET not in span.to_json()
    (duration,) = seen.points("gen_ai.client.operation.duration")
    assert duration.attributes["error.type"] == "InvalidRequestError"
    assert seen.points("gen_ai.client.token.usage") == []


async def test_a_cancelled_query_ends_its_span(fault_server: FaultServer, seen: Seen) -> None:
    fault_server.script(Fault(stall=30))
    task = asyncio.create_task(trial(fault_server).query("trial/large", prompt="Hello"))
    while not fault_server.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen.span.attributes is not None
    assert seen.span.attributes["error.type"] == "CancelledError"
    assert seen.span.attributes["llm_master.ended"] == "cancelled"


async def test_a_stream_is_a_span_to_its_end(fault_server: FaultServer, seen: Seen) -> None:
    async with trial(fault_server).stream("trial/large", prompt="Hello") as stream:
        async for _ in stream:
            assert seen.spans == []
    span = seen.span
    assert span.attributes is not None and stream.response.receipt is not None
    assert span.attributes["gen_ai.request.stream"] is True
    first = stream.response.receipt.attempts[0].first_delta
    assert span.attributes["gen_ai.response.time_to_first_chunk"] == first
    assert span.attributes["gen_ai.usage.output_tokens"] == stream.response.usage.output_tokens
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    (point,) = seen.points("gen_ai.client.operation.time_to_first_chunk")
    assert point.sum == first


async def test_a_stream_that_is_stopped_or_given_up_ends_its_span(fault_server: FaultServer, seen: Seen) -> None:
    llm = trial(fault_server)
    stopped = llm.stream("trial/large", prompt="one two three four")
    await anext(stopped)
    await stopped.stop()
    abandoned = llm.stream("trial/large", prompt="one two three four")
    await anext(abandoned)
    assert len(seen.spans) == 1
    del abandoned
    gc.collect()
    ends = [(span.attributes or {}).get("llm_master.ended") for span in seen.spans]
    assert ends == ["stopped by the caller", "abandoned"]
    assert all(span.status.status_code is StatusCode.UNSET for span in seen.spans)
    await asyncio.sleep(0.05)  # the abandoned connection closes


async def test_a_stream_that_breaks_ends_its_span_with_the_error(fault_server: FaultServer, seen: Seen) -> None:
    fault_server.script(Fault(200, reset_after=400))
    with pytest.raises(LLMError) as raised:
        async for _ in trial(fault_server).stream("trial/large", prompt="one two three four five six seven eight nine ten"):
            pass
    assert seen.span.attributes is not None
    assert seen.span.attributes["error.type"] == type(raised.value).__name__


async def test_a_stream_stopped_while_it_connects_ends_its_span_once(fault_server: FaultServer, seen: Seen) -> None:
    fault_server.script(Fault(stall=30))
    told: list[Any] = []
    stream = trial(fault_server, on_attempt=lambda attempt, receipt: told.append(attempt.then)).stream("trial/large", prompt="Hello")

    async def read() -> list[str]:
        return [text async for text in stream]

    task = asyncio.create_task(read())
    while not fault_server.requests:
        await asyncio.sleep(0.01)
    await stream.stop()
    assert await task == []
    assert told == ["stopped by the caller"]
    assert seen.span.attributes is not None
    assert seen.span.attributes["llm_master.ended"] == "stopped by the caller"


async def test_spans_nest_and_never_leak_into_the_callers_context(
    fault_server: FaultServer, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    inside: list[Any] = []
    llm = trial(fault_server, on_attempt=lambda attempt, receipt: inside.append(trace.get_current_span().get_span_context().span_id))
    with trace.get_tracer("program").start_as_current_span("work") as work:
        before = context.get_current()
        await llm.query("trial/large", prompt="Hello")
        assert context.get_current() == before
        await asyncio.gather(*(llm.query("trial/large", prompt="Hello") for _ in range(3)))
        stream = llm.stream("trial/large", prompt="Hello")
        async for _ in stream:
            assert trace.get_current_span() is work
        one, other = llm.stream("trial/large", prompt="one two"), llm.stream("trial/large", prompt="one two")
        # Two at once, and the task that ends one is not the task that began it.
        await anext(one), await anext(other)

        async def rest(stream: Any) -> None:
            async for _ in stream:
                pass

        await asyncio.gather(rest(one), rest(other))
        with pytest.raises(LLMError):
            await llm.query("trial/large", prompt="Hello", deadline=1e-9)
        assert context.get_current() == before
        assert trace.get_current_span() is work
    spans = [span for span in seen.spans if span.name.startswith("chat")]
    assert len(spans) == 8
    for span in spans:
        assert span.parent is not None and span.parent.span_id == work.get_span_context().span_id
    # While a query is under way, its span is the current one: what sends the request belongs beneath it.
    assert inside[:4].count(work.get_span_context().span_id) == 0
    assert set(inside[:4]) <= {span.context.span_id for span in spans}
    assert [record.getMessage() for record in caplog.records if record.name.startswith("opentelemetry")] == []


async def test_a_query_that_is_judged_first_has_the_judgement_beneath_it(seen: Seen, documented: Any) -> None:
    PROVIDER_CONFIGS["trial"] = ProviderConfig(base_url=documented.base_url, api_key="a-key-for-the-test")
    llm = QueryLLM(moderation_model="trial/judge")
    await llm.query("trial/large", prompt="Hello", moderation=True)
    judged, asked = seen.spans
    assert (judged.name, asked.name) == ("moderate judge", "chat large")
    assert judged.parent is not None and judged.parent.span_id == asked.context.span_id
    assert asked.parent is None


async def test_a_repaired_answer_is_one_span_and_all_its_tokens_are_counted(fault_server: FaultServer, seen: Seen) -> None:
    fault_server.script(Fault(answer="no number", usage={"prompt_tokens": 5, "completion_tokens": 2}), Fault(answer='{"value": 7}'))
    llm = trial(fault_server, metrics=True)
    answer = await llm.query("trial/large", prompt="A number", response_format=int, repair=True)
    assert answer.parsed == 7
    assert seen.span.attributes is not None
    assert seen.span.attributes["llm_master.attempts"] == 2
    counted = {row["kind"]: row["value"] for row in prometheus.snapshot()["llm_master_tokens_total"]}
    assert counted["input"] == 5 + (answer.usage.input_tokens or 0)
    assert prometheus.snapshot()["llm_master_queries_total"] == [{"provider": "trial", "model": "large", "error": "", "value": 1}]


async def test_content_is_told_only_where_it_is_asked_for(fault_server: FaultServer, seen: Seen) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": SECRET}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "a bird"},
    ]
    answer = await trial(fault_server, telemetry="content").query("trial/large", messages)
    assert seen.span.attributes is not None
    asked = json.loads(str(seen.span.attributes["gen_ai.input.messages"]))
    assert asked == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": SECRET}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "look", "arguments": '{"at": 1}'}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "a bird"}]},
    ]
    answered = json.loads(str(seen.span.attributes["gen_ai.output.messages"]))
    assert answered == [{"role": "assistant", "parts": [{"type": "text", "content": answer.content}], "finish_reason": "stop"}]


@pytest.mark.parametrize(
    ("ask", "operation"),
    [
        (lambda llm: llm.embed("trial/vectors", ["a", "b"]), "embeddings"),
        (lambda llm: llm.moderate("a text", "trial/judge"), "moderate"),
        (lambda llm: llm.rerank("trial/ranks", "a", ["b", "c"]), "rerank"),
    ],
)
async def test_other_operations_have_their_own_names(ask: Any, operation: str, fault_server: FaultServer, seen: Seen) -> None:
    try:
        await ask(trial(fault_server))
    except LLMError:
        pass  # the fault server does not know all of them: seen is what was asked
    assert seen.span.attributes is not None
    assert seen.span.attributes["gen_ai.operation.name"] == operation
    assert seen.span.name.startswith(operation)


async def test_options_under_a_providers_own_names_are_told_by_the_conventions(seen: Seen, documented: Any) -> None:
    for name, options in (("gemini", {"max_tokens": 9, "top_p": 0.5}), ("anthropic", {"max_completion_tokens": 9, "stop": ["END"]})):
        llm = QueryLLM(**{f"{name}_api_key": "a-key-for-the-test", f"{name}_api_base": documented.base_url})
        await llm.query(f"{name}/some-model", prompt="Hello", **options)
    gemini, anthropic = (dict(span.attributes or {}) for span in seen.spans)
    assert gemini["gen_ai.provider.name"] == "gcp.gemini"
    assert gemini["gen_ai.request.max_tokens"] == anthropic["gen_ai.request.max_tokens"] == 9
    assert gemini["gen_ai.request.top_p"] == 0.5
    assert anthropic["gen_ai.request.stop_sequences"] == ("END",)


async def test_it_is_on_once_the_program_has_it_set_up_and_off_where_it_is_told_so(
    fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = trial(fault_server)
    await llm.query("trial/large", prompt="Hello")
    assert llm._engine.hooks is None
    exporter, tracers = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", tracers)
    await llm.query("trial/large", prompt="Hello")
    await trial(fault_server, telemetry=False).query("trial/large", prompt="Hello")
    assert len(exporter.get_finished_spans()) == 1
    tracers.shutdown()


PROGRAM = """
import asyncio, sys
from llm_master import QueryLLM
asyncio.run(QueryLLM().query("mock/echo", prompt="Hello"))
assert not [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]
sys.modules["opentelemetry"] = None
try:
    QueryLLM(telemetry=True)
except Exception as exc:
    print(type(exc).__name__, exc)
"""


def test_a_program_that_does_not_use_it_never_loads_it_and_one_that_lacks_it_is_told(tmp_path: Any) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=os.environ, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{ConfigurationError.__name__} telemetry is asked for")
    assert "pip install 'llm_master[otel]'" in done.stdout
