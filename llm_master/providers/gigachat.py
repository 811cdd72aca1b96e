"""GigaChat: tokens by OAuth, functions, files and embeddings, over both versions of its chat API.

Sources: https://developers.sber.ru/docs/ru/gigachat/api/reference/rest/gigachat-api (OAuth), .../post-chat, .../post-file,
.../post-tokens-count, https://github.com/ai-forever/gigachat/blob/main/MIGRATION_GUIDE.md (the second version)
"""

from __future__ import annotations

import base64
import functools
import re
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from llm_master.errors import AuthenticationError, ProviderConnectionError, ProviderError, RequestTimeoutError, ServerError
from llm_master.providers import gigachat_answer as answer
from llm_master.providers import gigachat_files as files
from llm_master.providers.base import Translation
from llm_master.providers.bodies import encoded, json_of, unreadable
from llm_master.providers.failures import BAD_JSON, error_of, read_failure, request_id
from llm_master.providers.gigachat_messages import conversation
from llm_master.providers.gigachat_options import translated
from llm_master.providers.http import HTTPProvider, with_headers
from llm_master.providers.stream_reader import StreamReader
from llm_master.providers.tokens import Token, TokenKeeper, lifetime
from llm_master.rows import ProviderConfig
from llm_master.transport import Answer, Endpoint
from llm_master.types import LLMResponse, Message, StreamPiece

if TYPE_CHECKING:
    from llm_master.results import EmbeddingResponse, ListedModel

SCOPE = "GIGACHAT_API_PERS"
"""Scope of a person's account; ``GIGACHAT_API_B2B`` and ``GIGACHAT_API_CORP`` are those of companies."""

OAUTH = "/api/v2/oauth"
"""Where tokens are, where the row does not say it."""

KEPT_FILES = 256
"""Uploads that are remembered, so that an image is not uploaded again with each turn of its conversation."""

_TOKEN = re.compile(r"ACCESS_TOKEN(_\d+)?$", re.IGNORECASE)
_JWT = re.compile(r"eyJ[\w-]*\.[\w-]*\.[\w.-]*")


