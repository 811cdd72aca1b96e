"""``gguf/PATH``: a model file, answered by llama.cpp in a process that belongs to this one."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from servers import llama
from servers.llama import CONTEXT, SENTENCE
from servers.scripted import eventually

from llm_master import (
    PROVIDER_CONFIGS,
    ConfigurationError,
    InvalidRequestError,
    LLMConfig,
    ModelNotFoundError,
    ProviderConnectionError,
    QueryLLM,
    StreamInterruptedError,
)
from llm_master.background import run_in_background
from llm_master.providers import gguf_server
from llm_master.providers.gguf_server import Server
from llm_master.transport import session
from llm_master.transport.session import Session, current_session

ROOT = Path(__file__).resolve().parent.parent
HEAD = b"GGUF" + struct.pack("<IQQ", 3, 0, 0)
ENDLESS = {"temperature": 0, "ignore_eos": True, "max_tokens": CONTEXT - 100}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def is_there(process: int) -> bool:
    """Whether a process is there, as itself or as a zombie."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def running() -> list[Server]:
    return [server for server in gguf_server._servers.values() if server.url]


def process_of(server: Server) -> int:
    assert server.process is not None
    return server.process.pid


# Names


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("gguf/models/x.gguf", "models/x.gguf"),
        ("gguf//abs/path/x.gguf", "/abs/path/x.gguf"),
        ("gguf/~/x.gguf", "~/x.gguf"),
        ("gguf/./x.gguf", "./x.gguf"),
        ("gguf/../x.gguf", "../x.gguf"),
        ("gguf/my models/a model.gguf", "my models/a model.gguf"),
        ("GGUF/Big.GGUF", "Big.GGUF"),
        ("gguf:models/x.gguf", "models/x.gguf"),
        (r"gguf/C:\models\x.gguf", r"C:\models\x.gguf"),
        ("gguf/C:/models/x.gguf", "C:/models/x.gguf"),
        ("gguf/openai/gpt-4.1.gguf", "openai/gpt-4.1.gguf"),
    ],
)
def test_what_stands_behind_the_provider_is_the_path(name: str, path: str) -> None:
    plan = QueryLLM().plan(name, prompt="Hello")
    assert (plan.provider, plan.model, plan.key, plan.url) == ("gguf", path, None, None)


def test_a_declared_model_has_its_file_and_options() -> None:
    models = {"small": {"id": "/models/small.gguf", "options": {"n_ctx": 1024, "temperature": 0}}}
    for environment in ({"GGUF_MODELS": json.dumps(models)}, {"GGUF_MODELS": '{"small": "/models/small.gguf"}'}):
        plan = QueryLLM(LLMConfig(environment=environment)).plan("small", prompt="Hello")
        assert (plan.provider, plan.model) == ("gguf", "/models/small.gguf")


def test_the_provider_alone_is_its_default_model() -> None:
    llm = QueryLLM(LLMConfig(environment={"GGUF_DEFAULT_MODEL": "/models/my own.gguf"}))
    assert llm.plan("gguf", prompt="Hello").model == "/models/my own.gguf"


def test_a_plan_starts_nothing_and_shows_what_would_be_said() -> None:
    plan = QueryLLM().plan("gguf/x.gguf", prompt="Hello", n_ctx=512, temperature=0)
    assert plan.body == {"model": "x.gguf", "messages": [{"role": "user", "content": "Hello"}], "temperature": 0}
    assert plan.method is None
    assert gguf_server._servers == {}


# What cannot be a model


async def refused(kind: type[Exception], match: str, name: str, **options: Any) -> Any:
    with pytest.raises(kind, match=match) as caught:
        await QueryLLM().query(f"gguf/{name}", prompt="Hello", **options)
    assert gguf_server._servers == {}
    return caught.value


