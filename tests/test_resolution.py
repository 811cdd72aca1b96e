"""Which provider a name means. Resolving sends nothing."""

from __future__ import annotations

import socket

import pytest

from llm_master import (
    PROVIDER_CONFIGS,
    BaseLLMProvider,
    ConfigurationError,
    LLMConfig,
    LLMResponse,
    MissingApiKeyError,
    ModelConfig,
    ModelRegistry,
    ProviderConfig,
    QueryLLM,
    UnknownModelError,
)
from llm_master.rows import key_variables


def every_key() -> dict[str, str]:
    """A key for each row of the table, and an address where the row has none."""
    variables = {}
    for row in PROVIDER_CONFIGS.values():
        variables[key_variables(row)[0]] = f"sk-{row.name}-0123456789"
        if row.base_url is None:
            variables[f"{row.name.upper()}_API_BASE"] = "https://acme.example/v1"
    return variables


def resolved(name, **settings):
    settings.setdefault("environment", every_key())
    environment = settings.pop("environment")
    return QueryLLM(LLMConfig(environment=environment, **settings))._engine.target(name).route


def meant(name, **settings):
    route = resolved(name, **settings)
    return route.provider, route.model


async def generate_image(provider, messages, model, **options):
    return LLMResponse("an image", model)


@pytest.fixture
def acme():
    PROVIDER_CONFIGS["acme"] = ProviderConfig(
        base_url="https://api.acme.ai/v1",
        prefixes=("acme-",),
        default_model="acme-large",
        models={"careful": {"id": "acme-large", "options": {"temperature": 0}}, "plain": {}},
        generate_map={"acme-image": generate_image, "picture": "paint"},
    )


# Exactly


def test_a_registered_name_means_its_provider(acme):
    ModelRegistry.register("house/model", ModelConfig(provider="acme"))
    ModelRegistry.register("gpt-4.1", ModelConfig(provider="acme"))
    assert meant("house/model") == ("acme", "house/model")
    assert meant("gpt-4.1") == ("acme", "gpt-4.1"), "exactly a registered name comes before a prefix"


def test_a_registered_provider_and_model_is_sent_without_the_provider(acme):
    ModelRegistry.register("acme/org/large", ModelConfig())
    assert meant("acme/org/large") == ("acme", "org/large")


def test_a_registered_name_without_a_provider_is_resolved_by_the_other_rules(acme):
    ModelRegistry.register("acme-huge", ModelConfig(input_price_per_million=1))
    assert meant("acme-huge") == ("acme", "acme-huge")


@pytest.mark.parametrize("spelt", ["acme", "Acme", "ACME"])
def test_the_provider_of_a_registered_model_is_found_in_any_case(acme, spelt):
    ModelRegistry.register("house-model", ModelConfig(provider=spelt))
    assert meant("house-model") == ("acme", "house-model")


def test_a_generate_map_key_means_its_row_and_brings_its_function(acme):
    route = resolved("picture")
    assert (route.provider, route.model, route.generator) == ("acme", "picture", "paint")
    assert resolved("acme-image").generator is generate_image
    assert resolved("acme/acme-image").generator is generate_image


def test_a_declared_model_means_its_row_with_its_id_and_options(acme):
    for name in ("careful", "acme/careful", "acme:careful"):
        route = resolved(name)
        assert (route.provider, route.model, dict(route.options)) == ("acme", "acme-large", {"temperature": 0})
    route = resolved("plain")
    assert (route.model, dict(route.options)) == ("plain", {})


def test_a_declared_model_comes_before_a_prefix(acme):
    PROVIDER_CONFIGS["house"] = ProviderConfig(base_url="http://localhost:9/v1", requires_key=False, models=["acme-large"])
    assert meant("acme-large") == ("house", "acme-large")


def test_of_two_rows_that_declare_a_model_the_usable_one_is_meant(acme):
    PROVIDER_CONFIGS["house"] = ProviderConfig(base_url="http://localhost:9/v1", requires_key=False, models=["careful"])
    assert meant("careful", environment={}) == ("house", "careful")
    assert meant("careful") == ("acme", "acme-large")


