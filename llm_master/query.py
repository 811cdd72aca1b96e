"""``QueryLLM``, the one entry point, and the engine behind it."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, overload

import attrs

from llm_master import pricing, transport
from llm_master.background import run_in_background
from llm_master.dispatch.call import Call, Target
from llm_master.dispatch.options import check_kinds, check_names, refuse, rename
from llm_master.dispatch.resolve import Resolver
from llm_master.dispatch.stream import LLMStream
from llm_master.errors import ConfigurationError, InvalidRequestError, MissingApiKeyError
from llm_master.messages import checked_conversation
from llm_master.model_registry import ModelRegistry
from llm_master.provider_configs import (
    PROVIDER_CONFIGS,
    LLMConfig,
    effective,
)
from llm_master.providers.base import BaseLLMProvider, can_stream, translates
from llm_master.providers.sdk import translated
from llm_master.providers.short import BaseProvider, ShortForm
from llm_master.rows import base_variable, key_variables
from llm_master.settings.environment import Environment, current_environment
from llm_master.snapshot import Snapshot, provider_class
from llm_master.types import LLMResponse, Message, Plan


class QueryLLM:
    """Asks any model of any provider.

    Objects with equal settings share one engine in this process, so that making one per query is right and cheap.
    May be used from several event loops and threads at once.

    Args:
        config: Settings; the environment and ``.env`` where it says nothing.
        **overrides: Fields of ``LLMConfig`` that win over ``config``.

    Raises:
        TypeError: An override that is no field of ``LLMConfig``.
        ConfigurationError: A key, an address or an option that cannot be one.
    """

    __slots__ = ("_engine",)

    def __init__(self, config: LLMConfig | None = None, **overrides: Any) -> None:
        if config is not None and not isinstance(config, LLMConfig):
            raise TypeError(f"config is a {type(config).__name__}: give an LLMConfig, or fields by name as in QueryLLM(openai_api_key=...)")
        self._engine = engine_for(config, overrides)

    async def __aenter__(self) -> QueryLLM:
        transport.enter()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        await transport.leave()

    @overload
    async def query(
        self,
        model_name: str,
        messages: Sequence[Message] | None = None,
        *,
        prompt: str | None = None,
        stream: Literal[False] = False,
        response_format: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        timeout: float | None = None,
        deadline: float = 600,
        extra_body: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> LLMResponse: ...

    @overload
    async def query(
        self,
        model_name: str,
        messages: Sequence[Message] | None = None,
        *,
        prompt: str | None = None,
        stream: Literal[True],
        response_format: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        timeout: float | None = None,
        deadline: float = 600,
        extra_body: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> LLMStream: ...

    async def query(
        self,
        model_name: str,
        messages: Sequence[Message] | None = None,
        *,
        prompt: str | None = None,
        stream: bool = False,
        response_format: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        timeout: float | None = None,
        deadline: float = 600,
        extra_body: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> LLMResponse | LLMStream:
        """Ask a model.

        Args:
            model_name: ``"gpt-4.1"``, ``"groq/openai/gpt-oss-20b"``, a provider's name for its default model, ...
            messages: The conversation, as in OpenAI's chat completions; every field is kept. Or else ``prompt``.
            prompt: One user message.
            stream: Return an ``LLMStream`` after its first delta.
            response_format: As in OpenAI's chat completions.
            tools: Functions that the model may call, as in OpenAI's chat completions.
            timeout: Seconds for one attempt; of a stream, to the first delta and between deltas. The row's if ``None``.
            deadline: Seconds for the query with all its waits and repetitions.
            extra_body: Added to the request's body as it is.
            **options: ``temperature``, ``max_tokens``, ...; names that are not known go to the provider as they are.

        Raises:
            InvalidRequestError: Before sending: prompt and messages both or neither, a message without role, a misspelt
                option. After: the provider refused the request.
            LLMError: See ``llm_master.errors``; each carries ``.receipt`` once something was tried.
        """
        call, provider = self._engine.call(model_name, messages, prompt, response_format, tools, timeout, deadline, extra_body, options)
        if stream:
            return await LLMStream(call, streams=_streams(call, provider)).connect()
        return await call.answer()

    def stream(
        self,
        model_name: str,
        messages: Sequence[Message] | None = None,
        *,
        prompt: str | None = None,
        response_format: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        timeout: float | None = None,
        deadline: float = 600,
        extra_body: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> LLMStream:
        """Ask a model for its answer in pieces; arguments and errors as in :meth:`query`. Connects at first iteration."""
        call, provider = self._engine.call(model_name, messages, prompt, response_format, tools, timeout, deadline, extra_body, options)
        return LLMStream(call, streams=_streams(call, provider))

    def plan(
        self,
        model_name: str,
        messages: Sequence[Message] | None = None,
        *,
        prompt: str | None = None,
        stream: bool = False,
        response_format: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        timeout: float | None = None,
        deadline: float = 600,
        extra_body: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Plan:
        """What :meth:`query` would send with these arguments: resolved and translated, the key masked. Sends nothing.

        It need not be awaited, and may be.
        """
        call, provider = self._engine.call(model_name, messages, prompt, response_format, tools, timeout, deadline, extra_body, options)
        if call.target.route.generator is None:
            plan = provider.plan(call.messages, call.target.route.model, stream=stream, **call.options)
        else:
            # What a generator sends, only it knows; this is what it is given.
            plan = BaseLLMProvider.plan(provider, call.messages, call.target.route.model, stream=False, **call.options)
        receipt = call.receipt
        plan.provider, plan.model, plan.why = receipt.provider, call.target.route.model, receipt.why
        plan.renamed, plan.dropped = receipt.renamed, receipt.dropped
        plan.key = call.key.name if call.key is not None else None
        return plan

    def query_sync(self, model_name: str, messages: Sequence[Message] | None = None, **arguments: Any) -> LLMResponse:
        """:meth:`query` for scripts and notebooks: blocks until the answer is there, also where an event loop runs.

        The query runs on an event loop of its own thread, with the same engine.
        """
        if arguments.get("stream"):
            raise InvalidRequestError("query_sync() returns a whole answer: use stream() in an event loop for pieces")
        response = run_in_background(lambda: self.query(model_name, messages, **arguments))
        assert isinstance(response, LLMResponse)
        return response


def _streams(call: Call, provider: BaseLLMProvider) -> bool:
    return call.target.route.generator is None and can_stream(provider)


class Engine:
    """What all ``QueryLLM`` objects with equal settings share: rows, keys, providers, resolved names."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._providers: dict[str, BaseLLMProvider] = {}
        self._targets: dict[str, Target] = {}
        self._registry_version = ModelRegistry.CONFIGS.version
        self._drop = snapshot.options.on_unsupported == "drop"
        self._resolver = Resolver(
            snapshot.rows,
            usable=snapshot.usable,
            registered=self._registered,
            registered_names=ModelRegistry.list_models,
            preferred=snapshot.options.preferred_provider,
            missing=self._missing,
        )

    def call(
        self,
        model_name: str,
        messages: Sequence[Message] | None,
        prompt: str | None,
        response_format: Mapping[str, Any] | None,
        tools: Sequence[Mapping[str, Any]] | None,
        timeout: float | None,
        deadline: float,
        extra_body: Mapping[str, Any] | None,
        options: dict[str, Any],
    ) -> tuple[Call, BaseLLMProvider]:
        """Check, resolve and translate one query. Nothing is sent yet."""
        conversation = checked_conversation(messages, prompt)
        drop = self._drop
        if "on_unsupported" in options:
            if (unsupported := options.pop("on_unsupported")) not in ("error", "drop"):
                raise InvalidRequestError(f'on_unsupported is {unsupported!r}: give "error" or "drop"')
            drop = unsupported == "drop"
        if options:
            check_names(options)
            if any(value is None for value in options.values()):  # None says "not given"
                options = {name: value for name, value in options.items() if value is not None}
        if response_format is not None:
            options["response_format"] = response_format
        if tools is not None:
            options["tools"] = tools
        target = self.target(model_name)
        route = target.route
        if route.options:
            options = {**route.options, **options}
        keys = self.snapshot.keys[route.provider]
        provider = self._providers.get(route.provider) or self._provider(route.provider)
        renamed: dict[str, str] = {}
        dropped: list[str] = []
        if target.renames and options:
            renamed, dropped = rename(options, target.renames, route.provider)
            refuse(dropped, route.provider, drop=drop)
        if route.generator is None and translates(provider):
            if provider.needs_max_tokens and target.max_output_tokens and options.keys().isdisjoint(_MAX_TOKENS):
                options["max_tokens"] = target.max_output_tokens
            check_kinds(options)
            said = provider.translate(route.model, options)
            refuse(said.unsupported, route.provider, drop=drop)
            options = said.options
            renamed |= said.renamed
            dropped += said.dropped + said.unsupported
        if extra_body is not None:
            if not isinstance(extra_body, Mapping):
                raise InvalidRequestError(f'extra_body is a {type(extra_body).__name__}: give a dict, as {{"top_k": 40}}')
            options.update(extra_body)
        if timeout is None:
            timeout = target.row.timeout
        for name, seconds in (("timeout", timeout), ("deadline", deadline)):
            if seconds.__class__ not in _NUMBERS or not seconds > 0:
                raise InvalidRequestError(f"{name} is {seconds!r}: give seconds above 0")
        settings = self.snapshot.options
        call = Call(
            target,
            provider,
            keys[0] if keys else None,
            conversation,
            options,
            renamed,
            dropped,
            timeout=timeout,
            deadline=deadline,
            max_attempts=settings.max_attempts,
            clock=settings.clock,
            translate=translated,
        )
        return call, provider

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
        route = self._resolver.resolve(model_name)
        row = self.snapshot.rows[route.provider]
        config = ModelRegistry.get_config(route.model, route.provider) or ModelRegistry.get_config(model_name, route.provider)
        look_up: Callable[[], Any] | None = None
        if config is None and not row.skip_cost_calculation and row.base_url and pricing.may_look_up(row.base_url):
            base_url, model = row.base_url, route.model

            def look_up() -> Any:
                return pricing.look_up(base_url, model)

        if len(self._targets) >= _TARGETS:
            self._targets.clear()
        target = self._targets[model_name] = Target(model_name, route, row, config, look_up)
        return target

    def _provider(self, name: str) -> BaseLLMProvider:
        row = self.snapshot.rows[name]
        keys = self.snapshot.keys[name]
        bound = attrs.evolve(row, api_key=keys[0].secret if keys else None)
        cls = provider_class(row)
        provider = ShortForm(bound, cls) if issubclass(cls, BaseProvider) else cls(bound)
        if not isinstance(provider, BaseLLMProvider):
            raise ConfigurationError(f"provider_class of provider {row.name!r} is no BaseLLMProvider: derive it from one")
        # Of two threads that come here at once, both get the object that was first.
        return self._providers.setdefault(name, provider)

    @staticmethod
    def _registered(name: str) -> str | None:
        head, slash, _ = name.partition("/")
        config = ModelRegistry.get_config(name)
        if config is None:
            return None
        return config.provider or (head if slash and head in PROVIDER_CONFIGS else None)

    def _missing(self, name: str) -> ConfigurationError:
        """What a provider that is not usable lacks."""
        row = self.snapshot.rows[name]
        display = row.display_name or row.name
        if not row.requires_key or self.snapshot.keys[name]:
            return ConfigurationError(f"{display} has no address: set {base_variable(row)}, or base_url in its row")
        return MissingApiKeyError(
            f"{display} needs an API key and none is set (a blank one counts as none): set {' or '.join(key_variables(row))} in the "
            f"environment or in .env, or give {row.api_key_attr or f'{name}_api_key'}= to QueryLLM"
        )


