"""The engine behind ``QueryLLM``: what all objects with equal settings share."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from llm_master import pricing
from llm_master.dispatch import resolve
from llm_master.dispatch.call import Call
from llm_master.dispatch.capabilities import lacking_options, refuse_lacking, refuse_options
from llm_master.dispatch.health import Health
from llm_master.dispatch.hedging import Hedger
from llm_master.dispatch.hooks import Hooks
from llm_master.dispatch.keys import Key
from llm_master.dispatch.options import check_kinds, check_names, refuse, rename
from llm_master.dispatch.pools import Pools
from llm_master.dispatch.resolve import Resolver
from llm_master.dispatch.routes import Member, Route
from llm_master.dispatch.sharing import Keeper, Remembering, Sharing
from llm_master.dispatch.status import KeyStatus
from llm_master.dispatch.target import Target
from llm_master.errors import ConfigurationError, InvalidRequestError, MissingApiKeyError
from llm_master.messages import MediaPolicy, checked_conversation, has_media, instructed, kinds, loaded, normalized, with_attachments
from llm_master.model_registry import ModelRegistry
from llm_master.observing import Observing
from llm_master.providers.base import BaseLLMProvider, can_stream, load, translates
from llm_master.providers.sdk import translated
from llm_master.providers.short import BaseProvider, ShortForm
from llm_master.rows import ModelConfig, base_variable, canonical, key_variables
from llm_master.settings.declared import ModelSettings
from llm_master.settings.options import Options
from llm_master.settings.routes import RouteSettings
from llm_master.snapshot import Snapshot, provider_class
from llm_master.types import Message

if TYPE_CHECKING:
    from llm_master.structured import How, Wanted


class Engine:
    """What all ``QueryLLM`` objects with equal settings share: rows, keys, providers, resolved names."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._providers: dict[tuple[object, Key | None], BaseLLMProvider] = {}
        self._targets: dict[str, Target] = {}
        self._registry_version = ModelRegistry.CONFIGS.version
        self._drop = snapshot.options.on_unsupported == "drop"
        settings = snapshot.options
        self._pools = Pools(snapshot.rows, snapshot.keys, settings.clock, settings.max_concurrent, _keeper(settings))
        # What is known of how targets do is shared by all routes that have them.
        self._health: dict[str, Health] = {}
        self.routes = {name: self.route(name, declared) for name, declared in snapshot.routes.items()}
        self.hedger = Hedger(settings.hedge) if settings.hedge is not None else None
        self._observing = Observing(settings, snapshot.rows, self._pools)
        self._resolver = Resolver(
            snapshot.rows,
            usable=snapshot.usable,
            registered=self._registered,
            registered_names=lambda: [*snapshot.models, *snapshot.aliases, *ModelRegistry.list_models()],
            aliases=snapshot.aliases,
            preferred=snapshot.options.preferred_provider,
            missing=self._missing,
        )

    def call(
        self,
        model_name: str,
        messages: Sequence[Message] | None,
        prompt: str | None,
        response_format: Any,
        tools: Sequence[Mapping[str, Any]] | None,
        timeout: float | None,
        deadline: float | None,
        extra_body: Mapping[str, Any] | None,
        options: dict[str, Any],
    ) -> Call:
        """Check, resolve and translate one query. Nothing is sent yet."""
        conversation = checked_conversation(messages, prompt)
        drop = self._drop
        if options:
            if "on_unsupported" in options:
                drop = _drops(options.pop("on_unsupported"))
            if not ATTACHMENTS.isdisjoint(options):
                given = {_ATTACHED.get(name, name): options.pop(name) for name in ATTACHMENTS.intersection(options)}
                conversation = with_attachments(conversation, **{name: value for name, value in given.items() if value is not None})
            check_names(options)
            for value in options.values():
                if value is None:  # says "not given"
                    options = {name: value for name, value in options.items() if value is not None}
                    break
        if tools is not None:
            options["tools"] = tools
        target = self.target(model_name)
        route = target.route
        if route.options:
            options = {**route.options, **options}
        provider: BaseLLMProvider = target.line.slots[0].provider
        if target.settings is not None:
            conversation = instructed(conversation, target.settings)
        pending = None
        if has_media(conversation):
            pending = self.media_policy(target, provider)
            conversation = normalized(conversation, pending)
            refuse_lacking(kinds(conversation), target.lacking, model_name)
        renamed: dict[str, str] = {}
        dropped: list[str] = []
        if target.lacking:
            if target.is_refused:
                refuse_lacking(("chat",), target.lacking, model_name)
            if options and (asked := lacking_options(options, target.lacking)):
                if not drop:
                    refuse_options(asked, model_name)
                dropped += asked
                options = {name: value for name, value in options.items() if name not in asked}
        form = None
        if response_format is not None:
            from llm_master.structured import apply, choose, wanted

            if route.generator is not None or (form := wanted(response_format)) is None:
                options["response_format"] = response_format  # a generator's own, as url or mp3
            elif "chat" in target.lacking:
                raise InvalidRequestError(f"{model_name} is known not to chat, so it cannot hold to a response_format: leave it out")
            else:
                form = form.without(provider.refused_schema_words)
                how = choose(form, self._how(target, provider, form), options)
                conversation, options = apply(form, how, conversation, options)
        if target.renames and options:
            renamed, refused = rename(options, target.renames, route.provider)
            refuse(refused, route.provider, drop=drop)
            dropped += refused
        if route.generator is None and translates(provider):
            if provider.needs_max_tokens and target.max_output_tokens and options.keys().isdisjoint(_MAX_TOKENS):
                options["max_tokens"] = target.max_output_tokens
            check_kinds(options)
            said = provider.translate(route.model, options)
            refuse(said.unsupported, route.provider, drop=drop)
            options = said.options
            renamed |= said.renamed
            dropped += said.dropped + said.unsupported
        call = self._call(target, conversation, options, renamed, dropped, timeout, deadline, extra_body)
        if pending is not None:
            call.before = [_loading(pending)]
        if form is not None:
            call.wanted, call.how, call.receipt.structured_output = form, how, how
        return call

    def operation(
        self,
        name: str,
        capability: str,
        model_name: str,
        payload: Sequence[Any],
        timeout: float | None,
        deadline: float | None,
        extra_body: Mapping[str, Any] | None,
        options: dict[str, Any],
    ) -> Call:
        """Check and resolve one call of a provider's other methods, which are given ``payload`` and the wire id."""
        drop = _drops(options.pop("on_unsupported")) if "on_unsupported" in options else self._drop
        check_names(options)
        options = {option: value for option, value in options.items() if value is not None}
        target = self.target(model_name)
        provider: BaseLLMProvider = target.line.slots[0].provider
        refuse_lacking((capability,), target.lacking, model_name)
        if getattr(type(provider), name) is getattr(BaseLLMProvider, name):
            raise provider.cannot(OPERATIONS[name])
        options = {**target.route.options, **options}
        renamed, refused = rename(options, target.renames, target.route.provider)
        refuse(refused, target.route.provider, drop=drop)
        return self._call(target, payload, options, renamed, refused, timeout, deadline, extra_body, name)

    def _call(
        self,
        target: Target,
        payload: Sequence[Any],
        options: dict[str, Any],
        renamed: Mapping[str, str],
        dropped: Sequence[str],
        timeout: float | None,
        deadline: float | None,
        extra_body: Mapping[str, Any] | None,
        operation: str | None = None,
    ) -> Call:
        if extra_body is not None:
            if not isinstance(extra_body, Mapping):
                raise InvalidRequestError(f'extra_body is a {type(extra_body).__name__}: give a dict, as {{"top_k": 40}}')
            options.update(extra_body)
        if timeout is None:
            timeout = target.row.timeout
        if deadline is None:
            deadline = self.snapshot.options.deadline
        if timeout.__class__ not in _NUMBERS or not timeout > 0:
            raise InvalidRequestError(f"timeout is {timeout!r}: give seconds above 0")
        if deadline.__class__ not in _NUMBERS or not deadline > 0:
            raise InvalidRequestError(f"deadline is {deadline!r}: give seconds above 0")
        settings = self.snapshot.options
        return Call(
            target,
            target.line,
            payload,
            options,
            renamed,
            dropped,
            operation=operation,
            streams=target.streams,
            timeout=timeout,
            deadline=deadline,
            max_attempts=settings.max_attempts,
            clock=settings.clock,
            translate=translated,
            hooks=self.hooks,
        )

    def adopt(self, name: str, key: Key | None, provider: BaseLLMProvider) -> None:
        """Take an object that is there already for the row's."""
        self._providers[name, key] = provider

    def route(self, name: str, declared: RouteSettings) -> Route:
        """A route over this engine's models."""
        members = [Member(self, target, self._health.setdefault(target.model, Health())) for target in declared.targets]
        return Route(name, declared.strategy, members, self.snapshot.options.clock)

    @property
    def hooks(self) -> Hooks | None:
        """Who listens to queries, if anybody does."""
        return self._observing.look() if self._observing.undecided else self._observing.hooks

    def key_states(self) -> list[KeyStatus]:
        """How each key stands with each model that was asked so far."""
        return self._pools.states()

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

    def media_policy(self, target: Target, provider: BaseLLMProvider) -> MediaPolicy:
        """How media that go to this target are loaded."""
        settings = self.snapshot.options
        return MediaPolicy(
            # A generator is given the media themselves: what it does with them, only it knows.
            takes_urls=provider.takes_urls.union(target.row.takes_urls) if target.route.generator is None else frozenset(),
            urls_need_a_type=provider.urls_need_a_type,
            reads_text_files=provider.reads_text_files,
            max_bytes=settings.max_media_bytes,
            allow_private_urls=settings.allow_private_urls,
        )

    @staticmethod
    def _how(target: Target, provider: BaseLLMProvider, form: Wanted) -> How:
        """How an answer of a wanted form is asked for: by what the model is known to do, else by what its API has."""
        known: Mapping[str, bool] = (target.model.capabilities if target.model is not None else None) or {}
        if form.any_object:
            return "json_object" if known.get("json_mode", provider.takes_json_object) else "prompt"
        own = target.row.structured_output
        schemas = known.get("json_schema", own == "json_schema")
        this_one = not form.adaptable or provider.takes_schema(form.schema)
        ways: tuple[tuple[How, bool], ...] = (
            ("json_schema", schemas and this_one),
            ("json_object", own == "json_object" and known.get("json_mode", True)),
            ("tool", known.get("tools", own == "tool" or (schemas and not this_one))),
            ("json_object", known.get("json_mode", False)),
        )
        return next((how for how, goes in ways if goes), "prompt")

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
            if isinstance(generator, type) and issubclass(generator, (BaseLLMProvider, BaseProvider)):
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
        made: type[BaseLLMProvider] = cls or provider_class(row)
        provider = ShortForm(bound, made) if issubclass(made, BaseProvider) else made(bound)
        if not isinstance(provider, BaseLLMProvider):
            raise ConfigurationError(f"provider_class of provider {row.name!r} is no BaseLLMProvider: derive it from one")
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
        return MissingApiKeyError(
            f"{display} needs an API key and none is set (a blank one counts as none): set {' or '.join(key_variables(row))} in the "
            f"environment or in .env, or give {row.api_key_attr or f'{name}_api_key'}= to QueryLLM"
        )