# PROVIDER/MODEL and PROVIDER:MODEL


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("groq/openai/gpt-oss-20b", "groq", "openai/gpt-oss-20b"),
        ("groq:openai/gpt-oss-20b", "groq", "openai/gpt-oss-20b"),
        ("ollama/llama2:latest", "ollama", "llama2:latest"),
        ("ollama:llama2:latest", "ollama", "llama2:latest"),
        ("openrouter/acme/large:free", "openrouter", "acme/large:free"),
        ("GROQ/Some-Model", "groq", "Some-Model"),
        ("OpenAI:gpt-9", "openai", "gpt-9"),
        ("openai/gpt-4.1", "openai", "gpt-4.1"),
        ("mistral/gpt-4.1", "mistral", "gpt-4.1"),
        ("openai/openai/x", "openai", "openai/x"),
        ("vllm//models/mine", "vllm", "/models/mine"),
        ("fireworks/accounts/fireworks/models/x", "fireworks", "accounts/fireworks/models/x"),
    ],
)
def test_a_provider_before_the_model_is_meant(name, provider, model):
    assert meant(name) == (provider, model)


@pytest.mark.parametrize("spelt", ["my-host/m", "my_host/m", "My-Host/m", "MY_HOST:m"])
def test_case_hyphen_and_underscore_do_not_matter(spelt):
    PROVIDER_CONFIGS["My-host"] = ProviderConfig(base_url="http://localhost:9/v1", requires_key=False)
    assert resolved(spelt).model == "m"
    assert resolved(spelt).why == "named before the model"


@pytest.mark.parametrize(
    "name", ["llama2:latest", "acme/large:free", "meta-llama/Llama-3", "hf.co/org/model:Q4_K_M", "/models/mine.gguf", "a:b/c"]
)
def test_what_stands_before_a_separator_and_is_no_provider_belongs_to_the_name(name):
    assert meant(name, preferred_provider="ollama") == ("ollama", name)
    with pytest.raises(UnknownModelError):
        resolved(name)


def test_a_fine_tuned_model_is_its_makers():
    assert meant("ft:gpt-4.1-mini:org::id") == ("openai", "ft:gpt-4.1-mini:org::id")


# The longest prefix


def test_the_longest_prefix_is_meant(acme):
    PROVIDER_CONFIGS["acme_vision"] = ProviderConfig(base_url="https://vision.acme.ai/v1", prefixes=("acme-eye-",))
    environment = {"ACME_API_KEY": "sk-0123456789", "ACME_VISION_API_KEY": "sk-9876543210"}
    assert meant("acme-large", environment=environment) == ("acme", "acme-large")
    assert meant("acme-eye-2", environment=environment) == ("acme_vision", "acme-eye-2")
    assert meant("ACME-Eye-2", environment=environment) == ("acme_vision", "ACME-Eye-2")


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("gpt-4.1", "openai"),
        ("gpt-5-mini", "openai"),
        ("o3", "openai"),
        ("o4-mini", "openai"),
        ("text-embedding-3-small", "openai"),
        ("mistral-large-latest", "mistral"),
        ("codestral-latest", "mistral"),
        ("deepseek-flash", "deepseek"),
        ("grok-4.3", "xai"),
        ("kimi-k3", "moonshot"),
        ("glm-5.3", "zai"),
        ("command-a-03-2025", "cohere"),
        ("gemini-3.8-flash", "gemini"),
        ("sonar-pro", "perplexity"),
        ("accounts/fireworks/models/gpt-oss-120b", "fireworks"),
    ],
)
def test_a_bare_name_goes_home(name, provider):
    assert meant(name) == (provider, name)


@pytest.mark.parametrize(
    "name", ["orca-mini", "olmo-2", "openhermes", "oasst", "o", "opt-66b", "gpt-oss-120b", "gpt-neox", "mixtral-8x7b", "fluxion"]
)
def test_a_prefix_swallows_no_strangers(name):
    # A prefix "o" once swallowed every model beginning with o.
    with pytest.raises(UnknownModelError):
        resolved(name)


# A provider alone


@pytest.mark.parametrize("row", [row for row in PROVIDER_CONFIGS.values() if row.default_model], ids=lambda row: row.name)
def test_a_provider_alone_means_its_default_model_which_is_never_resolved_again(row):
    assert meant(row.name) == (row.name, row.default_model)
    assert meant(row.name.upper()) == (row.name, row.default_model)


def test_a_default_model_is_a_wire_id(acme):
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url="https://api.acme.ai/v1", default_model="openai/gpt-4.1")
    assert meant("acme") == ("acme", "openai/gpt-4.1")


