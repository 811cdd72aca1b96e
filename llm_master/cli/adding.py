"""Writing a provider into the user's settings files."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path

from llm_master.dispatch.keys import Key
from llm_master.errors import ConfigurationError
from llm_master.provider_configs import LLMConfig, effective
from llm_master.rows import ProviderConfig, canonical
from llm_master.settings.environment import current_environment
from llm_master.settings.files import VARIABLE, user_file
from llm_master.settings.toml_file import read_toml

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def add_provider(name: str, base_url: str, default_model: str | None, key_env: str | None, key: str | None) -> list[Path]:
    """Append a provider to the user's file, and its key to the secrets file beside it.

    Returns:
        The files that were written.

    Raises:
        ConfigurationError: The provider is wrong, or stands there already, or a file cannot be written; nothing was written
            then.
    """
    name = name.strip()
    if not name:
        raise ConfigurationError('the provider has no name: give one, as "acme"')
    if key_env is not None and not _VARIABLE.fullmatch(key_env):
        # It is not repeated, since it may be the key itself.
        raise ConfigurationError("--key-env is no name of a variable: give one, as ACME_API_KEY, and not the key itself")
    address = base_url.strip().rstrip("/").removesuffix("/chat/completions")
    ProviderConfig(name=name, base_url=address, default_model=default_model, api_key_env=key_env or ())
    secret = Key.checked(key, "what was typed").secret if key is not None else ""
    settings = user_file(current_environment())
    if settings.suffix.lower() != ".toml":
        raise ConfigurationError(f"{VARIABLE} names {settings}, to which no provider can be added: name a .toml file, or unset it")
    if settings.exists() or not current_environment().find(VARIABLE):
        effective(LLMConfig.from_env())  # what is wrong already is mended first
    secrets = settings.with_suffix(".secrets.toml")
    for path in (settings, secrets):
        if path.exists():
            declared = read_toml(path, secrets=path == secrets)
            if canonical(name) in {*declared.providers, *declared.keys}:
                raise ConfigurationError(f"{path} has a provider {name!r} already: change it there")
    fields = {"name": name, "base_url": address, "default_model": default_model, "api_key_env": key_env}
    tables = [(settings, _table(settings, fields), 0o644)]
    if secret:
        tables.append((secrets, _table(secrets, {"name": name, "api_key": secret}), 0o600))
    _append(tables)
    return [path for path, _, _ in tables]


def _table(path: Path, fields: dict[str, str | None]) -> str:
    """What is to be appended to a file, which is TOML afterwards as well."""
    import tomllib

    # A JSON string is a TOML string, but for what JSON escapes in two halves.
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items() if value]
    try:
        known = path.read_text(encoding="utf-8-sig") if path.exists() else ""
    except OSError as exc:
        raise _unwritable(path, exc) from exc
    gap = "" if not known or known.endswith("\n\n") else "\n" if known.endswith("\n") else "\n\n"
    text = gap + "[[providers]]\n" + "\n".join(lines) + "\n"
    try:
        tomllib.loads(known + text)
    except ValueError as exc:
        raise ConfigurationError(
            f"nothing can be appended to {path} ({type(exc).__name__}): write its providers as [[providers]] tables, and names without "
            "control characters"
        ) from None
    return text


def _append(tables: list[tuple[Path, str, int]]) -> None:
    """Append to each file, or to none. A file that holds keys is made for its owner alone, and is so before it gets one."""
    undo: list[tuple[Path, int | None]] = []
    path = tables[0][0]
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path, text, mode in tables:
            size = path.stat().st_size if path.exists() else None
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode), "a", encoding="utf-8", newline="\n") as file:
                undo.append((path, size))
                # Not only where it is made: one that others may read is closed to them before a key stands in it.
                if mode == 0o600:
                    path.chmod(mode)
                file.write(text)
    except OSError as exc:
        for written, size in undo:
            with contextlib.suppress(OSError):  # the first failure is the one to tell
                if size is None:
                    written.unlink()
                else:
                    os.truncate(written, size)
        raise _unwritable(path, exc) from exc


def _unwritable(path: Path, exc: OSError) -> ConfigurationError:
    return ConfigurationError(f"{path} cannot be written ({exc.strerror or exc}): make it writable to you, or name another in {VARIABLE}")
