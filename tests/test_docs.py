"""Every code block of README and docs/ runs, and what the docs say of the code is so."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from servers import llama
from servers.documented import PDF, silence
from servers.media import PNG

import llm_master
from llm_master import LLMError
from llm_master.provider_configs import PROVIDER_CONFIGS, LLMConfig, effective
from llm_master.rows import base_variable, key_variables

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
SET_UP = ("scripts/", "pip install")
"""Commands that .ci/run itself runs, or that install; here it is only checked that they are there."""


def blocks(page, language):
    return [text for found, text in BLOCK.findall(page.read_text(encoding="utf-8")) if found == language]


@pytest.fixture
def everything_answers(documented, monkeypatch, tmp_path):
    """All providers are one server, which answers in each API's shape, and the files that the docs use are there."""
    server = documented
    for row in [*PROVIDER_CONFIGS.values()]:
        if row.name not in ("mock", "gguf"):
            monkeypatch.setenv(base_variable(row), server.base_url)
            monkeypatch.setenv(key_variables(row)[0], "a-key-for-the-docs")
    monkeypatch.setenv("ACME_API_BASE", server.base_url)
    monkeypatch.setenv("ACME_API_KEY", "a-key-for-the-docs")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # What the server keeps is on this machine, from where nothing is downloaded otherwise.
    monkeypatch.setattr("llm_master.transport.fetch.is_public", lambda address: True)
    monkeypatch.setattr("llm_master.providers.bfl.FIRST_PAUSE", 0)
    (tmp_path / "cat.png").write_bytes(PNG)
    (tmp_path / "note.wav").write_bytes(silence())
    (tmp_path / "report.pdf").write_bytes(PDF)
    (tmp_path / "notes.txt").write_text("Cats purr.")
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    (tmp_path / "bird.schema.json").write_text(json.dumps(schema))
    return server


ASKED = {
    "media.md": {
        "/chat/completions",
        "/messages",
        "/images/generations",
        "/images/edits",
        "/flux-pro-1.1",
        "/models/gemini-2.5-flash-image:generateContent",
        "/models/imagen-4.0-generate-001:predict",
        "/audio/speech",
        "/responses",
        "/embeddings",
        "/v2/rerank",
        "/moderations",
    },
    "ollama_cohere.md": {"/api/chat", "/v2/chat"},
    "structured_output.md": {"/chat/completions", "/messages"},
    "rotating_client.md": {"/chat/completions", "/models/gemini-2.5-flash:generateContent", "/messages", "/embeddings", "/models"},
    "azure_bedrock.md": {"/chat/completions", "/model/us.anthropic.claude-sonnet-4-5-20250929-v1:0/converse"},
    "plugins.md": {"/models", "/chat/completions"},
    "gigachat_yandex.md": {"/api/v2/oauth", "/chat/completions", "/completion"},
    "errors.md": set(),  # it shows failures of the embedded mock
    "langchain.md": set(),  # its code starts the server that it asks
    "discovery.md": {"/models"},  # of the others; its code starts the server that it asks most
    "local.md": set(),  # it asks a model file
    "limits.md": set(),  # its code starts the server that it asks
    "routes.md": set(),  # it asks the embedded mock
    "observe.md": set(),  # its code starts the server that it asks
    "testing.md": set(),  # its code starts the server that it asks
}
"""What a page's code asks for, at least."""


