"""The two kinds of row, and the table of providers."""

from __future__ import annotations

import copy
import pickle
from decimal import Decimal

import attrs
import pytest

from llm_master import (
    PROVIDER_CONFIGS,
    BaseLLMProvider,
    ConfigurationError,
    LLMResponse,
    ModelConfig,
    PricingError,
    ProviderConfig,
    UnifiedProvider,
)
from llm_master.provider_table import ProviderTable
from llm_master.model_rows import PriceTier

KEY = "sk-acme-0123456789abcdef"


async def generate_image(provider, messages, model, **options):
    return LLMResponse("an image", model)


# A row that is wrong says all that is wrong with it


def test_all_faults_of_a_row_are_told_at_once_each_with_a_remedy():
    with pytest.raises(ConfigurationError) as caught:
        ProviderConfig(
            name="acme/eu",
            base_url="api.acme.ai/v1",
            prefixes="acme-",
            rpm=0,
            tpm=-1,
            max_concurrent=True,
            max_retries=-1,
            timeout=0,
            headers={"X-Team": 7},
            requires_key="no",
            provider_class="llm_master.providers",
            models={"acme-1": {"id": "acme-one", "temperature": 0}},
            api_key=7,
            default_model=" ",
        )
    told = str(caught.value)
    faults = [line.strip() for line in told.splitlines() if line.strip().startswith("- ")]
    for field in (
        "name",
        "base_url",
        "prefixes",
        "rpm",
        "tpm",
        "max_concurrent",
        "max_retries",
        "timeout",
        "headers",
        "requires_key",
        "provider_class",
        "models",
        "api_key",
        "default_model",
    ):
        mine = [fault for fault in faults if fault.startswith(f"- {field}")]
        assert mine, f"nothing is said of {field} in {told}"
        assert ": " in mine[0], f"no remedy in {mine[0]}"


@pytest.mark.parametrize("field", ["rpm", "tpm", "max_concurrent"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "60", True])
def test_a_limit_that_is_none_is_refused_and_none_says_so(field, value):
    # A limit of 0 would block for ever.
    with pytest.raises(ConfigurationError, match=rf"{field} is .*above 0.*None"):
        ProviderConfig(**{field: value})
    assert getattr(ProviderConfig(**{field: None}), field) is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"base_url": "https://"}, "host"),
        ({"base_url": 7}, "https://"),
        ({"base_url": "https://api.acme.ai/v1/chat/completions"}, "leave out /chat/completions"),
        ({"base_url": "https://api.acme.ai/v1/chat/completions/"}, "leave out /chat/completions"),
        ({"base_url": "https://api.acme.ai/v1?version=1"}, "query="),
        ({"base_url": "https://user:pass@api.acme.ai/v1"}, "headers="),
        ({"headers": {"X-Team": "a\r\nX-Evil: b"}}, "line breaks"),
        ({"headers": {"X-Team": "caf\u00e9"}}, "non-ASCII"),
        ({"headers": ["X-Team"]}, "both strings"),
        ({"query": {"version": 1}}, "both strings"),
        ({"prefixes": "acme-"}, r"tuple.*\(\"acme-\",\)"),
        ({"prefixes": ("acme-", "")}, "non-empty"),
        ({"generate_map": {"acme-image": 7}}, "async function"),
        ({"generate_map": {"": generate_image}}, "async function"),
        ({"models": "acme-1"}, r'\["name"'),
        ({"models": {"acme-1": {"id": 7}}}, "string as 'id'"),
        ({"models": {"acme-1": {"options": [1]}}}, "mapping as 'options'"),
        ({"renames": {"seed": 7}}, "its name"),
        ({"client_class": "openai.AsyncOpenAI"}, "package.module:Class"),
        ({"timeout": float("nan")}, "seconds above 0"),
        ({"max_retries": 1.5}, "whole number"),
        ({"max_retries": True}, "whole number"),
        ({"verify_ssl": 0}, "True or False"),
        ({"name": "acme eu"}, "spaces"),
        ({"name": "acme:eu"}, "':'"),
        ({"currency": None}, "string"),
    ],
)
def test_a_fault_is_told_with_its_field_and_a_remedy(fields, said):
    field = next(iter(fields))
    with pytest.raises(ConfigurationError, match=rf"(?s){field}.*{said}"):
        ProviderConfig(**fields)