_MAX_TOKENS = frozenset({"max_tokens", "max_completion_tokens"})

_NUMBERS = (int, float)

_TARGETS = 10_000
"""Resolved names kept per engine. Names that come from users' input are unbounded in number."""

_ENGINES = 64
"""Engines kept although nobody holds one, so that a ``QueryLLM()`` per query finds the same again."""

_recent: OrderedDict[tuple[Any, ...], Engine] = OrderedDict()
_all: weakref.WeakSet[Engine] = weakref.WeakSet()
_engines_lock = threading.Lock()


def engine_for(config: LLMConfig | None, overrides: Mapping[str, Any]) -> Engine:
    """The engine for these settings: an existing one wherever they are equal to its."""
    global _last_default
    default = config is None and not overrides
    if default:
        environment = current_environment()
        last = _last_default
        if last is not None and last[0] is environment and last[1] == PROVIDER_CONFIGS.version:
            return last[2]
    if overrides:
        config = config.replace(overrides) if config is not None else LLMConfig(**overrides)
    elif config is None:
        config = _DEFAULT
    # Cheap and exact: the same environment object, the same fields, the same table.
    environment = config.environment
    quick = (config.fingerprint(), environment, PROVIDER_CONFIGS.version)
    try:
        with _engines_lock:
            engine = _recent.get(quick)
            if engine is not None:
                _recent.move_to_end(quick)
                if default:
                    _last_default = (environment, quick[2], engine)
                return engine
    except TypeError:
        raise ConfigurationError("a field of LLMConfig has a value of the wrong kind: keys, addresses and names are strings") from None
    snapshot = effective(config)
    with _engines_lock:
        engine = next((known for known in _all if known.snapshot == snapshot), None)
        if engine is None:
            engine = Engine(snapshot)
            _all.add(engine)
        _recent[quick] = engine
        if len(_recent) > _ENGINES:
            _recent.popitem(last=False)
    return engine


_last_default: tuple[Environment, int, Engine] | None = None
_DEFAULT = LLMConfig()
