"""The mapping behind ``PROVIDER_CONFIGS``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import attrs

from llm_master.errors import ConfigurationError
from llm_master.plugins import Plugin
from llm_master.rows import ProviderConfig, canonical


class ProviderTable(MutableMapping[str, ProviderConfig]):
    """Rows by name. Whatever is put in is checked whole, and nothing wrong gets in.

    A row may be given as a plain dict. Names are found in any case, with ``-`` or ``_``.

    The rows of plugins join the library's own when the table is first looked through, written to, or asked for a name that it
    does not have. They may claim no name that a row before them has.

    Args:
        rows: What it holds at first.
        default_class: ``provider_class`` of a row that names none.
        plugins: Loads the plugins: each with what it brings.
    """

    def __init__(
        self,
        rows: Mapping[str, ProviderConfig] | None = None,
        *,
        default_class: type | None = None,
        plugins: Callable[[], Iterable[tuple[Plugin, Any]]] = tuple,
    ) -> None:
        self._default_class = default_class
        self._rows: dict[str, ProviderConfig] = {}
        self._plugins = plugins
        self._whole = True
        self._loading: set[int] = set()
        self._lock = threading.Lock()
        self._origins: dict[str, str] = {}
        self.version = 0
        """Changes with every change of the table."""
        for name, row in (rows or {}).items():
            self[name] = row
        self._whole = False

    def __getitem__(self, name: str) -> ProviderConfig:
        key = canonical(name)
        return (self._rows if key in self._rows else self._all())[key]

    def __setitem__(self, name: str, row: ProviderConfig | Mapping[str, Any]) -> None:
        row = self._checked(name, row)
        # Before, so that a plugin's row is replaced as any other is, whenever this happens.
        self._all()[canonical(name)] = row
        self._origins.pop(canonical(name), None)
        self.version += 1

    def _checked(self, name: str, row: ProviderConfig | Mapping[str, Any]) -> ProviderConfig:
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError(f"a provider's name is a non-empty string, not {name!r}")
        if isinstance(row, ProviderConfig):
            row = attrs.evolve(row, name=name, provider_class=row.provider_class or self._default_class)
        elif isinstance(row, Mapping):
            row = ProviderConfig.from_mapping(name, {"provider_class": self._default_class, **row})
        else:
            raise ConfigurationError(f"provider row {name!r}: give a ProviderConfig or a dict of its fields, not a {type(row).__name__}")
        cls = row.provider_class
        if isinstance(cls, type) and not callable(getattr(cls, "generate", None)) and not callable(getattr(cls, "get_models", None)):
            raise ConfigurationError(f"provider row {name!r}: provider_class {cls.__name__} has no generate(); make it a BaseLLMProvider")
        if undefined := sorted(getattr(cls, "__abstractmethods__", ())):
            raise ConfigurationError(f"provider row {name!r}: provider_class {cls.__name__} leaves {', '.join(undefined)}() undefined")  # type: ignore[union-attr]
        return row

    def __delitem__(self, name: str) -> None:
        del self._all()[canonical(name)]
        self._origins.pop(canonical(name), None)
        self.version += 1

    def __iter__(self) -> Iterator[str]:
        return iter([row.name for row in self._all().values()])

    def __len__(self) -> int:
        return len(self._all())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (canonical(name) in self._rows or canonical(name) in self._all())

    def __repr__(self) -> str:
        return f"<PROVIDER_CONFIGS: {', '.join(self)}>"

    def origin_of(self, name: str) -> str:
        """Where a row is from: ``the table``, or the plugin that brought it."""
        return self._origins.get(canonical(name), "the table")

    def _all(self) -> dict[str, ProviderConfig]:
        """The rows, with those of plugins."""
        me = threading.get_ident()
        if self._whole or me in self._loading:  # a plugin that looks here while it is imported sees what there is
            return self._rows
        self._loading.add(me)
        try:
            # Without the lock: another thread may be importing one of them, and it may look here.
            found = list(self._plugins())
        finally:
            self._loading.discard(me)
        with self._lock:
            if not self._whole:
                before = len(self._rows)
                for plugin, what in found:
                    self._add(plugin, what)
                self._whole = True
                # Whatever a plugin derived from the table while it was imported is out of date.
                self.version += len(self._rows) > before
        return self._rows

    def _add(self, plugin: Plugin, what: Any) -> None:
        try:
            row = self._checked(plugin.name, ProviderConfig(provider_class=what) if isinstance(what, type) else what)
        except Exception as exc:  # whatever an object of somebody else's does when it is looked at
            plugin.refuse(str(exc) if isinstance(exc, ConfigurationError) else f"{type(exc).__name__}: {exc}")
            return
        if claimed := _claimed(row, self._rows):
            plugin.refuse("; ".join(claimed))
            return
        self._rows[canonical(row.name)] = row
        self._origins[canonical(row.name)] = plugin.origin


def _claimed(row: ProviderConfig, rows: Mapping[str, ProviderConfig]) -> list[str]:
    """The names by which a row would be asked and that lead to another already."""
    owners = {canonical(name): other.name for other in rows.values() for name in (other.name, *other.aliases)}
    claimed = [f"the name {name!r} is taken by {owners[canonical(name)]}" for name in (row.name, *row.aliases) if canonical(name) in owners]
    others = list(rows.values())[::-1]  # of two that claim the same, the resolver means the first
    heads = {
        head.lower(): other.name for other in others for head in (*other.prefixes, *map(_head, filter(_is_pattern, other.generate_map)))
    }
    exact = {model: other.name for other in others for model in (*other.models, *other.generate_map)}
    for model in dict.fromkeys((*row.prefixes, *row.models, *row.generate_map)):
        name = _head(model).lower()
        place = min((at for at in (name.find("/"), name.find(":")) if at > 0), default=-1)
        # As the resolver has it: of a name with a slash a prefix without one says nothing.
        owner = exact.get(model) or owners.get(canonical(name[:place]) if place > 0 else "")
        owner = owner or next((heads[head] for head in heads if name.startswith(head) and ("/" not in name or "/" in head)), None)
        if owner is not None:
            claimed.append(f"{model!r} leads to {owner} already")
    return claimed


def _is_pattern(key: str) -> bool:
    return key.endswith(("*", "{model}"))


def _head(key: str) -> str:
    return key.removesuffix("*").removesuffix("{model}")
