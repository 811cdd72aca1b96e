"""Settings files: what TOML and YAML may say, which files are read, and that every fault names its line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_master import ConfigurationError, ModelConfig, ProviderConfig
from llm_master.settings.declared import ModelSettings
from llm_master.settings.document import spelt
from llm_master.settings.environment import Environment
from llm_master.settings.files import current_files, find_files
from llm_master.settings.toml_file import KINDS, OPTIONS, PROVIDER, read_toml
from llm_master.settings.toml_lines import locate
from llm_master.settings.yaml_file import BENCHMARK, read_yaml
from llm_master.settings.yaml_nodes import MOST_NODES

KEY = "sk-test-0123456789abcdef"


def write(path, text):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def toml(text, **how):
    return read_toml(write("llm_master.toml", text), **how)


def yaml(text):
    return read_yaml(write("config.yaml", text))


def values(table):
    return {name: sourced.value for name, sourced in table.items()}


def origins(table):
    return {name: sourced.origin for name, sourced in table.items()}


def environment(**variables):
    return Environment({"HOME": os.getcwd(), "XDG_CONFIG_HOME": os.path.join(os.getcwd(), ".config"), **variables})


USER = Path(".config/llm_master/llm_master.toml")
USER_SECRETS = Path(".config/llm_master/llm_master.secrets.toml")
HERE = Path("llm_master.toml")
HERE_SECRETS = Path("llm_master.secrets.toml")


# TOML: what the guides show


def test_three_providers_as_the_guide_writes_them():
    found = toml("""\
[[providers]]
name = "vllm-local"
base_url = "http://localhost:8000/v1"
default_model = "meta-llama/Llama-3.1-8B"

[[providers]]
name = "azure-gpt4"
base_url = "https://my-azure-endpoint.openai.azure.com/openai/deployments"
api_key_env = "AZURE_API_KEY"
default_model = "gpt-4"
headers = { "X-Team" = "search" }
query = { "api-version" = "2024-10-21" }

[[providers]]
name = "groq"
base_url = "https://api.groq.com/openai/v1"
api_key_env = "GROQ_API_KEY"
model = "llama-3.1-70b-versatile"
""")
    assert found.faults == found.warnings == []
    assert list(found.providers) == ["vllm_local", "azure_gpt4", "groq"]
    assert found.names == {"vllm_local": "vllm-local", "azure_gpt4": "azure-gpt4", "groq": "groq"}
    assert values(found.providers["vllm_local"]) == {"base_url": "http://localhost:8000/v1", "default_model": "meta-llama/Llama-3.1-8B"}
    assert values(found.providers["azure_gpt4"]) == {
        "base_url": "https://my-azure-endpoint.openai.azure.com/openai/deployments",
        "api_key_env": "AZURE_API_KEY",
        "default_model": "gpt-4",
        "headers": {"X-Team": "search"},
        "query": {"api-version": "2024-10-21"},
    }
    assert found.providers["groq"]["default_model"].value == "llama-3.1-70b-versatile"
    assert origins(found.providers["azure_gpt4"]) == {
        "base_url": "llm_master.toml:8",
        "api_key_env": "llm_master.toml:9",
        "default_model": "llm_master.toml:10",
        "headers": "llm_master.toml:11",
        "query": "llm_master.toml:12",
    }
    for name, fields in found.providers.items():
        ProviderConfig.from_mapping(name, values(fields))


def test_every_option_table_and_field_is_read():
    found = toml("""\
preferred_provider = "groq"
default_model = "groq/x"
deadline = 90.5
enable_fallback = true
max_attempts = 4
on_unsupported = "drop"
log_level = "DEBUG"
hedge = 0.05
log_format = "json"
metrics = true
telemetry = false
moderation_model = "omni-moderation-latest"
max_media_bytes = 1000
allow_private_urls = false
redis_url = "redis://127.0.0.1:6379/0"
redis_prefix = "team"
state = "keys.json"
models_file = "off"
models_ttl = 60

[models."groq/x"]
input_price_per_million = 0.1
output_price_per_million = "0.2"
capabilities = ["tools"]
as_of = 2026-08-01
rate_limit_rpm = 30

[models."groq/y"]
price_tiers = [{ above_input_tokens = 200000, input_price_per_million = 2 }]
capabilities = { tools = true, vision = false }

[aliases]
fast = "groq/x"
"4.1" = { model = "groq/y", options = { temperature = 0 } }
plain = { model = "groq/z" }

[routes.cheap]
targets = ["groq/x", { model = "mistral/y", weight = 2 }]
strategy = "round-robin"
stick = 60

[limits.Groq]
rpm = 30
max_concurrent = 3

[limits."groq/x"]
tpm = 6000

[limits."groq/new"]
rpm = 1
""")
    assert found.faults == []
    assert values(found.options) == {
        "preferred_provider": "groq",
        "default_model": "groq/x",
        "deadline": 90.5,
        "enable_fallback": True,
        "max_attempts": 4,
        "on_unsupported": "drop",
        "log_level": "DEBUG",
        "hedge": 0.05,
        "log_format": "json",
        "metrics": True,
        "telemetry": False,
        "moderation_model": "omni-moderation-latest",
        "max_media_bytes": 1000,
        "allow_private_urls": False,
        "redis_url": "redis://127.0.0.1:6379/0",
        "redis_prefix": "team",
        "state": "keys.json",
        "models_file": "off",
        "models_ttl": 60,
    }
    assert set(found.options) == set(OPTIONS)
    assert found.options["max_attempts"].origin == "llm_master.toml:5"
    models = values(found.models)
    assert models["groq/x"]["rate_limit_tpm"] == 6000
    assert models["groq/x"]["rate_limit_rpm"] == 30
    assert models["groq/new"] == {"rate_limit_rpm": 1}
    rows = {name: ModelConfig.from_mapping(name, fields) for name, fields in models.items()}
    assert str(rows["groq/x"].input_price_per_million) == "0.1"
    assert rows["groq/x"].as_of == "2026-08-01"
    assert rows["groq/y"].lacks("vision")
    assert found.models["groq/x"].origin == "llm_master.toml:21"
    assert found.models["groq/new"].origin == "llm_master.toml:49"
    assert values(found.aliases) == {"fast": "groq/x", "4.1": {"model": "groq/y", "options": {"temperature": 0}}, "plain": "groq/z"}
    assert found.aliases["4.1"].origin == "llm_master.toml:34"
    assert values(found.routes) == {
        "cheap": {"targets": ["groq/x", {"model": "mistral/y", "weight": 2}], "strategy": "round-robin", "stick": 60}
    }
    assert values(found.providers["groq"]) == {"rpm": 30, "max_concurrent": 3}
    assert found.providers["groq"]["max_concurrent"].origin == "llm_master.toml:44"


SAMPLES = {
    "str": '"x"',
    "str | None": '"x"',
    "type | str | None": '"a.b:C"',
    "Callable[..., Any] | str": '"a.b:C"',
    "bool": "true",
    "int": "7",
    "int | None": "7",
    "float": "7.5",
    "tuple[str, ...]": '["x"]',
    "tuple[PriceTier, ...]": "[{ above_input_tokens = 1 }]",
    "Decimal | None": "0.1",
    "Mapping[str, str]": '{ a = "b" }',
    "Mapping[str, str | None]": '{ a = "b" }',
    "Mapping[str, tuple[str, ...]]": '{ region = ["ACME_REGION"] }',
    "str | Mapping[str, str] | None": '{ ACME_API_KEY = "b" }',
    "Mapping[str, int]": "{ ACME_API_KEY = 1 }",
    "Mapping[str, Callable[..., Any] | str]": '{ a = "b:c" }',
    "Mapping[str, bool]": "{ tools = true }",
    "Mapping[str, Mapping[str, Any]]": '{ a = { id = "b" } }',
}
FIELDS = [(row, field) for row in (ProviderConfig, ModelConfig) for field in attrs.fields(row)]


def head(row):
    return '[[providers]]\nname = "acme"\n' if row is ProviderConfig else '[models."acme/x"]\nnote = "n"\n'


@pytest.mark.parametrize(("row", "field"), FIELDS, ids=lambda value: getattr(value, "alias", None) or value.__name__)
def test_every_field_of_a_row_can_be_given(row, field):
    found = toml(f"{head(row)}{field.alias} = {SAMPLES[field.type]}\n" if field.alias not in ("name", "note") else head(row))
    assert found.faults == []
    assert set(SAMPLES) == set(KINDS)


@pytest.mark.parametrize(("row", "field"), FIELDS, ids=lambda value: getattr(value, "alias", None) or value.__name__)
def test_a_field_of_the_wrong_form_is_told_with_its_line(row, field):
    if field.alias in ("name", "note"):
        return
    found = toml(f"{head(row)}{field.alias} = [[1]]\n")
    (fault,) = found.faults
    assert re.match(rf"llm_master\.toml:3: (providers\[0\]|models\.\"acme/x\")\.{field.alias} is a list.*: give ", fault)


def test_an_empty_table_declares_a_model():
    assert values(toml("[models.'groq/new']\n").models) == {"groq/new": {}}
    assert toml("[models.'groq/new']\nzzz = 1\n").models == {}, "what is wrong declares nothing"


def test_a_models_list_and_a_lone_variable_are_what_rows_take():
    found = toml('[[providers]]\nname="a"\nbase_url="https://a.ai/v1"\nmodels=["x", "y"]\napi_key_env=["A", "B"]\nignore_models="*"\n')
    row = ProviderConfig.from_mapping("a", values(found.providers["a"]))
    assert (list(row.models), row.api_key_env, row.ignore_models) == (["x", "y"], ("A", "B"), ("*",))


def test_keys_stand_apart_from_fields_with_the_line_of_each():
    found = toml(f"""\
