"""Aliases and routes that lead to themselves."""

from __future__ import annotations

from collections.abc import Iterator

from llm_master.settings.declared import Declared


def loop_faults(declared: Declared) -> list[str]:
    """A fault for each circle of aliases and routes, and for each name that is both."""
    faults = [
        f"{declared.aliases[name].origin}: aliases.{name} is a route too ({declared.routes[name].origin}): rename one of the two"
        for name in declared.aliases
        if name in declared.routes
    ]
    edges = {name: [_model(alias.value)] for name, alias in declared.aliases.items()}
    # A route is found before an alias of its name.
    edges |= {name: [_model(target) for target in route.value["targets"]] for name, route in declared.routes.items()}
    done: set[str] = set()
    for start in edges:
        # Depth first, without recursion: a chain may be as long as a file.
        path: list[str] = []
        inside: set[str] = set()
        steps: list[Iterator[str]] = [iter((start,))]
        while steps:
            name = next(steps[-1], None)
            if name is None:
                steps.pop()
                if path:
                    inside.discard(path[-1])
                    done.add(path.pop())
            elif name in inside:
                faults.append(_told(declared, path[path.index(name) :]))
            elif name in edges and name not in done:
                path.append(name)
                inside.add(name)
                steps.append(iter(edges[name]))
    return faults


def _model(target: object) -> str:
    return str(target["model"] if isinstance(target, dict) else target)


def _told(declared: Declared, circle: list[str]) -> str:
    # From its least name, so that a circle is the same from wherever it was entered.
    first = circle.index(min(circle))
    circle = [*circle[first:], *circle[:first]]
    name = circle[0]
    table, known = ("routes", declared.routes) if name in declared.routes else ("aliases", declared.aliases)
    way = " -> ".join([*circle, name])
    return f"{known[name].origin}: {table}.{name} leads to itself ({way}): let one of them name a model"
