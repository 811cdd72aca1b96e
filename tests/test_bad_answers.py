"""What servers send when something is wrong with them, with the network, or with the request."""

from __future__ import annotations

import asyncio
import email.utils
import gc
import gzip
import json
import logging
import time
import warnings
import zlib
from decimal import Decimal
from typing import Any

import pytest
from servers.scripted import FOREVER, GATE, ScriptedServer, eventually

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    ContentPolicyError,
    ContextWindowExceededError,
    DeadlineExceededError,
    InsufficientFundsError,
    InvalidRequestError,
    LLMResponse,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderConfig,
    ProviderConnectionError,
    ProviderError,
    QueryLLM,
    RateLimitError,
    ReasoningDelta,
    RequestTimeoutError,
    ServerError,
    StreamEnd,
    StreamInterruptedError,
    TextDelta,
    ToolCallDelta,
)
from llm_master.testing import FakeClock

KEY = "sk-acme-secret-0123456789"
MODEL = "acme/large"
RETRIED = (ServerError, ProviderConnectionError, RequestTimeoutError)
SENDS = 3  # max_retries is 2 unless a row says otherwise


def completion(content: str | None = "Hello.", **message: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "large-2026",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


def chunk(content: str | None = None, *, finish: str | None = None, index: int = 0, **rest: Any) -> dict[str, Any]:
    delta = {name: value for name, value in {"content": content, "tool_calls": rest.pop("tool_calls", None)}.items() if value is not None}
    return {"id": "1", "model": "large-2026", "choices": [{"index": index, "delta": delta, "finish_reason": finish}], **rest}


USAGE = {"id": "1", "model": "large-2026", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}
DONE = "data: [DONE]\n\n"
END = chunk(finish="stop")


def sse(*chunks: Any) -> str:
    return "".join(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" for chunk in chunks)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto_advance=True)


@pytest.fixture
def acme(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url)


@pytest.fixture
def llm(acme: None, clock: FakeClock) -> QueryLLM:
    return QueryLLM(acme_api_key=KEY, clock=clock)


async def ask(llm: QueryLLM, how: str = "query", **options: Any) -> LLMResponse:
    """The whole answer, by ``query`` or by a ``stream`` that is read to its end."""
    if how == "query":
        return await llm.query(MODEL, prompt="hi", **options)
    async with llm.stream(MODEL, prompt="hi", **options) as stream:
        async for _ in stream:
            pass
    return stream.response


both_ways = pytest.mark.parametrize("how", ["query", "stream"])


# Bodies that are no answer


GARBAGE = {
    "html page": ("<!doctype html><html><title>Welcome</title></html>", ServerError, "HTML"),
    "truncated json": (json.dumps(completion())[:-20], ServerError, "cannot be read"),
    "empty body": ("", ServerError, "empty"),
    "blank body": (" \n", ServerError, "empty"),
    "plain text": ("OK", ServerError, "OK"),
    "invalid utf-8": (b'{"choices": [{"message": {"content": "\xff\xfe"}}]}', ServerError, "cannot be read"),
    "null": ("null", ServerError, "null"),
    "a number": ("42", ServerError, "42"),
    "an empty list": ("[]", ServerError, None),
    "an empty object": ("{}", ServerError, "choice"),
    "no choices": ('{"choices": []}', ServerError, "choice"),
    "choices are null": ('{"choices": null, "model": "x"}', ServerError, "choice"),
    "choices are no list": ('{"choices": "many"}', ServerError, None),
    "a choice without a message": ('{"choices": [{"index": 0, "finish_reason": "stop"}]}', ServerError, None),
    "error as text": ('{"error": "the engine is on fire"}', ServerError, "the engine is on fire"),
    "error as object": ('{"error": {"message": "engine on fire", "type": "server_error"}}', ServerError, "engine on fire"),
    "error without words": ('{"error": {}, "choices": null}', ServerError, None),
    "error true": ('{"error": true, "message": "engine on fire"}', ServerError, "engine on fire"),
    "error with a number": ('{"error": {"message": "slow down", "code": 429}}', RateLimitError, "slow down"),
    "error with a number, 401": ('{"error": {"message": "who are you", "code": 401}}', AuthenticationError, "who are you"),
    "error with a number, 503": ('{"error": {"message": "busy", "code": 503}}', ServerError, "busy"),
    "error with a number, 400": ('{"error": {"message": "no such voice", "code": 400}}', InvalidRequestError, "no such voice"),
    "error with a code": ('{"error": {"message": "nope", "code": "invalid_api_key"}}', AuthenticationError, "nope"),
    "error with choices": (json.dumps({**completion(), "error": {"message": "upstream died", "code": 502}}), ServerError, "upstream died"),
    "error in a choice": (
        '{"choices": [{"message": {"content": ""}, "finish_reason": "error", "error": {"message": "upstream died", "code": 502}}]}',
        ServerError,
        "upstream died",
    ),
    "error in a list": ('[{"error": {"message": "high demand", "code": 503, "status": "UNAVAILABLE"}}]', ServerError, "high demand"),
    "a detail": ('{"detail": "the model is loading"}', ServerError, "the model is loading"),
    "a message": ('{"object": "error", "message": "the model is loading"}', ServerError, "the model is loading"),
}


@both_ways
@pytest.mark.parametrize(("body", "kind", "says"), GARBAGE.values(), ids=GARBAGE)
async def test_what_is_no_answer_under_200(llm: QueryLLM, server: ScriptedServer, how: str, body: Any, kind: Any, says: str | None) -> None:
    server.answer(body, times=None)
    with pytest.raises(ProviderError, match=says) as caught:
        await ask(llm, how)
    assert type(caught.value) is kind
    assert caught.value.provider == "acme" and "acme" in str(caught.value)
    assert caught.value.model == "large"
    attempts = caught.value.receipt.attempts
    assert len(attempts) == len(server.requests)
    assert len(attempts) == (SENDS if kind is ServerError else 1) or kind is RateLimitError
    assert server.opened == 1


@both_ways
@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "text/plain", "application/octet-stream"])
async def test_an_html_page_whatever_its_type(llm: QueryLLM, server: ScriptedServer, how: str, content_type: str) -> None:
    server.answer("<html><title>Welcome to nginx!</title></html>", headers={"content-type": content_type}, times=None)
    with pytest.raises(ServerError) as caught:
        await ask(llm, how)
    assert "acme" in str(caught.value) and len(caught.value.receipt.attempts) == SENDS


