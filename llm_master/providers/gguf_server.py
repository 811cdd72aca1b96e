"""llama.cpp's servers of this process: each a child process with one model file, shared by all engines, loops and threads.

A child process and not a part of this one, for two reasons that were measured with xllamacpp 2026.10: loading a model holds the
interpreter's lock, so that every loop stands still for seconds; and a file that is damaged in the right place ends the process
(``SIGABRT``), which would be the user's program.

A server belongs to the event loops that use it: it stops when the connections of the last of them are closed, which is when the loop
ends or the last ``async with QueryLLM()`` on it is left. It also ends with this process, however that ends.
"""

from __future__ import annotations

import asyncio
import atexit
import collections
import concurrent.futures
import copy
import difflib
import importlib.util
import json
import logging
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import attrs

from llm_master.errors import ConfigurationError, LLMError, ModelNotFoundError, ProviderConnectionError
from llm_master.transport.session import Session, close_with_loop, current_session

CHILD = Path(__file__).with_name("gguf_child.py")
HOST = "127.0.0.1"
KILLED_WITHIN = 5.0
"""Seconds that a killed process may take to be gone."""

_ERRORS, _INFORMATION = 1, 3
"""How much llama.cpp logs, in its own numbers."""

logger = logging.getLogger("llm_master.providers.gguf")


@attrs.frozen(cache_hash=True)
class Wanted:
    """What a server serves, and how. Equal ones are one server.

    Attributes:
        path: The model file, absolute.
        embeds: It makes embeddings, and then nothing else.
        n_ctx: Tokens that one conversation, or one text to embed, may have.
        n_parallel: Requests that are worked on at once; each has a context of its own.
        n_threads: Threads that compute; llama.cpp's own choice if ``None``, as all below.
        n_gpu_layers: Layers that a GPU holds.
        chat_template: A Jinja template, or the name of one that llama.cpp knows, in place of the file's own.
        pooling: How the vectors of tokens become one: a word of :data:`POOLING`.
        port: Where it listens; 0 is any that is free.
    """

    path: str
    embeds: bool
    n_ctx: int
    n_parallel: int = 1
    n_threads: int | None = None
    n_gpu_layers: int | None = None
    chat_template: str | None = None
    pooling: str | None = None
    port: int = 0


