"""How answers are shown: rendered on a terminal, plain in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import click

from llm_master.cli.common import shown_cost, shown_count

if TYPE_CHECKING:
    from llm_master.types import LLMResponse

# A model's text may hold what steers a terminal (ESC and its kin): it is shown, and not obeyed.
_STEERING = {code: "�" for code in (*range(32), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r"}


def console() -> Any:
    """Rich's console, where standard output is a terminal that can do more than type and rich is installed; else ``None``."""
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    found = Console()
    return None if found.is_dumb_terminal else found


def show(response: LLMResponse, *, is_json: bool) -> None:
    """Print an answer's text.

    Args:
        response: The answer.
        is_json: Its text is JSON, which is indented on a terminal.
    """
    text = response.content
    if not text and (response.tool_calls or response.images or response.audio):
        return
    if (terminal := console()) is not None:
        terminal.print(_rendered(text, is_json=is_json))
        return
    if is_json and sys.stdout.isatty():
        text = _indented(text)
    _write(text + "\n")


async def show_stream(texts: AsyncIterator[str], *, is_json: bool) -> None:
    """Print an answer as it arrives.

    On a terminal the end of it is rendered again and again while it comes, and all of it once it is whole: what has
    scrolled away could not be drawn anew.
    """
    terminal = console()
    if terminal is None:
        began = False
        try:
            async for text in texts:
                began = True
                _write(text)
        finally:
            if began:
                _write("\n")
        return
    from rich.live import Live

    tail = _Tail(is_json=is_json)
    try:
        with Live(tail, console=terminal, transient=True, refresh_per_second=8):
            async for text in texts:
                tail.text += text
    finally:
        if tail.text:
            terminal.print(_rendered(tail.text, is_json=is_json))


def show_rest(response: LLMResponse) -> None:
    """Print what an answer has beside its text: calls of tools, addresses of images, and, for people only, its sources."""
    for call in response.tool_calls:
        _write(f"{call.name}({json.dumps(call.arguments, ensure_ascii=False)})\n")
    urls = [image.url for image in response.images if image.url]
    # Where images are the answer, their addresses are its text; beside a text, they are not to get into the pipe.
    beside = bool(response.content) and response.content not in urls and not sys.stdout.isatty()
    for url in urls:
        if url not in response.content:
            click.echo(url, err=beside)
    if response.citations and sys.stdout.isatty():
        _write("\nSources:\n")
        for number, citation in enumerate(response.citations, 1):
            _write(f"  [{number}] {citation.title or ''} {citation.url or ''}".rstrip() + "\n")


def as_json(response: LLMResponse, saved: dict[int, str]) -> dict[str, Any]:
    """All of an answer but the provider's own form of it; of images and audio, where they are."""
    import attrs

    fields = {field.name: getattr(response, field.name) for field in attrs.fields(type(response)) if field.name not in ("wire", "native")}
    fields["images"] = [_about(image, saved) for image in response.images]
    fields["audio"] = _about(response.audio, saved) if response.audio is not None else None
    # What was asked for may well be an empty value, so it stays.
    return {name: value for name, value in fields.items() if value not in (None, []) or name == "content"}


def usage_line(response: LLMResponse) -> str:
    """Tokens, cost, time, and who answered with which key."""
    receipt, tokens = response.receipt, response.usage
    parts = [f"{shown_count(tokens.input_tokens)} tokens in, {shown_count(tokens.output_tokens)} out"]
    if tokens.cached_tokens:
        parts[0] += f" ({tokens.cached_tokens:,} cached)"
    if receipt is not None:
        attempt = receipt.attempts[-1]
        parts += [shown_cost(receipt.cost, receipt.currency, receipt.cost_state), f"{attempt.latency or 0:.2f} s"]
        parts += [f"{attempt.provider}/{attempt.model_served or attempt.model}", attempt.key or "no key"]
        if len(receipt.attempts) > 1:
            parts.append(f"{len(receipt.attempts)} attempts")
    return " · ".join(parts)


def _about(item: Any, saved: dict[int, str]) -> dict[str, Any]:
    import attrs

    about = attrs.asdict(item, filter=lambda field, value: field.name != "data" and value is not None)
    return {
        **about,
        "bytes": len(item.data) if item.data is not None else None,
        "url": getattr(item, "url", None),
        "saved": saved.get(id(item)),
    }


def _write(text: str) -> None:
    """Write text: on a terminal without what would steer it, in a pipe byte by byte as it is, in UTF-8."""
    if sys.stdout.isatty():
        click.echo(text.translate(_STEERING), nl=False)
    else:
        click.echo(text.encode("utf-8", "replace"), nl=False)


def _indented(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text


def _rendered(text: str, *, is_json: bool) -> Any:
    """Text as rich shows it: JSON indented and coloured, else Markdown."""
    text = text.translate(_STEERING)
    if is_json:
        from rich.syntax import Syntax

        return Syntax(_indented(text), "json", background_color="default", word_wrap=True)
    from markdown_it import MarkdownIt
    from rich.markdown import Markdown

    document = Markdown(text, hyperlinks=False)
    # Rich leaves out HTML and images' addresses, and joins lines, as a browser does. A model's <tags>, links and lines of
    # verse are meant as they stand.
    document.parsed = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).parse(text)
    for token in document.parsed:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"
            elif child.type == "image":
                child.type, child.content, child.children = "text", f"{child.content} ({child.attrs['src']})", None
    return document


class _Tail:
    """The last lines of a text that still grows: as many as the terminal has."""

    def __init__(self, *, is_json: bool) -> None:
        self.text = ""
        self._is_json = is_json

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.segment import Segment

        lines = console.render_lines(_rendered(self.text, is_json=self._is_json), options.update(height=None), pad=False)
        for line in lines[-max(1, console.height - 1) :]:
            yield from line
            yield Segment.line()
