"""``llm-master query --dry-run``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from llm_master.cli.common import print_json

if TYPE_CHECKING:
    from llm_master.types import Message

_BASE64 = re.compile(r"(data:[^,;]{1,100}(?:;[^,;]{1,100})*;base64,)?([A-Za-z0-9+/_-]{200,}={0,2})")


def show_plan(model: str, messages: list[Message], arguments: dict[str, Any], *, as_json: bool) -> None:
    """Print what would be sent; for people, with the bytes of images and files only counted."""
    import attrs

    from llm_master.query import QueryLLM

    plan = QueryLLM().plan(model, messages, **arguments)
    if as_json:
        print_json(attrs.asdict(plan))
        return
    click.echo(f"{plan.provider}: {plan.why}; model {plan.model}, key {plan.key or 'none'}")
    for ours, theirs in plan.renamed.items():
        click.echo(f"renamed: {ours} -> {theirs}")
    for option in plan.dropped:
        click.echo(f"dropped: {option}")
    if plan.method:
        click.echo(f"\n{plan.method} {plan.url}")
    for header, value in plan.headers.items():
        click.echo(f"{header}: {value}")
    click.echo()
    print_json(elided(plan.body))


def elided(value: Any) -> Any:
    """A body with long base64 in it counted instead of shown: ``data:image/png;base64,…(12,345 bytes)``."""
    if isinstance(value, Mapping):
        return {key: elided(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [elided(inner) for inner in value]
    if isinstance(value, str) and (found := _BASE64.fullmatch(value)):
        data = found[2]
        return f"{found[1] or ''}…({len(data.rstrip('=')) * 3 // 4:,} bytes)"
    return value
