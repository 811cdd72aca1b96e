"""Memory of calls that all wait at once for a slow upstream."""

from __future__ import annotations

from typing import Any

from bench_support.file_limit import raise_file_limit
from bench_support.processes import client_processes, upstream
from bench_support.report import Row, Section

WANTED = 10_000
STEP = 500
RESERVE = 200
"""Files that a process needs for other things than these connections."""

LABELS = {"aiohttp": "aiohttp + orjson", "llm_master": "llm_master", "openai": "openai SDK, its connections unbounded"}


def measure(*, full: bool) -> Section:
    """10,000 calls, or as many as may be open and can be made in time."""
    seconds = 120.0 if full else 10.0
    count = min(WANTED, raise_file_limit() - RESERVE)
    section = Section(
        f"{count:,} calls pending at once: resident memory per call (on loopback, without TLS), at most {seconds:g} s to start them",
        "aiohttp + orjson",
    )
    if count < WANTED:
        section.title += f"; not {WANTED:,}, since this user may open only {count + RESERVE:,} files (ulimit -Hn)"
    reference = None
    with upstream() as address:
        for name, label in LABELS.items():
            with client_processes([name], address) as processes:
                found = processes[name].order("pending", count=count, step=min(STEP, count), seconds=seconds)
            value = found["kilobytes"] / found["held"] if found["held"] else None
            reference = reference or value
            section.rows.append(Row(label, value, "kB", ratio=value / reference if value and reference else None, note=_note(found, count)))
    return section


def _note(found: dict[str, Any], count: int) -> str:
    held, cpu = found["held"], found["cpu"]
    said = f"{held:,} pending" + (" (no more in that time)" if held < count else "")
    if held:
        said += f", {cpu / held * 1e6:,.0f} µs CPU each to start"
    if found["answered"] < found["started"]:
        said += f"; {found['answered']:,} of {found['started']:,} answered in half that time"
    return said
