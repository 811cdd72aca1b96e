"""Which name leads where: the rows, keys, models and routes of one engine, and the objects that speak with them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs

from llm_master import pricing
from llm_master.dispatch import resolve
from llm_master.dispatch.call import Call
from llm_master.dispatch.health import Health
from llm_master.dispatch.keys import Key
from llm_master.dispatch.pools import Pools
from llm_master.dispatch.resolve import Resolver
from llm_master.dispatch.routes import Member, Route
from llm_master.dispatch.sharing import Keeper, Remembering, Sharing, fingerprint
from llm_master.dispatch.status import KeyStatus
from llm_master.dispatch.target import Target
from llm_master.errors import ConfigurationError, MissingApiKeyError
from llm_master.model_registry import ModelRegistry
from llm_master.model_rows import ModelConfig
from llm_master.providers.base import BaseLLMProvider, can_stream, load
from llm_master.providers.interface import InterfaceForm, ProviderInterface
from llm_master.providers.short import BaseProvider, ShortForm
from llm_master.row_classes import provider_class
from llm_master.rows import ProviderConfig, base_variable, canonical, key_variables
from llm_master.settings.declared import ModelSettings
from llm_master.settings.options import Options
from llm_master.settings.routes import RouteSettings
from llm_master.snapshot import Snapshot

if TYPE_CHECKING:
    from llm_master.results import ListedModel
    from llm_master.storage.models_file import Listing, SeenModels


class Names:
    """Resolves names over the rows of one snapshot, and keeps what was made for them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._providers: dict[tuple[object, Key | None], BaseLLMProvider] = {}
        self._targets: dict[str, Target] = {}
        self._registry_version = ModelRegistry.CONFIGS.version
        settings = snapshot.options
        self._pools = Pools(snapshot.rows, snapshot.keys, settings.clock, settings.max_concurrent, _keeper(settings))
        # What is known of how targets do is shared by all routes that have them.
        self._health: dict[str, Health] = {}
        self._fingerprints: dict[str, str] = {}
        self.routes = {name: self.route(name, declared) for name, declared in snapshot.routes.items()}
        self._resolver = Resolver(
            snapshot.rows,
            usable=snapshot.usable,
            registered=self._registered,
            registered_names=lambda: [*snapshot.models, *snapshot.aliases, *ModelRegistry.list_models()],
            aliases=snapshot.aliases,
            preferred=snapshot.options.preferred_provider,
            missing=self._missing,
            listed=self._listed,
        )

    @cached_property
    def seen(self) -> SeenModels:
        """What the providers list, as far as they have been asked: looked at when a name is met that nothing else explains."""
        from llm_master.storage.models_file import models_at

        return models_at(self.snapshot.models_file, self.snapshot.options.clock.time)

    def key_states(self) -> list[KeyStatus]:
        """How each key stands with each model that was asked so far."""
        return self._pools.states()

    def adopt(self, name: str, key: Key | None, provider: BaseLLMProvider) -> None:
        """Take an object that is there already for the row's."""
        self._providers[name, key] = provider

    def route(self, name: str, declared: RouteSettings) -> Route:
        """A route over this engine's models."""
        members = [Member(self, target, self._health.setdefault(target.model, Health())) for target in declared.targets]
        return Route(name, declared.strategy, members, self.snapshot.options.clock)

    def elsewhere(self, call: Call) -> list[str]:
        """Names by which other usable providers know the same model."""
        route = call.target.route
        asked = {call.target.name.rpartition("/")[2], route.model, route.model.rpartition("/")[2]}
        found = []
        for name, row in self.snapshot.rows.items():
            if name == route.provider or not self.snapshot.usable(name):
                continue
            known = {model: f"{name}/{model}" for model in asked if model in row.models or self._config(model, name) is not None}
            # A gateway knows it with its maker's name before it.
            gateway = f"{route.provider}/{route.model}"
            if gateway in row.models or f"{name}/{gateway}" in ModelRegistry.CONFIGS:
                known[gateway] = f"{name}/{gateway}"
            found += list(known.values())[:1]
        return found

    def target(self, model_name: str) -> Target:
        """Resolve a name; what was once resolved is kept until the registry changes."""
        if self._registry_version != ModelRegistry.CONFIGS.version:
            self._registry_version = ModelRegistry.CONFIGS.version
            self._targets.clear()
        try:
            found = self._targets.get(model_name)
        except TypeError:
            found = None
        if found is not None:
            return found
        if isinstance(model_name, str) and model_name in self.routes:
            raise ConfigurationError(
                f"{model_name!r} is a route, of several models: query() and stream() take it, this takes one of its targets"
            )
        route = self._resolver.resolve(model_name)
        row = self.snapshot.rows[route.provider]
        cls = None
        if route.generator is not None:
            generator: Any = route.generator
            is_path = isinstance(generator, str) and ":" in generator
            if is_path:
                generator = load(generator, f"generate_map of provider {row.name!r}")
            if isinstance(generator, type) and issubclass(generator, (BaseLLMProvider, BaseProvider, ProviderInterface)):
                cls, generator = generator, None
            elif isinstance(generator, type) or not (callable(generator) or (isinstance(generator, str) and not is_path)):
                raise ConfigurationError(
                    f"generate_map of provider {row.name!r} names {route.generator!r} for {route.model!r}, which is neither a function nor "
                    "a provider class: give an async function (provider, messages, model, **options), or a BaseLLMProvider"
                )
            route = attrs.evolve(route, generator=generator)
        config = self._config(route.model, route.provider) or self._config(model_name, route.provider)
        settings = self._settings(model_name, route)
        if settings is not None and settings.options:
            alias = self.snapshot.aliases.get(model_name)
            own = alias.options if alias is not None else {}
            route = attrs.evolve(route, options={**route.options, **settings.options, **own})
        look_up: Callable[[], Any] | None = None
        if config is None and not row.skip_cost_calculation and row.base_url and pricing.may_look_up(row.base_url):
            base_url, model = row.base_url, route.model

            def look_up() -> Any:
                return pricing.look_up(base_url, model)

        kind: object = (route.provider, cls) if cls is not None else route.provider

        def bind(key: Key | None) -> BaseLLMProvider:
            return self._provider(route, kind, cls, key)

        line = self._pools.line(route.provider, kind, route.model, config, bind)
        if len(self._targets) >= _TARGETS:
            self._targets.clear()
        target = self._targets[model_name] = Target(
            model_name, route, row, config, look_up, line, settings if settings is not None and settings.system_instruction else None
        )
        # Of a model that is known not to stream, and of what a generator makes, the whole is the only piece.
        target.streams = target.streams and route.generator is None and can_stream(line.slots[0].provider)
        return target

    def provider_named(self, name: str) -> str:
        """The row of the provider that goes by this name, however it is spelt.

        Raises:
            ConfigurationError: There is none; offers the nearest.
        """
        found = self._resolver.provider_named(name) if isinstance(name, str) else None
        if found is None:
            near = difflib.get_close_matches(canonical(str(name)), self.snapshot.rows, 1)
            hint = f"did you mean {near[0]!r}?" if near else "name one of PROVIDER_CONFIGS, or set its <PROVIDER>_API_BASE"
            raise ConfigurationError(f"there is no provider {name!r}: {hint}")
        return found

    def why_unusable(self, name: str) -> str | None:
        """What a provider lacks to be asked; ``None`` where it lacks nothing."""
        return None if self.snapshot.usable(name) else str(self._missing(name))

    def fingerprint(self, name: str) -> str:
        """Under which its list of models is kept: it stands for the row's address, what is sent along, and all keys."""
        found = self._fingerprints.get(name)
        if found is None:
            row = self.snapshot.rows[name]
            sent = (*sorted(row.headers.items()), ("",) * 2, *sorted(row.query.items()), ("",) * 2, *sorted(row.paths.items()))
            parts = (name, row.base_url or "", *(text for pair in sent for text in pair))
            found = self._fingerprints[name] = fingerprint(*parts, *(key.secret for key in self.snapshot.keys[name]))
        return found

    def saw(self, name: str, models: Sequence[ListedModel]) -> Listing:
        """Keep what a provider lists, in memory: from now on it may lead names there."""
        from llm_master.storage.models_file import Listing

        listing = Listing(name, self.snapshot.options.clock.time(), tuple(models))
        self.seen.keep(self.fingerprint(name), listing)
        self._targets.clear()  # some may have led to whoever listed a model before
        return listing

    def _listed(self, name: str) -> list[str]:
        """The providers that list a model of this name, in the table's order; no request is made."""
        self.seen.look()
        lists = ((provider, self.seen.find(self.fingerprint(provider))) for provider in self.snapshot.rows)
        return [provider for provider, listing in lists if listing is not None and name in listing.ids]

    def providers(self, name: str) -> list[BaseLLMProvider]:
        """A provider's objects, one for each key; one where no key is required.

        Raises:
            ConfigurationError: The provider cannot be asked: what it lacks, and what to set.
        """
        if not self.snapshot.usable(name):
            raise self._missing(name)
        route = resolve.Route(name, "", {}, None, "named")
        return [self._provider(route, name, None, key) for key in self.snapshot.keys[name] or (None,)]

    def _provider(self, route: resolve.Route, kind: object, cls: type | None, key: Key | None) -> BaseLLMProvider:
        provider = self._providers.get((kind, key))
        if provider is not None:
            return provider
        row = self.snapshot.rows[route.provider]
        bound = attrs.evolve(row, api_key=key.secret if key is not None else None)
        provider = new_provider(bound, cls)
        provider.clock = self.snapshot.options.clock
        provider.key_source = key.source if key is not None else ""
        # Of two threads that come here at once, both get the object that was first.
        return self._providers.setdefault((kind, key), provider)

    def _config(self, name: str, provider: str | None = None) -> ModelConfig | None:
        """What is known of a model: by the settings, else by the registry."""
        own = self.snapshot.models
        if own and (found := own.get(f"{provider}/{name}" if provider else name) or own.get(name)) is not None:
            return found
        return ModelRegistry.get_config(name, provider) if provider else ModelRegistry.get_config(name)

    def _settings(self, model_name: str, route: resolve.Route) -> ModelSettings | None:
        """How the settings have a model asked, by whichever name they know it."""
        known = self.snapshot.model_settings
        alias = self.snapshot.aliases.get(model_name)
        asked = alias.model if alias is not None else model_name
        names = [model_name, asked]
        # Settings may have it under the provider's own name for it, or under the wire id, each with the provider or without.
        head = re.match("[^/:]+[/:]", asked)
        own = asked[head.end() :] if head and self._resolver.provider_named(head[0][:-1]) == route.provider else asked
        for name in (own, route.model):
            names += [f"{route.provider}/{name}", name]
        return next((known[name] for name in names if name in known), None)

    def _registered(self, name: str) -> str | None:
        head, slash, _ = name.partition("/")
        config = self._config(name)
        if config is None:
            return None
        return config.provider or (head if slash and canonical(head) in self.snapshot.rows else None)

    def _missing(self, name: str) -> ConfigurationError:
        """What a provider that is not usable lacks."""
        row = self.snapshot.rows[name]
        display = row.display_name or row.name
        if not row.enabled:
            origin = self.snapshot.origins.get((name, "enabled"), "its row")
            return ConfigurationError(f"{display} is switched off by {origin}: switch it on, or name another provider")
        if not row.requires_key or self.snapshot.keys[name]:
            return ConfigurationError(f"{display} has no address: set {base_variable(row)}, or base_url in its row")
        variables = " or ".join((*key_variables(row), *row.ambient_keys))
        return MissingApiKeyError(
            f"{display} needs an API key and none is set (a blank one counts as none): set {variables} in the "
            f"environment or in .env, or give {row.api_key_attr or f'{name}_api_key'}= to QueryLLM"
        )


def new_provider(row: ProviderConfig, cls: type | None = None) -> BaseLLMProvider:
    """The provider's object of a row that has its key bound, of the row's class or of another."""
    made: type[Any] = cls or provider_class(row)
    if issubclass(made, BaseProvider):
        return ShortForm(row, made)
    if issubclass(made, ProviderInterface):
        return InterfaceForm(row, made)
    provider = made(row)
    if not isinstance(provider, BaseLLMProvider):
        raise ConfigurationError(f"provider_class of provider {row.name!r} is no BaseLLMProvider: derive it from one")
    return provider


def _keeper(settings: Options) -> Keeper | None:
    """Who keeps limits and what is known of keys, if the settings name anybody."""
    if settings.redis_url is not None:
        from llm_master.storage.shared import shared_at

        return Sharing(shared_at(settings.redis_url, settings.redis_prefix))
    if settings.state is not None:
        from llm_master.storage.state_file import state_at

        return Remembering(state_at(settings.state, settings.clock.time))
    return None


_TARGETS = 10_000
"""Resolved names kept per engine. Names that come from users' input are unbounded in number."""