[[providers]]
name = "acme"
api_key = " {KEY}-1 "
api_keys = [
    "{KEY}-2",
    "",  # to come
    "{KEY}-3",
]
[[providers]]
name = "empty"
api_key = ""
""")
    assert [(key.value, key.origin) for key in found.keys["acme"]] == [
        (f"{KEY}-1", "llm_master.toml:3"),
        (f"{KEY}-2", "llm_master.toml:5"),
        (f"{KEY}-3", "llm_master.toml:7"),
    ]
    assert "empty" not in found.keys
    assert found.providers == {"acme": {}, "empty": {}}
    assert KEY not in repr(found)


@pytest.mark.parametrize("text", ["", "# nothing\n", "\ufeff", "providers = []\n[models]\n[aliases]\n[routes]\n[limits]\n"])
def test_a_file_with_nothing_in_it_says_nothing(text):
    assert toml(text) == read_toml(write("empty.toml", ""))


def test_a_byte_order_mark_and_windows_lines_are_no_fault():
    found = toml('\ufeff# mine\r\nmax_attempts = 3\r\nmoderation_model = """\\\r\n  x"""\r\ndeadline = 1\r\n')
    assert values(found.options) == {"max_attempts": 3, "moderation_model": "x", "deadline": 1}
    assert origins(found.options) == {
        "max_attempts": "llm_master.toml:2",
        "moderation_model": "llm_master.toml:3",
        "deadline": "llm_master.toml:5",
    }


# TOML: what is wrong


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_attempt = 3\n", "1: max_attempt is no table and no option: did you mean 'max_attempts'?"),
        ("\n[provider]\nx = 1\n", "2: provider is no table and no option: did you mean 'providers'?"),
        ("[zzz]\n", "1: zzz is no table and no option; there are preferred_provider, "),
        ("\nmax_attempts = '3'\n", "2: max_attempts is a string: give a whole number above 0"),
        ("max_attempts = 0\n", "1: max_attempts is 0: give a whole number above 0"),
        ("max_attempts = true\n", "1: max_attempts is true or false: give a whole number"),
        ("deadline = inf\n", "1: deadline is inf: give seconds above 0"),
        ("deadline = -1.5\n", "1: deadline is -1.5: give seconds above 0"),
        ("enable_fallback = 1\n", "1: enable_fallback is a whole number: give true or false"),
        ("on_unsupported = 'ignore'\n", '1: on_unsupported is a string: give "error" or "drop"'),
        ("default_model = ' '\n", "1: default_model is empty: give a string that is not empty"),
        ("default_model = 2026-01-01\n", "1: default_model is a date: give a string"),
        ("api_version = '1'\n", '1: api_version is no table and no option: put it into query = {"api-version" = "..."}'),
        ("[providers.groq]\nrpm = 1\n", "1: providers is no list of tables: begin each provider with [[providers]]"),
        ("providers = ['groq']\n", "1: providers is no list of tables: begin each provider with [[providers]]"),
        ("[[providers]]\nrpm = 1\n", "1: providers[0] has no name: give it one"),
        ("[[providers]]\n\nname = ''\n", "3: providers[0].name is empty"),
        ("[[providers]]\nname = 7\n", "2: providers[0].name is a whole number: give a string"),
        ("[[providers]]\nname = 'a'\nbase_ur = 'x'\n", "3: providers[0].base_ur is no field: did you mean 'base_url'?"),
        ("[[providers]]\nname = 'a'\napi_base = 'x'\n", "3: providers[0].api_base is no field: did you mean 'base_url'?"),
        (
            "[[providers]]\nname = 'a'\napi_version = '2024'\n",
            '3: providers[0].api_version is no field: put it into query = {"api-version" = "..."}',
        ),
        (
            "[[providers]]\nname = 'a'\nmax_attempts = 3\n",
            "3: providers[0].max_attempts is no field: it is of no provider: put it above the",
        ),
        (
            "[[providers]]\nname = 'a'\nheaders = { x = 1 }\n",
            "3: providers[0].headers is a table with a whole number in it: give a table of",
        ),
        (
            "[[providers]]\nname = 'my-host'\n[[providers]]\nname = 'MY_Host'\n",
            "4: providers[1].name is 'MY_Host', as providers[0] is (case, - and _ do not matter): make one of the two, or rename one",
        ),
        (
            "[[providers]]\nname = 'a'\ndefault_model = 'x'\nmodel = 'y'\n",
            "4: providers[0].model is another name of default_model, which is given too: leave one out",
        ),
        ("models = 1\n", "1: models is a whole number: give a table"),
        ("[models]\n\nx = 1\n", "3: models.x is a whole number: give a table"),
        ("[models.'a/x']\nrpm = 1\n", '2: models."a/x".rpm is no field; there are provider, '),
        ("[models.'a/x']\ncontext_windo = 1\n", "2: models.\"a/x\".context_windo is no field: did you mean 'context_window'?"),
        ("[models.gpt-4.1]\n", '1: models.gpt-4.1 is no field: put a name with dots in quotes, as [models."gpt-4.1"]'),
        ("aliases = 'x'\n", "1: aliases is a string: give a table"),
        ("[aliases]\nx = 1\n", "2: aliases.x is a whole number: give the name of a model, or {model"),
        ("[aliases]\nx = {}\n", "2: aliases.x has no model: give a model, as {"),
        ("[aliases]\nx = { model = 'a', options = 1 }\n", "2: aliases.x.options is a whole number: give a table"),
        ("[aliases]\nx = { model = 'a', option = {} }\n", "2: aliases.x.option is no field: did you mean 'options'?"),
        ("[aliases]\ngpt-4.1 = 'x'\n", "2: aliases.gpt-4 has no model: give a model, as {model = "),
        ("[aliases]\nme = 'me'\n", "2: aliases.me leads to itself (me -> me): let one of them name a model"),
        ("[aliases]\nc = 'a'\nb = 'c'\na = 'b'\n", "4: aliases.a leads to itself (a -> b -> c -> a): let one of them name a model"),
        ("[routes.r]\n", "1: routes.r has no targets: give targets = ["),
        ("[routes.r]\ntarget = ['a']\n", "(instead of 'target')"),
        ("[routes.r]\ntargets = []\n", "2: routes.r.targets is empty: give targets = ["),
        ("[routes.r]\ntargets = 'a'\n", "2: routes.r.targets is no list: give targets = ["),
        ("[routes.r]\ntargets = [\n'a',\n7]\n", "4: routes.r.targets[1] names no model: give targets = ["),
        ("[routes.r]\ntargets = ['a', {name = 'b'}]\n", "2: routes.r.targets[1] names no model"),
        ("[routes.r]\ntargets = ['a']\nstrategy = 1\n", "3: routes.r.strategy is a whole number: give a string"),
        ("[routes.r]\ntargets = ['a', 'r']\n", "1: routes.r leads to itself (r -> r): let one of them name a model"),
        ("[aliases]\nq = 'r'\n[routes.r]\ntargets = ['a', {model = 'q'}]\n", "2: aliases.q leads to itself (q -> r -> q)"),
        ("[aliases]\nr = 'x'\n[routes.r]\ntargets = ['a']\n", "2: aliases.r is a route too (llm_master.toml:3): rename one of the two"),
        ("[limits.groq]\nrpm = 0\n", "2: limits.groq.rpm is 0: give a whole number above 0"),
        ("[limits.groq]\nrpmm = 1\n", "2: limits.groq.rpmm is no limit: did you mean 'rpm'?"),
        (
            "[limits.'a/x']\nmax_concurrent_per_key = 1\n",
            '2: limits."a/x".max_concurrent_per_key is no limit: it is a provider\'s: put it into [limits.PROVIDER]',
        ),
        ("[limits.gpt-4.1]\nrpm = 1\n", '1: limits.gpt-4.1 is no limit: put a name with dots in quotes, as [limits."gpt-4.1"]'),
        (
            "[[providers]]\nname = 'groq'\nrpm = 1\n[limits.Groq]\nrpm = 2\n",
            "5: limits.Groq.rpm is given at llm_master.toml:3 already: leave one out",
        ),
        (
            "[models.'a/x']\nrate_limit_rpm = 1\n[limits.'a/x']\nrpm = 2\n",
            '4: limits."a/x".rpm is given in [models."a/x"] as rate_limit_rpm already: leave one out',
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_a_remedy(text, told):
    (fault,) = toml(text).faults
    assert fault.startswith("llm_master.toml:")
    assert told in fault
    assert told.startswith("(") or fault.startswith(f"llm_master.toml:{told}")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb =\nc = 3\n", 2),
        ("a = 1\n\nbase_url = https://x\n", 3),
        ('a = "x\n', 1),
        ("[[providers]]\nname = 'a'\nname = 'b'\n", 3),
        ("[a]\n[a]\n", 2),
        ("[models.groq/x]\n", 1),
        ('a = 1\nb = """\n\n', 3),
        ("a = [1,\n2\n", 2),
        ("a = 2026-13-40\n", 1),
    ],
)
def test_broken_toml_is_one_fault_with_its_line(text, line):
    (fault,) = toml(f"{text}").faults
    assert fault.startswith(f"llm_master.toml:{line}: is no TOML (")
    assert "mend it" in fault


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "9" * 5000, "a = " + "{a=" * 100_000])
def test_toml_that_would_break_the_reader_is_a_fault(text):
    (fault,) = toml(text).faults
    assert fault.startswith("llm_master.toml")
    assert len(fault) < 300