def test_a_provider_without_a_default_model_says_so():
    with pytest.raises(ConfigurationError, match="ollama.*no default_model.*ollama/MODEL"):
        resolved("ollama")


# The preferred provider


def test_the_preferred_provider_gets_what_no_rule_decides():
    route = resolved("some-model", preferred_provider="openrouter")
    assert (route.provider, route.model) == ("openrouter", "some-model")
    assert "preferred" in route.why
    assert meant("gpt-4.1", preferred_provider="openrouter") == ("openai", "gpt-4.1")


def test_the_preferred_provider_may_be_a_variable():
    assert meant("some-model", environment={**every_key(), "PREFERRED_PROVIDER": "OpenRouter"}) == ("openrouter", "some-model")


def test_the_preferred_provider_gets_the_whole_name_where_a_key_is_missing():
    for name in ("openai/gpt-4.1", "gpt-4.1", "openai:gpt-4.1"):
        route = resolved(name, environment={"OPENROUTER_API_KEY": "sk-0123456789"}, preferred_provider="openrouter")
        assert (route.provider, route.model) == ("openrouter", name)
        assert "openai" in route.why
        assert "no key" in route.why


async def test_the_receipt_says_that_the_preferred_provider_stood_in():
    class Standing(BaseLLMProvider):
        async def generate(self, messages, model, **options):
            return f"asked as {model}"

    PROVIDER_CONFIGS["house"] = ProviderConfig(provider_class=Standing, requires_key=False)
    answer = await QueryLLM(preferred_provider="house").query("openai/gpt-4.1", prompt="Hello")
    assert answer.content == "asked as openai/gpt-4.1"
    assert answer.provider == answer.receipt.provider == "house"
    assert "openai" in answer.receipt.why
    assert "no key" in answer.receipt.why


def test_a_preferred_provider_that_is_not_usable_stands_in_for_nobody():
    with pytest.raises(MissingApiKeyError, match="OPENAI_API_KEY"):
        resolved("gpt-4.1", environment={}, preferred_provider="openrouter")


def test_a_preferred_provider_that_there_is_not_is_refused_with_a_suggestion():
    with pytest.raises(ConfigurationError, match="'opnrouter'.*did you mean 'openrouter'"):
        resolved("gpt-4.1", preferred_provider="opnrouter")


# Nobody


@pytest.mark.parametrize(
    ("name", "offered"),
    [("gtp-4.1", "openai/gpt-4.1"), ("grok4.3", "xai/grok-4.3"), ("opnai/gpt-4.1", "openai/gpt-4.1"), ("opena", "openai")],
)
def test_an_unknown_name_is_told_with_the_nearest(name, offered):
    with pytest.raises(UnknownModelError, match=f"'{name}'") as caught:
        resolved(name)
    assert f"'{offered}'" in str(caught.value)
    assert "PROVIDER/MODEL" in str(caught.value)


def test_what_is_offered_can_be_asked():
    with pytest.raises(UnknownModelError) as caught:
        resolved("gtp-4.1")
    hint = str(caught.value).partition("Did you mean ")[2].partition("?")[0]
    offered = [part.strip("'") for part in hint.split(" or ")]
    assert offered
    for name in offered:
        assert resolved(name).model


def test_an_unknown_name_like_no_other_is_told_with_the_providers():
    with pytest.raises(UnknownModelError, match="groq.*ollama") as caught:
        resolved("qqqqqqqqqqqq")
    assert "Did you mean" not in str(caught.value)


def test_a_name_of_the_table_is_offered(acme):
    with pytest.raises(UnknownModelError, match="'careful'"):
        resolved("carefull")


@pytest.mark.parametrize("name", ["", "  ", None, 7, ["gpt-4.1"], {"model": "x"}])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(UnknownModelError, match="model_name"):
        resolved(name)


@pytest.mark.parametrize("name", ["openai/", "openai:", "/gpt", ":x", "/"])
def test_half_a_name_is_refused(name):
    with pytest.raises(ConfigurationError):
        resolved(name)


# Keys and addresses


def test_a_missing_key_is_told_with_every_variable_that_was_looked_at():
    with pytest.raises(MissingApiKeyError) as caught:
        resolved("sonar", environment={})
    for variable in ("PERPLEXITY_API_KEY", "PPLX_API_KEY", "PERPLEXITYAI_API_KEY", "perplexity_api_key=", ".env"):
        assert variable in str(caught.value)


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_a_blank_key_counts_as_none(blank):
    with pytest.raises(MissingApiKeyError, match="blank"):
        resolved("gpt-4.1", environment={"OPENAI_API_KEY": blank})
    with pytest.raises(MissingApiKeyError, match="blank"):
        resolved("gpt-4.1", environment={}, openai_api_key=blank)


