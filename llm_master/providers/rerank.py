"""Reranking, as Cohere's API has it (https://docs.cohere.com/reference/rerank) and Jina, Voyage, vLLM and llama.cpp after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from llm_master.errors import ServerError
from llm_master.providers.bodies import decoded
from llm_master.results import RerankResponse, RerankResult
from llm_master.types import Usage, WireAnswer


class WireResult(msgspec.Struct):
    """``results[]``, or ``data[]``. The document itself is not asked for: it is here already."""

    index: int
    relevance_score: float


class WireUnits(msgspec.Struct):
    """``meta.billed_units``."""

    search_units: int | float | None = None


class WireMeta(msgspec.Struct):
    """``meta``."""

    billed_units: WireUnits | None = None


class WireRanking(msgspec.Struct):
    """A whole answer."""

    results: list[WireResult] | None = None
    data: list[WireResult] | None = None
    model: Any = None
    meta: WireMeta | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_decode = msgspec.json.Decoder(WireRanking).decode


def read_answer(body: bytes, *, status: int, request_id: str | None, model: str, documents: Sequence[str]) -> RerankResponse:
    """Make an answer of a 2xx body: the most relevant document first, whatever the order it came in.

    Raises:
        ProviderError: The body holds an error, cannot be read, or names a document that was not given.
    """
    answer: WireRanking = decoded(_decode, body, status=status, request_id=request_id, model=model)
    found = answer.results if answer.results is not None else answer.data
    places = [result.index for result in found or ()]
    if not found or len(set(places)) < len(places) or not all(0 <= place < len(documents) for place in places):
        raise ServerError(f"answered {status} without a ranking of the documents", status=status, model=model, request_id=request_id)
    counted = (answer.usage or {}).get("total_tokens")
    units = answer.meta.billed_units.search_units if answer.meta is not None and answer.meta.billed_units is not None else None
    return RerankResponse(
        results=[
            RerankResult(result.index, result.relevance_score, documents[result.index])
            for result in sorted(found, key=lambda result: -result.relevance_score)
        ],
        model_name=answer.model if isinstance(answer.model, str) else model,
        usage=Usage(
            counted if isinstance(counted, int) else None, 0, cached_tokens=0, search_units=int(units) if units is not None else None
        ),
        wire=WireAnswer(status, request_id, body),
    )
