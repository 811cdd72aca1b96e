"""Embeddings, as OpenAI's API has them and most others copied (https://platform.openai.com/docs/api-reference/embeddings)."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llm_master.errors import ServerError
from llm_master.providers.bodies import decoded, unreadable
from llm_master.results import EmbeddingResponse
from llm_master.types import Usage, WireAnswer


class WireVector(msgspec.Struct):
    """``data[]``: numbers, or their bytes as base64."""

    embedding: list[float] | str
    index: int | None = None
    usage: WireUsage | None = None


class WireUsage(msgspec.Struct):
    """``usage``. Some count only the total, which is all input; some count each input beside its vector."""

    prompt_tokens: Any = None
    total_tokens: Any = None
    cost: Any = None


class WireEmbeddings(msgspec.Struct):
    """A whole answer."""

    data: list[WireVector] | None = None
    model: Any = None
    usage: WireUsage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(WireEmbeddings).decode


def request(inputs: Sequence[str], model: str, options: Mapping[str, Any], *, base64_by_default: bool) -> dict[str, Any]:
    """The body of a request. As base64 a vector is a quarter of its size in digits, and is read ten times faster."""
    body: dict[str, Any] = {"model": model, "input": inputs}
    if base64_by_default and "output_dtype" not in options:  # the bytes of other numbers would be read as floats
        body["encoding_format"] = "base64"
    return body | dict(options)


def read_answer(body: bytes, *, status: int, request_id: str | None, model: str, expected: int) -> EmbeddingResponse:
    """Make an answer of a 2xx body.

    Raises:
        ProviderError: The body holds an error, cannot be read, or has another number of vectors than inputs were given.
    """
    answer: WireEmbeddings = decoded(_decode, body, status=status, request_id=request_id, model=model)
    data = answer.data or []
    if len(data) != expected:
        raise ServerError(
            f"answered {status} with {len(data)} vectors for {expected} inputs", status=status, model=model, request_id=request_id
        )
    places = [vector.index for vector in data]
    if places != list(range(expected)) and sorted(place for place in places if place is not None) == list(range(expected)):
        data = sorted(data, key=lambda vector: vector.index or 0)
    try:
        vectors = [vector_of(item.embedding) for item in data]
        if not all(vectors):
            raise ValueError("an empty vector")
    except (ValueError, OverflowError) as exc:
        raise unreadable(body, exc, status, request_id, model) from exc
    usage = answer.usage or WireUsage()
    counted = usage.prompt_tokens if isinstance(usage.prompt_tokens, int) else usage.total_tokens
    if answer.usage is None:
        each = [item.usage.prompt_tokens for item in data if item.usage is not None]
        counted = sum(each) if len(each) == expected and all(isinstance(count, int) for count in each) else None
    return EmbeddingResponse(
        embeddings=vectors,
        model_name=answer.model if isinstance(answer.model, str) else model,
        usage=Usage(counted if isinstance(counted, int) else None, 0, cached_tokens=0),
        wire=WireAnswer(status, request_id, body),
    )


def vector_of(embedding: Sequence[float] | str) -> array[float]:
    """A vector of numbers, or of base64 of little-endian 32-bit floats.

    Raises:
        ValueError: The base64 is none, or holds no whole number of floats.
    """
    if not isinstance(embedding, str):
        return array("f", embedding)
    vector = array("f", base64.b64decode(embedding, validate=True))
    if sys.byteorder == "big":
        vector.byteswap()
    return vector
