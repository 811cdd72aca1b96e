"""``llm-master models``."""

from __future__ import annotations

import click

from llm_master.cli.common import print_json, print_table


@click.group()
def models() -> None:
    """What is known of models."""


@models.command("list")
@click.option("-p", "--provider", help="Only this provider's.")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known as JSON.")
def list_models(provider: str | None, *, as_json: bool) -> None:
    """List the registered models with their prices per million tokens, and what they are documented to do.

    A model need not be registered to be asked. What it is documented not to do, and its other prices, are in --json.
    """
    from decimal import Decimal

    from llm_master.model_registry import ModelRegistry
    from llm_master.provider_configs import PROVIDER_CONFIGS

    if provider is not None and provider not in PROVIDER_CONFIGS:
        raise click.BadParameter(f"{provider!r} is no provider; the providers are {', '.join(PROVIDER_CONFIGS)}", param_hint="--provider")
    names = ModelRegistry.list_models(PROVIDER_CONFIGS[provider].name if provider is not None else None)
    if as_json:
        print_json({name: ModelRegistry.CONFIGS[name] for name in names})
        return

    def shown(value: Decimal | int | None) -> str:
        return "?" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:f}"

    rows = []
    for name in names:
        row = ModelRegistry.CONFIGS[name]
        capabilities = ", ".join(sorted(word for word, does in row.capabilities.items() if does)) or "?"
        rows.append(
            (name, shown(row.context_window), shown(row.input_price_per_million), shown(row.output_price_per_million), capabilities)
        )
    print_table(("MODEL", "CONTEXT", "IN", "OUT", "CAPABILITIES"), rows)
