"""``llm-master registry``: what other lists say of models, what is taken over, and what is wrong with a file of models."""

from __future__ import annotations

import datetime
import json
import stat
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from llm_master import PROVIDER_CONFIGS, ConfigurationError, LLMConfig, ModelConfig, ModelRegistry, QueryLLM
from llm_master.cli import main
from llm_master.provider_configs import effective
from llm_master.registry_check import check, read_json, row_faults
from llm_master.registry_sync import Listed, differences, from_file, from_genai_prices, known_with, write
from llm_master.rows import canonical

PACKAGED = Path(str(files("llm_master").joinpath("models.json")))
TODAY = datetime.date(2026, 11, 21)
GPT = {"input_price_per_million": 2, "output_price_per_million": 8, "cached_input_price_per_million": "0.5", "context_window": 1047576}
"""What the library has of openai/gpt-4.1."""
FROM = {"source": "https://openai.com/prices", "as_of": "2026-11-20"}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["registry", *arguments])


def providers() -> dict[str, Any]:
    return {canonical(name): row for name, row in PROVIDER_CONFIGS.items()}


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """The user's file of models, which is not there yet."""
    return tmp_path / ".config" / "llm_master" / "models.json"


def listed(tmp_path: Path, rows: dict[str, Any], name: str = "theirs.json") -> str:
    (tmp_path / name).write_text(json.dumps(rows))
    return name


def changed(*, ours: dict[str, Any] | None, theirs: dict[str, Any]) -> Any:
    rows = {"m": ModelConfig(**ours)} if ours is not None else {}
    found = differences(rows, {"m": Listed(ModelConfig(**theirs), "a list")}, new=True)
    return found[0] if found else None


# Differences


def test_the_row_that_these_tests_compare_with() -> None:
    row = ModelRegistry.CONFIGS["openai/gpt-4.1"]
    assert {field: getattr(row, field) for field in GPT} == {**GPT, "cached_input_price_per_million": Decimal("0.5")}


def test_only_what_differs_and_is_known_is_a_difference() -> None:
    found = changed(
        ours={"input_price_per_million": 2, "output_price_per_million": 8, "cached_input_price_per_million": "0.5"},
        theirs={"input_price_per_million": "2.0", "output_price_per_million": 10, "context_window": 1000},
    )
    assert [(change.field, change.ours, change.theirs, change.percent, change.far) for change in found.changes] == [
        ("output_price_per_million", 8, 10, 25, False),
        ("context_window", None, 1000, None, False),
    ]
    assert changed(ours={"input_price_per_million": 2}, theirs={"input_price_per_million": 2, "note": "other", "rate_limit_rpm": 4}) is None


@pytest.mark.parametrize("field", ["input_price_per_million", "price_per_image", "context_window", "max_output_tokens"])
@pytest.mark.parametrize(
    ("ours", "theirs", "far"),
    [(10, 100, False), (100, 10, False), (10, 101, True), (101, 10, True), (None, 1000, False), (10, 11, False)],
)
def test_a_move_beyond_a_factor_of_ten_is_far(field: str, ours: Any, theirs: Any, far: bool) -> None:
    assert changed(ours={field: ours}, theirs={field: theirs}).far is far


@pytest.mark.parametrize(("ours", "theirs"), [(0, "0.01"), ("0.01", 0)])
def test_from_and_to_nothing_is_far(ours: Any, theirs: Any) -> None:
    found = changed(ours={"input_price_per_million": ours}, theirs={"input_price_per_million": theirs})
    assert found.far


def test_a_model_that_is_new_moves_nowhere() -> None:
    found = changed(ours=None, theirs={"input_price_per_million": 1000})
    assert found.ours is None and not found.far
    assert differences({}, {"m": Listed(ModelConfig(input_price_per_million=1), "a list")}) == []


def tiers(*prices: tuple[int, Any], **more: Any) -> dict[str, Any]:
    return {
        "input_price_per_million": 1,
        "price_tiers": [{"above_input_tokens": a, "input_price_per_million": p, **more} for a, p in prices],
    }