def test_a_password_in_an_address_is_not_repeated():
    for address in ("https://user:hunter2@api.acme.ai/v1", "ftp://user:hunter2@api.acme.ai/v1", "user:hunter2@api.acme.ai"):
        with pytest.raises(ConfigurationError) as caught:
            ProviderConfig(base_url=address)
        assert "hunter2" not in str(caught.value)


def test_a_key_is_in_no_message_even_where_it_is_of_the_wrong_kind():
    with pytest.raises(ConfigurationError) as caught:
        ProviderConfig(api_key=KEY.encode())
    assert "api_key" in str(caught.value)
    assert KEY not in str(caught.value)


# Its forms


def test_the_plain_dict_form():
    PROVIDER_CONFIGS["acme"] = {
        "base_url": "https://api.acme.ai/v1",
        "prefixes": ["acme-"],
        "model": "acme-large",
        "api_key_env": "ACME_TOKEN",
        "models": {"fast": "acme-small-2", "deep": {"id": "acme-large", "options": {"temperature": 0}}},
        "generate_map": {"acme-image": generate_image},
    }
    row = PROVIDER_CONFIGS["acme"]
    assert row == ProviderConfig(
        name="acme",
        provider_class=UnifiedProvider,
        base_url="https://api.acme.ai/v1",
        prefixes=("acme-",),
        default_model="acme-large",
        api_key_env=("ACME_TOKEN",),
        models={"fast": {"id": "acme-small-2"}, "deep": {"id": "acme-large", "options": {"temperature": 0}}},
        generate_map={"acme-image": generate_image},
    )


@pytest.mark.parametrize(("given", "meant"), [("base_ulr", "base_url"), ("prefix", "prefixes"), ("api_keys", "api_key")])
def test_an_unknown_field_is_refused_with_a_suggestion(given, meant):
    with pytest.raises(ConfigurationError, match=rf"acme.*'{given}'.*did you mean '{meant}'"):
        PROVIDER_CONFIGS["acme"] = {given: "x"}
    assert "acme" not in PROVIDER_CONFIGS


def test_an_unknown_field_like_no_other_is_refused_with_the_list():
    with pytest.raises(ConfigurationError, match="(?s)'zzz' is no field.*base_url.*prefixes"):
        PROVIDER_CONFIGS["acme"] = {"zzz": 1}


def test_unknown_fields_and_wrong_values_are_one_report():
    with pytest.raises(ConfigurationError) as caught:
        PROVIDER_CONFIGS["acme"] = {"base_ulr": "x", "rpm": 0, "timeout": -1}
    told = str(caught.value)
    assert "'base_ulr'" in told
    assert "rpm is 0" in told
    assert "timeout is -1" in told
    assert "'acme'" in told


def test_model_is_another_word_for_default_model():
    row = ProviderConfig(model="acme-large")
    assert row.default_model == "acme-large"
    assert row == ProviderConfig(default_model="acme-large")


def test_evolve_changes_one_field_and_leaves_the_row_as_it_was():
    row = ProviderConfig(name="acme", base_url="https://api.acme.ai/v1", model="acme-large", rpm=60)
    changed = attrs.evolve(row, rpm=600)
    assert (changed.rpm, changed.default_model, changed.base_url) == (600, "acme-large", row.base_url)
    assert row.rpm == 60
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        row.rpm = 600


@pytest.mark.parametrize("word", ["default_model", "model"])
def test_evolve_changes_the_default_model_by_either_word(word):
    row = ProviderConfig(default_model="acme-small")
    assert attrs.evolve(row, **{word: "acme-large"}).default_model == "acme-large"


def test_evolve_checks_what_it_makes():
    with pytest.raises(ConfigurationError, match="rpm is 0"):
        attrs.evolve(PROVIDER_CONFIGS["openai"], rpm=0)


def test_no_key_in_repr():
    row = ProviderConfig(api_key=KEY)
    assert KEY not in repr(row)
    assert "'***'" in repr(row)
    assert "api_key=None" in repr(ProviderConfig())


def test_no_key_in_repr_that_stands_in_a_header():
    row = ProviderConfig(headers={"Authorization": f"Bearer {KEY}", "api-key": KEY}, query={"key": KEY})
    assert KEY not in repr(row)


def test_a_row_does_not_change_with_the_dict_it_was_made_of():
    headers = {"X-Team": "a"}
    row = ProviderConfig(headers=headers)
    headers["X-Team"] = "b"
    assert row.headers == {"X-Team": "a"}


# The table


