"""Many calls that all wait for their answers at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from bench_support.clients import Client


class _Upstream:
    """A connection beside the client's, to ask the upstream what it holds."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def get(self, path: str) -> None:
        self._writer.write(f"GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n".encode())
        await self._reader.readuntil(b"\r\n\r\n{}")


async def hold(client: Client, address: str, count: int, step: int, seconds: float, resident: Callable[[], int]) -> dict[str, Any]:
    """Start calls by steps until ``count`` of them are held by the upstream, or time is over.

    By steps, so that the connections that are being made fit into the upstream's backlog, and so that a client that
    gets slower with their number still gives a figure, for fewer. The answers then get half that time.

    Returns:
        ``held``, ``kilobytes`` for all of them, ``cpu`` seconds, ``answered`` in the end, of ``started``.
    """
    port = urlsplit(address).port
    upstream = _Upstream(*await asyncio.open_connection("127.0.0.1", port))
    before, began, cpu = resident(), time.monotonic(), time.process_time()
    tasks: list[asyncio.Task[int]] = []
    found: dict[str, Any] = {"held": 0, "kilobytes": 0, "cpu": 0.0}
    while len(tasks) < count:
        tasks += [asyncio.create_task(_one(client)) for _ in range(min(step, count - len(tasks)))]
        try:
            await asyncio.wait_for(upstream.get(f"/wait/{len(tasks)}"), max(0.1, began + seconds - time.monotonic()))
        except TimeoutError:
            break
        found.update(held=len(tasks), kilobytes=resident() - before, cpu=time.process_time() - cpu)
    found["answered"] = await _finish(tasks, port, seconds / 2)
    return {**found, "started": len(tasks)}


async def _one(client: Client) -> int:
    return await client.call()


async def _finish(tasks: list[asyncio.Task[int]], port: int | None, seconds: float) -> int:
    upstream = _Upstream(*await asyncio.open_connection("127.0.0.1", port))
    await upstream.get("/release")
    done, _ = await asyncio.wait(tasks, timeout=seconds)
    return sum(not task.cancelled() and task.exception() is None for task in done)
