"""What variables say of providers, and whose each of them is."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_master import PROVIDER_CONFIGS, ConfigurationError, ProviderConfig
from llm_master.row_checks import base_url_faults
from llm_master.rows import canonical
from llm_master.settings.declared import Declared
from llm_master.settings.environment import Environment
from llm_master.settings.variables import read_variables

KEY = "sk-test-0123456789abcdef"

ROWS = {
    **{canonical(row.name): row for row in PROVIDER_CONFIGS.values()},
    "openai_compatible": ProviderConfig(name="openai_compatible", base_url="https://openrouter.ai/api/v1"),
    "local": ProviderConfig(
        name="local",
        base_url="http://localhost:8000/v1",
        base_url_env=("OPENAI_BASE_URL", "OPENAI_API_HOST"),
        requires_key=False,
        default_path="/v1",
    ),
    "ollama": ProviderConfig(
        name="ollama",
        base_url="http://localhost:11434/v1",
        base_url_env=("OLLAMA_HOST",),
        default_path="/v1",
        requires_key=False,
    ),
    "acme": ProviderConfig(
        name="acme",
        base_url="https://api.acme.ai/v1",
        base_url_env=("ACME_URL", "ACME_ENDPOINT"),
        api_key_env=("ACME_TOKEN", "ACME_SECRET"),
        headers={"X-Title": "row", "X-Other": "kept"},
        aliases=("acme-ai",),
    ),
}


def read(variables, rows=ROWS) -> Declared:
    return read_variables(Environment(variables), rows)


def fields(declared, provider):
    return {name: sourced.value for name, sourced in declared.providers[provider].items()}


def told(**variables):
    """What each provider's fields become, where nothing is wrong."""
    declared = read(variables)
    assert declared.faults == []
    return {name: fields(declared, name) for name in declared.providers}


def keys(variables, provider, rows=ROWS):
    declared = read(variables, rows)
    assert declared.faults == []
    return [(key.value, key.origin) for key in declared.keys.get(provider, [])]


def options(**variables):
    declared = read(variables)
    assert (declared.faults, declared.providers) == ([], {})
    return {name: sourced.value for name, sourced in declared.options.items()}


def the_fault(**variables):
    (fault,) = read(variables).faults
    return fault


# What the guides show


def test_a_provider_is_made_by_its_address_in_any_case():
    declared = read(
        {
            "OPencode_API_KEY": "sk-your-opencode-key",
            "OPencode_API_BASE": "https://opencode.ai/zen/v1",
            "OPencode_MODELS": '{"big-pickle": {"id": "big-pickle", "options": {"reasoning_effort": "high"}}}',
            "IFLOW_API_KEY": "sk-iflow-key",
            "IFLOW_API_BASE": "https://apis.iflow.cn/v1",
            "IFLOW_MODELS": (
                '{"GLM-4.6": {"id": "glm-4.6", "options": {"reasoning_effort": "high"}}, '
                '"DS-R1": {"id": "deepseek-r1", "options": {"reasoning_effort": "high"}}}'
            ),
        }
    )
    assert declared.faults == []
    assert set(declared.providers) == {"opencode", "iflow"}
    assert declared.names == {"opencode": "opencode", "iflow": "iflow"}
    assert fields(declared, "opencode") == {
        "requires_key": False,
        "base_url": "https://opencode.ai/zen/v1",
        "models": {"big-pickle": {"id": "big-pickle", "options": {"reasoning_effort": "high"}}},
    }
    assert fields(declared, "iflow")["models"]["DS-R1"] == {"id": "deepseek-r1", "options": {"reasoning_effort": "high"}}
    assert {name: [(key.value, key.origin) for key in found] for name, found in declared.keys.items()} == {
        "opencode": [("sk-your-opencode-key", "$OPencode_API_KEY")],
        "iflow": [("sk-iflow-key", "$IFLOW_API_KEY")],
    }
    assert declared.providers["opencode"]["base_url"].origin == "$OPencode_API_BASE"
    for name in declared.providers:
        ProviderConfig(name=name, **fields(declared, name))


def test_models_over_several_lines():
    text = """{
      "GLM-4.6": {"id": "glm-4.6", "options": {"reasoning_effort": "high"}},
      "Qwen3-Coder-Plus": {"id": "qwen3-coder-plus"},
      "K2": {"id": "kimi-k2"}
    }"""
    found = told(IFLOW_API_BASE="https://apis.iflow.cn/v1", IFLOW_MODELS=text)["iflow"]["models"]
    assert found == json.loads(text)
    # Not put into quotes in .env, only its first line arrives.
    fault = the_fault(IFLOW_API_BASE="https://apis.iflow.cn/v1", IFLOW_MODELS="{")
    assert fault.startswith("$IFLOW_MODELS: broken JSON at line 1, column 2: ")


def test_several_keys():
    variables = {
        "OPencode_API_KEY_1": "sk-first-key",
        "OPencode_API_KEY_2": "sk-second-key",
        "OPencode_API_KEY_3": "sk-third-key",
        "OPencode_API_BASE": "https://opencode.ai/zen/v1",
    }
    assert keys(variables, "opencode") == [
        ("sk-first-key", "$OPencode_API_KEY_1"),
        ("sk-second-key", "$OPencode_API_KEY_2"),
        ("sk-third-key", "$OPencode_API_KEY_3"),
    ]


