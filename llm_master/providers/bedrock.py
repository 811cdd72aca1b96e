"""Amazon Bedrock: its Converse API, and its OpenAI-compatible ones.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html, .../API_runtime_ConverseStream.html,
https://docs.aws.amazon.com/bedrock/latest/userguide/inference-chat-completions.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from llm_master.errors import InvalidRequestError
from llm_master.providers import bedrock_answer as answer
from llm_master.providers.anthropic import thinking_of
from llm_master.providers.base import Translation
from llm_master.providers.bedrock_access import OnBedrock
from llm_master.providers.bedrock_frames import FrameParser
from llm_master.providers.bedrock_messages import cache_point, conversation, has_tools
from llm_master.providers.bodies import encoded, unreadable
from llm_master.providers.failures import BAD_JSON, request_id
from llm_master.providers.http import HTTPProvider
from llm_master.providers.neutral import is_neutral, neutral
from llm_master.providers.responses import ResponsesProvider
from llm_master.providers.stream_reader import StreamReader
from llm_master.providers.unified import UnifiedProvider
from llm_master.types import LLMResponse, Message

_NEUTRAL = neutral(parallel_tool_calls=(True,), service_tier=("auto",))

_OPENAI_ONLY = frozenset(
    "audio frequency_penalty function_call functions logit_bias logprobs modalities moderation n parallel_tool_calls prediction "
    "presence_penalty prompt_cache_key prompt_cache_retention safety_identifier seed store stream_options top_logprobs user verbosity "
    "web_search_options".split()
)
"""What OpenAI's API has and this one has no word for."""

_INFERENCE = {"max_tokens": "maxTokens", "max_completion_tokens": "maxTokens", "temperature": "temperature", "top_p": "topP"}

_OWN = frozenset("additionalModelResponseFieldPaths guardrailConfig performanceConfig promptVariables requestMetadata serviceTier".split())
"""Fields of a request by the API's own names; what is none of them is the model's own parameter."""

_MERGED = frozenset({"additionalModelRequestFields", "inferenceConfig", "outputConfig"})
_COUNTED = frozenset({"additionalModelRequestFields", "messages", "system", "toolConfig"})