def test_tiers_are_laid_over_ours() -> None:
    ours = tiers((200_000, 2), output_price_per_million=9)
    assert changed(ours=ours, theirs=tiers((200_000, 2))) is None  # what the list does not know of the tier stays
    assert changed(ours=ours, theirs={"input_price_per_million": 1}) is None  # a list without tiers knows nothing of them
    [change] = changed(ours=ours, theirs=tiers((200_000, 3))).changes
    assert change.theirs[0].input_price_per_million == 3 and change.theirs[0].output_price_per_million == 9
    assert not change.far


@pytest.mark.parametrize(
    ("ours", "theirs", "far"),
    [
        (tiers((200_000, 2)), tiers((200_000, 21)), True),
        (tiers((200_000, 2)), tiers((200_000, 2), (400_000, 11)), True),  # a new one is compared with shorter requests
        (tiers((200_000, 2)), tiers((200_000, 2), (400_000, 9)), False),
        ({"input_price_per_million": 1}, tiers((200_000, 11)), True),
        ({"input_price_per_million": 1}, tiers((200_000, 2)), False),
    ],
)
def test_a_tier_may_be_far(ours: Any, theirs: Any, far: bool) -> None:
    assert changed(ours=ours, theirs=theirs).far is far


# The lists


def test_genai_prices_is_read_as_it_is_installed() -> None:
    names = [*ModelRegistry.CONFIGS, "openai/a-model-that-there-is-not", "bare"]
    found = from_genai_prices(names, providers(), "2026-11-21")
    assert len(found) > 100 and found.keys() <= set(ModelRegistry.CONFIGS)
    said = found["openai/gpt-4.1"]
    assert said.row.input_price_per_million == 2 and said.through.startswith("genai-prices ") and said.called is None
    assert said.row.source is not None and said.row.source.startswith("https://") and said.row.as_of == "2026-11-21"
    # Of what is called otherwise there, it is said how.
    assert any(entry.called is not None for entry in found.values())
    more = from_genai_prices(names, {"openai": PROVIDER_CONFIGS["openai"]}, "2026-11-21", new=True)
    assert more.keys() - found.keys() and all(name.startswith("openai/") for name in more)


def test_prices_in_another_currency_are_not_compared() -> None:
    import attrs

    row = attrs.evolve(PROVIDER_CONFIGS["openai"], currency="EUR")
    assert from_genai_prices(["openai/gpt-4.1"], {"openai": row}, "2026-11-21") == {}


def test_a_file_of_our_form(tmp_path: Path) -> None:
    path = tmp_path / listed(tmp_path, {"OpenAI/gpt-4.1": {"input_price_per_million": 3, **FROM}, "acme/x": {"context_window": 5}})
    found = from_file(path, providers(), "2026-11-21")
    assert found["openai/gpt-4.1"].row.as_of == "2026-11-20" and found["openai/gpt-4.1"].row.source == FROM["source"]
    assert (found["acme/x"].row.source, found["acme/x"].row.as_of) == ("theirs.json", "2026-11-21")


LITELLM = {
    "sample_spec": {"litellm_provider": "one of the list", "input_cost_per_token": 0.0, "max_tokens": "a number"},
    "gpt-4.1": {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 3e-06,
        "output_cost_per_token": 8e-06,
        "cache_read_input_token_cost": 5e-07,
        "max_input_tokens": 1047576,
        "max_output_tokens": 32768,
        "source": "https://openai.com/prices",
    },
    "together_ai/acme/model": {
        "litellm_provider": "together_ai",
        "mode": "chat",
        "input_cost_per_token": 0.0,
        "output_cost_per_token": 0.0,
    },
    "gemini/gemini-2.5-pro": {
        "litellm_provider": "gemini",
        "mode": "chat",
        "input_cost_per_token": 1.25e-06,
        "input_cost_per_token_above_200k_tokens": 2.5e-06,
    },
    "openai/an-image-model": {"litellm_provider": "openai", "mode": "image_generation", "input_cost_per_token": 0.0},
    "nowhere/model": {"litellm_provider": "nowhere", "mode": "chat", "input_cost_per_token": 1e-06},
}


