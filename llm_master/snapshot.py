"""What one engine uses: the table's rows with all settings applied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from llm_master.clock import SYSTEM_CLOCK, Clock
from llm_master.dispatch.keys import Key
from llm_master.errors import ConfigurationError
from llm_master.providers.base import BaseLLMProvider, load
from llm_master.providers.http import HTTPProvider
from llm_master.providers.unified import UnifiedProvider
from llm_master.row_checks import base_url_faults
from llm_master.rows import ProviderConfig, base_variable, canonical, key_attr, key_variables
from llm_master.settings.environment import Environment


@attrs.frozen
class Options:
    """What ``LLMConfig`` holds beside keys and addresses."""

    preferred_provider: str | None = None
    default_model: str | None = None
    max_attempts: int = 10
    on_unsupported: str = "error"
    moderation_model: str | None = None
    max_media_bytes: int = 20 * 2**20
    allow_private_urls: bool = False
    clock: Clock = SYSTEM_CLOCK


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

    def usable(self, name: str) -> bool:
        """Whether a provider could be asked."""
        row = self.rows[name]
        if row.requires_key and not self.keys[name]:
            return False
        return row.base_url is not None or not _speaks_http(row)


def take(table: Iterable[ProviderConfig], fields: Mapping[str, Any], environment: Environment, options: Options) -> Snapshot:
    """Apply fields over the environment over the rows. The table itself is not touched.

    Raises:
        ConfigurationError: A key or an address that cannot be one, naming the variable.
    """
    rows = {}
    keys = {}
    for row in table:
        base_url, default_model = base_url_of(row, fields, environment), row.default_model
        if base_url is None or default_model is None:
            # A class in the short form may say itself where it is and what it asks.
            cls = _class_if_any(row)
            base_url = base_url or getattr(cls, "DEFAULT_BASE_URL", None)
            default_model = default_model or getattr(cls, "DEFAULT_MODEL", None)
        changed = (base_url, default_model) != (row.base_url, row.default_model)
        name = canonical(row.name)
        paths = row.paths if base_url == row.base_url else {place: _moved(path, base_url) for place, path in row.paths.items()}
        rows[name] = attrs.evolve(row, base_url=base_url, default_model=default_model, paths=paths) if changed else row
        keys[name] = keys_of(row, fields, environment)
    proxies = {name: value for name, value in environment.items() if name.lower() in _PROXIES}
    return Snapshot(keys, options, proxies, rows)


def _moved(path: str, base_url: str | None) -> str:
    """A place that the row names whole, on the host that the settings name: whoever moves a provider moves all of it."""
    if base_url is None or not path.startswith(("http://", "https://")):
        return path
    return "/".join(base_url.split("/", 3)[:3]) + "/" + path.split("/", 3)[3]


def keys_of(row: ProviderConfig, fields: Mapping[str, Any], environment: Environment) -> tuple[Key, ...]:
    """A provider's keys, from a field, else a variable, else the row."""
    attr = key_attr(row)
    given = fields.get(attr)
    if given is not None:
        if not isinstance(given, str):
            raise ConfigurationError(f"{attr} is a {type(given).__name__}: give the key as a string")
        return (Key.checked(given, attr),) if given.strip() else ()
    for variable in key_variables(row):
        if found := environment.find(variable):
            return (Key.checked(found[1], found[0]),)
    return (Key.checked(row.api_key, f"{row.name} row"),) if row.api_key and row.api_key.strip() else ()


def base_url_of(row: ProviderConfig, fields: Mapping[str, Any], environment: Environment) -> str | None:
    """A provider's address, from a field, else a variable, else the row."""
    attr = f"{canonical(row.name)}_api_base"
    source, value = attr, fields.get(attr)
    if value is None and (found := environment.find(base_variable(row))):
        source, value = found
    if value is None:
        return row.base_url
    value = str(value).strip().rstrip("/").removesuffix("/chat/completions")
    if faults := base_url_faults(value, source):
        raise ConfigurationError("; ".join(faults))
    return value


def provider_class(row: ProviderConfig) -> type[BaseLLMProvider]:
    """The row's class, loaded if the row names it."""
    cls: type[BaseLLMProvider] = load(row.provider_class or UnifiedProvider, f"provider_class of provider {row.name!r}")
    return cls


def _class_if_any(row: ProviderConfig) -> type | None:
    """The row's class; ``None`` where it cannot be loaded, which whoever asks this provider will be told."""
    try:
        return provider_class(row)
    except ConfigurationError:
        return None


def _speaks_http(row: ProviderConfig) -> bool:
    cls = _class_if_any(row)
    return isinstance(cls, type) and issubclass(cls, HTTPProvider)
