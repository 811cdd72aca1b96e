"""Every test begins in an empty folder with an empty environment, reaches no network but loopback, and leaves the tables as they were."""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import socket
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from servers import llama as llama_cpp
from servers.documented import DocumentedServer
from servers.scripted import ScriptedServer

from llm_master import PROVIDER_CONFIGS, ModelRegistry, metrics
from llm_master.engines import forget

pytest_plugins = ["llm_master.testing.fixtures"]

# The packages that happen to be installed beside bring nothing into the tables. Before any test, since the tables load plugins once.
os.environ["LLM_MASTER_PLUGINS"] = "0"

# The same examples every time, so that a run says something of the change it runs on; `--hypothesis-profile=search` looks for new ones.
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.register_profile("search", derandomize=False)
hypothesis.settings.load_profile("same")

HANG = 60
"""Seconds after which a test counts as hung."""

_SETTINGS = re.compile(
    r".*_(API_KEY(_\d+)?|API_TOKEN|API_BASE|BASE_URL|MODELS|HEADERS|PROXY)|OPENAI_.*|AZURE_.*|AWS_.*|ANTHROPIC_.*|GEMINI_.*|GOOGLE_.*|HF_.*|HUGGING_?FACE.*|LLM_MASTER_.*|"
    r"PREFERRED_PROVIDER|DEFAULT_MODEL|ENABLE_FALLBACK|FALLBACK_.*|MAX_ATTEMPTS",
    re.IGNORECASE,
)


class NetworkReached(Exception):
    """A test tried to reach another machine. No OSError, so that nobody takes it for an unreachable server."""


@pytest.fixture(autouse=True)
def _empty_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in [name for name in os.environ if _SETTINGS.fullmatch(name)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LLM_MASTER_PLUGINS", "0")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ".local" / "state"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # else an address of the cloud's own is asked for credentials
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    """No key is barred, no limit reached, no provider in trouble and nothing counted from the test before."""
    forget()
    metrics.METRICS.clear()


@pytest.fixture(scope="session")
def _tables() -> list[tuple[Any, dict[str, Any]]]:
    """Both tables, and what stands in them before any test."""
    tables: list[Any] = [PROVIDER_CONFIGS, ModelRegistry.CONFIGS]
    return [(table, dict(table)) for table in tables]


@pytest.fixture(autouse=True)
def _tables_restored(_tables: list[tuple[Any, dict[str, Any]]]) -> Iterator[None]:
    before = [(table, table.version, rows) for table, rows in _tables]
    yield
    for table, version, rows in before:
        if table.version != version:
            # A row that was taken out and comes back would stand last, and of two that are alike the first is meant.
            for name in (
                list(table) if [name for name in table if name in rows] != list(rows) else [name for name in table if name not in rows]
            ):
                del table[name]
            for name, row in rows.items():
                if table.get(name) is not row:
                    table[name] = row


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A connection to anywhere else fails, and so does the test, even where its code swallows the failure."""
    reached: list[str] = []

    def allowed(host: Any) -> bool:
        host = host.decode() if isinstance(host, bytes) else host
        if host in (None, "", "localhost"):
            return True
        try:
            return ipaddress.ip_address(host.partition("%")[0]).is_loopback
        except ValueError:
            return False

    def check(host: Any) -> None:
        if not allowed(host):
            reached.append(f"{host}")
            raise NetworkReached(f"a test tried to reach {host}")

    def guarded(method: Any) -> Any:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                check(address[0])
            return method(self, address)

        return connect

    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(host, str) and host.endswith(".invalid"):  # never exists: RFC 2606
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        check(host)
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield
    assert not reached, f"the test tried to reach {', '.join(reached)}"


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    if not hasattr(signal, "setitimer"):  # Windows
        yield
        return

    def hung(*_: Any) -> None:
        pytest.fail(f"hung: not done after {HANG} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, HANG)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def _scripted() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.stop()


@pytest.fixture
def server(_scripted: ScriptedServer) -> Iterator[ScriptedServer]:
    """An HTTP server that answers what the test scripts: see ``servers/scripted.py``."""
    _scripted.reset()
    yield _scripted
    _scripted.reset()


@pytest.fixture(scope="session")
def _documented() -> Iterator[DocumentedServer]:
    server = DocumentedServer()
    yield server
    server.stop()


@pytest.fixture
def documented(_documented: DocumentedServer) -> DocumentedServer:
    """An HTTP server that answers in the shape of every API, by the path: see ``servers/documented.py``."""
    _documented.take()
    return _documented


def _llama(folder: Any, write: Any, **how: Any) -> Iterator[llama_cpp.LlamaServer]:
    if (missing := llama_cpp.installed()) is not None:
        pytest.skip(missing)
    model = folder.mktemp("model") / "tiny.gguf"
    write(model)
    server = llama_cpp.LlamaServer(model, **how)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[llama_cpp.LlamaServer]:
    """A real llama.cpp server that wants no key and recites ``servers.llama.SENTENCE``."""
    yield from _llama(tmp_path_factory, llama_cpp.write_reciting_model)


@pytest.fixture(scope="session")
def llama_with_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[llama_cpp.LlamaServer]:
    """A real llama.cpp server that wants its ``api_key`` and babbles at random."""
    yield from _llama(tmp_path_factory, llama_cpp.write_random_model, api_key="sk-llama-0123456789")


@pytest.fixture(scope="session")
def llama_embeddings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[llama_cpp.LlamaServer]:
    """A real llama.cpp server that wants no key and makes embeddings: senseless ones, and always the same of the same text."""
    yield from _llama(tmp_path_factory, llama_cpp.write_random_model, embeds=True)
