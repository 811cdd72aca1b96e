"""The configuration examples of the systems that this library unites, as their guides have them, and what then arrives on the wire.

Only the addresses are ours: those of a server in another process.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from servers.scripted import FOREVER, ScriptedServer

from llm_master import ConfigurationError, LLMConfig, MissingApiKeyError, QueryLLM, UnknownModelError
from llm_master.provider_configs import effective

ANSWER = {"choices": [{"message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}], "model": "served"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, and a home with nothing in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    return tmp_path


@pytest.fixture
def answers(server: ScriptedServer) -> ScriptedServer:
    server.answer_json(ANSWER, times=None)
    return server


async def arrives(server: ScriptedServer, model: str, **arguments: Any) -> tuple[dict[str, Any], dict[str, str], str]:
    """Body, headers and path of the request that a query makes."""
    await QueryLLM().query(model, prompt="Hello", **arguments)
    request = server.requests[-1]
    return request.json, request.headers, request.path


async def test_a_provider_in_mixed_case(answers: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPencode_API_KEY", "sk-your-opencode-key")
    monkeypatch.setenv("OPencode_API_BASE", answers.base_url)
    monkeypatch.setenv("OPencode_MODELS", '{"big-pickle": {"id": "big-pickle", "options": {"reasoning_effort": "high"}}}')
    body, headers, path = await arrives(answers, "opencode/big-pickle")
    assert (body["model"], body["reasoning_effort"], path) == ("big-pickle", "high", "/v1/chat/completions")
    assert headers["authorization"] == "Bearer sk-your-opencode-key"


async def test_models_with_ids_and_options(answers: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IFLOW_API_KEY", "sk-iflow-key")
    monkeypatch.setenv("IFLOW_API_BASE", answers.base_url)
    monkeypatch.setenv(
        "IFLOW_MODELS",
        """{
  "GLM-4.6": {"id": "glm-4.6", "options": {"reasoning_effort": "high"}},
  "Qwen3-Coder-Plus": {"id": "qwen3-coder-plus"},
  "DS-R1": {"id": "deepseek-r1", "options": {"reasoning_effort": "high"}},
  "K2": {"id": "kimi-k2"}
}""",
    )
    # The options hold although id and name differ, and the call's own win.
    body, _, _ = await arrives(answers, "iflow/DS-R1")
    assert (body["model"], body["reasoning_effort"]) == ("deepseek-r1", "high")
    body, _, _ = await arrives(answers, "DS-R1", reasoning_effort="low")
    assert (body["model"], body["reasoning_effort"]) == ("deepseek-r1", "low")
    body, _, _ = await arrives(answers, "iflow/K2")
    assert body["model"] == "kimi-k2" and "reasoning_effort" not in body


async def test_the_generic_provider(answers: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "OPENAI_COMPATIBLE_ENABLED": "true",
        "OPENAI_COMPATIBLE_API_KEY": "your_api_key_here",
        "OPENAI_COMPATIBLE_BASE_URL": answers.base_url,
        "OPENAI_COMPATIBLE_DEFAULT_MODEL": "your-preferred-model",
        "OPENAI_COMPATIBLE_PROVIDER_NAME": "YourProvider",
        "OPENAI_COMPATIBLE_CUSTOM_HEADERS": '{"X-Custom-Header": "value"}',
        "OPENAI_COMPATIBLE_TIMEOUT": "30",
        "OPENAI_COMPATIBLE_MAX_RETRIES": "3",
        "PREFERRED_PROVIDER": "openai_compatible",
    }.items():
        monkeypatch.setenv(name, value)
    body, headers, _ = await arrives(answers, "openai_compatible")
    assert body["model"] == "your-preferred-model"
    assert (headers["authorization"], headers["x-custom-header"]) == ("Bearer your_api_key_here", "value")
    body, _, _ = await arrives(answers, "a-model-that-nobody-knows")
    assert body["model"] == "a-model-that-nobody-knows"
    row = effective(LLMConfig()).rows["openai_compatible"]
    assert (row.display_name, row.timeout, row.max_retries) == ("YourProvider", 30, 3)


@pytest.mark.parametrize(
    ("address", "called"),
    [
        ("https://openrouter.ai/api/v1", "OpenRouter"),
        ("https://api.openai.com/v1", "OpenAI"),
        ("https://api.together.xyz/v1", "Together AI"),
        ("https://your-resource.openai.azure.com/openai/v1", "Azure OpenAI"),
        ("https://your-provider.com/api/v1", "OpenAI Compatible"),
        ("https://notopenrouter.ai/v1", "OpenAI Compatible"),
    ],
)
def test_what_the_generic_provider_is_called(monkeypatch: pytest.MonkeyPatch, address: str, called: str) -> None:
    monkeypatch.setenv("OPENAI_COMPATIBLE_BASE_URL", address)
    assert effective(LLMConfig()).rows["openai_compatible"].display_name == called


async def test_the_generic_provider_switched_off(answers: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_COMPATIBLE_BASE_URL", answers.base_url)
    monkeypatch.setenv("OPENAI_COMPATIBLE_ENABLED", "false")
    with pytest.raises(ConfigurationError, match=r"switched off by \$OPENAI_COMPATIBLE_ENABLED"):
        await QueryLLM().query("openai_compatible/x", prompt="Hello")
    assert LLMConfig().validate()["openai_compatible"] is False


async def test_openrouter_by_its_older_variables(answers: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "your_openrouter_api_key")
    monkeypatch.setenv("OPENROUTER_BASE_URL", answers.base_url)
    monkeypatch.setenv("DEFAULT_MODEL", "anthropic/claude-3.5-sonnet")
    monkeypatch.setenv("PREFERRED_PROVIDER", "openrouter")
    body, headers, _ = await arrives(answers, "anthropic/claude-3.5-sonnet")
    assert (body["model"], headers["authorization"]) == ("anthropic/claude-3.5-sonnet", "Bearer your_openrouter_api_key")
    assert LLMConfig().default_model == "anthropic/claude-3.5-sonnet"


@pytest.mark.parametrize("variable", ["OLLAMA_HOST", "OLLAMA_BASE_URL", "OLLAMA_SETTINGS_BASE_URL", "OLLAMA_API_BASE"])
async def test_ollama_by_an_address_without_path(answers: ScriptedServer, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, answers.url.removeprefix("http://") if variable == "OLLAMA_HOST" else answers.url)
    body, _, path = await arrives(answers, "ollama/llama2:latest")
    assert (body["model"], path) == ("llama2:latest", "/v1/chat/completions")


async def test_another_server_in_openais_place_is_local(answers: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", answers.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-local-0123456789")
    body, headers, _ = await arrives(answers, "local/my-model")
    assert (body["model"], headers["authorization"]) == ("my-model", "Bearer sk-local-0123456789")
    assert effective(LLMConfig()).rows["openai"].base_url == "https://api.openai.com/v1"


async def test_a_preferred_provider_is_the_first_with_a_key(answers: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFERRED_PROVIDER", "auto")
    monkeypatch.setenv("MISTRAL_API_KEY", "k" * 20)
    monkeypatch.setenv("MISTRAL_API_BASE", answers.base_url)
    body, _, _ = await arrives(answers, "a-model-that-nobody-knows")
    assert body["model"] == "a-model-that-nobody-knows"


async def test_models_that_are_not_to_be_asked(answers: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_BASE", answers.base_url)
    monkeypatch.setenv("IGNORE_MODELS_ACME", "*-preview*, old-*")
    monkeypatch.setenv("WHITELIST_MODELS_ACME", "large-preview")
    await arrives(answers, "acme/large")
    await arrives(answers, "acme/large-preview")
    for model in ("acme/small-preview-2", "acme/old-one"):
        with pytest.raises(UnknownModelError, match="not to be asked"):
            await QueryLLM().query(model, prompt="Hello")
    assert len(answers.requests) == 2


async def test_three_providers_in_toml(answers: ScriptedServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "llm_master.toml").write_text(
        f"""
