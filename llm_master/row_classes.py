"""A row's class, and what it says itself of how it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from llm_master.errors import ConfigurationError
from llm_master.providers.base import BaseLLMProvider, load
from llm_master.providers.http import HTTPProvider
from llm_master.providers.interface import ProviderInterface, asks_itself
from llm_master.providers.unified import UnifiedProvider
from llm_master.rows import ProviderConfig


def provider_class(row: ProviderConfig) -> type[BaseLLMProvider]:
    """The row's class, loaded if the row names it."""
    cls: type[BaseLLMProvider] = load(row.provider_class or UnifiedProvider, f"provider_class of provider {row.name!r}")
    return cls


def class_if_any(row: ProviderConfig) -> type | None:
    """The row's class; ``None`` where it cannot be loaded, which whoever asks this provider will be told."""
    try:
        return provider_class(row)
    except ConfigurationError:
        return None


def speaks_http(row: ProviderConfig) -> bool:
    """Whether the row needs an address."""
    cls = class_if_any(row)
    if (interface := interface_of(row)) is not None:
        return not asks_itself(interface)
    return isinstance(cls, type) and issubclass(cls, HTTPProvider)


def interface_of(row: ProviderConfig) -> type[ProviderInterface] | None:
    """The row's class, if it is a ``ProviderInterface``."""
    if row.provider_class is UnifiedProvider or (isinstance(row.provider_class, str) and row.provider_class.startswith("llm_master.")):
        return None  # known without loading it
    cls: Any = class_if_any(row)
    return cls if isinstance(cls, type) and issubclass(cls, ProviderInterface) else None


def with_class(name: str, row: ProviderConfig, origins: Mapping[tuple[str, str], str], faults: list[str]) -> ProviderConfig:
    """The row with what a ``ProviderInterface`` says for it, where the row and the settings say nothing."""
    cls = interface_of(row)
    if cls is None:
        return row
    most = cls.default_max_concurrent_per_key
    said: dict[str, Any] = {
        "skip_cost_calculation": cls.skip_cost_calculation,
        "rotation_mode": cls.default_rotation_mode,
        "max_concurrent_per_key": None if type(most) is int and most <= 0 else most,  # no limit, in such classes
    }
    fields = attrs.fields_dict(ProviderConfig)
    own = {field: value for field, value in said.items() if (name, field) not in origins and getattr(row, field) == fields[field].default}
    try:
        return attrs.evolve(row, **own)
    except ConfigurationError as exc:
        faults.append(f"provider class {cls.__name__} of {row.name!r}: {exc}")
        return row
