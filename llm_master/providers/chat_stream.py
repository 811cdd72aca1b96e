"""A stream of chat completion chunks (https://platform.openai.com/docs/api-reference/chat-streaming)."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from llm_master.errors import ProviderError
from llm_master.media import Audio, Citation, Image
from llm_master.providers import chat_extras as extras
from llm_master.providers import chat_format as fmt
from llm_master.providers.chat_usage import read_usage
from llm_master.providers.failures import UNREADABLE
from llm_master.providers.sse import NamedEvent
from llm_master.providers.stream_reader import StreamReader
from llm_master.types import AudioDelta, ReasoningDelta, StreamEnd, StreamEvent, ToolCallDelta, Usage


class ChunkReader(StreamReader):
    """Events of one stream from its chunks, and what only its end tells.

    Args:
        model: The wire id.
        status: HTTP status.
        request_id: The provider's own id of the request.
        returns: Fields of the message that the next turn needs.
    """

    def __init__(self, model: str, status: int | None, request_id: str | None, returns: Sequence[str] = ()) -> None:
        super().__init__(model, status, request_id)
        self._returns = returns
        self._kept: dict[str, list[Any]] = {}
        self._executed: extras.ExecutedTools | None = None
        self._others_worked = False
        self._stepped = False
        self._finish_reason: str | None = None
        self._citations: list[Citation] = []
        self._images: list[Image] = []
        self._samples: list[bytes] = []
        self._said: list[str] = []
        self._audio_id: str | None = None
        self._slots: dict[int, tuple[int, str | None]] = {}
        self._calls = 0

    def read(self, pieces: Sequence[bytes]) -> list[str | StreamEvent]:
        """As the base's, with a short way for the chunks that hold one piece of text and nothing else: nearly all."""
        events: list[str | StreamEvent] = []
        for data in pieces:
            if data == b"[DONE]":
                self.done = True
                break
            try:
                chunk = fmt.read_chunk(data)
                if (choices := chunk.choices) and (delta := (choice := choices[0]).delta) is not None:
                    text = delta.content
                    if (
                        text.__class__ is str
                        and text
                        and choice.finish_reason is None
                        and not choice.index
                        and chunk.usage is None
                        and delta.tool_calls is None
                        and not delta.reasoning
                        and not delta.reasoning_content
                        and not delta.annotations
                        and delta.audio is None
                        and delta.images is None
                        and not delta.reasoning_details
                        and delta.executed_tools is None
                        and chunk.citations is None
                        and chunk.search_results is None
                        and chunk.web_search is None
                    ):
                        events.append(text)
                        continue
                events.extend(self._rest(chunk, data))
            except (ProviderError, *UNREADABLE) as exc:
                self.fail(exc, data)
                break
        self.began = self.began or bool(events)
        return events

    def _rest(self, chunk: fmt.Chunk, data: bytes) -> Iterator[str | StreamEvent]:
        if chunk.error or (isinstance(data, NamedEvent) and data.name == "error"):
            raise self.error(msgspec.json.decode(data))
        if chunk.model.__class__ is str and chunk.model:
            self.served = chunk.model
        if chunk.service_tier is not None:
            self.wire.service_tier = chunk.service_tier
        choice = fmt.first_choice(chunk.choices or ())
        usage = chunk.usage or (chunk.x_groq.usage if chunk.x_groq is not None else None) or (choice.usage if choice is not None else None)
        if usage is not None:
            self.usage = read_usage(usage)
        if found := chunk.search_results or chunk.citations or chunk.web_search:
            self._citations = fmt.read_citations(None, found)
        if chunk.images:
            self._images = fmt.read_images(chunk.images)
        if chunk.usage_breakdown is not None:
            self._others_worked = self._others_worked or fmt.works_of_others(None, chunk.usage_breakdown)
        if choice is None:
            return
        if choice.error:
            raise self.error({"error": choice.error})
        if choice.finish_reason is not None:
            self._finish_reason = choice.finish_reason
        delta = choice.delta
        if delta is not None:
            yield from self._delta(delta)
        if self._finish_reason.__class__ is str and self._finish_reason in extras.GAVE_UP:
            raise fmt.gave_up(self._finish_reason, self.wire.status, self.wire.request_id, self.model)

    def _delta(self, delta: fmt.WireMessage) -> Iterator[str | StreamEvent]:
        """What a piece of the message holds."""
        reasoning = delta.reasoning_content or delta.reasoning
        content = delta.content
        if content.__class__ is not str:
            if content:
                self._citations += extras.references(content)
            content, thinking = fmt.split_content(content)
            reasoning = reasoning or thinking
        if not reasoning and delta.reasoning_steps:
            thought = extras.thoughts(delta.reasoning_steps)
            # Steps are paragraphs, and come without what parts them.
            reasoning = f"\n\n{thought}" if thought and self._stepped else thought
            self._stepped = self._stepped or bool(thought)
        if self._returns:
            self._keep(delta)
        if reasoning.__class__ is str and reasoning:
            yield ReasoningDelta(reasoning)
        if content or delta.refusal:
            yield content or str(delta.refusal)
        if delta.tool_calls:
            for call in fmt.read_tool_call_deltas(delta.tool_calls):
                call.index = self._slot(call)
                yield call
        if delta.annotations:
            self._citations += fmt.read_citations(delta.annotations, None)
        if delta.images:
            self._images += fmt.read_images(delta.images)
        if delta.audio.__class__ is dict:
            yield from self._hear(delta.audio)
        if delta.executed_tools:
            self._executed = self._executed or extras.ExecutedTools()
            self._executed.add(delta.executed_tools)
            self._others_worked = True

    def _keep(self, delta: fmt.WireMessage) -> None:
        """What of the piece the next turn needs."""
        for name in self._returns:
            if value := getattr(delta, name):
                kept = self._kept.setdefault(name, [])
                if name == "reasoning_details":
                    extras.add_details(kept, value)
                elif isinstance(value, list):
                    kept += value
                elif isinstance(value, str):
                    kept.append(value)

    def _native(self) -> dict[str, Any] | None:
        """What the next turn needs; of texts, their pieces in one."""
        if not self._kept:
            return None
        joined = {name: "".join(kept) if all(isinstance(one, str) for one in kept) else kept for name, kept in self._kept.items()}
        return extras.native_of(joined)

    def _hear(self, audio: dict[str, Any]) -> Iterator[str | StreamEvent]:
        """A piece of audio, which OpenAI streams as bare samples. What is said is the text, where there is no other."""
        self._audio_id = audio.get("id") or self._audio_id
        if samples := base64.b64decode(audio.get("data") or ""):
            self._samples.append(samples)
            yield AudioDelta(samples)
        if said := audio.get("transcript"):
            self._said.append(said)
            yield said

    def _audio(self) -> Audio | None:
        data = b"".join(self._samples)
        return Audio(data, fmt.audio_type(data), transcript="".join(self._said) or None, id=self._audio_id) if data else None

    def _slot(self, call: ToolCallDelta) -> int:
        """The call's own place: some servers give parallel calls one index, and only a new id tells them apart."""
        known = self._slots.get(call.index)
        if known is None or (call.id and call.name and known[1] and call.id != known[1]):
            known = self._slots[call.index] = (self._calls, call.id)
            self._calls += 1
        return known[0]

    def end(self) -> StreamEnd:
        """The last event. A stream that ended without saying so was cut off.

        Raises:
            ServerError: Neither ``[DONE]`` nor a finish reason came.
        """
        if not self.done and self._finish_reason is None:
            raise self.broken("the stream ended without [DONE] and without a finish reason")
        if self._executed is not None:
            self._citations = self._citations or self._executed.citations()
            self._images = self._images or self._executed.images()
        if self._others_worked:
            self.usage = self.usage or Usage()
            self.usage.others_worked = True
        return StreamEnd(
            finish_reason=self._finish_reason,
            usage=self.usage,
            model_name=self.served,
            citations=self._citations,
            images=self._images,
            audio=self._audio() if self._samples else None,
            native=self._native(),
            wire=self.wire,
        )