def test_litellms_list(tmp_path: Path) -> None:
    found = from_file(tmp_path / listed(tmp_path, LITELLM), providers(), "2026-11-21")
    assert set(found) == {"openai/gpt-4.1", "together/acme/model", "gemini/gemini-2.5-pro", "openai/an-image-model"}
    row = found["openai/gpt-4.1"].row
    assert (row.input_price_per_million, row.cached_input_price_per_million, row.context_window) == (3, Decimal("0.5"), 1047576)
    assert (row.source, row.as_of) == ("https://openai.com/prices", "2026-11-21")
    assert found["gemini/gemini-2.5-pro"].row.price_tiers[0].input_price_per_million == Decimal("2.5")
    assert found["gemini/gemini-2.5-pro"].row.price_tiers[0].above_input_tokens == 200_000
    assert found["together/acme/model"].row.input_price_per_million == 0
    assert found["openai/an-image-model"].row.input_price_per_million is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"openai/gpt-4.1": {"input_price_per_million": -1}}', "'openai/gpt-4.1' input_price_per_million is -1; give a number"),
        ('{"openai/gpt-4.1": {"input_price_per_million": NaN}}', "input_price_per_million is NaN"),
        ('{"openai/gpt-4.1": {"input_price": 1}}', "'input_price' is no field: did you mean 'input_price_per_million'?"),
        ('{"openai/gpt-4.1": {"note": 3}}', "note is 3: give a string"),
        ('{"openai/gpt-4.1": 3}', "'openai/gpt-4.1' is a int: write an object"),
        ('{"gpt-4.1": {"litellm_provider": "openai", "input_cost_per_token": -0.1}}', "'gpt-4.1' input_price_per_million is -1"),
        ("[]", "holds no object"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is nested too deeply"),
    ],
)
def test_a_list_that_is_wrong_is_refused_and_nothing_is_written(tmp_path: Path, user: Path, text: str, said: str) -> None:
    (tmp_path / "theirs.json").write_text(text)
    done = run("sync", "--from", "theirs.json", "--write")
    assert done.exit_code == 3 and said in done.stderr and "theirs.json" in done.stderr
    assert not user.exists()


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    name = listed(tmp_path, {"a/b": {"input_price_per_million": -1, "output_price_per_million": "x"}, "c/d": {"context_window": 0}})
    with pytest.raises(ConfigurationError) as refused:
        from_file(tmp_path / name, providers(), "2026-11-21")
    assert len(str(refused.value).splitlines()) == 4


def test_a_list_that_there_is_not() -> None:
    done = run("sync", "--from", "nowhere.json")
    assert done.exit_code == 3 and "nowhere.json cannot be read (No such file" in done.stderr


# The command


def test_it_shows_what_differs_with_both_sources_and_writes_nothing(tmp_path: Path, user: Path) -> None:
    name = listed(tmp_path, {"openai/gpt-4.1": {**GPT, "output_price_per_million": 10, **FROM}, "openai/new": {"context_window": 9}})
    done = run("sync", "--from", name)
    row = ModelRegistry.CONFIGS["openai/gpt-4.1"]
    assert done.exit_code == 0, done.stderr
    assert done.stdout.split("\t") == [
        "openai/gpt-4.1",
        "output_price_per_million",
        "8",
        "10",
        "+25.0 %",
        f"{row.source}, {row.as_of}",
        "https://openai.com/prices, 2026-11-20 (theirs.json)",
        "\n",
    ]
    assert "2 models compared, 1 differ." in done.stderr and "Nothing was written: --write" in done.stderr
    assert not user.exists()
    assert "openai/new" in run("sync", "--from", name, "--new").stdout
    assert run("sync", "--from", name, "-p", "groq").stdout == ""
    assert run("sync", "--from", name, "-p", "OpenAI").stdout == done.stdout
    wrong = run("sync", "--from", name, "-p", "nobody")
    assert wrong.exit_code == 2 and "'nobody' is no provider" in wrong.stderr


