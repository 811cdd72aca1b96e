"""Every provider that speaks OpenAI's chat completions, which is nearly all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from llm_master.errors import InvalidRequestError, ProviderError, ServerError
from llm_master.providers import chat_format as fmt
from llm_master.providers.base import BaseLLMProvider
from llm_master.providers.failures import BAD_JSON, error_of, read_failure, request_id
from llm_master.providers.sdk import is_stock
from llm_master.providers.sse import NamedEvent, SSEParser
from llm_master.rows import ProviderConfig
from llm_master.transport import Answer, Endpoint
from llm_master.types import LLMResponse, Message, ReasoningDelta, StreamEnd, StreamEvent, StreamPiece, ToolCallDelta, Usage, WireAnswer


class UnifiedProvider(BaseLLMProvider):
    """Chat completions over HTTP, without an SDK.

    A row whose ``client_class`` is not a stock class of the SDK gets its calls through that class instead: somebody
    put it there to see them.
    """

    PROVIDER_CONFIGS: ClassVar[Any]
    """The table. Set by ``llm_master.provider_configs``, which is the table's only owner."""

    def __init__(self, config: ProviderConfig | None = None) -> None:
        super().__init__(config)
        self._endpoints: dict[str, Endpoint] = {}
        self._through_client = not is_stock(self.config.client_class)
        renames = self.config.renames
        self._asks_for_usage = renames.get("stream_options", "stream_options") is not None

    async def generate(self, messages: Sequence[Message], model: str, **options: Any) -> LLMResponse:
        """Answer ``messages`` in one piece."""
        if self._through_client:
            return await self._generate_through_client(messages, model, options)
        answer = await self._endpoint("/chat/completions").post(_encoded({"model": model, "messages": messages, **options}))
        if answer.status != 200 and not 200 <= answer.status < 300:
            raise self._refused(answer, model)
        return fmt.read_answer(answer.body, status=answer.status, request_id=request_id(answer.headers), model=model)

    async def stream(self, messages: Sequence[Message], model: str, **options: Any) -> AsyncIterator[StreamPiece]:
        """Answer ``messages`` in pieces. Usage is asked for, where the API has a word for it."""
        if self._asks_for_usage and "stream_options" not in options:
            options["stream_options"] = {"include_usage": True}
        body = {"model": model, "messages": messages, "stream": True, **options}
        reader: _ChunkReader | None = None
        if self._through_client:
            reader = _ChunkReader(model, None, None)
            async for data in self._chunks_through_client(body):
                if events := reader.read((data,)):
                    yield events
                if reader.failure is not None:
                    raise reader.failure
            yield reader.end()
            return
        connection = await self._endpoint("/chat/completions").open(_encoded(body))
        try:
            if not 200 <= connection.status < 300:
                raise self._refused(Answer(connection.status, connection.headers, await connection.read_all()), model)
            reader = _ChunkReader(model, connection.status, request_id(connection.headers))
            if connection.headers.get("Content-Type", "").lower().startswith(("application/json", "text/html")):
                # A server that does not stream, an error that it did not call one, or no API at all.
                yield reader.whole(await connection.read_all())
                return
            parser = SSEParser()
            while not reader.done:
                piece = await connection.read()
                if events := reader.read(parser.feed(piece) if piece else parser.end()):
                    yield events
                if reader.failure is not None:
                    raise reader.failure
                if not piece:
                    break
            if reader.done:
                connection.finish()
            yield reader.end()
        except ProviderError:
            if reader is not None and (known := reader.known_at_break()) is not None:
                yield known
            raise
        finally:
            connection.close()

    async def health_check(self) -> bool:
        """Whether ``/models`` answers, which costs nothing."""
        return (await self._endpoint("/models").get()).status == 200

    def _endpoint(self, path: str) -> Endpoint:
        endpoint = self._endpoints.get(path)
        if endpoint is None:
            config = self.config
            headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
            # A row's own header replaces ours, however it is spelt.
            own = {name.lower() for name in config.headers}
            headers = {name: value for name, value in headers.items() if name.lower() not in own} | dict(config.headers)
            endpoint = self._endpoints[path] = Endpoint(
                (config.base_url or "").rstrip("/") + path,
                headers,
                query=config.query,
                verify_ssl=config.verify_ssl,
                ca_bundle=config.ca_bundle,
            )
        return endpoint

    def _refused(self, answer: Answer, model: str) -> Exception:
        url = self._endpoint("/chat/completions").url
        return error_of(answer.status, answer.headers, read_failure(answer.body), model=model, url=url)

    async def _generate_through_client(self, messages: Sequence[Message], model: str, options: Mapping[str, Any]) -> LLMResponse:
        completion = await self._create({"model": model, "messages": messages, **options})
        return fmt.read_answer(_body_of(completion), status=200, request_id=getattr(completion, "_request_id", None), model=model)

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
        # Everything but these is no parameter of the SDK's method in every version; extra_body carries it as it is.
        named = {key: body[key] for key in ("model", "messages", "stream", "tools", "response_format") if key in body}
        extra = {key: value for key, value in body.items() if key not in named}
        create = self.client.chat.completions.create
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


