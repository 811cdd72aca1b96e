"""``llm-master config`` and ``llm-master providers``: what they show, what they write, and never a key."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from servers.scripted import ScriptedServer

from llm_master.cli import main

ROOT = Path(__file__).resolve().parent.parent
SECRET = "sk-never-shown-0123456789"
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}], "model": "served"}


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    # --config sets it, and it must be gone after the test.
    monkeypatch.setenv("LLM_MASTER_CONFIG", "")


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """The user's settings file, which is not there yet."""
    return tmp_path / ".config" / "llm_master" / "llm_master.toml"


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=stdin)


def program(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "llm_master", *arguments],
        input=stdin,
        text=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        timeout=60,
        start_new_session=True,
    )


def test_explain_says_what_a_route_is(tmp_path: Path) -> None:
    (tmp_path / "llm_master.toml").write_text('[routes.fast]\ntargets = ["mock/echo", {model = "mock/static", weight = 2}]\n')
    shown = run("config", "explain", "fast")
    assert shown.stdout == "route:    fast\nstrategy: round-robin\ntarget 1: mock/echo, weight 1\ntarget 2: mock/static, weight 2\n"
    assert json.loads(run("config", "explain", "fast", "--json").stdout)["targets"][1]["weight"] == 2
    assert run("query", "-m", "fast", "Hello").stdout == "Mock response to: Hello\n"


def add(*more: str, name: str = "acme", url: str = "https://api.acme.ai/v1", key: str = SECRET) -> Result:
    return run("providers", "add", "--name", name, "--base-url", url, "--default-model", "large", *more, stdin=f"{key}\n")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def table(*arguments: str) -> dict[tuple[str, str], tuple[str, str]]:
    done = run("config", "show", "--origin", *arguments)
    assert done.exit_code == 0, done.output
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return {(where, field): (value, origin) for where, field, value, origin in rows}


# providers add


def test_it_asks_for_everything_and_shows_no_key(user: Path) -> None:
    done = run("providers", "add", stdin=f"acme\nhttps://api.acme.ai/v1/chat/completions\nlarge\n{SECRET}\n")
    assert done.exit_code == 0, done.output
    assert SECRET not in done.output
    secrets = user.with_suffix(".secrets.toml")
    assert tomllib.loads(user.read_text()) == {
        "providers": [{"name": "acme", "base_url": "https://api.acme.ai/v1", "default_model": "large"}]
    }
    assert tomllib.loads(secrets.read_text()) == {"providers": [{"name": "acme", "api_key": SECRET}]}
    assert str(user) in done.stdout and str(secrets) in done.stdout
    assert mode(secrets) == 0o600 and mode(user.parent) == 0o700


def test_what_was_added_answers(server: ScriptedServer) -> None:
    server.answer_json(ANSWER, times=None)
    assert add(url=server.base_url).exit_code == 0
    done = program("query", "-m", "acme", "Hello")
    assert (done.returncode, done.stdout) == (0, "Hi.\n"), done.stderr
    assert server.request.json["model"] == "large"
    assert server.request.headers["authorization"] == f"Bearer {SECRET}"


def test_without_a_key_there_is_no_secrets_file(user: Path) -> None:
    for name, key in (("acme", ""), ("beta", "   ")):
        assert add(name=name, key=key).exit_code == 0
    assert [provider["name"] for provider in tomllib.loads(user.read_text())["providers"]] == ["acme", "beta"]
    assert not user.with_suffix(".secrets.toml").exists()


