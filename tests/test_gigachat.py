"""GigaChat: its tokens, what goes out, what comes back, and what is refused before it is sent.

Sources: https://developers.sber.ru/docs/ru/gigachat/api/reference/rest/gigachat-api (OAuth), .../post-chat, .../post-file
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
import sys
import uuid
from decimal import Decimal
from typing import Any

import attrs
import pytest
import trustme
from servers.format_gigachat import GIGACHAT, GIGACHAT2, STATE
from servers.media import PNG
from servers.scripted import GATE, ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    ConfigurationError,
    InvalidRequestError,
    LLMConfig,
    ModelConfig,
    ModelRegistry,
    PermissionDeniedError,
    ProviderConnectionError,
    ProviderError,
    QueryLLM,
    RateLimitError,
    ReasoningDelta,
    ServerError,
)
from llm_master.provider_configs import effective
from llm_master.providers.gigachat import GigaChatProvider
from llm_master.testing import FakeClock

KEY = base64.b64encode(b"0cb8e2a4-id:5a1f-secret").decode()
MODEL = "gigachat/GigaChat-2"
TOKEN = "eyJhbGciOiJSU0EifQ..Dx7iF7cCxL8SSTKx.Uu9bPK3tPe.vjYrk3T7vGM6"
PIXEL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
WEATHER = {"type": "function", "function": {"name": "weather", "description": "W", "parameters": {"type": "object", "properties": {}}}}
TIME = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}


class Giga:
    """The provider, its clock, and the server that stands behind both of its addresses."""

    def __init__(self, server: ScriptedServer, version: int = 1, **environment: str) -> None:
        self.server = server
        self.clock = FakeClock(auto_advance=True)
        variables = {"GIGACHAT_API_BASE": f"{server.url}/api/v{version}", "GIGACHAT_CREDENTIALS": KEY, **environment}
        self.variables = {name: value for name, value in variables.items() if value}
        self.llm = QueryLLM(LLMConfig(environment=self.variables, clock=self.clock))

    def gives(self, token: str = "token-1", life: float = 1800, **how: Any) -> None:
        self.server.answer_json({"access_token": token, "expires_at": int((self.clock.time() + life) * 1000)}, **how)

    def says(self, text: str = "Hello.", **how: Any) -> None:
        self.server.answer_json(GIGACHAT.answer(text), **how)

    def refuses(self, status: int = 401, message: str = "Unauthorized", **how: Any) -> None:
        self.server.answer_json({"status": status, "message": message}, status=status, **how)

    async def query(self, prompt: str = "Hi", **options: Any) -> Any:
        return await self.llm.query(MODEL, prompt=prompt, **options)

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.server.requests]

    @property
    def bearers(self) -> list[str]:
        return [request.headers["authorization"] for request in self.server.requests]


@pytest.fixture
def giga(server: ScriptedServer) -> Giga:
    return Giga(server)


@pytest.fixture
def open_giga(server: ScriptedServer) -> Giga:
    """One that has a token already."""
    return Giga(server, GIGACHAT_CREDENTIALS="", GIGACHAT_ACCESS_TOKEN="token-0")


OAUTH, CHAT = "/api/v2/oauth", "/api/v1/chat/completions"


# Tokens


async def test_a_token_is_fetched_as_the_reference_has_it(giga: Giga) -> None:
    giga.gives()
    giga.says()
    assert (await giga.query()).content == "Hello."
    asked, sent = giga.server.requests
    assert (asked.method, asked.path, asked.body) == ("POST", OAUTH, b"scope=GIGACHAT_API_PERS")
    assert asked.headers["authorization"] == f"Basic {KEY}"
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert uuid.UUID(asked.headers["rquid"]).version == 4
    assert (sent.path, sent.headers["authorization"]) == (CHAT, "Bearer token-1")


async def test_one_token_serves_many_calls(giga: Giga) -> None:
    giga.gives()
    giga.says(times=None)
    await asyncio.gather(*(giga.query() for _ in range(20)))
    await giga.query()
    assert giga.paths.count(OAUTH) == 1


async def test_each_key_has_a_token_of_its_own(server: ScriptedServer) -> None:
    giga = Giga(server, GIGACHAT_CREDENTIALS="", GIGACHAT_API_KEY_1=KEY, GIGACHAT_API_KEY_2=base64.b64encode(b"other:secret").decode())
    for number in (1, 2):
        giga.gives(f"token-{number}")
        giga.says()
        await giga.query()
    assert giga.bearers[1::2] == ["Bearer token-1", "Bearer token-2"]


async def test_it_is_renewed_a_minute_before_its_end(giga: Giga) -> None:
    giga.gives()
    giga.says()
    await giga.query()
    await giga.clock.advance(1739)
    giga.says()
    await giga.query()
    await giga.clock.advance(1)
    giga.gives("token-2")
    giga.says(times=None)
    await giga.query()
    await giga.query()
    assert giga.bearers[1:] == ["Bearer token-1", "Bearer token-1", f"Basic {KEY}", "Bearer token-2", "Bearer token-2"]


@pytest.mark.parametrize("life", [1800, -86_400])
async def test_an_end_in_seconds_and_a_clock_that_is_wrong(giga: Giga, life: float) -> None:
    """The reference says seconds, the API milliseconds."""
    giga.server.answer_json({"access_token": "token-1", "expires_at": giga.clock.time() + life})
    giga.says(times=None)
    for _ in range(3):
        await giga.query()
    assert giga.paths.count(OAUTH) == 1


async def test_the_other_shape_of_a_token(giga: Giga) -> None:
    giga.server.answer_json({"tok": "token-1", "exp": int(giga.clock.time()) + 1800})
    giga.says()
    await giga.query()
    assert giga.bearers[1] == "Bearer token-1"


@pytest.mark.parametrize("how", ["query", "stream", "embed", "list_models"])
async def test_a_token_that_is_refused_is_fetched_anew_once(giga: Giga, how: str) -> None:
    giga.gives()
    giga.refuses()
    giga.gives("token-2")
    data = [{"object": "embedding", "index": 0, "embedding": [0.5], "usage": {"prompt_tokens": 3}}]
    if how == "stream":
        giga.server.answer_sse(*GIGACHAT.stream("Hel", "lo."))
        async with giga.llm.stream(MODEL, prompt="Hi") as stream:
            assert [piece async for piece in stream] == ["Hel", "lo."]
        assert len(stream.response.receipt.attempts) == 1
    elif how == "query":
        giga.says()
        answer = await giga.query()
        assert (answer.content, len(answer.receipt.attempts)) == ("Hello.", 1)
    elif how == "embed":
        giga.server.answer_json({"object": "list", "data": data, "model": "Embeddings"})
        assert (await giga.llm.embed("gigachat/Embeddings", ["a"])).usage.input_tokens == 3
    else:
        giga.server.answer_json({"data": [{"id": "GigaChat-2", "type": "chat"}]})
        row = attrs.evolve(effective(giga.llm.config).rows["gigachat"], api_key=KEY)
        assert await GigaChatProvider(row).list_models() == ["GigaChat-2"]
    assert giga.bearers == [f"Basic {KEY}", "Bearer token-1", f"Basic {KEY}", "Bearer token-2"]


@pytest.mark.parametrize("how", ["query", "stream"])
async def test_a_second_refusal_is_the_answer(giga: Giga, how: str) -> None:
    giga.gives()
    giga.refuses()
    giga.gives("token-2")
    giga.refuses()
    with pytest.raises(AuthenticationError, match="401 Unauthorized") as caught:
        if how == "query":
            await giga.query()
        else:
            async with giga.llm.stream(MODEL, prompt="Hi") as stream:
                assert [piece async for piece in stream] == []
    assert len(giga.paths) == 4
    assert (caught.value.status, len(caught.value.receipt.attempts)) == (401, 1)


async def test_many_that_are_refused_at_once_fetch_one_token(giga: Giga) -> None:
    giga.gives()
    giga.says()
    await giga.query()
    # Held until all have come: the server answers in the order in which it is asked.
    giga.server.answer(GATE, json.dumps({"status": 401, "message": "Unauthorized"}), status=401, times=5)
    giga.gives("token-2")
    giga.says(times=None)
    queries = asyncio.gather(*(giga.query() for _ in range(5)))
    assert await giga.server.until_asked(2 + 5)
    for _ in range(5):
        giga.server.release()
    answers = await queries
    assert {answer.content for answer in answers} == {"Hello."}
    assert giga.paths.count(OAUTH) == 2


async def test_an_access_token_is_used_as_it_is(server: ScriptedServer) -> None:
    for variables in ({"GIGACHAT_ACCESS_TOKEN": "any-text"}, {"GIGACHAT_API_KEY": TOKEN}, {"GIGACHAT_CREDENTIALS": TOKEN}):
        giga = Giga(server, **{"GIGACHAT_CREDENTIALS": "", **variables})
        giga.says()
        await giga.query()
        assert server.requests[-1].headers["authorization"] == f"Bearer {next(iter(variables.values()))}"
    assert set(giga.paths) == {CHAT}


async def test_an_access_token_that_has_ended_says_what_to_do(open_giga: Giga) -> None:
    open_giga.refuses(message="Token has expired")
    with pytest.raises(AuthenticationError, match="Token has expired.*GIGACHAT_CREDENTIALS"):
        await open_giga.query()
    assert len(open_giga.paths) == 1


async def test_a_refused_key_is_an_error_that_names_the_place_the_scope_and_the_remedy(server: ScriptedServer) -> None:
    giga = Giga(server, GIGACHAT_SCOPE="GIGACHAT_API_B2B")
    giga.server.answer_json({"code": 7, "message": "scope from db not fully includes consumed scope"}, status=400)
    with pytest.raises(AuthenticationError) as caught:
        await giga.query()
    text = str(caught.value)
    for part in (f"{server.url}{OAUTH}", "scope from db", "GIGACHAT_API_B2B", "$GIGACHAT_SCOPE"):
        assert part in text
    assert giga.server.request.body == b"scope=GIGACHAT_API_B2B"


async def test_a_key_that_is_no_pair_is_said_to_be_none(server: ScriptedServer) -> None:
    giga = Giga(server, GIGACHAT_CREDENTIALS="7b1c0b5e-client-secret")
    giga.server.answer_json({"code": 4, "message": "Can't decode 'Authorization' header"}, status=400)
    with pytest.raises(AuthenticationError, match="not the client secret"):
        await giga.query()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(500, ServerError), (503, ServerError), (429, RateLimitError), (401, AuthenticationError), (403, AuthenticationError)],
)
async def test_a_token_endpoint_that_fails(giga: Giga, status: int, kind: type[ProviderError]) -> None:
    giga.server.answer_json({"code": 1, "message": "no"}, status=status, times=None, headers={"retry-after": "9999"})
    with pytest.raises(kind, match=re.escape(f"no access token from {giga.server.url}{OAUTH}")) as caught:
        await giga.query()
    assert caught.value.status == status
    assert set(giga.paths) == {OAUTH}


async def test_a_token_endpoint_that_is_down_is_named_and_tried_again(giga: Giga) -> None:
    giga.server.answer(framing="raw", end="close")
    giga.gives()
    giga.says()
    answer = await giga.query()
    assert answer.content == "Hello."
    first, second = answer.receipt.attempts
    assert f"no access token from {giga.server.url}{OAUTH}" in first.error and first.error.startswith("ProviderConnectionError")
    assert second.error is None


@pytest.mark.parametrize(
    "body", ["", "<html>", "[]", "null", '"token"', '{"access_token": 7}', '{"access_token": "a\\nb"}', '{"expires_at": 1}']
)
async def test_a_token_endpoint_that_answers_something_else(giga: Giga, body: str) -> None:
    giga.server.answer(body, times=None)
    with pytest.raises(ServerError, match="no access token: is it the right address"):
        await giga.query()


async def test_a_fetch_that_fails_is_not_kept(giga: Giga) -> None:
    giga.server.answer_json({"message": "no"}, status=500, times=3)
    with pytest.raises(ServerError):
        await giga.query()
    giga.gives()
    giga.says()
    assert (await giga.query()).content == "Hello."


async def test_neither_key_nor_token_is_shown(giga: Giga, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    plan = giga.llm.plan(MODEL, prompt="Hi")
    assert plan.headers["Authorization"] == "…"
    giga.gives("token-of-mine")
    giga.refuses(422, "Invalid params: token-of-mine")
    with pytest.raises(InvalidRequestError, match="Invalid params: the token") as caught:
        await giga.query()
    giga.server.answer_json({"status": 422, "message": "token-of-mine again"})
    with pytest.raises(InvalidRequestError, match="the token again"):
        await giga.query()
    giga.server.answer_sse('data: {"status": 422, "message": "token-of-mine in a stream"}\n\n')
    with pytest.raises(InvalidRequestError, match="the token in a stream"):
        async with giga.llm.stream(MODEL, prompt="Hi") as stream:
            assert [piece async for piece in stream] == []
    giga.says()
    answer = await giga.query()
    shown = f"{caught.value!r}{caught.value.receipt!r}{answer!r}{answer.receipt!r}{giga.llm!r}{caplog.text}{giga.llm.plan(MODEL, prompt='Hi')!r}"
    assert "token-of-mine" not in shown and KEY not in shown
    giga = Giga(giga.server)
    giga.server.answer_json({"message": f"no user for {KEY}"}, status=401)
    with pytest.raises(AuthenticationError) as caught:
        await giga.query()
    assert KEY not in f"{caught.value}{caught.value.receipt!r}{caplog.text}"


async def test_one_who_is_cancelled_leaves_no_connection(giga: Giga) -> None:
    giga.gives(delay=3600)
    task = asyncio.create_task(giga.query())
    assert await giga.server.until_asked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await giga.server.until_open(0)


# Settings


async def test_where_tokens_are_may_be_said(server: ScriptedServer) -> None:
    giga = Giga(server, GIGACHAT_AUTH_URL=f"{server.url}/elsewhere/token")
    giga.gives()
    giga.says()
    await giga.query()
    assert giga.paths == ["/elsewhere/token", CHAT]
    for wrong in ("elsewhere", "ftp://elsewhere"):
        with pytest.raises(ConfigurationError, match="GIGACHAT_AUTH_URL.*https://"):
            await Giga(server, GIGACHAT_AUTH_URL=wrong).query()


@pytest.mark.parametrize(
    ("base", "oauth"),
    [
        # Its own second version, and its host for models in early access.
        ("https://gigachat.devices.sberbank.ru/api/v2", "https://ngw.devices.sberbank.ru:9443/api/v2/oauth"),
        ("https://gigachat-preview.devices.sberbank.ru/api/v1", "https://ngw.devices.sberbank.ru:9443/api/v2/oauth"),
        # Whoever moves it elsewhere moves all of it.
        ("https://proxy.example.com/giga/v1", "https://proxy.example.com/api/v2/oauth"),
        ("http://127.0.0.1:8000/api/v1", "http://127.0.0.1:8000/api/v2/oauth"),
        ("http://localhost:8000/api/v1", "http://localhost:8000/api/v2/oauth"),
    ],
)
def test_tokens_come_from_the_owner_of_the_address(base: str, oauth: str) -> None:
    assert effective(LLMConfig(environment={"GIGACHAT_API_BASE": base})).rows["gigachat"].paths["oauth"] == oauth
    said = {"GIGACHAT_API_BASE": base, "GIGACHAT_AUTH_URL": "https://auth.example.com/oauth"}
    assert effective(LLMConfig(environment=said)).rows["gigachat"].paths["oauth"] == "https://auth.example.com/oauth"


def test_variables_set_the_fields_of_any_row() -> None:
    environment = {
        "GIGACHAT_SCOPE": "GIGACHAT_API_CORP",
        "GIGACHAT_CA_BUNDLE_FILE": "/etc/russian_trusted_root_ca.pem",
        "GIGACHAT_VERIFY_SSL_CERTS": "false",
        "OPENAI_VERIFY_SSL": "0",
        "OPENAI_CA_BUNDLE": "/etc/own.pem",
        "MISTRAL_FOLDER_ID": "b1g",
    }
    rows = effective(LLMConfig(environment=environment)).rows
    assert (rows["gigachat"].scope, rows["gigachat"].ca_bundle, rows["gigachat"].verify_ssl) == (
        "GIGACHAT_API_CORP",
        "/etc/russian_trusted_root_ca.pem",
        False,
    )
    assert (rows["openai"].verify_ssl, rows["openai"].ca_bundle, rows["mistral"].folder_id) == (False, "/etc/own.pem", "b1g")


TLS_SERVER = """
import json, ssl, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = (sys.argv[2] if self.path.endswith("oauth") else sys.argv[3]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

server = HTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@pytest.fixture
def tls(tmp_path: Any) -> Any:
    """Address of a server with both of GigaChat's, and the file of the authority that signed its certificate."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    token = json.dumps({"access_token": "token-1", "expires_at": 4_102_444_800_000})
    command = [sys.executable, "-c", TLS_SERVER, str(tmp_path / "server.pem"), token, json.dumps(GIGACHAT.answer("Hello."))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield f"https://127.0.0.1:{int(process.stdout.readline())}/api/v1", str(tmp_path / "ca.pem")
    finally:
        process.kill()
        process.communicate()


async def test_the_certificates_of_both_addresses_are_checked_by_the_same_authority(tls: Any) -> None:
    base_url, bundle = tls

    def over(**more: str) -> QueryLLM:
        environment = {"GIGACHAT_API_BASE": base_url, "GIGACHAT_CREDENTIALS": KEY, "GIGACHAT_MAX_RETRIES": "0", **more}
        return QueryLLM(LLMConfig(environment=environment))

    with pytest.raises(ProviderConnectionError, match="no access token from.*oauth.*certificate.*ca_bundle"):
        await over().query(MODEL, prompt="Hi")
    assert (await over(GIGACHAT_CA_BUNDLE=bundle).query(MODEL, prompt="Hi")).content == "Hello."
    assert (await over(GIGACHAT_CA_BUNDLE_FILE=bundle).query(MODEL, prompt="Hi")).content == "Hello."
    assert (await over(GIGACHAT_VERIFY_SSL="false").query(MODEL, prompt="Hi")).content == "Hello."
    with pytest.raises(ConfigurationError, match="ca_bundle.*nowhere.pem"):
        await over(GIGACHAT_CA_BUNDLE="/nowhere.pem").query(MODEL, prompt="Hi")


# What goes out


def body(giga: Giga, messages: Any = None, model: str = MODEL, **options: Any) -> Any:
    return giga.llm.plan(model, messages or [{"role": "user", "content": "Hi"}], **options).body


def test_options_in_the_apis_words(giga: Giga) -> None:
    sent = body(
        giga,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        max_completion_tokens=9,
        temperature=0,
        reasoning_effort="low",
        repetition_penalty=1.1,
        profanity_check=True,
        update_interval=0.5,
        n=1,
        stream=True,
    )
    assert sent == {
        "model": "GigaChat-2",
        "messages": [{"role": "user", "content": "Hi"}],
        "functions": [WEATHER["function"]],
        "function_call": {"name": "weather"},
        "max_tokens": 9,
        "temperature": 0.0001,
        "reasoning_effort": "low",
        "repetition_penalty": 1.1,
        "profanity_check": True,
        "update_interval": 0.5,
        "stream": True,
    }
    assert giga.server.requests == []


def test_the_same_in_the_second_version(server: ScriptedServer) -> None:
    giga = Giga(server, version=2)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
    ModelRegistry.register("gigachat/GigaChat-3-Ultra", ModelConfig(capabilities=["json_schema", "chat"]))
    sent = body(
        giga,
        model="gigachat/GigaChat-3-Ultra",
        tools=[WEATHER, {"web_search": {"type": "actual_info_web_search"}}],
        tool_choice="auto",
        max_tokens=9,
        reasoning_effort="low",
        profanity_check=False,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}},
    )
    assert sent == {
        "model": "GigaChat-3-Ultra",
        "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
        "tools": [{"web_search": {"type": "actual_info_web_search"}}, {"functions": {"specifications": [WEATHER["function"]]}}],
        "tool_config": {"mode": "auto"},
        "model_options": {
            "max_tokens": 9,
            "reasoning": {"effort": "low"},
            "response_format": {"type": "json_schema", "schema": schema, "strict": True},
        },
        "disable_filter": True,
    }


def test_that_a_tool_must_be_called_can_be_said_of_one_only(giga: Giga) -> None:
    assert body(giga, tools=[WEATHER], tool_choice="required")["function_call"] == {"name": "weather"}
    with pytest.raises(InvalidRequestError, match="'tool_choice'"):
        body(giga, tools=[WEATHER, TIME], tool_choice="required")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"stop": ["END"]}, "'stop'"),
        ({"seed": 7}, "'seed'"),
        ({"user": "me"}, "'user'"),
        ({"n": 2}, "'n'"),
        ({"parallel_tool_calls": True, "tools": [WEATHER]}, "'parallel_tool_calls'"),
        ({"tools": [{"web_search": {}}]}, "web_search.*second version"),
        ({"reasoning_effort": "none"}, "reasoning_effort is 'none'"),
        ({"tool_choice": "sometimes", "tools": [WEATHER]}, "tool_choice is 'sometimes'"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(giga: Giga, options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        body(giga, **options)


def call(name: str, function: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": function, "arguments": arguments}}


CALLED: list[dict[str, Any]] = [
    {"role": "user", "content": "Both?"},
    {"role": "assistant", "content": "I look.", "tool_calls": [call("a", "weather", '{"city":"Omsk"}'), call("b", "clock")]},
    {"role": "tool", "tool_call_id": "b", "content": "09:30"},
    {"role": "tool", "tool_call_id": "a", "content": '{"degrees": 18}'},
]


def test_parallel_calls_of_another_model_follow_each_other(giga: Giga) -> None:
    assert body(giga, CALLED)["messages"][1:] == [
        {"role": "assistant", "content": "I look.", "function_call": {"name": "weather", "arguments": {"city": "Omsk"}}},
        {"role": "function", "name": "weather", "content": '{"degrees":18}'},
        {"role": "assistant", "content": "", "function_call": {"name": "clock", "arguments": {}}},
        {"role": "function", "name": "clock", "content": '{"result":"09:30"}'},
    ]


def test_in_the_second_version_they_stand_together(server: ScriptedServer) -> None:
    assert body(Giga(server, version=2), CALLED)["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"text": "I look."},
                {"function_call": {"name": "weather", "arguments": {"city": "Omsk"}}},
                {"function_call": {"name": "clock", "arguments": {}}},
            ],
        },
        {
            "role": "tool",
            "content": [
                {"function_result": {"name": "weather", "result": {"degrees": 18}}},
                {"function_result": {"name": "clock", "result": {"result": "09:30"}}},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        (CALLED[:3], r"messages\[1\].*'a'"),
        ([CALLED[0], CALLED[2]], r"messages\[1\] is the result of tool call 'b'"),
        ([{"role": "system", "content": "Only."}], "add a user message"),
        ([{"role": "user", "content": [{"type": "video"}]}], r"messages\[0\].*'video'"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_messages_that_are_none(server: ScriptedServer, version: int, messages: Any, named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        body(Giga(server, version=version), messages)


def test_system_messages_join_in_the_first(giga: Giga) -> None:
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "In Russian."},
    ]
    assert body(giga, messages)["messages"] == [
        {"role": "system", "content": "Be brief.\n\nIn Russian."},
        {"role": "user", "content": "Hi"},
    ]


@pytest.mark.parametrize("version", [1, 2])
async def test_the_state_of_functions_goes_back(server: ScriptedServer, version: int) -> None:
    giga, form = Giga(server, version, GIGACHAT_CREDENTIALS="", GIGACHAT_ACCESS_TOKEN="t"), (GIGACHAT, GIGACHAT2)[version - 1]
    giga.server.answer_json(form.answer("", [("", "weather", {"city": "Omsk"})]))
    first = await giga.query(tools=[WEATHER])
    giga.server.answer_json(form.answer("Fine."))
    messages = [{"role": "user", "content": "Hi"}, json.loads(json.dumps(first.message))]
    messages.append({"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "{}"})
    await giga.llm.query(MODEL, messages, tools=[WEATHER])
    turn = giga.server.requests[1].json["messages"][1]
    assert turn["functions_state_id" if version == 1 else "tools_state_id"] == STATE
    await_other = QueryLLM().plan("mock/echo", messages).body
    assert STATE not in json.dumps(await_other["messages"][0])


# Images, audio and files


PICTURE = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]


@pytest.mark.parametrize("version", [1, 2])
async def test_an_image_is_uploaded_once_and_attached(server: ScriptedServer, version: int) -> None:
    giga, form = Giga(server, version, GIGACHAT_CREDENTIALS="", GIGACHAT_ACCESS_TOKEN="t"), (GIGACHAT, GIGACHAT2)[version - 1]
    messages: list[Any] = [{"role": "user", "content": PICTURE}]
    giga.server.answer_json({"id": "file-1", "object": "file", "bytes": len(PNG)})
    giga.server.answer_json(form.answer("A pixel."))
    answer = await giga.llm.query(MODEL, messages)
    giga.server.answer_sse(*form.stream("Red."))
    async with giga.llm.stream(MODEL, [*messages, answer.message, {"role": "user", "content": "Its colour?"}]) as stream:
        assert [piece async for piece in stream] == ["Red."]
    upload, first, second = giga.server.requests
    assert upload.path == "/api/v1/files"
    assert upload.headers["authorization"] == "Bearer t"
    boundary = upload.headers["content-type"].removeprefix("multipart/form-data; boundary=")
    parts = upload.body.split(f"--{boundary}".encode())
    assert parts[1] == b'\r\nContent-Disposition: form-data; name="purpose"\r\n\r\ngeneral\r\n'
    head = b'\r\nContent-Disposition: form-data; name="file"; filename="image.png"\r\nContent-Type: image/png\r\n\r\n'
    assert parts[2] == head + PNG + b"\r\n" and parts[3] == b"--\r\n"
    attached = {"role": "user", "content": "What?", "attachments": ["file-1"]}
    parted = {"role": "user", "content": [{"text": "What?"}, {"files": [{"id": "file-1"}]}]}
    for request in (first, second):
        assert request.json["messages"][0] == (attached if version == 1 else parted)
    assert messages == [{"role": "user", "content": PICTURE}]


async def test_an_upload_takes_part_in_the_renewal_of_tokens(giga: Giga) -> None:
    giga.gives()
    giga.refuses()
    giga.gives("token-2")
    giga.server.answer_json({"id": "file-1"})
    giga.says()
    await giga.llm.query(MODEL, [{"role": "user", "content": PICTURE}])
    assert giga.bearers[1::2] == ["Bearer token-1", "Bearer token-2"]


async def test_a_plan_uploads_nothing(giga: Giga) -> None:
    (message,) = body(giga, [{"role": "user", "content": PICTURE}])["messages"]
    assert message["attachments"] == [f"(image.png, {len(PNG)} bytes: uploaded when it is sent)"]
    assert giga.server.requests == []


async def test_audio_and_files_are_attached_as_well(open_giga: Giga) -> None:
    for name, media_type, part in (
        ("audio.wav", "audio/x-wav", {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}),
        (
            "a_.pdf",
            "application/pdf",
            {"type": "file", "file": {"filename": "aё.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjQK"}},
        ),
    ):
        open_giga.server.reset()
        open_giga.server.answer_json({"id": "file-2"})
        open_giga.says()
        await open_giga.llm.query(MODEL, [{"role": "user", "content": [part]}])
        upload, sent = open_giga.server.requests
        assert f'filename="{name}"'.encode() in upload.body and f"Content-Type: {media_type}".encode() in upload.body
        assert sent.json["messages"] == [{"role": "user", "content": "", "attachments": ["file-2"]}]


async def test_a_file_of_theirs_is_named_by_its_id(open_giga: Giga) -> None:
    open_giga.says()
    await open_giga.llm.query(MODEL, [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-7"}}]}])
    assert open_giga.server.request.json["messages"][0]["attachments"] == ["file-7"]


def test_one_image_a_message(giga: Giga) -> None:
    with pytest.raises(InvalidRequestError, match="one image a message"):
        body(giga, [{"role": "user", "content": [*PICTURE, PICTURE[1]]}])


def test_one_text_file_a_request(giga: Giga) -> None:
    part = {"type": "file", "file": {"file_id": "file-1"}}
    with pytest.raises(InvalidRequestError, match=r"messages\[1\]: this API reads one text file"):
        body(giga, [{"role": "user", "content": [part]}, {"role": "user", "content": [part]}])


async def test_an_upload_without_an_id_is_an_error(open_giga: Giga) -> None:
    open_giga.server.answer_json({}, times=None)
    with pytest.raises(ServerError, match="cannot be read"):
        await open_giga.llm.query(MODEL, [{"role": "user", "content": PICTURE}])


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
FORM = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}


@pytest.mark.parametrize("model", ["gigachat/GigaChat-3-Ultra", "gigachat/GigaChat-2-Max"])
async def test_one_conversation(giga: Giga, model: str) -> None:
    """A system message, an image, a tool, its result, and a streamed answer of a form."""
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PICTURE}]
    giga.gives()
    giga.server.answer_json({"id": "file-1"})
    giga.server.answer_json(GIGACHAT.answer("", [("", "weather", {"city": "Omsk"})]))
    first = await giga.llm.query(model, messages, tools=[WEATHER])
    (made,) = first.tool_calls
    messages += [first.message, {"role": "tool", "tool_call_id": made.id, "content": "18 degrees"}]
    giga.server.answer_sse(*GIGACHAT.stream('{"city": "Om', 'sk"}'))
    async with giga.llm.stream(model, messages, tools=[WEATHER], response_format=FORM) as stream:
        assert [piece async for piece in stream] == ['{"city": "Om', 'sk"}']
    assert stream.response.parsed == {"city": "Omsk"}
    request = giga.server.requests[-1]
    said = GIGACHAT.read(request.path, request.json)
    assert said.system.startswith("Be brief.") and said.user == ["What?"]
    assert (said.calls, said.results) == ([("weather", {"city": "Omsk"})], {"weather": "18 degrees"})
    if model.endswith("Ultra"):
        assert (said.system, said.schema) == ("Be brief.", SCHEMA)
    else:  # which models hold to a schema is not said, and its tool cannot be forced beside others: in words
        assert json.dumps(SCHEMA, separators=(",", ":")) in said.system


@pytest.mark.parametrize("streams", [False, True])
async def test_an_answer_of_a_form_by_a_forced_function(open_giga: Giga, streams: bool) -> None:
    calls = [("", "place", {"city": "Omsk"})]
    if streams:
        open_giga.server.answer_sse(*GIGACHAT.stream(calls=calls))
        async with open_giga.llm.stream("gigachat/GigaChat-2-Max", prompt="Which city?", response_format=FORM) as stream:
            assert "".join([piece async for piece in stream]) == '{"city":"Omsk"}'
        answer = stream.response
    else:
        open_giga.server.answer_json(GIGACHAT.answer("", calls))
        answer = await open_giga.llm.query("gigachat/GigaChat-2-Max", prompt="Which city?", response_format=FORM)
    assert (answer.parsed, answer.tool_calls) == ({"city": "Omsk"}, [])
    sent = open_giga.server.request.json
    assert (sent["function_call"], sent["functions"][0]["parameters"]) == ({"name": "place"}, SCHEMA)


# What comes back


async def answer_of(giga: Giga, content: Any) -> Any:
    giga.server.answer_json(content)
    return await giga.query()


async def test_usage_with_what_was_cached(open_giga: Giga) -> None:
    """In the reference's example the cached tokens are more than the prompt's: they are taken off it."""
    usage = {"prompt_tokens": 1, "completion_tokens": 4, "precached_prompt_tokens": 37, "total_tokens": 5}
    answer = await answer_of(open_giga, {**GIGACHAT.answer("Hi"), "usage": usage})
    assert (answer.usage.input_tokens, answer.usage.cached_tokens, answer.usage.output_tokens) == (38, 37, 4)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": "many"}])
async def test_usage_that_says_nothing_is_unknown(open_giga: Giga, usage: Any) -> None:
    answer = await answer_of(open_giga, {**GIGACHAT.answer("Hi"), "usage": usage})
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.cost) == (None, None, None)


async def test_numbers_may_be_floats_and_fields_null(open_giga: Giga) -> None:
    choice = {"message": {"role": "assistant", "content": None, "function_call": None, "functions_state_id": None}, "finish_reason": None}
    usage = {"prompt_tokens": 3.0, "completion_tokens": 2.0, "precached_prompt_tokens": None}
    answer = await answer_of(open_giga, {"choices": [choice], "model": None, "usage": usage, "new": {"field": []}})
    assert (answer.content, answer.finish_reason, answer.tool_calls) == ("", None, [])
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.cached_tokens) == (3, 2, None)


@pytest.mark.parametrize("arguments", [{"city": "Omsk"}, '{"city": "Omsk"}'])
async def test_arguments_are_an_object_or_its_text(open_giga: Giga, arguments: Any) -> None:
    message = {"role": "assistant", "content": "", "function_call": {"name": "weather", "arguments": arguments}}
    answer = await answer_of(open_giga, {"choices": [{"message": message, "finish_reason": "function_call"}]})
    (made,) = answer.tool_calls
    assert (made.name, made.arguments, answer.finish_reason) == ("weather", {"city": "Omsk"}, "tool_calls")


async def test_what_is_only_about_the_work_is_no_text(open_giga: Giga) -> None:
    """https://developers.sber.ru/docs/ru/gigachat/guides/functions/calling-builtin-functions"""
    working = {"choices": [{"index": 0, "delta": {"role": "function_in_progress", "content": "30", "name": "text2image"}}]}
    thinking = {"choices": [{"index": 0, "delta": {"role": "assistant", "reasoning_content": "A cat."}}]}
    events = [f"data: {json.dumps(event)}\n\n" for event in (working, thinking)]
    open_giga.server.answer_sse(*events, *GIGACHAT.stream("Here."))
    async with open_giga.llm.stream(MODEL, prompt="Draw") as stream:
        kinds = [event async for event in stream.events()]
    assert [event.text for event in kinds if isinstance(event, ReasoningDelta)] == ["A cat."]
    assert (stream.response.content, stream.response.reasoning) == ("Here.", "A cat.")


async def test_what_a_search_found_is_cited(server: ScriptedServer) -> None:
    giga = Giga(server, 2, GIGACHAT_CREDENTIALS="", GIGACHAT_ACCESS_TOKEN="t")
    inline = {"images": [], "sources": {"1": {"title": "T", "url": "https://example.com"}}}
    content = GIGACHAT2.answer("Found.")
    content["messages"][0]["content"][0]["inline_data"] = inline
    answer = await answer_of(giga, content)
    assert [(citation.url, citation.title) for citation in answer.citations] == [("https://example.com", "T")]


async def test_the_cost_is_in_roubles(open_giga: Giga) -> None:
    ModelRegistry.register(
        "gigachat/GigaChat-2", ModelConfig(input_price_per_million=65, output_price_per_million=65, cached_input_price_per_million=0)
    )
    open_giga.says()
    answer = await open_giga.query()
    assert (answer.cost, answer.receipt.currency) == (Decimal(65) * (70 + 50) / 1_000_000, "RUB")


# Beside the chat


async def test_tokens_are_counted_by_the_provider(open_giga: Giga) -> None:
    open_giga.server.answer_json([{"object": "tokens", "tokens": 4, "characters": 9}, {"object": "tokens", "tokens": 2, "characters": 2}])
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    count = await open_giga.llm.count_tokens(MODEL, messages)
    assert (count.tokens, count.exact) == (6, True)
    sent = open_giga.server.request
    assert (sent.path, sent.json) == ("/api/v1/tokens/count", {"model": "GigaChat-2", "input": ["Be brief.", "Hi"]})


async def test_embeddings_go_to_the_first_version(server: ScriptedServer) -> None:
    giga = Giga(server, 2, GIGACHAT_CREDENTIALS="", GIGACHAT_ACCESS_TOKEN="t")
    data = [{"object": "embedding", "index": n, "embedding": [n, 1.5], "usage": {"prompt_tokens": 3 + n}} for n in (1, 0)]
    server.answer_json({"object": "list", "data": data, "model": "Embeddings"})
    answer = await giga.llm.embed("gigachat/Embeddings", ["a", "b"])
    assert [list(vector) for vector in answer.embeddings] == [[0, 1.5], [1, 1.5]]
    assert answer.usage.input_tokens == 7
    assert (server.request.path, server.request.json) == ("/api/v1/embeddings", {"model": "Embeddings", "input": ["a", "b"]})


async def test_a_row_may_require_no_key(server: ScriptedServer) -> None:
    """As behind a proxy that adds it."""
    llm = QueryLLM(rows={"gigachat": {"requires_key": False, "base_url": f"{server.url}/api/v1"}})
    server.answer_json(GIGACHAT.answer("Hello."))
    assert (await llm.query(MODEL, prompt="Hi")).content == "Hello."
    assert "authorization" not in server.request.headers


def test_a_row_is_found_by_the_names_of_its_models() -> None:
    llm = QueryLLM(LLMConfig(environment={"GIGACHAT_CREDENTIALS": KEY}))
    assert llm.plan("GigaChat-2-Max", prompt="Hi").url == "https://gigachat.devices.sberbank.ru/api/v1/chat/completions"
    for name in ("gigachat", "GigaChat", "GIGACHAT", "gigachat/GigaChat"):
        assert llm.plan(name, prompt="Hi").body["model"] == "GigaChat"
    row = PROVIDER_CONFIGS["gigachat"]
    assert (row.currency, attrs.evolve(row, scope="x").scope) == ("RUB", "x")


async def test_a_forbidden_model_is_not_the_keys_fault(open_giga: Giga) -> None:
    open_giga.refuses(403, "Permission denied")
    with pytest.raises(PermissionDeniedError):
        await open_giga.query()
