"""The fault server's own process: ``python -m llm_master.testing.serving``.

:class:`~llm_master.testing.FaultServer` starts it, gives it a scenario as one line of JSON on standard input, reads where it
listens as one line of JSON on standard output, and speaks with it over the paths beneath ``/_faults/``.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from llm_master.errors import ConfigurationError
from llm_master.testing.app import FaultApp
from llm_master.testing.scenario import Scenario
from llm_master.testing.script import COUNTED, GROUPS, ScriptError
from llm_master.testing.seen import SeenRequest
from llm_master.testing.windows import peak

CONTROL = "/_faults/"
"""Beneath it the server is spoken with; everything else is the API."""

COUNTS = (*GROUPS, "status", "path", "step", "allowed")
"""What requests can be counted by."""

_LARGEST = 64 * 1024 * 1024
"""Bytes of a request's body; a larger one gets a 413."""

_BACKLOG = 4096
"""Connections that may wait to be accepted: a load test opens thousands at once."""


async def serve(scenario: Scenario, *, host: str = "127.0.0.1", port: int = 0, ready: Callable[[str, int], None]) -> None:
    """Serve until cancelled.

    Args:
        scenario: What it goes by.
        host: Address to listen on.
        port: Port to listen on; 0 for any that is free.
        ready: Is called with the host and the port once it listens.

    Raises:
        ConfigurationError: It cannot listen there; the message says why, and what to do.
    """
    app = FaultApp(scenario)
    loop = asyncio.get_running_loop()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return await (_control(app, request) if request.path.startswith(CONTROL) else app.handle(request))

    def made(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_LARGEST)

    # Whoever hangs up ends what still waits to answer it.
    server = web.Server(handle, request_factory=made, handler_cancellation=True, access_log=None)
    try:
        listening = await loop.create_server(server, host, port, backlog=_BACKLOG)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"port {port} of {host} is taken: stop what listens there, or give port 0 for any that is free"
            ) from exc
        raise ConfigurationError(f"cannot listen on port {port} of {host} ({exc.strerror or exc}): give another host or port") from exc
    try:
        ready(host, listening.sockets[0].getsockname()[1])
        await asyncio.get_running_loop().create_future()
    finally:
        listening.close()
        await server.shutdown(0)


async def _control(app: FaultApp, request: web.BaseRequest) -> web.StreamResponse:
    """``POST /_faults/<what>`` with JSON, or a GET where there is nothing to say. The answer is JSON."""
    what = request.path.removeprefix(CONTROL)
    do = _CONTROLS.get(what)
    status, content = 200, None
    if do is None:
        status, content = 404, {"faults": [f"{CONTROL}{what} is nothing: there are {', '.join(CONTROL + name for name in _CONTROLS)}"]}
    else:
        raw = await request.read()
        try:
            told = msgspec.json.decode(raw) if raw else dict(request.query)
            content = do(app, told)
        except ScriptError as exc:
            status, content = 400, {"faults": [f"{exc}"]}
        except msgspec.DecodeError as exc:
            status, content = 400, {"faults": [f"the body is no JSON: {exc}"]}
    return web.Response(status=status, body=msgspec.json.encode(content), headers={"content-type": "application/json"})


def _change(app: FaultApp, told: Any) -> None:
    """Play what is told from now on: of script, limits, keys and models, what is not named stays."""
    if not isinstance(told, dict):
        raise ScriptError(f"{CONTROL}scenario", ['give {"script": [...], "limits": [...]}'])
    app.play(Scenario.from_mapping({**app.scenario.to_mapping(), **told}), parts=frozenset(told))


def _log(app: FaultApp, told: Any) -> list[SeenRequest]:
    return list(app.log)


def _counts(app: FaultApp, told: Any) -> list[tuple[Any, int]]:
    by = told.get("by", "status")
    if by not in COUNTS:
        raise ScriptError("by", [f"it is {by!r}: give one of {', '.join(COUNTS)}"])
    return list(collections.Counter(getattr(seen, by) for seen in app.log).items())


def _peak(app: FaultApp, told: Any) -> int:
    """The most that was let through in any window, of any one key or model where they have counts of their own."""
    try:
        window = float(told["window"])
    except (KeyError, ValueError) as exc:
        raise ScriptError("window", ["give it, in seconds"]) from exc
    by, what = told.get("by") or (), told.get("what", "requests")
    by = tuple(by.split("+")) if isinstance(by, str) else tuple(by)
    faults = [] if window > 0 else [f"window is {window}: give seconds above 0"]
    if not set(by) <= set(GROUPS):
        faults.append(f"by is {by!r}: give key, model, both or neither")
    if what not in COUNTED[:4]:
        faults.append(f"what is {what!r}: give one of {', '.join(COUNTED[:4])}")
    if faults:
        raise ScriptError("peak", faults)
    groups: dict[tuple[Any, ...], list[tuple[float, int]]] = collections.defaultdict(list)
    for seen in app.log:
        if seen.allowed and seen.method == "POST":
            groups[tuple(getattr(seen, name) for name in by)].append((seen.at, _amount(seen, what)))
    return max((peak(events, window) for events in groups.values()), default=0)


def _reset(app: FaultApp, told: Any) -> None:
    app.reset()


def _amount(seen: SeenRequest, what: str) -> int:
    if what == "requests":
        return 1
    return seen.input_tokens + seen.output_tokens if what == "tokens" else int(getattr(seen, what))


_CONTROLS: dict[str, Callable[[FaultApp, Any], Any]] = {
    "scenario": _change,
    "requests": _log,
    "counts": _counts,
    "peak": _peak,
    "reset": _reset,
}


def main() -> None:
    """Serve for a parent process, and end when it does."""
    # Ctrl-C goes to all processes of a terminal; this one ends with its parent, which may still have to ask it something.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = json.loads(sys.stdin.readline())

    def ready(host: str, port: int) -> None:
        _say({"port": port})
        # Standard input ends when the parent does, however it ended. There is nothing to save.
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()

    try:
        asyncio.run(serve(Scenario.from_mapping(told["scenario"]), host=told["host"], port=told["port"], ready=ready))
    except ConfigurationError as exc:
        _say({"error": f"{exc}"})
        sys.exit(1)


def _say(content: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent has gone, and standard input will say so
        sys.stdout.write(json.dumps(content) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