[[providers]]
name = "vllm-local"
base_url = "{answers.base_url}"
default_model = "meta-llama/Llama-3.1-8B"

[[providers]]
name = "azure-gpt4"
base_url = "{answers.url}/openai/deployments"
api_key_env = "AZURE_API_KEY"
default_model = "gpt-4"
headers = {{ "api-key" = "in-a-header-0123" }}
query = {{ "api-version" = "2024-10-21" }}

[[providers]]
name = "groq"
base_url = "{answers.base_url}"
api_key_env = "GROQ_API_KEY"
default_model = "llama-3.1-70b-versatile"
"""
    )
    monkeypatch.setenv("AZURE_API_KEY", "azure-0123456789")
    monkeypatch.setenv("GROQ_API_KEY", "gsk-0123456789")
    body, headers, path = await arrives(answers, "vllm-local")
    assert (body["model"], path) == ("meta-llama/Llama-3.1-8B", "/v1/chat/completions") and "authorization" not in headers
    body, headers, path = await arrives(answers, "azure-gpt4")
    assert (body["model"], path) == ("gpt-4", "/openai/deployments/chat/completions?api-version=2024-10-21")
    assert (headers["api-key"], headers["authorization"]) == ("in-a-header-0123", "Bearer azure-0123456789")
    body, headers, _ = await arrives(answers, "groq")
    assert (body["model"], headers["authorization"]) == ("llama-3.1-70b-versatile", "Bearer gsk-0123456789")
    body, _, _ = await arrives(answers, "vllm_local/my-model")
    assert body["model"] == "my-model"


async def test_a_variable_that_toml_names_and_that_is_not_there(answers: ScriptedServer, folder: Path) -> None:
    (folder / "llm_master.toml").write_text(
        f'[[providers]]\nname = "acme"\nbase_url = "{answers.base_url}"\napi_key_env = "THE_KEY_OF_ACME"\n'
    )
    with pytest.raises(MissingApiKeyError, match="THE_KEY_OF_ACME"):
        await QueryLLM().query("acme/large", prompt="Hello")
    assert answers.requests == []


async def test_secrets_and_aliases(answers: ScriptedServer, folder: Path) -> None:
    (folder / "llm_master.toml").write_text(
        f"""
