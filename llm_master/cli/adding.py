"""Writing a provider into the user's settings files."""

from __future__ import annotations

import json
import os
from pathlib import Path

from llm_master.dispatch.keys import Key
from llm_master.errors import ConfigurationError
from llm_master.provider_configs import LLMConfig, effective
from llm_master.rows import ProviderConfig, canonical
from llm_master.settings.environment import current_environment
from llm_master.settings.files import user_file
from llm_master.settings.toml_file import read_toml


def add_provider(name: str, base_url: str, default_model: str | None, key_env: str | None, key: str | None) -> list[Path]:
    """Append a provider to the user's file, and its key to the secrets file beside it.

    Returns:
        The files that were written.

    Raises:
        ConfigurationError: The provider is wrong, or stands there already; nothing was written then.
    """
    row = ProviderConfig(name=name.strip(), base_url=base_url.strip().rstrip("/"), default_model=default_model, api_key_env=key_env or ())
    if key is not None:
        key = Key.checked(key, "the key").secret
    effective(LLMConfig.from_env())  # what is wrong already is mended first
    settings = user_file(current_environment())
    secrets = settings.with_suffix(".secrets.toml")
    for path in (settings, secrets):
        if path.exists():
            declared = read_toml(path, secrets=path == secrets)
            if canonical(row.name) in {*declared.providers, *declared.keys}:
                raise ConfigurationError(f"{path} has a provider {row.name!r} already: change it there")
    fields = {"name": row.name, "base_url": row.base_url, "default_model": default_model, "api_key_env": key_env}
    written = [_append(settings, fields, 0o644)]
    if key is not None:
        written.append(_append(secrets, {"name": row.name, "api_key": key}, 0o600))
    return written


def _append(path: Path, fields: dict[str, str | None], mode: int) -> Path:
    """Append one table. A file that holds keys is made for its owner alone, and stays so."""
    # A JSON string is a TOML string.
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items() if value]
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        known = path.read_text(encoding="utf-8") if path.exists() else ""
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode), "a", encoding="utf-8") as file:
            file.write(("\n" if known and not known.endswith("\n\n") else "") + "[[providers]]\n" + "\n".join(lines) + "\n")
        if mode == 0o600:
            path.chmod(mode)
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be written: {exc.strerror or exc}") from exc
    return path
