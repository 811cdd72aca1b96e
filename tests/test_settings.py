"""Where keys, addresses and options come from, and that no key is ever shown."""

from __future__ import annotations

import os

import attrs
import pytest

from llm_master import (
    PROVIDER_CONFIGS,
    BaseLLMProvider,
    ConfigurationError,
    LLMConfig,
    MissingApiKeyError,
    OpenAICompatibleProvider,
    ProviderConfig,
    QueryLLM,
)
from llm_master.dispatch.keys import Key
from llm_master.provider_configs import effective
from llm_master.settings.environment import current_environment

KEY = "sk-test-0123456789abcdef"
ROWS = [row.name for row in PROVIDER_CONFIGS.values()]
each_row = pytest.mark.parametrize("name", ROWS)


def snapshot(**fields):
    return QueryLLM(**fields)._engine.snapshot


def key_of(name, **fields):
    keys = snapshot(**fields).keys[name]
    return keys[0].secret if keys else None


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)


# <P>_API_KEY and <P>_API_BASE of every row


@each_row
def test_the_key_of_every_row_is_read_from_its_variable(name, monkeypatch):
    assert key_of(name) is None
    monkeypatch.setenv(f"{name.upper()}_API_KEY", KEY)
    assert key_of(name) == KEY
    assert getattr(LLMConfig(), f"{name}_api_key") == KEY
    assert LLMConfig.from_env().validate()[name] is (PROVIDER_CONFIGS[name].base_url is not None or name in ("mock", "gguf"))


@each_row
def test_the_address_of_every_row_is_read_from_its_variable(name, monkeypatch):
    monkeypatch.setenv(f"{name.upper()}_API_BASE", "http://localhost:9999/v1/")
    assert snapshot().rows[name].base_url == "http://localhost:9999/v1"
    assert getattr(LLMConfig(), f"{name}_api_base") == "http://localhost:9999/v1"
    assert PROVIDER_CONFIGS[name].base_url != "http://localhost:9999/v1", "the table itself is not touched"


@each_row
def test_every_row_has_its_fields_in_the_settings(name):
    config = LLMConfig(environment={}, **{f"{name}_api_key": KEY, f"{name}_api_base": "http://localhost:9999/v1"})
    found = effective(config)
    assert found.keys[name][0].secret == KEY
    assert found.rows[name].base_url == "http://localhost:9999/v1"
    assert getattr(config, f"{name}_api_key") == KEY
    assert config.validate()[name] is True


@pytest.mark.parametrize(("name", "variable"), [(row.name, variable) for row in PROVIDER_CONFIGS.values() for variable in row.api_key_env])
def test_other_variables_of_a_row_are_read_after_its_own(name, variable):
    assert effective(LLMConfig(environment={variable: KEY})).keys[name][0].secret == KEY
    both = {variable: KEY, f"{name.upper()}_API_KEY": "sk-own-0123456789"}
    assert effective(LLMConfig(environment=both)).keys[name][0].secret == "sk-own-0123456789"


def test_no_two_rows_read_one_variable():
    seen: dict[str, str] = {}
    for row in PROVIDER_CONFIGS.values():
        for variable in (f"{row.name.upper()}_API_KEY", *row.api_key_env):
            if (row.name, variable) in (("local", "OPENAI_API_KEY"), ("ollama_chat", "OLLAMA_API_KEY")):
                continue  # openai's, for a server that stands in for it at OPENAI_BASE_URL; and that of the same server's other API
            assert variable not in seen, f"{row.name} and {seen.get(variable)} both read {variable}"
            seen[variable] = row.name


def test_a_row_that_was_added_at_run_time_has_its_variables_and_fields(monkeypatch):
    PROVIDER_CONFIGS["my-host"] = ProviderConfig(base_url="https://api.acme.ai/v1")
    monkeypatch.setenv("MY_HOST_API_KEY", KEY)
    monkeypatch.setenv("MY_HOST_API_BASE", "https://eu.acme.ai/v1")
    assert key_of("my_host") == KEY
    assert snapshot().rows["my_host"].base_url == "https://eu.acme.ai/v1"
    assert key_of("my_host", my_host_api_key="sk-given-0123456789") == "sk-given-0123456789"
    assert "my_host_api_key" in LLMConfig.field_names()


