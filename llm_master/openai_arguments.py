"""What ``RotatingClient`` is given, in the words of ``LLMConfig`` and of ``QueryLLM.query``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_master.errors import ConfigurationError, InvalidRequestError

_ELSEWHERE = {
    "api_key": "give keys to the client: RotatingClient(api_keys={provider: [key]})",
    "api_base": "set <PROVIDER>_API_BASE, or base_url in the provider's row",
    "base_url": "set <PROVIDER>_API_BASE, or base_url in the provider's row",
    "custom_llm_provider": 'name the provider in model, as in "provider/model"',
    "extra_headers": "set headers in the provider's row, or <PROVIDER>_HEADERS",
    "extra_query": "set query in the provider's row",
    "max_retries": "give max_retries to the client",
    "num_retries": "give max_retries to the client",
    "fallbacks": "give fallback_model, a name or a list",
}
"""What other clients take with a call, and where it is said here. Sent on, it would be an option that no provider knows."""

_OF_A_MESSAGE = ("role", "content", "name", "tool_calls", "tool_call_id", "refusal", "function_call", "_native")
"""What of a message that is an object goes back to a provider. An answer holds more, which APIs refuse in a request."""


def without_empty(api_keys: Any) -> Any:
    """The keys without empty ones, and without providers that have no other; what is no mapping is refused by the settings."""
    if not isinstance(api_keys, Mapping):
        return api_keys
    found: dict[Any, Any] = {}
    for name, keys in api_keys.items():
        own = keys
        if isinstance(keys, (list, tuple)):
            own = [key for key in keys if key is not None and not (isinstance(key, str) and not key.strip())]
        if own is not None and own != [] and not (isinstance(own, str) and not own.strip()):
            found[name] = own
    return found


def row_fields(max_retries: Any, ignored: Any, wanted: Any, concurrent: Any) -> dict[str, dict[str, Any]]:
    """The client's settings as fields of rows."""
    found: dict[str, dict[str, Any]] = {}
    if max_retries is not None:
        if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
            raise ConfigurationError(f"max_retries is {max_retries!r}: give a whole number of at least 0 (0 means one send)")
        found["*"] = {"max_retries": max_retries}
    for argument, field, given in (
        ("ignore_models", "ignore_models", ignored),
        ("whitelist_models", "whitelist_models", wanted),
        ("max_concurrent_requests_per_key", "max_concurrent_per_key", concurrent),
    ):
        if given is not None and not isinstance(given, Mapping):
            raise ConfigurationError(f"{argument} is a {type(given).__name__}: give a dict by provider")
        for name, value in (given or {}).items():
            found.setdefault(name, {})[field] = value
    return found


def taken(arguments: dict[str, Any], *, stream: bool) -> tuple[Any, Any]:
    """Model and messages of a call, taken out of its arguments; what is left is for ``query``.

    Raises:
        InvalidRequestError: An argument that is said elsewhere here, or cannot be carried.
    """
    for name in arguments.keys() & _ELSEWHERE.keys():
        raise InvalidRequestError(f"{name!r} is no argument of a call here: {_ELSEWHERE[name]}")
    if bool(arguments.pop("stream", False)) is not stream:
        raise InvalidRequestError("pre_request_callback changed stream, which the caller relies on: leave it as it is")
    if not stream and arguments.get("stream_options") is not None:
        raise InvalidRequestError("stream_options is given without stream=True: give both, or neither")
    if stream and arguments.get("n") not in (None, 1):
        raise InvalidRequestError(f"n is {arguments['n']!r}: of a stream there is one choice: leave n out, or stream")
    return arguments.pop("model", None), as_dicts(arguments.pop("messages", None))


def wants_usage(arguments: dict[str, Any]) -> bool:
    """Whether ``stream_options`` asks for the usage. It is asked for in any case, so that only other options are left there."""
    options = arguments.pop("stream_options", None)
    if options is None:
        return False
    if not isinstance(options, Mapping):
        raise InvalidRequestError(f'stream_options is a {type(options).__name__}: give a dict, as {{"include_usage": True}}')
    if options.keys() - {"include_usage"}:
        arguments["stream_options"] = {**options, "include_usage": True}
    return bool(options.get("include_usage"))


def as_dicts(messages: Any) -> Any:
    """Messages that are objects, as those of earlier answers, as dicts."""
    if not isinstance(messages, (list, tuple)) or not any(hasattr(message, "model_dump") for message in messages):
        return messages
    return [_as_dict(message) if hasattr(message, "model_dump") else message for message in messages]


def _as_dict(message: Any) -> dict[str, Any]:
    dumped: Mapping[str, Any] = message.model_dump(exclude_none=True)
    kept = {name: dumped[name] for name in _OF_A_MESSAGE if name in dumped}
    if "content" not in kept:
        kept["content"] = None if "tool_calls" in kept else ""
    return kept
