"""Other names of models, and what they lead to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from llm_master.settings.declared import Declared


@attrs.frozen
class Alias:
    """Another name of a model.

    Attributes:
        model: The name that is resolved in its place; no alias itself.
        options: Options of each call by this name; the call's own win.
        origin: Where it stands.
    """

    model: str
    options: Mapping[str, Any]
    origin: str


def aliases_of(declared: Declared) -> dict[str, Alias]:
    """Each alias with what it leads to in the end, and the options of all steps, the first step's on top.

    Of one that leads to itself the files' reader has said so already.
    """
    aliases = {}
    for name, sourced in declared.aliases.items():
        (model, options), seen = step(sourced.value), [name]
        while model in declared.aliases and model not in seen:
            seen.append(model)
            model, beneath = step(declared.aliases[model].value)
            options = {**beneath, **options}
        if model not in seen:
            aliases[name] = Alias(model, options, sourced.origin)
    return aliases


def step(value: Any) -> tuple[str, dict[str, Any]]:
    """What an alias stands for: ``"model"``, or ``{"model": ..., "options": {...}}``."""
    return (value, {}) if isinstance(value, str) else (value["model"], dict(value.get("options") or {}))
