"""Gemini's answers, whole and streamed (https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse)."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec

from llm_master.errors import ContentPolicyError, ProviderError, ServerError
from llm_master.media import Audio, Image
from llm_master.providers.bodies import unreadable
from llm_master.providers.failures import BAD_JSON
from llm_master.providers.gemini_citations import Sources
from llm_master.providers.gemini_messages import FORMAT
from llm_master.providers.stream_reader import StreamReader
from llm_master.types import (
    AudioDelta,
    LLMResponse,
    ReasoningDelta,
    StreamEnd,
    StreamEvent,
    ToolCall,
    ToolCallDelta,
    Usage,
    WireAnswer,
)

FINISH_REASONS = {"STOP": "stop", "MAX_TOKENS": "length"}
"""Finish reasons in the field's words; any other in lower case."""

BLOCKED = frozenset(
    "SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT SPII MODEL_ARMOR IMAGE_SAFETY IMAGE_PROHIBITED_CONTENT IMAGE_RECITATION LANGUAGE".split()
)
"""Finish reasons that are a refusal."""


class WireUsage(msgspec.Struct, rename="camel"):
    """``usageMetadata``. Thoughts and tool prompts are counted beside the candidates and the prompt."""

    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    cached_content_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    prompt_tokens_details: Any = None
    candidates_tokens_details: Any = None
    service_tier: Any = None


class WireContent(msgspec.Struct):
    """``content``: parts are kept as they are."""

    parts: list[dict[str, Any]] | None = None


class WireCandidate(msgspec.Struct, rename="camel"):
    """One candidate."""

    content: WireContent | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    index: int = 0
    safety_ratings: Any = None
    grounding_metadata: Any = None
    citation_metadata: Any = None


class WireFeedback(msgspec.Struct, rename="camel"):
    """``promptFeedback``: there where the prompt was refused."""

    block_reason: str | None = None
    block_reason_message: str | None = None
    safety_ratings: Any = None


class WireAnswerBody(msgspec.Struct, rename="camel"):
    """A whole answer, or one event of a stream: they have the same shape."""

    candidates: list[WireCandidate] | None = None
    prompt_feedback: WireFeedback | None = None
    usage_metadata: WireUsage | None = None
    model_version: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(WireAnswerBody).decode