@both_ways
async def test_the_html_page_of_a_gateway(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    page = "<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>"
    server.answer(page, status=502, headers={"content-type": "text/html"}, times=None)
    with pytest.raises(ServerError, match="502 Bad Gateway") as caught:
        await ask(llm, how)
    assert caught.value.status == 502
    assert "<html>" not in str(caught.value)
    assert [attempt.status for attempt in caught.value.receipt.attempts] == [502] * SENDS


@both_ways
async def test_a_server_that_speaks_no_http(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    server.answer("SSH-2.0-OpenSSH_9.6\r\n", framing="raw", times=None)
    with pytest.raises(ProviderConnectionError, match="127.0.0.1") as caught:
        await ask(llm, how)
    assert len(caught.value.receipt.attempts) == SENDS


@both_ways
@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_connection_that_breaks_in_the_body(llm: QueryLLM, server: ScriptedServer, how: str, end: Any, framing: Any) -> None:
    server.answer(json.dumps(completion()), cut_at=30, end=end, framing=framing, times=None)
    with pytest.raises(ProviderConnectionError, match="127.0.0.1") as caught:
        await ask(llm, how)
    assert len(caught.value.receipt.attempts) == len(server.requests) == SENDS
    assert await server.until_open(0)


@both_ways
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_connection_that_breaks_before_the_answer(llm: QueryLLM, server: ScriptedServer, how: str, end: Any) -> None:
    server.answer(framing="raw", end=end)
    if how == "query":
        server.answer_json(completion())
    else:
        server.answer_sse(sse(chunk("Hello."), END), DONE)
    answer = await ask(llm, how)
    assert answer.content == "Hello."
    first, second = answer.receipt.attempts
    assert first.error.startswith("ProviderConnectionError") and first.status is None
    assert second.error is None and second.status == 200


async def test_a_host_that_does_not_exist(clock: FakeClock) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url="http://acme.invalid/v1", max_retries=0)
    with pytest.raises(ProviderConnectionError, match="acme.invalid") as caught:
        await QueryLLM(acme_api_key=KEY, clock=clock).query(MODEL, prompt="hi")
    assert "base_url" in str(caught.value)


async def test_a_connection_closed_while_idle_costs_no_attempt(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(completion("one"), end="close")
    server.answer_json(completion("two"))
    assert (await ask(llm)).content == "one"
    assert await server.until_open(0)
    for _ in range(5):  # the loop sees that the connection has ended
        await asyncio.sleep(0)
    second = await ask(llm)
    assert second.content == "two" and len(second.receipt.attempts) == 1


# Statuses


def error(message: str, code: Any = None, type: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "code": code, "type": type}}


STATUSES = {
    "400": (400, error("bad value", "bad_value", "invalid_request_error"), InvalidRequestError, "bad_value"),
    "400 context code": (400, error("no", "context_length_exceeded"), ContextWindowExceededError, "context_length_exceeded"),
    "400 context text": (
        400,
        error("This model's maximum context length is 8192 tokens. However, you requested 9000 tokens."),
        ContextWindowExceededError,
        None,
    ),
    "400 content filter": (400, error("flagged", "content_filter"), ContentPolicyError, "content_filter"),
    "400 invalid key": (400, error("API key not valid. Please pass a valid API key.", 400), AuthenticationError, "400"),
    "401": (401, error("Incorrect API key provided", "invalid_api_key"), AuthenticationError, "invalid_api_key"),
    "401 without words": (401, None, AuthenticationError, None),
    "401 detail": (401, {"detail": "Not authenticated"}, AuthenticationError, None),
    "402": (402, error("Insufficient credits", 402), InsufficientFundsError, "402"),
    "403": (403, error("Project does not have access to the model", "access_denied"), PermissionDeniedError, "access_denied"),
    "403 key": (403, error("Invalid API key", None, "forbidden"), AuthenticationError, "forbidden"),
    "403 moderation": (403, error("Your input was flagged by moderation", 403), ContentPolicyError, "403"),
    "404 model": (404, error("The model `large` does not exist", "model_not_found"), ModelNotFoundError, "model_not_found"),
    "404 page": (404, "<html><title>404 Not Found</title></html>", ModelNotFoundError, None),
    "405": (405, {"detail": "Method Not Allowed"}, InvalidRequestError, None),
    "408": (408, error("timed out"), RequestTimeoutError, None),
    "409": (409, error("try again"), ServerError, None),
    "413": (413, error("Request too large"), InvalidRequestError, None),
    "413 context": (413, error("too many tokens for the context window"), ContextWindowExceededError, None),
    "422": (
        422,
        {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "field required", "type": "missing"}]},
        InvalidRequestError,
        None,
    ),
    "429": (429, error("slow down", "rate_limit_exceeded"), RateLimitError, "rate_limit_exceeded"),
    "429 no quota": (
        429,
        error("You exceeded your current quota, please check your plan and billing details.", "insufficient_quota"),
        InsufficientFundsError,
        "insufficient_quota",
    ),
    "500": (500, error("boom", None, "server_error"), ServerError, "server_error"),
    "500 that speaks of a key": (500, error("upstream said: invalid api key"), ServerError, None),
    "503": (503, error("overloaded"), ServerError, None),
    "500 in no known encoding": (500, b'{"error": {"message": "\xe9chec"}}', ServerError, None),
    "503 in a list": (503, [error("high demand", 503)], ServerError, "503"),
    "520": (520, "error code: 520", ServerError, None),
    "529": (529, error("Overloaded", None, "overloaded_error"), ServerError, "overloaded_error"),
}


