"""The fault server of llm_master.testing: each thing that it can do wrong, seen through a real client."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers.scripted import eventually

from llm_master import (
    AuthenticationError,
    ConfigurationError,
    LLMConfig,
    ModelNotFoundError,
    PROVIDER_CONFIGS,
    ProviderConfig,
    ProviderConnectionError,
    QueryLLM,
    RequestTimeoutError,
    ServerError,
    StreamInterruptedError,
)
from llm_master.testing import Fault, FaultServer, Limit
from llm_master.testing.scenario import Scenario, added, read_scenario
from llm_master.testing.windows import Admission, Asked, SlidingWindow, peak

ROOT = Path(__file__).resolve().parent.parent
KEYS = {"first": "sk-first-0123456789", "second": "sk-second-0123456789"}
ASK = {"model": "m", "messages": [{"role": "user", "content": "Hello there"}]}


@pytest.fixture
def llm(fault_server):
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=fault_server.base_url, requires_key=False, max_retries=0)
    return QueryLLM(LLMConfig(environment={}))


def with_key(fault_server, key):
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=fault_server.base_url, api_key=key, max_retries=0)
    return QueryLLM(LLMConfig(environment={}))


def request(body, path="/v1/chat/completions", method="POST", headers=()):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"{method} {path} HTTP/1.1", "host: x", f"content-length: {len(raw)}", *headers, "", ""]
    return "\r\n".join(head).encode() + raw


def exchange(server, body=ASK, **how):
    """Everything that comes back until the connection ends, and whether a reset ended it."""
    with socket.create_connection((server.host, server.port), timeout=10) as connection:
        connection.sendall(request(body, **how))
        came = b""
        try:
            while data := connection.recv(65536):
                came += data
        except ConnectionResetError:
            return came, True
        return came, False


def ask(server, body=ASK, **how):
    """Status, headers and body of an answer."""
    came, was_reset = exchange(server, body, **{**how, "headers": [*how.get("headers", ()), "connection: close"]})
    assert not was_reset
    head, _, body = came.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), {name.lower(): text for name, text in (line.split(": ", 1) for line in lines)}, body


# Answers


async def test_its_own_answer_is_an_echo_with_usage(llm, fault_server):
    answer = await llm.query("acme/large", prompt="Hello there")
    assert answer.content == "echo 1: Hello there"
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 5)  # (11 + 3) // 4 and (19 + 3) // 4
    (seen,) = fault_server.requests
    assert (seen.model, seen.status, seen.key, seen.stream, seen.in_flight, seen.finished) == ("large", 200, None, False, 1, True)
    assert (seen.input_tokens, seen.output_tokens) == (3, 5)
    assert seen.body["messages"][0]["content"] == "Hello there"


async def test_no_answer_lands_in_anothers_response(llm, fault_server):
    answers = await asyncio.gather(*(llm.query("acme/large", prompt=f"question {n}") for n in range(100)))
    assert [answer.content.partition(": ")[2] for answer in answers] == [f"question {n}" for n in range(100)]
    assert len({answer.content for answer in answers}) == 100
    assert fault_server.counts() == {200: 100}


async def test_a_stream_ends_with_usage_where_it_is_wanted(llm):
    async with llm.stream("acme/large", prompt="Hello there") as stream:
        pieces = [text async for text in stream]
    assert pieces == ["echo ", "1: ", "Hello ", "there"]
    assert stream.response.usage.output_tokens == 5


def test_the_openai_sdk_is_answered(fault_server):
    with openai.OpenAI(api_key="sk-any", base_url=fault_server.base_url, max_retries=0) as client:
        answer = client.chat.completions.create(model="m", messages=ASK["messages"])
        assert answer.choices[0].message.content == "echo 1: Hello there"
        assert answer.usage.total_tokens == 8
        chunks = list(client.chat.completions.create(model="m", messages=ASK["messages"], stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "echo 2: Hello there"
        assert all(chunk.usage is None for chunk in chunks)  # nobody asked for it
        vectors = client.embeddings.create(model="m", input=["a", "b", "a"], dimensions=3).data
        assert vectors[0].embedding == vectors[2].embedding != vectors[1].embedding
        assert len(vectors[0].embedding) == 3
        assert [model.id for model in client.models.list()] == ["fault-model"]


async def test_embeddings(llm):
    answer = await llm.embed("acme/small", ["a", "bb"])
    assert len(answer) == 2
    assert answer.usage.input_tokens == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "no JSON"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "'model'"),
        ({"model": "m", "messages": []}, "'messages'"),
        ({"model": "m", "messages": ["Hi"]}, "'messages'"),
    ],
)
def test_a_request_of_no_form_is_refused(fault_server, body, said):
    status, _, answer = ask(fault_server, body)
    assert status == 400
    assert said in json.loads(answer)["error"]["message"]
    assert [seen.allowed for seen in fault_server.requests] == [False]


def test_any_path_will_do_and_what_it_has_nothing_for_is_scripted(fault_server):
    assert ask(fault_server, path="/openai/v9/chat/completions")[0] == 200
    status, _, body = ask(fault_server, {"prompt": "A cat"}, path="/v1/images/generations")
    assert status == 404
    assert b"nothing at /v1/images/generations" in body
    fault_server.script(Fault(path="/images/generations", body={"data": [{"url": "x"}]}))
    assert ask(fault_server)[0] == 200
    assert json.loads(ask(fault_server, {"prompt": "A cat"}, path="/v1/images/generations")[2]) == {"data": [{"url": "x"}]}
    assert fault_server.counts("path") == {"/openai/v9/chat/completions": 1, "/v1/images/generations": 2, "/v1/chat/completions": 1}


# Faults


async def test_status_headers_and_an_error_that_fits(llm, fault_server):
    fault_server.script(Fault(429, headers={"Retry-After": "7", "x-request-id": "mine"}), Fault(503), Fault(402))
    status, headers, body = ask(fault_server)
    assert (status, headers["retry-after"], headers["x-request-id"]) == (429, "7", "mine")
    assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
    with pytest.raises(ServerError) as failed:
        await llm.query("acme/large", prompt="Hello")
    assert failed.value.status == 503
    assert ask(fault_server)[0] == 402
    assert ask(fault_server)[0] == 200  # the script is at its end
    assert [seen.step for seen in fault_server.requests] == [0, 1, 2, None]


def test_body_answer_and_usage(fault_server):
    html = Fault(502, body="<h1>Bad gateway</h1>", headers={"content-type": "text/html"})
    fault_server.script(
        Fault(body={"error": {"message": "no"}}), html, Fault(answer="Forty-two", usage={"prompt_tokens": 9}), Fault(usage={})
    )
    assert json.loads(ask(fault_server)[2]) == {"error": {"message": "no"}}
    status, headers, body = ask(fault_server)
    assert (status, headers["content-type"], body) == (502, "text/html", b"<h1>Bad gateway</h1>")
    answer = json.loads(ask(fault_server)[2])
    assert (answer["choices"][0]["message"]["content"], answer["usage"]) == ("Forty-two", {"prompt_tokens": 9})
    assert "usage" not in json.loads(ask(fault_server)[2])


async def test_delay_for_ever_runs_into_the_clients_timeout(llm, fault_server):
    fault_server.script(Fault(delay=math.inf))
    with pytest.raises(RequestTimeoutError):
        await llm.query("acme/large", prompt="Hello", timeout=0.05)
    (seen,) = fault_server.requests
    assert seen.status is None
    assert not seen.finished
    # Whoever hangs up is no longer in flight.
    assert (await llm.query("acme/large", prompt="Hello")).content == "echo 2: Hello"
    assert fault_server.requests[1].in_flight == 1


async def test_delay(llm, fault_server):
    fault_server.script(Fault(delay=0.1))
    began = time.monotonic()
    await llm.query("acme/large", prompt="Hello")
    assert time.monotonic() - began >= 0.1


async def test_a_stream_that_falls_silent(llm, fault_server):
    fault_server.script(Fault(stall="forever", stall_after=3, answer="one two three"))
    pieces = []
    with pytest.raises(StreamInterruptedError) as failed:
        async with llm.stream("acme/large", prompt="Hello", timeout=0.2) as stream:
            async for text in stream:
                pieces.append(text)
    assert pieces == ["one ", "two "]  # the first event is the role
    assert failed.value.response.content == "one two "


def test_a_body_that_falls_silent_goes_on(fault_server):
    fault_server.script(Fault(stall=0.1, stall_after=10), Fault(stall=0.05), Fault(stall=0.05, stall_after=10**6))
    for _ in range(3):
        status, headers, body = ask(fault_server)
        assert status == 200
        assert len(body) == int(headers["content-length"])
        assert json.loads(body)
    for stream in (0, 2, 1000):
        fault_server.script(Fault(stall=0.05, stall_after=stream, chunk_delay=0.001))
        assert ask(fault_server, {**ASK, "stream": True})[2].endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


@pytest.mark.parametrize("size", [0, 1, 2, 7, 40, 100, 150])
def test_reset_at_byte_n_of_a_body(fault_server, size):
    fault_server.script(Fault(reset_after=size), Fault(reset_after=size, stream=True))
    came, was_reset = exchange(fault_server)
    head, _, body = came.partition(b"\r\n\r\n")
    assert was_reset
    assert len(body) == size
    assert bool(head) == (size > 0)
    came, was_reset = exchange(fault_server, {**ASK, "stream": True})
    assert was_reset
    chunks = came.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2]
    assert len(b"".join(chunks)) == size
    assert [seen.status for seen in fault_server.requests] == ([200, 200] if size else [None, None])
    assert not any(seen.finished for seen in fault_server.requests)


def test_reset_of_a_large_body_comes_after_all_bytes_before_it(fault_server):
    fault_server.script(Fault(body="x" * 8_000_000, reset_after=7_654_321))
    came, was_reset = exchange(fault_server)
    assert was_reset
    assert len(came.partition(b"\r\n\r\n")[2]) == 7_654_321


async def test_resets_as_the_library_sees_them(llm, fault_server):
    fault_server.script(Fault(reset_after=0), Fault(reset_after=20), Fault(reset_after=450, stream=True))
    for _ in range(2):
        with pytest.raises(ProviderConnectionError):
            await llm.query("acme/large", prompt="Hello")
    with pytest.raises(StreamInterruptedError) as failed:
        async with llm.stream("acme/large", prompt="Hello") as stream:
            async for _ in stream:
                pass
    assert failed.value.response.content


def test_close_in_the_middle(fault_server):
    fault_server.script(Fault(close_after=5), Fault(close_after=0))
    came, was_reset = exchange(fault_server)
    assert not was_reset
    assert len(came.partition(b"\r\n\r\n")[2]) == 5
    assert exchange(fault_server) == (b"", False)


async def test_garbage(llm, fault_server):
    fault_server.script(Fault(garbage="http"), Fault(garbage="json"), Fault(garbage="json", stream=True))
    with pytest.raises((ProviderConnectionError, ServerError)):
        await llm.query("acme/large", prompt="Hello")
    with pytest.raises(ServerError):
        await llm.query("acme/large", prompt="Hello")
    with pytest.raises(ServerError):
        async with llm.stream("acme/large", prompt="Hello") as stream:
            async for _ in stream:
                pass
    assert [seen.status for seen in fault_server.requests] == [None, 200, 200]


def test_a_step_is_for_what_it_names(fault_server):
    fault_server.script(
        Fault(500, model="other", times=None),
        Fault(501, key=KEYS["first"]),
        Fault(502, stream=True),
        Fault(503, every=2, times=None),
    )
    assert ask(fault_server)[0] == 200
    assert ask(fault_server)[0] == 503
    assert ask(fault_server, {**ASK, "model": "other"})[0] == 500
    assert ask(fault_server, {**ASK, "model": "other"})[0] == 500
    assert ask(fault_server, {**ASK, "stream": True})[0] == 502
    assert ask(fault_server, headers=[f"authorization: Bearer {KEYS['first']}"])[0] == 501
    assert [ask(fault_server)[0] for _ in range(4)] == [200, 503, 200, 503]


def test_a_script_goes_in_order_and_the_next_replaces_it(fault_server):
    fault_server.script(Fault(times=2), Fault(500, times=2))
    assert [ask(fault_server)[0] for _ in range(5)] == [200, 200, 500, 500, 200]
    fault_server.script(Fault(500, times=None))
    assert ask(fault_server)[0] == 500
    fault_server.script()
    assert ask(fault_server)[0] == 200


# Who may ask


async def test_any_other_key_gets_a_401(fault_server):
    fault_server.accept(keys=KEYS)
    assert (await with_key(fault_server, KEYS["second"]).query("acme/large", prompt="Hello")).content
    for key in ("sk-third-0123456789", None):
        with pytest.raises(AuthenticationError) as failed:
            await with_key(fault_server, key or "sk-3").query("acme/large", prompt="Hello")
        assert failed.value.status == 401
    assert ask(fault_server)[0] == 401
    assert fault_server.counts("key") == {"second": 1, "…6789": 1, "… (1)": 1, None: 1}
    assert not any(key in repr(fault_server.requests) for key in KEYS.values())


async def test_any_other_model_gets_a_404(llm, fault_server):
    fault_server.accept(models=["large"])
    assert (await llm.query("acme/large", prompt="Hello")).content
    with pytest.raises(ModelNotFoundError):
        await llm.query("acme/small", prompt="Hello")
    assert json.loads(ask(fault_server, b"", path="/v1/models", method="GET")[2])["data"][0]["id"] == "large"


# Limits


async def test_a_limit_by_key(fault_server):
    fault_server.limit(Limit(2, window=60))
    first, second = (with_key(fault_server, key) for key in KEYS.values())
    fault_server.accept(keys=KEYS)

    async def asked(key):
        return ask(fault_server, headers=[f"authorization: Bearer {KEYS[key]}"])

    answers = [await asked(key) for key in ("first", "first", "first", "second")]
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


# What it is told


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"staus": 429}, ["'staus' is no field: did you mean 'status'?"]),
        ({"status": 99, "delay": -1, "times": 0}, ["status is 99", "delay is -1", "times is 0"]),
        ({"reset_after": -1, "stal": 1}, ["reset_after is -1", "did you mean 'stall'?"]),
        ({"stall_after": 5}, ["give stall too"]),
        ({"garbage": "xml"}, ["give http or json"]),
        ({"body": "x", "answer": "y"}, ["keep one of them"]),
        ({"reset_after": 1, "close_after": 1}, ["keep one of them"]),
        ({"status": 500, "answer": "y", "usage": {}}, ["answer belongs", "usage belongs"]),
        ({"headers": {"a": "b\r\nc"}}, ["headers is"]),
        ({"headers": {"Content-Length": "5"}}, ["the server's own affair"]),
        ({"stream": 1, "path": "x", "every": 0}, ["stream is 1", "path is 'x'", "every is 0"]),
        ({"body": float("inf"), "usage": [], "key": 5}, ["usage is []", "key is a int"]),
    ],
)
def test_all_that_is_wrong_with_a_step_is_said_at_once(fields, said):
    with pytest.raises(ConfigurationError) as failed:
        Fault.from_mapping(fields)
    assert [text for text in said if text not in str(failed.value)] == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"limit": 0, "window": -1, "what": "words", "by": ["user"]}, ["limit is 0", "window is -1", "what is 'words'", "by is ('user',)"]),
        ({"windw": 5}, ["did you mean 'window'?", "limit is missing"]),
        ({"limit": 4, "what": "concurrency", "window": 5}, ["window has no meaning"]),
        ({"limit": 4, "by": 5}, ["by is (5,)"]),
    ],
)
def test_all_that_is_wrong_with_a_limit_is_said_at_once(fields, said):
    with pytest.raises(ConfigurationError) as failed:
        Limit.from_mapping(fields)
    assert [text for text in said if text not in str(failed.value)] == []


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("600/60s", Limit(600)),
        ("600/1m", Limit(600)),
        ("10/0.5/model", Limit(10, window=0.5, by="model")),
        ("90000 tokens/1h/key+model", Limit(90000, window=3600, what="tokens", by=("key", "model"))),
        ("5 output_tokens/250ms/all", Limit(5, window=0.25, what="output_tokens", by=())),
        ("4 concurrency", Limit(4, what="concurrency")),
        ("4 concurrency/model", Limit(4, what="concurrency", by="model")),
    ],
)
def test_a_limit_as_text(text, limit):
    assert Limit.from_text(text) == limit


@pytest.mark.parametrize("text", ["600", "600/", "600/60d", "many/60s", "4 concurrency/60s", "0/60s", "5/0s", "5/1s/user", "4 words/1s"])
def test_no_limit_as_text(text):
    with pytest.raises(ConfigurationError, match=f"limit '{text}'"):
        Limit.from_text(text)


def test_steps_and_limits_survive_their_plain_form():
    for fault in (
        Fault(),
        Fault(429, headers={"a": "b"}, times=None),
        Fault(delay="forever", stall=math.inf, stall_after=3, key="k"),
        Fault(usage={}),
    ):
        assert Fault.from_mapping(json.loads(json.dumps(fault.to_mapping()))) == fault
    for limit in (Limit(5), Limit(5, window=0.1, by=(), what="tokens", model="m")):
        assert Limit.from_mapping(json.loads(json.dumps(limit.to_mapping()))) == limit


def test_no_key_is_shown():
    made = [Fault(key=KEYS["first"]), Limit(5, key=KEYS["first"]), Scenario(keys=list(KEYS.values()))]
    assert not any(key in repr(made) for key in KEYS.values())
    assert list(Scenario(keys=["sk-a-01234567", "sk-b-01234567"]).keys) == ["…4567", "…4567 (1)"]


def test_a_scenario_from_a_file(tmp_path):
    (tmp_path / "faults.toml").write_text(
        'limits = ["5/1s"]\nkeys = ["sk-first-0123456789"]\n[[script]]\nstatus = 429\n[[script]]\ndelay = "forever"\n'
    )
    scenario = read_scenario(tmp_path / "faults.toml")
    assert scenario.script == (Fault(429), Fault(delay=math.inf))
    more = added(scenario, limits=[Limit(7)], keys=["sk-other-0123456789", "sk-first-0123456789"], models=["m"])
    assert (more.limits, list(more.keys), more.models) == ((Limit(5, window=1), Limit(7)), ["…6789", "…6789 (1)"], ("m",))
    (tmp_path / "faults.json").write_text('[{"status": 429}]')
    assert read_scenario(tmp_path / "faults.json") == Scenario(script=[Fault(429)])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "a.toml",
            "[[script]]\nstaus = 5\n[[limits]]\nlimit = 0\n[[script]]\nstatus = 5",
            ["script[0]: 'staus'", "script[1]: status is 5", "limits[0]: limit"],
        ),
        ("a.toml", 'scrip = []\nmodels = "m"\nkeys = 5', ["did you mean 'script'?", "models must be", "keys must be"]),
        ("a.toml", "script = ", ["is no TOML"]),
        ("a.json", "{", ["is no JSON"]),
        ("a.json", "5", ["give {"]),
        ("a.json", '{"script": {"status": 5}, "limits": ["5"]}', ["script is", "limit '5': write it as"]),
        ("none.json", None, ["cannot be read (No such file"]),
    ],
)
def test_all_that_is_wrong_with_a_file_is_said_at_once(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError) as failed:
        read_scenario(tmp_path / name)
    assert [part for part in [name, *said] if part not in str(failed.value)] == []


def test_what_the_control_paths_refuse(fault_server):
    for what, told in [
        ("scenario", {"script": [{"staus": 5}]}),
        ("counts", {"by": "colour"}),
        ("peak", {"window": 0}),
        ("peak", {}),
        ("nowhere", {}),
    ]:
        status, _, body = ask(fault_server, told, path=f"/_faults/{what}")
        assert status in (400, 404)
        assert json.loads(body)["faults"]
    with pytest.raises(ConfigurationError, match="by"):
        fault_server.counts("colour")
    assert fault_server.requests == []
    assert json.loads(ask(fault_server, b"", path="/_faults/peak?window=60&by=key", method="GET")[2]) == 0


# Its life


async def test_reset_forgets_all_and_cuts_off_who_waits(fault_server):
    fault_server.script(Fault(delay="forever"), Fault(500, times=None))
    fault_server.limit(Limit(1))
    fault_server.accept(keys=["sk-only-0123456789"], models=["m"])
    reader, writer = await asyncio.open_connection(fault_server.host, fault_server.port)
    writer.write(request(ASK, headers=["authorization: Bearer sk-only-0123456789"]))
    assert await eventually(lambda: len(fault_server.requests) == 1)
    fault_server.reset()
    assert await reader.read() == b""
    writer.close()
    assert fault_server.requests == []
    assert [ask(fault_server)[0] for _ in range(2)] == [200, 200]
    assert fault_server.requests[0].number == 1


def test_it_comes_back_to_what_it_started_with():
    with FaultServer([Fault(500)], limits=[Limit(2)], keys=KEYS, models=["m"]) as server:
        headers = [f"authorization: Bearer {KEYS['first']}"]
        for _ in range(2):
            assert [ask(server, headers=headers)[0] for _ in range(3)] == [500, 200, 429]
            assert ask(server)[0] == 401
            server.reset()


def test_a_taken_port_is_named_and_what_is_stopped_says_so(fault_server):
    with pytest.raises(ConfigurationError, match=f"port {fault_server.port} of 127.0.0.1 is taken: .*port 0"):
        FaultServer(port=fault_server.port).start()
    with pytest.raises(ConfigurationError, match="cannot listen on port 1 of 192.0.2.1"):
        FaultServer(host="192.0.2.1", port=1).start()
    stopped = FaultServer()
    for _ in range(2):
        stopped.stop()
    with pytest.raises(ConfigurationError, match="not running"):
        stopped.requests
    with pytest.raises(ConfigurationError, match="is running"):
        fault_server.start()


def test_a_server_that_was_killed_is_missed():
    with FaultServer() as server:
        os.kill(server.pid, signal.SIGKILL)
        server._process.wait(10)
        with pytest.raises(ConfigurationError, match="does not answer"):
            server.reset()


async def test_it_dies_with_its_parent():
    code = "from llm_master.testing import FaultServer; import time; s = FaultServer().start(); print(s.port, flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    port = int(parent.stdout.readline())
    socket.create_connection(("127.0.0.1", port)).close()
    parent.kill()
    parent.communicate()

    def gone():
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return True
        return False

    assert await eventually(gone)


def test_importing_the_names_starts_and_loads_nothing_heavy():
    code = (
        "import sys; import llm_master.testing; assert not {'aiohttp', 'pytest', 'http.client', 'asyncio'} & set(sys.modules);"
        "from llm_master.testing import *; assert not {'aiohttp', 'pytest'} & set(sys.modules); print(FaultServer())"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("FaultServer(not started)\n", "")


# The command


def command(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "llm_master", "testing", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_the_command_serves_until_it_is_interrupted(tmp_path):
    (tmp_path / "faults.toml").write_text("[[script]]\nstatus = 418\n")
    with command("--script", "faults.toml", "--limit", "1/60s/all", "--key", KEYS["first"], "--model", "m") as process:
        address = process.stdout.readline().strip()
        served = FaultServer(port=int(address.removesuffix("/v1").rpartition(":")[2]))
        headers = [f"authorization: Bearer {KEYS['first']}"]
        assert [ask(served, headers=headers)[0] for _ in range(2)] == [418, 429]
        assert ask(served)[0] == 401
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert process.returncode == 0
    assert f"ACME_API_BASE={address}" in said
    assert "Traceback" not in said


def test_the_command_says_what_is_wrong(fault_server):
    for arguments, said in [
        (["--limit", "many"], "limit 'many'"),
        (["--script", "none.toml"], "none.toml: cannot be read"),
        (["--port", f"{fault_server.port}"], f"port {fault_server.port} of 127.0.0.1 is taken"),
    ]:
        with command(*arguments) as process:
            _, errors = process.communicate(timeout=10)
        assert process.returncode == 3
        assert errors.startswith("Error: ")
        assert said in errors
