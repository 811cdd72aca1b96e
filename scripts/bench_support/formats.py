"""What the other wire formats cost over OpenAI's, of which the same engine makes the same answers."""

from __future__ import annotations

from statistics import median

from bench_support.processes import Process, client_processes, upstream
from bench_support.report import Row, Section
from bench_support.wire_formats import FORMATS

ROUNDS = 7
LIMIT_CALL = 40.0
LIMIT_CHUNK = 3.0
LABELS = {"llm_master": "OpenAI's", **{f"llm_master:{name}": form.label for name, form in FORMATS.items()}}
PIECES = 1000


def measure(*, full: bool) -> Section:
    """One call at 32 in flight, and one chunk of a long stream."""
    count = ROUNDS * 2 + 1 if full else ROUNDS
    section = Section(f"Wire formats: CPU over OpenAI's, median of {count} interleaved rounds' differences", "")
    with upstream() as address, client_processes(list(LABELS), address) as processes:
        for what, one_round, limit in (("one call", _calls, LIMIT_CALL), ("one chunk", _chunks, LIMIT_CHUNK)):
            rounds = [one_round(processes, number) for number in range(count)]
            for client, label in LABELS.items():
                over = median(figures[client] - figures["llm_master"] for figures in rounds)
                cost = median(figures[client] for figures in rounds)
                first = client == "llm_master"
                section.rows.append(
                    Row(
                        f"{what} in {label} format: {'in all' if first else 'over it'}",
                        cost if first else over,
                        "µs",
                        limit=None if first else limit,
                        limits="value",
                    )
                )
    return section


def _calls(processes: dict[str, Process], number: int) -> dict[str, float]:
    return {
        name: processes[name].order("calls", count=1024, in_flight=32, warm_up=32)["cpu"] * 1e6
        for name in list(processes)[:: -1 if number % 2 else 1]
    }


def _chunks(processes: dict[str, Process], number: int) -> dict[str, float]:
    figures = {}
    for name in list(processes)[:: -1 if number % 2 else 1]:
        found = processes[name].order("stream", count=30, in_flight=1, path=f"/n{PIECES}")
        if found["pieces"] != PIECES:
            raise RuntimeError(f"{name} has not got all pieces of a stream")
        figures[name] = found["cpu"] * 1e6
    return figures
