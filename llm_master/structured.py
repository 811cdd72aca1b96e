"""Structured output: what ``response_format`` asks for, how it is asked, and what is made of the answer.

A provider that takes JSON schemas is given one (``json_schema``). One that does not is asked in another way, which the
receipt names: the schema as the arguments of a forced tool (``tool``), its JSON mode with the schema in words
(``json_object``), or the words alone (``prompt``). The answer is checked in any case.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs
import msgspec

from llm_master import strict_schema
from llm_master.errors import InvalidOutputError, InvalidRequestError
from llm_master.structured_types import TYPES, Shape, UnfitError, encoded_schema, fitting_name, path_of, shape_of_schema, shape_of_type
from llm_master.types import LLMResponse, Message, StreamEnd, StreamEvent, StreamPiece, TextDelta, ToolCallDelta

How: TypeAlias = Literal["json_schema", "tool", "json_object", "prompt"]
"""How the form is asked for; what stands in ``Receipt.structured_output``."""

_FENCE = re.compile(r"```(?:json)?\s*\n?(.*?)\s*```", re.DOTALL | re.IGNORECASE)

_SCHEMA_WORDS = frozenset("$ref $defs definitions properties required items prefixItems anyOf oneOf allOf enum const not if".split())
"""Keywords by which a dict is known as a JSON schema, whatever its ``type``."""

_MISNAMED = {"str": "string", "text": "string", "int": "integer", "float": "number", "bool": "boolean", "dict": "object", "list": "array"}
_MISNAMED |= {"none": "null", "tuple": "array", "map": "object", "double": "number", "date": "string"}

_CUT_OFF = frozenset({"length", "max_tokens", "model_length", "model_context_window_exceeded"})
_REFUSED = frozenset({"refusal", "content_filter", "safety", "recitation", "prohibited_content", "blocklist", "spii", "language"})
_CALLED = frozenset({"tool_calls", "tool_use", "function_call"})
"""Finish reasons, by the providers' words in lower case."""

_LONGEST_QUOTE = 200

_ANY_OBJECT = Shape("answer", {"type": "object"}, lambda _text, value: value)


class _Envelope(msgspec.Struct):
    value: msgspec.Raw