def test_everything_wrong_is_told_at_once():
    found = toml("max_attempt = 1\n[[providers]]\nbase_ur = 'x'\n[[providers]]\nname = 'a'\nrpm = 'x'\ntimeout = 'y'\nscope = 'z'\n")
    assert [fault.split(": ")[0] for fault in found.faults] == [f"llm_master.toml:{line}" for line in (1, 3, 2, 6, 7)]
    assert values(found.providers["a"]) == {"scope": "z"}, "what is right is read all the same"
    with pytest.raises(ConfigurationError, match=r"(?s)max_attempt.*base_ur.*timeout"):
        found.refuse()


@pytest.mark.parametrize(
    "text",
    [
        f"[[providers]]\nname = 'a'\napi_key = ['{KEY}']\n",
        f"[[providers]]\nname = 'a'\napi_keys = '{KEY}'\n",
        f"[[providers]]\nname = 'a'\napi_key = {{ '{KEY}' = '{KEY}' }}\n",
        "[[providers]]\nname = 'a'\napi_key = 123456789012\n",
        "[[providers]]\nname = 'a'\napi_keys = [123456789012]\n",
        f"[[providers]]\nname = 'a'\nheaders = ['{KEY}']\n",
        f"[[providers]]\nname = 'a'\nheaders = '{KEY}'\n",
        f"[[providers]]\nname = 'a'\napi_ky = '{KEY}'\n",
        f"[[providers]]\nname = 'a'\napi_key = '{KEY}\n",
        f"[[providers]]\nname = 'a'\napi_key = {KEY}\n",
        f"[[providers]]\nname = 'a'\napi_key = '{KEY}' '{KEY}'\n",
        f"[[providers]]\nname = 'a'\napi_key = \"{KEY}\\q\"\n",
        f"[[providers]]\nname = 'a'\napi_key = '{KEY}'\napi_key = '{KEY}'\n",
    ],
)
def test_no_fault_shows_a_key(text):
    for secrets in (False, True):
        (fault,) = toml(text, secrets=secrets).faults
        assert "sk-test" not in fault
        assert "0123456789" not in fault
        assert "123456789012" not in fault
        assert re.match(r"llm_master\.toml:[34]: ", fault)


def test_a_long_chain_of_aliases_is_followed_to_its_end():
    chain = "".join(f"a{n} = 'a{n + 1}'\n" for n in range(5000))
    assert toml(f"[aliases]\n{chain}").faults == []
    (fault,) = toml(f"[aliases]\n{chain}a5000 = 'a4999'\n").faults
    assert "aliases.a4999 leads to itself (a4999 -> a5000 -> a4999)" in fault


