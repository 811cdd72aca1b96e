"""Gemini on Vertex AI: the same wire format, by API key or by service account.

Sources: https://cloud.google.com/vertex-ai/generative-ai/docs/start/express-mode/overview (key),
https://cloud.google.com/docs/authentication/application-default-credentials (service account)
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from llm_master.errors import AuthenticationError, ConfigurationError, ProviderError
from llm_master.providers import gemini_media as media
from llm_master.providers.gemini import GeminiProvider
from llm_master.results import EmbeddingResponse
from llm_master.rows import ProviderConfig
from llm_master.transport import Answer, Endpoint
from llm_master.types import WireAnswer

DEFAULT_CREDENTIALS = "adc"
"""As a key: whatever Google's libraries find, as what ``gcloud auth application-default login`` left."""

_EXPRESS = "/publishers/google"


_INSTANCE = {"taskType": "task_type", "title": "title"}
"""What ``:predict`` takes beside each text, and how it calls it."""


def _of_instance(said: Mapping[str, Any]) -> dict[str, Any]:
    return {_INSTANCE[name]: value for name, value in said.items() if name in _INSTANCE}


def _predicted(content: Any) -> list[Any]:
    return [prediction["embeddings"]["values"] for prediction in content["predictions"]]


class VertexProvider(GeminiProvider):
    """``vertex/gemini-*``. The key is an API key, the path of a service account's JSON file, or ``adc``."""

    models_path = None  # its list is of another API, and wants an account

    def __init__(self, config: ProviderConfig | None = None) -> None:
        super().__init__(config)
        self._by_account = self.api_key is not None and (self.api_key.endswith(".json") or self.api_key == DEFAULT_CREDENTIALS)
        self._credentials: Any = None
        self._project: str | None = None
        self._lock = threading.Lock()

    async def embed(self, inputs: Sequence[str], model: str, **options: Any) -> EmbeddingResponse:
        """One vector for each input, with ``dimensions``, ``task_type`` and ``title``.

        ``gemini-embedding-2`` and its successors take one input a request, by ``:embedContent``; the models before them answer
        ``:predict``, where ``gemini-embedding-001`` takes one as well. Several requests are sent one after the other.

        Source: https://cloud.google.com/vertex-ai/generative-ai/docs/embeddings/get-text-embeddings
        """
        said = media.embedding_options(options)
        answers, wire = [], WireAnswer()
        size = len(inputs) if model.startswith("text-") else 1
        for start in range(0, len(inputs), size or 1):
            batch = inputs[start : start + size]
            if re.match(r"gemini-embedding-(?!001)", model):
                data, wire = await self._ask(model, "embedContent", {"content": {"parts": [{"text": batch[0]}]}, **said})
                answers.append(self._vectors(data, lambda content: [content["embedding"]["values"]], 1, model, wire))
                continue
            body: dict[str, Any] = {"instances": [{"content": text, **_of_instance(said)} for text in batch]}
            if parameters := {name: value for name, value in said.items() if name not in _INSTANCE}:
                body["parameters"] = parameters
            data, wire = await self._ask(model, "predict", body)
            answers.append(self._vectors(data, _predicted, len(batch), model, wire))
        return media.joined(answers, wire)

    def _counted(self, model: str, body: dict[str, Any]) -> dict[str, Any]:
        """The body of ``:countTokens``, which here is that of the request itself."""
        return body

    def headers(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Headers of a request."""
        if not self._by_account:
            return super().headers(options)
        token = self._credentials.token if self._credentials is not None else None
        return {"Authorization": f"Bearer {token or '…'}"}

    async def endpoint(self, path: str, options: Mapping[str, Any]) -> Endpoint:
        """Where a path is. A token is fetched, in a thread, when there is none that is valid."""
        if self._by_account and (self._credentials is None or not self._credentials.valid):
            await asyncio.to_thread(self._refresh)
            self._endpoints.clear()  # theirs was the old token
        return await super().endpoint(path, options)

    def new_endpoint(self, path: str, headers: Mapping[str, str], base_url: str | None = None) -> Endpoint:
        """An endpoint; of a service account below its project, unless ``base_url`` names another place."""
        base = base_url or self.config.base_url or ""
        if self._project and base.endswith(_EXPRESS) and "/projects/" not in base:
            path = f"/projects/{self._project}/locations/global{_EXPRESS}{path}"
            return super().new_endpoint(path, headers, base_url=base.removesuffix(_EXPRESS))
        return super().new_endpoint(path, headers, base_url)

    def refused(self, answer: Answer, model: str, endpoint: Endpoint) -> ProviderError:
        """The error for an answer that is no 2xx, without the token, which some repeat."""
        error = super().refused(answer, model, endpoint)
        token = getattr(self._credentials, "token", None)
        if token and error.args:
            error.args = (str(error.args[0]).replace(token, "the token"),)
        return error

    def _refresh(self) -> None:
        """Fetch a token; of several threads that come at once, one does.

        Raises:
            ConfigurationError: google-auth is not installed, or the credentials cannot be read.
            AuthenticationError: They were refused.
        """
        try:
            import google.auth
            import google.auth.transport.requests
            from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
            from google.oauth2.service_account import Credentials
        except ImportError as exc:
            raise ConfigurationError("a service account needs the google-auth package: pip install 'llm_master[vertex]'") from exc
        scopes = [self.config.scope] if self.config.scope else None
        with self._lock:
            if self._credentials is None:
                try:
                    if self.api_key == DEFAULT_CREDENTIALS:
                        self._credentials, self._project = google.auth.default(scopes=scopes)
                    else:
                        self._credentials = Credentials.from_service_account_file(self.api_key, scopes=scopes)
                        self._project = self._credentials.project_id
                except (DefaultCredentialsError, OSError, ValueError, TypeError, AttributeError, KeyError) as exc:
                    # A file that is no service account fails in as many ways as it can be one.
                    raise ConfigurationError(f"the service account in {self.api_key!r} cannot be used: {exc}") from exc
            if not self._credentials.valid:
                try:
                    self._credentials.refresh(google.auth.transport.requests.Request())
                except GoogleAuthError as exc:
                    raise AuthenticationError(f"Google gave no token for the service account: {exc}") from exc
