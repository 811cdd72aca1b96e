"""Where a row is asked: the address that settings give, what its class makes of it, and the places that move with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs

from llm_master.row_checks import base_url_faults
from llm_master.row_classes import at_host, class_if_any, placed, with_class
from llm_master.rows import ProviderConfig, canonical
from llm_master.settings.variable_values import with_path, without_query
from llm_master.settings.variables import known_parameters


def with_address(
    row: ProviderConfig,
    fields: Mapping[str, Any],
    usual: ProviderConfig,
    origins: dict[tuple[str, str], str],
    faults: list[str],
) -> ProviderConfig:
    """The row with the address that an argument gives, and with what its class or its address says itself.

    ``usual`` is the table's row, whose ``paths`` move with the address. Those that settings say stay where they are.
    """
    name = canonical(row.name)
    base_url, default_model, display = row.base_url, row.default_model, row.display_name
    if (value := fields.get(f"{name}_api_base")) is not None:
        given, query = without_query(str(value).strip(), known_parameters(row))
        given = given.rstrip("/").removesuffix("/chat/completions")
        if wrong := base_url_faults(given, f"{name}_api_base"):
            faults += wrong
        else:
            base_url = given
            origins[name, "base_url"] = "argument"
            row = attrs.evolve(row, query={**row.query, **query}) if query else row
    row = with_class(name, row, origins, faults)
    moved = (name, "base_url") in origins
    if moved and base_url is not None:
        # However it was given: the address of a server alone means its usual path.
        base_url = with_path(base_url.rstrip("/"), row.default_path)
    if base_url is None or default_model is None:
        # A class in the short form may say itself where it is and what it asks.
        cls = class_if_any(row)
        base_url = base_url or getattr(cls, "DEFAULT_BASE_URL", None)
        default_model = default_model or getattr(cls, "DEFAULT_MODEL", None)
    if base_url is not None and row.region:
        base_url = base_url.replace("{region}", row.region)
    if row.display_names and base_url is not None and (name, "display_name") not in origins:
        display = _called(base_url, row)
    paths = row.paths
    if moved and not _same_domain(base_url, usual.base_url):
        paths = {place: _moved(path, base_url) if path == usual.paths.get(place) else path for place, path in paths.items()}
    if (base_url, default_model, display, paths) != (row.base_url, row.default_model, row.display_name, row.paths):
        row = attrs.evolve(row, base_url=base_url, default_model=default_model, display_name=display, paths=paths)
    return placed(name, row, origins, faults) if moved else row


def _called(base_url: str, row: ProviderConfig) -> str:
    """What the row's API is called at this address."""
    return at_host(base_url, row.display_names) or row.display_name


def _same_domain(base_url: str | None, other: str | None) -> bool:
    """Whether two addresses are of one owner: another version of its API, or its host for another region."""
    first, second = (((urlsplit(url or "").hostname or "").split(".")[-2:]) for url in (base_url, other))
    return len(first) == 2 and first == second


def _moved(path: str, base_url: str | None) -> str:
    """A place that the row names whole, on the host that the settings name: whoever moves a provider moves all of it."""
    if base_url is None or not path.startswith(("http://", "https://")):
        return path
    return "/".join(base_url.split("/", 3)[:3]) + "/" + path.split("/", 3)[3]