def test_several_ways_to_one_target_are_no_circle():
    assert toml("[aliases]\nx='m'\ny='x'\n[routes.r]\ntargets=['x','y','s']\n[routes.s]\ntargets=['y','groq/r']\n").faults == []


# Files that cannot be read


@pytest.mark.parametrize("read", [read_toml, read_yaml])
def test_a_file_that_cannot_be_read_is_a_fault(read, tmp_path, monkeypatch):
    assert read(Path("gone.toml")).faults == [
        "gone.toml: cannot be read (No such file or directory): make it readable to you, or remove it"
    ]
    (tmp_path / "folder.toml").mkdir()
    assert read(Path("folder.toml")).faults == ["folder.toml: is a folder: put a text file in its place, or remove it"]
    write("latin.toml", b"a = 1\n# caf\xe9\n")
    assert read(Path("latin.toml")).faults == ["latin.toml:2: is no UTF-8: save the file as UTF-8"]
    write("big.toml", b"#" * (8 * 2**20 + 1))
    assert "is larger than" in read(Path("big.toml")).faults[0]
    write("utf16.toml", "a = 1".encode("utf-16"))
    assert read(Path("utf16.toml")).faults == ["utf16.toml:1: is no UTF-8: save the file as UTF-8"]

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    write("mine.toml", "")
    monkeypatch.setattr("builtins.open", refuse)
    assert read(Path("mine.toml")).faults == ["mine.toml: cannot be read (Permission denied): make it readable to you, or remove it"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for():
    os.mkfifo("pipe.toml")
    assert read_toml(Path("pipe.toml")).faults == ["pipe.toml: is no ordinary file: put a text file in its place, or remove it"]


def test_a_file_is_called_by_its_name_in_the_working_folder_and_by_its_path_elsewhere(tmp_path):
    write("sub/a.toml", "x = 1\n")
    write("b.toml", "x = 1\n")
    assert read_toml(Path("sub/a.toml")).faults[0].startswith("sub/a.toml:1: ")
    assert read_toml(tmp_path / "sub/a.toml").faults[0].startswith(f"{tmp_path}/sub/a.toml:1: ")
    assert read_toml(tmp_path / "b.toml").faults[0].startswith("b.toml:1: ")


# Secrets


def test_a_secrets_file_holds_names_keys_and_headers():
    found = toml(f"[[providers]]\nname='a'\napi_key='{KEY}'\nheaders={{'x-api-key'='{KEY}'}}\n", secrets=True)
    assert found.faults == []
    assert found.keys["a"][0].value == KEY
    assert values(found.providers["a"]) == {"headers": {"x-api-key": KEY}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[providers]]\nname='a'\nbase_url='x'\n", "3: providers[0].base_url is no field: a secrets file holds [[providers]] with name"),
        ("[[providers]]\nname='a'\napi_ky='x'\n", "3: providers[0].api_ky is no field: did you mean 'api_key'?"),
        ("[[providers]]\nname='a'\napi_version='x'\n", "3: providers[0].api_version is no field: put it into query"),
        ("max_attempts = 3\n", "1: max_attempts is no table of a secrets file: a secrets file holds"),
        ("[limits.groq]\nrpm = 3\n", "1: limits is no table of a secrets file: a secrets file holds"),
        ("[zzz]\n", "1: zzz is no table of a secrets file; there are providers"),
    ],
)
def test_a_secrets_file_holds_nothing_else(text, told):
    (fault,) = toml(text, secrets=True).faults
    assert fault.startswith(f"llm_master.toml:{told}")


def test_secrets_are_laid_over_their_file_provider_by_provider():
    write(
        HERE, "[[providers]]\nname='my-host'\nbase_url='https://a.ai'\nheaders={'X-Team'='t', 'X-API-Key'='old'}\n[[providers]]\nname='b'\n"
    )
    write(
        HERE_SECRETS,
        f"[[providers]]\nname='My_Host'\napi_keys=['{KEY}']\nheaders={{'x-api-key'='new'}}\n[[providers]]\nname='groq'\napi_key='k'\n",
    )
    HERE_SECRETS.chmod(0o600)
    HERE.chmod(0o600)
    found = current_files(environment())
    assert found.faults == found.warnings == []
    assert values(found.providers["my_host"]) == {"base_url": "https://a.ai", "headers": {"X-Team": "t", "x-api-key": "new"}}
    assert found.providers["my_host"]["headers"].origin == "llm_master.secrets.toml:4"
    assert found.names == {"my_host": "my-host", "b": "b", "groq": "groq"}
    assert [key.value for key in found.keys["my_host"]] == [KEY]
    assert found.keys["groq"][0].origin == "llm_master.secrets.toml:7"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize(
    ("field", "warned"),
    [
        (f"api_key = '{KEY}'", True),
        (f"api_keys = ['{KEY}']", True),
        (f"headers = {{ authorization = 'Bearer {KEY}' }}", True),
        (f"headers = {{ X-Api-Key = '{KEY}' }}", True),
        (f"headers = {{ Api-Key = '{KEY}' }}", True),
        ("headers = { X-Team = 'search' }", False),
        ("api_key = ''", False),
        ("api_key_env = 'A'", False),
    ],
)
def test_keys_that_others_can_read_are_warned_of(field, warned):
    write(HERE, f"[[providers]]\nname = 'a'\n{field}\n")
    for mode in (0o644, 0o640, 0o604):
        HERE.chmod(mode)
        expected = ["llm_master.toml: holds keys and can be read by others: chmod 600 llm_master.toml"] if warned else []
        found = current_files(environment())
        assert found.warnings == expected
        assert found.faults == []
    HERE.chmod(0o600)
    assert current_files(environment()).warnings == [], "and the new mode is seen"


# YAML: what the guide shows


CONFIG = """\
models:
  - "openai/gpt-4"
  - "anthropic/claude-3-5-sonnet"
  - "gemini/gemini-2.0-flash-exp"
judge_model: "anthropic/claude-3-5-sonnet-20241022"
categories: ["cli_tools", "web_apps"]
max_concurrent: 10
provider_concurrency:
  openai: 5
  anthropic: 10
  Gemini-X: 20
model_configs:
  "openai/o1":
    system_instruction: "Think step by step before answering."
    options:
      reasoning_effort: "high"
      temperature: 0.7
  "gemini/gemini-2.5-pro":
    system_instruction: "Use detailed reasoning for complex problems."
    system_instruction_position: "prepend"
    options:
      thinking:
        type: "enabled"
        budget_tokens: 10000
"""


