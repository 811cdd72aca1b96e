"""``llm-master models``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from llm_master.cli.common import errors_told, fail, print_json, print_table
from llm_master.cli.completion import model_names
from llm_master.cli.trying import test_model

if TYPE_CHECKING:
    from llm_master.dispatch.target import Target
    from llm_master.model_rows import ModelConfig, PriceTier


@click.group()
def models() -> None:
    """What is known of models."""


@models.command("list")
@click.option("-p", "--provider", help="Only this provider's.")
@click.option("--live", is_flag=True, help="Ask the providers that can be asked what they have, which is free of charge, by provider.")
@click.option("--refresh", is_flag=True, help="With --live: ask anew, whatever was listed within the last hour.")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known as JSON.")
def list_models(provider: str | None, *, live: bool, refresh: bool, as_json: bool) -> None:
    """List the registered models with their prices per million tokens, in dollars where no currency stands there, and what they do.

    A model need not be registered to be asked. What it is documented not to do, and its other prices, are in --json.
    """
    from decimal import Decimal

    from llm_master.errors import LLMError
    from llm_master.model_registry import ModelRegistry
    from llm_master.provider_configs import LLMConfig, effective
    from llm_master.rows import canonical

    if live or refresh:
        _list_live(provider, refresh=refresh, as_json=as_json)
        return
    try:
        snapshot = effective(LLMConfig.from_env())
    except LLMError as exc:
        fail(exc)
    rows = snapshot.rows
    if provider is not None and canonical(provider) not in rows:
        raise click.BadParameter(f"{provider!r} is no provider; the providers are {', '.join(rows)}", param_hint="--provider")
    # What settings say of a model holds.
    known = {**{name: ModelRegistry.CONFIGS[name] for name in ModelRegistry.list_models()}, **snapshot.models}
    owners = {name: canonical(row.provider or name.partition("/")[0]) for name, row in known.items()}
    known = {name: row for name, row in known.items() if provider is None or owners[name] == canonical(provider)}
    if as_json:
        print_json(known)
        return

    def shown(value: Decimal | int | None) -> str:
        return "?" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:f}"

    lines = []
    for name, row in known.items():
        owner = rows.get(owners[name])
        other = f" {owner.currency}" if owner is not None and owner.currency != "USD" else ""
        prices = [
            f"{shown(price)}{other if price is not None else ''}" for price in (row.input_price_per_million, row.output_price_per_million)
        ]
        capabilities = ", ".join(sorted(word for word, does in row.capabilities.items() if does)) or "?"
        lines.append((name, shown(row.context_window), *prices, capabilities))
    print_table(("MODEL", "CONTEXT", "IN", "OUT", "CAPABILITIES"), lines)


def _list_live(provider: str | None, *, refresh: bool, as_json: bool) -> None:
    """What the providers say they have. An outage is told, and what is declared stands there all the same."""
    import asyncio

    from llm_master.query import QueryLLM

    with errors_told():
        found = asyncio.run(QueryLLM().list_models(provider, refresh=refresh))
    if as_json:
        print_json(found.providers)
        return
    asked = {name: models for name, models in found.items() if provider is not None or models.state in ("listed", "outage")}
    for name, models in asked.items():
        if models.error is not None:
            click.echo(f"{name}: {models.error}", err=True)
    print_table(
        ("MODEL", "CONTEXT", "FROM"),
        [
            (
                f"{name}/{model.id}",
                "?" if model.context_window is None else f"{model.context_window:,}",
                "provider" if model.discovered else "declared only",
            )
            for name, models in asked.items()
            for model in models
        ],
    )
    if provider is not None and any(models.state != "listed" for models in asked.values()):
        sys.exit(1)


@models.command()
@click.argument("model", shell_complete=model_names)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def info(model: str, *, as_json: bool) -> None:
    """Say all that is known of MODEL: prices with their source and day, limits, what it does and does not. Sends nothing."""
    from llm_master.engines import engine_for
    from llm_master.errors import LLMError

    try:
        target = engine_for(None).target(model)
    except LLMError as exc:
        fail(exc)
    known, where = target.model, "registered"
    if known is None and target.look_up is not None:
        known, where = target.look_up(), "looked up in the genai-prices package"
    facts = _facts(target, known, where)
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        lines = _lines(value)
        click.echo(f"{_words(name) + ':':20}{lines[0]}")
        for line in lines[1:]:
            click.echo(f"{'':20}{line}")


def _facts(target: Target, known: ModelConfig | None, where: str) -> dict[str, Any]:
    """What is known of a model; ``None`` is unknown."""
    from decimal import Decimal

    from llm_master.model_registry import ModelRegistry

    route, row = target.route, target.row
    facts: dict[str, Any] = {"model": target.name, "provider": route.provider, "wire_id": route.model, "why": route.why}
    if row.skip_cost_calculation:
        facts["prices"] = "no cost is calculated for this provider"
    elif known is None:
        facts["prices"] = None
    else:
        prices = {name: value for name, value in _given(known).items() if isinstance(value, Decimal)}
        tiers = [_given(tier) for tier in known.price_tiers]
        facts["prices"] = {"currency": row.currency, **prices, **({"tiers": tiers} if tiers else {})} if prices or tiers else None
        facts |= {"prices_are": where, "source": known.source, "as_of": known.as_of}
        facts |= {name: value for name in ("prices_vary", "prices_hold_until", "note") if (value := getattr(known, name))}
    facts |= {name: getattr(known, name, None) for name in ("context_window", "max_output_tokens")}
    facts["limits"] = ({name: value for name, value in _given(known).items() if name.startswith("rate_limit")} if known else {}) or None
    capabilities = known.capabilities if known is not None else {}
    facts["does"] = sorted(word for word, does in capabilities.items() if does) or None
    facts["does_not"] = sorted(word for word, does in capabilities.items() if not does) or None
    bare = route.model.rpartition("/")[2]
    others = [name for name in ModelRegistry.list_models() if name.rpartition("/")[2] == bare and name != f"{route.provider}/{route.model}"]
    facts["also_at"] = sorted(others) or None
    return facts


def _given(row: ModelConfig | PriceTier) -> dict[str, Any]:
    import attrs

    return attrs.asdict(row, recurse=False, filter=lambda _, value: value is not None)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _lines(value: Any) -> list[str]:
    """A fact for people, in one line or several."""
    if isinstance(value, dict):
        return [f"{_words(name)} {line}" for name, one in value.items() for line in _lines(one)]
    if isinstance(value, list):
        return ["; ".join(_lines(one)) for one in value] if isinstance(value[0], dict) else [", ".join(value)]
    return ["?" if value is None else f"{value:,}" if type(value) is int else str(value)]


models.add_command(test_model)