async def test_a_file_that_is_not_there_offers_the_nearest(tmp_path: Path) -> None:
    for name in ("qwen-3b.gguf", "llama-8b.gguf", "notes.txt"):
        (tmp_path / name).write_bytes(HEAD)
    error = await refused(ModelNotFoundError, r"there is no model file .*qwen-3.gguf: did you mean 'qwen-3b.gguf'", "qwen-3.gguf")
    assert "notes" not in str(error)
    assert error.receipt.attempts[0].error
    await refused(ModelNotFoundError, "there is no folder .*nowhere", "nowhere/x.gguf")
    (tmp_path / "empty").mkdir()
    await refused(ModelNotFoundError, "no .gguf file is in .*empty", "empty/x.gguf")


async def test_a_route_goes_on_where_a_file_is_not_there() -> None:
    answer = await QueryLLM(routes={"any": ["gguf/x.gguf", "mock/static"]}).query("any", prompt="Hello")
    assert answer.provider == "mock"
    assert len(answer.receipt.attempts) == 2


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "no GGUF file: it begins with b''"),
        (b"version https://git-lfs.github.com/spec/v1", "no GGUF file: it begins with b'version '"),
        (b"<!DOCTYPE html>", "no GGUF file"),
        (b"GGUF", "version 1, or cut short"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(100), "version 1, or cut short"),
    ],
)
async def test_a_file_that_is_no_model(tmp_path: Path, content: bytes, match: str) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    await refused(ConfigurationError, match, "x.gguf")


async def test_a_folder_and_a_name_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.gguf").write_bytes(HEAD)
    await refused(ConfigurationError, "models is a folder and no model file: did you mean 'a.gguf'", "models")
    await refused(ConfigurationError, "cannot be read: .*null", "a\0b.gguf")


async def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.gguf").write_bytes(HEAD)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    await refused(ConfigurationError, r"pip install 'llm_master\[local\]'", "x.gguf")
    assert await QueryLLM()._engine.providers("gguf")[0].health_check() is False


async def test_without_an_interpreter_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.gguf").write_bytes(HEAD)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(sys, "executable", "")
    await refused(ConfigurationError, "sys.executable does not say", "x.gguf")


async def test_a_port_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.gguf").write_bytes(HEAD)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        await refused(ConfigurationError, f"port {port} of 127.0.0.1 cannot be used .*give another port", "x.gguf", port=port)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise SystemExit('no such thing')", "it ended with code 1: no such thing"),
        ('print(\'{"error": "ImportError: broken"}\')', "ImportError: broken"),
        ("print('{\"error\": \"x\"}'); raise SystemExit('0.01 W odd\\n0.02 E first\\n0.03 E second')", "first$"),
    ],
)
async def test_what_keeps_it_from_starting_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, why: str) -> None:
    (tmp_path / "x.gguf").write_bytes(HEAD)
    (tmp_path / "child.py").write_text(program)
    monkeypatch.setattr(gguf_server, "CHILD", tmp_path / "child.py")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    await refused(ConfigurationError, f"llama.cpp cannot load .*x.gguf: {why}", "x.gguf")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("n_ctx", 0),
        ("n_ctx", "4096"),
        ("n_parallel", 0),
        ("n_parallel", True),
        ("n_threads", -1),
        ("n_gpu_layers", -1),
        ("chat_template", ""),
        ("pooling", "middle"),
        ("port", 0),
        ("port", 65536),
    ],
)
async def test_an_option_of_the_server_that_cannot_be(option: str, value: Any) -> None:
    await refused(InvalidRequestError, f"gguf: {option} is {value!r}: give", "x.gguf", **{option: value})


async def test_an_image_is_refused_by_name() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    for ask in (QueryLLM().query, QueryLLM().count_tokens):
        with pytest.raises(InvalidRequestError, match="given text only, and the conversation asks for vision"):
            await ask("gguf/x.gguf", [{"role": "user", "content": [part]}])