def test_what_is_written_holds_and_says_where_it_is_from(tmp_path: Path, user: Path) -> None:
    name = listed(tmp_path, {"openai/gpt-4.1": {**GPT, "output_price_per_million": 10, **FROM}})
    done = run("sync", "--from", name, "--write")
    assert done.exit_code == 0 and f"1 written to {user}" in done.stderr
    note = f"{ModelRegistry.CONFIGS['openai/gpt-4.1'].note}; prices read through theirs.json"
    assert json.loads(user.read_text()) == {"openai/gpt-4.1": {"output_price_per_million": "10", **FROM, "note": note}}
    row = effective(LLMConfig.from_env()).models["openai/gpt-4.1"]
    assert (row.output_price_per_million, row.input_price_per_million, row.source) == (10, 2, FROM["source"])
    target = QueryLLM(openai_api_key="sk-0123456789")._engine.target("gpt-4.1")
    assert target.model is not None and target.model.output_price_per_million == 10
    again = run("sync", "--from", name, "--write")
    assert (again.exit_code, again.stdout) == (0, "") and f"Nothing to write to {user}" in again.stderr
    assert run("check").exit_code == 0
    shown = CliRunner().invoke(main, ["config", "show", "--origin"]).stdout
    assert f"model openai/gpt-4.1\toutput_price_per_million\t10\t{user}:2\n" in shown


def test_a_size_alone_leaves_the_provenance_of_the_prices(tmp_path: Path, user: Path) -> None:
    run("sync", "--from", listed(tmp_path, {"openai/gpt-4.1": {**GPT, "context_window": 1_000_000, **FROM}}), "--write")
    assert json.loads(user.read_text()) == {"openai/gpt-4.1": {"context_window": 1_000_000}}


def test_what_moves_too_far_is_refused_with_all_of_its_model(tmp_path: Path, user: Path) -> None:
    theirs = {
        "openai/gpt-4.1": {**GPT, "input_price_per_million": 21, "context_window": 1_000_000, **FROM},
        "openai/gpt-4.1-mini": {"output_price_per_million": 2, **FROM},
    }
    name = listed(tmp_path, theirs)
    for arguments in ((), ("--write",)):
        done = run("sync", "--from", name, *arguments)
        assert done.exit_code == 1
        lines = [line.split("\t") for line in done.stdout.splitlines()]
        assert [(line[0], line[1], line[-1]) for line in lines] == [
            ("openai/gpt-4.1", "input_price_per_million", "REFUSED"),
            ("openai/gpt-4.1", "context_window", "refused with it"),
            ("openai/gpt-4.1-mini", "output_price_per_million", ""),
        ]
        assert "Refused, since something moves by more than a factor of 10, or from or to 0: openai/gpt-4.1." in done.stderr
    assert list(json.loads(user.read_text())) == ["openai/gpt-4.1-mini"]
    forced = run("sync", "--from", name, "--write", "--force")
    assert forced.exit_code == 0
    assert json.loads(user.read_text())["openai/gpt-4.1"]["input_price_per_million"] == "21"


def test_as_json(tmp_path: Path) -> None:
    done = run("sync", "--from", listed(tmp_path, {"openai/gpt-4.1": {**GPT, "input_price_per_million": 21, **FROM}}), "--json")
    row = ModelRegistry.CONFIGS["openai/gpt-4.1"]
    assert done.exit_code == 1 and done.stderr == ""
    assert json.loads(done.stdout) == [
        {
            "model": "openai/gpt-4.1",
            "new": False,
            "refused": True,
            "ours": {"source": row.source, "as_of": row.as_of},
            "theirs": {**FROM, "through": "theirs.json", "called": None},
            "changes": [{"field": "input_price_per_million", "ours": "2", "theirs": "21", "percent": "950.0", "far": True}],
        }
    ]


