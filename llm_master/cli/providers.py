"""``llm-master providers``."""

from __future__ import annotations

import click

from llm_master.cli.common import fail, print_json, print_table


@click.group()
def providers() -> None:
    """What is known of providers."""


@providers.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_providers(*, as_json: bool) -> None:
    """List the providers: address, where the key comes from, default model. Keys are never shown."""
    from llm_master.errors import LLMError
    from llm_master.provider_configs import LLMConfig, effective
    from llm_master.rows import base_variable, key_variables

    try:
        snapshot = effective(LLMConfig.from_env())
    except LLMError as exc:
        fail(exc)
    rows = []
    for name, row in snapshot.rows.items():
        keys = snapshot.keys[name]
        if keys:
            key = f"${keys[0].source}"
        else:
            key = f"${key_variables(row)[0]} is not set" if row.requires_key else "needs none"
        address = row.base_url or ("in this process" if snapshot.usable(name) else f"${base_variable(row)} is not set")
        rows.append((name, "yes" if snapshot.usable(name) else "no", address, key, row.default_model or "-"))
    head = ("PROVIDER", "READY", "ADDRESS", "KEY", "DEFAULT MODEL")
    if as_json:
        fields = [column.lower().replace(" ", "_") for column in head]
        print_json([dict(zip(fields, row, strict=True)) for row in rows])
    else:
        print_table(head, rows)
