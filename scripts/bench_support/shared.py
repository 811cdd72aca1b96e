"""What it costs to share limits through Redis, and what that is worth: four processes, one limit, one strict server."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from bench_support.processes import client_processes
from bench_support.report import Row, Section

PROCESSES = 4
REQUESTS = 500
PER_WINDOW = 600
WINDOW = 60.0
LEASES = 3000
LIMIT = 0.3


def measure(*, full: bool) -> Section:
    """Milliseconds that each lease waits for Redis; then 2,000 requests of four processes, in three minutes of real time."""
    del full
    section = Section(f"Limits shared through Redis; {PROCESSES} processes with {REQUESTS} requests each, {PER_WINDOW} a minute", "")
    if shutil.which("redis-server") is None:
        section.rows.append(Row("redis-server is not installed", None, "", limit=0))
        return section
    with redis() as url:
        wall, _, trip = asyncio.run(_leases(url, 1))
        note = f"a PING alone takes {trip:.3f} ms"
        section.rows.append(Row("a lease waits longer by, one at a time", wall, "ms", limit=LIMIT, limits="value", note=note))
        _, each, _ = asyncio.run(_leases(url, 32))
        section.rows.append(Row("the same per lease, 32 at once without a pause", each, "ms", limit=LIMIT, limits="value"))
        section.rows += _strict(url)
    return section


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """A Redis of this bench's own."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    arguments = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


async def _leases(url: str, at_once: int) -> tuple[float, float, float]:
    """Milliseconds more with Redis: of a lease, at the median, and of all, for each; and what the shortest round trip takes."""
    from redis.asyncio import Redis

    from llm_master.clock import SYSTEM_CLOCK
    from llm_master.dispatch.keys import Key
    from llm_master.dispatch.pools import Pools
    from llm_master.dispatch.sharing import Sharing
    from llm_master.rows import ProviderConfig
    from llm_master.storage.shared import SharedStore

    store = SharedStore(url, "bench")

    async def lease(line: Any, count: int) -> list[float]:
        times = []
        for _ in range(count):
            began = time.perf_counter()
            taken = line.pool.lease(line, None, frozenset())
            if line.pool.sharing is not None and not await line.pool.sharing.admit(taken):
                raise RuntimeError("a lease was refused that no limit forbids")
            times.append(time.perf_counter() - began)
            await asyncio.sleep(0.0005 if at_once == 1 else 0)  # its request
            taken.release()
        return times

    walls, each = [], []
    for keeper in (None, Sharing(store)):
        rows = {"acme": ProviderConfig(name="acme", rpm=10**9, max_concurrent=1000)}
        line = Pools(rows, {"acme": (Key("sk-0123456789", "key"),)}, SYSTEM_CLOCK, None, keeper).line("acme", "acme", "m", None, id)
        await lease(line, 20)
        began = time.perf_counter()
        times = await asyncio.gather(*(lease(line, LEASES // at_once) for _ in range(at_once)))
        each.append((time.perf_counter() - began) / LEASES * 1e3)
        walls.append(median(time for own in times for time in own) * 1e3)
    trips = []
    async with Redis.from_url(url) as client:
        for _ in range(500):
            began = time.perf_counter()
            await client.ping()
            trips.append((time.perf_counter() - began) * 1e3)
    await store.link().close()
    return walls[1] - walls[0], each[1] - each[0], median(trips)


def _strict(url: str) -> list[Row]:
    from llm_master.testing import FaultServer, Limit

    with (
        FaultServer(limits=[Limit(PER_WINDOW, window=WINDOW, by="model")]) as server,
        contextlib.ExitStack() as stack,
        ThreadPoolExecutor(PROCESSES) as threads,
    ):
        processes = [stack.enter_context(client_processes(["llm_master"], server.url))["llm_master"] for _ in range(PROCESSES)]
        began = time.monotonic()
        orders = [threads.submit(process.order, "limited", count=REQUESTS, rpm=PER_WINDOW, redis_url=url) for process in processes]
        answers = sum(order.result()["answers"] for order in orders)
        seconds = time.monotonic() - began
        refused = server.counts("status").get(429, 0)
        peak = server.peak(WINDOW, by="model")
    most = max(peak.values()) if isinstance(peak, dict) else peak
    ideal = (-(-PROCESSES * REQUESTS // PER_WINDOW) - 1) * WINDOW
    return [
        Row("answers that did not come", PROCESSES * REQUESTS - answers, "", limit=0, limits="value"),
        Row("refused with 429", refused, "", limit=0, limits="value"),
        Row("most in any window", most, "", limit=PER_WINDOW, limits="value"),
        Row("of the permitted left unused", 100 * (1 - ideal / seconds), "%", limit=5, limits="value"),
    ]
