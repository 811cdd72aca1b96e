"""Gemini on Vertex AI: the same wire format, by API key or by service account.

Sources: https://cloud.google.com/vertex-ai/generative-ai/docs/start/express-mode/overview (key),
https://cloud.google.com/docs/authentication/application-default-credentials (service account)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

from llm_master.errors import AuthenticationError, MissingApiKeyError
from llm_master.providers.gemini import GeminiProvider
from llm_master.rows import ProviderConfig
from llm_master.transport import Endpoint

_EXPRESS = "/v1beta1/publishers/google"


class VertexProvider(GeminiProvider):
    """``vertex/gemini-*``. With no key, Google's application default credentials are used, through the google-auth package."""

    def __init__(self, config: ProviderConfig | None = None) -> None:
        super().__init__(config)
        self._credentials: Any = None
        self._project: str | None = None
        self._lock = threading.Lock()

    async def endpoint(self, path: str, options: Mapping[str, Any]) -> Endpoint:
        """Where a path is. A token is fetched, in a thread, when there is none that is valid."""
        if self.api_key:
            return await super().endpoint(path, options)
        if self._credentials is None or not self._credentials.valid:
            await asyncio.to_thread(self._refresh)
        # A token lives for an hour, so an endpoint per token is few.
        headers = {"Authorization": f"Bearer {self._credentials.token}"}
        key = (path, self._credentials.token)
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            self._endpoints.clear()
            base = self.config.base_url or ""
            if base.endswith(_EXPRESS) and self._project:
                path = f"/projects/{self._project}/locations/global/publishers/google{path}"
                base = base.removesuffix("/publishers/google")
            endpoint = self._endpoints[key] = self.new_endpoint(path, headers, base_url=base)
        return endpoint

    def _refresh(self) -> None:
        """Fetch a token; of several threads that come at once, one does.

        Raises:
            MissingApiKeyError: google-auth is not installed, or finds no credentials.
            AuthenticationError: It found some, and they were refused.
        """
        try:
            import google.auth
            import google.auth.exceptions
            import google.auth.transport.requests
        except ImportError as exc:
            raise MissingApiKeyError(
                "Vertex AI needs VERTEX_API_KEY, or a service account and the google-auth package: pip install 'llm_master[vertex]'"
            ) from exc
        with self._lock:
            if self._credentials is None:
                try:
                    self._credentials, self._project = google.auth.default(scopes=[self.config.scope] if self.config.scope else None)
                except google.auth.exceptions.DefaultCredentialsError as exc:
                    raise MissingApiKeyError(f"Vertex AI needs VERTEX_API_KEY or GOOGLE_APPLICATION_CREDENTIALS: {exc}") from exc
            if not self._credentials.valid:
                try:
                    self._credentials.refresh(google.auth.transport.requests.Request())
                except google.auth.exceptions.GoogleAuthError as exc:
                    raise AuthenticationError(f"Google gave no token for the service account: {exc}") from exc
