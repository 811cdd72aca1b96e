"""Asking a provider something that costs nothing, and saying in plain words why it did not answer."""

from __future__ import annotations

from urllib.parse import urlsplit

from llm_master.dispatch.keys import Key
from llm_master.dispatch.time_limit import TimeLimitPassed
from llm_master.errors import ConfigurationError, InvalidRequestError, LLMError, ProviderError
from llm_master.providers.base import BaseLLMProvider
from llm_master.providers.bodies import json_of
from llm_master.providers.http import HTTPProvider
from llm_master.providers.listing import MAX_BYTES
from llm_master.providers.sdk import translated
from llm_master.providers.short import ShortForm
from llm_master.results import ListedModel

_OF_PROXIES = (502, 503, 504)


def check_timeout(timeout: float) -> None:
    """Raises ``InvalidRequestError`` for what is no time."""
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise InvalidRequestError(f"timeout is {timeout!r}: give seconds above 0")


async def models_of(provider: BaseLLMProvider) -> list[ListedModel]:
    """What the provider lists, by whichever of the two methods its class defines last.

    Raises:
        ProviderError: The provider refused it, could not be reached, or answered something else.
        InvalidRequestError: Without a status: it has no list.
    """
    owner = next(cls for cls in type(provider).__mro__ if not {"describe_models", "list_models"}.isdisjoint(vars(cls)))
    if "describe_models" in vars(owner):
        return list(await provider.describe_models())
    return [model if isinstance(model, ListedModel) else ListedModel(str(model)) for model in await provider.list_models()]


async def ask_with_key(provider: HTTPProvider, place: str) -> None:
    """Ask for what is shown to a valid key only.

    Raises:
        ProviderError: It was refused, or something else came.
    """
    base_url, path = (place, "") if place.startswith("http") else (None, place)
    # By the way of a call, which has a token fetched where one is needed.
    endpoint = await provider.endpoint(path, {}) if base_url is None else provider.new_endpoint(path, provider.headers({}), base_url)
    answer = await endpoint.get(max_bytes=MAX_BYTES)
    if not 200 <= answer.status < 300:
        raise provider.refused(answer, "", endpoint)
    json_of(answer)


def judges_itself(provider: BaseLLMProvider) -> bool | None:
    """Whether its class has a ``health_check`` of its own, that knows better than the list; ``None``: one that always says yes."""
    owner = next(cls for cls in type(provider).__mro__ if not _FREE.isdisjoint(vars(cls)))
    if isinstance(provider, ShortForm):
        return None if provider.always_healthy else True
    return "health_check" in vars(owner) and "list_models" not in vars(owner) and "describe_models" not in vars(owner)


_FREE = frozenset({"describe_models", "list_models", "health_check"})


def has_no_list(exc: Exception) -> bool:
    """Whether an error of :func:`models_of` says that there is none to ask for."""
    return isinstance(exc, InvalidRequestError) and exc.status is None


def failure(exc: Exception, provider: BaseLLMProvider, key: Key | None, seconds: float) -> tuple[Exception, str]:
    """The error as the library's own, and what to tell of it: what happened, who may be in the way, what to change.

    Args:
        exc: What was raised.
        provider: Who was asked.
        key: With which key; it does not stand in the text, even where the provider repeats it.
        seconds: How long it had.
    """
    error = translated(exc)
    if isinstance(error, TimeLimitPassed):
        text = f"no answer within {seconds:g} s"
    else:
        text = str(error) if isinstance(error, LLMError) and str(error) else f"{type(error).__name__}: {error}".rstrip(": ")
    if key is not None:
        text = text.replace(key.secret, key.name)
    hint = None if isinstance(error, ConfigurationError) else _hint(error, text, provider)
    return error, f"{text}; {hint}" if hint else text


def _hint(error: Exception, text: str, provider: BaseLLMProvider) -> str | None:
    status = error.status if isinstance(error, ProviderError) else None
    is_page = "an HTML page" in text
    base_url = provider.config.base_url or ""
    proxy = _proxy(provider)
    if status == 407:
        return "this is a proxy's answer, which wants a login: put one into HTTP_PROXY, as http://user:password@proxy:port"
    if proxy is not None and (is_page or status in _OF_PROXIES or isinstance(error, TimeLimitPassed)):
        return f"the way leads through the proxy {proxy}, and this may be its doing: name the host in NO_PROXY to go without it"
    if (is_page or status in (404, 405)) and urlsplit(base_url).path in ("", "/"):
        return f"base_url is {base_url}: is /v1 missing at its end?"
    if is_page and status is not None and status < 400:
        return "or a network that asks for a login first has answered"
    return None


def _proxy(provider: BaseLLMProvider) -> str | None:
    if not isinstance(provider, HTTPProvider) or not provider.config.base_url:
        return None
    try:
        return provider.new_endpoint("/models", {}).proxy
    except ConfigurationError:
        return None
