"""Cohere's own API: chat, embeddings, rankings (https://docs.cohere.com/reference/about)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from llm_master.errors import InvalidRequestError, ServerError
from llm_master.providers import cohere_answer as answer
from llm_master.providers.base import Translation
from llm_master.providers.bodies import decoded
from llm_master.providers.cohere_messages import conversation
from llm_master.providers.counts import count
from llm_master.providers.failures import request_id
from llm_master.providers.http import HTTPProvider, with_headers
from llm_master.providers.limits import limits_in
from llm_master.providers.neutral import is_neutral, neutral
from llm_master.providers.schemas import check_schema, fits
from llm_master.providers.stream_reader import StreamReader
from llm_master.results import EmbeddingResponse
from llm_master.types import LLMResponse, Message, RateLimitState, Usage, WireAnswer

if TYPE_CHECKING:
    from llm_master.results import RerankResponse
    from llm_master.rows import ProviderConfig
    from llm_master.transport import Endpoint

CHAT = "/v2/chat"

INPUT_TYPE = "search_document"
"""What texts are embedded for where the call does not say: the API must be told, and this is what many texts are for."""

_RENAMED = {"max_completion_tokens": "max_tokens", "top_p": "p", "top_k": "k", "stop": "stop_sequences"}

_NEUTRAL = neutral("frequency_penalty", "presence_penalty", parallel_tool_calls=(True,), tool_choice=("auto",))

_WITHOUT_A_WORD = frozenset(
    "audio function_call functions logit_bias metadata modalities moderation n parallel_tool_calls prediction prompt_cache_key "
    "prompt_cache_retention safety_identifier service_tier store stream_options top_logprobs user verbosity web_search_options".split()
)
"""What OpenAI's API has and this one has no word for."""

_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 4096, "high": None, "xhigh": None}
"""Tokens of thinking for ``reasoning_effort``. High is as much as the model wants, as the guide recommends and as Cohere's
OpenAI-compatible API has it: https://docs.cohere.com/docs/reasoning, https://docs.cohere.com/docs/compatibility-api"""

_SCHEMA_LIMITS = frozenset(
    "allOf oneOf not minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minItems maxItems minLength maxLength uniqueItems".split()
)
"""Keywords that structured output does not know: https://docs.cohere.com/docs/structured-outputs#unsupported-schema-features"""

_FORMATS = ("date-time", "uuid", "date", "time")
_ANCHORS = ("^", "$", "?=", "?!")

_VERSION = re.compile(r"(/compatibility)?/v\d+$")
"""The end of an address that names a version, as that of Cohere's OpenAI-compatible API does: the paths here name their own."""


class WireVectors(msgspec.Struct, rename={"floats": "float"}):
    """``embeddings``: by the type of number. Only floats are asked for."""

    floats: list[list[float]] | None = None


class WireUnits(msgspec.Struct):
    """``meta.billed_units``."""

    input_tokens: Any = None
    image_tokens: Any = None
    images: Any = None


class WireMeta(msgspec.Struct):
    """``meta``."""

    billed_units: WireUnits | None = None


class WireEmbed(msgspec.Struct):
    """A whole answer."""

    embeddings: WireVectors | None = None
    meta: WireMeta | None = None
    error: Any = None


_decode = msgspec.json.Decoder(WireEmbed).decode


