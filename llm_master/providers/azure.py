"""Azure OpenAI: OpenAI's wire formats at the addresses, with the keys and by the errors of Azure.

Two APIs lead to the same deployments. With a dated api-version it is the classic one, which has the deployment in the path
(``/openai/deployments/NAME/chat/completions?api-version=2024-10-21``); without one it is the v1 API
(``/openai/v1/chat/completions``, the deployment's name as ``model``).

Sources: https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference, .../openai/api-version-lifecycle (the v1 API),
.../openai/how-to/managed-identity (tokens), .../openai/concepts/content-filter (refusals)
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote, unquote, urlsplit

import attrs

from llm_master.errors import (
    AuthenticationError,
    ConfigurationError,
    ContentPolicyError,
    InvalidRequestError,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderError,
)
from llm_master.providers.base import load
from llm_master.providers.bodies import encoded
from llm_master.providers.failures import read_failure
from llm_master.providers.http import HTTPProvider
from llm_master.providers.responses import ResponsesProvider
from llm_master.providers.unified import UnifiedProvider
from llm_master.rows import ProviderConfig
from llm_master.transport import Answer, Endpoint
from llm_master.types import Message

ENTRA_ID = "entra-id"
"""As a key: whatever Microsoft's azure-identity finds, as a managed identity or what ``az login`` left."""

API_VERSION = "api-version"
RESPONSES = "responses/{model}"

SCOPE = "https://cognitiveservices.azure.com/.default"
"""What a token must be for, where the row says nothing else."""

COUNTS_STREAMS_FROM = "2024-09-01"
"""From this api-version on a stream can be asked for its usage: an older one refuses to be."""

RENEW_BEFORE = 300.0
"""Seconds before its end at which a token is no longer used."""

_DATED = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?")
_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*")
_VERSIONED = r"api.?version|unrecognized request argument|unknown parameter|extra inputs"
"""What a refusal says, in lower case, of an option that the api-version may not know."""

_RESOURCE = re.compile(r"(?P<root>.*?)(/openai(/deployments(/(?P<deployment>[^/]+)(/.*)?)?)?|/models|/api/projects/[^/]+)?")
"""The paths that stand for a resource: alone, of its API, of one deployment, of the inference API, or of a project."""


def placed(config: ProviderConfig) -> ProviderConfig:
    """The row with the address of the API that is to be asked, and nothing of it that the API would not take.

    Raises:
        ConfigurationError: The api-version can be none.
    """
    base = (config.base_url or "").rstrip("/")
    version = config.query.get(API_VERSION, "")
    if not base:
        return config
    if version not in ("", "v1", "preview", "latest") and not _DATED.fullmatch(version):
        raise ConfigurationError(
            f"{API_VERSION} is {version!r}: give a date as 2024-10-21 or 2025-04-01-preview, or leave it out for the v1 API; "
            "the version of a model is none of the API"
        )
    query = {name: value for name, value in config.query.items() if name != API_VERSION}
    if version == "preview":
        query[API_VERSION] = version
    address = urlsplit(base)
    if address.path.endswith("/v1"):
        # The address says which API it is. A date may be left over in the environment from before it did.
        return attrs.evolve(config, base_url=base, query=query)
    found = _RESOURCE.fullmatch(address.path)
    root = f"{address.scheme}://{address.netloc}{found['root'] if found is not None else address.path}"
    deployment = unquote(found["deployment"]) if found is not None and found["deployment"] else None
    default = config.default_model or deployment
    if _DATED.fullmatch(version):
        return attrs.evolve(config, base_url=f"{root}/openai", query={**query, API_VERSION: version}, default_model=default)
    if found is not None and found["root"] and found["root"] == address.path:
        # A gateway's own path, which leads to the v1 API.
        return attrs.evolve(config, base_url=base, query=query)
    return attrs.evolve(config, base_url=f"{root}/openai/v1", query=query, default_model=default)


