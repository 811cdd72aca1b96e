"""What ``response_format`` may be: the JSON schema of it, and what makes an object of an answer's JSON.

Classes of pydantic are left to pydantic, all others to msgspec, raw schemas to jsonschema-rs. The two that may not be there
or take time to import are imported where they are first needed.
"""

from __future__ import annotations

import functools
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs
import msgspec

from llm_master.errors import InvalidRequestError

TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")
"""The types of JSON schema: https://json-schema.org/draft/2020-12/json-schema-validation#name-type"""

_CHOICES = (
    'a pydantic model, an attrs class, a dataclass, another type such as list[int], a JSON schema as a dict, or {"type": "json_object"}'
)
_KEPT_CLASSES = 512
_KEPT_SCHEMAS = 256
_LONGEST_REASON = 200


class UnfitError(ValueError):
    """An answer that is not what was asked for. ``str()`` of it is the reason: ``$.age: ...``."""


@attrs.frozen(eq=False)
class Shape:
    """What an answer should be.

    Attributes:
        name: What it is called; fits ``^[a-zA-Z0-9_-]{1,64}$``.
        schema: The JSON schema of it.
        build: Makes the object of its JSON text, which is known to be JSON, and that decoded. Raises ``UnfitError``.
    """

    name: str
    schema: dict[str, Any]
    build: Callable[[bytes, Any], Any]


def shape_of_type(kind: Any) -> Shape:
    """The shape that a class, or another type, describes.

    Raises:
        InvalidRequestError: It is no type, or one of which there is no schema; says why.
    """
    try:
        return _shape_of_type(kind)
    except TypeError:  # not hashable, as a type annotated with a list is
        return _shape_of_type.__wrapped__(kind)


@functools.lru_cache(_KEPT_CLASSES)
def _shape_of_type(kind: Any) -> Shape:
    adapter = _is_adapter(kind)
    if not adapter and not _is_type(kind):
        if isinstance(kind, (str, bytes, int, float)):
            raise InvalidRequestError(f"response_format is {kind!r:.80}: give {_CHOICES}")
        raise InvalidRequestError(f"response_format is an instance of {type(kind).__name__}: give the class itself, or {_CHOICES}")
    ours = not adapter and not _of_pydantic(kind, set())
    try:
        schema, build = _by_msgspec(kind) if ours else _by_pydantic(kind)
    except Exception as exc:
        if not ours:
            remedy = "all of it has to be models, pydantic dataclasses or types that pydantic knows"
        elif "union" in str(exc):
            remedy = "make its members pydantic models, or msgspec.Struct with a tag, which can be told apart"
        else:
            remedy = f"give {_CHOICES}"
        said = " ".join(str(exc).split())[: 2 * _LONGEST_REASON]
        raise InvalidRequestError(f"response_format: {_named(kind)} cannot be made a JSON schema ({said}): {remedy}") from exc
    return Shape(fitting_name(_named(kind)), schema, build)


@functools.lru_cache(_KEPT_SCHEMAS)
def shape_of_schema(encoded: bytes) -> Shape:
    """The shape that a raw schema describes, which is checked. Keep by what :func:`encoded_schema` returns.

    Raises:
        InvalidRequestError: It is no schema; says why and where.
    """
    import jsonschema_rs

    schema = msgspec.json.decode(encoded)
    try:
        validator = jsonschema_rs.validator_for(schema, retriever=_fetch_nothing)
    except jsonschema_rs.ValidationError as exc:
        where, why = _schema_error(schema, exc)
        raise InvalidRequestError(f"response_format is no JSON schema: {path_of(where)}: {why}") from exc
    except (ValueError, jsonschema_rs.ReferencingError) as exc:
        raise InvalidRequestError(f"response_format is no JSON schema that can be used: {exc}") from exc

    def build(_text: bytes, value: Any) -> Any:
        try:
            validator.validate(value)
        except jsonschema_rs.ValidationError as exc:
            raise UnfitError(f"{path_of(exc.instance_path)}: {_short(exc.message)}") from exc
        except ValueError as exc:
            raise UnfitError(f"$: it cannot be checked: {exc}") from exc
        return value

    title = schema.get("title")
    return Shape(fitting_name(title if isinstance(title, str) else ""), schema, build)


def encoded_schema(schema: Mapping[str, Any]) -> bytes:
    """The schema as JSON text.

    Raises:
        InvalidRequestError: It holds what is no JSON; says where.
    """
    try:
        return msgspec.json.encode(schema, enc_hook=_plain)
    except RecursionError:
        raise InvalidRequestError(
            "response_format is no JSON schema: it is nested too deeply, or holds itself: use $defs and $ref"
        ) from None
    except (TypeError, ValueError) as exc:
        where, what = next(_foreign(schema, []), ([], None))
        raise InvalidRequestError(
            f"response_format is no JSON schema: {path_of(where)} holds {what!r}, which is no JSON ({exc}): write it as a schema, "
            "or give a class for the whole"
        ) from exc


def path_of(parts: Iterable[str | int]) -> str:
    """``$.people[0].age``."""
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


def fitting_name(name: str) -> str:
    """The name with what an API does not allow in one replaced; ``answer`` if nothing is left."""
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", name).strip("_")[:64] or "answer"


def _is_adapter(kind: Any) -> bool:
    return any(base.__name__ == "TypeAdapter" and base.__module__.startswith("pydantic.") for base in type(kind).__mro__)


