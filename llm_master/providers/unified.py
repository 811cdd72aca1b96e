"""Every provider that speaks OpenAI's chat completions, which is nearly all of them."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from llm_master.generators.speech import speech
from llm_master.providers import chat_format as fmt
from llm_master.providers.chat_extras import returned
from llm_master.providers.chat_stream import ChunkReader
from llm_master.providers.failures import request_id
from llm_master.providers.http import HTTPProvider, with_headers
from llm_master.providers.limits import limits_in
from llm_master.providers.sdk import is_stock
from llm_master.providers.think_tags import TaggedReader, split
from llm_master.rows import ProviderConfig
from llm_master.types import LLMResponse, Message, RateLimitState, StreamPiece, Usage

if TYPE_CHECKING:
    from llm_master.results import EmbeddingResponse, ModerationResponse, RerankResponse


class UnifiedProvider(HTTPProvider):
    """Chat completions over HTTP, without an SDK.

    A row whose ``client_class`` is not a stock class of the SDK gets its calls through that class instead: somebody
    put it there to see them.
    """

    models_path: ClassVar[str | None] = "/models"

    PROVIDER_CONFIGS: ClassVar[Any]
    """The table. Set by ``llm_master.provider_configs``, which is the table's only owner."""

    def __init__(self, config: ProviderConfig | None = None) -> None:
        super().__init__(config)
        self._through_client = not is_stock(self.config.client_class)
        self._asks_for_usage = self.config.renames.get("stream_options", "stream_options") is not None
        self._takes_base64 = self.config.renames.get("encoding_format", "encoding_format") is not None
        self._returns, self._tag = self.config.returns, self.config.reasoning_tag

    def prepare(self, messages: Sequence[Message], model: str, options: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Path and body of a request. Of a stream the usage is asked for, where the API has a word for it."""
        for message in messages:
            if "_native" in message:
                messages = [returned(other, self._returns) for other in messages]
                break
        if not stream:
            return "/chat/completions", {"model": model, "messages": messages, **options}
        body = {"model": model, "messages": messages, "stream": True, **options}
        if self._asks_for_usage and "stream_options" not in body:
            body["stream_options"] = {"include_usage": True}
        return "/chat/completions", body

    def headers(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Headers of a request."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def read_answer(self, body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
        """Make an answer of a 2xx body."""
        answer = fmt.read_answer(body, status=status, request_id=request_id, model=model, returns=self._returns)
        if self._tag and answer.reasoning is None:
            answer.content, answer.reasoning = split(answer.content, self._tag)
        return answer

    def reader(self, model: str, status: int | None, request_id: str | None) -> ChunkReader:
        """What makes events of a stream's pieces."""
        if self._tag:
            return TaggedReader(model, status, request_id, self._returns, self._tag)
        return ChunkReader(model, status, request_id, self._returns)

    def generate(self, messages: Sequence[Message], model: str, **options: Any) -> Coroutine[Any, Any, LLMResponse]:
        """Answer ``messages`` in one piece."""
        if self._through_client:
            return self._generate_through_client(messages, model, options)
        return super().generate(messages, model, **options)

    def stream(self, messages: Sequence[Message], model: str, **options: Any) -> AsyncIterator[StreamPiece]:
        """Answer ``messages`` in pieces."""
        if self._through_client:
            return self._stream_through_client(messages, model, options)
        return super().stream(messages, model, **options)

    async def _generate_through_client(self, messages: Sequence[Message], model: str, options: Mapping[str, Any]) -> LLMResponse:
        completion = await self._create(self.prepare(messages, model, options, stream=False)[1])
        return self.read_answer(_body_of(completion), status=200, request_id=getattr(completion, "_request_id", None), model=model)

    async def _stream_through_client(
        self, messages: Sequence[Message], model: str, options: Mapping[str, Any]
    ) -> AsyncIterator[StreamPiece]:
        reader = self.reader(model, None, None)
        async for data in self._chunks_through_client(self.prepare(messages, model, options, stream=True)[1]):
            if events := reader.read((data,)):
                yield events
            if reader.failure is not None:
                raise reader.failure
        yield reader.ended()

    async def embed(self, inputs: Sequence[str], model: str, **options: Any) -> EmbeddingResponse:
        """Vectors of texts."""
        from llm_master.providers import embeddings

        body = embeddings.request(inputs, model, options, base64_by_default=self._takes_base64)
        if self._through_client:
            made = await self._call_client("embeddings", body, ("model", "input", "encoding_format"))
            return embeddings.read_answer(_body_of(made), status=200, request_id=None, model=model, expected=len(inputs))
        answer = await self.exchange("embed", "/embeddings", body, model)
        response = embeddings.read_answer(
            answer.body, status=answer.status, request_id=request_id(answer.headers), model=model, expected=len(inputs)
        )
        return with_headers(response, answer)

    async def moderate(self, inputs: Sequence[Any], model: str, **options: Any) -> ModerationResponse:
        """The judgement on each input. One in parts goes out alone, since that API takes several inputs as texts only."""
        from llm_master.providers import moderations

        if any(not isinstance(item, str) for item in inputs) and len(inputs) > 1:
            parts = [await self.moderate([item], model, **options) for item in inputs]
            usage = Usage(sum(part.usage.input_tokens or 0 for part in parts), 0, cached_tokens=0)
            return attrs.evolve(parts[-1], results=[result for part in parts for result in part.results], usage=usage)
        sent = inputs if isinstance(inputs[0], str) else inputs[0]
        answer = await self.exchange("moderate", "/moderations", {"model": model, "input": sent, **options}, model)
        response = moderations.read_answer(
            answer.body, status=answer.status, request_id=request_id(answer.headers), model=model, expected=len(inputs)
        )
        return with_headers(response, answer)

    async def rerank(self, query: str, documents: Sequence[str], model: str, **options: Any) -> RerankResponse:
        """Documents by relevance."""
        from llm_master.providers import rerank

        body = {"model": model, "query": query, "documents": documents, **options}
        answer = await self.exchange("rerank", "/rerank", body, model)
        response = rerank.read_answer(
            answer.body, status=answer.status, request_id=request_id(answer.headers), model=model, documents=documents
        )
        return with_headers(response, answer)

    def rate_limits(self, headers: Mapping[str, str]) -> RateLimitState | None:
        """The ``x-ratelimit-*`` headers."""
        return limits_in(headers)

    speech = speech
    """By which ``generate_map`` reaches it by name."""

    async def _chunks_through_client(self, body: Mapping[str, Any]) -> AsyncIterator[bytes]:
        stream = await self._create(body)
        try:
            if hasattr(stream, "__aiter__"):
                async for chunk in stream:
                    yield _body_of(chunk)
            else:
                chunks = iter(stream)
                while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                    yield _body_of(chunk)
        finally:
            closed = stream.close()
            if closed is not None:
                await closed

    async def _create(self, body: Mapping[str, Any]) -> Any:
        return await self._call_client("chat.completions", body, ("model", "messages", "stream", "tools", "response_format"))

    async def _call_client(self, resource: str, body: Mapping[str, Any], parameters: Sequence[str]) -> Any:
        # Everything else is no parameter of the SDK's method in every version; extra_body carries it as it is.
        named = {key: body[key] for key in parameters if key in body}
        extra = {key: value for key, value in body.items() if key not in named}
        create = operator.attrgetter(f"{resource}.create")(self.client)
        if hasattr(self.client, "__aenter__"):
            return await create(**named, extra_body=extra)
        return await asyncio.to_thread(create, **named, extra_body=extra)


class OpenAICompatibleProvider(UnifiedProvider):
    """Any OpenAI-compatible API, constructed by hand.

    Args:
        api_key: The key; ``None`` for a server that wants none.
        base_url: The API's address, up to and without ``/chat/completions``.
        provider_name: Shown in errors and logs.
        custom_headers: Added to every request.
    """

    def __init__(
        self,
        api_key: str | None,
        base_url: str,
        provider_name: str | None = None,
        custom_headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            ProviderConfig(
                name="openai_compatible",
                display_name=provider_name or "OpenAI Compatible",
                api_key=api_key,
                base_url=base_url,
                headers=custom_headers or {},
                requires_key=False,
            )
        )


def _body_of(answer: Any) -> bytes:
    """JSON of an object of the SDK."""
    # What providers send is not always what the SDK's types expect; it is passed on all the same.
    text: str = answer.model_dump_json(exclude_unset=True, warnings=False)
    return text.encode()
