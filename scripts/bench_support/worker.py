"""A client's process. Takes orders as lines of JSON, and measures itself.

This file imports nothing that a client does not import anyway, since its memory counts as the client's.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench_support.clients import Client, make_client
from bench_support.file_limit import raise_file_limit
from bench_support.inputs import INPUTS


class Worker:
    """Does what it is told, on one event loop that stands still between orders."""

    def __init__(self, name: str, address: str) -> None:
        self._name = name
        self._address = address
        self._clients: dict[str, Client] = {}

    async def calls(self, count: int, in_flight: int, path: str = "", warm_up: int = 0) -> dict[str, Any]:
        """CPU seconds per chat completion, of ``count`` with so many at once."""
        client = self._client(path)
        # Connections that were closed in the pause since the last round are made again before it counts.
        await _repeat(client.call, warm_up, in_flight)
        cpu, done, characters = await _measured(client.call, count, in_flight)
        return {"cpu": cpu / done, "characters": characters / done}

    async def stream(self, count: int, in_flight: int, path: str) -> dict[str, Any]:
        """CPU seconds per piece of text, of ``count`` streams with so many at once."""
        client = self._client(path)
        await _repeat(client.stream, in_flight, in_flight)
        cpu, done, pieces = await _measured(client.stream, count, in_flight)
        return {"cpu": cpu / pieces, "pieces": pieces / done}

    async def limited(self, count: int, rpm: int, redis_url: str | None = None) -> dict[str, Any]:
        """So many queries at once of llm_master, under a declared limit: how many were answered, and in how many seconds."""
        from llm_master import PROVIDER_CONFIGS, ProviderConfig, QueryLLM

        PROVIDER_CONFIGS["strict"] = ProviderConfig(base_url=f"{self._address}/v1", requires_key=False, rpm=rpm)
        llm = QueryLLM(redis_url=redis_url) if redis_url else QueryLLM()
        began = time.monotonic()
        texts = await asyncio.gather(*(llm.query("strict/model", prompt=f"no. {number}", deadline=3600) for number in range(count)))
        answers = sum(str(text).endswith(f": no. {number}") for number, text in enumerate(texts))
        return {"answers": answers, "seconds": time.monotonic() - began}

    async def embed(self) -> dict[str, Any]:
        """CPU seconds for the vectors of all inputs."""
        client = self._client("")
        await client.embed(INPUTS[:100])
        gc.collect()
        began = time.process_time()
        vectors = await client.embed(INPUTS)
        return {"cpu": time.process_time() - began, "vectors": vectors}

    async def memory(self) -> dict[str, Any]:
        """Resident memory in kB, now and at its highest."""
        now, peak = _resident()
        return {"now": now, "peak": peak}

    async def pending(self, count: int, step: int, seconds: float) -> dict[str, Any]:
        """Memory with ``count`` calls pending, or with as many as there are after so many seconds."""
        from bench_support.pending_calls import hold

        await _repeat(self._client("").call, 10, 10)
        return await hold(self._client("/hold", many=count), self._address, count, step, seconds, lambda: _resident()[0])

    def _client(self, path: str, *, many: int | None = None) -> Client:
        if path not in self._clients:
            self._clients[path] = make_client(self._name, f"{self._address}{path}/v1", many=many)
        return self._clients[path]


async def _repeat(action: Callable[[], Awaitable[int]], count: int, in_flight: int) -> int:
    async def one_after_another() -> int:
        return sum([await action() for _ in range(count // in_flight)])

    return sum(await asyncio.gather(*[one_after_another() for _ in range(in_flight)]))


async def _measured(action: Callable[[], Awaitable[int]], count: int, in_flight: int) -> tuple[float, int, int]:
    gc.collect()  # what is left of the warm-up is not this round's garbage
    began = time.process_time()
    total = await _repeat(action, count, in_flight)
    return time.process_time() - began, count // in_flight * in_flight, total


def _resident() -> tuple[int, int]:
    try:
        with open("/proc/self/status") as status:
            fields = dict(line.split(":", 1) for line in status)
        return int(fields["VmRSS"].split()[0]), int(fields["VmHWM"].split()[0])
    except OSError:  # not Linux: only the peak is known, in bytes on macOS
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
        return peak, peak


def main() -> None:
    """Work until standard input ends."""
    raise_file_limit()
    # What llm_master does for itself (see its transport.py) is done for every client: glibc then keeps asyncio's read
    # buffers on the heap, which makes each of them cheaper and has nothing to do with what is compared here.
    bytes(1 << 20)
    worker = Worker(sys.argv[1], sys.argv[2])
    loop = asyncio.new_event_loop()
    for line in sys.stdin:
        order = json.loads(line)
        found = loop.run_until_complete(getattr(worker, order.pop("do"))(**order))
        print(json.dumps(found), flush=True)
    # Closing ten thousand connections in good order is nobody's figure.
    os._exit(0)


main()
