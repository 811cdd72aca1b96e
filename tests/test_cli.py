"""The command line, as a person or a script meets it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from llm_master.cli import main
from llm_master.row_checks import CAPABILITIES

ROOT = Path(__file__).resolve().parent.parent


def answer(content="Hi.", **more):
    return {
        "model": "served",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content, **more}}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010, "prompt_tokens_details": {"cached_tokens": 0}},
    }


@pytest.fixture
def run():
    def invoke(*arguments, stdin=None):
        return CliRunner().invoke(main, arguments, input=stdin)

    return invoke


@pytest.fixture
def openai(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_BASE", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-command-line-0001")
    return server


def test_query_prints_the_answer(run, openai):
    openai.answer_json(answer())
    done = run("query", "Hello", "-m", "gpt-4.1", "-s", "Be brief.", "-o", "temperature", "0.5", "-o", "stop", "END")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "Hi.\n", "")
    assert openai.request.json == {
        "model": "gpt-4.1",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "temperature": 0.5,
        "stop": "END",
    }


def test_query_streams(run, openai):
    openai.answer_sse(
        'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n',
        'data: {"choices":[{"index":0,"delta":{"content":" there"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    )
    done = run("query", "Hello", "-m", "gpt-4.1", "--stream")
    assert (done.exit_code, done.stdout) == (0, "Hi there\n")
    assert openai.request.json["stream"] is True


def test_json_holds_everything_and_no_key(run, openai):
    openai.answer_json(answer(tool_calls=[{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]))
    done = run("query", "Hello", "-m", "gpt-4.1", "--json")
    content = json.loads(done.stdout)
    assert content["content"] == "Hi."
    assert content["usage"]["input_tokens"] == 1000
    assert content["cost"] == content["receipt"]["cost"] == "0.002080"
    assert content["tool_calls"][0]["arguments"] == {"a": 1}
    assert content["receipt"]["attempts"][0]["status"] == 200
    assert content["receipt"]["attempts"][0]["key"] == "OPENAI_API_KEY …0001"
    assert "sk-command-line" not in done.output


def test_usage_goes_to_standard_error(run, openai):
    openai.answer_json(answer())
    done = run("query", "Hello", "-m", "gpt-4.1", "-u")
    assert done.stdout == "Hi.\n"
    assert "1,000 tokens in, 10 out" in done.stderr
    assert "0.00208 USD (exact)" in done.stderr
    assert "OPENAI_API_KEY …0001" in done.stderr


def test_standard_input_is_the_prompt_or_stands_before_it(run):
    """CliRunner's input is no pipe, so these run the program itself."""

    def program(*arguments, stdin):
        return subprocess.run(
            [sys.executable, "-m", "llm_master", "query", "-m", "mock/echo", *arguments],
            input=stdin,
            text=True,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=60,
        )

    assert program(stdin="from a pipe\n").stdout == "Mock response to: from a pipe\n"
    assert program("-", stdin="from a pipe\n").stdout == "Mock response to: from a pipe\n"
    assert program("and this", stdin="from a pipe\n").stdout == "Mock response to: from a pipe\n\nand this\n"
    empty = program(stdin="")
    assert empty.returncode == 2
    assert "there is no prompt" in empty.stderr


def test_without_any_key_the_mock_answers_and_says_so(run):
    done = run("query", "Hello")
    assert (done.exit_code, done.stdout) == (0, "Mock response to: Hello\n")
    assert "No key is set" in done.stderr


def test_with_a_key_the_mock_is_not_chosen(run, openai):
    openai.answer_json(answer())
    done = run("query", "Hello")
    assert (done.stdout, done.stderr) == ("Hi.\n", "")
    assert openai.request.json["model"] == "gpt-6-luna"


def test_default_model_wins(run, openai, monkeypatch):
    monkeypatch.setenv("DEFAULT_MODEL", "mock/static")
    assert "This is a mock answer" in run("query", "Hello").stdout
    assert not openai.requests


@pytest.mark.parametrize(
    ("model", "code", "said"),
    [
        ("mock/invalid-request", 1, "refuses every request"),
        ("gpt-4.1", 3, "OPENAI_API_KEY"),
        ("mock/auth-error", 3, "refuses every key"),
        ("gtp-4.1", 3, "gpt-4.1"),
        ("mock/ratelimit", 4, "3600 s"),
    ],
)
def test_errors_are_for_people_and_codes_for_scripts(run, model, code, said):
    done = run("query", "Hello", "-m", model)
    assert done.exit_code == code
    assert done.stderr.startswith("Error: ")
    assert said in done.stderr
    assert "Traceback" not in done.output


def test_an_answer_that_only_calls_tools_shows_the_calls(run, openai):
    openai.answer_json(answer("", tool_calls=[{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]))
    assert 'f({"a": 1})' in run("query", "Hello", "-m", "gpt-4.1").stdout


def test_models_list(run):
    lines = run("models", "list").stdout.splitlines()
    assert any(line.startswith("openai/gpt-4.1\t1,047,576\t2\t8\t") for line in lines)
    only = run("models", "list", "-p", "groq").stdout.splitlines()
    assert only and all(line.startswith("groq/") for line in only)
    assert json.loads(run("models", "list", "--json").stdout)["openai/gpt-4.1"]["input_price_per_million"] == "2"
    assert run("models", "list", "-p", "nobody").exit_code == 2


def test_models_list_shows_what_a_model_does_and_as_json_also_what_it_does_not(run):
    shown = {line.split("\t")[0]: line.split("\t")[-1].split(", ") for line in run("models", "list").stdout.splitlines()}
    told = json.loads(run("models", "list", "--json").stdout)
    assert shown.keys() == told.keys()
    words = set()
    for name, row in told.items():
        assert shown[name] == sorted(word for word, does in row["capabilities"].items() if does)
        words |= row["capabilities"].keys()
    assert words == set(CAPABILITIES)
    assert told["groq/openai/gpt-oss-20b"]["capabilities"]["vision"] is False


def test_providers_list_shows_no_key(run, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-secret-9876")
    done = run("providers", "list")
    rows = {line.split("\t")[0]: line.split("\t") for line in done.stdout.splitlines()}
    assert rows["openai"] == ["openai", "yes", "https://api.openai.com/v1", "$OPENAI_API_KEY", "gpt-6-luna"]
    assert rows["groq"][1] == "no" and "GROQ_API_KEY is not set" in rows["groq"][3]
    assert rows["mock"][1] == "yes"
    assert "secret" not in done.output
    assert json.loads(run("providers", "list", "--json").stdout)[0]["default_model"] == "gpt-6-luna"


def test_a_wrong_setting_is_an_error_not_a_traceback(run, monkeypatch):
    monkeypatch.setenv("OPENAI_API_BASE", "localhost:8000")
    for command in (["providers", "list"], ["query", "Hello", "-m", "mock/echo"]):
        done = run(*command)
        assert done.exit_code == 3
        assert "OPENAI_API_BASE" in done.stderr


def test_on_a_terminal_a_table_has_a_head():
    parent, child = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "llm_master", "models", "list", "-p", "cerebras"],
            stdout=child,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert process.wait(timeout=60) == 0
        shown = os.read(parent, 100_000).decode()
    finally:
        os.close(parent)
        os.close(child)
    assert "MODEL" in shown.splitlines()[0]
    assert "cerebras/gpt-oss-120b" in shown


def test_help_names_commands_and_exit_codes(run):
    shown = run("--help").stdout
    for word in ("models", "providers", "query", "Exit codes"):
        assert word in shown
    assert run("--version").stdout.startswith("llm-master")