@both_ways
@pytest.mark.parametrize(("status", "body", "kind", "code"), STATUSES.values(), ids=STATUSES)
async def test_a_status(
    acme: None, clock: FakeClock, server: ScriptedServer, how: str, status: int, body: Any, kind: Any, code: str | None
) -> None:
    text = body if isinstance(body, (str, bytes)) else "" if body is None else json.dumps(body)
    server.answer(text, status=status, headers={"x-request-id": "req_42"}, times=None)
    with pytest.raises(ProviderError) as caught:
        await ask(QueryLLM(acme_api_key=KEY, clock=clock, max_attempts=4), how)
    failed = caught.value
    assert type(failed) is kind
    assert (failed.status, failed.provider, failed.model, failed.code) == (status, "acme", "large", code)
    assert failed.request_id == "req_42"
    assert "acme" in str(failed) and str(status) in str(failed)
    sends = 4 if kind is RateLimitError else SENDS if isinstance(failed, RETRIED) else 1
    assert len(server.requests) == len(failed.receipt.attempts) == sends
    assert {(attempt.status, attempt.request_id) for attempt in failed.receipt.attempts} == {(status, "req_42")}
    assert all(attempt.error and attempt.then for attempt in failed.receipt.attempts)
    assert failed.receipt.cost is None
    assert KEY not in f"{failed} {failed!r} {failed.receipt!r}"
    assert server.opened == 1


async def test_fastapis_details_are_said_in_words(llm: QueryLLM, server: ScriptedServer) -> None:
    details = [
        {"loc": ["body", "messages", 0, "role"], "msg": "field required"},
        {"loc": ["body", "temperature"], "msg": "must be at most 2"},
    ]
    server.answer_json({"detail": details}, status=422)
    with pytest.raises(InvalidRequestError, match=r"body\.messages\.0\.role: field required; body\.temperature: must be at most 2"):
        await ask(llm)


async def test_a_404_that_is_no_models_says_the_address(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer("404 page not found", status=404, headers={"content-type": "text/plain"})
    with pytest.raises(ModelNotFoundError, match="base_url") as caught:
        await ask(llm)
    assert f"{server.base_url}/chat/completions" in str(caught.value)


@both_ways
@pytest.mark.parametrize("status", [401, 400, 500])
async def test_a_body_that_repeats_the_key(
    llm: QueryLLM, server: ScriptedServer, how: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.answer_json(error(f"Incorrect API key provided: {KEY}. You can find yours in the console."), status=status, times=None)
    with pytest.raises(ProviderError) as caught:
        await ask(llm, how)
    assert "Incorrect API key provided" in str(caught.value)
    assert KEY not in f"{caught.value} {caught.value!r} {caught.value.receipt!r} {caught.value.__dict__!r}"
    assert KEY not in caplog.text
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@both_ways
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_refused(llm: QueryLLM, server: ScriptedServer, how: str, status: int) -> None:
    elsewhere = f"{server.url}/v2/chat/completions"
    server.answer(status=status, headers={"location": elsewhere})
    with pytest.raises(InvalidRequestError, match="base_url") as caught:
        await ask(llm, how)
    assert caught.value.status == status
    assert elsewhere in str(caught.value)
    assert server.request.path == "/v1/chat/completions"


# Retry-After


def _http_date(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


RETRY_AFTER: dict[str, tuple[dict[str, Any], dict[str, Any], float | None]] = {
    "seconds": ({"retry-after": "2"}, {}, 2),
    "a float": ({"retry-after": "1.5"}, {}, 1.5),
    "milliseconds": ({"retry-after-ms": "250", "retry-after": "1"}, {}, 0.25),
    "zero": ({"retry-after": "0"}, {}, 0),
    "a date": ({"retry-after": lambda: _http_date(900)}, {}, 900),
    "a date that has passed": ({"retry-after": lambda: _http_date(-900)}, {}, 0),
    "no number": ({"retry-after": "soon"}, {}, None),
    "a negative number": ({"retry-after": "-5"}, {}, None),
    "nan": ({"retry-after": "nan"}, {}, None),
    "infinite": ({"retry-after": "inf"}, {}, None),
    "the reset of what is used up": (
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "1m30s",
            "x-ratelimit-remaining-tokens": "1000",
            "x-ratelimit-reset-tokens": "10h",
        },
        {},
        90,
    ),
    "a reset in milliseconds": ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "60ms"}, {}, 0.06),
    "text": ({}, error("Rate limit reached. Please try again in 20s. Visit our site."), 20),
    "text, minutes": ({}, error("Rate limit reached. Please try again in 1m12.5s."), 72.5),
    "text, milliseconds": ({}, error("Rate limit reached. Please try again in 60ms."), 0.06),
    "RetryInfo": (
        {},
        {
            "error": {
                "code": 429,
                "message": "Quota exceeded.",
                "status": "RESOURCE_EXHAUSTED",
                "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "39s"}],
            }
        },
        39,
    ),
    "nothing": ({}, {}, None),
}


@pytest.mark.parametrize(("headers", "body", "seconds"), RETRY_AFTER.values(), ids=RETRY_AFTER)
async def test_retry_after(
    acme: None, clock: FakeClock, server: ScriptedServer, headers: dict[str, Any], body: dict[str, Any], seconds: float | None
) -> None:
    made = {name: value() if callable(value) else value for name, value in headers.items()}  # a date is as old as the request
    server.answer_json(body or error("slow down"), status=429, headers=made)
    with pytest.raises(RateLimitError) as caught:
        await ask(QueryLLM(acme_api_key=KEY, clock=clock, max_attempts=1))
    # A date has whole seconds, and some have gone by since it was made.
    assert caught.value.retry_after == (seconds if seconds is None else pytest.approx(seconds, abs=60 if seconds == 900 else 1e-9))


# Sending again


@both_ways
async def test_two_failures_then_an_answer(llm: QueryLLM, server: ScriptedServer, clock: FakeClock, how: str) -> None:
    server.answer_json(error("boom"), status=500, headers={"x-request-id": "req_1"}, times=2)
    if how == "query":
        server.answer_json(completion(), headers={"x-request-id": "req_3"})
    else:
        server.answer_sse(sse(chunk("Hello."), END, USAGE), DONE, headers={"x-request-id": "req_3"})
    answer = await ask(llm, how)
    assert answer.content == "Hello." and answer.usage.total_tokens == 7
    attempts = answer.receipt.attempts
    assert [(attempt.status, attempt.request_id) for attempt in attempts] == [(500, "req_1"), (500, "req_1"), (200, "req_3")]
    assert attempts[0].error.startswith("ServerError") and "again in" in attempts[0].then
    assert attempts[0].wait == 0 and attempts[0].wait_reason is None
    assert [attempts[1].wait, attempts[2].wait] == clock.sleeps
    assert 0 <= clock.sleeps[0] <= 0.5 and 0 <= clock.sleeps[1] <= 1  # full jitter
    assert attempts[2].error is None and attempts[2].wait_reason
    assert len({request.body for request in server.requests}) == 1
    assert server.opened == 1


