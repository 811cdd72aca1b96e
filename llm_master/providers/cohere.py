"""Cohere: chat by its OpenAI-compatible API, embeddings by its own, which alone knows what a text is embedded for.

Source: https://docs.cohere.com/reference/embed
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from llm_master.errors import InvalidRequestError, ServerError
from llm_master.providers.embeddings import vector_of
from llm_master.providers.failures import request_id
from llm_master.providers.http import decoded, with_headers
from llm_master.providers.unified import UnifiedProvider
from llm_master.results import EmbeddingResponse
from llm_master.types import Usage, WireAnswer

INPUT_TYPE = "search_document"
"""What texts are embedded for where the call does not say: the API must be told, and this is what many texts are for."""


class WireVectors(msgspec.Struct, rename={"floats": "float"}):
    """``embeddings``: by the type of number. Only floats are asked for."""

    floats: list[list[float]] | None = None


class WireUnits(msgspec.Struct):
    """``meta.billed_units``."""

    input_tokens: Any = None


class WireMeta(msgspec.Struct):
    """``meta``."""

    billed_units: WireUnits | None = None


class WireEmbed(msgspec.Struct):
    """A whole answer."""

    embeddings: WireVectors | None = None
    meta: WireMeta | None = None
    error: Any = None


_decode = msgspec.json.Decoder(WireEmbed).decode


class CohereProvider(UnifiedProvider):
    """``command-*`` and ``embed-*``. ``dimensions`` is the API's ``output_dimension``."""

    async def embed(self, inputs: Sequence[str], model: str, **options: Any) -> EmbeddingResponse:
        """Vectors of texts.

        Args:
            inputs: The texts.
            model: The wire id.
            **options: ``input_type`` (``search_document``; or ``search_query``, ``classification``, ``clustering``),
                ``dimensions``, ``truncate``, ...

        Raises:
            InvalidRequestError: Another type of number than float is asked for.
            ProviderError: The API refused, or gave another number of vectors than inputs.
        """
        if options.get("embedding_types", ["float"]) != ["float"]:
            raise InvalidRequestError(f"embedding_types is {options['embedding_types']!r}: leave it out, vectors are floats here")
        if (dimensions := options.pop("dimensions", None)) is not None:
            options["output_dimension"] = dimensions
        body = {"model": model, "texts": inputs, "input_type": INPUT_TYPE, "embedding_types": ["float"], **options}
        answer = await self.exchange("embed", "/embed", body, model)
        named = request_id(answer.headers)
        content: WireEmbed = decoded(_decode, answer.body, status=answer.status, request_id=named, model=model)
        vectors = content.embeddings.floats if content.embeddings is not None else None
        if vectors is None or len(vectors) != len(inputs):
            count = len(vectors or ())
            raise ServerError(
                f"answered {answer.status} with {count} vectors for {len(inputs)} inputs",
                status=answer.status,
                model=model,
                request_id=named,
            )
        units = content.meta.billed_units if content.meta is not None else None
        counted = units.input_tokens if units is not None else None
        response = EmbeddingResponse(
            embeddings=[vector_of(vector) for vector in vectors],
            model_name=model,
            usage=Usage(int(counted) if isinstance(counted, (int, float)) else None, 0, cached_tokens=0),
            wire=WireAnswer(answer.status, named, answer.body),
        )
        return with_headers(response, answer)
