"""Ollama's own API (https://docs.ollama.com/api/chat).

It knows more than its OpenAI-compatible one: how long a model stays loaded, how large its context is, how it thinks.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from llm_master.errors import InvalidRequestError, ModelNotFoundError, ProviderConnectionError, ProviderError, ServerError
from llm_master.providers.base import Translation
from llm_master.providers.bodies import decoded
from llm_master.providers.counts import count
from llm_master.providers.failures import error_of, read_failure, request_id
from llm_master.providers.http import HTTPProvider, with_headers
from llm_master.providers.lines import LineParser
from llm_master.providers.neutral import is_neutral, neutral
from llm_master.providers.ollama_messages import FORMAT, conversation
from llm_master.providers.stream_reader import StreamReader
from llm_master.transport import Answer, Endpoint, Stream
from llm_master.types import LLMResponse, Message, ReasoningDelta, StreamEnd, StreamEvent, ToolCall, ToolCallDelta, Usage, WireAnswer

if TYPE_CHECKING:
    from llm_master.results import EmbeddingResponse
    from llm_master.rows import ProviderConfig

CHAT = "/api/chat"

_OPTIONS = frozenset(
    "draft_num_predict frequency_penalty main_gpu min_p num_batch num_ctx num_gpu num_keep num_predict num_thread presence_penalty "
    "repeat_last_n repeat_penalty seed stop temperature top_k top_p typical_p use_mmap".split()
)
"""What stands under ``options``: https://docs.ollama.com/modelfile#valid-parameters-and-values"""

_OWN = frozenset("format keep_alive logprobs shift think tools top_logprobs truncate".split())
"""What else a request has."""

_NEUTRAL = neutral("frequency_penalty", "presence_penalty", "logprobs", parallel_tool_calls=(True,), tool_choice=("auto",))