def test_a_row_may_name_its_field_otherwise():
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url="https://api.acme.ai/v1", api_key_attr="acme_token")
    assert key_of("acme", acme_token=KEY) == KEY
    with pytest.raises(TypeError, match="acme_api_key"):
        LLMConfig(acme_api_key=KEY)


# Precedence


def test_arguments_over_environment_over_file_over_table(monkeypatch, tmp_path):
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url="https://api.acme.ai/v1", api_key="sk-row-0123456789")
    assert key_of("acme") == "sk-row-0123456789"
    write(tmp_path / ".env", "ACME_API_KEY=sk-file-0123456789\n")
    assert key_of("acme") == "sk-file-0123456789"
    monkeypatch.setenv("ACME_API_KEY", "sk-env-0123456789")
    assert key_of("acme") == "sk-env-0123456789"
    assert key_of("acme", acme_api_key="sk-argument-0123456789") == "sk-argument-0123456789"
    config = LLMConfig(acme_api_key="sk-config-0123456789")
    assert QueryLLM(config)._engine.snapshot.keys["acme"][0].secret == "sk-config-0123456789"
    override = QueryLLM(config, acme_api_key="sk-override-0123456789")
    assert override._engine.snapshot.keys["acme"][0].secret == "sk-override-0123456789"


def test_an_override_leaves_the_other_fields_of_a_config():
    config = LLMConfig(environment={}, openai_api_key=KEY, max_attempts=3)
    found = QueryLLM(config, groq_api_key="sk-groq-0123456789")._engine.snapshot
    assert (found.keys["openai"][0].secret, found.keys["groq"][0].secret, found.options.max_attempts) == (KEY, "sk-groq-0123456789", 3)
    assert effective(config).keys["groq"] == ()


def test_a_blank_key_counts_as_none(monkeypatch):
    for blank in ("", "  ", "\t"):
        monkeypatch.setenv("OPENAI_API_KEY", blank)
        assert key_of("openai") is None
        assert LLMConfig().validate()["openai"] is False


def test_a_blank_variable_lets_the_next_be_read():
    environment = {"TOGETHER_API_KEY": " ", "TOGETHERAI_API_KEY": KEY}
    assert effective(LLMConfig(environment=environment)).keys["together"][0].secret == KEY


def test_a_key_is_read_without_the_space_around_it(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"  {KEY}\n")
    assert key_of("openai") == KEY


@pytest.mark.parametrize("spelt", ["Opencode_API_BASE", "opencode_api_base", "OPENCODE_API_BASE", "OPencode_Api_Base"])
def test_a_variable_is_found_in_any_case(spelt, monkeypatch):
    # OPencode_API_BASE was once not found on Linux.
    PROVIDER_CONFIGS["OPencode"] = ProviderConfig(requires_key=False)
    monkeypatch.setenv(spelt, "http://localhost:9999/v1")
    assert snapshot().rows["opencode"].base_url == "http://localhost:9999/v1"


def test_a_variable_in_the_exact_case_wins():
    environment = {"openai_api_key": "sk-lower-0123456789", "OPENAI_API_KEY": KEY, "OpenAI_API_KEY": "sk-mixed-0123456789"}
    assert effective(LLMConfig(environment=environment)).keys["openai"][0].secret == KEY


def test_the_name_of_a_key_is_the_variable_as_it_is_spelt():
    (key,) = effective(LLMConfig(environment={"OpenAI_Api_Key": KEY})).keys["openai"]
    assert key.name == "OpenAI_Api_Key …cdef"


def test_an_address_may_be_that_of_the_endpoint_itself():
    environment = {"OPENAI_API_BASE": "https://api.acme.ai/v1/chat/completions"}
    assert effective(LLMConfig(environment=environment)).rows["openai"].base_url == "https://api.acme.ai/v1"


@pytest.mark.parametrize(
    "address",
    ["api.acme.ai/v1", "localhost:8000", "ftp://api.acme.ai", "https://", "https://api.acme.ai/v1?key=1", "https://me:pw@api.acme.ai/v1"],
)
def test_an_address_that_can_be_none_is_refused_with_its_variable(address, monkeypatch):
    monkeypatch.setenv("GROQ_API_BASE", address)
    with pytest.raises(ConfigurationError, match="GROQ_API_BASE"):
        QueryLLM()
    monkeypatch.delenv("GROQ_API_BASE")
    with pytest.raises(ConfigurationError, match="groq_api_base"):
        QueryLLM(groq_api_base=address)