def test_into_a_file_of_ones_own(tmp_path: Path, user: Path) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text('{"openai/gpt-4.1": {"rate_limit_rpm": 5, "note": "ours; prices read through an old list"}}')
    mine.chmod(0o640)
    name = listed(tmp_path, {"openai/gpt-4.1": {**GPT, "output_price_per_million": 10, **FROM}})
    done = run("sync", "--from", name, "--output", "mine.json")
    assert done.exit_code == 0 and not user.exists()
    assert json.loads(mine.read_text()) == {
        "openai/gpt-4.1": {
            "rate_limit_rpm": 5,
            "note": "ours; prices read through theirs.json",
            "output_price_per_million": "10",
            **FROM,
        }
    }
    assert stat.S_IMODE(mine.stat().st_mode) == 0o640
    mine.write_text('{"openai/gpt-4.1": {"input_price_per_million": -1}}')
    wrong = run("sync", "--from", name, "--output", "mine.json")
    assert wrong.exit_code == 3 and "mine.json: 'openai/gpt-4.1' input_price_per_million" in wrong.stderr


def test_the_librarys_own_file_keeps_its_form(tmp_path: Path) -> None:
    copy = tmp_path / "models.json"
    copy.write_bytes(PACKAGED.read_bytes())
    write(copy, [])
    assert copy.read_bytes() == PACKAGED.read_bytes()
    theirs = {"openai/gpt-4.1": Listed(ModelConfig(output_price_per_million=10, source="https://x.ai", as_of="2026-11-21"), "a list")}
    write(copy, differences(known_with(copy), theirs))
    before, after = (path.read_text().splitlines() for path in (PACKAGED, copy))
    assert [ours for ours, theirs in zip(before, after, strict=True) if ours != theirs] == [
        line for line in before if line.startswith('"openai/gpt-4.1"')
    ]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    name = listed(tmp_path, {"openai/gpt-4.1": {**GPT, "output_price_per_million": 10, **FROM}})
    done = run("sync", "--from", name, "--output", f"{name}/models.json")
    assert done.exit_code == 3 and "cannot be written" in done.stderr and "--output" in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".models")] == []


def test_without_a_folder_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = listed(tmp_path, {"openai/gpt-4.1": {**GPT, "output_price_per_million": 10, **FROM}})
    (tmp_path / "only.toml").touch()
    monkeypatch.setenv("LLM_MASTER_CONFIG", "only.toml")
    assert run("sync", "--from", name).exit_code == 0
    done = run("sync", "--from", name, "--write")
    assert done.exit_code == 2 and "--output" in done.stderr


def test_the_package_that_is_installed(user: Path) -> None:
    done = run("sync", "--from", "genai-prices", "--write", "--new", "-p", "groq")
    assert done.exit_code in (0, 1), done.output
    assert len(json.loads(user.read_text())) > 5
    assert effective(LLMConfig.from_env()).models.keys() >= json.loads(user.read_text()).keys()
    checked = run("check")
    assert checked.exit_code == 0, checked.stderr


# The user's file among the settings


def test_settings_of_a_person_win_field_by_field(user: Path, tmp_path: Path) -> None:
    user.parent.mkdir(parents=True)
    user.write_text('{"openai/gpt-4.1": {"input_price_per_million": "3", "output_price_per_million": 9}}')
    (tmp_path / "llm_master.toml").write_text(
        '[models."openai/gpt-4.1"]\noutput_price_per_million = 10\n[limits."openai/gpt-4.1"]\nrpm = 7\n'
    )
    row = effective(LLMConfig.from_env()).models["openai/gpt-4.1"]
    assert (row.input_price_per_million, row.output_price_per_million, row.rate_limit_rpm) == (3, 10, 7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n"openai/gpt-4.1": {"input_price_per_million": -1}}', ":2: model row"),
        ('{\n"a/b": {},\n"openai/gpt-4.1": {"input_price": 1}}', ':3: models."openai/gpt-4.1".input_price'),
        ('{\n"openai/gpt-4.1": {"context_window": "many"}}', ':2: models."openai/gpt-4.1".context_window is a string: give a whole number'),
        ('{"openai/gpt-4.1": []}', 'models."openai/gpt-4.1" is a list: give a table'),
        ('{\n"openai/gpt-4.1": }', ":2: is no JSON (Expecting value)"),
        ("[]", "holds no object"),
        ("[" * 100_000, "is nested too deeply"),
    ],
)
def test_what_is_wrong_in_it_is_told_with_its_place(user: Path, text: str, said: str) -> None:
    user.parent.mkdir(parents=True)
    user.write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        effective(LLMConfig.from_env())
    assert f"{user}" in str(refused.value) and said in str(refused.value)


