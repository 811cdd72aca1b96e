"""Limits and key states that several processes share through a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from servers import redis_server
from servers.redis_server import RedisServer

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    ConfigurationError,
    DeadlineExceededError,
    LLMConfig,
    ModelConfig,
    ProviderConfig,
    QueryLLM,
)
from llm_master.cli import main
from llm_master.clock import SYSTEM_CLOCK
from llm_master.dispatch.keys import Key
from llm_master.dispatch.lease import Lease
from llm_master.dispatch.line import Line
from llm_master.dispatch.limits import MARGIN, Ask, Window
from llm_master.dispatch.pools import Pools
from llm_master.dispatch.sharing import Sharing
from llm_master.storage.redis_link import BOUND, Link
from llm_master.storage.shared import SharedStore, shown
from llm_master.storage.shared_script import SCRIPT
from llm_master.testing import Fault, FaultServer, Limit
from llm_master.types import Usage

KEY = "sk-shared-0123456789"
OTHER = "sk-others-9876543210"
PASSWORD = "open-sesame-0123"


@pytest.fixture(scope="module")
def _redis() -> Iterator[RedisServer]:
    if (missing := redis_server.installed()) is not None:
        pytest.skip(missing)
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture
def redis(_redis: RedisServer) -> Iterator[RedisServer]:
    """A Redis that is empty, and runs."""
    with contextlib.closing(_redis.client()) as client:
        client.flushall()
    yield _redis


def engine(url: str | None, *keys: str, **config: Any) -> QueryLLM:
    return QueryLLM(LLMConfig(environment={}, api_keys={"acme": list(keys) or [KEY]}, redis_url=url, **config))


def apart(url: str, *keys: str, **config: Any) -> QueryLLM:
    """Another process's object, as far as anybody can tell: an engine and a connection of its own."""
    return engine(url.replace("127.0.0.1", "localhost"), *keys, **config)


def acme(server: FaultServer, **row: Any) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, **row)


class Workers:
    """Processes that send at the same time."""

    def __init__(self, server: FaultServer, url: str | None, *, skews: tuple[float, ...], count: int, **row: Any) -> None:
        self.processes = []
        for skew in skews:
            told = {"base_url": server.base_url, "row": row, "keys": [KEY], "skew": skew, "count": count, "config": {"redis_url": url}}
            tests = Path(__file__).parent
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, str(tests / "servers" / "sharing_worker.py"), json.dumps(told)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={"PYTHONPATH": str(tests.parent), "PATH": os.environ["PATH"]},
                )
            )

    def __enter__(self) -> Workers:
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "ready\n"
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()

    def done(self) -> list[dict[str, Any]]:
        """What each has to say, with ``log``."""
        found = []
        for process in self.processes:
            out, err = process.communicate(timeout=50)
            assert process.returncode == 0, err
            found.append({**json.loads(out), "log": err})
        return found


def test_four_processes_with_skewed_clocks_keep_one_limit(redis: RedisServer, fault_server: FaultServer) -> None:
    """Never more than the limit in any window of the server's, whatever their clocks say. How much of it they use, ``scripts/bench shared`` tells."""
    limit, each = 40, 50
    seen = []
    # In real time, and a machine that stands still for longer than the windows' margin delivers what was sent in time too late. Four
    # processes that do not share one limit would be refused every time.
    for _ in range(3):
        fault_server.reset()
        redis_client = redis.client()
        redis_client.flushall()
        redis_client.close()
        fault_server.limit(Limit(limit, window=1.0, by="model"))
        with Workers(fault_server, redis.url, skews=(0.0, 3600.0, -86400.0 * 3, 0.5), count=each, rps=limit) as workers:
            done = workers.done()
        assert [process["ended"] for process in done] == [{"answered": each}] * 4
        seen.append((fault_server.counts("status"), fault_server.peak(1.0)))
        if seen[-1][0] == {200: 4 * each} and seen[-1][1] <= limit:
            return
    pytest.fail(f"refused, or too many in one window, each time: {seen}")


def test_redis_is_killed_in_the_middle_and_nothing_is_lost(redis: RedisServer, fault_server: FaultServer) -> None:
    limit, each = 40, 50
    fault_server.limit(Limit(limit, window=1.0, by="model"))
    with Workers(fault_server, redis.url, skews=(0.0,) * 4, count=each, rps=limit) as workers:
        time.sleep(0.9)
        redis.kill()
        try:
            time.sleep(0.7)
        finally:
            redis.start()
        done = workers.done()
    assert [process["ended"] for process in done] == [{"answered": each}] * 4
    counts = fault_server.counts("status")
    assert counts[200] == 4 * each
    lost, found = ([process["log"].count(f"{level} llm_master.storage") for process in done] for level in ("WARNING", "INFO"))
    # Who had to wait just then has not even noticed.
    assert max(lost) == 1, [process["log"] for process in done]
    assert max(found) == 1, "and it is shared again"