@both_ways
@pytest.mark.parametrize("status", [500, 503, 408, 409])
async def test_without_retries_it_is_sent_once(server: ScriptedServer, clock: FakeClock, how: str, status: int) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, max_retries=0)
    server.answer_json(error("boom"), status=status, times=None)
    with pytest.raises(ProviderError) as caught:
        await ask(QueryLLM(acme_api_key=KEY, clock=clock), how)
    assert caught.value.status == status
    assert len(server.requests) == len(caught.value.receipt.attempts) == 1
    assert clock.sleeps == []


async def test_max_attempts_bounds_all_sends(acme: None, server: ScriptedServer, clock: FakeClock) -> None:
    server.answer_json(error("slow down"), status=429, headers={"retry-after": "1"}, times=None)
    with pytest.raises(RateLimitError) as caught:
        await ask(QueryLLM(acme_api_key=KEY, clock=clock, max_attempts=3))
    assert len(server.requests) == 3
    assert "max_attempts" in str(caught.value)


@both_ways
async def test_it_waits_as_long_as_the_provider_asks(llm: QueryLLM, server: ScriptedServer, clock: FakeClock, how: str) -> None:
    server.answer_json(error("slow down"), status=429, headers={"retry-after": "2"})
    if how == "query":
        server.answer_json(completion())
    else:
        server.answer_sse(sse(chunk("Hello."), END), DONE)
    answer = await ask(llm, how)
    assert answer.content == "Hello."
    assert clock.sleeps == [2]
    assert answer.receipt.attempts[1].wait == 2 and "rate limit" in answer.receipt.attempts[1].wait_reason


async def test_a_server_error_too_may_say_when(llm: QueryLLM, server: ScriptedServer, clock: FakeClock) -> None:
    server.answer_json(error("overloaded"), status=503, headers={"retry-after": "7"})
    server.answer_json(completion())
    assert (await ask(llm)).content == "Hello."
    assert len(clock.sleeps) == 1 and clock.sleeps[0] >= 7


async def test_a_wait_beyond_the_deadline_fails_at_once_and_says_when(llm: QueryLLM, server: ScriptedServer, clock: FakeClock) -> None:
    server.answer_json(error("slow down"), status=429, headers={"retry-after": "3600"})
    with pytest.raises(RateLimitError, match=r"3,?600( s|\b)|1 ?h|60 min") as caught:
        await ask(llm)
    assert caught.value.retry_after == 3600
    assert clock.sleeps == [] and len(server.requests) == 1


async def test_a_rate_limit_that_does_not_say_when_is_met_with_longer_and_longer_waits(
    llm: QueryLLM, server: ScriptedServer, clock: FakeClock
) -> None:
    server.answer_json(error("slow down"), status=429, times=None)
    with pytest.raises(RateLimitError):
        await ask(llm, deadline=600)
    assert clock.sleeps == [10, 30, 60, 120, 120, 120, 120]  # the next would pass the deadline
    assert len(server.requests) == len(clock.sleeps) + 1


async def test_cancelled_while_it_waits_it_sends_nothing_more(acme: None, server: ScriptedServer) -> None:
    clock = FakeClock()
    server.answer_json(error("slow down"), status=429, headers={"retry-after": "30"}, times=None)
    task = asyncio.create_task(ask(QueryLLM(acme_api_key=KEY, clock=clock)))
    assert await eventually(lambda: clock.sleeps == [30])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await clock.advance(100)
    assert len(server.requests) == 1


# Right answers that are unusual


async def test_an_answer_in_many_pieces(llm: QueryLLM, server: ScriptedServer) -> None:
    body = json.dumps(completion("Grüße, 世界 🎉"), ensure_ascii=False).encode()
    pieces = [part for start in range(0, len(body), 7) for part in (0.0005, body[start : start + 7])]
    server.answer(*pieces, framing="chunked")
    assert (await ask(llm)).content == "Grüße, 世界 🎉"


