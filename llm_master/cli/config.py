"""``llm-master config``: what the settings are, whether they are right, and why a model goes where it goes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from llm_master.cli.common import fail, print_json, print_table
from llm_master.cli.completion import model_names

if TYPE_CHECKING:
    from llm_master.settings.declared import Declared
    from llm_master.settings.routes import RouteSettings
    from llm_master.snapshot import Snapshot


@click.group()
def config() -> None:
    """What the settings are, and where they come from."""


@config.command()
@click.option("--origin", is_flag=True, help="Also where each value comes from.")
@click.option("--all", "every", is_flag=True, help="Also what is as the library has it.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def show(*, origin: bool, every: bool, as_json: bool) -> None:
    """Show the settings that differ from the library's own. A key is shown by its name only."""
    from llm_master.errors import LLMError
    from llm_master.provider_configs import LLMConfig, effective

    try:
        settings = LLMConfig.from_env()
        snapshot, files = effective(settings), settings.files
    except LLMError as exc:
        fail(exc)
    _warn(snapshot)
    rows = [(*row[:3], _of_process(row[3])) for row in _values(snapshot, files, every=every)]
    if as_json:
        print_json([dict(zip(("where", "field", "value", "origin"), row, strict=True)) for row in rows])
    elif not rows:
        click.echo("Nothing is set: every value is the library's own.", err=True)
    else:
        head = ("WHERE", "FIELD", "VALUE", "ORIGIN")
        print_table(head if origin else head[:3], rows if origin else [row[:3] for row in rows])


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def check(*, as_json: bool) -> None:
    """Say everything that is wrong with variables and files, each with its place. Exit code 3 if anything is."""
    from llm_master.errors import LLMError
    from llm_master.provider_configs import PROVIDER_CONFIGS, LLMConfig
    from llm_master.providers.unified import UnifiedProvider
    from llm_master.snapshot import take

    try:
        settings = LLMConfig.from_env()
        snapshot = take(PROVIDER_CONFIGS.values(), settings.files, {}, (), settings.environment, UnifiedProvider)
    except LLMError as exc:
        fail(exc)
    faults = faults_of(snapshot)
    ready = sum(snapshot.usable(name) for name in snapshot.rows)
    if as_json:
        print_json({"faults": faults, "warnings": snapshot.warnings, "ready": ready, "providers": len(snapshot.rows)})
    else:
        _warn(snapshot)
        for fault in faults:
            click.echo(fault, err=True)
        if not faults:
            click.echo(f"All is well: {ready} of {len(snapshot.rows)} providers can be asked.")
    if faults:
        sys.exit(3)


def faults_of(snapshot: Snapshot) -> list[str]:
    """Everything that is wrong with settings, each with its place: also what only a query would meet."""
    from llm_master.engine import Engine
    from llm_master.errors import ConfigurationError, MissingApiKeyError, UnknownModelError
    from llm_master.rows import key_variables

    faults = list(snapshot.faults)
    for name, row in snapshot.rows.items():
        origin = snapshot.origins.get((name, "api_key_env"))
        if origin is not None and not snapshot.keys[name]:
            faults.append(f"{origin}: none of {', '.join(key_variables(row))} is set, so {row.name!r} has no key: set one")
    try:
        engine = Engine(snapshot)
    except ConfigurationError as exc:
        return [*faults, f"{snapshot.origins.get(('', 'preferred_provider'), 'settings')}: {exc}"]
    for name, alias in snapshot.aliases.items():
        try:
            engine.target(name)
        except MissingApiKeyError:
            pass  # it leads somewhere, and a key is no concern of a file's
        except (ConfigurationError, UnknownModelError) as exc:
            faults.append(f"{alias.origin}: alias {name!r}: {exc}")
    return faults


