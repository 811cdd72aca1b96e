"""Azure OpenAI: its addresses, its keys, and what its own errors mean.

The shapes are those of https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference, .../openai/latest (the v1 API),
.../openai/concepts/content-filter and .../openai/quotas-limits.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from servers.formats import CHAT, RESPONSES
from servers.scripted import ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    ConfigurationError,
    ContentPolicyError,
    InvalidRequestError,
    LLMConfig,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderConfig,
    ProviderError,
    QueryLLM,
    RateLimitError,
)
from llm_master.provider_configs import effective
from llm_master.providers.azure import AzureProvider
from llm_master.testing import FakeClock

KEY = "0123456789abcdef0123456789abcdef"
TOKEN = "eyJ0eXAiOiJKV1Qi.eyJhdWQiOiJjb2duaXRpdmUi.c2lnbmF0dXJl"
DATED = "2024-10-21"
RESOURCE = "https://acme.openai.azure.com"
ANSWER = CHAT.answer("Hello.")


def rows(**environment: str) -> dict[str, ProviderConfig]:
    return effective(LLMConfig(environment=environment)).rows


def over(server: ScriptedServer, *, base: str = "", **environment: str) -> QueryLLM:
    settings = {"AZURE_API_BASE": f"{server.url}{base}", "AZURE_API_KEY": KEY, **environment}
    return QueryLLM(LLMConfig(environment=settings, clock=FakeClock(auto_advance=True)))


# Addresses

V1, CLASSIC = f"{RESOURCE}/openai/v1", f"{RESOURCE}/openai"


@pytest.mark.parametrize(
    ("address", "version", "base", "deployment"),
    [
        ("https://acme.openai.azure.com", None, V1, None),
        ("https://acme.openai.azure.com/", None, V1, None),
        ("https://acme.openai.azure.com/", "v1", V1, None),
        ("https://acme.openai.azure.com/", "latest", V1, None),
        ("https://acme.openai.azure.com/openai", None, V1, None),
        ("https://acme.openai.azure.com/openai/v1/", None, V1, None),
        ("https://acme.openai.azure.com/openai/v1", DATED, V1, None),
        ("https://acme.openai.azure.com/openai/v1/chat/completions", None, V1, None),
        ("https://acme.openai.azure.com", DATED, CLASSIC, None),
        ("https://acme.openai.azure.com/openai/", "2025-04-01-preview", CLASSIC, None),
        ("https://acme.openai.azure.com/openai/deployments", DATED, CLASSIC, None),
        ("https://acme.openai.azure.com/openai/deployments/gpt-4.1", DATED, CLASSIC, "gpt-4.1"),
        ("https://acme.openai.azure.com/openai/deployments/my%20gpt/chat/completions", DATED, CLASSIC, "my gpt"),
        ("https://acme.openai.azure.com/openai/deployments/gpt-4.1/chat/completions?api-version=2024-10-21", None, CLASSIC, "gpt-4.1"),
        (
            "https://acme.openai.azure.com/openai/deployments/gpt-4.1/chat/completions?api-version=2024-10-21",
            "2023-05-15",
            CLASSIC,
            "gpt-4.1",
        ),
        ("https://acme.openai.azure.com/openai/deployments/gpt-4.1/embeddings", None, V1, "gpt-4.1"),
        ("https://acme.services.ai.azure.com", None, "https://acme.services.ai.azure.com/openai/v1", None),
        ("https://acme.services.ai.azure.com/models", None, "https://acme.services.ai.azure.com/openai/v1", None),
        ("https://acme.services.ai.azure.com/api/projects/one", None, "https://acme.services.ai.azure.com/openai/v1", None),
        ("https://acme.cognitiveservices.azure.com/", DATED, "https://acme.cognitiveservices.azure.com/openai", None),
        ("https://gateway.example.com/team", None, "https://gateway.example.com/team", None),
        ("https://gateway.example.com/team", DATED, "https://gateway.example.com/team/openai", None),
        ("https://gateway.example.com/team/openai/deployments/x", DATED, "https://gateway.example.com/team/openai", "x"),
        ("http://127.0.0.1:8080/v1", None, "http://127.0.0.1:8080/v1", None),
    ],
)
@pytest.mark.parametrize("variable", ["AZURE_API_BASE", "AZURE_OPENAI_ENDPOINT", "OPENAI_COMPATIBLE_BASE_URL"])
def test_what_an_address_means(variable: str, address: str, version: str | None, base: str, deployment: str | None) -> None:
    if variable.startswith("AZURE"):
        row = rows(**{variable: address} | ({"OPENAI_API_VERSION": version} if version else {}))["azure"]
    elif "azure.com" not in address:
        return
    else:
        row = rows(**{variable: address} | ({"OPENAI_COMPATIBLE_API_VERSION": version} if version else {}))["openai_compatible"]
    assert (row.base_url, row.default_model) == (base, deployment)
    dated = "?" in address or (version or "")[:1] == "2"
    assert row.query == ({"api-version": DATED if "?" in address else version} if dated and not base.endswith("/v1") else {})
    # What was read once is read in the same way again: the object does so for itself.
    assert AzureProvider(attrs.evolve(row, api_key=KEY)).config.base_url == base


def test_an_address_may_be_an_argument() -> None:
    address = f"{RESOURCE}/openai/deployments/mine/chat/completions?api-version={DATED}"
    row = effective(LLMConfig(environment={}, azure_api_base=address)).rows["azure"]
    assert (row.base_url, row.default_model, row.query) == (CLASSIC, "mine", {"api-version": DATED})


@pytest.mark.parametrize("variable", ["AZURE_API_VERSION", "AZURE_OPENAI_API_VERSION", "OPENAI_API_VERSION"])
def test_an_api_version_stands_in_any_of_three_variables(variable: str) -> None:
    assert rows(AZURE_API_BASE=RESOURCE, **{variable: DATED})["azure"].query == {"api-version": DATED}
    assert rows(AZURE_API_BASE=RESOURCE, **{variable: "preview"})["azure"].query == {"api-version": "preview"}


def test_the_row_may_say_it_too() -> None:
    PROVIDER_CONFIGS["azure"] = attrs.evolve(PROVIDER_CONFIGS["azure"], base_url=RESOURCE, query={"api-version": DATED})
    plan = QueryLLM(azure_api_key=KEY).plan("azure/mine", prompt="Hello")
    assert plan.url == f"{CLASSIC}/deployments/mine/chat/completions?api-version={DATED}"


@pytest.mark.parametrize("version", ["0613", "2024", "2024-10-21-beta", "v2"])
def test_an_api_version_that_can_be_none_is_told_at_once(version: str) -> None:
    with pytest.raises(ConfigurationError, match=f"AZURE_API_BASE.*api-version is '{version}'.*2024-10-21"):
        rows(AZURE_API_BASE=RESOURCE, OPENAI_API_VERSION=version)
    assert rows(OPENAI_API_VERSION=version)["openai"].query == {}


def test_no_other_parameter_may_stand_in_an_address() -> None:
    with pytest.raises(ConfigurationError, match=r"AZURE_API_BASE has a '\?'") as caught:
        rows(AZURE_API_BASE=f"{RESOURCE}?api-version={DATED}&sig=secret")
    assert "secret" not in str(caught.value)


# Chat


async def test_the_classic_api_has_the_deployment_in_its_path(server: ScriptedServer) -> None:
    llm = over(server, OPENAI_API_VERSION=DATED)
    server.answer_json(ANSWER)
    answer = await llm.query("azure/my gpt", prompt="Hello")
    assert answer.content == "Hello."
    request = server.request
    assert request.path == f"/openai/deployments/my%20gpt/chat/completions?api-version={DATED}"
    assert request.headers["api-key"] == KEY and "authorization" not in request.headers
    plan = llm.plan("azure/my gpt", prompt="Hello")
    assert plan.url == f"{server.url}/openai/deployments/my gpt/chat/completions?api-version={DATED}"
    assert KEY not in repr(plan)


async def test_the_v1_api_has_it_in_the_body(server: ScriptedServer) -> None:
    server.answer_json(ANSWER, times=2)
    await over(server).query("azure/mine", prompt="Hello")
    await over(server, AZURE_API_VERSION="preview").query("azure/mine", prompt="Hello")
    assert [request.path for request in server.requests] == [
        "/openai/v1/chat/completions",
        "/openai/v1/chat/completions?api-version=preview",
    ]
    assert server.requests[0].json["model"] == "mine"


async def test_two_deployments_are_two_places(server: ScriptedServer) -> None:
    llm = over(server, OPENAI_API_VERSION=DATED)
    server.answer_json(ANSWER, times=4)
    for name in ("one", "two", "one", "two"):
        await llm.query(f"azure/{name}", prompt="Hello")
    assert [request.path.split("/")[3] for request in server.requests] == ["one", "two", "one", "two"]


async def test_the_deployment_of_an_address_is_the_default_and_no_other_is_replaced_by_it(server: ScriptedServer) -> None:
    llm = over(server, base=f"/openai/deployments/mine/chat/completions?api-version={DATED}")
    server.answer_json(ANSWER, times=2)
    await llm.query("azure", prompt="Hello")
    await llm.query("azure/other", prompt="Hello")
    assert [request.path.split("/")[3] for request in server.requests] == ["mine", "other"]


FILTERED = {"hate": {"filtered": False, "severity": "safe"}}
STREAM = [
    # The first chunk judges the prompt, and answers nothing.
    {
        "choices": [],
        "created": 0,
        "id": "",
        "model": "",
        "object": "",
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": FILTERED}],
    },
    {
        "choices": [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": "", "refusal": None},
                "finish_reason": None,
                "content_filter_results": {},
            }
        ],
        "model": "gpt-4.1-2025-04-14",
    },
    {
        "choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None, "content_filter_results": FILTERED}],
        "model": "gpt-4.1-2025-04-14",
    },
    {
        "choices": [{"index": 0, "delta": {"content": "lo."}, "finish_reason": None, "content_filter_results": FILTERED}],
        "model": "gpt-4.1-2025-04-14",
    },
    # Where the filter runs beside the stream, its findings come as chunks without a delta.
    {
        "choices": [
            {"index": 0, "finish_reason": None, "content_filter_results": FILTERED, "content_filter_offsets": {"check_offset": 44}}
        ],
        "model": "",
    },
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "content_filter_results": {}}], "model": "gpt-4.1-2025-04-14"},
    {"choices": [], "model": "gpt-4.1-2025-04-14", "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}},
]


@pytest.mark.parametrize(("version", "asks"), [(DATED, True), ("2024-09-01-preview", True), ("2024-06-01", False), ("2023-05-15", False)])
async def test_a_stream_with_what_the_filter_says(server: ScriptedServer, version: str, asks: bool) -> None:
    server.answer_sse(*(f"data: {json.dumps(chunk)}\n\n" for chunk in STREAM), "data: [DONE]\n\n")
    async with over(server, OPENAI_API_VERSION=version).stream("azure/mine", prompt="Hello") as stream:
        assert [piece async for piece in stream] == ["Hel", "lo."]
    assert (stream.response.finish_reason, stream.response.usage.input_tokens) == ("stop", 9)
    # An older version refuses to be asked for it.
    assert ("stream_options" in server.request.json) is asks


async def test_an_answer_that_the_filter_cut_off(server: ScriptedServer) -> None:
    content = CHAT.answer("I", finish="content_filter")
    content["choices"][0]["content_filter_results"] = {"violence": {"filtered": True, "severity": "high"}}
    content["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": FILTERED}]
    server.answer_json(content)
    answer = await over(server).query("azure/mine", prompt="Hello")
    assert (answer.content, answer.finish_reason) == ("I", "content_filter")


# Keys and tokens


@pytest.mark.parametrize("version", ["", DATED])
@pytest.mark.parametrize(
    ("variable", "value", "header"),
    [
        ("AZURE_API_KEY", KEY, ("api-key", KEY)),
        ("AZURE_OPENAI_API_KEY", KEY, ("api-key", KEY)),
        ("AZURE_OPENAI_AD_TOKEN", TOKEN, ("authorization", f"Bearer {TOKEN}")),
        ("AZURE_API_KEY", TOKEN, ("authorization", f"Bearer {TOKEN}")),
    ],
)
async def test_a_key_and_a_token_have_each_its_header(server: ScriptedServer, version: str, variable: str, value: str, header: Any) -> None:
    llm = over(server, AZURE_API_KEY="", OPENAI_API_VERSION=version, **{variable: value} if variable != "AZURE_API_KEY" else {})
    if variable == "AZURE_API_KEY":
        llm = over(server, AZURE_API_KEY=value, OPENAI_API_VERSION=version)
    server.answer_json(ANSWER)
    await llm.query("azure/mine", prompt="Hello")
    assert {name: text for name, text in server.request.headers.items() if value in text} == dict([header])


class Azure:
    """Stands for azure-identity: tokens that last an hour, counted."""

    def __init__(self) -> None:
        self.made = 0
        self.lasts = 3600.0
        self.scopes: list[str] = []
        self.error: Exception | None = None

    def get_token(self, scope: str) -> Any:
        if self.error is not None:
            raise self.error
        self.made += 1
        self.scopes.append(scope)
        return types.SimpleNamespace(token=f"eyJtoken.number.{self.made}", expires_on=int(time.time() + self.lasts))


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Azure:
    known = Azure()
    modules: dict[str, dict[str, Any]] = {
        "azure": {},
        "azure.core": {},
        "azure.core.exceptions": {"ClientAuthenticationError": type("ClientAuthenticationError", (Exception,), {})},
        "azure.identity": {"DefaultAzureCredential": lambda: known},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return known


@pytest.mark.parametrize("environment", [{"AZURE_API_KEY": "entra-id"}, {"AZURE_API_KEY": "", "AZURE_CLIENT_ID": "1234"}])
async def test_an_identity_gives_tokens_that_are_kept_and_renewed(
    server: ScriptedServer, identity: Azure, environment: dict[str, str]
) -> None:
    llm = over(server, **environment)
    server.answer_json(ANSWER, times=None)
    assert llm.plan("azure/mine", prompt="Hello").headers["Authorization"] == "…"
    await asyncio.gather(*(llm.query("azure/mine", prompt="Hello") for _ in range(5)))
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer eyJtoken.number.1"}
    assert identity.scopes == ["https://cognitiveservices.azure.com/.default"]
    server.reset()
    identity.lasts = 200.0  # as good as over
    server.answer_json(ANSWER, times=None)
    fresh = QueryLLM(llm.config, deadline=599)
    for _ in range(2):
        await fresh.query("azure/mine", prompt="Hello")
    assert [request.headers["authorization"][-1] for request in server.requests] == ["2", "3"]


async def test_a_key_goes_before_an_identity(server: ScriptedServer, identity: Azure) -> None:
    server.answer_json(ANSWER)
    await over(server, AZURE_CLIENT_ID="1234").query("azure/mine", prompt="Hello")
    assert server.request.headers["api-key"] == KEY and identity.made == 0


async def test_an_identity_that_is_given_no_token(server: ScriptedServer, identity: Azure) -> None:
    identity.error = sys.modules["azure.core.exceptions"].ClientAuthenticationError("no managed identity here")
    with pytest.raises(AuthenticationError, match="no managed identity here"):
        await over(server, AZURE_API_KEY="entra-id").query("azure/mine", prompt="Hello")
    assert server.requests == []


async def test_without_its_package_an_identity_says_what_to_install(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'llm_master\[azure\]'"):
        await over(server, AZURE_API_KEY="entra-id").query("azure/mine", prompt="Hello")


# Errors


async def refused(server: ScriptedServer, status: int, body: Any, headers: Any = None, **environment: str) -> ProviderError:
    server.answer_json(body, status=status, headers=headers or {}, times=None)
    with pytest.raises(ProviderError) as caught:
        await over(server, **environment).query("azure/gpt-5-typo", prompt="Hello", deadline=5)
    return caught.value


@pytest.mark.parametrize("version", ["", DATED])
async def test_a_deployment_that_does_not_exist(server: ScriptedServer, version: str) -> None:
    said = "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, please wait."
    error = await refused(server, 404, {"error": {"code": "DeploymentNotFound", "message": said}}, OPENAI_API_VERSION=version)
    assert type(error) is ModelNotFoundError
    assert said in str(error) and "'gpt-5-typo'" in str(error) and "azure/DEPLOYMENT" in str(error)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"code": "BadRequest", "message": "API version not supported"}}),
        (404, {"error": {"code": "404", "message": "Resource not found"}}),
        (400, {"error": {"message": "Unrecognized request argument supplied: parallel_tool_calls", "type": "invalid_request_error"}}),
        (
            400,
            {
                "error": {
                    "code": "BadRequest",
                    "message": "response_format value as json_schema is enabled only for api versions 2024-08-01-preview and later",
                }
            },
        ),
    ],
)
async def test_an_api_version_that_is_too_old(server: ScriptedServer, status: int, body: Any) -> None:
    error = await refused(server, status, body, OPENAI_API_VERSION="2022-12-01")
    assert type(error) is InvalidRequestError
    for part in (body["error"]["message"], "2022-12-01", "OPENAI_API_VERSION", "v1 API"):
        assert part in str(error)
    assert (error.status, len(server.requests)) == (status, 1)


async def test_a_path_that_there_is_not_on_the_v1_api(server: ScriptedServer) -> None:
    error = await refused(server, 404, {"error": {"code": "404", "message": "Resource not found"}})
    assert type(error) is InvalidRequestError
    assert "base_url" in str(error) and "API_VERSION" not in str(error)


async def test_a_key_of_another_resource(server: ScriptedServer) -> None:
    said = "Access denied due to invalid subscription key or wrong API endpoint."
    error = await refused(server, 401, {"error": {"code": "401", "message": said}})
    assert type(error) is AuthenticationError
    assert said in str(error) and "127.0.0.1" in str(error) and "resource" in str(error)


async def test_an_identity_without_the_role(server: ScriptedServer, identity: Azure) -> None:
    said = "The principal `1234` lacks the required data action `Microsoft.CognitiveServices/accounts/OpenAI/deployments/chat/completions/action`"
    error = await refused(
        server, 401, {"error": {"code": "PermissionDenied", "message": f"{said} eyJtoken.number.1"}}, AZURE_API_KEY="entra-id"
    )
    assert type(error) is PermissionDeniedError
    assert said in str(error) and "Cognitive Services OpenAI User" in str(error)
    assert "eyJtoken" not in str(error)


@pytest.mark.parametrize(
    "more",
    [
        {
            "innererror": {
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": {
                    "hate": {"filtered": False, "severity": "safe"},
                    "jailbreak": {"filtered": True, "detected": True},
                    "violence": {"filtered": True, "severity": "high"},
                    "custom": None,
                },
            }
        },
        {
            "content_filters": [
                {
                    "blocked": True,
                    "source_type": "prompt",
                    "content_filter_results": {"jailbreak": {"filtered": True}, "violence": {"filtered": True}},
                }
            ]
        },
    ],
)
async def test_a_prompt_that_the_filter_refuses(server: ScriptedServer, more: Any) -> None:
    said = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
    error = await refused(
        server, 400, {"error": {"message": said, "type": None, "param": "prompt", "code": "content_filter", "status": 400, **more}}
    )
    assert type(error) is ContentPolicyError
    assert error.categories == ("jailbreak", "violence")
    assert "jailbreak, violence" in str(error) and error.code == "content_filter"


async def test_a_rate_limit_says_when_to_come_again(server: ScriptedServer) -> None:
    said = "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 3600 seconds."
    error = await refused(server, 429, {"error": {"code": "429", "message": said}}, {"x-ratelimit-remaining-requests": "0"})
    assert type(error) is RateLimitError and error.retry_after == 3600
    state = AzureProvider(ProviderConfig(base_url=RESOURCE)).rate_limits(
        {"x-ratelimit-remaining-requests": "9", "x-ratelimit-limit-requests": "10", "x-ratelimit-remaining-tokens": "900"}
    )
    assert state is not None and (state.requests_limit, state.requests_remaining, state.tokens_remaining) == (10, 9, 900)


async def test_deployments_are_listed_nowhere_that_a_key_leads_to(server: ScriptedServer) -> None:
    with pytest.raises(InvalidRequestError, match="list its models"):
        await AzureProvider(attrs.evolve(PROVIDER_CONFIGS["azure"], base_url=RESOURCE, api_key=KEY)).list_models()
    # Whether the key is good is asked all the same, where it costs nothing.
    server.answer_json({"object": "list", "data": []})
    assert (await over(server, OPENAI_API_VERSION=DATED).check_health("azure"))["azure"].state == "valid"
    assert server.request.path == f"/openai/models?api-version={DATED}"


# What is not chat


@pytest.mark.parametrize("version", ["", DATED])
async def test_embeddings_of_two_deployments(server: ScriptedServer, version: str) -> None:
    llm = over(server, OPENAI_API_VERSION=version)
    server.answer_vectors()
    for name in ("small", "large"):
        await llm.embed(f"azure/{name}", ["a cat"])
    if version:
        assert [request.path for request in server.requests] == [
            f"/openai/deployments/{name}/embeddings?api-version={DATED}" for name in ("small", "large")
        ]
    else:
        assert [(request.path, request.json["model"]) for request in server.requests] == [
            ("/openai/v1/embeddings", "small"),
            ("/openai/v1/embeddings", "large"),
        ]


@pytest.mark.parametrize(
    ("version", "path"), [("", "/openai/v1/responses"), ("2025-04-01-preview", "/openai/responses?api-version=2025-04-01-preview")]
)
async def test_the_responses_api(server: ScriptedServer, version: str, path: str) -> None:
    llm = over(server, OPENAI_API_VERSION=version)
    server.answer_json(RESPONSES.answer("Hello."))
    server.answer_sse(*RESPONSES.stream("Hel", "lo."))
    assert (await llm.query("azure/responses/mine", prompt="Hello")).content == "Hello."
    async with llm.stream("azure/responses/mine", prompt="Hello") as stream:
        assert "".join([piece async for piece in stream]) == "Hello."
    for request in server.requests:
        assert (request.path, request.headers["api-key"], request.json["model"]) == (path, KEY, "mine")


PICTURE = {"created": 1, "data": [{"b64_json": "iVBORw0KGgo="}]}


@pytest.mark.parametrize(
    ("version", "path"),
    [("", "/openai/v1/images/generations"), (DATED, f"/openai/deployments/gpt-image-1/images/generations?api-version={DATED}")],
)
@pytest.mark.parametrize("key", [KEY, TOKEN, "entra-id"])
async def test_what_goes_through_the_sdk(server: ScriptedServer, identity: Azure, version: str, path: str, key: str) -> None:
    server.answer_json(PICTURE)
    answer = await over(server, AZURE_API_KEY=key, OPENAI_API_VERSION=version).query("azure/gpt-image-1", prompt="A cat")
    assert len(answer.images) == 1
    request = server.request
    assert (request.path, request.json["model"]) == (path, "gpt-image-1")
    if key == KEY:
        assert request.headers["api-key"] == KEY
    else:
        token = TOKEN if key == TOKEN else "eyJtoken.number.1"
        assert request.headers["authorization"] == f"Bearer {token}" and "api-key" not in request.headers


@pytest.mark.parametrize("key", [KEY, TOKEN])
async def test_the_request_is_the_one_that_the_sdks_own_client_makes(server: ScriptedServer, key: str) -> None:
    from openai import AsyncAzureOpenAI

    server.answer_json(ANSWER, times=2)
    auth = {"azure_ad_token" if key == TOKEN else "api_key": key}
    async with AsyncAzureOpenAI(azure_endpoint=server.url, api_version=DATED, max_retries=0, **auth) as client:  # type: ignore[arg-type]
        await client.chat.completions.create(model="gpt-4.1", messages=[{"role": "user", "content": "Hello"}], max_tokens=5)
    await over(server, AZURE_API_KEY=key, OPENAI_API_VERSION=DATED).query("azure/gpt-4.1", prompt="Hello", max_tokens=5)
    theirs, ours = server.requests
    assert (theirs.method, theirs.path, theirs.json) == (ours.method, ours.path, ours.json)
    for name in ("api-key", "authorization"):
        assert theirs.headers.get(name) == ours.headers.get(name)


async def test_a_client_class_of_ones_own_gets_all_calls(server: ScriptedServer) -> None:
    from openai import AsyncAzureOpenAI, AzureOpenAI

    seen: list[str] = []

    def traced(base: Any) -> Callable[..., Any]:
        class Traced(base):  # type: ignore[misc]
            def __init__(self, **arguments: Any) -> None:
                seen.append(base.__name__)
                super().__init__(**arguments)

        return Traced

    for base in (AsyncAzureOpenAI, AzureOpenAI):
        PROVIDER_CONFIGS["azure"] = attrs.evolve(PROVIDER_CONFIGS["azure"], client_class=traced(base))
        server.answer_json(ANSWER)
        assert (await over(server, OPENAI_API_VERSION=DATED).query("azure/mine", prompt="Hello")).content == "Hello."
        assert server.requests[-1].path == f"/openai/deployments/mine/chat/completions?api-version={DATED}"
        assert server.requests[-1].headers["api-key"] == KEY
    assert seen == ["AsyncAzureOpenAI", "AzureOpenAI"]


# By the generic provider's variables


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"OPENAI_COMPATIBLE_BASE_URL": V1}, f"{V1}/chat/completions"),
        ({"OPENAI_COMPATIBLE_BASE_URL": RESOURCE}, f"{V1}/chat/completions"),
        (
            {"OPENAI_COMPATIBLE_BASE_URL": RESOURCE, "OPENAI_COMPATIBLE_API_VERSION": DATED},
            f"{CLASSIC}/deployments/mine/chat/completions?api-version={DATED}",
        ),
        (
            {"OPENAI_COMPATIBLE_BASE_URL": f"{CLASSIC}/deployments/mine?api-version={DATED}"},
            f"{CLASSIC}/deployments/mine/chat/completions?api-version={DATED}",
        ),
    ],
)
def test_an_azure_address_of_the_generic_provider_is_asked_as_azure(environment: dict[str, str], url: str) -> None:
    llm = QueryLLM(LLMConfig(environment={"OPENAI_COMPATIBLE_API_KEY": KEY, **environment}))
    plan = llm.plan("openai_compatible/mine", prompt="Hello")
    assert plan.url == url
    assert plan.headers["api-key"] == "…cdef" and "Authorization" not in plan.headers


def test_its_responses_api_is_asked_as_azure_too() -> None:
    environment = {
        "OPENAI_COMPATIBLE_API_KEY": KEY,
        "OPENAI_COMPATIBLE_BASE_URL": RESOURCE,
        "OPENAI_COMPATIBLE_API_VERSION": "2025-04-01-preview",
    }
    plan = QueryLLM(LLMConfig(environment=environment)).plan("openai_compatible/responses/mine", prompt="Hello")
    assert (plan.url, plan.headers["api-key"]) == (f"{CLASSIC}/responses?api-version=2025-04-01-preview", "…cdef")


def test_any_other_address_of_it_is_not() -> None:
    environment = {"OPENAI_COMPATIBLE_API_KEY": KEY, "OPENAI_COMPATIBLE_BASE_URL": "https://notazure.com/v1", "OPENAI_API_VERSION": DATED}
    plan = QueryLLM(LLMConfig(environment=environment)).plan("openai_compatible/mine", prompt="Hello")
    assert (plan.url, plan.headers["Authorization"]) == ("https://notazure.com/v1/chat/completions", "Bearer …cdef")
