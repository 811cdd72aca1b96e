"""``llm-master embed``."""

from __future__ import annotations

import click

from llm_master.cli.common import errors_told, shown_cost, shown_count, standard_input
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

    from llm_master.query import QueryLLM
    from llm_master.results import EmbeddingResponse

    given = list(texts) or _lines()

    async def ask() -> EmbeddingResponse:
        async with QueryLLM() as llm:
            return await llm.embed(model, given, dimensions=dimensions)

    with errors_told():
        answer = asyncio.run(ask())
    for vector in answer:
        click.echo(msgspec.json.encode(vector.tolist()))
    if usage:
        assert answer.receipt is not None
        tokens, cost = shown_count(answer.usage.input_tokens), shown_cost(answer.cost, answer.receipt.currency, answer.receipt.cost_state)
        click.echo(f"{len(answer)} vectors · {tokens} tokens · {cost} · {answer.latency or 0:.2f} s", err=True)


def _lines() -> list[str]:
    piped = standard_input()
    if not piped:
        raise click.UsageError("there is no text: give some as arguments, or pipe lines in")
    # str.splitlines would also part a line at characters that only look like line ends to Unicode.
    lines = [line.removesuffix("\r") for line in piped.removesuffix("\n").split("\n")]
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise click.UsageError(f"line {number} of standard input is empty: leave it out, for nothing can be made of it")
    return lines