@config.command()
@click.argument("model", shell_complete=model_names)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def explain(model: str, *, as_json: bool) -> None:
    """Say which provider MODEL goes to and why, with what key and options, and what is known of it. Sends nothing."""
    from llm_master.engines import engine_for
    from llm_master.errors import LLMError
    from llm_master.provider_configs import PROVIDER_CONFIGS
    from llm_master.rows import RATES, key_variables

    try:
        engine = engine_for(None)
        if (declared := engine.snapshot.routes.get(model)) is not None:
            _explain_route(model, declared, as_json=as_json)
            return
        target = engine.target(model)
    except LLMError as exc:
        fail(exc)
    snapshot, route, row = engine.snapshot, target.route, target.row
    from_row = PROVIDER_CONFIGS.origin_of(route.provider)
    keys = snapshot.keys[route.provider]
    known = target.model
    story: list[tuple[str, str]] = [
        ("model", model),
        ("provider", f"{route.provider}, because: {route.why}"),
        ("address", f"{row.base_url or 'in this process'} ({snapshot.origins.get((route.provider, 'base_url'), from_row)})"),
        ("wire id", route.model),
        (
            "key",
            ", ".join(key.name for key in keys) or ("none is needed" if not row.requires_key else f"none: set {key_variables(row)[0]}"),
        ),
    ]
    if route.options:
        story.append(("options", ", ".join(f"{name}={value!r}" for name, value in route.options.items())))
    if target.settings is not None:
        story.append(("system", f"{target.settings.system_instruction!r}, {target.settings.position}ed ({target.settings.origin})"))
    own = (*RATES, "max_concurrent", "max_concurrent_per_key")
    limits = [f"{name} {value}" for name in own if (value := getattr(row, name))]
    if row.max_concurrent is None and snapshot.options.max_concurrent is not None:
        limits.append(f"max_concurrent {snapshot.options.max_concurrent}")
    if known is not None:
        of_model = {rate: getattr(known, f"rate_limit_{rate}") for rate in RATES} | {"max_concurrent": known.max_concurrent}
        limits += [f"{name} of the model {value}" for name, value in of_model.items() if value]
    if limits:
        story.append(("limits", ", ".join(limits)))
    story.append(("prices", "registered" if known is not None else "looked up when it is asked" if target.look_up else "not known"))
    if as_json:
        print_json(dict(story))
        return
    for name, text in story:
        click.echo(f"{name + ':':10}{text}")


def _explain_route(name: str, route: RouteSettings, *, as_json: bool) -> None:
    targets = [{"model": target.model, "weight": target.weight, "options": dict(target.options)} for target in route.targets]
    if as_json:
        print_json({"route": name, "strategy": route.strategy, "targets": targets})
        return
    click.echo(f"route:    {name}\nstrategy: {route.strategy}")
    for number, target in enumerate(route.targets, 1):
        options = "".join(f", {option}={value!r}" for option, value in target.options.items())
        click.echo(f"target {number}: {target.model}, weight {target.weight:g}{options}")


def _values(snapshot: Snapshot, files: Declared, *, every: bool) -> list[tuple[str, str, str, str]]:
    import attrs

    from llm_master.provider_configs import PROVIDER_CONFIGS
    from llm_master.rows import ProviderConfig

    rows = [
        ("", field.name, _option(snapshot, field.name), snapshot.origins.get(("", field.name), "default"))
        for field in attrs.fields(type(snapshot.options))
        if field.name != "clock" and (every or ("", field.name) in snapshot.origins)
    ]
    for name, row in snapshot.rows.items():
        for field in attrs.fields(ProviderConfig):
            if field.name in ("name", "_model", "provider_class", "api_key"):
                continue
            value = getattr(row, field.name)
            origin = snapshot.origins.get((name, field.name))
            if origin is not None or (every and value != field.default and value not in ({}, ())):
                shown = ", ".join(value) if field.name in ("headers", "query") else _said(value)
                rows.append((row.name, field.name, shown, origin or PROVIDER_CONFIGS.origin_of(name)))
        rows += [(row.name, "api_key", key.name, _origin_of(key.source)) for key in snapshot.keys[name]]
    for name, alias in snapshot.aliases.items():
        rows.append((f"alias {name}", "model", alias.model, alias.origin))
        if alias.options:
            rows.append((f"alias {name}", "options", _said(alias.options), alias.origin))
    for name, own in snapshot.model_settings.items():
        if own.system_instruction is not None:
            rows.append((f"model {name}", f"system instruction, {own.position}ed", _said(own.system_instruction), own.origin))
        if own.options:
            rows.append((f"model {name}", "options", _said(own.options), own.origin))
    for name, sourced in files.models.items():
        rows += [(f"model {name}", field, _said(value), sourced.origin) for field, value in sourced.value.items()]
    return rows


def _option(snapshot: Snapshot, name: str) -> str:
    value = getattr(snapshot.options, name)
    if name == "redis_url" and value is not None:
        from llm_master.storage.shared import shown

        return shown(value)  # without its password
    return _said(value)


def _said(value: Any) -> str:
    if isinstance(value, str):
        return value if value.isprintable() else repr(value)  # one line each
    return repr(dict(value) if hasattr(value, "keys") else value)


def _of_process(origin: str) -> str:
    """An origin, saying of a variable that it stands in ``.env``."""
    import os
    import re

    return re.sub(r"\$\w+", lambda found: found[0] if found[0][1:] in os.environ else f"{found[0]} (.env)", origin)


def _origin_of(source: str) -> str:
    return source if ":" in source or "[" in source or source.endswith(" row") else f"${source}"


def _warn(snapshot: Snapshot) -> None:
    for warning in snapshot.warnings:
        click.echo(f"Warning: {warning}", err=True)
