"""Gemini's generateContent, of Google AI and of Vertex AI.

Sources: https://ai.google.dev/api/generate-content, https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llm_master.errors import InvalidRequestError
from llm_master.providers import gemini_answer as answer
from llm_master.providers.base import Translation
from llm_master.providers.gemini_messages import conversation
from llm_master.providers.http import HTTPProvider, StreamReader
from llm_master.providers.schemas import check_schema
from llm_master.types import LLMResponse, Message

_GENERATION = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "n": "candidateCount",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
"""OpenAI's options and the fields of ``generationConfig``."""

_TOP = frozenset("safetySettings cachedContent toolConfig labels modelArmorConfig systemInstruction serviceTier".split())
"""The API's own fields of a request."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "stream_options": ({"include_usage": True}, {"include_usage": False}),
    "store": (False,),
    "logit_bias": ({},),
    "parallel_tool_calls": (True,),
}
"""Values that ask for what happens anyway: left out without changing the meaning."""

_REFUSED = frozenset(
    "audio function_call functions logit_bias moderation parallel_tool_calls prediction prompt_cache_key prompt_cache_retention "
    "safety_identifier store stream_options user verbosity web_search_options metadata".split()
)
"""What OpenAI's API has and this one has no word for."""

_BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24_576}
"""Tokens of thinking for ``reasoning_effort``, for models that take a budget (before Gemini 3):
https://ai.google.dev/gemini-api/docs/openai#thinking"""

_SCHEMA_WORDS = frozenset(
    "$recursiveRef not if then else patternProperties dependentRequired dependentSchemas unevaluatedProperties contains".split()
)
"""Keywords that structured output does not know: https://ai.google.dev/gemini-api/docs/structured-output#json-schema-support"""


