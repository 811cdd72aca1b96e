"""Plugins: packages that bring providers and models, as they are found, loaded, refused and shown."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llm_master import (
    PROVIDER_CONFIGS,
    BaseLLMProvider,
    ConfigurationError,
    ModelConfig,
    ProviderConfig,
    QueryLLM,
    UnifiedProvider,
    plugins,
)
from llm_master.cli import main
from llm_master.model_registry import _Models
from llm_master.provider_rows import ROWS
from llm_master.provider_table import ProviderTable

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "plugins.md"


class Site:
    """A folder of installed packages, on the path of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, package: str, code: str = "", *, version: str = "1.0", **entries: Mapping[str, str]) -> None:
        """A package as an installer leaves it: a module, and what it says of itself."""
        module = package.lower().replace("-", "_")
        (self.folder / f"{module}.py").write_text(code)
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        groups = [
            f"[llm_master.{group}]\n" + "".join(f"{name} = {value}\n" for name, value in own.items()) for group, own in entries.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(groups))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.setattr(plugins, "_found", None)
    before = set(sys.modules)
    yield Site(folder)
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(folder) in str(sys.modules[name].__file__):
            del sys.modules[name]


def table() -> ProviderTable:
    return ProviderTable(ROWS, default_class=UnifiedProvider, plugins=lambda: plugins.load(plugins.PROVIDERS))


def problem() -> str:
    [plugin] = plugins.problems()
    assert plugin.problem is not None
    return plugin.problem


ROW = "from llm_master import ProviderConfig\nPROVIDER = ProviderConfig(base_url='https://api.acme.ai/v1', prefixes=('acme-',))\n"


# What an entry point may be


def test_a_row(site: Site) -> None:
    site.install("acme-llm", ROW, providers={"acme": "acme_llm:PROVIDER"})
    rows = table()
    assert rows["acme"].base_url == "https://api.acme.ai/v1"
    assert rows["acme"].name == "acme" and rows["acme"].provider_class is UnifiedProvider
    assert "acme" in list(rows) and len(rows) == len(ROWS) + 1
    assert rows.origin_of("ACME") == "plugin acme-llm 1.0" and rows.origin_of("openai") == "the table"
    assert plugins.problems() == ()


def test_a_dict(site: Site) -> None:
    site.install("acme-llm", "PROVIDER = {'base_url': 'https://api.acme.ai/v1', 'rpm': 5}", providers={"acme": "acme_llm:PROVIDER"})
    assert table()["Acme"].rpm == 5


def test_a_class(site: Site) -> None:
    code = "from llm_master import BaseLLMProvider\nclass Acme(BaseLLMProvider):\n    async def generate(self, messages, model, **options):\n        return 'x'\n"
    site.install("acme-llm", code, providers={"acme": "acme_llm:Acme"})
    cls = table()["acme"].provider_class
    assert isinstance(cls, type) and issubclass(cls, BaseLLMProvider) and cls.__name__ == "Acme"


def test_models(site: Site) -> None:
    code = (
        "from llm_master import ModelConfig\n"
        "MODELS = {'acme/large': ModelConfig(input_price_per_million=2), 'acme/small': {'context_window': 8000}}\n"
    )
    site.install("acme-llm", code, models={"acme": "acme_llm:MODELS"})
    models = _Models()
    assert models["Acme/large"].input_price_per_million == 2 and models["acme/small"].context_window == 8000
    assert plugins.problems() == ()


