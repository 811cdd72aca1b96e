"""``ModelRegistry``, and every row that comes with the library."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from importlib.resources import files

import pytest

from llm_master import PROVIDER_CONFIGS, ConfigurationError, ModelConfig, ModelRegistry, PricingError, Usage
from llm_master.pricing import PriceList
from llm_master.row_checks import CAPABILITIES

TEXT = files("llm_master").joinpath("models.json").read_text(encoding="utf-8")
FILE = json.loads(TEXT)
KINDS = ("chat", "embedding", "rerank", "moderation", "image_output", "speech")
"""What a model is for: each is one of these at least."""


@pytest.mark.parametrize("name", FILE)
def test_a_row_is_valid_and_says_where_its_prices_are_from(name):
    row = ModelRegistry.CONFIGS[name]
    assert isinstance(row, ModelConfig)
    assert row.source.startswith("https://")
    assert datetime.date.fromisoformat(row.as_of)
    prices = [
        row.output_price_per_million,
        row.cached_input_price_per_million,
        row.cache_write_price_per_million,
        *(tier.input_price_per_million for tier in row.price_tiers),
    ]
    assert row.input_price_per_million is not None or not any(price is not None for price in prices)
    if row.input_price_per_million is not None:
        # What makes vectors, ranks and judges writes nothing.
        assert row.output_price_per_million is not None or row.lacks("chat")
        if row.cached_input_price_per_million is not None:
            assert row.cached_input_price_per_million <= row.input_price_per_million
    assert row.prices_hold_until is None or datetime.date.fromisoformat(row.prices_hold_until) > datetime.date.fromisoformat(row.as_of)


@pytest.mark.parametrize("name", FILE)
def test_a_rows_capabilities_do_not_contradict_each_other(name):
    row = ModelRegistry.CONFIGS[name]
    can = {word for word, does in row.capabilities.items() if does}
    assert can & set(KINDS), "what the model is for is always known"
    for kind in can & {"embedding", "rerank", "moderation", "speech"}:
        assert row.lacks("chat"), f"{kind} is not done by chatting"
        assert row.lacks("tools")
        assert row.lacks("json_schema")
    if row.lacks("chat"):
        assert not can & {"tools", "reasoning", "json_schema", "json_mode", "web_search"}
    # A price of one kind of thing is the price of a model that has to do with it.
    assert row.price_per_image is None or "image_output" in can
    assert row.image_input_price_per_million is None or "vision" in can
    assert row.audio_input_price_per_million is None or "audio_input" in can
    assert row.audio_output_price_per_million is None or can & {"audio_output", "speech"}
    assert row.price_per_million_characters is None or "speech" in can
    assert row.price_per_search_unit is None or "rerank" in can
    # Without a price of its own, audio would have no cost at all.
    if row.input_price_per_million is not None and "audio_input" in can and not name.startswith("openrouter/"):  # which bills itself
        assert row.audio_input_price_per_million is not None


def test_the_capabilities_in_the_file_are_all_words_of_the_vocabulary_and_each_word_is_used():
    assert {word for fields in FILE.values() for word in fields["capabilities"]} == set(CAPABILITIES)
    assert {does for fields in FILE.values() for does in fields["capabilities"].values()} == {True, False}


@pytest.mark.parametrize(
    ("name", "can", "cannot"),
    [
        # Each from the maker's own documentation.
        ("openai/gpt-4.1", ["chat", "tools", "vision", "json_schema"], ["reasoning", "audio_input", "embedding", "speech"]),
        ("openai/text-embedding-3-large", ["embedding"], ["chat", "tools", "vision"]),
        ("openai/gpt-audio", ["chat", "audio_input", "audio_output"], ["vision", "json_schema"]),
        ("openai/tts-1", ["speech"], ["chat", "image_output"]),
        ("gemini/gemini-2.5-flash", ["audio_input", "video_input", "pdf"], ["audio_output", "image_output"]),
        ("anthropic/claude-sonnet-4-5", ["vision", "pdf", "tools", "reasoning"], ["audio_input", "video_input"]),
        ("groq/openai/gpt-oss-120b", ["tools", "reasoning"], ["vision", "audio_input", "pdf"]),
        ("perplexity/sonar", ["web_search", "json_schema"], ["tools"]),
        ("cohere/rerank-v3.5", ["rerank"], ["chat", "embedding"]),
        ("bfl/flux-pro-1.1", ["image_output"], ["chat", "tools"]),
    ],
)
def test_what_some_models_are_known_for(name, can, cannot):
    row = ModelRegistry.CONFIGS[name]
    assert [word for word in can if row.capabilities.get(word) is not True] == []
    assert [word for word in cannot if not row.lacks(word)] == []


def test_a_file_of_json_objects_only_is_no_schema():
    # Its reference lists text and json_object; other lists say more. Where sources disagree nothing is said.
    assert "json_schema" not in ModelRegistry.CONFIGS["deepseek/deepseek-flash"].capabilities
    assert not ModelRegistry.CONFIGS["deepseek/deepseek-flash"].lacks("json_schema")


@pytest.mark.parametrize(
    ("name", "usage", "cost"),
    [
        ("openai/tts-1", {"characters": 1_000_000}, "15"),
        ("openai/omni-moderation-latest", {}, "0"),
        ("cohere/rerank-v3.5", {"search_units": 1000}, "2"),
        ("voyage/rerank-2.5", {"input_tokens": 1_000_000, "output_tokens": 0}, "0.05"),
        ("bfl/flux-pro-1.1", {"images": 2}, "0.08"),
        ("openai/gpt-audio", {"input_tokens": 1000, "output_tokens": 500, "audio_output_tokens": 400}, "0.0291"),
        ("gemini/gemini-2.5-flash", {"input_tokens": 1000, "output_tokens": 0, "cached_tokens": 0, "audio_input_tokens": 900}, "0.00093"),
        (
            "openai/gpt-image-2",
            {"input_tokens": 300, "output_tokens": 4160, "cached_tokens": 0, "image_input_tokens": 200, "images": 1},
            "0.1269",
        ),
    ],
)
def test_what_a_call_of_a_model_that_is_not_for_chat_costs(name, usage, cost):
    assert PriceList(ModelRegistry.CONFIGS[name]).cost(Usage(**usage)) == (Decimal(cost), "exact")


def test_every_row_belongs_to_a_provider_of_the_table():
    for name, fields in FILE.items():
        provider, slash, model = name.partition("/")
        assert slash, name
        assert model, name
        assert provider in list(PROVIDER_CONFIGS), name
        assert "provider" not in fields, f"the key of {name} says it"


def test_prices_are_written_so_that_no_digit_is_lost():
    def numbers(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                if "price" in key and not isinstance(inner, (list, bool)) and key not in ("prices_hold_until",):
                    yield key, inner
                yield from numbers(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from numbers(inner)

    found = list(numbers(FILE))
    assert found
    assert [(key, price) for key, price in found if not isinstance(price, str)] == []


def test_the_file_is_sorted_with_one_line_per_model():
    lines = TEXT.splitlines()
    assert (lines[0], lines[-1]) == ("{", "}")
    assert [next(iter(json.loads("{" + line.rstrip(",") + "}"))) for line in lines[1:-1]] == sorted(FILE)


def test_no_model_is_there_twice():
    assert len(json.loads(TEXT, object_pairs_hook=list)) == len(FILE)


def test_every_default_model_with_a_price_list_is_registered():
    # A default model is what a newcomer asks first: its cost should be known without a look-up.
    without = {
        "nvidia",
        "huggingface",
        "chutes",
        "azure",
        "llamacpp",
        "mock",
        "bfl",  # each answer says what it costs
    }  # no price is published per model, or none is due
    missing = [
        f"{row.name}/{row.default_model}"
        for row in PROVIDER_CONFIGS.values()
        if row.name not in without and row.default_model is not None and f"{row.name}/{row.default_model}" not in ModelRegistry.CONFIGS
    ]
    assert missing == []


# The registry


def test_a_model_is_registered_and_found():
    row = ModelConfig(input_price_per_million=2, output_price_per_million=8, cached_input_price_per_million=0.5, rate_limit_rpm=600)
    ModelRegistry.register("acme-large", row)
    assert ModelRegistry.get_config("acme-large") is row
    assert "acme-large" in ModelRegistry.list_models()


def test_the_plain_dict_form_is_taken():
    ModelRegistry.register("acme/large", {"input_price_per_million": "2", "capabilities": ["tools"]})
    assert ModelRegistry.get_config("acme/large") == ModelConfig(input_price_per_million=2, capabilities=["tools"])


def test_a_model_that_nobody_registered_is_none():
    assert ModelRegistry.get_config("acme-large") is None
    assert ModelRegistry.get_config("acme-large", "openai") is None


def test_provider_and_model_win_over_the_bare_name():
    bare, named = ModelConfig(rate_limit_rpm=1), ModelConfig(rate_limit_rpm=2)
    ModelRegistry.register("large", bare)
    ModelRegistry.register("acme/large", named)
    assert ModelRegistry.get_config("large", "acme") is named
    assert ModelRegistry.get_config("large", "other") is bare
    assert ModelRegistry.get_config("large") is bare


def test_a_bare_name_with_a_provider_is_that_providers_only():
    row = ModelConfig(provider="acme")
    ModelRegistry.register("large", row)
    assert ModelRegistry.get_config("large", "acme") is row
    assert ModelRegistry.get_config("large", "other") is None
    assert ModelRegistry.get_config("large") is row


@pytest.mark.parametrize("spelt", ["my-host", "my_host", "My-Host"])
def test_the_provider_of_a_bare_name_is_found_however_it_is_spelt(spelt):
    row = ModelConfig(provider="My-Host", input_price_per_million=1)
    ModelRegistry.register("large", row)
    assert ModelRegistry.get_config("large", spelt) is row


@pytest.mark.parametrize("spelt", ["my-host", "my_host", "My-Host"])
def test_the_provider_in_a_key_is_found_however_it_is_spelt(spelt):
    row = ModelConfig(input_price_per_million=1)
    ModelRegistry.register("my-host/large", row)
    assert ModelRegistry.get_config("large", spelt) is row


def test_models_are_listed_sorted_and_by_provider():
    ModelRegistry.register("acme/small", ModelConfig())
    ModelRegistry.register("acme/large", ModelConfig())
    ModelRegistry.register("house-model", ModelConfig(provider="acme"))
    ModelRegistry.register("acme-but-not-acme/x", ModelConfig())
    assert ModelRegistry.list_models("acme") == ["acme/large", "acme/small", "house-model"]
    everything = ModelRegistry.list_models()
    assert everything == sorted(everything)
    assert set(FILE) < set(everything)
    assert ModelRegistry.list_models("nobody") == []


@pytest.mark.parametrize("name", ["", " ", 7, None])
def test_a_model_has_a_name(name):
    with pytest.raises(ConfigurationError, match="provider/model"):
        ModelRegistry.register(name, ModelConfig())


def test_what_is_wrong_gets_not_in():
    with pytest.raises(PricingError):
        ModelRegistry.register("acme/large", {"input_price_per_million": -1})
    with pytest.raises(ConfigurationError, match="acme/large.*rate_limit_rpm"):
        ModelRegistry.register("acme/large", {"rate_limit_rpm": 0})
    with pytest.raises(ConfigurationError, match="acme/large"):
        ModelRegistry.register("acme/large", "cheap")
    assert ModelRegistry.get_config("acme/large") is None


def test_a_price_that_is_none_names_its_model():
    with pytest.raises(PricingError, match="acme/large"):
        ModelRegistry.register("acme/large", {"input_price_per_million": -1})


def test_every_change_bumps_the_version():
    seen = [ModelRegistry.CONFIGS.version]
    ModelRegistry.register("acme/large", ModelConfig())
    seen.append(ModelRegistry.CONFIGS.version)
    ModelRegistry.register("acme/large", ModelConfig(rate_limit_rpm=5))
    seen.append(ModelRegistry.CONFIGS.version)
    del ModelRegistry.CONFIGS["acme/large"]
    seen.append(ModelRegistry.CONFIGS.version)
    assert len(set(seen)) == 4
    assert len(ModelRegistry.CONFIGS) == len(list(ModelRegistry.CONFIGS))
