"""The short form of a provider: one text in, one text out."""

from __future__ import annotations

import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import attrs

from llm_master.clock import SYSTEM_CLOCK, Clock
from llm_master.errors import InvalidRequestError, ProviderConnectionError, RequestTimeoutError, ServerError
from llm_master.providers.base import BaseLLMProvider, Translation, extract_prompt
from llm_master.providers.sdk import translated
from llm_master.rows import ProviderConfig
from llm_master.types import GenerationParams, LLMResponse, Message

T = TypeVar("T")

_MAY_PASS = (ServerError, ProviderConnectionError, RequestTimeoutError)


class BaseProvider(ABC):
    """A provider that takes a prompt and returns a text. For a row's ``provider_class``.

    Attributes:
        config: The row, with the class's own address and model where it says none; ``config.api_key``, ``config.base_url`` and ``config.model`` are what a provider mostly needs.
        base_url: The row's, else ``DEFAULT_BASE_URL``.
        model: The row's default model, else ``DEFAULT_MODEL``.
    """

    DEFAULT_BASE_URL: ClassVar[str | None] = None
    DEFAULT_MODEL: ClassVar[str | None] = None
    clock: Clock = SYSTEM_CLOCK
    """What ``_retry_with_backoff`` waits by; a test may set another."""

    def __init__(self, config: ProviderConfig) -> None:
        base_url, model = config.base_url or self.DEFAULT_BASE_URL, config.default_model or self.DEFAULT_MODEL
        if (base_url, model) != (config.base_url, config.default_model):
            config = attrs.evolve(config, base_url=base_url, default_model=model)
        self.config = config
        self.api_key = config.api_key
        self.base_url = base_url
        self.model = model
        self.logger = logging.getLogger(f"llm_master.providers.{config.name or type(self).__name__}")

    @abstractmethod
    async def generate(self, prompt: str, params: GenerationParams | None = None) -> str:
        """Answer ``prompt``."""

    async def health_check(self) -> bool:
        """Whether the provider can be asked."""
        return True

    async def _retry_with_backoff(self, func: Callable[[], Awaitable[T]]) -> T:
        """Await ``func()``, again after a failure that may pass, up to ``config.max_retries`` times.

        Within ``QueryLLM`` that is 0: the engine repeats, and two that repeat would multiply.
        """
        for repetition in range(self.config.max_retries + 1):
            try:
                return await func()
            except Exception as exc:
                error = translated(exc)
                if not isinstance(error, _MAY_PASS) or repetition == self.config.max_retries:
                    if error is exc:
                        raise
                    raise error from exc
                await self.clock.sleep(random.uniform(0, min(8.0, 0.5 * 2**repetition)))
        raise AssertionError("unreachable: the last repetition returns or raises")


class ShortForm(BaseLLMProvider):
    """A ``BaseProvider`` under the contract of all others: the conversation becomes a prompt, the options its params."""

    def __init__(self, config: ProviderConfig, cls: type[Any]) -> None:
        super().__init__(config)
        self._cls = cls
        self._inner = cls(attrs.evolve(config, max_retries=0))
        self._others: dict[str, Any] = {}

    @classmethod
    def around(cls, provider: BaseProvider) -> ShortForm:
        """The same of an object that is there already."""
        short = cls(provider.config, type(provider))
        # Only the engine repeats: two that repeat would multiply.
        provider.config = attrs.evolve(provider.config, max_retries=0)
        short._inner = provider
        return short

    async def generate(self, messages: Sequence[Message], model: str, **options: Any) -> LLMResponse | str:
        """Answer the conversation, said in one text."""
        if others := options.keys() - {field.name for field in attrs.fields(GenerationParams)}:
            # From extra_body, which has no body to go into here.
            raise InvalidRequestError(f"the short form of a provider cannot carry {', '.join(map(repr, sorted(others)))}: leave it out")
        answer: LLMResponse | str = await self._provider_for(model).generate(_as_prompt(messages), GenerationParams(**options))
        return answer

    def translate(self, model: str, options: Mapping[str, Any]) -> Translation:
        """The options that ``GenerationParams`` has; the short form can carry no others."""
        result = Translation()
        known = {field.name for field in attrs.fields(GenerationParams)}
        for name, value in options.items():
            if name == "max_completion_tokens":
                result.options["max_tokens"] = value
                result.renamed[name] = "max_tokens"
            elif name == "stop":
                result.options[name] = [value] if isinstance(value, str) else list(value)
            elif name in known:
                result.options[name] = value
            else:
                result.unsupported.append(name)
        return result

    async def health_check(self) -> bool:
        """What the provider says."""
        return bool(await self._inner.health_check())

    @property
    def always_healthy(self) -> bool:
        """Whether the provider's class leaves ``health_check`` as it is, which says yes to everything."""
        return getattr(self._cls, "health_check", None) is BaseProvider.health_check

    def _provider_for(self, model: str) -> Any:
        # The short form has its model in the row: another model is another object.
        if model == self._inner.model:
            return self._inner
        if model not in self._others:
            self._others[model] = self._cls(attrs.evolve(self.config, max_retries=0, default_model=model))
        return self._others[model]


def _as_prompt(messages: Sequence[Message]) -> str:
    """A conversation in one text: a single question as it is, system messages before it; turns with who says them.

    Raises:
        InvalidRequestError: Something in it is no text.
    """
    said = [(str(message.get("role")), _text_of(message)) for message in messages]
    turns = [(role, text) for role, text in said if role not in ("system", "developer")]
    system = [text for role, text in said if role in ("system", "developer")]
    if len(turns) == 1:
        return "\n\n".join([*system, turns[0][1]])
    return "\n\n".join([*system, *(f"{role}: {text}" for role, text in turns)])


def _text_of(message: Message) -> str:
    content = message.get("content")
    if not isinstance(content, str):
        for part in content or ():
            kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
            if kind not in ("text", "input_text", "refusal"):
                raise InvalidRequestError(
                    f"the short form of a provider takes a text and no {kind!r}: use a provider class that takes messages"
                )
    lines = [extract_prompt([{**message, "role": "user"}])]
    lines += [str(part["refusal"]) for part in content or () if isinstance(part, Mapping) and "refusal" in part]
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        lines.append(f"[calls {function.get('name')}({function.get('arguments') or ''})]")
    return "\n".join(line for line in lines if line)
