"""JSON schemas, against the subset that an API's structured output allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llm_master.errors import InvalidRequestError


def check_schema(
    schema: Any, path: str, *, forbidden: frozenset[str], also: Callable[[Mapping[str, Any], str], None] | None = None
) -> None:
    """Walk a schema and refuse what the API would.

    Args:
        schema: The schema, or a part of it.
        path: Where that part stands, for the error.
        forbidden: Keywords that the API does not allow. A property may be called as one.
        also: Checks a part further.

    Raises:
        InvalidRequestError: Names the keyword and where it stands.
    """
    if isinstance(schema, list):
        for position, part in enumerate(schema):
            check_schema(part, f"{path}[{position}]", forbidden=forbidden, also=also)
    if not isinstance(schema, Mapping):
        return
    for keyword in schema:
        if keyword in forbidden:
            raise InvalidRequestError(
                f"the API's structured output does not allow {keyword!r} (at {path}): leave it out and check it in the answer"
            )
    if also is not None:
        also(schema, path)
    for keyword in ("properties", "$defs", "definitions"):
        named = schema.get(keyword) or {}
        if not isinstance(named, Mapping):
            raise InvalidRequestError(f"the schema's {keyword!r} is no dict (at {path})")
        for name, part in named.items():
            check_schema(part, f"{path}.{keyword}.{name}", forbidden=forbidden, also=also)
    for keyword in ("items", "prefixItems", "anyOf", "oneOf", "allOf", "additionalProperties"):
        check_schema(schema.get(keyword), f"{path}.{keyword}", forbidden=forbidden, also=also)


def fits(schema: Any, *, forbidden: frozenset[str], also: Callable[[Mapping[str, Any], str], None] | None = None) -> bool:
    """Whether :func:`check_schema` would let a schema pass."""
    try:
        check_schema(schema, "schema", forbidden=forbidden, also=also)
    except InvalidRequestError:
        return False
    return True