[[providers]]
name = "acme"
base_url = "{answers.base_url}"

[aliases]
fast = "acme/small"
careful = {{ model = "fast", options = {{ temperature = 0, seed = 7 }} }}
"""
    )
    secrets = folder / "llm_master.secrets.toml"
    secrets.write_text('[[providers]]\nname = "ACME"\napi_key = "in-the-secrets-file"\n')
    secrets.chmod(0o600)
    body, headers, _ = await arrives(answers, "careful", seed=8)
    assert (body["model"], body["temperature"], body["seed"]) == ("small", 0, 8)
    assert headers["authorization"] == "Bearer in-the-secrets-file"


async def test_a_yaml_of_the_benchmark(answers: ScriptedServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCODE_API_BASE", answers.base_url)
    monkeypatch.setenv("IFLOW_API_BASE", answers.base_url)
    monkeypatch.setenv("IFLOW_MODELS", '{"DS-R1": {"id": "deepseek-r1", "options": {"reasoning_effort": "high", "temperature": 1}}}')
    (folder / "config.yaml").write_text(
        """
models: [opencode/big-pickle]
judge_model: "openai/gpt-4"
model_configs:
  "opencode/big-pickle":
    system_instruction: "Think step by step."
    system_instruction_position: "prepend"
    options:
      reasoning_effort: "high"
  "iflow/DS-R1":
    system_instruction: "Be brief."
    options:
      temperature: 0.2
max_concurrent: 10
provider_concurrency:
  iflow: 2