@pytest.mark.parametrize("spelt", ["my-host", "my_host", "My-Host", "MY_HOST"])
def test_a_provider_is_found_in_any_case_with_hyphen_or_underscore(spelt):
    PROVIDER_CONFIGS["my-host"] = ProviderConfig(base_url="http://localhost:9/v1")
    assert PROVIDER_CONFIGS[spelt].name == "my-host"
    assert spelt in PROVIDER_CONFIGS
    assert "my-host" in list(PROVIDER_CONFIGS)
    del PROVIDER_CONFIGS[spelt]
    assert "my-host" not in PROVIDER_CONFIGS


def test_another_spelling_replaces_the_row_and_adds_none():
    before = len(PROVIDER_CONFIGS)
    PROVIDER_CONFIGS["OpenAI"] = attrs.evolve(PROVIDER_CONFIGS["openai"], rpm=5)
    assert len(PROVIDER_CONFIGS) == before
    assert PROVIDER_CONFIGS["openai"].rpm == 5


@pytest.mark.parametrize("name", ["", "  ", 7, None])
def test_a_provider_has_a_name(name):
    with pytest.raises(ConfigurationError, match="name"):
        PROVIDER_CONFIGS[name] = ProviderConfig()


@pytest.mark.parametrize("name", ["a/b", "a:b", "a b"])
def test_a_providers_name_parts_no_models_name(name):
    with pytest.raises(ConfigurationError, match="leave out"):
        PROVIDER_CONFIGS[name] = ProviderConfig()


@pytest.mark.parametrize("row", ["https://api.acme.ai/v1", None, 7, ["base_url"]])
def test_what_is_no_row_is_refused(row):
    with pytest.raises(ConfigurationError, match="acme.*ProviderConfig"):
        PROVIDER_CONFIGS["acme"] = row


def test_a_class_that_cannot_generate_is_refused():
    class Silent:
        pass

    with pytest.raises(ConfigurationError, match=r"acme.*Silent has no generate\(\).*BaseLLMProvider"):
        PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=Silent)


def test_a_class_that_can_generate_is_taken():
    class Speaking(BaseLLMProvider):
        async def generate(self, messages, model, **options):
            return "hello"

    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=Speaking)
    assert PROVIDER_CONFIGS["acme"].provider_class is Speaking


def test_a_row_that_names_no_class_speaks_chat_completions():
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url="https://api.acme.ai/v1")
    PROVIDER_CONFIGS["acme2"] = {"base_url": "https://api.acme.ai/v1"}
    assert PROVIDER_CONFIGS["acme"].provider_class is UnifiedProvider
    assert PROVIDER_CONFIGS["acme2"].provider_class is UnifiedProvider


def test_every_change_bumps_the_version_and_a_refused_one_does_not():
    seen = [PROVIDER_CONFIGS.version]
    PROVIDER_CONFIGS["acme"] = ProviderConfig()
    seen.append(PROVIDER_CONFIGS.version)
    PROVIDER_CONFIGS["acme"] = ProviderConfig(rpm=5)
    seen.append(PROVIDER_CONFIGS.version)
    del PROVIDER_CONFIGS["acme"]
    seen.append(PROVIDER_CONFIGS.version)
    assert len(set(seen)) == 4
    with pytest.raises(ConfigurationError):
        PROVIDER_CONFIGS["acme"] = {"rpm": 0}
    with pytest.raises(KeyError):
        del PROVIDER_CONFIGS["acme"]
    assert PROVIDER_CONFIGS.version == seen[-1]


def test_two_tables_drift_apart_so_there_is_one():
    assert UnifiedProvider.PROVIDER_CONFIGS is PROVIDER_CONFIGS


def test_the_table_is_a_mapping():
    table = ProviderTable({"acme": ProviderConfig(), "other": ProviderConfig()}, default_class=UnifiedProvider)
    assert list(table) == ["acme", "other"]
    assert dict(table)["acme"].name == "acme"
    assert table.get("nobody") is None
    assert 7 not in table
    assert "acme" in repr(table)
    assert table.pop("acme").name == "acme"
    assert len(table) == 1


# Every row of it

ROWS = list(PROVIDER_CONFIGS.values())
ROW_FIELDS = attrs.fields(ProviderConfig)


