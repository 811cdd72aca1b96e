"""``list_models``: what the providers list, with what is declared. An outage is told, and no list is ever made up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import attrs

from llm_master.dispatch.resolve import is_asked
from llm_master.dispatch.time_limit import TimeLimit
from llm_master.engine import Engine
from llm_master.errors import (
    AuthenticationError,
    InsufficientFundsError,
    LLMError,
    PermissionDeniedError,
    RateLimitError,
)
from llm_master.model_registry import ModelRegistry
from llm_master.providers.reach import check_timeout, failure, has_no_list, models_of
from llm_master.results import ListedModel, ModelList, ProviderModels
from llm_master.rows import canonical
from llm_master.storage.models_file import Listing

logger = logging.getLogger("llm_master.discovery")

_OTHER_KEY = (AuthenticationError, PermissionDeniedError, InsufficientFundsError, RateLimitError)
"""After which another key may be given the list."""


async def list_models(engine: Engine, provider: str | None, *, refresh: bool, timeout: float) -> ModelList:
    """The models of one provider or of all, which are asked at once, each with so many seconds."""
    check_timeout(timeout)
    names = list(engine.snapshot.rows) if provider is None else [engine.provider_named(provider)]
    engine.seen.look()
    found = await asyncio.gather(*(_models(engine, name, timeout, refresh=refresh) for name in names))
    if any(models.source == "provider" for models in found):
        await _in_a_thread(engine.seen.save)
    return ModelList({models.provider: models for models in found})


async def _in_a_thread(save: Callable[[], None]) -> None:
    """A disk may be slow, and other processes may hold the file. The loop's own threads may be busy with hosts that are not found."""
    executor = ThreadPoolExecutor(1)
    try:
        await asyncio.get_running_loop().run_in_executor(executor, save)
    finally:
        executor.shutdown(wait=False)


async def _models(engine: Engine, name: str, timeout: float, *, refresh: bool) -> ProviderModels:
    lacks = engine.why_unusable(name)
    if lacks is not None:
        return _declared_only(engine, name, ProviderModels(provider=name, state="unusable", error=lacks))
    listing = None if refresh else engine.seen.find(engine.fingerprint(name))
    options = engine.snapshot.options
    if listing is not None and 0 <= options.clock.time() - listing.at < options.models_ttl:
        return _merged(engine, name, listing, ProviderModels(provider=name, source="cache"))
    began = options.clock.monotonic()
    asked = await _ask(engine, name, timeout)
    if isinstance(asked, ProviderModels):
        return _declared_only(engine, name, asked)
    latency = options.clock.monotonic() - began
    return _merged(engine, name, engine.saw(name, asked), ProviderModels(provider=name, latency=latency))


async def _ask(engine: Engine, name: str, timeout: float) -> list[ListedModel] | ProviderModels:
    """The list by the first key that is given one; else why there is none."""
    clock = engine.snapshot.options.clock
    ends = clock.monotonic() + timeout
    text = ""
    try:
        providers = engine.providers(name)
    except LLMError as exc:  # its class cannot be loaded, for one
        return ProviderModels(provider=name, state="outage", error=str(exc))
    for provider, key in zip(providers, engine.snapshot.keys[name] or (None,), strict=True):
        left = ends - clock.monotonic()
        if left <= 0:
            break
        try:
            with TimeLimit(clock, left):
                return await models_of(provider)
        except Exception as exc:  # also of a user's own class: one provider must not take the others' lists away, and all of it is told
            if has_no_list(exc):
                return ProviderModels(provider=name, state="no_list", error=str(exc))
            error, text = failure(exc, provider, key, timeout)
            if not isinstance(error, LLMError) and not isinstance(exc, TimeoutError):
                logger.debug("%s: list_models() of %s failed", name, type(provider).__name__, exc_info=exc)
            if not isinstance(error, _OTHER_KEY):
                break
    row = engine.snapshot.rows[name]
    said = f"{row.display_name or row.name} did not list its models: {text}"
    logger.info("%s", said)
    return ProviderModels(provider=name, state="outage", error=said)


def _merged(engine: Engine, name: str, listing: Listing, about: ProviderModels) -> ProviderModels:
    declared = {model.id: model for model in _declared(engine, name)}
    found = [_with_declared(model, declared.pop(model.id, None)) for model in listing.models]
    return attrs.evolve(about, models=_asked(engine, name, [*found, *declared.values()]), fetched_at=listing.at)


def _declared_only(engine: Engine, name: str, about: ProviderModels) -> ProviderModels:
    return attrs.evolve(about, models=_asked(engine, name, _declared(engine, name)), source="declared")


def _with_declared(model: ListedModel, declared: ListedModel | None) -> ListedModel:
    if declared is None:
        return model
    window = model.context_window if model.context_window is not None else declared.context_window
    return attrs.evolve(model, declared=True, context_window=window)


def _asked(engine: Engine, name: str, models: Iterable[ListedModel]) -> tuple[ListedModel, ...]:
    row = engine.snapshot.rows[name]
    return tuple(model for model in models if is_asked(row, (model.id, f"{name}/{model.id}")))


def _declared(engine: Engine, name: str) -> list[ListedModel]:
    """The models that the settings, the registry and the row name, in this order."""
    row = engine.snapshot.rows[name]
    ids = [*row.models, *(model for model in row.generate_map if not model.endswith(("*", "}")))]
    if row.default_model is not None:
        ids.append(row.default_model)
    configs = {model: config for model, config in engine.snapshot.models.items() if _owner(model, config.provider) == name}
    configs |= {model: ModelRegistry.CONFIGS[model] for model in ModelRegistry.list_models(name) if model not in configs}
    known = {(model.partition("/")[2] if _owner(model, None) == name else model): config for model, config in configs.items()}
    windows = {model: config.context_window for model, config in known.items()}
    return [
        ListedModel(model, declared=True, discovered=False, context_window=windows.get(model)) for model in dict.fromkeys([*known, *ids])
    ]


def _owner(model: str, provider: str | None) -> str:
    return canonical(provider or model.partition("/")[0])
