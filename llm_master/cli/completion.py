"""``llm-master completion``, and what is offered for a model's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands, options and model names.

    \b
    bash:  llm-master completion bash >> ~/.bashrc
    zsh:   llm-master completion zsh >> ~/.zshrc
    fish:  llm-master completion fish > ~/.config/fish/completions/llm-master.fish
    """  # noqa: D301  # click wants the character, not a backslash
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "llm-master", "_LLM_MASTER_COMPLETE").source())


def model_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Registered models and providers that begin as what is typed. Reads tables only: no key, no network."""
    from click.shell_completion import CompletionItem

    from llm_master.model_registry import ModelRegistry

    names = set(ModelRegistry.CONFIGS)
    if "/" not in incomplete:  # else they cannot fit, and the import is most of what this costs
        from llm_master.provider_configs import PROVIDER_CONFIGS

        # Without its provider a name is only offered where it leads there.
        parts = [name.partition("/") for name in names]
        names.update(
            model
            for provider, _, model in parts
            if model and "/" not in model and provider in PROVIDER_CONFIGS and model.startswith(PROVIDER_CONFIGS[provider].prefixes)
        )
        names.update(PROVIDER_CONFIGS)
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]
