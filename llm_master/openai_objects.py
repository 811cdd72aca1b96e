"""Answers as genuine objects of the openai SDK. Imported on first use, since that SDK takes most of a second to load.

Objects are validated by pydantic in one pass, which is fourteen times faster than the SDK's own way of building them. What
a provider sends in another form than the SDK's types expect is passed on all the same, as the SDK itself would.
"""

from __future__ import annotations

import base64
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar

import msgspec
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, ValidationError

from llm_master.dispatch.stream import LLMStream
from llm_master.media import Audio, Citation, Image, to_data_uri
from llm_master.results import EmbeddingResponse
from llm_master.types import AudioDelta, LLMResponse, ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta, Usage

M = TypeVar("M", bound=BaseModel)

_WORDS = {
    "stop": "stop end end_turn stop_sequence complete completed eos eos_token eos_found finished done pause_turn",
    "length": "length max_tokens max_output_tokens max_length model_length model_context_window_exceeded token_limit",
    "tool_calls": "tool_calls tool_call tool_use function_call",
    "content_filter": "content_filter content_filtered safety refusal recitation blocklist prohibited_content spii sensitive language "
    "model_armor image_safety image_prohibited_content image_recitation guardrail_intervened error_toxic",
}
FINISH_REASONS = {theirs: ours for ours, words in _WORDS.items() for theirs in words.split()}
"""Providers' words for why a model stopped, in lower case -> OpenAI's."""


class _Raw(msgspec.Struct):
    """What an answer's body says and our response does not, where it is that of a chat completion."""

    id: Any = None
    created: Any = None
    choices: Any = None
    system_fingerprint: Any = None
    service_tier: Any = None


_decode = msgspec.json.Decoder(_Raw).decode
_NOTHING = _Raw()


def completion(response: LLMResponse) -> ChatCompletion:
    """A whole answer.

    Of a body that is a chat completion itself all of its choices are kept, with ``logprobs`` and what else the provider says
    in them; only what ours knows better stands in their place.
    """
    raw = _raw(response)
    choices = [choice for choice in raw.choices if isinstance(choice, dict)] if isinstance(raw.choices, list) else []
    first = choices[0] if choices else {}
    fields: dict[str, Any] = {
        "id": raw.id if isinstance(raw.id, str) and raw.id else _new_id(),
        "object": "chat.completion",
        "created": int(raw.created) if isinstance(raw.created, (int, float)) else int(time.time()),
        "model": _model(response),
        "choices": [
            {
                **first,
                "index": 0,
                "message": _message(response, first.get("message")),
                **_finished(response.finish_reason, calls=bool(response.tool_calls)),
            },
            *(_further(index, choice) for index, choice in enumerate(choices[1:], 1)),
        ],
        "usage": usage_of(response.usage),
    }
    if raw.system_fingerprint is not None:
        fields["system_fingerprint"] = raw.system_fingerprint
    if raw.choices is not None and raw.service_tier is not None:  # other APIs have tiers of other names
        fields["service_tier"] = raw.service_tier
    return _made(ChatCompletion, fields)


async def chunks(stream: LLMStream, *, include_usage: bool) -> AsyncIterator[ChatCompletionChunk]:
    """The chunks of a connected stream: the role, what comes, the reason of the end, and the usage if it is asked for and known."""
    head = {"id": _new_id(), "object": "chat.completion.chunk", "created": int(time.time()), "model": stream.response.model_name}

    def chunk(delta: Mapping[str, Any], **end: Any) -> ChatCompletionChunk:
        return _made(ChatCompletionChunk, {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None, **end}]})

    async with stream:
        yield chunk({"role": "assistant", "content": ""})
        kinds = set()
        async for event in stream.events():
            kinds.add(type(event))
            if (delta := _delta(event)) is not None:
                yield chunk(delta)
        response = stream.response
        # Of a provider that does not stream, only the text comes as an event.
        if response.reasoning and ReasoningDelta not in kinds:
            yield chunk({"reasoning_content": response.reasoning})
        if response.tool_calls and ToolCallDelta not in kinds:
            yield chunk({"tool_calls": [{"index": index, **call.to_message_part()} for index, call in enumerate(response.tool_calls)]})
        if beside := _beside(response):
            yield chunk(beside)
        yield chunk({}, **_finished(response.finish_reason, calls=bool(response.tool_calls)))
        if include_usage and (usage := usage_of(response.usage)) is not None:
            yield _made(ChatCompletionChunk, {**head, "choices": [], "usage": usage})


def embedding_response(answer: EmbeddingResponse, *, as_base64: bool) -> CreateEmbeddingResponse:
    """Vectors: lists of floats, or base64 of little-endian 32-bit floats."""
    counted = answer.usage.input_tokens
    made = _made(
        CreateEmbeddingResponse,
        {
            "object": "list",
            "model": _model(answer),
            "data": [{"object": "embedding", "index": index, "embedding": vector.tolist()} for index, vector in enumerate(answer)],
            "usage": {"prompt_tokens": counted or 0, "total_tokens": counted or 0},
        },
    )
    if counted is None:
        # The SDK's type knows no such case, and nothing is better than a wrong number.
        made.usage = None  # type: ignore[assignment]
    if as_base64:
        for item, vector in zip(made.data, answer, strict=True):
            little = vector[:]
            if sys.byteorder == "big":
                little.byteswap()
            item.embedding = base64.b64encode(little.tobytes()).decode()  # type: ignore[assignment]  # what was asked for
    return made


