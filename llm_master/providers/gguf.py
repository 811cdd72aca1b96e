"""A model file, answered by llama.cpp on this machine: no key, no network.

The file is served by llama.cpp's own HTTP server, from the ``xllamacpp`` package, in a process that belongs to this one; what is
spoken to it is OpenAI's chat completions, as with any other provider.

Source: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping, Sequence
from typing import Any

import attrs
import msgspec

from llm_master.errors import ConfigurationError, InvalidRequestError, ProviderConnectionError, ProviderError
from llm_master.messages import kinds
from llm_master.providers.base import BaseLLMProvider
from llm_master.providers.bodies import decoded, encoded
from llm_master.providers.gguf_server import Server, Wanted, server_for
from llm_master.providers.sdk import is_stock
from llm_master.providers.unified import UnifiedProvider
from llm_master.results import EmbeddingResponse
from llm_master.rows import ProviderConfig
from llm_master.types import LLMResponse, Message, Plan, StreamPiece

CONTEXT = 8192
"""Tokens of a conversation where nobody says: what a model could take may be more than the machine's memory holds."""
EMBEDDING_CONTEXT = 2048
"""The same of a text to embed, which is worked on in one piece."""

POOLING = ("mean", "cls", "last")


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


SERVER_OPTIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "n_ctx": (_whole(1), "a whole number of tokens"),
    "n_parallel": (_whole(1), "a whole number of at least 1"),
    "n_threads": (_whole(1), "a whole number of at least 1"),
    "n_gpu_layers": (_whole(0), "a whole number; 0 for none"),
    "chat_template": (lambda value: isinstance(value, str) and bool(value), "a Jinja template, or the name of one"),
    "pooling": (lambda value: value in POOLING, " or ".join(POOLING)),
    "port": (lambda value: _whole(1)(value) and value < 65536, "a port from 1 to 65535, or leave it out for any that is free"),
}
"""Options that say how a file is served, and not what is asked: their check, and what to give."""

_IN_TEMPLATE = frozenset({"tools", "tool_choice", "response_format", "chat_template_kwargs"})
"""Options that a chat template may write into the prompt."""


class _Prompt(msgspec.Struct):
    prompt: str = ""
    error: Any = None


class _Tokens(msgspec.Struct):
    tokens: list[Any] | None = None
    error: Any = None


_decode_prompt = msgspec.json.Decoder(_Prompt).decode
_decode_tokens = msgspec.json.Decoder(_Tokens).decode


