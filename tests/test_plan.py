"""What would be sent, shown before it is: ``QueryLLM.plan`` and ``llm-master query --dry-run``. Nothing is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from servers.scripted import ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    BaseLLMProvider,
    BaseProvider,
    ConfigurationError,
    InvalidRequestError,
    LLMConfig,
    MissingApiKeyError,
    Plan,
    ProviderConfig,
    QueryLLM,
    UnknownModelError,
)
from llm_master.cli import main

SECRET = "sk-plan-secret-0123456789"
MASKED = "…6789"
ADDRESSES = {f"{name}_API_BASE": f"https://{name.lower()}.invalid/v9" for name in ("OPENAI", "MISTRAL", "ANTHROPIC", "GEMINI", "VERTEX")}
KEYS = {f"{name}_API_KEY": SECRET for name in ("OPENAI", "MISTRAL", "ANTHROPIC", "GEMINI", "VERTEX")}
ENVIRONMENT = ADDRESSES | KEYS
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]


@pytest.fixture
def llm() -> QueryLLM:
    """Its addresses lead nowhere, so that whatever is sent fails."""
    return QueryLLM(LLMConfig(environment=ENVIRONMENT))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def shown(plan: Plan) -> dict[str, str]:
    return {name.lower(): value for name, value in plan.headers.items()}


# Each format


def test_chat_completions(llm: QueryLLM) -> None:
    plan = llm.plan("openai/gpt-4.1", MESSAGES, temperature=0.5, max_tokens=20, stop="END")
    assert (plan.provider, plan.model, plan.method) == ("openai", "gpt-4.1", "POST")
    assert plan.url == "https://openai.invalid/v9/chat/completions"
    assert shown(plan)["authorization"] == f"Bearer {MASKED}"
    assert plan.body == {"model": "gpt-4.1", "messages": MESSAGES, "temperature": 0.5, "max_tokens": 20, "stop": "END"}
    assert (plan.renamed, plan.dropped) == ({}, ())


def test_anthropic(llm: QueryLLM) -> None:
    plan = llm.plan("claude-sonnet-4-5", MESSAGES, temperature=0.5, max_completion_tokens=20, stop="END", user="u1", n=1)
    assert (plan.provider, plan.model, plan.method) == ("anthropic", "claude-sonnet-4-5", "POST")
    assert plan.url == "https://anthropic.invalid/v9/messages"
    headers = shown(plan)
    assert (headers["x-api-key"], headers["anthropic-version"]) == (MASKED, "2023-06-01")
    assert "authorization" not in headers
    assert plan.body == {
        "model": "claude-sonnet-4-5",
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Hello"}],
        "temperature": 0.5,
        "max_tokens": 20,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u1"},
    }
    assert plan.renamed == {"max_completion_tokens": "max_tokens", "stop": "stop_sequences", "user": "metadata.user_id"}
    assert plan.dropped == ("n",)


@pytest.mark.parametrize("row", ["gemini", "vertex"])
def test_gemini(llm: QueryLLM, row: str) -> None:
    plan = llm.plan(f"{row}/gemini-2.5-flash", MESSAGES, temperature=0.5, max_tokens=20, stop="END", seed=7)
    assert (plan.provider, plan.model, plan.method) == (row, "gemini-2.5-flash", "POST")
    assert plan.url == f"https://{row}.invalid/v9/models/gemini-2.5-flash:generateContent"
    assert shown(plan)["x-goog-api-key"] == MASKED
    assert plan.body == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
        "generationConfig": {"temperature": 0.5, "maxOutputTokens": 20, "stopSequences": ["END"], "seed": 7},
    }
    assert plan.renamed == {"max_tokens": "generationConfig.maxOutputTokens", "stop": "generationConfig.stopSequences"}


def test_of_a_stream(llm: QueryLLM) -> None:
    assert llm.plan("openai/gpt-4.1", MESSAGES, stream=True).body["stream"] is True
    assert llm.plan("openai/gpt-4.1", MESSAGES, stream=True).body["stream_options"] == {"include_usage": True}
    assert llm.plan("claude-sonnet-4-5", MESSAGES, stream=True).body["stream"] is True
    plan = llm.plan("gemini/gemini-2.5-flash", MESSAGES, stream=True)
    assert plan.url == "https://gemini.invalid/v9/models/gemini-2.5-flash:streamGenerateContent?alt=sse"


def test_vertex_by_service_account_fetches_no_token(tmp_path: Any) -> None:
    """The file need not even be there: it is read when something is sent."""
    llm = QueryLLM(LLMConfig(environment={"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "account.json")}))
    plan = llm.plan("vertex/gemini-2.5-flash", prompt="Hello")
    assert plan.url is not None and plan.url.endswith("/models/gemini-2.5-flash:generateContent")
    assert "…" in shown(plan)["authorization"]


def test_the_mock_speaks_no_http(llm: QueryLLM) -> None:
    plan = llm.plan("mock/echo", MESSAGES, temperature=0.5)
    assert (plan.provider, plan.model, plan.method, plan.url, plan.key) == ("mock", "echo", None, None, None)
    assert plan.headers == {}
    assert plan.body == {"model": "echo", "messages": MESSAGES, "temperature": 0.5}


@pytest.mark.parametrize("name", ["timeout", "auth-error", "unhealthy"])
def test_the_mock_fails_only_when_asked(llm: QueryLLM, name: str) -> None:
    assert llm.plan(f"mock/{name}", prompt="Hello").model == name


# Generators and classes of users


class Loud(BaseLLMProvider):
    """It would be noticed if it were asked."""

    asked: list[Any] = []

    async def generate(self, messages: Any, model: str, **options: Any) -> str:
        Loud.asked.append(messages)
        return "asked"


@pytest.fixture
def asked() -> Iterator[list[Any]]:
    Loud.asked = []
    yield Loud.asked


def test_a_class(asked: list[Any]) -> None:
    PROVIDER_CONFIGS["loud"] = ProviderConfig(provider_class=Loud, prefixes=("loud-",))
    plan = QueryLLM(LLMConfig(environment={"LOUD_API_KEY": SECRET})).plan("loud-1", MESSAGES, temperature=0.5)
    assert (plan.provider, plan.model, plan.method, plan.url) == ("loud", "loud-1", None, None)
    assert plan.body == {"model": "loud-1", "messages": MESSAGES, "temperature": 0.5}
    assert plan.key == f"LOUD_API_KEY {MASKED}"
    assert SECRET not in repr(plan)
    assert asked == []


def test_a_class_may_say_more(asked: list[Any]) -> None:
    class Plain(Loud):
        def plan(self, messages: Any, model: str, *, stream: bool, **options: Any) -> Plan:
            return Plan(url="acme://queue", body={"text": messages[-1]["content"], "piecewise": stream})

    PROVIDER_CONFIGS["loud"] = ProviderConfig(provider_class=Plain, requires_key=False)
    plan = QueryLLM(LLMConfig(environment={})).plan("loud/1", MESSAGES, stream=True)
    assert (plan.provider, plan.model, plan.url, plan.body) == ("loud", "1", "acme://queue", {"text": "Hello", "piecewise": True})
    assert asked == []


def test_the_short_form() -> None:
    class Short(BaseProvider):
        async def generate(self, prompt: str, params: Any = None) -> str:
            raise AssertionError("asked")

    PROVIDER_CONFIGS["short"] = ProviderConfig(provider_class=Short, requires_key=False)
    plan = QueryLLM(LLMConfig(environment={})).plan("short/1", prompt="Hello")
    assert (plan.provider, plan.model, plan.method) == ("short", "1", None)
    assert "Hello" in json.dumps(plan.body)


def test_a_generator_is_not_called(server: ScriptedServer) -> None:
    """What it sends only it knows: the plan says that it is asked, and with what, and not that chat would be."""
    asked = []

    async def paint(provider: Any, messages: Any, model: str, **options: Any) -> str:
        asked.append(messages)
        return "painted"

    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False, generate_map={"acme-image": paint})
    plan = QueryLLM(LLMConfig(environment={})).plan("acme-image", prompt="A cat", size="1024x1024")
    assert (plan.provider, plan.model) == ("acme", "acme-image")
    assert (plan.body["model"], plan.body["size"]) == ("acme-image", "1024x1024")
    assert plan.body["messages"] == [{"role": "user", "content": "A cat"}]
    assert asked == [] and server.requests == []
    assert plan.url is None or not plan.url.endswith("/chat/completions")


# Renamed, dropped, refused


def test_a_rows_renames_are_shown(llm: QueryLLM) -> None:
    plan = llm.plan("mistral/mistral-small-latest", prompt="Hello", seed=7, max_completion_tokens=20)
    assert plan.renamed == {"seed": "random_seed", "max_completion_tokens": "max_tokens"}
    assert (plan.body["random_seed"], plan.body["max_tokens"]) == (7, 20)
    assert "seed" not in plan.body


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "gemini/gemini-2.5-flash"])
def test_what_cannot_be_carried_is_refused_and_dropped_only_where_that_was_agreed(llm: QueryLLM, model: str) -> None:
    options = {"logit_bias": {"50256": -100}, "prediction": {"type": "content", "content": "x"}, "temperature": 0.5}
    with pytest.raises(InvalidRequestError, match=r"'logit_bias', 'prediction'.*on_unsupported") as caught:
        llm.plan(model, prompt="Hello", **options)
    assert caught.value.provider in model.replace("claude", "anthropic")
    for drops in (llm, QueryLLM(LLMConfig(environment=ENVIRONMENT), on_unsupported="drop")):
        agreed = {"on_unsupported": "drop"} if drops is llm else {}
        plan = drops.plan(model, prompt="Hello", **options, **agreed)
        assert plan.dropped == ("logit_bias", "prediction")
        assert not {"logit_bias", "prediction", "on_unsupported"} & json.loads(json.dumps(plan.body)).keys()


def test_extra_body_is_in_the_plan(llm: QueryLLM) -> None:
    for model in ("openai/gpt-4.1", "claude-sonnet-4-5", "gemini/gemini-2.5-flash"):
        assert llm.plan(model, prompt="Hello", extra_body={"any_field": [1]}).body["any_field"] == [1]


def test_a_plan_fails_as_the_query_would(llm: QueryLLM) -> None:
    for arguments, kind in (
        ({"model_name": "gtp-4.1", "prompt": "Hello"}, UnknownModelError),
        ({"model_name": "groq/x", "prompt": "Hello"}, MissingApiKeyError),
        ({"model_name": "openai/gpt-4.1"}, InvalidRequestError),
        ({"model_name": "openai/gpt-4.1", "prompt": "Hello", "temprature": 1}, InvalidRequestError),
        ({"model_name": "openai/gpt-4.1", "prompt": "Hello", "user": object()}, InvalidRequestError),
        ({"model_name": "claude-sonnet-4-5", "prompt": "Hello", "temperature": 2}, InvalidRequestError),
    ):
        with pytest.raises(kind):
            llm.plan(**arguments)


def test_a_plan_of_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigurationError, match="OPENAI_API_BASE"):
        QueryLLM(LLMConfig(environment={"OPENAI_API_BASE": "openai.invalid", "OPENAI_API_KEY": SECRET})).plan("gpt-4.1", prompt="Hello")


# Secrets


def test_secrets_of_the_row_are_masked(llm: QueryLLM) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(
        base_url="https://acme.invalid/v1",
        headers={"Authorization": "Basic c2VjcmV0LW9mLWEtcm93", "X-Team": "research"},
        query={"api-version": "2", "token": "secret-of-a-query"},
        requires_key=False,
    )
    plan = QueryLLM(LLMConfig(environment={"ACME_API_KEY": SECRET})).plan("acme/large", prompt="Hello")
    for secret in (SECRET, "c2VjcmV0LW9mLWEtcm93", "secret-of-a-query"):
        assert secret not in repr(plan)
    assert shown(plan)["x-team"] == "research"


def test_a_short_key_shows_nothing_of_itself() -> None:
    plan = QueryLLM(LLMConfig(environment={**ADDRESSES, "OPENAI_API_KEY": "abc123"})).plan("gpt-4.1", prompt="Hello")
    assert shown(plan)["authorization"] == "Bearer …"
    assert "c123" not in repr(plan)


# The command line


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["query", *arguments])


COMMANDS = {
    "gpt-4.1": ("https://openai.invalid/v9/chat/completions", f"Authorization: Bearer {MASKED}"),
    "claude-sonnet-4-5": ("https://anthropic.invalid/v9/messages", f"x-api-key: {MASKED}"),
    "gemini/gemini-2.5-flash": ("https://gemini.invalid/v9/models/gemini-2.5-flash:generateContent", f"x-goog-api-key: {MASKED}"),
    "vertex/gemini-2.5-flash": ("https://vertex.invalid/v9/models/gemini-2.5-flash:generateContent", f"x-goog-api-key: {MASKED}"),
}


@pytest.mark.parametrize("model", COMMANDS)
def test_a_dry_run_shows_everything_and_no_key(environment: None, model: str) -> None:
    done = run("Hello", "-m", model, "-s", "Be brief.", "-o", "temperature", "0.5", "--dry-run")
    url, header = COMMANDS[model]
    assert (done.exit_code, done.stderr) == (0, "")
    head, _, body = done.stdout.partition("\n\n{")
    lines = head.splitlines()
    assert lines[0].startswith(("openai: ", "anthropic: ", "gemini: ", "vertex: "))
    assert model.partition("/")[2] or model in lines[0]
    assert f"POST {url}" in lines and header in lines
    content = json.loads("{" + body)
    assert "Hello" in json.dumps(content) and "Be brief." in json.dumps(content)
    assert SECRET not in done.output


@pytest.mark.parametrize("model", COMMANDS)
def test_a_dry_run_as_json(environment: None, model: str) -> None:
    done = run("Hello", "-m", model, "-o", "stop", "END", "--dry-run", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    plan = json.loads(done.stdout)
    assert (plan["method"], plan["url"]) == ("POST", COMMANDS[model][0])
    assert plan["provider"] == model.partition("/")[0].replace("gpt-4.1", "openai").replace("claude-sonnet-4-5", "anthropic")
    assert COMMANDS[model][1] in [f"{name}: {value}" for name, value in plan["headers"].items()]
    assert "Hello" in json.dumps(plan["body"])
    assert plan["renamed"].keys() == (set() if model == "gpt-4.1" else {"stop"})
    assert SECRET not in done.output


def test_a_dry_run_is_what_is_then_sent(environment: None, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_BASE", server.base_url)
    arguments = ("Hello", "-m", "gpt-4.1", "-s", "Be brief.", "-o", "seed", "7", "--stream")
    plan = json.loads(run(*arguments, "--dry-run", "--json").stdout)
    assert server.requests == [] and server.opened == 0
    server.answer_sse('data: {"choices":[{"index":0,"delta":{"content":"Hi."},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (0, "Hi.\n")
    assert server.request.json == plan["body"]
    assert server.url + server.request.path == plan["url"]


def test_a_dry_run_shows_what_was_renamed_and_dropped(environment: None) -> None:
    options = ("-o", "stop", "END", "-o", "seed", "7", "-o", "on_unsupported", "drop")
    done = run("Hello", "-m", "claude-sonnet-4-5", *options, "--dry-run")
    assert done.exit_code == 0
    assert "renamed: stop -> stop_sequences" in done.stdout.splitlines()
    assert "dropped: seed" in done.stdout.splitlines()
    plan = json.loads(run("Hello", "-m", "claude-sonnet-4-5", *options, "--dry-run", "--json").stdout)
    assert (plan["renamed"], plan["dropped"]) == ({"stop": "stop_sequences"}, ["seed"])
    assert "on_unsupported" not in plan["body"] and "seed" not in plan["body"]


def test_a_dry_run_of_the_mock(environment: None) -> None:
    done = run("Hello", "-m", "mock/echo", "--dry-run")
    assert done.exit_code == 0
    assert done.stdout.startswith("mock: ") and "POST" not in done.stdout
    assert "Mock response" not in done.stdout


@pytest.mark.parametrize("more", [(), ("--json",)])
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("-m", "claude-sonnet-4-5", "-o", "seed", "7"), 1, "'seed'"),
        (("-m", "gemini/gemini-2.5-flash", "-o", "user", "u1"), 1, "'user'"),
        (("-m", "gpt-4.1", "-o", "temprature", "1"), 1, "did you mean 'temperature'"),
        (("-m", "claude-sonnet-4-5", "-o", "temperature", "2"), 1, "0 to 1"),
        (("-m", "groq/x"), 3, "GROQ_API_KEY"),
        (("-m", "gtp-4.1"), 3, "gpt-4.1"),
    ],
)
def test_what_is_refused_has_its_exit_code(
    environment: None, arguments: tuple[str, ...], code: int, says: str, more: tuple[str, ...]
) -> None:
    done = run("Hello", *arguments, "--dry-run", *more)
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.startswith("Error: ") and says in done.stderr
    assert SECRET not in done.output and "Traceback" not in done.output