def test_the_generic_provider():
    declared = read(
        {
            "OPENAI_COMPATIBLE_ENABLED": "true",
            "OPENAI_COMPATIBLE_API_KEY": "your_api_key_here",
            "OPENAI_COMPATIBLE_BASE_URL": "https://your-provider.com/api/v1",
            "OPENAI_COMPATIBLE_DEFAULT_MODEL": "anthropic/claude-3.5-sonnet",
            "OPENAI_COMPATIBLE_PROVIDER_NAME": "Custom Provider",
            "OPENAI_COMPATIBLE_CUSTOM_HEADERS": '{"X-Custom-Header": "value"}',
            "OPENAI_COMPATIBLE_TIMEOUT": "30",
            "OPENAI_COMPATIBLE_MAX_RETRIES": "3",
            "OPENROUTER_API_KEY": "your_openrouter_api_key",
            "OPENROUTER_BASE_URL": "https://openrouter.ai/api/v1",
            "DEFAULT_MODEL": "anthropic/claude-3.5-sonnet",
            "PREFERRED_PROVIDER": "openai_compatible",
            "ENABLE_FALLBACK": "true",
            "ROUTER_MODEL": "deepseek/deepseek-chat",
        }
    )
    assert declared.faults == []
    assert fields(declared, "openai_compatible") == {
        "enabled": True,
        "base_url": "https://your-provider.com/api/v1",
        "default_model": "anthropic/claude-3.5-sonnet",
        "display_name": "Custom Provider",
        "headers": {"X-Custom-Header": "value"},
        "timeout": 30,
        "max_retries": 3,
    }
    assert fields(declared, "openrouter") == {"base_url": "https://openrouter.ai/api/v1"}
    assert set(declared.providers) == {"openai_compatible", "openrouter"}
    assert {name: found[0].value for name, found in declared.keys.items()} == {
        "openai_compatible": "your_api_key_here",
        "openrouter": "your_openrouter_api_key",
    }
    assert {name: option.value for name, option in declared.options.items()} == {
        "default_model": "anthropic/claude-3.5-sonnet",
        "preferred_provider": "openai_compatible",
        "enable_fallback": True,
    }


def test_a_section_of_settings():
    assert told(
        OLLAMA_SETTINGS_BASE_URL="http://localhost:11434",
        OLLAMA_SETTINGS_ENABLED="true",
        OLLAMA_SETTINGS_DEFAULT_MODEL="llama2",
        OLLAMA_SETTINGS_TIMEOUT="30",
        OLLAMA_SETTINGS_TEMPERATURE="0.7",
        OLLAMA_SETTINGS_MAX_TOKENS="",
        OLLAMA_SETTINGS_STREAMING="true",
    ) == {"ollama": {"base_url": "http://localhost:11434/v1", "enabled": True, "default_model": "llama2", "timeout": 30}}


def test_filters_and_rotation():
    assert told(
        IGNORE_MODELS_OPENAI="*-preview*",
        WHITELIST_MODELS_OPENAI="gpt-4o-2024-08-06-preview",
        IGNORE_MODELS_GEMINI="*",
        WHITELIST_MODELS_GEMINI="gemini-2.5-pro,gemini-2.5-flash",
        ROTATION_MODE_GEMINI="sequential",
        ROTATION_MODE_OPENAI="Balanced",
        MAX_CONCURRENT_REQUESTS_PER_KEY_GEMINI="1",
        IGNORE_MODELS_MISTRAL="",
    ) == {
        "openai": {
            "ignore_models": ("*-preview*",),
            "whitelist_models": ("gpt-4o-2024-08-06-preview",),
            "rotation_mode": "balanced",
        },
        "gemini": {
            "ignore_models": ("*",),
            "whitelist_models": ("gemini-2.5-pro", "gemini-2.5-flash"),
            "rotation_mode": "sequential",
            "max_concurrent_per_key": 1,
        },
    }


@pytest.mark.parametrize("limit", ["0", "-2", "many", "1.5", "9" * 5000])
def test_a_limit_that_is_none(limit):
    fault = the_fault(MAX_CONCURRENT_REQUESTS_PER_KEY_OPENAI=limit)
    assert fault.startswith("$MAX_CONCURRENT_REQUESTS_PER_KEY_OPENAI: ")
    assert fault.endswith("or -1 for no limit")


def test_no_limit_as_the_guide_says_it():
    assert told(MAX_CONCURRENT_REQUESTS_PER_KEY_OPENAI="-1")["openai"]["max_concurrent_per_key"] is None


