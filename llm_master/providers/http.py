"""What all providers over HTTP have in common: endpoints, errors, and the way from a stream's bytes to its events."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import msgspec

from llm_master.errors import ProviderError, ServerError
from llm_master.providers.base import BaseLLMProvider
from llm_master.providers.bodies import encoded, json_of, unreadable
from llm_master.providers.failures import UNREADABLE, error_of, read_failure, request_id
from llm_master.providers.sse import SSEParser
from llm_master.providers.stream_reader import StreamReader, as_events
from llm_master.rows import ProviderConfig
from llm_master.transport import Answer, Endpoint
from llm_master.types import (
    LLMResponse,
    Message,
    Plan,
    StreamEnd,
    StreamPiece,
)

if TYPE_CHECKING:
    from llm_master.results import ListedModel, Result

R = TypeVar("R", bound="LLMResponse | Result")


class StreamParser(Protocol):
    """What cuts a stream's bytes into its pieces."""

    def feed(self, piece: bytes) -> list[bytes]:
        """Take the next bytes; return the pieces that they complete."""

    def end(self) -> list[bytes]:
        """Return what a stream ended in without closing it."""


class HTTPProvider(BaseLLMProvider):
    """A wire format over HTTP. A subclass says what goes out (:meth:`prepare`, :meth:`headers`) and reads what comes back."""

    models_path: ClassVar[str | None] = None
    """Where the list of models is, below ``base_url``; ``None`` where the API has none. A row may say another place."""

    chat_path: ClassVar[str | None] = None
    """Where all chat goes, by headers that no option changes: that endpoint is kept at hand. ``None`` where path or headers vary."""

    stream_parser: ClassVar[type[StreamParser]] = SSEParser
    """What cuts a stream into its pieces."""

    endpoint_class: ClassVar[type[Endpoint]] = Endpoint
    """What sends to a place."""

    whole_types: ClassVar[tuple[str, ...]] = ("application/json", "text/html")
    """Media types of a 2xx that is no stream although one was asked for: a server that does not stream, an error that it did
    not call one, or no API at all."""

    def __init__(self, config: ProviderConfig | None = None) -> None:
        super().__init__(config)
        self._endpoints: dict[Any, Endpoint] = {}
        self._chat: Endpoint | None = None

    @abstractmethod
    def prepare(self, messages: Sequence[Message], model: str, options: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Path (below ``base_url``) and JSON body of a request."""

    @abstractmethod
    def headers(self, options: Mapping[str, Any]) -> dict[str, str]:
        """The format's own headers of a request, the key among them. A row's headers replace them."""

    @abstractmethod
    def read_answer(self, body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
        """Make an answer of a 2xx body."""

    @abstractmethod
    def reader(self, model: str, status: int, request_id: str | None) -> StreamReader:
        """What makes events of a stream's pieces."""

    async def generate(self, messages: Sequence[Message], model: str, **options: Any) -> LLMResponse:
        """Answer ``messages`` in one piece."""
        path, body = self.prepare(messages, model, options, stream=False)
        endpoint = await self.endpoint(path, options)
        answer = await endpoint.post(sent := encoded(body))
        if answer.status == 401 and (renewed := await self.renewed(endpoint, path, options)) is not None:
            endpoint = renewed
            answer = await endpoint.post(sent)
        if not 200 <= answer.status < 300:
            raise self.refused(answer, model, endpoint)
        return self.response(answer, model)

    def response(self, answer: Answer, model: str) -> LLMResponse:
        """What a 2xx holds.

        Raises:
            ProviderError: An error, or nothing that can be read.
        """
        named = request_id(answer.headers)
        try:
            return with_headers(self.read_answer(answer.body, status=answer.status, request_id=named, model=model), answer)
        except UNREADABLE as exc:
            raise unreadable(answer.body, exc, answer.status, named, model) from exc

    async def stream(self, messages: Sequence[Message], model: str, **options: Any) -> AsyncIterator[StreamPiece]:
        """Answer ``messages`` in pieces."""
        path, body = self.prepare(messages, model, options, stream=True)
        endpoint = await self.endpoint(path, options)
        connection = await endpoint.open(sent := encoded(body))
        reader: StreamReader | None = None
        try:
            if connection.status == 401 and (renewed := await self.renewed(endpoint, path, options)) is not None:
                connection.close()
                endpoint = renewed
                connection = await endpoint.open(sent)
            if not 200 <= connection.status < 300:
                raise self.refused(Answer(connection.status, connection.headers, await connection.read_all()), model, endpoint)
            reader = self.reader(model, connection.status, request_id(connection.headers))
            reader.wire.headers, reader.wire.sent_at = connection.headers, connection.sent_at
            if connection.headers.get("Content-Type", "").lower().startswith(self.whole_types):
                whole = Answer(connection.status, connection.headers, await connection.read_all(), connection.sent_at)
                yield as_events(self.response(whole, model))
                return
            parser = self.stream_parser()
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
            yield reader.ended()
        except ProviderError:
            if reader is not None and reader.began and (usage := reader.usage_so_far()) is not None:
                # The stream is lost, and what it cost need not be.
                yield StreamEnd(usage=usage, model_name=reader.served, wire=reader.wire)
            raise
        finally:
            connection.close()

    def plan(self, messages: Sequence[Message], model: str, *, stream: bool, **options: Any) -> Plan:
        """What would be sent. Sends nothing."""
        path, body = self.prepare(messages, model, options, stream=stream)
        endpoint = self.new_endpoint(path, self.headers(options))
        return Plan(
            url=endpoint.shown_url(self.api_key),
            headers=endpoint.shown_headers(self.api_key),
            body=msgspec.json.decode(encoded(body)),
        )

    async def endpoint(self, path: str, options: Mapping[str, Any]) -> Endpoint:
        """Where a path is, with the headers of a request; made once for each."""
        if path == self.chat_path:
            if self._chat is None:
                self._chat = self.new_endpoint(path, self.headers({}))
            return self._chat
        own = self.headers(options)
        key = (path, *own.items())
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            endpoint = self._endpoints[key] = self.new_endpoint(path, own)
        return endpoint

    async def describe_models(self) -> list[ListedModel]:
        """What the API lists, with what it says of each."""
        if self.models_path is None:
            raise self.cannot("list its models")
        from llm_master.providers.listing import MAX_BYTES, MAX_PAGES, models_in

        place = self.config.paths.get("models", self.models_path)
        base_url, place = (place, "") if place.startswith("http") else (None, place)
        # By the way of a call, which has a token fetched where one is needed.
        endpoint = await self.endpoint(place, {}) if base_url is None else self.new_endpoint(place, self.headers({}), base_url)
        found: dict[str, ListedModel] = {}
        before = None
        for _ in range(MAX_PAGES):
            answer = await endpoint.get(max_bytes=MAX_BYTES)
            if not 200 <= answer.status < 300:
                raise self.refused(answer, "", endpoint)
            page = json_of(answer)
            models = models_in(page)
            if models is None:
                raise ServerError(f"answered {answer.status} with no list of models: {answer.body[:120]!r}", status=answer.status)
            for model in models:
                found.setdefault(model.id, model)
            following = self.next_models(page) if isinstance(page, dict) else None
            if following is None:
                return list(found.values())
            if following == before:
                break
            before = following
            endpoint = self.new_endpoint(f"{place}{'&' if '?' in place else '?'}{following}", self.headers({}), base_url)
        raise ServerError(f"its list of models has no end: {len(found)} models, and the pages go on", status=answer.status)

    async def list_models(self) -> list[str]:
        """The ids of the same."""
        return [model.id for model in await self.describe_models()]

    async def health_check(self) -> bool:
        """Whether the list of models answers, which costs nothing; where there is none, yes."""
        if self.models_path is None:
            return True
        return (await self.new_endpoint(self.models_path, self.headers({})).get()).status == 200

    def next_models(self, page: Mapping[str, Any]) -> str | None:
        """What to add to the query for the page of the list that follows; ``None`` after the last."""
        return None

    async def renewed(self, endpoint: Endpoint, path: str, options: Mapping[str, Any]) -> Endpoint | None:
        """Where a request goes once more that was refused with 401, because what it was sent with had ended; ``None``: nowhere.

        A format whose tokens are short-lived throws its own away here, and fetches another.
        """
        return None

    async def exchange(self, operation: str, path: str, body: Mapping[str, Any], model: str) -> Answer:
        """Send a request that is no chat, to the row's place for the operation or else to ``path``; its 2xx answer.

        Raises:
            ProviderError: The provider refused it, or could not be reached.
        """
        endpoint = self._endpoints.get(operation)
        if endpoint is None:
            place = self.config.paths.get(operation, path)
            base_url, path = (place, "") if place.startswith("http") else (None, place)
            endpoint = self._endpoints[operation] = self.new_endpoint(path, self.headers({}), base_url)
        answer = await endpoint.post(encoded(body))
        if not 200 <= answer.status < 300:
            raise self.refused(answer, model, endpoint)
        return answer

    def new_endpoint(self, path: str, headers: Mapping[str, str], base_url: str | None = None) -> Endpoint:
        """An endpoint below the row's ``base_url``. A row's own header replaces ours, however it is spelt."""
        config = self.config
        base_url = base_url or config.base_url or ""
        theirs = {name.lower() for name in config.headers}
        path, _, query = path.partition("?")
        return self.endpoint_class(
            base_url.rstrip("/") + path,
            {name: value for name, value in headers.items() if name.lower() not in theirs} | dict(config.headers),
            query={**dict(part.split("=", 1) for part in query.split("&") if part), **config.query},
            verify_ssl=config.verify_ssl,
            ca_bundle=config.ca_bundle,
        )

    def refused(self, answer: Answer, model: str, endpoint: Endpoint) -> ProviderError:
        """The error for an answer that is no 2xx."""
        return error_of(answer.status, answer.headers, read_failure(answer.body), model=model, url=endpoint.url)


def with_headers(response: R, answer: Answer) -> R:
    """A result, with the headers that its answer had."""
    if response.wire is not None:
        response.wire.headers, response.wire.sent_at = answer.headers, answer.sent_at
    return response
