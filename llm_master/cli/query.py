"""``llm-master query``."""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import TYPE_CHECKING, Any, TextIO

import click

from llm_master.cli.common import fail, print_json
from llm_master.cli.completion import model_names
from llm_master.cli.conversation import keep, load
from llm_master.cli.output import check_target, save_media, show, show_rest, show_stream

if TYPE_CHECKING:
    from pathlib import Path

    from llm_master.types import LLMResponse, Message


@click.command()
@click.argument("prompt", required=False)
@click.option(
    "-m",
    "--model",
    shell_complete=model_names,
    help="Model, as gpt-4.1, groq/openai/gpt-oss-20b, or a provider's name for its default model.",
)
@click.option("-s", "--system", help="System message.")
@click.option("-o", "--option", "options", nargs=2, multiple=True, metavar="KEY VALUE", help="An option of the call, as temperature 0.2.")
@click.option("--image", "images", multiple=True, metavar="PATH|URL", help="An image to send along; may be given several times.")
@click.option("--file", "files", multiple=True, metavar="PATH|URL", help="A file to send along, as a PDF.")
@click.option("--audio", "audio", multiple=True, metavar="PATH|URL", help="Audio to send along.")
@click.option("--schema", type=click.File(), help="File with a JSON schema that the answer must follow.")
@click.option("--tools", type=click.File(), help="File with a JSON list of tools that the model may call.")
@click.option("-c", "--continue", "go_on", is_flag=True, help="Go on with the last conversation, with its model unless -m is given.")
@click.option("--save", metavar="PATH", help="File or folder for the images and the audio of the answer.")
@click.option("--stream", is_flag=True, help="Print the answer as it arrives.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer with usage, cost and receipt as JSON.")
@click.option("-u", "--usage", is_flag=True, help="Print tokens, cost, time and key on standard error.")
@click.option("--dry-run", is_flag=True, help="Show provider, address, headers and body, and send nothing.")
@click.option("--timeout", type=float, help="Seconds for one attempt.")
@click.option("--deadline", type=float, default=600, show_default=True, help="Seconds for the whole query.")
def query(
    prompt: str | None,
    model: str | None,
    system: str | None,
    options: tuple[tuple[str, str], ...],
    images: tuple[str, ...],
    files: tuple[str, ...],
    audio: tuple[str, ...],
    schema: TextIO | None,
    tools: TextIO | None,
    save: str | None,
    *,
    go_on: bool,
    stream: bool,
    as_json: bool,
    usage: bool,
    dry_run: bool,
    timeout: float | None,
    deadline: float,
) -> None:
    """Ask a model.

    What is piped in stands before PROMPT; with no PROMPT, or with -, it is the prompt. With no -m, DEFAULT_MODEL is
    asked, else the first provider with a key; with no key at all, the embedded mock.
    """
    import asyncio  # a third of what --help costs

    from llm_master.errors import LLMError

    text = _with_standard_input(prompt)
    if text is None:
        raise click.UsageError("there is no prompt: give one as an argument, or pipe it in")
    name, messages = load() if go_on else (None, [])
    if system is not None:
        messages = [{"role": "system", "content": system}, *(message for message in messages if message["role"] != "system")]
    media = [*_parts("image", images), *_parts("file", files), *_parts("audio", audio)]
    messages.append({"role": "user", "parts": [text, *media]} if media else {"role": "user", "content": text})
    arguments = {"timeout": timeout, "deadline": deadline, **{key: _value(value) for key, value in options}}
    if schema is not None:
        arguments["response_format"] = _json_file(schema, "--schema")
    if tools is not None:
        arguments["tools"] = _json_file(tools, "--tools")
    check_target(save)
    try:
        name = model or name or _default_model()
        if dry_run:
            _show_plan(name, messages, {**arguments, "stream": stream}, as_json=as_json)
            return
        response, written = asyncio.run(_ask(name, messages, arguments, save, stream=stream and not as_json))
    except LLMError as exc:
        fail(exc)
    except KeyboardInterrupt:
        sys.exit(130)
    if as_json:
        print_json(_as_json(response))
    elif not stream:
        show(response)
    for path in written:
        click.echo(f"Saved {path}", err=True)
    keep(name, [*messages, response.message])
    if usage:
        click.echo(_usage_line(response), err=True)


