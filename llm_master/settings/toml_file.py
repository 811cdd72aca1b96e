"""``llm_master.toml``: providers, models, aliases, routes, limits and options; and the secrets file beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import attrs

from llm_master.model_rows import ModelConfig
from llm_master.rows import RATES, ProviderConfig, canonical
from llm_master.settings.declared import Declared, Sourced
from llm_master.settings.document import (
    COUNT,
    FLAG,
    NAME,
    NUMBER,
    SECONDS,
    TABLE,
    TEXT,
    TEXT_TABLE,
    TEXTS,
    WHOLE,
    Document,
    Kind,
    Place,
    meant,
    read_text,
    spelt,
)
from llm_master.settings.loops import loop_faults
from llm_master.settings.toml_lines import locate

SHARE = Kind(lambda value: NUMBER.fits(value) and 0 < value <= 1, "give a share above 0 and up to 1, as 0.05")
_NAMES = Kind(lambda value: TEXT.fits(value) or TEXTS.fits(value), "give a string or a list of strings")

KINDS: Mapping[str, Kind] = {
    "str": TEXT,
    "str | None": TEXT,
    "type | str | None": Kind(TEXT.fits, 'give a string, as "package.module:Class"'),
    "Callable[..., Any] | str": Kind(TEXT.fits, 'give a string, as "package.module:Class"'),
    "bool": FLAG,
    "int": WHOLE,
    "int | None": WHOLE,
    "float": NUMBER,
    "tuple[str, ...]": TEXTS,
    "tuple[PriceTier, ...]": Kind(
        lambda value: isinstance(value, list) and all(isinstance(tier, dict) for tier in value), "give a list of tables"
    ),
    "Decimal | None": Kind(lambda value: NUMBER.fits(value) or TEXT.fits(value), "give a number"),
    "Mapping[str, str]": TEXT_TABLE,
    "str | Mapping[str, str] | None": Kind(
        lambda value: TEXT.fits(value) or TEXT_TABLE.fits(value), "give a string, or a table of strings"
    ),
    "Mapping[str, int]": Kind(
        lambda value: isinstance(value, dict) and all(map(WHOLE.fits, value.values())), "give a table of whole numbers"
    ),
    "Mapping[str, str | None]": TEXT_TABLE,
    "Mapping[str, tuple[str, ...]]": Kind(
        lambda value: isinstance(value, dict) and all(TEXT.fits(own) or TEXTS.fits(own) for own in value.values()),
        "give a table of lists of strings",
    ),
    "Mapping[str, Callable[..., Any] | str]": TEXT_TABLE,
    "Mapping[str, bool]": Kind(
        lambda value: TEXTS.fits(value) or (isinstance(value, dict) and all(isinstance(does, bool) for does in value.values())),
        "give a table of true and false, or a list of what the model does",
    ),
    "Mapping[str, Mapping[str, Any]]": Kind(
        lambda value: TEXTS.fits(value) or (isinstance(value, dict) and all(isinstance(entry, (str, dict)) for entry in value.values())),
        'give a list of names, or a table of name = "wire id" or {id = "...", options = {...}}',
    ),
}
"""What a file may say for a field of a row, by the field's annotation. What the value itself must be, the row checks."""


def _kinds(row: type[ProviderConfig | ModelConfig]) -> dict[str, Kind]:
    return {field.alias or field.name: KINDS[str(field.type)] for field in attrs.fields(row)}


# For these a lone name cannot be meant otherwise: the row makes a tuple of it.
_LONE = dict.fromkeys(("base_url_env", "api_key_env", "ignore_models", "whitelist_models", "returns"), _NAMES)
PROVIDER: Mapping[str, Kind] = {**_kinds(ProviderConfig), **_LONE, "name": NAME, "api_keys": TEXTS}
MODEL: Mapping[str, Kind] = _kinds(ModelConfig)
SECRETS: Mapping[str, Kind] = {key: PROVIDER[key] for key in ("name", "api_key", "api_keys", "headers")}
OPTIONS: Mapping[str, Kind] = {
    "preferred_provider": NAME,
    "default_model": NAME,
    "deadline": SECONDS,
    "enable_fallback": FLAG,
    "hedge": SHARE,
    "max_attempts": COUNT,
    "on_unsupported": Kind(lambda value: value in ("error", "drop"), 'give "error" or "drop"'),
    "log_level": Kind(lambda value: isinstance(value, str), 'give a level, as "DEBUG"'),
    "log_format": Kind(lambda value: value in ("text", "json"), 'give "text" or "json"'),
    "metrics": FLAG,
    "telemetry": Kind(lambda value: isinstance(value, bool) or value == "content", 'give true, false or "content"'),
    "moderation_model": NAME,
    "max_media_bytes": COUNT,
    "allow_private_urls": FLAG,
    "redis_url": NAME,
    "redis_prefix": NAME,
    "state": NAME,
    "models_file": NAME,
    "models_ttl": SECONDS,
}
_LIMITS = dict.fromkeys((*RATES, "max_concurrent", "max_concurrent_per_key"), COUNT)
_MODEL_LIMITS = {rate: f"rate_limit_{rate}" for rate in RATES} | {"max_concurrent": "max_concurrent"}
_ALIAS = {"model": NAME, "options": TABLE}
_TARGETS = 'give targets = ["acme/large", {model = "other/large"}], names of models or tables with one'
_TABLES = ("providers", "models", "aliases", "routes", "limits")

