"""What Bedrock's errors mean: by the name of the exception, which stands in a header, in the body or in a stream's frame.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html, .../API_runtime_Converse.html#API_runtime_Converse_Errors,
https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from llm_master import errors as e
from llm_master.providers.failures import BAD_JSON, Failure, classify, request_id, retry_after

_NAMED: dict[str, type[e.ProviderError]] = {
    "throttling": e.RateLimitError,
    "toomanyrequests": e.RateLimitError,
    "servicequotaexceeded": e.RateLimitError,
    "accessdenied": e.PermissionDeniedError,
    "notauthorized": e.PermissionDeniedError,
    "optinrequired": e.PermissionDeniedError,
    "unrecognizedclient": e.AuthenticationError,
    "invalidclienttokenid": e.AuthenticationError,
    "expiredtoken": e.AuthenticationError,
    "invalidsignature": e.AuthenticationError,
    "signaturedoesnotmatch": e.AuthenticationError,
    "incompletesignature": e.AuthenticationError,
    "missingauthenticationtoken": e.AuthenticationError,
    "requestexpired": e.AuthenticationError,
    "validation": e.InvalidRequestError,
    "resourcenotfound": e.ModelNotFoundError,
    "modelnotready": e.ServerError,
    "modelerror": e.ServerError,
    "modelstreamerror": e.ServerError,
    "modeltimeout": e.RequestTimeoutError,
    "internalserver": e.ServerError,
    "internalfailure": e.ServerError,
    "serviceunavailable": e.ServerError,
}
"""Names in lower case, without ``Exception`` or ``Error`` at their end."""

_SAID: tuple[tuple[type[e.ProviderError], str], ...] = (
    (e.ModelNotFoundError, r"model identifier is invalid|model .{0,80}(not found|does not exist|end of its life)|on-demand throughput"),
    (
        e.ContextWindowExceededError,
        r"input is too long|too many (input )?tokens|prompt is too long|maximum context|exceeds? the .{0,40}(context|token)",
    ),
)
"""What a refused request says, in lower case, where its name does not tell."""

_UNKNOWN = r"security token|signature|api key|authentication (failed|token)|credential|bearer token"
"""What a denial says, in lower case, where it is not known who asks."""

_REMEDIES: tuple[tuple[str, str], ...] = (
    (r"on-demand throughput", "name an inference profile, as us. or global. before the model's id, or its ARN"),
    (r"signature (expired|not yet current)|request has expired", "is this machine's clock right?"),
    (r"security token .{0,40}expired|expiredtoken", "sign in again, or renew the credentials"),
    (
        r"security token .{0,60}invalid|unrecognizedclient",
        "are the credentials of this partition, and is AWS_SESSION_TOKEN that of the key?",
    ),
    (
        r"not authorized to perform|don't have access to the model",
        "allow bedrock:InvokeModel, and ask for access to the model in the console",
    ),
)


def error_named(name: str, said: str, status: int | None, *, model: str, headers: Mapping[str, str] | None = None) -> e.ProviderError:
    """The error for an exception of the API's.

    Args:
        name: Its name, as ``ThrottlingException``; a namespace before it and an address behind it are left out of account.
        said: Its message.
        status: HTTP status; ``None`` in a stream.
        model: The model as it was asked for.
        headers: Of the answer.
    """
    headers = headers or {}
    name = name.rpartition("#")[2].partition(":")[0]
    failure = Failure(said, (name,) if name else ())
    bare = name.lower().removesuffix("exception")
    kind = _NAMED.get(bare) or _NAMED.get(bare.removesuffix("error")) or classify(status, failure)
    lowered = said.lower()
    if kind in (e.InvalidRequestError, e.ModelNotFoundError):
        kind = next((refined for refined, pattern in _SAID if re.search(pattern, lowered)), kind)
        if kind is e.InvalidRequestError and status is not None:
            kind = classify(status, Failure(said))
    elif kind is e.PermissionDeniedError and (re.search(_UNKNOWN, lowered) or classify(403, Failure(said)) is e.AuthenticationError):
        kind = e.AuthenticationError
    remedy = next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, f"{lowered} {name.lower()}")), None)
    text = f"{status} {said}" if status is not None else said
    return kind(
        f"{text} ({remedy})" if remedy else text,
        status=status,
        model=model,
        request_id=request_id(headers),
        retry_after=retry_after(headers, failure) if issubclass(kind, (e.RateLimitError, e.ServerError)) else None,
        code=name or None,
    )


def content_of(body: bytes) -> dict[str, Any]:
    """An error's body, if it is an object."""
    try:
        content = msgspec.json.decode(body)
    except BAD_JSON:
        return {}
    return content if isinstance(content, dict) else {}


def message_in(body: bytes) -> str:
    """What an error's body says."""
    content = content_of(body)
    said = next((content[key] for key in ("message", "Message", "originalMessage") if isinstance(content.get(key), str)), None)
    return said or bytes(body[:200]).decode(errors="replace") or "nothing"
