"""What settings say, from wherever they come: one shape for variables, TOML and YAML. No provider is known here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import attrs

from llm_master.errors import ConfigurationError
from llm_master.rows import canonical

Position = Literal["append", "prepend"]


@attrs.frozen
class Sourced:
    """A value, and where it came from: ``$ACME_API_BASE``, ``llm_master.toml:12``."""

    value: Any = attrs.field(repr=False)
    origin: str


@attrs.frozen(kw_only=True)
class ModelSettings:
    """What a file says of how a model is asked.

    Attributes:
        system_instruction: Joins the caller's system message.
        position: Whether it stands before or after what the caller says.
        options: Options of every call to the model; the call's own win.
        origin: Where this stands.
    """

    system_instruction: str | None = None
    position: Position = "append"
    options: Mapping[str, Any] = attrs.field(factory=dict)
    origin: str = ""


@attrs.define(kw_only=True)
class Declared:
    """One source of settings, read.

    Attributes:
        providers: Name (canonical) -> field of ``ProviderConfig`` -> value.
        names: Name (canonical) -> the name as it was written first.
        keys: Name (canonical) -> API keys in order.
        ambient: Name (canonical) -> the key that holds where there is no other.
        models: ``"provider/model"`` -> fields of ``ModelConfig``.
        model_settings: Model name -> how it is asked.
        aliases: Name -> model name.
        routes: Name -> fields of a route.
        options: Fields of ``LLMConfig`` that are no provider's.
        benchmark: What the benchmark reads.
        faults: Everything that is wrong, each with its place.
        warnings: What is right and should not be so.
    """

    providers: dict[str, dict[str, Sourced]] = attrs.field(factory=dict)
    names: dict[str, str] = attrs.field(factory=dict)
    keys: dict[str, list[Sourced]] = attrs.field(factory=dict)
    ambient: dict[str, Sourced] = attrs.field(factory=dict)
    models: dict[str, Sourced] = attrs.field(factory=dict)
    model_settings: dict[str, ModelSettings] = attrs.field(factory=dict)
    aliases: dict[str, Sourced] = attrs.field(factory=dict)
    routes: dict[str, Sourced] = attrs.field(factory=dict)
    options: dict[str, Sourced] = attrs.field(factory=dict)
    benchmark: dict[str, Any] = attrs.field(factory=dict)
    faults: list[str] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)

    # What the files said stays one object while they do not change, so that it can be part of a key.
    __hash__ = object.__hash__

    def provider(self, name: str) -> dict[str, Sourced]:
        """The fields of a provider, however its name is spelt; made where it is new."""
        key = canonical(name)
        self.names.setdefault(key, name)
        return self.providers.setdefault(key, {})

    def beneath(self, over: Declared) -> Declared:
        """This with ``over`` laid over it: providers field by field, all else entry by entry."""
        providers = {
            name: {**self.providers.get(name, {}), **over.providers.get(name, {})} for name in {**self.providers, **over.providers}
        }
        return Declared(
            providers=providers,
            names={**over.names, **self.names},
            keys={**self.keys, **over.keys},
            ambient={**self.ambient, **over.ambient},
            models={**self.models, **over.models},
            model_settings={**self.model_settings, **over.model_settings},
            aliases={**self.aliases, **over.aliases},
            routes={**self.routes, **over.routes},
            options={**self.options, **over.options},
            benchmark={**self.benchmark, **over.benchmark},
            faults=[*self.faults, *over.faults],
            warnings=[*self.warnings, *over.warnings],
        )

    def under_own_names(self, aliases: Mapping[str, str]) -> Declared:
        """The same with each provider under its own name, which may stand here by another."""
        if aliases.keys().isdisjoint((*self.providers, *self.keys)):
            return self
        renamed = attrs.evolve(self, providers={}, keys={})
        for name, fields in self.providers.items():
            renamed.providers.setdefault(aliases.get(name, name), {}).update(fields)
        for name, keys in self.keys.items():
            renamed.keys.setdefault(aliases.get(name, name), []).extend(keys)
        return renamed

    def refuse(self) -> None:
        """Raise what is wrong, all of it at once.

        Raises:
            ConfigurationError: Each fault with its place, its field and a remedy.
        """
        refuse(self.faults)


def refuse(faults: Iterable[str]) -> None:
    """Raise faults as one error, if there are any."""
    faults = list(dict.fromkeys(faults))
    if faults:
        raise ConfigurationError("settings: " + (faults[0] if len(faults) == 1 else "".join(f"\n  - {fault}" for fault in faults)))
