"""An HTTP/1.1 server that answers exactly what a test tells it to, however wrong that is, and remembers what it was sent.

It runs in a process of its own. ``ScriptedServer`` starts it and speaks with it over the paths under ``/_control/``.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import http.client
import itertools
import json
import math
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

GATE = object()
"""Among the pieces of a body: wait here until the test calls ``release()``."""
FOREVER = math.inf
BOUND = 10.0
"""Seconds after which a condition that is waited for counts as never met."""


@dataclass
class Request:
    """A request as it reached the server. Header names are in lower case; ``connection`` numbers the connections."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ScriptedServer:
    """Starts the server, tells it what to answer, and reads back what it was asked."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"
        self.base_url = f"{self.url}/v1"
        self._control = http.client.HTTPConnection("127.0.0.1", self.port, timeout=BOUND)

    def stop(self) -> None:
        self._control.close()
        self._process.communicate(timeout=BOUND)  # it ends when its standard input does

    def answer(
        self,
        *pieces: Any,
        status: int = 200,
        headers: dict[str, str] | None = None,
        framing: Literal["length", "chunked", "close", "raw"] = "length",
        end: Literal["done", "close", "reset", "stall"] = "done",
        cut_at: int | None = None,
        delay: float = 0.0,
        times: int | None = 1,
    ) -> None:
        """Answer the next request that nothing is scripted for yet.

        Args:
            *pieces: The body: bytes or text, each written apart; a number of seconds to wait; or ``GATE``.
            status: HTTP status.
            headers: Beside those of the framing. ``content-type`` is JSON's unless given.
            framing: ``close`` has neither length nor chunks; with ``raw`` the pieces are the whole answer, head included.
            end: What to do after the last piece instead of leaving the connection open for the next request.
            cut_at: Send so many bytes of the body and then do ``end``; a stated length stays that of the whole.
            delay: Seconds before the head; ``FOREVER`` for none at all.
            times: How many requests get this answer; ``None`` for all further ones.
        """
        script = {
            "status": status,
            "headers": {"content-type": "application/json", **(headers or {})},
            "pieces": [_packed(piece) for piece in pieces],
            "framing": framing,
            "end": end,
            "cut_at": cut_at,
            "delay": delay,
            "times": times,
        }
        self._tell("script", script)

    def answer_json(self, content: Any, **how: Any) -> None:
        self.answer(json.dumps(content), **how)

    def answer_sse(self, *pieces: Any, **how: Any) -> None:
        headers = {"content-type": "text/event-stream", **how.pop("headers", {})}
        self.answer(*pieces, headers=headers, **{"framing": "chunked", **how})

    def answer_vectors(self, *, shuffled: bool = False, times: int | None = None, **how: Any) -> None:
        """Answer embedding requests with the ``vector_for`` of each input, as base64 where that was asked for.

        Args:
            shuffled: Give them in another order than the inputs; ``index`` says which is which.
            times: How many requests get this answer; ``None`` for all further ones.
            **how: As of :meth:`answer`.
        """
        self.answer(times=times, **how)
        self._tell("vectors", {"shuffled": shuffled})

    def release(self) -> None:
        """Open the gate once."""
        self._tell("release")

    def reset(self) -> None:
        """Forget scripts and requests, close all connections."""
        self._tell("reset")

    @property
    def requests(self) -> list[Request]:
        return [Request(**{**seen, "body": base64.b64decode(seen["body"])}) for seen in self._tell("seen")["requests"]]

    @property
    def request(self) -> Request:
        """The only request that came."""
        (request,) = self.requests
        return request

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return int(self._tell("seen")["open"])

    @property
    def opened(self) -> int:
        """Connections that were ever opened."""
        return int(self._tell("seen")["opened"])

    async def until_open(self, count: int) -> bool:
        """Wait, with a bound, until so many connections are open."""
        return await eventually(lambda: self.open == count)

    async def until_asked(self, count: int = 1) -> bool:
        """Wait, with a bound, until so many requests have come."""
        return await eventually(lambda: len(self.requests) >= count)

    def _tell(self, what: str, content: Any = None) -> Any:
        self._control.request("POST", f"/_control/{what}", json.dumps(content))
        return json.loads(self._control.getresponse().read())


async def eventually(condition: Any) -> bool:
    """Whether a condition comes true within the bound."""
    give_up = time.monotonic() + BOUND
    while not (met := condition()) and time.monotonic() < give_up:
        await asyncio.sleep(0.005)
    return bool(met)


def vector_for(text: str) -> list[float]:
    """Numbers that tell a text from others, and that 32 bits hold exactly."""
    return [float(zlib.crc32(text.encode()) & 0xFFFF), float(len(text)), 0.5]


def _packed(piece: Any) -> dict[str, Any]:
    if piece is GATE:
        return {"gate": True}
    if isinstance(piece, (int, float)):
        return {"wait": piece}
    return {"send": base64.b64encode(piece.encode() if isinstance(piece, str) else piece).decode()}


# What follows runs in the server's process.


def _vectors(asked: dict[str, Any], shuffled: bool) -> dict[str, Any]:
    """An answer of https://platform.openai.com/docs/api-reference/embeddings/create"""
    data = []
    for index, text in enumerate(asked["input"]):
        vector: Any = vector_for(text)
        if asked.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    if shuffled:
        data = data[1::2] + data[::2]
    tokens = sum(map(len, asked["input"]))
    return {"object": "list", "data": data, "model": asked["model"], "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


class _State:
    def __init__(self) -> None:
        self.connections: set[_Connection] = set()
        self.clear()

    def clear(self) -> None:
        for connection in list(self.connections):
            connection.transport.abort()
        self.connections.clear()
        self.scripts: collections.deque[dict[str, Any]] = collections.deque()
        self.requests: list[dict[str, Any]] = []
        self.opened = itertools.count()
        self.gate = asyncio.Semaphore(0)

    def control(self, what: str, body: bytes) -> Any:
        if what == "script":
            self.scripts.append(json.loads(body))
        elif what == "vectors":
            self.scripts[-1]["vectors"] = json.loads(body)
        elif what == "release":
            self.gate.release()
        elif what == "reset":
            self.clear()
        return {"requests": self.requests, "open": len(self.connections), "opened": self.opened.__reduce__()[1][0]}

    def next_script(self, request: dict[str, Any]) -> dict[str, Any]:
        self.requests.append(request)
        if not self.scripts:
            said = f"nothing is scripted for request {len(self.requests)}: {request['method']} {request['path']}"
            return {"status": 418, "pieces": [_packed(said)]}
        script = self.scripts[0]
        if script["times"] is not None:
            script["times"] -= 1
            if not script["times"]:
                self.scripts.popleft()
        if "vectors" in script:
            asked = json.loads(base64.b64decode(request["body"]))
            return {**script, "pieces": [_packed(json.dumps(_vectors(asked, **script["vectors"])))]}
        return script


class _Connection(asyncio.Protocol):
    """One connection. It counts as a client's from its first request that is none to the control paths."""

    def __init__(self, state: _State) -> None:
        self.state = state
        self.number: int | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.reader = asyncio.StreamReader()
        self.task = asyncio.get_running_loop().create_task(self.serve())

    def data_received(self, data: bytes) -> None:
        self.reader.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.state.connections.discard(self)
        self.task.cancel()

    async def serve(self) -> None:
        while True:
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = lines[0].split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            if path.startswith("/_control/"):
                said = self.state.control(path.removeprefix("/_control/"), body)
                await self.send({"pieces": [_packed(json.dumps(said))]})
                continue
            if self.number is None:
                self.number = next(self.state.opened)
                self.state.connections.add(self)
            request = {"method": method, "path": path, "headers": headers, "connection": self.number}
            script = self.state.next_script({**request, "body": base64.b64encode(body).decode()})
            await self.pause(script.get("delay", 0))
            await self.send(script)

    async def send(self, script: dict[str, Any]) -> None:
        framing = script.get("framing", "length")
        bodies = [base64.b64decode(piece["send"]) for piece in script["pieces"] if "send" in piece]
        total = sum(map(len, bodies))
        head = b""
        if framing != "raw":
            status = script.get("status", 200)
            reason = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
            headers = dict(script.get("headers", {}))
            if framing == "length":
                headers["content-length"] = total
            elif framing == "chunked":
                headers["transfer-encoding"] = "chunked"
            lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
            head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        left = total if script.get("cut_at") is None else script["cut_at"]
        # The head goes with the first piece and the end with the last, so that one piece is one packet.
        unsent = head
        for piece in script["pieces"]:
            if "send" in piece and unsent is not head:
                await self.flush(unsent)
                unsent = b""
            if "gate" in piece or "wait" in piece:
                await self.flush(unsent)
                unsent = b""
                await (self.state.gate.acquire() if "gate" in piece else self.pause(piece["wait"]))
            data = base64.b64decode(piece.get("send", ""))[:left]
            left -= len(data)
            unsent += b"%x\r\n%b\r\n" % (len(data), data) if data and framing == "chunked" else data
        end = script.get("end", "done")
        if end == "done" and framing == "chunked":
            unsent += b"0\r\n\r\n"
        await self.flush(unsent)
        if end == "stall":
            await self.pause(FOREVER)
        elif end == "reset":
            linger_none = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_none)
            self.transport.abort()
        elif end == "close" or framing in ("close", "raw"):
            self.transport.close()

    async def flush(self, data: bytes) -> None:
        if data:
            self.transport.write(data)
            await asyncio.sleep(0)

    @staticmethod
    async def pause(seconds: float) -> None:
        if seconds == FOREVER:
            await asyncio.get_running_loop().create_future()  # until the connection is lost, which cancels the task
        elif seconds:
            await asyncio.sleep(seconds)


async def _main() -> None:
    state = _State()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(state), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
