"""What a ``response_format`` asks for: its schema on the wire, the words for it, and what reads the answer."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection, Mapping
from typing import Any

import attrs
import msgspec

from llm_master import strict_schema
from llm_master.errors import InvalidRequestError
from llm_master.structured_types import TYPES, Shape, UnfitError, encoded_schema, fitting_name, path_of, shape_of_schema, shape_of_type

_FENCE = "```"

_SCHEMA_WORDS = frozenset("$ref $defs definitions properties required items prefixItems anyOf oneOf allOf enum const not if".split())
"""Keywords by which a dict is known as a JSON schema, whatever its ``type``."""

_MISNAMED = {"str": "string", "text": "string", "int": "integer", "float": "number", "bool": "boolean", "dict": "object", "list": "array"}
_MISNAMED |= {"none": "null", "tuple": "array", "map": "object", "double": "number", "date": "string"}

_KEPT = 512
"""Conversions kept: queries come by the thousands, and ask for few different things."""

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
        if text.startswith(_FENCE) and text.endswith(_FENCE) and len(text) >= 2 * len(_FENCE):
            inner = text[len(_FENCE) : -len(_FENCE)]
            text = (inner[4:] if inner[:4].lower() == "json" else inner).strip()
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


@functools.lru_cache(_KEPT)
def _of_type(shape: Shape) -> Wanted:
    schema = strict_schema.with_own_root(shape.schema)
    wrap = schema.get("type") != "object"
    if wrap:
        schema = strict_schema.wrapped(schema)
    strict = strict_schema.to_strict(schema)
    return Wanted(name=shape.name, schema=strict or schema, strict=strict is not None, wrapped=wrap, shape=shape, adaptable=True)


@functools.lru_cache(_KEPT)
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
