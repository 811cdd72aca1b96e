"""Reasoning that an API leaves in the text, between tags at its beginning."""

from __future__ import annotations

from collections.abc import Sequence

from llm_master.providers.chat_stream import ChunkReader
from llm_master.types import ReasoningDelta, StreamEvent


class TagSplitter:
    """Parts a text that comes in pieces. What stands in the tag is reasoning, what follows is the text.

    Blanks around either are left out. A tag that is never closed was cut off: all of it is reasoning.
    """

    def __init__(self, tag: str) -> None:
        self._open, self._close = f"<{tag}>", f"</{tag}>"
        self._state = "before"
        self._held = ""

    def feed(self, text: str) -> tuple[str, str]:
        """Reasoning and text that the piece settles. What may be the beginning of a tag, or of blanks at an end, is held back."""
        if self._state == "text":
            return "", text
        self._held += text
        if self._state == "before":
            begun = self._held.lstrip()
            if len(begun) < len(self._open) and self._open.startswith(begun):
                return "", ""
            if not begun.startswith(self._open):
                return "", self._rest()
            self._state, self._held = "inside", begun[len(self._open) :].lstrip()
        elif self._state == "opened":
            self._state, self._held = "inside", self._held.lstrip()
        if self._state == "inside":
            if not self._held:
                self._state = "opened"  # blanks may still come before the first thought
                return "", ""
            thought, closed, rest = self._held.partition(self._close)
            if not closed:
                settled = self._settled()
                thought, self._held = self._held[:settled], self._held[settled:]
                return thought, ""
            self._state, self._held = "behind", rest
            return thought.rstrip(), self._behind()
        return "", self._behind()

    def end(self) -> tuple[str, str]:
        """What was held back and turned out to be neither tag nor blanks."""
        held, state = self._held, self._state
        self._state, self._held = "text", ""
        return (held.rstrip(), "") if state == "inside" else ("", held if state == "before" else "")

    def _behind(self) -> str:
        self._held = self._held.lstrip()
        return self._rest() if self._held else ""

    def _rest(self) -> str:
        rest, self._state, self._held = self._held, "text", ""
        return rest

    def _settled(self) -> int:
        """How much of what is held is reasoning for sure."""
        held, close = self._held, self._close
        end = len(held)
        for size in range(min(len(close) - 1, len(held)), 0, -1):
            if held.endswith(close[:size]):
                end -= size
                break
        return len(held[:end].rstrip())


def split(text: str, tag: str) -> tuple[str, str | None]:
    """Text and reasoning of a whole answer."""
    splitter = TagSplitter(tag)
    parts = (splitter.feed(text), splitter.end())
    return "".join(said for _, said in parts), "".join(thought for thought, _ in parts) or None


class TaggedReader(ChunkReader):
    """A stream whose text begins with the reasoning in a tag."""

    def __init__(self, model: str, status: int | None, request_id: str | None, returns: Sequence[str], tag: str) -> None:
        super().__init__(model, status, request_id, returns)
        self._splitter: TagSplitter | None = TagSplitter(tag)

    def read(self, pieces: Sequence[bytes]) -> list[str | StreamEvent]:
        """As the base's, with the reasoning apart."""
        found = super().read(pieces)
        if self._splitter is None:
            return found
        events: list[str | StreamEvent] = []
        for event in found:
            if isinstance(event, str):
                self._add(events, *self._splitter.feed(event))
            else:
                events.append(event)
        if self.done or self.failure is not None or self._finish_reason is not None:
            self._add(events, *self._splitter.end())
            self._splitter = None
        return events

    def _add(self, events: list[str | StreamEvent], thought: str, said: str) -> None:
        if thought:
            events.append(ReasoningDelta(thought))
        if said:
            events.append(said)
