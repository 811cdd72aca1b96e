"""JSON schemas in the dialect of strict structured output.

Source: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import msgspec

_KEPT = frozenset(
    "$schema $ref $defs definitions type title description properties required additionalProperties items enum const anyOf "
    "pattern format multipleOf minimum maximum exclusiveMinimum exclusiveMaximum minItems maxItems".split()
)
"""What strict mode knows."""

_MEANING = frozenset(
    "allOf oneOf not if then else prefixItems additionalItems unevaluatedItems contains minContains maxContains patternProperties "
    "propertyNames unevaluatedProperties dependencies dependentRequired dependentSchemas $anchor $dynamicRef $dynamicAnchor $id".split()
)
"""What it does not know and what cannot be left out, for the form of the answer hangs on it."""

_LIMITS = frozenset(
    "minLength maxLength uniqueItems minProperties maxProperties contentEncoding contentMediaType pattern format multipleOf minimum "
    "maximum exclusiveMinimum exclusiveMaximum minItems maxItems".split()
)
"""What narrows a value: where it cannot be enforced it is said in the description, and checked in the answer."""

_FORMATS = frozenset("date-time time date duration email hostname ipv4 ipv6 uuid".split())

_UNKNOWN_TO_REGEX = re.compile(r"\(\?[^:]|\\[1-9kK]")
"""Lookaround, flags, named groups and back references, which the API's patterns do not have. Pydantic writes some for ``Decimal``."""

_NAMED = ("properties", "$defs", "definitions")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties")

_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "boolean"),  # before int, which it is too
    (str, "string"),
    (int, "integer"),
    (float, "number"),
    (type(None), "null"),
)