@pytest.mark.parametrize("name", ["moderate", "rerank", "speech"])
async def test_what_it_cannot(name: str) -> None:
    llm = QueryLLM()
    calls: dict[str, Callable[[], Any]] = {
        "moderate": lambda: llm.moderate("a text", model_name="gguf/x.gguf"),
        "rerank": lambda: llm.rerank("gguf/x.gguf", "a question", ["a document"]),
        "speech": lambda: llm.speech("gguf/x.gguf", "a text"),
    }
    with pytest.raises(InvalidRequestError, match="GGUF file .* cannot .* ask another provider"):
        await calls[name]()


async def test_it_has_no_address_and_no_client() -> None:
    llm = QueryLLM(LLMConfig(environment={"GGUF_API_BASE": "http://127.0.0.1:8080/v1"}))
    with pytest.raises(ConfigurationError, match="starts its own server, and has no address: leave out base_url"):
        await llm.query("gguf/x.gguf", prompt="Hello")
    PROVIDER_CONFIGS["gguf"] = attrs.evolve(PROVIDER_CONFIGS["gguf"], client_class=dict)
    with pytest.raises(ConfigurationError, match="not asked through a client_class"):
        await QueryLLM().query("gguf/x.gguf", prompt="Hello")
    with pytest.raises(InvalidRequestError, match="cannot be asked through an SDK's client"):
        _ = QueryLLM()._engine.providers("gguf")[0].client


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({"GGUF_MODELS": '{"small": "/s.gguf", "large": "/l.gguf"}'}, ["small", "large"]),
        ({"GGUF_DEFAULT_MODEL": "/s.gguf"}, ["/s.gguf"]),
        ({}, []),
    ],
)
async def test_its_models_are_those_that_are_declared(environment: dict[str, str], names: list[str]) -> None:
    (provider,) = QueryLLM(LLMConfig(environment=environment))._engine.providers("gguf")
    assert await provider.list_models() == names


# The real one


def written(folder: Path, write: Callable[[Path], None]) -> Path:
    if (missing := llama.installed()) is not None:
        pytest.skip(missing)
    path = folder / "a model.gguf"
    write(path)
    return path


@pytest.fixture(scope="module")
def reciting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("reciting"), llama.write_reciting_model)


@pytest.fixture(scope="module")
def babbling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("babbling"), llama.write_random_model)


@pytest.fixture
async def llm() -> Any:
    """What it has started is gone when it is left, and so is every thread and pipe."""
    async with QueryLLM() as llm:
        yield llm
        before = [process_of(server) for server in running()]
    assert gguf_server._servers == {}
    assert not any(map(is_there, before))


@pytest.mark.servers
async def test_a_file_answers(llm: QueryLLM, reciting: Path) -> None:
    answer = await llm.query(f"gguf/{reciting}", prompt="What do you say?", temperature=0)
    assert answer.content == SENTENCE
    assert (answer.provider, answer.finish_reason, answer.cost) == ("gguf", "stop", None)
    assert answer.usage.output_tokens == len(SENTENCE.split()) + 1
    (attempt,) = answer.receipt.attempts
    assert (attempt.key, attempt.status, attempt.model_served) == (None, 200, "a model.gguf")
    counted = await llm.count_tokens(f"gguf/{reciting}", prompt="What do you say?")
    assert (counted.tokens, counted.exact) == (answer.usage.input_tokens, True)


