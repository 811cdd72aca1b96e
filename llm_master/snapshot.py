"""What one engine uses: the table's rows with all settings applied."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from llm_master.dispatch.keys import Key
from llm_master.dispatch.options import check_names
from llm_master.errors import ConfigurationError, InvalidRequestError, PricingError
from llm_master.model_registry import ModelRegistry
from llm_master.model_rows import ModelConfig
from llm_master.row_classes import speaks_http
from llm_master.row_places import with_address
from llm_master.rows import RATES, ProviderConfig, canonical, key_attr
from llm_master.settings.aliases import Alias, aliases_of, step
from llm_master.settings.declared import Declared, ModelSettings, Sourced, refuse
from llm_master.settings.environment import Environment
from llm_master.settings.files import cache_folder
from llm_master.settings.options import Options
from llm_master.settings.routes import RouteSettings, expanded, route_of
from llm_master.settings.variable_values import laid_over
from llm_master.settings.variables import read_variables

_ADDED = frozenset({"headers", "query", "models", "paths", "renames"})
"""Fields whose entries are added to those of the row beneath."""

_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})


@attrs.frozen
class Snapshot:
    """What one engine uses: the rows with all settings applied, their keys, and the options."""

    # Keys and options first: snapshots are compared in this order, and it is there that they differ.
    keys: dict[str, tuple[Key, ...]]
    options: Options
    # Each endpoint works out its proxy once, so engines with other proxies are other engines.
    proxies: dict[str, str]
    rows: dict[str, ProviderConfig]
    models: dict[str, ModelConfig]
    model_settings: dict[str, ModelSettings]
    aliases: dict[str, Alias]
    routes: dict[str, RouteSettings]
    # Where lists of models are kept; None for nowhere.
    models_file: str | None
    # Where each value came from: (provider or "", field) -> origin. Not part of what is compared.
    origins: dict[tuple[str, str], str] = attrs.field(eq=False)
    faults: tuple[str, ...] = attrs.field(eq=False)
    warnings: tuple[str, ...] = attrs.field(eq=False)

    def usable(self, name: str) -> bool:
        """Whether a provider could be asked."""
        row = self.rows[name]
        if not row.enabled or (row.requires_key and not self.keys[name]):
            return False
        return row.base_url is not None or not speaks_http(row)

    def refuse(self) -> None:
        """Raise what is wrong, all of it at once.

        Raises:
            ConfigurationError: Each fault with its place and a remedy.
        """
        refuse(self.faults)


def take(
    table: Iterable[ProviderConfig],
    files: Declared,
    fields: Mapping[str, Any],
    api_keys: Sequence[tuple[str, tuple[str, ...]]],
    environment: Environment,
    default_class: type,
    overlays: Mapping[str, Mapping[str, Any]] | None = None,
) -> Snapshot:
    """Apply overlays and fields over the environment over the files over the rows. The table itself is not touched.

    What is wrong stands in ``faults``, and is left out.
    """
    rows = {canonical(row.name): row for row in table}
    usual = dict(rows)
    origins: dict[tuple[str, str], str] = {}
    aliases = {canonical(alias): name for name, row in rows.items() for alias in row.aliases}
    files = files.under_own_names(aliases)
    faults = list(files.faults)
    tabled = set(rows)
    _lay(rows, files, default_class, origins, faults)
    variables = read_variables(environment, rows)
    faults += variables.faults
    _lay(rows, variables, default_class, origins, faults)
    if overlays:
        _lay(rows, _overlaid(overlays, rows, aliases, faults), default_class, origins, faults)
    declared = files.beneath(variables)
    given: dict[str, tuple[str, ...]] = {}
    for name, own in api_keys:
        known = aliases.get(canonical(name), canonical(name))
        if known not in rows:
            # Whoever gathers keys by their variables has providers by the variables' names.
            variable = f"{known.upper()}_API_KEY"
            known = next((other for other, row in rows.items() if variable in row.api_key_env), known)
        if known in rows:
            given[known] = given.get(known, ()) + own
        else:
            hint = _near(name, rows) or "name one of PROVIDER_CONFIGS, declare it first, or leave it out"
            faults.append(f"api_keys: there is no provider {name!r}: {hint}")
    faults += [
        f"{own[0].origin}: there is no provider {name!r} to have this key: {_near(name, rows) or 'declare it, with its address'}"
        for name, own in declared.keys.items()
        if name not in rows and own
    ]
    keys = {}
    for name, row in rows.items():
        rows[name] = with_address(row, fields, usual.get(name, row), origins, faults)
        keys[name] = _keys(name, row, fields, given, declared, origins, faults)
    warnings = list(declared.warnings)
    for name in rows.keys() - tabled:
        _must_have_address(name, rows, tabled, declared, faults, warnings)
    _check_options(declared, faults)
    options = _options(declared, fields, origins, faults)
    return Snapshot(
        keys,
        options,
        {name: value for name, value in environment.items() if name.lower() in _PROXIES},
        rows,
        _models(declared, rows, faults),
        {_by_provider(name, rows): own for name, own in declared.model_settings.items()},
        aliases_of(declared),
        _routes(declared, options, faults),
        _models_file(options, environment),
        origins,
        tuple(dict.fromkeys(faults)),
        tuple(warnings),
    )


def _lay(
    rows: dict[str, ProviderConfig], declared: Declared, default_class: type, origins: dict[tuple[str, str], str], faults: list[str]
) -> None:
    """Lay one source over the rows, provider by provider."""
    for name, fields in declared.providers.items():
        base = rows.get(name)
        values = {field: sourced.value for field, sourced in fields.items()}
        try:
            if base is None:
                # Whoever names the variable of a key wants it used; else it may be a server of one's own.
                own = {"name": declared.names[name], "requires_key": "api_key_env" in values, "provider_class": default_class}
                values = {**own, **values}
                rows[name] = ProviderConfig(**values)
            else:
                for field in _ADDED & values.keys():
                    own = getattr(ProviderConfig(**{field: values[field]}), field)
                    below = getattr(base, field)
                    values[field] = laid_over(below, own) if field == "headers" else {**below, **own}
                rows[name] = attrs.evolve(base, **values)
        except (ConfigurationError, TypeError, ValueError) as exc:
            faults += _with_places(exc, name, fields)
            continue
        for field, sourced in fields.items():
            origins[name, field] = sourced.origin


def _overlaid(
    overlays: Mapping[str, Mapping[str, Any]], rows: Mapping[str, ProviderConfig], aliases: Mapping[str, str], faults: list[str]
) -> Declared:
    """The fields of ``rows=`` as a source of settings; those of ``"*"`` are every provider's, and lie beneath its own."""
    declared = Declared()
    for written in sorted(overlays, key=lambda name: name != "*"):
        name = aliases.get(canonical(written), canonical(written))
        if written != "*" and name not in rows:
            faults.append(
                f"rows: there is no provider {written!r}: {_near(name, rows) or 'name one of PROVIDER_CONFIGS, or declare it first'}"
            )
            continue
        for each in rows if written == "*" else (name,):
            declared.provider(each).update({field: Sourced(value, f"rows[{written!r}]") for field, value in overlays[written].items()})
    return declared


