"""What Gemini's API does beside answering: images by Imagen, embeddings, counts; and how its image and speech options are said.

Sources: https://ai.google.dev/gemini-api/docs/imagen, https://ai.google.dev/gemini-api/docs/image-generation,
https://ai.google.dev/gemini-api/docs/speech-generation, https://ai.google.dev/api/embeddings, https://ai.google.dev/api/tokens
"""

from __future__ import annotations

import base64
import re
from array import array
from collections.abc import Mapping, Sequence
from math import gcd
from typing import Any

import msgspec

from llm_master.errors import ContentPolicyError, InvalidRequestError
from llm_master.media import Image
from llm_master.providers.bodies import unreadable
from llm_master.providers.failures import BAD_JSON
from llm_master.results import EmbeddingResponse
from llm_master.types import LLMResponse, Message, Usage, WireAnswer

DEFAULT_VOICE = "Kore"

IMAGE_RATIOS = frozenset("1:1 1:4 1:8 2:3 3:2 3:4 4:1 4:3 4:5 5:4 8:1 9:16 16:9 21:9".split())
"""Of Gemini's own images."""

IMAGEN_RATIOS = frozenset("1:1 3:4 4:3 9:16 16:9".split())

_NOT_IMAGEN = frozenset(
    "audio background frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens metadata modalities "
    "moderation parallel_tool_calls prediction presence_penalty quality reasoning_effort response_format service_tier stop store style "
    "temperature tool_choice tools top_k top_logprobs top_p user verbosity web_search_options".split()
)
"""What others have and Imagen has no word for."""

_NOT_EMBEDDING = frozenset({"user", "input_type", "truncate"})


def size_of(size: Any, ratios: frozenset[str]) -> dict[str, str]:
    """``size`` in Google's words: a proportion and, where the default is not meant, a step.

    Args:
        size: ``"1024x1024"``, ``"16:9"``, ``"1K"``, ``"2K"`` or ``"4K"``.
        ratios: The proportions that the model knows.

    Raises:
        InvalidRequestError: None of these, or a proportion that the model does not know.
    """
    text = str(size)
    if re.fullmatch(r"\d+K|512|512px", text):
        return {"imageSize": text}
    found = re.fullmatch(r"(\d+)([x:])(\d+)", text)
    if not found or "0" in (found[1], found[3]):
        raise InvalidRequestError(f'size is {size!r}: give "1024x1024", "16:9" or "2K"')
    width, height = int(found[1]), int(found[3])
    part = gcd(width, height)
    ratio = text if found[2] == ":" else f"{width // part}:{height // part}"
    if ratio not in ratios:
        raise InvalidRequestError(f"size is {size!r}, which is {ratio}: this model makes images of {', '.join(sorted(ratios))}")
    longest = max(width, height)
    steps = {} if found[2] == ":" or longest <= 1536 else {"imageSize": "2K" if longest <= 3072 else "4K"}
    return {"aspectRatio": ratio, **steps}