@attrs.frozen(eq=False, kw_only=True)
class Wanted:
    """What an answer should be, and how that is said.

    Attributes:
        name: Name of the format, and of the tool; fits ``^[a-zA-Z0-9_-]{1,64}$``.
        schema: The JSON schema as it goes on the wire.
        strict: Whether the provider is asked to hold strictly to it.
        wrapped: Whether the answer stands as the ``value`` of an object, for APIs want an object at the root.
        own: The user's own dict for the wire, which is kept as it is.
        shape: What the answer is made into.
        adaptable: Whether ``schema`` may be changed, for it was made of a class.
    """

    name: str
    schema: Mapping[str, Any]
    strict: bool = False
    wrapped: bool = False
    own: Mapping[str, Any] | None = None
    shape: Shape = attrs.field(repr=False)
    adaptable: bool = False

    @property
    def any_object(self) -> bool:
        """Whether any JSON object will do: ``{"type": "json_object"}``."""
        return self.shape is _ANY_OBJECT

    @property
    def tool_choice(self) -> dict[str, Any]:
        """What forces the model to call :meth:`as_tool`."""
        return {"type": "function", "function": {"name": self.name}}

    def openai_format(self) -> dict[str, Any]:
        """``response_format`` of a chat completion.

        Source: https://platform.openai.com/docs/api-reference/chat/create#chat-create-response_format
        """
        if self.own is not None:
            return dict(self.own)
        wire: dict[str, Any] = {"name": self.name, "schema": self.schema}
        if self.strict:
            wire["strict"] = True
        return {"type": "json_schema", "json_schema": wire}

    def as_tool(self) -> dict[str, Any]:
        """A function whose arguments are the answer."""
        function: dict[str, Any] = {"name": self.name, "description": "Gives the answer. Call it once.", "parameters": self.schema}
        if self.strict:
            function["strict"] = True
        return {"type": "function", "function": function}

    def instruction(self) -> str:
        """The words that ask for it."""
        alone = "Write nothing before or after it, and no Markdown."
        if self.any_object:
            return f"Answer with one JSON object only. {alone}"
        schema = msgspec.json.encode(self.schema).decode()
        return f"Answer with JSON only: one value that follows this JSON schema, not the schema itself. {alone}\n\n{schema}"

    def without(self, keywords: Collection[str]) -> Wanted:
        """The same with limits (``minimum``, ``pattern``, ...) said in descriptions, for an API that refuses these keywords.

        The answer is checked against them all the same. A schema that a user wrote is not changed.
        """
        if not self.adaptable:
            return self
        return attrs.evolve(self, schema=strict_schema.in_words(self.schema, keywords))

    def parse(self, text: str) -> Any:
        """Make the answer's text what was asked for.

        White space and one Markdown fence around the whole are left out of account; anything else beside the JSON is not.
        Of a name that comes twice in an object, the last counts, as msgspec has it.

        Raises:
            UnfitError: A ``ValueError`` whose text is the reason: ``it is not JSON: ...``, ``$.age: ...``.
        """
        text = text.strip()
        if fenced := _FENCE.fullmatch(text):
            text = fenced[1]
        if not text:
            raise UnfitError("it is empty")
        try:
            data = text.encode()
            value = msgspec.json.decode(data)
            if self.any_object and not isinstance(value, dict):
                raise UnfitError(f"$: it is {_kind(value)}, not an object")
            if self.wrapped:
                data, value = _unwrapped(data, value)
            return self.shape.build(data, value)
        except UnfitError:
            raise
        except RecursionError as exc:
            raise UnfitError("it is nested too deeply") from exc
        except ValueError as exc:
            raise UnfitError(f"it is not JSON: {exc}") from exc


def wanted(response_format: Any) -> Wanted | None:
    """What a ``response_format`` asks for; ``None`` if nothing, or what only the provider understands, which goes through.

    Args:
        response_format: A pydantic model or ``TypeAdapter``, an attrs class, a dataclass, a ``msgspec.Struct``, a
            ``TypedDict``, or another type as ``list[int]`` or a ``Literal``; a JSON schema as a dict; one of OpenAI's
            forms (``json_schema``, ``json_object``, ``text``).

    Raises:
        InvalidRequestError: It is none of these; says what is wrong and where.
    """
    if response_format is None:
        return None
    if not isinstance(response_format, Mapping):
        return _of_type(shape_of_type(response_format))
    kind = response_format.get("type")
    if kind == "json_schema":
        return _of_full_form(response_format)
    if kind == "json_object":
        # Together's and Fireworks' addition: {"type": "json_object", "schema": {...}}.
        schema = response_format.get("schema")
        shape = shape_of_schema(encoded_schema(schema)) if isinstance(schema, Mapping) else _ANY_OBJECT
        return Wanted(name=shape.name, schema=shape.schema, own=response_format, shape=shape)
    if kind == "text" and _SCHEMA_WORDS.isdisjoint(response_format):
        return None
    if _is_schema(response_format, kind):
        return _of_schema(shape_of_schema(encoded_schema(response_format)))
    return None


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


