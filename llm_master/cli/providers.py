"""``llm-master providers``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from llm_master.cli.common import fail, print_json, print_table
from llm_master.cli.trying import test_provider

if TYPE_CHECKING:
    from llm_master.snapshot import Snapshot


@click.group()
def providers() -> None:
    """What is known of providers."""


@providers.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_providers(*, as_json: bool) -> None:
    """List the providers: address, where the key comes from, default model. Keys are never shown."""
    from llm_master.errors import LLMError
    from llm_master.provider_configs import LLMConfig, effective
    from llm_master.rows import base_variable

    try:
        snapshot = effective(LLMConfig.from_env())
    except LLMError as exc:
        fail(exc)
    rows = []
    for name, row in snapshot.rows.items():
        address = row.base_url or ("in this process" if snapshot.usable(name) else f"${base_variable(row)} is not set")
        rows.append((row.name, "yes" if snapshot.usable(name) else "no", address, _key(snapshot, name), row.default_model or "-"))
    head = ("PROVIDER", "READY", "ADDRESS", "KEY", "DEFAULT MODEL")
    if as_json:
        fields = [column.lower().replace(" ", "_") for column in head]
        print_json([dict(zip(fields, row, strict=True)) for row in rows])
    else:
        print_table(head, rows)


def _key(snapshot: Snapshot, name: str) -> str:
    """Where a provider's keys come from, and never a key: the variable that carries its name is its default."""
    from llm_master.rows import key_variables

    row, keys = snapshot.rows[name], snapshot.keys[name]
    default = key_variables(row)[0]
    if not keys:
        return f"${default} is not set" if row.requires_key else "needs none"
    source = keys[0].source
    # A file's place has a line, a row says that it is one; all else is a variable.
    direct = ":" in source or source.endswith(" row")
    said = "(configured directly)" if direct else f"${source}"
    if source.upper() == default:
        said += " (default)"
    return said if len(keys) == 1 else f"{said} and {len(keys) - 1} more"


@providers.command("add")
@click.option("--name", prompt="Name, as it stands before the model", help="Name, as in NAME/MODEL.")
@click.option("--base-url", prompt="Address of the API, as https://api.acme.ai/v1", help="Address, up to and without /chat/completions.")
@click.option(
    "--default-model",
    prompt="Model to ask where none is named (may be empty)",
    default="",
    show_default=False,
    help="Model to ask where none is named.",
)
@click.option("--key-env", help="Variable that holds the key, instead of keeping the key in a file.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def add(name: str, base_url: str, default_model: str, key_env: str | None, *, as_json: bool) -> None:
    """Add a provider to your settings. The key is asked for and not shown; it goes into a file that only you can read."""
    from llm_master.cli.adding import add_provider
    from llm_master.errors import LLMError

    key = ""
    if key_env is None:
        key = click.prompt("API key (may be empty)", hide_input=True, default="", show_default=False)
    try:
        written = add_provider(name, base_url, default_model.strip() or None, key_env, key or None)
    except LLMError as exc:
        fail(exc)
    if as_json:
        print_json({"provider": name, "written": [str(path) for path in written], "key_env": key_env})
        return
    for path in written:
        click.echo(f"Written to {path}")
    if key_env is not None:
        click.echo(f"Set ${key_env} to the key.")
    click.echo(f'Try: llm-master query -m {name}{"" if default_model else "/MODEL"} "Hello"')


providers.add_command(test_provider)
