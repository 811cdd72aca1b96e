"""What it costs a call to be observed: counted for Prometheus, told to OpenTelemetry, or neither."""

from __future__ import annotations

from statistics import median

from bench_support.processes import Process, client_processes, upstream
from bench_support.report import Row, Section
from bench_support.wire import TEXT

ROUNDS = 15
LABELS = {
    "llm_master_silent": ("telemetry=False", None),
    "llm_master": ("as it comes: OpenTelemetry is looked for, and the program has none", 1.0),
    "llm_master_metrics": ("metrics=True", 10.0),
    "llm_master_spans": ("OpenTelemetry's SDK with spans, which go to nobody in batches", 60.0),
    "llm_master_otel": ("the same with metrics, and a reader", 60.0),
    "llm_master_sdk": ("the SDK told the same by hand, beside a call that nobody observes", None),
}
"""Client -> what it is, and how many microseconds it may cost over the first."""


def measure(*, full: bool) -> Section:
    """With 32 callers: CPU over a client that nobody observes, in the same rounds."""
    count = ROUNDS * 2 + 1 if full else ROUNDS
    section = Section(f"Observed: CPU per call with 32 callers, median of {count} interleaved rounds", "")
    with upstream() as address, client_processes(list(LABELS), address) as processes:
        rounds = [_round(processes, number) for number in range(count)]
    for client, (label, limit) in LABELS.items():
        section.rows.append(Row(label, median(figures[client] for figures in rounds), "µs"))
        if client != "llm_master_silent":
            over = median(figures[client] - figures["llm_master_silent"] for figures in rounds)
            section.rows.append(Row("  over telemetry=False", over, "µs", limit=limit, limits="value"))
    ours = median(figures["llm_master_otel"] - figures["llm_master_sdk"] for figures in rounds)
    section.rows.append(Row("spans and metrics over what the SDK takes for them by itself", ours, "µs", limit=30.0, limits="value"))
    return section


def _round(processes: dict[str, Process], number: int) -> dict[str, float]:
    figures = {}
    for name in list(LABELS)[:: -1 if number % 2 else 1]:
        found = processes[name].order("calls", count=1024, in_flight=32, warm_up=64)
        if found["characters"] != len(TEXT):
            raise RuntimeError(f"{name} has not got the whole answer")
        figures[name] = found["cpu"] * 1e6
    return figures
