"""``check_health``: whether providers answer and take their keys. It takes no lease and no limit, and marks no key."""

from __future__ import annotations

import asyncio
import logging

import attrs

from llm_master import errors as e
from llm_master.clock import Clock
from llm_master.dispatch.keys import Key
from llm_master.dispatch.time_limit import TimeLimit, TimeLimitPassed
from llm_master.engine import Engine
from llm_master.providers.base import BaseLLMProvider
from llm_master.providers.http import HTTPProvider
from llm_master.providers.reach import ask_with_key, check_timeout, failure, has_no_list, judges_itself, models_of
from llm_master.results import HealthState, KeyHealth, ProviderHealth

logger = logging.getLogger("llm_master.health")

_UNTOLD = "whether the key is valid cannot be told without a paid request (paid=True)"

_SAYS_NOTHING = (407, 408, 425, 429)
"""Refusals that are not for want of a key."""

_STATES: tuple[tuple[type[Exception], HealthState, str], ...] = (
    (e.ConfigurationError, "not_configured", ""),
    (e.AuthenticationError, "invalid", ""),
    (e.InsufficientFundsError, "valid", "; the key is valid, and its account has no funds"),
    (e.PermissionDeniedError, "unsupported", f"; it may not see the list of models, and {_UNTOLD}"),
    (e.RateLimitError, "unsupported", "; it answers, and has had too many requests for now: check again later"),
    (e.InvalidRequestError, "unsupported", f"; it answers, and {_UNTOLD}"),
)
"""What an error says of a key; any other is ``unreachable``. The first that fits."""


async def check_health(engine: Engine, provider: str | None, *, paid: bool, timeout: float) -> dict[str, ProviderHealth]:
    """How one provider, or all that can be asked, stand with each of their keys; all are asked at once, each with so many seconds."""
    check_timeout(timeout)
    if provider is None:
        names = [name for name in engine.snapshot.rows if engine.snapshot.usable(name)]
    else:
        names = [engine.provider_named(provider)]
    found = await asyncio.gather(*(_provider(engine, name, timeout, paid=paid) for name in names))
    return {health.provider: health for health in found}


async def _provider(engine: Engine, name: str, timeout: float, *, paid: bool) -> ProviderHealth:
    try:
        providers = engine.providers(name)
    except e.LLMError as exc:
        return ProviderHealth.of(name, [KeyHealth(state="not_configured", detail=str(exc))])
    keys = engine.snapshot.keys[name] or (None,)
    return ProviderHealth.of(
        name, await asyncio.gather(*(_key(engine, name, own, key, timeout, paid=paid) for own, key in zip(providers, keys, strict=True)))
    )


async def _key(engine: Engine, name: str, provider: BaseLLMProvider, key: Key | None, timeout: float, *, paid: bool) -> KeyHealth:
    clock = engine.snapshot.options.clock
    began = clock.monotonic()
    try:
        with TimeLimit(clock, timeout):
            found = await _by_request(engine, name, provider, key) if paid else await _for_free(provider)
    except Exception as exc:  # whatever it is, is what was asked for: how the provider stands
        found = _failed(exc, provider, key, timeout, paid=paid)
    latency = clock.monotonic() - began
    if found.status is None and found.state != "valid":
        return attrs.evolve(found, key=key.name if key is not None else None)
    if found.models is not None and provider.api_key and isinstance(provider, HTTPProvider):
        found = await _with_key_or_without(found, provider, clock, timeout - latency)
    return attrs.evolve(found, key=key.name if key is not None else None, latency=latency)


