"""Routes as they are declared: several targets under one name, and how one of them is chosen."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from llm_master.errors import ConfigurationError

STRATEGIES = ("round-robin", "weighted", "random", "first-available", "best-available", "least-latency", "least-cost", "least-busy")
"""How a target may be chosen."""

_FIELDS = ("model", "weight", "options")


@attrs.frozen
class RouteTarget:
    """One target of a route.

    Attributes:
        model: A model's name, or an alias.
        weight: Its share, of ``weighted``.
        options: Options of each call that goes there; the call's own win.
    """

    model: str
    weight: float = 1.0
    options: Mapping[str, Any] = attrs.field(factory=dict, hash=False)


@attrs.frozen
class RouteSettings:
    """A route: its targets, and how one of them is chosen."""

    targets: tuple[RouteTarget, ...]
    strategy: str = "round-robin"


def strategy_fault(strategy: Any) -> str | None:
    """What is wrong with a strategy's name."""
    if strategy in STRATEGIES:
        return None
    near = difflib.get_close_matches(str(strategy).replace("_", "-").lower(), STRATEGIES, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"strategy is {strategy!r}: {hint}give one of {', '.join(STRATEGIES)}"


def route_of(value: Any, faults: list[str]) -> RouteSettings | None:
    """Make a route of ``["a/x", "b/y"]`` or ``{"targets": [...], "strategy": ...}``; add what is wrong to ``faults``."""
    if isinstance(value, RouteSettings):
        return value
    found: list[str] = []
    table = value if isinstance(value, Mapping) else {"targets": value}
    found += [f"{key!r} is no field: give targets and strategy" for key in table if key not in ("targets", "strategy")]
    strategy = table.get("strategy", "round-robin")
    if (fault := strategy_fault(strategy)) is not None:
        found.append(fault)
    given = table.get("targets")
    if not isinstance(given, (list, tuple)) or not given:
        found.append('it has no targets: give targets = ["acme/large", {model = "other/large", weight = 2}]')
        given = ()
    targets = [target for number, item in enumerate(given) if (target := _target(number, item, found)) is not None]
    models = [target.model for target in targets]
    found += [
        f"{model!r} is a target twice: leave one out, or give one of them more weight"
        for model in {m for m in models if models.count(m) > 1}
    ]
    if targets and not found and sum(target.weight for target in targets) <= 0:
        found.append("all weights are 0: give at least one target a weight above 0")
    faults += found
    return None if found else RouteSettings(tuple(targets), strategy)


def _target(number: int, item: Any, faults: list[str]) -> RouteTarget | None:
    table = item if isinstance(item, Mapping) else {"model": item}
    place = f"targets[{number}]"
    found = [f"{place}.{key} is no field: give {', '.join(_FIELDS)}" for key in table if key not in _FIELDS]
    model, weight, options = table.get("model"), table.get("weight", 1.0), table.get("options", {})
    if not isinstance(model, str) or not model.strip():
        found.append(f"{place} names no model: give a name, or a table with model")
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
        found.append(f"{place}.weight is {weight!r}: give a number of at least 0")
    if not isinstance(options, Mapping):
        found.append(f"{place}.options is {options!r}: give a table of options")
    faults += found
    return None if found else RouteTarget(str(model), float(weight), dict(options))


def routes_of(value: Any) -> tuple[tuple[str, RouteSettings], ...]:
    """Routes that are given in code, name -> route.

    Raises:
        ConfigurationError: All that is wrong with them.
    """
    if isinstance(value, tuple):
        return value
    if not isinstance(value, Mapping):
        raise ConfigurationError(f'routes is a {type(value).__name__}: give {{"fast": ["acme/small", "other/small"]}}')
    faults: list[str] = []
    routes = []
    for name, given in value.items():
        own: list[str] = []
        route = route_of(given, own)
        faults += [f"route {name!r}: {fault}" for fault in own]
        if not isinstance(name, str) or not name.strip():
            faults.append(f"routes has the name {name!r}: give a name")
        elif route is not None:
            routes.append((name, route))
    if faults:
        raise ConfigurationError("; ".join(faults))
    return tuple(routes)


def expanded(routes: Mapping[str, RouteSettings], faults: list[str]) -> dict[str, RouteSettings]:
    """The routes, with a route among the targets replaced by its own targets, which share its weight."""
    done: dict[str, RouteSettings] = {}

    def targets_of(name: str, path: tuple[str, ...]) -> Iterable[RouteTarget]:
        for target in routes[name].targets:
            if target.model not in routes:
                yield target
            elif target.model in path:
                way = " -> ".join((*path[path.index(target.model) :], target.model))
                fault = f"route {target.model!r} leads to itself ({way}): let one of them name a model"
                if fault not in faults:
                    faults.append(fault)
            else:
                inner = list(targets_of(target.model, (*path, target.model)))
                total = sum(other.weight for other in inner) or 1.0
                for other in inner:
                    yield attrs.evolve(other, weight=target.weight * other.weight / total, options={**other.options, **target.options})

    for name, route in routes.items():
        # Of a target that is reached by two ways, the first counts.
        found = {target.model: target for target in reversed(list(targets_of(name, (name,))))}
        done[name] = attrs.evolve(route, targets=tuple(reversed(found.values())))
    return done
