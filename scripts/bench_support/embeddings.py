"""What 10,000 embeddings cost the client's process, beside the openai SDK, which is given the same batches by hand."""

from __future__ import annotations

from bench_support.inputs import COUNT as INPUTS
from bench_support.processes import Process, client_processes, upstream
from bench_support.report import Section, compared

ROUNDS = 5
LABELS = {"aiohttp": "aiohttp + orjson", "llm_master": "llm_master.embed", "openai": "openai SDK"}


def measure(*, full: bool) -> Section:
    """10,000 texts, 1,536 numbers each, as base64 (which all three ask for)."""
    count = ROUNDS * 2 + 1 if full else ROUNDS
    section = Section(
        f"{INPUTS:,} embeddings of 1,536 numbers: CPU of the client process, median of {count} interleaved rounds",
        "aiohttp + orjson, in the same round",
    )
    with upstream() as address, client_processes(list(LABELS), address) as processes:
        rounds = [_round(processes, number) for number in range(count)]
        section.rows += compared(LABELS, rounds, unit="ms", suffix="", limits={})
    return section


def _round(processes: dict[str, Process], number: int) -> dict[str, float]:
    figures = {}
    for name in list(processes)[:: -1 if number % 2 else 1]:
        found = processes[name].order("embed")
        if found["vectors"] != INPUTS:
            raise RuntimeError(f"{name} has not got all vectors")
        figures[name] = found["cpu"] * 1e3
    return figures
