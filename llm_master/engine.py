"""The engine behind ``QueryLLM``: what all objects with equal settings share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_master.dispatch.call import Call
from llm_master.dispatch.capabilities import lacking_options, refuse_lacking, refuse_options
from llm_master.dispatch.hedging import Hedger
from llm_master.dispatch.hooks import Hooks
from llm_master.dispatch.options import check_kinds, check_names, refuse, rename
from llm_master.dispatch.target import Target
from llm_master.errors import InvalidRequestError
from llm_master.messages import MediaPolicy, checked_conversation, has_media, instructed, kinds, loaded, normalized, with_attachments
from llm_master.names import Names
from llm_master.observing import Observing
from llm_master.providers.base import BaseLLMProvider, translates
from llm_master.providers.sdk import translated
from llm_master.snapshot import Snapshot
from llm_master.types import Message

if TYPE_CHECKING:
    from llm_master.structured import How, Wanted


class Engine(Names):
    """What all ``QueryLLM`` objects with equal settings share: rows, keys, providers, resolved names, and who listens."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(snapshot)
        settings = snapshot.options
        self._drop = settings.on_unsupported == "drop"
        self.hedger = Hedger(settings.hedge) if settings.hedge is not None else None
        self._observing = Observing(settings, snapshot.rows, self._pools)

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
                excluded = any(options.get(name) for name in provider.schema_excludes)
                how = "prompt" if excluded else choose(form, self._how(target, provider, form), options)
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

    @property
    def hooks(self) -> Hooks | None:
        """Who listens to queries, if anybody does."""
        return self._observing.look() if self._observing.undecided else self._observing.hooks

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
