"""``llm-master embed``."""

from __future__ import annotations

import sys

import click

from llm_master.cli.common import fail
from llm_master.cli.completion import model_names


@click.command()
@click.argument("texts", nargs=-1)
@click.option("-m", "--model", required=True, shell_complete=model_names, help="Model, as text-embedding-3-small.")
@click.option("-d", "--dimensions", type=click.IntRange(min=1), help="Numbers per vector, where the model lets you choose.")
@click.option("-u", "--usage", is_flag=True, help="Print tokens and cost on standard error.")
def embed(texts: tuple[str, ...], model: str, dimensions: int | None, *, usage: bool) -> None:
    """Turn texts into vectors, one JSON list a line, in the order of the texts.

    With no TEXTS, each line of standard input is one; empty lines are refused, since the lines would no longer match.
    """
    import asyncio

    import msgspec

    from llm_master.errors import LLMError
    from llm_master.query import QueryLLM

    given = list(texts)
    if not given:
        if sys.stdin is None or sys.stdin.isatty():
            raise click.UsageError("there is no text: give some as arguments, or pipe lines in")
        given = sys.stdin.read().splitlines()

    async def ask() -> None:
        async with QueryLLM() as llm:
            answer = await llm.embed(model, given, dimensions=dimensions)
        for vector in answer:
            click.echo(msgspec.json.encode(vector.tolist()))
        if usage:
            cost = (
                "cost unknown"
                if answer.cost is None
                else f"{answer.cost.normalize():f} {answer.receipt.currency if answer.receipt else ''}"
            )
            click.echo(
                f"{len(answer)} vectors · {answer.usage.input_tokens or '?'} tokens · {cost} · {answer.latency or 0:.2f} s", err=True
            )

    try:
        asyncio.run(ask())
    except LLMError as exc:
        fail(exc)
    except KeyboardInterrupt:
        sys.exit(130)
