"""What variables say of providers: addresses, keys, models and the rest, by the providers' names.

No provider is known here: whose a variable is, the rows say that are given. Of names, case does not matter, nor do ``-`` and
``_``. What is blank counts as unset. No key and no header's value is repeated in a fault.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llm_master.row_checks import base_url_faults
from llm_master.rows import ProviderConfig, canonical
from llm_master.settings import variable_values as values
from llm_master.settings.declared import Declared, Sourced
from llm_master.settings.environment import Environment
from llm_master.settings.options import LEVELS

_Reader = Callable[[str], Any]

_OF_ALL: dict[str, tuple[str, _Reader]] = {
    "preferred_provider": ("preferred_provider", canonical),
    "default_model": ("default_model", str),
    "enable_fallback": ("enable_fallback", values.truth),
    "global_timeout": ("deadline", values.seconds),
    "llm_master_moderation_model": ("moderation_model", str),
    "llm_master_max_media_bytes": ("max_media_bytes", values.whole(1)),
    "llm_master_allow_private_urls": ("allow_private_urls", values.truth),
    "llm_master_log_format": ("log_format", values.word("text", "json")),
    "llm_master_metrics": ("metrics", values.truth),
    "llm_master_telemetry": ("telemetry", values.truth_or("content")),
    "llm_master_max_attempts": ("max_attempts", values.whole(1)),
    "llm_master_redis_url": ("redis_url", str),
    "llm_master_redis_prefix": ("redis_prefix", str),
    "llm_master_state": ("state", str),
    "llm_master_models_file": ("models_file", str),
    "llm_master_models_ttl": ("models_ttl", values.seconds),
    "llm_master_on_unsupported": ("on_unsupported", values.word("error", "drop")),
}
"""Variable -> option, and how it is read."""

_PREFIXES: dict[str, tuple[str, _Reader]] = {
    "ignore_models_": ("ignore_models", values.names),
    "whitelist_models_": ("whitelist_models", values.names),
    "max_concurrent_requests_per_key_": ("max_concurrent_per_key", values.limit),
    "rotation_mode_": ("rotation_mode", values.word("balanced", "sequential")),
}
"""What stands before a provider's name -> field of its row, and how it is read."""

_SUFFIXES: dict[str, tuple[str, _Reader]] = {
    "models": ("models", values.models),
    "default_model": ("default_model", str),
    "timeout": ("timeout", values.seconds),
    "max_retries": ("max_retries", values.whole(0)),
    "enabled": ("enabled", values.truth),
    "provider_name": ("display_name", str),
    "scope": ("scope", str),
    "folder_id": ("folder_id", str),
    "auth_url": ("paths", values.place("oauth")),
    "verify_ssl": ("verify_ssl", values.truth),
    "verify_ssl_certs": ("verify_ssl", values.truth),
    "ca_bundle": ("ca_bundle", str),
    "ca_bundle_file": ("ca_bundle", str),
}
"""What stands behind a provider's name -> field of its row, and how it is read."""

_HEADERS = ("custom_headers", "headers")
"""Both are laid over the row's headers, in this order."""

_ADDRESS = ("api_base", "base_url")
"""Where an address is looked for, in this order, before the row's ``base_url_env``."""

_LOG_LEVEL = "log_level"

_SECTION = "_settings"
"""May stand behind a provider's name, which is then a worse match than without."""

_LIMIT = "max_concurrent_requests_per_key_"
_MODES = ("balanced", "sequential")
_FIELD = "field "
_VARIABLE = re.compile(r"\{([A-Z0-9_]+)\}")
_OPTIONAL = re.compile(r"\[([^\]]*)\]")
_NUMBERED = re.compile(r"(.+)_([0-9]{1,18})")

_Ranked = list[tuple[tuple[int, ...], str]]
"""Names of variables that say the same thing; the least rank holds."""


def read_variables(environment: Environment, known: Mapping[str, ProviderConfig]) -> Declared:
    """What the environment says, to be laid over the rows.

    Args:
        environment: The variables.
        known: The rows of the table and of the files, by canonical name.

    Returns:
        ``providers`` has the fields that variables set: of rows in ``known``, and of those that a ``<NAME>_API_BASE`` makes.
        What is wrong stands in ``faults``, and nothing is raised.
    """
    return _Reading(environment, known).read()


