"""What this process has counted, as Prometheus text and as plain data.

Counted is what goes through a ``QueryLLM`` with ``metrics=True`` (or ``LLM_MASTER_METRICS=true``). Of the others nothing is, and
they pay nothing for it. The text is Prometheus' exposition format 0.0.4:
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from llm_master.dispatch.status import CONDITIONS, KeyStatus

if TYPE_CHECKING:
    from llm_master.dispatch.call import Call
    from llm_master.types import Attempt, Receipt, Usage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The header that goes with :func:`text`."""

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds: models take from a tenth of a second to many minutes."""

MODELS = 1000
"""Pairs of provider and model that are counted apart. Names may come from users' input; the rest counts as ``other``."""


class Source(Protocol):
    """Whoever knows how keys stand."""

    def states(self) -> list[KeyStatus]:
        """How each key stands with each model."""


class Sample(NamedTuple):
    """One line: what stands behind the name, the labels, the number."""

    suffix: str
    labels: Mapping[str, str]
    value: int | float | Decimal


class Family(NamedTuple):
    """One metric with all its samples."""

    name: str
    kind: str
    help: str
    samples: list[Sample]


class _Histogram:
    __slots__ = ("buckets", "sum")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.buckets[bisect_left(BUCKETS, value)] += 1
        self.sum += value

    def samples(self, labels: Mapping[str, str]) -> Iterator[Sample]:
        total = 0
        for most, count in zip((*map(_number, BUCKETS), "+Inf"), self.buckets, strict=True):
            total += count
            yield Sample("_bucket", {**labels, "le": most}, total)
        yield Sample("_sum", labels, self.sum)
        yield Sample("_count", labels, total)


class _Model:
    """What was counted of one model of one provider."""

    __slots__ = ("cost", "duration", "first", "queries", "requests", "tokens", "waits")

    def __init__(self) -> None:
        self.queries: Counter[str] = Counter()
        self.requests: Counter[tuple[int | None, str]] = Counter()
        self.duration = _Histogram()
        self.first: _Histogram | None = None
        self.tokens: Counter[str] = Counter()
        self.cost: dict[str, Decimal] = {}
        # reason -> how often, and seconds.
        self.waits: dict[str, list[float]] = {}


class Metrics:
    """An observer of queries that counts."""

    def __init__(self) -> None:
        # Reentrant: a stream that is collected as garbage is counted in whatever thread that happens.
        self._lock = threading.RLock()
        self._models: dict[tuple[str, str], _Model] = {}
        self._sources: weakref.WeakSet[Source] = weakref.WeakSet()

    def watch(self, source: Source) -> None:
        """Show how these keys stand, as long as there are they."""
        with self._lock:
            self._sources.add(source)

    def clear(self) -> None:
        """Forget all that was counted. For tests: to Prometheus it looks like a new process."""
        with self._lock:
            self._models.clear()
            self._sources.clear()

    # As an observer. The lock is taken once for each.

    def refused(self, model_name: str, error: Exception) -> None:
        """A query that has no provider; its model's name may be anything, and is left out."""
        del model_name
        with self._lock:
            self._model("", "").queries[type(error).__name__] += 1

    def began(self, call: Call, *, stream: bool) -> tuple[str, str]:
        """The query belongs to the model that was asked for, whoever answers."""
        del stream
        route = call.target.route
        return route.provider, route.model

    def left(self, state: tuple[str, str]) -> None:
        """Nothing to be undone."""

    def attempt(self, state: tuple[str, str], attempt: Attempt, receipt: Receipt, response: Any) -> None:
        """Count a request."""
        del state
        error = "" if attempt.then is None else attempt.error_type or attempt.then.partition(" ")[0]
        with self._lock:
            model = self._models.get((attempt.provider, attempt.model)) or self._model(attempt.provider, attempt.model)
            model.requests[attempt.status, error] += 1
            if not error and attempt.latency is not None:
                model.duration.add(attempt.latency)
            if attempt.first_delta is not None:
                if model.first is None:
                    model.first = _Histogram()
                model.first.add(attempt.first_delta)
            if attempt.wait > 0:
                reason = "failure" if len(receipt.attempts) > 1 else "limit"
                waited = model.waits.setdefault(reason, [0, 0.0])
                waited[0] += 1
                waited[1] += attempt.wait
            if attempt.cost is not None:
                currency = receipt.currency
                model.cost[currency] = model.cost.get(currency, _ZERO) + attempt.cost
            if response is not None:
                usage: Usage = response.usage
                tokens = model.tokens
                # One by one, which takes half the time of a loop over their names.
                if count := usage.input_tokens:
                    tokens["input"] += count
                if count := usage.output_tokens:
                    tokens["output"] += count
                if count := usage.cached_tokens:
                    tokens["cached"] += count
                if count := usage.cache_write_tokens:
                    tokens["cache_write"] += count
                if count := usage.reasoning_tokens:
                    tokens["reasoning"] += count

    def ended(self, state: tuple[str, str], receipt: Receipt, response: Any, error: BaseException | None) -> None:
        """Count a query."""
        del response
        name = ""
        if error is not None:
            name = "cancelled" if not isinstance(error, Exception) else type(error).__name__
        elif receipt.attempts and (then := receipt.attempts[-1].then) is not None and receipt.attempts[-1].error is None:
            name = then.partition(" ")[0]  # stopped, abandoned
        with self._lock:
            (self._models.get(state) or self._model(*state)).queries[name] += 1

    def _model(self, provider: str, name: str) -> _Model:
        model = self._models.get((provider, name))
        if model is None:
            if len(self._models) >= MODELS:
                provider = name = "other"
            model = self._models.setdefault((provider, name), _Model())
        return model

    # What was counted.

    def families(self) -> list[Family]:
        """All of it, as it is now."""
        with self._lock:
            counted = [({"provider": provider, "model": name}, model) for (provider, name), model in list(self._models.items())]
            found = list(_counted(counted))
            sources = list(self._sources)
        found += _standing([source.states() for source in sources])
        return [family for family in found if family.samples]


