"""xAI's Responses API, where it is not OpenAI's (https://docs.x.ai/docs/guides/tools/overview)."""

from __future__ import annotations

from typing import ClassVar

from llm_master.providers.responses import ResponsesProvider


class XAIResponsesProvider(ResponsesProvider):
    """Its tools that search X are reported as calls of custom tools, and have been run by then.

    It knows no custom tools of the caller's own, so none of these calls is for the caller to answer.
    """

    call_types: ClassVar[tuple[str, ...]] = ("function_call",)