# .env


def test_the_env_file_of_the_working_folder_is_read(tmp_path):
    write(
        tmp_path / ".env",
        f"# keys\nexport OPENAI_API_KEY='{KEY}'\nGROQ_API_BASE=http://localhost:9999/v1  # mine\nPREFERRED_PROVIDER=ollama\n",
    )
    assert key_of("openai") == KEY
    assert snapshot().rows["groq"].base_url == "http://localhost:9999/v1"
    assert snapshot().options.preferred_provider == "ollama"
    assert "OPENAI_API_KEY" not in os.environ


def test_an_env_file_from_windows_is_read(tmp_path):
    write(tmp_path / ".env", f"OPENAI_API_KEY={KEY}\r\nGROQ_API_KEY=sk-groq-0123456789\r\n", "utf-8-sig")
    assert key_of("openai") == KEY
    assert key_of("groq") == "sk-groq-0123456789"


def test_a_change_of_the_file_is_seen_by_a_new_object(tmp_path):
    write(tmp_path / ".env", "OPENAI_API_KEY=sk-first-0123456789\n")
    first = QueryLLM()
    write(tmp_path / ".env", "OPENAI_API_KEY=sk-second-012345678901\n")
    assert key_of("openai") == "sk-second-012345678901"
    assert first._engine.snapshot.keys["openai"][0].secret == "sk-first-0123456789"
    (tmp_path / ".env").unlink()
    assert key_of("openai") is None


def test_another_folder_has_another_file(tmp_path, monkeypatch):
    write(tmp_path / ".env", f"OPENAI_API_KEY={KEY}\n")
    other = tmp_path / "other"
    other.mkdir()
    assert key_of("openai") == KEY
    monkeypatch.chdir(other)
    assert key_of("openai") is None


def test_a_file_that_is_no_utf8_is_told_by_its_path(tmp_path):
    write(tmp_path / ".env", b"OPENAI_API_KEY=sk-\xff\xfe\n")
    with pytest.raises(ConfigurationError) as caught:
        QueryLLM()
    assert str(tmp_path / ".env") in str(caught.value)
    assert "UTF-8" in str(caught.value)


def test_a_file_that_cannot_be_read_is_told_by_its_path(tmp_path, monkeypatch):
    write(tmp_path / ".env", f"OPENAI_API_KEY={KEY}\n")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("dotenv.dotenv_values", refuse)
    with pytest.raises(ConfigurationError, match=r"(?s)\.env cannot be read.*Permission denied"):
        QueryLLM()


def test_a_folder_called_env_is_no_file(tmp_path):
    (tmp_path / ".env").mkdir()
    assert key_of("openai") is None


def test_a_file_with_nothing_of_ours_is_passed_over(tmp_path):
    write(tmp_path / ".env", "JUST A LINE\n=\nEMPTY\n\n")
    assert key_of("openai") is None


def test_the_environment_is_the_same_object_while_nothing_changes(tmp_path, monkeypatch):
    first = current_environment()
    assert current_environment() is first
    monkeypatch.setenv("ACME_API_KEY", KEY)
    second = current_environment()
    assert second is not first
    write(tmp_path / ".env", "X=1\n")
    assert current_environment() is not second
    assert dict(current_environment())["X"] == "1"


# LLMConfig


@pytest.mark.parametrize(
    ("field", "meant"), [("openai_apikey", "openai_api_key"), ("max_attempt", "max_attempts"), ("prefered_provider", "preferred_provider")]
)
def test_an_unknown_field_is_a_type_error_with_a_suggestion(field, meant):
    for make in (LLMConfig, QueryLLM):
        with pytest.raises(TypeError, match=f"'{field}'.*'{meant}'"):
            make(**{field: "x"})


def test_a_key_for_nobody_says_that_its_provider_must_stand_in_the_table():
    with pytest.raises(TypeError, match="zzzzqqqq.*PROVIDER_CONFIGS"):
        LLMConfig(zzzzqqqq=KEY)


