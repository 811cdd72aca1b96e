"""The command line, as a person or a script meets it."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pty
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from click.testing import CliRunner
from servers.documented import silence
from servers.media import PNG
from servers.scripted import GATE

from llm_master import PROVIDER_CONFIGS, QueryLLM
from llm_master.cli import main
from llm_master.row_checks import CAPABILITIES
from llm_master.rows import key_attr

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
        ("mock/ratelimit", 4, "60 min"),
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
    (roubles,) = [
        line.split("\t") for line in run("models", "list", "-p", "yandex").stdout.splitlines() if line.startswith("yandex/aliceai-llm\t")
    ]
    assert roubles[2:4] == ["500 RUB", "1200 RUB"]


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
    assert rows["openai"] == ["openai", "yes", "https://api.openai.com/v1", "$OPENAI_API_KEY (default)", "gpt-6-luna"]
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
    assert "\n    4  may pass" in shown and "\\b" not in shown
    assert "\n  zsh: " in run("completion", "--help").stdout
    assert run("--version").stdout.startswith("llm-master")


# Media, forms, tools


@pytest.fixture
def cat(tmp_path):
    (tmp_path / "cat.png").write_bytes(PNG)
    return tmp_path / "cat.png"


def image_answer(*images):
    return {"created": 1, "data": [dict(image) for image in images]}


WITH_BYTES = {"b64_json": base64.b64encode(PNG).decode()}


def test_images_files_and_audio_go_along(run, openai, cat, tmp_path):
    (tmp_path / "notes.txt").write_text("Cats purr.")
    (tmp_path / "note.wav").write_bytes(silence())
    openai.answer_json(answer())
    done = run("query", "What?", "-m", "gpt-4.1", "--image", "cat.png", "--image", "https://example.com/dog.jpg", "--file", "notes.txt")
    assert done.exit_code == 0, done.stderr
    text, picture, link, note = openai.request.json["messages"][0]["content"]
    assert text == {"type": "text", "text": "What?"}
    assert picture["image_url"]["url"] == f"data:image/png;base64,{WITH_BYTES['b64_json']}"
    assert link["image_url"]["url"] == "https://example.com/dog.jpg"
    assert "Cats purr." in note["text"]
    openai.reset()
    openai.answer_json(answer())
    assert run("query", "What?", "-m", "gpt-audio", "--audio", "note.wav").exit_code == 0
    assert openai.request.json["messages"][0]["content"][1]["input_audio"]["format"] == "wav"


def test_a_file_that_is_not_there_is_wrong_usage(run, openai):
    done = run("query", "What?", "-m", "gpt-4.1", "--image", "dog.png")
    assert done.exit_code == 2
    assert "--image" in done.stderr and "'dog.png' does not exist" in done.stderr
    assert not openai.requests


SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def test_schema_gives_the_json_text_as_it_came(run, openai, tmp_path):
    (tmp_path / "bird.json").write_text(json.dumps(SCHEMA))
    openai.answer_json(answer('{ "name":"robin"}'))
    done = run("query", "A bird", "-m", "gpt-4.1", "--schema", "bird.json")
    assert (done.exit_code, done.stdout) == (0, '{ "name":"robin"}\n')
    assert openai.request.json["response_format"]["json_schema"]["schema"] == SCHEMA


def test_an_answer_that_does_not_fit_the_schema_is_shown_but_not_piped(run, openai, tmp_path):
    (tmp_path / "bird.json").write_text(json.dumps(SCHEMA))
    openai.answer_json(answer("A robin."))
    done = run("query", "A bird", "-m", "gpt-4.1", "--schema", "bird.json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("A robin.\nError: ")


@pytest.mark.parametrize(
    ("option", "content", "said"),
    [
        ("--schema", b"{", "wrong.json is not JSON"),
        ("--schema", b"\xff\xfe", "wrong.json is not JSON"),
        ("--schema", b"[1]", "wrong.json is no JSON schema"),
        ("--schema", b'{"type": "objct"}', "did you mean 'object'"),
        ("--schema", b'{"a": 1}', "response_format holds 'a'"),
        ("--tools", b"{", "wrong.json is not JSON"),
        ("--tools", b"[]", "wrong.json holds no tools"),
        ("--tools", b'["f"]', "wrong.json holds no tools"),
        ("--tools", b'{"name": "f"}', "wrong.json holds no tools"),
    ],
)
def test_a_wrong_schema_or_tools_file_is_wrong_usage(run, openai, tmp_path, option, content, said):
    (tmp_path / "wrong.json").write_bytes(content)
    done = run("query", "Hello", "-m", "gpt-4.1", option, "wrong.json")
    assert done.exit_code == 2
    assert option in done.stderr and said in " ".join(done.stderr.split())
    assert not openai.requests


def test_tools_are_one_or_a_list(run, openai, tmp_path):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    for content in (tool, [tool]):
        openai.reset()
        openai.answer_json(answer("Done."))
        (tmp_path / "tools.json").write_text(json.dumps(content))
        assert run("query", "Hello", "-m", "gpt-4.1", "--tools", "tools.json").stdout == "Done.\n"
        assert openai.request.json["tools"] == [tool]


# Saving


def test_images_without_an_address_are_saved_under_a_name_that_is_told(run, openai, tmp_path):
    openai.answer_json(image_answer(WITH_BYTES, WITH_BYTES), times=2)
    for _ in range(2):  # within one second, and nothing is overwritten
        done = run("query", "A cat", "-m", "gpt-image-1")
        assert (done.exit_code, done.stdout) == (0, "")
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    assert len(names) == 4 and all(name.startswith("llm-master-") for name in names)
    assert all((tmp_path / name).read_bytes() == PNG for name in names)
    told = [line.removeprefix("Saved ") for line in done.stderr.splitlines() if line.startswith("Saved ")]
    assert len(told) == 2 and set(told) < set(names)


@pytest.mark.parametrize(
    ("save", "count", "expected"),
    [
        ("bicycle.png", 1, ["bicycle.png"]),
        ("bicycle", 1, ["bicycle.png"]),
        ("new/bicycle.png", 2, ["new/bicycle-1.png", "new/bicycle-2.png"]),
        ("~/bicycle.png", 1, ["bicycle.png"]),
    ],
)
def test_save_names_a_file(run, openai, tmp_path, save, count, expected):
    openai.answer_json(image_answer(*[WITH_BYTES] * count))
    done = run("query", "A bicycle", "-m", "gpt-image-1", "--save", save)
    assert done.exit_code == 0, done.stderr
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")) == expected


def test_save_names_a_folder(run, openai, tmp_path):
    (tmp_path / "there").mkdir()
    openai.answer_json(image_answer(WITH_BYTES), times=2)
    for folder in ("new/", "there"):
        assert run("query", "A bicycle", "-m", "gpt-image-1", "--save", folder).exit_code == 0
        assert len(list((tmp_path / folder).glob("llm-master-*.png"))) == 1


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_paid_for(run, openai, tmp_path):
    (tmp_path / "file").write_text("")
    done = run("query", "A bicycle", "-m", "gpt-image-1", "--save", "file/below/a.png")
    assert done.exit_code == 2 and "--save" in done.stderr and "file/below" in done.stderr
    assert not openai.requests


def test_what_cannot_be_written_is_saved_elsewhere_and_told(run, openai, tmp_path, monkeypatch):
    (tmp_path / "spare").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "spare"))
    (tmp_path / "x-1.png").mkdir()
    openai.answer_json(image_answer(WITH_BYTES, WITH_BYTES))
    done = run("query", "A bicycle", "-m", "gpt-image-1", "--save", "x.png")
    assert done.exit_code == 1
    assert "x-1.png cannot be written: Is a directory" in done.stderr
    (saved,) = (tmp_path / "spare").glob("*.png")
    assert saved.read_bytes() == PNG and f"Saved {saved} instead" in done.stderr
    assert (tmp_path / "x-2.png").read_bytes() == PNG


def test_the_text_is_shown_and_kept_though_its_audio_cannot_be_saved(run, openai, tmp_path, monkeypatch):
    spoken = {"id": "a", "data": base64.b64encode(silence()).decode(), "transcript": "Woof.", "expires_at": 1}
    openai.answer_json(answer(None, audio=spoken), times=2)
    assert run("query", "Hi", "-m", "gpt-audio", "--save", "dog.wav").stdout == "Woof.\n"
    assert (tmp_path / "dog.wav").read_bytes() == silence()
    (tmp_path / "folder.wav").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not there"))
    monkeypatch.setattr("llm_master.cli.saving._is_folder", lambda save: save.endswith("/"))
    done = run("query", "Hi", "-m", "gpt-audio", "--save", "folder.wav", "-u")
    assert (done.exit_code, done.stdout) == (1, "Woof.\n")
    assert "folder.wav cannot be written" in done.stderr and "cannot be written either" in done.stderr
    assert "tokens in" in done.stderr


def test_an_address_is_printed_and_downloaded_only_to_save(run, openai, tmp_path, monkeypatch):
    monkeypatch.setattr("llm_master.transport.fetch.is_public", lambda address: True)
    url = f"{openai.url}/cat"
    openai.answer_json(image_answer({"url": url}, {"url": f"{url}?2"}))
    done = run("query", "A cat", "-m", "dall-e-3")
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{url}\n{url}?2\n", "")
    assert len(openai.requests) == 1
    openai.reset()
    openai.answer_json(image_answer({"url": url}))
    openai.answer(b"\xff\xd8\xff\xe0 and so on", headers={"content-type": "image/jpeg"})
    done = run("query", "A cat", "-m", "dall-e-3", "--save", "cat")
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{url}\n", "Saved cat.jpg\n")
    openai.answer_json(image_answer({"url": url}))
    openai.answer(b"gone", status=404)
    done = run("query", "A cat", "-m", "dall-e-3", "--save", "cat")
    assert (done.exit_code, done.stdout) == (1, f"{url}\n")
    assert "404" in done.stderr and f"It is at {url}" in done.stderr


def test_nothing_to_save_is_told(run, openai):
    openai.answer_json(answer())
    done = run("query", "Hi", "-m", "gpt-4.1", "--save", "a.png")
    assert (done.exit_code, done.stdout) == (0, "Hi.\n")
    assert "Nothing to save" in done.stderr


def test_json_tells_where_media_are_and_what_was_cited(run, openai, monkeypatch):
    openai.answer_json(image_answer(WITH_BYTES))
    done = run("query", "A cat", "-m", "gpt-image-1", "--save", "cat.png", "--json")
    told = json.loads(done.stdout)
    assert told["images"] == [{"media_type": "image/png", "bytes": len(PNG), "url": None, "saved": "cat.png"}]
    assert told["content"] == ""
    spoken = {"id": "a", "data": base64.b64encode(silence()).decode(), "transcript": "Woof.", "expires_at": 1}
    openai.answer_json(answer(None, audio=spoken))
    told = json.loads(run("query", "Hi", "-m", "gpt-audio", "--json", "--save", "dog.wav").stdout)
    assert told["audio"]["bytes"] == len(silence()) and told["audio"]["saved"] == "dog.wav"
    monkeypatch.setenv("PERPLEXITY_API_BASE", openai.base_url)
    monkeypatch.setenv("PERPLEXITY_API_KEY", "pplx-1")
    openai.answer_json({**answer(), "search_results": [{"title": "Stars", "url": "https://example.com/stars"}]})
    told = json.loads(run("query", "Stars?", "-m", "sonar", "--json").stdout)
    assert told["citations"][0]["url"] == "https://example.com/stars" and told["citations"][0]["title"] == "Stars"
    assert "images" not in told and "native" not in told


def test_dry_run_counts_bytes_and_makes_no_folder(run, openai, tmp_path):
    data = PNG + bytes(12_345 - len(PNG))
    (tmp_path / "big.png").write_bytes(data)
    arguments = ("query", "What?", "-m", "gpt-4.1", "--image", "big.png", "--dry-run", "--save", "new/")
    done = run(*arguments)
    assert done.exit_code == 0, done.stderr
    assert '"data:image/png;base64,…(12,345 bytes)"' in done.stdout
    whole = json.loads(run(*arguments, "--json").stdout)
    assert whole["body"]["messages"][0]["content"][1]["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(data).decode()}"
    assert not openai.requests and not (tmp_path / "new").exists()


# Going on


def state(tmp_path):
    return tmp_path / ".local" / "state" / "llm_master" / "conversation.json"


def test_going_on_keeps_model_messages_and_media(run, openai, cat, tmp_path, monkeypatch):
    openai.answer_json(answer("A cat."))
    openai.answer_json(answer("Black."))
    openai.answer_json(answer("Yes."))
    run("query", "What?", "-m", "gpt-4.1", "-s", "Be brief.", "--image", "cat.png")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run("query", "-c", "What colour?").stdout == "Black.\n"
    assert run("query", "-c", "Sure?", "-m", "gpt-4o", "-s", "Be verbose.").stdout == "Yes.\n"
    first, second, third = [request.json for request in openai.requests]
    assert second["model"] == "gpt-4.1" and third["model"] == "gpt-4o"
    assert second["messages"][:2] == first["messages"]
    assert second["messages"][2:] == [{"role": "assistant", "content": "A cat."}, {"role": "user", "content": "What colour?"}]
    assert [message["role"] for message in third["messages"]] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert third["messages"][0]["content"] == "Be verbose."
    assert state(tmp_path).stat().st_mode & 0o777 == 0o600
    assert state(tmp_path).parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in state(tmp_path).parent.iterdir()] == ["conversation.json"]
    assert b"iVBOR" not in state(tmp_path).read_bytes()


def test_there_is_nothing_to_go_on_with(run):
    done = run("query", "-c", "And?")
    assert done.exit_code == 2 and "no conversation to go on with" in done.stderr


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 1, "messages": []}', '{"model": "m", "messages": "abc"}', '{"model": "m"}'])
def test_a_corrupt_state_file_is_named(run, tmp_path, content):
    state(tmp_path).parent.mkdir(parents=True)
    state(tmp_path).write_text(content)
    done = run("query", "-c", "And?")
    assert done.exit_code == 2
    assert str(state(tmp_path)) in done.stderr and "remove the file" in " ".join(done.stderr.split())


def test_that_a_conversation_cannot_be_kept_takes_nothing_from_the_answer(run, openai, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    openai.answer_json(answer())
    done = run("query", "Hi", "-m", "gpt-4.1")
    assert (done.exit_code, done.stdout) == (0, "Hi.\n")
    assert done.stderr.startswith("Not kept for -c: ") and str(tmp_path / "file") in done.stderr


def test_a_relative_state_folder_is_ignored(run, openai, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "here")
    openai.answer_json(answer())
    assert run("query", "Hi", "-m", "gpt-4.1").exit_code == 0
    assert state(tmp_path).exists() and not (tmp_path / "here").exists()


def test_a_turn_that_cannot_be_gone_on_from_is_not_kept_and_that_is_told(run, openai, tmp_path):
    openai.answer_json(answer("One."))
    run("query", "Hi", "-m", "gpt-4.1")
    before = state(tmp_path).read_bytes()
    openai.answer_json(answer("", tool_calls=[{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]))
    done = run("query", "-c", "Call it")
    assert done.stdout == "f({})\n" and "Not kept for -c: the answer calls tools" in done.stderr
    openai.answer_json(image_answer(WITH_BYTES))
    assert "Not kept for -c: the answer has no text" in run("query", "A cat", "-m", "gpt-image-1").stderr
    openai.answer_json(answer(), status=400)
    assert run("query", "-c", "Hi").exit_code == 1
    assert state(tmp_path).read_bytes() == before


# Pipes and terminals


def program(*arguments, stdin=subprocess.DEVNULL, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "llm_master", *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


TRICKY = "  é 🐦 \x1b[31mred\x1b[0m\r\n\n**bold** <b>tag</b>  "


@pytest.mark.parametrize("how", [[], ["--stream"]])
def test_in_a_pipe_the_text_is_byte_for_byte_what_came(openai, how):
    if how:
        pieces = [{"choices": [{"index": 0, "delta": {"content": letter}}]} for letter in TRICKY]
        pieces.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        openai.answer_sse("".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces) + "data: [DONE]\n\n")
    else:
        openai.answer_json(answer(TRICKY))
    process = program("query", "Hi", "-m", "gpt-4.1", *how, PYTHONIOENCODING="ascii")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, TRICKY.encode() + b"\n", b"")


def test_a_stream_that_fails_before_it_begins_prints_nothing(run):
    done = run("query", "Hi", "-m", "mock/auth-error", "--stream")
    assert (done.exit_code, done.stdout) == (3, "")


def test_a_stream_that_breaks_leaves_what_came(run, openai):
    openai.answer_sse('data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n', end="close")
    done = run("query", "Hi", "-m", "gpt-4.1", "--stream")
    assert (done.exit_code, done.stdout) == (4, "Hi\n")
    assert "broke after output began" in done.stderr


@pytest.mark.parametrize("how", [[], ["--stream"], ["--json"]])
def test_a_pipe_that_nobody_reads_is_no_traceback(openai, how):
    long = "x" * 200_000
    if "--stream" in how:
        openai.answer_sse(f'data: {{"choices":[{{"index":0,"delta":{{"content":"{long}"}},"finish_reason":"stop"}}]}}\n\ndata: [DONE]\n\n')
    else:
        openai.answer_json(answer(long))
    process = program("query", "Hi", "-m", "gpt-4.1", *how)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert err == b""


def test_standard_input_that_is_no_text_is_wrong_usage():
    for command in (["query", "-m", "mock/echo"], ["embed", "-m", "gpt-4.1"]):
        process = program(*command, stdin=subprocess.PIPE)
        _, err = process.communicate(b"\xff\xfe", timeout=60)
        assert process.returncode == 2 and b"no UTF-8 text" in err


def test_an_interrupted_stream_leaves_what_came(openai):
    openai.answer_sse('data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n', GATE)
    process = program("query", "Hi", "-m", "gpt-4.1", "--stream")
    assert process.stdout.read(2) == b"Hi"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"\n", b"")


def on_terminal(*arguments, rows=24, columns=60, keep_no_color=False, **environment):
    """What a program writes to a terminal."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES") or keep_no_color}
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "llm_master", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=child,
            stderr=child,
            env={**inherited, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **environment},
        )
        os.close(child)
        written = b""
        while True:
            try:
                piece = os.read(parent, 65536)
            except OSError:  # EIO: all of its writers are gone
                break
            if not piece:
                break
            written += piece
        assert process.wait(timeout=60) == 0, written
    finally:
        os.close(parent)
    return written.decode()


