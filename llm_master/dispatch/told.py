"""What is told of a call: the errors that it ends with, in words that name the thing and the remedy, and each attempt in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_master.dispatch.keys import Key
from llm_master.dispatch.limits import NEVER
from llm_master.dispatch.pool import NoCapacity
from llm_master.dispatch.retry import spoken
from llm_master.dispatch.time_limit import TimeLimitPassed
from llm_master.errors import (
    AuthenticationError,
    DeadlineExceededError,
    InsufficientFundsError,
    LLMError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    RequestTimeoutError,
)

if TYPE_CHECKING:
    from llm_master.dispatch.call import Call
    from llm_master.types import Attempt

logger = logging.getLogger("llm_master.dispatch")


def log_attempt(attempt: Attempt, number: int) -> None:
    """Write an attempt that has ended into the log: as a sentence, and as fields for a formatter that prints them."""
    logger.debug(
        "attempt %d: %s %s with %s: %s in %.3f s%s",
        number,
        attempt.provider,
        attempt.model,
        attempt.key or "no key",
        attempt.error or attempt.status or "answered",
        attempt.latency,
        f"; {attempt.then}" if attempt.then else "",
        extra={
            "attempt": number,
            "provider": attempt.provider,
            "model": attempt.model,
            "key": attempt.key,
            "status": attempt.status,
            "error_type": attempt.error_type,
            "latency": attempt.latency,
            "wait": attempt.wait,
            "request_id": attempt.request_id,
        },
    )


def out_of_time(call: Call, what: str | None = None) -> DeadlineExceededError:
    """The error for a deadline that passed."""
    provider = call.target.route.provider
    if what is not None:
        return DeadlineExceededError(f"the deadline of {call.deadline:g} s {what} {provider}; give more with deadline=")
    attempts = call.receipt.attempts
    before = attempts[-2].error if len(attempts) > 1 else None
    before = f" (before that: {before})" if before else ""
    return DeadlineExceededError(f"no answer from {provider} within the deadline of {call.deadline:g} s{before}; give more with deadline=")


def translated(call: Call, exc: Exception, translate: Callable[[Exception, str | None], Exception]) -> Exception:
    """The library's error for whatever was raised, naming the provider and hiding the key."""
    route = call.target.route
    if isinstance(exc, TimeLimitPassed):
        return RequestTimeoutError(
            f"no answer from {route.provider} within {call.timeout:g} s; give more with timeout=",
            provider=route.provider,
            model=route.model,
        )
    error = translate(exc, route.model)
    if isinstance(error, ProviderError):
        if error.provider is None:
            error.provider = route.provider
            error.args = (f"{error.provider}: {error.args[0]}" if error.args else error.provider,)
        if error.model is None:
            error.model = route.model
        if error.args and shows_a_key(call, error.args[0]):
            # Some providers repeat the key that they refuse.
            text = str(error.args[0])
            for key in keys_of(call):
                text = text.replace(key.secret, key.name)
            error.args = (text, *error.args[1:])
    return error


def keys_of(call: Call) -> list[Key]:
    """The keys that could have been used."""
    return [slot.state.key for slot in call.line.slots if slot.state.key is not None]


def shows_a_key(call: Call, said: object) -> bool:
    """Whether what is said holds a key."""
    text = str(said)
    return any(key.secret in text for key in keys_of(call))


def no_capacity(call: Call, exc: NoCapacity, waited: float, last: Exception | None) -> LLMError:
    """The error where no key can be had in time: what failed last, if anything did, with the outlook."""
    route = call.target.route
    if exc.wait == NEVER:
        said = f"no key of {route.provider} can be used: {exc.why}"
    else:
        returns = f"capacity returns in {spoken(exc.wait)} at the earliest" if exc.wait > 0 else "when capacity returns is not known"
        said = f"no capacity at {route.provider} within the deadline of {call.deadline:g} s: {exc.why}; {returns}"
        if waited > 0:
            said += f" (it waited {spoken(waited)})"
    if isinstance(last, LLMError):
        last.args = (f"{last.args[0] if last.args else type(last).__name__} ({said})",)
        if isinstance(last, ProviderError) and last.retry_after is None and 0 < exc.wait < NEVER:
            last.retry_after = exc.wait
        return last
    refusals = [refusal for slot in call.line.slots if (refusal := slot.state.refusal) is not None]
    if exc.wait == NEVER:
        kinds = (InsufficientFundsError, AuthenticationError, PermissionDeniedError)
        known = next((refusal for kind in kinds for refusal in refusals if issubclass(refusal.kind, kind)), None)
        kind = known.kind if known is not None else AuthenticationError
        what = f" It said: {known.text}" if known is not None else ""
        return kind(
            f"{said}. Set another key, or wait.{what}",
            status=known.status if known is not None else None,
            provider=route.provider,
            model=route.model,
            code=known.code if known is not None else None,
        )
    now = call.clock.monotonic()
    if all(slot.share.until > now or slot.state.until > now for slot in call.line.slots):
        # Nobody asked this time, since who was asked last said when to come again.
        return RateLimitError(said, status=429, provider=route.provider, model=route.model, retry_after=exc.wait)
    return DeadlineExceededError(f"{said}; give more with deadline=, more keys, or a fallback_model")
