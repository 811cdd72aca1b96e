"""Variables that are set, that nobody reads, and whose names are nearly those of some that are read.

No provider is known here: the names that are read are given.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

_KIND = re.compile(
    r"(?P<stem>.+?)_?(?P<kind>API_?(?:KEY|TOKEN|BASE|URL)|ACCESS_?KEY|SECRET_?KEY|BASE_?URL|KEY|TOKEN|BASE|URL|HOST|ENDPOINT)S?"
)
_NUMBER = re.compile(r"_[0-9]{1,18}$")

KEYS, ADDRESSES = "key", "address"
_KINDS = {"KEY": KEYS, "TOKEN": KEYS, "BASE": ADDRESSES, "URL": ADDRESSES, "HOST": ADDRESSES, "ENDPOINT": ADDRESSES}

_ALIKE = 0.84
"""How like each other two stems must be. ``ANTROPIC`` is to ``ANTHROPIC``; ``GROK``, which is a word of its own, is not to ``GROQ``."""
_SHORTEST = 4
"""Letters of a stem that is compared: shorter ones are alike by chance."""


def misspelt(environment: Mapping[str, str], read: Iterable[str]) -> dict[str, str]:
    """The variables that may be misspelt: name -> what it was perhaps meant to be, if that is not set as well.

    Args:
        environment: The variables. Only their names are looked at, and whether they are blank.
        read: The names that are read. Case does not matter, nor does a number behind them.
    """
    known = {_plain(name): name for name in read}
    stems: dict[str, dict[str, str]] = {KEYS: {}, ADDRESSES: {}}
    for name in known.values():
        if (parts := _parts(name)) is not None:
            stems[parts[1]].setdefault(parts[0], name)
    found = {}
    for name, value in environment.items():
        if not value.strip() or _plain(name) in known or (parts := _parts(name)) is None:
            continue
        stem, kind = parts
        near = [stem] if stem in stems[kind] else difflib.get_close_matches(stem, stems[kind], 1, _ALIKE) if len(stem) >= _SHORTEST else []
        if near and not environment.get(meant := stems[kind][near[0]], "").strip():
            found[name] = meant
    return found


def _plain(name: str) -> str:
    return _NUMBER.sub("", name.upper().replace("-", "_"))


def _parts(name: str) -> tuple[str, str] | None:
    """The provider's part of a name without its underscores, and the kind of what it holds."""
    match = _KIND.fullmatch(_plain(name))
    if match is None:
        return None
    ending = match["kind"].rpartition("_")[2]
    kind = next(kind for word, kind in _KINDS.items() if ending.endswith(word))
    return match["stem"].replace("_", ""), kind