def test_a_config_as_the_guide_writes_it():
    found = yaml(CONFIG)
    assert found.faults == []
    assert found.model_settings == {
        "openai/o1": ModelSettings(
            system_instruction="Think step by step before answering.",
            position="append",
            options={"reasoning_effort": "high", "temperature": 0.7},
            origin="config.yaml:13",
        ),
        "gemini/gemini-2.5-pro": ModelSettings(
            system_instruction="Use detailed reasoning for complex problems.",
            position="prepend",
            options={"thinking": {"type": "enabled", "budget_tokens": 10000}},
            origin="config.yaml:18",
        ),
    }
    assert (found.options["max_concurrent"].value, found.options["max_concurrent"].origin) == (10, "config.yaml:7")
    assert {name: values(fields) for name, fields in found.providers.items()} == {
        "openai": {"max_concurrent": 5},
        "anthropic": {"max_concurrent": 10},
        "gemini_x": {"max_concurrent": 20},
    }
    assert found.providers["gemini_x"]["max_concurrent"].origin == "config.yaml:11"
    assert found.names["gemini_x"] == "Gemini-X"
    assert found.benchmark == {
        "models": ["openai/gpt-4", "anthropic/claude-3-5-sonnet", "gemini/gemini-2.0-flash-exp"],
        "judge_model": "anthropic/claude-3-5-sonnet-20241022",
        "categories": ["cli_tools", "web_apps"],
    }


def test_every_key_of_the_benchmark_is_kept():
    text = """\
models: [a/b]
model_display_names: {a/b: B, c: null}
judge_model: a/b
judge_models: [a/b, c/d]
fixer_model: ''
categories: []
question_ids: [x]
num_runs: 3
retry_settings: {max_retries_per_key: 5, global_timeout: 180}
evaluation: {pass_threshold: 60, code_timeout: 10.5}
code_formatting_instructions:
  enabled: true
  instruction: |
    Only code.
viewer: {host: 0.0.0.0, port: 8000}
questions_dir: questions
results_dir: results
"""
    found = yaml(text)
    assert found.faults == []
    assert set(found.benchmark) == set(BENCHMARK)
    assert found.benchmark["model_display_names"] == {"a/b": "B"}
    assert found.benchmark["evaluation"] == {"pass_threshold": 60, "code_timeout": 10.5}
    assert found.benchmark["code_formatting_instructions"] == {"enabled": True, "instruction": "Only code.\n"}
    assert found.benchmark["viewer"] == {"host": "0.0.0.0", "port": 8000}


def test_null_is_not_given():
    keys = (*BENCHMARK, "model_configs", "model_system_instructions", "max_concurrent", "provider_concurrency")
    nothing = read_yaml(write("empty.yaml", ""))
    assert yaml("".join(f"{key}:\n  # an example\n" for key in keys)) == nothing
    assert yaml("---\n# only a comment\n") == nothing
    found = yaml(
        "provider_concurrency: {openai: null}\nmodel_system_instructions: {a: null}\nevaluation: {code_timeout: null}\nmodel_configs: {b: null}\n"
    )
    assert found.faults == []
    assert (found.providers, found.model_settings, found.benchmark) == ({}, {}, {"evaluation": {}})
    found = yaml("model_configs:\n  m:\n    system_instruction:\n    system_instruction_position:\n    options:\n")
    assert found.model_settings["m"] == ModelSettings(origin="config.yaml:2")
    assert yaml("model_configs: {m: {options: {stop: null}}}").model_settings["m"].options == {"stop": None}, "which a call may mean"


def test_the_older_form_of_system_instructions_gives_way_to_model_configs():
    found = yaml("""\
model_system_instructions:
  old: "Old."
  both: "Old."
  options_only: "Old."
model_configs:
  both: {system_instruction: "New."}
  options_only: {options: {seed: 1}}
""")
    assert found.faults == []
    assert found.model_settings == {
        "old": ModelSettings(system_instruction="Old.", position="prepend", origin="config.yaml:2"),
        "both": ModelSettings(system_instruction="New.", position="append", origin="config.yaml:6"),
        "options_only": ModelSettings(system_instruction="Old.", position="prepend", options={"seed": 1}, origin="config.yaml:7"),
    }


def test_a_position_that_is_given_holds_for_the_older_form_too():
    found = yaml("model_system_instructions: {m: Old.}\nmodel_configs: {m: {system_instruction_position: append}}\n")
    assert found.model_settings["m"].position == "append"


def test_yaml_is_plain_data_with_text_where_json_has_nothing_else():
    found = yaml(
        """\
base: &base
  temperature: 0
  logit_bias: {50256: -100}
model_configs:
  4.1: {options: {<<: *base, temperature: 1, day: 2024-10-21, alone: =}}
  two: {options: {<<: [{a: 1}, {a: 2, b: 2}]}}
provider_concurrency: {302: 5}
""".replace("base: &base", "evaluation: &base")
    )
    assert found.model_settings["4.1"].options == {"temperature": 1, "logit_bias": {"50256": -100}, "day": "2024-10-21", "alone": "="}
    assert found.model_settings["two"].options == {"a": 1, "b": 2}
    assert values(found.providers["302"]) == {"max_concurrent": 5}
    assert [fault.partition(" is")[0] for fault in found.faults] == [
        "config.yaml:2: evaluation.temperature",
        "config.yaml:3: evaluation.logit_bias",
    ]


