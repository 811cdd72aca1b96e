"""``RotatingClient``: the engine of ``QueryLLM`` in the words of the key-rotating client that people know.

It takes OpenAI's arguments and returns objects of the openai SDK. It only translates: keys, limits, repetitions and
fallbacks are the engine's.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from llm_master import discovery
from llm_master.chunk_stream import ChunkStream
from llm_master.dispatch.estimate import estimate_tokens, text_tokens
from llm_master.engines import engine_for
from llm_master.errors import (
    ConfigurationError,
    InvalidRequestError,
    LLMError,
    MissingApiKeyError,
)
from llm_master.messages import checked_conversation
from llm_master.openai_arguments import as_dicts, row_fields, taken, wants_usage, without_empty
from llm_master.provider_configs import LLMConfig
from llm_master.query import QueryLLM
from llm_master.transport import session

if TYPE_CHECKING:
    from openai.types import CreateEmbeddingResponse
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

    from llm_master.dispatch.stream import LLMStream

logger = logging.getLogger("llm_master.rotating_client")

Callback: TypeAlias = Callable[[Any, dict[str, Any]], Any]
"""Called with ``request`` and the call's arguments before anything is sent. May be asynchronous, and may change the arguments."""

_LISTING = 30.0
"""Seconds that a provider's list of models may take."""