def test_the_table_holds_the_providers_that_it_promises():
    promised = (
        "openai azure openrouter groq mistral deepseek together fireworks perplexity cerebras xai moonshot zai nvidia huggingface cohere "
        "gemini chutes ollama vllm llamacpp lmstudio mock"
    )
    assert set(promised.split()) <= set(PROVIDER_CONFIGS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_is_valid_and_makes_itself_again(row):
    fields = {field.name: getattr(row, field.name) for field in ROW_FIELDS if field.name not in ("name", "_model")}
    assert ProviderConfig.from_mapping(row.name, fields) == row
    assert row.display_name
    assert row.base_url is None or not row.base_url.endswith("/")
    assert row.requires_key or row.base_url is None or row.base_url.startswith("http://localhost:")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_states_no_variable_that_is_read_anyway(row):
    assert f"{row.name.upper()}_API_KEY" not in row.api_key_env
    assert len(set(row.api_key_env)) == len(row.api_key_env)
    assert len({prefix.lower() for prefix in row.prefixes}) == len(row.prefixes)
    covered = [p for p in row.prefixes for q in row.prefixes if p != q and p.startswith(q)]
    assert covered == [], "a shorter prefix of the row says it already"


def test_no_row_of_the_source_states_a_default():
    import ast
    import inspect

    from llm_master import provider_configs

    defaults = {field.name: field.default for field in ROW_FIELDS}
    redundant = []
    for node in ast.walk(ast.parse(inspect.getsource(provider_configs))):
        if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "ProviderConfig"):
            continue
        for keyword in node.keywords:
            try:
                value = ast.literal_eval(keyword.value)
            except ValueError:
                continue
            default = defaults[keyword.arg]
            default = default.factory() if isinstance(default, attrs.Factory) else default
            if value == default and type(value) is type(default):
                redundant.append(f"line {node.lineno}: {keyword.arg}={value!r}")
    assert redundant == []


def test_only_rows_that_stand_for_a_server_of_ones_own_need_no_key():
    assert {row.name for row in ROWS if not row.requires_key} == {
        "ollama",
        "ollama_chat",
        "vllm",
        "llamacpp",
        "lmstudio",
        "gguf",
        "mock",
        "local",
        "openai_compatible",
    }
    # openai_compatible may be anybody, whose prices are looked up by the address.
    assert all(row.skip_cost_calculation for row in ROWS if not row.requires_key and row.name != "openai_compatible")


# Models


@pytest.mark.parametrize(
    "field",
    [
        "input_price_per_million",
        "output_price_per_million",
        "cached_input_price_per_million",
        "cache_write_price_per_million",
        "audio_input_price_per_million",
        "audio_output_price_per_million",
        "image_input_price_per_million",
        "price_per_image",
        "price_per_million_characters",
        "price_per_search_unit",
        "price_per_request",
    ],
)
def test_what_can_be_no_price_is_refused(field):
    for price in (-1, -0.01, float("nan"), float("inf"), Decimal(-1), Decimal("NaN"), "free", True, ""):
        with pytest.raises(PricingError, match=rf"{field}.*at least 0.*None"):
            ModelConfig(**{field: price})


@pytest.mark.parametrize("field", ["input_price_per_million", "output_price_per_million", "cached_input_price_per_million"])
def test_what_can_be_no_price_is_refused_in_a_tier_too(field):
    with pytest.raises(PricingError, match=field):
        ModelConfig(input_price_per_million=1, price_tiers=[{"above_input_tokens": 1000, field: -1}])


@pytest.mark.parametrize(
    "tiers",
    [5, "none", [{"above": 1000}], [{"above_input_tokens": "many"}], [7], [{"above_input_tokens": -1}]],
)
def test_tiers_that_can_be_none_are_refused_when_they_are_declared(tiers):
    with pytest.raises((ConfigurationError, PricingError), match="tier"):
        ModelConfig(input_price_per_million=1, price_tiers=tiers)


@pytest.mark.parametrize("day", ["soon", "2026-13-01", 20270101])
def test_a_day_that_can_be_none_is_refused_when_it_is_declared(day):
    with pytest.raises(ConfigurationError, match="prices_hold_until"):
        ModelConfig(input_price_per_million=1, prices_hold_until=day)


@pytest.mark.parametrize(("given", "held"), [(0, "0"), (0.1, "0.1"), ("0.15", "0.15"), (2, "2"), (Decimal("1e-3"), "0.001"), (None, None)])
def test_a_price_is_held_to_the_digit_it_was_given(given, held):
    assert ModelConfig(input_price_per_million=given).input_price_per_million == (None if held is None else Decimal(held))


@pytest.mark.parametrize("field", ["rate_limit_rpm", "rate_limit_tpm", "context_window", "max_output_tokens"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "60", True])
def test_a_limit_of_a_model_that_is_none_is_refused(field, value):
    with pytest.raises(ConfigurationError, match=rf"{field} is .*above 0.*None"):
        ModelConfig(**{field: value})


