"""The embedded provider: answers in this process, with no key, no network and no model.

It is for trying the library out and for tests, and every answer says so. It goes through the same pipeline as any other
provider, so its failures are met as theirs are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from llm_master.errors import (
    AuthenticationError,
    InvalidRequestError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
)
from llm_master.providers.base import BaseLLMProvider, extract_prompt
from llm_master.types import LLMResponse, Message, StreamEnd, StreamPiece, Usage

STATIC_ANSWER = "This is a mock answer: no model was asked."
RETRY_AFTER = 3600.0
"""Seconds that ``ratelimit`` asks to wait: longer than any usual deadline, so that it fails at once instead of waiting."""

_FAILURES: dict[str, tuple[type[ProviderError], int | None, str]] = {
    "timeout": (RequestTimeoutError, None, "this model always times out"),
    "ratelimit": (RateLimitError, 429, "this model is always rate limited"),
    "auth-error": (AuthenticationError, 401, "this model refuses every key"),
    "invalid-request": (InvalidRequestError, 400, "this model refuses every request"),
    "unhealthy": (ServerError, 503, "this model is always down"),
}
MODELS = ("echo", "static", "normal", *_FAILURES)


class MockProvider(BaseLLMProvider):
    """Models ``echo`` and ``normal`` repeat the prompt, ``static`` always says the same, the others fail as named.

    The prefix ``mock-`` is accepted before each, as in ``mock-timeout``. Tokens are counted as words.
    """

    async def generate(self, messages: Sequence[Message], model: str, **options: Any) -> LLMResponse:
        """Answer, or fail, as the model's name says."""
        name = model.lower().removeprefix("mock-")
        if name in _FAILURES:
            kind, status, message = _FAILURES[name]
            raise kind(message, status=status, model=model, retry_after=RETRY_AFTER if kind is RateLimitError else None)
        if name not in MODELS:
            raise ModelNotFoundError(f"the mock provider has no model {model!r}; it has {', '.join(MODELS)}", status=404, model=model)
        prompt = extract_prompt(messages)
        text = STATIC_ANSWER if name == "static" else f"Mock response to: {prompt}"
        said = sum(len(extract_prompt([{**message, "role": "user"}]).split()) for message in messages)
        return LLMResponse(
            text,
            f"mock-{name}",
            Usage(input_tokens=said, output_tokens=len(text.split()), cached_tokens=0),
            finish_reason="stop",
        )

    async def stream(self, messages: Sequence[Message], model: str, **options: Any) -> AsyncIterator[StreamPiece]:
        """The same answer, word by word."""
        answer = await self.generate(messages, model, **options)
        for position, word in enumerate(answer.content.split(" ")):
            yield word if position == 0 else f" {word}"
        yield StreamEnd(finish_reason=answer.finish_reason, usage=answer.usage, model_name=answer.model_name)

    async def health_check(self) -> bool:
        """``False`` where the row's default model is ``unhealthy``."""
        return (self.config.default_model or "").removeprefix("mock-") != "unhealthy"