class GGUFProvider(BaseLLMProvider):
    """``gguf/PATH``. A path may be absolute, relative to the current folder, or begin with ``~``.

    The options of :data:`SERVER_OPTIONS` choose the server: the same file with others is served by another process.
    """

    def __init__(self, config: ProviderConfig | None = None) -> None:
        super().__init__(config)
        name, base_url = self.config.name, self.config.base_url
        # What the row says and a server of ours cannot keep to; told to who asks, and not to who lists providers.
        self._fault: str | None = None
        if base_url is not None:
            self._fault = (
                f"{name} starts its own server, and has no address: leave out base_url ({base_url}). A server that runs already is another "
                "provider's"
            )
        elif not is_stock(self.config.client_class):
            self._fault = f"{name} is not asked through a client_class: leave it out"
        # What speaks with a server, as this row has it.
        self._speakers: MutableMapping[Server, UnifiedProvider] = weakref.WeakKeyDictionary()

    async def generate(self, messages: Sequence[Message], model: str, **options: Any) -> LLMResponse:
        """Answer ``messages``; the first call of a file waits until it is loaded."""
        self._refuse_media(messages)
        server = await self._server(model, options)
        try:
            return await self._speaker(server).generate(messages, model, **options)
        except ProviderConnectionError as exc:
            raise await _explained(exc, server) from exc

    async def stream(self, messages: Sequence[Message], model: str, **options: Any) -> AsyncIterator[StreamPiece]:
        """Answer ``messages`` in pieces."""
        self._refuse_media(messages)
        server = await self._server(model, options)
        try:
            async with contextlib.aclosing(self._speaker(server).stream(messages, model, **options)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    yield piece
        except ProviderConnectionError as exc:
            raise await _explained(exc, server) from exc

    async def embed(self, inputs: Sequence[str], model: str, **options: Any) -> EmbeddingResponse:
        """Vectors of texts, by a server of its own: one that embeds does nothing else."""
        server = await self._server(model, options, embeds=True)
        try:
            return await self._speaker(server).embed(inputs, model, **options)
        except ProviderConnectionError as exc:
            raise await _explained(exc, server) from exc
        except ProviderError as exc:
            if exc.args and "ooling type" in str(exc.args[0]) and server.wanted.pooling is None:
                raise InvalidRequestError(
                    f"{model} does not say how the vectors of its tokens become one, as models made for embedding do: give pooling="
                    f"{' or '.join(map(repr, POOLING))}",
                    status=exc.status,
                ) from exc
            raise

    async def count_tokens(self, messages: Sequence[Message], model: str, **options: Any) -> int | None:
        """How many tokens the conversation has in the model's own template."""
        self._refuse_media(messages)
        server = await self._server(model, options)
        body: dict[str, Any] = {"messages": messages}
        body.update({name: value for name, value in options.items() if name in _IN_TEMPLATE})
        prompt = await self._ask(server, "/apply-template", body, _decode_prompt, model)
        body = {"content": prompt.prompt, "add_special": True, "parse_special": True}
        counted = await self._ask(server, "/tokenize", body, _decode_tokens, model)
        return len(counted.tokens) if counted.tokens is not None else None

    async def list_models(self) -> list[str]:
        """The models that are declared."""
        return list(self.config.models) or ([self.config.default_model] if self.config.default_model else [])

    async def health_check(self) -> bool:
        """Whether llama.cpp is installed."""
        return importlib.util.find_spec("xllamacpp") is not None

    def plan(self, messages: Sequence[Message], model: str, *, stream: bool, **options: Any) -> Plan:
        """What would be said to the server, which is not started for it."""
        self._refuse_media(messages)
        self._wanted(model, options, embeds=False)
        return Plan(method=None, body=UnifiedProvider(self.config).prepare(messages, model, options, stream=stream)[1])

    def _build_client(self) -> Any:
        raise self.cannot("be asked through an SDK's client")

    def _refuse_media(self, messages: Sequence[Message]) -> None:
        if found := kinds(messages):
            raise InvalidRequestError(
                f"a model file is given text only, and the conversation asks for {', '.join(sorted(found))}: ask another provider"
            )

    async def _server(self, model: str, options: dict[str, Any], *, embeds: bool = False) -> Server:
        return await server_for(self._wanted(model, options, embeds=embeds))

    def _wanted(self, model: str, options: dict[str, Any], *, embeds: bool) -> Wanted:
        """What server a call is for. Takes the options that are the server's out of the call's.

        Raises:
            InvalidRequestError: One of them cannot be.
            ConfigurationError: The row says something that holds for a server which runs elsewhere.
        """
        if self._fault is not None:
            raise ConfigurationError(self._fault)
        own: dict[str, Any] = {"n_ctx": EMBEDDING_CONTEXT if embeds else CONTEXT}
        if not options.keys().isdisjoint(SERVER_OPTIONS):
            for name, (fits, remedy) in SERVER_OPTIONS.items():
                if name not in options:
                    continue
                value = options.pop(name)
                if not fits(value):
                    raise InvalidRequestError(f"{name} is {value!r}: give {remedy}")
                own[name] = value
        return Wanted(os.path.abspath(os.path.expanduser(model)), embeds, **own)

    def _speaker(self, server: Server) -> UnifiedProvider:
        speaker = self._speakers.get(server)
        if speaker is None:
            row = attrs.evolve(self.config, base_url=f"{server.url}/v1", api_key=server.key)
            speaker = self._speakers[server] = UnifiedProvider(row)
        return speaker

    async def _ask(self, server: Server, path: str, body: Mapping[str, Any], decode: Callable[[bytes], Any], model: str) -> Any:
        """A request to one of llama.cpp's own endpoints."""
        speaker = self._speaker(server)
        endpoint = speaker.new_endpoint(path, speaker.headers({}), server.url)
        answer = await endpoint.post(encoded(body))
        if not 200 <= answer.status < 300:
            raise speaker.refused(answer, model, endpoint)
        return decoded(decode, answer.body, status=answer.status, request_id=None, model=model)


async def _explained(exc: ProviderConnectionError, server: Server) -> ProviderError:
    """A broken connection, with the reason where the server has ended. It may pass: the next call starts it anew."""
    why = await asyncio.to_thread(server.why_ended)
    return ProviderConnectionError(why) if why is not None else exc
