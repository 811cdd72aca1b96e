"""Which settings files there are, and what they say together.

One file if ``LLM_MASTER_CONFIG`` names it. Else ``llm_master.toml`` of the user's configuration folder, and over it that of
the working folder. Beside each there may be a file of keys: ``llm_master.secrets.toml``. Beneath both lies ``models.json`` of the
user's folder, which ``llm-master registry sync`` writes.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import attrs

from llm_master.errors import ConfigurationError
from llm_master.settings.declared import Declared, Sourced
from llm_master.settings.environment import Environment
from llm_master.settings.loops import loop_faults

VARIABLE = "LLM_MASTER_CONFIG"
NAME = "llm_master.toml"
MODELS = "models.json"

_Stamp = tuple[int, int, int, int, int]


@attrs.frozen(cache_hash=True)
class _Places:
    """Where files are looked for: each settings file and then the keys beside it, the weakest first.

    Attributes:
        named_by: Who named the one file; empty where files are looked for.
        folder: The user's folder, if any: without it, nothing is looked for in it.
        outside: Files that are not in the user's folder.
        files: All files, ``models`` not among them.
        models: The user's file of models, if one is looked for.
    """

    named_by: str
    folder: str | None
    outside: tuple[str, ...]
    files: tuple[str, ...]
    models: tuple[str, ...] = ()

    def paths(self) -> tuple[str, ...]:
        return self.models + self.files if self.folder is not None and os.access(self.folder, os.F_OK) else self.outside


# Read without a lock: each is replaced as a whole.
_last_places: tuple[Environment, Path | None, _Places] | None = None
_known: dict[_Places, tuple[tuple[str, ...], list[_Stamp | None], Declared]] = {}
_MOST_KNOWN = 32
_lock = threading.Lock()


def find_files(environment: Environment, *, explicit: Path | None = None) -> list[Path]:
    """The settings files that there are, the weakest first.

    Args:
        environment: Says where the user's folder is, and may name one file in ``LLM_MASTER_CONFIG``.
        explicit: The one file to read instead.
    """
    paths = _places(environment, explicit).paths()
    return [Path(path) for path in _existing(paths, [_stamp(path) for path in paths])]


def current_files(environment: Environment, *, explicit: Path | None = None) -> Declared:
    """What the settings files say now. The same object as before while no file has changed: it is not to be written to.

    Args:
        environment: Says where the user's folder is, and may name one file in ``LLM_MASTER_CONFIG``.
        explicit: The one file to read instead.

    Raises:
        ConfigurationError: The one file that was named is not there or cannot be read. What is wrong inside a file is in
            the ``faults`` of what is returned.
    """
    places = _places(environment, explicit)
    # Each query asks: from here to the return it is a few microseconds.
    paths = places.paths()
    known = _known.get(places)
    if known is not None and known[0] == paths:
        stamps = [_stat(path) if before else _stamp(path) for path, before in zip(paths, known[1], strict=True)]
        if stamps == known[1]:
            return known[2]
    with _lock:
        # Before they are read, so that a change meanwhile is seen next time.
        stamps = [_stamp(path) for path in paths]
        # Another thread may have read them meanwhile; all are to have the same object.
        known = _known.get(places)
        if known is None or known[1] != stamps or known[0] != paths:
            known = (paths, stamps, _read(places, paths, stamps))
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            _known[places] = known
        return known[2]


def _stamp(path: str) -> _Stamp | None:
    # access() says no at half of what it costs stat() to raise.
    return _stat(path) if os.access(path, os.F_OK) else None


def _stat(path: str) -> _Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    # Device and inode stand for the folder too, which may have changed; ctime for who may read the file.
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _places(environment: Environment, explicit: Path | None) -> _Places:
    global _last_places
    last = _last_places
    if last is not None and last[0] is environment and last[1] == explicit:
        return last[2]
    places = _look(environment, explicit)
    _last_places = (environment, explicit, places)
    return places


def _look(environment: Environment, explicit: Path | None) -> _Places:
    home = environment.find("HOME")
    if explicit is not None:
        return _named("the settings are to be", str(explicit))
    if found := environment.find(VARIABLE):
        variable, path = found
        if path.startswith("~/") and home:  # .env expands nothing, nor does a unit file
            path = os.path.join(home[1], path[2:])
        return _named(f"{variable} names", path)
    here = _pair(NAME)
    folder = _folder(environment, home[1] if home else None)
    if folder is None:
        return _Places("", None, here, here)
    return _Places("", folder, here, _pair(os.path.join(folder, NAME)) + here, (os.path.join(folder, MODELS),))


def _named(by: str, path: str) -> _Places:
    return _Places(by, None, _pair(path), _pair(path))


def _folder(environment: Environment, home: str | None) -> str | None:
    """The user's configuration folder of ours, as the platform has it; ``None`` where nothing says."""
    return _own_folder(environment, home, "XDG_CONFIG_HOME", "APPDATA", ("Library", "Application Support"), ".config")