# What is left out, told once, while everything else goes on


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('the licence has run out')", "cannot be imported: RuntimeError: the licence has run out"),
        ("import a_package_that_there_is_not", "cannot be imported: ModuleNotFoundError: No module named 'a_package_that_there_is_not'"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("def (", "cannot be imported: SyntaxError"),
        ("", "cannot be imported: AttributeError: module 'acme_llm' has no attribute 'PROVIDER'"),
        ("PROVIDER = 7", "give a ProviderConfig or a dict of its fields, not a int"),
        ("PROVIDER = {'base_url': 'api.acme.ai', 'rpm': 0, 'timout': 5}", "'timout' is no field: did you mean 'timeout'?"),
        ("PROVIDER = {'base_url': 'api.acme.ai', 'rpm': 0, 'timout': 5}", "rpm is 0"),
        ("from llm_master import BaseLLMProvider\nclass PROVIDER(BaseLLMProvider):\n    pass", "PROVIDER leaves generate() undefined"),
        (
            "from collections import UserDict\nclass Odd(UserDict):\n    def keys(self):\n        raise OSError('odd')\nPROVIDER = Odd()",
            "OSError: odd",
        ),
        ("class PROVIDER:\n    pass", "has no generate(); make it a BaseLLMProvider"),
    ],
)
def test_a_broken_one(site: Site, caplog: pytest.LogCaptureFixture, code: str, said: str) -> None:
    site.install("acme-llm", code, providers={"acme": "acme_llm:PROVIDER"})
    site.install("beta-llm", ROW.replace("acme-", "beta-"), providers={"beta": "beta_llm:PROVIDER"})
    rows = table()
    assert "acme" not in rows and "beta" in rows and set(ROWS) < {*rows}
    assert said in problem()
    assert [record.name for record in caplog.records] == ["llm_master.plugins"]
    told = caplog.records[0].getMessage()
    assert told.startswith("plugin acme-llm 1.0: its providers 'acme' (acme_llm:PROVIDER) left out: ")
    assert "\n" not in told
    assert said in told and told.endswith("Mend or uninstall it, or set LLM_MASTER_PLUGINS=0")
    assert len(table()) == len(rows) and len(caplog.records) == 1  # told once in a process


def test_an_interrupt_is_not_taken_for_a_broken_plugin(site: Site) -> None:
    site.install("acme-llm", "raise KeyboardInterrupt", providers={"acme": "acme_llm:PROVIDER"})
    rows = table()
    with pytest.raises(KeyboardInterrupt):
        len(rows)


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("openai", {}, "the name 'openai' is taken by openai"),
        ("OpenAI", {}, "the name 'OpenAI' is taken by openai"),
        ("acme", {"aliases": ["groq"]}, "the name 'groq' is taken by groq"),
        ("acme", {"prefixes": ["acme-", "claude-"]}, "'claude-' leads to anthropic already"),
        ("acme", {"prefixes": ["gpt-4.1-acme"]}, "'gpt-4.1-acme' leads to openai already"),
        ("acme", {"prefixes": ["GPT-4"]}, "'GPT-4' leads to openai already"),
        ("acme", {"models": ["gpt-4.1"]}, "'gpt-4.1' leads to openai already"),
        ("acme", {"models": ["openai/gpt-4.1"]}, "'openai/gpt-4.1' leads to openai already"),
        ("acme", {"generate_map": {"gpt-image-*": "some.module:function"}}, "'gpt-image-*' leads to openai already"),
    ],
)
def test_what_is_taken_cannot_be_claimed(site: Site, name: str, row: dict[str, Any], said: str) -> None:
    site.install("acme-llm", f"PROVIDER = { ({'base_url': 'https://api.acme.ai/v1', **row})!r}", providers={name: "acme_llm:PROVIDER"})
    rows = table()
    assert len(rows) == len(ROWS) and rows["openai"].base_url == ROWS["openai"].base_url
    assert said in problem()


def test_a_name_of_ones_own_may_begin_as_anybody_likes(site: Site) -> None:
    row = {"base_url": "https://a.ai/v1", "prefixes": ["g", "meta-llama/"], "models": ["acme/gpt-4.1", "llama-99"]}
    site.install("acme-llm", f"PROVIDER = {row!r}", providers={"acme": "acme_llm:PROVIDER"})
    assert "acme" in table() and plugins.problems() == ()


