"""The command line: ``llm-master``. Each group is a file; what a command needs is imported when it runs."""

from __future__ import annotations

import os

import click

from llm_master.cli.completion import completion
from llm_master.cli.config import config
from llm_master.cli.doctor import doctor
from llm_master.cli.embed import embed
from llm_master.cli.models import models
from llm_master.cli.plugins import plugins
from llm_master.cli.providers import providers
from llm_master.cli.query import query
from llm_master.cli.registry import registry
from llm_master.cli.testing import testing


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="llm_master", prog_name="llm-master")
@click.option("--config", "config_file", metavar="FILE", help="Settings file, TOML or YAML, instead of those that are found.")
def main(config_file: str | None) -> None:
    """Ask any language model of any provider.

    \b
    Exit codes:
      0  an answer
      1  refused: a bad request, an unknown model, a content filter, an answer that does not fit --schema;
         or an image or audio that could not be saved where it should be
      2  wrong usage of this command
      3  settings: no key, a wrong key, no funds, an unknown model name
      4  may pass: rate limit, time-out, no connection, server error
      130  interrupted
    """  # noqa: D301  # click wants the character, not a backslash
    if config_file is not None:
        # This process is the command's own, and whatever it starts is to see the same.
        os.environ["LLM_MASTER_CONFIG"] = config_file


main.add_command(query)
main.add_command(embed)
main.add_command(models)
main.add_command(providers)
main.add_command(registry)
main.add_command(plugins)
main.add_command(config)
main.add_command(doctor)
main.add_command(testing)
main.add_command(completion)