def test_a_change_of_it_is_seen_by_the_next_query(user: Path) -> None:
    user.parent.mkdir(parents=True)
    assert QueryLLM(openai_api_key="sk-0123456789")._engine.target("gpt-4.1").model.output_price_per_million == 8  # type: ignore[union-attr]
    user.write_text('{"openai/gpt-4.1": {"output_price_per_million": 9}}')
    assert QueryLLM(openai_api_key="sk-0123456789")._engine.target("gpt-4.1").model.output_price_per_million == 9  # type: ignore[union-attr]


# check


def test_the_librarys_own_models_are_right() -> None:
    done = run("check")
    assert (done.exit_code, done.stderr) == (
        0,
        "",
    ) and done.stdout == f"{len(json.loads(PACKAGED.read_text()))} models, 0 faults, 0 warnings\n"


GOOD = {"input_price_per_million": 2, "output_price_per_million": 8, **FROM}


@pytest.mark.parametrize(
    ("fields", "fault", "said"),
    [
        ({"input_price_per_million": -2}, True, "input_price_per_million is -2; give a number of at least 0"),
        ({"input_price_per_million": "free"}, True, "input_price_per_million is 'free'"),
        ({"inputs": 2}, True, "'inputs' is no field"),
        ({"context_window": 1.5}, True, "context_window is 1.5: give a whole number above 0"),
        ({"capabilities": {"tool": True}}, True, "did you mean 'tools'?"),
        ({"cached_input_price_per_million": 3}, True, "cached input is dearer (3) than input (2)"),
        ({"output_price_per_million": 1}, False, "output is cheaper (1) than input (2)"),
        ({"context_window": 100, "max_output_tokens": 200}, True, "max_output_tokens (200) is more than context_window (100)"),
        ({"source": None}, True, "its prices have no source"),
        ({"source": " "}, True, "its prices have no source"),
        ({"as_of": None}, True, "its prices have no as_of"),
        ({"as_of": "last week"}, True, "as_of is 'last week': give a day"),
        ({"as_of": 20261121}, True, "as_of is 20261121: give a day"),
        ({"note": 5}, True, "note is 5: give a string"),
        ({"source": 5}, True, "source is 5: give a string"),
        ({"supports_streaming": "yes"}, True, "supports_streaming is 'yes': give true or false"),
        ({"as_of": "2026-11-22"}, True, "as_of is 2026-11-22, which is yet to come"),
        ({"as_of": "2025-11-20"}, False, "were read on 2025-11-20, over a year ago"),
        ({"prices_hold_until": "2026-11-21"}, False, "held until 2026-11-21"),
        ({"provider": "nobody"}, True, "is of 'nobody', which is no provider"),
        ({"price_tiers": [{"above_input_tokens": 9}, {"above_input_tokens": 5}]}, True, "price_tiers begin above 9, 5 tokens"),
        ({"price_tiers": [{"above_input_tokens": 5}, {"above_input_tokens": 5}]}, True, "price_tiers begin above 5, 5 tokens"),
        ({"price_tiers": [{"above_input_tokens": "many"}]}, True, "price_tiers is"),
        (
            {"price_tiers": [{"above_input_tokens": 5, "input_price_per_million": 1, "cached_input_price_per_million": 2}]},
            True,
            "cached input above 5 tokens is dearer (2) than input (1)",
        ),
    ],
)
def test_what_is_wrong_with_a_row(tmp_path: Path, fields: dict[str, Any], fault: bool, said: str) -> None:
    path = tmp_path / listed(tmp_path, {"openai/x": {**GOOD, **fields}})
    found = check(read_json(path), PROVIDER_CONFIGS, TODAY)
    assert [(item.model, item.fault) for item in found if said in item.text] == [("openai/x", fault)], found
    assert len(found) == 1


