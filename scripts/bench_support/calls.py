"""What one chat completion costs the client's process.

Each client has a process of its own, and the processes take turns within every round, so that both things hold. Their
own processes: whatever openai or pydantic leave on the heap would make each garbage collection dearer for the others,
and a warm memory allocator cheaper. Turns within a round: these machines are noisy for seconds at a time, so two
figures can be compared only if they were taken side by side; every second round runs the other way about.
"""

from __future__ import annotations

from bench_support.processes import Process, client_processes, upstream
from bench_support.report import Section, compared
from bench_support.wire import TEXT

ROUNDS = 7
LIMIT = 1.6

LABELS = {
    "aiohttp": "aiohttp + orjson",
    "aiohttp_tuned": "aiohttp, tuned by hand",
    "llm_master": "llm_master, object kept",
    "llm_master_new": "llm_master, QueryLLM() per call",
    "openai": "openai SDK",
}
COUNTS = dict.fromkeys(LABELS, 1024) | {"openai": 256}
"""Calls per round: each takes some tenths of a second."""


def measure(*, full: bool) -> Section:
    """At 1, 32 and 256 in flight."""
    section = Section(
        f"One chat completion: CPU of the client process, median of {_rounds(full=full)} interleaved rounds",
        "aiohttp + orjson, in the same round",
    )
    with upstream() as address, client_processes(list(LABELS), address) as processes:
        for in_flight in (1, 32, 256):
            rounds = [_round(processes, in_flight, number) for number in range(_rounds(full=full))]
            section.rows += compared(
                LABELS, rounds, unit="µs", suffix=f", {in_flight} in flight", limits={"llm_master": LIMIT, "llm_master_new": LIMIT}
            )
    return section


def _rounds(*, full: bool) -> int:
    return ROUNDS * 2 + 1 if full else ROUNDS


def _round(processes: dict[str, Process], in_flight: int, number: int) -> dict[str, float]:
    figures = {}
    for name in list(processes)[:: -1 if number % 2 else 1]:
        found = processes[name].order("calls", count=COUNTS[name], in_flight=in_flight, warm_up=max(in_flight, 8))
        if found["characters"] != len(TEXT):
            raise RuntimeError(f"{name} has not got the whole answer")
        figures[name] = found["cpu"] * 1e6
    return figures
