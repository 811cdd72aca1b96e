"""The command line of the bench."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from bench_support import calls, dispatch, embeddings, formats, imports, install, memory, observe, pending, routes, shared, stream
from bench_support.report import Row, Section, print_section

SECTIONS: dict[str, Callable[..., Section]] = {
    "calls": calls.measure,
    "stream": stream.measure,
    "dispatch": dispatch.measure,
    "routes": routes.measure,
    "observe": observe.measure,
    "formats": formats.measure,
    "embeddings": embeddings.measure,
    "imports": imports.measure,
    "memory": memory.measure,
    "pending": pending.measure,
    "limits": dispatch.measure_strict,
    "shared": shared.measure,
    "install": install.measure,
}

SLOW = {"install", "limits", "shared"}
"""Left out unless named or ``--full``."""


def main() -> int:
    """Run the sections that were asked for; print each when it is done."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="What llm_master costs, beside raw aiohttp and the openai SDK.")
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"of: {', '.join(SECTIONS)}; all but {', '.join(SLOW)} if none is named"
    )
    parser.add_argument("--full", action="store_true", help="also what is slow")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures there")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a limit is missed or could not be measured")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.sections if name not in SECTIONS]:
        parser.error(f"no section is called {unknown[0]!r}: name some of {', '.join(SECTIONS)}")
    rows: list[tuple[str, Row]] = []
    for name, measure in SECTIONS.items():
        if name in arguments.sections or (not arguments.sections and (arguments.full or name not in SLOW)):
            section = measure(full=arguments.full)
            print_section(section)
            rows += [(name, row) for row in section.rows]
    if arguments.json:
        arguments.json.write_text(json.dumps([{"section": name, **row.as_json()} for name, row in rows], indent=2) + "\n")
    missed = [row for _, row in rows if row.verdict not in ("", "PASS")]
    return 1 if missed and arguments.check else 0


sys.exit(main())
