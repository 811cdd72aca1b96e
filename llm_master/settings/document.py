"""What a settings file is, whatever its format: its text, the lines of its keys, and checks that say where a fault stands."""

from __future__ import annotations

import difflib
import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import attrs

from llm_master.settings.declared import Declared, Sourced

Place: TypeAlias = tuple[str | int, ...]
"""Where a value stands in a document: names of keys and numbers of list items, as ``("providers", 2, "base_url")``."""

MOST_BYTES = 8 * 2**20
"""A file beyond this holds no settings; it was named by mistake, and reading it would take minutes."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")


@attrs.frozen
class Text:
    """A file as it was read.

    Attributes:
        name: The file as it is called in faults and origins.
        content: Its text, without a byte-order mark.
        shared: Whether its group or others may read it.
    """

    name: str
    content: str = attrs.field(repr=False)
    shared: bool


def name_of(path: Path) -> str:
    """A file as people know it: its name where it lies in the working folder, else the path as given."""
    try:
        here = os.getcwd()
    except FileNotFoundError:  # the folder was removed
        return str(path)
    return path.name if os.path.dirname(os.path.abspath(path)) == here else str(path)


def read_text(path: Path, declared: Declared) -> Text | None:
    """Read a settings file; ``None`` where it cannot be, and then ``declared`` says why."""
    name = name_of(path)
    try:
        # Before it is opened: to open a pipe is to wait for somebody to write.
        if not stat.S_ISREG(os.stat(path).st_mode):
            kind = "a folder" if os.path.isdir(path) else "no ordinary file"
            declared.faults.append(f"{name}: is {kind}: put a text file in its place, or remove it")
            return None
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MOST_BYTES + 1)
    except OSError as exc:
        declared.faults.append(f"{name}: cannot be read ({exc.strerror or type(exc).__name__}): make it readable to you, or remove it")
        return None
    if len(data) > MOST_BYTES:
        declared.faults.append(f"{name}: is larger than {MOST_BYTES} bytes, which no settings are: name another file")
        return None
    try:
        # utf-8-sig: editors on Windows begin a file with a byte-order mark, which would join the first key.
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        declared.faults.append(f"{name}:{line}: is no UTF-8: save the file as UTF-8")
        return None
    return Text(name, content, shared=os.name == "posix" and bool(mode & 0o077))


def spelt(place: Place) -> str:
    """A place as it is written: ``providers[2].base_url``, ``models."acme/large".rate_limit_rpm``."""
    parts = []
    for part in place:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        else:
            parts.append(("." if parts else "") + (part if _BARE.fullmatch(part) else f'"{part}"'))
    return "".join(parts)


def kind_of(value: Any) -> str:
    """What a value is, in words. Never the value, which may be a key."""
    words = ((bool, "true or false"), (str, "a string"), (int, "a whole number"), (float, "a number"), (list, "a list"), (dict, "a table"))
    return next((word for kind, word in words if isinstance(value, kind)), f"a {type(value).__name__}")


def meant(name: str, known: Iterable[str]) -> str:
    """What may have been meant, as the end of a sentence; empty if nothing is near."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f": did you mean {near[0]!r}?" if near else ""


@attrs.frozen
class Kind:
    """What a value must be.

    Attributes:
        fits: Whether a value is of this kind.
        remedy: What to write instead where it is not.
        numeric: Whether it is a number, so that a wrong number may be shown. What is wanted as text may be a key.
    """

    fits: Callable[[Any], bool]
    remedy: str
    numeric: bool = attrs.field(default=False, kw_only=True)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_text_table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _misfit(value: Any, kind: Kind) -> str:
    if isinstance(value, (list, dict)) and value:
        # What is wrong may be inside: a list of numbers where strings are wanted.
        inside = {kind_of(item) for item in (value.values() if isinstance(value, dict) else value)}
        return f"{kind_of(value)} with {' and '.join(sorted(inside))} in it"
    if isinstance(value, str) and not value.strip():
        return "empty"
    return str(value) if kind.numeric and isinstance(value, (int, float)) and not isinstance(value, bool) else kind_of(value)


TEXT = Kind(_is_text, "give a string")
NAME = Kind(_is_name, "give a string that is not empty")
TEXTS = Kind(_is_texts, "give a list of strings")
FLAG = Kind(lambda value: isinstance(value, bool), "give true or false")
WHOLE = Kind(_is_whole, "give a whole number", numeric=True)
COUNT = Kind(lambda value: _is_whole(value) and value > 0, "give a whole number above 0", numeric=True)
NUMBER = Kind(_is_number, "give a number", numeric=True)
SECONDS = Kind(lambda value: _is_number(value) and value > 0, "give seconds above 0", numeric=True)
TABLE = Kind(lambda value: isinstance(value, dict), "give a table: names with values")
TEXT_TABLE = Kind(_is_text_table, "give a table of strings")


@attrs.define
class Document:
    """A file that was parsed, with the lines on which its keys stand.

    Attributes:
        name: The file as it is called in faults and origins.
        lines: Line of each key and list item.
        declared: Where faults go.
    """

    name: str
    lines: Mapping[Place, int]
    declared: Declared

    def origin(self, place: Place) -> str:
        """File and line of a value; of what it stands in, where its own is not known; of the file alone at last."""
        while place:
            if (line := self.lines.get(place)) is not None:
                return f"{self.name}:{line}"
            place = place[:-1]
        return self.name

    def fault(self, place: Place, what: str) -> None:
        """Note what is wrong with a value."""
        self.declared.faults.append(f"{self.origin(place)}: {spelt(place)} {what}")

    def sourced(self, value: Any, place: Place) -> Sourced:
        """A value with its origin."""
        return Sourced(value, self.origin(place))

    def fits(self, value: Any, kind: Kind, place: Place) -> bool:
        """Whether a value is what it must be; a fault is noted where it is not."""
        if kind.fits(value):
            return True
        self.fault(place, f"is {_misfit(value, kind)}: {kind.remedy}")
        return False

    def fields(
        self,
        table: Mapping[str, Any],
        kinds: Mapping[str, Kind],
        place: Place,
        *,
        what: str = "field",
        remedies: Mapping[str, str] | None = None,
    ) -> dict[str, Sourced]:
        """The values of a table that are of their kind; a fault for each of the others. ``None`` counts as not given.

        Args:
            table: What was written.
            kinds: What may be.
            place: Where the table stands.
            what: What a key of this table is called.
            remedies: Keys that there are not, and what to do where one is found.
        """
        found = {}
        for key, value in table.items():
            here = (*place, key)
            if key not in kinds:
                remedy = (remedies or {}).get(key)
                self.fault(here, f"is no {what}" + (f": {remedy}" if remedy else meant(key, kinds) or f"; there are {', '.join(kinds)}"))
            elif value is not None and self.fits(value, kinds[key], here):
                found[key] = self.sourced(value, here)
        return found

    def tables(self, value: Any, place: Place) -> dict[str, dict[str, Any]]:
        """The tables of a table by their names; a fault for what is none. ``None`` counts as not given."""
        if value is None or not self.fits(value, TABLE, place):
            return {}
        return {name: table for name, table in value.items() if table is not None and self.fits(table, TABLE, (*place, name))}