def seen(written):
    """What is left on the terminal and in its scrollback: lines, after cursor movements and deletions."""
    lines, row, column = [""], 0, 0
    for code, letter in re.findall(r"(\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\))|([\s\S])", written):
        if code:
            count = int(re.sub(r"\D", "", code) or 1)
            if code.endswith("A"):
                row = max(0, row - count)
            elif code.endswith("K"):
                lines[row] = "" if "2" in code else lines[row][:column]
        elif letter == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif letter == "\r":
            column = 0
        else:
            lines[row] = lines[row].ljust(column)[:column] + letter + lines[row][column + 1 :]
            column += 1
            continue
        if letter == "\n":
            column = 0
    return [line.rstrip() for line in lines]


MARKDOWN = (
    "# Birds\n\nA **robin** and a <tag> in [a page](https://example.com/robin), ![a nest](https://example.com/nest.png):\nroses are red\nviolets are blue\n\n"
    + "\n".join(f"{number}. bird number {number}" for number in range(1, 41))
)


def streamed(openai, text, pause=0.0, reasoning=""):
    deltas = [{"reasoning_content": reasoning}] if reasoning else []
    deltas += [{"content": text[start : start + 20]} for start in range(0, len(text), 20)]
    pieces = [json.dumps({"choices": [{"index": 0, "delta": delta}]}) for delta in deltas]
    pieces.append('{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}')
    sent = []
    for piece in pieces:
        sent += [f"data: {piece}\n\n", *([pause] if pause else [])]
    openai.answer_sse(*sent, "data: [DONE]\n\n")