def test_a_row_without_an_address_names_its_variable():
    with pytest.raises(ConfigurationError, match="AZURE_API_BASE"):
        resolved("azure/my-deployment", environment={"AZURE_API_KEY": "sk-0123456789"})
    assert meant("azure/my-deployment") == ("azure", "my-deployment")


def test_a_class_of_ones_own_needs_its_key_and_no_address():
    class Mine(BaseLLMProvider):
        async def generate(self, messages, model, **options):
            return "hello"

    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=Mine)
    with pytest.raises(MissingApiKeyError, match="ACME_API_KEY"):
        resolved("acme/large", environment={})
    assert meant("acme/large", environment={"ACME_API_KEY": "sk-0123456789"}) == ("acme", "large")


def test_the_stand_in_says_what_was_really_missing():
    route = resolved("azure/mine", environment={"AZURE_API_KEY": "sk-0123456789"}, preferred_provider="ollama")
    assert route.provider == "ollama"
    assert "address" in route.why


def test_an_unknown_model_of_a_known_provider_is_allowed():
    target = QueryLLM(openai_api_key="sk-0123456789")._engine.target("openai/not-yet-announced")
    assert (target.route.model, target.prices) == ("not-yet-announced", None)


# The embedded provider


@pytest.mark.parametrize("name", ["mock/echo", "mock:echo", "mock-echo", "Mock/echo", "mock"])
def test_the_mock_answers_where_it_is_asked_for_by_name(name):
    assert resolved(name).provider == "mock"


@pytest.mark.parametrize("name", ["echo", "static", "normal", "timeout", "gpt-4.1", "some-model", "mocking/bird", "mockingbird"])
@pytest.mark.parametrize("keys", [{}, {"OPENAI_API_KEY": "sk-0123456789"}], ids=["no-key", "a-key"])
def test_the_mock_is_never_chosen_by_itself(name, keys):
    try:
        provider = resolved(name, environment=keys).provider
    except ConfigurationError:
        return
    assert provider != "mock"


# The whole table and registry

KNOWN = ModelRegistry.list_models()
OWNERS: dict[str, set[str]] = {}
for _name in KNOWN:
    OWNERS.setdefault(_name.partition("/")[2], set()).add(_name.partition("/")[0])


def test_every_registered_model_leads_to_its_provider_by_the_id_after_the_first_slash():
    wrong = {}
    for name in KNOWN:
        provider, _, model = name.partition("/")
        for spelt in (name, f"{provider}:{model}", f"{provider.upper()}/{model}"):
            if (found := meant(spelt)) != (provider, model):
                wrong[spelt] = found
    assert wrong == {}


def test_no_prefix_swallows_a_model_that_only_others_have():
    swallowed = {}
    for model, owners in OWNERS.items():
        try:
            route = resolved(model)
        except UnknownModelError:
            continue
        # "openai/gpt-oss-20b" names a provider by itself: that is another rule, and meant.
        if route.why.startswith("prefix") and route.provider not in owners:
            swallowed[model] = f"{route.provider}, by its {route.why}"
    assert swallowed == {}


@pytest.mark.parametrize("row", [row for row in PROVIDER_CONFIGS.values() if row.prefixes], ids=lambda row: row.name)
def test_a_rows_own_prefixes_lead_home(row):
    for prefix in row.prefixes:
        assert meant(f"{prefix}-next") == (row.name, f"{prefix}-next")


def test_no_prefix_of_one_row_stands_in_anothers_way():
    prefixes = [(prefix.lower(), row.name) for row in PROVIDER_CONFIGS.values() for prefix in row.prefixes]
    clashes = [(a, b) for a, one in prefixes for b, other in prefixes if one != other and a.startswith(b)]
    assert clashes == []


def test_resolving_touches_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("resolving reached for the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("gpt-4.1", "groq/x", "ollama/llama2:latest", "openai", "llamacpp", "mock/echo", "lmstudio/x"):
        assert resolved(name).model
    with pytest.raises(UnknownModelError):
        resolved("nobody-knows-me")