@pytest.mark.parametrize(
    ("rotation", "limit"), [({}, 3), ({"ROTATION_MODE_OPENAI": "balanced"}, 3), ({"ROTATION_MODE_OPENAI": "sequential"}, 7)]
)
def test_a_limit_may_hold_in_one_rotation_mode(rotation, limit):
    each = {
        "MAX_CONCURRENT_REQUESTS_PER_KEY_OPENAI_BALANCED": "3",
        "MAX_CONCURRENT_REQUESTS_PER_KEY_OPENAI_SEQUENTIAL": "7",
        "MAX_CONCURRENT_REQUESTS_PER_KEY_OPENAI": "5",
    }
    assert told(**each, **rotation)["openai"]["max_concurrent_per_key"] == limit
    one = {"MAX_CONCURRENT_REQUESTS_PER_KEY_OPENAI_SEQUENTIAL": "7", "MAX_CONCURRENT_REQUESTS_PER_KEY_OPENAI": "5"}
    assert told(**one, **rotation)["openai"]["max_concurrent_per_key"] == (7 if limit == 7 else 5)


def test_the_mode_may_be_that_of_the_row():
    rows = {"acme": ProviderConfig(name="acme", base_url="https://api.acme.ai/v1", rotation_mode="sequential")}
    declared = read({"MAX_CONCURRENT_REQUESTS_PER_KEY_ACME_SEQUENTIAL": "7", "MAX_CONCURRENT_REQUESTS_PER_KEY_ACME_BALANCED": "3"}, rows)
    assert (declared.faults, fields(declared, "acme")) == ([], {"max_concurrent_per_key": 7})
    declared = read({"MAX_CONCURRENT_REQUESTS_PER_KEY_ACME_BALANCED": "3"}, rows)
    assert (declared.faults, declared.providers) == ([], {})


# Addresses


@pytest.mark.parametrize("spelt", ["GROQ_API_BASE", "groq_api_base", "Groq_Api_Base", "GROQ-API-BASE"])
@pytest.mark.parametrize(
    "address", ["https://eu.groq.example/v1", " https://eu.groq.example/v1/ ", "https://eu.groq.example/v1/chat/completions/"]
)
def test_the_address_of_a_known_provider_is_replaced(spelt, address):
    declared = read({spelt: address})
    assert fields(declared, "groq") == {"base_url": "https://eu.groq.example/v1"}
    assert declared.providers["groq"]["base_url"].origin == f"${spelt}"


@pytest.mark.parametrize("spelt", ["MY_HOST_API_BASE", "my-host_api_base", "My-Host_API_BASE"])
def test_hyphens_and_underscores_are_one(spelt):
    rows = {"my_host": ProviderConfig(name="My-Host", base_url="https://api.acme.ai/v1")}
    declared = read({spelt: "https://eu.acme.ai", "MY-HOST_API_KEY": KEY, "ROTATION_MODE_My-Host": "sequential"}, rows)
    assert fields(declared, "my_host") == {"base_url": "https://eu.acme.ai", "rotation_mode": "sequential"}
    assert declared.names == {"my_host": "My-Host"}
    assert set(read({spelt: "https://eu.acme.ai"}).providers) == {"my_host"}


def test_an_alias_makes_no_second_provider():
    variables = {"ACME_AI_API_BASE": "https://alias.acme.ai", "ACME_AI_TIMEOUT": "5", "ACME_AI_API_KEY": KEY, "ACME_API_KEY": "sk-own"}
    declared = read(variables)
    assert set(declared.providers) == {"acme"}
    assert fields(declared, "acme") == {"base_url": "https://alias.acme.ai", "timeout": 5}
    assert [key.value for key in declared.keys["acme"]] == ["sk-own", KEY]
    assert fields(read({**variables, "ACME_API_BASE": "https://own.acme.ai"}), "acme")["base_url"] == "https://own.acme.ai"


def test_which_address_holds():
    places = ["ACME_API_BASE", "ACME_BASE_URL", "ACME_SETTINGS_BASE_URL", "ACME_URL", "ACME_ENDPOINT"]
    for first in range(len(places)):
        for order in (1, -1):
            variables = {name: f"https://{name.lower().replace('_', '-')}.example" for name in places[first:][::order]}
            assert told(**variables) == {"acme": {"base_url": variables[places[first]]}}
    assert told(ACME_API_BASE=" ", ACME_URL="https://next.example") == {"acme": {"base_url": "https://next.example"}}


def test_what_does_not_hold_is_not_looked_at():
    assert told(ACME_API_BASE="https://api.acme.ai", ACME_BASE_URL="nonsense", ACME_URL="nonsense") == {
        "acme": {"base_url": "https://api.acme.ai"}
    }


def test_a_variable_that_a_row_names_serves_that_row_only():
    assert told(OPENAI_BASE_URL="http://localhost:1234/v1") == {"local": {"base_url": "http://localhost:1234/v1"}}
    assert told(OPENAI_API_BASE="https://eu.openai.example/v1", OPENAI_BASE_URL="http://localhost:1234/v1") == {
        "openai": {"base_url": "https://eu.openai.example/v1"},
        "local": {"base_url": "http://localhost:1234/v1"},
    }
    rows = {"acme": ProviderConfig(name="acme", base_url_env=("OTHER_API_BASE", "ACME_BASE_URL"))}
    declared = read({"OTHER_API_BASE": "https://other.example", "ACME_BASE_URL": "https://own.example"}, rows)
    assert {name: fields(declared, name) for name in declared.providers} == {"acme": {"base_url": "https://own.example"}}
    declared = read({"OTHER_API_BASE": "https://other.example"}, rows)
    assert {name: fields(declared, name) for name in declared.providers} == {"acme": {"base_url": "https://other.example"}}