class GigaChatProvider(HTTPProvider):
    """``GigaChat*``. The key is an authorization key, for which tokens are fetched, or an access token itself.

    A key is an access token if it is a JWT, or if the variable in which it stands is named so (``..._ACCESS_TOKEN``).
    """

    takes_json_object = False
    models_path = "/models"

    def __init__(self, config: ProviderConfig | None = None) -> None:
        super().__init__(config)
        base_url = (self.config.base_url or "").rstrip("/")
        self._second = base_url.endswith("/v2")
        # All but the chat is in the first version only.
        self._first_url = base_url.removesuffix("/v2") + "/v1" if self._second else base_url
        self._oauth_url = self.config.paths.get("oauth") or "/".join(base_url.split("/", 3)[:3]) + OAUTH
        self._tokens = TokenKeeper(self._fetch_token, lambda: self.clock, f"the access token from {self._oauth_url}")
        # The endpoints of one token. Another token makes others, and no old one is kept.
        self._ready: tuple[str, dict[tuple[str, str | None], Endpoint]] = ("", {})
        self._uploads: dict[bytes, str] = {}

    @functools.cached_property
    def _has_token(self) -> bool:
        return self.api_key is not None and (_TOKEN.search(self.key_source) or _JWT.fullmatch(self.api_key)) is not None

    def prepare(self, messages: Sequence[Message], model: str, options: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Path and body of a request."""
        body: dict[str, Any] = {"model": model, "messages": conversation(messages, second=self._second), **options}
        if stream:
            body["stream"] = True
        return "/chat/completions", body

    def translate(self, model: str, options: Mapping[str, Any]) -> Translation:
        """OpenAI's options in GigaChat's words.

        Raises:
            InvalidRequestError: A value that the API is known to refuse.
        """
        return translated(options, second=self._second)

    def headers(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Headers of a request as a plan shows them. The token of a key that fetches one is not known before."""
        return {"Authorization": f"Bearer {self.api_key if self._has_token else '…'}"} if self.api_key else {}

    def read_answer(self, body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
        """Make an answer of a 2xx body."""
        try:
            return answer.read_answer(body, status=status, request_id=request_id, model=model)
        except ProviderError as exc:
            _hide(exc, self._ready[0])
            raise

    def reader(self, model: str, status: int, request_id: str | None) -> StreamReader:
        """What makes events of a stream's pieces."""
        token = self._ready[0]
        return answer.CompletionReader(model, status, request_id, lambda error: _hide(error, token))

    async def generate(self, messages: Sequence[Message], model: str, **options: Any) -> LLMResponse:
        """Answer ``messages`` in one piece. Images, audio and files are uploaded first."""
        if files.holds_media(messages):
            messages = await files.uploaded(messages, self._upload)
        return await super().generate(messages, model, **options)

    def stream(self, messages: Sequence[Message], model: str, **options: Any) -> AsyncIterator[StreamPiece]:
        """Answer ``messages`` in pieces. Images, audio and files are uploaded first."""
        if files.holds_media(messages):
            return self._stream_after_upload(messages, model, options)
        return super().stream(messages, model, **options)

    async def _stream_after_upload(self, messages: Sequence[Message], model: str, options: Mapping[str, Any]) -> AsyncIterator[StreamPiece]:
        pieces = super().stream(await files.uploaded(messages, self._upload), model, **options)
        try:
            async for piece in pieces:
                yield piece
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]  # it is a generator, which closes its connection here

    async def describe_models(self) -> list[ListedModel]:
        """What ``/models`` lists (https://developers.sber.ru/docs/ru/gigachat/api/reference/rest/get-models)."""
        from llm_master.providers.listing import models_in

        found = await self._ask(self.config.paths.get("models", "/models"), None, "")
        models = models_in(json_of(found))
        if models is None:
            raise ServerError(f"answered {found.status} with no list of models: {found.body[:120]!r}", status=found.status)
        return models

    async def health_check(self) -> bool:
        """Whether ``/models`` answers, which costs nothing."""
        await self._ask("/models", None, "")
        return True

    async def embed(self, inputs: Sequence[str], model: str, **options: Any) -> EmbeddingResponse:
        """Vectors of texts (https://developers.sber.ru/docs/ru/gigachat/api/reference/rest/post-embeddings)."""
        from llm_master.providers import embeddings

        body = embeddings.request(inputs, model, options, base64_by_default=False)
        found = await self._ask(self.config.paths.get("embed", "/embeddings"), encoded(body), model)
        response = embeddings.read_answer(
            found.body, status=found.status, request_id=request_id(found.headers), model=model, expected=len(inputs)
        )
        return with_headers(response, found)

    async def count_tokens(self, messages: Sequence[Message], model: str, **options: Any) -> int | None:
        """How many tokens the messages' texts have; ``None`` with functions or media, which the API does not count.

        Source: https://developers.sber.ru/docs/ru/gigachat/api/reference/rest/post-tokens-count
        """
        if options.get("functions") or options.get("tools") or files.holds_media(messages):
            return None
        texts = [turn["content"] for turn in conversation(messages, second=False)]
        found = await self._ask("/tokens/count", encoded({"model": model, "input": texts}), model)
        try:
            counts = [item["tokens"] for item in msgspec.json.decode(found.body)]
            if len(counts) != len(texts):
                raise ValueError(f"{len(counts)} counts for {len(texts)} texts")
            return int(sum(counts))
        except (*BAD_JSON, LookupError, TypeError, ValueError) as exc:
            raise unreadable(found.body, exc, found.status, request_id(found.headers), model) from exc

    # Tokens

    async def endpoint(self, path: str, options: Mapping[str, Any]) -> Endpoint:
        """Where a path of the chat API is. A token is fetched where there is none that is valid."""
        return self._endpoint_for(await self._token(), path, None)

    async def _token(self) -> str:
        """What to send as a token; nothing where no key is required."""
        if self.api_key is None or self._has_token:
            return self.api_key or ""
        return self._tokens.ready() or await self._tokens.get()

    def _endpoint_for(self, token: str, path: str, base_url: str | None) -> Endpoint:
        known, endpoints = self._ready
        if known != token:
            known, endpoints = self._ready = (token, {})
        endpoint = endpoints.get((path, base_url))
        if endpoint is None:
            endpoint = endpoints[path, base_url] = self.new_endpoint(path, {"Authorization": f"Bearer {token}"} if token else {}, base_url)
        return endpoint

    async def renewed(self, endpoint: Endpoint, path: str, options: Mapping[str, Any]) -> Endpoint | None:
        """The endpoint with a new token, in place of one that was refused; ``None`` where no token can be fetched."""
        token = await self._new_token(endpoint)
        return None if token is None else self._endpoint_for(token, path, None)

    async def _new_token(self, endpoint: Endpoint) -> str | None:
        if self.api_key is None or self._has_token:
            return None
        self._tokens.discard(_bearer(endpoint))
        return await self._tokens.get()

    async def _fetch_token(self) -> Token:
        """Ask for a token.

        Raises:
            AuthenticationError: The authorization key or the scope was refused.
            ProviderError: The token endpoint is down.
        """
        headers = {
            "Authorization": f"Basic {self.api_key}",
            "RqUID": str(uuid.uuid4()),
            "Content-Type": "application/x-www-form-urlencoded",
        }
        config = self.config
        endpoint = Endpoint(self._oauth_url, headers, verify_ssl=config.verify_ssl, ca_bundle=config.ca_bundle)
        scope = config.scope or SCOPE
        try:
            found = await endpoint.post(f"scope={quote(scope)}".encode())
        except (ProviderConnectionError, RequestTimeoutError) as exc:
            raise type(exc)(f"no access token from {self._oauth_url}: {exc}") from exc
        if not 200 <= found.status < 300:
            raise self._refused_token(found, scope)
        try:
            given = msgspec.json.decode(found.body)
            text, ends_at = given.get("access_token") or given["tok"], given.get("expires_at") or given.get("exp")
            if not isinstance(text, str) or not text.isascii() or not text.isprintable():
                raise ValueError("the token is no text that a header may hold")
        except (*BAD_JSON, LookupError, TypeError, ValueError, AttributeError):
            # What came may hold a token, so that it is not repeated.
            raise ServerError(
                f"{self._oauth_url} answered {found.status} with no access token: is it the right address?", status=found.status
            ) from None
        return Token(text, lifetime(ends_at, found.headers, self.clock))

    def _refused_token(self, found: Answer, scope: str) -> ProviderError:
        error = error_of(found.status, found.headers, read_failure(found.body))
        said = f"no access token from {self._oauth_url}: {error}"
        if self.api_key:
            said = said.replace(self.api_key, "the key")
        name = self.config.name.upper() or "GIGACHAT"
        if found.status not in (408, 429) and found.status < 500:
            # Whatever it says, it is the key or its scope: nothing else was sent.
            hint = f"The scope was {scope}: set ${name}_SCOPE if the key is for another"
            if not _is_pair(self.api_key or ""):
                hint = f"The key is no base64 of ID:SECRET: give the authorization key, not the client secret. {hint}"
            return AuthenticationError(f"{said}. {hint}", status=found.status, request_id=error.request_id)
        error.args = (said,)
        return error

    def refused(self, answer: Answer, model: str, endpoint: Endpoint) -> ProviderError:
        """The error for an answer that is no 2xx, without the token."""
        error = super().refused(answer, model, endpoint)
        _hide(error, _bearer(endpoint))
        if answer.status == 401 and self._has_token:
            remedy = "An access token holds for 30 minutes: give an authorization key in $GIGACHAT_CREDENTIALS, which fetches them"
            error.args = (f"{error}. {remedy}",)
        return error

    async def _ask(self, path: str, body: bytes | None, model: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Send what is no chat, and repeat it once with a new token if the old one was refused; the 2xx answer."""
        token: str | None = await self._token()
        base_url, path = (path, "") if path.startswith("http") else (self._first_url, path)
        for repeats in (True, False):
            if headers is None:
                endpoint = self._endpoint_for(token or "", path, base_url)
            else:
                endpoint = self.new_endpoint(path, {**({"Authorization": f"Bearer {token}"} if token else {}), **headers}, base_url)
            found = await (endpoint.get() if body is None else endpoint.post(body))
            if not repeats or found.status != 401 or (token := await self._new_token(endpoint)) is None:
                break
        if not 200 <= found.status < 300:
            raise self.refused(found, model, endpoint)
        return found

    async def _upload(self, upload: files.Upload) -> str:
        """Upload a medium, unless it was uploaded before; its id."""
        digest = upload.digest
        if (known := self._uploads.get(digest)) is not None:
            return known
        headers, body = files.form(upload)
        found = await self._ask("/files", body, "", headers)
        try:
            name = msgspec.json.decode(found.body)["id"]
            if not isinstance(name, str):
                raise TypeError(f"the id is {name!r}")
        except (*BAD_JSON, LookupError, TypeError) as exc:
            raise unreadable(found.body, exc, found.status, request_id(found.headers), "") from exc
        while len(self._uploads) >= KEPT_FILES:
            self._uploads.pop(next(iter(self._uploads)), None)
        self._uploads[digest] = name
        return name


def _bearer(endpoint: Endpoint) -> str:
    """The token that an endpoint sends."""
    return endpoint.header("Authorization").removeprefix("Bearer ")


def _hide(error: ProviderError, token: str) -> None:
    """Take a token out of what an error says."""
    if token and error.args:
        error.args = (str(error.args[0]).replace(token, "the token"), *error.args[1:])


def _is_pair(key: str) -> bool:
    """Whether a key is ``ID:SECRET`` in base64."""
    try:
        return b":" in base64.b64decode(key, validate=True)
    except ValueError:
        return False
