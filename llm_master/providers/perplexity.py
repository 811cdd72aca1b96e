"""Perplexity's Agent API, which is OpenAI's Responses at another path (https://docs.perplexity.ai/api-reference/responses-post)."""

from __future__ import annotations

from typing import ClassVar

from llm_master.providers.responses import ResponsesProvider


class PerplexityResponsesProvider(ResponsesProvider):
    """Models of many makers, which search. The API's version is in this path only, not in that of chat completions."""

    path: ClassVar[str] = "/v1/responses"
