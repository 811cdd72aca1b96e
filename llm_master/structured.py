"""Structured output: what ``response_format`` asks for, how it is asked, and what is made of the answer.

A provider that takes JSON schemas is given one (``json_schema``). One that does not is asked in another way, which the
receipt names: the schema as the arguments of a forced tool (``tool``), its JSON mode with the schema in words
(``json_object``), or the words alone (``prompt``). The answer is checked in any case.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs
import msgspec

from llm_master.errors import InvalidOutputError
from llm_master.structured_format import Wanted, wanted
from llm_master.structured_types import UnfitError
from llm_master.types import LLMResponse, Message, StreamEnd, StreamPiece, TextDelta, ToolCallDelta

__all__ = ["How", "UnfitError", "Wanted", "apply", "as_text", "choose", "finish", "repair_messages", "wanted"]

How: TypeAlias = Literal["json_schema", "tool", "json_object", "prompt"]
"""How the form is asked for; what stands in ``Receipt.structured_output``."""

_CUT_OFF = frozenset({"length", "max_tokens", "model_length", "model_context_window_exceeded"})
_REFUSED = frozenset({"refusal", "content_filter", "safety", "recitation", "prohibited_content", "blocklist", "spii", "language"})
_CALLED = frozenset({"tool_calls", "tool_use", "function_call"})
"""Finish reasons, by the providers' words in lower case."""

_LONGEST_QUOTE = 200


def choose(wanted: Wanted, how: How, options: Mapping[str, Any]) -> How:
    """How it is really asked for, where a provider's way does not fit this call.

    A tool cannot be forced where the user gave tools of his own, which would never be called, nor while the model reasons
    (https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking#extended-thinking-with-tool-use), and its
    arguments are an object.
    """
    if wanted.any_object:
        return {"json_schema": "json_object", "tool": "prompt"}.get(how, how)  # type: ignore[return-value]
    if how != "tool":
        return how
    thinking = options.get("thinking")
    thinks = isinstance(thinking, Mapping) and thinking.get("type") != "disabled"
    thinks = thinks or options.get("reasoning_effort") not in (None, "none")
    if thinks or options.get("tools") or options.get("functions") or wanted.schema.get("type") != "object":
        return "prompt"
    return how


def apply(wanted: Wanted, how: How, messages: Sequence[Message], options: Mapping[str, Any]) -> tuple[Sequence[Message], dict[str, Any]]:
    """The messages and the options that ask for it, in OpenAI's words; what is given is not changed.

    Args:
        wanted: What is asked for.
        how: What :func:`choose` said.
        messages: The conversation.
        options: The call's options; a ``response_format`` in them is replaced.
    """
    options = {name: value for name, value in options.items() if name != "response_format"}
    if how == "json_schema":
        return messages, {**options, "response_format": wanted.openai_format()}
    if how == "tool":
        tools = [*(options.get("tools") or ()), wanted.as_tool()]
        return messages, {**options, "tools": tools, "tool_choice": wanted.tool_choice}
    if how == "json_object":
        if wanted.own is not None and wanted.own.get("type") == "json_object":
            return messages, {**options, "response_format": wanted.openai_format()}  # just what was asked for
        options["response_format"] = {"type": "json_object"}
    elif how != "prompt":
        raise ValueError(f"structured output by {how!r}: give json_schema, tool, json_object or prompt")
    return _instructed(messages, wanted.instruction()), options


def finish(wanted: Wanted, how: How, response: LLMResponse, *, repaired: bool = False) -> None:
    """Set ``response.parsed``. The call of the forced tool, if that was the way, becomes the content.

    An answer that calls the user's own tools is not the last word: what it says beside them need not fit.

    Args:
        wanted: What was asked for.
        how: How it was asked for.
        response: The answer, which is changed.
        repaired: It is the answer to :func:`repair_messages`, so that the error does not propose to ask once more.

    Raises:
        InvalidOutputError: The answer is not what was asked for. It holds the ``response``; its ``__cause__`` is the reason.
    """
    if how == "tool":
        _tool_to_content(wanted.name, response)
    if response.tool_calls:
        with contextlib.suppress(UnfitError):
            response.parsed = wanted.parse(response.content)
        return
    try:
        response.parsed = wanted.parse(response.content)
    except UnfitError as exc:
        raise _invalid(response, exc, repaired=repaired) from exc


def repair_messages(messages: Sequence[Message], response: LLMResponse, reason: object) -> list[Message]:
    """The conversation that asks once more.

    Args:
        messages: What was sent.
        response: The answer that did not fit, as :func:`finish` left it.
        reason: What is wrong with it: the error's ``__cause__``, or words.
    """
    said: list[Message] = []
    if response.content.strip():  # some APIs refuse an empty turn
        said.append({"role": "assistant", "content": response.content})
    question = f"That answer cannot be used: {reason}. Answer again, with the corrected JSON only."
    return [*messages, *said, {"role": "user", "content": question}]


