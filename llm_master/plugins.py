"""Packages that bring providers and models: entry points, read when a table is first looked through.

What is loaded here is put into ``PROVIDER_CONFIGS`` and ``ModelRegistry`` by those tables themselves. A plugin that is broken, or
claims what another has, is told and left out; everything else goes on.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import attrs

PROVIDERS = "llm_master.providers"
"""Entry points of this group are rows of ``PROVIDER_CONFIGS``: a ``ProviderConfig``, a dict of its fields, or a provider class."""

MODELS = "llm_master.models"
"""Entry points of this group are rows of ``ModelRegistry``: a mapping from ``"provider/model"`` to a ``ModelConfig`` or a dict."""

VARIABLE = "LLM_MASTER_PLUGINS"
"""Which packages are asked for plugins: ``0`` for none, or their names with commas between; all if it is not set or empty."""

logger = logging.getLogger("llm_master.plugins")


@attrs.define(eq=False)
class Plugin:
    """One entry point of an installed package.

    Attributes:
        group: ``llm_master.providers`` or ``llm_master.models``.
        name: The entry point's name: of a provider, the name of its row.
        value: Where it leads: ``package.module:object``.
        package: Name of the package that brings it.
        version: Its version.
        problem: Why it, or a part of it, was left out; ``None`` where nothing was.
    """

    group: str
    name: str
    value: str
    package: str
    version: str
    _load: Any = attrs.field(repr=False)
    problem: str | None = None

    @property
    def origin(self) -> str:
        """Who brings it, as it is shown where a value's origin is."""
        return f"plugin {self.package} {self.version}"

    def refuse(self, problem: str) -> None:
        """Leave it out, and say so, once, in one line."""
        if self.problem is None:
            first, *rest = (line.strip().removeprefix("- ") for line in problem.strip().split("\n"))
            self.problem = f"{first} {'; '.join(rest)}" if rest else first
            logger.warning("%s", told(self))


def told(plugin: Plugin) -> str:
    """What is wrong with a plugin, in a sentence that says where and what to do."""
    return (
        f"{plugin.origin}: its {plugin.group.rpartition('.')[2]} {plugin.name!r} ({plugin.value}) left out: {plugin.problem}. "
        f"Mend or uninstall it, or set {VARIABLE}=0"
    )


_found: tuple[Plugin, ...] | None = None
_lock = threading.Lock()


def installed() -> tuple[Plugin, ...]:
    """The plugins of the packages that are installed, by package and name. They are looked for once per process, and not loaded."""
    global _found
    with _lock:
        if _found is None:
            _found = _find(os.environ.get(VARIABLE, ""))
        return _found


def problems() -> tuple[Plugin, ...]:
    """The plugins of which something was left out, as far as they were loaded: both tables load theirs when they are looked through."""
    return tuple(plugin for plugin in installed() if plugin.problem is not None)


def load(group: str) -> Iterator[tuple[Plugin, Any]]:
    """Import the plugins of a group: each with what its entry point names. One that cannot be imported is told and left out."""
    for plugin in installed():
        if plugin.group != group:
            continue
        try:
            what = plugin._load()
        except (Exception, SystemExit) as exc:  # a module that ends the process when it is imported ends this plugin only
            plugin.refuse(f"it cannot be imported: {type(exc).__name__}: {exc}")
            continue
        yield plugin, what


def _find(wanted: str) -> tuple[Plugin, ...]:
    names = {_normal(name) for name in wanted.split(",") if name.strip()}
    if names == {"0"}:
        return ()
    from importlib.metadata import entry_points

    found = []
    try:
        everything = entry_points()
        for group in (PROVIDERS, MODELS):
            for entry in everything.select(group=group):
                package, version = (entry.dist.name, entry.dist.version) if entry.dist is not None else ("?", "?")
                if not names or _normal(package) in names:
                    found.append(Plugin(group, entry.name, entry.value, package, version, entry.load))
    except Exception as exc:
        logger.warning("no plugins are loaded, since the installed packages cannot be read: %s: %s", type(exc).__name__, exc)
        return ()
    for name in sorted(names - {_normal(plugin.package) for plugin in found}):
        logger.warning("%s names %r, and no installed package of this name brings plugins: correct it", VARIABLE, name)
    # By name, so that of two that claim the same it is always the same one that has it.
    return tuple(sorted(found, key=lambda plugin: (plugin.group != PROVIDERS, _normal(plugin.package), plugin.name)))


def _normal(package: str) -> str:
    # https://packaging.python.org/en/latest/specifications/name-normalization/
    return package.strip().lower().replace("-", "_").replace(".", "_")