def check_rendered(lines):
    text = "\n".join(lines)
    assert "**" not in text and "# Birds" not in text and "Birds" in text
    flat = "".join(text.split())
    assert "robinanda<tag>inapage(https://example.com/robin),anest(https://example.com/nest.png):" in flat
    assert [line.strip() for line in lines].count("violets are blue") == 1
    for number in range(1, 41):
        assert sum(f"bird number {number}" == line.strip().partition(" ")[2] for line in lines) == 1, number


def test_on_a_terminal_an_answer_is_rendered(openai):
    pytest.importorskip("rich", reason="the extra cli is not installed")
    openai.answer_json(answer(MARKDOWN))
    written = on_terminal("query", "Birds", "-m", "gpt-4.1")
    assert "\x1b[" in written
    check_rendered(seen(written))


def test_on_a_terminal_a_stream_longer_than_it_leaves_the_whole_text_once(openai):
    pytest.importorskip("rich", reason="the extra cli is not installed")
    streamed(openai, MARKDOWN, pause=0.01, reasoning="I ponder birds.")
    written = on_terminal("query", "Birds", "-m", "gpt-4.1", "--stream", rows=10)
    assert "ponder" not in written
    check_rendered(seen(written))


def test_no_color_renders_without_colours(openai):
    pytest.importorskip("rich", reason="the extra cli is not installed")
    openai.answer_json(answer("A **robin** and `code`"))
    written = on_terminal("query", "Birds", "-m", "gpt-4.1", NO_COLOR="1")
    assert "**" not in written and not re.search(r"\x1b\[[0-9;]*\b(3[0-9]|4[0-9]|9[0-7])[0-9;]*m", written)