async def as_text(pieces: AsyncIterator[StreamPiece], how: How, name: str) -> AsyncIterator[StreamPiece]:
    """A provider's stream in which the forced tool's arguments are the text, as if the provider took schemas.

    Args:
        pieces: What the provider's stream yields.
        how: Anything but ``tool`` goes through as it is.
        name: The tool's name: ``wanted.name``.
    """
    try:
        if how != "tool":
            async for piece in pieces:
                yield piece
            return
        reader = _ToolReader(name)
        async for piece in pieces:
            events = [event for one in (piece if isinstance(piece, list) else (piece,)) for event in reader.read(one)]
            if events:
                yield events[0] if len(events) == 1 else events
        if held := reader.release():
            yield held
    finally:
        if (close := getattr(pieces, "aclose", None)) is not None:
            await close()


class _ToolReader:
    """Makes text of the forced tool's arguments.

    Text beside the call is no part of the answer, and text without a call is all of it. Which it is shows only later, so
    that text is held until a call begins or the stream ends.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._held: list[str] = []
        self._index: int | None = None
        self._ours: set[int] = set()
        self._others = False

    def read(self, event: Any) -> Iterator[Any]:
        if isinstance(event, (str, TextDelta)):
            if self._index is None:
                self._held.append(event if isinstance(event, str) else event.text)
        elif isinstance(event, ToolCallDelta):
            if event.name == self._name:
                self._ours.add(event.index)
                if self._index is None:
                    self._index = event.index
                    self._held.clear()
            if event.index not in self._ours:
                self._others = True
                yield event
            elif event.index == self._index and event.arguments:
                yield event.arguments
        elif isinstance(event, StreamEnd):
            if held := self.release():
                yield held
            yield _ended(event, others=self._others) if self._ours else event
        elif isinstance(event, LLMResponse):  # of a provider that cannot stream
            _tool_to_content(self._name, event)
            self._held.clear()
            if event.content:
                yield event.content
            yield event
        else:
            yield event

    def release(self) -> str:
        text = "".join(self._held)
        self._held.clear()
        return text


def _ended(end: StreamEnd, *, others: bool) -> StreamEnd:
    called = (end.finish_reason or "").lower() in _CALLED and not others
    # The provider's own form still has the call, and a call without its result would break the next turn.
    return attrs.evolve(end, finish_reason="stop" if called else end.finish_reason, native=None)


def _tool_to_content(name: str, response: LLMResponse) -> None:
    ours = [call for call in response.tool_calls if call.name == name]
    if not ours:
        return
    text = ours[0].text
    response.content = text if text is not None else msgspec.json.encode(ours[0].arguments).decode()
    response.tool_calls = [call for call in response.tool_calls if call.name != name]
    response.native = None  # as in _ended
    if not response.tool_calls and (response.finish_reason or "").lower() in _CALLED:
        response.finish_reason = "stop"


def _invalid(response: LLMResponse, reason: UnfitError, *, repaired: bool) -> InvalidOutputError:
    finish_reason = (response.finish_reason or "").lower()
    parts = [f"the answer is not what response_format asked for: {reason}"]
    if finish_reason in _CUT_OFF:
        parts.append("it was cut off at max_tokens: give more")
    elif finish_reason in _REFUSED:
        parts.append(f"the model or a filter refused it (finish reason {response.finish_reason!r}): ask for something else")
    parts.append("it was asked once more already" if repaired else "repair=True asks once more")
    text = " ".join(response.content.split())
    text = text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…"
    parts.append(f"it said: {text}" if text else "it said nothing")
    wire = response.wire
    error = InvalidOutputError(
        (f"{response.provider}: " if response.provider else "") + "; ".join(parts),
        status=wire.status if wire is not None else None,
        provider=response.provider,
        model=response.model_name,
        request_id=wire.request_id if wire is not None else None,
    )
    error.response = response
    return error


def _instructed(messages: Sequence[Message], instruction: str) -> list[Message]:
    """The conversation with the instruction in its first system message, or in a new one at the front."""
    result = list(messages)
    for position, message in enumerate(result):
        if message.get("role") in ("system", "developer"):
            content = message.get("content")
            if isinstance(content, (list, tuple)):
                content = [*content, {"type": "text", "text": instruction}]
            else:
                content = f"{content}\n\n{instruction}" if content else instruction
            result[position] = {**message, "content": content}
            return result
    return [{"role": "system", "content": instruction}, *result]
