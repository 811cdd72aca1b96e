"""Numbers of tokens, as the usage of an answer has them."""

from __future__ import annotations

from typing import Any


def whole(value: Any) -> int | None:
    """A number, which may come as ``25.0``; ``None`` for whatever is none."""
    if value.__class__ is int:
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else None


def count(value: Any) -> int | None:
    """The same, which may also come as text."""
    if value.__class__ is int:
        return int(value)
    if isinstance(value, str):
        return int(value) if value.isdecimal() else None
    return whole(value)