async def test_a_wrong_password_is_told_once_and_without_it(fault_server: FaultServer, caplog: pytest.LogCaptureFixture) -> None:
    if (missing := redis_server.installed()) is not None:
        pytest.skip(missing)
    acme(fault_server)
    server = RedisServer(password=PASSWORD)
    try:
        wrong = server.url.replace(PASSWORD, "wrong-0123")
        async with engine(wrong) as llm:
            for _ in range(3):
                await llm.query("acme/m", prompt="Hi")
        assert [record.levelname for record in caplog.records if record.name == "llm_master.storage"] == ["WARNING"]
        assert "LLM_MASTER_REDIS_URL" in caplog.text and "invalid username-password pair" in caplog.text
        assert "wrong-0123" not in caplog.text
        caplog.clear()
        async with engine(server.url) as llm:
            await llm.query("acme/m", prompt="Hi")
        assert not [record for record in caplog.records if record.name == "llm_master.storage"]
    finally:
        server.stop()


async def test_a_redis_that_stalls_holds_nobody_up_and_comes_back(
    redis: RedisServer, fault_server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "llm_master.storage")
    acme(fault_server)
    async with engine(redis.url) as llm:
        await llm.query("acme/m", prompt="Hi")
        redis.stall()
        try:
            began = time.monotonic()
            await asyncio.gather(*(llm.query("acme/m", prompt="Hi") for _ in range(20)))
            assert BOUND - 0.05 <= time.monotonic() - began < BOUND + 0.6
            began = time.monotonic()
            for _ in range(5):
                await llm.query("acme/m", prompt="Hi")
            assert time.monotonic() - began < BOUND, "only the first waits"
        finally:
            redis.go_on()
        until = time.monotonic() + 5
        while "shared again" not in caplog.text and time.monotonic() < until:
            await llm.query("acme/m", prompt="Hi")
            await asyncio.sleep(0.02)
    said = [record.levelname for record in caplog.records if record.name == "llm_master.storage"]
    assert said == ["WARNING", "INFO"]
    assert "no answer in time" in caplog.text


async def test_where_there_is_no_redis_from_the_start(fault_server: FaultServer, caplog: pytest.LogCaptureFixture) -> None:
    acme(fault_server, rpm=600, max_concurrent=3)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        async with engine(f"redis://127.0.0.1:{nobody.getsockname()[1]}/0") as llm:
            began = time.monotonic()
            await asyncio.gather(*(llm.query("acme/m", prompt="Hi") for _ in range(20)))
            assert time.monotonic() - began < 2
    assert [record.levelname for record in caplog.records if record.name == "llm_master.storage"] == ["WARNING"]


