"""``llm-master testing``: servers to test against."""

from __future__ import annotations

import click

from llm_master.cli.common import errors_told


@click.group()
def testing() -> None:
    """Servers to test against, without a provider."""


@testing.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on. The control paths listen there, too.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port to listen on; 0, the default, is any that is free.")
@click.option("--script", "file", metavar="FILE", help="What to answer, in TOML or JSON: script, limits, keys, models.")
@click.option("--limit", "limits", multiple=True, metavar="LIMIT", help='As 600/60s, "90000 tokens/1m/model" or "4 concurrency".')
@click.option(
    "--key", "keys", multiple=True, metavar="KEY", help="An API key that there is; any other gets a 401. Without it, any will do."
)
@click.option(
    "--model", "models", multiple=True, metavar="MODEL", help="A model that there is; any other gets a 404. Without it, any will do."
)
def serve(host: str, port: int, file: str | None, limits: tuple[str, ...], keys: tuple[str, ...], models: tuple[str, ...]) -> None:
    """Serve OpenAI's API, with echoes for answers and the failures that FILE scripts, until interrupted.

    The address goes to standard output, as one line. --limit, --key and --model add to what FILE says.
    """
    import asyncio

    from llm_master.testing.scenario import Scenario, added, read_scenario
    from llm_master.testing.script import Limit
    from llm_master.testing.serving import serve as serve_until_cancelled

    def ready(at: str, on: int) -> None:
        shown = f"[{at}]" if ":" in at else at
        click.echo(f"http://{shown}:{on}/v1")
        click.echo(f"ACME_API_BASE=http://{shown}:{on}/v1 llm-master query -m acme/any Hello    (Ctrl-C ends the server)", err=True)

    with errors_told():
        scenario = added(
            read_scenario(file) if file else Scenario(), limits=[Limit.from_text(text) for text in limits], keys=keys, models=models
        )
        try:
            asyncio.run(serve_until_cancelled(scenario, host=host, port=port, ready=ready))
        except KeyboardInterrupt:
            click.echo("stopped", err=True)  # the way to end it, and no failure
