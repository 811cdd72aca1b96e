"""From the arguments of a query to a call: the model, those who answer where it fails, and what is agreed beside."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llm_master.dispatch.call import Call
from llm_master.dispatch.routes import Member, Route
from llm_master.dispatch.successors import Successors
from llm_master.engine import ATTACHMENTS, Engine
from llm_master.errors import ConfigurationError, InvalidRequestError, LLMError
from llm_master.types import Message

_BESIDE = ATTACHMENTS | {"on_unsupported"}
"""Options that are no options of the model: they go with the conversation, whoever answers."""


def asked(
    engine: Engine,
    model_name: str,
    messages: Sequence[Message] | None,
    prompt: str | None,
    moderation: Any,
    response_format: Any,
    repair: Any,
    tools: Sequence[Mapping[str, Any]] | None,
    timeout: float | None,
    deadline: float | None,
    fallback_model: str | Sequence[str] | None,
    fallback_config: Mapping[str, Any] | None,
    priority: int,
    extra_body: Mapping[str, Any] | None,
    options: dict[str, Any],
    *,
    stream: bool,
    sends: bool = True,
) -> Call:
    """Check, resolve and translate a query and its fallbacks. Nothing is sent yet; ``sends`` says whether anything is to be."""
    try:
        if moderation is not True and moderation:
            options["moderation"] = moderation  # the provider's own option of that name
        asked_options = dict(options) if engine.hedger is not None else options
        route = engine.routes.get(model_name) if engine.routes and isinstance(model_name, str) else None
        falls_back = fallback_model is not None or fallback_config is not None or engine.snapshot.options.enable_fallback
        given = dict(options) if falls_back else options
        content = (messages, prompt, response_format, tools, timeout, deadline, extra_body)
        call = engine.call(model_name, *content, options) if route is None else on_route(route, content, options)
        if falls_back:
            fallbacks = _fallbacks(engine, call, fallback_model, fallback_config, content, given)
            call.successors = call.successors or Successors()
            call.successors.add(fallbacks)
        if engine.hedger is not None and not stream:
            again = (lambda: engine.call(model_name, *content, dict(asked_options))) if route is None else None
            call.again = lambda first: _hedge(first, again)
        if priority:
            if isinstance(priority, bool) or not isinstance(priority, int):
                raise InvalidRequestError(f"priority is {priority!r}: give a whole number; of those that wait, the higher goes first")
            call.priority = priority
        if repair:
            if call.wanted is None:
                raise InvalidRequestError("repair=True mends an answer of a wanted form: give response_format as well, or leave repair out")
            if stream:
                raise InvalidRequestError("repair=True needs the whole answer before it is shown: leave stream out, or repair")
            call.repair = True
        if moderation is True:
            from llm_master import operations

            call.before = [*(call.before or ()), operations.judge(engine)]
        return call
    except LLMError as exc:
        if sends and (hooks := engine.hooks) is not None:
            hooks.refused(model_name, exc)
        raise


def _hedge(first: Call, again: Callable[[], Call] | None) -> Call | None:
    """A second call beside one that is slow: with a key of another quota, or of another target of its route."""
    if first.lease is None:
        return None
    if again is None:
        return first.successors.take(fallback=False) if first.successors is not None and first.successors.has_free() else None
    quota = first.lease.slot.share.quota
    others = {slot.state for slot in first.line.slots if slot.share.quota != quota}
    if not others:
        return None
    call = again()
    call.refused = frozenset(slot.state for slot in call.line.slots if slot.state not in others)
    return call


def on_route(route: Route, content: tuple[Any, ...], options: Mapping[str, Any]) -> Call:
    """A call to the target that a route chooses now; its others answer where that one fails.

    Raises:
        ConfigurationError: None of its targets can be asked; each with the reason.
    """

    def build(member: Member) -> Call:
        call: Call = member.engine.call(member.model, *content, {**member.options, **options})
        return call

    successors = Successors(route=route, build=build)
    call = successors.take()
    if call is None:
        reasons = "".join(f"\n  - {reason}" for reason in successors.skipped)
        raise ConfigurationError(f"no target of route {route.name!r} can be asked this:{reasons}")
    call.successors = successors
    receipt = call.receipt
    receipt.model_name = route.name
    call.why = receipt.why = f"route {route.name!r}, {route.strategy}; {receipt.why}"
    return call


def _fallbacks(
    engine: Engine,
    call: Call,
    names: str | Sequence[str] | None,
    config: Mapping[str, Any] | None,
    content: tuple[Any, ...],
    options: Mapping[str, Any],
) -> Iterator[Call]:
    """The calls that take over, one after the other: where ``enable_fallback`` says so, the same model elsewhere; then those named.

    Raises:
        InvalidRequestError: A name or an option that cannot be one; told before anything is sent.
        ConfigurationError: A fallback that cannot be asked, as one without a key.
    """
    messages, prompt, response_format, tools, timeout, deadline, extra_body = content
    if engine.snapshot.options.enable_fallback:
        for name in engine.elsewhere(call):
            # One that does not take what was asked would answer another question.
            with contextlib.suppress(InvalidRequestError, ConfigurationError):
                yield engine.call(name, messages, prompt, response_format, tools, timeout, deadline, extra_body, dict(options))
    if names is None:
        if config is not None:
            raise InvalidRequestError("fallback_config is given without a fallback_model: name the model that takes over")
        return
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise InvalidRequestError(f"fallback_model is {names!r}: give a model's name, or a list of names")
    if config is not None and not isinstance(config, Mapping):
        raise InvalidRequestError(f'fallback_config is a {type(config).__name__}: give options, as {{"temperature": 0}}')
    beside = {name: value for name, value in options.items() if name in _BESIDE}
    for name in names:
        own = {**beside, **(config or {})}
        arguments = (own.pop("response_format", response_format), own.pop("tools", tools), own.pop("timeout", timeout), deadline)
        try:
            yield engine.call(name, messages, prompt, *arguments, own.pop("extra_body", None), own)
        except (InvalidRequestError, ConfigurationError) as exc:
            exc.args = (f"fallback_model {name!r}: {exc}", *exc.args[1:])
            raise