@pytest.mark.parametrize("how", [[], ["--stream"]])
def test_a_dumb_terminal_and_one_without_rich_get_plain_text(openai, tmp_path, how):
    (tmp_path / "no" / "rich").mkdir(parents=True)
    (tmp_path / "no" / "rich" / "__init__.py").write_text("raise ImportError('blocked')")
    for environment in ({"TERM": "dumb"}, {"PYTHONPATH": f"{tmp_path / 'no'}{os.pathsep}{ROOT}"}):
        openai.reset()
        if how:
            streamed(openai, "A **robin**\nsings \x1b[2Jloud.")
        else:
            openai.answer_json(answer("A **robin**\nsings \x1b[2Jloud."))
        assert on_terminal("query", "Birds", "-m", "gpt-4.1", *how, **environment) == "A **robin**\r\nsings �[2Jloud.\r\n"


def test_a_narrow_terminal_loses_no_words(openai):
    pytest.importorskip("rich", reason="the extra cli is not installed")
    openai.answer_json(answer("The robin sings extraordinarily loud."))
    lines = seen(on_terminal("query", "Birds", "-m", "gpt-4.1", columns=12))
    assert max(map(len, lines)) <= 12
    assert "".join(lines).replace(" ", "") == "Therobinsingsextraordinarilyloud."


