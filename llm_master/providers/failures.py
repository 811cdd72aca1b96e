"""From what a provider answered to the error that it means: by status, then by the body's code, then by its text.

The tables below are the whole knowledge of how providers word their refusals. No provider is named: the same words
are used by many, and a proxy speaks with the words of whoever stands behind it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import msgspec

from llm_master import errors as e

BY_CODE: dict[type[e.ProviderError], frozenset[str]] = {
    e.InsufficientFundsError: frozenset(
        "insufficient_quota billing_hard_limit_reached billing_not_active insufficient_balance insufficient_credits "
        "exceeded_current_quota_error 1113 insufficient_user_quota billing_error".split()
    ),
    e.AuthenticationError: frozenset(
        "invalid_api_key invalid_authentication_error incorrect_api_key_error authentication_error api_key_invalid "
        "unauthenticated wrong_api_key invalid_key account_deactivated 1000 1001 1002 1003".split()
    ),
    e.ContextWindowExceededError: frozenset(
        "context_length_exceeded exceed_context_size_error context_window_exceeded max_tokens_exceeded "
        "input_too_long prompt_too_long 1261".split()
    ),
    e.ContentPolicyError: frozenset(
        "content_policy_violation content_filter content_policy responsibleaipolicyviolation data_inspection_failed "
        "moderation_blocked safety image_content_policy_violation misalignment_policy_violation bio_policy 1301".split()
    ),
    e.ModelNotFoundError: frozenset(
        "model_not_found invalid_model model_not_available resource_not_found_error not_found_error 1211".split()
    ),
    e.RateLimitError: frozenset(
        "rate_limit_exceeded rate_limit_error rate_limit_reached_error rate_limited resource_exhausted "
        "too_many_requests 1302 1303 1305".split()
    ),
    # The rest is read only where no status says it: in an error that came under 200.
    e.PermissionDeniedError: frozenset("permission_error permission_denied permissiondenied".split()),
    e.InvalidRequestError: frozenset("invalid_request_error invalid_request bad_request badrequesterror invalid_argument".split()),
    e.ServerError: frozenset("server_error internal_server_error overloaded_error engine_overloaded_error unavailable".split()),
}
"""Codes and types of error bodies, in lower case."""

BY_TEXT: tuple[tuple[type[e.ProviderError], str], ...] = (
    (
        e.ContextWindowExceededError,
        (
            r"context (length|window|size)|maximum (context|prompt length|input length)|too many (input )?tokens|prompt (is|was) too long|"
            r"(input|prompt|request).{0,40}exceed(s|ed)? .{0,60}(context|token)|reduce the length of the (messages|prompt)|"
            r"input (token )?length .{0,60}(exceeds|too long)|tokens \+ `?max_new_tokens`? must be|current length is .{0,40}while limit is|"
            r"longer than the model|maximum number of tokens allowed"
        ),
    ),
    (
        e.InsufficientFundsError,
        (
            r"insufficient (balance|funds|credit|quota)|exceeded your current quota, please check your plan|out of credits|"
            r"requires more credits|(doesn't|does not) have any credits|used all available credits|balance is too low|"
            r"(top up|add) .{0,20}(credit|balance|fund)|payment required|depleted .{0,40}credit"
        ),
    ),
    (
        e.AuthenticationError,
        (
            r"(invalid|incorrect|wrong|expired|missing|malformed|not a valid|no).{0,20}(api[ _-]?key|api[ _-]?token|credential|access token)|"
            r"api[ _-]?key.{0,40}(invalid|incorrect|not valid|not found|expired|disabled|revoked|missing|required)|unauthori[sz]ed"
        ),
    ),
    (
        e.ContentPolicyError,
        (
            r"content (management )?policy|content filter|content exists risk|safety (system|policy|reasons)|(input|output|prompt|request) was flagged|"
            r"flagged (by|as|for)|violat\w+ .{0,30}(polic(y|ies)|guidelines)|prohibited content|blocked (input|output)|considered high risk"
        ),
    ),
    (
        e.ModelNotFoundError,
        r"model\b.{0,120}(not (be )?found|does ?n[o']t exist|not exist|unknown|not available|is not supported|no longer)|(unknown|invalid|no such) model|not a valid model",
    ),
    (e.RateLimitError, r"rate.?limit|too many requests|try again in \d"),
)
"""What error texts say, matched in lower case, the first that fits. Compiled when the first error comes."""

_ALLOWED: dict[int, tuple[type[e.ProviderError], ...]] = {
    400: (
        e.AuthenticationError,
        e.InsufficientFundsError,
        e.ContextWindowExceededError,
        e.ContentPolicyError,
        e.ModelNotFoundError,
    ),
    401: (e.InsufficientFundsError,),
    403: (e.AuthenticationError, e.InsufficientFundsError, e.ContentPolicyError),
    404: (),
    413: (e.ContextWindowExceededError,),
    422: (e.ContextWindowExceededError, e.ContentPolicyError, e.ModelNotFoundError),
    429: (e.InsufficientFundsError,),
    498: (e.ContentPolicyError,),
}
"""To what a body may refine a status. A status that is not here is not refined."""

_BY_STATUS: dict[int, type[e.ProviderError]] = {
    401: e.AuthenticationError,
    402: e.InsufficientFundsError,
    403: e.PermissionDeniedError,
    404: e.ModelNotFoundError,
    408: e.RequestTimeoutError,
    409: e.ServerError,
    410: e.ModelNotFoundError,
    425: e.ServerError,
    429: e.RateLimitError,
    498: e.ServerError,
}

BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError)
"""What decoding raises for bytes that are no JSON."""

UNREADABLE = (*BAD_JSON, TypeError, AttributeError, LookupError, ValueError)
"""What reading an answer raises that is none. Leaves are not checked one by one, since providers differ in exactly those: a list where
all others have a text is the provider's fault, and found out by whoever uses it as a text."""

