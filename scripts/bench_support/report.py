"""Figures and how they are printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any, Literal


@dataclass
class Row:
    """One line of the table.

    Attributes:
        what: What was measured, of which client.
        value: In ``unit``; ``None`` if it could not be measured.
        ratio: To the section's reference.
        spread: The middle half of the rounds' ratios lies between these.
        limit: What is at most allowed, of the ratio or of the value.
        note: What else a reader must know.
    """

    what: str
    value: float | None
    unit: str
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    limit: float | None = None
    limits: Literal["ratio", "value"] = "ratio"
    note: str = ""

    @property
    def verdict(self) -> str:
        """``PASS`` or ``FAIL``, empty where nothing is demanded."""
        if self.limit is None:
            return ""
        figure = self.ratio if self.limits == "ratio" else self.value
        if figure is None:
            return "ABSENT"
        return "PASS" if figure <= self.limit else "FAIL"

    def as_json(self) -> dict[str, Any]:
        """All of it, with plain values."""
        return {**vars(self), "verdict": self.verdict}


@dataclass
class Section:
    """Rows with one reference in common."""

    title: str
    reference: str
    rows: list[Row] = field(default_factory=list)


def compared(labels: dict[str, str], rounds: Sequence[dict[str, float]], *, unit: str, suffix: str, limits: dict[str, float]) -> list[Row]:
    """Rows for clients that were measured in the same rounds; the first label is the reference.

    The ratio is the median of the rounds' own ratios: what slows the machine down for seconds slows both sides of a
    round, and cancels out.
    """
    reference = next(iter(labels))
    rows = []
    for client, label in labels.items():
        ratios = [figures[client] / figures[reference] for figures in rounds]
        rows.append(
            Row(
                f"{label}{suffix}",
                median(figures[client] for figures in rounds),
                unit,
                ratio=median(ratios),
                spread=None if client == reference else middle_half(ratios),
                limit=limits.get(client),
            )
        )
    return rows


def middle_half(figures: Sequence[float]) -> tuple[float, float]:
    """First and third quartile."""
    first, _, third = quantiles(figures, n=4, method="inclusive")
    return first, third


def print_section(section: Section) -> None:
    """As an aligned table, ratios first."""
    lines = [("ratio", "(half in)", "at most", "", "what", "value", "")]
    for row in section.rows:
        of = "x" if row.limits == "ratio" else row.unit
        lines.append(
            (
                "" if row.ratio is None else f"{row.ratio:.2f}",
                "" if row.spread is None else "({:.2f}-{:.2f})".format(*row.spread),
                "" if row.limit is None else f"{row.limit:g} {of}",
                row.verdict,
                row.what,
                "-" if row.value is None else f"{_rounded(row.value)} {row.unit}".strip(),
                row.note,
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    print(f"\n{section.title}" + (f"\n  ratio: to {section.reference}" if section.reference else ""))
    for line in lines:
        cells = [
            cell.ljust(width) if column in (3, 4, 6) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  " + "  ".join(cells).rstrip(), flush=True)


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