def test_a_schema_on_a_terminal_is_indented(openai, tmp_path):
    (tmp_path / "bird.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "no" / "rich").mkdir(parents=True)
    (tmp_path / "no" / "rich" / "__init__.py").write_text("raise ImportError('blocked')")
    for environment in ({}, {"PYTHONPATH": f"{tmp_path / 'no'}{os.pathsep}{ROOT}"}):
        openai.reset()
        openai.answer_json(answer('{"name":"robin"}'))
        written = on_terminal("query", "A bird", "-m", "gpt-4.1", "--schema", "bird.json", **environment)
        assert [line for line in seen(written) if line] == ["{", '  "name": "robin"', "}"]


def test_sources_are_for_people(openai, monkeypatch):
    monkeypatch.setenv("PERPLEXITY_API_BASE", openai.base_url)
    monkeypatch.setenv("PERPLEXITY_API_KEY", "pplx-1")
    openai.answer_json({**answer(), "search_results": [{"title": "Stars", "url": "https://example.com/stars"}]}, times=2)
    assert "[1] Stars https://example.com/stars" in on_terminal("query", "Stars?", "-m", "sonar")
    assert program("query", "Stars?", "-m", "sonar").communicate(timeout=60)[0] == b"Hi.\n"


# Embeddings


def vectors(*vectors):
    data = [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return {"data": data, "model": "served", "usage": {"prompt_tokens": 4, "total_tokens": 4}}


def test_embed_prints_a_list_a_line(run, openai):
    openai.answer_json(vectors([0.5, 1], [0.25, -1]))
    done = run("embed", "-m", "text-embedding-3-small", "a cat", "a dog", "-d", "2", "-u")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[0.5, 1], [0.25, -1]]
    assert "2 vectors · 4 tokens · 0.00000008 USD (exact)" in done.stderr
    assert openai.request.json["input"] == ["a cat", "a dog"] and openai.request.json["dimensions"] == 2


def test_embed_reads_lines(run, openai):
    openai.answer_json(vectors([1], [2]))
    done = run("embed", "-m", "text-embedding-3-small", stdin="a\u2028cat\r\na dog\n")
    assert done.stdout == "[1.0]\n[2.0]\n"
    assert openai.request.json["input"] == ["a\u2028cat", "a dog"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "said"),
    [
        (["-m", "text-embedding-3-small"], "", 2, "there is no text"),
        (["-m", "text-embedding-3-small"], "a\n\nb\n", 2, "line 2 of standard input is empty"),
        (["-m", "text-embedding-3-small", ""], None, 1, "inputs[0] is empty"),
        (["-m", "text-embedding-3-small", "a", "-d", "0"], None, 2, "dimensions"),
        (["-m", "mock/echo", "a"], None, 1, "cannot make embeddings"),
        (["-m", "no-such-model", "a"], None, 3, "no-such-model"),
        (["a"], None, 2, "--model"),
    ],
)
def test_embed_errors(run, openai, arguments, stdin, code, said):
    done = run("embed", *arguments, stdin=stdin)
    assert done.exit_code == code, done.stderr
    assert said in done.stderr and done.stdout == ""


