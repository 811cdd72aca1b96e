"""The fault server's limits: strict windows, tokens, requests in flight."""

from __future__ import annotations

import asyncio
import json
import math

import aiohttp
from hypothesis import given
from hypothesis import strategies as st
from servers.exchange import ASK, KEYS, ask, request
from servers.scripted import eventually

from llm_master.testing import Fault, Limit
from llm_master.testing.windows import Admission, Asked, SlidingWindow, peak


def test_a_limit_by_key(fault_server):
    fault_server.limit(Limit(2, window=60))
    fault_server.accept(keys=KEYS)

    def asked(key):
        return ask(fault_server, headers=[f"authorization: Bearer {KEYS[key]}"])

    answers = [asked(key) for key in ("first", "first", "first", "second")]
    assert [status for status, _, _ in answers] == [200, 200, 429, 200]
    allowed, refused = answers[1][1], answers[2][1]
    assert (allowed["x-ratelimit-limit-requests"], allowed["x-ratelimit-remaining-requests"]) == ("2", "0")
    assert "retry-after" not in allowed
    assert 50_000 < int(refused["retry-after-ms"]) <= 60_000
    assert int(refused["retry-after"]) == math.ceil(int(refused["retry-after-ms"]) / 1000)
    assert refused["x-ratelimit-reset-requests"].endswith("ms")
    assert json.loads(answers[2][2])["error"]["code"] == "rate_limit_exceeded"
    assert (fault_server.peak(60, by="key"), fault_server.peak(60)) == (2, 3)
    assert fault_server.counts("allowed") == {True: 3, False: 1}


async def test_who_comes_again_when_told_is_let_through(fault_server):
    fault_server.limit(Limit(3, window=0.2, by=("key", "model")))

    async def until_answered(client, model):
        sends = 0
        while True:
            sends += 1
            async with client.post(f"{fault_server.base_url}/chat/completions", json={**ASK, "model": model}) as answer:
                if answer.status == 200:
                    return sends
                await asyncio.sleep(int(answer.headers["retry-after-ms"]) / 1000)

    async with aiohttp.ClientSession() as client:
        sends = [await until_answered(client, "alone") for _ in range(7)]
        assert max(sends) == 2  # nobody else took the place
        await asyncio.gather(*(until_answered(client, model) for model in ("a", "b") for _ in range(8)))
    assert fault_server.peak(0.2, by="model") == 3
    assert fault_server.counts()[200] == 23


def test_limits_of_tokens_and_a_request_that_never_fits(fault_server):
    fault_server.limit(Limit(20, what="tokens", by="model"), Limit(10, what="input_tokens", model="small"))
    assert ask(fault_server)[0] == 200  # 3 and 5 tokens
    assert ask(fault_server)[0] == 200
    status, headers, _ = ask(fault_server)
    assert (status, headers["x-ratelimit-remaining-tokens"]) == (429, "4")
    fault_server.limit(Limit(5, what="output_tokens"))
    fault_server.script(Fault(usage={"prompt_tokens": 1, "completion_tokens": 6}))
    status, headers, body = ask(fault_server)
    assert status == 429
    assert "retry-after" not in headers
    assert b"never fits" in body
    fault_server.script(Fault(500))
    assert [ask(fault_server)[0] for _ in range(2)] == [500, 200]  # who is refused uses up no step


async def test_concurrency(fault_server):
    fault_server.limit(Limit(2, what="concurrency"))
    fault_server.script(Fault(delay="forever", times=2))
    held = [await asyncio.open_connection(fault_server.host, fault_server.port) for _ in range(2)]
    for _, writer in held:
        writer.write(request(ASK))
    assert await eventually(lambda: len(fault_server.requests) == 2)
    status, headers, _ = ask(fault_server)
    assert (status, headers["x-ratelimit-remaining-concurrency"]) == (429, "0")
    for _, writer in held:
        writer.close()
        await writer.wait_closed()
    assert await eventually(lambda: ask(fault_server)[0] == 200)


@given(st.integers(1, 6), st.integers(1, 12), st.lists(st.tuples(st.integers(0, 7), st.integers(0, 4)), max_size=60))
def test_no_interval_ever_holds_more_and_what_fits_is_never_refused(limit, window, arrivals):
    counted, let_through, now = SlidingWindow(limit, window), [], 0
    for passed, amount in arrivals:
        now += passed
        held = sum(taken for at, taken in let_through if now - window < at <= now)
        wait = counted.wait(now, amount)
        assert (wait == 0) == (held + amount <= limit)
        assert (wait == math.inf) == (amount > limit)
        assert counted.remaining(now) == limit - held
        if 0 < wait < math.inf:
            # There is room when it says, and not a moment before.
            for moment, fits in ((now + wait, True), (now + wait - 0.5, False)):
                assert (sum(taken for at, taken in let_through if moment - window < at) + amount <= limit) == fits
        if wait == 0:
            counted.take(now, amount)
            let_through.append((now, amount))
    in_windows = [sum(taken for at, taken in let_through if end - window < at <= end) for end, _ in let_through]
    assert max(in_windows, default=0) <= limit
    assert peak(let_through, window) == max(in_windows, default=0)


@given(st.floats(0.001, 1e6), st.floats(1e-4, 1e4), st.lists(st.floats(0, 1e3), max_size=30))
def test_who_waits_as_told_always_fits(start, window, gaps):
    """Rounding may not make the server refuse whom it told to come then."""
    counted, now = SlidingWindow(3, window), start
    for gap in gaps:
        now += gap
        if wait := counted.wait(now, 1):
            now = max(now + wait, math.nextafter(now, math.inf))
            now = now if not counted.wait(now, 1) else math.nextafter(now, math.inf)
        assert counted.wait(now, 1) == 0
        counted.take(now, 1)


def test_a_request_takes_from_all_limits_or_from_none():
    admission = Admission([Limit(5, by="key"), Limit(1, by="model")])
    assert admission.admit(Asked("k", "k", "a"), 0).refused_by is None
    assert admission.admit(Asked("k", "k", "a"), 1).refused_by == Limit(1, by="model")
    assert admission.admit(Asked("k", "k", "b"), 2).headers["x-ratelimit-remaining-requests"] == "0"
    for moment in (3, 4, 5):
        assert admission.admit(Asked("k", "k", f"c{moment}"), moment).refused_by is None
    verdict = admission.admit(Asked("k", "k", "d"), 6)
    assert (verdict.refused_by, verdict.wait) == (Limit(5, by="key"), 54)
