"""Which provider a model's name means. Resolving makes no HTTP call."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import attrs

from llm_master.errors import ConfigurationError, MissingApiKeyError, UnknownModelError
from llm_master.rows import ProviderConfig, canonical


@attrs.frozen
class Route:
    """Where a name leads.

    Attributes:
        provider: Name of the row.
        model: The wire id.
        options: Options that the row declares for this model; the call's win.
        generator: The row's ``generate_map`` entry for it, or ``None``.
        why: Which rule decided.
    """

    provider: str
    model: str
    options: Mapping[str, Any]
    generator: Callable[..., Any] | str | None
    why: str


class Resolver:
    """Finds the row for a name, over the rows of one engine.

    Args:
        rows: The rows, by canonical name.
        usable: Whether a provider could be asked: its key is there, or it needs none.
        registered: The provider that a model is registered with; ``None`` if it is not registered or names none.
        registered_names: All registered names, to offer the nearest.
        preferred: The provider that gets what no rule decides.
        missing: The error for a provider that is not usable: what it lacks, and what to set.
        aliases: Other names of models: each has the ``model`` it stands for, ``options`` and an ``origin``.
        listed: The providers that have listed a model of this very name, in the table's order.
    """

    def __init__(
        self,
        rows: Mapping[str, ProviderConfig],
        *,
        usable: Callable[[str], bool],
        registered: Callable[[str], str | None],
        registered_names: Callable[[], Iterable[str]],
        preferred: str | None,
        missing: Callable[[str], ConfigurationError],
        aliases: Mapping[str, Any] | None = None,
        listed: Callable[[str], list[str]],
    ) -> None:
        self._rows = rows
        self._usable = usable
        self._registered = registered
        self._registered_names = registered_names
        self._missing = missing
        self._listed = listed
        self._models = aliases or {}
        self._aliases = {canonical(alias): name for name, row in rows.items() for alias in row.aliases}
        if preferred == "auto":
            preferred = next((name for name in rows if usable(name) and rows[name].base_url is not None and rows[name].requires_key), None)
        self._preferred = self.provider_named(preferred) if preferred else None
        if preferred and self._preferred is None:
            near = difflib.get_close_matches(preferred, rows, 1)
            raise ConfigurationError(
                f"preferred_provider is {preferred!r}, which is no provider" + (f": did you mean {near[0]!r}?" if near else "")
            )
        self._patterns = {name: _patterns(row.generate_map) for name, row in rows.items()}
        # What a pattern of the generate_map begins with is a prefix as well.
        heads = ((head.lower(), name) for name, row in rows.items() for head in (*row.prefixes, *(p[0] for p in self._patterns[name])))
        self._prefixes = sorted(heads, key=lambda item: -len(item[0]))

    def resolve(self, name: str) -> Route:
        """Find the provider and the wire id for ``name``.

        Raises:
            UnknownModelError: No rule fits; offers the nearest names.
            MissingApiKeyError: The provider found needs a key that is not set, and no preferred provider is usable.
            ConfigurationError: The provider found has no address, or no default model.
        """
        if not isinstance(name, str) or not name.strip():
            raise UnknownModelError(f'model_name is {name!r}: give a model\'s name, as "gpt-4.1" or "groq/openai/gpt-oss-20b"')
        alias = self._models.get(name)
        if alias is not None:
            route = self.resolve(alias.model)
            why = f"alias of {alias.model!r} ({alias.origin}); {route.why}"
            return attrs.evolve(route, options={**route.options, **alias.options}, why=why)
        found = self._find(name)
        if found is None:
            raise self._unknown(name)
        route = found
        self._refuse_ignored(name, route)
        if self._usable(route.provider):
            return route
        if self._preferred is not None and self._preferred != route.provider and self._usable(self._preferred):
            # The whole name: a preferred provider is a gateway or a local server, which knows models by such names.
            if not self._rows[route.provider].enabled:
                lacks = "is switched off"
            else:
                lacks = "has no key" if isinstance(self._missing(route.provider), MissingApiKeyError) else "has no address"
            why = f"{route.provider} ({route.why}) {lacks}, so the preferred provider gets the whole name"
            route = self._within(self._preferred, name, why)
            self._refuse_ignored(name, route)
            return route
        raise self._missing(route.provider)

    def _refuse_ignored(self, name: str, route: Route) -> None:
        row = self._rows[route.provider]
        if not is_asked(row, {name, route.model, f"{route.provider}/{route.model}"}):
            raise UnknownModelError(
                f"{name!r} is one of the models that are not to be asked of {row.name!r} (ignore_models): take another, or name it in "
                "whitelist_models"
            )

    def _find(self, name: str) -> Route | None:
        return (
            self._exact(name)
            or self._qualified(name)
            or self._prefixed(name)
            or self._provider_alone(name)
            or self._listed_by(name)
            or self._preferred_for(name)
        )

    def _exact(self, name: str) -> Route | None:
        provider = self._registered(name)
        if provider is not None and (owner := self.provider_named(provider)) is not None:
            head, _, rest = name.partition("/")
            return self._within(owner, rest if rest and self.provider_named(head) == owner else name, "registered in ModelRegistry")
        owners = [owner for owner, row in self._rows.items() if name in row.generate_map or name in row.models]
        if not owners:
            return None
        owner = next((owner for owner in owners if self._usable(owner)), owners[0])
        return self._within(owner, name, "declared by the provider's row")

    def _qualified(self, name: str) -> Route | None:
        position = min((at for at in (name.find("/"), name.find(":")) if at > 0), default=-1)
        if position < 0:
            return None
        provider = self.provider_named(name[:position])
        rest = name[position + 1 :]
        return self._within(provider, rest, "named before the model") if provider is not None and rest else None

    def _prefixed(self, name: str) -> Route | None:
        lowered = name.lower()
        for prefix, provider in self._prefixes:
            # A name with a slash is a path on somebody's gateway, and only a prefix with one can mean it.
            if lowered.startswith(prefix) and ("/" not in lowered or "/" in prefix):
                return self._within(provider, name, f"prefix {prefix!r}")
        return None

    def _provider_alone(self, name: str) -> Route | None:
        provider = self.provider_named(name)
        if provider is None:
            return None
        row = self._rows[provider]
        if row.default_model is None:
            raise ConfigurationError(f"provider {row.name!r} has no default_model: name a model, as {row.name}/MODEL")
        return Route(provider, row.default_model, {}, None, "the provider's default model")

    def _listed_by(self, name: str) -> Route | None:
        """Of the providers that list this model, the preferred one, else the first of the table that may be asked for it."""
        owners = [owner for owner in self._listed(name) if self._usable(owner)]
        asked = [owner for owner in owners if is_asked(self._rows[owner], (name, f"{owner}/{name}"))] or owners
        if not asked:
            return None
        owner = self._preferred if self._preferred in asked else asked[0]
        why = "listed by the provider"
        if others := [other for other in owners if other != owner]:
            which = "the preferred one" if owner == self._preferred else "the first of them in the table"
            why += f", {which}; {' and '.join(others)} {'lists' if len(others) == 1 else 'list'} it as well"
        return self._within(owner, name, why)

    def _preferred_for(self, name: str) -> Route | None:
        return self._within(self._preferred, name, "the preferred provider") if self._preferred is not None else None

    def _within(self, provider: str, model: str, why: str) -> Route:
        row = self._rows[provider]
        declared = row.models.get(model, {})
        generator = row.generate_map.get(model)
        if generator is None:
            for head, names_wire_id, value in self._patterns[provider]:
                if model.lower().startswith(head) and (not names_wire_id or len(model) > len(head)):
                    generator = value
                    model = model[len(head) :] if names_wire_id else model
                    break
        return Route(provider, declared.get("id", model), declared.get("options", {}), generator, why)

    def provider_named(self, name: str) -> str | None:
        """The provider that goes by this name, however it is spelt."""
        wanted = canonical(name)
        return wanted if wanted in self._rows else self._aliases.get(wanted)

    def _unknown(self, name: str) -> UnknownModelError:
        names = set(self._registered_names())
        for owner, row in self._rows.items():
            names |= {owner, *row.models, *row.generate_map}
        # A bare name is most often meant; what is offered is what can be typed.
        by_tail = {known.partition("/")[2] or known: known for known in sorted(names)}
        near = difflib.get_close_matches(name, [*by_tail, *names], 4, 0.5)
        offered = list(dict.fromkeys(by_tail.get(match, match) for match in near))[:3]
        hint = f" Did you mean {' or '.join(map(repr, offered))}?" if offered else ""
        return UnknownModelError(
            f"no provider serves a model named {name!r}.{hint} A provider's model is named PROVIDER/MODEL, "
            f"and the providers are {', '.join(self._rows)}. A model that a provider lists can be asked by its bare name once "
            "list_models(), or `llm-master models list --live`, has asked for the list"
        )


def _patterns(generate_map: Mapping[str, Callable[..., Any] | str]) -> list[tuple[str, bool, Callable[..., Any] | str]]:
    """The keys that stand for many names: their beginning, whether the rest is the wire id, and their value; longest first."""
    found = [
        (key.removesuffix("*").removesuffix("{model}").lower(), key.endswith("{model}"), value)
        for key, value in generate_map.items()
        if key.endswith(("*", "{model}"))
    ]
    return sorted(found, key=lambda pattern: -len(pattern[0]))


def is_asked(row: ProviderConfig, names: Collection[str]) -> bool:
    """Whether the row's globs let a model be asked that goes by these names."""
    return not row.ignore_models or _fits(names, row.whitelist_models) or not _fits(names, row.ignore_models)


def _fits(names: Iterable[str], globs: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), glob.lower()) for name in names for glob in globs)
