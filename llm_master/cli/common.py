"""What the commands share: how errors are told, and how tables are printed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from llm_master.errors import (
    AuthenticationError,
    ConfigurationError,
    DeadlineExceededError,
    InsufficientFundsError,
    LLMError,
    PermissionDeniedError,
    ProviderConnectionError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamInterruptedError,
)

_EXIT_CODES: tuple[tuple[tuple[type[LLMError], ...], int], ...] = (
    ((ConfigurationError, AuthenticationError, PermissionDeniedError, InsufficientFundsError), 3),
    (
        (RateLimitError, ServerError, ProviderConnectionError, RequestTimeoutError, DeadlineExceededError, StreamInterruptedError),
        4,
    ),
    ((LLMError,), 1),
)


def fail(error: LLMError) -> NoReturn:
    """Tell an error to a person, and end with its exit code."""
    sys.stdout.flush()
    click.echo(f"Error: {error}", err=True)
    sys.exit(next(code for kinds, code in _EXIT_CODES if isinstance(error, kinds)))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns; in a pipe, separated by tabs and without the head, for ``cut`` and ``awk``."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    for number, row in enumerate((head, *rows)):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        click.echo(click.style(line, bold=True) if number == 0 else line)


def print_json(value: object) -> None:
    """Print a value as indented JSON. Money is a string, so that no digit is lost."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
