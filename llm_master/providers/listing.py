"""Lists of models, in the shapes that APIs give them: ``{"data": [{"id": ...}]}``, a bare list of the same, ``{"models": [{"name": ...}]}``.

Source: https://platform.openai.com/docs/api-reference/models/list, https://docs.together.ai/reference/models-1 (the bare list),
https://docs.anthropic.com/en/api/models-list, https://ai.google.dev/api/models#method:-models.list, https://docs.ollama.com/api/tags
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import msgspec

from llm_master.errors import ServerError
from llm_master.providers.failures import BAD_JSON, request_id, timestamp
from llm_master.providers.http import HTTPProvider, error_under_200, unreadable
from llm_master.results import ListedModel

MAX_BYTES = 32 * 2**20
"""Of one page. The longest lists that there are have some 2 kB a model."""

_MAX_PAGES = 100
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


async def listed(provider: HTTPProvider, path: str) -> list[ListedModel]:
    """The models in a provider's list, which is free everywhere: all pages of it, each model once.

    Raises:
        ProviderError: The provider refused it, could not be reached, or answered no such list.
    """
    place = provider.config.paths.get("models", path)
    base_url, place = (place, "") if place.startswith("http") else (None, place)
    # By the way of a call, which has a token fetched where one is needed.
    endpoint = await provider.endpoint(place, {}) if base_url is None else provider.new_endpoint(place, provider.headers({}), base_url)
    found: dict[str, ListedModel] = {}
    cursor = None
    for _ in range(_MAX_PAGES):
        answer = await endpoint.get(max_bytes=MAX_BYTES)
        if not 200 <= answer.status < 300:
            raise provider.refused(answer, "", endpoint)
        models, page = read_models(answer.body, status=answer.status, request_id=request_id(answer.headers))
        for model in models:
            found.setdefault(model.id, model)
        following = provider.next_models(page)
        if following is None:
            return list(found.values())
        if following == cursor:
            break
        cursor = following
        endpoint = provider.new_endpoint(f"{place}{'&' if '?' in place else '?'}{following}", provider.headers({}), base_url)
    raise ServerError("its list of models has no end: the pages repeat themselves", status=answer.status)


def read_models(body: bytes, *, status: int, request_id: str | None) -> tuple[list[ListedModel], Mapping[str, Any]]:
    """The models in a 2xx body, in their order, and what else stands beside them.

    Raises:
        ProviderError: The body holds an error, or is no list of models.
    """
    try:
        content: Any = msgspec.json.decode(body)
    except (*BAD_JSON, RecursionError) as exc:
        raise unreadable(body, exc, status, request_id, "") from exc
    page: Mapping[str, Any] = content if isinstance(content, dict) else {}
    if page.get("error"):
        raise error_under_200(content, "", status=status, request_id=request_id)
    entries = _entries(content)
    if entries is None:
        raise ServerError(f"answered {status} with no list of models: {body[:120]!r}", status=status, request_id=request_id)
    models = [model for entry in entries if (model := _model(entry)) is not None]
    if entries and not models:
        raise ServerError(f"answered {status} with a list in which no model has an id: {body[:120]!r}", status=status, request_id=request_id)
    return models, page


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
