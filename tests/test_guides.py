"""The examples of the guides that people know, as they stand there but for the import path."""

from __future__ import annotations

import asyncio
import base64
import inspect
from decimal import Decimal
from pathlib import Path

import pytest
from openai import OpenAI
from servers.documented import PDF, SENTENCE, SOURCES, silence
from servers.media import PNG

from llm_master import PROVIDER_CONFIGS, LLMConfig, LLMResponse, QueryLLM, UnifiedProvider, Usage, extract_prompt
from llm_master.rows import base_variable, key_variables


@pytest.fixture
def api(documented, monkeypatch):
    """All providers are one server. Keys and addresses come from the environment, as in the guides."""
    for row in PROVIDER_CONFIGS.values():
        if row.name != "mock":
            monkeypatch.setenv(base_variable(row), documented.base_url)
            monkeypatch.setenv(key_variables(row)[0], "a-key")
    monkeypatch.setattr("llm_master.providers.bfl.FIRST_PAUSE", 0)
    return documented


@pytest.fixture
def cat(tmp_path):
    (tmp_path / "cat.png").write_bytes(PNG)
    return "cat.png"


def body(api):
    (request,) = api.take()
    return request["body"]


# Images of Recraft: a row, and a method of the provider's class


class RecraftProvider(UnifiedProvider):
    """As the guide has it: the row's synchronous client, called in the executor."""

    async def _generate_recraft_image(self, messages, model, **kwargs):
        assert isinstance(self.client, OpenAI)
        loop = asyncio.get_event_loop()
        prompt = extract_prompt(messages)
        response = await loop.run_in_executor(
            None, lambda: self.client.images.generate(prompt=prompt, model="recraftv3", extra_body={"style": kwargs.get("style")})
        )
        return LLMResponse(content=response.data[0].url, model_name=model, usage=Usage(), latency=0.0)


def recraft_row(api):
    return {
        "client_class": OpenAI,
        "base_url": api.base_url,
        "api_key_attr": "recraft_api_key",
        "supports_caching": False,
        "provider_class": RecraftProvider,
        "generate_map": {"recraft-image-gen": "_generate_recraft_image"},
    }


@pytest.mark.parametrize(("row", "model"), [("recraft", "recraft-image-gen"), ("recraft2", "recraft2/recraft-image-gen")])
async def test_a_row_as_a_plain_dict_whose_generator_is_a_method(api, row, model):
    PROVIDER_CONFIGS[row] = recraft_row(api)
    llm = QueryLLM(LLMConfig(recraft_api_key="rk-1"))
    response = await llm.query(model_name=model, prompt="race car on a track", style="digital_illustration")
    assert f"Image URL: {response.content}" == f"Image URL: {api.url}/cat.png"
    assert (response.provider, response.model_name) == (row, model)
    assert body(api) == {"prompt": "race car on a track", "model": "recraftv3", "style": "digital_illustration"}


async def test_the_method_is_where_unified_provider_has_it_too(api, monkeypatch):
    """The guide's row names no class: there the method stands on the one class that all rows have."""
    monkeypatch.setattr(UnifiedProvider, "_generate_recraft_image", RecraftProvider._generate_recraft_image, raising=False)
    PROVIDER_CONFIGS["recraft2"] = {name: value for name, value in recraft_row(api).items() if name != "provider_class"}
    response = await QueryLLM(recraft_api_key="rk-1").query(model_name="recraft2/recraft-image-gen", prompt="race car", style="any")
    assert response.content == f"{api.url}/cat.png"


async def test_the_built_in_row_with_prompt_and_style(api):
    response = await QueryLLM().query(model_name="recraft-image-gen", prompt="race car on a track", style="digital_illustration")
    assert response.content == response.images[0].url == f"{api.url}/cat.png"
    assert response.cost == Decimal("0.04")
    assert body(api) == {"prompt": "race car on a track", "style": "digital_illustration", "model": "recraftv3"}


# Black Forest Labs


async def test_flux_returns_the_images_address(api):
    llm = QueryLLM()
    assert llm.config.validate()["bfl"] is True
    response = await llm.query(
        model_name="flux-pro-1.1", messages=[{"role": "user", "content": "A cat with a fish"}], width=1024, height=768
    )
    assert response.content == f"{api.url}/cat.png"
    submitted, asked = api.take()
    assert submitted["path"] == "/flux-pro-1.1"
    assert submitted["body"] == {"prompt": "A cat with a fish", "width": 1024, "height": 768}
    assert (asked["method"], asked["path"]) == ("GET", "/get_result")