def test_a_config_of_another_kind_is_a_type_error():
    with pytest.raises(TypeError, match="LLMConfig"):
        QueryLLM({"openai_api_key": KEY})


@pytest.mark.parametrize("attempts", [0, -1, 1.5, "3", True])
def test_max_attempts_is_a_number_of_sends(attempts):
    with pytest.raises(ConfigurationError, match="max_attempts"):
        LLMConfig(max_attempts=attempts)


@pytest.mark.parametrize("value", [7, ["sk-a"], b"sk-a", {"key": "sk-a"}, object()])
def test_a_key_that_is_no_string_is_refused(value):
    with pytest.raises(ConfigurationError) as caught:
        QueryLLM(openai_api_key=value)
    assert "string" in str(caught.value)
    assert "sk-a" not in str(caught.value)


def test_from_env_is_the_environment_as_it_was_then(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    config = LLMConfig.from_env()
    monkeypatch.delenv("OPENAI_API_KEY")
    assert config.openai_api_key == KEY
    assert LLMConfig().openai_api_key is None


def test_an_environment_may_be_given_and_then_nothing_else_is_read(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write(tmp_path / ".env", f"GROQ_API_KEY={KEY}\n")
    config = LLMConfig(environment={"XAI_API_KEY": KEY})
    assert {name for name, ready in config.validate().items() if ready and PROVIDER_CONFIGS[name].requires_key} == {"xai"}


def test_validate_says_for_each_provider_whether_it_could_be_asked():
    found = LLMConfig(environment={"OPENAI_API_KEY": KEY, "AZURE_API_KEY": KEY}).validate()
    assert set(found) == set(ROWS)
    without_key = {"openai", "ollama", "ollama_chat", "vllm", "llamacpp", "lmstudio", "mock", "gguf"}
    assert {name for name, ready in found.items() if ready} == without_key
    with_address = LLMConfig(environment={"AZURE_API_KEY": KEY, "AZURE_API_BASE": "https://acme.example/openai/v1"}).validate()
    assert with_address["azure"] is True


def test_a_field_that_there_is_not_is_an_attribute_error():
    with pytest.raises(AttributeError, match="opnai_api_key"):
        _ = LLMConfig().opnai_api_key


def test_fields_have_their_defaults():
    config = LLMConfig(environment={})
    assert (config.preferred_provider, config.default_model, config.max_attempts) == (None, None, 10)
    assert LLMConfig(environment={"DEFAULT_MODEL": "groq/x"}).default_model == "groq/x"


# Keys that can be none


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("sk-secret\n-0123456789", "line break"),
        ("sk-secret\r-0123456789", "line break"),
        ("sk-secret -0123456789", "space"),
        ("sk-secret-0123456789\u2019", "ASCII"),
        ("sk-sécret-0123456789", "ASCII"),
        ("sk-secret\x00-0123456789", "ASCII"),
        ("sk-secret\u200b-0123456789", "ASCII"),
    ],
)
def test_a_key_that_no_header_may_hold_is_refused_without_being_shown(key, kind):
    for make, source in (
        (lambda: effective(LLMConfig(environment={"OPENAI_API_KEY": key})), "OPENAI_API_KEY"),
        (lambda: QueryLLM(openai_api_key=key), "openai_api_key"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            make()
        told = str(caught.value)
        assert source in told
        assert kind in told
        for part in ("secret", "sécret", "0123456789", "sk-"):
            assert part not in told


def test_a_key_that_stands_in_the_row_is_checked_too():
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url="https://api.acme.ai/v1", api_key="sk-a b")
    with pytest.raises(ConfigurationError, match="acme row.*space"):
        QueryLLM()


# Nothing is written back


def test_nothing_is_written_back(tmp_path):
    write(tmp_path / ".env", f"OPENAI_API_KEY={KEY}\nGROQ_API_BASE=http://localhost:9999/v1\n")
    variables, rows = dict(os.environ), dict(PROVIDER_CONFIGS)
    QueryLLM(xai_api_key=KEY, xai_api_base="http://localhost:9998/v1")
    LLMConfig.from_env().validate()
    assert dict(os.environ) == variables
    assert dict(PROVIDER_CONFIGS) == rows


# No key is shown


class Silent(BaseLLMProvider):
    async def generate(self, messages, model, **options):
        return "nothing"


async def test_no_key_in_any_repr_and_none_in_the_receipt():
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=Silent)
    config = LLMConfig(acme_api_key=KEY, openai_api_key=KEY)
    llm = QueryLLM(config)
    answer = await llm.query("acme/large", prompt="Hello")
    engine = llm._engine
    provider = engine._providers["acme", engine.snapshot.keys["acme"][0]]
    assert provider.api_key == provider.config.api_key == KEY
    shown = [
        config,
        llm,
        engine,
        engine.snapshot,
        provider,
        provider.config,
        Key(KEY, "X"),
        answer,
        answer.receipt,
        answer.receipt.attempts,
    ]
    for thing in (*shown, OpenAICompatibleProvider(KEY, "https://api.acme.ai/v1"), QueryLLM(openai_api_key=KEY)._engine.snapshot.keys):
        assert KEY not in repr(thing)
        assert KEY not in str(thing)
    assert answer.receipt.attempts[0].key == "acme_api_key …cdef"