def test_a_variable_instead_of_a_key(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = add("--key-env", "THE_KEY_OF_ACME")
    assert done.exit_code == 0 and "Set $THE_KEY_OF_ACME" in done.stdout and "API key" not in done.output
    assert tomllib.loads(user.read_text())["providers"][0]["api_key_env"] == "THE_KEY_OF_ACME"
    assert not user.with_suffix(".secrets.toml").exists()
    check = run("config", "check")
    assert check.exit_code == 3 and "THE_KEY_OF_ACME is set" in check.stderr and f"{user}:" in check.stderr
    monkeypatch.setenv("THE_KEY_OF_ACME", SECRET)
    assert run("config", "check").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"url": "api.acme.ai/v1"}, "begin with https://"),
        ({"url": "https://me:pw-secret@api.acme.ai/v1"}, "user or password"),
        ({"url": "https://api.acme.ai/v1?key=1"}, "query="),
        ({"name": "a/b"}, "leave out '/'"),
        ({"name": " "}, "has no name"),
        ({"name": "bell\x7f"}, "control characters"),
        ({"key": "two words"}, "a space at position 4"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_written(user: Path, arguments: dict[str, str], said: str) -> None:
    done = add(**arguments)
    assert done.exit_code == 3 and said in done.stderr
    assert "pw-secret" not in done.stderr and "two words" not in done.stderr
    assert not user.exists() and not user.with_suffix(".secrets.toml").exists()


def test_a_key_in_the_variables_place_is_not_written_and_not_shown(user: Path) -> None:
    done = add("--key-env", SECRET)
    assert done.exit_code == 3 and "not the key itself" in done.stderr
    assert SECRET not in done.output and not user.exists()


@pytest.mark.parametrize("name", ["acme", "ACME"])
def test_a_provider_that_stands_there_is_left_alone(user: Path, name: str) -> None:
    assert add().exit_code == 0
    before = user.read_text(), user.with_suffix(".secrets.toml").read_text()
    done = add(name=name, url="https://other.ai/v1")
    assert done.exit_code == 3 and f"{user} has a provider" in done.stderr and "change it there" in done.stderr
    assert (user.read_text(), user.with_suffix(".secrets.toml").read_text()) == before


def test_what_is_wrong_already_is_mended_first(user: Path) -> None:
    user.parent.mkdir(parents=True)
    user.write_text("max_attempt = 3\n")
    done = add()
    assert done.exit_code == 3 and "did you mean 'max_attempts'" in done.stderr
    assert user.read_text() == "max_attempt = 3\n"


@pytest.mark.parametrize("ends", ["", "\n", "\n\n"])
def test_what_stands_in_the_file_stays(user: Path, ends: str) -> None:
    user.parent.mkdir(parents=True)
    user.write_text(f'# mine\npreferred_provider = "groq"\n[aliases]\nfast = "groq/x"{ends}')
    assert add(name="ümlaut-😀").exit_code == 0
    text = user.read_text(encoding="utf-8")
    assert text.startswith("# mine\n")
    data = tomllib.loads(text)
    assert data["aliases"] == {"fast": "groq/x"} and data["providers"][0]["name"] == "ümlaut-😀"


def test_a_file_to_which_nothing_can_be_appended_is_left_alone(user: Path) -> None:
    user.parent.mkdir(parents=True)
    text = 'providers = [{name = "beta", base_url = "https://b.ai/v1"}]\n'
    user.write_text(text)
    done = add()
    assert done.exit_code == 3 and "[[providers]]" in done.stderr
    assert user.read_text() == text and not user.with_suffix(".secrets.toml").exists()


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_secrets_file_is_the_owners_alone_whatever_the_umask(user: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        assert add().exit_code == 0
    finally:
        os.umask(before)
    assert mode(user.with_suffix(".secrets.toml")) == 0o600
    assert mode(user) & 0o022 == 0


def test_a_secrets_file_that_others_could_read_is_closed_before_the_key_is_written(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = user.with_suffix(".secrets.toml")
    user.parent.mkdir(parents=True)
    secrets.write_text("")
    secrets.chmod(0o644)
    sizes: list[int] = []
    chmod = Path.chmod

    def watched(path: Path, *arguments: Any, **options: Any) -> None:
        sizes.append(path.stat().st_size)
        chmod(path, *arguments, **options)

    monkeypatch.setattr(Path, "chmod", watched)
    assert add().exit_code == 0
    assert mode(secrets) == 0o600 and sizes == [0]


def test_where_the_key_cannot_be_written_nothing_is(user: Path) -> None:
    """A folder in the secrets file's place: permissions would not stop a test that runs as root."""
    user.parent.mkdir(parents=True)
    user.write_text("# mine\n")
    from llm_master.cli import adding
    from llm_master.errors import ConfigurationError

    secrets = user.parent / "gone" / "llm_master.secrets.toml"
    with pytest.raises(ConfigurationError, match=r"secrets\.toml cannot be written \(No such file"):
        adding._append([(user, "x\n", 0o644), (secrets, "y\n", 0o600)])
    assert user.read_text() == "# mine\n"
    new = user.parent / "new.toml"
    with pytest.raises(ConfigurationError):
        adding._append([(new, "x\n", 0o644), (secrets, "y\n", 0o600)])
    assert not new.exists()


def test_a_file_in_the_folders_place(user: Path) -> None:
    user.parent.parent.mkdir(parents=True)
    user.parent.write_text("")
    done = add()
    assert done.exit_code == 3 and "cannot be written" in done.stderr and "make it writable" in done.stderr


@pytest.mark.parametrize("there", [False, True])
def test_a_toml_that_is_named_is_written_to(user: Path, tmp_path: Path, server: ScriptedServer, there: bool) -> None:
    named = tmp_path / "mine.toml"
    if there:
        named.write_text("max_attempts = 2\n")
    server.answer_json(ANSWER, times=None)
    arguments = ("--config", str(named), "providers", "add", "--name", "acme", "--base-url", server.base_url, "--default-model", "large")
    done = run(*arguments, stdin=f"{SECRET}\n")
    assert done.exit_code == 0, done.output
    assert not user.exists() and mode(tmp_path / "mine.secrets.toml") == 0o600
    asked = program("--config", "mine.toml", "query", "-m", "acme", "Hello")
    assert (asked.returncode, asked.stdout) == (0, "Hi.\n"), asked.stderr


@pytest.mark.parametrize("name", ["mine.yaml", "mine"])
def test_another_file_that_is_named_is_not_written_to(user: Path, tmp_path: Path, name: str) -> None:
    named = tmp_path / name
    named.write_text("max_concurrent: 4\n")
    os.environ["LLM_MASTER_CONFIG"] = str(named)
    done = add()
    assert done.exit_code == 3 and "name a .toml file" in done.stderr
    assert named.read_text() == "max_concurrent: 4\n" and not user.exists()


# providers list


def listed() -> dict[str, dict[str, str]]:
    done = run("providers", "list", "--json")
    assert done.exit_code == 0, done.output
    assert SECRET not in done.output
    return {row["provider"]: row for row in json.loads(done.stdout)}


def test_where_a_key_comes_from_is_listed(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", SECRET)
    monkeypatch.setenv("OPencode_API_KEY", SECRET)
    monkeypatch.setenv("OPencode_API_BASE", "https://o.ai/v1")
    monkeypatch.setenv("KEY_OF_BETA", SECRET)
    monkeypatch.setenv("MISTRAL_API_KEY_1", SECRET)
    monkeypatch.setenv("MISTRAL_API_KEY_2", SECRET + "2")
    assert add().exit_code == 0
    with user.open("a") as file:
        file.write('[[providers]]\nname = "beta"\nbase_url = "https://b.ai/v1"\napi_key_env = "KEY_OF_BETA"\n')
    rows = listed()
    assert rows["groq"]["key"] == "$GROQ_API_KEY (default)"
    assert rows["opencode"]["key"] == "$OPencode_API_KEY (default)"
    assert rows["beta"]["key"] == "$KEY_OF_BETA"
    assert rows["mistral"]["key"] == "$MISTRAL_API_KEY_1 and 1 more"
    assert rows["acme"] == {
        "provider": "acme",
        "ready": "yes",
        "address": "https://api.acme.ai/v1",
        "key": "(configured directly)",
        "default_model": "large",
    }
    assert rows["openai"]["key"] == "$OPENAI_API_KEY is not set" and rows["openai"]["ready"] == "no"


# config show, check, explain


def test_nothing_is_set() -> None:
    done = run("config", "show")
    assert (done.exit_code, done.stdout) == (0, "") and "the library's own" in done.stderr


def test_where_each_value_came_from(user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user.parent.mkdir(parents=True)
    user.write_text('max_attempts = 2\n[[providers]]\nname = "acme"\nbase_url = "https://user.ai/v1"\ntimeout = 3\nmax_retries = 4\n')
    (tmp_path / "llm_master.toml").write_text(
        '[[providers]]\nname = "acme"\nbase_url = "https://here.ai/v1"\nmax_retries = 5\nheaders = {X-Team = "' + SECRET + '"}\n'
        '[aliases]\nfast = {model = "acme/small", options = {seed = 7}}\n[models."acme/small"]\ninput_price_per_million = 0.5\n'
    )
    secrets = tmp_path / "llm_master.secrets.toml"
    secrets.write_text(f'[[providers]]\nname = "acme"\napi_key = "{SECRET}"\n')
    secrets.chmod(0o600)
    (tmp_path / ".env").write_text("ACME_DEFAULT_MODEL=large\nGROQ_API_KEY=" + SECRET + "\n")
    monkeypatch.setenv("ACME_MAX_RETRIES", "6")
    monkeypatch.setenv("GLOBAL_TIMEOUT", "90")
    rows = table()
    assert rows["", "max_attempts"] == ("2", f"{user}:1")
    assert rows["", "deadline"] == ("90.0", "$GLOBAL_TIMEOUT")
    assert rows["acme", "timeout"] == ("3", f"{user}:5")
    assert rows["acme", "base_url"] == ("https://here.ai/v1", "llm_master.toml:3")
    assert rows["acme", "max_retries"] == ("6", "$ACME_MAX_RETRIES")
    assert rows["acme", "default_model"] == ("large", "$ACME_DEFAULT_MODEL (.env)")
    assert rows["acme", "headers"] == ("X-Team", "llm_master.toml:5")
    assert rows["acme", "api_key"][1] == "llm_master.secrets.toml:3"
    assert rows["groq", "api_key"] == ("GROQ_API_KEY …6789", "$GROQ_API_KEY (.env)")
    assert rows["alias fast", "options"] == ("{'seed': 7}", "llm_master.toml:7")
    assert rows["model acme/small", "input_price_per_million"] == ("0.5", "llm_master.toml:8")
    for arguments in (("config", "show", "--origin", "--all"), ("config", "show", "--json"), ("config", "show")):
        assert SECRET not in run(*arguments).output
    assert len(table("--all")) > len(rows)


def test_a_yaml_is_shown_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        'model_configs:\n  openai/gpt-4.1:\n    system_instruction: "Two\\nlines"\n    options: {temperature: 0}\nmax_concurrent: 8\n'
    )
    done = run("--config", "c.yaml", "config", "show", "--origin")
    assert done.exit_code == 0, done.output
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert ["", "max_concurrent", "8", "c.yaml:5"] in rows
    assert ["model openai/gpt-4.1", "system instruction, appended", "'Two\\nlines'", "c.yaml:2"] in rows
    assert ["model openai/gpt-4.1", "options", "{'temperature': 0}", "c.yaml:2"] in rows


def test_check_and_add_as_json(tmp_path: Path, user: Path) -> None:
    told = json.loads(run("config", "check", "--json").stdout)
    assert told["faults"] == told["warnings"] == [] and 0 < told["ready"] < told["providers"]
    added = run(
        "providers", "add", "--name", "acme", "--base-url", "https://a.ai/v1", "--key-env", "ACME", "--default-model", "m", "--json"
    )
    assert json.loads(added.stdout) == {"provider": "acme", "written": [str(user)], "key_env": "ACME"}
    done = run("config", "check", "--json")
    (fault,) = json.loads(done.stdout)["faults"]
    assert done.exit_code == 3 and "ACME" in fault


def test_check_tells_all_faults_with_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llm_master.toml").write_text('[[providers]]\nname = "acme"\nbase_ur = "x"\n[limits.gorq]\nrpm = 3\n')
    monkeypatch.setenv("ROTATION_MODE_GROQ", "balance")
    done = run("config", "check")
    assert done.exit_code == 3 and done.stdout == ""
    assert "llm_master.toml:3: providers[0].base_ur is no field: did you mean 'base_url'?" in done.stderr
    assert "did you mean 'groq'?" in done.stderr and "$ROTATION_MODE_GROQ" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('preferred_provider = "gorq"\n', "llm_master.toml:1: preferred_provider is 'gorq', which is no provider: did you mean 'groq'?"),
        ('[aliases]\nfast = "no-such-thing"\n', "llm_master.toml:2: alias 'fast': no provider serves a model named 'no-such-thing'"),
        ('[models.x]\nprovider = "gorq"\n', "llm_master.toml:1: model 'x' is of 'gorq', which is no provider: did you mean 'groq'?"),
        ('[aliases]\nfast = {model = "gpt-4.1", options = {temprature = 1}}\n', "did you mean 'temperature'?"),
    ],
)
def test_check_sees_what_only_a_query_would_meet(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "llm_master.toml").write_text(text)
    done = run("config", "check")
    assert done.exit_code == 3 and said in done.stderr.replace('"fast"', "'fast'"), done.stderr


def test_all_is_well(tmp_path: Path) -> None:
    (tmp_path / "llm_master.toml").write_text('[aliases]\nfast = "gpt-4.1"\n')
    done = run("config", "check")
    assert done.exit_code == 0 and "All is well" in done.stdout, done.output


def test_an_open_file_with_keys_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "llm_master.toml"
    file.write_text(f'[[providers]]\nname = "groq"\napi_key = "{SECRET}"\n')
    file.chmod(0o644)
    done = run("config", "check")
    assert done.exit_code == 0 and "chmod 600" in done.stderr and SECRET not in done.output


@pytest.mark.parametrize("command", [("show",), ("check",), ("explain", "gpt-4.1")])
@pytest.mark.parametrize("what", [".env", "named"])
def test_what_cannot_be_read_is_told_and_is_no_traceback(tmp_path: Path, command: tuple[str, ...], what: str) -> None:
    if what == ".env":
        (tmp_path / ".env").write_bytes(b"A=\xff\n")
        done = program("config", *command)
    else:
        done = program("--config", "nowhere.toml", "config", *command)
    assert done.returncode == 3 and done.stderr.startswith("Error: ") and "Traceback" not in done.stderr


def test_why_this_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.yaml").write_text(
        'model_configs:\n  openai/gpt-4.1:\n    system_instruction: "Be brief."\n    options: {temperature: 0}\nmax_concurrent: 8\n'
    )
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    done = run("--config", "c.yaml", "config", "explain", "gpt-4.1", "--json")
    assert done.exit_code == 0, done.output
    story = json.loads(done.stdout)
    assert story["provider"].startswith("openai, because: ") and story["wire id"] == "gpt-4.1"
    assert story["address"] == "https://api.openai.com/v1 (the table)"
    assert story["key"] == "OPENAI_API_KEY …6789" and SECRET not in done.output
    assert story["options"] == "temperature=0" and story["system"] == "'Be brief.', appended (c.yaml:2)"
    assert "max_concurrent 8" in story["limits"] and story["prices"] == "registered"
    missing = run("--config", "c.yaml", "config", "explain", "mistral-large-latest")
    assert missing.exit_code == 3 and "MISTRAL_API_KEY" in missing.stderr


def test_explain_follows_an_alias(tmp_path: Path) -> None:
    (tmp_path / "llm_master.toml").write_text(
        '[[providers]]\nname = "acme"\nbase_url = "https://a.ai/v1"\n[aliases]\nfast = "acme/small"\n[limits."acme/small"]\nrpm = 9\n'
    )
    done = run("config", "explain", "fast")
    assert done.exit_code == 0, done.output
    assert "alias of 'acme/small' (llm_master.toml:5)" in done.stdout and "rpm of the model 9" in done.stdout
    assert "none is needed" in done.stdout
    unknown = run("config", "explain", "fsat")
    assert unknown.exit_code == 3 and "'fast'" in unknown.stderr


def test_a_new_user_with_one_key(server: ScriptedServer) -> None:
    server.answer_json(ANSWER, times=None)
    done = program("query", "-m", "groq/some-model", "Hello", GROQ_API_KEY=SECRET, GROQ_API_BASE=server.base_url)
    assert (done.returncode, done.stdout) == (0, "Hi.\n"), done.stderr


def test_a_new_user_with_a_yaml(server: ScriptedServer, tmp_path: Path) -> None:
    server.answer_json(ANSWER, times=None)
    (tmp_path / "config.yaml").write_text(
        "models: [acme/large]\nmodel_configs:\n  acme/large:\n    system_instruction: Be brief.\nprovider_concurrency:\n  iflow: 2\n  acme: 1\n"
    )
    done = program("--config", "config.yaml", "query", "-m", "acme/large", "Hello", ACME_API_BASE=server.base_url, ACME_API_KEY=SECRET)
    assert (done.returncode, done.stdout) == (0, "Hi.\n"), done.stderr
    assert server.request.json["messages"][0] == {"role": "system", "content": "Be brief."}
    check = program("--config", "config.yaml", "config", "check", ACME_API_BASE=server.base_url)
    assert check.returncode == 0 and "there is no provider 'iflow' here" in check.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom llm_master.cli import main\nmain(['config', '--help'], standalone_mode=False)\n"
        "print([m for m in ('llm_master.engine', 'llm_master.provider_configs', 'yaml', 'aiohttp') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
