"""What the commands share: how errors are told, how input is read, and how tables and JSON are printed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

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

if TYPE_CHECKING:
    from decimal import Decimal

_EXIT_CODES: tuple[tuple[tuple[type[LLMError], ...], int], ...] = (
    ((ConfigurationError, AuthenticationError, PermissionDeniedError, InsufficientFundsError), 3),
    (
        (RateLimitError, ServerError, ProviderConnectionError, RequestTimeoutError, DeadlineExceededError, StreamInterruptedError),
        4,
    ),
    ((LLMError,), 1),
)


@contextlib.contextmanager
def errors_told() -> Iterator[None]:
    """Within it, an error of the library is told to a person and ends the command with its exit code."""
    try:
        yield
    except LLMError as exc:
        fail(exc)
    except KeyboardInterrupt:
        sys.exit(130)


def exit_code(error: LLMError) -> int:
    """The exit code that an error ends a command with."""
    return next(code for kinds, code in _EXIT_CODES if isinstance(error, kinds))


def fail(error: LLMError) -> NoReturn:
    """Tell an error to a person, and end with its exit code."""
    sys.stdout.flush()
    click.echo(f"Error: {error}", err=True)
    sys.exit(exit_code(error))


def standard_input() -> str | None:
    """All of standard input; ``None`` where it is a terminal, or closed."""
    if sys.stdin is None or sys.stdin.isatty():
        return None
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise click.UsageError(
            f"standard input is no UTF-8 text (byte {exc.start}): give a file that is none by --file or --image"
        ) from None


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

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def shown_count(count: int | None) -> str:
    """A count, or ``?`` where it is not known."""
    return "?" if count is None else f"{count:,}"


def shown_cost(cost: Decimal | None, currency: str, state: str) -> str:
    """A cost with its currency and how it is known."""
    return "cost unknown" if cost is None else f"{cost.normalize():f} {currency} ({state})"