@pytest.mark.servers
async def test_every_way_to_write_a_path_is_one_server(
    llm: QueryLLM, reciting: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(reciting.parent)
    monkeypatch.setenv("HOME", str(reciting.parent))
    names = [
        f"gguf/{reciting}",
        "gguf/a model.gguf",
        "gguf/./a model.gguf",
        "gguf/~/a model.gguf",
        f"gguf/../{reciting.parent.name}/a model.gguf",
    ]
    for name in names:
        assert (await llm.query(name, prompt="Hello")).content == SENTENCE
    assert len(running()) == 1


@pytest.mark.servers
async def test_a_stream(llm: QueryLLM, reciting: Path) -> None:
    async with llm.stream(f"gguf/{reciting}", prompt="Hello", temperature=0) as stream:
        pieces = [piece async for piece in stream]
    assert "".join(pieces) == SENTENCE
    assert len(pieces) > 5
    assert stream.response.usage.output_tokens == len(SENTENCE.split()) + 1


@pytest.mark.servers
async def test_a_stream_that_is_left_frees_its_slot(llm: QueryLLM, babbling: Path) -> None:
    name = f"gguf/{babbling}"
    async with llm.stream(name, prompt="Hello", **ENDLESS) as stream:
        async for _ in stream:
            break
    answer = await llm.query(name, prompt="Hello", max_tokens=3)
    assert answer.usage.output_tokens == 3


@pytest.mark.servers
async def test_tools_schemas_and_logprobs(llm: QueryLLM, babbling: Path) -> None:
    name = f"gguf/{babbling}"
    called = await llm.query(name, prompt="The weather?", tools=[WEATHER], tool_choice="required", max_tokens=300, temperature=0)
    assert called.tool_calls[0].name == "get_weather"
    assert called.tool_calls[0].arguments["city"] in ("Paris", "Rome")
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"], "additionalProperties": False}
    formed = await llm.query(name, prompt="A city?", response_format=schema, max_tokens=100, temperature=0)
    assert formed.parsed["city"] in ("Paris", "Rome")
    told = await llm.query(name, prompt="Hello", logprobs=True, top_logprobs=2, max_tokens=2)
    assert len(told.raw["choices"][0]["logprobs"]["content"]) == 2


@pytest.mark.servers
async def test_embeddings_come_from_a_server_of_their_own(llm: QueryLLM, babbling: Path) -> None:
    name = f"gguf/{babbling}"
    await llm.query(name, prompt="Hello", max_tokens=1)
    answer = await llm.embed(name, ["a cat", "a dog", "a cat"], pooling="last")
    assert (len(answer), len(answer[0])) == (3, 64)
    assert answer[0].tolist() == pytest.approx(answer[2].tolist(), abs=1e-5)
    assert answer[0].tolist() != pytest.approx(answer[1].tolist(), abs=1e-2)
    assert len(running()) == 2
    with pytest.raises(InvalidRequestError, match="does not say how the vectors .* give pooling='mean' or 'cls' or 'last'"):
        await llm.embed(name, "a cat")
    # More than llama.cpp works on in one piece by default.
    assert len(await llm.embed(name, "x" * 1500, pooling="last")) == 1


@pytest.mark.servers
async def test_too_long_a_conversation_says_so(llm: QueryLLM, reciting: Path) -> None:
    with pytest.raises(InvalidRequestError, match="context"):
        await llm.query(f"gguf/{reciting}", prompt="x" * 600, n_ctx=512)


@pytest.mark.servers
async def test_only_this_process_may_ask_it(llm: QueryLLM, reciting: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answer = await llm.query(f"gguf/{reciting}", prompt="Hello")
    (server,) = running()
    assert server.url.startswith("http://127.0.0.1:")

    def ask() -> None:
        body = json.dumps({"messages": [{"role": "user", "content": "Hello"}]}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{server.url}/v1/chat/completions", body)):
            pass

    with pytest.raises(urllib.error.HTTPError, match="401") as caught:
        await asyncio.to_thread(ask)
    caught.value.close()
    arguments = Path(f"/proc/{process_of(server)}/cmdline")
    shown = [repr(answer.receipt), repr(answer.raw), repr(server), caplog.text, repr(llm._engine.providers("gguf"))]
    if arguments.exists():
        shown.append(arguments.read_text())
    assert not any(server.key in text for text in shown)
    # What llama.cpp logs is for who debugs.
    assert "llama.cpp: " in caplog.text


@pytest.mark.servers
async def test_it_is_silent(llm: QueryLLM, reciting: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llm_master")
    await llm.query(f"gguf/{reciting}", prompt="Hello")
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""


@pytest.mark.servers
async def test_all_calls_of_all_loops_and_threads_share_one(llm: QueryLLM, reciting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    start = Server.__init__

    def counted(self: Server, wanted: Any) -> None:
        started.append(wanted.path)
        start(self, wanted)

    monkeypatch.setattr(Server, "__init__", counted)
    name, said = f"gguf/{reciting}", []

    async def ask() -> None:
        said.append((await QueryLLM().query(name, prompt="Hello")).content)

    async def several() -> None:
        await asyncio.gather(*(ask() for _ in range(5)))

    threads = [threading.Thread(target=asyncio.run, args=(several(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    await several()
    said.append((await asyncio.to_thread(QueryLLM().query_sync, name, prompt="Hello")).content)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert said == [SENTENCE] * 21
    assert len(started) == 1
    # The loop of query_sync lives as long as the process, and holds it.
    (server,) = running()
    assert len(server.users) == 2

    async def leave() -> None:
        async with QueryLLM():
            pass

    await asyncio.to_thread(run_in_background, leave)
    assert len(server.users) == 1


async def test_the_loop_runs_on_while_a_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large.gguf").write_bytes(HEAD)
    (tmp_path / "child.py").write_text("import sys; sys.stdin.read()")  # it loads for ever
    monkeypatch.setattr(gguf_server, "CHILD", tmp_path / "child.py")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    async with QueryLLM() as llm:
        waiting = [asyncio.ensure_future(llm.query("gguf/large.gguf", prompt="Hello")) for _ in range(2)]
        while not any(server.process for server in gguf_server._servers.values()):
            await asyncio.sleep(0)
        (server,) = gguf_server._servers.values()
        process = process_of(server)
        assert (await llm.query("mock/static", prompt="Hello")).provider == "mock"
        # Who gives up takes nothing from the other.
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        assert not waiting[1].done()
        assert is_there(process)
        waiting[1].cancel()
        await asyncio.wait(waiting)
    assert not is_there(process)


@pytest.mark.servers
async def test_who_gives_up_waiting_does_not_break_the_others(llm: QueryLLM, reciting: Path) -> None:
    name = f"gguf/{reciting}"
    first, second = (asyncio.ensure_future(llm.query(name, prompt="Hello")) for _ in range(2))
    while not gguf_server._servers:
        await asyncio.sleep(0)
    first.cancel()
    assert (await second).content == SENTENCE
    assert first.cancelled()
    assert len(running()) == 1


@pytest.mark.servers
async def test_a_truncated_file_is_llama_cpps_own_complaint_for_all_and_tried_anew(llm: QueryLLM, babbling: Path, tmp_path: Path) -> None:
    whole, path = babbling.read_bytes(), tmp_path / "cut.gguf"
    path.write_bytes(whole[: len(whole) // 2])
    failures = await asyncio.gather(*(llm.query("gguf/cut.gguf", prompt="Hello") for _ in range(3)), return_exceptions=True)
    for failure in failures:
        assert isinstance(failure, ConfigurationError)
        assert "cut.gguf: " in str(failure)
        assert "corrupted or incomplete" in str(failure)
        assert len(failure.receipt.attempts) == 1
    assert len({id(failure) for failure in failures}) == 3
    path.write_bytes(whole)
    assert (await llm.query("gguf/cut.gguf", prompt="Hello", max_tokens=2)).usage.output_tokens == 2


@pytest.mark.servers
async def test_a_file_that_makes_llama_cpp_abort_is_an_error(llm: QueryLLM, babbling: Path, tmp_path: Path) -> None:
    content = bytearray(babbling.read_bytes())
    key = b"llama.block_count"
    at = content.index(key) + len(key) + 4
    content[at : at + 4] = struct.pack("<I", 0)
    (tmp_path / "bad.gguf").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"cannot load .*bad.gguf: GGML_ASSERT"):
        await llm.query("gguf/bad.gguf", prompt="Hello")


@pytest.mark.servers
async def test_one_that_was_killed_is_started_anew(llm: QueryLLM, babbling: Path) -> None:
    name = f"gguf/{babbling}"
    first = await llm.query(name, prompt="Hello", max_tokens=5, temperature=0)
    (server,) = running()
    os.kill(process_of(server), signal.SIGKILL)
    second = await llm.query(name, prompt="Hello", max_tokens=5, temperature=0)
    assert second.content == first.content
    assert running() != [server]


@pytest.mark.servers
async def test_a_stream_from_one_that_is_killed_says_why_it_broke(llm: QueryLLM, babbling: Path) -> None:
    with pytest.raises(StreamInterruptedError, match=r"llama.cpp's server of .*a model.gguf ended by signal 9") as caught:
        async with llm.stream(f"gguf/{babbling}", prompt="Hello", **ENDLESS) as stream:
            async for _ in stream:
                for server in running():
                    os.kill(process_of(server), signal.SIGKILL)
    assert caught.value.response.content


@pytest.mark.servers
async def test_other_options_of_the_server_are_another_server(llm: QueryLLM, reciting: Path) -> None:
    own = QueryLLM(rows={"gguf": {"models": {"brief": {"id": str(reciting), "options": {"n_ctx": 256, "n_parallel": 2, "n_threads": 1}}}}})
    for _ in range(2):
        assert (await own.query("brief", prompt="Hello")).content == SENTENCE
        assert (await own.query(f"gguf/{reciting}", prompt="Hello")).content == SENTENCE
    assert sorted((server.wanted.n_ctx, server.wanted.n_parallel) for server in running()) == [(256, 2), (8192, 1)]
    template = "{% for m in messages %}<|assistant|>{% endfor %}"
    answer = await llm.query(f"gguf/{reciting}", prompt="a long question that this template leaves out", chat_template=template)
    assert (answer.content, answer.usage.input_tokens) == (SENTENCE, 2)


@pytest.mark.servers
async def test_a_port_of_ones_own(llm: QueryLLM, reciting: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    name = f"gguf/{reciting}"
    assert (await llm.query(name, prompt="Hello", port=port)).content == SENTENCE
    assert running()[0].url == f"http://127.0.0.1:{port}"
    with pytest.raises(ConfigurationError, match=f"port {port} .*that chats and one that embeds are two servers"):
        await llm.embed(name, "a cat", port=port)
    assert len(running()) == 1


@pytest.mark.servers
async def test_no_proxy_stands_between(llm: QueryLLM, reciting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        assert (await llm.query(f"gguf/{reciting}", prompt="Hello")).content == SENTENCE
        assert (await llm.count_tokens(f"gguf/{reciting}", prompt="Hello")).exact


# When it stops


async def test_failed_starts_leave_nothing_behind() -> None:
    async with QueryLLM() as llm:
        for _ in range(3):
            with pytest.raises(ModelNotFoundError):
                await llm.query("gguf/x.gguf", prompt="Hello")
        assert gguf_server._servers == {}
        assert len(current_session().closers) == 1
    assert gguf_server._sessions == {}


@pytest.mark.servers
def test_what_a_loop_that_was_just_closed_left_behind_stops_with_the_next(reciting: Path) -> None:
    name = f"gguf/{reciting}"
    loop = asyncio.new_event_loop()
    loop.run_until_complete(QueryLLM().query(name, prompt="Hello"))
    (server,) = running()
    # The connections as well: the loop's session is nobody's any more.
    loop.run_until_complete(current_session_of(loop)._http.close())
    loop.close()

    async def ask() -> None:
        await QueryLLM().query(name, prompt="Hello")
        assert running() == [server]
        assert len(server.users) == 1

    asyncio.run(ask())
    assert running() == []
    assert not is_there(process_of(server))


def current_session_of(loop: asyncio.AbstractEventLoop) -> Session:
    return session._sessions[loop]


@pytest.mark.servers
async def test_it_stops_with_the_last_context(reciting: Path) -> None:
    name = f"gguf/{reciting}"
    async with QueryLLM() as outer:
        await outer.query(name, prompt="Hello")
        process = process_of(running()[0])
        async with QueryLLM(deadline=30) as inner:
            await inner.query(name, prompt="Hello")
        assert is_there(process)
        assert len(running()) == 1
    assert running() == []
    assert not is_there(process)
    # And may be used again.
    async with QueryLLM() as again:
        assert (await again.query(name, prompt="Hello")).content == SENTENCE


@pytest.mark.servers
def test_it_stops_with_the_last_loop(reciting: Path) -> None:
    processes = []

    async def ask() -> None:
        await QueryLLM().query(f"gguf/{reciting}", prompt="Hello")
        processes.append(process_of(running()[0]))

    asyncio.run(ask())
    assert running() == []
    assert not is_there(processes[0])


@pytest.mark.servers
async def test_a_context_that_is_left_while_it_loads(reciting: Path) -> None:
    async with QueryLLM(rows={"gguf": {"max_retries": 0}}) as llm:
        query = asyncio.ensure_future(llm.query(f"gguf/{reciting}", prompt="Hello"))
        while not gguf_server._servers:
            await asyncio.sleep(0)
    with pytest.raises(ProviderConnectionError, match="was stopped while it loaded"):
        await query
    assert gguf_server._servers == {}


PROGRAM = """
import asyncio, os, signal, sys
from llm_master import QueryLLM
from llm_master.background import run_in_background
from llm_master.providers import gguf_server

async def main():
    answer = await QueryLLM().query("gguf/" + sys.argv[1], prompt="Hello")
    (server,) = gguf_server._servers.values()
    print(server.process.pid, answer.content, flush=True)
    END

asyncio.new_event_loop().run_until_complete(main())
"""


@pytest.mark.servers
@pytest.mark.parametrize(
    "end", ["pass", "sys.exit(3)", "os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "os.kill(os.getpid(), signal.SIGTERM)"]
)
def test_it_ends_with_this_process_however_that_ends(reciting: Path, end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("END", end), str(reciting)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    process, _, said = done.stdout.strip().partition(" ")
    assert said == SENTENCE, done.stderr
    assert asyncio.run(eventually(lambda: not is_alive(int(process))))


def is_alive(process: int) -> bool:
    """Whether a process that may be nobody's child runs: a container may have no one to take away those that ended."""
    try:
        return (
            Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z" if Path("/proc").exists() else is_there(process)
        )
    except OSError:
        return False


def ask_in_a_fork(name: str, parents: int, answers: Any) -> None:
    servers = dict(gguf_server._servers)
    content = QueryLLM().query_sync(name, prompt="Hello").content
    answers.put((len(servers), content, process_of(running()[0]) != parents))


@pytest.mark.servers
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_forked_child_has_its_own_and_leaves_its_parents(llm: QueryLLM, reciting: Path) -> None:
    name = f"gguf/{reciting}"
    await llm.query(name, prompt="Hello")
    (server,) = running()
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=ask_in_a_fork, args=(name, process_of(server), answers))
    child.start()
    await asyncio.to_thread(child.join, 30)
    assert child.exitcode == 0
    assert answers.get() == (0, SENTENCE, True)
    answers.close()
    child.close()
    assert (await llm.query(name, prompt="Hello")).content == SENTENCE
    assert running() == [server]


@pytest.mark.servers
def test_the_command_answers_and_leaves_nothing(reciting: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llm_master", "query", "-m", f"gguf/{reciting}", "Hello"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{SENTENCE}\n", "")


@pytest.mark.servers
def test_the_demo_asks_the_file(reciting: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo.py"), "Hello"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "GGUF_DEFAULT_MODEL": str(reciting)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(SENTENCE)
    assert "provider gguf" in done.stdout
