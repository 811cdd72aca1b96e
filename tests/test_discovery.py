"""Which models there are: what providers list, what is declared, how long it is kept, and where a bare name leads."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from servers.formats import format_of
from servers.llama import CONTEXT, SENTENCE, LlamaServer
from servers.scripted import FOREVER, GATE, ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    BaseLLMProvider,
    ConfigurationError,
    InvalidRequestError,
    ListedModel,
    LLMConfig,
    MissingApiKeyError,
    ModelConfig,
    ModelRegistry,
    ProviderConfig,
    QueryLLM,
    UnifiedProvider,
    UnknownModelError,
)
from llm_master.engines import forget
from llm_master.providers import http, listing
from llm_master.providers.listing import models_in
from llm_master.rows import base_variable, key_variables
from llm_master.row_classes import provider_class
from llm_master.storage.models_file import KEPT, Listing, SeenModels
from llm_master.testing import Fault, FakeClock, FaultServer

KEY = "sk-discovery-0123456789"
OTHER = "sk-discovery-9876543210"


def data(*ids: str) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": name, "object": "model"} for name in ids]}


def asking(server: ScriptedServer | FaultServer, *names: str, **settings: Any) -> QueryLLM:
    """With these providers, all at one server, in this order, and no others that could be asked."""
    rows = {name: {"enabled": False} for name in PROVIDER_CONFIGS if name not in names}
    for name in names:
        if name not in PROVIDER_CONFIGS:
            PROVIDER_CONFIGS[name] = ProviderConfig(base_url=server.base_url, api_key=KEY)
    environment = settings.pop("environment", {})
    return QueryLLM(LLMConfig(environment=environment, rows={**rows, **settings.pop("rows", {})}, **settings))


# What providers say


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (data("a", "b", "a"), ["a", "b"]),
        ([{"id": "a"}, {"id": "b/c:free", "name": "For people"}], ["a", "b/c:free"]),
        ({"models": [{"name": "a", "model": "a"}]}, ["a"]),
        ({"models": ["a", "b"]}, ["a", "b"]),
        ({"data": {"a": {"owned_by": "x"}, "b": None}}, ["a", "b"]),
        ({"models": [{"name": "for another client"}], "data": [{"id": "a"}]}, ["a"]),
        ({"data": None, "models": [{"id": "a"}]}, ["a"]),
        ({"object": "list", "data": []}, []),
        ({"object": "list", "data": None}, []),
        ({"data": [{"id": "a"}, 5, None, {"id": 7}, {"id": " "}, {"id": "b\x1b[2J"}, {"id": "c" * 600}]}, ["a"]),
        ({"data": [{"id": None, "name": "a"}]}, ["a"]),
        ({"nothing": 1}, None),
        ({"data": "a"}, None),
        ({"data": [{"title": "a"}]}, None),
        ("a", None),
        (None, None),
    ],
)
def test_the_shapes_of_a_list(content: Any, ids: list[str] | None) -> None:
    found = models_in(content)
    assert (found if found is None else [model.id for model in found]) == ids


@pytest.mark.parametrize(
    ("said", "window"),
    [
        ({"context_window": 1000}, 1000),
        ({"context_length": 1000.0}, 1000),
        ({"max_model_len": "1000"}, 1000),
        ({"max_context_length": 9000, "loaded_context_length": 1000}, 1000),
        ({"inputTokenLimit": 1000}, 1000),
        ({"meta": {"n_ctx_train": 1000}}, 1000),
        ({"meta": {"n_ctx": 1000, "n_ctx_train": 9000}}, 1000),
        ({"context_window": None, "context_length": 1000}, 1000),
        ({"context_window": 0}, None),
        ({"context_window": -1}, None),
        ({"context_window": True}, None),
        ({"context_window": "large"}, None),
        ({"context_window": float("inf")}, None),
        ({"meta": "none"}, None),
        ({}, None),
    ],
)
def test_the_context_window(said: dict[str, Any], window: int | None) -> None:
    assert models_in([{"id": "a", **said}]) == [ListedModel("a", context_window=window)]


@pytest.mark.parametrize(
    ("said", "created"),
    [
        ({"created": 1700000000}, 1700000000),
        ({"created": "1700000000"}, 1700000000),
        ({"created_at": "2023-11-14T22:13:20Z"}, 1700000000),
        ({"created": "yesterday"}, None),
        ({"created": []}, None),
    ],
)
def test_the_rest(said: dict[str, Any], created: float | None) -> None:
    assert models_in([{"id": "a", "owned_by": "acme", **said}]) == [ListedModel("a", owned_by="acme", created=created)]


OVER_HTTP = [name for name, row in PROVIDER_CONFIGS.items() if issubclass(provider_class(row), http.HTTPProvider)]


@pytest.mark.parametrize("name", OVER_HTTP)
async def test_every_row_is_asked_with_its_key(name: str, server: ScriptedServer) -> None:
    row = PROVIDER_CONFIGS[name]
    server.answer_json(data("large"), times=None)
    variable = format_of(name).key_variable or key_variables(row)[0]
    llm = QueryLLM(LLMConfig(environment={base_variable(row): server.base_url, variable: KEY}))
    found = (await llm.list_models(name))[name]
    if provider_class(row).models_path is None:
        assert found.state == "no_list" and "cannot list its models" in found.error
        assert server.requests == []
    else:
        assert found.state == "listed" and "large" in found
        assert server.request.method == "GET" and server.request.path.partition("?")[0].endswith(("/models", "/tags"))
        assert any(KEY in value for value in server.request.headers.values()), "the list was asked for without the key"
        assert KEY not in server.request.path


async def test_headers_and_query_of_the_row_go_along(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(
        base_url=server.base_url, api_key=KEY, headers={"X-Team": "red"}, query={"api-version": "v1"}, paths={"models": "/catalogue"}
    )
    server.answer_json(data("large"))
    assert (await asking(server, "acme").list_models("acme"))["acme"].ids == ("large",)
    assert server.request.path == "/v1/catalogue?api-version=v1" and server.request.headers["x-team"] == "red"


async def test_all_pages_of_lists_that_have_them(server: ScriptedServer) -> None:
    environment = {
        "ANTHROPIC_API_BASE": server.base_url,
        "ANTHROPIC_API_KEY": KEY,
        "GEMINI_API_BASE": server.base_url,
        "GEMINI_API_KEY": KEY,
    }
    llm = QueryLLM(LLMConfig(environment=environment))
    server.answer_json({"data": [{"id": "claude-1"}], "has_more": True, "last_id": "claude-1"})
    server.answer_json({"data": [{"id": "claude-2", "created_at": "2025-01-01T00:00:00Z"}], "has_more": False, "last_id": "claude-2"})
    found = (await llm.list_models("anthropic"))["anthropic"]
    assert found.ids[:2] == ("claude-1", "claude-2")
    server.answer_json({"models": [{"name": "models/gemini-1", "inputTokenLimit": 10}], "nextPageToken": "a+b/c="})
    server.answer_json({"models": [{"name": "models/gemini-2"}]})
    found = (await llm.list_models("gemini"))["gemini"]
    assert found.ids[:2] == ("gemini-1", "gemini-2") and found.models[0].context_window == 10
    assert [request.path.partition("?")[2] for request in server.requests] == [
        "limit=1000",
        "limit=1000&after_id=claude-1",
        "pageSize=1000",
        "pageSize=1000&pageToken=a%2Bb/c%3D",
    ]


async def test_pages_that_never_end(server: ScriptedServer) -> None:
    llm = QueryLLM(LLMConfig(environment={"ANTHROPIC_API_BASE": server.base_url, "ANTHROPIC_API_KEY": KEY}))
    server.answer_json({"data": [{"id": "claude-1"}], "has_more": True, "last_id": "claude-1"}, times=None)
    found = (await llm.list_models("anthropic"))["anthropic"]
    assert found.state == "outage" and "has no end" in found.error and "claude-1" not in found
    assert len(server.requests) == 2


async def test_ten_thousand_models(server: ScriptedServer) -> None:
    llm = asking(server, "acme")
    server.answer_json(data(*(f"model-{number}" for number in range(10_000))))
    found = (await llm.list_models("acme"))["acme"]
    assert len(found) == 10_000 and found.ids[-1] == "model-9999"
    assert llm._engine.target("model-9999").route.provider == "acme"


async def test_a_list_without_measure(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_BYTES", 1000)
    server.answer(*(b'{"data": [' + b" " * 800 for _ in range(5)), framing="chunked")
    found = (await asking(server, "acme").list_models())["acme"]
    assert found.state == "outage" and "more than 1,000 bytes" in found.error


# An outage is an outage


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"status": 404}, "404 gone (from {url}/models: is base_url right?)"),
        ({"status": 500}, "500 gone"),
        ({"status": 401}, "401 gone"),
        ({"status": 302, "headers": {"location": "https://elsewhere.example"}}, "moved to https://elsewhere.example"),
        ({"body": "<html><title>Welcome</title>"}, "an HTML page, so base_url is probably not that of an API"),
        ({"status": 502, "body": "<html><title>Bad Gateway</title>"}, "502 an HTML page: Bad Gateway"),
        ({"body": "gar\x00bage"}, "cannot be read"),
        ({"body": ""}, "an empty body"),
        ({"body": "[" * 100_000}, "cannot be read"),
        ({"body": '{"message": "hello"}'}, "no list of models"),
        ({"body": '{"error": {"message": "later"}}'}, "later"),
    ],
)
async def test_what_is_no_list_is_an_outage_and_the_declared_are_offered(
    server: ScriptedServer, how: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, api_key=KEY, models={"mine": "large"}, default_model="small")
    ModelRegistry.register("acme/known", ModelConfig(context_window=99))
    llm = asking(server, "acme")
    body = how.pop("body", '{"error": {"message": "gone"}}')
    server.answer(body, **how)
    listed = await llm.list_models()
    found = listed["acme"]
    assert found.state == "outage" and found.source == "declared" and found.fetched_at is None
    assert "acme did not list its models" in found.error and said.format(url=server.base_url) in found.error
    assert found.ids == ("known", "mine", "small") and all(model.declared and not model.discovered for model in found)
    assert found.models[0].context_window == 99
    assert listed.outages == {"acme": found.error} and found.error in str(listed)
    assert KEY not in caplog.text + found.error
    # It is not kept: the next one asks again.
    server.answer_json(data("large"))
    assert (await llm.list_models())["acme"].state == "listed"
    assert len(server.requests) == 2


async def test_a_missing_path_is_named(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.url, api_key=KEY)
    server.answer("<html><title>Not Found</title>", status=404)
    found = (await asking(server, "acme").list_models())["acme"]
    assert f"base_url is {server.url}: is /v1 missing at its end?" in found.error


async def test_a_key_that_is_repeated_is_not_shown(server: ScriptedServer) -> None:
    llm = asking(server, "acme")
    server.answer_json({"error": {"message": f"Incorrect API key provided: {KEY}"}}, status=401)
    found = (await llm.list_models())["acme"]
    assert KEY not in repr(found) and "…6789" in found.error


async def test_three_minutes_cost_three_seconds_and_nobody_else_waits(server: ScriptedServer) -> None:
    clock = FakeClock()
    PROVIDER_CONFIGS["slow"] = ProviderConfig(base_url=f"{server.url}/slow", api_key=KEY, models=["mine"])
    llm = asking(server, "slow", clock=clock)
    server.answer(delay=FOREVER)
    listing = asyncio.create_task(llm.list_models())
    assert await server.until_asked()
    await clock.advance(2.9)
    assert not listing.done()
    await clock.advance(0.2)
    found = (await listing)["slow"]
    assert found.state == "outage" and "no answer within 3 s" in found.error and found.ids == ("mine",)


async def test_all_are_asked_at_once(server: ScriptedServer) -> None:
    names = [f"acme{number}" for number in range(30)]
    llm = asking(server, *names)
    server.answer(GATE, json.dumps(data("large")), times=None)
    listing = asyncio.create_task(llm.list_models(timeout=30))
    assert await server.until_asked(30)
    for _ in names:
        server.release()
    listed = await listing
    assert [name for name, found in listed.items() if found.state == "listed"] == names
    assert listed.names == tuple(f"{name}/large" for name in names)


async def test_what_cannot_be_asked_is_shown_as_such(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["keyless"] = ProviderConfig(base_url=server.base_url, models=["mine"])
    PROVIDER_CONFIGS["nowhere"] = ProviderConfig(api_key=KEY)
    listed = await asking(server, "keyless", "nowhere").list_models()
    assert listed["keyless"].state == listed["nowhere"].state == listed["openai"].state == "unusable"
    assert "KEYLESS_API_KEY" in listed["keyless"].error and "has no address" in listed["nowhere"].error
    assert "switched off" in listed["openai"].error
    assert listed["keyless"].ids == ("mine",) and listed.names == () and listed.outages == {}
    assert server.requests == []


async def test_another_key_may_have_the_list(fault_server: FaultServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=fault_server.base_url)
    fault_server.accept(keys=[OTHER], models=["large"])
    llm = asking(fault_server, "acme", api_keys={"acme": [KEY, OTHER]})
    assert (await llm.list_models("Acme"))["acme"].ids == ("large",)
    assert fault_server.counts() == {401: 1, 200: 1}


async def test_white_and_black_lists(server: ScriptedServer) -> None:
    rows = {"acme": {"ignore_models": ["*-preview", "acme/old"], "whitelist_models": ["good-*"]}}
    llm = asking(server, "acme", rows=rows)
    server.answer_json(data("large", "bad-preview", "good-preview", "old"))
    assert (await llm.list_models())["acme"].ids == ("large", "good-preview")
    with pytest.raises(UnknownModelError, match="ignore_models"):
        llm.plan("bad-preview", prompt="Hi")


async def test_listed_and_declared_are_one(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(
        base_url=server.base_url, api_key=KEY, models=["large"], generate_map={"image": "f", "x-*": "f"}
    )
    ModelRegistry.register("acme/large", ModelConfig(context_window=5))
    ModelRegistry.register("bare", ModelConfig(provider="acme"))
    server.answer_json(data("small", "large"))
    found = (await asking(server, "acme").list_models())["acme"]
    assert [(str(model), model.declared, model.discovered) for model in found] == [
        ("small", False, True),
        ("large", True, True),
        ("bare", True, False),
        ("image", True, False),
    ]
    assert found.models[1].context_window == 5
    assert "large" in found and "huge" not in found and found.models[0] in found


class Catalogue(UnifiedProvider):
    """Knows its models by itself."""

    async def list_models(self) -> list[str]:
        return ["one", "two"]


class Broken(BaseLLMProvider):
    async def generate(self, messages: Any, model: str, **options: Any) -> str:
        return "Hi"

    async def list_models(self) -> list[str]:
        raise ZeroDivisionError("division by zero")


async def test_a_class_of_the_users_own(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, api_key=KEY, provider_class=Catalogue)
    PROVIDER_CONFIGS["broken"] = ProviderConfig(requires_key=False, provider_class=Broken)
    listed = await asking(server, "acme", "broken").list_models()
    assert listed["acme"].ids == ("one", "two") and server.requests == []
    assert listed["broken"].state == "outage" and "ZeroDivisionError: division by zero" in listed["broken"].error


async def test_what_is_wrong_is_said(server: ScriptedServer) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'groq'"):
        await QueryLLM().list_models("grok-q")
    with pytest.raises(ConfigurationError, match="there is no provider 5"):
        await QueryLLM().list_models(5)
    for timeout in (0, -1, True, "3", None):
        with pytest.raises(InvalidRequestError, match="timeout is"):
            await QueryLLM().list_models(timeout=timeout)


# How long it is kept


async def test_a_list_is_kept_for_an_hour(server: ScriptedServer) -> None:
    clock = FakeClock()
    llm = asking(server, "acme", clock=clock)
    server.answer_json(data("large"))
    first = (await llm.list_models())["acme"]
    assert (first.source, first.fetched_at) == ("provider", clock.time()) and first.latency is not None
    await clock.advance(3599)
    kept = (await llm.list_models())["acme"]
    assert (kept.source, kept.fetched_at, kept.latency) == ("cache", first.fetched_at, None) and kept.models == first.models
    assert len(server.requests) == 1
    await clock.advance(2)
    server.answer_json(data("larger"))
    assert (await llm.list_models())["acme"].ids == ("larger",)
    server.answer_json(data("largest"))
    assert (await llm.list_models(refresh=True))["acme"].ids == ("largest",)
    assert len(server.requests) == 3


async def test_or_as_long_as_the_settings_say(server: ScriptedServer) -> None:
    clock = FakeClock()
    llm = asking(server, "acme", clock=clock, environment={"LLM_MASTER_MODELS_TTL": "60"})
    server.answer_json(data("large"), times=None)
    await llm.list_models()
    await clock.advance(61)
    assert (await llm.list_models())["acme"].source == "provider"


async def test_other_keys_and_addresses_have_lists_of_their_own(server: ScriptedServer, tmp_path: Path) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url)
    server.answer_json(data("large"), times=None)
    for key, address in ((KEY, server.base_url), (OTHER, server.base_url), (OTHER, f"{server.url}/v2")):
        for source in ("provider", "cache"):
            llm = asking(server, "acme", acme_api_key=key, acme_api_base=address, models_file=str(tmp_path / "models.json"))
            assert (await llm.list_models())["acme"].source == source


async def test_the_file_outlives_the_process_and_holds_no_key(server: ScriptedServer, tmp_path: Path) -> None:
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    server.answer_json({"data": [{"id": "large", "context_window": 7, "owned_by": "acme", "created": 1700000000}]})
    before = (await asking(server, "acme", environment=environment).list_models())["acme"]
    path = tmp_path / "cache" / "llm_master" / "models.json"
    text = path.read_text()
    assert KEY not in text and KEY[-4:] not in text and server.base_url not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [name for name in os.listdir(path.parent) if name.endswith((".json", ".tmp"))] == ["models.json"]
    _new_process()
    after = (await asking(server, "acme", environment=environment).list_models())["acme"]
    assert after.source == "cache" and after.models == before.models
    assert len(server.requests) == 1
    _new_process()
    server.answer_json(data("large"))
    assert asking(server, "acme", environment=environment).plan("large", prompt="Hi").why == "listed by the provider"


def _new_process() -> None:
    forget()
    gc.collect()


async def test_without_a_place_nothing_is_written(server: ScriptedServer, tmp_path: Path) -> None:
    server.answer_json(data("large"), times=None)
    before = sorted(tmp_path.rglob("*"))
    await asking(server, "acme").list_models()
    await asking(server, "acme", environment={"HOME": str(tmp_path), "LLM_MASTER_MODELS_FILE": "off"}).list_models()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"version": 1, "listings": {"a": 5}}',
        b"[" * 100_000,
        b'{"version": 1, "listings": {"x": {"at": "z"}}}',
    ],
)
async def test_a_broken_file_is_written_anew(
    server: ScriptedServer, tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "models.json"
    path.write_bytes(content)
    server.answer_json(data("large"))
    llm = asking(server, "acme", models_file=str(path))
    assert (await llm.list_models())["acme"].source == "provider"
    assert f"{path} holds no lists of models" in caplog.text
    assert json.loads(path.read_text())["version"] == 1


async def test_a_file_that_cannot_be_written_costs_nothing_but_a_warning(
    server: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    llm = asking(server, "acme", models_file=str(tmp_path / "file" / "models.json"))
    server.answer_json(data("large"))
    assert (await llm.list_models())["acme"].source == "provider"
    assert (await llm.list_models())["acme"].source == "cache"
    assert "could not be written" in caplog.text and "models_file=" in caplog.text


def test_several_processes_share_the_file(tmp_path: Path) -> None:
    clock = FakeClock()
    one, two, three = (SeenModels(str(tmp_path / "models.json"), clock.time) for _ in range(3))
    now = clock.time()
    old, new, other = (Listing("acme", now - age, (ListedModel(name),)) for age, name in ((10, "old"), (5, "new"), (1, "other")))
    one.keep("a", new)
    one.save()
    two.keep("a", old)
    two.keep("b", other)
    two.save()
    three.look()
    assert three.find("a") == new and three.find("b") == other
    one.look()
    assert one.find("b") == other


def test_what_is_old_is_forgotten_and_what_is_to_come_is_not_believed(tmp_path: Path) -> None:
    clock = FakeClock()
    now = clock.time()
    one = SeenModels(str(tmp_path / "models.json"), lambda: now + 1000)
    one.keep("ahead", Listing("acme", now + 1000, ()))
    one.keep("old", Listing("acme", now + 1 - KEPT, ()))
    one.keep("kept", Listing("acme", now, ()))
    one.save()
    two = SeenModels(str(tmp_path / "models.json"), clock.time)
    two.look()
    assert two.find("ahead") is None and two.find("old") is None and two.find("kept") is not None


# Where a bare name leads


async def test_a_listed_model_is_asked_by_its_bare_name(fault_server: FaultServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=fault_server.base_url, api_key=KEY)
    fault_server.accept(models=["some-model", "meta-llama/Llama-9", "llama9:latest"])
    llm = asking(fault_server, "acme")
    with pytest.raises(UnknownModelError, match=r"list_models\(\), or `llm-master models list --live`"):
        await llm.query("some-model", prompt="Hi")
    assert fault_server.requests == [], "resolving a name made a request"
    await llm.list_models()
    for name in ("some-model", "meta-llama/Llama-9", "llama9:latest"):
        answer = await llm.query(name, prompt="Hi")
        assert (answer.provider, answer.receipt.attempts[0].model) == ("acme", name)
        assert answer.receipt.why == "listed by the provider"
    with pytest.raises(UnknownModelError, match="did you mean|Did you mean|no provider serves") as caught:
        await llm.query("some-modl", prompt="Hi")
    assert "some-modl" in str(caught.value)
    assert fault_server.counts("path") == {"/v1/models": 1, "/v1/chat/completions": 3}


async def test_of_several_that_list_it_the_first_of_the_table_is_asked(server: ScriptedServer) -> None:
    server.answer_json(data("shared"), times=None)
    llm = asking(server, "acme1", "acme2", "acme3")
    await llm.list_models()
    plan = llm.plan("shared", prompt="Hi")
    assert plan.provider == "acme1"
    assert plan.why == "listed by the provider, the first of them in the table; acme2 and acme3 list it as well"
    llm = asking(server, "acme1", "acme2", "acme3", preferred_provider="acme3")
    await llm.list_models()
    plan = llm.plan("shared", prompt="Hi")
    assert plan.provider == "acme3"
    assert plan.why == "listed by the provider, the preferred one; acme1 and acme2 list it as well"
    llm = asking(server, "acme1", "acme2", rows={"acme1": {"ignore_models": ["shared"]}})
    await llm.list_models()
    assert llm.plan("shared", prompt="Hi").provider == "acme2"


async def test_whatever_else_names_it_comes_first(server: ScriptedServer) -> None:
    server.answer_json(data("acme2/x", "pre-fix", "acme2", "declared", "gpt-4.1"), times=None)
    PROVIDER_CONFIGS["acme1"] = ProviderConfig(base_url=server.base_url, api_key=KEY)
    PROVIDER_CONFIGS["acme2"] = ProviderConfig(
        base_url=server.base_url, api_key=KEY, prefixes=("pre-",), models=["declared"], default_model="usual"
    )
    llm = asking(server, "acme1", "acme2")
    await llm.list_models("acme1")
    assert [llm.plan(name, prompt="Hi").provider for name in ("acme2/x", "pre-fix", "acme2", "declared")] == ["acme2"] * 4
    with pytest.raises((MissingApiKeyError, ConfigurationError), match="OpenAI"):
        llm.plan("gpt-4.1", prompt="Hi")


async def test_a_newer_list_leads_elsewhere_and_an_old_one_still_leads(server: ScriptedServer) -> None:
    clock = FakeClock()
    llm = asking(server, "acme1", "acme2", clock=clock)
    server.answer_json(data("moving", "staying"))
    await llm.list_models("acme1")
    server.answer_json(data("moving"))
    await llm.list_models("acme2")
    assert llm.plan("moving", prompt="Hi").provider == "acme1"
    await clock.advance(7200)  # its end governs when it is asked for again, not what a running program may ask
    assert llm.plan("staying", prompt="Hi").provider == "acme1"
    server.answer_json(data("staying"))
    await llm.list_models("acme1")
    assert llm.plan("moving", prompt="Hi").provider == "acme2"
    # An outage takes nothing away.
    server.answer(status=500)
    await llm.list_models("acme1", refresh=True)
    assert llm.plan("staying", prompt="Hi").provider == "acme1"


async def test_no_name_makes_a_request(fault_server: FaultServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=fault_server.base_url, api_key=KEY)
    llm = asking(fault_server, "acme", preferred_provider="acme")
    for number in range(100):
        assert llm.plan(f"name-{number}", prompt="Hi").model == f"name-{number}"
    assert fault_server.requests == []


# Real servers


@pytest.mark.servers
async def test_a_real_server(llama: LlamaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMACPP_API_BASE", llama.base_url)
    llm = QueryLLM()
    found = (await llm.list_models("llamacpp"))["llamacpp"]
    assert found.state == "listed" and found.models[0].id == "tiny"
    assert found.models[0].context_window == CONTEXT and found.models[0].owned_by == "llamacpp"
    answer = await llm.query("tiny", prompt="Hi", temperature=0)
    assert (answer.content, answer.provider, answer.receipt.why) == (SENTENCE, "llamacpp", "listed by the provider")


@pytest.mark.servers
async def test_a_real_server_with_a_key(llama_with_key: LlamaServer) -> None:
    environment = {"LLAMACPP_API_BASE": llama_with_key.base_url}
    right = QueryLLM(LLMConfig(environment=environment, llamacpp_api_key=llama_with_key.api_key))
    assert (await right.list_models("llamacpp"))["llamacpp"].models[0].id == "tiny"
    wrong = (await QueryLLM(LLMConfig(environment=environment, llamacpp_api_key=KEY)).list_models("llamacpp"))["llamacpp"]
    assert wrong.state == "outage" and "401" in wrong.error and wrong.ids == ("default",)
    none = (await QueryLLM(LLMConfig(environment=environment)).list_models("llamacpp"))["llamacpp"]
    assert none.state == "outage" and "401" in none.error


async def test_faults_of_a_whole_server(fault_server: FaultServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=fault_server.base_url, api_key=KEY, models=["mine"])
    llm = asking(fault_server, "acme")
    for fault, said in (
        (Fault(path="/models", garbage="http"), "broke"),
        (Fault(path="/models", garbage="json"), "cannot be read"),
        (Fault(path="/models", reset_after=5), "broke"),
        (Fault(path="/models", close_after=5), "broke"),
        (Fault(503, path="/models"), "503"),
        (Fault(path="/models", delay="forever"), "no answer within 0.05 s"),
    ):
        fault_server.script(fault)
        found = (await llm.list_models(timeout=0.05 if fault.delay else 30))["acme"]
        assert found.state == "outage" and said in found.error and found.ids == ("mine",), fault