def usage_of(usage: Usage) -> dict[str, Any] | None:
    """``usage``; ``None`` unless both counts are known. Details that are not known are left out."""
    total = usage.total_tokens
    if total is None:
        return None
    fields: dict[str, Any] = {"prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens, "total_tokens": total}
    prompt = {
        "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "audio_tokens": usage.audio_input_tokens,
    }
    if known := {name: count for name, count in prompt.items() if count is not None}:
        fields["prompt_tokens_details"] = known
    written = {"reasoning_tokens": usage.reasoning_tokens, "audio_tokens": usage.audio_output_tokens}
    if known := {name: count for name, count in written.items() if count is not None}:
        fields["completion_tokens_details"] = known
    if usage.cost is not None:
        fields["cost"] = float(usage.cost)
    return fields


def _made(cls: type[M], fields: dict[str, Any]) -> M:
    try:
        return cls.model_validate(fields)
    except ValidationError:
        return cls.model_construct(**fields)


def _raw(response: LLMResponse) -> _Raw:
    body = response.wire.body if response.wire is not None else None
    if not body:
        return _NOTHING
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):  # of another form, or no JSON at all
        return _NOTHING


def _new_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


def _model(answer: LLMResponse | EmbeddingResponse) -> str:
    """The model that answered, by the provider's word for it."""
    attempt = answer.receipt.attempts[-1] if answer.receipt is not None and answer.receipt.attempts else None
    return (attempt.model_served or attempt.model) if attempt is not None else answer.model_name


def _finished(word: Any, *, calls: bool) -> dict[str, Any]:
    """``finish_reason``; and ``native_finish_reason``, where the provider's word is none of OpenAI's."""
    ours = FINISH_REASONS.get(word.lower(), "stop") if isinstance(word, str) else "stop"
    if ours in ("stop", "tool_calls"):
        ours = "tool_calls" if calls else "stop"
    native = {"native_finish_reason": word} if isinstance(word, str) and word not in _WORDS else {}
    return {"finish_reason": ours, **native}


def _message(response: LLMResponse, raw: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant"}
    if isinstance(raw, dict):
        message = {**raw, **message}
        message.pop("tool_calls", None)
    elif response.audio is not None:
        message["audio"] = _audio(response.audio)
    for name, found in _beside(response).items():
        message[name] = message.get(name) or found
    if message.get("content") is not None or not (message.get("refusal") or message.get("audio")):
        # With a refusal or with audio, the text that ours has is theirs.
        message["content"] = response.content or (None if response.tool_calls else "")
    message.setdefault("content", None)
    if response.tool_calls:
        message["tool_calls"] = [call.to_message_part() for call in response.tool_calls]
    if response.reasoning:
        message["reasoning_content"] = response.reasoning
    if response.native is not None:
        # Signed thoughts and the like, which this provider wants back in the next turn.
        message["_native"] = response.native
    return message


def _audio(audio: Audio) -> dict[str, Any]:
    data = base64.b64encode(audio.data).decode()
    return {"id": audio.id or "", "data": data, "transcript": audio.transcript or "", "expires_at": None}


def _further(index: int, choice: dict[str, Any]) -> dict[str, Any]:
    """A choice beside the first, as the provider sent it, with its reason in OpenAI's words."""
    sent = choice.get("message")
    message = {"role": "assistant", "content": None, **(sent if isinstance(sent, dict) else {})}
    return {"index": index, **choice, "message": message, **_finished(choice.get("finish_reason"), calls=bool(message.get("tool_calls")))}


def _beside(response: LLMResponse) -> dict[str, Any]:
    """Sources and images, which come with the end of a stream."""
    found: dict[str, Any] = {}
    if response.citations:
        found["annotations"] = [_annotation(citation) for citation in response.citations]
    if response.images:
        found["images"] = [{"type": "image_url", "image_url": {"url": _address(image)}} for image in response.images]
    return found


def _annotation(citation: Citation) -> dict[str, Any]:
    said = {"url": citation.url, "title": citation.title, "start_index": citation.start, "end_index": citation.end}
    return {"type": "url_citation", "url_citation": said}


def _address(image: Image) -> str:
    return to_data_uri(image.media_type or "image/png", image.data) if image.data is not None else image.url or ""


def _delta(event: StreamEvent) -> dict[str, Any] | None:
    if isinstance(event, TextDelta):
        return {"content": event.text}
    if isinstance(event, ReasoningDelta):
        return {"reasoning_content": event.text}
    if isinstance(event, ToolCallDelta):
        call: dict[str, Any] = {"index": event.index, "function": {"arguments": event.arguments}}
        if event.id is not None:
            call |= {"id": event.id, "type": "function"}
        if event.name is not None:
            call["function"]["name"] = event.name
        return {"tool_calls": [call]}
    if isinstance(event, AudioDelta):
        return {"audio": {"data": base64.b64encode(event.data).decode()}}
    return None
