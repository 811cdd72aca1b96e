"""Values of OpenAI's options that ask for what happens anyway: a format that has no word for them loses nothing without them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "logprobs": (False,),
    "logit_bias": ({},),
    "stream_options": ({"include_usage": True}, {"include_usage": False}),
    "store": (False,),
    "response_format": ({"type": "text"},),
}


def neutral(*without: str, **more: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
    """The neutral values for one format: those of all, ``without`` the options that it knows itself, and ``more`` of its own."""
    return {name: values for name, values in _NEUTRAL.items() if name not in without} | more


def is_neutral(name: str, value: Any, values: Mapping[str, tuple[Any, ...]]) -> bool:
    """Whether an option asks for what happens anyway."""
    return name in values and any(value == one for one in values[name])