class BedrockProvider(OnBedrock):
    """Any model of Bedrock's that converses. The model is its id, an inference profile's, or an ARN.

    Options by OpenAI's names are translated, the API's own go through as they are, and any other is a parameter of the model's own:
    it goes into ``additionalModelRequestFields``.
    """

    stream_parser = FrameParser
    takes_json_object = False

    def prepare(self, messages: Sequence[Message], model: str, options: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Path and body of a request."""
        system, turns = conversation(messages)
        body: dict[str, Any] = {"messages": turns, **options}
        if system:
            body.setdefault("system", system)
        if isinstance(tools := body.get("toolConfig"), Mapping) and "none" in (tools.get("toolChoice") or ()):
            # The API has no word for it. Where no tool was called yet, no tools is the same.
            if has_tools(turns):
                raise InvalidRequestError('tool_choice "none" cannot be said here once a tool has been called: leave it out')
            del body["toolConfig"]
        return f"/model/{quote(model, safe='')}/converse{'-stream' if stream else ''}", body

    def translate(self, model: str, options: Mapping[str, Any]) -> Translation:
        """OpenAI's options in this API's words.

        Raises:
            InvalidRequestError: A value that the API is known to refuse.
        """
        result = Translation()
        out = result.options
        for name, value in options.items():
            if is_neutral(name, value, _NEUTRAL):
                result.dropped.append(name)
            elif name in _INFERENCE:
                _join(out, "inferenceConfig", {_INFERENCE[name]: value})
                if _INFERENCE[name] != name:
                    result.renamed[name] = f"inferenceConfig.{_INFERENCE[name]}"
            elif name == "stop":
                _join(out, "inferenceConfig", {"stopSequences": [value] if isinstance(value, str) else list(value)})
                result.renamed[name] = "inferenceConfig.stopSequences"
            elif name == "tools":
                if value:  # the API refuses an empty list
                    _join(out, "toolConfig", {"tools": [block for tool in value for block in _tool(tool)]})
            elif name == "tool_choice":
                _join(out, "toolConfig", {"toolChoice": _tool_choice(value)})
            elif name == "response_format":
                _join(out, "outputConfig", {"textFormat": _format(value)})
                result.renamed[name] = "outputConfig.textFormat"
            elif name == "service_tier":
                out["serviceTier"] = {"type": value}
                result.renamed[name] = "serviceTier"
            elif name == "reasoning_effort":
                self._effort(result, model, value, options)
            elif name in _OPENAI_ONLY:
                result.unsupported.append(name)
            elif name in _OWN:
                out[name] = value
            elif name in _MERGED:
                _join(out, name, value)
            else:
                fields = {"inferenceConfig": {"topK": value}} if name == "top_k" and _family(model) == "nova" else {name: value}
                _join(out, "additionalModelRequestFields", fields)
        tools = out.get("toolConfig", {})
        if "tools" not in tools and (choice := tools.get("toolChoice")) is not None:
            if not choice.keys() & {"auto", "none"}:
                raise InvalidRequestError("tool_choice forces a tool, and there are none: give tools, or leave it out")
            del out["toolConfig"]
            result.dropped.append("tool_choice")
        return result

    @staticmethod
    def _effort(result: Translation, model: str, effort: Any, options: Mapping[str, Any]) -> None:
        """Say how hard to think in the words of the model's family, which have nothing in common."""
        family = _family(model)
        if family == "claude":
            fields = thinking_of(model, effort, options.get("max_tokens") or options.get("max_completion_tokens"))
            if (own := fields.pop("output_config", None)) is not None:
                _join(result.options, "outputConfig", own)
        elif family == "nova":
            off = effort == "none"
            fields = {"reasoningConfig": {"type": "disabled"} if off else {"type": "enabled", "maxReasoningEffort": effort}}
        elif family == "openai":
            fields = {"reasoning_effort": effort}
        else:
            result.unsupported.append("reasoning_effort")
            return
        _join(result.options, "additionalModelRequestFields", fields)
        result.renamed["reasoning_effort"] = f"additionalModelRequestFields.{next(iter(fields))}"

    def read_answer(self, body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
        """Make an answer of a 2xx body."""
        return answer.read_answer(body, status=status, request_id=request_id, model=model)

    def reader(self, model: str, status: int, request_id: str | None) -> StreamReader:
        """What makes events of a stream's pieces."""
        return answer.ConverseReader(model, status, request_id)

    async def count_tokens(self, messages: Sequence[Message], model: str, **options: Any) -> int | None:
        """How many tokens the request has, by the API's own count; ``None`` of a model whose tokens it does not count.

        ``options`` as :meth:`translate` made them.

        Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CountTokens.html

        Raises:
            ProviderError: The API refused, or answered something else.
        """
        body = self.prepare(messages, model, options, stream=False)[1]
        endpoint = await self.endpoint(f"/model/{quote(model, safe='')}/count-tokens", {})
        counted = {name: value for name, value in body.items() if name in _COUNTED}
        said = await endpoint.post(encoded({"input": {"converse": counted}}))
        if not 200 <= said.status < 300:
            error = self.refused(said, model, endpoint)
            if said.status == 400 and re.search(r"count(ing)?.?tokens", str(error).lower()):
                return None
            raise error
        try:
            return msgspec.json.decode(said.body, type=_Count).inputTokens
        except BAD_JSON as exc:
            raise unreadable(said.body, exc, said.status, request_id(said.headers), model) from exc


class BedrockChatProvider(OnBedrock, UnifiedProvider):
    """Chat completions, for the models that Bedrock serves by them. It has none of OpenAI's other operations."""

    embed = HTTPProvider.embed
    moderate = HTTPProvider.moderate
    rerank = HTTPProvider.rerank


class BedrockResponsesProvider(OnBedrock, ResponsesProvider):
    """The Responses API, for the models that Bedrock serves by it."""


class _Count(msgspec.Struct):
    inputTokens: int  # noqa: N815  # the API's name


def _family(model: str) -> str | None:
    """Whose parameters a model has; ``None`` where its id does not tell."""
    found = re.search(r"\b(claude|nova|openai)\b", model.lower())
    return found[1] if found is not None else None


def _join(out: dict[str, Any], name: str, part: Any) -> None:
    """Several options may be parts of one object."""
    if not isinstance(part, Mapping):
        raise InvalidRequestError(f"{name} is {part!r}: give a dict of what it holds")
    out[name] = {**out.get(name, {}), **part}


def _tool(tool: Mapping[str, Any]) -> list[dict[str, Any]]:
    function = tool.get("function")
    if tool.get("type", "function") != "function" or not isinstance(function, Mapping):
        return [dict(tool)]  # in the API's own form
    spec: dict[str, Any] = {"name": function.get("name")}
    if function.get("description"):
        spec["description"] = function["description"]
    spec["inputSchema"] = {"json": function.get("parameters") or {"type": "object", "properties": {}}}
    if function.get("strict"):
        spec["strict"] = True
    return [{"toolSpec": spec}, *([cache_point(tool["cache_control"])] if tool.get("cache_control") else [])]


def _tool_choice(value: Any) -> dict[str, Any]:
    if isinstance(value, str) and (kind := {"auto": "auto", "required": "any", "any": "any", "none": "none"}.get(value)):
        return {kind: {}}
    if isinstance(value, Mapping):
        if isinstance(function := value.get("function"), Mapping):
            return {"tool": {"name": function.get("name")}}
        if value.keys() & {"auto", "any", "tool"}:
            return dict(value)
    raise InvalidRequestError(
        f'tool_choice is {value!r}: give "auto", "required", "none" or {{"type": "function", "function": {{"name": ...}}}}'
    )


def _format(value: Any) -> dict[str, Any]:
    """As https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html has it: the schema as text."""
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind != "json_schema":
        raise InvalidRequestError(f"response_format of type {kind!r} is not known here: give a json_schema")
    form = value["json_schema"] if isinstance(value.get("json_schema"), Mapping) else value
    if not isinstance(schema := form.get("schema"), Mapping):
        raise InvalidRequestError(
            'response_format has no schema: give {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}'
        )
    described = {name: form[name] for name in ("name", "description") if form.get(name)}
    return {"type": "json_schema", "structure": {"jsonSchema": {"schema": encoded(schema).decode(), **described}}}
