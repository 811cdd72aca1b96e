"""The processes of the bench: one upstream, and one for each client."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

PATIENCE = 300.0
"""Seconds that one order may take before the bench gives up."""


def plain_environment() -> dict[str, str]:
    """An environment in which nothing of this machine's user reaches a client: no key, no proxy, no settings file."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "HOME": scratch(), "TMPDIR": tempfile.gettempdir()}


def scratch() -> str:
    """An empty folder in which clients run, so that no ``.env`` and no source tree is found there."""
    folder = os.path.join(os.environ["BENCH_SCRATCH"], "empty")
    os.makedirs(folder, exist_ok=True)
    return folder


class Process:
    """A Python process of this package that is told what to do in lines."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._name = " ".join((module, *arguments[:1]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"bench_support.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=plain_environment(),
            cwd=scratch(),
        )

    def read_line(self) -> str:
        """Wait for the next line that it prints.

        Raises:
            RuntimeError: It ended, or took too long.
        """
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise RuntimeError(f"{self._name} has not answered for {PATIENCE:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with exit code {self._process.wait()}; what it said stands above")
        return line

    def order(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Let it do something, and wait for what it found."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self.read_line())
        return found

    def close(self) -> None:
        """End it; one that is busy is killed."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def upstream() -> Iterator[str]:
    """A server process; its address."""
    process = Process("upstream")
    try:
        yield f"http://127.0.0.1:{int(process.read_line())}"
    finally:
        process.close()


@contextlib.contextmanager
def client_processes(names: Sequence[str], address: str) -> Iterator[dict[str, Process]]:
    """One process per client, each with that client only, all against ``address``."""
    processes: dict[str, Process] = {}
    try:
        for name in names:
            processes[name] = Process("worker", name, address)
        yield processes
    finally:
        for process in processes.values():
            process.close()
