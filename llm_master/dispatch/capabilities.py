"""What a model is known not to do is refused before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llm_master.errors import InvalidRequestError

_OPTIONS = {
    "tools": "tools",
    "functions": "tools",
    "reasoning_effort": "reasoning",
    "web_search_options": "web_search",
}
"""Options that ask for a capability."""

_SAID = {
    "chat": "chat",
    "tools": "call tools",
    "vision": "read images",
    "audio_input": "hear audio",
    "video_input": "watch video",
    "pdf": "read PDF files",
    "reasoning": "reason by reasoning_effort",
    "web_search": "search the web",
    "embedding": "make embeddings",
    "rerank": "rerank",
    "moderation": "moderate",
    "image_output": "make images",
    "audio_output": "speak",
    "speech": "speak",
}

_MODALITIES = {"audio": "audio_output", "image": "image_output"}


def lacking_options(options: Mapping[str, Any], lacking: frozenset[str]) -> list[str]:
    """The options among those given that ask for what the model is known not to do."""
    found = [name for name, word in _OPTIONS.items() if word in lacking and options.get(name) not in (None, "none", [], ())]
    modalities = options.get("modalities")
    if isinstance(modalities, (list, tuple)) and any(_MODALITIES.get(str(kind).lower()) in lacking for kind in modalities):
        found.append("modalities")
    return found


def refuse_options(names: Sequence[str], model_name: str) -> None:
    """Refuse options that ask for what a model is known not to do.

    Raises:
        InvalidRequestError: Names the model and the options.
    """
    words = dict.fromkeys(_SAID[_OPTIONS[name]] if name in _OPTIONS else "make anything but text" for name in names)
    raise InvalidRequestError(
        f"{model_name} is known not to {' or '.join(words)}, so nothing was sent: leave out {', '.join(map(repr, names))}, or say "
        'on_unsupported="drop"; if the model can, correct its capabilities with ModelRegistry.register()'
    )


def refuse_lacking(asked: Iterable[str], lacking: frozenset[str], model_name: str) -> None:
    """Refuse what a model is known not to do.

    Raises:
        InvalidRequestError: Names the model and what it does not do.
    """
    words = [_SAID.get(word, word) for word in asked if word in lacking]
    if words:
        raise InvalidRequestError(
            f"{model_name} is known not to {' or '.join(words)}, so nothing was sent: take another model, or correct its "
            "capabilities with ModelRegistry.register()"
        )
