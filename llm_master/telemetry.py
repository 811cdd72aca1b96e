"""OpenTelemetry: a span for each query, and the metrics of the GenAI conventions.

Names are those of https://github.com/open-telemetry/semantic-conventions-genai (docs/gen-ai/gen-ai-spans.md and gen-ai-metrics.md),
as of 2026. What these have no name for begins with ``llm_master.``. Only the API is imported here: where the program has no SDK set
up, all of it does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
from opentelemetry import context as context_api
from opentelemetry import metrics, trace

from llm_master.types import Attempt, LLMResponse, Receipt, Usage

if TYPE_CHECKING:
    from llm_master.dispatch.call import Call

_OPERATIONS = {"embed": "embeddings", "rerank": "rerank", "moderate": "moderate", "speech": "generate_content"}
"""Method of the provider -> ``gen_ai.operation.name``. For rankings and judgements there is none: a name of one's own is allowed."""

_REQUEST = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
    "stop": "gen_ai.request.stop_sequences",
    "stop_sequences": "gen_ai.request.stop_sequences",
    "n": "gen_ai.request.choice.count",
}
"""Option -> attribute."""

_USAGE = (
    ("input_tokens", "gen_ai.usage.input_tokens"),
    ("output_tokens", "gen_ai.usage.output_tokens"),
    ("cached_tokens", "gen_ai.usage.cache_read.input_tokens"),
    ("cache_write_tokens", "gen_ai.usage.cache_creation.input_tokens"),
    ("reasoning_tokens", "gen_ai.usage.reasoning.output_tokens"),
)

_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)


_NO_SPAN = context_api.set_value("llm_master", "no span", context_api.Context())
"""Where counts of tokens are recorded: without an exemplar, which the duration has already, and which costs two microseconds."""


class _Instruments(NamedTuple):
    tracer: Any
    duration: Any
    first: Any
    tokens: Any


@lru_cache(maxsize=4)
def _instruments(tracers: Any, meters: Any) -> _Instruments:
    """Made once for each pair of providers, whatever the number of engines."""
    meter = meters.get_meter("llm_master")

    def histogram(name: str, unit: str, said: str, buckets: tuple[float, ...]) -> Any:
        return meter.create_histogram(name, unit=unit, description=said, explicit_bucket_boundaries_advisory=buckets)

    return _Instruments(
        tracers.get_tracer("llm_master"),
        histogram("gen_ai.client.operation.duration", "s", "GenAI operation duration.", _SECONDS),
        histogram("gen_ai.client.operation.time_to_first_chunk", "s", "Time to receive the first chunk.", _SECONDS),
        histogram("gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.", _TOKENS),
    )


class _State:
    """One query under way."""

    __slots__ = ("answered", "attributes", "began", "clock", "context", "has_body", "last", "span", "token")

    def __init__(self, span: Any, context: Any, attributes: dict[str, Any], call: Call) -> None:
        self.span = span
        self.context = context
        self.token = context_api.attach(context)
        # Those of the metrics. Where the server is, the span says: each attribute of a record costs the SDK a microsecond or two.
        self.attributes = attributes
        self.clock = call.clock
        self.began = call.clock.monotonic()
        self.has_body = call.operation is None and call.target.route.generator is None
        self.last: Attempt | None = None


