"""All that a fault server is started with, in Python, in JSON or in TOML."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from llm_master.testing.script import Fault, Limit, ScriptError, masked, unknown_fields


class KeyNames:
    """What keys are called: by the name that was given, else by their last four characters, and never two the same.

    Args:
        named: Names and their keys.
    """

    def __init__(self, named: Mapping[str, str] | None = None) -> None:
        self._names = {key: name for name, key in (named or {}).items()}
        self._taken = set(self._names.values())

    def __call__(self, key: str | None) -> str | None:
        """The name of a key; ``None`` for none."""
        if key is None:
            return None
        name = self._names.get(key)
        if name is None:
            mask = masked(key)
            assert mask is not None
            name, number = mask, 1
            while name in self._taken or name == "…":
                name, number = f"{mask} ({number})", number + 1
            self._names[key] = name
            self._taken.add(name)
        return name


def _named(keys: Any) -> Any:
    if keys is None or isinstance(keys, (str, Mapping)) or not isinstance(keys, Iterable):
        return keys
    keys = tuple(keys)
    if not all(isinstance(key, str) and key for key in keys):
        return keys
    names = KeyNames()
    return {names(key): key for key in keys}


def _tuple(value: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(value)


def _listed(value: Any) -> Any:
    # A text would be as many models as it has letters.
    return value if value is None or isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)


@attrs.frozen(kw_only=True)
class Scenario:
    """A script, limits, and who may ask for what.

    Attributes:
        script: Steps, in order. The first that fits a request and has times left answers it.
        limits: All hold at once.
        keys: The API keys that there are, as a list or as name -> key; any other gets a 401. ``None`` takes any, and none.
        models: The models that there are; any other gets a 404. ``None`` takes any.

    Raises:
        ConfigurationError: With everything that is wrong.
    """

    script: tuple[Fault, ...] = attrs.field(default=(), converter=_tuple)
    limits: tuple[Limit, ...] = attrs.field(default=(), converter=_tuple)
    keys: Mapping[str, str] | None = attrs.field(default=None, converter=_named, repr=False)
    models: tuple[str, ...] | None = attrs.field(default=None, converter=_listed)

    def __attrs_post_init__(self) -> None:
        faults = [
            f"{field} holds a {type(item).__name__}: give {kind.__name__} objects"
            for field, items, kind in (("script", self.script, Fault), ("limits", self.limits, Limit))
            for item in items
            if not isinstance(item, kind)
        ]
        keys = self.keys
        if keys is not None and not (
            isinstance(keys, Mapping) and all(isinstance(text, str) and text for pair in keys.items() for text in pair)
        ):
            faults.append('keys must be a list of non-empty strings, or {"name": "key"}')
        if self.models is not None and not (
            isinstance(self.models, tuple) and all(isinstance(model, str) and model for model in self.models)
        ):
            faults.append("models must be a list of non-empty strings")
        if faults:
            raise ScriptError("scenario", faults)

    def to_mapping(self) -> dict[str, Any]:
        """Its plain form, which :meth:`from_mapping` reads. It holds the keys."""
        return {
            "script": [fault.to_mapping() for fault in self.script],
            "limits": [limit.to_mapping() for limit in self.limits],
            "keys": self.keys,
            "models": self.models,
        }

    @classmethod
    def from_mapping(cls, fields: Any, *, where: str = "scenario") -> Scenario:
        """Make one of its plain form, ``{"script": [...], "limits": [...], "keys": ..., "models": [...]}``.

        A limit may also be a text, as ``600/60s``.

        Raises:
            ConfigurationError: With everything that is wrong, each with its place.
        """
        if not isinstance(fields, Mapping):
            raise ScriptError(where, ['give {"script": [...], "limits": [...]}'])
        faults = unknown_fields(fields, [field.name for field in attrs.fields(cls)])
        made: dict[str, list[Any]] = {"script": [], "limits": []}
        for name, items in made.items():
            given = fields.get(name) or ()
            if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
                faults.append(f"{name} is {given!r}: give a list")
                continue
            for number, item in enumerate(given):
                try:
                    if name == "script":
                        items.append(Fault.from_mapping(item, where=f"script[{number}]"))
                    else:
                        items.append(
                            Limit.from_text(item) if isinstance(item, str) else Limit.from_mapping(item, where=f"limits[{number}]")
                        )
                except ScriptError as exc:
                    faults += [f"{exc.what}: {fault}" for fault in exc.faults]
        try:
            scenario = cls(script=made["script"], limits=made["limits"], keys=fields.get("keys"), models=fields.get("models"))
        except ScriptError as exc:
            faults += exc.faults
        if faults:
            raise ScriptError(where, faults)
        return scenario


def added(scenario: Scenario, *, limits: Iterable[Limit] = (), keys: Iterable[str] = (), models: Iterable[str] = ()) -> Scenario:
    """A scenario with more limits, keys and models."""
    named = dict(scenario.keys or {})
    names = KeyNames(named)
    named |= {f"{names(key)}": key for key in keys}
    return attrs.evolve(
        scenario,
        limits=(*scenario.limits, *limits),
        keys=named or scenario.keys,
        models=(*(scenario.models or ()), *models) or scenario.models,
    )


def read_scenario(path: str | os.PathLike[str]) -> Scenario:
    """Read a TOML or JSON file, known by its ending. A JSON list is a script.

    Raises:
        ConfigurationError: It cannot be read, is no such file, or holds what is wrong: all of it, each with its place.
    """
    import tomllib

    name = os.fspath(path)
    try:
        with open(name, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is no UTF-8"
        raise ScriptError(name, [f"cannot be read ({reason}): give a TOML or JSON file in UTF-8"]) from exc
    try:
        content = tomllib.loads(text) if name.endswith(".toml") else json.loads(text)
    except ValueError as exc:
        raise ScriptError(name, [f"is no {'TOML' if name.endswith('.toml') else 'JSON'} ({exc}): correct it there"]) from exc
    return Scenario.from_mapping({"script": content} if isinstance(content, list) else content, where=name)