class Server:
    """One child process.

    Attributes:
        url: Where it listens, once it does.
        key: What it asks of those who come, since any user of this machine can reach its port. Never shown.
        started: Done when it listens, or failed: its result is ``None``, or what went wrong.
        users: The sessions that use it, each with its event loop.
    """

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.url = ""
        self.key = secrets.token_urlsafe(32)
        self.started: concurrent.futures.Future[LLMError | None] = concurrent.futures.Future()
        # Running, so that a waiter who is cancelled cannot cancel it for the others.
        self.started.set_running_or_notify_cancel()
        self.users: dict[Session, asyncio.AbstractEventLoop] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.ended = threading.Event()
        self._stopping = False
        self._lock = threading.Lock()
        self._said: collections.deque[str] = collections.deque(maxlen=50)
        threading.Thread(target=self._start, name="llm_master-gguf-start", daemon=True).start()

    def stop(self) -> None:
        """Stop it at once. Returns when the process is gone."""
        with self._lock:
            self._stopping = True
            process = self.process
        if process is not None:
            process.kill()
            try:
                process.wait(KILLED_WITHIN)
            except subprocess.TimeoutExpired:
                logger.warning("llama.cpp's process %d was killed %g s ago and is still there", process.pid, KILLED_WITHIN)

    def why_ended(self) -> str | None:
        """Why it does not answer any more, if it has ended. Waits a moment for the end of one that breaks its connections."""
        if not self.ended.wait(1) or self.process is None:
            return None
        said = "".join(f": {complaint}" for complaint in self._complaints()[-1:])
        return f"llama.cpp's server of {self.wanted.path} ended {_how(self.process.returncode)}{said}"

    def abandon(self) -> None:
        """Let go of it in a forked child, whose parent's it remains."""
        if self.process is not None:
            # So that nobody waits for it here, or takes it for forgotten.
            self.process.returncode = 0
            for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
                if pipe is not None:
                    pipe.close()

    # In threads of its own

    def _start(self) -> None:
        failure: LLMError | None
        try:
            check_file(self.wanted.path)
            failure = self._listen()
        except LLMError as exc:
            failure = exc
        except Exception as exc:  # it is handed to those who wait
            failure = ConfigurationError(f"llama.cpp's server of {self.wanted.path} cannot be started: {type(exc).__name__}: {exc}")
        if failure is not None:
            with _lock:
                if _servers.get(self.wanted) is self:
                    del _servers[self.wanted]
            self.stop()
        self.started.set_result(failure)

    def _listen(self) -> LLMError | None:
        wanted = self.wanted
        if importlib.util.find_spec("xllamacpp") is None:
            return ConfigurationError("a model file needs llama.cpp, in the xllamacpp package: pip install 'llm_master[local]'")
        if not sys.executable:
            return ConfigurationError("a model file is served by a process of its own, and sys.executable does not say how to start one")
        check_port(wanted.port)
        verbosity = _INFORMATION if logger.isEnabledFor(logging.DEBUG) else _ERRORS
        # Not among the arguments, which everybody on this machine can read.
        line = {
            **attrs.asdict(wanted),
            "name": os.path.basename(wanted.path),
            "key": self.key,
            "verbosity": verbosity,
            "sys_path": [str(place) for place in sys.path],
        }
        with self._lock:
            if self._stopping:
                return self._stopped()
            # Unbuffered: a buffer's lock, held by another thread in the moment of a fork, would stay locked in the child.
            self.process = process = subprocess.Popen(  # noqa: S603  # our own file, and no argument of anybody's
                [sys.executable, "-P", str(CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                # It would start a debugger on itself, if there is one, to say where it failed.
                env={**os.environ, "GGML_NO_BACKTRACE": "1"},
                # Ctrl-C is for this process to handle, while answers may still come.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        threading.Thread(target=self._watch, args=(process, stderr), name="llm_master-gguf", daemon=True).start()
        try:
            stdin.write(json.dumps(line).encode() + b"\n")
            said = stdout.readline()
        except (OSError, ValueError):  # it has ended, or was stopped
            said = b""
        told = json.loads(said) if said.endswith(b"\n") else {}
        if "address" in told:
            self.url = told["address"]
            return None
        self.ended.wait(KILLED_WITHIN)
        if self._stopping:
            return self._stopped()
        check_port(wanted.port)
        if complaints := self._complaints():
            why = complaints[0]  # what follows says where that led
        elif not (why := told.get("error", "")):
            why = f"it ended {_how(process.returncode)}" + "".join(f": {line}" for line in list(self._said)[-1:])
        return ConfigurationError(f"llama.cpp cannot load {wanted.path}: {why}")

    def _stopped(self) -> LLMError:
        return ProviderConnectionError(f"llama.cpp's server of {self.wanted.path} was stopped while it loaded")

    def _watch(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        """Take what it logs, to its end."""
        rest = b""
        while piece := log.read(65536):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                text = line.decode(errors="replace").replace(self.key, "…")
                self._said.append(text)
                logger.debug("llama.cpp: %s", text)
        process.wait()
        self.ended.set()
        # The one who starts it may still read the other pipes: they have ended as well.
        self.started.add_done_callback(lambda _: _close(process))
        with _lock:
            if _servers.get(self.wanted) is self:
                del _servers[self.wanted]

    def _complaints(self) -> list[str]:
        return [(found[1] or found[2]).strip()[:300] for line in list(self._said) if (found := _COMPLAINT.match(line))]


_COMPLAINT = re.compile(r"[0-9.]+ E (.*)|.*(GGML_(?:ASSERT|ABORT).*)")
"""A line of llama.cpp's log: time, level, text; or what it says before it ends itself."""


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _how(code: int | None) -> str:
    return f"by signal {-code}" if code is not None and code < 0 else f"with code {code}"


_servers: dict[Wanted, Server] = {}
_sessions: dict[Session, asyncio.AbstractEventLoop] = {}
"""Those that will say when they are closed."""
_lock = threading.Lock()


async def server_for(wanted: Wanted) -> Server:
    """The server that serves this, which the running loop uses from now on; started if there is none.

    Raises:
        ModelNotFoundError: There is no such file.
        ConfigurationError: It is no model, or not one that llama.cpp can load; the port is taken; the extra is not installed.
        ProviderConnectionError: It was stopped while it loaded.
    """
    session = current_session()
    with _lock:
        if session not in _sessions:
            _join(session)
        server = _servers.get(wanted)
        if server is None or server.ended.is_set():
            server = _servers[wanted] = Server(wanted)
        server.users[session] = _sessions[session]
    if not server.url:
        failure = await asyncio.wrap_future(server.started)
        if failure is not None:
            # Each gets its own: an error carries the receipt of its query.
            raise copy.copy(failure)
    return server


def _join(session: Session) -> None:
    """Have the servers that only this session uses stopped when it is closed."""
    _sessions[session] = asyncio.get_running_loop()

    async def leave() -> None:
        with _lock:
            gone = _leave(session)
        for server in gone:
            server.stop()

    close_with_loop(leave)
    # A loop that was closed without shutting down its generators left its session behind; whoever it held goes with this one.
    for old in [known for known, loop in _sessions.items() if loop.is_closed()]:
        for server in _leave(old):
            _servers[server.wanted] = server
            server.users[session] = _sessions[session]


def _leave(session: Session) -> list[Server]:
    """Take a session from all servers; those that nobody uses any more."""
    _sessions.pop(session, None)
    gone = [server for server in _servers.values() if server.users.pop(session, None) is not None and not server.users]
    for server in gone:
        del _servers[server.wanted]
    return gone


def _stop_all() -> None:
    with _lock:
        servers = list(_servers.values())
        _servers.clear()
    for server in servers:
        server.stop()


def _after_fork() -> None:
    """A forked child has none: its parent's are not its own, and end when the parent does."""
    global _lock
    _lock = threading.Lock()
    for server in _servers.values():
        server.abandon()
    _servers.clear()
    _sessions.clear()


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def check_port(port: int) -> None:
    """Refuse a port that is taken.

    Raises:
        ConfigurationError: Names it.
    """
    if not port:
        return
    with socket.socket() as probe:
        if os.name == "posix":  # elsewhere it would share the port instead
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as exc:
            raise ConfigurationError(
                f"port {port} of {HOST} cannot be used ({exc.strerror}): give another port, or leave it out for any that is free. "
                "A model that chats and one that embeds are two servers, also of one file"
            ) from None


def check_file(path: str) -> None:
    """Refuse what cannot be a model, before a process is started for it.

    Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

    Raises:
        ModelNotFoundError: There is no such file; offers the nearest.
        ConfigurationError: It is none.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except FileNotFoundError:
        raise ModelNotFoundError(f"there is no model file {path}{_nearest(path)}") from None
    except IsADirectoryError:
        raise ConfigurationError(f"{path} is a folder and no model file{_nearest(os.path.join(path, 'x.gguf'))}") from None
    except (OSError, ValueError) as exc:  # the latter for a null byte
        raise ConfigurationError(f"the model file {path} cannot be read: {exc}") from None
    if head[:4] != b"GGUF":
        raise ConfigurationError(f"{path} is no GGUF file: it begins with {head!r}. Name a model in llama.cpp's format")
    if len(head) < 8 or int.from_bytes(head[4:], "little") < 2:
        raise ConfigurationError(f"{path} is a GGUF file of version 1, or cut short: get it anew")


def _nearest(path: str) -> str:
    """Model files that may have been meant, as the end of an error."""
    folder, wanted = os.path.split(path)
    try:
        names = sorted(name for name in os.listdir(folder) if name.lower().endswith(".gguf"))
    except OSError:
        return f": there is no folder {folder}" if not os.path.isdir(folder) else ""
    near = difflib.get_close_matches(wanted, names, 3, 0.3) or names[:3]
    return f": did you mean {' or '.join(map(repr, near))}?" if near else f": no .gguf file is in {folder}"
