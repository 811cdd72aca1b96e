"""The process environment and the ``.env`` file of the working folder, as one mapping.

Nothing is read when this is imported, and nothing is ever written back to ``os.environ``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping

from llm_master.errors import ConfigurationError


class Environment(Mapping[str, str]):
    """Variables by name; the process environment wins over ``.env``.

    A name that is not found exactly is looked for in any case, so that ``Acme_API_BASE`` serves ``ACME_API_BASE``.
    """

    __slots__ = ("_any_case", "_file", "_process")

    def __init__(self, process: Mapping[str, str], file: Mapping[str, str] | None = None) -> None:
        self._process = process
        self._file = file or {}
        self._any_case = {name.upper(): name for name in (*self._file, *process)}

    # Compared by identity, so that it can be part of a key: current_environment() returns the same object while nothing
    # has changed.
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __getitem__(self, name: str) -> str:
        if name in self._process:
            return self._process[name]
        if name in self._file:
            return self._file[name]
        other = self._any_case[name.upper()]
        return self._process[other] if other in self._process else self._file[other]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._file, **self._process})

    def __len__(self) -> int:
        return len({**self._file, **self._process})

    def find(self, name: str) -> tuple[str, str] | None:
        """The variable as it is spelt where it was found, and its value; ``None`` if it is unset or blank."""
        spelt = name if name in self._process or name in self._file else self._any_case.get(name.upper())
        if spelt is None:
            return None
        value = self[spelt].strip()
        return (spelt, value) if value else None


_FileStamp = tuple[int, int, int, int]
_last: tuple[object, _FileStamp | None, Environment] | None = None
_lock = threading.Lock()


def current_environment() -> Environment:
    """The environment as it is now. The same object as before where nothing has changed, so it can serve as a key.

    Raises:
        ConfigurationError: ``.env`` exists and cannot be read.
    """
    global _last
    # os.environ decodes every variable to compare itself, which takes 25 us; what it wraps compares in 1 us. The
    # attribute is CPython's own since 3.2; without it this is merely slower.
    variables = getattr(os.environ, "_data", None)
    if variables is None:
        variables = os.environ.copy()
    stamp = _stamp(".env")
    last = _last
    if last is not None and last[1] == stamp and last[0] == variables:
        return last[2]
    seen = variables.copy()
    environment = Environment(os.environ.copy(), _read(".env") if stamp else None)
    with _lock:
        _last = (seen, stamp, environment)
    return environment


def _stamp(path: str) -> _FileStamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    # Device and inode stand for the folder too, which may have changed.
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: str) -> dict[str, str]:
    from dotenv import dotenv_values

    try:
        # utf-8-sig: editors on Windows begin the file with a byte-order mark, which would join the first name.
        return {name: value for name, value in dotenv_values(path, encoding="utf-8-sig").items() if value is not None}
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{os.path.abspath(path)} cannot be read: {exc}. Make it a readable UTF-8 file, or remove it") from exc
