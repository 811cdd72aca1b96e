"""Who answers in place of a model that fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_master.dispatch.call import Call
from llm_master.engine import ATTACHMENTS, Engine
from llm_master.errors import ConfigurationError, InvalidRequestError

_BESIDE = ATTACHMENTS | {"on_unsupported"}
"""Options that are no options of the model: they go with the conversation, whoever answers."""


def fallbacks(
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
