"""OpenAI's options in GigaChat's words, for both versions of its chat API.

Sources: https://developers.sber.ru/docs/ru/gigachat/api/reference/rest/post-chat,
https://github.com/ai-forever/gigachat/blob/main/MIGRATION_GUIDE.md (the second version)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_master.errors import InvalidRequestError
from llm_master.providers.base import Translation
from llm_master.providers.neutral import is_neutral, neutral

_NEUTRAL = neutral(parallel_tool_calls=(False,))

_WITHOUT_WORD = frozenset(
    "audio frequency_penalty logit_bias logprobs metadata modalities moderation n parallel_tool_calls prediction presence_penalty "
    "prompt_cache_key prompt_cache_retention safety_identifier seed service_tier stop store stream_options top_k top_logprobs user "
    "verbosity web_search_options".split()
)
"""What is asked elsewhere, and this API has no word for."""

_MODEL_OPTIONS = frozenset("temperature top_p max_tokens repetition_penalty update_interval preset unnormalized_history".split())
"""What the second version wants in its ``model_options``."""

_EFFORTS = ("low", "medium", "high")

DETERMINISTIC = 0.0001
"""The API takes no temperature of 0, and the surest answer for one of at most 0.001."""


def translated(options: Mapping[str, Any], *, second: bool) -> Translation:
    """The options of a call.

    Raises:
        InvalidRequestError: A value that the API is known to refuse.
    """
    result = Translation()
    found: dict[str, Any] = {}
    for name, value in options.items():
        if is_neutral(name, value, _NEUTRAL):
            result.dropped.append(name)
        elif name in ("max_tokens", "max_completion_tokens"):
            found["max_tokens"] = value
            if name != "max_tokens":
                result.renamed[name] = "max_tokens"
        elif name == "temperature":
            found[name] = DETERMINISTIC if value == 0 else value
        elif name == "tools":
            found["functions"] = [*_functions(value, second=second), *found.get("functions", ())]
            result.renamed[name] = "tools.functions.specifications" if second else "functions"
        elif name == "tool_choice":
            if (choice := _choice(value, options.get("tools") or ())) is None:
                result.unsupported.append(name)
            else:
                found["function_call"] = choice
                result.renamed[name] = "tool_config" if second else "function_call"
        elif name == "reasoning_effort":
            if value not in _EFFORTS:
                raise InvalidRequestError(f"reasoning_effort is {value!r}: this API takes {', '.join(_EFFORTS)}")
            found[name] = value
        elif name == "response_format":
            found[name] = _format(value, second=second)
        elif name in _WITHOUT_WORD:
            result.unsupported.append(name)
        else:
            found[name] = value  # one of the API's own, or new: the API says so if it is not
    result.options = _in_second(found, result.renamed) if second else found
    return result


def _in_second(found: dict[str, Any], renamed: dict[str, str]) -> dict[str, Any]:
    """The same where the second version wants it."""
    body: dict[str, Any] = {}
    inner: dict[str, Any] = {}
    for name, value in found.items():
        if name in _MODEL_OPTIONS or name == "response_format":
            inner[name] = value
        elif name == "reasoning_effort":
            inner["reasoning"] = {"effort": value}
            renamed[name] = "model_options.reasoning.effort"
        elif name == "functions":
            own = [tool for tool in value if not isinstance(tool.get("name"), str)]
            written = [tool for tool in value if isinstance(tool.get("name"), str)]
            body["tools"] = [*own, *([{"functions": {"specifications": written}}] if written else [])]
        elif name == "function_call":
            forced = {"mode": "forced", "function_name": value.get("name")} if isinstance(value, Mapping) else {"mode": value}
            body["tool_config"] = forced
        elif name == "profanity_check":
            body["disable_filter"] = not value
            renamed[name] = "disable_filter"
        else:
            body[name] = value
    if inner:
        body["model_options"] = {**inner, **body.get("model_options", {})}
    return body


def _functions(tools: Sequence[Any], *, second: bool) -> list[Any]:
    found = []
    for tool in tools:
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if isinstance(function, Mapping):
            # A function is called in keeping with its schema as well as the model can: there is no word for strictness.
            given = {key: value for key, value in function.items() if key != "strict" and value is not None}
            found.append({"parameters": {"type": "object", "properties": {}}, **given})
        elif second and _is_builtin(tool):
            found.append(tool)
        else:
            remedy = "" if second else ", or ask the second version of the API (base_url .../api/v2), which has tools of its own"
            raise InvalidRequestError(f"tools: {tool!r:.80} is no function, and this API knows no other tool: give functions{remedy}")
    return found


def _is_builtin(tool: Any) -> bool:
    """Whether this is a tool in the API's own form, as ``{"web_search": {}}``."""
    return isinstance(tool, Mapping) and "type" not in tool and len(tool) == 1 and isinstance(next(iter(tool.values())), Mapping)


def _choice(value: Any, tools: Sequence[Any]) -> Any:
    """What ``function_call`` says; ``None`` for what it has no word for."""
    if value in ("auto", "none"):
        return value
    if isinstance(value, Mapping) and isinstance(function := value.get("function"), Mapping):
        return {"name": function.get("name")}
    if value in ("required", "any"):
        # Of one function to be called it can be said by its name.
        return {"name": tools[0]["function"]["name"]} if len(tools) == 1 and isinstance(tools[0].get("function"), Mapping) else None
    raise InvalidRequestError(
        f'tool_choice is {value!r}: give "auto", "none", "required" or {{"type": "function", "function": {{"name": ...}}}}'
    )


def _format(value: Any, *, second: bool) -> dict[str, Any]:
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "json_schema":
        inner = value["json_schema"] if isinstance(value.get("json_schema"), Mapping) else value
        if not isinstance(inner.get("schema"), Mapping):
            raise InvalidRequestError(
                'response_format has no schema: give {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}'
            )
        found = {"type": kind, "schema": inner["schema"]}
        if inner.get("strict") is not None:
            found["strict"] = inner["strict"]
        return found
    if kind == "regex" and second:
        return dict(value)
    raise InvalidRequestError(f"response_format of type {kind!r} is not known here: give a json_schema")
