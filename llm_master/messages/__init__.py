"""What goes in: the conversation of a call, with its images, audio and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_master.errors import InvalidRequestError
from llm_master.messages.content import MediaPolicy, Pending
from llm_master.messages.loading import loaded, loaded_now
from llm_master.messages.parts import SPELLINGS, kinds, normalized, with_attachments
from llm_master.settings.declared import ModelSettings
from llm_master.types import Message

__all__ = [
    "MediaPolicy",
    "Pending",
    "checked_conversation",
    "has_media",
    "instructed",
    "kinds",
    "loaded",
    "loaded_now",
    "normalized",
    "with_attachments",
]


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


def has_media(messages: Sequence[Message]) -> bool:
    """Whether a checked conversation holds anything but plain text, so that it must be normalized.

    It does where a content is a list with a part that is no ``{"type": "text"}``, or where a message has one of the keys
    ``image_paths``, ``images``, ``image_details``, ``parts`` or ``text``.
    """
    for message in messages:
        content = message.get("content")
        if content.__class__ is str and len(message) == 2:  # role and content: what nearly every message is
            continue
        if not SPELLINGS.isdisjoint(message):
            return True
        if isinstance(content, (list, tuple)):
            for part in content:
                if not isinstance(part, Mapping) or part.get("type") != "text":
                    return True
    return False


def instructed(messages: Sequence[Message], settings: ModelSettings) -> Sequence[Message]:
    """The conversation with the system instruction that settings have for the model.

    It joins the caller's system message, behind it (``append``) or before it (``prepend``), with a blank line between;
    where there is none, it becomes one.
    """
    instruction = settings.system_instruction
    for position, message in enumerate(messages):
        if message["role"] not in ("system", "developer"):
            continue
        content = message.get("content")
        own = {"type": "text", "text": instruction}
        joined: Any
        if isinstance(content, (list, tuple)):
            joined = [own, *content] if settings.position == "prepend" else [*content, own]
        else:
            joined = "\n\n".join(text for text in _in_order(content, instruction, settings.position) if text)
        return [*messages[:position], {**message, "content": joined}, *messages[position + 1 :]]
    return [{"role": "system", "content": instruction}, *messages]


def _in_order(content: Any, instruction: Any, position: str) -> tuple[Any, Any]:
    return (instruction, content) if position == "prepend" else (content, instruction)
