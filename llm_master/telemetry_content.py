"""What was asked and answered, as the GenAI conventions write it: ``gen_ai.input.messages`` and ``gen_ai.output.messages``.

Their form is that of gen-ai-input-messages.json and gen-ai-output-messages.json in
https://github.com/open-telemetry/semantic-conventions-genai, as JSON text. Media are named by their kind, and left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llm_master.types import LLMResponse


def asked_for(messages: Sequence[Any]) -> dict[str, str]:
    """The conversation; what is no message of one, as a generator's input, is left out."""
    told = [_message(message) for message in messages if isinstance(message, Mapping)]
    return {"gen_ai.input.messages": _json(told)}


def answered(response: LLMResponse) -> dict[str, str]:
    """The answer."""
    parts: list[dict[str, Any]] = []
    if response.reasoning:
        parts.append({"type": "reasoning", "content": response.reasoning})
    if response.content:
        parts.append({"type": "text", "content": response.content})
    parts += [{"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments} for call in response.tool_calls]
    return {"gen_ai.output.messages": _json([{"role": "assistant", "parts": parts, "finish_reason": response.finish_reason or "unknown"}])}


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if message.get("role") == "tool":
        parts: list[dict[str, Any]] = [{"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content}]
    elif isinstance(content, str):
        parts = [{"type": "text", "content": content}]
    else:
        parts = [_part(part) for part in content or () if isinstance(part, Mapping)]
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        parts.append({"type": "tool_call", "id": call.get("id"), "name": function.get("name"), "arguments": function.get("arguments")})
    return {"role": message.get("role"), "parts": parts}


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "text", "content": part["text"]} if isinstance(part.get("text"), str) else {"type": str(part.get("type"))}


def _json(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()
