"""``llm-master doctor``: what is set, what answers, what this machine has for free, and what to do next."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from llm_master.cli.common import fail, print_json
from llm_master.cli.config import faults_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llm_master.provider_configs import LLMConfig
    from llm_master.results import ProviderHealth
    from llm_master.rows import ProviderConfig
    from llm_master.snapshot import Snapshot

MARKS = {
    "valid": ("ok", "green"),
    "unsupported": ("answers", "green"),
    "invalid": ("refused", "red"),
    "unreachable": ("no answer", "red"),
    "not_configured": ("not set", "yellow"),
}
"""What is said of a state, and in which colour."""

_ANSWERS = ("valid", "unsupported")
_MODELS_SHOWN = 5
_WIDTH = 11


@click.command()
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=3,
    show_default=True,
    help="Seconds for each provider; all are asked at once.",
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def doctor(timeout: float, *, as_json: bool) -> None:
    """Say what is set, what answers, what of it is free on this machine, and what to do next.

    Providers with a key, and servers on this machine, are asked for their lists of models, which costs nothing. No key is
    shown. The exit code is 0 if some provider answers and nothing is wrong, else 1.
    """
    import asyncio

    from llm_master.errors import LLMError
    from llm_master.provider_configs import LLMConfig

    try:
        found = asyncio.run(examine(LLMConfig.from_env(), timeout))
    except LLMError as exc:
        fail(exc)
    if as_json:
        print_json(found)
    else:
        _tell(found)
    if not found["well"]:
        sys.exit(1)


async def examine(settings: LLMConfig, timeout: float) -> dict[str, Any]:
    """All that is found, as ``--json`` prints it. No key stands in it."""
    import platform
    from importlib.metadata import version

    from llm_master.plugins import problems, told
    from llm_master.provider_configs import PROVIDER_CONFIGS
    from llm_master.providers.unified import UnifiedProvider
    from llm_master.settings.misspelt import misspelt
    from llm_master.snapshot import take

    # Not as a query takes them: what is wrong is told here, and what is right is examined all the same.
    snapshot = take(PROVIDER_CONFIGS.values(), settings.files, {}, (), settings.environment, UnifiedProvider)
    names = _examined(snapshot)
    health, models, files = await _ask(snapshot, names, timeout)
    found: dict[str, Any] = {
        "version": version("llm_master"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "files": list(dict.fromkeys(origin.rpartition(":")[0] for origin in snapshot.origins.values() if ":" in origin)),
        "faults": faults_of(snapshot),
        "warnings": list(snapshot.warnings),
        "plugins": [told(plugin) for plugin in problems()],  # the table's have been loaded by now
        "misspelt": misspelt(settings.environment, _read(snapshot)),
        "proxies": {name: _without_login(value) for name, value in snapshot.proxies.items()},
        "model_files": files,
        "providers": {name: _provider(snapshot.rows[name], health[name], models.get(name)) for name in names},
    }
    found["next"] = _next(found, snapshot)
    answering = any(one["state"] in _ANSWERS for one in found["providers"].values())
    refused = any(key["key"] and key["state"] == "invalid" for one in found["providers"].values() for key in one["keys"])
    found["well"] = answering and not refused and not found["faults"] and not found["misspelt"]
    return found


def _examined(snapshot: Snapshot) -> list[str]:
    """The providers that have a key, and the servers on this machine: of several rows for one server, the first."""
    names, seen = [], set()
    for name, row in snapshot.rows.items():
        if not snapshot.usable(name) or not (snapshot.keys[name] or is_local(row)):
            continue
        if is_local(row):
            server = urlsplit(row.base_url or "").netloc
            if server in seen:
                continue
            seen.add(server)
        names.append(name)
    return names


async def _ask(
    snapshot: Snapshot, names: list[str], timeout: float
) -> tuple[dict[str, ProviderHealth], dict[str, list[str]], dict[str, bool]]:
    """How they stand, the models of those on this machine, and whether model files can be asked. Everybody is asked at once."""
    import asyncio

    import attrs

    from llm_master.discovery import list_models
    from llm_master.engine import Engine
    from llm_master.health import check_health

    # Whom settings prefer is no matter here, and may be wrong.
    engine = Engine(attrs.evolve(snapshot, options=attrs.evolve(snapshot.options, preferred_provider=None)))
    local = [name for name in names if is_local(snapshot.rows[name])]
    checks = asyncio.gather(*(check_health(engine, name, paid=False, timeout=timeout) for name in names))
    lists = asyncio.gather(*(list_models(engine, name, refresh=True, timeout=timeout) for name in local))
    health = {name: one for found in await checks for name, one in found.items()}
    models = {name: [model.id for model in one if model.discovered] for found in await lists for name, one in found.items()}
    files = {row.start_command: await engine.providers(name)[0].health_check() for name, row in snapshot.rows.items() if _is_file(row)}
    return health, models, files


def _is_file(row: ProviderConfig) -> bool:
    """Whether a row is of model files, which this process has served itself."""
    return row.enabled and row.base_url is None and bool(row.start_command)


def is_local(row: ProviderConfig) -> bool:
    """Whether a row is of a server on this machine that wants no key."""
    return not row.requires_key and urlsplit(row.base_url or "").hostname in ("localhost", "127.0.0.1", "::1")


def _read(snapshot: Snapshot) -> Iterable[str]:
    """The variables that are read for providers."""
    from llm_master.rows import base_variable, key_variables

    for row in snapshot.rows.values():
        yield from (*key_variables(row), base_variable(row), base_variable(row).removesuffix("API_BASE") + "BASE_URL", *row.base_url_env)


def _without_login(proxy: str) -> str:
    """A proxy's address, or NO_PROXY's list, without a password."""
    head, at, tail = proxy.rpartition("@")
    return f"{head.partition('://')[0]}://…@{tail}" if at and "://" in head else f"…@{tail}" if at else proxy


def _provider(row: ProviderConfig, health: ProviderHealth, models: list[str] | None) -> dict[str, Any]:
    return {
        "state": health.state,
        "detail": health.detail,
        "latency": health.latency,
        "local": is_local(row),
        "address": row.base_url,
        "keys": [{"key": key.key, "state": key.state, "detail": key.detail} for key in health.keys],
        "models": health.models,
        "first_models": (models or [])[:_MODELS_SHOWN],
        "default_model": row.default_model,
    }


def _next(found: Mapping[str, Any], snapshot: Snapshot) -> list[str]:
    """What to do, the most urgent first."""
    steps = [f"Rename ${name} to ${meant}, or unset it: nobody reads it." for name, meant in found["misspelt"].items()]
    if found["faults"]:
        steps.append("Correct the settings that are named above; `llm-master config check` tells when they are right.")
    providers: Mapping[str, Mapping[str, Any]] = found["providers"]
    for name, one in providers.items():
        steps += [_other_key(snapshot.rows[name], key["key"]) for key in one["keys"] if key["state"] == "invalid"]
    remote = {name: one for name, one in providers.items() if not one["local"]}
    silent = [name for name, one in remote.items() if one["state"] == "unreachable"]
    if silent and len(silent) == len(remote):
        way = (
            "the proxy that HTTPS_PROXY names" if found["proxies"] else "the network, and whether this one needs a proxy (set HTTPS_PROXY)"
        )
        steps.append(f"No provider outside this machine was reached: check {way}. What each said stands above.")
    elif silent:
        steps.append(f"{', '.join(silent)}: not reached, though others were. What was said stands above; ask again, or check the address.")
    ask = [name for name, one in providers.items() if one["state"] in _ANSWERS]
    for name in ask:
        one = providers[name]
        if one["local"] and not one["first_models"]:
            steps.append(f"{snapshot.rows[name].display_name or name} runs and has no model: get one there.")
    if (example := next(filter(None, (_example(name, providers[name]) for name in ask)), None)) is not None:
        steps.append(f"Ask a model: {example}")
    else:
        steps += _beginning(snapshot, with_keys=not remote)
    return steps


def _other_key(row: ProviderConfig, refused: str | None) -> str:
    from llm_master.rows import key_variables

    name = row.display_name or row.name
    made = f", made at {row.key_url}" if row.key_url else ""
    if refused is None:
        return f"{name} wants a key: set {key_variables(row)[0]}{made}."
    return f"{name} refuses the key in {refused}: put another there{made}, or unset it."


def _example(name: str, one: Mapping[str, Any]) -> str | None:
    model = name if one["default_model"] and not one["local"] else next((f"{name}/{model}" for model in one["first_models"]), None)
    return f'llm-master query -m {model} "Hello"' if model is not None else None


def _beginning(snapshot: Snapshot, *, with_keys: bool) -> list[str]:
    """What somebody can do to whom nobody answers."""
    from llm_master.rows import key_variables

    keyed = [row for row in snapshot.rows.values() if row.key_url and row.requires_key and row.default_model][:3]
    keys = "; ".join(f"export {key_variables(row)[0]}=… (made at {row.key_url})" for row in keyed)
    servers = ", ".join(
        dict.fromkeys(f"`{row.start_command}`" for row in snapshot.rows.values() if row.start_command and not _is_file(row))
    )
    return [
        *([f"Set a key, as {keys}. `llm-master providers list` has all others."] if with_keys else []),
        f"{'Or start' if with_keys else 'Start'} a server on this machine, which costs nothing: {servers}.",
        'Until then an embedded stand-in, which is no model, answers: llm-master query "Hello"',
    ]


def _tell(found: Mapping[str, Any]) -> None:
    click.echo(f"llm-master {found['version']}, Python {found['python']}, {found['system']}")
    _head("Settings")
    for path in found["files"]:
        click.echo(f"  {'read':{_WIDTH}}{path}")
    for fault in found["faults"]:
        click.echo(f"  {click.style('wrong'.ljust(_WIDTH), fg='red')}{fault}")
    for name, meant in found["misspelt"].items():
        click.echo(f"  {click.style('misspelt?'.ljust(_WIDTH), fg='red')}${name} is set, and nobody reads it: did you mean ${meant}?")
    for warning in (*found["plugins"], *found["warnings"]):
        click.echo(f"  {click.style('note'.ljust(_WIDTH), fg='yellow')}{warning}")
    for name, value in found["proxies"].items():
        click.echo(f"  {'proxy':{_WIDTH}}{name.upper()}={value}")
    if not any(found[what] for what in ("files", "faults", "plugins", "misspelt", "warnings", "proxies")):
        click.echo("  nothing is wrong, and no file is read")
    local = {name: one for name, one in found["providers"].items() if one["local"]}
    remote = {name: one for name, one in found["providers"].items() if not one["local"]}
    _head("Providers with a key")
    if not remote:
        click.echo("  none")
    for name, one in remote.items():
        for number, key in enumerate(one["keys"]):
            _line(name if number == 0 else "", one, key)
    _head("On this machine, free of charge")
    for name, one in local.items():
        if one["state"] == "unreachable":
            click.echo(f"  {'-':{_WIDTH}}{name:14}{'':9}nothing answers at {one['address']}")
        else:
            _line(name, one, one["keys"][0])
            if one["first_models"]:
                more = f", and {one['models'] - len(one['first_models'])} more" if (one["models"] or 0) > len(one["first_models"]) else ""
                click.echo(f"{'':{_WIDTH + 25}}{', '.join(one['first_models'])}{more}")
    for command, installed in found["model_files"].items():
        mark = click.style("ok".ljust(_WIDTH), fg="green") if installed else "-".ljust(_WIDTH)
        click.echo(f"  {mark}a model file: {command}" + ("" if installed else ", after pip install 'llm_master[local]'"))
    _head("What to do next")
    for number, step in enumerate(found["next"], 1):
        click.echo(f"  {number}. {step}")


def shown_models(count: int) -> str:
    """So many models, in words."""
    return "1 model" if count == 1 else f"{count:,} models"


def _head(text: str) -> None:
    click.echo(f"\n{click.style(text, bold=True)}")


def _line(name: str, one: Mapping[str, Any], key: Mapping[str, Any]) -> None:
    mark, colour = MARKS[key["state"]]
    seconds = f"{one['latency']:.2f} s" if one["latency"] is not None else ""
    models = f"{shown_models(one['models'])}; " if one["models"] is not None and key["state"] in _ANSWERS else ""
    said = f"{key['key']}: {key['detail']}" if key["key"] else key["detail"]
    click.echo(f"  {click.style(mark.ljust(_WIDTH), fg=colour)}{name:14}{seconds:9}{models}{said}")
