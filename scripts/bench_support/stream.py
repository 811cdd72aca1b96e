"""What one piece of a streamed answer costs the client's process. Processes and rounds as in ``calls.py``."""

from __future__ import annotations

from typing import NamedTuple

from bench_support.processes import Process, client_processes, upstream
from bench_support.report import Section, compared

ROUNDS = 7
LIMIT = 1.5

LABELS = {"aiohttp": "aiohttp + msgspec", "llm_master": "llm_master", "openai": "openai SDK"}


class _Case(NamedTuple):
    label: str
    path: str
    pieces: int
    in_flight: int
    streams: int
    streams_openai: int


CASES = (
    # The call itself is a good part of this one.
    _Case("of 100, sent at once", "/n100", 100, 1, 200, 20),
    _Case("of 1,000, sent at once", "/n1000", 1000, 1, 40, 2),
    # As models stream: every piece is a packet, and wakes the client up.
    _Case("of 100, 2 ms apart, 8 streams in flight", "/n100/p2", 100, 8, 24, 24),
)


def measure(*, full: bool) -> Section:
    """Streams that are sent at once and streams that are paced."""
    count = ROUNDS * 2 + 1 if full else ROUNDS
    section = Section(
        f"One streamed chunk: CPU of the client process, median of {count} interleaved rounds", "aiohttp + msgspec, in the same round"
    )
    with upstream() as address, client_processes(list(LABELS), address) as processes:
        for case in CASES:
            rounds = [_round(processes, case, number) for number in range(count)]
            section.rows += compared(LABELS, rounds, unit="µs", suffix=f": {case.label}", limits={"llm_master": LIMIT})
    return section


def _round(processes: dict[str, Process], case: _Case, number: int) -> dict[str, float]:
    figures = {}
    for name in list(processes)[:: -1 if number % 2 else 1]:
        streams = case.streams_openai if name == "openai" else case.streams
        found = processes[name].order("stream", count=streams, in_flight=case.in_flight, path=case.path)
        if found["pieces"] != case.pieces:
            raise RuntimeError(f"{name} has not got all pieces of a stream")
        figures[name] = found["cpu"] * 1e6
    return figures