async def _for_free(provider: BaseLLMProvider) -> KeyHealth:
    """By what costs nothing: the row's place for it, the list of models, or what the provider's class says itself."""
    place = provider.config.paths.get("key")
    if place is not None and provider.api_key and isinstance(provider, HTTPProvider):
        await ask_with_key(provider, place)
        return KeyHealth(state="valid", detail="it answers, and takes the key", status=200)
    judges = judges_itself(provider)
    if judges is None:
        return KeyHealth(state="unsupported", detail=f"its class has no health_check of its own, and {_UNTOLD}")
    if judges:
        if await provider.health_check():
            return KeyHealth(state="valid", detail="its health_check() says yes")
        return KeyHealth(state="unreachable", detail="its health_check() says no")
    try:
        models = await models_of(provider)
    except e.InvalidRequestError as exc:
        if not has_no_list(exc):
            raise
        return KeyHealth(state="unsupported", detail=f"it has no list of models, and {_UNTOLD}")
    detail = "it lists its models for this key" if provider.api_key else "it answers, and wants no key"
    return KeyHealth(state="valid", detail=detail, status=200, models=len(models))


async def _with_key_or_without(found: KeyHealth, provider: HTTPProvider, clock: Clock, seconds: float) -> KeyHealth:
    """A list that everybody gets says nothing of a key, so it is asked for once more, without one."""
    try:
        with TimeLimit(clock, seconds):
            await models_of(type(provider)(attrs.evolve(provider.config, api_key=None)))
    except Exception as exc:  # the same, of the question without a key
        status = exc.status if isinstance(exc, e.ProviderError) else None
        if status is not None and 400 <= status < 500 and status not in _SAYS_NOTHING:
            return found
        logger.debug("%s: its list was not had without a key: %s", provider.config.name, type(exc).__name__)
        said = "it answers, and whether it does so without a valid key could not be found out"
        return attrs.evolve(found, state="unsupported", detail=f"{said}: {_UNTOLD}")
    return attrs.evolve(found, state="unsupported", detail=f"it answers, but gives its list of models without a key as well, so {_UNTOLD}")


async def _by_request(engine: Engine, name: str, provider: BaseLLMProvider, key: Key | None) -> KeyHealth:
    """By one request for one token."""
    model = engine.snapshot.rows[name].default_model
    try:
        if model is None:
            model = next((listed.id for listed in await models_of(provider)), None)
    except e.InvalidRequestError as exc:
        if not has_no_list(exc):
            raise
    if model is None:
        return KeyHealth(state="unsupported", detail="there is no model to ask: give its row a default_model")
    options = {"max_tokens": 1, "on_unsupported": "drop"}
    try:
        call = engine.call(f"{name}/{model}", None, "Hi", None, None, None, None, None, options)
    except e.LLMError as exc:
        return KeyHealth(state="unsupported", detail=f"its model {model} cannot be asked: {exc}")
    if call.target.route.generator is not None:
        return KeyHealth(state="unsupported", detail=f"its model {model} does not chat: give its row another default_model")
    bound: BaseLLMProvider = next(slot.provider for slot in call.line.slots if slot.state.key == key)
    await bound.generate(call.messages, call.target.route.model, **call.options)
    return KeyHealth(state="valid", detail=f"{model} answered a paid request, for one token", status=200)


def _failed(exc: Exception, provider: BaseLLMProvider, key: Key | None, timeout: float, *, paid: bool) -> KeyHealth:
    error, text = failure(exc, provider, key, timeout)
    status = error.status if isinstance(error, e.ProviderError) else None
    if not isinstance(error, (e.LLMError, TimeLimitPassed, OSError)):
        logger.warning("%s: the check of its health failed: %s", provider.config.name, text, exc_info=exc)
    elif isinstance(error, e.PermissionDeniedError) and "an HTML page" in text:
        text += "; something on the way refuses, and not the API"
    elif paid and isinstance(error, e.InvalidRequestError) and status not in (None, 404, 405, 407):
        return KeyHealth(state="valid", detail=f"the key was taken, and the request refused: {text}", status=status)
    elif status is None or (status != 407 and not 300 <= status < 400):
        for kind, state, also in _STATES:
            if isinstance(error, kind):
                return KeyHealth(state=state, detail=text + also, status=status)
    return KeyHealth(state="unreachable", detail=text, status=status)