class CohereProvider(HTTPProvider):
    """``command-*``, ``embed-*`` and ``rerank-*``. Options by OpenAI's names are translated; Cohere's own go through as they are."""

    chat_path = CHAT
    models_path = "/v1/models?page_size=1000"  # the most that a page holds: https://docs.cohere.com/reference/list-models
    refused_schema_words = _SCHEMA_LIMITS
    schema_excludes = frozenset({"tools", "documents"})  # https://docs.cohere.com/reference/chat#request.body.response_format

    def __init__(self, config: ProviderConfig | None = None) -> None:
        super().__init__(config)
        self._root = _VERSION.sub("", (self.config.base_url or "").rstrip("/"))

    def new_endpoint(self, path: str, headers: Mapping[str, str], base_url: str | None = None) -> Endpoint:
        """An endpoint below the address without its version."""
        return super().new_endpoint(path, headers, base_url or self._root)

    def prepare(self, messages: Sequence[Message], model: str, options: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Path and body of a request."""
        return CHAT, {"model": model, "messages": conversation(messages), "stream": stream, **options}

    def next_models(self, page: Mapping[str, Any]) -> str | None:
        """The page that follows."""
        token = page.get("next_page_token")
        return f"page_token={token}" if isinstance(token, str) and token else None

    def headers(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Headers of a request."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def takes_schema(self, schema: Mapping[str, Any]) -> bool:
        """Whether structured output takes this schema."""
        return fits(schema, forbidden=_SCHEMA_LIMITS, also=_refuse_unknown)

    def translate(self, model: str, options: Mapping[str, Any]) -> Translation:
        """OpenAI's options in Cohere's words.

        Raises:
            InvalidRequestError: A value that the API is known to refuse.
        """
        result = Translation()
        out = result.options
        for name, value in options.items():
            if is_neutral(name, value, _NEUTRAL):
                result.dropped.append(name)
            elif name in _RENAMED:
                out[_RENAMED[name]] = [value] if name == "stop" and isinstance(value, str) else value
                result.renamed[name] = _RENAMED[name]
            elif name == "tools":
                out["tools"] = [_tool(tool) for tool in value]
                if any(_is_strict(tool) for tool in value):
                    out.setdefault("strict_tools", True)
            elif name == "reasoning_effort":
                out["thinking"] = _thinking(value, options.get("max_tokens", options.get("max_completion_tokens")))
                result.renamed[name] = "thinking"
            elif name == "response_format":
                out["response_format"] = _format(value)
            elif name == "documents":
                out["documents"] = _documents(value)
            elif name in _WITHOUT_A_WORD:
                result.unsupported.append(name)
            elif name != "tool_choice":
                out[name] = value  # one of both APIs, one of Cohere's own, or new: the API says so if it is not
        if "tool_choice" in options and "tool_choice" not in result.dropped:
            _choose_tool(out, options["tool_choice"])
        return result

    def read_answer(self, body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
        """Make an answer of a 2xx body."""
        return answer.read_answer(body, status=status, request_id=request_id, model=model)

    def reader(self, model: str, status: int, request_id: str | None) -> StreamReader:
        """What makes events of a stream's pieces."""
        return answer.EventReader(model, status, request_id)

    def rate_limits(self, headers: Mapping[str, str]) -> RateLimitState | None:
        """The ``x-ratelimit-*`` headers, where there are any."""
        return limits_in(headers)

    async def embed(self, inputs: Sequence[str], model: str, **options: Any) -> EmbeddingResponse:
        """Vectors of texts, and of images.

        Source: https://docs.cohere.com/reference/embed

        Args:
            inputs: The texts. One that is a ``data:`` URI of an image is sent as that image.
            model: The wire id.
            **options: ``input_type`` (``search_document``; or ``search_query``, ``classification``, ``clustering``),
                ``dimensions`` (its ``output_dimension``), ``truncate``, ...

        Raises:
            InvalidRequestError: Another type of number than float is asked for.
            ProviderError: The API refused, or gave another number of vectors than inputs.
        """
        from llm_master.providers.embeddings import vector_of

        if options.get("embedding_types", ["float"]) != ["float"]:
            raise InvalidRequestError(f"embedding_types is {options['embedding_types']!r}: leave it out, vectors are floats here")
        if (dimensions := options.pop("dimensions", None)) is not None:
            options["output_dimension"] = dimensions
        what = {"inputs": [_input(text) for text in inputs]} if any(map(_is_image, inputs)) else {"texts": inputs}
        body = {"model": model, **what, "input_type": INPUT_TYPE, "embedding_types": ["float"], **options}
        found = await self.exchange("embed", "/v2/embed", body, model)
        named = request_id(found.headers)
        content: WireEmbed = decoded(_decode, found.body, status=found.status, request_id=named, model=model)
        vectors = content.embeddings.floats if content.embeddings is not None else None
        if vectors is None or len(vectors) != len(inputs):
            count = len(vectors or ())
            raise ServerError(
                f"answered {found.status} with {count} vectors for {len(inputs)} inputs",
                status=found.status,
                model=model,
                request_id=named,
            )
        response = EmbeddingResponse(
            embeddings=[vector_of(vector) for vector in vectors],
            model_name=model,
            usage=_embedded(content.meta.billed_units if content.meta is not None else None),
            wire=WireAnswer(found.status, named, found.body),
        )
        return with_headers(response, found)

    async def rerank(self, query: str, documents: Sequence[str], model: str, **options: Any) -> RerankResponse:
        """Documents by relevance (https://docs.cohere.com/reference/rerank); with ``top_n``, ``max_tokens_per_doc``, ..."""
        from llm_master.providers import rerank

        body = {"model": model, "query": query, "documents": documents, **options}
        found = await self.exchange("rerank", "/v2/rerank", body, model)
        response = rerank.read_answer(
            found.body, status=found.status, request_id=request_id(found.headers), model=model, documents=documents
        )
        return with_headers(response, found)


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """A tool without what only OpenAI's have."""
    function = tool.get("function")
    if not isinstance(function, Mapping):
        return tool
    made = {name: function[name] for name in ("name", "description") if function.get(name) is not None}
    return {"type": "function", "function": {**made, "parameters": function.get("parameters") or {"type": "object", "properties": {}}}}


def _is_strict(tool: Mapping[str, Any]) -> bool:
    function = tool.get("function")
    return isinstance(function, Mapping) and function.get("strict") is True


def _choose_tool(out: dict[str, Any], choice: Any) -> None:
    """Set what ``tool_choice`` means. To force one function, the API is shown no other."""
    if isinstance(choice, str) and choice.lower() in ("required", "any", "none"):
        out["tool_choice"] = "NONE" if choice.lower() == "none" else "REQUIRED"
        return
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if name is None:
        raise InvalidRequestError(
            f'tool_choice is {choice!r}: give "auto", "required", "none" or {{"type": "function", "function": {{"name": ...}}}}'
        )
    only = [tool for tool in out.get("tools", ()) if isinstance(tool.get("function"), Mapping) and tool["function"].get("name") == name]
    if not only:
        raise InvalidRequestError(f"tool_choice names the function {name!r}, which is not among tools: add it there")
    out["tools"], out["tool_choice"] = only, "REQUIRED"


def _thinking(effort: Any, most: Any) -> dict[str, Any]:
    """What ``reasoning_effort`` means; ``most`` is how much the model may write, its thoughts included."""
    if effort == "none":
        return {"type": "disabled"}
    if effort not in _BUDGETS:
        raise InvalidRequestError(f"reasoning_effort is {effort!r}: give one of none, {', '.join(_BUDGETS)}")
    budget = _BUDGETS[effort]
    if budget is None:
        return {"type": "enabled"}
    if isinstance(most, int) and budget >= most:
        budget = max(1, most // 2)  # an effort is no number of tokens: take what leaves room for the answer
    return {"type": "enabled", "token_budget": budget}


def _format(value: Any) -> dict[str, Any]:
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind not in ("json_schema", "json_object"):
        raise InvalidRequestError(f"response_format of type {kind!r} is not known here: give a json_schema or json_object")
    inner = value.get("json_schema", value)
    schema = inner.get("schema", inner if kind == "json_object" and inner is not value else None) if isinstance(inner, Mapping) else None
    if schema is None and kind == "json_object":
        return {"type": "json_object"}
    if not isinstance(schema, Mapping):
        raise InvalidRequestError(
            'response_format has no schema: give {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}'
        )
    check_schema(schema, "schema", forbidden=_SCHEMA_LIMITS, also=_refuse_unknown)
    return {"type": "json_object", "json_schema": schema}


def _refuse_unknown(schema: Mapping[str, Any], path: str) -> None:
    """What the API refuses of one part of a schema, beside keywords."""
    if schema.get("type") == "object" and schema.get("properties") and not schema.get("required"):
        raise InvalidRequestError(f"the API's structured output wants every object to have a required property (at {path})")
    if any(sign in str(schema.get("pattern", "")) for sign in _ANCHORS):
        raise InvalidRequestError(f"the API's structured output knows no {', '.join(_ANCHORS)} in a pattern (at {path}): leave it out")
    if schema.get("type") == "string" and schema.get("format") not in (None, *_FORMATS):
        raise InvalidRequestError(f"the API's structured output knows no format {schema['format']!r} (at {path}): leave it out")


def _documents(value: Any) -> list[Any]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
        raise InvalidRequestError(f"documents is a {type(value).__name__}: give a list of texts, or of dicts with data and perhaps an id")
    for position, document in enumerate(value):
        if not isinstance(document, str) and not (isinstance(document, Mapping) and isinstance(document.get("data"), Mapping)):
            raise InvalidRequestError(
                f'documents[{position}] is {document!r:.60}: give a text, or {{"id": ..., "data": {{"title": ..., "snippet": ...}}}}'
            )
    return list(value)


def _is_image(text: str) -> bool:
    return text.startswith("data:image/")


def _input(text: str) -> dict[str, Any]:
    if _is_image(text):
        return {"content": [{"type": "image_url", "image_url": {"url": text}}]}
    return {"content": [{"type": "text", "text": text}]}


def _embedded(units: WireUnits | None) -> Usage:
    """What was embedded. Images that are counted in pieces and not in tokens make the tokens unknown."""
    if units is None:
        return Usage(None, 0, cached_tokens=0)
    texts, images = count(units.input_tokens), count(units.image_tokens)
    if images is None and units.images:
        return Usage(None, 0, cached_tokens=0)
    total = texts if not images else (texts or 0) + images
    return Usage(total, 0, cached_tokens=0, image_input_tokens=images)