def _is_type(kind: Any) -> bool:
    if isinstance(kind, (type, typing.NewType)) or kind is Any or typing.get_origin(kind) is not None:
        return True
    return type(kind).__name__ == "TypeAliasType"  # of typing from 3.12 on, or of typing_extensions


def _named(kind: Any) -> str:
    """``Person``, ``list_Person``, ``answer``."""
    if (origin := typing.get_origin(kind)) is typing.Annotated:
        return _named(kind.__origin__)
    arguments = typing.get_args(kind)
    if isinstance(origin, type) and origin is not types.UnionType and all(isinstance(argument, type) for argument in arguments):
        return "_".join(part.__name__ for part in (origin, *arguments))
    return str(kind.__name__) if isinstance(kind, type) else "answer"


def _by_msgspec(kind: Any) -> tuple[dict[str, Any], Callable[[bytes, Any], Any]]:
    schema = msgspec.json.schema(kind)
    decode = msgspec.json.Decoder(kind).decode

    def build(text: bytes, _value: Any) -> Any:
        try:
            return decode(text)
        except msgspec.ValidationError as exc:
            why, at, where = str(exc).rpartition(" - at `")
            raise UnfitError(f"{where.removesuffix('`')}: {_short(why)}" if at else f"$: {_short(str(exc))}") from exc
        except Exception as exc:
            raise _own_code_raised(exc) from exc

    return schema, build


def _by_pydantic(kind: Any) -> tuple[dict[str, Any], Callable[[bytes, Any], Any]]:
    import pydantic

    validate: Callable[[bytes], Any]
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        # A model may have its own way with these two.
        schema, validate = kind.model_json_schema(), kind.model_validate_json
    else:
        adapter = kind if _is_adapter(kind) else pydantic.TypeAdapter(kind)
        schema, validate = adapter.json_schema(), adapter.validate_json

    def build(text: bytes, _value: Any) -> Any:
        try:
            return validate(text)
        except pydantic.ValidationError as exc:
            errors = exc.errors(include_url=False, include_input=False, include_context=False)
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            raise UnfitError(f"{path_of(errors[0]['loc'])}: {_short(errors[0]['msg'])}{more}") from exc
        except Exception as exc:
            raise _own_code_raised(exc) from exc

    return schema, build


def _own_code_raised(exc: Exception) -> UnfitError:
    # A class' converters and validators are users' code. The answer is paid for: it must not be lost with their error.
    return UnfitError(f"$: the class refused it: {type(exc).__name__}: {_short(str(exc))}")


def _of_pydantic(kind: Any, seen: set[int]) -> bool:
    """Whether pydantic has a part in the type, at any depth. Nothing is imported for it."""
    if "pydantic" not in sys.modules or id(kind) in seen:
        return False
    seen.add(id(kind))
    if isinstance(kind, type):
        if any(_from_pydantic(base) for base in kind.__mro__):
            return True
        if hasattr(kind, "__pydantic_core_schema__") or hasattr(kind, "__get_pydantic_core_schema__"):  # its dataclasses
            return True
    if any(_from_pydantic(type(note)) for note in getattr(kind, "__metadata__", ())):
        return True
    inner = [*typing.get_args(kind), typing.get_origin(kind), getattr(kind, "__value__", None), getattr(kind, "__supertype__", None)]
    if isinstance(kind, type) and "__annotations__" in vars(kind):
        try:
            inner += typing.get_type_hints(kind, include_extras=True).values()
        except Exception:
            return False  # a name cannot be found: whoever makes the schema says so
    return any(_of_pydantic(part, seen) for part in inner if part is not None and not isinstance(part, (str, int)))


def _from_pydantic(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in ("pydantic", "pydantic_core", "annotated_types")


def _fetch_nothing(uri: str) -> Any:
    # A schema is data, and may come from anywhere: by default the validator would open any file and any address in it.
    raise ValueError(f"{uri!r} is not fetched: put what it holds under $defs")


def _schema_error(schema: Any, exc: Any) -> tuple[list[str | int], str]:
    where = list(exc.instance_path)
    message = _short(exc.message)
    if where and where[-1] == "type":
        return where, f"{message.partition(' is not valid')[0]} is no type of JSON schema: give one of {', '.join(TYPES)}"
    if not where:
        # Of a reference, and in older versions of a pattern, the validator does not say where it stands.
        where = next(_standing(schema, exc.message, []), [])
        if where and where[-1] == "$ref":
            return where, f"there is nothing where it points, and nothing is fetched from elsewhere: put it under $defs ({message})"
    return where, message


def _standing(schema: Any, message: str, path: list[str | int]) -> Iterator[list[str | int]]:
    """Where what the validator's message names stands."""
    for key, part in _members(schema):
        if key in ("$ref", "$schema", "pattern") and isinstance(part, str) and part.strip("#") and part.removeprefix("#") in message:
            yield [*path, key]
        yield from _standing(part, message, [*path, key])


def _foreign(value: Any, path: list[str | int]) -> Iterator[tuple[list[str | int], Any]]:
    """Where something stands that JSON has no word for, and what it is."""
    for key, part in _members(value):
        try:
            msgspec.json.encode(part, enc_hook=_plain)
        except (TypeError, ValueError):
            deeper = next(_foreign(part, [*path, key]), None)
            yield deeper or ([*path, key], part)


def _members(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, (list, tuple)) else ()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"it is of {type(value).__name__}")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 1] + "…"