_EFFORTS = {"none": False, "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "max"}
"""``think`` for ``reasoning_effort``: https://docs.ollama.com/capabilities/thinking"""

_ENDING = re.compile(r"/(v\d+|api)$")
"""The end of an address that names an API of the server: the paths here name theirs."""


class WireMessage(msgspec.Struct):
    """``message``."""

    content: Any = None
    thinking: Any = None
    tool_calls: Any = None


class WireChat(msgspec.Struct):
    """A whole answer, or one line of a stream."""

    model: Any = None
    message: WireMessage | None = None
    done: Any = None
    done_reason: Any = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    error: Any = None


class WireEmbed(msgspec.Struct):
    """An answer of ``/api/embed``."""

    embeddings: list[list[float]] | None = None
    model: Any = None
    prompt_eval_count: Any = None
    error: Any = None


_chat = msgspec.json.Decoder(WireChat).decode
_embed = msgspec.json.Decoder(WireEmbed).decode


class OwnServer(Endpoint):
    """A place on a server that its user starts, and may have forgotten to start."""

    __slots__ = ()

    async def post(self, body: bytes) -> Answer:
        """As any endpoint's, but for what is said where nobody answers."""
        try:
            return await super().post(body)
        except ProviderConnectionError as exc:
            raise self._advised(exc) from exc.__cause__

    async def get(self, *, max_bytes: int | None = None) -> Answer:
        """The same."""
        try:
            return await super().get(max_bytes=max_bytes)
        except ProviderConnectionError as exc:
            raise self._advised(exc) from exc.__cause__

    async def open(self, body: bytes) -> Stream:
        """The same."""
        try:
            return await super().open(body)
        except ProviderConnectionError as exc:
            raise self._advised(exc) from exc.__cause__

    def _advised(self, error: ProviderConnectionError) -> ProviderConnectionError:
        if not str(error).startswith("no connection") or not self.url.startswith("http:"):
            return error
        return ProviderConnectionError(f"{error} Start it by `ollama serve`, or set OLLAMA_HOST to where it runs")


class OllamaProvider(HTTPProvider):
    """Any model of an Ollama server, or of ollama.com. Options by OpenAI's names are translated; Ollama's own go where they belong.

    The server passes over what it does not know, so that such an option is refused here.
    """

    chat_path = CHAT
    models_path = "/api/tags"  # those that are on the server: https://docs.ollama.com/api/tags
    stream_parser = LineParser
    endpoint_class = OwnServer
    schema_excludes = frozenset({"tools"})  # the form holds for every word, so that no tool could be called

    def __init__(self, config: ProviderConfig | None = None) -> None:
        super().__init__(config)
        self._root = _ENDING.sub("", (self.config.base_url or "").rstrip("/"))

    def new_endpoint(self, path: str, headers: Mapping[str, str], base_url: str | None = None) -> Endpoint:
        """An endpoint below the server's address."""
        return super().new_endpoint(path, headers, base_url or self._root)

    def prepare(self, messages: Sequence[Message], model: str, options: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Path and body of a request. The server streams unless it is told not to."""
        return CHAT, {"model": model, "messages": conversation(messages), "stream": stream, **options}

    def headers(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Headers of a request. A server of one's own wants no key."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def translate(self, model: str, options: Mapping[str, Any]) -> Translation:
        """OpenAI's options in Ollama's words.

        Raises:
            InvalidRequestError: A value that the API is known to refuse.
        """
        result = Translation()
        out = result.options
        inner: dict[str, Any] = {}
        for name, value in options.items():
            if is_neutral(name, value, _NEUTRAL):
                result.dropped.append(name)
            elif name in ("max_tokens", "max_completion_tokens"):
                inner["num_predict"] = value
                result.renamed[name] = "options.num_predict"
            elif name == "stop":
                inner["stop"] = [value] if isinstance(value, str) else value
            elif name in _OPTIONS:
                inner[name] = value
            elif name == "options":
                if not isinstance(value, Mapping):
                    raise InvalidRequestError(f'options is {value!r:.60}: give a dict, as {{"num_ctx": 8192}}')
                inner |= value
            elif name == "reasoning_effort":
                if value not in _EFFORTS:
                    raise InvalidRequestError(f"reasoning_effort is {value!r}: give one of {', '.join(_EFFORTS)}")
                out["think"] = _EFFORTS[value]
                result.renamed[name] = "think"
            elif name == "response_format":
                out["format"] = _format(value)
                result.renamed[name] = "format"
            elif name == "tool_choice" and value == "none":
                result.dropped.append(name)  # without tools none can be called
            elif name in _OWN:
                out[name] = value
            else:
                result.unsupported.append(name)
        if options.get("tool_choice") == "none":
            out.pop("tools", None)
        if inner:
            out["options"] = inner
        return result

    def read_answer(self, body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
        """Make an answer of a 2xx body."""
        return read_answer(body, status=status, request_id=request_id, model=model)

    def reader(self, model: str, status: int, request_id: str | None) -> StreamReader:
        """What makes events of a stream's lines."""
        return LineReader(model, status, request_id)

    def refused(self, answer: Answer, model: str, endpoint: Endpoint) -> ProviderError:
        """The error for an answer that is no 2xx; for a model that is not there, how to get it."""
        failure = read_failure(answer.body)
        if answer.status == 404 and model and "not found" in failure.message and "model" in failure.message:
            error = error_of(answer.status, answer.headers, failure, model=model)
            return ModelNotFoundError(
                f"{error}: get it by `ollama pull {model}`", status=error.status, model=model, request_id=error.request_id, code=error.code
            )
        return super().refused(answer, model, endpoint)

    async def embed(self, inputs: Sequence[str], model: str, **options: Any) -> EmbeddingResponse:
        """Vectors of texts (https://docs.ollama.com/api/embed); with ``dimensions``, ``truncate``, ``keep_alive``, ``options``.

        Raises:
            InvalidRequestError: Another form of number than float is asked for.
            ProviderError: The API refused, or gave another number of vectors than inputs.
        """
        from llm_master.providers.embeddings import vector_of
        from llm_master.results import EmbeddingResponse

        if (form := options.pop("encoding_format", "float")) != "float":
            raise InvalidRequestError(f"encoding_format is {form!r}: leave it out, vectors are floats here")
        found = await self.exchange("embed", "/api/embed", {"model": model, "input": inputs, **options}, model)
        named = request_id(found.headers)
        content: WireEmbed = decoded(_embed, found.body, status=found.status, request_id=named, model=model)
        vectors = content.embeddings or []
        if len(vectors) != len(inputs):
            raise ServerError(
                f"answered {found.status} with {len(vectors)} vectors for {len(inputs)} inputs",
                status=found.status,
                model=model,
                request_id=named,
            )
        response = EmbeddingResponse(
            embeddings=[vector_of(vector) for vector in vectors],
            model_name=content.model if isinstance(content.model, str) and content.model else model,
            usage=Usage(count(content.prompt_eval_count), 0, cached_tokens=0),
            wire=WireAnswer(found.status, named, found.body),
        )
        return with_headers(response, found)


def read_answer(body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
    """Make an answer of the body of a 2xx.

    Raises:
        ProviderError: The body holds an error, cannot be read, or has no answer in it.
    """
    answer: WireChat = decoded(_chat, body, status=status, request_id=request_id, model=model)
    message = answer.message
    if message is None:
        raise ServerError(f"answered {status} with no message: {body[:120]!r}", status=status, model=model, request_id=request_id)
    calls = [ToolCall.from_text(id, name or "", text) for id, name, text in _calls(message.tool_calls)]
    thoughts = _text(message.thinking)
    return LLMResponse(
        _text(message.content),
        answer.model if isinstance(answer.model, str) and answer.model else model,
        _usage(answer),
        finish_reason=_finish(answer.done_reason, called=bool(calls)),
        tool_calls=calls,
        reasoning=thoughts or None,
        native=_native(thoughts),
        wire=WireAnswer(status, request_id, body),
    )


class LineReader(StreamReader):
    """Events of one stream."""

    def __init__(self, model: str, status: int | None, request_id: str | None) -> None:
        super().__init__(model, status, request_id)
        self._thoughts: list[str] = []
        self._calls = 0
        self._end: WireChat | None = None

    def events_of(self, data: bytes) -> Iterator[str | StreamEvent]:
        """Events of one line."""
        line = _chat(data)
        if line.error:
            raise self.error(msgspec.json.decode(data))
        message = line.message
        if message is not None:
            thoughts, text = message.thinking, message.content
            if thoughts.__class__ is str and thoughts:
                self._thoughts.append(thoughts)
                yield ReasoningDelta(thoughts)
            if text.__class__ is str and text:
                yield text
            if message.tool_calls:
                for id, name, arguments in _calls(message.tool_calls):
                    yield ToolCallDelta(self._calls, id, name, arguments)
                    self._calls += 1
        if self.served is None and isinstance(line.model, str):
            self.served = line.model or None
        if line.done:
            self.done = True
            self._end = line

    def usage_so_far(self) -> Usage | None:
        """Usage, if it has come."""
        return _usage(self._end) if self._end is not None else None

    def end(self) -> StreamEnd:
        """The last event.

        Raises:
            ServerError: The stream ended without saying that it is done.
        """
        if self._end is None:
            raise self.broken("the stream ended without a line that says done")
        return StreamEnd(
            finish_reason=_finish(self._end.done_reason, called=self._calls > 0),
            usage=_usage(self._end),
            model_name=self.served,
            native=_native("".join(self._thoughts)),
            wire=self.wire,
        )


def _calls(calls: Any) -> Iterator[tuple[str, str | None, str]]:
    """Id, name and arguments of each call. Where the server names none, an id is made: a result must name its call."""
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            continue
        arguments = function.get("arguments")
        text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
        yield str(call.get("id") or f"call_{uuid.uuid4().hex[:24]}"), function.get("name"), text


def _finish(reason: Any, *, called: bool) -> str | None:
    """Its reason, which is ``stop`` also where the model calls a tool."""
    return "tool_calls" if called and reason in ("stop", None, "") else reason or None


def _usage(answer: WireChat) -> Usage:
    """Tokens. The server leaves out a count that is 0, as that of a prompt which it had in its cache: then it is not known."""
    return Usage(count(answer.prompt_eval_count), count(answer.eval_count))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _native(thoughts: str) -> dict[str, Any] | None:
    return {"format": FORMAT, "content": [{"type": "thinking", "thinking": thoughts}]} if thoughts else None


def _format(value: Any) -> Any:
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind not in ("json_schema", "json_object"):
        raise InvalidRequestError(f"response_format of type {kind!r} is not known here: give a json_schema or json_object")
    inner = value.get("json_schema", value)
    schema = inner.get("schema") if isinstance(inner, Mapping) else None
    if isinstance(schema, Mapping):
        return schema
    if kind == "json_schema":
        raise InvalidRequestError(
            'response_format has no schema: give {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}'
        )
    return "json"
