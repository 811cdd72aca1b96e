"""The mapping behind ``PROVIDER_CONFIGS``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import attrs

from llm_master.errors import ConfigurationError
from llm_master.rows import ProviderConfig, canonical


class ProviderTable(MutableMapping[str, ProviderConfig]):
    """Rows by name. Whatever is put in is checked whole, and nothing wrong gets in.

    A row may be given as a plain dict. Names are found in any case, with ``-`` or ``_``.

    Args:
        rows: What it holds at first.
        default_class: ``provider_class`` of a row that names none.
    """

    def __init__(self, rows: Mapping[str, ProviderConfig] | None = None, *, default_class: type | None = None) -> None:
        self._default_class = default_class
        self._rows: dict[str, ProviderConfig] = {}
        self.version = 0
        """Changes with every change of the table."""
        for name, row in (rows or {}).items():
            self[name] = row

    def __getitem__(self, name: str) -> ProviderConfig:
        return self._rows[canonical(name)]

    def __setitem__(self, name: str, row: ProviderConfig | Mapping[str, Any]) -> None:
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError(f"a provider's name is a non-empty string, not {name!r}")
        if isinstance(row, ProviderConfig):
            row = attrs.evolve(row, name=name, provider_class=row.provider_class or self._default_class)
        elif isinstance(row, Mapping):
            row = ProviderConfig.from_mapping(name, {"provider_class": self._default_class, **row})
        else:
            raise ConfigurationError(f"provider row {name!r}: give a ProviderConfig or a dict of its fields, not a {type(row).__name__}")
        cls = row.provider_class
        if isinstance(cls, type) and not callable(getattr(cls, "generate", None)):
            raise ConfigurationError(f"provider row {name!r}: provider_class {cls.__name__} has no generate(); make it a BaseLLMProvider")
        self._rows[canonical(name)] = row
        self.version += 1

    def __delitem__(self, name: str) -> None:
        del self._rows[canonical(name)]
        self.version += 1

    def __iter__(self) -> Iterator[str]:
        return iter([row.name for row in self._rows.values()])

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and canonical(name) in self._rows

    def __repr__(self) -> str:
        return f"<PROVIDER_CONFIGS: {', '.join(self)}>"
