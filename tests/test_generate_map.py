"""What a ``generate_map`` can name, and how a model that it names is asked."""

from __future__ import annotations

import base64
import sys
import types
from decimal import Decimal
from typing import Any

import pytest
from servers.formats import ChatCompletions, Responses
from servers.scripted import ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    BaseLLMProvider,
    BaseProvider,
    ConfigurationError,
    Image,
    LLMConfig,
    LLMResponse,
    ModelConfig,
    ModelRegistry,
    ProviderConfig,
    QueryLLM,
    StreamEnd,
    TextDelta,
    UnifiedProvider,
    Usage,
)
from llm_master.providers.responses import ResponsesProvider
from llm_master.testing import FakeClock

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
KEY = "sk-acme-0123456789"
PRICED = ModelConfig(input_price_per_million=10_000, cached_input_price_per_million=10_000, output_price_per_million=20_000)


def row(server: ScriptedServer | None = None, **fields: Any) -> QueryLLM:
    base_url = server.base_url if server is not None else "http://127.0.0.1:9/v1"
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=base_url, **fields)
    return QueryLLM(LLMConfig(environment={}, clock=FakeClock(auto_advance=True), acme_api_key=KEY))


async def draw(provider: BaseLLMProvider, messages: Any, model: str, **options: Any) -> LLMResponse:
    """A generator as anybody would write it."""
    assert provider.api_key == KEY
    return LLMResponse(f"{model}: {messages[-1]['content']}", f"{model}-served", Usage(images=1), images=[Image(PNG)])


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module of a user's own, ``users_own.pictures``."""
    outer, module = types.ModuleType("users_own"), types.ModuleType("users_own.pictures")
    outer.__path__ = []  # type: ignore[attr-defined]
    module.draw, module.number, module.NoProvider = draw, 7, dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "users_own", outer)
    monkeypatch.setitem(sys.modules, "users_own.pictures", module)
    return module


class Paints(UnifiedProvider):
    async def paint(self, messages: Any, model: str, **options: Any) -> LLMResponse:
        return await draw(self, messages, model, **options)


VALUES: dict[str, dict[str, Any]] = {
    "a function": {"generate_map": {"acme-image": draw}},
    "a method's name": {"generate_map": {"acme-image": "paint"}, "provider_class": Paints},
    "package.module:name": {"generate_map": {"acme-image": "users_own.pictures:draw"}},
    "a pattern": {"generate_map": {"acme-*": draw}},
}


@pytest.mark.parametrize("name", ["acme-image", "acme/acme-image", "ACME:acme-image"])
@pytest.mark.parametrize("fields", VALUES.values(), ids=VALUES)
async def test_every_value_is_called_with_provider_messages_and_wire_id(package: Any, fields: Any, name: str) -> None:
    llm = row(**fields)
    ModelRegistry.register("acme/acme-image", ModelConfig(price_per_image="0.04"))
    answer = await llm.query(name, prompt="a cat")
    assert (answer.content, answer.images[0].data, answer.model_name) == ("acme-image: a cat", PNG, name)
    (attempt,) = answer.receipt.attempts
    assert (attempt.model, attempt.model_served) == ("acme-image", "acme-image-served")
    assert (answer.cost, answer.receipt.cost_state) == (Decimal("0.04"), "exact")


@pytest.mark.parametrize("fields", VALUES.values(), ids=VALUES)
async def test_a_stream_of_it_gives_the_image_once(package: Any, fields: Any) -> None:
    calls = []
    for stream in ("stream", "query"):
        llm = row(**fields)
        made = (
            llm.stream("acme-image", prompt="a cat") if stream == "stream" else await llm.query("acme-image", prompt="a cat", stream=True)
        )
        events = [event async for event in made.events()]
        assert events == [TextDelta("acme-image: a cat")]
        assert [image.data for image in made.response.images] == [PNG]
        assert len(made.response.receipt.attempts) == 1
        calls.append(made.response.content)
    assert calls == ["acme-image: a cat"] * 2


async def test_one_request_for_a_streamed_image_over_http(server: ScriptedServer) -> None:
    llm = row(server, generate_map={"pictures-*": "llm_master.generators.images:openai_image"})
    ModelRegistry.register("acme/pictures-1", ModelConfig(price_per_image="0.04"))
    server.answer_json({"created": 1, "data": [{"b64_json": base64.b64encode(PNG).decode()}]})
    stream = await llm.query("pictures-1", prompt="a cat", stream=True, size="1024x1024")
    assert [piece async for piece in stream] == []
    assert server.request.path == "/v1/images/generations"
    assert server.request.json == {"model": "pictures-1", "prompt": "a cat", "size": "1024x1024"}
    assert [image.data for image in stream.response.images] == [PNG]
    assert stream.response.cost == Decimal("0.04")