_TITLE = rb"(?is)<title[^>]*>(.*?)</title>"
_SHOWN = 500
"""Characters of a provider's text that an error shows."""


@attrs.frozen
class Failure:
    """What an error body says, whatever its shape."""

    message: str
    codes: tuple[str, ...] = ()
    status: int | None = None
    detail: Any = None


def read_failure(body: bytes) -> Failure:
    """Find message and codes in an error body: JSON of any known shape, HTML or text."""
    try:
        return failure_of(msgspec.json.decode(body))
    except BAD_JSON:
        pass  # not JSON: HTML or text, read below
    if found := re.search(_TITLE, body):
        return Failure(f"an HTML page: {_clean(found[1])}")
    if body.lstrip()[:1] == b"<":
        return Failure("an HTML page")
    return Failure(_clean(body) or "an empty body")


def failure_of(content: Any) -> Failure:
    """Find message and codes in a decoded error body."""
    if isinstance(content, list) and content:
        content = content[0]
    if not isinstance(content, dict):
        return Failure(_clean(str(content)) if content else "an empty body")
    inner = content.get("error", content)
    if isinstance(inner, str):
        inner = {**content, "message": inner}
    if not isinstance(inner, dict):
        inner = content
    message = next((inner[key] for key in ("message", "detail", "msg", "error_message", "errors") if inner.get(key)), None)
    if message is None and inner is not content:
        message = next((content[key] for key in ("message", "detail") if content.get(key)), None)
    if isinstance(message, dict) and isinstance(message.get("detail"), list):
        message = message["detail"]
    if isinstance(message, list):
        # FastAPI's validation errors: each says where and what.
        message = "; ".join(
            f"{'.'.join(map(str, loc))}: {item.get('msg', item)}"
            if isinstance(item, dict) and isinstance(loc := item.get("loc"), list)
            else str(item)
            for item in message
        )
    metadata = inner.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("raw"), str):
        message = f"{message}: {metadata['raw']}"
    codes = [inner.get("code"), inner.get("type"), inner.get("status"), content.get("code"), content.get("type")]
    for item in details if isinstance(details := inner.get("details"), list) else ():
        if isinstance(item, dict):
            codes.append(item.get("reason"))
    innererror = inner.get("innererror")
    if isinstance(innererror, dict):
        codes.append(innererror.get("code"))
    number = next(
        (c for c in (inner.get("status_code"), content.get("status_code"), *codes) if isinstance(c, int) and 400 <= c < 600), None
    )
    texts = tuple(dict.fromkeys(str(c) for c in codes if isinstance(c, (str, int)) and c not in ("", "error")))
    return Failure(_clean(str(message)) if message else _clean(msgspec.json.encode(content)), texts, number, inner)


def classify(status: int | None, failure: Failure) -> type[e.ProviderError]:
    """The error that a failure means: status first, then code, then text."""
    if status is None or 200 <= status < 300:
        # An error object under 200. Its own number, if it has one, is the status it should have had.
        if failure.status is not None:
            return classify(failure.status, failure)
        return _by_code(failure.codes, BY_CODE) or _by_text(failure.message, BY_CODE) or e.ServerError
    found = _BY_STATUS.get(status)
    if found is None:
        found = e.ServerError if status >= 500 else e.InvalidRequestError
    allowed = _ALLOWED.get(status, ())
    if status == 429 and _hinted(failure) is not None:
        # Who says when to come again does not mean that the money is gone, whatever else the text says.
        allowed = ()
    return _by_code(failure.codes, allowed) or _by_text(failure.message, allowed) or found


def _by_code(codes: Iterable[str], allowed: Iterable[type[e.ProviderError]]) -> type[e.ProviderError] | None:
    lowered = {code.lower() for code in codes}
    return next((kind for kind in BY_CODE if kind in allowed and not lowered.isdisjoint(BY_CODE[kind])), None)


def _by_text(message: str, allowed: Iterable[type[e.ProviderError]]) -> type[e.ProviderError] | None:
    text = message.lower()
    return next((kind for kind, pattern in BY_TEXT if kind in allowed and re.search(pattern, text)), None)