def test_a_good_row_has_nothing() -> None:
    rows = {"openai/x": GOOD, "OpenAI/y": GOOD, "bare": {"provider": "Open-AI".replace("-", ""), "context_window": 5}, "groq/z": {}}
    assert check(rows, PROVIDER_CONFIGS, TODAY) == []


def test_what_stands_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "models.json"
    path.write_text(
        '{"openai/x": {"context_window": 5, "context_window": 6}, "openai/x": {"rate_limit_rpm": 1, "rate_limit_rpm": 2}, "OpenAI/x": {}}'
    )
    texts = [(item.model, item.text) for item in check(read_json(path), PROVIDER_CONFIGS, TODAY)]
    assert texts == [
        ("openai/x", "stands there twice: take one out"),
        ("openai/x", "rate_limit_rpm stands there twice: take one out"),
        ("OpenAI/x", "is 'openai/x', spelt otherwise (case, - and _ of a provider do not matter): take one out"),
    ]


def test_a_row_tells_all_its_faults() -> None:
    assert len(row_faults({"input_price_per_million": -1, "output_price_per_million": -1, "context_window": 0, "odd": 1})) == 4
    assert row_faults("x") == ["is a str: write an object with its fields"]


def test_check_of_a_file(tmp_path: Path) -> None:
    name = listed(tmp_path, {"openai/x": {**GOOD, "input_price_per_million": -2}, "nobody/y": {**GOOD, "as_of": "2020-01-01"}})
    done = run("check", name)
    assert done.exit_code == 1 and done.stdout == "2 models, 2 faults, 1 warnings\n"
    lines = done.stderr.splitlines()
    assert lines[0].startswith("theirs.json: fault: 'openai/x' input_price_per_million is -2")
    assert lines[1].startswith("theirs.json: fault: 'nobody/y' is of 'nobody', which is no provider")
    assert lines[2].startswith("theirs.json: warning: 'nobody/y' its prices were read on 2020-01-01")
    shown = json.loads(run("check", name, "--json").stdout)
    assert shown[0]["file"] == "theirs.json" and shown[0]["level"] == "fault" and shown[2]["level"] == "warning"


def test_warnings_alone_are_no_failure(tmp_path: Path) -> None:
    assert run("check", listed(tmp_path, {"openai/x": {**GOOD, "output_price_per_million": 1}})).exit_code == 0


def test_check_knows_the_providers_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = listed(tmp_path, {"acme/x": GOOD})
    assert run("check", name).exit_code == 1
    monkeypatch.setenv("ACME_API_BASE", "https://acme.ai/v1")
    assert run("check", name).exit_code == 0
    monkeypatch.setenv("MAX_ATTEMPTS", "many")  # wrong settings are no reason not to check a file
    assert run("check", listed(tmp_path, {"openai/x": GOOD})).exit_code == 0


def test_check_looks_at_the_users_file_too(user: Path) -> None:
    user.parent.mkdir(parents=True)
    user.write_text('{"openai/gpt-4.1": {"input_price_per_million": -1}}')
    done = run("check")
    assert done.exit_code == 1 and f"{user}: fault: 'openai/gpt-4.1'" in done.stderr


@pytest.mark.parametrize(("text", "said"), [("{", "is no JSON"), ("7", "holds no object")])
def test_check_of_what_is_no_file_of_models(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.json").write_text(text)
    done = run("check", "x.json")
    assert done.exit_code == 3 and said in done.stderr
    assert run("check", "nowhere.json").exit_code == 3
