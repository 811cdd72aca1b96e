"""Whether providers answer and take their keys, told apart in words, and without a paid request."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest
from servers.llama import LlamaServer
from servers.scripted import FOREVER, ScriptedServer, eventually

from llm_master import (
    PROVIDER_CONFIGS,
    BaseLLMProvider,
    BaseProvider,
    ConfigurationError,
    InvalidRequestError,
    LLMConfig,
    ModelConfig,
    ModelRegistry,
    ProviderConfig,
    QueryLLM,
)
from llm_master.rows import base_variable, key_variables
from llm_master.testing import FakeClock, FaultServer

KEY = "sk-health-0123456789"
OTHER = "sk-health-9876543210"
LIST = '{"data": [{"id": "large"}, {"id": "small"}]}'


def only(*names: str, **settings: Any) -> QueryLLM:
    """With these providers, and no others that could be asked."""
    rows = {name: {"enabled": False} for name in PROVIDER_CONFIGS if name not in names}
    return QueryLLM(LLMConfig(environment=settings.pop("environment", {}), rows=rows, **settings))


@pytest.fixture
def acme(server: ScriptedServer) -> QueryLLM:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, api_key=KEY, default_model="large")
    return only("acme")


def refuses(server: ScriptedServer, status: int, message: str = "no", **how: Any) -> None:
    server.answer_json({"error": {"message": message}}, status=status, **how)


# What is free


async def test_a_key_that_the_provider_takes(acme: QueryLLM, server: ScriptedServer) -> None:
    server.answer(LIST)
    refuses(server, 401)  # of who has none
    health = (await acme.check_health())["acme"]
    assert (health.state, health.status, health.models, health.key) == ("valid", 200, 2, "acme row …6789")
    assert health.detail == "it lists its models for this key" and health.latency is not None
    (key,) = health.keys
    assert (key.state, key.key, key.latency) == ("valid", health.key, health.latency)
    assert [(request.method, request.path) for request in server.requests] == [("GET", "/v1/models")] * 2
    assert [request.headers.get("authorization") for request in server.requests] == [f"Bearer {KEY}", None]
    assert KEY not in repr(health)


@pytest.mark.parametrize(
    ("status", "body", "headers", "state", "said"),
    [
        (401, '{"error": {"message": "Incorrect API key provided: sk-health-0123456789"}}', {}, "invalid", "acme row …6789"),
        (403, '{"error": {"message": "Invalid API key"}}', {}, "invalid", "Invalid API key"),
        (403, '{"error": {"message": "missing scope"}}', {}, "unsupported", "may not see the list of models"),
        (403, "<html><title>Blocked</title>", {}, "unreachable", "something on the way refuses"),
        (402, '{"error": {"message": "top up"}}', {}, "valid", "no funds"),
        (429, '{"error": {"message": "slow down"}}', {}, "unsupported", "check again later"),
        (404, '{"error": {"message": "nothing here"}}', {}, "unsupported", "is base_url right?"),
        (405, "", {}, "unsupported", "paid=True"),
        (500, "{}", {}, "unreachable", "500"),
        (503, "<html><title>Down</title>", {}, "unreachable", "503 an HTML page: Down"),
        (302, "", {"location": "https://login.example"}, "unreachable", "moved to https://login.example"),
        (407, "", {}, "unreachable", "a proxy's answer, which wants a login"),
        (200, "<html><title>Hotel</title>", {}, "unreachable", "a network that asks for a login first"),
        (200, "garbage", {}, "unreachable", "cannot be read"),
        (200, '{"error": {"message": "Not you", "code": "invalid_api_key"}}', {}, "invalid", "Not you"),
    ],
)
async def test_what_an_answer_says_of_a_key(
    acme: QueryLLM, server: ScriptedServer, status: int, body: str, headers: dict[str, str], state: str, said: str
) -> None:
    server.answer(body, status=status, headers=headers)
    health = (await acme.check_health("acme"))["acme"]
    assert (health.state, health.status) == (state, status), health
    assert said in health.detail
    assert KEY not in repr(health) and health.latency is not None
    assert len(server.requests) == 1


async def test_a_list_for_everybody_says_nothing_of_a_key(acme: QueryLLM, server: ScriptedServer) -> None:
    server.answer(LIST, times=2)
    health = (await acme.check_health())["acme"]
    assert (health.state, health.models) == ("unsupported", 2)
    assert "without a key as well" in health.detail and "paid=True" in health.detail
    server.answer(LIST)
    server.answer(status=500)
    assert "could not be found out" in (await acme.check_health())["acme"].detail


async def test_one_that_wants_no_key(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False)
    server.answer(LIST)
    health = (await only("acme").check_health())["acme"]
    assert (health.state, health.key, health.detail) == ("valid", None, "it answers, and wants no key")
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", [name for name, row in PROVIDER_CONFIGS.items() if "key" in row.paths])
@pytest.mark.parametrize(("status", "state"), [(200, "valid"), (401, "invalid")])
async def test_a_row_may_say_what_only_a_valid_key_is_shown(server: ScriptedServer, name: str, status: int, state: str) -> None:
    row = PROVIDER_CONFIGS[name]
    llm = QueryLLM(LLMConfig(environment={base_variable(row): server.base_url, key_variables(row)[0]: KEY}))
    server.answer("{}", status=status)
    assert (await llm.check_health(name))[name].state == state
    assert any(value.endswith(KEY) for value in server.request.headers.values())
    assert urlsplit(server.request.path).path.endswith(urlsplit(row.paths["key"]).path)
    # A page that somebody else shows is no proof of anything.
    server.answer("<html>")
    assert (await llm.check_health(name))[name].state == "unreachable"


async def test_each_key_is_checked(fault_server: FaultServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=fault_server.base_url)
    fault_server.accept(keys=[OTHER])
    health = (await only("acme", api_keys={"acme": [KEY, OTHER]}).check_health())["acme"]
    assert [(key.key, key.state) for key in health.keys] == [
        ("api_keys['acme'][0] …6789", "invalid"),
        ("api_keys['acme'][1] …3210", "valid"),
    ]
    assert (health.state, health.key) == ("valid", health.keys[1].key)


async def test_no_list_and_nothing_else_that_is_free() -> None:
    health = (await only("vertex", vertex_api_key=KEY).check_health())["vertex"]
    assert health.state == "unsupported" and "no list of models" in health.detail and health.latency is None


async def test_what_is_not_configured(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["keyless"] = ProviderConfig(base_url=server.base_url)
    llm = only("keyless")
    assert await llm.check_health() == {}
    for name, said in (("keyless", "KEYLESS_API_KEY"), ("openai", "switched off")):
        health = (await llm.check_health(name))[name]
        assert health.state == "not_configured" and said in health.detail
    assert server.requests == []


async def test_nothing_is_taken_and_no_key_is_marked(acme: QueryLLM, server: ScriptedServer) -> None:
    refuses(server, 401)
    assert (await acme.check_health())["acme"].state == "invalid"
    assert acme.key_states() == []
    server.answer_json({"choices": [{"message": {"content": "Hi"}}]})
    assert (await acme.query("acme/large", prompt="Hi")).content == "Hi"


# What is not reached


async def detail_of(base_url: str, **settings: Any) -> str:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=base_url, api_key=KEY, **settings)
    health = (await only("acme").check_health())["acme"]
    assert health.state == "unreachable" and health.status is None and health.latency is None
    return health.detail


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def test_a_host_that_there_is_not() -> None:
    assert "the host of acme.invalid:443 is not known: check base_url" in await detail_of("https://acme.invalid/v1")


async def test_nobody_listens() -> None:
    port = free_port()
    said = await detail_of(f"http://127.0.0.1:{port}/v1")
    assert f"no connection to 127.0.0.1:{port}" in said and "Does the server run there?" in said


async def test_no_tls_there(fault_server: FaultServer) -> None:
    said = await detail_of(fault_server.base_url.replace("http:", "https:"))
    assert "does not speak TLS" in said and "begin base_url with http://" in said


async def test_a_connection_that_breaks(server: ScriptedServer) -> None:
    server.answer("{", end="reset", framing="raw")
    assert "broke" in await detail_of(server.base_url)


async def test_three_seconds_for_thirty_of_which_ten_are_dead(server: ScriptedServer) -> None:
    clock = FakeClock()
    names = [f"acme{number}" for number in range(30)]
    for name in names:
        PROVIDER_CONFIGS[name] = ProviderConfig(base_url=f"{server.url}/{name}", requires_key=False)
    server.answer(delay=FOREVER, times=10)
    server.answer(LIST, times=20)
    checking = asyncio.create_task(only(*names, clock=clock).check_health())
    assert await server.until_asked(30)
    await clock.advance(2.9)
    assert not checking.done()
    await clock.advance(0.2)
    states = [health.state for health in (await checking).values()]
    assert (states.count("valid"), states.count("unreachable")) == (20, 10)


async def test_hosts_whose_look_up_hangs_keep_nobody_else_waiting(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"acme{number}" for number in range(60)]
    for name in names:
        PROVIDER_CONFIGS[name] = ProviderConfig(base_url=f"http://{name}.invalid/v1", requires_key=False)
    PROVIDER_CONFIGS["home"] = ProviderConfig(base_url=f"http://localhost:{server.port}/v1", requires_key=False)
    answered = threading.Event()
    look_up = socket.getaddrinfo

    def hanging(host: Any, *arguments: Any, **options: Any) -> Any:
        if str(host).endswith(".invalid"):
            answered.wait(10)
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    clock = FakeClock()
    server.answer(LIST)
    checking = asyncio.create_task(only(*names, clock=clock).check_health())
    assert await eventually(lambda: sum(thread.name.startswith("look up acme") for thread in threading.enumerate()) == len(names))
    assert (await only("home").check_health(timeout=30))["home"].state == "valid"
    assert not checking.done()
    await clock.advance(3.1)
    states = [health.state for health in (await checking).values()]
    answered.set()
    assert states == ["unreachable"] * len(names)


async def test_the_time_is_told(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, api_key=KEY)
    server.answer(delay=FOREVER)
    health = (await only("acme").check_health(timeout=0.05))["acme"]
    assert (health.state, health.detail) == ("unreachable", "no answer within 0.05 s")


# A proxy in the way


@pytest.fixture
def proxied(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> ScriptedServer:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://me:secret@127.0.0.1:{server.port}")
    return server


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (407, "", "this is a proxy's answer, which wants a login: put one into HTTP_PROXY"),
        (502, "<html><title>Squid</title>", "the way leads through the proxy http://127.0.0.1:{port}, and this may be its doing"),
        (200, "<html><title>Please log in</title>", "through the proxy http://127.0.0.1:{port}"),
    ],
)
async def test_a_proxy_that_answers_itself(proxied: ScriptedServer, status: int, body: str, said: str) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url="http://acme.example/v1", api_key=KEY)
    proxied.answer(body, status=status)
    health = (await only("acme").check_health())["acme"]
    assert health.state == "unreachable" and said.format(port=proxied.port) in health.detail
    assert "secret" not in health.detail
    assert proxied.request.path == "http://acme.example/v1/models"


@pytest.mark.parametrize(("status", "said"), [(407, "wants a login: put one into HTTPS_PROXY"), (403, "403 Forbidden; ask who runs it")])
async def test_a_proxy_that_lets_nobody_through(proxied: ScriptedServer, status: int, said: str) -> None:
    proxied.answer(status=status)
    detail = await detail_of("https://acme.example/v1")
    assert "the proxy on the way to acme.example:443 refused" in detail and said in detail
    assert proxied.request.method == "CONNECT" and "secret" not in detail


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:{port}", "http://proxy.invalid:3128"])
async def test_a_proxy_that_is_not_there(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy.format(port=free_port()))
    said = await detail_of("https://acme.example/v1")
    assert "no connection to the proxy" in said and "on the way to acme.example:443" in said and "NO_PROXY" in said


async def test_a_proxy_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url="https://acme.example/v1", api_key=KEY)
    health = (await only("acme").check_health())["acme"]
    assert health.state == "not_configured" and "socks5" in health.detail


# What is paid


async def test_a_paid_check_is_one_request_for_one_token(acme: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json({"choices": [{"message": {"content": "H"}}]})
    health = (await acme.check_health(paid=True))["acme"]
    assert (health.state, health.status, health.detail) == ("valid", 200, "large answered a paid request, for one token")
    assert server.request.path == "/v1/chat/completions"
    assert server.request.json["max_tokens"] == 1 and server.request.json["model"] == "large"
    assert acme.key_states() == [] or all(state.uses == 0 for state in acme.key_states())


@pytest.mark.parametrize(
    ("status", "message", "state"),
    [
        (401, "no", "invalid"),
        (400, "max_tokens is too small", "valid"),
        (404, "no such page", "unsupported"),
        (402, "no money", "valid"),
        (429, "slow down", "unsupported"),
        (500, "oh", "unreachable"),
    ],
)
async def test_what_a_paid_check_says(acme: QueryLLM, server: ScriptedServer, status: int, message: str, state: str) -> None:
    refuses(server, status, message)
    health = (await acme.check_health(paid=True))["acme"]
    assert (health.state, health.status) == (state, status) and message in health.detail


async def test_a_paid_check_asks_in_the_providers_words(server: ScriptedServer) -> None:
    llm = QueryLLM(LLMConfig(environment={"ANTHROPIC_API_BASE": server.base_url, "ANTHROPIC_API_KEY": KEY}))
    server.answer_json({"content": [{"type": "text", "text": "H"}], "usage": {"input_tokens": 1, "output_tokens": 1}})
    assert (await llm.check_health("anthropic", paid=True))["anthropic"].state == "valid"
    assert server.request.path == "/v1/messages" and server.request.json["max_tokens"] == 1


async def test_no_image_is_made_to_check_a_key(server: ScriptedServer) -> None:
    ModelRegistry.register("acme/painter", ModelConfig(capabilities={"chat": False}))
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, api_key=KEY, default_model="painter")
    PROVIDER_CONFIGS["other"] = ProviderConfig(base_url=server.base_url, api_key=KEY, default_model="x", generate_map={"x": paint})
    health = await only("acme", "other").check_health(paid=True)
    assert {own.state for own in health.values()} == {"unsupported"}
    assert server.requests == []


async def paint(provider: Any, messages: Any, model: str, **options: Any) -> str:
    raise AssertionError("nobody asked for it")


async def test_without_a_default_model_the_first_that_is_listed_is_asked(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False)
    server.answer(LIST)
    server.answer_json({"choices": [{"message": {"content": "H"}}]})
    assert (await only("acme").check_health(paid=True))["acme"].state == "valid"
    assert server.requests[1].json["model"] == "large"
    server.answer('{"data": []}')
    health = (await only("acme").check_health(paid=True))["acme"]
    assert health.state == "unsupported" and "default_model" in health.detail


# Classes of users' own


class Judge(BaseLLMProvider):
    verdict: Any = True

    async def generate(self, messages: Any, model: str, **options: Any) -> str:
        return "Hi"

    async def health_check(self) -> bool:
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return bool(self.verdict)


@pytest.mark.parametrize(
    ("verdict", "state", "said"),
    [
        (True, "valid", "says yes"),
        (False, "unreachable", "says no"),
        (ZeroDivisionError("by zero"), "unreachable", "ZeroDivisionError: by zero"),
    ],
)
async def test_what_a_class_says_of_itself(verdict: Any, state: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    own = type("Own", (Judge,), {"verdict": verdict})
    PROVIDER_CONFIGS["acme"] = ProviderConfig(requires_key=False, provider_class=own)
    health = (await only("acme").check_health())["acme"]
    assert health.state == state and said in health.detail
    assert ("ZeroDivisionError" in caplog.text) is isinstance(verdict, Exception)


class Short(BaseProvider):
    async def generate(self, prompt: str, params: Any = None) -> str:
        return "Hi"


class Telling(Short):
    async def health_check(self) -> bool:
        return False


@pytest.mark.parametrize(("cls", "state"), [(Short, "unsupported"), (Telling, "unreachable")])
async def test_the_short_form(cls: type, state: str) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(requires_key=False, provider_class=cls, base_url="http://127.0.0.1:1")
    assert (await only("acme").check_health())["acme"].state == state


@pytest.mark.parametrize(("model", "state"), [("echo", "valid"), ("unhealthy", "unreachable")])
async def test_the_mock(model: str, state: str) -> None:
    assert (await QueryLLM(rows={"mock": {"default_model": model}}, environment={}).check_health("mock"))["mock"].state == state


async def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'groq'"):
        await QueryLLM().check_health("groqq")
    with pytest.raises(InvalidRequestError, match="timeout is 0"):
        await QueryLLM().check_health(timeout=0)


# Real servers


@pytest.mark.servers
@pytest.mark.parametrize("paid", [False, True])
async def test_a_real_server_with_a_key(llama_with_key: LlamaServer, *, paid: bool) -> None:
    environment = {"LLAMACPP_API_BASE": llama_with_key.base_url}
    for key, state in ((llama_with_key.api_key, "valid"), (KEY, "invalid"), (None, "invalid")):
        llm = QueryLLM(LLMConfig(environment=environment, llamacpp_api_key=key))
        health = (await llm.check_health("llamacpp", paid=paid, timeout=30))["llamacpp"]
        assert (health.state, health.status) == (state, 200 if state == "valid" else 401), health


@pytest.mark.servers
async def test_a_real_server_without(llama: LlamaServer) -> None:
    environment = {"LLAMACPP_API_BASE": llama.base_url}
    health = (await QueryLLM(LLMConfig(environment=environment)).check_health("llamacpp"))["llamacpp"]
    assert (health.state, health.models, health.detail) == ("valid", 1, "it answers, and wants no key")
    # A key that it never looks at is no valid one.
    health = (await QueryLLM(LLMConfig(environment=environment, llamacpp_api_key=KEY)).check_health("llamacpp"))["llamacpp"]
    assert health.state == "unsupported"