def test_of_two_that_claim_one_name_the_first_by_its_packages_name_has_it(site: Site) -> None:
    site.install("zeta-llm", ROW.replace("api.acme", "zeta"), providers={"acme": "zeta_llm:PROVIDER"})
    site.install("Alpha.LLM", "", providers={})
    site.install("alpha-two", ROW.replace("api.acme", "alpha"), providers={"acme": "alpha_two:PROVIDER"})
    assert table()["acme"].base_url == "https://alpha.ai/v1"
    assert "the name 'acme' is taken by acme" in problem()
    assert plugins.problems()[0].package == "zeta-llm"


def test_wrong_models_are_left_out_one_by_one(site: Site) -> None:
    rows = {"acme/good": {}, "acme/bad": {"input_price_per_million": -1}, "openai/gpt-4.1": {}, "acme/odd": 3}
    site.install("acme-llm", f"MODELS = {rows!r}", models={"acme": "acme_llm:MODELS"})
    models = _Models()
    assert "acme/good" in models and "acme/bad" not in models and "acme/odd" not in models
    assert models["openai/gpt-4.1"].input_price_per_million == 2
    for part in ("'acme/bad'", "input_price_per_million is -1", "'openai/gpt-4.1' is registered already", "'acme/odd'"):
        assert part in problem()


def test_models_that_are_no_mapping(site: Site) -> None:
    site.install("acme-llm", "MODELS = ['acme/large']", models={"acme": "acme_llm:MODELS"})
    assert "openai/gpt-4.1" in _Models()
    assert "it is a list: give a mapping" in problem()


def test_packages_that_cannot_be_read(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.install("acme-llm", ROW, providers={"acme": "acme_llm:PROVIDER"})
    (site.folder / "acme_llm-1.0.dist-info" / "entry_points.txt").write_bytes(b"[llm_master.providers]\n\xff = \xfe")
    assert len(table()) == len(ROWS)
    assert "no plugins are loaded, since the installed packages cannot be read: UnicodeDecodeError" in caplog.text


# When


def test_the_tables_are_looked_through_before_anything_is_loaded(site: Site) -> None:
    site.install("acme-llm", ROW, providers={"acme": "acme_llm:PROVIDER"})
    rows = table()
    assert rows["openai"].name == "openai" and "groq" in rows
    assert "acme_llm" not in sys.modules
    assert "acme" in rows
    assert "acme_llm" in sys.modules


def test_what_the_users_code_puts_there_replaces_a_plugins_row(site: Site) -> None:
    site.install("acme-llm", ROW, providers={"acme": "acme_llm:PROVIDER"})
    rows = table()
    rows["acme"] = ProviderConfig(base_url="https://mine.ai/v1")
    assert rows["acme"].base_url == "https://mine.ai/v1" and rows.origin_of("acme") == "the table"
    del rows["acme"]
    assert "acme" not in rows and plugins.problems() == ()


def test_a_plugin_may_look_at_the_tables_while_it_is_imported(site: Site) -> None:
    code = "from llm_master import PROVIDER_CONFIGS, ModelRegistry\nSEEN = list(PROVIDER_CONFIGS)\nPROVIDER = {'base_url': 'https://acme.ai/v1'}\n"
    site.install("acme-llm", code, providers={"acme": "acme_llm:PROVIDER"})
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from llm_master import PROVIDER_CONFIGS as p; list(p); import acme_llm; print('acme' in p, len(acme_llm.SEEN), len(p))",
        ],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site.folder}", plugins.VARIABLE: ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == f"True {len(ROWS)} {len(ROWS) + 1}\n", done.stderr


def test_an_engine_that_a_plugin_makes_while_it_is_imported_is_not_the_one_that_stays(site: Site) -> None:
    code = "from llm_master import QueryLLM\nQueryLLM().plan('mock/x', prompt='a')\nPROVIDER = {'base_url': 'https://acme.ai/v1', 'requires_key': False}\n"
    site.install("acme-llm", code, providers={"acme": "acme_llm:PROVIDER"})
    asked = "from llm_master import QueryLLM; print(QueryLLM().plan('acme/x', prompt='a').url)"
    done = subprocess.run(
        [sys.executable, "-c", asked],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site.folder}", plugins.VARIABLE: ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "https://acme.ai/v1/chat/completions\n", done.stderr


