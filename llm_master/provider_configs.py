"""``PROVIDER_CONFIGS``, the table of providers; ``LLMConfig``, the settings; and the rows as one engine uses them.

A provider is added by one entry in ``provider_rows.py``, in a settings file, by a variable, or at run time::

    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url="https://api.acme.ai/v1", prefixes=("acme-",))
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from llm_master import plugins
from llm_master.errors import ConfigurationError
from llm_master.provider_rows import ROWS
from llm_master.provider_table import ProviderTable
from llm_master.providers.openrouter import OpenRouterProvider as OpenRouterProvider  # noqa: PLC0414  # shown here: it needs the table
from llm_master.providers.unified import UnifiedProvider
from llm_master.rows import ProviderConfig, canonical, key_attr
from llm_master.settings.declared import Declared
from llm_master.settings.environment import Environment, current_environment
from llm_master.settings.files import current_files
from llm_master.settings.options import Options
from llm_master.settings.routes import routes_of
from llm_master.snapshot import Snapshot, take

PROVIDER_CONFIGS = ProviderTable(ROWS, default_class=UnifiedProvider, plugins=lambda: plugins.load(plugins.PROVIDERS))
"""Every provider known, by name. Rows are frozen: ``attrs.evolve`` makes a changed one, and a new ``QueryLLM`` sees it.

Those of plugins are among them."""

UnifiedProvider.PROVIDER_CONFIGS = PROVIDER_CONFIGS

_NO_FILES = Declared()


class LLMConfig:
    """Settings: keys and addresses of providers, and how queries are made.

    Attributes are read from what was given here, else from the environment (and ``.env``), else from the files, else from
    the table. For each provider there are ``<name>_api_key`` and ``<name>_api_base``.

    Args:
        environment: Variables to read instead of the process environment and ``.env``; ``{}`` for none. Files are then read
            only where its ``LLM_MASTER_CONFIG`` or ``config_file`` names one.
        config_file: A TOML or YAML file to read instead of those that are found.
        api_keys: Provider -> its key, or several.
        rows: Provider -> fields of its row, for these settings alone: ``{"acme": {"max_concurrent_per_key": 2}}``. Those of
            ``"*"`` hold for every provider that says nothing else here.
        **fields: ``<name>_api_key``, ``<name>_api_base``, ``preferred_provider``, ``default_model``, ``max_attempts``
            (sends of one query over everything), ``deadline`` (seconds for a query that names none), ``on_unsupported``
            (``"error"``, or ``"drop"`` to leave out options that a provider does not take; the receipt lists them),
            ``max_concurrent`` (requests in flight to each provider that says nothing itself), ``moderation_model``,
            ``max_media_bytes`` (of one image or file that is sent), ``allow_private_urls`` (whether media may be fetched from
            private addresses), ``enable_fallback``, ``routes`` (name -> targets, see docs/routes.md),
            ``hedge`` (the share of queries that may be asked twice, see docs/limits.md), ``redis_url`` (a Redis through which
            processes share limits and key states), ``redis_prefix`` (what their names there begin with), ``state`` (a file that
            keeps key states over restarts, where there is no Redis), ``models_file`` (where lists of models are kept; ``"off"`` for
            nowhere) and ``models_ttl`` (seconds for which they hold), see docs/discovery.md, ``on_attempt`` and ``on_response`` (hooks), ``metrics``,
            ``telemetry``, ``log_level``, ``log_format``, ``clock``.

    Raises:
        TypeError: A field that there is not.
        ConfigurationError: A value that cannot be one.
    """

    def __init__(
        self,
        *,
        environment: Mapping[str, str] | None = None,
        config_file: str | Path | None = None,
        api_keys: Mapping[str, Any] | None = None,
        rows: Mapping[str, Mapping[str, Any]] | None = None,
        **fields: Any,
    ) -> None:
        self._given_environment = environment is not None and not isinstance(environment, Environment)
        self._environment = environment if environment is None or isinstance(environment, Environment) else Environment(environment)
        self._config_file = Path(config_file) if config_file is not None else None
        # Hashable, since settings are compared by it.
        self._api_keys = _keys_of_providers(api_keys)
        if fields.get("routes") is not None:
            fields["routes"] = routes_of(fields["routes"])  # what can be compared
        self._rows = _fields_of_rows(rows)
        self._rows_to_compare = _hashable(self._rows)
        self._fields = fields
        self._check(fields)

    def _check(self, fields: Mapping[str, Any]) -> None:
        known = {field.name for field in attrs.fields(Options)}
        if not fields.keys() <= known:
            # Only now, since plugins are looked for to tell the table's providers.
            known.update(_fields_of(PROVIDER_CONFIGS))
        if not fields.keys() <= known:
            # Only now, since it takes longer: providers that files and variables declare.
            known.update(_fields_of(take(PROVIDER_CONFIGS.values(), self.files, {}, (), self.environment, UnifiedProvider).rows))
        for name in fields.keys() - known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else "a provider must stand in PROVIDER_CONFIGS before its key is given"
            raise TypeError(f"LLMConfig has no field {name!r}: {hint}")
        Options(**{field.name: fields[field.name] for field in attrs.fields(Options) if fields.get(field.name) is not None})

    @classmethod
    def from_env(cls) -> LLMConfig:
        """The settings of the process environment and the ``.env`` of the working folder, as they are now."""
        return cls(environment=current_environment())

    @staticmethod
    def field_names() -> list[str]:
        """All fields, with those of the rows that the table holds now."""
        return [field.name for field in attrs.fields(Options)] + _fields_of(PROVIDER_CONFIGS)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._fields.get(name) is not None:
            return self._fields[name]
        snapshot = effective(self)
        for provider, row in snapshot.rows.items():
            if name == key_attr(row):
                return next((key.secret for key in snapshot.keys[provider]), None)
            if name == f"{provider}_api_base":
                return row.base_url
        for field in attrs.fields(Options):
            if field.name == name:
                return getattr(snapshot.options, name)
        raise AttributeError(f"LLMConfig has no field {name!r}")

    def __repr__(self) -> str:
        # Neither keys nor addresses, which may hold one.
        return f"<LLMConfig: {', '.join(sorted(self._fields)) or 'nothing set here'}>"

    @property
    def environment(self) -> Environment:
        """The variables that these settings read."""
        return self._environment if self._environment is not None else current_environment()

    @property
    def files(self) -> Declared:
        """What the settings files say; the same object while they do not change."""
        environment = self.environment
        if self._config_file is None and self._given_environment and not environment.find("LLM_MASTER_CONFIG"):
            return _NO_FILES
        return current_files(environment, explicit=self._config_file)

    @property
    def api_keys(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The keys that were given here, provider by provider."""
        return self._api_keys

    def replace(self, fields: Mapping[str, Any]) -> LLMConfig:
        """The same settings with some replaced."""
        own: dict[str, Any] = {
            "environment": dict(self._environment or {}) if self._given_environment else self._environment,
            "config_file": self._config_file,
            "api_keys": dict(self._api_keys),
            "rows": self._rows,
        }
        return LLMConfig(**{**own, **self._fields, **fields})

    def fingerprint(self) -> tuple[Any, ...]:
        """Equal for settings that were given equal fields; the environment and the files are compared apart."""
        return (self._config_file, self._api_keys, self._rows_to_compare, *sorted(self._fields.items(), key=lambda item: item[0]))

    def validate(self) -> dict[str, bool]:
        """Whether each provider could be asked: it has its key, or needs none, and has an address."""
        snapshot = effective(self)
        return {name: snapshot.usable(name) for name in snapshot.rows}


