"""The last conversation, kept for ``llm-master query -c``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from llm_master.types import Message


def state_file() -> Path:
    """Where it is kept: ``$XDG_STATE_HOME``, or the system's place for a program's own files."""
    if folder := os.environ.get("XDG_STATE_HOME"):
        return Path(folder) / "llm_master" / "conversation.json"
    if sys.platform in ("win32", "darwin"):
        return Path(click.get_app_dir("llm_master")) / "conversation.json"
    return Path.home() / ".local" / "state" / "llm_master" / "conversation.json"


def load() -> tuple[str, list[Message]]:
    """Model and messages of the last conversation."""
    import msgspec

    path = state_file()
    try:
        kept: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict)
        return str(kept["model"]), list(kept["messages"])
    except FileNotFoundError:
        raise click.UsageError("there is no conversation to go on with: ask something without -c first") from None
    except (OSError, KeyError, TypeError, ValueError) as exc:
        raise click.UsageError(f"the last conversation in {path} cannot be read ({exc}): remove the file, or ask without -c") from None


def keep(model: str, messages: list[Message]) -> None:
    """Keep a conversation, for this user's eyes only. That it cannot be kept is told, and takes nothing from the answer."""
    import msgspec

    path = state_file()
    new = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode({"model": model, "messages": messages}))
        new.replace(path)
    except OSError as exc:
        click.echo(f"The conversation could not be kept for -c: {exc}", err=True)
