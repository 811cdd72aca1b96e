"""How answers are shown: rendered on a terminal, plain in a pipe; images and audio go to files."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from llm_master.media import Audio, Image
    from llm_master.types import LLMResponse


def console() -> Any:
    """Rich's console, where standard output is a terminal and rich is installed; else ``None``."""
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console()


def show(response: LLMResponse) -> None:
    """Print an answer: its text, or the tools that it calls."""
    terminal = console()
    if response.content or not (response.tool_calls or response.images or response.audio):
        if terminal is not None:
            from rich.markdown import Markdown

            terminal.print(Markdown(response.content))
        else:
            click.echo(response.content)
    show_rest(response)


def show_rest(response: LLMResponse) -> None:
    """Print what an answer has beside its text. Sources are for people, so a pipe does not get them."""
    for call in response.tool_calls:
        click.echo(f"{call.name}({json.dumps(call.arguments)})")
    if response.citations and sys.stdout.isatty():
        click.echo("\nSources:")
        for number, citation in enumerate(response.citations, 1):
            click.echo(f"  [{number}] {citation.title or ''} {citation.url or ''}".rstrip())


async def show_stream(texts: AsyncIterator[str]) -> None:
    """Print an answer as it arrives."""
    terminal = console()
    if terminal is None:
        try:
            async for text in texts:
                click.echo(text, nl=False)
        finally:
            click.echo()
        return
    from rich.live import Live
    from rich.markdown import Markdown

    whole = ""
    with Live(console=terminal, refresh_per_second=8, vertical_overflow="visible") as live:
        async for text in texts:
            whole += text
            live.update(Markdown(whole))


def check_target(save: str | None) -> None:
    """Make the folder that files go to, before anything is paid for."""
    if save is None:
        return
    folder = Path(save) if _is_folder(save) else Path(save).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise click.BadParameter(f"{folder} cannot be made: {exc.strerror or exc}", param_hint="--save") from None


async def save_media(response: LLMResponse, save: str | None) -> list[Path]:
    """Write images and audio to files. What has no address is written in any case, since it would be lost."""
    from llm_master.transport.fetch import download

    media: list[Image | Audio] = [image for image in response.images if save is not None or image.data is not None]
    if response.audio is not None:
        media.append(response.audio)
    written = []
    for number, item in enumerate(media):
        path = _path(save, item.ending, number if len(media) > 1 else None)
        if item.data is None:
            item.data = await download(item)
        written.append(item.save(path))
    return written


def _path(save: str | None, ending: str, number: int | None) -> Path:
    stamp = time.strftime("llm-master-%Y%m%d-%H%M%S")
    path = Path(save, stamp + ending) if save is not None and _is_folder(save) else Path(save or stamp + ending)
    if not path.suffix:
        path = path.with_suffix(ending)
    return path if number is None else path.with_stem(f"{path.stem}-{number + 1}")


def _is_folder(save: str) -> bool:
    return save.endswith(("/", "\\")) or Path(save).is_dir()