def _with_places(exc: Exception, name: str, fields: Mapping[str, Sourced]) -> list[str]:
    """A row's faults, each with the place of the field that it is about."""
    text = str(exc).partition(": ")[2] if isinstance(exc, ConfigurationError) else str(exc)
    lines = [line.strip().removeprefix("- ") for line in text.split("\n") if line.strip()]
    found = []
    for line in lines:
        field = next((field for field in fields if line.startswith((f"{field} ", f"{field}:"))), None)
        origin = fields[field].origin if field is not None else next(iter(fields.values())).origin if fields else ""
        found.append(f"{origin}: provider {name!r}: {line}" if origin else f"provider {name!r}: {line}")
    return found


def _keys(
    name: str,
    row: ProviderConfig,
    fields: Mapping[str, Any],
    given: Mapping[str, tuple[str, ...]],
    declared: Declared,
    origins: dict[tuple[str, str], str],
    faults: list[str],
) -> tuple[Key, ...]:
    """A provider's keys: those of an argument alone; else of the variables, the files and the row."""
    attr = key_attr(row)
    if (own := fields.get(attr)) is not None:
        found = [(own, attr)]
    elif name in given:
        several = len(given[name]) > 1
        found = [(secret, f"api_keys[{name!r}]" + (f"[{n}]" if several else "")) for n, secret in enumerate(given[name])]
    else:
        found = [(sourced.value, sourced.origin.removeprefix("$")) for sourced in declared.keys.get(name, ())]
        found.append((row.api_key or "", f"{row.name} row"))
        if name in declared.ambient and not any(secret for secret, _ in found):
            found.append((declared.ambient[name].value, declared.ambient[name].origin.removeprefix("$")))
    keys: dict[str, Key] = {}
    for secret, source in found:
        if not isinstance(secret, str):
            faults.append(f"{source} is a {type(secret).__name__}: give the key as a string")
        elif secret.strip():
            try:
                keys.setdefault(secret.strip(), Key.checked(secret, source))
            except ConfigurationError as exc:
                faults.append(str(exc))
    if keys:
        origins[name, "api_key"] = next(iter(keys.values())).source
    return tuple(keys.values())


def _options(declared: Declared, fields: Mapping[str, Any], origins: dict[tuple[str, str], str], faults: list[str]) -> Options:
    values: dict[str, Any] = {}
    for field in attrs.fields(Options):
        if fields.get(field.name) is not None:
            value, origin = fields[field.name], "argument"
        elif (sourced := declared.options.get(field.name)) is not None:
            value, origin = sourced.value, sourced.origin
        else:
            continue
        try:
            Options(**{field.name: value})
        except ConfigurationError as exc:
            faults.append(f"{origin}: {exc}" if origin != "argument" else str(exc))
            continue
        values[field.name] = value
        origins["", field.name] = origin
    return Options(**values)


