"""What a query says of itself: the receipt in plain words, the hooks, the log; seen against a server that fails on demand."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest

from llm_master import (
    PROVIDER_CONFIGS,
    Attempt,
    ConfigurationError,
    LLMConfig,
    LLMError,
    LLMResponse,
    ProviderConfig,
    QueryLLM,
    Receipt,
    ServerError,
    StreamInterruptedError,
)
from llm_master.testing import FakeClock, Fault, FaultServer, Limit

FIRST, SECOND = "sk-first-0123456789", "sk-second-0123456789"


def environment(server: FaultServer) -> dict[str, str]:
    return {"ACME_API_BASE": server.base_url, "ACME_API_KEY_1": FIRST, "ACME_API_KEY_2": SECOND}


def plain(text: str) -> str:
    """A story without what is never the same twice."""
    return re.sub(r"\d+ ms|\d+(\.\d+)? s\b", "N s", re.sub(r"127\.0\.0\.1:\d+", "HOST", text))


def command(server: FaultServer, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment(server), **more}
    return subprocess.run(
        [sys.executable, "-m", "llm_master", "query", "-m", "acme/large", *arguments], env=env, capture_output=True, text=True, timeout=50
    )


STORY = """\
'acme/large' was asked of acme (named before the model).
1. acme, model large, key ACME_API_KEY_1 …6789: failed after N s.
   AuthenticationError: acme: 401 Incorrect API key provided: …6789 is none of this server's. Its keys are: second.
   Then: the key is not used for N s; another key at once.
2. acme, model large, key ACME_API_KEY_2 …6789: failed after N s.
   RateLimitError: acme: 429 Slow down.
   Then: rate limited: again in N s, as the provider asks.
   Waited N s.
3. acme, model large, key ACME_API_KEY_2 …6789: failed after N s.
   ServerError: acme: 503 Overloaded.
   Then: it may pass: again in N s.
   Waited N s.
4. acme, model large, key ACME_API_KEY_2 …6789: failed after N s.
   ServerError: acme: 503 Overloaded.
   Then: it may pass: again in N s.
   Waited N s.
5. acme, model large, key ACME_API_KEY_2 …6789: failed after N s.
   ServerError: acme: 503 Overloaded.
   Then: given up after 2 repetitions (max_retries); fallback to 'acme/small'.
   Now acme, model small: fallback, since 'acme/large' failed; named before the model.
