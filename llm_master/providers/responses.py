"""OpenAI's Responses API (https://platform.openai.com/docs/api-reference/responses), as all who speak it write it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from llm_master.errors import InvalidRequestError
from llm_master.providers import responses_answer as answer
from llm_master.providers.base import Translation
from llm_master.providers.bodies import encoded, unreadable
from llm_master.providers.failures import BAD_JSON, request_id
from llm_master.providers.http import HTTPProvider
from llm_master.providers.limits import limits_in
from llm_master.providers.neutral import is_neutral, neutral
from llm_master.providers.responses_messages import conversation
from llm_master.providers.responses_stream import ResponseReader
from llm_master.providers.stream_reader import StreamReader
from llm_master.transport import Endpoint
from llm_master.types import LLMResponse, Message, Plan, RateLimitState

_NEUTRAL = neutral(
    "store",  # which it has a word for
    modalities=(["text"], ("text",)),
    stop=([], ()),
    stream_options=({"include_usage": True}, {"include_usage": False}, {}),
)

_CHAT_ONLY = frozenset(
    "audio frequency_penalty function_call functions logit_bias modalities n prediction presence_penalty seed stop".split()
)
"""What chat completions have and this API has no word for."""

_COUNTED = frozenset(
    "conversation input instructions model parallel_tool_calls previous_response_id reasoning text tool_choice tools truncation".split()
)
"""What a request for a count takes: https://platform.openai.com/docs/api-reference/responses/input-tokens"""

_WITHOUT_REASONING = re.compile(r"(?:^|[/:])(?:gpt-[34]|chatgpt-4)")
"""Models that refuse to be asked for reasoning that they do not have."""

_ID = re.compile(r"\w[\w.~-]*", re.ASCII)

ENCRYPTED_REASONING = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"


