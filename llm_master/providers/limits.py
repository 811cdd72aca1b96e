"""The ``x-ratelimit-*`` headers, which many formats share.

Source: https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from llm_master.providers.failures import duration
from llm_master.types import RateLimitState


def limits_in(headers: Mapping[str, str]) -> RateLimitState:
    """What an answer's headers say of requests and tokens. Resets are durations from now on, as ``1m30s``."""

    def number(name: str) -> int | None:
        text = headers.get(f"x-ratelimit-{name}", "").partition(".")[0]
        return int(text) if text.isdigit() else None

    def moment(name: str) -> float | None:
        seconds = duration(headers.get(f"x-ratelimit-{name}", ""))
        return None if seconds is None else time.time() + seconds

    return RateLimitState(
        requests_limit=number("limit-requests"),
        requests_remaining=number("remaining-requests"),
        requests_reset=moment("reset-requests"),
        tokens_limit=number("limit-tokens"),
        tokens_remaining=number("remaining-tokens"),
        tokens_reset=moment("reset-tokens"),
    )
