"""``ModelRegistry``, and every row that comes with the library."""

from __future__ import annotations

import datetime
import json
from importlib.resources import files

import pytest

from llm_master import PROVIDER_CONFIGS, ConfigurationError, ModelConfig, ModelRegistry, PricingError

TEXT = files("llm_master").joinpath("models.json").read_text(encoding="utf-8")
FILE = json.loads(TEXT)
CAPABILITIES = {"tools", "vision", "audio_input", "json_schema", "json_mode", "reasoning", "embedding", "web_search", "pdf"}


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
        assert row.output_price_per_million is not None or "embedding" in row.capabilities
        if row.cached_input_price_per_million is not None:
            assert row.cached_input_price_per_million <= row.input_price_per_million
    assert (row.capabilities or set()) <= CAPABILITIES
    assert row.prices_hold_until is None or datetime.date.fromisoformat(row.prices_hold_until) > datetime.date.fromisoformat(row.as_of)


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
        "perplexity",
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
