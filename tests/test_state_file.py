"""Key states that survive a restart, in a file of fingerprints."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llm_master import PROVIDER_CONFIGS, AuthenticationError, ConfigurationError, LLMConfig, ProviderConfig, QueryLLM
from llm_master.engines import forget
from llm_master.storage import state_file
from llm_master.storage.state_file import StateFile
from llm_master.testing import FakeClock, Fault, FaultServer

KEY = "sk-filed-0123456789"
OTHER = "sk-others-9876543210"


class Uses:
    """What a key's state has of use here."""

    def __init__(self, uses: int) -> None:
        self.uses = uses


class Wall:
    """A wall clock that can be set."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def engine(path: Path, *keys: str, **config: Any) -> QueryLLM:
    return QueryLLM(LLMConfig(environment={}, api_keys={"acme": list(keys) or [KEY, OTHER]}, state=path, **config))


def restart(path: Path) -> None:
    """What the process knew is gone, but for what it wrote at its end."""
    state_file.state_at(str(path), LLMConfig(environment={}).clock.time).save()
    forget()
    state_file._open.clear()


async def test_a_dead_key_is_not_asked_after_a_restart(tmp_path: Path, fault_server: FaultServer) -> None:
    path = tmp_path / "keys.json"
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=fault_server.base_url)
    fault_server.accept(keys=[OTHER])
    answer = await engine(path).query("acme/m", prompt="Hi")
    assert [attempt.status for attempt in answer.receipt.attempts] == [401, 200]
    restart(path)
    for _ in range(4):
        assert len((await engine(path).query("acme/m", prompt="Hi")).receipt.attempts) == 1
    restart(path)
    with pytest.raises(AuthenticationError, match="as another process has found"):
        await engine(path, KEY).query("acme/m", prompt="Hi")
    assert fault_server.counts("status") == {401: 1, 200: 5}


async def test_cooling_denied_and_use_survive_and_no_key_is_in_it(tmp_path: Path, fault_server: FaultServer) -> None:
    path = tmp_path / "keys.json"
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=fault_server.base_url, quota={"nobody": "team"})
    fault_server.script(Fault(429, headers={"retry-after": "100"}), Fault(403))
    with pytest.raises(Exception):  # noqa: B017, PT011  # whichever of the two it ends with
        await engine(path).query("acme/m", prompt="Hi", deadline=5)
    await engine(path).query("acme/other", prompt="Hi")
    restart(path)
    said = json.loads(path.read_text())
    assert sorted(value for value, _, _ in said["states"].values()) == ["denied", "limited"]
    assert sorted(count for count, _ in said["uses"].values()) == [1, 2]
    for secret in (KEY, OTHER, "6789", "3210", "sk-"):
        assert secret not in "".join([*said["states"], *said["uses"]])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    seen = len(fault_server.requests)
    with pytest.raises(Exception, match=r"may not use m|is rate limited"):
        await engine(path).query("acme/m", prompt="Hi", deadline=5)
    assert len(fault_server.requests) == seen, "nothing is sent"


def test_a_clock_that_jumped_is_no_matter(tmp_path: Path) -> None:
    wall = Wall()
    one = StateFile(str(tmp_path / "keys.json"), wall)
    one.note("k", "invalid", 300)
    one.save()
    wall.now -= 86400
    back = StateFile(str(tmp_path / "keys.json"), wall)
    assert back.recall("k") == ("invalid", 300)
    wall.now += 86400 + 200
    assert back.recall("k") == ("invalid", 100)
    wall.now += 100
    assert back.recall("k") is None
    back.note("other", "no_funds", 10)
    back.save()
    assert list(json.loads((tmp_path / "keys.json").read_text())["states"]) == ["other"], "what is over is dropped"


def test_of_two_processes_the_latest_holds_and_counts_add_up(tmp_path: Path) -> None:
    wall = Wall()
    path = str(tmp_path / "keys.json")
    one, two = StateFile(path, wall), StateFile(path, wall)
    ours, theirs = Uses(0), Uses(0)
    one.counts("u", ours)
    two.counts("u", theirs)
    one.note("k", "invalid", 300)
    ours.uses = 5
    one.save()
    wall.now += 0.5
    one.note("k", "invalid", 300)  # found before the other, and written after it
    wall.now += 0.5
    two.note("k", "no_funds", 3600)
    theirs.uses = 7
    two.save()
    ours.uses = 6
    one.save()
    three = StateFile(path, wall)
    assert three.recall("k") == ("no_funds", 3600)
    assert three.uses("u") == 13
    wall.now += 1
    two.clear("k")
    two.save()
    one.save()
    assert StateFile(path, wall).recall("k") is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"states": {"k": 3}, "uses": {}}', b"\xff\xfe", b"[" * 100_000, b'{"states": 1, "uses": 2}']
)
def test_a_broken_file_is_put_aside(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    state = StateFile(str(path), time.time)
    assert state.recall("k") is None
    assert (tmp_path / "keys.json.broken").read_bytes() == content
    assert "keys.json.broken" in caplog.text
    state.note("k", "invalid", 300)
    state.save()
    recalled = StateFile(str(path), time.time).recall("k")
    assert recalled is not None and recalled[0] == "invalid"


def test_one_that_cannot_be_put_aside_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(b"{")
    (tmp_path / "keys.json.broken").mkdir()
    state = StateFile(str(path), time.time)
    assert "cannot be renamed" in caplog.text and "state=" in caplog.text
    state.note("k", "invalid", 300)
    state.save()
    assert state.recall("k") is not None and path.read_bytes() == b"{"


def test_where_it_cannot_be_written_is_told_and_breaks_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    state = StateFile(str(folder / "keys.json"), time.time)
    folder.rmdir()
    state.note("k", "invalid", 300)
    state.save()
    assert "could not be written" in caplog.text and "state=" in caplog.text
    assert state.recall("k") is not None


@pytest.mark.parametrize("name", [".", "nowhere/keys.json"])
def test_a_path_that_can_be_no_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ConfigurationError, match="give the path of a file"):
        engine(tmp_path / name)


def test_it_is_written_within_a_second_or_so_and_at_exit(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    state = StateFile(str(path), time.time)
    state.note("k", "invalid", 300)
    assert not path.exists(), "changes are collected"
    until = time.monotonic() + 5
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert path.exists()
    program = (
        "import sys, time; from llm_master.storage.state_file import state_at; s = state_at(sys.argv[1], time.time); s.note('e', 'x', 9)"
    )
    root = str(Path(state_file.__file__).parents[2])
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, env={"PYTHONPATH": root}, timeout=30)
    assert set(json.loads(path.read_text())["states"]) == {"k", "e"}


def _add(path: str, number: int) -> None:
    state, used = StateFile(path, time.time), Uses(0)
    state.counts("u", used)
    for step in range(20):
        state.note(f"{number}:{step}", "invalid", 300)
        used.uses += 1
        state.save()


def test_four_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "keys.json")
    spawn = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    processes = [spawn.Process(target=_add, args=(path, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    said = json.loads(Path(path).read_text())
    assert len(said["states"]) == 80
    assert said["uses"]["u"][0] == 80


async def test_a_new_key_does_not_have_to_catch_up(tmp_path: Path, fault_server: FaultServer) -> None:
    path = tmp_path / "keys.json"
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=fault_server.base_url)
    clock = FakeClock()
    for _ in range(6):
        await engine(path, KEY, clock=clock).query("acme/m", prompt="Hi")
    state_file.state_at(str(path), clock.time).save()
    forget()
    state_file._open.clear()
    fault_server.reset()
    for _ in range(6):
        await engine(path, KEY, OTHER, clock=clock).query("acme/m", prompt="Hi")
    assert fault_server.counts("key") == {"…6789": 3, "…3210": 3}