async def test_no_key_in_what_is_logged(caplog):
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=Silent)
    with caplog.at_level("DEBUG"):
        await QueryLLM(acme_api_key=KEY).query("acme/large", prompt="Hello")
        with pytest.raises(MissingApiKeyError):
            await QueryLLM(acme_api_key=KEY).query("openai/x", prompt="Hello")
    assert KEY not in caplog.text


def test_of_a_short_key_nothing_is_shown():
    assert Key("abcdefg", "ACME_API_KEY").name == "ACME_API_KEY"
    assert Key("abcdefgh", "ACME_API_KEY").name == "ACME_API_KEY …efgh"


def test_no_key_in_the_fingerprint_that_a_traceback_could_show():
    with pytest.raises(ConfigurationError) as caught:
        QueryLLM(openai_api_key=KEY, openai_api_base=["https://api.acme.ai"])
    assert KEY not in str(caught.value)


# One engine for equal settings


def test_equal_settings_share_one_engine(monkeypatch):
    assert QueryLLM()._engine is QueryLLM()._engine
    assert QueryLLM(openai_api_key=KEY)._engine is QueryLLM(openai_api_key=KEY)._engine
    assert QueryLLM(LLMConfig(openai_api_key=KEY))._engine is QueryLLM(openai_api_key=KEY)._engine
    assert QueryLLM(LLMConfig())._engine is QueryLLM()._engine
    first = QueryLLM()
    monkeypatch.setenv("SOMETHING_ELSE", "1")
    assert QueryLLM()._engine is first._engine


def test_different_settings_do_not(monkeypatch):
    plain = QueryLLM()
    others = [
        QueryLLM(openai_api_key=KEY),
        QueryLLM(openai_api_key="sk-other-0123456789"),
        QueryLLM(max_attempts=3),
        QueryLLM(preferred_provider="ollama"),
        QueryLLM(groq_api_base="http://localhost:9999/v1"),
    ]
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    others.append(QueryLLM())
    assert len({id(llm._engine) for llm in (plain, *others)}) == 1 + len(others)


def test_a_changed_row_is_seen_by_a_new_object():
    before = QueryLLM()
    PROVIDER_CONFIGS["groq"] = attrs.evolve(PROVIDER_CONFIGS["groq"], timeout=5, default_model="changed")
    after = QueryLLM()
    assert after._engine is not before._engine
    assert (before._engine.snapshot.rows["groq"].timeout, after._engine.snapshot.rows["groq"].timeout) == (600, 5)


def test_a_row_that_was_taken_out_is_gone_for_a_new_object():
    QueryLLM()
    del PROVIDER_CONFIGS["groq"]
    assert "groq" not in snapshot().rows
    with pytest.raises(TypeError):
        QueryLLM(groq_api_key=KEY)


def test_many_settings_do_not_grow_without_end():
    import gc

    from llm_master import engines

    for number in range(engines._ENGINES + 20):
        QueryLLM(openai_api_key=f"sk-{number:016d}")
    gc.collect()
    assert len(engines._recent) <= engines._ENGINES