_API_VERSION = {"api_version": 'put it into query = {"api-version" = "..."}'}
_PROVIDER_REMEDIES = {
    **dict.fromkeys(OPTIONS, "it is of no provider: put it above the first [table] of the file"),
    **_API_VERSION,
    "api_base": "did you mean 'base_url'?",
}
_SECRETS_HOLD = "a secrets file holds [[providers]] with name, api_key, api_keys and headers: put it into the file beside it"
_SECRETS_REMEDIES = {**_PROVIDER_REMEDIES, **dict.fromkeys(PROVIDER, _SECRETS_HOLD)}

_SECRET_HEADERS = frozenset({"authorization", "x-api-key", "api-key"})
_AT = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$")


def read_toml(path: Path, *, secrets: bool = False) -> Declared:
    """Read a settings file, or with ``secrets`` the file of keys beside one. All that is wrong is in ``faults``."""
    declared = Declared()
    text = read_text(path, declared)
    if text is None:
        return declared
    import tomllib

    try:
        data = tomllib.loads(text.content)
    except (ValueError, RecursionError) as exc:
        declared.faults.append(_broken(text.name, text.content, exc))
        return declared
    document = Document(text.name, locate(text.content), declared)
    if secrets:
        known = {"providers": TABLE}
        remedies = dict.fromkeys((*_TABLES, *OPTIONS), _SECRETS_HOLD)
        document.fields({k: v for k, v in data.items() if k not in known}, known, (), what="table of a secrets file", remedies=remedies)
        _providers(document, data.get("providers", []), SECRETS, _SECRETS_REMEDIES)
    else:
        _top(document, data)
    if text.shared and _holds_keys(declared):
        declared.warnings.append(f"{text.name}: holds keys and can be read by others: chmod 600 {text.name}")
    return declared


def _broken(name: str, text: str, exc: Exception) -> str:
    if isinstance(exc, RecursionError):
        return f"{name}: is nested too deeply: settings need no more than a few levels"
    # The reader's message names characters and keys, and no value.
    where = _AT.search(str(exc))
    line = where[1] if where and where[1] else str(len(text.splitlines()) or 1)
    place = f"{name}:{line}" if where else name
    return f"{place}: is no TOML ({_AT.sub('', str(exc))}): mend it; text stands in quotes, and a name with dots or slashes too"


def _holds_keys(declared: Declared) -> bool:
    headers = (fields["headers"].value for fields in declared.providers.values() if "headers" in fields)
    return bool(declared.keys) or any(name.lower() in _SECRET_HEADERS for table in headers for name in table)


def _top(document: Document, data: dict[str, Any]) -> None:
    declared = document.declared
    kinds = {**OPTIONS, **dict.fromkeys(_TABLES, TABLE)}
    rest = {key: value for key, value in data.items() if key not in _TABLES}
    declared.options.update(document.fields(rest, kinds, (), what="table and no option", remedies=_API_VERSION))
    _providers(document, data.get("providers", []), PROVIDER, _PROVIDER_REMEDIES)
    for name, table in document.tables(data.get("models"), ("models",)).items():
        read_model(document, name, table)
    _aliases(document, data.get("aliases"))
    for name, table in document.tables(data.get("routes"), ("routes",)).items():
        _route(document, name, table)
    for name, table in document.tables(data.get("limits"), ("limits",)).items():
        _limits(document, name, table)
    declared.faults += loop_faults(declared)


