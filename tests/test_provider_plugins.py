"""``PROVIDER_PLUGINS`` and ``ProviderInterface``: providers as a key-rotating client has them."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from servers.scripted import ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    PROVIDER_PLUGINS,
    AuthenticationError,
    ConfigurationError,
    InvalidRequestError,
    ModelConfig,
    ModelRegistry,
    ProviderConfig,
    ProviderInterface,
    QueryLLM,
    RotatingClient,
    ServerError,
)

ANSWER = {"choices": [{"message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}], "model": "served"}


class Listed(ProviderInterface):
    """The form of the guide: it lists its models, and all else is as everywhere."""

    async def get_models(self, api_key: str, client: Any) -> list[str]:
        return ["acme/large", "small"]


class Asking(Listed):
    """It answers itself."""

    def __init__(self) -> None:
        self.given: list[dict[str, Any]] = []

    def has_custom_logic(self) -> bool:
        return True

    async def acompletion(self, client: Any, **kwargs: Any) -> Any:
        self.given.append(kwargs)
        return made(kwargs)


def made(kwargs: dict[str, Any]) -> Any:
    raise AssertionError("the test says what is made")


def asking(**own: Any) -> type[Asking]:
    return type("Own", (Asking,), own)


# The view


def test_every_provider_is_there_as_a_class() -> None:
    assert list(PROVIDER_PLUGINS) == [*map(str.lower, PROVIDER_CONFIGS)] and len(PROVIDER_PLUGINS) == len(PROVIDER_CONFIGS)
    for name, plugin_class in PROVIDER_PLUGINS.items():
        assert issubclass(plugin_class, ProviderInterface)
        assert isinstance(plugin_class.skip_cost_calculation, bool)
        assert plugin_class is PROVIDER_PLUGINS[name] and plugin_class().has_custom_logic() is False
    assert PROVIDER_PLUGINS["ollama"].skip_cost_calculation is True and PROVIDER_PLUGINS["openai"].skip_cost_calculation is False
    assert PROVIDER_PLUGINS.get(None) is None  # type: ignore[call-overload]
    assert PROVIDER_PLUGINS.get("Open-AI") is None and PROVIDER_PLUGINS.get("OpenAI") is PROVIDER_PLUGINS["openai"]
    assert "nobody" not in PROVIDER_PLUGINS and 3 not in PROVIDER_PLUGINS  # type: ignore[comparison-overlap]
    with pytest.raises(KeyError):
        PROVIDER_PLUGINS["nobody"]


def test_it_is_read_only() -> None:
    with pytest.raises(TypeError):
        PROVIDER_PLUGINS["acme"] = Listed  # type: ignore[index]


def test_it_is_as_the_settings_are_when_it_is_looked_into(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "opencode" not in PROVIDER_PLUGINS
    monkeypatch.setenv("OPencode_API_BASE", "https://opencode.ai/zen/v1")
    monkeypatch.setenv("OPencode_API_KEY", "sk-0123456789")
    assert PROVIDER_PLUGINS["opencode"].skip_cost_calculation is True  # nobody knows its prices
    assert "opencode" in list(PROVIDER_PLUGINS)
    (tmp_path / "llm_master.toml").write_text(
        '[models."opencode/big-pickle"]\ninput_price_per_million = 1\n[[providers]]\nname = "groq"\nrotation_mode = "sequential"\nmax_concurrent_per_key = 3\n'
    )
    assert PROVIDER_PLUGINS["opencode"].skip_cost_calculation is False
    groq = PROVIDER_PLUGINS["groq"]
    assert (groq.default_rotation_mode, groq.default_max_concurrent_per_key) == ("sequential", 3)


def test_wrong_settings_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_BASE", "acme.ai")
    with pytest.raises(ConfigurationError, match="ACME_API_BASE"):
        list(PROVIDER_PLUGINS)


def test_a_class_of_ones_own_is_shown_itself() -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url="https://acme.ai/v1", provider_class=Listed)
    assert PROVIDER_PLUGINS["acme"] is Listed


async def test_its_classes_list_models(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_BASE", server.base_url)
    server.answer_json({"data": [{"id": "large"}, {"id": "maker/small"}]})
    assert await PROVIDER_PLUGINS["acme"]().get_models("sk-given-0123456789", None) == ["acme/large", "acme/maker/small"]
    assert server.request.headers["authorization"] == "Bearer sk-given-0123456789"


# A class that lists its models


async def test_what_a_class_says_holds_for_its_row(server: ScriptedServer) -> None:
    own = {"skip_cost_calculation": True, "default_rotation_mode": "sequential", "default_max_concurrent_per_key": 2}
    cls = type("Own", (Listed,), own)
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, provider_class=cls, requires_key=False)
    row = QueryLLM()._engine.snapshot.rows["acme"]
    assert (row.skip_cost_calculation, row.rotation_mode, row.max_concurrent_per_key) == (True, "sequential", 2)
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, provider_class=cls, requires_key=False, max_concurrent_per_key=7)
    assert QueryLLM()._engine.snapshot.rows["acme"].max_concurrent_per_key == 7
    server.answer_json(ANSWER)
    answer = await QueryLLM().query("acme/large", prompt="Hello")
    assert answer.content == "Hi." and server.request.path.endswith("/chat/completions") and server.request.json["model"] == "large"


@pytest.mark.parametrize(("said", "held"), [(0, None), (-1, None), (None, None)])
def test_no_more_than_none_at_once_is_no_limit(said: int | None, held: int | None) -> None:
    cls = type("Own", (Listed,), {"default_max_concurrent_per_key": said})
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url="https://acme.ai/v1", provider_class=cls)
    assert QueryLLM()._engine.snapshot.rows["acme"].max_concurrent_per_key is held


def test_a_wrong_word_of_a_class_is_told() -> None:
    cls = type("Own", (Listed,), {"default_rotation_mode": "random"})
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url="https://acme.ai/v1", provider_class=cls)
    with pytest.raises(ConfigurationError, match="provider class Own of 'acme'.*rotation_mode"):
        QueryLLM().plan("mock/echo", prompt="Hello")


async def test_its_models_are_those_of_the_class() -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url="https://acme.ai/v1", provider_class=Listed, requires_key=False)
    assert await RotatingClient().get_available_models("acme") == ["acme/large", "acme/small"]


async def test_the_client_it_is_given_asks(server: ScriptedServer) -> None:
    class Own(ProviderInterface):
        async def get_models(self, api_key: str, client: Any) -> list[str]:
            answer = await client.get(f"{server.base_url}/models", headers={"Authorization": f"Bearer {api_key}"})
            answer.raise_for_status()
            return [model["id"] for model in answer.json()["data"]]

    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=Own, base_url=server.base_url)
    server.answer_json({"data": [{"id": "large"}]})
    async with RotatingClient(api_keys={"acme": "sk-acme-0123456789"}) as client:
        assert await client.get_available_models("acme") == ["acme/large"]
    assert server.request.headers["authorization"] == "Bearer sk-acme-0123456789"


async def test_what_is_no_list_of_names_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def get_models(self: Any, api_key: str, client: Any) -> Any:
        return {"data": []}

    cls = type("Own", (Listed,), {"get_models": get_models})
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url="https://acme.ai/v1", provider_class=cls, requires_key=False)
    assert await RotatingClient().get_available_models("acme") == []
    assert "Own.get_models() of provider 'acme' gave a dict: return a list of names" in caplog.text


# A class that answers itself


def answering(answer: Any) -> type[Asking]:
    async def acompletion(self: Any, client: Any, **kwargs: Any) -> Any:
        self.given.append(kwargs)
        return answer(kwargs) if callable(answer) else answer

    return asking(acompletion=acompletion)


def put(cls: type, **fields: Any) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=cls, requires_key=False, **fields)


def given() -> dict[str, Any]:
    """What the class was given last."""
    [provider] = QueryLLM()._engine.providers("acme")
    last: dict[str, Any] = provider._inner.given[-1]  # type: ignore[attr-defined]
    return last


async def test_it_needs_no_address_and_is_given_openais_arguments() -> None:
    put(answering({**ANSWER, "usage": {"prompt_tokens": 1000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 0}}}))
    ModelRegistry.register("acme/large", ModelConfig(input_price_per_million=1, output_price_per_million=2))
    answer = await QueryLLM().query("acme/large", prompt="Hello", temperature=0.5, max_tokens=9)
    assert (answer.content, answer.usage.input_tokens) == ("Hi.", 1000)
    assert answer.cost == Decimal("0.00102")
    assert given() == {
        "model": "acme/large",
        "messages": [{"role": "user", "content": "Hello"}],
        "temperature": 0.5,
        "max_tokens": 9,
        "credential_identifier": "",
    }


async def test_each_key_has_an_object_of_its_own() -> None:
    cls = answering(lambda kwargs: {"choices": [{"message": {"content": kwargs["credential_identifier"]}}]})
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=cls)
    llm = QueryLLM(api_keys={"acme": ["sk-one-0123456789", "sk-two-0123456789"]})
    assert {str(await llm.query("acme/large", prompt="Hello")) for _ in range(2)} == {"sk-one-0123456789", "sk-two-0123456789"}


async def test_an_object_of_the_openai_package() -> None:
    from openai.types.chat import ChatCompletion

    put(
        answering(
            ChatCompletion.model_validate(
                {"id": "1", "object": "chat.completion", "created": 1, **ANSWER, "choices": [{"index": 0, **ANSWER["choices"][0]}]}
            )
        )
    )  # type: ignore[dict-item,index]
    assert (await QueryLLM().query("acme/large", prompt="Hello")).content == "Hi."


async def chunks(*texts: str, ends: bool = True) -> Any:
    for text in texts:
        yield {"choices": [{"delta": {"content": text}}]}
    if ends:
        yield {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


async def test_a_stream() -> None:
    put(answering(lambda kwargs: chunks("Hel", "lo")))
    async with QueryLLM().stream("acme/large", prompt="Hello") as stream:
        assert [piece async for piece in stream] == ["Hel", "lo"]
    assert stream.response.usage.output_tokens == 2 and stream.response.finish_reason == "stop"
    assert given()["stream"] is True


async def test_a_stream_whose_method_is_itself_a_generator() -> None:
    async def acompletion(self: Any, client: Any, **kwargs: Any) -> Any:
        async for chunk in chunks("Hi", "."):
            yield chunk

    put(asking(acompletion=acompletion))
    async with QueryLLM().stream("acme/large", prompt="Hello") as stream:
        assert [piece async for piece in stream] == ["Hi", "."]


async def test_a_stream_that_breaks_off() -> None:
    put(answering(lambda kwargs: chunks("Hel", ends=False)), max_retries=0)
    with pytest.raises(Exception, match="ended without") as failed:
        async with QueryLLM().stream("acme/large", prompt="Hello") as stream:
            async for _ in stream:
                pass
    assert "Hel" in str(failed.value.response.content)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        ("Hi.", ConfigurationError, "Own.acompletion.. of provider 'acme' gave a str: return an object of the openai package"),
        (None, ConfigurationError, "gave a NoneType"),
        ({"choices": [{"message": {"content": object()}}]}, ConfigurationError, "what can be written as JSON"),
        ({}, ServerError, "without any choice"),
        ({"error": {"message": "Bad key", "code": 401}}, AuthenticationError, "Bad key"),
    ],
)
async def test_what_is_no_answer(answer: Any, error: type[Exception], said: str) -> None:
    put(answering(answer), max_retries=0)
    with pytest.raises(error, match=said):
        await QueryLLM().query("acme/large", prompt="Hello")


async def test_no_stream_where_one_is_asked_for() -> None:
    put(answering(ANSWER), max_retries=0)
    with pytest.raises(ConfigurationError, match="with stream=True an asynchronous iterator"):
        await QueryLLM().query("acme/large", prompt="Hello", stream=True)


async def test_embeddings() -> None:
    async def aembedding(self: Any, client: Any, **kwargs: Any) -> Any:
        return {"data": [{"embedding": [1.0, 2.0], "index": n} for n, _ in enumerate(kwargs["input"])], "model": kwargs["model"]}

    put(asking(aembedding=aembedding))
    answer = await QueryLLM().embed("acme/vectors", ["a", "b"])
    assert [list(vector) for vector in answer.embeddings] == [[1.0, 2.0], [1.0, 2.0]]
    put(Asking)
    with pytest.raises(InvalidRequestError, match="cannot make embeddings"):
        await QueryLLM().embed("acme/vectors", ["a"])


def test_a_plan_is_what_it_would_be_given() -> None:
    put(Asking)
    plan = QueryLLM().plan("acme/large", prompt="Hello", temperature=0)
    assert plan.url is None and plan.body["temperature"] == 0 and json.dumps(plan.body)


# What there is not


@pytest.mark.parametrize("name", ["get_auth_header", "tier_priorities", "model_quota_groups", "parse_quota_error", "usage_reset_configs"])
def test_what_is_not_asked_is_refused_and_not_passed_over(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"provider class Own: {name} is not asked: "):
        type("Own", (Listed,), {name: {}})


def test_a_class_that_wants_arguments() -> None:
    def __init__(self: Any, name: str) -> None: ...

    put(type("Own", (Listed,), {"__init__": __init__}), base_url="https://acme.ai/v1")
    with pytest.raises(ConfigurationError, match="provider class Own of 'acme' cannot be made without arguments"):
        QueryLLM().plan("acme/large", prompt="Hello")


async def test_logic_that_is_announced_and_not_there() -> None:
    put(type("Own", (Listed,), {"has_custom_logic": lambda self: True}), max_retries=0)
    with pytest.raises(Exception, match=r"Own has custom logic and no acompletion\(\): write one"):
        await QueryLLM().query("acme/large", prompt="Hello")
