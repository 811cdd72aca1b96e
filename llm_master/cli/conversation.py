"""The last conversation, kept for ``llm-master query -c``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, TypedDict

import click

if TYPE_CHECKING:
    from llm_master.types import LLMResponse, Message


class _Kept(TypedDict):
    model: str
    messages: list[dict[str, Any]]


def state_file() -> str:
    """Where it is kept: in ``$XDG_STATE_HOME``, or the system's place for a program's own files."""
    folder = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(folder):  # which the XDG specification says to ignore
        folder = os.path.expanduser("~/.local/state")
        if sys.platform in ("win32", "darwin"):
            return os.path.join(click.get_app_dir("llm_master"), "conversation.json")
    return os.path.join(folder, "llm_master", "conversation.json")


def load() -> tuple[str, list[Message]]:
    """Model and messages of the last conversation."""
    import msgspec

    path = state_file()
    try:
        with open(path, "rb") as file:
            kept = msgspec.json.decode(file.read(), type=_Kept)
    except FileNotFoundError:
        raise click.UsageError("there is no conversation to go on with: ask something without -c first") from None
    except (OSError, ValueError) as exc:
        raise click.UsageError(f"the last conversation in {path} cannot be read ({exc}): remove the file, or ask without -c") from None
    return kept["model"], list(kept["messages"])


def keep(model: str, messages: list[Message], response: LLMResponse) -> None:
    """Keep a conversation, for this user's eyes only.

    That it cannot be kept is told, and takes nothing from the answer. Where the answer cannot be gone on from, the one
    before it stays: providers refuse a turn that says nothing, and calls of tools without their results.
    """
    if response.tool_calls or not response.content:
        why = "calls tools, and their results cannot be given here" if response.tool_calls else "has no text"
        click.echo(f"Not kept for -c: the answer {why}.", err=True)
        return
    import tempfile

    import msgspec

    path = state_file()
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        # A file of its own with mode 0600, so that of two commands at once neither writes into the other's.
        number, new = tempfile.mkstemp(dir=folder)
        try:
            with open(number, "wb") as file:
                file.write(msgspec.json.encode(_Kept(model=model, messages=[dict(message) for message in (*messages, response.message)])))
            os.replace(new, path)
        except BaseException:
            os.unlink(new)
            raise
    except OSError as exc:
        click.echo(f"Not kept for -c: {exc.filename or path}: {exc.strerror or exc}", err=True)