def effective(config: LLMConfig) -> Snapshot:
    """The rows one engine uses: arguments over environment over files over the table.

    Raises:
        ConfigurationError: Everything that is wrong in variables, files and arguments, each with its place.
    """
    snapshot = take(
        PROVIDER_CONFIGS.values(), config.files, config._fields, config.api_keys, config.environment, UnifiedProvider, config._rows
    )
    snapshot.refuse()
    return snapshot


def _keys_of_providers(api_keys: Any) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if api_keys is not None and not isinstance(api_keys, Mapping):
        raise ConfigurationError(f'api_keys is a {type(api_keys).__name__}: give {{"acme": "its key", "other": ["one", "another"]}}')
    found = []
    for name, keys in (api_keys or {}).items():
        if keys is None:  # says "not given", as a variable that is not set
            continue
        several = (keys,) if isinstance(keys, str) else keys
        if not isinstance(name, str) or not isinstance(several, (list, tuple)) or not all(isinstance(key, str) for key in several):
            raise ConfigurationError(f"api_keys[{name!r}] is no key: give a string, or a list of strings")
        found.append((name, tuple(several)))
    return tuple(found)


def _fields_of_rows(rows: Any) -> dict[str, dict[str, Any]]:
    if rows is None:
        return {}
    if not isinstance(rows, Mapping) or not all(isinstance(name, str) and isinstance(own, Mapping) for name, own in rows.items()):
        raise ConfigurationError('rows is not of the form {"acme": {"max_retries": 0}}: give fields of ProviderConfig for each provider')
    known = {field.alias or field.name for field in attrs.fields(ProviderConfig)} - {"name"}
    for name, own in rows.items():
        for field in own.keys() - known:
            near = difflib.get_close_matches(str(field), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else "give fields of ProviderConfig"
            raise ConfigurationError(f"rows[{name!r}]: a provider's row has no field {field!r}: {hint}")
    return {name: dict(own) for name, own in rows.items()}


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(sorted((str(name), _hashable(own)) for name, own in value.items()))
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple)) else value


def _fields_of(rows: Mapping[str, Any]) -> list[str]:
    return [field for row in rows.values() for field in (key_attr(row), f"{canonical(row.name)}_api_base")]