class OnAzure(HTTPProvider):
    """What the wire formats have in common there. The key is an API key, an Entra ID token, or ``entra-id``."""

    models_path: ClassVar[str | None] = None  # with a key it lists what could be deployed, and what is deployed only to its management API

    def __init__(self, config: ProviderConfig | None = None) -> None:
        super().__init__(placed(config) if config is not None else None)
        version = self.config.query.get(API_VERSION, "")
        self.version = version if _DATED.fullmatch(version) else None
        """The dated version of the classic API; ``None`` for the v1 API."""
        self._identity = Identity(self.config.scope or SCOPE) if self.api_key == ENTRA_ID else None
        self._is_token = self.api_key is not None and _TOKEN.fullmatch(self.api_key) is not None

    @classmethod
    def placed(cls, config: ProviderConfig) -> ProviderConfig:
        """The row with the address of the API that is to be asked; a deployment in it is the default model.

        Of a row of another kind, which settings put here, the Responses API is asked in this way as well.
        """
        return attrs.evolve(placed(config), generate_map={**config.generate_map, RESPONSES: f"{__name__}:AzureResponsesProvider"})

    def headers(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Headers of a request."""
        if self._identity is not None:
            return {"Authorization": f"Bearer {self._identity.token or '…'}"}
        if not self.api_key:
            return {}
        return {"Authorization": f"Bearer {self.api_key}"} if self._is_token else {"api-key": self.api_key}

    async def endpoint(self, path: str, options: Mapping[str, Any]) -> Endpoint:
        """Where a path is. A token is fetched, in a thread, when there is none that is valid."""
        if self._identity is not None and not self._identity.valid:
            await asyncio.to_thread(self._identity.renew)
            self._endpoints.clear()  # theirs was the old token
        endpoint = self._endpoints.get(path)
        if endpoint is None:
            endpoint = self._endpoints[path] = self.new_endpoint(path, self.headers(options))
        return endpoint

    def refused(self, answer: Answer, model: str, endpoint: Endpoint) -> ProviderError:
        """The error for an answer that is no 2xx, with the remedy where Azure's own words do not have it."""
        error = super().refused(answer, model, endpoint)
        said = str(error.args[0])
        if self._identity is not None and self._identity.token:
            said = said.replace(self._identity.token, "the token")
        failure = read_failure(answer.body)
        codes = {code.lower() for code in failure.codes}
        host = endpoint.host.partition(":")[0]
        kind: type[ProviderError] = type(error)
        if isinstance(error, ContentPolicyError):
            error.categories = categories(failure.detail)
            if error.categories:
                said += f" (filtered: {', '.join(error.categories)})"
        elif answer.status == 404 and "404" in codes and "deployment" not in said.lower():
            # Of a deployment that there is not it says so. This is a path that there is not.
            kind = InvalidRequestError
            said += f" (from {endpoint.url}: is base_url that of the resource?{self._about_version()})"
        elif isinstance(error, ModelNotFoundError) and failure.codes:
            said += f" ({host} has no deployment {model!r}: the model's name must be the deployment's, as {self.config.name}/DEPLOYMENT)"
        elif "permissiondenied" in codes:
            kind = PermissionDeniedError
            if self._is_token or self._identity is not None:
                said += " (give the identity the role Cognitive Services OpenAI User on the resource)"
        elif isinstance(error, AuthenticationError):
            said += f" (asked of {host}: is the key of this resource?)"
        elif answer.status == 400 and re.search(_VERSIONED, said.lower()):
            said += self._about_version()
        if kind is not type(error):
            facts = {name: getattr(error, name) for name in ("status", "model", "request_id", "code")}
            return kind(said, **facts)
        error.args = (said,)
        return error

    def _about_version(self) -> str:
        """What to do where an api-version may be too old, if there is one."""
        if self.version is None:
            return ""
        variables = self.config.field_env.get(f"query.{API_VERSION}", ())
        remedy = f"set {' or '.join(variables)} to a newer one" if variables else f'put a newer one into query={{"{API_VERSION}": ...}}'
        return f" {API_VERSION} is {self.version}, which may be too old or too new for this: {remedy}, or leave it out for the v1 API."

    def _build_client(self) -> Any:
        config = self.config
        dated = self.version is not None
        name = "openai:AsyncAzureOpenAI" if dated and config.client_class == "openai:AsyncOpenAI" else config.client_class
        cls = load(name, f"client_class of provider {config.name!r}")
        common: dict[str, Any] = {"timeout": config.timeout, "max_retries": 0}
        identity, key = self._identity, self.api_key or "none"
        asks = None if identity is None else identity.current if hasattr(cls, "__aenter__") else identity.current_now
        query = {name: value for name, value in config.query.items() if name != API_VERSION} if dated else dict(config.query)
        if dated:
            auth = {"azure_ad_token_provider": asks} if asks else {"azure_ad_token" if self._is_token else "api_key": key}
            root = (config.base_url or "").removesuffix("/openai")
            return cls(
                azure_endpoint=root,
                api_version=self.version,
                default_headers=dict(config.headers),
                default_query=query,
                **auth,
                **common,
            )
        # This class sends the key as a bearer, which the v1 API takes as well; a gateway before it may want its usual header.
        own = {} if identity is not None or self._is_token else self.headers({})
        headers = {**own, **config.headers}
        return cls(api_key=asks or key, base_url=config.base_url, default_headers=headers, default_query=query, **common)


class AzureProvider(OnAzure, UnifiedProvider):
    """Chat completions and embeddings of a resource's deployments, whose names are the models'."""

    def __init__(self, config: ProviderConfig | None = None) -> None:
        super().__init__(config)
        self._asks_for_usage = self._asks_for_usage and (self.version is None or self.version[:10] >= COUNTS_STREAMS_FROM)

    def prepare(self, messages: Sequence[Message], model: str, options: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Path and body of a request."""
        path, body = super().prepare(messages, model, options, stream=stream)
        return self._path(path, model), body

    async def exchange(self, operation: str, path: str, body: Mapping[str, Any], model: str) -> Answer:
        """Send a request that is no chat; its 2xx answer."""
        endpoint = await self.endpoint(self._path(self.config.paths.get(operation, path), model), {})
        answer = await endpoint.post(encoded(body))
        if not 200 <= answer.status < 300:
            raise self.refused(answer, model, endpoint)
        return answer

    def _path(self, path: str, model: str) -> str:
        return path if self.version is None else f"/deployments/{quote(model, safe='')}{path}"


class AzureResponsesProvider(OnAzure, ResponsesProvider):
    """The Responses API of a resource's deployments."""


class Identity:
    """Tokens of Entra ID, as azure-identity finds them.

    Attributes:
        token: The last one; ``None`` before the first.
    """

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self._credential: Any = None
        self._lock = threading.Lock()
        self._until = 0.0
        self.token: str | None = None

    @property
    def valid(self) -> bool:
        """Whether the token can still be used."""
        return time.time() < self._until

    def renew(self) -> None:
        """Fetch a token; of several threads that come at once, one does.

        Raises:
            ConfigurationError: azure-identity is not installed.
            AuthenticationError: It found no identity, or was given no token.
        """
        try:
            from azure.core.exceptions import ClientAuthenticationError
            from azure.identity import DefaultAzureCredential
        except ImportError as exc:
            raise ConfigurationError("an identity needs the azure-identity package: pip install 'llm_master[azure]'") from exc
        with self._lock:
            if self.valid:
                return
            if self._credential is None:
                self._credential = DefaultAzureCredential()
            try:
                token = self._credential.get_token(self._scope)
            except ClientAuthenticationError as exc:
                raise AuthenticationError(f"no token for {self._scope}: {exc}") from exc
            self.token, self._until = token.token, token.expires_on - RENEW_BEFORE

    def current_now(self) -> str:
        """A token that can be used, for a client of the SDK's."""
        if not self.valid:
            self.renew()
        return self.token or ""

    async def current(self) -> str:
        """The same without blocking."""
        return await asyncio.to_thread(self.current_now) if not self.valid else self.token or ""


def categories(detail: Any) -> tuple[str, ...]:
    """What a refusal says was filtered: ``hate``, ``self_harm``, ``jailbreak``, ...

    The chat API has them under ``innererror.content_filter_result``, the Responses API under ``content_filters[]``.
    """
    if not isinstance(detail, Mapping):
        return ()
    inner = detail.get("innererror")
    found = [inner.get("content_filter_result") if isinstance(inner, Mapping) else None, detail.get("content_filter_result")]
    for part in filters if isinstance(filters := detail.get("content_filters"), list) else ():
        found.append(part.get("content_filter_results") if isinstance(part, Mapping) else None)
    return tuple(
        dict.fromkeys(
            name
            for results in found
            if isinstance(results, Mapping)
            for name, result in results.items()
            if isinstance(result, Mapping) and result.get("filtered")
        )
    )