def error_of(
    status: int | None,
    headers: Mapping[str, str],
    failure: Failure,
    *,
    model: str | None = None,
    url: str | None = None,
) -> e.ProviderError:
    """The error for a failure. The engine adds the provider's name."""
    kind = classify(status, failure)
    message = failure.message
    if status is not None and 300 <= status < 400:
        message = f"moved to {headers.get('Location', 'another address')}; set base_url to where the API is now"
    elif status in (404, 405) and url and not failure.codes:
        # Most often not the model but the address is wrong, and only the address can tell.
        message = f"{message} (from {url}: is base_url right?)"
    return kind(
        f"{status} {message}" if status is not None and status >= 300 else message,
        status=status,
        model=model,
        request_id=request_id(headers),
        retry_after=retry_after(headers, failure) if issubclass(kind, (e.RateLimitError, e.ServerError)) else None,
        code=failure.codes[0] if failure.codes else None,
    )


def request_id(headers: Mapping[str, str]) -> str | None:
    """The id under which the provider knows the request."""
    found = headers.get("x-request-id")
    if found:
        return found
    # Providers put their own name before it.
    own = [value for name, value in headers.items() if value and name.lower().endswith(_ID_ENDINGS)]
    return own[0] if own else headers.get("cf-ray")


_ID_ENDINGS = ("request-id", "requestid", "reqid", "correlation-id", "trace-id", "generation-id")


_DURATION = r"(\d+(?:\.\d+)?)\s*(milliseconds?|ms|microseconds?|us|µs|seconds?|s|minutes?|mins?|m|hours?|h|days?|d)(?![a-z])"
_UNITS = {
    "ms": 1e-3,
    "mil": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "mic": 1e-6,
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "hou": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
}
_HINT = r"(?:try again|retry)(?: after| in)? ((?:\d+(?:\.\d+)?\s*(?:ms|s|m|h|seconds?|minutes?|hours?)[\s,]*)+)"


def duration(text: str) -> float | None:
    """Seconds of ``1m30s``, ``6ms``, ``17s``, ``1.5`` or ``2 minutes``; ``None`` for anything else."""
    text = text.strip().lower()
    try:
        seconds = float(text)
    except ValueError:
        parts = re.findall(_DURATION, text)
        if not parts or re.sub(_DURATION, "", text).strip(" ,"):
            return None
        seconds = sum(float(number) * _UNITS[unit if unit in _UNITS else unit[:3]] for number, unit in parts)
    return seconds if 0 <= seconds < float("inf") else None


def timestamp(text: str) -> float | None:
    """Seconds since the epoch of an RFC 3339 time; ``None`` for anything else."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _date(text: str | None) -> float | None:
    """Seconds since the epoch of an HTTP date; ``None`` for anything else."""
    if not text:
        return None
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None


def clock_of(headers: Mapping[str, str]) -> float:
    """What time it is for who answered, in seconds since the epoch: by its own ``Date``, else by this machine's clock."""
    return _date(headers.get("date")) or time.time()


def retry_after(headers: Mapping[str, str], failure: Failure, *, now: float | None = None) -> float | None:
    """Seconds until the provider wants to be asked again.

    Read from, in this order: ``retry-after-ms``; ``retry-after`` as seconds, float or HTTP date; Google's ``RetryInfo``;
    the error's text; the ``x-ratelimit-reset-*`` of what is used up.
    """
    if now is None:
        now = clock_of(headers)
    if (text := headers.get("retry-after-ms")) and (milliseconds := duration(text)) is not None:
        return milliseconds / 1000
    if text := headers.get("retry-after"):
        if (seconds := duration(text)) is not None:
            return seconds
        if (moment := _date(text)) is not None:
            return max(0.0, moment - now)
    if (hinted := _hinted(failure)) is not None:
        return hinted
    used_up: list[float] = []
    for name, value in headers.items():
        lowered = name.lower()
        if "-ratelimit-" in lowered and lowered.endswith("-reset") and not lowered.startswith("x-"):
            # One header for each limit, with the moment at which it is whole again.
            moment = timestamp(value)
            if moment is not None and headers.get(lowered.removesuffix("reset") + "remaining") == "0":
                used_up.append(max(0.0, moment - now))
            continue
        if not lowered.startswith("x-ratelimit-reset"):
            continue
        seconds = duration(value)
        if seconds is None:
            continue
        if seconds > 1e11:  # epoch in milliseconds
            seconds = seconds / 1000 - now
        elif seconds > 1e8:  # epoch in seconds
            seconds -= now
        if headers.get(lowered.replace("reset", "remaining", 1), "0").split(".")[0] in ("0", ""):
            used_up.append(max(0.0, seconds))
    return max(used_up) if used_up else None


def _hinted(failure: Failure) -> float | None:
    """Seconds to wait as the body says: in Google's ``RetryInfo``, or in its text."""
    detail = failure.detail if isinstance(failure.detail, dict) else {}
    for item in detail.get("details") or () if isinstance(detail.get("details"), list) else ():
        if not isinstance(item, dict) or not str(item.get("@type", "")).endswith("RetryInfo"):
            continue
        if (seconds := duration(str(item.get("retryDelay", "")))) is not None:
            return seconds
    hint = re.search(_HINT, failure.message.lower())
    return duration(hint[1]) if hint else None


def _clean(text: str | bytes) -> str:
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