def test_all_faults_of_a_model_are_told_at_once():
    with pytest.raises(ConfigurationError) as caught:
        ModelConfig.from_mapping("acme/large", {"rate_limit_rpm": 0, "context_window": -1, "capabilities": 7, "input_price": 1})
    told = str(caught.value)
    assert "'acme/large'" in told
    for what in ("rate_limit_rpm is 0", "context_window is -1", "capabilities is 7", "'input_price' is no field"):
        assert what in told


def test_an_unknown_field_of_a_model_is_refused_with_a_suggestion():
    with pytest.raises(ConfigurationError, match="did you mean 'input_price_per_million'"):
        ModelConfig.from_mapping("acme/large", {"input_price_per_milion": 1})


def test_tiers_are_made_of_dicts():
    row = ModelConfig(input_price_per_million=1, price_tiers=[{"above_input_tokens": 1000, "input_price_per_million": 0.1}])
    assert row.price_tiers == (PriceTier(above_input_tokens=1000, input_price_per_million=Decimal("0.1")),)


def test_capabilities_that_nobody_stated_are_unknown_and_not_missing():
    for nothing in (None, {}, [], ()):
        row = ModelConfig(capabilities=nothing)
        assert row == ModelConfig()
        assert row.capabilities == {}
        assert not row.lacks("tools")


@pytest.mark.parametrize("words", [["tools", "vision", "tools"], ("tools", "vision"), {"tools", "vision"}, frozenset({"tools", "vision"})])
def test_a_list_of_capabilities_says_what_the_model_does(words):
    assert ModelConfig(capabilities=words) == ModelConfig(capabilities={"vision": True, "tools": True})


def test_a_capability_is_lacking_only_where_it_is_documented_to_be():
    row = ModelConfig(capabilities={"tools": True, "vision": False})
    assert row.lacks("vision")
    assert not row.lacks("tools")
    assert not row.lacks("pdf")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tool": True}, "'tool' is no capability: did you mean 'tools'"),
        (["visoin"], "'visoin' is no capability: did you mean 'vision'"),
        ({"telepathy": True}, "'telepathy' is no capability: the words are chat, tools, vision"),
        ({7: True}, "7 is no capability"),
        ({"tools": "yes"}, "'tools' is 'yes': give True or False"),
        ({"tools": None}, "'tools' is None: give True or False, or leave it out"),
        ({"tools": 1}, "'tools' is 1: give True or False"),
        ("tools", "capabilities is 'tools': give"),
        ([["tools"]], "capabilities is .*: give"),
    ],
)
def test_what_can_be_no_capability_is_refused_when_it_is_declared(given, told):
    with pytest.raises(ConfigurationError, match=told):
        ModelConfig(capabilities=given)


def test_all_faults_of_the_capabilities_are_told_at_once():
    with pytest.raises(ConfigurationError) as caught:
        ModelConfig(capabilities={"tool": True, "vision": "yes"})
    assert "'tool' is no capability" in str(caught.value)
    assert "'vision' is 'yes'" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.__setitem__("pdf", True),
        lambda it: it.__delitem__("tools"),
        lambda it: it.update(pdf=True),
        lambda it: it.pop("tools"),
        lambda it: it.popitem(),
        lambda it: it.clear(),
        lambda it: it.setdefault("pdf", True),
        lambda it: it.__ior__({"pdf": True}),
    ],
)
def test_the_capabilities_of_a_row_cannot_be_changed_in_place(change):
    row = ModelConfig(capabilities=["tools"])
    with pytest.raises(TypeError, match="evolve"):
        change(row.capabilities)
    assert row == ModelConfig(capabilities=["tools"])


def test_the_capabilities_of_a_row_are_its_own():
    given = {"tools": True}
    row = ModelConfig(capabilities=given)
    given["vision"] = True
    assert row.capabilities == {"tools": True}
    assert attrs.evolve(row, capabilities={**row.capabilities, "pdf": False}).lacks("pdf")


def test_a_row_with_capabilities_is_compared_hashed_copied_and_pickled_as_any_other():
    row = ModelConfig(capabilities={"tools": True, "vision": False})
    for other in (copy.copy(row), copy.deepcopy(row), pickle.loads(pickle.dumps(row)), attrs.evolve(row)):
        assert other == row
        assert hash(other.capabilities) == hash(row.capabilities)
    assert row != ModelConfig(capabilities={"tools": True, "vision": True})
    assert row.capabilities == {"vision": False, "tools": True}