# Completion


def completed(tmp_path, *words):
    """What bash offers after these words."""
    commands = tmp_path / "bin"
    commands.mkdir(exist_ok=True)
    (commands / "llm-master").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m llm_master "$@"\n')
    (commands / "llm-master").chmod(0o755)
    script = f"""
        source <(llm-master completion bash)
        COMP_WORDS=({" ".join(map(shlex.quote, ["llm-master", *words]))}) COMP_CWORD={len(words)}
        $(complete -p llm-master | sed 's/.*-F \\([^ ]*\\).*/\\1/') llm-master
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-euc", script], text=True, capture_output=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_options_and_models(tmp_path):
    assert completed(tmp_path, "e") == ["embed"]
    assert {"--schema", "--save", "--stream", "--system"} == set(completed(tmp_path, "query", "--s"))
    assert {"gpt-4.1", "gpt-4.1-mini"} <= set(completed(tmp_path, "query", "-m", "gpt-4"))
    assert all(name.startswith("groq/") for name in completed(tmp_path, "query", "-m", "groq/"))
    assert "groq/openai/gpt-oss-20b" in completed(tmp_path, "query", "-m", "groq/")
    assert "ollama" in completed(tmp_path, "embed", "-m", "ol")


def test_no_name_is_offered_that_leads_elsewhere():
    from llm_master.cli.completion import model_names

    offered = {item.value for item in model_names(None, None, "")}
    # Groq serves it, under a name that begins as another provider's.
    assert "groq/openai/gpt-oss-20b" in offered and "openai/gpt-oss-20b" not in offered
    llm = QueryLLM(**{key_attr(row): "k" for row in PROVIDER_CONFIGS.values()})
    for name in sorted(offered):
        if "/" not in name and name not in PROVIDER_CONFIGS:
            assert f"{llm._engine.target(name).route.provider}/{name}" in offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(run, shell):
    shown = run("completion", shell).stdout
    assert "llm-master" in shown and "_LLM_MASTER_COMPLETE" in shown


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from llm_master.cli import main\n"
        "try: main(['query', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'asyncio', 'msgspec', 'attrs', 'aiohttp', 'rich', 'openai', 'llm_master.query'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], text=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60
    )
    assert done.stderr == "[]\n"