async def _ask(
    model: str, messages: list[Message], arguments: dict[str, Any], save: str | None, *, stream: bool
) -> tuple[LLMResponse, list[Path]]:
    from llm_master.query import QueryLLM

    async with QueryLLM() as llm:
        if stream:
            async with llm.stream(model, messages, **arguments) as pieces:
                await show_stream(pieces)
            response = pieces.response
            show_rest(response)
        else:
            response = await llm.query(model, messages, **arguments)
        return response, await save_media(response, save)


def _parts(kind: str, given: tuple[str, ...]) -> list[dict[str, str]]:
    """Media as they stand in a message; paths whole, so that they hold for a later -c from another folder."""
    return [
        {"type": kind, "url": one}
        if one.startswith(("http://", "https://", "data:"))
        else {"type": kind, "path": os.path.abspath(os.path.expanduser(one))}
        for one in given
    ]


def _json_file(file: TextIO, option: str) -> Any:
    try:
        return json.load(file)
    except ValueError as exc:
        raise click.BadParameter(f"{file.name} is not JSON: {exc}", param_hint=option) from None


def _show_plan(model: str, messages: list[Message], arguments: dict[str, Any], *, as_json: bool) -> None:
    import attrs

    from llm_master.query import QueryLLM

    plan = QueryLLM().plan(model, messages, **arguments)
    if as_json:
        print_json(attrs.asdict(plan))
        return
    click.echo(f"{plan.provider}: {plan.why}; model {plan.model}, key {plan.key or 'none'}")
    for ours, theirs in plan.renamed.items():
        click.echo(f"renamed: {ours} -> {theirs}")
    for option in plan.dropped:
        click.echo(f"dropped: {option}")
    if plan.method:
        click.echo(f"\n{plan.method} {plan.url}")
    for header, value in plan.headers.items():
        click.echo(f"{header}: {value}")
    click.echo()
    print_json(plan.body)


def _with_standard_input(prompt: str | None) -> str | None:
    """The prompt, with what was piped in before it. A terminal or /dev/null pipes nothing in."""
    piped = None
    if prompt in (None, "-") or _is_piped():
        if sys.stdin is None or sys.stdin.isatty():
            return None if prompt == "-" else prompt
        piped = sys.stdin.read().strip()
    given = None if prompt == "-" else prompt
    return "\n\n".join(part for part in (piped, given) if part) or None


def _is_piped() -> bool:
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):  # no standard input, or one that is no file
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _value(text: str) -> Any:
    """An option's value: JSON where it is JSON, so that numbers and booleans arrive as such; else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _default_model() -> str:
    from llm_master.provider_configs import LLMConfig, effective

    config = LLMConfig.from_env()
    if config.default_model:
        return str(config.default_model)
    snapshot = effective(config)
    for name, keys in snapshot.keys.items():
        if keys and snapshot.usable(name) and snapshot.rows[name].default_model:
            return name
    click.echo(
        "No key is set, so the embedded mock answers, which is no model: set a key, as OPENAI_API_KEY, or name one with -m.", err=True
    )
    return "mock"


def _usage_line(response: LLMResponse) -> str:
    receipt = response.receipt
    tokens = response.usage

    def shown(count: int | None) -> str:
        return "?" if count is None else f"{count:,}"

    parts = [f"{shown(tokens.input_tokens)} tokens in, {shown(tokens.output_tokens)} out"]
    if tokens.cached_tokens:
        parts[0] += f" ({tokens.cached_tokens:,} cached)"
    if receipt is not None:
        cost = "cost unknown" if receipt.cost is None else f"{receipt.cost.normalize():f} {receipt.currency} ({receipt.cost_state})"
        attempt = receipt.attempts[-1]
        parts += [cost, f"{attempt.latency or 0:.2f} s", f"{attempt.provider}/{attempt.model_served or attempt.model}"]
        parts.append(attempt.key or "no key")
        if len(receipt.attempts) > 1:
            parts.append(f"{len(receipt.attempts)} attempts")
    return " · ".join(parts)


def _as_json(response: LLMResponse) -> dict[str, Any]:
    import attrs

    fields = {field.name: getattr(response, field.name) for field in attrs.fields(type(response)) if field.name != "wire"}
    return {name: value for name, value in fields.items() if value not in (None, [])}