# YAML: what is wrong


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {k: 1, l: 2}\n" + "".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 10)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_concurent: 1\n", "1: max_concurent is no setting: did you mean 'max_concurrent'?"),
        ("\nzzz: 1\n", "2: zzz is no setting; there are model_configs, "),
        ("max_concurrent: ten\n", "1: max_concurrent is a string: give a whole number above 0"),
        ("max_concurrent: 0\n", "1: max_concurrent is 0: give a whole number above 0"),
        ("max_concurrent: true\n", "1: max_concurrent is true or false: give a whole number above 0"),
        ("provider_concurrency: 5\n", "1: provider_concurrency is a whole number: give a table"),
        ("provider_concurrency:\n  openai: '5'\n", "2: provider_concurrency.openai is a string: give a whole number above 0"),
        (
            "provider_concurrency:\n  my-host: 5\n  My_Host: 6\n",
            "3: provider_concurrency.My_Host is the provider of provider_concurrency.my-host (",
        ),
        ("provider_concurrency:\n  no: 5\n", "2: provider_concurrency has a key in line 2 that is no text: put it in quotes"),
        ("? [a]\n: 1\n", "1: the file has a key in line 1 that is no text: put it in quotes"),
        ("model_configs: [a]\n", "1: model_configs is a list with a string in it: give a table"),
        ("model_configs:\n  m: high\n", "2: model_configs.m is a string: give a table"),
        ("model_configs:\n  a/m:\n    option: {}\n", "3: model_configs.\"a/m\".option is no field: did you mean 'options'?"),
        ("model_configs:\n  m:\n    options: [1]\n", "3: model_configs.m.options is a list"),
        ("model_configs:\n  m:\n    system_instruction: 5\n", "3: model_configs.m.system_instruction is a whole number: give a string"),
        (
            "model_configs:\n  m: {system_instruction_position: middle}\n",
            '2: model_configs.m.system_instruction_position is a string: give "prepend"',
        ),
        ("model_system_instructions:\n  m: [a]\n", "2: model_system_instructions.m is a list"),
        ("models: a/b\n", "1: models is a string: give a list of strings"),
        ("models:\n- a\n- 5\n", "1: models is a list with a string and a whole number in it: give a list of strings"),
        ("viewer: {port: 70000}\n", "1: viewer.port is 70000: give a whole number from 1 to 65535"),
        ("viewer:\n  prot: 1\n", "2: viewer.prot is no field: did you mean 'port'?"),
        ("retry_settings: {max_retries_per_key: -1}\n", "1: retry_settings.max_retries_per_key is -1: give a whole number of at least 0"),
        ("evaluation: {pass_threshold: .nan}\n", "1: evaluation.pass_threshold is nan: give a number"),
        ("model_display_names:\n  m: 1\n", "2: model_display_names.m is a whole number: give a string"),
        ("- a\n", "1: is a list: begin with names of settings"),
        ("text\n", "1: is a string: begin with names of settings"),
        ("a: 1\nb: [\n", "3: is no YAML (expected the node content, but found '<stream end>'): mend it"),
        ("a: 1\nb: c: d\n", "2: is no YAML (mapping values are not allowed here): mend it"),
        ("a: *gone\n", "1: is no YAML (found undefined alias 'gone'): mend it"),
        ("a: 1\n---\nb: 1\n", "2: is no YAML (but found another document): mend it"),
        ("max_concurrent: 1\n# x\nb: \x07\n", "3: holds a character that YAML does not allow: take it out"),
        ("max_concurrent: 1\nnum_runs: 2\nmax_concurrent: 3\n", "3: max_concurrent stands twice, first in line 1: keep one"),
        ("model_configs:\n  m: {options: {a: 1, a: 2}}\n", "2: model_configs.m.options.a stands twice, first in line 2: keep one"),
        (
            "num_runs: !!python/object/apply:os.system ['true']\n",
            "1: num_runs has the tag !!python/object/apply:os.system: settings are plain data",
        ),
        ("\nnum_runs: !!python/name:os.system ''\n", "2: num_runs has the tag !!python/name:os.system: settings are plain data"),
        ("num_runs: !own {a: 1}\n", "1: num_runs has the tag !own: settings are plain data"),
        ("num_runs: !!binary aGk=\n", "1: num_runs has the tag !!binary: settings are plain data"),
        ("models: !!set {a, b}\n", "1: models has the tag !!set: settings are plain data"),
        ("num_runs: !!int x\n", "1: num_runs cannot be read as int: put it in quotes if it is text"),
        ("num_runs: !!bool x\n", "1: num_runs cannot be read as bool: put it in quotes if it is text"),
        ("num_runs: 0b_\n", "1: num_runs cannot be read as int"),
        ("viewer: {<<: 5}\n", '1: viewer."<<" merges what is no mapping'),
        ("models: &a [*a]\n", "1: holds an alias that stands within what it repeats: write it out"),
        ("viewer: &a {<<: *a}\n", "1: holds an alias that stands within what it repeats: write it out"),
    ],
)
def test_what_is_wrong_in_yaml_is_told_with_its_line_and_a_remedy(text, told):
    (fault,) = yaml(text).faults
    assert fault.startswith(f"config.yaml:{told}")


@pytest.mark.parametrize("text", [BOMB, MERGE_BOMB])
def test_aliases_that_would_fill_the_memory_are_a_fault(text):
    (fault,) = yaml(text).faults
    assert re.match(rf"config\.yaml:\d+: holds more than {MOST_NODES} values once its aliases are put in: take aliases out", fault)


def test_yaml_that_would_break_the_reader_is_a_fault():
    assert yaml("a: " + "[" * 20_000).faults == ["config.yaml: is nested too deeply: settings need no more than a few levels"]
    chain = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2000))
    (fault,) = yaml(chain).faults
    assert "nested too deeply" in fault or "values once its aliases" in fault


def test_a_byte_order_mark_in_yaml_is_no_fault():
    assert values(yaml("\ufeffmax_concurrent: 2\r\n").options) == {"max_concurrent": 2}


# Which files


def test_the_users_file_lies_under_that_of_the_working_folder():
    write(
        USER,
        "max_attempts = 2\ndeadline = 5\n[[providers]]\nname='acme'\nbase_url='https://user.ai'\nrpm = 1\n[aliases]\na='user'\nb='user'\n",
    )
    write(HERE, "max_attempts = 3\n[[providers]]\nname='ACME'\nbase_url='https://here.ai'\n[aliases]\na='here'\n")
    found = current_files(environment())
    assert found.faults == []
    assert values(found.options) == {"max_attempts": 3, "deadline": 5}
    assert values(found.providers["acme"]) == {"base_url": "https://here.ai", "rpm": 1}
    assert found.providers["acme"]["base_url"].origin == "llm_master.toml:4"
    assert found.providers["acme"]["rpm"].origin == f"{os.path.abspath(USER)}:6"
    assert values(found.aliases) == {"a": "here", "b": "user"}


def test_the_four_files_in_their_order():
    for n, path in enumerate((USER, USER_SECRETS, HERE, HERE_SECRETS)):
        write(path, f"[[providers]]\nname='p'\napi_key='sk-{n}'\n").chmod(0o600)
    everything = environment()
    assert find_files(everything) == [Path(os.path.abspath(USER)), Path(os.path.abspath(USER_SECRETS)), HERE, HERE_SECRETS]
    for n, path in reversed(list(enumerate((USER, USER_SECRETS, HERE, HERE_SECRETS)))):
        assert [key.value for key in current_files(everything).keys["p"]] == [f"sk-{n}"]
        path.unlink()
    assert current_files(everything).keys == {}
    assert find_files(everything) == []


def test_secrets_alone_are_read():
    write(HERE_SECRETS, f"[[providers]]\nname='groq'\napi_key='{KEY}'\n").chmod(0o600)
    assert current_files(environment()).keys["groq"][0].value == KEY


def test_faults_of_all_files_are_told_together():
    write(USER, "a = 1\n[aliases]\nx = 'y'\n")
    write(USER_SECRETS, "b = 1\n")
    write(HERE, "c = 1\n[aliases]\ny = 'x'\n")
    write(HERE_SECRETS, "d = \n")
    faults = current_files(environment()).faults
    folder = os.path.dirname(os.path.abspath(USER))
    expected = (f"{folder}/llm_master.toml:1", f"{folder}/llm_master.secrets.toml:1", "llm_master.toml:1", "llm_master.secrets.toml:1")
    assert [fault.split(": ")[0] for fault in faults] == [*expected, f"{folder}/llm_master.toml:3"]
    assert "aliases.x leads to itself (x -> y -> x)" in faults[-1]


def test_yaml_is_never_picked_up_by_chance():
    for name in ("config.yaml", "llm_master.yaml", "llm_master.yml", ".config/llm_master/llm_master.yaml"):
        write(name, "max_concurrent: 1\n")
    assert find_files(environment()) == []
    assert current_files(environment()).options == {}


@pytest.mark.parametrize("name", ["other.toml", "config.yaml", "config.yml", "CONFIG.YAML"])
def test_a_file_that_is_named_is_the_only_one(name, tmp_path):
    write(USER, "max_attempts = 2\n")
    write(HERE, "max_attempts = 3\n")
    text = "deadline = 7\n" if name.endswith("toml") else "max_concurrent: 7\n"
    path = write(tmp_path / "conf" / name, text)
    write(path.with_suffix(".secrets.toml"), f"[[providers]]\nname='groq'\napi_key='{KEY}'\n").chmod(0o600)
    for found, files in (
        (current_files(environment(LLM_MASTER_CONFIG=str(path))), find_files(environment(LLM_MASTER_CONFIG=str(path)))),
        (current_files(environment(), explicit=path), find_files(environment(), explicit=path)),
        (current_files(environment(LLM_MASTER_CONFIG="gone.toml"), explicit=path), [path, path.with_suffix(".secrets.toml")]),
        (current_files(environment(LLM_MASTER_CONFIG=f"conf/{name}")), [path, path.with_suffix(".secrets.toml")]),
        (current_files(environment(LLM_MASTER_CONFIG=f"~/conf/{name}")), [path, path.with_suffix(".secrets.toml")]),
    ):
        assert found.faults == found.warnings == []
        assert [option.value for option in found.options.values()] == [7]
        assert found.keys["groq"][0].value == KEY
        assert files == [path, path.with_suffix(".secrets.toml")]


