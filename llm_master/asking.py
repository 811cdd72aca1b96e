"""From the arguments of a query to a call: the model, those who answer where it fails, and what is agreed beside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_master.dispatch.call import Call
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
        falls_back = fallback_model is not None or fallback_config is not None or engine.snapshot.options.enable_fallback
        given = dict(options) if falls_back else options
        call = engine.call(model_name, messages, prompt, response_format, tools, timeout, deadline, extra_body, options)
        if falls_back:
            content = (messages, prompt, response_format, tools, timeout, deadline, extra_body)
            call.fallbacks = list(_fallbacks(engine, call, fallback_model, fallback_config, content, given))
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
