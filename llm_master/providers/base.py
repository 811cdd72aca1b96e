"""The contract of a provider: what the engine asks of it, and what it gets for it."""

from __future__ import annotations

import asyncio
import importlib
import logging
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from llm_master.clock import SYSTEM_CLOCK, Clock
from llm_master.errors import ConfigurationError, InvalidRequestError
from llm_master.rows import ProviderConfig
from llm_master.transport.session import close_with_loop
from llm_master.types import LLMResponse, Message, Plan, RateLimitState, StreamPiece

if TYPE_CHECKING:
    from llm_master.results import EmbeddingResponse, ListedModel, ModerationResponse, RerankResponse


@attrs.define
class Translation:
    """A call's options in a provider's own words.

    Attributes:
        options: What the provider is given.
        renamed: Options that go out under another name: ours -> its.
        dropped: Options that ask for what happens anyway, and are left out.
        unsupported: Options that change the meaning and cannot be carried.
    """

    options: dict[str, Any] = attrs.field(factory=dict)
    renamed: dict[str, str] = attrs.field(factory=dict)
    dropped: list[str] = attrs.field(factory=list)
    unsupported: list[str] = attrs.field(factory=list)


class BaseLLMProvider(ABC):
    """One provider with one key.

    The engine makes one object per row and key and keeps it, and many calls run through it at once: nothing of a call
    may be stored on it.

    A subclass must define :meth:`generate`; it may define ``stream``, ``list_models`` and :meth:`health_check`.
    It says what failed by raising an error of ``llm_master.errors``; whether to wait, to repeat or to give up is
    decided by the engine. Errors of the openai SDK need not be translated: the engine does it.

    Attributes:
        config: The row, with ``api_key`` bound to the key in use and ``base_url`` as the settings have it.
        api_key: That key, or ``None`` where the row requires none.
        key_source: Where the key stood: the name of its variable, or of an argument.
        clock: Tells the time to what lasts: the engine's, or the system's.
        logger: ``llm_master.providers.<name>``.
    """

    def __init__(self, config: ProviderConfig | None = None) -> None:
        self.config = config if config is not None else ProviderConfig()
        self.api_key = self.config.api_key
        self.logger = logging.getLogger(f"llm_master.providers.{self.config.name or type(self).__name__}")
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()
        self._sync_client: Any = None

    key_source: str = ""
    clock: Clock = SYSTEM_CLOCK

    takes_urls: ClassVar[frozenset[str]] = frozenset()
    """Kinds of media whose URLs the wire format takes, beside those that the row says."""

    urls_need_a_type: ClassVar[bool] = False
    """Whether a URL goes along only with its media type."""

    reads_text_files: ClassVar[bool] = False
    """Whether a text file may be sent as a file; else it becomes text."""

    takes_json_object: ClassVar[bool] = True
    """Whether the API can be asked for JSON of any form."""

    refused_schema_words: ClassVar[frozenset[str]] = frozenset()
    """Keywords of JSON schemas that the API refuses. In a schema made of a class they are said in its descriptions instead."""

    schema_excludes: ClassVar[frozenset[str]] = frozenset()
    """Options beside which the API takes no ``response_format``; with one of them, the form is asked for in words."""

    needs_max_tokens: ClassVar[bool] = False
    """Whether every request must say how much the model may write; the engine then adds what the model can."""

    @classmethod
    def placed(cls, config: ProviderConfig) -> ProviderConfig:
        """The row as this class reads the address that settings gave: it may say more than where the API is.

        Raises:
            ConfigurationError: The address is none of the API's.
        """
        return config

    @abstractmethod
    async def generate(self, messages: Sequence[Message], model: str, **options: Any) -> LLMResponse | str:
        """Answer ``messages``.

        Args:
            messages: The conversation, as in OpenAI's chat completions.
            model: The wire id.
            **options: What the call gave beside, by OpenAI's names.

        Raises:
            ProviderError: What failed.
        """

    def stream(self, messages: Sequence[Message], model: str, **options: Any) -> AsyncIterator[StreamPiece]:
        """Answer ``messages`` in pieces: ``str`` for text, the other deltas as events, a ``StreamEnd`` last.

        Pieces that arrived together may come together, as a list: that saves a suspension for each.

        A provider that cannot stream leaves this undefined; its answer then comes as one piece.
        """
        raise NotImplementedError

    def translate(self, model: str, options: Mapping[str, Any]) -> Translation:
        """Say the call's options in the provider's own words; ``generate`` and ``stream`` are given the result.

        A provider that takes OpenAI's names leaves this undefined.

        Raises:
            InvalidRequestError: A value that the API is known to refuse.
        """
        return Translation(dict(options))

    def takes_schema(self, schema: Mapping[str, Any]) -> bool:
        """Whether the API's own structured output takes this schema; where not, it is asked for by a tool."""
        return True

    def plan(self, messages: Sequence[Message], model: str, *, stream: bool, **options: Any) -> Plan:
        """What a request would be, with the key masked. Sends nothing."""
        return Plan(method=None, body={"model": model, "messages": list(messages), **options})

    async def list_models(self) -> list[str]:
        """The wire ids of the models that this key may ask, as the provider lists them."""
        raise self.cannot("list its models")

    async def describe_models(self) -> list[ListedModel]:
        """The same with what else the provider says of each. Whoever defines only :meth:`list_models` need not define this."""
        from llm_master.results import ListedModel

        return [ListedModel(name) for name in await self.list_models()]

    async def embed(self, inputs: Sequence[str], model: str, **options: Any) -> EmbeddingResponse:
        """One vector for each input, in their order. The engine gives no more inputs than ``config.embed_batch_size``."""
        raise self.cannot("make embeddings")

    async def moderate(self, inputs: Sequence[Any], model: str, **options: Any) -> ModerationResponse:
        """One judgement for each input, in their order. An input is a text, or a list of content parts."""
        raise self.cannot("moderate")

    async def rerank(self, query: str, documents: Sequence[str], model: str, **options: Any) -> RerankResponse:
        """The documents by relevance to ``query``; with ``top_n`` among the options, only so many."""
        raise self.cannot("rerank")

    async def speech(self, messages: Sequence[Message], model: str, **options: Any) -> LLMResponse:
        """Speak the last user message."""
        raise self.cannot("speak")

    async def count_tokens(self, messages: Sequence[Message], model: str, **options: Any) -> int | None:
        """How many tokens the request has by the provider's own count; ``None`` where it offers none."""
        return None

    def cannot(self, what: str) -> InvalidRequestError:
        """The error for what this provider does not offer."""
        return InvalidRequestError(
            f"{self.config.display_name or self.config.name or type(self).__name__} cannot {what} here: ask another provider"
        )

    def rate_limits(self, headers: Mapping[str, str]) -> RateLimitState | None:
        """What an answer's headers say of the limits; ``None``, where they say nothing."""
        return None

    async def health_check(self) -> bool:
        """Whether the provider can be asked. A provider that cannot tell without a paid call says yes."""
        return True

    @property
    def client(self) -> Any:
        """The row's ``client_class`` with this key, for generators and for what has no fast path.

        Built on first use, once per event loop (a synchronous one once), with ``max_retries=0``, since the engine
        repeats, and with an explicit ``base_url``, so that no variable of the SDK's own can redirect it.
        """
        if self._sync_client is not None:
            return self._sync_client
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._build_client()
        client = self._clients.get(loop)
        if client is None:
            client = self._build_client()
            if not hasattr(client, "__aenter__"):
                self._sync_client = client
                return client
            self._clients[loop] = client
            if hasattr(client, "close"):
                close_with_loop(client.close)
        return client

    def _build_client(self) -> Any:
        config = self.config
        cls = load(config.client_class, f"client_class of provider {config.name!r}")
        # The SDK refuses None as a key also where a server wants none.
        return cls(
            api_key=self.api_key or "none",
            base_url=config.base_url,
            default_headers=dict(config.headers),
            default_query=dict(config.query),
            timeout=config.timeout,
            max_retries=0,
        )


def can_stream(provider: BaseLLMProvider) -> bool:
    """Whether the provider's class defines ``stream``."""
    return type(provider).stream is not BaseLLMProvider.stream


def translates(provider: BaseLLMProvider) -> bool:
    """Whether the provider's class says options in words of its own."""
    return type(provider).translate is not BaseLLMProvider.translate


def load(what: Any, field: str) -> Any:
    """The object behind ``"package.module:Name"``; anything but a string is returned as it is."""
    if not isinstance(what, str):
        return what
    module_name, _, name = what.partition(":")
    try:
        return getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError, TypeError) as exc:  # the last two: no module's name, or a relative one
        raise ConfigurationError(f"{field} is {what!r}, which cannot be loaded: {exc}") from exc


def extract_prompt(messages: Sequence[Message]) -> str:
    """The text of the last user message, for a generator that takes a prompt and no conversation.

    Of content in parts, the text parts are joined by newlines.
    """
    for message in reversed(messages):
        if message.get("role") != "user":
            continue
        content = message.get("content")
        if isinstance(content, str):
            return content
        if isinstance(content, Sequence):
            return "\n".join(
                str(part.get("text", "")) for part in content if isinstance(part, Mapping) and part.get("type") in ("text", "input_text")
            )
    return ""