6. acme, model small, key ACME_API_KEY_2 …6789: answered with 200 after N s.
Answered after 6 requests and N s, N s of it waiting; what it cost is not known.
"""


def test_explain_tells_the_story_of_a_bad_day(fault_server: FaultServer) -> None:
    fault_server.accept(keys={"second": SECOND})
    fault_server.script(
        Fault(429, headers={"retry-after-ms": "120"}, body={"error": {"message": "Slow down."}}),
        Fault(503, body={"error": {"message": "Overloaded."}}, times=3, model="large"),
    )
    done = command(fault_server, "--fallback", "acme/small", "--explain", "Why?")
    assert (done.returncode, done.stdout) == (0, "echo 6: Why?\n")
    assert plain(done.stderr) == STORY
    assert "sk-" not in done.stderr


def test_explain_tells_also_of_a_query_that_failed_and_the_log_shows_each_attempt(fault_server: FaultServer) -> None:
    fault_server.script(Fault(400, body={"error": {"message": "Bad."}}, times=None))
    done = command(fault_server, "--explain", "Why?", LOG_LEVEL="debug")
    assert done.returncode == 1
    assert plain(done.stderr) == (
        "DEBUG llm_master.dispatch: attempt 1: acme large with ACME_API_KEY_1 …6789: InvalidRequestError: acme: 400 Bad. in N s; "
        "sending it again would not help\n"
        "'acme/large' was asked of acme (named before the model).\n"
        "1. acme, model large, key ACME_API_KEY_1 …6789: failed after N s.\n"
        "   InvalidRequestError: acme: 400 Bad.\n"
        "   Then: sending it again would not help.\n"
        "No answer after 1 request and N s.\n"
        "Error: acme: 400 Bad.\n"
    )


def test_a_log_level_that_is_somebody_elses_is_told_and_stops_nobody(fault_server: FaultServer) -> None:
    done = command(fault_server, "Why?", LOG_LEVEL="verbose")
    assert done.returncode == 0
    assert "$LOG_LEVEL is 'verbose', which is no level here: give one of DEBUG, INFO" in done.stderr


def test_a_receipt_of_nothing_and_one_with_everything() -> None:
    assert Receipt(model_name="m", provider="acme", why="declared").explain() == "'m' was asked of acme (declared).\nNothing was sent."
    attempt = Attempt(provider="acme", model="m", model_served="m-2", wait=3, wait_reason="rpm of acme is 1", latency=120, first_delta=2)
    receipt = Receipt(
        model_name="m",
        provider="acme",
        why="declared",
        attempts=[attempt],
        renamed={"max_tokens": "maxOutputTokens"},
        dropped=("seed",),
        cost=Decimal("0.00120"),
        cost_state="estimated",
        currency="EUR",
    )
    assert receipt.explain() == (
        "'m' was asked of acme (declared).\n"
        "   Waited 3.0 s: rpm of acme is 1.\n"
        "1. acme, model m, no key: answered after 120 s, the first piece after 2.0 s; it says that m-2 answered.\n"
        "Sent under another name: max_tokens as maxOutputTokens.\n"
        "Not sent, as agreed: seed.\n"
        "Answered after 1 request and 123 s, 3.0 s of it waiting; it cost 0.0012 EUR (an estimate)."
    )


async def test_a_stream_that_was_stopped_is_told_so(fault_server: FaultServer) -> None:
    llm = QueryLLM(LLMConfig(environment=environment(fault_server)))
    fault_server.script(Fault(answer="one two three", stall="forever", stall_after=2))
    stream = llm.stream("acme/m", prompt="Count")
    await anext(stream)
    await stream.stop()
    story = stream.response.receipt.explain()
    assert "key ACME_API_KEY_1 …6789: stopped by the caller after" in story and "Ended early after 1 request" in story


# Hooks


async def test_hooks_see_every_attempt_and_every_answer(fault_server: FaultServer) -> None:
    attempts: list[tuple[int | None, str | None, int]] = []
    responses: list[str] = []
    waited = asyncio.Event()

    async def later(response: LLMResponse) -> None:
        await asyncio.sleep(0)
        responses.append(response.content)
        waited.set()

    def on_attempt(attempt: Attempt, receipt: Receipt) -> None:
        assert receipt.attempts[-1] is attempt and attempt.latency is not None
        attempts.append((attempt.status, attempt.then, len(receipt.attempts)))

    config = LLMConfig(environment=environment(fault_server), clock=FakeClock(auto_advance=True), on_attempt=on_attempt, on_response=later)
    fault_server.script(Fault(503, headers={"retry-after": "3"}), Fault(answer="One"), Fault(answer="Two"))
    llm = QueryLLM(config)
    await llm.query("acme/m", prompt="Hello")
    await asyncio.wait_for(waited.wait(), 10)
    async with llm.stream("acme/m", prompt="Hello") as stream:
        async for _ in stream:
            pass
    await asyncio.sleep(0.01)
    assert attempts == [(503, "it may pass: again in 3 s", 1), (200, None, 2), (200, None, 1)]
    assert responses == ["One", "Two"]


async def test_a_hook_that_raises_breaks_nothing_and_is_told(fault_server: FaultServer, caplog: pytest.LogCaptureFixture) -> None:
    def on_attempt(attempt: Attempt, receipt: Receipt) -> None:
        raise KeyError("my own fault")

    async def on_response(response: LLMResponse) -> None:
        raise ValueError("mine as well")

    llm = QueryLLM(LLMConfig(environment=environment(fault_server)), on_attempt=on_attempt, on_response=on_response)
    assert (await llm.query("acme/m", prompt="Hello")).content == "echo 1: Hello"
    await asyncio.sleep(0.01)
    assert "the hook on_attempt raised; the call goes on" in caplog.text and "my own fault" in caplog.text
    assert "the hook on_response raised; the call went on" in caplog.text and "mine as well" in caplog.text


def test_a_hook_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="on_attempt is 'print': give a function"):
        QueryLLM(on_attempt="print")


# What peers do wrong, and this library does not: the faults that concern how a request is sent


def acme(server: FaultServer, clock: FakeClock | None = None, row: dict[str, Any] | None = None, **fields: Any) -> QueryLLM:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, **(row or {}))
    keys = {"ACME_API_KEY_1": FIRST, "ACME_API_KEY_2": SECOND}
    return QueryLLM(LLMConfig(environment=keys, clock=clock or FakeClock(auto_advance=True), **fields))


async def test_errors_of_the_sdk_are_repeated_and_fall_back(fault_server: FaultServer) -> None:
    import openai

    class Traced(openai.AsyncOpenAI):
        """Not a stock class, so every call goes through it."""

    fault_server.script(Fault(503, times=2), Fault(503, times=3, model="large"))
    llm = acme(fault_server, row={"client_class": Traced})
    answer = await llm.query("acme/large", prompt="Hello", fallback_model="acme/small")
    # Two of the five are met by repetitions, three more end this model, the other answers.
    assert [attempt.status for attempt in answer.receipt.attempts] == [503, 503, 503, 200]
    assert answer.model_name == "acme/small"


async def test_one_429_does_not_stop_the_other_keys(fault_server: FaultServer) -> None:
    fault_server.accept(keys={"first": FIRST, "second": SECOND})
    fault_server.script(Fault(429, key="first", headers={"retry-after": "60"}, times=None))
    clock = FakeClock(auto_advance=True)
    llm = acme(fault_server, clock)
    for number in range(10):
        assert (await llm.query("acme/m", prompt=f"{number}")).content.endswith(f": {number}")
    assert fault_server.counts("key") == {"first": 1, "second": 10}
    assert fault_server.counts("status") == {429: 1, 200: 10}
    assert clock.sleeps == []


async def test_a_wrong_request_is_sent_once_and_keeps_its_status(fault_server: FaultServer) -> None:
    fault_server.script(Fault(400, times=None))
    with pytest.raises(LLMError) as caught:
        await acme(fault_server).query("acme/m", prompt="Hello")
    assert getattr(caught.value, "status", None) == 400 and len(fault_server.requests) == 1


async def test_max_retries_0_sends_once_and_raises(fault_server: FaultServer) -> None:
    fault_server.script(Fault(503, times=None))
    with pytest.raises(ServerError):
        await acme(fault_server, row={"max_retries": 0}).query("acme/m", prompt="Hello")
    assert len(fault_server.requests) == 1


async def test_a_stream_that_broke_is_not_begun_again(fault_server: FaultServer) -> None:
    fault_server.script(Fault(answer="one two three four", reset_after=500))
    texts = []
    with pytest.raises(StreamInterruptedError) as caught:
        async for text in acme(fault_server).stream("acme/m", prompt="Hello"):
            texts.append(text)
    assert "".join(texts) == caught.value.response.content != ""
    assert len(fault_server.requests) == 1


async def test_an_unknown_model_is_not_replaced_by_another(fault_server: FaultServer) -> None:
    fault_server.accept(models=["small"])
    llm = acme(fault_server, enable_fallback=True)
    with pytest.raises(LLMError, match="404"):
        await llm.query("acme/large", prompt="Hello")
    assert [request.model for request in fault_server.requests] == ["large"]


async def test_no_key_stands_in_receipts_logs_errors_or_reprs(fault_server: FaultServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    llm = acme(fault_server)
    answer = await llm.query("acme/m", prompt="Hello")
    fault_server.script(Fault(401, times=None, body={"error": {"message": f"{FIRST} and {SECOND} are wrong"}}))
    with pytest.raises(LLMError) as caught:
        await llm.query("acme/m", prompt="Hello")
    pool = llm._engine.target("acme/m").line.pool
    with pytest.raises(LLMError) as again:
        await llm.query("acme/m", prompt="Hello")
    shown = (
        f"{answer.receipt!r}{answer.receipt.explain()}{caught.value!r}{again.value!r}{caught.value.receipt.explain()}{pool!r}{caplog.text}"
    )
    assert FIRST not in shown and SECOND not in shown


# Limits against a server that counts


async def test_a_declared_limit_meets_a_strict_server_without_a_429(fault_server: FaultServer) -> None:
    """In real time, with little of it: 10 in any half second, from 40 callers at once."""
    fault_server.limit(Limit(10, window=1))
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=fault_server.base_url, requires_key=False, rps=10)
    llm = QueryLLM(LLMConfig(environment={}))
    answers = await asyncio.gather(*(llm.query("acme/m", prompt=f"{number}") for number in range(25)))
    assert all(answer.content.endswith(f": {number}") for number, answer in enumerate(answers))
    assert fault_server.counts("status") == {200: 25}
    assert fault_server.peak(1) <= 10