def finish(wanted: Wanted, how: How, response: LLMResponse) -> None:
    """Set ``response.parsed``. The call of the forced tool, if that was the way, becomes the content.

    An answer that calls the user's own tools is not the last word: what it says beside them need not fit.

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
        raise _invalid(response, exc) from exc


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

    def read(self, event: Any) -> Iterator[str | StreamEvent]:
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


def _invalid(response: LLMResponse, reason: UnfitError) -> InvalidOutputError:
    finish_reason = (response.finish_reason or "").lower()
    parts = [f"the answer is not what response_format asked for: {reason}"]
    if finish_reason in _CUT_OFF:
        parts.append("it was cut off at max_tokens: give more")
    elif finish_reason in _REFUSED:
        parts.append(f"the model or a filter refused it (finish reason {response.finish_reason!r}): ask for something else")
    parts.append("repair=True asks once more")
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


def _of_type(shape: Shape) -> Wanted:
    schema = strict_schema.with_own_root(shape.schema)
    wrap = schema.get("type") != "object"
    if wrap:
        schema = strict_schema.wrapped(schema)
    strict = strict_schema.to_strict(schema)
    return Wanted(name=shape.name, schema=strict or schema, strict=strict is not None, wrapped=wrap, shape=shape, adaptable=True)


def _of_schema(shape: Shape) -> Wanted:
    schema: Mapping[str, Any] = shape.schema
    # Every API wants an object at the root. References to elsewhere than the definitions would break inside another.
    wrap = not _means_object(schema) and all(
        reference.startswith(("#/$defs/", "#/definitions/")) for reference in strict_schema.references(schema)
    )
    if wrap and "$id" not in schema:
        schema = strict_schema.wrapped(schema)
    return Wanted(name=shape.name, schema=schema, strict=strict_schema.is_strict(schema), wrapped=schema is not shape.schema, shape=shape)


def _of_full_form(own: Mapping[str, Any]) -> Wanted:
    inner = own.get("json_schema", own)
    schema = inner.get("schema") if isinstance(inner, Mapping) else None
    if not isinstance(schema, Mapping):
        raise InvalidRequestError(
            'response_format of type "json_schema" has no schema that is a dict: give '
            '{"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}, or just the schema'
        )
    shape = shape_of_schema(encoded_schema(schema))
    name = inner.get("name")
    return Wanted(
        name=fitting_name(name) if isinstance(name, str) else shape.name,
        schema=schema,
        strict=inner.get("strict") is True,
        own=own,
        shape=shape,
    )


def _means_object(schema: Mapping[str, Any]) -> bool:
    """Whether a schema that a user wrote stands for an object; one without any type often does, and is left alone."""
    kind = schema.get("type")
    if kind is not None:
        return bool(kind == "object")
    return "properties" in schema or schema.keys().isdisjoint({"enum", "const", "anyOf", "oneOf", "items", "prefixItems"})


def _is_schema(given: Mapping[str, Any], kind: Any) -> bool:
    """Whether a dict is meant as a JSON schema, and not as what only a provider understands.

    Raises:
        InvalidRequestError: It can be neither, or is nearly one of the known forms.
    """
    if isinstance(kind, list) or kind in TYPES or not _SCHEMA_WORDS.isdisjoint(given):
        return True
    if kind is None:
        said = ", ".join(map(repr, given)) or "nothing"
        raise InvalidRequestError(
            f"response_format holds {said}, and neither a type nor another keyword of JSON schema: give a JSON schema as "
            '{"type": "object", "properties": {...}}, or {"type": "json_object"} for any JSON object'
        )
    if not isinstance(kind, str):
        raise InvalidRequestError(f"response_format is no JSON schema: $.type: {kind!r} is no type: give one of {', '.join(TYPES)}")
    near = _MISNAMED.get(kind) or next(iter(difflib.get_close_matches(kind.lower(), (*TYPES, "json_schema", "json_object"), 1, 0.8)), None)
    if near is not None:
        raise InvalidRequestError(
            f"response_format is no JSON schema: $.type: there is no type {kind!r}: did you mean {near!r}? If the provider really "
            'knows it, give it as extra_body={"response_format": ...}'
        )
    return False


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


def _unwrapped(data: bytes, value: Any) -> tuple[bytes, Any]:
    if not isinstance(value, dict):
        raise UnfitError(f'$: it is {_kind(value)}, not an object {{"value": ...}}')
    if "value" not in value:
        raise UnfitError("$: the property 'value' is missing")
    if more := [name for name in value if name != "value"]:
        raise UnfitError(f"{path_of([more[0]])}: there is to be nothing beside 'value'")
    return bytes(msgspec.json.decode(data, type=_Envelope).value), value["value"]


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")
