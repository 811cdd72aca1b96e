"""Plain data from YAML, with the line of each key: no tags that make objects, no keys that stand twice, no bombs of aliases."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llm_master.settings.document import Place, spelt

if TYPE_CHECKING:
    import yaml

MOST_NODES = 100_000
"""Values that a file may hold, each counted as often as an alias repeats it."""

_TAG = "tag:yaml.org,2002:"
_PLAIN = frozenset({"null", "bool", "int", "float", "str"})
# "=" alone and days are text: a provider is sent what was written, and JSON knows no days.
_TEXT = frozenset({"timestamp", "value"})


class BrokenError(Exception):
    """A document of which nothing is to be read: its line, if known, and what is wrong."""

    def __init__(self, line: int | None, what: str) -> None:
        super().__init__(what)
        self.line = line
        self.what = what


class Reading:
    """One document, read.

    Attributes:
        data: Its mappings, lists and scalars.
        lines: Line of each key and list item; of what an alias repeats, the line where it was written.
        faults: What is wrong: line, place, remedy. The value is then ``None``.
    """

    def __init__(self, text: str) -> None:
        self.lines: dict[Place, int] = {}
        self.faults: list[tuple[int, Place, str]] = []
        self._left = MOST_NODES
        self._open: set[int] = set()
        self.data: Any = self._read(text)

    def _read(self, text: str) -> Any:
        import yaml

        try:
            loader = yaml.SafeLoader(text)
            try:
                node = loader.get_single_node()
                return None if node is None else self._value(loader, node, ())
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            raise BrokenError(mark.line + 1 if mark else None, f"is no YAML ({exc.problem or exc.context}): mend it") from exc
        except yaml.reader.ReaderError as exc:
            line = len(re.findall(r"\r\n|[\r\n]", text[: exc.position])) + 1
            raise BrokenError(line, "holds a character that YAML does not allow: take it out") from exc
        except RecursionError as exc:
            raise BrokenError(None, "is nested too deeply: settings need no more than a few levels") from exc

    def _value(self, loader: yaml.SafeLoader, node: yaml.Node, place: Place) -> Any:
        import yaml

        line = node.start_mark.line + 1
        self._left -= 1
        if self._left < 0:
            raise BrokenError(line, f"holds more than {MOST_NODES} values once its aliases are put in: take aliases out")
        kind = str(node.tag).removeprefix(_TAG)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(loader, node, kind, place)
        if kind != ("map" if isinstance(node, yaml.MappingNode) else "seq"):
            return self._tagged(node, place)
        if id(node) in self._open:
            raise BrokenError(line, "holds an alias that stands within what it repeats: write it out")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(loader, node, place)
            items = []
            for n, item in enumerate(node.value):
                self.lines[*place, n] = item.start_mark.line + 1
                items.append(self._value(loader, item, (*place, n)))
            return items
        finally:
            self._open.discard(id(node))

    def _scalar(self, loader: yaml.SafeLoader, node: yaml.ScalarNode, kind: str, place: Place) -> Any:
        if kind in _TEXT:
            return node.value
        if kind not in _PLAIN:
            return self._tagged(node, place)
        try:
            return loader.construct_object(node)
        except (ValueError, KeyError):  # "!!int x", "0b_", "!!bool x"
            self.faults.append((node.start_mark.line + 1, place, f"cannot be read as {kind}: put it in quotes if it is text"))
            return None

    def _tagged(self, node: yaml.Node, place: Place) -> None:
        shown = str(node.tag).replace(_TAG, "!!")
        self.faults.append((node.start_mark.line + 1, place, f"has the tag {shown}: settings are plain data, so take the tag out"))

    def _mapping(self, loader: yaml.SafeLoader, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        import yaml

        made: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            tag = str(key_node.tag).removeprefix(_TAG)
            if tag == "merge":
                # Written in place it would be one value; the first of several that are merged wins.
                sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for source in sources:
                    if not isinstance(source, yaml.MappingNode):
                        self.faults.append((line, (*place, "<<"), "merges what is no mapping: name the anchor of one"))
                        continue
                    merged = {**self._value(loader, source, place), **merged}
                continue
            if not isinstance(key_node, yaml.ScalarNode) or tag not in {"str", "int", "float", *_TEXT}:
                self.faults.append((line, place, f"has a key in line {line} that is no text: put it in quotes"))
                continue
            # Numbers as they are written: an option may map token ids, and JSON's keys are text.
            key = key_node.value
            if key in first:
                self.faults.append((line, (*place, key), f"stands twice, first in line {first[key]}: keep one"))
                continue
            first[key] = line
            self.lines[*place, key] = line
            made[key] = self._value(loader, value_node, (*place, key))
        if merged:
            # The lines of what was merged and then written over would be those of the merged.
            for key, line in first.items():
                self.lines[*place, key] = line
        return {**merged, **made}


def told(name: str, fault: tuple[int, Place, str]) -> str:
    """A fault with its file and line."""
    line, place, what = fault
    return f"{name}:{line}: {spelt(place) or 'the file'} {what}"
