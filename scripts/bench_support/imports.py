"""What it costs to start: the CPU time of fresh interpreters that only import something."""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median

from bench_support.processes import plain_environment, scratch
from bench_support.report import Row, Section, middle_half

ROUNDS = 9
REFERENCE = "import asyncio, attrs, msgspec"
LIMITS = {
    "import llm_master": 60.0,
    "from llm_master import QueryLLM, PROVIDER_CONFIGS": 130.0,
    "llm-master --help": 130.0,
}
LIMITS_SET_AT = 59.0
"""What the reference took, in ms, on the machine and in the hour in which the limits were set."""

WHAT = ("pass", REFERENCE, *LIMITS, "import aiohttp", "import openai")


def measure(*, full: bool) -> Section:
    """In rounds, each with a fresh interpreter for everything; a first round fills the file cache and does not count."""
    count = ROUNDS * 2 + 1 if full else ROUNDS
    section = Section(
        f"Start-up: CPU of a fresh interpreter, its own start included, median of {count} interleaved rounds",
        f"{REFERENCE}, which says how fast this machine is",
    )
    rounds = [{what: _cpu(what) for what in WHAT} for _ in range(count + 1)][1:]
    for what in WHAT:
        taken = [figures[what] for figures in rounds]
        known = [(figure, figures[REFERENCE]) for figure, figures in zip(taken, rounds, strict=True) if not isinstance(figure, str)]
        ratios = [figure / reference for figure, reference in known if not isinstance(reference, str)]
        section.rows.append(
            Row(
                "bare interpreter" if what == "pass" else what,
                median(figure for figure, _ in known) * 1e3 if known else None,
                "ms",
                ratio=median(ratios) if ratios else None,
                spread=middle_half(ratios) if len(ratios) > 1 and what != REFERENCE else None,
                limit=LIMITS.get(what),
                limits="value",
                note=next((figure for figure in taken if isinstance(figure, str)), "") or _note(what, ratios),
            )
        )
    return section


def _note(what: str, ratios: list[float]) -> str:
    if what not in LIMITS or not ratios:
        return ""
    return f"{median(ratios) * LIMITS_SET_AT:.0f} ms where the reference takes {LIMITS_SET_AT:g}, as when the limit was set"


def _cpu(what: str) -> float | str:
    """Seconds of CPU, user and system; or why there is no figure."""
    if what.startswith("llm-master"):
        script, *arguments = what.split()
        command = [os.path.join(os.path.dirname(sys.executable), script), *arguments]
    else:
        command = [sys.executable, "-c", what]
    if not os.path.exists(command[0]):
        return f"there is no {os.path.basename(command[0])} yet"
    environment = {name: value for name, value in plain_environment().items() if name != "PYTHONPATH"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, cwd=scratch())
    assert process.stderr is not None
    said = process.stderr.read().decode(errors="replace").strip()
    process.stderr.close()
    # The child's own resources: RUSAGE_CHILDREN would be the sum over all of them.
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        return f"fails: {said.splitlines()[-1] if said else f'exit code {process.returncode}'}"
    return used.ru_utime + used.ru_stime
