"""``llm-master models info`` and ``models test``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from servers.formats import CHAT
from servers.scripted import ScriptedServer

from llm_master.cli import main

KEY = "sk-never-shown-0123456789"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def openai(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> ScriptedServer:
    monkeypatch.setenv("OPENAI_API_BASE", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return server


def test_list_has_what_settings_say(tmp_path: Path) -> None:
    (tmp_path / "llm_master.toml").write_text(
        '[models."openai/gpt-4.1"]\ninput_price_per_million = 3\n[models."acme/large"]\ncontext_window = 1000\n'
        '[[providers]]\nname = "acme"\nbase_url = "http://a.ai/v1"\n'
    )
    lines = {line.split("\t")[0]: line.split("\t") for line in run("models", "list").stdout.splitlines()}
    assert lines["openai/gpt-4.1"][1:4] == ["1,047,576", "3", "8"]
    assert lines["acme/large"][1:4] == ["1,000", "?", "?"]
    assert [line.split("\t")[0] for line in run("models", "list", "-p", "acme").stdout.splitlines()] == ["acme/large"]


def test_live_lists_what_the_providers_have_and_tells_outages(openai: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLLAMA", "VLLM", "LLAMACPP", "LMSTUDIO"):
        monkeypatch.setenv(f"{name}_API_BASE", "http://127.0.0.1:9/v1")
    openai.answer_json({"object": "list", "data": [{"id": "gpt-4.1"}, {"id": "gpt-new"}]})
    done = run("models", "list", "--live")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[:2] == ["openai/gpt-4.1\t1,047,576\tprovider", "openai/gpt-new\t?\tprovider"]
    assert "openai/gpt-5\t400,000\tdeclared only" in lines
    assert "vllm: vLLM did not list its models" in done.stderr and "mock" not in done.stderr
    told = json.loads(run("models", "list", "--live", "-p", "openai", "--json").stdout)["openai"]
    assert (told["state"], told["source"]) == ("listed", "cache")
    assert len(openai.requests) == 1
    assert run("models", "list", "--live", "-p", "vllm").exit_code == 1
    assert run("models", "list", "--live", "-p", "nobody").exit_code == 3


def test_info_says_what_is_known_with_its_source(openai: ScriptedServer) -> None:
    told = json.loads(run("models", "info", "gpt-4.1", "--json").stdout)
    assert (told["provider"], told["wire_id"], told["prices_are"]) == ("openai", "gpt-4.1", "registered")
    assert told["prices"]["input_price_per_million"] == "2" and told["prices"]["currency"] == "USD"
    assert told["source"].startswith("https://") and len(told["as_of"]) == 10
    assert "vision" in told["does"] and "reasoning" in told["does_not"]
    assert "azure/gpt-4.1" in told["also_at"]
    shown = run("models", "info", "gpt-4.1").stdout
    assert "input price per million 2\n" in shown and "context window:     1,047,576\n" in shown
    assert openai.requests == [] and KEY not in shown


def test_info_shows_what_is_unknown_as_unknown() -> None:
    told = json.loads(run("models", "info", "vllm/house-model", "--json").stdout)
    assert told["prices"] == "no cost is calculated for this provider"
    assert told["context_window"] is told["limits"] is told["does"] is told["does_not"] is None
    assert "context window:     ?\n" in run("models", "info", "vllm/house-model").stdout


def test_info_looks_a_price_up_where_nobody_registered_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    told = json.loads(run("models", "info", "openai/gpt-4o-2024-05-13", "--json").stdout)
    assert told["prices_are"] == "looked up in the genai-prices package" and told["prices"]["input_price_per_million"] == "5"


def test_info_of_no_model() -> None:
    done = run("models", "info", "no-such-model")
    assert (done.exit_code, done.stdout) == (3, "") and "no-such-model" in done.stderr


def test_a_model_is_asked_whole_and_as_a_stream(openai: ScriptedServer) -> None:
    openai.answer_json(CHAT.answer("OK."))
    openai.answer_sse(*CHAT.stream("one, ", "two"))
    done = run("models", "test", "gpt-4.1")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok") and "'OK.'" in lines[0] and "USD" in lines[1]
    assert "2 pieces" in lines[2]
    assert [request.json.get("stream", False) for request in openai.requests] == [False, True]


def test_all_also_asks_for_a_call_and_a_form(openai: ScriptedServer) -> None:
    for answer in (CHAT.answer("OK."), CHAT.answer("", [("call_1", "get_weather", {"city": "Bern"})]), CHAT.answer('{"sum": 4}')):
        openai.answer_json(answer)
        if "OK." in str(answer):
            openai.answer_sse(*CHAT.stream("one"))
    done = run("models", "test", "gpt-4.1", "--all", "--json")
    assert done.exit_code == 0
    assert [(one["check"], one["ok"]) for one in json.loads(done.stdout)] == [
        ("answers", True),
        ("streams", True),
        ("calls tools", True),
        ("follows a schema", True),
    ]
    assert "tools" in openai.requests[2].json and "response_format" in openai.requests[3].json


def test_a_model_that_calls_no_tool_has_failed(openai: ScriptedServer) -> None:
    openai.answer_json(CHAT.answer("OK."))
    openai.answer_sse(*CHAT.stream("one"))
    openai.answer_json(CHAT.answer("It is 18 degrees."))
    openai.answer_json(CHAT.answer('{"sum": 4}'))
    done = run("models", "test", "gpt-4.1", "--all")
    assert done.exit_code == 1
    assert "failed  calls tools" in done.stdout and "ok      follows a schema" in done.stdout


def unreachable(openai: ScriptedServer) -> None:
    openai.answer(framing="raw", end="close", times=None)


@pytest.mark.parametrize(
    ("fails", "code", "said"),
    [
        (401, 3, "mistyped, revoked"),
        (402, 3, "top it up"),
        (403, 3, "may not use this model"),
        (404, 1, "misspelt, retired"),
        (429, 4, "limit is used up"),
        (500, 4, "/v1 missing"),
        (unreachable, 4, "proxy or firewall"),
    ],
)
def test_a_failure_is_told_with_its_causes(openai: ScriptedServer, fails: int | Callable[[Any], None], code: int, said: str) -> None:
    if isinstance(fails, int):
        openai.answer_json({"error": {"message": "No."}}, status=fails, times=None, headers={"retry-after": "3600"} if fails == 429 else {})
    else:
        fails(openai)
    done = run("models", "test", "gpt-4.1")
    assert done.exit_code == code
    assert done.stdout.startswith("failed  answers") and said in done.stdout and KEY not in done.output
    assert len(openai.requests) == 1  # and not again, nor as a stream


def test_without_a_key_nothing_is_asked() -> None:
    done = run("models", "test", "openai/gpt-4.1")
    assert done.exit_code == 3 and "OPENAI_API_KEY" in done.stdout