def _counted(models: Iterable[tuple[dict[str, str], _Model]]) -> Iterator[Family]:
    models = list(models)

    def family(name: str, kind: str, said: str, samples: Iterable[Sample]) -> Family:
        return Family(f"llm_master_{name}", kind, said, list(samples))

    yield family(
        "queries_total",
        "counter",
        "Queries that have ended, by the error that they ended with; empty for an answer.",
        (Sample("", {**labels, "error": error}, count) for labels, model in models for error, count in model.queries.items()),
    )
    yield family(
        "requests_total",
        "counter",
        "Requests, each attempt of a query, by HTTP status and error; empty where there was none.",
        (
            Sample("", {**labels, "status": "" if status is None else str(status), "error": error}, count)
            for labels, model in models
            for (status, error), count in model.requests.items()
        ),
    )
    yield family(
        "request_duration_seconds",
        "histogram",
        "From sending to the whole answer, of requests that were answered.",
        (sample for labels, model in models if any(model.duration.buckets) for sample in model.duration.samples(labels)),
    )
    yield family(
        "time_to_first_token_seconds",
        "histogram",
        "From sending to the first piece, of streams.",
        (sample for labels, model in models if model.first is not None for sample in model.first.samples(labels)),
    )
    yield family(
        "tokens_total",
        "counter",
        "Tokens that providers counted; input includes cached and cache_write, output includes reasoning.",
        (Sample("", {**labels, "kind": kind}, count) for labels, model in models for kind, count in model.tokens.items()),
    )
    yield family(
        "cost_total",
        "counter",
        "What requests cost, where that is known.",
        (Sample("", {**labels, "currency": currency}, cost) for labels, model in models for currency, cost in model.cost.items()),
    )
    yield family(
        "waits_total",
        "counter",
        "Requests that waited before they were sent: for a limit, or after a failure.",
        (Sample("", {**labels, "reason": reason}, int(count)) for labels, model in models for reason, (count, _) in model.waits.items()),
    )
    yield family(
        "wait_seconds_total",
        "counter",
        "How long they waited.",
        (Sample("", {**labels, "reason": reason}, waited) for labels, model in models for reason, (_, waited) in model.waits.items()),
    )


def _standing(engines: Iterable[list[KeyStatus]]) -> list[Family]:
    """How keys stand, those of several engines together."""
    in_flight: Counter[tuple[str, str]] = Counter()
    queues: Counter[str] = Counter()
    conditions: dict[tuple[str, str], set[str]] = {}
    for statuses in engines:
        # Every model tells the same of a key, and every key the same of a model's queue.
        in_flight.update({(status.provider, status.key or ""): status.in_flight for status in statuses})
        for (provider, _), waiting in {(status.provider, status.model): status.waiting for status in statuses}.items():
            queues[provider] += waiting
        for status in statuses:
            conditions.setdefault((status.provider, status.key or ""), set()).add(status.condition)
    return [
        Family(
            "llm_master_in_flight",
            "gauge",
            "Requests under way.",
            [Sample("", {"provider": provider, "key": key}, count) for (provider, key), count in in_flight.items()],
        ),
        Family(
            "llm_master_key_state",
            "gauge",
            "1 if the key is in this state: available for all models asked, any other for at least one.",
            [
                Sample(
                    "",
                    {"provider": provider, "key": key, "state": state},
                    int(state in found and (state != "available" or len(found) == 1)),
                )
                for (provider, key), found in conditions.items()
                for state in CONDITIONS
            ],
        ),
        Family(
            "llm_master_queue_length",
            "gauge",
            "Queries that wait for a key or a limit.",
            [Sample("", {"provider": provider}, count) for provider, count in queues.items()],
        ),
    ]


def _number(value: float | Decimal) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else repr(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def text() -> str:
    """All that was counted, in Prometheus' text format. Goes with :data:`CONTENT_TYPE`."""
    lines = []
    for name, kind, said, samples in METRICS.families():
        lines += [f"# HELP {name} {said}", f"# TYPE {name} {kind}"]
        for suffix, labels, value in samples:
            told = ",".join(f'{label}="{_escaped(its)}"' for label, its in labels.items())
            lines.append(f"{name}{suffix}{{{told}}} {_number(value)}")
    return "".join(f"{line}\n" for line in lines)


def snapshot() -> dict[str, list[dict[str, Any]]]:
    """The same as data: name -> a list of dicts, each with its labels and ``value``. Of a histogram, by ``_bucket``, ``_sum``, ``_count``."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, _, _, samples in METRICS.families():
        for suffix, labels, value in samples:
            found.setdefault(name + suffix, []).append({**labels, "value": value})
    return found


_ZERO = Decimal(0)
METRICS = Metrics()
"""All that this process has counted, of all engines."""
