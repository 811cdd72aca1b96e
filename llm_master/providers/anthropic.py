"""Anthropic's Messages API (https://docs.anthropic.com/en/api/messages)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llm_master.errors import InvalidRequestError
from llm_master.providers import anthropic_answer as answer
from llm_master.providers.anthropic_messages import conversation
from llm_master.providers.base import Translation
from llm_master.providers.bodies import encoded
from llm_master.providers.failures import clock_of, request_id, timestamp
from llm_master.providers.http import HTTPProvider
from llm_master.providers.limits import whole
from llm_master.providers.neutral import is_neutral, neutral
from llm_master.providers.schemas import check_schema, fits
from llm_master.providers.stream_reader import StreamReader
from llm_master.types import LLMResponse, Message, RateLimitState

API_VERSION = "2023-06-01"
DEFAULT_MAX_TOKENS = (((4, 5), 64_000), ((4, 0), 32_000), ((0, 0), 4096))
"""For a model of which nobody has registered how much it may write: what every Claude from that version on may."""

_NEUTRAL = neutral(parallel_tool_calls=(True,))

_OPENAI_ONLY = frozenset(
    "audio frequency_penalty function_call functions logit_bias logprobs modalities moderation n prediction presence_penalty prompt_cache_key "
    "prompt_cache_retention safety_identifier seed store stream_options top_logprobs verbosity web_search_options".split()
)
"""What OpenAI's API has and this one has no word for."""

_COUNTED = frozenset("model messages system tools tool_choice thinking output_config cache_control mcp_servers context_management".split())
"""The fields of a request that have tokens to count."""

_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 4096, "high": 16_384, "xhigh": 32_768}
"""Tokens of thinking for ``reasoning_effort``, for models that take a budget."""

_LEAST_BUDGET = 1024
"""The API takes no smaller one."""

_SCHEMA_LIMITS = frozenset(
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems uniqueItems minProperties maxProperties "
    "patternProperties propertyNames if then else not oneOf dependentRequired dependentSchemas".split()
)
"""Keywords that structured output refuses: https://docs.anthropic.com/en/docs/build-with-claude/structured-outputs"""


