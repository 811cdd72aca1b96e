"""What the text of a variable means. Each reader raises ``ValueError`` with what is wrong and the remedy."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn
from urllib.parse import parse_qsl

_MODELS = 'give ["name", ...], {"name": {"id": "wire id", "options": {...}}}, or names with commas between them'
_HEADERS = 'give {"Name": "value"}, both strings'
_TRUTH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_PLACE = re.compile(r"(\[.*\]|[^:\[\]]*)(?::([0-9]+))?")
_PORT = re.compile(r":([0-9]+)(?:/|$)")


def truth(text: str) -> bool:
    """``true`` or ``false``, in the words that people use for them."""
    if (value := _TRUTH.get(text.lower())) is None:
        raise ValueError(f"{text!r} is neither true nor false: give one of them")
    return value


def truth_or(other: str) -> Callable[[str], bool | str]:
    """A reader of ``true``, ``false``, or this word."""

    def read(text: str) -> bool | str:
        return other if text.lower() == other else truth(text)

    return read


def seconds(text: str) -> float:
    """A time above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{text!r} is no time: give seconds above 0, as 30")
    return value


def whole(least: int, otherwise: str = "") -> Callable[[str], int]:
    """A reader of whole numbers from ``least`` on; ``otherwise`` is added to the remedy."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:  # also where it has more digits than Python takes
            value = least - 1
        if value < least:
            raise ValueError(f"{text!r} does not fit: give a whole number of at least {least}{otherwise}")
        return value

    return read


def limit(text: str) -> int | None:
    """A bound on how many; -1 is none, as the key-rotating client's guide has it."""
    return None if text == "-1" else whole(1, ", or -1 for no limit")(text)


def word(*words: str) -> Callable[[str], str]:
    """A reader of one of these words, in any case."""

    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"{text!r} is not known: give {' or '.join(words)}")
        return text.lower()

    return read


def place(operation: str) -> Callable[[str], dict[str, str]]:
    """A reader of the whole URL of an operation, as a row's ``paths`` hold it."""

    def read(text: str) -> dict[str, str]:
        if not text.startswith(("https://", "http://")):
            raise ValueError(f"{text!r} is no address: begin with https:// (or http://) and a host")
        return {operation: text}

    return read


def names(text: str) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))


def models(text: str) -> dict[str, dict[str, Any]]:
    """Models that are declared, as a row holds them: JSON, or names with commas between them."""
    if not text.startswith(("[", "{")):
        return {name: {} for name in names(text)}
    read = _json(text, _MODELS)
    if isinstance(read, list):
        if not all(isinstance(name, str) and name for name in read):
            raise ValueError(f"a name is no string, or empty: {_MODELS}")
        return {name: {} for name in read}
    return {name: _model(name, entry) for name, entry in read.items()}


def _model(name: str, entry: Any) -> dict[str, Any]:
    if isinstance(entry, str):
        entry = {"id": entry}
    if (
        not name
        or not isinstance(entry, dict)
        or not entry.keys() <= {"id", "options"}
        or not (isinstance(entry.get("id", name), str) and entry.get("id", name))
        or not isinstance(entry.get("options", {}), dict)
    ):
        raise ValueError(f"{name!r} may have a name as 'id' and an object as 'options', and nothing else: {_MODELS}")
    return entry


def is_folder(text: str) -> bool:
    """Whether this is a place on a disk: servers keep the folder of their models under the name where we look for a list."""
    return text.startswith(("/", "~/", "./", "../")) or text[1:3] in (":\\", ":/")


def headers(text: str) -> dict[str, str]:
    """Headers as a JSON object. What they hold is not repeated in what is wrong with them."""
    read = _json(text, _HEADERS)
    if not isinstance(read, dict) or "" in read:
        raise ValueError(f"this is no JSON object with names: {_HEADERS}")
    if wrong := [name for name, value in read.items() if not isinstance(value, str)]:
        raise ValueError(f"the value of {', '.join(map(repr, wrong))} is no string: {_HEADERS}")
    if wrong := [name for name, value in read.items() if not (name + value).isascii() or not (name + value).isprintable()]:
        raise ValueError(f"{', '.join(map(repr, wrong))} may not hold line breaks or non-ASCII characters: take them out")
    return read


def _json(text: str, remedy: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as exc:
        raise ValueError(f"broken JSON at line {exc.lineno}, column {exc.colno}: {exc.msg}: {remedy}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"this JSON has NaN, Infinity or a number too long, or is nested too deeply: {remedy}") from None


def _refuse_constant(name: str) -> NoReturn:
    # NaN and the infinities, which Python reads and no provider does.
    raise ValueError(name)


def base_url(text: str) -> str:
    """An address without what is added to it: neither a slash at its end nor the endpoint."""
    return text.rstrip("/").removesuffix("/chat/completions").rstrip("/")


def without_query(text: str, known: Collection[str]) -> tuple[str, dict[str, str]]:
    """An address, and what stands behind its ``?``, where all of it has a known name; else as it was."""
    address, _, query = text.partition("?")
    given = dict(parse_qsl(query))
    return (address, given) if given and given.keys() <= set(known) else (text, {})


def listening_address(text: str, usual: str | None) -> str:
    """The address for clients of what a server was told to listen on, as ``0.0.0.0`` or ``:11434``.

    Args:
        text: With or without scheme, host and port.
        usual: The server's usual address, whose port holds where neither scheme nor port is given.
    """
    scheme, given, rest = text.partition("://")
    if not given:
        scheme, rest = "http", text
    place, slash, path = rest.partition("/")
    if (parts := _PLACE.fullmatch(place)) is not None:
        host, port = parts[1], parts[2]
    else:
        # Colons without brackets: an address of IPv6, and no port.
        host, port = f"[{place}]", None
    if port is None and not given and usual and (found := _PORT.search(usual)):
        port = found[1]
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104  # compared, not bound to
    return f"{scheme}://{host}{f':{port}' if port else ''}{slash}{path}"


def with_path(url: str, path: str) -> str:
    """An address, with ``path`` added where it has none."""
    return url if "/" in url.partition("://")[2] else url + path.rstrip("/")


def laid_over(below: Mapping[str, str], above: Mapping[str, str]) -> dict[str, str]:
    """Headers over headers: the case of their names does not matter."""
    replaced = {name.lower() for name in above}
    return {**{name: value for name, value in below.items() if name.lower() not in replaced}, **above}
