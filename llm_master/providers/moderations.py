"""Moderation, as OpenAI's API has it (https://platform.openai.com/docs/api-reference/moderations) and Mistral's after it."""

from __future__ import annotations

from typing import Any

import msgspec

from llm_master.errors import ServerError
from llm_master.providers.bodies import decoded
from llm_master.results import ModerationResponse, ModerationResult
from llm_master.types import Usage, WireAnswer


class WireResult(msgspec.Struct):
    """``results[]``. Not everybody says ``flagged`` beside the categories."""

    categories: dict[str, bool | None] = {}
    category_scores: dict[str, float | None] = {}
    flagged: bool | None = None


class WireModeration(msgspec.Struct):
    """A whole answer."""

    results: list[WireResult] | None = None
    model: Any = None
    usage: dict[str, Any] | None = None
    error: Any = None


_decode = msgspec.json.Decoder(WireModeration).decode


def read_answer(body: bytes, *, status: int, request_id: str | None, model: str, expected: int) -> ModerationResponse:
    """Make an answer of a 2xx body.

    Raises:
        ProviderError: The body holds an error, cannot be read, or judges another number of inputs than were given.
    """
    answer: WireModeration = decoded(_decode, body, status=status, request_id=request_id, model=model)
    results = answer.results or []
    if len(results) != expected:
        # Better no judgement than one that leaves an input out.
        raise ServerError(
            f"answered {status} with {len(results)} judgements on {expected} inputs", status=status, model=model, request_id=request_id
        )
    counted = (answer.usage or {}).get("prompt_tokens")
    return ModerationResponse(
        results=[
            ModerationResult(
                any(result.categories.values()) if result.flagged is None else result.flagged,
                {name: bool(hit) for name, hit in result.categories.items()},
                {name: score for name, score in result.category_scores.items() if score is not None},
            )
            for result in results
        ],
        model_name=answer.model if isinstance(answer.model, str) else model,
        # OpenAI counts nothing, since it charges nothing.
        usage=Usage(counted if isinstance(counted, int) else 0, 0, cached_tokens=0),
        wire=WireAnswer(status, request_id, body),
    )
