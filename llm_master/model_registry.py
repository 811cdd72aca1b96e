"""``ModelRegistry``: what is known of models. The second of the two tables.

The rows that come with the library stand in ``models.json``, one line each, with source and date. A row is made into an
object when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, ClassVar

import msgspec

from llm_master.errors import ConfigurationError
from llm_master.rows import ModelConfig


class _Models(MutableMapping[str, ModelConfig]):
    """The rows by name. Reads the file on first use."""

    def __init__(self) -> None:
        self._rows: dict[str, ModelConfig | dict[str, Any]] | None = None
        self.version = 0
        """Changes with every change of the table, so that what was derived from it can be dropped."""

    def _loaded(self) -> dict[str, ModelConfig | dict[str, Any]]:
        if self._rows is None:
            from importlib.resources import files

            self._rows = msgspec.json.decode(files("llm_master").joinpath("models.json").read_bytes())
        return self._rows

    def __getitem__(self, name: str) -> ModelConfig:
        rows = self._loaded()
        row = rows[name]
        if not isinstance(row, ModelConfig):
            row = rows[name] = ModelConfig.from_mapping(name, row)
        return row

    def __setitem__(self, name: str, row: ModelConfig | Mapping[str, Any]) -> None:
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError(f'a model is registered under "provider/model" or a bare name, not {name!r}')
        self._loaded()[name] = row if isinstance(row, ModelConfig) else ModelConfig.from_mapping(name, row)
        self.version += 1

    def __delitem__(self, name: str) -> None:
        del self._loaded()[name]
        self.version += 1

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._loaded()))

    def __len__(self) -> int:
        return len(self._loaded())

    def __contains__(self, name: object) -> bool:
        return name in self._loaded()


class ModelRegistry:
    """Models and what is known of them: prices, published limits, context windows, capabilities.

    Keys are ``"provider/model"``, which is looked up first, or a bare name. Nobody has to register a model to use it:
    of an unregistered one the limits are unknown, and its price is looked up in genai-prices.
    """

    CONFIGS: ClassVar[_Models] = _Models()

    @classmethod
    def register(cls, name: str, config: ModelConfig | Mapping[str, Any]) -> None:
        """Add or replace a model.

        Raises:
            ConfigurationError: A field is wrong; all faults at once.
            PricingError: A price is no number of at least 0.
        """
        cls.CONFIGS[name] = config

    @classmethod
    def get_config(cls, name: str, provider: str | None = None) -> ModelConfig | None:
        """The row of a model, or ``None`` if nobody registered it.

        Args:
            name: ``"provider/model"`` or a bare name.
            provider: The provider that the bare name was resolved to.
        """
        if provider is not None and (row := cls.CONFIGS.get(f"{provider}/{name}")) is not None:
            return row
        row = cls.CONFIGS.get(name)
        if row is not None and provider is not None and row.provider not in (None, provider):
            return None
        return row

    @classmethod
    def list_models(cls, provider: str | None = None) -> list[str]:
        """All registered names, sorted; of one provider only where one is given."""
        return sorted(
            name for name in cls.CONFIGS if provider is None or name.startswith(f"{provider}/") or cls.CONFIGS[name].provider == provider
        )
