"""``PROVIDER_PLUGINS``: every provider there is now, as a class that says how it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import attrs

from llm_master.engines import engine_for
from llm_master.names import new_provider
from llm_master.provider_configs import PROVIDER_CONFIGS
from llm_master.providers.interface import ProviderInterface
from llm_master.row_classes import interface_of
from llm_master.rows import ProviderConfig, canonical
from llm_master.snapshot import Snapshot


class _OfRow(ProviderInterface):
    """A provider of the table, or of settings, as such a class. Its models are asked by name: of ``QueryLLM``, ``RotatingClient``."""

    row: ClassVar[ProviderConfig]

    async def get_models(self, api_key: str, client: Any = None) -> list[str]:
        """The models that the provider lists, as ``"provider/model"``."""
        provider = new_provider(attrs.evolve(self.row, api_key=api_key or None))
        return [f"{canonical(self.row.name)}/{model}" for model in await provider.list_models()]


class _View(Mapping[str, type[ProviderInterface]]):
    """Provider's name -> class. Settings are read when it is looked into, so that it is as they are then."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[tuple[Any, ...], type[ProviderInterface]]] = {}

    def __getitem__(self, name: str) -> type[ProviderInterface]:
        snapshot = _snapshot()
        if name not in self:
            raise KeyError(name)
        return self._class(canonical(name), snapshot)

    def __iter__(self) -> Iterator[str]:
        return iter(_snapshot().rows)

    def __len__(self) -> int:
        return len(_snapshot().rows)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and canonical(name) in _snapshot().rows

    def __repr__(self) -> str:
        return "<PROVIDER_PLUGINS>"  # what is in it takes the settings, which may be wrong

    def _class(self, name: str, snapshot: Snapshot) -> type[ProviderInterface]:
        row = snapshot.rows[name]
        if (interface := interface_of(row)) is not None:
            return interface
        own = {
            # Of a provider that only settings made, nobody knows the prices, unless they declare some.
            "skip_cost_calculation": row.skip_cost_calculation
            or (name not in PROVIDER_CONFIGS and not any(model.startswith(f"{name}/") for model in snapshot.models)),
            "default_rotation_mode": row.rotation_mode,
            "default_max_concurrent_per_key": row.max_concurrent_per_key,
        }
        known = self._made.get(name)
        # The same class while nothing changes, as of any module.
        if known is None or known[0] != (row, own):
            made = type(
                f"{name.title().replace('_', '')}Provider",
                (_OfRow,),
                {**own, "row": row, "__module__": __name__, "__doc__": row.display_name},
            )
            known = self._made[name] = ((row, own), made)
        return known[1]


def _snapshot() -> Snapshot:
    return engine_for(None).snapshot


PROVIDER_PLUGINS: Mapping[str, type[ProviderInterface]] = _View()
"""Every provider by name, those of the environment, of settings files and of plugins among them: read-only, as classes."""