class RotatingClient:
    """Chat and embeddings by OpenAI's arguments, over every key, as objects of ``openai.types``.

    Clients with equal settings share their keys, limits and connections with each other and with ``QueryLLM``.

    Args:
        api_keys: Provider -> its keys, which are used instead of those of the environment. Empty ones are skipped.
        oauth_credentials: Not here; there may be none.
        max_retries: Repetitions after a failure that may pass; the providers' rows say if ``None`` (2).
        usage_file_path: A file that keeps what is known of the keys over restarts, by their fingerprints; ``state`` of the settings.
        configure_logging: Either is true here: the library sets no handler, and its log reaches the program's own.
        global_timeout: Seconds for one call with all its waits and repetitions; the settings say if ``None`` (600).
        abort_on_callback_error: Whether a call fails whose ``pre_request_callback`` raises; else that is logged.
        litellm_provider_params: Not here; there may be none.
        ignore_models: Provider -> globs of models that are not to be asked.
        whitelist_models: Provider -> globs of models that are to be asked although ``ignore_models`` names them.
        enable_request_logging: Not here; ``LOG_LEVEL=DEBUG`` logs each attempt.
        max_concurrent_requests_per_key: Provider -> requests in flight with one key; the providers' rows say if ``None``.

    Raises:
        ConfigurationError: A provider that there is not, a value that cannot be one, or an argument that this client cannot honour.
        MissingApiKeyError: ``api_keys`` was given without any key, and the settings have none either.
    """

    __slots__ = ("_abort", "_engine", "_llm")

    def __init__(
        self,
        api_keys: Mapping[str, str | Sequence[str]] | None = None,
        *,
        oauth_credentials: Mapping[str, Any] | None = None,
        max_retries: int | None = None,
        usage_file_path: str | None = None,
        configure_logging: bool = True,
        global_timeout: float | None = None,
        abort_on_callback_error: bool = True,
        litellm_provider_params: Mapping[str, Any] | None = None,
        ignore_models: Mapping[str, Sequence[str]] | None = None,
        whitelist_models: Mapping[str, Sequence[str]] | None = None,
        enable_request_logging: bool = False,
        max_concurrent_requests_per_key: Mapping[str, int] | None = None,
    ) -> None:
        if oauth_credentials:
            raise ConfigurationError(
                "oauth_credentials: there are no OAuth logins here: give API keys, or write a provider class that gets its own tokens"
            )
        if litellm_provider_params:
            raise ConfigurationError(
                "litellm_provider_params: LiteLLM is not used here: set <PROVIDER>_API_BASE, <PROVIDER>_HEADERS or the provider's row"
            )
        if enable_request_logging:
            raise ConfigurationError(
                "enable_request_logging: requests are not written to files: set LOG_LEVEL=DEBUG, which logs each attempt"
            )
        keys = without_empty(api_keys)
        self._abort = abort_on_callback_error
        config = LLMConfig(
            api_keys=keys,
            rows=row_fields(max_retries, ignore_models, whitelist_models, max_concurrent_requests_per_key),
            deadline=global_timeout,
            state=usage_file_path,
        )
        self._llm = QueryLLM(config)
        self._engine = engine_for(config)
        if api_keys is not None and not keys and not any(self._engine.snapshot.keys.values()):
            raise MissingApiKeyError(
                "api_keys holds no key, and neither do the settings: give {provider: [key, ...]}, or set <PROVIDER>_API_KEY in the "
                "environment or in .env; leave api_keys out for servers that want none"
            )

    async def __aenter__(self) -> RotatingClient:
        await self._llm.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        await self._llm.__aexit__(kind, exc, traceback)

    async def close(self) -> None:
        """Close the event loop's connections, unless an ``async with`` of a client is using them; ``async with`` does it by itself."""
        session.enter()
        await session.leave()

    @overload
    def acompletion(
        self,
        request: Any = None,
        pre_request_callback: Callback | None = None,
        *,
        model: str,
        messages: Sequence[Any],
        stream: Literal[False] = False,
        **options: Any,
    ) -> Coroutine[Any, Any, ChatCompletion]: ...

    @overload
    def acompletion(
        self,
        request: Any = None,
        pre_request_callback: Callback | None = None,
        *,
        model: str,
        messages: Sequence[Any],
        stream: Literal[True],
        **options: Any,
    ) -> ChunkStream: ...

    def acompletion(
        self,
        request: Any = None,
        pre_request_callback: Callback | None = None,
        *,
        model: str,
        messages: Sequence[Any],
        stream: bool = False,
        **options: Any,
    ) -> Coroutine[Any, Any, ChatCompletion] | ChunkStream:
        """Ask a model.

        Args:
            request: Handed to ``pre_request_callback``.
            pre_request_callback: Called with ``request`` and the arguments below before anything is sent; it may change them.
            model: As ``"provider/model"``, or any other name that ``QueryLLM`` resolves.
            messages: The conversation; messages of earlier answers may stand in it as they are.
            stream: Return the answer in pieces: ``async for`` over what this returns, awaited or not.
            **options: OpenAI's: ``temperature``, ``tools``, ``stream_options``, ...; and ``timeout``, ``deadline``,
                ``fallback_model`` and the other arguments of ``QueryLLM.query``.

        Returns:
            To be awaited: a ``ChatCompletion``. With ``stream=True`` an iterator of ``ChatCompletionChunk``, the last of which
            has the usage where ``stream_options={"include_usage": True}`` asks for it.

        Raises:
            LLMError: See ``llm_master.errors``.
        """
        arguments = {"model": model, "messages": messages, **options}
        if stream:
            return ChunkStream(lambda: self._open(request, pre_request_callback, {**arguments, "stream": True}))
        return self._complete(request, pre_request_callback, arguments)

    def astream(
        self,
        request: Any = None,
        pre_request_callback: Callback | None = None,
        *,
        model: str,
        messages: Sequence[Any],
        **options: Any,
    ) -> ChunkStream:
        """:meth:`acompletion` with ``stream=True``."""
        if options.pop("stream", True) is not True:
            raise InvalidRequestError("astream() returns the answer in pieces: leave stream out, or take acompletion()")
        return self.acompletion(request, pre_request_callback, model=model, messages=messages, stream=True, **options)

    async def aembedding(
        self,
        request: Any = None,
        pre_request_callback: Callback | None = None,
        *,
        model: str,
        input: str | Sequence[str],
        **options: Any,
    ) -> CreateEmbeddingResponse:
        """Turn texts into vectors.

        Args:
            request: Handed to ``pre_request_callback``.
            pre_request_callback: As in :meth:`acompletion`.
            model: As ``"provider/model"``.
            input: A text or a list of texts, as many as you like: they go out in batches.
            **options: ``dimensions``, ``encoding_format`` (``"float"`` or ``"base64"``), ...

        Raises:
            InvalidRequestError: ``input`` is no text and no list of texts, or holds an empty one.
            LLMError: A batch failed.
        """
        arguments = await self._called_back(request, pre_request_callback, {"model": model, "input": input, **options})
        name, texts, encoding = (arguments.pop(field, None) for field in ("model", "input", "encoding_format"))
        if not isinstance(texts, (str, list, tuple)):
            raise InvalidRequestError(f"input is a {type(texts).__name__}: give a text or a list of texts")
        if encoding not in (None, "float", "base64"):
            raise InvalidRequestError(f'encoding_format is {encoding!r}: give "float" or "base64"')
        answer = await self._llm.embed(name, texts, **arguments)
        from llm_master import openai_objects

        return openai_objects.embedding_response(answer, as_base64=encoding == "base64")

    def token_count(self, model: str, text: str | None = None, messages: Sequence[Any] | None = None) -> int:
        """How many tokens a text or a conversation has: an estimate, made here, that asks nobody.

        ``await QueryLLM().count_tokens(model, messages)`` asks the provider, where it counts without charge.

        Raises:
            InvalidRequestError: Both ``text`` and ``messages`` are given, or neither.
        """
        if not isinstance(model, str) or not model.strip():
            raise InvalidRequestError(f'model is {model!r}: give a name, as in "provider/model"')
        if (text is None) == (messages is None):
            given = "neither text nor messages is" if text is None else "both text and messages are"
            raise InvalidRequestError(f"{given} given: give one of them")
        if messages is not None:
            return estimate_tokens(checked_conversation(as_dicts(messages), None))
        if not isinstance(text, str):
            raise InvalidRequestError(f"text is a {type(text).__name__}: give a text")
        return text_tokens(text)

    async def get_available_models(self, provider: str) -> list[str]:
        """The models of a provider, as ``"provider/model"``, without those that ``ignore_models`` names.

        They are those that the provider lists and those that its row declares. Where it has no list, or does not answer, which
        is logged, they are those that are declared and those that the registry knows. It is asked at each call.

        Raises:
            ConfigurationError: A provider that there is not, or that has no key or no address.
        """
        name = self._engine.provider_named(provider)
        self._engine.providers(name)  # says what it lacks
        timeout = min(_LISTING, self._engine.snapshot.options.deadline)
        found = (await discovery.list_models(self._engine, name, refresh=True, timeout=timeout))[name]
        if found.state == "outage":
            logger.warning("%s. Those that are declared are offered", found.error)
        row = self._engine.snapshot.rows[name]
        return [f"{name}/{model}" for model in found if found.state != "listed" or model.discovered or model.id in row.models]

    @overload
    async def get_all_available_models(self, *, grouped: Literal[True] = True) -> dict[str, list[str]]: ...

    @overload
    async def get_all_available_models(self, *, grouped: Literal[False]) -> list[str]: ...

    async def get_all_available_models(self, *, grouped: bool = True) -> dict[str, list[str]] | list[str]:
        """:meth:`get_available_models` of every provider that has a key, all at once.

        Returns:
            Provider -> its models; with ``grouped=False`` one list of them.
        """
        snapshot = self._engine.snapshot
        names = [name for name, keys in snapshot.keys.items() if keys and snapshot.usable(name)]
        found = await asyncio.gather(*map(self.get_available_models, names))
        if grouped:
            return dict(zip(names, found, strict=True))
        return [model for models in found for model in models]

    async def _complete(self, request: Any, callback: Callback | None, arguments: dict[str, Any]) -> ChatCompletion:
        arguments = await self._called_back(request, callback, arguments)
        model, messages = taken(arguments, stream=False)
        response = await self._llm.query(model, messages, **arguments)
        from llm_master import openai_objects

        return openai_objects.completion(response)

    async def _open(self, request: Any, callback: Callback | None, arguments: dict[str, Any]) -> AsyncIterator[ChatCompletionChunk]:
        arguments = await self._called_back(request, callback, arguments)
        include_usage = wants_usage(arguments)
        model, messages = taken(arguments, stream=True)
        stream: LLMStream = await self._llm.stream(model, messages, **arguments).connect()
        from llm_master import openai_objects

        return openai_objects.chunks(stream, include_usage=include_usage)

    async def _called_back(self, request: Any, callback: Callback | None, arguments: dict[str, Any]) -> dict[str, Any]:
        if callback is None:
            return arguments
        try:
            done = callback(request, arguments)
            if inspect.isawaitable(done):
                await done
        except Exception as exc:
            if self._abort:
                raise LLMError(f"pre_request_callback failed, so nothing was sent: {type(exc).__name__}: {exc}") from exc
            logger.warning("pre_request_callback failed, and the call goes on: %s: %s", type(exc).__name__, exc, exc_info=exc)
        return arguments
