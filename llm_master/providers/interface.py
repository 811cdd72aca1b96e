"""``ProviderInterface``: how a key-rotating client has its providers written, under the contract of all others.

Such a class says which models there are; it may also make the whole call itself, and returns OpenAI's objects then.

Source: https://github.com/Mirrowel/LLM-API-Key-Proxy/blob/main/src/rotator_library/README.md, "Extending with Provider Plugins".
"""

from __future__ import annotations

import asyncio
import inspect
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from llm_master.errors import ConfigurationError
from llm_master.providers import chat_format as fmt
from llm_master.providers.base import BaseLLMProvider, load
from llm_master.providers.chat_stream import ChunkReader
from llm_master.providers.unified import UnifiedProvider
from llm_master.rows import ProviderConfig
from llm_master.transport.session import close_with_loop
from llm_master.types import LLMResponse, Message, Plan, StreamPiece

if TYPE_CHECKING:
    from llm_master.results import EmbeddingResponse

_ELSEWHERE = {
    "get_auth_header": "give the row its headers, or write a BaseLLMProvider that gets its own tokens",
    "initialize_credentials": "give keys to the row, or write a BaseLLMProvider that gets its own tokens",
    "tier_priorities": "give the row key_priorities",
    "model_quota_groups": "give the row a quota",
    "usage_reset_configs": "give the row rpm, rpd or tpm",
    "default_custom_caps": "give the row rpm, rpd or tpm",
    "default_priority_multipliers": "give the row max_concurrent_per_key",
    "parse_quota_error": "raise RateLimitError(retry_after=...) where you see the limit",
    "get_background_job_config": "run the job beside the library",
}
"""What such classes have elsewhere and is not asked here, and what to do instead. Nothing of it is passed over in silence."""


class ProviderInterface(ABC):
    """A provider that lists its models and, if it must, asks them itself. For a row's ``provider_class``, or as a plugin.

    A class that has no logic of its own is asked as any OpenAI-compatible API, at its row's ``base_url``. It is made without
    arguments, once for each key; the key comes with each call.

    Attributes:
        skip_cost_calculation: Cost is never calculated, as if the row said so.
        default_rotation_mode: How keys are used where the row and the settings say nothing: ``balanced`` or ``sequential``.
        default_max_concurrent_per_key: Requests in flight with one key, where they say nothing; ``None`` is no limit.
    """

    skip_cost_calculation: ClassVar[bool] = False
    default_rotation_mode: ClassVar[str] = "balanced"
    default_max_concurrent_per_key: ClassVar[int | None] = None

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if faults := [f"{name} is not asked: {remedy}" for name, remedy in _ELSEWHERE.items() if name in vars(cls)]:
            raise ConfigurationError(f"provider class {cls.__name__}: {'; '.join(faults)}")

    @abstractmethod
    async def get_models(self, api_key: str, client: Any) -> list[str]:
        """The models that a key may ask, with the provider's name before them or without.

        Args:
            api_key: The key; an empty string where the row requires none.
            client: An ``httpx.AsyncClient`` to ask with, of the version that the openai package has.
        """

    def has_custom_logic(self) -> bool:
        """Whether :meth:`acompletion` is to be asked, and not the API at the row's address."""
        return False

    async def acompletion(self, client: Any, **kwargs: Any) -> Any:
        """Answer a chat.

        Args:
            client: As for :meth:`get_models`.
            **kwargs: OpenAI's arguments, ``model`` as ``"provider/model"``, and ``credential_identifier``, the key.

        Returns:
            A ``ChatCompletion``, or with ``stream=True`` an asynchronous iterator of its chunks; dicts of their form do as well.
        """
        raise NotImplementedError(f"{type(self).__name__} has custom logic and no acompletion(): write one")

    async def aembedding(self, client: Any, **kwargs: Any) -> Any:
        """Make embeddings, with the arguments and the answer of OpenAI's."""
        raise NotImplementedError(f"{type(self).__name__} has no aembedding()")


def asks_itself(cls: type[ProviderInterface]) -> bool:
    """Whether a class may have logic of its own, so that it can do without an address."""
    return cls.has_custom_logic is not ProviderInterface.has_custom_logic


