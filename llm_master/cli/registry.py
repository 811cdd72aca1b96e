"""``llm-master registry``: what is known of models, compared with other lists and checked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llm_master.cli.common import errors_told, print_json, print_table

if TYPE_CHECKING:
    from llm_master.model_rows import ModelConfig
    from llm_master.registry_sync import Change, Difference, Listed
    from llm_master.rows import ProviderConfig


@click.group()
def registry() -> None:
    """The prices and sizes of models: compare them with other lists, check them."""


@registry.command()
@click.option(
    "--from",
    "source",
    required=True,
    metavar="genai-prices|FILE",
    help="The genai-prices package that is installed, or a file: in the form of models.json, or LiteLLM's list.",
)
@click.option("-p", "--provider", help="Only this provider's models.")
@click.option("--new", is_flag=True, help="Also models that are not known here.")
@click.option("--write", "writes", is_flag=True, help="Write what differs into models.json of your settings folder.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it into this file instead.")
@click.option("--force", is_flag=True, help="Also take over what moves by more than a factor of 10.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def sync(source: str, provider: str | None, output: Path | None, *, new: bool, writes: bool, force: bool, as_json: bool) -> None:
    """Show where another list has other prices or sizes, and take them over if you say so. Nothing is downloaded.

    A model of which something moves by more than a factor of 10, or from or to 0, is left as it is, and the exit code is 1.
    """
    from llm_master import registry_sync
    from llm_master.settings.environment import current_environment
    from llm_master.settings.files import user_models_file

    with errors_told():
        providers = _providers()
        if provider is not None:
            provider = _known(provider, providers)
        target = output if output is not None else user_models_file(current_environment())
        if writes and target is None:
            raise click.UsageError("there is no settings folder to write to here: name a file by --output")
        ours = registry_sync.known_with(target)
        theirs = _theirs(source, ours, providers, new=new)
        if provider is not None:
            theirs = {name: listed for name, listed in theirs.items() if name.startswith(f"{provider}/") or listed.row.provider == provider}
        found = registry_sync.differences(ours, theirs, new=new)
        refused = [] if force else [difference for difference in found if difference.far]
        taken = [difference for difference in found if difference not in refused]
        if (writes or output is not None) and target is not None and taken:
            registry_sync.write(target, taken)
    _show(found, refused, as_json=as_json)
    if not as_json:
        _sum_up(found, refused, taken, target if writes or output is not None else None, len(theirs))
    if refused:
        sys.exit(1)


@registry.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def check(file: Path | None, *, as_json: bool) -> None:
    """Say everything that is wrong with FILE, or with the models known here. Asks nobody. Exit code 1 if anything is."""
    from datetime import UTC, datetime
    from importlib.resources import as_file, files

    from llm_master import registry_check
    from llm_master.settings.environment import current_environment
    from llm_master.settings.files import user_models_file

    with errors_told():
        providers = _providers()
        names = {alias for name, row in providers.items() for alias in (name, row.name, *row.aliases)}
        own = user_models_file(current_environment())
        with as_file(files("llm_master").joinpath("models.json")) as packaged:
            paths = [file] if file is not None else [packaged, *([own] if own is not None and own.exists() else [])]
            read = {path: registry_check.read_json(path) for path in paths}
        found = {path: registry_check.check(rows, names, datetime.now(UTC).date()) for path, rows in read.items()}
    every = [(str(path), finding) for path, findings in found.items() for finding in findings]
    if as_json:
        print_json([{"file": path, "model": item.model, "level": _level(item.fault), "text": item.text} for path, item in every])
    else:
        for path, item in every:
            click.echo(f"{path}: {_level(item.fault)}: {item.model!r} {item.text}", err=True)
        faults = sum(item.fault for _, item in every)
        counted = f"{sum(map(len, read.values()))} models, {faults} faults, {len(every) - faults} warnings"
        click.echo(counted)
    if any(item.fault for _, item in every):
        sys.exit(1)


def _level(fault: bool) -> str:  # noqa: FBT001  # the one thing it is given
    return "fault" if fault else "warning"


def _providers() -> dict[str, ProviderConfig]:
    """The providers of the settings; of the table alone, where the settings are wrong, which ``config check`` tells."""
    from llm_master.errors import LLMError
    from llm_master.provider_configs import PROVIDER_CONFIGS, LLMConfig, effective
    from llm_master.rows import canonical

    try:
        return effective(LLMConfig.from_env()).rows
    except LLMError:
        return {canonical(row.name): row for row in PROVIDER_CONFIGS.values()}


def _known(provider: str, providers: dict[str, ProviderConfig]) -> str:
    from llm_master.rows import canonical

    wanted = canonical(provider)
    for name, row in providers.items():
        if wanted in (name, *map(canonical, row.aliases)):
            return name
    raise click.BadParameter(f"{provider!r} is no provider; the providers are {', '.join(providers)}", param_hint="--provider")


def _theirs(source: str, ours: dict[str, ModelConfig], providers: dict[str, ProviderConfig], *, new: bool) -> dict[str, Listed]:
    from datetime import UTC, datetime

    from llm_master import registry_sync

    today = datetime.now(UTC).date().isoformat()
    if source == "genai-prices":
        return registry_sync.from_genai_prices(ours, providers, today, new=new)
    return registry_sync.from_file(Path(source), providers, today)


_HEAD = ("MODEL", "FIELD", "OURS", "THEIRS", "CHANGE", "OURS FROM", "THEIRS FROM", "")


def _show(found: Sequence[Difference], refused: Sequence[Difference], *, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {
                    "model": difference.name,
                    "new": difference.ours is None,
                    "refused": difference in refused,
                    "ours": _from(difference.ours),
                    "theirs": {**_from(difference.theirs.row), "through": difference.theirs.through, "called": difference.theirs.called},
                    "changes": [
                        {"field": change.field, "ours": change.ours, "theirs": change.theirs, "percent": change.percent, "far": change.far}
                        for change in difference.changes
                    ],
                }
                for difference in found
            ]
        )
        return
    rows = [
        (
            difference.name,
            change.field,
            _said(change.ours),
            _said(change.theirs),
            _moved(change),
            _provenance(difference.ours),
            _provenance(difference.theirs.row)
            + f" ({difference.theirs.through}{f', as {difference.theirs.called}' if difference.theirs.called else ''})",
            "REFUSED" if difference in refused and change.far else "refused with it" if difference in refused else "",
        )
        for difference in found
        for change in difference.changes
    ]
    if rows:
        print_table(_HEAD, rows)


def _sum_up(
    found: Sequence[Difference], refused: Sequence[Difference], taken: Sequence[Difference], written: Path | None, listed: int
) -> None:
    click.echo(f"{listed} models compared, {len(found)} differ.", err=True)
    if refused:
        names = ", ".join(difference.name for difference in refused)
        click.echo(
            f"Refused, since something moves by more than a factor of 10, or from or to 0: {names}. Look at them, and take them by --force.",
            err=True,
        )
    if written is not None:
        click.echo(f"{len(taken)} written to {written}" if taken else f"Nothing to write to {written}", err=True)
    elif taken:
        click.echo("Nothing was written: --write takes them over for you, --output FILE into a file.", err=True)


def _from(row: ModelConfig | None) -> dict[str, str | None]:
    return {"source": row.source if row is not None else None, "as_of": row.as_of if row is not None else None}


def _provenance(row: ModelConfig | None) -> str:
    return "-" if row is None else f"{row.source or 'unknown'}, {row.as_of or 'no date'}"


def _said(value: Any) -> str:
    if value in (None, ()):
        return "?"
    if isinstance(value, tuple):
        return "; ".join(
            f">{tier.above_input_tokens}: " + ", ".join(f"{_short(name)} {price:f}" for name, price in _prices(tier)) for tier in value
        )
    return f"{value:,}" if isinstance(value, int) else f"{value:f}"


def _prices(tier: Any) -> list[tuple[str, Any]]:
    import attrs

    return [(name, price) for name, price in attrs.asdict(tier).items() if price is not None and name != "above_input_tokens"]


def _short(field: str) -> str:
    return field.removesuffix("_price_per_million")


def _moved(change: Change) -> str:
    return "" if change.percent is None else f"{change.percent:+f} %"