def _providers(document: Document, tables: Any, kinds: Mapping[str, Kind], remedies: Mapping[str, str]) -> None:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        document.fault(("providers",), "is no list of tables: begin each provider with [[providers]] and give it a name")
        return
    first: dict[str, int] = {}
    for index, table in enumerate(tables):
        place: Place = ("providers", index)
        fields = document.fields(table, kinds, place, remedies=remedies)
        if "name" not in table:
            document.fault(place, 'has no name: give it one, as name = "acme"')
        if "name" not in fields:
            continue
        name = fields.pop("name").value.strip()
        if canonical(name) in first:
            other = spelt(("providers", first[canonical(name)]))
            document.fault(
                (*place, "name"), f"is {name!r}, as {other} is (case, - and _ do not matter): make one of the two, or rename one"
            )
            continue
        first[canonical(name)] = index
        if "model" in fields:
            model = fields.pop("model")
            if "default_model" in fields:
                document.fault((*place, "model"), "is another name of default_model, which is given too: leave one out")
            fields["default_model"] = model
        _keys(document, name, place, fields.pop("api_key", None), fields.pop("api_keys", None))
        document.declared.provider(name).update(fields)


def _keys(document: Document, name: str, place: Place, one: Sourced | None, many: Sourced | None) -> None:
    found = [one] if one else []
    if many:
        found += [document.sourced(value, (*place, "api_keys", n)) for n, value in enumerate(many.value)]
    # A blank key is a place kept for one.
    keys = [Sourced(key.value.strip(), key.origin) for key in found if key.value.strip()]
    if keys:
        document.declared.keys[canonical(name)] = keys


def read_model(document: Document, name: str, table: dict[str, Any]) -> None:
    """Note what a file says of a model."""
    place: Place = ("models", name)
    remedies = {
        key: f'put a name with dots in quotes, as [models."{name}.{key}"]' for key, value in table.items() if isinstance(value, dict)
    }
    # A day may stand in quotes or without.
    plain = {key: value.isoformat() if type(value) is date else value for key, value in table.items()}
    fields = document.fields(plain, MODEL, place, remedies=remedies)
    if fields or not table:  # an empty table says that there is such a model
        document.declared.models[name] = document.sourced({key: field.value for key, field in fields.items()}, place)


def _aliases(document: Document, tables: Any) -> None:
    if tables is None or not document.fits(tables, TABLE, ("aliases",)):
        return
    for name, value in tables.items():
        place: Place = ("aliases", name)
        if isinstance(value, dict):
            if "model" not in value:
                shape = 'give a model, as {model = "acme/large", options = {...}}, or put a name with dots in quotes'
                document.fault(place, f"has no model: {shape}")
                continue
            fields = document.fields(value, _ALIAS, place)
            if "model" in fields:
                made = {key: field.value for key, field in fields.items()}
                document.declared.aliases[name] = document.sourced(made if "options" in made else made["model"], place)
        elif document.fits(value, Kind(NAME.fits, 'give the name of a model, or {model = "...", options = {...}}'), place):
            document.declared.aliases[name] = document.sourced(value, place)


def _route(document: Document, name: str, table: dict[str, Any]) -> None:
    place: Place = ("routes", name)
    targets = table.get("targets")
    if "targets" not in table:
        near = next((key for key in table if meant(key, ["targets"])), None)
        document.fault(place, f"has no targets: {_TARGETS}" + (f" (instead of {near!r})" if near else ""))
        return
    if not isinstance(targets, list) or not targets:
        document.fault((*place, "targets"), f"{'is empty' if targets == [] else 'is no list'}: {_TARGETS}")
        return
    nameless = [n for n, target in enumerate(targets) if not NAME.fits(target.get("model") if isinstance(target, dict) else target)]
    for n in nameless:
        document.fault((*place, "targets", n), f"names no model: {_TARGETS}")
    sound = "strategy" not in table or document.fits(table["strategy"], NAME, (*place, "strategy"))
    if sound and not nameless:
        document.declared.routes[name] = document.sourced(table, place)


def _limits(document: Document, name: str, table: dict[str, Any]) -> None:
    place: Place = ("limits", name)
    of_model = "/" in name
    kinds = {key: _LIMITS[key] for key in _MODEL_LIMITS} if of_model else _LIMITS
    remedies = {"max_concurrent_per_key": "it is a provider's: put it into [limits.PROVIDER]"} if of_model else {}
    remedies |= {
        key: f'put a name with dots in quotes, as [limits."{name}.{key}"]' for key, value in table.items() if isinstance(value, dict)
    }
    fields = document.fields(table, kinds, place, what="limit", remedies=remedies)
    declared = document.declared
    if not of_model:
        known = declared.provider(name)
        for key, field in fields.items():
            if key in known:
                document.fault((*place, key), f"is given at {known[key].origin} already: leave one out")
            known[key] = field
    elif fields:
        entry = declared.models.get(name)
        values = dict(entry.value) if entry else {}
        for key, field in fields.items():
            if _MODEL_LIMITS[key] in values:
                document.fault((*place, key), f'is given in [models."{name}"] as {_MODEL_LIMITS[key]} already: leave one out')
            values[_MODEL_LIMITS[key]] = field.value
        declared.models[name] = Sourced(values, entry.origin if entry else document.origin(place))
