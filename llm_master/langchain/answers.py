"""Our answers as LangChain's messages, whole and in pieces."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk

from llm_master.dispatch.stream import LLMStream
from llm_master.errors import InvalidOutputError
from llm_master.langchain.messages import NATIVE
from llm_master.types import LLMResponse, ReasoningDelta, TextDelta, ToolCallDelta, Usage

INTEGRATION = "llm_master"
"""Our name with LangChain. Not the provider's, since by that LangChain would read our content as that provider's own blocks."""


def to_message(response: LLMResponse) -> AIMessage:
    """The whole answer."""
    reasoning = {"reasoning_content": response.reasoning} if response.reasoning else {}
    media = _media(response)
    return AIMessage(
        content=([response.content] if response.content else []) + media if media else response.content,
        tool_calls=[tool_call(name=call.name, args=call.arguments, id=call.id) for call in response.tool_calls if call.error is None],
        invalid_tool_calls=[
            invalid_tool_call(name=call.name, args=call.text, id=call.id, error=call.error)
            for call in response.tool_calls
            if call.error is not None
        ],
        usage_metadata=to_usage(response.usage),
        response_metadata=_metadata(response),
        additional_kwargs={**reasoning, **_native(response)},
    )


async def to_chunks(stream: LLMStream, *, keep_invalid: bool = False) -> AsyncGenerator[ChatGenerationChunk, None]:
    """The pieces of an answer as they arrive; the last has usage, cost and finish reason. Closed, it ends the stream.

    Their sum is what :func:`to_message` makes of the whole.

    Args:
        stream: The answer.
        keep_invalid: Whether an answer that is not of the form of ``response_format`` ends like any other.
    """
    text = reasoning = tools = False
    async with stream:
        try:
            async for event in stream.events():
                if isinstance(event, TextDelta):
                    text = True
                    yield _chunk(content=event.text)
                elif isinstance(event, ReasoningDelta):
                    reasoning = True
                    yield _chunk(additional_kwargs={"reasoning_content": event.text})
                elif isinstance(event, ToolCallDelta):
                    tools = True
                    piece = tool_call_chunk(name=event.name, args=event.arguments, id=event.id, index=event.index)
                    yield _chunk(tool_call_chunks=[piece])
        except InvalidOutputError:
            if not keep_invalid:
                raise
    yield _last(stream.response, text=text, reasoning=reasoning, tools=tools)


def to_usage(usage: Usage) -> UsageMetadata | None:
    """Tokens as LangChain counts them; ``None`` where the provider did not state both sums, which LangChain has no word for."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    counted = UsageMetadata(
        input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, total_tokens=usage.input_tokens + usage.output_tokens
    )
    given = {"audio": usage.audio_input_tokens, "cache_creation": usage.cache_write_tokens, "cache_read": usage.cached_tokens}
    made = {"audio": usage.audio_output_tokens, "reasoning": usage.reasoning_tokens}
    if known := {name: count for name, count in given.items() if count is not None}:
        counted["input_token_details"] = InputTokenDetails(**known)
    if known := {name: count for name, count in made.items() if count is not None}:
        counted["output_token_details"] = OutputTokenDetails(**known)
    return counted


def _last(response: LLMResponse, *, text: bool, reasoning: bool, tools: bool) -> ChatGenerationChunk:
    """The end of a stream, and what came with the end only, as from a provider that answers in one piece."""
    late_reasoning = {"reasoning_content": response.reasoning} if response.reasoning and not reasoning else {}
    late_calls = [] if tools else response.tool_calls
    return _chunk(
        content=_media(response) or ("" if text else response.content),
        tool_call_chunks=[
            tool_call_chunk(name=call.name, args=call.to_message_part()["function"]["arguments"], id=call.id, index=index)
            for index, call in enumerate(late_calls)
        ],
        usage_metadata=to_usage(response.usage),
        response_metadata=_metadata(response),
        additional_kwargs={**late_reasoning, **_native(response)},
        chunk_position="last",
    )


def _chunk(*, content: Any = "", **fields: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content=content, **fields))


def _metadata(response: LLMResponse) -> dict[str, Any]:
    """What LangChain asks for by name, and what it cost and how it came about; what is not known is not there."""
    receipt, wire = response.receipt, response.wire
    known: dict[str, Any] = {
        "model_name": response.model_name,
        "model_provider": INTEGRATION,
        "provider": response.provider,
        "finish_reason": response.finish_reason,
        # A text, since metadata goes through JSON, which has no decimal numbers.
        "cost": None if response.cost is None else str(response.cost),
        "currency": receipt.currency if receipt is not None and response.cost is not None else None,
        "request_id": wire.request_id if wire is not None else None,
        "citations": [{"url": source.url, "title": source.title, "text": source.text} for source in response.citations] or None,
        "receipt": receipt.explain() if receipt is not None else None,
    }
    return {name: value for name, value in known.items() if value is not None}


def _native(response: LLMResponse) -> dict[str, Any]:
    return {} if response.native is None else {NATIVE: response.native}


def _media(response: LLMResponse) -> list[Any]:
    """Images and audio as standard content blocks."""
    blocks: list[Any] = []
    for image in response.images:
        block: dict[str, Any] = {"type": "image"}
        if image.data is not None:
            block |= {"base64": base64.b64encode(image.data).decode(), "mime_type": image.media_type or "image/png"}
        else:
            block["url"] = image.url
        blocks.append(block)
    if response.audio is not None:
        blocks.append({"type": "audio", "base64": base64.b64encode(response.audio.data).decode(), "mime_type": response.audio.media_type})
    return blocks
