"""The ``x-ratelimit-*`` headers, which many formats share.

Source: https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers; without ``-requests`` and ``-tokens`` they are
those of many gateways: https://openrouter.ai/docs/api-reference/limits
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from llm_master.providers.failures import clock_of, duration
from llm_master.types import RateLimitState


def limits_in(headers: Mapping[str, str]) -> RateLimitState | None:
    """What an answer's headers say of requests and tokens; ``None``, where they say nothing."""
    if "x-ratelimit-remaining-requests" in headers or "x-ratelimit-remaining-tokens" in headers:
        return RateLimitState(
            requests_limit=whole(headers.get("x-ratelimit-limit-requests")),
            requests_remaining=whole(headers.get("x-ratelimit-remaining-requests")),
            requests_reset=_from_now(headers.get("x-ratelimit-reset-requests")),
            tokens_limit=whole(headers.get("x-ratelimit-limit-tokens")),
            tokens_remaining=whole(headers.get("x-ratelimit-remaining-tokens")),
            tokens_reset=_from_now(headers.get("x-ratelimit-reset-tokens")),
        )
    if "x-ratelimit-remaining" in headers:
        return RateLimitState(
            requests_limit=whole(headers.get("x-ratelimit-limit")),
            requests_remaining=whole(headers.get("x-ratelimit-remaining")),
            requests_reset=_from_now(headers.get("x-ratelimit-reset"), clock_of(headers)),
        )
    return None


def whole(text: str | None) -> int | None:
    """The whole number that a header says; ``None``, if it says none."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return int(number) if 0 <= number < float("inf") else None


def _from_now(text: str | None, now: float | None = None) -> float | None:
    seconds = duration(text or "")
    if seconds is None or seconds < _EPOCH:
        return seconds
    # No duration but a moment, in seconds or milliseconds since the epoch.
    return max(0.0, (seconds / 1000 if seconds > _EPOCH * 1000 else seconds) - (time.time() if now is None else now))


_EPOCH = 1e8
"""A number above is no duration, which would be three years."""