def _models(declared: Declared, rows: Mapping[str, ProviderConfig], faults: list[str]) -> dict[str, ModelConfig]:
    models: dict[str, ModelConfig] = {}
    # Bare names first: what is said of one provider's model holds over them.
    for written, sourced in sorted(declared.models.items(), key=lambda item: "/" in item[0]):
        name = _by_provider(written, rows)
        provider, _, model = name.partition("/")
        base = models.get(name)  # spelt otherwise, or by its bare name
        if base is None:
            base = ModelRegistry.get_config(model, provider) if model and provider in rows else ModelRegistry.get_config(name)
        own = sourced.value.get("provider")
        if isinstance(own, str) and canonical(own) not in rows:
            faults.append(f"{sourced.origin}: model {written!r} is of {own!r}, which is no provider: {_near(own, rows) or 'declare it'}")
        if not model and base is None:
            # A bare name is that model's of every provider that has it.
            for known, row in ModelRegistry.CONFIGS.items():
                if known.partition("/")[2] == name:
                    with contextlib.suppress(ConfigurationError, PricingError, TypeError):  # told below
                        models[known] = attrs.evolve(row, **sourced.value)
        try:
            models[name] = attrs.evolve(base, **sourced.value) if base is not None else ModelConfig.from_mapping(name, sourced.value)
        except (ConfigurationError, PricingError, TypeError) as exc:
            faults.append(f"{sourced.origin}: {exc}")
    return models


def _models_file(options: Options, environment: Environment) -> str | None:
    if options.models_file is not None:
        return None if options.models_file == "off" else options.models_file
    folder = cache_folder(environment)
    return os.path.join(folder, "models.json") if folder is not None else None


def _by_provider(name: str, rows: Mapping[str, ProviderConfig]) -> str:
    """The name of a model with its provider's as the rows have it: ``OpenAI/gpt-4.1`` is ``openai/gpt-4.1``."""
    head, slash, rest = name.partition("/")
    return f"{canonical(head)}/{rest}" if slash and canonical(head) in rows else name


def _routes(declared: Declared, options: Options, faults: list[str]) -> dict[str, RouteSettings]:
    """The routes of the files and of the arguments, those within others replaced by their targets."""
    routes: dict[str, RouteSettings] = {}
    for name, sourced in declared.routes.items():
        own: list[str] = []
        route = route_of(sourced.value, own)
        faults += [f"{sourced.origin}: route {name!r}: {fault}" for fault in own]
        if route is not None:
            routes[name] = route
    routes |= dict(options.routes)
    # Circles within the files have been told with their places.
    return expanded(routes, [] if declared.faults else faults)


def _near(name: str, rows: Iterable[str]) -> str:
    near = difflib.get_close_matches(canonical(name), list(rows), 1)
    return f"did you mean {near[0]!r}?" if near else ""


_LIMITS = frozenset({*RATES, "max_concurrent", "max_concurrent_per_key"})


def _must_have_address(
    name: str, rows: Mapping[str, ProviderConfig], tabled: Iterable[str], declared: Declared, faults: list[str], warnings: list[str]
) -> None:
    """A provider that only settings name is of use with an address; without one its name may be another's, misspelt."""
    fields = declared.providers.get(name, {})
    if rows[name].base_url is not None or not speaks_http(rows[name]) or "base_url" in fields:
        return
    if not fields and not declared.keys.get(name) and faults:
        return  # all that it says is wrong, which has been said with its place
    origin = next(sourced.origin for sourced in (*fields.values(), *declared.keys.get(name, ()), Sourced(None, "a settings file")))
    hint = _near(name, tabled)
    if not hint and fields and fields.keys() <= _LIMITS:
        # One file of limits may serve several machines, of which not each knows all providers.
        warnings.append(f"{origin}: there is no provider {name!r} here, so its limits hold for nobody")
    else:
        remedy = f"give it a base_url, or set ${name.upper()}_API_BASE"
        faults.append(f"{origin}: provider {name!r} has no address: {f'{hint} Else {remedy}' if hint else remedy}")


def _check_options(declared: Declared, faults: list[str]) -> None:
    """Options that stand in settings are spelt as those of a call are."""
    places = [(f"{own.origin}: model {name!r}", own.options) for name, own in declared.model_settings.items()]
    places += [(f"{sourced.origin}: alias {name!r}", step(sourced.value)[1]) for name, sourced in declared.aliases.items()]
    for place, options in places:
        for name in options:
            try:
                check_names({name: options[name]})
            except InvalidRequestError as exc:
                near = str(exc).partition(" If ")[0]
                is_argument = near.endswith(f"did you mean {name!r}?")
                faults.append(f"{place}: " + (f"{name!r} is an argument of each call and no option: leave it out" if is_argument else near))
