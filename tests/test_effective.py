"""What one engine uses of all the settings: which value wins, what is refused, and how many requests are in flight."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.scripted import FOREVER, GATE, ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    BaseLLMProvider,
    ConfigurationError,
    LLMConfig,
    ModelRegistry,
    ProviderConfig,
    QueryLLM,
    UnknownModelError,
)
from llm_master.engines import engine_for
from llm_master.errors import DeadlineExceededError, InvalidRequestError
from llm_master.messages import instructed
from llm_master.provider_configs import effective
from llm_master.settings.declared import ModelSettings
from llm_master.testing import FakeClock

KEY = "sk-effective-0123456789"
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}], "model": "served"}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def user(tmp_path: Path) -> Path:
    return tmp_path / ".config" / "llm_master" / "llm_master.toml"


def acme(**fields: Any) -> str:
    lines = "".join(f'{name} = "{value}"\n' if isinstance(value, str) else f"{name} = {value}\n" for name, value in fields.items())
    return f'[[providers]]\nname = "acme"\n{lines}'


def of_file(tmp_path: Path, text: str, name: str = "s.toml", environment: dict[str, str] | None = None, **fields: Any) -> LLMConfig:
    return LLMConfig(environment=environment or {}, config_file=write(tmp_path / name, text), **fields)


def faults(config: LLMConfig) -> str:
    with pytest.raises(ConfigurationError) as caught:
        effective(config)
    return str(caught.value)


# Which value wins


def test_six_levels_field_by_field(tmp_path: Path, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = ["table", "user", "here", "env", "process", "argument"]
    address = {level: f"https://{level}.ai/v1" for level in levels}
    PROVIDER_CONFIGS["acme"] = ProviderConfig(
        base_url=address["table"], timeout=1, max_retries=1, default_model="table", rpm=1, headers={"X-A": "table", "X-T": "table"}
    )
    before = PROVIDER_CONFIGS["acme"]
    write(
        user,
        acme(base_url=address["user"], timeout=2, max_retries=2, default_model="user", headers="").replace(
            'headers = ""', 'headers = {x-a = "user"}'
        ),
    )
    write(tmp_path / "llm_master.toml", acme(base_url=address["here"], timeout=3, max_retries=3))
    write(tmp_path / ".env", f"ACME_API_BASE={address['env']}\nACME_TIMEOUT=4\n")
    monkeypatch.setenv("ACME_API_BASE", address["process"])
    snapshot = effective(LLMConfig(acme_api_base=address["argument"]))
    row = snapshot.rows["acme"]
    assert (row.base_url, row.timeout, row.max_retries, row.default_model, row.rpm) == (address["argument"], 4, 3, "user", 1)
    assert row.headers == {"x-a": "user", "X-T": "table"}
    origins = [snapshot.origins.get(("acme", field)) for field in ("base_url", "timeout", "max_retries", "default_model", "rpm")]
    assert origins == ["argument", "$ACME_TIMEOUT", "llm_master.toml:5", f"{user}:6", None]
    assert effective(LLMConfig()).rows["acme"].base_url == address["process"]
    monkeypatch.delenv("ACME_API_BASE")
    assert effective(LLMConfig()).rows["acme"].base_url == address["env"]
    (tmp_path / ".env").unlink()
    assert effective(LLMConfig()).rows["acme"].base_url == address["here"]
    (tmp_path / "llm_master.toml").unlink()
    assert effective(LLMConfig()).rows["acme"].base_url == address["user"]
    user.unlink()
    assert effective(LLMConfig()).rows["acme"].base_url == address["table"]
    assert PROVIDER_CONFIGS["acme"] is before


def test_keys_win_as_a_whole_and_twice_the_same_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "llm_master.toml", acme(base_url="https://a.ai/v1") + f'api_keys = ["{KEY}f", "{KEY}g", "{KEY}f", ""]\n')

    def keys(**fields: Any) -> list[str]:
        return [key.secret for key in effective(LLMConfig(**fields)).keys["acme"]]

    assert keys() == [f"{KEY}f", f"{KEY}g"]
    monkeypatch.setenv("ACME_API_KEY_1", f"{KEY}1")
    monkeypatch.setenv("ACME_API_KEY_2", f"{KEY}1")
    monkeypatch.setenv("ACME_API_KEY", f"{KEY}0")
    assert keys() == [f"{KEY}0", f"{KEY}1"]
    assert keys(api_keys={"ACME": [f"{KEY}a", f"{KEY}b", "", f" {KEY}a "]}) == [f"{KEY}a", f"{KEY}b"]
    assert keys(api_keys={"acme": f"{KEY}a"}) == [f"{KEY}a"]
    assert keys(api_keys={"Acme": f"{KEY}a", "ACME": f"{KEY}b"}) == [f"{KEY}a", f"{KEY}b"], "none is lost"
    assert keys(api_keys={"acme": None}) == [f"{KEY}0", f"{KEY}1"], "None is not given"
    assert keys(acme_api_key=f"{KEY}z") == [f"{KEY}z"]


@pytest.mark.parametrize("given", [5, {"openai": 5}, {"openai": [5]}, {5: "k"}, "key"])
def test_api_keys_of_a_wrong_kind(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="give "):
        LLMConfig(api_keys=given)


def test_api_keys_of_nobody() -> None:
    assert "there is no provider 'gorq': did you mean 'groq'?" in faults(LLMConfig(environment={}, api_keys={"gorq": KEY}))
    assert "declare it first" in faults(LLMConfig(environment={}, api_keys={"zzzzzz": KEY}))


def test_a_provider_that_only_settings_declare_has_its_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_BASE", "https://a.ai/v1")
    write(tmp_path / "llm_master.toml", '[[providers]]\nname = "be-ta"\nbase_url = "https://b.ai/v1"\n')
    config = LLMConfig(acme_api_key=KEY, be_ta_api_key=KEY + "b", be_ta_api_base="https://bb.ai/v1")
    snapshot = effective(config)
    assert [key.secret for name in ("acme", "be_ta") for key in snapshot.keys[name]] == [KEY, KEY + "b"]
    assert snapshot.rows["be_ta"].base_url == config.be_ta_api_base == "https://bb.ai/v1"
    assert KEY not in repr(config) and "acme_api_key" in repr(config)
    assert "acme" not in PROVIDER_CONFIGS
    with pytest.raises(TypeError, match="did you mean 'acme_api_key'"):
        LLMConfig(acmee_api_key=KEY)


def test_an_environment_that_is_given_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "llm_master.toml", "max_attempts = 3\n")
    write(tmp_path / ".env", "GROQ_API_KEY=k\n")
    monkeypatch.setenv("MISTRAL_API_KEY", KEY)
    snapshot = effective(LLMConfig(environment={}))
    assert snapshot.options.max_attempts == 10 and not snapshot.keys["groq"] and not snapshot.keys["mistral"]
    assert LLMConfig(environment={"LLM_MASTER_CONFIG": "llm_master.toml"}).max_attempts == 3
    assert LLMConfig(environment={}, config_file="llm_master.toml").max_attempts == 3
    assert LLMConfig().max_attempts == 3


def test_one_file_that_is_named_stands_for_all(tmp_path: Path, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(user, "max_attempts = 2\ndeadline = 20\n")
    write(tmp_path / "llm_master.toml", "max_attempts = 3\n")
    other = write(tmp_path / "other.toml", "max_attempts = 4\n")
    monkeypatch.setenv("LLM_MASTER_CONFIG", str(other))
    config = LLMConfig()
    assert (config.max_attempts, config.deadline) == (4, 600)
    assert LLMConfig(config_file=tmp_path / "llm_master.toml").max_attempts == 3
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml, which is not there"):
        effective(LLMConfig(config_file="nowhere.toml"))


@pytest.mark.parametrize("how", ["variable", "file", "argument"])
def test_the_address_of_a_server_alone_means_its_usual_path(tmp_path: Path, how: str) -> None:
    address = "http://127.0.0.1:11434"
    config = {
        "variable": lambda: LLMConfig(environment={"OLLAMA_API_BASE": address}),
        "file": lambda: of_file(tmp_path, f'[[providers]]\nname = "ollama"\nbase_url = "{address}"\n'),
        "argument": lambda: LLMConfig(environment={}, ollama_api_base=address),
    }[how]()
    assert effective(config).rows["ollama"].base_url == f"{address}/v1"


def test_headers_are_one_whatever_their_case(tmp_path: Path) -> None:
    config = of_file(
        tmp_path,
        acme(base_url="https://a.ai/v1") + 'headers = {X-Team = "a", X-B = "b"}\n',
        environment={"ACME_HEADERS": '{"x-team": "c"}'},
    )
    assert effective(config).rows["acme"].headers == {"X-B": "b", "x-team": "c"}


# Engines


def test_the_same_settings_are_the_same_engine(tmp_path: Path) -> None:
    file = write(tmp_path / "llm_master.toml", "max_attempts = 3\n")
    first = engine_for(None)
    assert engine_for(None) is first and engine_for(LLMConfig()) is first and engine_for(LLMConfig.from_env()) is first
    assert engine_for(LLMConfig(config_file=file)) is first, "what counts is what they say"
    assert engine_for(LLMConfig(max_attempts=3)) is first
    file.write_text("max_attempts = 4\n")
    os.utime(file, ns=(1, 1))
    second = engine_for(None)
    assert second is not first and second.snapshot.options.max_attempts == 4
    assert engine_for(LLMConfig().replace({"max_attempts": 3})) is first


def test_a_replaced_config_keeps_where_it_reads(tmp_path: Path) -> None:
    config = of_file(tmp_path, acme(base_url="https://a.ai/v1"), environment={"GLOBAL_TIMEOUT": "9"}, api_keys={"acme": KEY})
    again = config.replace({"max_attempts": 2})
    assert (again.max_attempts, again.deadline, again.acme_api_key, again.acme_api_base) == (2, 9, KEY, "https://a.ai/v1")


# What is refused


def test_faults_of_all_sources_come_at_once(tmp_path: Path, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(user, "max_attempt = 2\n")
    write(tmp_path / "llm_master.toml", acme(base_url="ftp://a.ai", timeout=5, rpm=7).replace("rpm = 7", "structured_output = 'maybe'"))
    monkeypatch.setenv("GROQ_TIMEOUT", "soon")
    said = faults(LLMConfig(api_keys={"gorq": KEY}))
    for part in (
        f"{user}:1: max_attempt is no",
        "llm_master.toml:3: provider 'acme': base_url is 'ftp://a.ai'",
        "llm_master.toml:5: provider 'acme': structured_output",
        "$GROQ_TIMEOUT: 'soon'",
        "api_keys: there is no provider 'gorq'",
    ):
        assert part in said, said
    with pytest.raises(ConfigurationError):
        QueryLLM()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[limits.gorq]\nrpm = 3\n", "s.toml:2: provider 'gorq' has no address: did you mean 'groq'?"),
        ('[[providers]]\nname = "zzzzzz"\ntimeout = 3\n', "provider 'zzzzzz' has no address: give it a base_url, or set $ZZZZZZ_API_BASE"),
        ('[[providers]]\nname = "gorq"\napi_key = "k"\n', "provider 'gorq' has no address: did you mean 'groq'?"),
        ('[aliases]\na = {model = "x", options = {timeout = 3}}\n', "'timeout' is an argument of each call and no option"),
    ],
)
def test_what_could_mean_nobody(tmp_path: Path, text: str, said: str) -> None:
    assert said in faults(of_file(tmp_path, text))


def test_limits_of_a_provider_that_is_not_here_are_a_warning(tmp_path: Path) -> None:
    snapshot = effective(of_file(tmp_path, "provider_concurrency:\n  zzzzzz: 2\n", name="s.yaml"))
    assert len(snapshot.warnings) == 1 and "s.yaml:2: there is no provider 'zzzzzz' here" in snapshot.warnings[0]


# Aliases


def test_aliases_lead_on_with_the_options_of_each_step(tmp_path: Path) -> None:
    text = acme(base_url="https://a.ai/v1", default_model="large") + (
        'models = {m = {id = "wire-m", options = {seed = 1, temperature = 1, top_p = 1.0}}}\n[aliases]\n'
        'first = {model = "second", options = {seed = 3}}\nsecond = {model = "acme/m", options = {seed = 2, temperature = 2}}\n'
        'whole = "acme"\n"gpt-4.1" = "acme/other"\n'
    )
    engine = engine_for(of_file(tmp_path, text))
    route = engine.target("first").route
    assert (route.provider, route.model) == ("acme", "wire-m") and route.options == {"seed": 3, "temperature": 2, "top_p": 1.0}
    assert "alias of 'acme/m' (s.toml:7)" in route.why
    assert engine.target("whole").route.model == "large"
    assert (engine.target("gpt-4.1").route.provider, engine.target("gpt-4.1").route.model) == ("acme", "other"), "before the registry"


def test_an_alias_that_leads_nowhere_or_round(tmp_path: Path) -> None:
    engine = engine_for(of_file(tmp_path, '[aliases]\nfast = "no-such-thing"\n'))
    with pytest.raises(UnknownModelError, match="no-such-thing"):
        engine.target("fast")
    with pytest.raises(UnknownModelError, match="'fast'"):
        engine.target("fsat")
    said = faults(of_file(tmp_path, '[aliases]\na = "b"\nb = "c"\nc = "b"\n'))
    assert said.count("leads to itself") == 1 and "s.toml:3" in said


# Models


def test_models_of_settings_leave_the_registry_alone(tmp_path: Path) -> None:
    before = dict(ModelRegistry.CONFIGS)
    text = (
        '[models."OpenAI/gpt-4.1"]\ninput_price_per_million = 9\n[models."gpt-4.1-mini"]\nrate_limit_rpm = 7\n'
        '[models.own]\nprovider = "openai"\ninput_price_per_million = 1\n[limits."openai/gpt-4.1"]\nrpm = 5\n'
    )
    engine = engine_for(of_file(tmp_path, text, environment={"OPENAI_API_KEY": KEY}))
    known = before["openai/gpt-4.1"]
    for name in ("gpt-4.1", "openai/gpt-4.1"):
        model = engine.target(name).model
        assert model is not None
        assert (model.input_price_per_million, model.output_price_per_million, model.rate_limit_rpm) == (
            9,
            known.output_price_per_million,
            5,
        )
    for name in ("gpt-4.1-mini", "openai/gpt-4.1-mini"):
        mini = engine.target(name).model
        assert mini is not None and (mini.rate_limit_rpm, mini.output_price_per_million) == (
            7,
            before["openai/gpt-4.1-mini"].output_price_per_million,
        )
    assert engine.target("own").route.provider == "openai"
    assert dict(ModelRegistry.CONFIGS) == before
    assert effective(LLMConfig(environment={})).models == {}


ASKED = ["iflow/DS", "IFlow/DS", "iflow:DS", "DS", "quick"]
# What is said of an alias is said of it alone.
SAID = [(written, asked) for written in ("iflow/DS", "IFLOW/DS", "DS", "iflow/wire", "wire") for asked in ASKED] + [("quick", "quick")]


@pytest.mark.parametrize(("written", "asked"), SAID)
def test_how_a_model_is_asked_holds_under_each_of_its_names(tmp_path: Path, written: str, asked: str) -> None:
    file = write(
        tmp_path / "c.yaml", f'model_configs:\n  "{written}":\n    system_instruction: Brief.\n    options: {{seed: 3, temperature: 1}}\n'
    )
    PROVIDER_CONFIGS["iflow"] = ProviderConfig(
        base_url="https://i.ai/v1", requires_key=False, models={"DS": {"id": "wire", "options": {"seed": 1, "top_p": 1}}}
    )
    from llm_master.engine import Engine
    from llm_master.settings.aliases import Alias

    snapshot = effective(LLMConfig(environment={}, config_file=file))
    snapshot.aliases["quick"] = Alias("iflow/DS", {"temperature": 2}, "x:1")
    target = Engine(snapshot).target(asked)
    assert target.settings is not None and target.settings.system_instruction == "Brief."
    assert target.route.options == {"seed": 3, "top_p": 1, "temperature": 2 if asked == "quick" else 1}


@pytest.mark.parametrize("position", ["append", "prepend"])
def test_an_instruction_joins_the_first_system_message(position: Any) -> None:
    def joined(*messages: dict[str, Any]) -> list[Any]:
        before = [dict(message) for message in messages]
        result = list(instructed(messages, ModelSettings(system_instruction="I", position=position)))
        assert list(messages) == before
        return result

    user = {"role": "user", "content": "U"}
    text = "I\n\nS" if position == "prepend" else "S\n\nI"
    assert joined(user) == [{"role": "system", "content": "I"}, user]
    assert joined({"role": "system", "content": "S"}, user) == [{"role": "system", "content": text}, user]
    assert joined({"role": "developer", "content": "S"}, user)[0] == {"role": "developer", "content": text}
    assert joined({"role": "system", "content": "S"}, {"role": "system", "content": "T"}, user)[1:] == [
        {"role": "system", "content": "T"},
        user,
    ]
    assert joined(user, {"role": "system", "content": "S"}) == [user, {"role": "system", "content": text}]
    for empty in ("", None):
        assert joined({"role": "system", "content": empty}, user)[0]["content"] == "I"
    part, own = {"type": "text", "text": "S"}, {"type": "text", "text": "I"}
    assert joined({"role": "system", "content": [part]}, user)[0]["content"] == ([own, part] if position == "prepend" else [part, own])


async def test_an_instruction_beside_an_image_and_in_the_plan(tmp_path: Path, server: ScriptedServer) -> None:
    server.answer_json(ANSWER, times=None)
    config = of_file(
        tmp_path,
        "model_configs:\n  acme/m:\n    system_instruction: Brief.\n",
        name="c.yaml",
        environment={"ACME_API_BASE": server.base_url},
    )
    image = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What?"}, image]}]
    llm = QueryLLM(config)
    await llm.query("acme/m", messages)
    sent = server.request.json["messages"]
    assert sent[0] == {"role": "system", "content": "Brief."} and sent[1]["content"][1]["type"] == "image_url"
    assert "Brief." in str(llm.plan("acme/m", prompt="Hello").body)
    assert len(server.requests) == 1 and len(messages) == 1


# Options


async def test_the_global_timeout_is_the_deadline_of_a_query(server: ScriptedServer) -> None:
    clock = FakeClock()
    server.answer(delay=FOREVER, times=None)
    llm = QueryLLM(LLMConfig(environment={"ACME_API_BASE": server.base_url, "GLOBAL_TIMEOUT": "7"}, clock=clock))
    task = asyncio.create_task(llm.query("acme/m", prompt="Hello"))
    assert await server.until_asked()
    await clock.advance(6.9)
    assert not task.done()
    await clock.advance(0.2)
    with pytest.raises(DeadlineExceededError, match="deadline of 7 s"):
        await task


def test_whether_the_same_model_may_be_asked_elsewhere() -> None:
    assert LLMConfig(environment={}).enable_fallback is False
    assert LLMConfig(environment={"ENABLE_FALLBACK": "yes"}).enable_fallback is True
    assert LLMConfig(environment={"ENABLE_FALLBACK": "yes"}, enable_fallback=False).enable_fallback is False


def test_a_provider_that_is_switched_off_and_a_preferred_one(tmp_path: Path) -> None:
    text = acme(base_url="https://a.ai/v1") + 'ignore_models = ["gpt-4.1-*"]\n[[providers]]\nname = "openai"\nenabled = false\n'
    config = of_file(tmp_path, text, environment={"OPENAI_API_KEY": KEY})
    with pytest.raises(ConfigurationError, match=r"switched off by s\.toml"):
        engine_for(config).target("gpt-4.1")
    engine = engine_for(config.replace({"preferred_provider": "acme"}))
    route = engine.target("gpt-4.1").route
    assert route.provider == "acme" and "is switched off" in route.why
    with pytest.raises(UnknownModelError, match="not to be asked of 'acme'"):
        engine.target("gpt-4.1-mini")


def test_the_preferred_provider() -> None:
    with pytest.raises(ConfigurationError, match="'gorq', which is no provider: did you mean 'groq'"):
        QueryLLM(LLMConfig(environment={"PREFERRED_PROVIDER": "gorq"}))
    auto = {"PREFERRED_PROVIDER": "auto"}
    with pytest.raises(UnknownModelError):
        engine_for(LLMConfig(environment=auto)).target("no-such-thing")
    engine = engine_for(LLMConfig(environment={**auto, "GROQ_API_KEY": KEY, "GROQ_ENABLED": "false", "MISTRAL_API_KEY": KEY}))
    assert engine.target("no-such-thing").route.provider == "mistral"


@pytest.mark.parametrize(
    ("asked", "goes"), [("acme/old-1", False), ("acme/OLD-2", False), ("acme/old-3", True), ("acme/new", True), ("nick", False)]
)
def test_globs_of_models_that_are_not_to_be_asked(tmp_path: Path, asked: str, goes: bool) -> None:
    text = acme(base_url="https://a.ai/v1") + 'ignore_models = ["old-*"]\nwhitelist_models = ["old-3"]\n[aliases]\nnick = "acme/old-9"\n'
    engine = engine_for(of_file(tmp_path, text))
    if goes:
        assert engine.target(asked).route.provider == "acme"
    else:
        with pytest.raises(UnknownModelError, match="whitelist_models"):
            engine.target(asked)


# How many are in flight


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def one(server: ScriptedServer) -> Iterator[QueryLLM]:
    """Of whose provider one request may be in flight."""
    yield QueryLLM(LLMConfig(environment={"ACME_API_BASE": server.base_url}, max_concurrent=1))


def delta(text: str) -> str:
    return f'data: {{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}\n\n'


@pytest.mark.parametrize("how", ["closed", "stopped", "abandoned", "broken", "cancelled", "read to its end"])
async def test_a_stream_gives_its_place_back(server: ScriptedServer, one: QueryLLM, how: str) -> None:
    if how == "broken":
        server.answer_sse(delta("a"), end="reset", cut_at=len(delta("a")))
    elif how == "read to its end":
        server.answer_sse(delta("a"), "data: [DONE]\n\n")
    else:
        server.answer_sse(delta("a"), GATE, "data: [DONE]\n\n")
    server.answer_json(ANSWER, times=None)
    stream = one.stream("acme/m", prompt="Hello")
    assert await anext(stream) == "a"
    second = asyncio.create_task(one.query("acme/m", prompt="Hello"))
    await turns(20)
    assert len(server.requests) == 1 and not second.done()
    if how == "closed":
        await stream.aclose()
    elif how == "stopped":
        stream.stop()
    elif how == "abandoned":
        del stream
        gc.collect()
    elif how == "cancelled":
        task = asyncio.ensure_future(anext(stream))
        await turns()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    else:
        with pytest.raises((StopAsyncIteration, Exception)):
            await anext(stream)
    assert (await asyncio.wait_for(second, 10)).content == "Hi."


async def test_a_repetition_waits_without_a_place(server: ScriptedServer) -> None:
    clock = FakeClock()
    llm = QueryLLM(LLMConfig(environment={"ACME_API_BASE": server.base_url}, max_concurrent=1, clock=clock))
    server.answer_json({"error": {"message": "later"}}, status=503, headers={"retry-after": "5"})
    server.answer_json(ANSWER, times=None)
    first = asyncio.create_task(llm.query("acme/m", prompt="first"))
    assert await server.until_asked(1)
    while not clock.sleeps:  # until it waits for its repetition
        await asyncio.sleep(0.001)
    assert (await llm.query("acme/m", prompt="second")).content == "Hi."
    assert not first.done()
    await clock.advance(60)
    assert (await first).content == "Hi."
    assert [request.json["messages"][0]["content"] for request in server.requests] == ["first", "second", "first"]


class Refusing(BaseLLMProvider):
    """Its stream() is no generator, and raises at once."""

    async def generate(self, messages: Any, model: str, **options: Any) -> str:
        return "Hi."

    def stream(self, messages: Any, model: str, **options: Any) -> Any:
        raise InvalidRequestError("no streams today")


async def test_a_stream_that_is_refused_at_once_takes_no_place() -> None:
    PROVIDER_CONFIGS["refusing"] = ProviderConfig(provider_class=Refusing, requires_key=False, max_concurrent=1)
    llm = QueryLLM(LLMConfig(environment={}))
    for _ in range(2):
        with pytest.raises(InvalidRequestError, match="no streams today"):
            await llm.query("refusing/m", prompt="Hello", stream=True)
    assert (await llm.query("refusing/m", prompt="Hello", deadline=5)).content == "Hi."


async def test_who_waits_too_long_for_a_place_is_told_so(server: ScriptedServer) -> None:
    clock = FakeClock()
    llm = QueryLLM(LLMConfig(environment={"ACME_API_BASE": server.base_url}, max_concurrent=1, clock=clock))
    server.answer(delay=FOREVER)
    server.answer_json(ANSWER, times=None)
    first = asyncio.create_task(llm.query("acme/m", prompt="Hello"))
    assert await server.until_asked(1)
    second = asyncio.create_task(llm.query("acme/m", prompt="Hello", deadline=3))
    await turns()
    await clock.advance(3)
    with pytest.raises(DeadlineExceededError, match="max_concurrent of acme is 1"):
        await second
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert (await llm.query("acme/m", prompt="Hello")).content == "Hi."


def test_rows_for_some_settings_alone():
    config = LLMConfig(environment={}, rows={"*": {"max_retries": 0}, "OpenAI": {"max_retries": 5, "headers": {"X-Own": "1"}}})
    rows = effective(config).rows
    assert (rows["openai"].max_retries, rows["groq"].max_retries) == (5, 0)
    assert rows["openai"].headers["X-Own"] == "1"
    assert config.replace({"deadline": 5})._rows == config._rows
    assert PROVIDER_CONFIGS["openai"].max_retries == 2


def test_arguments_win_over_variables():
    environment = {"OPENAI_API_KEY": KEY, "MAX_CONCURRENT_REQUESTS_PER_KEY_OPENAI": "7"}
    assert effective(LLMConfig(environment=environment)).rows["openai"].max_concurrent_per_key == 7
    rows = {"openai": {"max_concurrent_per_key": 2}}
    assert effective(LLMConfig(environment=environment, rows=rows)).rows["openai"].max_concurrent_per_key == 2


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"opnai": {"timeout": 5}}, "did you mean 'openai'"),
        ({"openai": {"timeuot": 5}}, "did you mean 'timeout'"),
        ({"openai": {"timeout": -5}}, r"rows\['openai'\]"),
        ({"openai": 5}, "give fields of ProviderConfig"),
        (["openai"], "give fields of ProviderConfig"),
    ],
)
def test_rows_that_cannot_be(rows, said):
    with pytest.raises(ConfigurationError, match=said):
        effective(LLMConfig(environment={}, rows=rows))
