"""``llm-master plugins``."""

from __future__ import annotations

import click

from llm_master.cli.common import print_json, print_table


@click.group()
def plugins() -> None:
    """What installed packages add: providers and models."""


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_plugins(*, as_json: bool) -> None:
    """List the plugins, and what is wrong with those that were left out. LLM_MASTER_PLUGINS=0 switches all off."""
    from llm_master import plugins as found
    from llm_master.model_registry import ModelRegistry
    from llm_master.provider_configs import PROVIDER_CONFIGS

    # What is wrong with them stands in the list. Both tables load theirs when they are looked through.
    found.logger.disabled = True
    try:
        len(PROVIDER_CONFIGS), len(ModelRegistry.CONFIGS)
    finally:
        found.logger.disabled = False
    head = ("KIND", "NAME", "PACKAGE", "VERSION", "PROBLEM")
    rows = [(plugin.group.rpartition(".")[2], plugin.name, plugin.package, plugin.version, plugin.problem) for plugin in found.installed()]
    if as_json:
        fields = [column.lower() for column in head]
        print_json([dict(zip(fields, row, strict=True)) for row in rows])
    elif not rows:
        click.echo("No package that is installed brings providers or models.", err=True)
    else:
        print_table(head, [(*row[:4], row[4] or "-") for row in rows])
