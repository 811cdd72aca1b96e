"""What goes in: the conversation of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_master.errors import InvalidRequestError
from llm_master.types import Message


def checked_conversation(messages: Sequence[Message] | None, prompt: str | None) -> Sequence[Message]:
    """The messages to send, checked.

    Raises:
        InvalidRequestError: Both or neither were given, or a message is none.
    """
    if prompt is not None:
        if messages is not None:
            raise InvalidRequestError("both prompt and messages are given: give one of them")
        if not isinstance(prompt, str) or not prompt.strip():
            raise InvalidRequestError(f"prompt is {prompt!r}: give a text that is not empty")
        return [{"role": "user", "content": prompt}]
    if messages is None:
        raise InvalidRequestError("neither prompt nor messages is given: give one of them")
    if messages.__class__ is not list and (isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence)):
        raise InvalidRequestError(f"messages is a {type(messages).__name__}: give a list of messages; a text goes into prompt=")
    if not messages:
        raise InvalidRequestError("messages is empty: give at least one message")
    for position, message in enumerate(messages):
        if message.__class__ is not dict and not isinstance(message, Mapping):
            raise InvalidRequestError(
                f'messages[{position}] is a {type(message).__name__}: give a dict, as {{"role": "user", "content": "..."}}'
            )
        role = message.get("role")
        if not isinstance(role, str) or not role:
            raise InvalidRequestError(f'messages[{position}] has no role: give "system", "user", "assistant" or "tool"')
    return messages
