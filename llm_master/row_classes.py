"""A row's class, and what it says itself of how it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

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


def placed(name: str, row: ProviderConfig, origins: Mapping[tuple[str, str], str], faults: list[str]) -> ProviderConfig:
    """The row as its class reads the address that settings gave, by the class that is for this host."""
    if row.host_classes and (name, "provider_class") not in origins and (cls := at_host(row.base_url, row.host_classes)) is not None:
        row = attrs.evolve(row, provider_class=cls)
    known = class_if_any(row)
    if not isinstance(known, type) or not issubclass(known, BaseLLMProvider):
        return row
    try:
        return known.placed(row)
    except ConfigurationError as exc:
        faults.append(f"{origins[name, 'base_url']}: {exc}")
        return row


def at_host(base_url: str | None, by_host: Mapping[str, str]) -> str | None:
    """What is said of an address's host, or of a domain that it is in."""
    host = urlsplit(base_url or "").hostname or ""
    return next((said for known, said in by_host.items() if f".{host}".endswith(f".{known}")), None)