class Telemetry:
    """An observer that makes spans and metrics of what it sees.

    Args:
        names: Provider -> what the conventions call it.
        content: Whether spans hold what was asked and answered. It goes wherever spans go.
    """

    def __init__(self, names: Mapping[str, str], *, content: bool) -> None:
        self._names = names
        self._content = content
        self._with = _instruments(trace.get_tracer_provider(), metrics.get_meter_provider())

    def refused(self, model_name: str, error: Exception) -> None:
        """A span of a query that could not be begun, without a length; no metrics, whose labels must be few."""
        attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": str(model_name), "error.type": type(error).__name__}
        span = self._with.tracer.start_span(f"chat {model_name}", kind=trace.SpanKind.CLIENT, attributes=attributes)
        span.set_status(trace.StatusCode.ERROR, type(error).__name__)
        span.end()

    def began(self, call: Call, *, stream: bool) -> _State:
        """Open the span, and make it the current one: what the request itself does belongs beneath it."""
        route = call.target.route
        operation = _OPERATIONS[call.operation] if call.operation is not None else "chat" if route.generator is None else "generate_content"
        common: dict[str, Any] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": self._names.get(route.provider, route.provider),
            "gen_ai.request.model": route.model,
        }
        asked = dict(common)
        address, port = _server(call.target.row.base_url)
        if address is not None:
            asked["server.address"] = address
            asked["server.port"] = port
        if stream:
            asked["gen_ai.request.stream"] = True
        if options := call.options:
            _add_options(asked, options, call.receipt.renamed)
        span = self._with.tracer.start_span(f"{operation} {route.model}", kind=trace.SpanKind.CLIENT, attributes=asked)
        if self._content and call.operation is None and span.is_recording():
            from llm_master.telemetry_content import asked_for

            span.set_attributes(asked_for(call.messages))
        return _State(span, trace.set_span_in_context(span), common, call)

    def left(self, state: _State) -> None:
        """The task's context is again what it was."""
        # A coroutine that is collected as garbage ends in a context that has never been ours.
        if context_api.get_current() is state.context:
            context_api.detach(state.token)

    def attempt(self, state: _State, attempt: Attempt, receipt: Receipt, response: Any) -> None:
        """An event for each attempt that brought no answer; of the others the span itself tells."""
        state.last = attempt
        if attempt.first_delta is not None:
            attributes = {**state.attributes, "gen_ai.response.model": attempt.model_served or attempt.model}
            self._with.first.record(attempt.first_delta, attributes, context=state.context)
        if attempt.error is None or not state.span.is_recording():
            return
        event = {
            "llm_master.attempt": len(receipt.attempts),
            "gen_ai.provider.name": self._names.get(attempt.provider, attempt.provider),
            "gen_ai.request.model": attempt.model,
            "llm_master.key": attempt.key,
            "llm_master.wait": attempt.wait,
            "llm_master.latency": attempt.latency,
            "llm_master.then": attempt.then,
            "http.response.status_code": attempt.status,
            # Not the message, which may repeat what was asked.
            "error.type": attempt.error_type,
        }
        state.span.add_event("llm_master.attempt", {name: value for name, value in event.items() if value is not None})

    def ended(self, state: _State, receipt: Receipt, response: Any, error: BaseException | None) -> None:
        """Close the span, and record the metrics."""
        span, last, instruments = state.span, state.last, self._with
        common = state.attributes
        told: dict[str, Any] = {}
        if last is not None:
            if last.model != common["gen_ai.request.model"] or len(receipt.attempts) > 1:
                # Whoever answered, where that was a fallback.
                told["gen_ai.provider.name"] = self._names.get(last.provider, last.provider)
                told["gen_ai.request.model"] = last.model
            if last.model_served is not None:
                told["gen_ai.response.model"] = last.model_served
        common.update(told)
        usage: Usage | None = response.usage if response is not None else None
        if usage is not None:
            for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                if count is not None:
                    instruments.tokens.record(count, {**common, "gen_ai.token.type": kind}, context=_NO_SPAN)
        if error is not None:
            told["error.type"] = common["error.type"] = type(error).__name__
        instruments.duration.record(state.clock.monotonic() - state.began, common, context=state.context)
        if span.is_recording():
            if last is not None:
                _add_attempt(told, last, len(receipt.attempts))
            if usage is not None:
                for field, name in _USAGE:
                    if (count := getattr(usage, field)) is not None:
                        told[name] = count
            if receipt.cost is not None:
                told["llm_master.cost"] = float(receipt.cost)
                told["llm_master.currency"] = receipt.currency
            if response.__class__ is LLMResponse:
                if response.finish_reason is not None:
                    told["gen_ai.response.finish_reasons"] = (response.finish_reason,)
                if state.has_body and (found := _id(response)) is not None:
                    told["gen_ai.response.id"] = found
                if self._content:
                    from llm_master.telemetry_content import answered

                    told |= answered(response)
            span.set_attributes(told)
            if error is not None:
                span.set_status(trace.StatusCode.ERROR, type(error).__name__)
        span.end()


def _add_options(attributes: dict[str, Any], options: Mapping[str, Any], renamed: Mapping[str, str]) -> None:
    for name, value in options.items():
        if name in _REQUEST:
            _add_option(attributes, _REQUEST[name], value)
    for name, its in renamed.items():
        if name in _REQUEST:
            value = options
            for part in its.split("."):  # as generationConfig.topP
                value = value.get(part) if isinstance(value, Mapping) else None
            _add_option(attributes, _REQUEST[name], value)


def _add_option(attributes: dict[str, Any], attribute: str, value: Any) -> None:
    if attribute == "gen_ai.request.stop_sequences":
        if value is not None:
            attributes[attribute] = (value,) if isinstance(value, str) else tuple(map(str, value))
    elif isinstance(value, (int, float)) and not (attribute == "gen_ai.request.choice.count" and value == 1):
        attributes[attribute] = value


def _add_attempt(attributes: dict[str, Any], attempt: Attempt, number: int) -> None:
    if number > 1:
        attributes["llm_master.attempts"] = number
    if attempt.key is not None:
        attributes["llm_master.key"] = attempt.key
    if attempt.wait > 0:
        attributes["llm_master.wait"] = attempt.wait
    if attempt.status is not None and attempt.error is not None:
        attributes["http.response.status_code"] = attempt.status
    if attempt.request_id is not None:
        attributes["llm_master.request_id"] = attempt.request_id
    if attempt.first_delta is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = attempt.first_delta
    if attempt.error is None and attempt.then is not None:
        # Stopped by the caller, abandoned, cancelled.
        attributes["llm_master.ended"] = attempt.then


class _Identified(msgspec.Struct):
    """Of an answer's body only its id, by the names that APIs have for it."""

    id: Any = None
    responseId: Any = None  # noqa: N815  # the API's spelling


_identified = msgspec.json.Decoder(_Identified)


def _id(response: LLMResponse) -> str | None:
    if response.wire is None or response.wire.body is None:
        return None
    try:
        found = _identified.decode(response.wire.body)
    except msgspec.DecodeError:
        return None  # a body that is no JSON object has no id
    value = found.id or found.responseId
    return value if isinstance(value, str) else None


@lru_cache(maxsize=256)
def _server(base_url: str | None) -> tuple[str | None, int]:
    parts = urlsplit(base_url or "")
    return parts.hostname, parts.port or (80 if parts.scheme == "http" else 443)
