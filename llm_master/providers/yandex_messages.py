"""A conversation in our messages, as YandexGPT's: of each message either text, or calls, or results.

Source: https://yandex.cloud/en/docs/ai-studio/text-generation/api-ref/TextGeneration/completion,
https://yandex.cloud/en/docs/ai-studio/operations/generation/function-call
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_master.errors import InvalidRequestError
from llm_master.providers.turns import refuse_no_turns, tool_calls
from llm_master.types import Message


def conversation(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages of a request.

    A message holds one thing, so that an assistant's text and its calls are two messages. The API knows no ids of calls: results
    stand in the order of their calls.

    Raises:
        InvalidRequestError: A tool result without its call, a call without its result, or content that the API does not take.
    """
    turns: list[dict[str, Any]] = []
    # The calls that wait for their results: id -> name.
    waiting: dict[str, str | None] = {}
    results: dict[str, str] = {}
    spoken = False
    for position, message in enumerate(messages):
        role, where = message["role"], f"messages[{position}]"
        text = _text(message.get("content"), where)
        if role in ("tool", "function"):
            call = str(message.get("tool_call_id"))
            if call not in waiting or call in results:
                raise InvalidRequestError(
                    f"{where} is the result of tool call {call!r}, and the assistant's message before it makes no such call: "
                    "put the message with its tool_calls right before the results"
                )
            results[call] = text
            if len(results) == len(waiting):
                turns.append(_results(waiting, results))
                waiting, results = {}, {}
            continue
        if results:
            missing = next(call for call in waiting if call not in results)
            raise InvalidRequestError(f"{where}: the result of tool call {missing!r} is missing: put it before this message")
        spoken = spoken or role not in ("system", "developer")
        waiting = {}
        if role != "assistant":
            turns.append({"role": "system" if role in ("system", "developer") else "user", "text": text})
            continue
        calls = []
        for made, name, arguments in tool_calls(message, where):
            waiting[str(made.get("id"))] = name
            calls.append({"functionCall": {"name": name, "arguments": arguments}})
        if text or not calls:
            turns.append({"role": "assistant", "text": text})
        if calls:
            turns.append({"role": "assistant", "toolCallList": {"toolCalls": calls}})
    if results:
        missing = next(call for call in waiting if call not in results)
        raise InvalidRequestError(f"messages end without the result of tool call {missing!r}: add it")
    refuse_no_turns(turns if spoken else [])
    return turns


def _results(waiting: Mapping[str, str | None], results: Mapping[str, str]) -> dict[str, Any]:
    found = [{"functionResult": {"name": name, "content": results[call]}} for call, name in waiting.items()]
    return {"role": "assistant", "toolResultList": {"toolResults": found}}


def _text(content: Any, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, Sequence):
        raise InvalidRequestError(f"{where}: content is a {type(content).__name__}: give a text or a list of parts")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, str):
            texts.append(part)
        elif kind in ("text", "input_text", "refusal"):
            texts.append(str(part.get("text") or part.get("refusal") or ""))
        else:
            raise InvalidRequestError(f"{where}: this API takes text only, not a part of type {kind!r}: ask a provider that takes it")
    return "\n".join(texts)