def test_a_file_that_is_named_must_be_there_and_readable(tmp_path, monkeypatch):
    with pytest.raises(ConfigurationError, match=r"^LLM_MASTER_CONFIG names .*gone\.toml, which is not there: name a"):
        current_files(environment(LLM_MASTER_CONFIG=str(tmp_path / "gone.toml")))
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"gone\.yaml, which is not there"):
            current_files(environment(), explicit=Path("gone.yaml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ConfigurationError, match=r"folder\.toml, which is no file"):
        current_files(environment(LLM_MASTER_CONFIG="folder.toml"))
    write("mine.toml", "")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        with pytest.raises(ConfigurationError, match=r"mine\.toml, which cannot be read \(Permission denied\)"):
            current_files(environment(LLM_MASTER_CONFIG="mine.toml"))
    assert current_files(environment(LLM_MASTER_CONFIG="mine.toml")).faults == []


@pytest.mark.parametrize("name", ["settings.json", "settings", "toml"])
def test_a_file_of_another_kind_is_a_fault(name):
    write(name, "{}")
    assert current_files(environment(LLM_MASTER_CONFIG=name)).faults == [
        f"{name}: is no settings file by its name: let it end in .toml, .yaml or .yml"
    ]


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {"XDG_CONFIG_HOME": "{}/xdg"}, "xdg/llm_master"),
        ("linux", {"HOME": "{}"}, ".config/llm_master"),
        ("linux", {"HOME": "{}", "XDG_CONFIG_HOME": "xdg"}, ".config/llm_master"),
        ("linux", {"HOME": "{}", "XDG_CONFIG_HOME": ""}, ".config/llm_master"),
        ("darwin", {"HOME": "{}"}, "Library/Application Support/llm_master"),
        ("win32", {"HOME": "{}", "APPDATA": "{}/roaming"}, "roaming/llm_master"),
        ("win32", {"HOME": "{}"}, None),
        ("linux", {}, None),
    ],
)
def test_the_users_folder_is_where_the_platform_has_it(platform, variables, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    for place in ("xdg", ".config", "Library/Application Support", "roaming"):
        write(tmp_path / place / "llm_master" / "llm_master.toml", f"default_model = '{place}/llm_master'\n")
    given = Environment({name: value.format(tmp_path) for name, value in variables.items()})
    assert find_files(given) == ([tmp_path / folder / "llm_master.toml"] if folder else [])
    assert [option.value for option in current_files(given).options.values()] == ([folder] if folder else [])


def test_a_file_that_is_both_is_read_once(tmp_path, monkeypatch):
    write(USER, "max_attempts = '3'\n")
    given = environment()
    monkeypatch.chdir(USER.parent)
    assert len(find_files(given)) == 1
    assert len(current_files(given).faults) == 1


# The same object while nothing changes


def test_the_same_object_while_no_file_changes():
    given = environment()
    nothing = current_files(given)
    assert nothing == read_toml(write("empty.toml", ""))
    assert current_files(given) is nothing
    write(HERE, "max_attempts = 3\n")
    first = current_files(given)
    assert values(first.options) == {"max_attempts": 3}
    assert current_files(given) is first
    assert current_files(environment()) is first, "an equal environment names the same files"


def test_a_change_is_seen(tmp_path):
    given = environment()
    write(HERE, "max_attempts = 3\n")
    first = current_files(given)
    write(HERE, "max_attempts = 44\n")
    assert values(current_files(given).options) == {"max_attempts": 44}
    assert values(first.options) == {"max_attempts": 3}, "who holds the old object is not disturbed"
    write(HERE_SECRETS, "[[providers]]\nname='a'\napi_key='k'\n")
    assert "a" in current_files(given).keys
    HERE_SECRETS.unlink()
    assert current_files(given).keys == {}
    write(USER, "deadline = 1\n")
    assert set(current_files(given).options) == {"max_attempts", "deadline"}
    HERE.unlink()
    assert set(current_files(given).options) == {"deadline"}


def test_a_file_that_was_replaced_by_one_of_the_same_size_and_time_is_seen():
    given = environment()
    write(HERE, "max_attempts = 3\n")
    found = os.stat(HERE)
    assert values(current_files(given).options) == {"max_attempts": 3}
    write("new.toml", "max_attempts = 4\n")
    os.utime("new.toml", ns=(found.st_atime_ns, found.st_mtime_ns))
    os.replace("new.toml", HERE)
    assert os.stat(HERE).st_mtime_ns == found.st_mtime_ns
    assert values(current_files(given).options) == {"max_attempts": 4}


def test_another_working_folder_has_other_files(tmp_path, monkeypatch):
    given = environment()
    write("max/llm_master.toml", "max_attempts = 1\n")
    write("min/llm_master.toml", "max_attempts = 2\n")
    for name, attempts in (("max", 1), ("min", 2), ("max", 1)):
        monkeypatch.chdir(tmp_path / name)
        assert values(current_files(given).options) == {"max_attempts": attempts}
    monkeypatch.chdir(tmp_path)
    assert current_files(given).options == {}


def test_two_named_files_do_not_push_each_other_out():
    one, two = write("one.toml", "max_attempts = 1\n"), write("two.toml", "max_attempts = 2\n")
    given = environment()
    first, second = current_files(given, explicit=one), current_files(given, explicit=two)
    assert (values(first.options), values(second.options)) == ({"max_attempts": 1}, {"max_attempts": 2})
    for n in range(50):
        assert current_files(given, explicit=one) is first
        assert current_files(given, explicit=two) is second
    for n in range(100):
        current_files(given, explicit=write(f"n{n}.toml", ""))
    assert values(current_files(given, explicit=one).options) == {"max_attempts": 1}


def test_threads_get_the_same_object():
    write(HERE, "".join(f"[[providers]]\nname = 'p{n}'\nrpm = 1\n" for n in range(200)))
    given, found, start = environment(), [], threading.Barrier(8)

    def ask():
        start.wait()
        found.append(current_files(given))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({id(one) for one in found}) == 1


def test_readers_of_a_format_are_loaded_when_a_file_of_it_is_read(tmp_path):
    write(HERE, "max_attempts = 3\n")
    code = (
        "import sys, os, pathlib\n"
        "from llm_master.settings.files import current_files\n"
        "from llm_master.settings.environment import Environment\n"
        "loaded = lambda: sorted({'tomllib', 'yaml'} & set(sys.modules))\n"
        "print(loaded()); current_files(Environment({})); print(loaded())\n"
        "pathlib.Path('c.yaml').write_text(''); current_files(Environment({'LLM_MASTER_CONFIG': 'c.yaml'})); print(loaded())\n"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(root), "PATH": ""}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[]", "['tomllib']", "['tomllib', 'yaml']"]


# The line of each key of a TOML document


def test_the_line_of_each_key():
    lines = locate('''\
top = 1  # [no]
"quoted key" = [
  1, # two = 2
  { inner = "x", deep.er = """
a = 1
""" },
]
a.b.c = "}"
a."d.e" = \'\'\'
[table]
\'\'\'

[table] # trailing
x = { y = { z = [[], [1]] }, w = 1 }
[[list]]
k = 1
[list.sub]
k = 2
[[ list ]]
"k" = 3
[[list.more]]
m = "\\u0041 \\" ]"
"\\u0041" = 1979-05-27 07:32:00
e = {}''')
    assert lines == {
        ("top",): 1,
        ("quoted key",): 2,
        ("quoted key", 0): 3,
        ("quoted key", 1): 4,
        ("quoted key", 1, "inner"): 4,
        ("quoted key", 1, "deep"): 4,
        ("quoted key", 1, "deep", "er"): 4,
        ("a",): 8,
        ("a", "b"): 8,
        ("a", "b", "c"): 8,
        ("a", "d.e"): 9,
        ("table",): 13,
        ("table", "x"): 14,
        ("table", "x", "y"): 14,
        ("table", "x", "y", "z"): 14,
        ("table", "x", "y", "z", 0): 14,
        ("table", "x", "y", "z", 1): 14,
        ("table", "x", "y", "z", 1, 0): 14,
        ("table", "x", "w"): 14,
        ("list",): 15,
        ("list", 0): 15,
        ("list", 0, "k"): 16,
        ("list", 0, "sub"): 17,
        ("list", 0, "sub", "k"): 18,
        ("list", 1): 19,
        ("list", 1, "k"): 20,
        ("list", 1, "more"): 21,
        ("list", 1, "more", 0): 21,
        ("list", 1, "more", 0, "m"): 22,
        ("list", 1, "more", 0, "A"): 23,
        ("list", 1, "more", 0, "e"): 24,
    }


SCALARS = [
    "1",
    "-1.5e3",
    "true",
    "inf",
    "1979-05-27 07:32:00",
    '""',
    "''",
    '"a # b ] } = ["',
    r'"\" \\"',
    r"'C:\'",
    '"""\nx = 1\n[table]\n"""',
    '"""a ""quoted"" \\""" \\\n  b"""',
    '""""quoted"""""',
    "'''\nit's \"q\" # no\n[[list]]\n'''",
    "''''quoted'''''",
]


class Pieces:
    """A TOML document in the making: each key is preceded by a mark, from which its line is counted in the end."""

    def __init__(self, draw):
        self.draw, self.count, self.places = draw, 0, []

    def one_of(self, *choices):
        return self.draw(st.sampled_from(choices))

    def mark(self, place):
        self.places.append(place)
        return f"\0{len(self.places) - 1}\0"

    def key(self):
        self.count += 1
        name, written = self.one_of(
            ("k{}", "k{}"), ("k-{}_", "k-{}_"), ("k.{}", '"k.{}"'), ("k {} #", "'k {} #'"), ('A"{}', r'"\u0041\"{}"'), ("k\n{}", r'"k\n{}"')
        )
        return name.format(self.count), written.format(self.count)

    def space(self):
        return self.one_of("", " ", "\t ")

    def value(self, place, depth):
        kind = self.one_of("scalar", "scalar", "list", "table") if depth < 3 else "scalar"
        if kind == "scalar":
            return self.one_of(*SCALARS)
        if kind == "table":
            return "{" + ",".join(self.statement(place, depth + 1) for _ in range(self.one_of(0, 1, 3))) + "}"
        text = "["
        for n in range(self.one_of(0, 1, 3)):
            text += (
                self.one_of("", "\n", " # k1 = ]\n\n")
                + self.mark((*place, n))
                + self.value((*place, n), depth + 1)
                + self.one_of("", "\n")
                + ","
            )
        return text + self.one_of("", "\n# end\n") + "]"

    def statement(self, place, depth):
        text = self.space()
        for n in range(self.one_of(0, 0, 1)):  # a.b = ...
            name, written = self.key()
            place = (*place, name)
            text += self.mark(place) + written + self.space() + "." + self.space()
        name, written = self.key()
        place = (*place, name)
        return text + self.mark(place) + written + self.space() + "=" + self.space() + self.value(place, depth) + self.space()

    def block(self):
        return "".join(self.statement(self.table, 0) + self.one_of("\n", " # x = [\n", "\n\n") for _ in range(self.one_of(0, 1, 2)))

    def document(self):
        self.table, lists = (), {}
        text = self.block()
        for _ in range(self.one_of(0, 1, 3, 5)):
            kind = self.one_of("new", "again", "below") if lists else self.one_of("new", "table")
            if kind == "table":
                name, written = self.key()
                self.table = (name,)
                text += f"[{self.mark(self.table)}{written}{self.space()}]"
            elif kind == "new":
                name, written = self.key()
                lists[name] = [written, 0]
                self.table = (name, 0)
                text += f"[[{self.mark((name,))}{self.mark(self.table)}{written}]]"
            else:
                name = self.one_of(*lists)
                written = lists[name][0]
                if kind == "again":
                    lists[name][1] += 1
                    self.table = (name, lists[name][1])
                    text += f"[[ {self.mark(self.table)}{written} ]]"
                else:
                    sub, sub_written = self.key()
                    self.table = (name, lists[name][1], sub)
                    text += f"[{written} . {self.mark(self.table)}{sub_written}]"
            text += self.one_of("\n", " # [x]\n") + self.block()
        return text

    def finished(self):
        pieces = re.split(r"\0(\d+)\0", self.document())
        text, expected = pieces[0], {}
        for number, piece in zip(pieces[1::2], pieces[2::2], strict=True):
            expected[self.places[int(number)]] = text.count("\n") + 1
            text += piece
        text = text.removesuffix("\n") if self.one_of(True, False) else text
        return (text.replace("\n", "\r\n") if self.one_of(False, True) else text), expected


@st.composite
def documents(draw):
    return Pieces(draw).finished()


def places_in(value, place=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*place, key)
        yield from places_in(item, (*place, key))


@settings(max_examples=300, deadline=None)
@given(documents())
def test_the_line_found_is_the_line_where_the_key_stands(made):
    text, expected = made
    data = tomllib.loads(text)
    found = locate(text)
    assert set(found) == set(places_in(data))
    assert found == expected


@given(st.text(alphabet="ab[]{}=,.#\"'\\\n \t1"))
def test_text_that_is_no_toml_is_passed_over(text):
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(locate(text)) == set(places_in(tomllib.loads(text)))


@given(st.text())
def test_no_text_breaks_the_readers(text):
    for name, read in (("f.toml", read_toml), ("f.yaml", read_yaml)):
        Path(name).write_bytes(text.encode("utf-8", "surrogatepass"))
        for fault in read(Path(name)).faults:
            assert fault.startswith(name)


def test_places_are_spelt_as_they_are_written():
    assert spelt(("providers", 2, "base_url")) == "providers[2].base_url"
    assert spelt(("models", "a/b.c", "x")) == 'models."a/b.c".x'
    assert "name" in PROVIDER