def test_validate_says_which_provider_lacks_its_key(monkeypatch):
    usable = QueryLLM().config.validate()
    assert usable["bfl"] is False and usable["mock"] is True


# Images by path


async def test_images_by_path_in_a_message(api, cat):
    response = await QueryLLM().query(
        model_name="gpt-4.1", messages=[{"role": "user", "content": "What is in this image?", "image_paths": [cat]}]
    )
    assert response.content == SENTENCE
    text, image = body(api)["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is in this image?"}
    assert image == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}}


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("claude-sonnet-4-5", lambda sent: sent["messages"][0]["content"][1]["source"]["data"]),
        ("gemini-2.5-flash", lambda sent: sent["contents"][0]["parts"][1]["inlineData"]["data"]),
    ],
)
async def test_images_by_path_for_every_format(api, cat, model, found):
    await QueryLLM().query(model_name=model, messages=[{"role": "user", "content": "What?", "image_paths": [cat]}])
    assert base64.b64decode(found(body(api))) == PNG


async def test_files_beside_the_prompt(api, tmp_path):
    (tmp_path / "report.pdf").write_bytes(PDF)
    await QueryLLM().query("claude-sonnet-4-5", prompt="Sum this up.", files=["report.pdf"])
    kinds = [block["type"] for block in body(api)["messages"][0]["content"]]
    assert kinds == ["text", "document"]


# Audio out


async def test_audio_out(api, tmp_path):
    completion = await QueryLLM().query(
        model_name="gpt-audio",
        messages=[{"role": "user", "content": "Is a golden retriever a good family dog?"}],
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "wav"},
    )
    assert completion.content == completion.audio.transcript == SENTENCE
    assert completion.audio.save("dog.wav") == Path("dog.wav")
    assert (tmp_path / "dog.wav").read_bytes() == silence()
    sent = body(api)
    assert sent["modalities"] == ["text", "audio"] and sent["audio"] == {"voice": "alloy", "format": "wav"}


# Perplexity


async def test_citations_of_a_whole_answer(api):
    response = await QueryLLM().query(model_name="sonar", messages=[{"role": "user", "content": "How many stars are there?"}])
    assert response.content == SENTENCE
    assert [(source.url, source.title, source.text) for source in response.citations] == [
        (SOURCES[0]["url"], SOURCES[0]["title"], SOURCES[0]["snippet"])
    ]


async def test_a_stream_yields_the_text_and_no_citations(api):
    stream = await QueryLLM().query(model_name="sonar", messages=[{"role": "user", "content": "How many stars?"}], stream=True)
    pieces = [piece async for piece in stream]
    assert "".join(pieces) == SENTENCE and len(pieces) > 1
    assert [source.url for source in stream.response.citations] == [SOURCES[0]["url"]]


# The Responses API


@pytest.mark.parametrize("model", ["responses-gpt-5", "openai/responses/gpt-5"])
async def test_the_responses_api_by_the_models_name(api, model):
    response = await QueryLLM().query(model_name=model, prompt="What happened today?", tools=[{"type": "web_search"}])
    assert response.content == SENTENCE
    assert response.citations[0].url == SOURCES[0]["url"]
    (request,) = api.take()
    assert request["path"] == "/responses"
    assert request["body"]["model"] == "gpt-5" and request["body"]["tools"] == [{"type": "web_search"}]


async def test_the_responses_api_streams(api):
    stream = await QueryLLM().query(model_name="responses-gpt-5", prompt="Why?", stream=True)
    assert "".join([piece async for piece in stream]) == SENTENCE
    assert body(api)["stream"] is True


# Images of OpenAI


async def test_an_image_of_openai_and_its_edit(api, tmp_path):
    llm = QueryLLM()
    response = await llm.query(model_name="gpt-image-1", prompt="A red bicycle", size="1024x1024", quality="low")
    response.images[0].save("bicycle.png")
    assert (tmp_path / "bicycle.png").read_bytes() == PNG
    assert body(api) == {"model": "gpt-image-1", "prompt": "A red bicycle", "size": "1024x1024", "quality": "low"}
    edited = await llm.query(
        model_name="gpt-image-1", messages=[{"role": "user", "content": "Make it blue", "image_paths": ["bicycle.png"]}]
    )
    assert edited.images[0].data == PNG
    (request,) = api.take()
    assert request["path"] == "/images/edits" and {"prompt", "model"} < set(request["body"])


def test_query_can_be_awaited_in_a_script(api):
    """The guides end in asyncio.run."""
    assert inspect.iscoroutinefunction(QueryLLM.query)
    assert asyncio.run(QueryLLM().query(model_name="gpt-4.1", prompt="Why is the sky blue?")).content == SENTENCE