class _ChunkReader:
    """Events of one stream from its chunks, and what only its end tells."""

    __slots__ = (
        "_began",
        "_calls",
        "_citations",
        "_finish_reason",
        "_images",
        "_model",
        "_served",
        "_slots",
        "_usage",
        "_wire",
        "done",
        "failure",
    )

    def __init__(self, model: str, status: int | None, request_id: str | None) -> None:
        self._model = model
        self._wire = WireAnswer(status, request_id)
        self._served: str | None = None
        self._finish_reason: str | None = None
        self._usage: Usage | None = None
        self._citations: list[Any] = []
        self._images: list[Any] = []
        self._slots: dict[int, tuple[int, str | None]] = {}
        self._calls = 0
        self._began = False
        self.done = False
        self.failure: Exception | None = None

    def read(self, pieces: Sequence[bytes]) -> list[str | StreamEvent]:
        """Events of the chunks that arrived together.

        What comes before a chunk that is an error is returned, and the error stands in ``failure``.
        """
        events: list[str | StreamEvent] = []
        for data in pieces:
            if data == b"[DONE]":
                self.done = True
                break
            try:
                chunk = fmt.read_chunk(data)
            except BAD_JSON as exc:
                self.failure = self._broken(f"the stream holds what is no chunk ({exc}): {data[:120]!r}")
                break
            if (choices := chunk.choices) and (delta := (choice := choices[0]).delta) is not None:
                # Most chunks hold one piece of text and nothing else.
                text = delta.content
                if (
                    text.__class__ is str
                    and text
                    and choice.finish_reason is None
                    and not choice.index
                    and chunk.usage is None
                    and delta.tool_calls is None
                    and not delta.reasoning
                    and not delta.reasoning_content
                    and not delta.annotations
                ):
                    events.append(text)
                    continue
            try:
                events.extend(self._rest(chunk, data))
            except ProviderError as exc:
                self.failure = exc
                break
        self._began = self._began or bool(events)
        return events

    def _rest(self, chunk: fmt.Chunk, data: bytes) -> Iterator[str | StreamEvent]:
        if chunk.error or (isinstance(data, NamedEvent) and data.name == "error"):
            raise self._error(msgspec.json.decode(data))
        if chunk.model.__class__ is str and chunk.model:
            self._served = chunk.model
        if chunk.service_tier is not None:
            self._wire.service_tier = chunk.service_tier
        choice = fmt.first_choice(chunk.choices or ())
        usage = chunk.usage or (chunk.x_groq.usage if chunk.x_groq is not None else None) or (choice.usage if choice is not None else None)
        if usage is not None:
            self._usage = fmt.read_usage(usage)
        if chunk.citations or chunk.search_results:
            self._citations = fmt.read_citations(None, chunk.search_results or chunk.citations)
        if choice is None:
            return
        if choice.error:
            raise self._error({"error": choice.error})
        if choice.finish_reason is not None:
            self._finish_reason = choice.finish_reason
        delta = choice.delta
        if delta is None:
            return
        reasoning = delta.reasoning_content or delta.reasoning
        content = delta.content
        if content.__class__ is not str:
            content, thinking = fmt.split_content(content)
            reasoning = reasoning or thinking
        if reasoning.__class__ is str and reasoning:
            yield ReasoningDelta(reasoning)
        if content or delta.refusal:
            yield content or str(delta.refusal)
        if delta.tool_calls:
            for call in fmt.read_tool_call_deltas(delta.tool_calls):
                call.index = self._slot(call)
                yield call
        if delta.annotations:
            self._citations += fmt.read_citations(delta.annotations, None)
        if delta.images:
            self._images += delta.images

    def _slot(self, call: ToolCallDelta) -> int:
        """The call's own place: some servers give parallel calls one index, and only a new id tells them apart."""
        known = self._slots.get(call.index)
        if known is None or (call.id and call.name and known[1] and call.id != known[1]):
            known = self._slots[call.index] = (self._calls, call.id)
            self._calls += 1
        return known[0]

    def _error(self, content: Any) -> ProviderError:
        return fmt.stream_error(content, self._model, status=self._wire.status, request_id=self._wire.request_id)

    def _broken(self, message: str) -> ServerError:
        return ServerError(message, status=self._wire.status, model=self._model, request_id=self._wire.request_id)

    def known_at_break(self) -> StreamEnd | None:
        """What is known of a stream that broke after output began: its usage, if it came."""
        if self._usage is None or not self._began:
            return None
        return StreamEnd(usage=self._usage, model_name=self._served, wire=self._wire)

    def whole(self, body: bytes) -> list[str | StreamEvent]:
        """Events of an answer that came in one piece."""
        answer = fmt.read_answer(body, status=self._wire.status or 200, request_id=self._wire.request_id, model=self._model)
        events: list[str | StreamEvent] = []
        if answer.reasoning:
            events.append(ReasoningDelta(answer.reasoning))
        if answer.content:
            events.append(answer.content)
        events += [ToolCallDelta(i, call.id, call.name, call.text or "") for i, call in enumerate(answer.tool_calls)]
        events.append(
            StreamEnd(
                finish_reason=answer.finish_reason,
                usage=answer.usage,
                model_name=answer.model_name,
                citations=answer.citations,
                images=answer.images,
                wire=answer.wire,
            )
        )
        return events

    def end(self) -> StreamEnd:
        """The last event. A stream that ended without saying so was cut off.

        Raises:
            ServerError: Neither ``[DONE]`` nor a finish reason came.
        """
        if not self.done and self._finish_reason is None:
            raise self._broken("the stream ended without [DONE] and without a finish reason")
        return StreamEnd(
            finish_reason=self._finish_reason,
            usage=self._usage,
            model_name=self._served,
            citations=self._citations,
            images=self._images,
            wire=self._wire,
        )


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return _encode(body)
    except (TypeError, ValueError, msgspec.MsgspecError) as exc:
        raise InvalidRequestError(f"the request cannot be written as JSON: {exc}") from exc


def _plain(value: Any) -> Any:
    """What msgspec does not know: read-only mappings, and objects that can dump themselves, as pydantic's."""
    if isinstance(value, Mapping):
        return dict(value)
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(exclude_none=True)
    raise TypeError(f"{type(value).__name__} {value!r:.60} is no JSON value")


def _body_of(answer: Any) -> bytes:
    """JSON of an object of the SDK."""
    # What providers send is not always what the SDK's types expect; it is passed on all the same.
    text: str = answer.model_dump_json(exclude_unset=True, warnings=False)
    return text.encode()


_encode = msgspec.json.Encoder(enc_hook=_plain, decimal_format="number").encode