def test_base_url_alone_makes_no_provider():
    assert told(SHOP_BASE_URL="https://shop.example", SHOP_MODELS="a,b", SHOP_TIMEOUT="nonsense", SHOP_HEADERS="{") == {}
    assert told(SHOP_API_BASE="https://shop.example", SHOP_BASE_URL="https://other.example")["shop"]["base_url"] == "https://shop.example"


@pytest.mark.parametrize("address", ["http://10.0.0.7:11434", "http://10.0.0.7:11434/", "http://10.0.0.7:11434/v1/"])
@pytest.mark.parametrize("variable", ["OLLAMA_API_BASE", "OLLAMA_BASE_URL", "OLLAMA_HOST"])
def test_the_usual_path_is_added_where_there_is_none(variable, address):
    assert told(**{variable: address})["ollama"] == {"base_url": "http://10.0.0.7:11434/v1"}
    assert told(**{variable: "http://10.0.0.7:11434/proxy/v1"})["ollama"] == {"base_url": "http://10.0.0.7:11434/proxy/v1"}


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1:11434", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080/v1"),
        ("http://0.0.0.0:8080", "http://127.0.0.1:8080/v1"),
        (":8080", "http://127.0.0.1:8080/v1"),
        ("models.example", "http://models.example:11434/v1"),
        ("https://models.example", "https://models.example/v1"),
        ("models.example/ollama", "http://models.example:11434/ollama"),
        ("[::]:8080", "http://[::1]:8080/v1"),
        ("::", "http://[::1]:11434/v1"),
        ("fe80::1", "http://[fe80::1]:11434/v1"),
    ],
)
def test_where_a_server_listens_is_where_clients_find_it(host, address):
    own = address.removesuffix("/v1")
    assert told(OLLAMA_HOST=host) == {"ollama": {"base_url": address}, "ollama_chat": {"base_url": own}}


@pytest.mark.parametrize(
    "address",
    [
        "api.acme.ai/v1",
        "localhost:8000",
        "0.0.0.0",
        "ftp://api.acme.ai",
        "https://",
        "https:///v1",
        "https://api.acme.ai/v1?key=sk-1",
        "nonsense",
    ],
)
@pytest.mark.parametrize("variable", ["GROQ_API_BASE", "GROQ_BASE_URL", "ACME_URL", "NOBODY_API_BASE", "OPENAI_BASE_URL"])
def test_an_address_that_can_be_none_is_told_with_its_variable(variable, address):
    declared = read({variable: address})
    (fault,) = declared.faults
    assert fault.startswith(f"${variable} ")
    assert "sk-1" not in fault
    assert not any("base_url" in found for found in declared.providers.values())


@pytest.mark.parametrize("address", ["https://me:secret@api.acme.ai/v1", "me:secret@host:1", "https://api.acme.ai/v1?key=secret"])
@pytest.mark.parametrize("variable", ["GROQ_API_BASE", "OLLAMA_HOST", "NOBODY_API_BASE"])
def test_no_fault_repeats_what_an_address_may_hold_in_secret(variable, address):
    assert "secret" not in the_fault(**{variable: address})


def test_the_path_of_a_web_sites_own_api_makes_no_provider_and_stops_nobody():
    declared = read({"VUE_APP_API_BASE": "/api/v1"})
    assert (declared.faults, declared.providers, declared.keys) == ([], {}, {})
    assert declared.warnings[0].startswith("$VUE_APP_API_BASE ")
    assert the_fault(GROQ_API_BASE="/api/v1").startswith("$GROQ_API_BASE ")


@pytest.mark.parametrize("variable", ["_API_BASE", "__API_BASE", "API_BASE", "ACME_API_BASES"])
def test_a_name_without_a_provider_makes_none(variable):
    assert told(**{variable: "https://api.acme.ai"}) == {}


@pytest.mark.parametrize("part", ["a/b", "a:b", "a b"])
def test_a_provider_that_cannot_be_named_so(part):
    assert the_fault(**{f"{part}_API_BASE": "https://api.acme.ai"}).startswith(f"${part}_API_BASE: a provider cannot be named '{part}'")


def test_a_fault_in_the_address_brings_no_other():
    assert "begin with https://" in the_fault(NOBODY_API_BASE="nobody.example", ROTATION_MODE_NOBODY="sequential", NOBODY_TIMEOUT="7")


# Keys


def test_the_order_of_keys():
    names = [
        "ACME_API_KEY",
        "ACME_API_KEY_0",
        "ACME_API_KEY_002",
        "ACME_API_KEY_7",
        "ACME_API_KEY_10",
        "ACME_TOKEN",
        "ACME_TOKEN_1",
        "ACME_SECRET",
    ]
    found = keys({name: f"sk-{name}" for name in reversed(names)}, "acme")
    assert found == [(f"sk-{name}", f"${name}") for name in names]