def speech_config(voice: Any) -> dict[str, Any]:
    """``speechConfig`` for a voice by name."""
    return {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": voice}}}


# Imagen


def imagen_body(messages: Sequence[Message], prompt: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Body of ``:predict`` for one prompt.

    Raises:
        InvalidRequestError: No text, images in the messages, or an option that Imagen has no word for.
    """
    if not prompt.strip():
        raise InvalidRequestError("the last user message has no text: say what the image should show")
    content = next((message.get("content") for message in reversed(messages) if message.get("role") == "user"), None)
    if isinstance(content, list) and any(isinstance(part, Mapping) and "text" not in part for part in content):
        raise InvalidRequestError("Imagen makes images from text alone: leave the images out, or ask one of Gemini's image models")
    if refused := sorted(_NOT_IMAGEN & options.keys()):
        raise InvalidRequestError(f"Imagen does not take {', '.join(map(repr, refused))}: leave it out")
    # Without the reasons, an image that was filtered is just not there.
    parameters: dict[str, Any] = {"includeRaiReason": True}
    for name, value in options.items():
        if name == "n":
            parameters["sampleCount"] = value
        elif name == "size":
            parameters |= size_of(value, IMAGEN_RATIOS)
        elif name == "output_format":
            media_type = str(value) if "/" in str(value) else f"image/{value}"
            parameters["outputOptions"] = {**parameters.get("outputOptions", {}), "mimeType": media_type}
        else:
            parameters[camel(name)] = value
    parameters.setdefault("sampleCount", 1)
    return {"instances": [{"prompt": prompt}], "parameters": parameters}


class _Prediction(msgspec.Struct, rename="camel"):
    bytes_base_64_encoded: str | None = msgspec.field(default=None, name="bytesBase64Encoded")
    gcs_uri: str | None = None
    mime_type: str | None = None
    prompt: str | None = None
    rai_filtered_reason: str | None = None


class _Predictions(msgspec.Struct):
    predictions: list[_Prediction] = []


_predictions = msgspec.json.Decoder(_Predictions).decode


def read_images(body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
    """Make an answer of the body of ``:predict``.

    Raises:
        ContentPolicyError: Every image was filtered.
        ServerError: The body cannot be read.
    """
    try:
        predictions = _predictions(body).predictions
        images = [
            Image(
                base64.b64decode(found.bytes_base_64_encoded) if found.bytes_base_64_encoded else None,
                found.gcs_uri,
                found.mime_type or "image/png",
                revised_prompt=found.prompt,
            )
            for found in predictions
            if found.bytes_base_64_encoded or found.gcs_uri
        ]
    except (*BAD_JSON, ValueError) as exc:
        raise unreadable(body, exc, status, request_id, model) from exc
    if not images:
        reasons = "; ".join(dict.fromkeys(found.rai_filtered_reason for found in predictions if found.rai_filtered_reason))
        raise ContentPolicyError(
            f"every image was filtered: {reasons or 'the API did not say why'}", status=status, model=model, request_id=request_id
        )
    wire = WireAnswer(status, request_id, body)
    return LLMResponse(images[0].url or "", model, Usage(images=len(images)), images=images, finish_reason="stop", wire=wire)


# Embeddings


def embedding_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """``dimensions``, ``task_type`` and ``title`` in the API's words; its own go through.

    Raises:
        InvalidRequestError: An option that it has no word for.
    """
    said: dict[str, Any] = {}
    for name, value in options.items():
        if name == "encoding_format" and value == "float":
            continue  # as they come anyway
        if name in _NOT_EMBEDDING or name == "encoding_format":
            raise InvalidRequestError(f"Gemini's embeddings do not take {name!r}: leave it out, or give task_type")
        said["outputDimensionality" if name == "dimensions" else camel(name)] = value
    return said


def read_vectors(
    body: bytes, pick: Any, count: int, *, status: int, request_id: str | None, model: str
) -> tuple[list[array[float]], dict[str, Any]]:
    """The vectors of an answer, and the answer decoded. ``pick`` finds the lists of numbers in it; there must be ``count``.

    Raises:
        ServerError: They cannot be read, or are fewer or more.
    """
    try:
        content = msgspec.json.decode(body)
        vectors = [array("f", values) for values in pick(content)]
        if len(vectors) != count:
            raise ValueError(f"{len(vectors)} vectors for {count} inputs")
    except (*BAD_JSON, LookupError, TypeError, ValueError) as exc:
        raise unreadable(body, exc, status, request_id, model) from exc
    return vectors, content


def embedding_tokens(content: Mapping[str, Any]) -> int | None:
    """Tokens of the inputs, where the API says: ``usageMetadata``, or the statistics of each prediction."""
    usage = content.get("usageMetadata")
    if isinstance(usage, Mapping) and isinstance(count := usage.get("promptTokenCount"), int):
        return count
    counts = [
        prediction["embeddings"].get("statistics", {}).get("token_count")
        for prediction in content.get("predictions") or ()
        if isinstance(prediction, Mapping) and isinstance(prediction.get("embeddings"), Mapping)
    ]
    return sum(counts) if counts and all(isinstance(count, int) for count in counts) else None


def joined(answers: Sequence[tuple[list[array[float]], dict[str, Any]]], wire: WireAnswer) -> EmbeddingResponse:
    """One response of several answers."""
    counts = [embedding_tokens(content) for _, content in answers]
    tokens = None if None in counts else sum(count for count in counts if count is not None)
    return EmbeddingResponse(
        embeddings=[vector for vectors, _ in answers for vector in vectors],
        usage=Usage(input_tokens=tokens, output_tokens=None if tokens is None else 0),
        wire=wire,
    )


# Counts


def read_count(body: bytes, *, status: int, request_id: str | None, model: str) -> int:
    """``totalTokens`` of ``:countTokens``."""
    try:
        count = msgspec.json.decode(body)["totalTokens"]
        if not isinstance(count, int):
            raise TypeError(f"totalTokens is {count!r}")
    except (*BAD_JSON, LookupError, TypeError) as exc:
        raise unreadable(body, exc, status, request_id, model) from exc
    return count


def camel(name: str) -> str:
    """``task_type`` as ``taskType``."""
    head, *rest = name.split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in rest)