class GeminiProvider(HTTPProvider):
    """``gemini-*``. Options by OpenAI's names are translated; Gemini's own (``safetySettings``, ``topK``, ...) go through."""

    def prepare(self, messages: Sequence[Message], model: str, options: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Path and body of a request."""
        # https://ai.google.dev/gemini-api/docs/function-calling#multimodal
        system, contents = conversation(messages, is_gemini_3=_version(model) >= 3)
        body: dict[str, Any] = {"contents": contents, **options}
        if system is not None:
            body.setdefault("systemInstruction", system)
        name = model.removeprefix("models/")
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"/models/{name}:{method}", body

    def headers(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Headers of a request. The key goes into one, not into the URL, which is logged on the way."""
        return {"x-goog-api-key": self.api_key} if self.api_key else {}

    def translate(self, model: str, options: Mapping[str, Any]) -> Translation:
        """OpenAI's options in Gemini's words.

        Raises:
            InvalidRequestError: A value that the API is known to refuse.
        """
        result = Translation()
        out = result.options
        config: dict[str, Any] = {}
        for name, value in options.items():
            if name in _NEUTRAL and any(value == neutral for neutral in _NEUTRAL[name]):
                result.dropped.append(name)
            elif name in _GENERATION:
                config[_GENERATION[name]] = value
                if _GENERATION[name] != name:
                    result.renamed[name] = f"generationConfig.{_GENERATION[name]}"
            elif name == "stop":
                config["stopSequences"] = [value] if isinstance(value, str) else list(value)
                result.renamed[name] = "generationConfig.stopSequences"
            elif name == "modalities":
                config["responseModalities"] = [str(kind).upper() for kind in value]
                result.renamed[name] = "generationConfig.responseModalities"
            elif name == "reasoning_effort":
                config["thinkingConfig"] = {**config.get("thinkingConfig", {}), **_thinking(model, value)}
                result.renamed[name] = "generationConfig.thinkingConfig"
            elif name in ("response_format", "response_schema"):
                config |= _format(value if name == "response_format" else {"type": "json_schema", "schema": value})
                result.renamed[name] = "generationConfig.responseJsonSchema"
            elif name == "tools":
                out["tools"] = _tools(value)
            elif name == "tool_choice":
                out["toolConfig"] = {**out.get("toolConfig", {}), "functionCallingConfig": _tool_choice(value)}
                result.renamed[name] = "toolConfig.functionCallingConfig"
            elif name == "service_tier":
                out["serviceTier"] = value
                result.renamed[name] = "serviceTier"
            elif name == "generationConfig":
                config |= value
            elif name in _TOP:
                out[name] = {**out[name], **value} if isinstance(out.get(name), dict) else value
            elif name in _REFUSED:
                result.unsupported.append(name)
            else:
                config[name] = value  # one of Gemini's own, or new: the API says so if it is not
        if config:
            out["generationConfig"] = config
        return result

    def read_answer(self, body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
        """Make an answer of a 2xx body."""
        return answer.read_answer(body, status=status, request_id=request_id, model=model)

    def reader(self, model: str, status: int, request_id: str | None) -> StreamReader:
        """What makes events of a stream's pieces."""
        return answer.CandidateReader(model, status, request_id)


def _version(model: str) -> float:
    found = re.search(r"gemini-(\d+(?:\.\d+)?)", model)
    return float(found[1]) if found else 0.0


def _thinking(model: str, effort: Any) -> dict[str, Any]:
    if effort not in _BUDGETS:
        raise InvalidRequestError(f"reasoning_effort is {effort!r}: give one of {', '.join(_BUDGETS)}")
    if _version(model) >= 3:
        # https://ai.google.dev/gemini-api/docs/gemini-3#thinking_level
        return {"thinkingLevel": "minimal" if effort == "none" else effort, "includeThoughts": effort not in ("none", "minimal")}
    return {"thinkingBudget": _BUDGETS[effort], "includeThoughts": effort != "none"}


def _format(value: Any) -> dict[str, Any]:
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "text":
        return {"responseMimeType": "text/plain"}
    if kind == "json_object":
        return {"responseMimeType": "application/json"}
    if kind != "json_schema":
        raise InvalidRequestError(f"response_format of type {kind!r} is not known here: give text, json_object or json_schema")
    schema = value["json_schema"].get("schema") if isinstance(value.get("json_schema"), Mapping) else value.get("schema")
    if not isinstance(schema, Mapping):
        raise InvalidRequestError(
            'response_format has no schema: give {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}'
        )
    check_schema(schema, "schema", forbidden=_SCHEMA_WORDS)
    return {"responseMimeType": "application/json", "responseJsonSchema": schema}


def _tools(tools: Sequence[Any]) -> list[Any]:
    """Functions in one declaration, Gemini's own tools as they are."""
    declarations = []
    others = []
    for tool in tools:
        function = tool.get("function")
        if not isinstance(function, Mapping):
            others.append(tool)
            continue
        declaration = {"name": function.get("name"), "description": function.get("description") or ""}
        if function.get("parameters"):
            declaration["parametersJsonSchema"] = function["parameters"]
        declarations.append(declaration)
    return [*([{"functionDeclarations": declarations}] if declarations else []), *others]


def _tool_choice(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        modes = {"auto": "AUTO", "required": "ANY", "any": "ANY", "none": "NONE", "validated": "VALIDATED"}
        if value not in modes:
            raise InvalidRequestError(
                f'tool_choice is {value!r}: give "auto", "required", "none" or {{"type": "function", "function": {{"name": ...}}}}'
            )
        return {"mode": modes[value]}
    if isinstance(value, Mapping) and isinstance(function := value.get("function"), Mapping):
        return {"mode": "ANY", "allowedFunctionNames": [function.get("name")]}
    if isinstance(value, Mapping) and isinstance(allowed := value.get("allowed_tools"), Mapping):
        names = [(tool.get("function") or tool).get("name") for tool in allowed.get("tools") or ()]
        return {"mode": "ANY" if allowed.get("mode") == "required" else "VALIDATED", "allowedFunctionNames": names}
    return dict(value)