class ResponsesProvider(HTTPProvider):
    """Options by the names of chat completions are translated; the API's own go through as they are.

    The API keeps what is asked and answered (for 30 days, https://platform.openai.com/docs/guides/your-data) unless it is
    told ``store=False``; that default is left as it is. Two ways lead to the next turn:

    * ``answer.message`` in the messages: it carries the reasoning and the built-in tools' calls under ``_native``. With
      ``store=False`` the reasoning is asked for in its encrypted form, since there is nothing that its id could name.
    * ``previous_response_id=answer.raw["id"]``, with only the new messages. ``raw`` is there for a stream, too.

    Built-in tools stand in ``tools`` in their own form, as ``{"type": "web_search"}``. Summaries of the reasoning come
    where ``reasoning={"summary": "auto"}`` asks for them; not every account may.

    With ``background=True`` the answer is what the API says at once: no content, and ``None`` as finish reason. The same
    query with ``retrieve=answer.raw["id"]``, and no other option, asks how far it is.
    """

    models_path: ClassVar[str | None] = "/models"

    takes_urls = frozenset({"image", "file"})

    call_types: ClassVar[tuple[str, ...]] = answer.CALLS
    """Types of items that are calls for the caller to answer."""

    encrypts: ClassVar[bool] = True
    """Whether reasoning that is not stored must be asked for in its encrypted form, because it is shown in no other."""

    path: ClassVar[str] = "/responses"
    """Where the API is, below ``base_url``."""

    def prepare(self, messages: Sequence[Message], model: str, options: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Path and body of a request."""
        if "retrieve" in options:
            raise InvalidRequestError("retrieve is given for a stream: what is made already comes in one piece, ask for it by query")
        continued = "previous_response_id" in options or "conversation" in options
        body: dict[str, Any] = {"model": model, "input": conversation(messages, continued=continued, by=self.config.name), **options}
        if stream:
            body["stream"] = True
        return self.path, body

    async def generate(self, messages: Sequence[Message], model: str, **options: Any) -> LLMResponse:
        """Answer ``messages``, or say how far an answer is that is made in the background."""
        if "retrieve" not in options:
            return await super().generate(messages, model, **options)
        endpoint = self._made(options["retrieve"])
        found = await endpoint.get()
        if not 200 <= found.status < 300:
            raise self.refused(found, model, endpoint)
        return self.response(found, model)

    def plan(self, messages: Sequence[Message], model: str, *, stream: bool, **options: Any) -> Plan:
        """What would be sent. Sends nothing."""
        if "retrieve" not in options or stream:
            return super().plan(messages, model, stream=stream, **options)
        endpoint = self._made(options["retrieve"])
        return Plan(method="GET", url=endpoint.shown_url(self.api_key), headers=endpoint.shown_headers(self.api_key))

    def _made(self, id: Any) -> Endpoint:
        """Where a response is that the API keeps."""
        if not isinstance(id, str) or not _ID.fullmatch(id):
            raise InvalidRequestError(f'retrieve is {id!r}: give answer.raw["id"] of an answer that is made in the background')
        return self.new_endpoint(f"{self.path}/{id}", self.headers({}))

    def headers(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Headers of a request."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def translate(self, model: str, options: Mapping[str, Any]) -> Translation:
        """Options by the names of chat completions in this API's words.

        Raises:
            InvalidRequestError: A value that the API is known to refuse.
        """
        if "retrieve" in options:
            # What is made already takes no wishes.
            return Translation({"retrieve": options["retrieve"]}, unsupported=[name for name in options if name != "retrieve"])
        result = Translation()
        out = result.options
        include: list[Any] = []
        for name, value in options.items():
            if is_neutral(name, value, _NEUTRAL):
                result.dropped.append(name)
            elif name in ("max_tokens", "max_completion_tokens"):
                out["max_output_tokens"] = value
                result.renamed[name] = "max_output_tokens"
            elif name == "reasoning_effort":
                _join(out, "reasoning", {"effort": value})
                result.renamed[name] = "reasoning.effort"
            elif name == "verbosity":
                _join(out, "text", {"verbosity": value})
                result.renamed[name] = "text.verbosity"
            elif name == "response_format":
                _join(out, "text", {"format": _format(value)})
                result.renamed[name] = "text.format"
            elif name in ("reasoning", "text"):
                _join(out, name, value)
            elif name == "tools":
                out["tools"] = [*map(_tool, value), *out.get("tools", ())]
            elif name == "web_search_options":
                out.setdefault("tools", []).append(_web_search(value))
                result.renamed[name] = "tools"
            elif name == "tool_choice":
                out["tool_choice"] = _tool_choice(value)
            elif name == "include":
                include += value if isinstance(value, (list, tuple)) else [value]
            elif name == "logprobs":
                include.append(LOGPROBS)
                result.renamed[name] = "include"
            elif name == "stream_options" and isinstance(value, Mapping) and value.keys() - {"include_usage"} == {"include_obfuscation"}:
                out[name] = {"include_obfuscation": value["include_obfuscation"]}
            elif name in _CHAT_ONLY or name == "stream_options":
                result.unsupported.append(name)
            else:
                out[name] = value  # the same here, one of this API's own, or new: the API says so if it is not
        if options.get("store") is False and self.encrypts and not _WITHOUT_REASONING.search(model):
            include.append(ENCRYPTED_REASONING)
        if include:
            out["include"] = list(dict.fromkeys(include))
        return result

    def read_answer(self, body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
        """Make an answer of a 2xx body."""
        return answer.read_answer(body, status=status, request_id=request_id, model=model, call_types=self.call_types, by=self.config.name)

    def reader(self, model: str, status: int, request_id: str | None) -> StreamReader:
        """What makes events of a stream's pieces."""
        return ResponseReader(model, status, request_id, self.call_types, self.config.name)

    def rate_limits(self, headers: Mapping[str, str]) -> RateLimitState | None:
        """The ``x-ratelimit-*`` headers."""
        return limits_in(headers)

    async def count_tokens(self, messages: Sequence[Message], model: str, **options: Any) -> int | None:
        """How many tokens the request has, by the API's own count; ``None`` where the server offers none.

        Raises:
            ProviderError: The API refused, or answered something else.
        """
        body = self.prepare(messages, model, self.translate(model, options).options, stream=False)[1]
        endpoint = await self.endpoint(f"{self.path}/input_tokens", {})
        said = await endpoint.post(encoded({name: value for name, value in body.items() if name in _COUNTED}))
        if said.status in (404, 405, 501):
            return None
        if not 200 <= said.status < 300:
            raise self.refused(said, model, endpoint)
        try:
            return msgspec.json.decode(said.body, type=answer.WireCount).input_tokens
        except BAD_JSON as exc:
            raise unreadable(said.body, exc, said.status, request_id(said.headers), model) from exc


def _join(out: dict[str, Any], name: str, part: Any) -> None:
    """Several options may be parts of one object."""
    if not isinstance(part, Mapping):
        raise InvalidRequestError(f"{name} is {part!r}: give a dict of what it holds")
    out[name] = {**out.get(name, {}), **part}


def _flat(whole: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """What chat completions put into an object of its own, beside the type; ``None`` if it is flat already."""
    inner = whole.get(kind)
    if not isinstance(inner, Mapping):
        return None
    return {"type": kind, **inner, **{key: value for key, value in whole.items() if key not in ("type", kind)}}


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    if tool.get("type") == "custom":
        flat = _flat(tool, "custom") or dict(tool)
        if isinstance(form := flat.get("format"), Mapping) and form.get("type") == "grammar":
            flat["format"] = _flat(form, "grammar") or form
        return flat
    function = _flat(tool, "function")
    if function is None:
        return tool  # a built-in tool, or a function in this API's own form
    # Here a function is strict unless it is said not to be; in the form that was given it is the other way round.
    given = {key: value for key, value in function.items() if value is not None}
    return {"parameters": {"type": "object", "properties": {}}, "strict": False, **given}


def _web_search(value: Any) -> dict[str, Any]:
    """The built-in tool that does what a search model's ``web_search_options`` ask for."""
    if not isinstance(value, Mapping):
        raise InvalidRequestError(f"web_search_options is {value!r}: give a dict, {{}} for none")
    tool = {"type": "web_search", **value}
    if isinstance(place := value.get("user_location"), Mapping):
        tool["user_location"] = _flat(place, "approximate") or place
    return tool


def _tool_choice(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    kind = value.get("type")
    flat = (_flat(value, kind) if isinstance(kind, str) else None) or dict(value)
    if kind == "allowed_tools" and isinstance(tools := flat.get("tools"), Sequence):
        flat["tools"] = [_tool_choice(tool) for tool in tools]
    return flat


def _format(value: Mapping[str, Any]) -> dict[str, Any]:
    if value.get("type") != "json_schema":
        return dict(value)
    form = _flat(value, "json_schema") or dict(value)
    if not isinstance(form.get("schema"), Mapping):
        raise InvalidRequestError(
            'response_format has no schema: give {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}'
        )
    return {"name": "answer", **form}