def read_answer(body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
    """Make an answer of the body of a 2xx.

    Raises:
        ContentPolicyError: Prompt or answer was refused; the message says why.
        ProviderError: The body holds an error, cannot be read, or has no answer in it.
    """
    reader = CandidateReader(model, status, request_id)
    try:
        events = list(reader.events_of(body))
    except BAD_JSON as exc:
        raise unreadable(body, exc, status, request_id, model) from exc
    except ProviderError as exc:
        exc.status, exc.request_id = exc.status or status, request_id
        raise
    if not reader.candidates:
        raise ServerError(f"answered {status} without a candidate: {body[:120]!r}", status=status, model=model, request_id=request_id)
    end = reader.end()
    return LLMResponse(
        "".join(event for event in events if isinstance(event, str)),
        end.model_name or model,
        end.usage or Usage(),
        finish_reason=end.finish_reason,
        tool_calls=[
            ToolCall.from_text(event.id or "", event.name or "", event.arguments) for event in events if isinstance(event, ToolCallDelta)
        ],
        reasoning="".join(event.text for event in events if isinstance(event, ReasoningDelta)) or None,
        citations=end.citations,
        images=end.images,
        audio=end.audio,
        native=end.native,
        wire=WireAnswer(status, request_id, body, end.wire.service_tier if end.wire is not None else None),
    )


def read_usage(wire: WireUsage | None) -> Usage:
    """Bring Gemini's convention to ours: its candidates leave out the thoughts, its prompt what tools added to it."""
    if wire is None:
        return Usage()
    thoughts = wire.thoughts_token_count
    prompt, said = wire.prompt_token_count, wire.candidates_token_count
    return Usage(
        input_tokens=None if prompt is None else prompt + (wire.tool_use_prompt_token_count or 0),
        # A prompt that was answered with nothing has no count of it.
        output_tokens=None if prompt is None and said is None else (said or 0) + (thoughts or 0),
        cached_tokens=wire.cached_content_token_count if wire.cached_content_token_count is not None else None if prompt is None else 0,
        reasoning_tokens=thoughts,
        audio_input_tokens=_tokens_of("AUDIO", wire.prompt_tokens_details),
        audio_output_tokens=_tokens_of("AUDIO", wire.candidates_tokens_details),
    )


def _tokens_of(modality: str, details: Any) -> int | None:
    """The tokens of one kind among ``promptTokensDetails`` or ``candidatesTokensDetails``."""
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and detail.get("modality") == modality and isinstance(count := detail.get("tokenCount"), int):
            return count
    return None


class CandidateReader(StreamReader):
    """Events of one stream. Only the first candidate is shown; others are never mixed into it."""

    def __init__(self, model: str, status: int | None, request_id: str | None) -> None:
        super().__init__(model, status, request_id)
        self.candidates = False
        self._parts: list[dict[str, Any]] = []
        self._finish: str | None = None
        self._usage: WireUsage | None = None
        self._calls = 0
        self._sources = Sources()
        self._said: list[str] = []
        self._bytes_said = 0
        self._part_starts: list[int] = []
        self._images: list[Image] = []
        self._sound: list[bytes] = []
        self._sound_type = ""

    def events_of(self, data: bytes) -> Iterator[str | StreamEvent]:
        """Events of one event of theirs."""
        answer = _decode(data)
        if answer.error:
            raise self.error(msgspec.json.decode(data))
        if isinstance(answer.model_version, str):
            self.served = answer.model_version
        if answer.usage_metadata is not None:
            self._usage = answer.usage_metadata
        feedback = answer.prompt_feedback
        if feedback is not None and feedback.block_reason:
            raise _blocked("the prompt", feedback.block_reason, feedback.block_reason_message, feedback.safety_ratings, self.model)
        for candidate in answer.candidates or ():
            if candidate.index == 0:
                self.candidates = True
                yield from self._candidate(candidate)

    def _candidate(self, candidate: WireCandidate) -> Iterator[str | StreamEvent]:
        for part in (candidate.content.parts if candidate.content is not None else None) or ():
            self._keep(part)
            self._part_starts.append(self._bytes_said)
            text = part.get("text")
            if text is not None:
                if text and part.get("thought"):
                    yield ReasoningDelta(text)
                elif text:
                    self._said.append(text)
                    self._bytes_said += len(text.encode(errors="replace"))
                    yield text
            elif (call := part.get("functionCall")) is not None:
                # The API need not name its calls, and a result must name one.
                name = call.get("id") or f"call_{uuid.uuid4().hex[:24]}"
                yield ToolCallDelta(self._calls, name, call.get("name"), msgspec.json.encode(call.get("args") or {}).decode())
                self._calls += 1
            elif isinstance(inline := part.get("inlineData"), dict) and not part.get("thought"):
                yield from self._medium(str(inline.get("mimeType") or ""), inline.get("data"))
        self._sources.add(candidate.grounding_metadata, candidate.citation_metadata)
        if candidate.finish_reason is not None:
            if candidate.finish_reason in BLOCKED:
                raise _blocked("the answer", candidate.finish_reason, candidate.finish_message, candidate.safety_ratings, self.model)
            self._finish = candidate.finish_reason

    def _medium(self, media_type: str, encoded: Any) -> Iterator[StreamEvent]:
        """An image, which comes whole, or a piece of audio."""
        try:
            data = base64.b64decode(encoded)
        except (TypeError, ValueError) as exc:
            raise self.broken(f"the answer holds {media_type or 'data'} that is no base64: {exc}") from exc
        if media_type.startswith("image/"):
            self._images.append(Image(data, media_type=media_type))
        elif media_type.startswith("audio/"):
            self._sound.append(data)
            self._sound_type = media_type
            if _is_samples(media_type):
                yield AudioDelta(data)

    def _audio(self) -> Audio | None:
        if not self._sound:
            return None
        data = b"".join(self._sound)
        if not _is_samples(self._sound_type):
            return Audio(data, self._sound_type.partition(";")[0].lower())
        rate = re.search(r"rate=(\d+)", self._sound_type)
        return Audio(data, "audio/pcm", sample_rate=int(rate[1]) if rate else 24_000)

    def _keep(self, part: dict[str, Any]) -> None:
        """Parts as they must be sent back; pieces of one text become one part."""
        last = self._parts[-1] if self._parts else None
        if (
            last is not None
            and set(part) <= {"text", "thought"}
            and set(last) <= {"text", "thought"}
            and part.get("thought") == last.get("thought")
        ):
            last["text"] = (last.get("text") or "") + (part.get("text") or "")
        else:
            self._parts.append(dict(part))

    def usage_so_far(self) -> Usage | None:
        """Usage, if it has come."""
        return read_usage(self._usage) if self._usage is not None else None

    def end(self) -> StreamEnd:
        """The last event.

        Raises:
            ServerError: The stream ended without a finish reason.
        """
        if self._finish is None:
            raise self.broken("the stream ended without a finish reason")
        reason = FINISH_REASONS.get(self._finish, self._finish.lower())
        if self._usage is not None:
            self.wire.service_tier = self._usage.service_tier
        usage = read_usage(self._usage)
        usage.images = len(self._images) or None
        plain = all(set(part) == {"text"} for part in self._parts)
        return StreamEnd(
            finish_reason="tool_calls" if reason == "stop" and self._calls else reason,
            usage=usage,
            model_name=self.served,
            citations=self._sources.citations("".join(self._said), self._part_starts),
            images=self._images,
            audio=self._audio(),
            native=None if plain else {"format": FORMAT, "content": self._parts},
            wire=self.wire,
        )


def _is_samples(media_type: str) -> bool:
    """Whether audio is bare samples, as ``audio/L16;codec=pcm;rate=24000``."""
    return media_type.lower().startswith(("audio/l16", "audio/pcm"))


def _blocked(what: str, reason: str, message: str | None, ratings: Any, model: str) -> ContentPolicyError:
    flagged = [str(rating.get("category")) for rating in ratings or () if isinstance(rating, dict) and rating.get("blocked")]
    details = "; ".join(part for part in (message, ", ".join(flagged)) if part)
    return ContentPolicyError(f"{what} was refused: {reason}" + (f" ({details})" if details else ""), model=model, code=reason)