def test_one_key_in_two_variables_is_one_key_at_its_first_place():
    variables = {"ACME_API_KEY": "sk-a", "ACME_API_KEY_1": "sk-b", "ACME_API_KEY_2": " sk-a ", "ACME_TOKEN": "sk-b", "ACME_SECRET": "sk-c"}
    assert keys(variables, "acme") == [("sk-a", "$ACME_API_KEY"), ("sk-b", "$ACME_API_KEY_1"), ("sk-c", "$ACME_SECRET")]


def test_blank_keys_are_none():
    assert keys({"ACME_API_KEY": "  ", "ACME_API_KEY_1": "", "ACME_TOKEN": "\t"}, "acme") == []
    assert "acme" not in read({"ACME_API_KEY": " "}).keys


def test_keys_are_for_providers_that_there_are():
    assert read({"NOBODY_API_KEY": KEY, "PROXY_API_KEY": KEY, "SHOP_API_KEY_1": KEY, "API_KEY": KEY, "_API_KEY": KEY}).keys == {}


def test_a_variable_belongs_to_the_row_that_names_it():
    assert set(read({"AZURE_OPENAI_API_KEY": KEY}).keys) == {"azure"}
    rows = {
        "acme": ProviderConfig(name="acme"),
        "mine": ProviderConfig(name="mine", api_key_env=("ACME_API_KEY",)),
        "second": ProviderConfig(name="second", api_key_env=("ACME_API_KEY_2",)),
    }
    variables = {"ACME_API_KEY": "sk-0", "ACME_API_KEY_1": "sk-1", "ACME_API_KEY_2": "sk-2"}
    assert [key for key, _ in keys(variables, "acme", rows)] == ["sk-0", "sk-1"]
    assert [key for key, _ in keys(variables, "mine", rows)] == ["sk-0", "sk-1"]
    assert [key for key, _ in keys(variables, "second", rows)] == ["sk-2"]


def test_a_provider_made_by_its_address_has_the_key_of_its_name_too():
    declared = read({"GROK_API_BASE": "https://grok.example", "GROK_API_KEY": KEY})
    assert {name: [key.value for key in found] for name, found in declared.keys.items()} == {"grok": [KEY], "xai": [KEY]}


def test_names_that_end_in_digits_or_begin_as_others():
    rows = {name: ProviderConfig(name=name) for name in ("acme", "acme_api", "acme_1", "acme_api_key", "acme_settings")}
    variables = {
        "ACME_API_KEY": "sk-acme",
        "ACME_API_KEY_1": "sk-acme-1",
        "ACME_1_API_KEY": "sk-one",
        "ACME_1_API_KEY_1": "sk-one-1",
        "ACME_API_API_KEY": "sk-api",
        "ACME_API_KEY_API_KEY": "sk-key",
        "ACME_SETTINGS_API_KEY": "sk-settings",
        "ACME_API_BASE": "https://acme.example",
        "ACME_API_BASE_URL": "https://api.example",
        "ACME_1_API_BASE": "https://one.example",
        "ACME_SETTINGS_BASE_URL": "https://settings.example",
        "ACME_SETTINGS_TIMEOUT": "3",
    }
    declared = read(variables, rows)
    assert {name: [key.value for key in found] for name, found in declared.keys.items()} == {
        "acme": ["sk-acme", "sk-acme-1"],
        "acme_1": ["sk-one", "sk-one-1"],
        "acme_api": ["sk-api"],
        "acme_api_key": ["sk-key"],
        "acme_settings": ["sk-settings"],
    }
    assert {name: fields(declared, name) for name in declared.providers} == {
        "acme": {"base_url": "https://acme.example"},
        "acme_api": {"base_url": "https://api.example"},
        "acme_1": {"base_url": "https://one.example"},
        "acme_settings": {"base_url": "https://settings.example", "timeout": 3},
    }


def test_the_first_key_of_one_is_no_key_of_another():
    rows = {"github": ProviderConfig(name="github", api_key_env=("GITHUB_TOKEN",))}
    assert keys({"GITHUB_API_KEY_1": "sk-1", "GITHUB_TOKEN_2": "sk-2"}, "github", rows) == [
        ("sk-1", "$GITHUB_API_KEY_1"),
        ("sk-2", "$GITHUB_TOKEN_2"),
    ]


def test_a_number_may_be_of_any_length():
    variables = {f"ACME_API_KEY_{'0' * 10}3": "sk-3", "ACME_API_KEY_" + "9" * 18: "sk-9", "ACME_API_KEY_" + "9" * 5000: "sk-never"}
    assert [key for key, _ in keys(variables, "acme")] == ["sk-3", "sk-9"]


# Spelling


def test_of_two_spellings_the_one_in_capitals_holds():
    for order in (1, -1):
        variables = dict(list({"acme_api_key": "sk-lower", "ACME_API_KEY": KEY, "Acme_API_KEY": "sk-mixed"}.items())[::order])
        assert keys(variables, "acme") == [(KEY, "$ACME_API_KEY")]
    assert keys({"acme_api_key": "sk-lower", "ACME_API_KEY": ""}, "acme") == [("sk-lower", "$acme_api_key")]


