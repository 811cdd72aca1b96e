"""Lists of models, in the shapes that APIs give them: ``{"data": [{"id": ...}]}``, a bare list of the same, ``{"models": [{"name": ...}]}``.

Source: https://platform.openai.com/docs/api-reference/models/list, https://docs.together.ai/reference/models-1 (the bare list),
https://docs.anthropic.com/en/api/models-list, https://ai.google.dev/api/models#method:-models.list, https://docs.ollama.com/api/tags
"""

from __future__ import annotations

from typing import Any

import attrs

from llm_master.providers.failures import timestamp
from llm_master.results import ListedModel

MAX_BYTES = 32 * 2**20
"""Of one page. The longest lists that there are have some 2 kB a model."""

MAX_PAGES = 100
_LONGEST_ID = 512

_CONTEXT = (
    "context_window",
    "context_length",
    "max_model_len",
    "loaded_context_length",
    "max_context_length",
    "max_input_tokens",
    "inputTokenLimit",
    "n_ctx",
    "n_ctx_train",
)
"""What a context window is called: of servers that say both, what the model is run with and then what it could."""


def models_in(content: Any) -> list[ListedModel] | None:
    """The models in a decoded answer, each once, in their order; ``None`` where it is no list of models.

    What has no id, or one that cannot be shown, is left out; where that is all there is, it is no list of models.
    """
    entries = _entries(content)
    if entries is None:
        return None
    models: dict[str, ListedModel] = {}
    for entry in entries:
        if (model := _model(entry)) is not None:
            models.setdefault(model.id, model)
    return list(models.values()) if models or not entries else None


def _entries(content: Any) -> list[Any] | None:
    if isinstance(content, list):
        return content
    if not isinstance(content, dict):
        return None
    names = [name for name in ("data", "models") if name in content]
    for name in names:
        own = content[name]
        if isinstance(own, list):
            return own
        if isinstance(own, dict):  # by id
            return [{"id": key, **value} if isinstance(value, dict) else key for key, value in own.items()]
    # Servers without models say null.
    return [] if names and all(content[name] is None for name in names) else None


def _model(entry: Any) -> ListedModel | None:
    if isinstance(entry, str):
        entry = {"id": entry}
    if not isinstance(entry, dict):
        return None
    # Of those that have an id and a name, the name is for people.
    name = next((own for own in (entry.get("id"), entry.get("name"), entry.get("model")) if isinstance(own, str) and own.strip()), "")
    if not name or not name.isprintable() or len(name) > _LONGEST_ID:  # it is shown in terminals
        return None
    meta = entry.get("meta")
    places = (entry, meta) if isinstance(meta, dict) else (entry,)
    owner = entry.get("owned_by") or entry.get("organization")
    return ListedModel(
        name,
        context_window=next((size for place in places for key in _CONTEXT if (size := _whole(place.get(key)))), None),
        owned_by=owner if isinstance(owner, str) and owner.isprintable() else None,
        created=_moment(entry.get("created") or entry.get("created_at")),
    )


def _whole(value: Any) -> int | None:
    """A count above 0, however it is written."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value) or None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e15:
        return None
    return int(value)


def _moment(value: Any) -> float | None:
    """Seconds since 1970."""
    if isinstance(value, str) and not value.isdigit():
        return timestamp(value)
    seconds = _whole(value)
    return float(seconds) if seconds is not None else None


def renamed(models: list[ListedModel], prefix: str) -> list[ListedModel]:
    """The same models, without what stands before each id."""
    return [attrs.evolve(model, id=model.id.removeprefix(prefix)) for model in models]
