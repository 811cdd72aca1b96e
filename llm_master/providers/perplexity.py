"""Perplexity's Agent API, which is OpenAI's Responses at another path (https://docs.perplexity.ai/api-reference/responses-post)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_master.providers.responses import ResponsesProvider
from llm_master.types import Message


class PerplexityResponsesProvider(ResponsesProvider):
    """Models of many makers, which search. The API's version is in this path only, not in that of chat completions."""

    def prepare(self, messages: Sequence[Message], model: str, options: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Path and body of a request."""
        path, body = super().prepare(messages, model, options, stream=stream)
        return f"/v1{path}", body
