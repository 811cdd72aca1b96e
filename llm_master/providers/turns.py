"""What all foreign formats read of an assistant's turn, with the errors for what cannot be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from llm_master.errors import InvalidRequestError
from llm_master.types import Message


def native_content(message: Message, form: str, where: str, by: str = "") -> list[dict[str, Any]] | None:
    """The turn in the provider's own form, if an answer of that form kept it.

    Args:
        message: The turn.
        form: The name of the form.
        where: Where the message stands.
        by: Name of the provider's row, where others of the same form keep what only they can read. A turn that does not say
            whose it is was written by the caller, and is taken.
    """
    native = message.get("_native")
    if not isinstance(native, Mapping) or native.get("format") != form or native.get("by", by) != by:
        return None
    content = native.get("content")
    if not isinstance(content, (list, tuple)) or not all(isinstance(part, Mapping) for part in content):
        raise InvalidRequestError(f"{where}: _native has no content: leave _native as the answer's message had it, or out")
    return [dict(part) for part in content]


def tool_calls(message: Message, where: str) -> Iterator[tuple[Mapping[str, Any], str | None, dict[str, Any]]]:
    """Each tool call of a turn with its function's name and arguments.

    Raises:
        InvalidRequestError: A call is none, or its arguments are no JSON object.
    """
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(call, Mapping) or not isinstance(function or {}, Mapping):
            raise InvalidRequestError(f"{where}: a tool call is {call!r}: give a dict as an answer's message has it")
        function = function or {}
        text = function.get("arguments") or ""
        try:
            arguments = msgspec.json.decode(text) if isinstance(text, str) and text.strip() else text or {}
        except msgspec.DecodeError as exc:
            raise InvalidRequestError(f"{where}: the arguments of tool call {call.get('id')!r} are not JSON: {exc}") from exc
        if not isinstance(arguments, Mapping):
            raise InvalidRequestError(f"{where}: the arguments of tool call {call.get('id')!r} are no JSON object but {text!r}")
        yield call, function.get("name"), dict(arguments)


def refuse_no_turns(turns: list[Any]) -> None:
    """Refuse a conversation in which nobody says anything."""
    if not turns:
        raise InvalidRequestError("messages hold nothing but a system instruction: add a user message")