class AnthropicProvider(HTTPProvider):
    """``claude-*``. Options by OpenAI's names are translated; Anthropic's own go through as they are."""

    models_path = "/models?limit=1000"  # the most that a page holds
    needs_max_tokens = True
    reads_text_files = True
    refused_schema_words = _SCHEMA_LIMITS
    takes_json_object = False

    def prepare(self, messages: Sequence[Message], model: str, options: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Path and body of a request."""
        system, turns = conversation(messages, keeps_system_in_place=_version(model) >= (4, 8))
        body: dict[str, Any] = {"model": model, "messages": turns, "max_tokens": _default_max_tokens(model), **options}
        if system is not None:
            body.setdefault("system", system)
        if stream:
            body["stream"] = True
        body.pop("betas", None)
        return "/messages", body

    def takes_schema(self, schema: Mapping[str, Any]) -> bool:
        """Whether structured output takes this schema."""
        return fits(schema, forbidden=_SCHEMA_LIMITS, also=_refuse_open)

    def headers(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Headers of a request: the key, the version, and the betas that the call asks for."""
        headers = {"anthropic-version": API_VERSION}
        if self.api_key:
            headers["x-api-key"] = self.api_key
        if betas := options.get("betas"):
            headers["anthropic-beta"] = betas if isinstance(betas, str) else ",".join(betas)
        return headers

    def next_models(self, page: Mapping[str, Any]) -> str | None:
        """Pages go by the last id of the one before (https://docs.anthropic.com/en/api/models-list)."""
        return f"after_id={page['last_id']}" if page.get("has_more") and page.get("last_id") else None

    def translate(self, model: str, options: Mapping[str, Any]) -> Translation:
        """OpenAI's options in Anthropic's words.

        Raises:
            InvalidRequestError: A value that the API is known to refuse.
        """
        result = Translation()
        out = result.options
        choice: dict[str, Any] | None = None
        for name, value in options.items():
            if is_neutral(name, value, _NEUTRAL):
                result.dropped.append(name)
            elif name in ("max_tokens", "max_completion_tokens"):
                out["max_tokens"] = value
                if name != "max_tokens":
                    result.renamed[name] = "max_tokens"
            elif name == "stop":
                out["stop_sequences"] = [value] if isinstance(value, str) else list(value)
                result.renamed[name] = "stop_sequences"
            elif name == "tools":
                out["tools"] = [_tool(tool) for tool in value]
            elif name == "tool_choice":
                choice = {**(choice or {}), **_tool_choice(value)}
            elif name == "parallel_tool_calls":
                choice = {"type": "auto", **(choice or {}), "disable_parallel_tool_use": not value}
                result.renamed[name] = "tool_choice.disable_parallel_tool_use"
            elif name == "reasoning_effort":
                result.renamed[name] = _effort(out, model, value)
            elif name == "response_format":
                out["output_config"] = {**out.get("output_config", {}), "format": _format(value)}
                result.renamed[name] = "output_config.format"
            elif name == "user":
                out["metadata"] = {**out.get("metadata", {}), "user_id": value}
                result.renamed[name] = "metadata.user_id"
            elif name in ("output_config", "metadata"):
                out[name] = {**out.get(name, {}), **value}
            elif name in _OPENAI_ONLY:
                result.unsupported.append(name)
            else:
                out[name] = value  # one of Anthropic's own, or new: the API says so if it is not
        if choice is not None:
            if choice["type"] == "none":
                choice.pop("disable_parallel_tool_use", None)
            out["tool_choice"] = choice
        _fit_thinking(out, model, by_effort="reasoning_effort" in options)
        _check(out)
        return result

    def read_answer(self, body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
        """Make an answer of a 2xx body."""
        return answer.read_answer(body, status=status, request_id=request_id, model=model)

    def reader(self, model: str, status: int, request_id: str | None) -> StreamReader:
        """What makes events of a stream's pieces."""
        return answer.MessageReader(model, status, request_id)

    async def count_tokens(self, messages: Sequence[Message], model: str, **options: Any) -> int | None:
        """How many tokens the request has (https://docs.anthropic.com/en/api/messages-count-tokens).

        ``options`` as :meth:`translate` made them; what does not count is not sent. Counting is free, and has limits of its own.
        """
        _, body = self.prepare(messages, model, options, stream=False)
        endpoint = await self.endpoint("/messages/count_tokens", options)
        found = await endpoint.post(encoded({name: value for name, value in body.items() if name in _COUNTED}))
        if not 200 <= found.status < 300:
            raise self.refused(found, model, endpoint)
        return answer.read_count(found.body, status=found.status, request_id=request_id(found.headers), model=model)

    def rate_limits(self, headers: Mapping[str, str]) -> RateLimitState | None:
        """The ``anthropic-ratelimit-*`` headers (https://docs.anthropic.com/en/api/rate-limits#response-headers)."""
        prefix = "anthropic-ratelimit-"
        if prefix + "requests-remaining" not in headers and prefix + "input-tokens-remaining" not in headers:
            return None
        now = clock_of(headers)

        def number(name: str) -> int | None:
            return whole(headers.get(prefix + name))

        def moment(name: str) -> float | None:
            text = headers.get(prefix + name)
            at = timestamp(text) if text else None
            return None if at is None else max(0.0, at - now)

        return RateLimitState(
            requests_limit=number("requests-limit"),
            requests_remaining=number("requests-remaining"),
            requests_reset=moment("requests-reset"),
            tokens_limit=number("tokens-limit"),
            tokens_remaining=number("tokens-remaining"),
            tokens_reset=moment("tokens-reset"),
            input_tokens_limit=number("input-tokens-limit"),
            input_tokens_remaining=number("input-tokens-remaining"),
            input_tokens_reset=moment("input-tokens-reset"),
            output_tokens_limit=number("output-tokens-limit"),
            output_tokens_remaining=number("output-tokens-remaining"),
            output_tokens_reset=moment("output-tokens-reset"),
        )


def _version(model: str) -> tuple[int, int]:
    """``(4, 5)`` of ``claude-sonnet-4-5-20250929``; of a name without a version, ``(0, 0)``."""
    found = re.search(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?![\d])", model)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def _default_max_tokens(model: str) -> int:
    version = _version(model)
    return next(most for since, most in DEFAULT_MAX_TOKENS if version >= since)


def _effort(out: dict[str, Any], model: str, effort: Any) -> str:
    """Set what ``reasoning_effort`` means for this model; return under which name."""
    if effort == "none":
        out["thinking"] = {"type": "disabled"}
        return "thinking"
    if _version(model) >= (4, 6):
        out["thinking"] = {"type": "adaptive"}
        out["output_config"] = {**out.get("output_config", {}), "effort": "low" if effort == "minimal" else effort}
        return "output_config.effort"
    if effort not in _BUDGETS:
        raise InvalidRequestError(f"reasoning_effort is {effort!r}: give one of none, {', '.join(_BUDGETS)}")
    out["thinking"] = {"type": "enabled", "budget_tokens": _BUDGETS[effort]}
    return "thinking.budget_tokens"


def thinking_of(model: str, effort: Any, max_tokens: Any) -> dict[str, Any]:
    """What ``reasoning_effort`` means for a Claude: ``thinking``, and ``output_config`` where it takes one.

    Raises:
        InvalidRequestError: There is no such effort.
    """
    out: dict[str, Any] = {} if max_tokens is None else {"max_tokens": max_tokens}
    _effort(out, model, effort)
    _fit_thinking(out, model, by_effort=True)
    out.pop("max_tokens", None)
    return out


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function")
    if tool.get("type", "function") != "function" or not isinstance(function, Mapping):
        return tool  # Anthropic's own form, or one of its server tools
    result = {"name": function.get("name"), "input_schema": function.get("parameters") or {"type": "object", "properties": {}}}
    if function.get("description"):
        result["description"] = function["description"]
    if function.get("strict"):
        result["strict"] = True
    return {**result, **{key: value for key, value in tool.items() if key not in ("type", "function")}}


def _tool_choice(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        kinds = {"auto": "auto", "required": "any", "any": "any", "none": "none"}
        if value not in kinds:
            raise InvalidRequestError(
                f'tool_choice is {value!r}: give "auto", "required", "none" or {{"type": "function", "function": {{"name": ...}}}}'
            )
        return {"type": kinds[value]}
    if isinstance(value, Mapping) and isinstance(function := value.get("function"), Mapping):
        return {"type": "tool", "name": function.get("name")}
    if isinstance(value, Mapping) and value.get("type") in ("auto", "any", "tool", "none"):
        return dict(value)
    raise InvalidRequestError(f"tool_choice is {value!r}, which this API does not know: give auto, required, none or one function")


def _format(value: Any) -> dict[str, Any]:
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "json_schema":
        schema = value["json_schema"].get("schema") if isinstance(value.get("json_schema"), Mapping) else value.get("schema")
        if not isinstance(schema, Mapping):
            raise InvalidRequestError(
                'response_format has no schema: give {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}'
            )
        check_schema(schema, "schema", forbidden=_SCHEMA_LIMITS, also=_refuse_open)
        return {"type": "json_schema", "schema": _closed(schema)}
    raise InvalidRequestError(f"response_format of type {kind!r} is not known here: give a json_schema, which the API holds to")


def _refuse_open(schema: Mapping[str, Any], path: str) -> None:
    """What the API refuses of one part of a schema, beside keywords."""
    if schema.get("minItems", 0) not in (0, 1):
        raise InvalidRequestError(f"the API's structured output does not allow 'minItems' above 1 (at {path}): check it in the answer")
    if schema.get("type") == "object" and schema.get("additionalProperties") not in (False, None):
        raise InvalidRequestError(f"the API's structured output wants additionalProperties: false (at {path})")


def _closed(schema: Any) -> Any:
    """The schema with every object closed, as the API demands, also where that is not said."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    closed = dict(schema)
    if closed.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    for keyword in ("properties", "$defs", "definitions"):
        if isinstance(part := closed.get(keyword), Mapping):
            closed[keyword] = {name: _closed(inner) for name, inner in part.items()}
    for keyword in ("items", "anyOf", "allOf"):
        if keyword in closed:
            closed[keyword] = _closed(closed[keyword])
    return closed


def _fit_thinking(options: dict[str, Any], model: str, *, by_effort: bool) -> None:
    """The thinking counts as output, so the limit of one must leave room for the other."""
    thinking = options.get("thinking")
    if not isinstance(thinking, Mapping) or not isinstance(budget := thinking.get("budget_tokens"), int):
        return
    if "max_tokens" not in options:
        options["max_tokens"] = max(_default_max_tokens(model), budget + DEFAULT_MAX_TOKENS[-1][1])
    elif by_effort and isinstance(most := options["max_tokens"], int) and budget >= most > 2 * _LEAST_BUDGET:
        # An effort is no number of tokens: take what fits.
        options["thinking"] = {**thinking, "budget_tokens": max(_LEAST_BUDGET, most // 2)}


def _check(options: Mapping[str, Any]) -> None:
    """What the API refuses in any case, said before sending.

    Source: https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking#feature-compatibility
    """
    temperature = options.get("temperature")
    if isinstance(temperature, (int, float)) and not 0 <= temperature <= 1:
        raise InvalidRequestError(f"temperature is {temperature}: this API takes 0 to 1")
    thinking = options.get("thinking")
    if not isinstance(thinking, Mapping) or thinking.get("type") not in ("enabled", "adaptive"):
        return
    if temperature not in (None, 1):
        raise InvalidRequestError(f"temperature is {temperature}, and thinking allows only 1: leave temperature out, or thinking")
    top_p = options.get("top_p")
    if isinstance(top_p, (int, float)) and not 0.95 <= top_p <= 1:
        raise InvalidRequestError(f"top_p is {top_p}, and thinking allows 0.95 to 1: leave top_p out, or thinking")
    if "top_k" in options:
        raise InvalidRequestError("top_k cannot be set with thinking: leave one of them out")
    choice = options.get("tool_choice")
    if isinstance(choice, Mapping) and choice.get("type") in ("any", "tool"):
        raise InvalidRequestError("thinking allows tool_choice auto or none only: leave the forced tool out, or thinking")
    budget, most = thinking.get("budget_tokens"), options.get("max_tokens")
    if isinstance(budget, int) and isinstance(most, int) and budget >= most:
        raise InvalidRequestError(f"max_tokens is {most}, and must be more than the thinking budget of {budget} tokens")
