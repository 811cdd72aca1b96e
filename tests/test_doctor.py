"""``llm-master doctor`` and ``llm-master providers test``: what a new user learns from them alone."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result
from servers.llama import LlamaServer
from servers.scripted import FOREVER, ScriptedServer

from llm_master import PROVIDER_CONFIGS, ProviderConfig
from llm_master.cli import main

ROOT = Path(__file__).resolve().parent.parent
KEY = "sk-never-shown-0123456789"
MODELS = {"object": "list", "data": [{"id": f"m-{number}", "object": "model"} for number in range(1, 13)]}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("doctor", "--json").stdout)
    return found


@pytest.fixture(autouse=True)
def _nothing_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runs where these tests do: the local servers' rows lead to a port on which nobody listens."""
    for name, row in PROVIDER_CONFIGS.items():
        if not row.requires_key and (row.base_url or "").startswith("http://localhost"):
            PROVIDER_CONFIGS[name] = attrs.evolve(row, base_url="http://localhost:9/v1")


@pytest.fixture
def second() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.stop()


def served(monkeypatch: pytest.MonkeyPatch, server: ScriptedServer, name: str = "OPENAI") -> None:
    monkeypatch.setenv(f"{name}_API_BASE", server.base_url)
    monkeypatch.setenv(f"{name}_API_KEY", KEY)


def test_who_has_nothing_is_told_how_to_begin() -> None:
    done = run("doctor")
    assert done.exit_code == 1
    assert "nothing answers at http://localhost:9/v1" in done.stdout
    steps = done.stdout.partition("What to do next")[2]
    assert "export OPENAI_API_KEY=… (made at https://" in steps
    assert "ollama serve" in steps and "stand-in" in steps
    assert re.search(r"(ok|-) +a model file: llm-master query -m gguf/PATH", done.stdout)