"""
    )
    monkeypatch.setenv("LLM_MASTER_CONFIG", str(folder / "config.yaml"))
    body, _, _ = await arrives(answers, "opencode/big-pickle")
    assert body["messages"][0] == {"role": "system", "content": "Think step by step."}
    assert body["reasoning_effort"] == "high"
    messages = [{"role": "system", "content": "You are a poet."}, {"role": "user", "content": "Hi"}]
    await QueryLLM().query("opencode/big-pickle", messages)
    assert answers.requests[-1].json["messages"][0]["content"] == "Think step by step.\n\nYou are a poet."
    await QueryLLM().query("iflow/DS-R1", messages)
    body = answers.requests[-1].json
    assert body["messages"][0]["content"] == "You are a poet.\n\nBe brief."
    assert (body["temperature"], body["reasoning_effort"]) == (0.2, "high"), "the file's options over those of the variable"
    assert messages[0]["content"] == "You are a poet."


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_no_more_in_flight_than_provider_concurrency_allows(
    server: ScriptedServer, folder: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    (folder / "config.yaml").write_text("max_concurrent: 5\nprovider_concurrency:\n  acme: 2\n")
    monkeypatch.setenv("ACME_API_BASE", server.base_url)
    monkeypatch.setenv("LLM_MASTER_CONFIG", str(folder / "config.yaml"))
    server.answer(delay=FOREVER, times=2)
    server.answer_json(ANSWER, times=None)
    llm = QueryLLM()

    async def ask() -> str:
        if not streamed:
            return str(await llm.query("acme/x", prompt="Hello"))
        async with llm.stream("acme/x", prompt="Hello") as stream:
            return "".join([piece async for piece in stream])

    tasks = [asyncio.create_task(ask()) for _ in range(6)]
    assert await server.until_asked(2)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(server.requests) == 2
    tasks[0].cancel()
    tasks[1].cancel()
    # Whoever is cancelled gives the place to the next, also one who never had it.
    tasks[2].cancel()
    assert await asyncio.gather(*tasks[3:]) == ["Hi."] * 3
    assert len(server.requests) == 5
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_keys_per_provider_bound_the_requests_in_flight(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_BASE", server.base_url)
    monkeypatch.setenv("MAX_CONCURRENT_REQUESTS_PER_KEY_ACME", "1")
    server.answer(delay=FOREVER, times=1)
    server.answer_json(ANSWER, times=None)
    llm = QueryLLM()
    first = asyncio.create_task(llm.query("acme/x", prompt="Hello"))
    assert await server.until_asked(1)
    second = asyncio.create_task(llm.query("acme/x", prompt="Hello"))
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(server.requests) == 1
    first.cancel()
    answer = await second
    attempt = answer.receipt.attempts[0]
    assert attempt.wait > 0 and "max_concurrent_per_key of acme is 1 (requests in flight)" in (attempt.wait_reason or "")


def test_all_faults_come_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "llm_master.toml").write_text(
        '[[providers]]\nname = "acme"\nbase_ur = "https://api.acme.ai/v1"\n\n[[providers]]\nbase_url = "x"\n'
    )
    monkeypatch.setenv("IFLOW_API_BASE", "https://apis.iflow.cn/v1")
    monkeypatch.setenv("IFLOW_MODELS", '{"a": ')
    monkeypatch.setenv("GROQ_API_BASE", "api.groq.com")
    with pytest.raises(ConfigurationError) as caught:
        QueryLLM()
    said = str(caught.value)
    assert "llm_master.toml:3" in said and "did you mean 'base_url'" in said
    assert "$IFLOW_MODELS" in said and "column" in said
    assert "$GROQ_API_BASE" in said and "https://" in said
    assert "name" in said


def test_no_key_in_what_is_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-a-secret-0123456789"
    monkeypatch.setenv("ACME_API_BASE", "https://api.acme.ai/v1")
    monkeypatch.setenv("ACME_API_KEY_1", secret)
    monkeypatch.setenv("ACME_API_KEY_2", secret + "b")
    monkeypatch.setenv("ACME_HEADERS", json.dumps({"X-Secret": secret}))
    snapshot = effective(LLMConfig())
    assert [key.secret for key in snapshot.keys["acme"]] == [secret, secret + "b"]
    assert secret not in repr(snapshot) and secret not in repr(snapshot.origins)


async def test_a_route_asks_its_targets_and_says_what_each_of_them_lacks(answers: ScriptedServer, folder: Path) -> None:
    (folder / "llm_master.toml").write_text('[routes.best]\ntargets = ["groq/a", "openai/b"]\nstrategy = "round-robin"\n')
    with pytest.raises(ConfigurationError, match=r"no target of route 'best' can be asked this:\n  - groq/a: (.|\n)*  - openai/b: "):
        await QueryLLM().query("best", prompt="Hello")


def test_keys_that_others_can_read_bring_one_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    secrets = folder / "llm_master.secrets.toml"
    secrets.write_text('[[providers]]\nname = "groq"\napi_key = "gsk-0123456789"\n')
    secrets.chmod(0o644)
    for _ in range(3):
        QueryLLM(max_attempts=3)
    assert [record.getMessage().count("chmod 600") for record in caplog.records] == [1]
    assert "gsk-" not in caplog.text


async def test_a_provider_by_its_other_name_is_the_same(answers: ScriptedServer, folder: Path) -> None:
    (folder / "llm_master.toml").write_text(
        f'[[providers]]\nname = "GoogleAI"\nbase_url = "{answers.url}/v1beta"\napi_key = "a-key-0123456789"\n'
    )
    (folder / "llm_master.toml").chmod(0o600)
    snapshot = effective(LLMConfig())
    assert "googleai" not in snapshot.rows
    assert snapshot.rows["gemini"].base_url == f"{answers.url}/v1beta" and snapshot.keys["gemini"][0].secret == "a-key-0123456789"
