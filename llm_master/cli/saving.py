"""Images and audio of an answer become files. What was paid for is not lost: where it cannot go, it goes elsewhere and is told."""

from __future__ import annotations

import itertools
import os
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from llm_master.media import Audio, Image
    from llm_master.types import LLMResponse


def check_target(save: str | None) -> None:
    """Make the folder that files go to, before anything is paid for."""
    if save is None:
        return
    save = os.path.expanduser(save)
    folder = save if _is_folder(save) else os.path.dirname(save)
    folder = folder or "."
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as exc:
        raise click.BadParameter(f"the folder {folder} cannot be made: {exc.strerror or exc}", param_hint="--save") from None
    if not os.access(folder, os.W_OK):
        raise click.BadParameter(f"the folder {folder} may not be written to by this user", param_hint="--save")


async def save_media(response: LLMResponse, save: str | None, saved: dict[int, str]) -> bool:
    """Write images and audio to files, and say where each is.

    What has no address is written in any case; what has one, only where ``--save`` asks for it.

    Args:
        response: The answer.
        save: File or folder.
        saved: Gets the path of each, by ``id``.

    Returns:
        Whether each is where it should be.
    """
    from llm_master.errors import LLMError
    from llm_master.messages.content import media_type_of
    from llm_master.transport.fetch import download

    media: list[Image | Audio] = [*response.images, *([response.audio] if response.audio is not None else [])]
    if save is not None and not media:
        click.echo("Nothing to save: the answer has neither images nor audio.", err=True)
    media = [item for item in media if save is not None or item.data is not None]
    well = True
    for number, item in enumerate(media, 1):
        if item.data is None:
            try:
                item.data = await download(item)
            except LLMError as exc:
                click.echo(f"Error: not saved: {exc}. It is at {item.url}", err=True)
                well = False
                continue
            item.media_type = item.media_type or media_type_of(item.data)
        well &= _write(item, save, number if len(media) > 1 else None, saved)
    return well


def _write(item: Image | Audio, save: str | None, number: int | None, saved: dict[int, str]) -> bool:
    import tempfile

    path = None
    try:
        path = _path(save, item.ending, number)
        saved[id(item)] = os.fspath(item.save(path))
    except OSError as exc:
        click.echo(f"Error: {path or exc.filename} cannot be written: {exc.strerror or exc}", err=True)
    else:
        click.echo(f"Saved {path}", err=True)
        return True
    try:
        path = _path(os.path.join(tempfile.gettempdir(), ""), item.ending, number)
        saved[id(item)] = os.fspath(item.save(path))
        click.echo(f"Saved {path} instead", err=True)
    except OSError as exc:
        click.echo(f"Error: {exc.filename or path} cannot be written either: {exc.strerror or exc}", err=True)
    return False


def _path(save: str | None, ending: str, number: int | None) -> str:
    """The file that is named; else one that there was not, in the folder that is named or here."""
    save = os.path.expanduser(save) if save is not None else ""
    if save and not _is_folder(save):
        stem, suffix = os.path.splitext(save)
        return f"{stem}{'' if number is None else f'-{number}'}{suffix or ending}"
    stem = os.path.join(save, time.strftime("llm-master-%Y%m%d-%H%M%S"))
    for attempt in itertools.count(number or 0):
        path = f"{stem}{f'-{attempt}' if attempt else ''}{ending}"
        try:
            with open(path, "x"):
                return path
        except FileExistsError:
            continue
    raise AssertionError("unreachable: numbers do not end")


def _is_folder(save: str) -> bool:
    return save.endswith(("/", os.sep)) or os.path.isdir(save)