def test_who_has_a_local_server_alone_is_told_how_to_ask_it(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["ollama"] = attrs.evolve(PROVIDER_CONFIGS["ollama"], base_url=server.base_url)
    server.answer_json({"object": "list", "data": [{"id": "llama3.2:latest"}, {"id": "qwen3:8b"}]}, times=None)
    done = run("doctor")
    assert done.exit_code == 0
    assert re.search(r"ok +ollama +\d\.\d\d s +2 models; it answers, and wants no key\n +llama3\.2:latest, qwen3:8b", done.stdout)
    assert done.stdout.endswith('What to do next\n  1. Ask a model: llm-master query -m ollama/llama3.2:latest "Hello"\n')


def test_a_local_server_without_a_model(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["ollama"] = attrs.evolve(PROVIDER_CONFIGS["ollama"], base_url=server.base_url)
    server.answer_json({"object": "list", "data": []}, times=None)
    assert any("runs and has no model" in step for step in report()["next"])


def test_who_has_one_wrong_key_is_told_which_and_where_to_get_another(
    server: ScriptedServer, second: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(monkeypatch, server, "OPENAI")
    served(monkeypatch, second, "GROQ")
    server.answer_json({"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}, status=401, times=None)
    second.answer_json(MODELS)
    second.answer_json({"error": {"message": "no key"}}, status=401, times=None)  # to whom has none
    done = run("doctor")
    assert done.exit_code == 1
    assert re.search(r"refused +openai .*OPENAI_API_KEY …6789: 401 Incorrect API key", done.stdout)
    assert re.search(r"ok +groq .*12 models; GROQ_API_KEY …6789", done.stdout)
    steps = done.stdout.partition("What to do next")[2]
    assert "1. OpenAI refuses the key in OPENAI_API_KEY …6789: put another there, made at https://platform.openai.com/api-keys" in steps
    assert 'llm-master query -m groq "Hello"' in steps
    assert KEY not in done.output


def test_a_proxy_in_the_way_is_named(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{server.port}")
    monkeypatch.setenv("OPENAI_API_BASE", "http://api.openai.invalid/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.answer("<html>Access denied by company policy</html>", status=403, headers={"content-type": "text/html"}, times=None)
    done = run("doctor")
    assert done.exit_code == 1 and "secret" not in done.output
    assert f"HTTP_PROXY=http://…@127.0.0.1:{server.port}" in done.stdout
    assert "no answer  openai" in done.stdout
    assert "check the proxy" in done.stdout.partition("What to do next")[2]


def test_a_proxy_that_wants_a_login(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("OPENAI_API_BASE", "http://api.openai.invalid/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.answer("", status=407, times=None)
    assert "http://user:password@proxy:port" in run("doctor").stdout


def test_names_that_are_nearly_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTROPIC_API_KEY", KEY)
    found = report()
    assert found["misspelt"] == {"ANTROPIC_API_KEY": "ANTHROPIC_API_KEY"} and not found["well"]
    assert found["next"][0].startswith("Rename $ANTROPIC_API_KEY to $ANTHROPIC_API_KEY")


def test_wrong_settings_are_told_and_the_rest_is_examined(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "llm_master.toml").write_text('[[providers]]\nname = "acme"\nbase_ur = "http://a.ai"\n')
    served(monkeypatch, server)
    server.answer_json(MODELS, times=None)
    done = run("doctor")
    assert done.exit_code == 1
    assert re.search(r"wrong .*llm_master.toml:3: .*base_ur", done.stdout)
    assert re.search(r"answers +openai .*12 models", done.stdout)  # everybody gets this list, so it says nothing of the key
    assert "llm-master config check" in done.stdout


def test_a_preferred_provider_that_there_is_not(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFERRED_PROVIDER", "opnai")
    served(monkeypatch, server)
    server.answer_json(MODELS, times=None)
    found = report()
    assert any("opnai" in fault for fault in found["faults"]) and not found["well"]
    assert found["providers"]["openai"]["models"] == 12


def test_thirty_providers_of_which_ten_are_dead(server: ScriptedServer, second: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answer_json(MODELS, times=None)
    second.answer(delay=FOREVER, times=None)
    for number in range(30):
        address = second.base_url if number % 3 == 0 else server.base_url
        PROVIDER_CONFIGS[f"acme{number}"] = ProviderConfig(base_url=address, api_key=f"{KEY}-{number}")
    done = run("doctor", "--timeout", "0.3", "--json")
    states = {name: one["state"] for name, one in json.loads(done.stdout)["providers"].items() if name.startswith("acme")}
    assert len(states) == 30
    assert {name for name, state in states.items() if state == "unreachable"} == {f"acme{number}" for number in range(0, 30, 3)}
    assert "no answer within 0.3 s" in json.loads(done.stdout)["providers"]["acme0"]["detail"]


def test_what_stands_in_json_is_what_is_shown(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, server)
    server.answer_json(MODELS)
    server.answer_json({"error": {"message": "no key"}}, status=401, times=None)
    found = report()
    assert found["well"] and found["providers"]["openai"]["state"] == "valid"
    assert found["providers"]["openai"]["models"] == 12
    assert found["providers"]["openai"]["keys"][0]["key"] == "OPENAI_API_KEY …6789"
    assert KEY not in json.dumps(found)


@pytest.mark.servers
def test_a_real_server_is_found_and_one_with_a_key_asks_for_it(llama: LlamaServer, llama_with_key: LlamaServer) -> None:
    PROVIDER_CONFIGS["llamacpp"] = attrs.evolve(PROVIDER_CONFIGS["llamacpp"], base_url=llama.base_url)
    PROVIDER_CONFIGS["lmstudio"] = attrs.evolve(PROVIDER_CONFIGS["lmstudio"], base_url=llama_with_key.base_url)
    found = report()
    assert found["providers"]["llamacpp"]["state"] == "valid" and found["providers"]["llamacpp"]["first_models"]
    assert found["providers"]["lmstudio"]["state"] == "invalid"
    assert "LM Studio wants a key: set LMSTUDIO_API_KEY." in found["next"]


# On a terminal


def on_a_terminal(*arguments: str, columns: int = 120) -> str:
    """What a person sees."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_master", *arguments],
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
        env={**environment, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": str(columns)},
    )
    os.close(theirs)
    seen = b""
    while select.select([ours], [], [], 30)[0]:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
    process.wait(30)
    os.close(ours)
    return seen.decode()


def test_on_a_terminal_it_has_headings_and_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTROPIC_API_KEY", KEY)
    seen = on_a_terminal("doctor", "--timeout", "1")
    for heading in ("Settings", "Providers with a key", "On this machine, free of charge", "What to do next"):
        assert f"\x1b[1m{heading}\x1b[0m" in seen
    assert "\x1b[31mmisspelt?" in seen and KEY not in seen


# providers test


def test_a_provider_that_answers(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, server)
    monkeypatch.setenv("OPENAI_DEFAULT_MODEL", "m-3")
    server.answer_json(MODELS)
    server.answer_json({"error": {"message": "no key"}}, status=401)  # to who has none
    server.answer_json(MODELS)
    done = run("providers", "test", "OpenAI")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert re.fullmatch(rf"ok +openai at {server.base_url} in \d\.\d\d s: OPENAI_API_KEY …6789: it lists its models for this key", lines[0])
    assert lines[1:12] == ["12 models, the first of which:", *(f"  m-{number}" for number in range(1, 11))]
    assert lines[12:] == ["Its default model m-3 is among them."]
    assert KEY not in done.output


def test_a_default_model_that_is_gone(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, server)
    server.answer_json(MODELS, times=None)
    assert "is not among them: it may be retired" in run("providers", "test", "openai").stdout
    assert json.loads(run("providers", "test", "openai", "--json").stdout)["default_model_is_listed"] is False


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"status": 401, "body": '{"error": {"message": "No."}}'}, "mistyped, revoked"),
        ({"framing": "raw", "end": "close"}, "proxy or firewall"),
        ({"status": 200, "body": "<html>Welcome</html>"}, "proxy or firewall"),
    ],
)
def test_a_provider_that_fails_is_told_with_its_causes(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], said: str
) -> None:
    served(monkeypatch, server)
    answer = dict(answer)
    server.answer(answer.pop("body", ""), times=None, **answer)
    done = run("providers", "test", "openai")
    assert done.exit_code == 1 and said in done.stdout and KEY not in done.output


def test_a_local_server_that_is_not_there_is_told_with_what_starts_it() -> None:
    done = run("providers", "test", "ollama")
    assert done.exit_code == 1 and "It is started by: ollama serve" in done.stdout


def test_no_such_provider() -> None:
    done = run("providers", "test", "opnai")
    assert done.exit_code == 3 and "'opnai'" in done.stderr
