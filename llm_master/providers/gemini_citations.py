"""The sources that an answer of Gemini's names.

Sources: https://ai.google.dev/api/generate-content#GroundingMetadata, https://ai.google.dev/api/generate-content#CitationMetadata
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm_master.media import Citation


class Sources:
    """Collects the metadata of a stream's events, or of the one whole answer, and makes citations of it at the end.

    A support names its chunks by their place among the chunks of all events, so that none can be read before the last.
    """

    def __init__(self) -> None:
        self._chunks: list[Any] = []
        self._supports: list[Any] = []
        self._sources: list[Any] = []

    def add(self, grounding: Any, citation: Any) -> None:
        """Keep ``groundingMetadata`` and ``citationMetadata`` of one event."""
        if isinstance(grounding, Mapping):
            self._chunks += _list(grounding.get("groundingChunks"))
            self._supports += _list(grounding.get("groundingSupports"))
        if isinstance(citation, Mapping):
            # By either name: Google AI's and Vertex AI's. An event may repeat what an earlier one said.
            found = _list(citation.get("citationSources") or citation.get("citations"))
            self._sources += [source for source in found if source not in self._sources]

    def citations(self, content: str, part_starts: list[int]) -> list[Citation]:
        """One citation for each chunk of each support, in their order; then the chunks that no support names; then the rest.

        Args:
            content: The answer's text.
            part_starts: For each part of the answer, how many bytes of ``content`` come before it.
        """
        if not (self._chunks or self._sources):
            return []
        text = content.encode()
        found = []
        cited = set()
        for support in self._supports:
            segment = support.get("segment") if isinstance(support, Mapping) else None
            start, end = _span(text, content, segment, part_starts) if isinstance(segment, Mapping) else (None, None)
            for index in _indices(support, len(self._chunks)):
                cited.add(index)
                found.append(_citation(self._chunks[index], start, end))
        found += [_citation(chunk, None, None) for index, chunk in enumerate(self._chunks) if index not in cited]
        for source in self._sources:
            if isinstance(source, Mapping):
                start, end = _span(text, content, source, [])
                found.append(Citation(source.get("uri"), source.get("title"), start=start, end=end, raw=source))
        return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _indices(support: Any, count: int) -> Iterator[int]:
    for index in _list(support.get("groundingChunkIndices") if isinstance(support, Mapping) else None):
        if isinstance(index, int) and 0 <= index < count:
            yield index


def _citation(chunk: Any, start: int | None, end: int | None) -> Citation:
    """A chunk is an object with one field, which says of what kind it is: ``web``, ``retrievedContext``, ``maps``, ``image``."""
    if not isinstance(chunk, Mapping):
        return Citation(start=start, end=end)
    inner = next((value for value in chunk.values() if isinstance(value, Mapping)), {})
    url = inner.get("uri") or inner.get("sourceUri")
    return Citation(url, inner.get("title"), text=inner.get("text"), start=start, end=end, raw=chunk)


def _span(text: bytes, content: str, segment: Mapping[str, Any], part_starts: list[int]) -> tuple[int | None, int | None]:
    """Where in ``content`` a segment is, in characters; theirs are bytes of UTF-8, counted from the beginning of its part.

    What the segment says it holds is trusted more than its numbers: streams are counted now from one beginning, now from another.
    """
    start, end = segment.get("startIndex") or 0, segment.get("endIndex")
    said = segment.get("text")
    if not isinstance(start, int) or not isinstance(end, int):
        return (None, None)
    part = segment.get("partIndex") or 0
    bases = (0, part_starts[part]) if isinstance(part, int) and 0 <= part < len(part_starts) else (0,)
    for base in bases:
        held = text[base + start : base + end]
        if base + end <= len(text) and (not said or held == str(said).encode()):
            first = len(text[: base + start].decode(errors="ignore"))
            return first, first + len(held.decode(errors="ignore"))
    if said and (place := content.find(str(said))) >= 0:
        return place, place + len(str(said))
    return (None, None)
