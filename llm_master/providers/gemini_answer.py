"""Gemini's answers, whole and streamed (https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import msgspec

from llm_master.errors import ContentPolicyError, ProviderError, ServerError
from llm_master.providers.failures import BAD_JSON
from llm_master.providers.gemini_messages import FORMAT
from llm_master.providers.http import StreamReader, unreadable
from llm_master.types import LLMResponse, ReasoningDelta, StreamEnd, StreamEvent, ToolCall, ToolCallDelta, Usage, WireAnswer

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
    )


class CandidateReader(StreamReader):
    """Events of one stream. Only the first candidate is shown; others are never mixed into it."""

    def __init__(self, model: str, status: int | None, request_id: str | None) -> None:
        super().__init__(model, status, request_id)
        self.candidates = False
        self._parts: list[dict[str, Any]] = []
        self._finish: str | None = None
        self._usage: WireUsage | None = None
        self._calls = 0
        self._citations: list[Any] = []
        self._images: list[Any] = []

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
            text = part.get("text")
            if text is not None:
                if text:
                    yield ReasoningDelta(text) if part.get("thought") else text
            elif (call := part.get("functionCall")) is not None:
                # The API need not name its calls, and a result must name one.
                name = call.get("id") or f"call_{uuid.uuid4().hex[:24]}"
                yield ToolCallDelta(self._calls, name, call.get("name"), msgspec.json.encode(call.get("args") or {}).decode())
                self._calls += 1
            elif (inline := part.get("inlineData")) is not None:
                self._images.append(inline)
        for metadata in (candidate.grounding_metadata, candidate.citation_metadata):
            if isinstance(metadata, dict):
                self._citations += metadata.get("groundingChunks") or metadata.get("citationSources") or []
        if candidate.finish_reason is not None:
            if candidate.finish_reason in BLOCKED:
                raise _blocked("the answer", candidate.finish_reason, candidate.finish_message, candidate.safety_ratings, self.model)
            self._finish = candidate.finish_reason

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

    def whole(self, body: bytes) -> LLMResponse:
        """An answer that came in one piece."""
        return read_answer(body, status=self.wire.status or 200, request_id=self.wire.request_id, model=self.model)

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
        plain = all(set(part) == {"text"} for part in self._parts)
        return StreamEnd(
            finish_reason="tool_calls" if reason == "stop" and self._calls else reason,
            usage=read_usage(self._usage),
            model_name=self.served,
            citations=self._citations,
            images=self._images,
            native=None if plain else {"format": FORMAT, "content": self._parts},
            wire=self.wire,
        )


def _blocked(what: str, reason: str, message: str | None, ratings: Any, model: str) -> ContentPolicyError:
    flagged = [str(rating.get("category")) for rating in ratings or () if isinstance(rating, dict) and rating.get("blocked")]
    details = "; ".join(part for part in (message, ", ".join(flagged)) if part)
    return ContentPolicyError(f"{what} was refused: {reason}" + (f" ({details})" if details else ""), model=model, code=reason)