def test_a_variable_of_the_process_hides_that_of_the_file():
    environment = Environment(
        {"ACME_API_KEY": "", "ACME_TIMEOUT": "5"}, {"ACME_API_KEY": "sk-file", "ACME_TIMEOUT": "7", "ACME_TOKEN": "sk-token"}
    )
    declared = read_variables(environment, ROWS)
    assert [key.value for key in declared.keys["acme"]] == ["sk-token"]
    assert fields(declared, "acme") == {"timeout": 5}


# Models, headers and the rest


@pytest.mark.parametrize(
    ("text", "models"),
    [
        ('["model-a", "model-b"]', {"model-a": {}, "model-b": {}}),
        ('{"model-a": {}}', {"model-a": {}}),
        ('{"custom-name": {"id": "actual-id"}}', {"custom-name": {"id": "actual-id"}}),
        ('{"name": "id"}', {"name": {"id": "id"}}),
        ('{"model": {"id": "id", "options": {"temperature": 0.7}}}', {"model": {"id": "id", "options": {"temperature": 0.7}}}),
        ("model-a, org/model-b:free,,model-a ,", {"model-a": {}, "org/model-b:free": {}}),
        ('["/models/a.gguf"]', {"/models/a.gguf": {}}),
        ("[]", {}),
    ],
)
def test_how_models_may_be_declared(text, models):
    found = told(ACME_MODELS=text)["acme"]["models"]
    assert found == models
    assert ProviderConfig(models=found).models == models


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{"GLM-4.6": {"id" "glm-4.6"}}', "broken JSON at line 1, column 19: "),
        ('{"a": {},\n "b" {}}', "broken JSON at line 2, column 6: "),
        ("[a, b]", "broken JSON at line 1, column 2: "),
        ('["a", 7]', "a name is no string"),
        ('["a", ""]', "a name is no string, or empty"),
        ('{"a": 7}', "'a' "),
        ('{"a": null}', "'a' "),
        ('{"": {}}', "'' "),
        ('{"a": ""}', "'a' "),
        ('{"a": {"id": 7}}', "'a' "),
        ('{"a": {"options": []}}', "'a' "),
        ('{"a": {"temperature": 1}}', "'a' "),
        ('{"a": {"options": {"temperature": NaN}}}', "a number too long"),
        ("[" * 100_000, "nested too deeply"),
        ("[" + "9" * 5000 + "]", "a number too long"),
    ],
)
def test_models_that_are_none(text, part):
    fault = the_fault(IFLOW_API_BASE="https://apis.iflow.cn/v1", IFLOW_MODELS=text)
    assert fault.startswith("$IFLOW_MODELS: ")
    assert part in fault
    assert 'give ["name", ...]' in fault


@pytest.mark.parametrize("folder", ["/usr/share/ollama/.ollama/models", "~/models", "./models", "C:\\models", "d:/models"])
def test_the_folder_of_a_servers_models_is_no_list_of_them(folder):
    assert told(OLLAMA_MODELS=folder) == {}


@pytest.mark.parametrize("name", ["ACME_HEADERS", "ACME_CUSTOM_HEADERS", "acme_settings_custom_headers"])
def test_headers_are_laid_over_those_of_the_row(name):
    declared = read({name: '{"x-title": "mine", "api-key": "k"}'})
    assert fields(declared, "acme") == {"headers": {"X-Other": "kept", "x-title": "mine", "api-key": "k"}}
    assert declared.providers["acme"]["headers"].origin == f"${name}"
    assert ROWS["acme"].headers == {"X-Title": "row", "X-Other": "kept"}


def test_both_variables_of_headers_count():
    declared = read({"ACME_HEADERS": '{"A": "1", "B": "1"}', "ACME_CUSTOM_HEADERS": '{"b": "2", "C": "2"}'})
    assert fields(declared, "acme")["headers"] == {"X-Title": "row", "X-Other": "kept", "C": "2", "A": "1", "B": "1"}
    assert declared.providers["acme"]["headers"].origin == "$ACME_CUSTOM_HEADERS and $ACME_HEADERS"


def test_a_provider_may_be_named_custom():
    rows = {name: ProviderConfig(name=name) for name in ("acme", "acme_custom")}
    assert set(read({"ACME_CUSTOM_HEADERS": '{"A": "1"}'}, rows).providers) == {"acme_custom"}


@pytest.mark.parametrize(
    "text",
    [
        "X-Title: hunter2",
        '["hunter2"]',
        '"hunter2"',
        '{"A": "hunter2"',
        '{"A": {"b": "hunter2"}}',
        '{"A": "hunter2\\r\\nB: 1"}',
        '{"A": "hunter2é"}',
        '{"": "hunter2"}',
        '{"A": "hunter2", "B": 7}',
        '{"A": "hunter2\n"}',
    ],
)
def test_headers_that_are_none_are_not_repeated(text):
    fault = the_fault(ACME_HEADERS=text)
    assert fault.startswith("$ACME_HEADERS: ")
    assert "hunter2" not in fault


@pytest.mark.parametrize(
    ("text", "value"),
    [(word, True) for word in ("true", "1", "yes", "on", "TRUE", " On ")]
    + [(word, False) for word in ("false", "0", "no", "off", "False")],
)
def test_true_and_false(text, value):
    assert told(ACME_ENABLED=text) == {"acme": {"enabled": value}}
    assert options(ENABLE_FALLBACK=text) == {"enable_fallback": value}