# Patterns


async def test_a_star_keeps_the_whole_name_and_model_takes_the_rest() -> None:
    llm = row(generate_map={"pic-*": draw, "drawn-{model}": draw, "drawn/{model}": draw, "pic-best-*": lambda *_, **__: pytest.fail()})
    for asked, wire_id in (
        ("pic-large", "pic-large"),
        ("acme/pic-large", "pic-large"),
        ("PIC-Large", "PIC-Large"),
        ("drawn-large", "large"),
        ("drawn/large", "large"),
        ("acme/drawn-large", "large"),
        ("acme/drawn/large", "large"),
        ("acme/drawn/org/large:free", "org/large:free"),
    ):
        answer = await llm.query(asked, prompt="a cat")
        assert answer.content == f"{wire_id}: a cat", asked
        assert (answer.receipt.attempts[0].model, answer.model_name, answer.provider) == (wire_id, asked, "acme")


async def test_the_longest_pattern_wins_and_an_exact_name_before_all() -> None:
    async def other(provider, messages, model, **options):
        return f"other {model}"

    async def exact(provider, messages, model, **options):
        return f"exact {model}"

    llm = row(generate_map={"pic-*": draw, "pic-best-*": other, "pic-best-{model}": other, "pic-best-1": exact})
    assert str(await llm.query("pic-good", prompt="x")) == "pic-good: x"
    assert str(await llm.query("pic-best-2", prompt="x")).startswith("other ")
    assert str(await llm.query("pic-best-1", prompt="x")) == "exact pic-best-1"


async def test_the_head_alone_is_no_model_of_the_pattern(server: ScriptedServer) -> None:
    llm = row(server, generate_map={"pic-{model}": draw})
    server.answer_json(ChatCompletions().answer("chat"))
    assert (await llm.query("acme/pic-", prompt="x")).content == "chat"


async def test_prices_are_those_of_the_wire_id() -> None:
    async def write(provider, messages, model, **options):
        return LLMResponse("Hello", model, Usage(100, 50, 0))

    llm = row(generate_map={"written-{model}": write})
    ModelRegistry.register("acme/large", PRICED)
    answer = await llm.query("written-large", prompt="x")
    assert (answer.cost, answer.receipt.attempts[0].cost) == (2, 2)
    ModelRegistry.register("acme/written-large", ModelConfig(input_price_per_million=0, output_price_per_million=0))
    again = await llm.query("written-large", prompt="x")
    assert again.cost == 2, "the wire id's own row, before one of the name that was asked for"


# A provider's class: a model that speaks another wire format under the same key


@pytest.mark.parametrize("value", [ResponsesProvider, "llm_master.generators.responses:responses"], ids=["class", "package.module:name"])
@pytest.mark.parametrize("name", ["replies-large", "acme/replies-large", "acme/responses/large"])
async def test_a_provider_class(server: ScriptedServer, value: Any, name: str) -> None:
    llm = row(server, generate_map={"replies-{model}": value, "responses/{model}": value}, headers={"x-team": "blue"})
    ModelRegistry.register("acme/large", PRICED)
    wire = Responses()
    server.answer_json(wire.answer("Hello"))
    server.answer_sse(*wire.stream("Hel", "lo"))
    whole = await llm.query(name, prompt="Hi", max_tokens=5)
    async with llm.stream(name, prompt="Hi", max_tokens=5) as stream:
        pieces = [piece async for piece in stream]
    assert pieces == ["Hel", "lo"], "a class streams by itself"
    for answer, request in zip((whole, stream.response), server.requests, strict=True):
        assert (answer.content, answer.provider, answer.model_name) == ("Hello", "acme", name)
        assert answer.receipt.attempts[0].model == "large" and answer.cost is not None
        assert request.path == "/v1/responses"
        assert request.json["model"] == "large" and request.json["max_output_tokens"] == 5
        assert request.headers["authorization"] == f"Bearer {KEY}" and request.headers["x-team"] == "blue"
        assert answer.receipt.renamed == {"max_tokens": "max_output_tokens"}


async def test_the_rows_other_models_go_the_rows_way(server: ScriptedServer) -> None:
    llm = row(server, generate_map={"responses/{model}": ResponsesProvider})
    server.answer_json(Responses().answer("one"))
    server.answer_json(ChatCompletions().answer("two"))
    assert (await llm.query("acme/responses/large", prompt="Hi")).content == "one"
    assert (await llm.query("acme/large", prompt="Hi")).content == "two"
    assert [request.path for request in server.requests] == ["/v1/responses", "/v1/chat/completions"]


