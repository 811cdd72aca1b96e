"""``ModelRegistry``: what is known of models. The second of the two tables.

The rows that come with the library stand in ``models.json``, one line each, with source and date. A row is made into an
object when it is first asked for.

``source`` and ``as_of`` are of the prices; those of images, speech, vectors and rankings were read through LiteLLM's list
(1.109.1, read on 2026-11-21), which names the same pages. What a model can do and cannot do is from that list, from
models.dev (read on the same day) and from the makers' own documentation. A word stands in a row where they agree; where they
contradict each other, or say nothing, it is absent. A model of one kind is not of another: one that chats embeds nothing,
ranks nothing and reads nothing aloud.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, ClassVar

import msgspec

from llm_master import plugins
from llm_master.errors import ConfigurationError, PricingError
from llm_master.model_rows import ModelConfig
from llm_master.rows import canonical


class _Models(MutableMapping[str, ModelConfig]):
    """The rows by name. Reads the file on first use, and then the rows of plugins."""

    def __init__(self) -> None:
        self._rows: dict[str, ModelConfig | dict[str, Any]] | None = None
        self._spelt: dict[str, str] = {}
        self.version = 0
        """Changes with every change of the table, so that what was derived from it can be dropped."""

    def _loaded(self) -> dict[str, ModelConfig | dict[str, Any]]:
        if self._rows is None:
            from importlib.resources import files

            self._rows = msgspec.json.decode(files("llm_master").joinpath("models.json").read_bytes())
            # Afterwards, so that a plugin may look here while it is imported.
            for plugin, what in plugins.load(plugins.MODELS):
                self._add(plugin, what)
        return self._rows

    def _add(self, plugin: plugins.Plugin, what: Any) -> None:
        """Take a plugin's rows, without those that are wrong and those that there are already."""
        if not isinstance(what, Mapping):
            plugin.refuse(f'it is a {type(what).__name__}: give a mapping, as {{"acme/large": ModelConfig(...)}}')
            return
        faults = []
        for name, row in what.items():
            try:
                if name in self:
                    faults.append(f"{name!r} is registered already")
                else:
                    self[name] = row
            except (ConfigurationError, PricingError) as exc:
                faults.append(str(exc))
        if faults:
            plugin.refuse("; ".join(faults))

    def __getitem__(self, name: str) -> ModelConfig:
        rows = self._loaded()
        name = self._known_as(name)
        row = rows[name]
        if not isinstance(row, ModelConfig):
            row = rows[name] = ModelConfig.from_mapping(name, row)
        return row

    def __setitem__(self, name: str, row: ModelConfig | Mapping[str, Any]) -> None:
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError(f'a model is registered under "provider/model" or a bare name, not {name!r}')
        if not isinstance(row, ModelConfig):
            if not isinstance(row, Mapping):
                raise ConfigurationError(f"model row {name!r}: give a ModelConfig or a dict of its fields, not a {type(row).__name__}")
            row = ModelConfig.from_mapping(name, row)
        name = self._known_as(name)
        self._loaded()[name] = row
        self._spelt[_canonical(name)] = name
        self.version += 1

    def __delitem__(self, name: str) -> None:
        name = self._known_as(name)
        del self._loaded()[name]
        self._spelt.pop(_canonical(name), None)
        self.version += 1

    def _known_as(self, name: str) -> str:
        """The name under which a model is registered, however its provider is spelt."""
        if name in self._loaded():
            return name
        wanted = _canonical(name)
        return self._spelt.get(wanted, wanted if wanted in self._loaded() else name)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._loaded()))

    def __len__(self) -> int:
        return len(self._loaded())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._known_as(name) in self._loaded()


def _canonical(name: str) -> str:
    provider, slash, model = name.partition("/")
    return f"{canonical(provider)}/{model}" if slash else name


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
        if row is not None and provider is not None and row.provider is not None and canonical(row.provider) != canonical(provider):
            return None
        return row

    @classmethod
    def list_models(cls, provider: str | None = None) -> list[str]:
        """All registered names, sorted; of one provider only where one is given."""
        if provider is None:
            return sorted(cls.CONFIGS)
        wanted = canonical(provider)
        return sorted(
            name for name in cls.CONFIGS if canonical(name.partition("/")[0] if "/" in name else cls.CONFIGS[name].provider or "") == wanted
        )