@pytest.mark.parametrize(
    ("variable", "text", "remedy"),
    [
        ("ACME_ENABLED", "maybe", "true nor false"),
        ("ACME_TIMEOUT", "30s", "seconds above 0"),
        ("ACME_TIMEOUT", "0", "seconds above 0"),
        ("ACME_TIMEOUT", "-1", "seconds above 0"),
        ("ACME_TIMEOUT", "nan", "seconds above 0"),
        ("ACME_TIMEOUT", "1e999", "seconds above 0"),
        ("ACME_MAX_RETRIES", "-1", "at least 0"),
        ("ACME_MAX_RETRIES", "1.5", "at least 0"),
        ("ACME_MAX_RETRIES", "9" * 5000, "at least 0"),
        ("ROTATION_MODE_ACME", "random", "balanced or sequential"),
        ("ENABLE_FALLBACK", "maybe", "true nor false"),
        ("GLOBAL_TIMEOUT", "0", "seconds above 0"),
        ("GLOBAL_TIMEOUT", "forever", "seconds above 0"),
        ("LLM_MASTER_MAX_MEDIA_BYTES", "20MB", "at least 1"),
        ("LLM_MASTER_MAX_ATTEMPTS", "0", "at least 1"),
        ("LLM_MASTER_ALLOW_PRIVATE_URLS", "maybe", "true nor false"),
        ("LLM_MASTER_ON_UNSUPPORTED", "ignore", "error or drop"),
    ],
)
def test_what_cannot_be_is_told_with_its_variable_and_the_remedy(variable, text, remedy):
    declared = read({variable: text})
    (fault,) = declared.faults
    assert fault.startswith(f"${variable}: ")
    assert remedy in fault
    assert (declared.providers, declared.options) == ({}, {})
    with pytest.raises(ConfigurationError, match=variable):
        declared.refuse()


def test_every_fault_is_told():
    assert len(read({"ACME_TIMEOUT": "x", "ACME_ENABLED": "x", "GLOBAL_TIMEOUT": "x", "GROQ_API_BASE": "x"}).faults) == 4


def test_the_shorter_name_holds_before_the_section():
    for order in (1, -1):
        assert told(**dict([("ACME_TIMEOUT", "5"), ("ACME_SETTINGS_TIMEOUT", "7")][::order])) == {"acme": {"timeout": 5}}
        both = [("NOBODY_API_BASE", "https://a.example"), ("NOBODY_SETTINGS_API_BASE", "https://b.example")]
        assert told(**dict(both[::order])) == {"nobody": {"requires_key": False, "base_url": "https://a.example"}}


@pytest.mark.parametrize("prefix", ["IGNORE_MODELS", "WHITELIST_MODELS", "MAX_CONCURRENT_REQUESTS_PER_KEY", "ROTATION_MODE"])
def test_what_is_said_of_nobody_is_told_with_the_nearest_name(prefix):
    assert the_fault(**{f"{prefix}_OPENIA": "1"}) == f"${prefix}_OPENIA: there is no provider 'openia': did you mean 'openai'?"
    assert the_fault(**{f"{prefix}_ZZZZQQQQ": "1"}).startswith(
        f"${prefix}_ZZZZQQQQ: there is no provider 'zzzzqqqq': set $ZZZZQQQQ_API_BASE"
    )
    assert told(**{f"{prefix}_OPENIA": " "}) == {}
    assert told(**{prefix: "1", f"{prefix}_": "1"}) == {}


# Options


def test_options():
    assert options(
        preferred_provider="Azure-OpenAI",
        DEFAULT_MODEL=" groq/x ",
        GLOBAL_TIMEOUT="30",
        LLM_MASTER_MODERATION_MODEL="openai/omni-moderation-latest",
        LLM_MASTER_MAX_MEDIA_BYTES="1000",
        LLM_MASTER_ALLOW_PRIVATE_URLS="yes",
        LLM_MASTER_MAX_ATTEMPTS="3",
        LLM_MASTER_REDIS_URL="redis://:p@127.0.0.1:6379/0",
        LLM_MASTER_REDIS_PREFIX="team",
        LLM_MASTER_STATE="/tmp/keys.json",
        LLM_MASTER_MODELS_FILE="/tmp/models.json",
        LLM_MASTER_MODELS_TTL="60",
        llm_master_on_unsupported="DROP",
    ) == {
        "preferred_provider": "azure_openai",
        "default_model": "groq/x",
        "deadline": 30,
        "moderation_model": "openai/omni-moderation-latest",
        "max_media_bytes": 1000,
        "allow_private_urls": True,
        "max_attempts": 3,
        "redis_url": "redis://:p@127.0.0.1:6379/0",
        "redis_prefix": "team",
        "state": "/tmp/keys.json",
        "models_file": "/tmp/models.json",
        "models_ttl": 60,
        "on_unsupported": "drop",
    }
    assert options(PREFERRED_PROVIDER="AUTO") == {"preferred_provider": "auto"}
    assert options(PREFERRED_PROVIDER=" ", DEFAULT_MODEL="", GLOBAL_TIMEOUT="") == {}


