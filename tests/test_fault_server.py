"""The fault server of llm_master.testing: each thing that it can do wrong, seen through a real client."""

from __future__ import annotations

import ast
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
from servers.exchange import ASK, KEYS, ask, exchange, request
from servers.scripted import eventually

import llm_master.testing
from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    ConfigurationError,
    LLMConfig,
    ModelNotFoundError,
    ProviderConfig,
    ProviderConnectionError,
    QueryLLM,
    RequestTimeoutError,
    ServerError,
    StreamInterruptedError,
)
from llm_master.testing import Fault, FaultServer, Limit

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def llm(fault_server):
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=fault_server.base_url, requires_key=False, max_retries=0)
    return QueryLLM(LLMConfig(environment={}))


def with_key(fault_server, key):
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=fault_server.base_url, api_key=key, max_retries=0)
    return QueryLLM(LLMConfig(environment={}))


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


async def test_a_status_without_a_body_leaves_the_connection_in_order(fault_server):
    fault_server.script(Fault(204), Fault(304))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as client:
        statuses = []
        for _ in range(3):
            async with client.post(f"{fault_server.base_url}/chat/completions", json=ASK) as answer:
                statuses.append((answer.status, bool(await answer.read())))
    assert statuses == [(204, False), (304, False), (200, True)]


async def test_delay_for_ever_runs_into_the_clients_timeout(llm, fault_server):
    fault_server.script(Fault(delay=math.inf))
    with pytest.raises(RequestTimeoutError):
        await llm.query("acme/large", prompt="Hello", timeout=0.05)
    (seen,) = fault_server.requests
    assert seen.status is None
    assert not seen.finished
    # Whoever hangs up is no longer in flight.
    assert await eventually(lambda: ask(fault_server)[0] == 200 and fault_server.requests[-1].in_flight == 1)


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


def test_the_public_names_are_what_type_checkers_are_told():
    assert llm_master.testing.__all__ == dir(llm_master.testing) == ["FakeClock", "Fault", "FaultServer", "Limit", "SeenRequest"]
    tree = ast.parse(Path(llm_master.testing.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert sorted([node.names[0].asname for node in block.body], key=str.lower) == sorted(llm_master.testing.__all__, key=str.lower)
    with pytest.raises(AttributeError, match="FaultyServer"):
        llm_master.testing.FaultyServer


def test_importing_the_names_starts_and_loads_nothing_heavy():
    code = (
        "import sys; import llm_master.testing; assert not {'aiohttp', 'pytest', 'http.client', 'asyncio'} & set(sys.modules);"
        "from llm_master.testing import *; assert not {'aiohttp', 'pytest'} & set(sys.modules); print(FaultServer())"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("FaultServer(not started)\n", "")