async def test_an_answer_that_ends_with_its_connection(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer(json.dumps(completion()), framing="close")
    answer = await ask(llm)
    assert answer.content == "Hello." and len(answer.receipt.attempts) == 1


@both_ways
@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_packed_answer(llm: QueryLLM, server: ScriptedServer, how: str, coding: str, pack: Any) -> None:
    headers = {"content-encoding": coding}
    if how == "query":
        server.answer(pack(json.dumps(completion()).encode()), headers=headers)
    else:
        packed = pack((sse(chunk("Hello."), END) + DONE).encode())
        server.answer_sse(packed[:20], 0.001, packed[20:], headers=headers)
    assert (await ask(llm, how)).content == "Hello."
    offered = server.request.headers["accept-encoding"]
    assert coding in offered and "br" not in offered


@both_ways
async def test_a_packed_answer_that_is_broken(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    packed = gzip.compress(json.dumps(completion("x" * 1000)).encode())
    broken = packed[:15] + bytes(20) + packed[35:]
    server.answer(broken, headers={"content-encoding": "gzip"}, times=None)
    with pytest.raises((ServerError, ProviderConnectionError)) as caught:
        await ask(llm, how)
    assert len(caught.value.receipt.attempts) == SENDS


async def test_a_long_answer(llm: QueryLLM, server: ScriptedServer) -> None:
    text = "word " * 400_000
    server.answer_json(completion(text))
    assert (await ask(llm)).content == text


async def test_counts_that_are_missing_are_none(llm: QueryLLM, server: ScriptedServer) -> None:
    for usage in (None, {}, {"prompt_tokens": None, "completion_tokens": None, "prompt_tokens_details": None}):
        server.answer_json({**completion(), "usage": usage})
        answer = await ask(llm)
        assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.cached_tokens) == (None, None, None)
        assert (answer.cost, answer.receipt.cost, answer.receipt.cost_state) == (None, None, "unknown")


async def test_a_decimal_goes_out_as_a_number(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(completion())
    await ask(llm, temperature=Decimal("0.5"))
    assert server.request.json["temperature"] == 0.5


async def test_a_refusal_is_the_content(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(completion(None, refusal="I will not."))
    assert (await ask(llm)).content == "I will not."


async def test_arguments_that_are_no_json_object(llm: QueryLLM, server: ScriptedServer) -> None:
    texts = ["", "{}", '{"city": "Rome"}', '{"city": ', "[1]", '"Rome"']
    calls = [{"id": f"call_{n}", "type": "function", "function": {"name": "f", "arguments": text}} for n, text in enumerate(texts)]
    server.answer_json(completion(None, tool_calls=calls))
    answer = await ask(llm)
    assert [call.arguments for call in answer.tool_calls] == [{}, {}, {"city": "Rome"}, {}, {}, {}]
    assert [call.error is None for call in answer.tool_calls] == [True, True, True, False, False, False]
    assert [part["function"]["arguments"] for part in answer.message["tool_calls"]] == texts


async def test_of_several_choices_the_first_is_the_answer(llm: QueryLLM, server: ScriptedServer) -> None:
    content = completion("first")
    content["choices"].append({"index": 1, "message": {"role": "assistant", "content": "second"}, "finish_reason": "length"})
    server.answer_json(content)
    answer = await ask(llm, n=2)
    assert (answer.content, answer.finish_reason) == ("first", "stop")
    assert len(answer.raw["choices"]) == 2


# Streams: every form that the standard allows


TEXT = "Grüße, 世界 🎉\nzwei Zeilen"
PARTS = ["Grüße, ", "世界 ", "🎉\n", "zwei Zeilen"]
PLAIN = sse(*map(chunk, PARTS), END, USAGE) + DONE


def _decorated(text: str) -> str:
    """The same events with comments, ids, names, retry times and needless empty lines among them."""
    events = text.split("\n\n")
    return (
        ": hello\n\n\n"
        + "\n\n: ping\n\n".join(f"id: {n}\nevent: message\nretry: 10\n{event}" for n, event in enumerate(events) if event)
        + "\n\n"
    )


FORMS = {
    "plain": PLAIN,
    "CRLF": PLAIN.replace("\n", "\r\n"),
    "CR": PLAIN.replace("\n", "\r"),
    "byte-order mark": "\ufeff" + PLAIN,
    "no space after data:": PLAIN.replace("data: ", "data:"),
    "comments and other fields": _decorated(PLAIN),
    "comments and other fields, CRLF": _decorated(PLAIN).replace("\n", "\r\n"),
    "data over several lines": sse(*map(chunk, PARTS), END, USAGE).replace('"choices"', '\ndata: "choices"') + DONE,
    "no empty line at the end": PLAIN.rstrip("\n"),
    "no DONE": PLAIN.removesuffix(DONE),
    "usage with the last choice": sse(*map(chunk, PARTS), {**END, "usage": USAGE["usage"]}) + DONE,
    "usage in every chunk": sse(*({**chunk(part), "usage": {"prompt_tokens": 5, "completion_tokens": 1}} for part in PARTS), END, USAGE)
    + DONE,
    "usage null until the end": sse(*({**chunk(part), "usage": None} for part in PARTS), END, USAGE) + DONE,
    "empty deltas": sse(chunk(""), {**END, "choices": []}, *map(chunk, PARTS), chunk(""), END, USAGE) + DONE,
    "something after DONE": PLAIN + sse(chunk("never")),
}


@pytest.mark.parametrize("cut", ["at once", "each byte apart", "in the middle of characters and line ends"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_a_stream_of_any_form(llm: QueryLLM, server: ScriptedServer, form: str, cut: str) -> None:
    data = form.encode()
    if cut == "at once":
        pieces: list[Any] = [data]
    elif cut == "each byte apart":
        pieces = [data[place : place + 1] for place in range(len(data))]
    else:
        places = sorted({0, len(data), *(n for n in range(1, len(data)) if data[n] & 0xC0 == 0x80 or data[n - 1 : n] in (b"\r", b"\n"))})
        pieces = [piece for start, end in zip(places, places[1:], strict=False) for piece in (0.0005, data[start:end])]
    server.answer_sse(*pieces)
    async with llm.stream(MODEL, prompt="hi") as stream:
        text = [piece async for piece in stream]
    assert text == PARTS
    assert stream.response.content == TEXT
    assert stream.response.finish_reason == "stop"
    assert (stream.response.usage.input_tokens, stream.response.usage.output_tokens) == (5, 2)
    assert stream.response.receipt.attempts[0].model_served == "large-2026"


@pytest.mark.parametrize("content_type", ["text/event-stream; charset=utf-8", "text/plain", "application/x-ndjson", "text/EVENT-stream"])
async def test_a_stream_of_any_type(llm: QueryLLM, server: ScriptedServer, content_type: str) -> None:
    server.answer_sse(PLAIN, headers={"content-type": content_type})
    assert (await ask(llm, "stream")).content == TEXT


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
async def test_a_whole_answer_although_a_stream_was_asked_for(llm: QueryLLM, server: ScriptedServer, content_type: str) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    server.answer_json(completion("Hello.", tool_calls=[call], reasoning_content="Hm."), headers={"content-type": content_type})
    async with llm.stream(MODEL, prompt="hi") as stream:
        assert [piece async for piece in stream] == ["Hello."]
    assert server.request.json["stream"] is True
    answer = stream.response
    assert (answer.content, answer.reasoning, answer.finish_reason, answer.usage.total_tokens) == ("Hello.", "Hm.", "stop", 7)
    assert [(call.id, call.name, call.arguments) for call in answer.tool_calls] == [("call_1", "f", {"a": 1})]


async def test_a_very_long_event(llm: QueryLLM, server: ScriptedServer) -> None:
    text = "x" * 1_000_000
    server.answer_sse(sse(chunk(text), END), DONE)
    assert (await ask(llm, "stream")).content == text


def _piece(index: int | None, arguments: str | None = None, *, id: str | None = None, name: str | None = None) -> dict[str, Any]:
    piece: dict[str, Any] = {} if index is None else {"index": index}
    if id is not None:
        piece |= {"id": id, "type": "function"}
    return {**piece, "function": {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}}


async def test_tool_calls_in_pieces_and_in_parallel(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_sse(
        sse(
            chunk("Let me see. "),
            chunk(tool_calls=[_piece(0, "", id="call_a", name="weather")]),
            chunk(tool_calls=[_piece(0, '{"city"')]),
            chunk(tool_calls=[_piece(1, "", id="call_b", name="time"), _piece(0, ': "Ro')]),
            chunk(tool_calls=[_piece(1, "{}")]),
            chunk("A moment."),
            chunk(tool_calls=[_piece(0, 'me"}')]),
            chunk(finish="tool_calls"),
        ),
        DONE,
    )
    answer = await ask(llm, "stream")
    assert [(call.id, call.name, call.arguments) for call in answer.tool_calls] == [
        ("call_a", "weather", {"city": "Rome"}),
        ("call_b", "time", {}),
    ]
    assert (answer.content, answer.finish_reason) == ("Let me see. A moment.", "tool_calls")


async def test_whole_tool_calls_without_an_index(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_sse(
        sse(
            chunk(tool_calls=[_piece(None, '{"n": 1}', id="call_a", name="f"), _piece(None, '{"n": 2}', id="call_b", name="g")]),
            chunk(finish="tool_calls"),
        ),
        DONE,
    )
    answer = await ask(llm, "stream")
    assert [(call.id, call.name, call.arguments) for call in answer.tool_calls] == [("call_a", "f", {"n": 1}), ("call_b", "g", {"n": 2})]


@pytest.mark.parametrize("index", [None, 0])
async def test_parallel_tool_calls_that_share_an_index(llm: QueryLLM, server: ScriptedServer, index: int | None) -> None:
    """As some compatible endpoints send parallel calls: each whole in a chunk of its own, all with index 0 or with none."""
    calls = [_piece(index, '{"n": 1}', id="call_a", name="f"), _piece(index, '{"n": 2}', id="call_b", name="g")]
    server.answer_sse(sse(*(chunk(tool_calls=[call]) for call in calls), chunk(finish="tool_calls")), DONE)
    answer = await ask(llm, "stream")
    assert [(call.id, call.name, call.arguments) for call in answer.tool_calls] == [("call_a", "f", {"n": 1}), ("call_b", "g", {"n": 2})]


async def test_several_choices_are_never_mixed(llm: QueryLLM, server: ScriptedServer) -> None:
    together = {"id": "1", "choices": [chunk("X", index=1)["choices"][0], chunk("c", index=0)["choices"][0]]}
    server.answer_sse(
        sse(chunk("X", index=1), chunk("a"), chunk("X", index=1), chunk("b"), together, chunk(finish="length", index=1), END), DONE
    )
    answer = await ask(llm, "stream", n=2)
    assert (answer.content, answer.finish_reason) == ("abc", "stop")


async def test_reasoning_is_kept_apart(llm: QueryLLM, server: ScriptedServer) -> None:
    thoughts = [
        {"id": "1", "choices": [{"index": 0, "delta": {name: "Hm. ", "content": None}}]} for name in ("reasoning", "reasoning_content")
    ]
    parts = {
        "id": "1",
        "choices": [{"index": 0, "delta": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "So."}]}]}}],
    }
    server.answer_sse(sse(*thoughts, parts, chunk("Yes."), END), DONE)
    answer = await ask(llm, "stream")
    assert (answer.content, answer.reasoning) == ("Yes.", "Hm. Hm. So.")


async def test_events_of_every_kind(llm: QueryLLM, server: ScriptedServer) -> None:
    thought = {"id": "1", "choices": [{"index": 0, "delta": {"reasoning_content": "Hm."}}]}
    server.answer_sse(sse(thought, chunk("Yes."), chunk(tool_calls=[_piece(0, "{}", id="call_a", name="f")]), END, USAGE), DONE)
    stream = llm.stream(MODEL, prompt="hi")
    events = [event async for event in stream.events()]
    assert events[:-1] == [ReasoningDelta("Hm."), TextDelta("Yes."), ToolCallDelta(0, "call_a", "f", "{}")]
    assert isinstance(events[-1], StreamEnd)
    assert events[-1].finish_reason == "stop" and events[-1].usage == stream.response.usage
    assert stream.response.content == "Yes." and stream.response.usage.total_tokens == 7


# Streams that break


async def broken(llm: QueryLLM, **options: Any) -> StreamInterruptedError:
    """The error of a stream that breaks after ``Hel``."""
    pieces = []
    stream = llm.stream(MODEL, prompt="hi", **options)
    with pytest.raises(StreamInterruptedError) as caught:
        async for piece in stream:
            pieces.append(piece)
    assert pieces == ["Hel"]
    failed = caught.value
    assert failed.response is stream.response
    assert failed.response.content == "Hel"
    assert failed.response.finish_reason is None
    assert failed.response.cost is None
    assert (failed.provider, failed.model) == ("acme", "large") and "acme" in str(failed)
    assert failed.receipt is failed.response.receipt and len(failed.receipt.attempts) == 1
    assert "StreamInterruptedError" in failed.receipt.attempts[0].error
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    return failed


ERROR_EVENTS = {
    "a named event": ('event: error\ndata: {"error": {"message": "out of memory", "code": "server_error"}}\n\n', ServerError),
    "a named event, bare": ('event: error\ndata: {"message": "out of memory", "code": 500}\n\n', ServerError),
    "a named event, text": ("event: error\ndata: out of memory\n\n", ServerError),
    "an error object": (sse({"error": {"message": "out of memory", "code": 502}}), ServerError),
    "an error text": (sse({"error": "out of memory"}), ServerError),
    "an error beside choices": (sse({**chunk("", finish="error"), "error": {"message": "out of memory", "code": 502}}), ServerError),
    "a rate limit": (sse({"error": {"message": "out of memory", "code": 429}}), RateLimitError),
    "a content filter": (sse({"error": {"message": "out of memory", "code": "content_filter"}}), ContentPolicyError),
}


@pytest.mark.parametrize(("event", "kind"), ERROR_EVENTS.values(), ids=ERROR_EVENTS)
@pytest.mark.parametrize("together", [True, False], ids=["in one packet", "later"])
async def test_an_error_in_mid_stream(llm: QueryLLM, server: ScriptedServer, event: str, kind: Any, together: bool) -> None:
    text = sse(chunk("Hel"))
    server.answer_sse(*([text + event] if together else [text, 0.02, event]), DONE)
    failed = await broken(llm)
    assert type(failed.__cause__) is kind
    assert "out of memory" in str(failed)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "event",
    [
        "data: {oops\n\n",
        "data: null\n\n",
        "data: <html>\n\n",
        'data: {"choices": 7}\n\n',
        b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n',
    ],
    ids=["no json", "null", "html", "no chunk", "invalid utf-8"],
)
async def test_garbage_in_mid_stream(llm: QueryLLM, server: ScriptedServer, event: Any) -> None:
    server.answer_sse(sse(chunk("Hel")), event, sse(END), DONE)
    failed = await broken(llm)
    assert isinstance(failed.__cause__, ServerError)


@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
async def test_a_stream_that_ends_without_saying_so(llm: QueryLLM, server: ScriptedServer, framing: Any) -> None:
    server.answer_sse(sse(chunk("Hel")), framing=framing)
    assert isinstance((await broken(llm)).__cause__, ServerError)


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_connection_that_breaks_in_mid_stream(llm: QueryLLM, server: ScriptedServer, end: Any) -> None:
    server.answer_sse(sse(chunk("Hel")), GATE, end=end)
    pieces = []
    stream = llm.stream(MODEL, prompt="hi")
    with pytest.raises(StreamInterruptedError) as caught:
        async for piece in stream:
            pieces.append(piece)
            server.release()
    assert pieces == ["Hel"] and caught.value.response.content == "Hel"
    assert isinstance(caught.value.__cause__, ProviderConnectionError)
    assert len(server.requests) == 1
    assert await server.until_open(0)


async def test_what_came_with_the_end_of_the_connection_is_not_lost(llm: QueryLLM, server: ScriptedServer) -> None:
    """The last piece and the connection's end arrive together, as they do from a server that dies."""
    server.answer_sse(sse(chunk("Hel")), GATE, sse(chunk("lo")), end="close")
    pieces = []
    stream = llm.stream(MODEL, prompt="hi")
    with pytest.raises(StreamInterruptedError) as caught:
        async for piece in stream:
            pieces.append(piece)
            if piece == "Hel":
                server.release()
                assert server.requests  # the loop stands still meanwhile, so both lie in the socket when it reads again
                time.sleep(0.05)  # noqa: ASYNC251
    assert pieces == ["Hel", "lo"] and caught.value.response.content == "Hello"


async def test_usage_that_came_before_the_break_is_kept(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_sse(sse({**chunk("Hel"), "usage": {"prompt_tokens": 5, "completion_tokens": 1}}, {"error": "boom"}))
    failed = await broken(llm)
    assert (failed.response.usage.input_tokens, failed.response.usage.output_tokens) == (5, 1)


@pytest.mark.parametrize(
    "body",
    [
        "",
        ": ping\n\n",
        sse({"error": {"message": "overloaded", "code": 503}}),
        'event: error\ndata: {"message": "overloaded"}\n\n',
        "data: {oops\n\n",
    ],
    ids=["nothing", "a comment", "an error", "a named error", "garbage"],
)
async def test_what_fails_before_output_is_sent_again(llm: QueryLLM, server: ScriptedServer, clock: FakeClock, body: str) -> None:
    server.answer_sse(body)
    server.answer_sse(PLAIN)
    answer = await ask(llm, "stream")
    assert answer.content == TEXT
    first, second = answer.receipt.attempts
    assert first.error.startswith("ServerError") and first.status in (200, 503)
    assert second.error is None and [second.wait] == clock.sleeps


async def test_a_first_event_that_refuses_is_that_refusal(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_sse(sse({"error": {"message": "bad tool", "code": 400}}))
    with pytest.raises(InvalidRequestError, match="bad tool") as caught:
        await ask(llm, "stream")
    assert not isinstance(caught.value, StreamInterruptedError)
    assert len(server.requests) == 1


# Time. The clock is a test's own: it stands still until it is told.


async def until(task: asyncio.Task[Any]) -> None:
    await asyncio.wait([task], timeout=10)
    assert task.done()


@both_ways
async def test_the_timeout_of_an_attempt(server: ScriptedServer, how: str) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, max_retries=1)
    clock = FakeClock()
    server.answer(delay=FOREVER)
    server.answer_json(completion()) if how == "query" else server.answer_sse(PLAIN)
    task = asyncio.create_task(ask(QueryLLM(acme_api_key=KEY, clock=clock), how, timeout=30))
    assert await server.until_asked()
    await clock.advance(29)
    assert not task.done()
    await clock.advance(1)
    assert await eventually(lambda: len(clock.sleeps) == 1)
    await clock.advance(1)
    await until(task)
    first, second = task.result().receipt.attempts
    assert first.error.startswith("RequestTimeoutError") and "30 s" in first.error
    assert first.latency == 30
    assert second.status == 200
    assert await server.until_open(1)  # that of the first attempt is closed


@both_ways
async def test_a_timeout_without_retries_is_also_a_builtin_one(server: ScriptedServer, how: str) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, max_retries=0, timeout=20)
    clock = FakeClock()
    server.answer(delay=FOREVER)
    task = asyncio.create_task(ask(QueryLLM(acme_api_key=KEY, clock=clock), how))
    assert await server.until_asked()
    await clock.advance(20)
    await until(task)
    with pytest.raises(TimeoutError) as caught:
        task.result()
    assert type(caught.value) is RequestTimeoutError
    assert (caught.value.provider, caught.value.model) == ("acme", "large")
    assert await server.until_open(0)


@both_ways
async def test_a_stalled_body(acme: None, server: ScriptedServer, how: str) -> None:
    clock = FakeClock()
    server.answer(json.dumps(completion()), cut_at=20, end="stall")
    task = asyncio.create_task(ask(QueryLLM(acme_api_key=KEY, clock=clock, max_attempts=1), how, timeout=30))
    assert await server.until_asked()
    await clock.advance(30)
    await until(task)
    assert type(task.exception()) is RequestTimeoutError
    assert await server.until_open(0)


@both_ways
async def test_the_deadline(acme: None, server: ScriptedServer, how: str) -> None:
    clock = FakeClock()
    server.answer(delay=FOREVER)
    task = asyncio.create_task(ask(QueryLLM(acme_api_key=KEY, clock=clock), how, timeout=30, deadline=5))
    assert await server.until_asked()
    await clock.advance(5)
    await until(task)
    failed = task.exception()
    assert type(failed) is DeadlineExceededError
    assert "5 s" in str(failed) and "acme" in str(failed)
    assert len(failed.receipt.attempts) == len(server.requests) == 1
    assert await server.until_open(0)


@pytest.mark.parametrize(
    ("limits", "cause"), [({"timeout": 30}, RequestTimeoutError), ({"timeout": 300, "deadline": 30}, DeadlineExceededError)]
)
async def test_a_gap_that_is_too_long(acme: None, server: ScriptedServer, limits: dict[str, float], cause: Any) -> None:
    clock = FakeClock()
    server.answer_sse(sse(chunk("Hel")), end="stall")
    task = asyncio.create_task(broken(QueryLLM(acme_api_key=KEY, clock=clock), **limits))
    assert await server.until_asked()
    for _ in range(3):  # the time before the first piece is another gap
        await asyncio.sleep(0.02)
        await clock.advance(29 if not task.done() else 0)
    await until(task)
    assert type(task.result().__cause__) is cause
    assert await server.until_open(0)


async def test_the_consumers_own_slowness_is_no_gap(acme: None, server: ScriptedServer) -> None:
    clock = FakeClock()
    server.answer_sse(*(piece for part in PARTS for piece in (sse(chunk(part)), GATE)), sse(END), DONE)
    pieces = []
    async with QueryLLM(acme_api_key=KEY, clock=clock).stream(MODEL, prompt="hi", timeout=30, deadline=10_000) as stream:
        async for piece in stream:
            pieces.append(piece)
            await clock.advance(1000)
            server.release()
    assert pieces == PARTS
    assert stream.response.finish_reason == "stop"


# Connections


async def test_a_cookie_is_not_kept(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(completion(), headers={"set-cookie": "session=1; Path=/"}, times=2)
    await ask(llm)
    await ask(llm)
    assert all("cookie" not in request.headers for request in server.requests)


async def test_a_connection_is_used_again(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(error("boom"), status=500)
    server.answer_json(completion())
    server.answer_sse(PLAIN, times=2)
    server.answer_json(error("no"), status=400)
    server.answer_json(completion())
    for how in ("query", "stream", "stream"):
        await ask(llm, how)
    with pytest.raises(InvalidRequestError):
        await ask(llm)
    await ask(llm)
    assert server.opened == server.open == 1


async def test_a_stream_is_over_when_it_says_so_and_not_when_its_connection_ends(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_sse(PLAIN, GATE)
    server.answer_json(completion())
    assert (await ask(llm, "stream")).content == TEXT  # the server has not ended the body yet
    server.release()
    assert (await ask(llm)).content == "Hello."
    assert await server.until_open(server.opened)


def test_a_loop_that_ends_before_the_streams_connection_does(acme: None, server: ScriptedServer, clock: FakeClock) -> None:
    server.answer_sse(PLAIN, GATE)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        answer = asyncio.run(ask(QueryLLM(acme_api_key=KEY, clock=clock), "stream"))
        gc.collect()
    assert answer.content == TEXT
    assert [str(warning.message) for warning in warned if issubclass(warning.category, ResourceWarning)] == []
    assert asyncio.run(server.until_open(0))


def test_a_context_that_ends_before_the_streams_connection_does(acme: None, server: ScriptedServer, clock: FakeClock) -> None:
    async def main() -> None:
        async with QueryLLM(acme_api_key=KEY, clock=clock) as llm:
            await ask(llm, "stream")
        assert await server.until_open(0)

    server.answer_sse(PLAIN, GATE)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        asyncio.run(main())
        gc.collect()
    assert [str(warning.message) for warning in warned if issubclass(warning.category, ResourceWarning)] == []


@pytest.mark.parametrize("where", ["before the head", "in the body"])
async def test_a_cancelled_query_leaves_no_connection(llm: QueryLLM, server: ScriptedServer, where: str) -> None:
    if where == "before the head":
        server.answer(delay=FOREVER)
    else:
        server.answer(json.dumps(completion()), cut_at=20, end="stall")
    server.answer_json(completion())
    task = asyncio.create_task(ask(llm))
    assert await server.until_asked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await server.until_open(0)
    assert (await ask(llm)).content == "Hello."


@pytest.mark.parametrize("way", ["cancelled", "stopped", "left", "broken off", "dropped"])
async def test_an_unfinished_stream_leaves_no_connection(llm: QueryLLM, server: ScriptedServer, way: str) -> None:
    server.answer_sse(sse(chunk("Hel")), end="stall")
    server.answer_json(completion())
    stream = llm.stream(MODEL, prompt="hi")
    if way == "cancelled":
        task = asyncio.create_task(_read(stream))
        assert await eventually(lambda: stream.response.content == "Hel")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    elif way == "stopped":
        async for _ in stream:
            await stream.stop()
    elif way == "left":
        async with stream:
            assert await anext(stream) == "Hel"
    elif way == "broken off":
        async for _ in stream:
            break
        stream.stop()
    else:
        assert await anext(stream) == "Hel"
        await asyncio.sleep(0)
    response = stream.response
    del stream
    gc.collect()
    assert await server.until_open(0)
    assert response.content == "Hel"
    assert (await ask(llm)).content == "Hello."


async def _read(stream: Any) -> list[str]:
    return [piece async for piece in stream]


async def test_a_stream_that_was_never_begun_sends_nothing(llm: QueryLLM, server: ScriptedServer) -> None:
    async with llm.stream(MODEL, prompt="hi"):
        pass
    llm.stream(MODEL, prompt="hi")
    assert server.requests == [] and server.opened == 0


async def test_stop_wakes_whoever_waits_for_the_next_piece(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_sse(sse(chunk("Hel")), end="stall")
    stream = llm.stream(MODEL, prompt="hi")
    task = asyncio.create_task(_read(stream))
    assert await eventually(lambda: stream.response.content == "Hel")
    await stream.stop()
    await until(task)
    assert task.result() == ["Hel"]
    assert await server.until_open(0)


async def test_many_cancelled_at_once(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer(delay=FOREVER, times=20)
    server.answer_json(completion(), times=None)
    tasks = [asyncio.create_task(ask(llm)) for _ in range(20)]
    assert await server.until_asked(20)
    for task in tasks:
        task.cancel()
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in await asyncio.gather(*tasks, return_exceptions=True))
    assert await server.until_open(0)
    answers = await asyncio.gather(*(ask(llm) for _ in range(20)))
    assert {answer.content for answer in answers} == {"Hello."}
