"""Lists of models: OpenAI's ``{"data": [{"id": ...}]}``, a bare list of the same, and ``{"models": [{"name": ...}]}``.

Source: https://platform.openai.com/docs/api-reference/models/list, https://docs.together.ai/reference/models-1 (the bare list),
https://docs.anthropic.com/en/api/models-list, https://ai.google.dev/api/models#method:-models.list
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_master.errors import ServerError
from llm_master.providers.failures import BAD_JSON, request_id
from llm_master.providers.http import HTTPProvider, error_under_200, unreadable


class ListedModel(msgspec.Struct):
    """One of them."""

    id: str | None = None
    name: str | None = None


class ModelList(msgspec.Struct):
    """``GET /models``."""

    data: list[ListedModel | str] | None = None
    models: list[ListedModel | str] | None = None
    error: Any = None


_decode = msgspec.json.Decoder(ModelList | list[ListedModel | str]).decode


async def listed(provider: HTTPProvider, path: str) -> list[str]:
    """The ids in a provider's list of models, which is free everywhere.

    Raises:
        ProviderError: The provider refused it, could not be reached, or answered no such list.
    """
    endpoint = provider.new_endpoint(path, provider.headers({}))
    answer = await endpoint.get()
    if not 200 <= answer.status < 300:
        raise provider.refused(answer, "", endpoint)
    return read_models(answer.body, status=answer.status, request_id=request_id(answer.headers))


def read_models(body: bytes, *, status: int, request_id: str | None) -> list[str]:
    """The wire ids in a 2xx body, each once, in their order.

    Raises:
        ProviderError: The body holds an error, or is no list of models.
    """
    try:
        answer: Any = _decode(body)
    except BAD_JSON as exc:
        raise unreadable(body, exc, status, request_id, "") from exc
    if isinstance(answer, ModelList):
        if answer.error:
            raise error_under_200(msgspec.json.decode(body), "", status=status, request_id=request_id)
        answer = answer.data if answer.data is not None else answer.models
    if answer is None:
        raise ServerError(f"answered {status} with no list of models: {body[:120]!r}", status=status, request_id=request_id)
    # Of those that have an id and a name, the name is for people.
    names = [model if isinstance(model, str) else model.id or model.name for model in answer]
    return list(dict.fromkeys(name for name in names if name))