def test_threads_that_come_at_once_see_the_same_rows(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.install("acme-llm", ROW, providers={"acme": "acme_llm:PROVIDER", "openai": "acme_llm:PROVIDER"})
    rows, seen = table(), []
    start = threading.Barrier(8)

    def look() -> None:
        start.wait()
        seen.append(id(rows["acme"]))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8 and len(set(seen)) == 1 and len(caplog.records) == 1


@pytest.mark.parametrize(
    ("value", "found"),
    [("", ["acme", "beta"]), ("0", []), ("acme-llm", ["acme"]), ("ACME_llm, beta.llm", ["acme", "beta"]), ("gamma", [])],
)
def test_which_packages_are_asked(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str, found: list[str]
) -> None:
    site.install("acme-llm", ROW, providers={"acme": "acme_llm:PROVIDER"})
    site.install("beta-llm", ROW.replace("acme-", "beta-"), providers={"beta": "beta_llm:PROVIDER"})
    monkeypatch.setenv(plugins.VARIABLE, value)
    rows = table()
    assert [name for name in ("acme", "beta") if name in rows] == found
    assert ("names 'gamma', and no installed package" in caplog.text) == (value == "gamma")


# What is shown


def program(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llm_master", *arguments],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site.folder}", plugins.VARIABLE: ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_plugins_list(site: Site) -> None:
    site.install("acme-llm", ROW, version="2.1", providers={"acme": "acme_llm:PROVIDER"}, models={"acme": "acme_llm:MODELS"})
    site.install("bad-llm", "raise RuntimeError('no')", providers={"openai": "bad_llm:PROVIDER"})
    done = program(site, "plugins", "list")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[0] == ["providers", "acme", "acme-llm", "2.1", "-"]
    assert lines[1] == ["providers", "openai", "bad-llm", "1.0", "it cannot be imported: RuntimeError: no"]
    assert lines[2][:4] == ["models", "acme", "acme-llm", "2.1"] and "has no attribute 'MODELS'" in lines[2][4]
    shown = json.loads(program(site, "plugins", "list", "--json").stdout)
    assert shown[0] == {"kind": "providers", "name": "acme", "package": "acme-llm", "version": "2.1", "problem": None}


def test_without_plugins_the_list_says_so() -> None:
    done = CliRunner().invoke(main, ["plugins", "list"])
    assert (done.exit_code, done.stdout) == (0, "") and "No package" in done.stderr
    assert CliRunner().invoke(main, ["plugins", "list", "--json"]).stdout == "[]\n"


def test_where_a_plugins_values_come_from(site: Site) -> None:
    site.install("acme-llm", ROW, providers={"acme": "acme_llm:PROVIDER"})
    shown = program(site, "config", "show", "--all", "--origin").stdout
    assert "acme\tbase_url\thttps://api.acme.ai/v1\tplugin acme-llm 1.0\n" in shown
    told = program(site, "config", "explain", "mock/echo").stdout
    assert "(the table)" in told


def test_an_error_goes_to_standard_error_and_the_command_goes_on(site: Site) -> None:
    site.install("bad-llm", "raise RuntimeError('no')", providers={"bad": "bad_llm:PROVIDER"})
    done = program(site, "query", "-m", "mock/echo", "Hello")
    assert (done.returncode, done.stdout) == (0, "Mock response to: Hello\n")
    assert done.stderr.count("RuntimeError: no") == 1 and "Traceback" not in done.stderr


# The example of docs/plugins.md, built and installed into an environment of its own


def example(folder: Path, *, package: str = "acme-llm", module: str = "acme_llm", entry: str = "acme", code: str | None = None) -> Path:
    """The package that the page shows, under this name or another."""
    blocks = re.findall(r"^```(toml|python)\n# (pyproject\.toml|acme_llm\.py)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    files = {name: text for _, name, text in blocks}
    assert set(files) == {"pyproject.toml", "acme_llm.py"}
    source = folder / package
    source.mkdir()
    about = files["pyproject.toml"].replace("acme-llm", package).replace("acme_llm", module).replace("\nacme =", f"\n{entry} =")
    if code is not None:
        about = about.partition('\n[project.entry-points."llm_master.models"]')[0]
    (source / "pyproject.toml").write_text(about)
    (source / f"{module}.py").write_text(files["acme_llm.py"] if code is None else code)
    return source


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)],
        env={**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=55,
    )


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with this library and three plugins, each from a wheel: the page's, a broken one, and a greedy one.

    The libraries that ours needs are those of the tests, so that nothing is downloaded.
    """
    folder = tmp_path_factory.mktemp("wheels")
    ours = folder / "llm_master"
    ours.mkdir()
    shutil.copytree(ROOT / "llm_master", ours / "llm_master", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, ours)
    sources = [
        ours,
        example(folder),
        example(folder, package="broken-llm", module="broken_llm", entry="broken", code="raise RuntimeError('I am broken')\n"),
        example(folder, package="greedy-llm", module="greedy_llm", entry="openai", code=ROW),
    ]
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    built = run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "dist", *sources)
    assert built.returncode == 0, built.stderr
    home = folder / "environment"
    venv.create(home, with_pip=False)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    wheels = sorted((folder / "dist").glob("*.whl"))
    assert len(wheels) == 4
    installed = run(*pip, "--python", python, "install", "--no-deps", "--no-index", *wheels)
    assert installed.returncode == 0, installed.stderr
    [packages] = home.glob("lib/python*/site-packages") if os.name != "nt" else home.glob("Lib/site-packages")
    (packages / "of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


def test_the_packages_of_the_page_in_a_fresh_environment(environment: Path, tmp_path: Path) -> None:
    command = environment / "llm-master"
    asked = run(command, "query", "-m", "acme/any", "Hello", LLM_MASTER_PLUGINS="")
    assert (asked.returncode, asked.stdout) == (0, "Acme heard: Hello\n"), asked.stderr
    # Two of three plugins are wrong, which is told and keeps nobody from anything.
    assert (
        "RuntimeError: I am broken" in asked.stderr
        and "the name 'openai' is taken by openai" in asked.stderr
        and "Traceback" not in asked.stderr
    )
    listed = run(command, "plugins", "list", LLM_MASTER_PLUGINS="")
    assert [line.split("\t")[:3] for line in listed.stdout.splitlines()] == [
        ["providers", "acme", "acme-llm"],
        ["providers", "broken", "broken-llm"],
        ["providers", "openai", "greedy-llm"],
        ["models", "acme", "acme-llm"],
    ], listed.stderr
    where = run(
        environment / "python", "-c", "import llm_master; print(llm_master.__file__); print(llm_master.PROVIDER_CONFIGS['openai'].base_url)"
    )
    file, address = where.stdout.splitlines()
    assert Path(file).is_relative_to(environment.parent) and address == ROWS["openai"].base_url
    only = run(command, "query", "-m", "acme/any", "Hello", LLM_MASTER_PLUGINS="acme-llm", LOG_LEVEL="WARNING")
    assert (only.returncode, only.stdout, only.stderr) == (0, "Acme heard: Hello\n", "")
    priced = run(command, "query", "-m", "acme/any", "--json", "Hello", LLM_MASTER_PLUGINS="acme-llm")
    assert json.loads(priced.stdout)["provider"] == "acme" and float(json.loads(priced.stdout)["cost"]) > 0
    off = run(command, "query", "-m", "acme/any", "Hello", LLM_MASTER_PLUGINS="0")
    assert off.returncode == 3 and "acme/any" in off.stderr
