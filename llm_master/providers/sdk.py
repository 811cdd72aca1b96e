"""The openai SDK: which of its classes are stock ones, how its methods are called, and what its exceptions mean.

The only file that knows the SDK. It is never imported for it: an exception of the SDK can only exist where somebody
else has imported it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from llm_master.errors import ProviderConnectionError, ProviderError, RequestTimeoutError
from llm_master.providers.failures import Failure, error_of, failure_of, read_failure

_STOCK = frozenset({"AsyncOpenAI", "OpenAI", "AsyncAzureOpenAI", "AzureOpenAI"})


def is_stock(client_class: Any) -> bool:
    """Whether calls may bypass this class. A subclass or a wrapper is there to see them, so it gets them all."""
    if isinstance(client_class, str):
        module, _, name = client_class.partition(":")
    else:
        module, name = getattr(client_class, "__module__", ""), getattr(client_class, "__name__", "")
    return name in _STOCK and module.partition(".")[0] == "openai"


async def call(client: Any, method: str, **arguments: Any) -> Any:
    """Call ``client.<method>``, as ``images.generate``; a synchronous client's in a thread.

    What the method has no parameter for goes into ``extra_body``, which carries it as it is.
    """
    function = attrgetter(method)(client)
    parameters = inspect.signature(function).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        extra = {name: arguments.pop(name) for name in list(arguments) if name not in parameters}
        if extra:
            arguments["extra_body"] = {**arguments.get("extra_body", {}), **extra}
    if hasattr(client, "__aenter__"):
        return await function(**arguments)
    return await asyncio.to_thread(function, **arguments)


def translated(exc: Exception, model: str | None = None) -> Exception:
    """The library's error for an exception of the openai SDK, or of another client built the same way.

    Recognised by what it carries (``status_code`` and ``response``) or by its name, not by its class. What is neither is
    returned as it is: it is no provider's failure.
    """
    if isinstance(exc, ProviderError):
        return exc
    status = getattr(exc, "status_code", None)
    response = getattr(exc, "response", None)
    headers = getattr(response, "headers", None)
    if isinstance(status, int) and isinstance(headers, Mapping):
        return error_of(status, headers, _failure(exc, response), model=model)
    if any(cls.__module__.partition(".")[0] == "openai" for cls in type(exc).__mro__):
        names = {cls.__name__ for cls in type(exc).__mro__}
        cause = f": {exc.__cause__}" if exc.__cause__ is not None else ""
        if "APITimeoutError" in names:
            return RequestTimeoutError(f"{exc}{cause}", model=model)
        if "APIConnectionError" in names:
            return ProviderConnectionError(f"{exc}{cause}", model=model)
        if "APIError" in names:
            # Raised for an error event in a stream: no status, but the body.
            return error_of(None, {}, _failure(exc, None), model=model)
    return exc


def _failure(exc: Exception, response: Any) -> Failure:
    body = getattr(exc, "body", None)
    if body:
        return failure_of(body)
    content = getattr(response, "content", None)
    return read_failure(content) if isinstance(content, bytes) and content else Failure(str(exc))