async def test_one_that_never_answers_from_the_start_is_waited_for_once(
    fault_server: FaultServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_master.storage.redis_link.CONNECT", 0.5)
    acme(fault_server)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        async with engine(f"redis://127.0.0.1:{silent.getsockname()[1]}/0") as llm:
            began = time.monotonic()
            await asyncio.gather(*(llm.query("acme/m", prompt="Hi") for _ in range(20)))
            assert BOUND - 0.05 < time.monotonic() - began < BOUND + 0.6
            began = time.monotonic()
            await llm.query("acme/m", prompt="Hi")
            assert time.monotonic() - began < BOUND - 0.05
            await asyncio.sleep(0.5)
    assert [record.levelname for record in caplog.records if record.name == "llm_master.storage"] == ["WARNING"]


async def test_redis_that_was_started_anew_between_two_calls_is_not_even_noticed(
    redis: RedisServer, fault_server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    acme(fault_server)
    async with engine(redis.url) as llm:
        await llm.query("acme/m", prompt="Hi")
        redis.kill()
        redis.start()
        await llm.query("acme/m", prompt="Hi")
    assert not [record for record in caplog.records if record.name == "llm_master.storage"]


async def test_what_others_have_used_up_is_waited_for_within_the_deadline_only(redis: RedisServer, fault_server: FaultServer) -> None:
    acme(fault_server, rpm=3)
    async with engine(redis.url) as one, apart(redis.url) as two:
        for _ in range(3):
            await one.query("acme/m", prompt="Hi")
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError, match="rpm of acme is 3 .* capacity returns in"):
            await two.query("acme/m", prompt="Hi", deadline=5)
        PROVIDER_CONFIGS["spare"] = ProviderConfig(base_url=fault_server.base_url, requires_key=False)
    async with apart(redis.url) as two:
        answer = await two.query("acme/m", prompt="Hi", fallback_model="spare/m")
        assert answer.provider == "spare"
        assert time.monotonic() - began < 1, "told at once"


# Key states


async def test_a_key_that_one_process_found_dead_is_not_asked_by_another(redis: RedisServer, fault_server: FaultServer) -> None:
    acme(fault_server)
    fault_server.accept(keys=[OTHER])
    async with engine(redis.url, KEY, OTHER) as one, apart(redis.url, OTHER, KEY) as two:
        assert [attempt.status for attempt in (await one.query("acme/m", prompt="Hi")).receipt.attempts] == [401, 200]
        answers = [await two.query("acme/m", prompt="Hi") for _ in range(6)]
    assert [[attempt.status for attempt in answer.receipt.attempts] for answer in answers] == [[200]] * 6
    assert fault_server.counts("status")[401] == 1


async def test_where_no_key_is_left_the_error_says_who_found_it(redis: RedisServer, fault_server: FaultServer) -> None:
    acme(fault_server)
    fault_server.accept(keys=[OTHER])
    async with engine(redis.url) as one, apart(redis.url, KEY) as two:
        with pytest.raises(AuthenticationError):
            await one.query("acme/m", prompt="Hi")
        with pytest.raises(AuthenticationError, match="as another process has found"):
            await two.query("acme/m", prompt="Hi")
    assert fault_server.counts("status") == {401: 1}


async def test_a_429_cools_a_quota_for_all(redis: RedisServer, fault_server: FaultServer) -> None:
    acme(fault_server)
    fault_server.script(Fault(429, headers={"retry-after-ms": "600"}))
    async with engine(redis.url) as one, apart(redis.url, KEY) as two:
        first = asyncio.create_task(one.query("acme/m", prompt="Hi"))
        while not fault_server.requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        began = time.monotonic()
        answer = await two.query("acme/m", prompt="Hi")
        assert 0.4 < time.monotonic() - began < 1.5
        assert "is rate limited" in (answer.receipt.attempts[0].wait_reason or "")
        await first
    assert fault_server.counts("status") == {429: 1, 200: 2}


async def test_use_is_counted_over_processes(redis: RedisServer, fault_server: FaultServer) -> None:
    acme(fault_server)
    async with engine(redis.url, KEY, OTHER) as one, apart(redis.url, KEY, OTHER) as two:
        await asyncio.gather(*(llm.query("acme/m", prompt="Hi") for llm in (one, two) for _ in range(2)))
        fault_server.reset()
        for llm in (one, two) * 10:
            await llm.query("acme/m", prompt="Hi")
    uses = fault_server.counts("key")
    assert abs(uses["…6789"] - uses["…3210"]) <= 4, uses


async def test_places_in_flight_are_shared_and_given_back(redis: RedisServer, fault_server: FaultServer) -> None:
    acme(fault_server, max_concurrent=2)
    fault_server.limit(Limit(2, what="concurrency"))
    fault_server.script(Fault(delay=0.02, times=30))
    async with engine(redis.url) as one, apart(redis.url, KEY) as two:
        await asyncio.gather(*(llm.query("acme/m", prompt="Hi") for llm in (one, two) for _ in range(15)))
    assert fault_server.counts("status") == {200: 30}
    with contextlib.closing(redis.client()) as client:
        assert not list(client.scan_iter("*:at_once")), "all places are free"


async def test_nothing_in_redis_tells_a_key(redis: RedisServer, fault_server: FaultServer) -> None:
    acme(fault_server, rpm=600, max_concurrent=5, quota={"other": "team"})
    fault_server.script(Fault(401), Fault(429, headers={"retry-after-ms": "5"}))
    async with engine(redis.url, KEY, OTHER, redis_prefix="ours") as llm:
        for _ in range(5):
            await llm.query("acme/m", prompt="A secret prompt")
        with contextlib.closing(redis.client()) as client:
            names = list(client.scan_iter())
            values = [_value(client, name) for name in names]
    assert len(names) >= 5 and all(name.startswith("ours:") for name in names)
    everything = "\n".join([*names, *map(str, values)])
    for secret in (KEY, OTHER, "secret", "6789", "3210", KEY[3:9], "team"):
        assert secret not in everything, secret


def _value(client: Any, name: str) -> Any:
    kind = client.type(name)
    if kind == "hash":
        # Times, amounts and numbers of pieces: digits, which may by chance be those of a key.
        assert all(field[:1] in "abehst" and value.lstrip("-").isdigit() for field, value in client.hgetall(name).items())
        return ""
    return client.zrange(name, 0, -1) and "" if kind == "zset" else "" if client.get(name).isdigit() else client.get(name)


# Settings


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("127.0.0.1:6379", "is no address of a Redis"),
        ("http://:open-sesame-0123@localhost", "is no address of a Redis"),
        ("redis://:open-sesame-0123@localhost:port/0", "is no address of a Redis"),
        ("redis://:open-sesame-0123@/0", "is no address of a Redis"),
        ("redis://localhost/mine", "Redis's have numbers"),
        (17, "is a int"),
    ],
)
def test_an_address_that_is_none_is_refused_at_once_and_not_repeated(url: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        QueryLLM(LLMConfig(environment={}, redis_url=url))
    assert PASSWORD not in str(caught.value)


def test_the_password_is_shown_nowhere() -> None:
    url = f"redis://user:{PASSWORD}@127.0.0.1:6379/0"
    llm = QueryLLM(LLMConfig(environment={"LLM_MASTER_REDIS_URL": url}))
    assert llm._engine.snapshot.options.redis_url == url
    assert PASSWORD not in repr(llm._engine.snapshot) + repr(SharedStore(url, "x")) + shown(url)
    assert shown(url) == "redis://127.0.0.1:6379/0"
    done = CliRunner().invoke(main, ["config", "show", "--origin"], env={"LLM_MASTER_REDIS_URL": url})
    assert "redis://127.0.0.1:6379/0" in done.output and PASSWORD not in done.output


# The script


def line_of(store: SharedStore, **row: Any) -> Line:
    rows = {"acme": ProviderConfig(name="acme", **row)}
    pools = Pools(rows, {"acme": (Key(KEY, "a"),)}, SYSTEM_CLOCK, None, Sharing(store))
    return pools.line("acme", "acme", "m", ModelConfig(), lambda key: key)


async def admitted(line: Line, ask: Ask = None) -> Lease | None:
    lease = line.pool.lease(line, ask, frozenset())
    if lease is None:
        return None
    assert line.pool.sharing is not None
    return lease if await line.pool.sharing.admit(lease) else None


async def test_tokens_are_settled_for_all(redis: RedisServer) -> None:
    one, two = SharedStore(redis.url, "x"), SharedStore(redis.url, "x")
    first, second = line_of(one, tpm=1000), line_of(two, tpm=1000)
    lease = await admitted(first, (100, 800))
    assert lease is not None
    assert await admitted(second, (300, 100)) is None, "the first has most of it, by estimate"
    lease.done(Usage(10, 10), None)
    await asyncio.sleep(0.05)
    assert await admitted(line_of(two, tpm=1000), (300, 100)) is not None, "and little, as it turned out"
    for store in (one, two):
        await store.link().close()


async def test_who_is_cancelled_while_he_asks_takes_nothing(redis: RedisServer) -> None:
    store = SharedStore(redis.url, "x")
    line = line_of(store, rpm=3, max_concurrent=3)
    assert await admitted(line) is not None
    for _ in range(5):
        task = asyncio.create_task(admitted(line))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await asyncio.sleep(0.05)
    assert await admitted(line) is not None
    assert await admitted(line) is not None
    await store.link().close()


async def test_a_place_of_a_process_that_died_comes_free(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_master.storage.redis_link.KEPT", 0.2)
    dead, alive = SharedStore(redis.url, "x"), SharedStore(redis.url, "x")
    lease = await admitted(line_of(dead, max_concurrent=1))
    assert lease is not None
    assert await admitted(line_of(alive, max_concurrent=1)) is None
    await asyncio.sleep(0.25)
    other = await admitted(line_of(alive, max_concurrent=1))
    assert other is not None
    for open_lease, store in ((lease, dead), (other, alive)):
        open_lease.release()
        await store.link().close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # that of a process with threads, as a test runner's is
def test_processes_forked_from_one_hold_places_of_their_own(redis: RedisServer) -> None:
    line = line_of(SharedStore(redis.url, "x"), max_concurrent=2)

    def take_and_die() -> None:
        # Without giving it back.
        os._exit(0 if asyncio.run(admitted(line)) is not None else 1)

    fork = multiprocessing.get_context("fork")
    for expected in (0, 0, 1):
        process = fork.Process(target=take_and_die)
        process.start()
        process.join(30)
        assert process.exitcode == expected


class Frozen:
    """The script on a clock of the test's own."""

    def __init__(self, server: RedisServer) -> None:
        import msgspec

        self._client = server.client()
        self._client.flushall()
        frozen = SCRIPT.replace("redis.call('TIME')", "{ARGV[3], ARGV[4]}")
        assert frozen != SCRIPT
        self._script = frozen
        self._encode, self._decode = msgspec.msgpack.encode, msgspec.msgpack.decode
        import redis

        self._raw = redis.Redis.from_url(server.url)

    def call(self, now: float, *ops: list[Any]) -> list[Any]:
        seconds, micro = divmod(round(now * 1e6), 1_000_000)
        found: list[Any] = self._decode(self._raw.eval(self._script, 0, "p:", self._encode(ops), seconds, micro))
        return found

    def close(self) -> None:
        self._client.close()
        self._raw.close()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.integers(0, 600)),  # ms
        st.tuples(st.just("take"), st.integers(1, 7)),
        st.tuples(st.just("settle"), st.integers(-5, 5)),
        st.tuples(st.just("late"), st.integers(1, 400)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
@example([("take", 7), ("pass", 500), ("pass", 600), ("late", 1), ("take", 1), ("take", 3)])  # late for what has left
def test_redis_keeps_the_window_that_a_process_keeps(redis: RedisServer, steps: list[tuple[str, int]]) -> None:
    server = Frozen(redis)
    window = Window(10, 1.0, 1, "")
    now, taken = 1_700_000_000.0, []
    try:
        for what, amount in steps:
            if what == "pass":
                now = round(now + amount / 1000, 3)
            elif what == "take":
                need = (1, amount, 0, 0)
                wait = window.wait(need, now)
                reply = server.call(
                    now, ["take", "h", ["none"], "uses", [["w", window.limit, window.span_us, window.grain_us, amount]], [], 1]
                )[0]
                assert reply[0] == (wait == 0), (reply, wait)
                if reply[0]:
                    taken.append((window.take(need, now), reply[3][0], now, amount))
                elif wait < 10:
                    assert reply[3] == pytest.approx(wait * 1e6, abs=3)
            elif taken and what == "settle":
                ours, theirs, at, before = taken.pop()
                change = max(amount, -before)
                window.used(now)
                window.give(ours, (0, change, 0, 0))
                server.call(now, ["give", "h", [["w", theirs, change, 0]], []])
                taken.append((ours, theirs, at, before + change))
            elif taken:
                ours, theirs, at, _ = taken[-1]
                window.used(now)
                if ours is not None and at + amount / 1000 <= now:
                    window.sent(ours, at + amount / 1000)
                    server.call(now, ["give", "h", [["w", theirs, 0, int((at + amount / 1000 + window.span) * 1e6)]], []])
    finally:
        server.close()


def test_a_link_is_closed_with_its_loop(redis: RedisServer) -> None:
    store = SharedStore(redis.url, "x")
    links: list[Link] = []

    async def once() -> None:
        lease = await admitted(line_of(store, max_concurrent=1))
        assert lease is not None
        links.append(store.link())
        lease.release()

    for _ in range(3):
        asyncio.run(once())
    assert len({id(link) for link in links}) == 3
    assert all(link._client is None for link in links)


def test_two_loops_in_two_threads_share_one_engine(redis: RedisServer, fault_server: FaultServer) -> None:
    acme(fault_server, max_concurrent=2, rpm=40)
    fault_server.limit(Limit(2, what="concurrency"))
    fault_server.script(Fault(delay=0.005, times=40))
    llm = engine(redis.url)

    async def many() -> None:
        async with llm:
            await asyncio.gather(*(llm.query("acme/m", prompt="Hi") for _ in range(20)))

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(asyncio.run, many()) for _ in range(2)]:
            done.result(30)
    assert fault_server.counts("status") == {200: 40}
    with contextlib.closing(redis.client()) as client:
        assert not list(client.scan_iter("*:at_once"))


def test_it_works_with_uvloop(redis: RedisServer) -> None:
    uvloop = pytest.importorskip("uvloop", reason="there is no uvloop here")
    store = SharedStore(redis.url, "x")

    async def once() -> bool:
        return await admitted(line_of(store, rpm=10)) is not None

    assert uvloop.run(once())