def _keeper(settings: Options) -> Keeper | None:
    """Who keeps limits and what is known of keys, if the settings name anybody."""
    if settings.redis_url is not None:
        from llm_master.storage.shared import shared_at

        return Sharing(shared_at(settings.redis_url, settings.redis_prefix))
    if settings.state is not None:
        from llm_master.storage.state_file import state_at

        return Remembering(state_at(settings.state, settings.clock.time))
    return None


def _drops(unsupported: Any) -> bool:
    if unsupported not in ("error", "drop"):
        raise InvalidRequestError(f'on_unsupported is {unsupported!r}: give "error" or "drop"')
    return bool(unsupported == "drop")


def _loading(policy: MediaPolicy) -> Callable[[Call], Awaitable[None]]:
    async def load_media(call: Call) -> None:
        call.messages = await loaded(call.messages, policy)
        # Only what a file holds says what it is.
        refuse_lacking(kinds(call.messages), call.target.lacking, call.target.name)

    return load_media


OPERATIONS = {"embed": "make embeddings", "moderate": "moderate", "rerank": "rerank", "speech": "speak"}
"""The provider's other methods, in words."""

ATTACHMENTS = frozenset({"images", "image_paths", "image_details", "audio_paths", "files", "parts"})
"""Options that are no options but media, for the last user message."""

_ATTACHED = {"audio_paths": "audio"}

_MAX_TOKENS = frozenset({"max_tokens", "max_completion_tokens"})

_NUMBERS = (int, float)

_TARGETS = 10_000
"""Resolved names kept per engine. Names that come from users' input are unbounded in number."""