class InterfaceForm(UnifiedProvider):
    """A ``ProviderInterface`` under the contract of all others."""

    def __init__(self, config: ProviderConfig, cls: type[ProviderInterface]) -> None:
        super().__init__(config)
        try:
            self._inner = cls()
        except TypeError as exc:
            raise ConfigurationError(f"provider class {cls.__name__} of {config.name!r} cannot be made without arguments: {exc}") from exc
        self._custom = bool(self._inner.has_custom_logic())
        self._http: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()

    def generate(self, messages: Sequence[Message], model: str, **options: Any) -> Coroutine[Any, Any, LLMResponse]:
        """Answer ``messages`` in one piece."""
        return self._answer(messages, model, options) if self._custom else super().generate(messages, model, **options)

    def stream(self, messages: Sequence[Message], model: str, **options: Any) -> AsyncIterator[StreamPiece]:
        """Answer ``messages`` in pieces."""
        return self._pieces(messages, model, options) if self._custom else super().stream(messages, model, **options)

    async def _answer(self, messages: Sequence[Message], model: str, options: Mapping[str, Any]) -> LLMResponse:
        answer = await self._inner.acompletion(self._client_here(), **self._asked(messages, model, options))
        return fmt.read_answer(self._json(answer, "acompletion"), status=200, request_id=None, model=model)

    async def _pieces(self, messages: Sequence[Message], model: str, options: Mapping[str, Any]) -> AsyncIterator[StreamPiece]:
        reader = ChunkReader(model, 200, None)
        made: Any = self._inner.acompletion(self._client_here(), **self._asked(messages, model, options), stream=True)
        chunks = await made if inspect.isawaitable(made) else made
        if not hasattr(chunks, "__aiter__"):
            raise self._misfit(chunks, "acompletion", "with stream=True an asynchronous iterator")
        try:
            async for chunk in chunks:
                if events := reader.read((self._json(chunk, "acompletion"),)):
                    yield events
                if reader.failure is not None:
                    raise reader.failure
        finally:
            if (close := getattr(chunks, "aclose", None)) is not None:
                await close()
        yield reader.ended()

    def _asked(self, messages: Sequence[Message], model: str, options: Mapping[str, Any]) -> dict[str, Any]:
        return {**options, "model": self._named(model), "messages": list(messages), "credential_identifier": self.api_key or ""}

    def plan(self, messages: Sequence[Message], model: str, *, stream: bool, **options: Any) -> Plan:
        """What would be sent; of a class with logic of its own, what it would be given."""
        ask = BaseLLMProvider.plan if self._custom else UnifiedProvider.plan
        return ask(self, messages, model, stream=stream, **options)

    async def embed(self, inputs: Sequence[str], model: str, **options: Any) -> EmbeddingResponse:
        """Vectors of texts."""
        if type(self._inner).aembedding is ProviderInterface.aembedding:
            if self._custom:
                raise self.cannot("make embeddings")
            return await super().embed(inputs, model, **options)
        from llm_master.providers import embeddings

        made = await self._inner.aembedding(
            self._client_here(),
            **{**options, "model": self._named(model), "input": list(inputs), "credential_identifier": self.api_key or ""},
        )
        return embeddings.read_answer(self._json(made, "aembedding"), status=200, request_id=None, model=model, expected=len(inputs))

    async def list_models(self) -> list[str]:
        """What the class lists, without the provider's name."""
        models = await self._inner.get_models(self.api_key or "", self._client_here())
        if not isinstance(models, (list, tuple)) or not all(isinstance(model, str) for model in models):
            raise self._misfit(models, "get_models", "a list of names")
        return [model.removeprefix(f"{self.config.name}/") for model in models]

    async def health_check(self) -> bool:
        """Whether models are listed."""
        await self.list_models()
        return True

    def _named(self, model: str) -> str:
        return f"{self.config.name}/{model}"

    def _client_here(self) -> Any:
        """The client that the class asks with: one per event loop, closed with it."""
        loop = asyncio.get_running_loop()
        client = self._http.get(loop)
        if client is None:
            # The HTTP client that the openai package brings, which such code is written for.
            make = load("openai:DefaultAsyncHttpxClient", "the HTTP client of a ProviderInterface")
            verify: Any = self.config.verify_ssl
            if verify and self.config.ca_bundle is not None:
                import ssl

                verify = ssl.create_default_context(cafile=self.config.ca_bundle)
            client = self._http[loop] = make(timeout=self.config.timeout, verify=verify)
            close_with_loop(client.aclose)
        return client

    def _json(self, answer: Any, method: str) -> bytes:
        dump = getattr(answer, "model_dump", None)
        if dump is not None:
            # With what is not set, an answer of litellm's would have fields that only look as if they were.
            answer = dump(exclude_none=True)
        if not isinstance(answer, Mapping):
            raise self._misfit(answer, method, "an object of the openai package, or a dict of its form")
        try:
            return msgspec.json.encode(answer)
        except (TypeError, ValueError) as exc:
            raise self._misfit(answer, method, f"what can be written as JSON ({exc})") from exc

    def _misfit(self, what: Any, method: str, wanted: str) -> ConfigurationError:
        return ConfigurationError(
            f"{type(self._inner).__name__}.{method}() of provider {self.config.name!r} gave a {type(what).__name__}: return {wanted}"
        )
