"""APIs of models that think between their tool calls, and want to see those thoughts again.

Sources: https://api-docs.deepseek.com/guides/thinking_mode, https://platform.kimi.ai/docs/guide/use-kimi-k2-thinking-model
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_master.providers.unified import UnifiedProvider
from llm_master.types import Message

_FIELD = "reasoning_content"

UNSAID = " "
"""The thoughts of an assistant's turn that has none, as one that another provider wrote. An empty text counts as missing for some."""


class ThinkingProvider(UnifiedProvider):
    """While such a model thinks, an assistant's message with tool calls is refused without ``reasoning_content``.

    What the API itself said comes back by the row's ``returns``. To the calls of another provider's model, or to those that the
    caller wrote by hand, nothing is added but a blank. ``thinking={"type": "disabled"}`` does without.
    """

    def prepare(self, messages: Sequence[Message], model: str, options: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Path and body of a request."""
        path, body = super().prepare(messages, model, options, stream=stream)
        thinking = options.get("thinking")
        if isinstance(thinking, Mapping) and thinking.get("type") == "disabled":
            return path, body
        if any(_lacks(message) for message in body["messages"]):
            body["messages"] = [{**message, _FIELD: UNSAID} if _lacks(message) else message for message in body["messages"]]
        return path, body


def _lacks(message: Message) -> bool:
    return message.get("role") == "assistant" and bool(message.get("tool_calls")) and message.get(_FIELD) is None
