"""Bodies of requests and answers in JSON, and what is wrong with one that is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from llm_master.errors import InvalidRequestError, ProviderError, ServerError
from llm_master.providers.failures import BAD_JSON, error_of, failure_of, request_id
from llm_master.transport import Answer


def error_under_200(content: Any, model: str, *, status: int | None = None, request_id: str | None = None) -> ProviderError:
    """The error for a body or event that holds an error object although it came under 200."""
    failure = failure_of(content)
    error = error_of(failure.status, {}, failure, model=model)
    error.status = error.status or status
    error.request_id = request_id
    return error


def decoded(decode: Callable[[bytes], Any], body: bytes, *, status: int, request_id: str | None, model: str) -> Any:
    """A 2xx body, decoded into a struct that has an ``error``.

    Raises:
        ProviderError: It cannot be read, or holds an error.
    """
    try:
        answer = decode(body)
    except BAD_JSON as exc:
        raise unreadable(body, exc, status, request_id, model) from exc
    if answer.error:
        raise error_under_200(msgspec.json.decode(body), model, status=status, request_id=request_id)
    return answer


def json_of(answer: Answer) -> Any:
    """What a 2xx answer holds.

    Raises:
        ProviderError: It is no JSON, or an error.
    """
    try:
        content = msgspec.json.decode(answer.body)
    except (*BAD_JSON, RecursionError) as exc:
        raise unreadable(answer.body, exc, answer.status, request_id(answer.headers), "") from exc
    if isinstance(content, dict) and content.get("error"):
        raise error_under_200(content, "", status=answer.status, request_id=request_id(answer.headers))
    return content


def unreadable(body: bytes, exc: Exception, status: int | None, request_id: str | None, model: str) -> ServerError:
    """The error for a 2xx whose body is no such answer."""
    if not body.strip():
        what = "an empty body"
    elif body.lstrip()[:1] == b"<":
        what = "an HTML page, so base_url is probably not that of an API"
    else:
        what = f"a body that cannot be read ({exc})"
    return ServerError(f"answered {status} with {what}: {body[:120]!r}", status=status, model=model, request_id=request_id)


def encoded(body: Mapping[str, Any]) -> bytes:
    """A request's body.

    Raises:
        InvalidRequestError: Something in it is no JSON value.
    """
    try:
        return _encode(body)
    except (TypeError, ValueError, msgspec.MsgspecError) as exc:
        raise InvalidRequestError(f"the request cannot be written as JSON: {exc}") from exc


def _plain(value: Any) -> Any:
    """What msgspec does not know: read-only mappings, and objects that can dump themselves, as pydantic's."""
    if isinstance(value, Mapping):
        return dict(value)
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(exclude_none=True)
    raise TypeError(f"{type(value).__name__} {value!r:.60} is no JSON value")


_encode = msgspec.json.Encoder(enc_hook=_plain, decimal_format="number").encode
