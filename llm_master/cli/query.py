"""``llm-master query``."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

from llm_master.cli.common import errors_told, print_json, standard_input
from llm_master.cli.completion import model_names
from llm_master.cli.conversation import keep, load
from llm_master.cli.output import as_json as answer_as_json
from llm_master.cli.output import show, show_rest, show_stream, usage_line
from llm_master.cli.plan import show_plan
from llm_master.cli.saving import check_target, save_media

if TYPE_CHECKING:
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
@click.option("--schema", type=click.File(encoding="utf-8"), metavar="FILE", help="File with a JSON schema that the answer must follow.")
@click.option(
    "--tools",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="File with a tool that the model may call, or a list of them, in JSON.",
)
@click.option("-c", "--continue", "go_on", is_flag=True, help="Go on with the last conversation, with its model unless -m is given.")
@click.option("--save", metavar="PATH", help="File or folder/ for the images and the audio of the answer.")
@click.option("--stream", is_flag=True, help="Print the answer as it arrives.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer with usage, cost and receipt as JSON, once it is whole.")
@click.option("-u", "--usage", is_flag=True, help="Print tokens, cost, time and key on standard error.")
@click.option("--explain", is_flag=True, help="Say on standard error what was sent, waited for and decided, and why.")
@click.option(
    "--fallback", "fallbacks", multiple=True, metavar="MODEL", help="Who answers where the model fails; may be given several times."
)
@click.option(
    "--dry-run", is_flag=True, help="Show provider, address, headers and body, and send nothing. With --json the body is not abridged."
)
@click.option("--timeout", type=float, help="Seconds for one attempt.")
@click.option("--deadline", type=float, help="Seconds for the whole query; 600 unless set otherwise.")
def query(
    prompt: str | None,
    model: str | None,
    system: str | None,
    options: tuple[tuple[str, str], ...],
    images: tuple[str, ...],
    files: tuple[str, ...],
    audio: tuple[str, ...],
    fallbacks: tuple[str, ...],
    schema: TextIO | None,
    tools: TextIO | None,
    save: str | None,
    *,
    go_on: bool,
    stream: bool,
    as_json: bool,
    usage: bool,
    explain: bool,
    dry_run: bool,
    timeout: float | None,
    deadline: float,
) -> None:
    """Ask a model.

    What is piped in stands before PROMPT; with no PROMPT, or with -, it is the prompt. With no -m, DEFAULT_MODEL is
    asked, else the first provider with a key; with no key at all, the embedded mock.

    Images and audio that come without an address are saved in any case, --save says where. The last conversation is
    kept for -c, in $XDG_STATE_HOME, readable by you only.
    """
    import asyncio  # a third of what --help costs

    text = _with_standard_input(prompt)
    if text is None:
        raise click.UsageError("there is no prompt: give one as an argument, or pipe it in")
    name, messages = load() if go_on else (None, [])
    if system is not None:
        messages = [{"role": "system", "content": system}, *(message for message in messages if message.get("role") != "system")]
    media = [*_parts("image", images), *_parts("file", files), *_parts("audio", audio)]
    messages.append({"role": "user", "parts": [text, *media]} if media else {"role": "user", "content": text})
    arguments = {"timeout": timeout, "deadline": deadline, **{key: _value(value) for key, value in options}}
    if fallbacks:
        arguments["fallback_model"] = fallbacks
    if schema is not None:
        arguments["response_format"] = _schema(schema)
    if tools is not None:
        arguments["tools"] = _tools(tools)
    with errors_told(), _explained() if explain else contextlib.nullcontext():
        name = model or name or _default_model()
        if dry_run:
            show_plan(name, messages, {**arguments, "stream": stream}, as_json=as_json)
            return
        check_target(save)
        response, well = asyncio.run(_ask(name, messages, arguments, save, stream=stream, as_json=as_json))
    keep(name, messages, response)
    if usage:
        click.echo(usage_line(response), err=True)
    if explain and response.receipt is not None:
        click.echo(response.receipt.explain(), err=True)
    if not well:
        sys.exit(1)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Tell the story of a query that failed, before its error is told."""
    from llm_master.errors import LLMError

    try:
        yield
    except LLMError as exc:
        if exc.receipt is not None:
            click.echo(exc.receipt.explain(), err=True)
        raise


async def _ask(
    model: str, messages: list[Message], arguments: dict[str, Any], save: str | None, *, stream: bool, as_json: bool
) -> tuple[LLMResponse, bool]:
    """The answer, shown and its media saved; and whether all of them are where they should be."""
    from llm_master.errors import InvalidOutputError
    from llm_master.query import QueryLLM

    is_json = "response_format" in arguments
    saved: dict[int, str] = {}
    async with QueryLLM() as llm:
        if stream and not as_json:
            async with llm.stream(model, messages, **arguments) as pieces:
                await show_stream(pieces, is_json=is_json)
            response = pieces.response
        else:
            try:
                response = await llm.query(model, messages, **arguments)
            except InvalidOutputError as exc:
                # It was paid for, so it is shown; it is not what was asked for, so it does not get into the pipe.
                click.echo(exc.response.content if exc.response is not None else "", err=True)
                raise
            if not as_json:
                show(response, is_json=is_json)
        # First what is there, then what may fail.
        if not as_json:
            show_rest(response)
        try:
            return response, await save_media(response, save, saved)
        finally:
            if as_json:
                print_json(answer_as_json(response, saved))


def _parts(kind: str, given: Sequence[str]) -> list[dict[str, str]]:
    """Media as they stand in a message; paths whole, so that they hold for a later -c from another folder."""
    parts = []
    for one in given:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|data:", one):
            parts.append({"type": kind, "url": one})
            continue
        path = os.path.abspath(os.path.expanduser(one))
        if not os.path.exists(path):
            raise click.BadParameter(f"{one!r} does not exist: it is sought at {path}", param_hint=f"--{kind}")
        parts.append({"type": kind, "path": path})
    return parts


def _schema(file: TextIO) -> dict[str, Any]:
    from llm_master.errors import InvalidRequestError
    from llm_master.structured_format import wanted

    schema = _json_file(file, "--schema")
    if not isinstance(schema, dict):
        raise click.BadParameter(f'{file.name} is no JSON schema: give an object, as {{"type": "object", ...}}', param_hint="--schema")
    try:
        wanted(schema)
    except InvalidRequestError as exc:
        raise click.BadParameter(f"{file.name}: {exc}", param_hint="--schema") from None
    return schema


def _tools(file: TextIO) -> list[dict[str, Any]]:
    tools = _json_file(file, "--tools")
    if isinstance(tools, dict):
        tools = [tools]
    if not isinstance(tools, list) or not tools or not all(isinstance(tool, dict) and "type" in tool for tool in tools):
        raise click.BadParameter(
            f'{file.name} holds no tools: give one, as {{"type": "function", "function": {{...}}}}, or a list of them', param_hint="--tools"
        )
    return tools


def _json_file(file: TextIO, option: str) -> Any:
    try:
        return json.load(file)
    except (ValueError, OSError) as exc:
        raise click.BadParameter(f"{file.name} is not JSON: {exc}", param_hint=option) from None


def _with_standard_input(prompt: str | None) -> str | None:
    """The prompt, with what was piped in before it. A terminal or /dev/null pipes nothing in."""
    given = None if prompt == "-" else prompt
    if given is not None and not _is_piped():
        return given
    piped = (standard_input() or "").strip("\r\n")
    return "\n\n".join(part for part in (piped, given) if part and not part.isspace()) or None


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