def cache_folder(environment: Environment) -> str | None:
    """Where the platform has a program keep what it can do without; ``None`` where nothing says."""
    home = environment.find("HOME")
    return _own_folder(environment, home[1] if home else None, "XDG_CACHE_HOME", "LOCALAPPDATA", ("Library", "Caches"), ".cache")


def _own_folder(environment: Environment, home: str | None, xdg: str, windows: str, mac: tuple[str, ...], usual: str) -> str | None:
    # https://specifications.freedesktop.org/basedir-spec/latest/ says that a relative path is to be ignored.
    if (found := environment.find(xdg)) and os.path.isabs(found[1]):
        return os.path.join(found[1], "llm_master")
    if sys.platform == "win32":
        found = environment.find(windows)
        return os.path.join(found[1], "llm_master") if found else None
    if home is None:
        return None
    return os.path.join(home, *(mac if sys.platform == "darwin" else (usual,)), "llm_master")


def _pair(path: str) -> tuple[str, str]:
    return path, os.path.splitext(path)[0] + ".secrets.toml"


def _existing(paths: tuple[str, ...], stamps: list[_Stamp | None]) -> list[str]:
    # The working folder may be the user's, or link to its files: the same file is read once, as the weaker.
    seen: dict[tuple[int, int], str] = {}
    for path, stamp in zip(paths, stamps, strict=True):
        if stamp is not None:
            seen.setdefault(stamp[:2], path)
    return list(seen.values())


def _read(places: _Places, paths: tuple[str, ...], stamps: list[_Stamp | None]) -> Declared:
    if places.named_by:
        _must_be_readable(places.named_by, paths[0], stamps[0])
    there = set(_existing(paths, stamps))
    total = Declared()
    files = [path for path in paths if path not in places.models]
    for file, secrets in zip(files[::2], files[1::2], strict=True):
        declared = _read_file(file) if file in there else Declared()
        if secrets in there:
            declared = _with_secrets(declared, _read_secrets(secrets))
        total = total.beneath(declared)
    for path in there.intersection(places.models):
        from llm_master.settings.models_file import laid_under, read_models

        total = laid_under(read_models(Path(path)), total)
    # A circle may lead through several files.
    total.faults += [fault for fault in loop_faults(total) if fault not in total.faults]
    return total


def _must_be_readable(named_by: str, path: str, stamp: _Stamp | None) -> None:
    remedy = "name a .toml or .yaml file that you may read"
    if stamp is None:
        raise ConfigurationError(f"{named_by} {path}, which is not there: {remedy}")
    if not os.path.isfile(path):
        raise ConfigurationError(f"{named_by} {path}, which is no file: {remedy}")
    try:
        with open(path, "rb"):
            return
    except OSError as exc:
        raise ConfigurationError(f"{named_by} {path}, which cannot be read ({exc.strerror}): {remedy}") from exc


def _read_file(path: str) -> Declared:
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".toml":
        from llm_master.settings.toml_file import read_toml

        return read_toml(Path(path))
    if suffix in (".yaml", ".yml"):
        from llm_master.settings.yaml_file import read_yaml

        return read_yaml(Path(path))
    return Declared(faults=[f"{path}: is no settings file by its name: let it end in .toml, .yaml or .yml"])


def _read_secrets(path: str) -> Declared:
    from llm_master.settings.toml_file import read_toml

    return read_toml(Path(path), secrets=True)


def _with_secrets(declared: Declared, secrets: Declared) -> Declared:
    """A file with its secrets laid over it; of headers one by one, so that those without a secret need not move."""
    merged = declared.beneath(secrets)
    for name, fields in secrets.providers.items():
        plain = declared.providers.get(name, {}).get("headers")
        if plain is not None and "headers" in fields:
            secret = fields["headers"]
            replaced = {header.lower() for header in secret.value}
            kept = {header: value for header, value in plain.value.items() if header.lower() not in replaced}
            merged.provider(name)["headers"] = Sourced({**kept, **secret.value}, secret.origin)
    return merged


def user_models_file(environment: Environment) -> Path | None:
    """The file that synced models are written to; ``None`` where no folder is the user's, or one file is named."""
    models = _places(environment, None).models
    return Path(models[0]) if models else None


def user_file(environment: Environment) -> Path:
    """The file that a user's own settings are written to: the one that is named, else that of the user's folder."""
    # The user's folder stands before the working folder.
    return Path(_places(environment, None).files[0])