def write_model(folder):
    """The model file that docs/local.md asks."""
    if (missing := llama.installed()) is not None:
        pytest.skip(missing)
    (folder / "models").mkdir()
    llama.write_reciting_model(folder / "models" / "tiny.gguf")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_blocks_run(page, everything_answers, monkeypatch, tmp_path):
    """The blocks of a page are one program."""
    if page.name == "local.md":
        write_model(tmp_path)
    if page.name == "langchain.md":
        pytest.importorskip("langchain_core", reason="the extra langchain is not installed")
    if page.name == "observe.md":
        trace = pytest.importorskip("opentelemetry.trace", reason="the extra otel is not installed")
        pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")
        # A program sets its provider once for ever; after this page there is none again.
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
        monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", type(trace._TRACER_PROVIDER_SET_ONCE)())
    namespace = {"__name__": "docs"}

    def run_in_turn(runner):
        for text in blocks(page, "python"):
            code = compile(text, f"{page.name}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if "asyncio.run(" in text:
                exec(code, namespace)
            else:
                result = eval(code, namespace)
                if inspect.iscoroutine(result):
                    runner.run(result)

    with asyncio.Runner() as runner:
        run_in_turn(runner)
    asked = {request["path"] for request in everything_answers.take()}
    assert asked >= ASKED.get(page.name, {"/chat/completions"})


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash")], ids=lambda page: page.name)
def test_shell_blocks_run(page, everything_answers, tmp_path):
    if page.name == "local.md":
        write_model(tmp_path)
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "llm-master").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m llm_master "$@"\n')
    (commands / "llm-master").chmod(0o755)
    environment = {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
    for text in blocks(page, "bash"):
        if text.startswith(SET_UP):
            for line in text.splitlines():
                if line.startswith("scripts/"):
                    assert os.access(ROOT / line.split()[0], os.X_OK), line
            continue
        # The page's own address is that of a server on the reader's machine.
        text = text.replace("http://127.0.0.1:8080/v1", everything_answers.base_url)
        # Not by standard input, from where the first command would read the others as its prompt.
        done = subprocess.run(["bash", "-euc", text], stdin=subprocess.DEVNULL, text=True, capture_output=True, env=environment, timeout=60)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip()


def test_the_tests_of_the_testing_page_pass(tmp_path):
    """Its last blocks are no program, but a conftest.py and tests of a user's."""
    *_, conftest, tests = blocks(ROOT / "docs" / "testing.md", "python")
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_mine.py").write_text(tests)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{tests.count('def test_')} passed" in done.stdout


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}, 400),
        ("/chat/completions", {"model": "m", "messages": []}, 400),
        ("/chat/completions", {"model": "m", "messages": [{"role": "user", "content": [{"type": "picture"}]}]}, 400),
        ("/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "modalities": ["audio"]}, 400),
        ("/images/generations", {"model": "gpt-image-1"}, 400),
        ("/images/generations", {"prompt": "A car", "style": "any"}, 400),
        ("/audio/speech", {"model": "m", "input": "Hi"}, 400),
        ("/embeddings", {"model": "m", "input": ["a", ""]}, 400),
        ("/responses", {"model": "m", "input": "Hi", "max_tokens": 5}, 400),
        ("/flux-pro-1.1", {"prompt": "A cat"}, 401),
        ("/messages", {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}, 401),
        ("/nowhere", {}, 404),
    ],
)
def test_the_server_behind_the_docs_is_no_yes_man(documented, path, body, status):
    headers = {"content-type": "application/json", "authorization": "Bearer k"}
    request = urllib.request.Request(documented.base_url + path, json.dumps(body).encode(), headers)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code == status
    refused.value.close()


def test_no_block_escapes():
    """A block in another language is not run, so there are only those that are no code, and settings, which are read below."""
    for page in PAGES:
        languages = {language for language, _ in BLOCK.findall(page.read_text(encoding="utf-8"))}
        assert languages <= {"python", "bash", "text", "toml", "yaml"}, page


@pytest.mark.parametrize("language", ["toml", "yaml"])
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml") or blocks(page, "yaml")], ids=lambda page: page.name)
def test_settings_blocks_are_read(page, language, tmp_path, monkeypatch):
    monkeypatch.setenv("AZURE_GPT4_KEY", "a-key-for-the-docs")
    for text in blocks(page, language):
        if text.startswith("# pyproject.toml"):
            continue  # tests/test_plugins.py builds the package
        secret = "secrets" in text.split("\n", 1)[0]
        file = tmp_path / f"settings.{language}"
        (tmp_path / "settings.secrets.toml" if secret else file).write_text(text, encoding="utf-8")
        if secret:
            (tmp_path / "settings.secrets.toml").chmod(0o600)
            file.touch()
        snapshot = effective(LLMConfig(config_file=file))
        assert snapshot.faults == () and snapshot.warnings == ()
        assert (
            any(origin.split(":")[0].endswith((file.name, "settings.secrets.toml")) for origin in snapshot.origins.values())
            or snapshot.model_settings
            or snapshot.routes
        )


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_errors_page_draws_the_tree():
    (drawing,) = blocks(ROOT / "docs" / "errors.md", "text")
    drawn = re.findall(r"\b(\w+Error)\b", drawing)
    public = {
        name
        for name in llm_master.__all__
        if isinstance(getattr(llm_master, name), type) and issubclass(getattr(llm_master, name), LLMError)
    }
    assert set(drawn) - {"TimeoutError"} == public


def test_generated_pages_are_up_to_date():
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "generate_docs.py"), "--check"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
