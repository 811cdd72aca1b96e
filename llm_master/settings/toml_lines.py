"""On which line each key of a TOML document stands, which the standard library's reader does not say.

The document has been read by that reader before, so nothing is checked here: what is no TOML is passed over.
"""

from __future__ import annotations

import re

from llm_master.settings.document import Place

# Possessive, so that no text takes longer than its length.
_TOKEN = re.compile(
    r"""
    (?: [ \t\r]++ | \#[^\n]*+ )*+
    (?:
        (?P<end> \n )
      | (?P<mark> [\[\]{}=,.] )
      | (?P<bare> [^\s\[\]{}=,."'\#]++ )
      | (?P<text>
            "{3} (?: [^"\\]++ | \\. | "{1,2}(?!") )*+ "{3,5}
          | '{3} (?: [^']++ | '{1,2}(?!') )*+ '{3,5}
          | " (?: [^"\\\n]++ | \\. )*+ "
          | '[^'\n]*+'
        )
    )
    """,
    re.VERBOSE | re.DOTALL,
)


def locate(text: str) -> dict[Place, int]:
    """The line of each key, table header and list item of a TOML document.

    A key that was made by a longer one (``a`` of ``a.b = 1`` or of ``[a.b]``) has the line of the first that made it.
    """
    lines: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    line = 1
    table: Place = ()  # the table whose header came last
    place: Place = ()  # what the value being read is called
    parts: list[str] = []  # of the key or header being read
    brackets = 0  # that opened the header being read
    in_value = False
    # Lists and inline tables that are open: what they are called, and in a list the number of the item.
    nest: list[tuple[Place, int | None]] = []
    for found in _TOKEN.finditer(text + "\n"):
        kind = found.lastgroup
        piece = found[kind] if kind else ""
        if kind == "end":
            if brackets:
                table = _header(parts, line, lines, counts, listed=brackets > 1)
            line += 1
            if not nest:
                in_value, parts, brackets = False, [], 0
        elif not in_value:
            if kind != "mark":
                parts.append(piece if kind == "bare" else _unquoted(piece))
            elif piece == "=":
                start = nest[-1][0] if nest else table
                for part in parts:
                    start = (*start, part)
                    lines.setdefault(start, line)
                place, in_value = start, True
            elif piece == "[":
                brackets += 1
            elif piece == "}":  # of a table with nothing in it, or nothing more
                place, in_value = nest.pop()[0], True
        else:
            if nest and nest[-1][1] is not None and piece not in ("]", ","):
                lines.setdefault(place, line)
            if kind == "text":
                line += piece.count("\n")
            elif piece == "[":
                nest.append((place, 0))
                place = (*place, 0)
            elif piece == "{":
                nest.append((place, None))
                parts, in_value = [], False
            elif piece in ("]", "}"):
                place = nest.pop()[0]
            elif piece == "," and nest:
                outer, index = nest[-1]
                if index is None:
                    parts, in_value = [], False
                else:
                    nest[-1] = (outer, index + 1)
                    place = (*outer, index + 1)
    return lines


def _header(parts: list[str], line: int, lines: dict[Place, int], counts: dict[Place, int], *, listed: bool) -> Place:
    """The table that a header opens; ``listed`` for ``[[...]]``, which adds one to a list of tables."""
    place: Place = ()
    for n, part in enumerate(parts, 1):
        place = (*place, part)
        lines.setdefault(place, line)
        if listed and n == len(parts):
            counts[place] = counts.get(place, 0) + 1
        if place in counts:  # what follows belongs to the last table of the list
            place = (*place, counts[place] - 1)
            lines.setdefault(place, line)
    return place


def _unquoted(piece: str) -> str:
    if piece[0] == '"' and "\\" in piece:
        import tomllib

        return str(tomllib.loads(f"key = {piece}")["key"])
    return piece[1:-1]