async def test_openais_own_row(server: ScriptedServer) -> None:
    llm = QueryLLM(LLMConfig(environment={}, openai_api_key=KEY, openai_api_base=server.base_url))
    ModelRegistry.register("openai/gpt-x", PRICED)
    server.answer_json(Responses().answer("Hello"), times=3)
    for name in ("openai/responses/gpt-x", "responses-gpt-x", "openai/responses-gpt-x"):
        answer = await llm.query(name, prompt="Hi")
        assert (answer.receipt.attempts[0].model, answer.provider, answer.cost) == ("gpt-x", "openai", 2)
    assert {request.path for request in server.requests} == {"/v1/responses"}


async def test_a_plan_says_what_the_class_would_send(server: ScriptedServer) -> None:
    plan = row(server, generate_map={"responses/{model}": ResponsesProvider}).plan("acme/responses/large", prompt="Hi")
    assert plan.url.endswith("/v1/responses") and plan.body["model"] == plan.model == "large"
    assert server.requests == []


async def test_a_class_of_the_users_own() -> None:
    class Own(BaseLLMProvider):
        async def generate(self, messages, model, **options):
            return f"{self.api_key} {self.config.name} {model}"

        async def stream(self, messages, model, **options):
            yield "streamed"
            yield StreamEnd(finish_reason="stop")

    llm = row(generate_map={"own-*": Own})
    assert (await llm.query("own-1", prompt="x")).content == f"{KEY} acme own-1"
    async with llm.stream("own-1", prompt="x") as stream:
        assert [piece async for piece in stream] == ["streamed"]


async def test_a_class_in_the_short_form() -> None:
    class Short(BaseProvider):
        async def generate(self, prompt, params):
            return f"short {prompt}"

        async def health_check(self):
            return True

    assert (await row(generate_map={"short-*": Short}).query("short-1", prompt="x")).content == "short x"


# What cannot be loaded


@pytest.mark.parametrize(
    "value",
    [
        "users_own.pictures:paint",
        "users_own.nowhere:draw",
        "nowhere:draw",
        "users_own.pictures:",
        ":draw",
        ".pictures:draw",
        "users_own.pictures:number",
        "users_own.pictures:NoProvider",
    ],
)
async def test_what_is_not_there_is_said_with_the_row_and_nothing_is_sent(package: Any, server: ScriptedServer, value: str) -> None:
    llm = row(server, generate_map={"acme-image": value})
    for stream in (False, True):
        with pytest.raises(ConfigurationError, match="acme") as caught:
            await llm.query("acme-image", prompt="x", stream=stream)
        assert "generate_map" in str(caught.value) and value in str(caught.value)
    with pytest.raises(ConfigurationError, match="generate_map"):
        llm.plan("acme-image", prompt="x")
    assert server.requests == []
    server.answer_json(ChatCompletions().answer("Hello"))
    assert (await llm.query("acme/large", prompt="x")).content == "Hello", "the row's other models do not care"


async def test_a_method_that_the_class_does_not_have(server: ScriptedServer) -> None:
    llm = row(server, generate_map={"acme-image": "paint"})
    for stream in (False, True):
        with pytest.raises(ConfigurationError, match=r"'acme': generate_map names the method 'paint', which UnifiedProvider does not have"):
            await llm.query("acme-image", prompt="x", stream=stream)
    assert server.requests == []


@pytest.mark.parametrize("wrong", [None, 7, {"url": "x"}, b"x"])
async def test_a_generator_that_returns_something_else_is_told(wrong: Any) -> None:
    async def generate(provider, messages, model, **options):
        return wrong

    llm = row(generate_map={"acme-image": generate})
    for stream in (False, True):
        with pytest.raises(TypeError, match=rf"generate_map.*acme-image.* returned a {type(wrong).__name__}"):
            await llm.query("acme-image", prompt="x", stream=stream)


async def test_options_reach_a_generator_as_they_are() -> None:
    seen = []

    async def generate(provider, messages, model, **options):
        seen.append(options)
        return "done"

    llm = row(generate_map={"acme-image": generate}, renames={"size": "dims"})
    await llm.query("acme-image", prompt="x", response_format="url", n=2, style=None, extra_body={"moderation": "low"}, tools=[])
    assert seen == [{"response_format": "url", "n": 2, "moderation": "low", "tools": []}]


async def test_media_reach_a_generator_as_parts_with_their_data(tmp_path: Any) -> None:
    (tmp_path / "cat.png").write_bytes(PNG)
    seen = []

    async def edit(provider, messages, model, **options):
        seen.append(messages[-1]["content"])
        return "done"

    await row(generate_map={"acme-image": edit}).query("acme-image", prompt="x", image_paths=["cat.png"])
    text, image = seen[0]
    assert text == {"type": "text", "text": "x"}
    assert image["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
