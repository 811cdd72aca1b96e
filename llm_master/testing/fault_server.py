"""The fault server as tests hold it: a real HTTP server in a process of its own."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from llm_master.errors import ConfigurationError
from llm_master.testing.scenario import Scenario
from llm_master.testing.script import Fault, Limit
from llm_master.testing.seen import SeenRequest

_START = 60.0
"""Seconds until a server that has not come up is given up."""

_ANSWER = 30.0
"""Seconds until the server has to say something when it is spoken to."""

_STOP = 5.0
"""Seconds that it has to end by itself."""


class FaultServer:
    """A server that speaks OpenAI's API, and fails as it is told.

    ::

        with FaultServer() as server:
            server.script(Fault(429, headers={"retry-after": "1"}), Fault(delay=0.5))
            server.limit(Limit(60, window=1.0, by="model"))
            ...                        # ask server.base_url
            assert server.counts("status") == {429: 1, 200: 1}

    It answers ``POST .../chat/completions`` (plain and as a stream), ``POST .../embeddings`` and ``GET .../models`` under any
    path. Its own answer is the last message of the user with the request's number: ``echo 7: Hello``. A token is four
    characters of the texts, rounded up for each text.

    Every method is synchronous and takes a millisecond or two, so that it can be used in tests of either kind.
    The server ends with the process that started it.

    Args:
        script: Steps that it starts with, and comes back to at :meth:`reset`.
        limits: The same of limits.
        keys: The API keys that there are, as a list or as name -> key; any other gets a 401. ``None`` takes any, and none.
        models: The models that there are; any other gets a 404. ``None`` takes any.
        host: Address that it listens on.
        port: Port that it listens on; 0 for any that is free.

    Raises:
        ConfigurationError: The scenario is wrong; on starting, also that it cannot listen there.
    """

    def __init__(
        self,
        script: Iterable[Fault] = (),
        *,
        limits: Iterable[Limit] = (),
        keys: Iterable[str] | Mapping[str, str] | None = None,
        models: Iterable[str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._scenario = Scenario(script=script, limits=limits, keys=keys, models=models)
        self.host = host
        self.port = port
        self._process: subprocess.Popen[str] | None = None

    def __repr__(self) -> str:
        return f"FaultServer({self.url!r})" if self._process else "FaultServer(not started)"

    @property
    def url(self) -> str:
        """Its address without a path, as ``http://127.0.0.1:43211``."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What clients take as their base URL: the address with ``/v1``."""
        return f"{self.url}/v1"

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._started().pid

    def start(self) -> FaultServer:
        """Start the process, and wait until it listens.

        Raises:
            ConfigurationError: It cannot listen on that port; or it did not come up.
        """
        if self._process is not None:
            raise ConfigurationError(f"the fault server at {self.url} is running: stop it before it is started again")
        # The same package as here, wherever this process has found it.
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            [sys.executable, "-m", "llm_master.testing.serving"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        give_up = threading.Timer(_START, process.kill)
        give_up.daemon = True
        give_up.start()
        try:
            told = {"scenario": self._scenario.to_mapping(), "host": self.host, "port": self.port}
            process.stdin.write(json.dumps(told) + "\n")
            process.stdin.flush()
            said = process.stdout.readline()
        except BrokenPipeError:
            said = ""
        finally:
            give_up.cancel()
        answer: dict[str, Any] = (
            json.loads(said) if said else {"error": "the fault server did not come up: what its process wrote on standard error says why"}
        )
        self._process = process
        if "error" in answer:
            self.stop()
            raise ConfigurationError(answer["error"])
        self.port = answer["port"]
        return self

    def stop(self) -> None:
        """End the process. Without effect where there is none."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.communicate(timeout=_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    def __enter__(self) -> FaultServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def script(self, *faults: Fault) -> None:
        """Answer by these steps from now on, instead of those before. Of none, all requests get the server's own answer."""
        self._tell("scenario", {"script": [fault.to_mapping() for fault in faults]})

    def limit(self, *limits: Limit) -> None:
        """Hold clients to these limits from now on, instead of those before; their windows are empty at first."""
        self._tell("scenario", {"limits": [limit.to_mapping() for limit in limits]})

    def accept(self, *, keys: Iterable[str] | Mapping[str, str] | None = None, models: Iterable[str] | None = None) -> None:
        """Know these API keys and models only; ``None`` is any."""
        scenario = Scenario(keys=keys, models=models)
        self._tell("scenario", {name: value for name, value in scenario.to_mapping().items() if name in ("keys", "models")})

    def reset(self) -> None:
        """Be as when it was started: log, script, limits, keys and models. Whoever still waits for an answer is cut off."""
        self._tell("reset")

    @property
    def requests(self) -> list[SeenRequest]:
        """What arrived, in order; of more than 100,000 the latest."""
        return msgspec.json.decode(self._tell("requests"), type=list[SeenRequest])

    def counts(self, by: str = "status") -> dict[Any, int]:
        """How many requests arrived, by ``status``, ``key``, ``model``, ``path``, ``step`` or ``allowed``."""
        return {value: count for value, count in json.loads(self._tell("counts", {"by": by}))}  # noqa: C416  # lists, not pairs

    def peak(self, window: float, *, by: str | Iterable[str] = (), what: str = "requests") -> int:
        """The most that was let through in any interval (t - window, t].

        Args:
            window: Seconds.
            by: ``"key"``, ``"model"`` or both: the most of any one of them. Else of all requests.
            what: ``requests``, ``tokens``, ``input_tokens`` or ``output_tokens``.
        """
        return int(self._tell("peak", {"window": window, "by": [by] if isinstance(by, str) else list(by), "what": what}))

    def _tell(self, what: str, content: Any = None) -> bytes:
        process = self._started()
        connection = http.client.HTTPConnection(self.host, self.port, timeout=_ANSWER)
        try:
            connection.request("POST", f"/_faults/{what}", json.dumps({} if content is None else content))
            answer = connection.getresponse()
            said = answer.read()
        except OSError as exc:
            gone = f"its process ended with {process.returncode}" if process.poll() is not None else str(exc)
            raise ConfigurationError(f"the fault server at {self.url} does not answer ({gone}): start another") from exc
        finally:
            connection.close()
        if answer.status != 200:
            raise ConfigurationError("; ".join(json.loads(said)["faults"]))
        return said

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise ConfigurationError("the fault server is not running: use it within 'with FaultServer() as server:', or call start()")
        return self._process