# Whatever stands there

PARTS = ["ACME", "acme-ai", "OpenAI", "OLLAMA", "OLLAMA_SETTINGS", "NOBODY", "local", "", "_", "AZURE_OPENAI", "1", "é", "a b", "ACME_1"]
SUFFIXES = [
    "_API_BASE", "_BASE_URL", "_URL", "_HOST", "_API_HOST", "_MODELS", "_HEADERS", "_CUSTOM_HEADERS", "_DEFAULT_MODEL", "_TIMEOUT", "_MAX_RETRIES",
    "_ENABLED", "_PROVIDER_NAME", "_SETTINGS_TIMEOUT", "_API_base",
]  # fmt: skip
PREFIXES = ["IGNORE_MODELS_", "WHITELIST_MODELS_", "MAX_CONCURRENT_REQUESTS_PER_KEY_", "rotation_mode_"]
OPTIONS = ["PREFERRED_PROVIDER", "DEFAULT_MODEL", "GLOBAL_TIMEOUT", "ENABLE_FALLBACK", "LLM_MASTER_MAX_ATTEMPTS"]

part = st.sampled_from(PARTS) | st.text(max_size=6)
name = (
    st.builds(str.__add__, part, st.sampled_from(SUFFIXES))
    | st.builds(str.__add__, st.sampled_from(PREFIXES), part)
    | st.sampled_from(OPTIONS)
    | st.text(max_size=12)
)
address = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "http://", "https://", "//", "HTTP://", "http:"]),
        st.sampled_from(["", "localhost", "0.0.0.0", "::", "[::]", "[", "api.acme.ai", "u:p@h"]) | st.text(max_size=5),
        st.sampled_from(["", ":8080", ":", ":x"]),
        st.sampled_from(["", "/", "//", "/v1", "/chat/completions", "/v1/chat/completions/", "/v1?a=1", "#x"]),
    ),
)
json_text = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "options", "a", ""]), inner, max_size=3),
    max_leaves=8,
).map(json.dumps)
value = (
    address | json_text | st.text(max_size=20) | st.sampled_from(["1", "0", "-1", "true", "off", "balanced", "a,b", "{", "[", "/x", "1e5"])
)


@settings(deadline=None, max_examples=400)
@given(st.dictionaries(name, value, max_size=12))
@example({"OLLAMA_HOST": "["})
@example({"OLLAMA_HOST": "/"})
@example({"ACME_API_BASE": "https://h//chat/completions"})
def test_whatever_stands_there_is_read_or_told(variables):
    declared = read(variables)
    for provider, found in declared.providers.items():
        values = {field: sourced.value for field, sourced in found.items()}
        assert "base_url" not in values or base_url_faults(values["base_url"]) == []
        assert provider in ROWS or "base_url" in values or declared.faults
        # What was not told is what a row may be.
        ProviderConfig(name=provider, **values)
        for sourced in found.values():
            assert all(spelt[1:] in variables for spelt in sourced.origin.split(" and "))
    assert all(fault.startswith("$") for fault in declared.faults)
    assert set(declared.keys) <= set(ROWS) | set(declared.providers)


@settings(deadline=None, max_examples=300)
@given(
    st.dictionaries(
        st.builds(
            "".join,
            st.tuples(
                st.sampled_from(["ACME", "acme", "OpenAI", "AZURE_OPENAI", "ACME_AI"]),
                st.sampled_from(["_API_KEY", "_API_KEY_1", "_API_KEY_01", "_API_KEY_x", "_TOKEN", "_TOKEN_2", "_HEADERS"]),
            ),
        ),
        st.sampled_from(
            ["sk-hush-1", "sk-hush-2", "sk-hush é\n", " sk-hush-1 ", '{"A": "sk-hush"', '{"A": ["sk-hush"]}', '{"A": "sk-hush"}', ""]
        ),
        max_size=8,
    ),
    st.dictionaries(name, st.sampled_from(["x", "7"]), max_size=4),
)
def test_no_key_is_shown(secret, variables):
    declared = read({**variables, **secret})
    shown = f"{declared!r} {declared.faults} {declared.warnings} {declared.keys!r} {declared.providers!r}"
    assert "sk-hush" not in shown
    for found in declared.keys.values():
        assert len({key.value for key in found}) == len(found)
        assert all(key.value == key.value.strip() != "" for key in found)


@given(
    st.permutations(
        [
            "ACME_API_KEY_1",
            "acme_api_key",
            "ACME_TOKEN",
            "ACME_BASE_URL",
            "ACME_URL",
            "NOBODY_API_BASE",
            "NOBODY_API_KEY",
            "ACME_AI_API_KEY",
        ]
    )
)
def test_the_order_of_variables_does_not_matter(order):
    declared = read(
        {name: f"https://{place}.example" for place, name in sorted(enumerate(sorted(order)), key=lambda item: order.index(item[1]))}
    )
    expected = read({name: f"https://{place}.example" for place, name in enumerate(sorted(order))})
    assert (declared.providers, declared.keys) == (expected.providers, expected.keys)