def with_own_root(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a class with the class itself at the root, where generators of schemas put a ``$ref``.

    Definitions that nobody needs any more are left out.
    """
    root = dict(schema)
    definitions = root.get("$defs", {})
    for _ in range(len(definitions)):  # no longer chain can end
        name = str(root.get("$ref", "")).removeprefix("#/$defs/")
        if name not in definitions:
            break
        del root["$ref"]
        root = {**definitions[name], **root}
    needed: set[str] = set()
    look_at: list[Any] = [{key: value for key, value in root.items() if key != "$defs"}]
    while look_at:
        for reference in references(look_at.pop()):
            name = reference.removeprefix("#/$defs/")
            if name in definitions and name not in needed:
                needed.add(name)
                look_at.append(definitions[name])
    root.pop("$defs", None)
    if needed:
        root["$defs"] = {name: part for name, part in definitions.items() if name in needed}
    return root


def wrapped(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An object whose one property ``value`` is what the schema describes; its definitions stay at the root."""
    hoisted = {key: schema[key] for key in ("$schema", "$defs", "definitions") if key in schema}
    inner = {key: value for key, value in schema.items() if key not in hoisted}
    return {"type": "object", "properties": {"value": inner}, "required": ["value"], "additionalProperties": False, **hoisted}


def references(schema: Any) -> Iterator[str]:
    """Every ``$ref`` in a schema, wherever it stands."""
    if isinstance(schema, Mapping):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for part in schema.values():
            yield from references(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from references(part)


def to_strict(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema of a class, which is a valid one, as strict mode wants it; ``None`` if that cannot say it.

    All properties become required, for strict mode knows no others; objects are closed; limits that cannot be enforced are
    said in descriptions. Whatever fits the result fits the schema but for those limits, which the class checks itself.
    """
    candidate = _strict(schema)
    return candidate if is_strict(candidate) else None


def is_strict(schema: Any) -> bool:
    """Whether strict mode takes the schema as it stands. Counts and depth, which it limits too, are not looked at."""
    return isinstance(schema, Mapping) and schema.get("type") == "object" and "anyOf" not in schema and _fits(schema)


def in_words(schema: Any, keywords: Collection[str]) -> Any:
    """A copy of the schema with these limits said in descriptions, for an API that refuses them.

    Keywords that are no limits of a value stay: words cannot stand for them.
    """
    if not isinstance(schema, Mapping):
        return schema
    limits = _LIMITS.intersection(keywords)
    node = _map_parts(schema, lambda part: in_words(part, keywords))
    return _described(node, [keyword for keyword in node if keyword in limits])


def _parts(schema: Any) -> Iterator[Any]:
    """The schemas that stand directly in a schema."""
    if not isinstance(schema, Mapping):
        return
    for keyword in _NAMED:
        if isinstance(named := schema.get(keyword), Mapping):
            yield from named.values()
    for keyword in _LISTED:
        if isinstance(listed := schema.get(keyword), list):
            yield from listed
    for keyword in _SINGLE:
        if keyword in schema:
            yield schema[keyword]


def _map_parts(schema: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    node = dict(schema)
    for keyword in _NAMED:
        if isinstance(named := node.get(keyword), Mapping):
            node[keyword] = {name: change(part) for name, part in named.items()}
    for keyword in _LISTED:
        if isinstance(listed := node.get(keyword), list):
            node[keyword] = [change(part) for part in listed]
    for keyword in _SINGLE:
        if keyword in node:
            node[keyword] = change(node[keyword])
    return node


def _described(node: dict[str, Any], keywords: Iterable[str]) -> dict[str, Any]:
    """The node without these keywords, its description with them."""
    said = [f"{keyword}: {msgspec.json.encode(node.pop(keyword)).decode()}" for keyword in keywords]
    if said:
        node["description"] = f"{node.get('description', '')} ({', '.join(said)})".lstrip()
    return node


def _strict(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    node = _map_parts(schema, _strict)
    if len(every := node.get("allOf", ())) == 1 and isinstance(every[0], dict) and not (every[0].keys() & node.keys()):
        node |= node.pop("allOf")[0]
    if "oneOf" in node and "anyOf" not in node:  # of a class' members at most one fits anyway
        node["anyOf"] = node.pop("oneOf")
    if "type" not in node and (values := node.get("enum") or ([node["const"]] if "const" in node else [])):
        node |= _type_of(values)
    if isinstance(properties := node.get("properties"), dict):
        node.setdefault("type", "object")
        node.setdefault("additionalProperties", False)
        node["required"] = list(properties)
    unsaid = [keyword for keyword in node if keyword in _LIMITS and not _enforced(keyword, node[keyword])]
    node = {key: value for key, value in _described(node, unsaid).items() if key in _KEPT or key in _MEANING}
    if "$ref" in node and len(node) > 1:
        node.pop("title", None)
        reference = {"$ref": node.pop("$ref")}
        node = {"anyOf": [reference], **node} if node else reference
    return node


def _type_of(values: list[Any]) -> dict[str, Any]:
    names = {next((name for kind, name in _TYPES if isinstance(value, kind)), "") for value in values}
    if "" in names:
        return {}
    return {"type": names.pop() if len(names) == 1 else sorted(names)}


def _enforced(keyword: str, value: Any) -> bool:
    if keyword == "format":
        return value in _FORMATS
    if keyword == "pattern":
        return isinstance(value, str) and not _UNKNOWN_TO_REGEX.search(value)
    return keyword in _KEPT


def _fits(node: Any) -> bool:
    if not isinstance(node, Mapping) or not node.keys() <= _KEPT:
        return False
    if "$ref" in node:
        return len(node) == 1
    if "anyOf" not in node and "type" not in node:
        return False
    kinds = node.get("type", ())
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    if "array" in kinds and not isinstance(node.get("items"), Mapping):
        return False
    if "object" in kinds:
        properties = node.get("properties")
        if node.get("additionalProperties") is not False or not isinstance(properties, Mapping):
            return False
        if set(node.get("required", ())) != set(properties):
            return False
    if not all(_enforced(keyword, node[keyword]) for keyword in ("format", "pattern") if keyword in node):
        return False
    return all(_fits(part) for part in _parts(node) if part is not False)
