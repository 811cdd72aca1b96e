"""Variables that nearly have the name of one that is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_master import PROVIDER_CONFIGS
from llm_master.rows import base_variable, key_variables
from llm_master.settings.misspelt import misspelt

READ = [name for row in PROVIDER_CONFIGS.values() for name in (*key_variables(row), base_variable(row), *row.base_url_env)]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ANTROPIC_API_KEY", "ANTHROPIC_API_KEY"),
        ("OPENAI_APIKEY", "OPENAI_API_KEY"),
        ("OPENAI_KEY", "OPENAI_API_KEY"),
        ("OPENAI_KEY_2", "OPENAI_API_KEY"),
        ("openai_token", "OPENAI_API_KEY"),
        ("OPEN_AI_API_KEY", "OPENAI_API_KEY"),
        ("OPENROUTER_API_KEYS", "OPENROUTER_API_KEY"),
        ("DEEPSEAK_API_KEY", "DEEPSEEK_API_KEY"),
        ("OPENAI_API_URL", "OPENAI_API_BASE"),
        ("OPENAI_ENDPOINT", "OPENAI_API_BASE"),
    ],
)
def test_what_was_perhaps_meant(name: str, meant: str) -> None:
    assert misspelt({name: "x"}, READ) == {name: meant}
    assert misspelt({name: "  "}, READ) == {}
    assert misspelt({name: "x", meant: "y"}, READ) == {}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "TAVILY_API_KEY",
            "GITHUB_TOKEN",
            "AI21_API_KEY",
            "DATABASE_URL",
            "SECRET_KEY",
            "KEY",
            "HOST",
            "PGHOST",
            "JIRA_API_KEY",
            "HF_HOME",
        ),
        *("PATH", "", "_KEY", "GROC_API_KEY", "SSH_AUTH_SOCK"),
    ],
)
def test_what_is_somebody_elses(name: str) -> None:
    assert misspelt({name: "x"}, READ) == {}


@pytest.mark.parametrize("name", [*READ, "OPENAI_API_KEY_1", "OPENAI_API_KEY_17", "openai_api_key", "Ollama_Api_Base"])
def test_what_is_read_is_right(name: str) -> None:
    assert misspelt({name: "x"}, READ) == {}


@given(st.text())
def test_any_name_may_stand_in_an_environment(name: str) -> None:
    assert set(misspelt({name: "x"}, READ)) <= {name}