def known_parameters(row: ProviderConfig | None) -> list[str]:
    """The parameters that may stand in an address behind its ``?``."""
    return [field.removeprefix("query.") for field in row.field_env if field.startswith("query.")] if row is not None else []


def _by_name(environment: Environment) -> dict[str, Sourced]:
    """The variables that are set, by canonical name. Of two spellings, the one in capitals holds, else the later one."""
    found: dict[str, Sourced] = {}
    for spelt, text in environment.items():
        value = text.strip()
        if not value:
            continue
        name = canonical(spelt)
        if name not in found or found[name].origin != f"${name.upper()}":
            found[name] = Sourced(value, f"${spelt}")
    return found


def _parted(name: str) -> Iterator[tuple[str, str]]:
    """How a name may be a provider's and what is set of it: one word to three, the longest provider first."""
    provider, what = name, ""
    for _ in range(3):
        provider, _, word = provider.rpartition("_")
        if not provider:
            return
        what = f"{word}_{what}" if what else word
        yield provider, what


class _Reading:
    """One reading of the environment."""

    def __init__(self, environment: Environment, known: Mapping[str, ProviderConfig]) -> None:
        self.variables = _by_name(environment)
        self.known = known
        self.declared = Declared()
        # Every name by which a provider goes -> its own.
        self.names = {name: name for name in known}
        # Variable -> provider -> its place among those that the row names.
        self.named_addresses: dict[str, dict[str, int]] = {}
        self.named_keys: dict[str, dict[str, int]] = {}
        self.named_fields: dict[str, list[tuple[str, str, int]]] = {}
        for name, row in known.items():
            for alias in row.aliases:
                self.names.setdefault(canonical(alias), name)
            for place, variable in enumerate(row.base_url_env):
                self.named_addresses.setdefault(canonical(variable), {}).setdefault(name, place)
            for field, variables in row.field_env.items():
                for place, variable in enumerate(variables):
                    self.named_fields.setdefault(canonical(variable), []).append((name, field, place))
            for place, variable in enumerate(row.api_key_env):
                self.named_keys.setdefault(canonical(variable), {}).setdefault(name, place)
        # (provider, what is set of it) -> the variables that set it.
        self.said: defaultdict[tuple[str, str], _Ranked] = defaultdict(list)
        self.keys: defaultdict[str, _Ranked] = defaultdict(list)

    def read(self) -> Declared:
        # The shortest first: where ACME_API_BASE makes a provider, ACME_SETTINGS_API_BASE makes no other.
        for name in sorted((name for name in self.variables if name.endswith("_api_base")), key=len):
            self._make(name)
        for name in self.variables:
            self._sort(name)
        for (provider, what), ranked in self.said.items():
            if what == "address":
                self._set_address(provider, min(ranked)[1])
            elif (field := _SUFFIXES.get(what) or _PREFIXES.get(what)) is not None:
                self._set(provider, min(ranked)[1], *field)
        for (provider, what), ranked in self.said.items():
            if what.startswith(_FIELD):
                self._set_field(provider, what.removeprefix(_FIELD), min(ranked)[1])
        for provider in dict.fromkeys(provider for provider, what in self.said if what in _HEADERS):
            self._set_headers(provider)
        for provider in dict.fromkeys(provider for provider, what in self.said if what in _MODES):
            self._set_limit_of_mode(provider)
        for provider, ranked in self.keys.items():
            keys: dict[str, Sourced] = {}
            for _, name in sorted(ranked):
                variable = self.variables[name]
                first = keys.setdefault(variable.value, variable)
                if first is not variable and _NUMBERED.fullmatch(name):
                    self.declared.warnings.append(f"{variable.origin} holds the same key as {first.origin}: it counts once")
            self.declared.keys[provider] = list(keys.values())
        for provider, row in self.known.items():
            if row.ambient_keys and provider not in self.declared.keys and (key := self._ambient_key(row)) is not None:
                self.declared.ambient[provider] = key
        return self.declared

    # Whose a variable is

    def _owner(self, part: str) -> tuple[str, int] | None:
        """The provider that a part of a variable's name means, and how badly it fits: 0 is its own name."""
        for name, penalty in ((part, 0), (part.removesuffix(_SECTION), 2)):
            if (own := self.names.get(name)) is not None:
                return own, penalty + (own != name)
        return None

    def _make(self, name: str) -> None:
        """Make the provider of a ``<NAME>_API_BASE`` that nobody else has a use for."""
        part = name.removesuffix("_api_base")
        if not part.strip("_") or name.startswith(tuple(_PREFIXES)) or name in self.named_addresses or self._owner(part):
            return
        variable = self.variables[name]
        if variable.value.startswith("/"):
            # Web sites keep the path of their own API under such names. That must not keep anybody from asking a model.
            self.declared.warnings.append(
                f"{variable.origin} is a path, and makes no provider: begin with https:// (or http://) and a host if it is to make one"
            )
        elif any(character in "/:" or character.isspace() for character in part):
            self.declared.faults.append(f"{variable.origin}: a provider cannot be named {part!r}: leave out '/', ':' and spaces")
        else:
            self.names[part] = part
            self.declared.provider(part)["requires_key"] = Sourced(value=False, origin=variable.origin)

    def _sort(self, name: str) -> None:
        """See what a variable sets, and of whom."""
        if name in _OF_ALL:
            option, reader = _OF_ALL[name]
            if (value := self._value(name, reader)) is not None:
                self.declared.options[option] = value
            return
        if name == _LOG_LEVEL:
            self._set_log_level(self.variables[name])
            return
        for prefix in _PREFIXES:
            if name.startswith(prefix) and len(name) > len(prefix):
                self._sort_prefixed(name, prefix)
                return
        self._sort_key(name)
        for provider, field, place in self.named_fields.get(name, ()):
            self.said[provider, _FIELD + field].append(((place,), name))
        named = self.named_addresses.get(name, {})
        for provider, place in named.items():
            self.said[provider, "address"].append(((len(_ADDRESS) + place,), name))
        for part, what in _parted(name):
            if what not in _SUFFIXES and what not in _HEADERS and what not in _ADDRESS:
                continue
            if (owner := self._owner(part)) is None:
                continue
            provider, penalty = owner
            if what not in _ADDRESS:
                if what != "models" or not values.is_folder(self.variables[name].value):
                    self.said[provider, what].append(((penalty,), name))
            elif not named or provider in named:
                self.said[provider, "address"].append(((_ADDRESS.index(what), penalty), name))
            return

    def _sort_prefixed(self, name: str, prefix: str) -> None:
        part = name.removeprefix(prefix)
        if (owner := self._owner(part)) is not None:
            self.said[owner[0], prefix].append(((owner[1],), name))
            return
        # The limit may hold in one rotation mode only: MAX_CONCURRENT_REQUESTS_PER_KEY_ACME_BALANCED.
        head, _, mode = part.rpartition("_")
        if prefix == _LIMIT and mode in _MODES and (owner := self._owner(head)) is not None:
            self.said[owner[0], mode].append(((owner[1],), name))
            return
        near = difflib.get_close_matches(part, self.names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"set ${part.upper()}_API_BASE to its address, or take this out"
        self.declared.faults.append(f"{self.variables[name].origin}: there is no provider {part!r}: {hint}")

    def _sort_key(self, name: str) -> None:
        for provider, place in self.named_keys.get(name, {}).items():
            self.keys[provider].append(((2 + place, -1), name))
        self._add_own_key(name, name, -1)
        # A variable that a row names is not another's first, second, third.
        if name not in self.named_keys and (parts := _NUMBERED.fullmatch(name)):
            base, number = parts[1], int(parts[2])
            for provider, place in self.named_keys.get(base, {}).items():
                self.keys[provider].append(((2 + place, number), name))
            self._add_own_key(name, base, number)

    def _add_own_key(self, name: str, base: str, number: int) -> None:
        part = base.removesuffix("_api_key")
        if part != base and (provider := self.names.get(part)) is not None:
            self.keys[provider].append(((int(provider != part), number), name))

    # What it says

    def _value(self, name: str, reader: _Reader) -> Sourced | None:
        variable = self.variables[name]
        try:
            return Sourced(reader(variable.value), variable.origin)
        except ValueError as exc:
            self.declared.faults.append(f"{variable.origin}: {exc}")
            return None

    def _fields(self, provider: str) -> dict[str, Sourced]:
        row = self.known.get(provider)
        self.declared.names.setdefault(provider, (row and row.name) or provider)
        return self.declared.provider(provider)

    def _set(self, provider: str, name: str, field: str, reader: _Reader) -> None:
        if (value := self._value(name, reader)) is not None:
            self._fields(provider)[field] = value

    def _set_address(self, provider: str, name: str) -> None:
        row = self.known.get(provider)
        variable = self.variables[name]
        address, query = values.without_query(variable.value, known_parameters(row))
        # Servers read where to listen from such a variable, and their clients where to find them.
        if name in self.named_addresses and name.endswith("_host"):
            address = values.listening_address(address, row.base_url if row else None)
        address = values.base_url(address)
        if "?" in address:
            # What follows may be a key, so that it is not repeated.
            faults = [f"{variable.origin} has a '?': leave out what follows it, and give it as query of the provider's row"]
        else:
            faults = base_url_faults(address, variable.origin)
        # Two rows may find their address in one variable.
        self.declared.faults += [fault for fault in faults if fault not in self.declared.faults]
        if not faults:
            address = values.with_path(address, row.default_path) if row else address
            self._fields(provider)["base_url"] = Sourced(address, variable.origin)
            if query:
                self._fields(provider)["query"] = Sourced(query, variable.origin)

    def _set_field(self, provider: str, field: str, name: str) -> None:
        variable, fields = self.variables[name], self._fields(provider)
        table, _, parameter = field.partition(".")
        if not parameter:
            fields[field] = variable
        elif table not in fields or parameter not in fields[table].value:  # what stands in the address itself holds
            fields[table] = Sourced({parameter: variable.value, **(fields[table].value if table in fields else {})}, variable.origin)

    def _ambient_key(self, row: ProviderConfig) -> Sourced | None:
        """The key that variables of another tool's stand for."""
        for name, form in row.ambient_keys.items():
            if (variable := self.variables.get(canonical(name))) is not None:
                key = _OPTIONAL.sub(lambda part: self._filled(part[1]) if self._held(part[1]) else "", form)
                return Sourced(self._filled(key), variable.origin)
        return None

    def _held(self, form: str) -> bool:
        return all(canonical(name) in self.variables for name in _VARIABLE.findall(form))

    def _filled(self, form: str) -> str:
        return _VARIABLE.sub(lambda part: found.value if (found := self.variables.get(canonical(part[1]))) is not None else "", form)

    def _set_log_level(self, variable: Sourced) -> None:
        if variable.value.upper() in LEVELS:
            self.declared.options[_LOG_LEVEL] = variable
        else:
            # Other programs read it too, and know other levels.
            self.declared.warnings.append(
                f"{variable.origin} is {variable.value!r}, which is no level here: give one of {', '.join(LEVELS)}"
            )

    def _set_headers(self, provider: str) -> None:
        row = self.known.get(provider)
        headers: Mapping[str, str] = row.headers if row else {}
        origins = []
        for what in _HEADERS:
            ranked = self.said.get((provider, what))
            if ranked and (given := self._value(min(ranked)[1], values.headers)) is not None:
                headers = values.laid_over(headers, given.value)
                origins.append(given.origin)
        if origins:
            self._fields(provider)["headers"] = Sourced(headers, " and ".join(origins))

    def _set_limit_of_mode(self, provider: str) -> None:
        fields, row = self.declared.providers.get(provider, {}), self.known.get(provider)
        mode = fields["rotation_mode"].value if "rotation_mode" in fields else row.rotation_mode if row else _MODES[0]
        if ranked := self.said.get((provider, mode)):
            self._set(provider, min(ranked)[1], *_PREFIXES[_LIMIT])
