"""Memory of a process that has imported one client and made a thousand calls with it."""

from __future__ import annotations

from bench_support.processes import client_processes, upstream
from bench_support.report import Row, Section

CALLS = 1000
MORE = 1000
IN_FLIGHT = 32
LIMIT = 55.0

LABELS = {"aiohttp": "aiohttp + orjson", "llm_master": "llm_master", "openai": "openai SDK"}


def measure(*, full: bool) -> Section:
    """The peak, since that is what a container must have; and what more calls add, since memory that grows is a leak."""
    section = Section(f"Memory: peak RSS of a fresh process after {CALLS:,} calls, {IN_FLIGHT} in flight", "aiohttp + orjson")
    reference = None
    with upstream() as address:
        for name, label in LABELS.items():
            with client_processes([name], address) as processes:
                process = processes[name]
                process.order("calls", count=CALLS, in_flight=IN_FLIGHT)
                first = process.order("memory")
                process.order("calls", count=MORE, in_flight=IN_FLIGHT)
                second = process.order("memory")
            peak = first["peak"] / 1024
            reference = reference or peak
            grown = (second["now"] - first["now"]) / 1024
            section.rows.append(
                Row(
                    label,
                    peak,
                    "MB",
                    ratio=peak / reference,
                    limit=LIMIT if name == "llm_master" else None,
                    limits="value",
                    note=f"{first['now'] / 1024:.1f} MB then; {grown:+.1f} MB after {MORE:,} more calls",
                )
            )
    return section
