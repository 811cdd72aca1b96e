"""``llm-master models test`` and ``providers test``: somebody is asked for real, and what came of it is told with its causes."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from llm_master.cli.common import errors_told, exit_code, print_json, shown_cost
from llm_master.cli.completion import model_names
from llm_master.cli.doctor import MARKS, is_local, shown_models
from llm_master.errors import (
    AuthenticationError,
    ConfigurationError,
    InsufficientFundsError,
    LLMError,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderConnectionError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
)

if TYPE_CHECKING:
    from llm_master.query import QueryLLM
    from llm_master.types import LLMResponse

CAUSES: tuple[tuple[type[LLMError], str], ...] = (
    (
        AuthenticationError,
        "The key is mistyped, revoked, or another provider's; `llm-master config show --origin` says where it comes from.",
    ),
    (PermissionDeniedError, "The key may not use this model, or not from here: look at its project and its rights at the provider."),
    (InsufficientFundsError, "The account has no funds left: top it up, or set another key as a fallback."),
    (RateLimitError, "The account's limit is used up, maybe by another program: wait, or set rpm and tpm for the provider."),
    (
        ModelNotFoundError,
        "The model is misspelt, retired, or not open to this key; `llm-master models list` and the provider's own list have the names.",
    ),
    (RequestTimeoutError, "The server is overloaded, or a local one still loads its model: give more by --timeout."),
    (
        ProviderConnectionError,
        "Nothing answers at that address: the server is not running, the address is wrong, or a proxy or firewall stands between.",
    ),
    (ServerError, "The provider is in trouble, or base_url is not that of an API (is /v1 missing?)."),
)
"""The usual causes of an error, for people; the first class that fits holds."""

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "sum",
        "schema": {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"], "additionalProperties": False},
    },
}
TOKENS = 256
"""Of each answer at most: enough for a model that thinks first."""


Outcome: TypeAlias = "tuple[LLMResponse, str, bool]"
"""The answer, what is said of it, and whether that is what was asked for."""


def causes_of(error: LLMError) -> str | None:
    """What usually causes such an error."""
    return next((said for kind, said in CAUSES if isinstance(error, kind)), None)


async def _answers(llm: QueryLLM, model: str, options: Mapping[str, Any]) -> Outcome:
    answer = await llm.query(model, prompt="Say OK.", **options)
    return answer, repr(answer.content[:60]), True


async def _streams(llm: QueryLLM, model: str, options: Mapping[str, Any]) -> Outcome:
    began, first, pieces = time.monotonic(), None, 0
    async with llm.stream(model, prompt="Count from one to five in words.", **options) as stream:
        async for _ in stream:
            first = first or time.monotonic() - began
            pieces += 1
    said = f"{pieces} pieces, the first after {first:.2f} s" if first is not None else "no piece of text came"
    return stream.response, said, first is not None


async def _calls_tools(llm: QueryLLM, model: str, options: Mapping[str, Any]) -> Outcome:
    answer = await llm.query(model, prompt="What is the weather in Bern? Use the tool.", tools=[TOOL], **options)
    calls = ", ".join(f"{call.name}({call.arguments})" for call in answer.tool_calls)
    return answer, calls or "it answered in words, without a call", bool(calls)


async def _follows_schema(llm: QueryLLM, model: str, options: Mapping[str, Any]) -> Outcome:
    answer = await llm.query(model, prompt="What is 2 + 2?", response_format=SCHEMA, **options)
    return answer, repr(answer.parsed), True


_CHECKS: dict[str, Callable[[QueryLLM, str, Mapping[str, Any]], Awaitable[Outcome]]] = {
    "answers": _answers,
    "streams": _streams,
    "calls tools": _calls_tools,
    "follows a schema": _follows_schema,
}


@click.command("test")
@click.argument("model", shell_complete=model_names)
@click.option("--all", "every", is_flag=True, help="Also whether it calls tools and follows a JSON schema: two requests more.")
@click.option("--timeout", type=float, default=60, show_default=True, help="Seconds for each request.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def test_model(model: str, timeout: float, *, every: bool, as_json: bool) -> None:
    """Ask MODEL for real, whole and as a stream, and say what came of it. The requests are small, and are paid for.

    What fails is told with its usual causes, and the exit code is that of the first failure.
    """
    import asyncio

    with errors_told():
        results = asyncio.run(_try(model, list(_CHECKS)[: None if every else 2], timeout))
    if as_json:
        print_json([{name: value for name, value in result.items() if name != "error"} for result in results])
    else:
        for result in results:
            _tell(result)
    if errors := [result["error"] for result in results if result["error"] is not None]:
        sys.exit(exit_code(errors[0]))
    if not all(result["ok"] for result in results):
        sys.exit(1)


async def _try(model: str, names: list[str], timeout: float) -> list[dict[str, Any]]:
    from llm_master.query import QueryLLM

    results = []
    async with QueryLLM(max_attempts=1) as llm:
        for name in names:
            began = time.monotonic()
            result: dict[str, Any] = {"check": name, "ok": True, "error": None}
            try:
                answer, said, well = await _CHECKS[name](llm, model, {"max_tokens": TOKENS, "timeout": timeout, "deadline": 2 * timeout})
                receipt = answer.receipt
                result |= {
                    "ok": well,
                    "said": said,
                    "causes": None,
                    "input_tokens": answer.usage.input_tokens,
                    "output_tokens": answer.usage.output_tokens,
                }
                result |= {"cost": answer.cost, "currency": receipt and receipt.currency, "cost_is": receipt and receipt.cost_state}
            except LLMError as exc:
                result |= {"ok": False, "error": exc, "said": f"{type(exc).__name__}: {exc}", "causes": causes_of(exc)}
            result["seconds"] = round(time.monotonic() - began, 3)
            results.append(result)
            if result["error"] is not None and (name == "answers" or isinstance(result["error"], ConfigurationError)):
                break  # nothing else will do
    return results


def _tell(result: Mapping[str, Any]) -> None:
    mark = click.style("ok    ", fg="green") if result["ok"] else click.style("failed", fg="red")
    click.echo(f"{mark}  {result['check']:17} {result['seconds']:6.2f} s  {result['said']}")
    if result["error"] is None:
        tokens = " and ".join("?" if count is None else f"{count:,}" for count in (result["input_tokens"], result["output_tokens"]))
        cost = shown_cost(result["cost"], result["currency"] or "", result["cost_is"] or "unknown")
        click.echo(f"{'':36}{tokens} tokens in and out, {cost}")
    elif result["causes"]:
        click.echo(f"{'':36}{result['causes']}")


@click.command("test")
@click.argument("name")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=10, show_default=True, help="Seconds to wait.")
@click.option("--paid", is_flag=True, help="Also send a request for one token, which tells of a key what a list of models may not.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def test_provider(name: str, timeout: float, *, paid: bool, as_json: bool) -> None:
    """Ask the provider NAME for its models: does it answer, how fast, does it take the key, is its default model there?

    That costs nothing. The exit code is 1 where it does not answer or refuses the key, and the usual causes are told.
    """
    import asyncio

    with errors_told():
        found = asyncio.run(_try_provider(name, timeout, paid=paid))
    if as_json:
        print_json(found)
    else:
        _tell_provider(found)
    if not found["ok"]:
        sys.exit(1)


async def _try_provider(name: str, timeout: float, *, paid: bool) -> dict[str, Any]:
    from llm_master.engines import engine_for
    from llm_master.query import QueryLLM

    engine = engine_for(None)
    name = engine.provider_named(name)
    row, listed = engine.snapshot.rows[name], None
    async with QueryLLM() as llm:
        one = (await llm.check_health(name, paid=paid, timeout=timeout))[name]
        if one.state in ("valid", "unsupported"):
            models = (await llm.list_models(name, refresh=True, timeout=timeout))[name]
            listed = [model.id for model in models if model.discovered] if models.state == "listed" else None
    # A server on this machine answers to whatever name it is asked by, or has none of its own.
    default = row.default_model if not is_local(row) else None
    return {
        "provider": name,
        "ok": one.state in ("valid", "unsupported") and all(key.state != "invalid" for key in one.keys),
        "address": row.base_url,
        "latency": one.latency,
        "keys": [{"key": key.key, "state": key.state, "detail": key.detail} for key in one.keys],
        "models": None if listed is None else len(listed),
        "first_models": (listed or [])[:MODELS_SHOWN],
        "default_model": default,
        "default_model_is_listed": None if listed is None or default is None else default in listed,
        "causes": next((CAUSES_OF_STATES[key.state] for key in one.keys if key.state in CAUSES_OF_STATES), None),
        "start_command": row.start_command or None,
        "key_url": row.key_url or None,
    }


MODELS_SHOWN = 10
CAUSES_OF_STATES = {
    "invalid": causes_of(AuthenticationError("")),
    "unreachable": causes_of(ProviderConnectionError("")),
    "not_configured": "A key or an address is missing: `llm-master providers list` names the variable.",
}


def _tell_provider(found: Mapping[str, Any]) -> None:
    seconds = f" in {found['latency']:.2f} s" if found["latency"] is not None else ""
    for key in found["keys"]:
        mark, colour = MARKS[key["state"]]
        said = f"{key['key']}: {key['detail']}" if key["key"] else key["detail"]
        click.echo(
            f"{click.style(f'{mark:10}', fg=colour)} {found['provider']} at {found['address'] or 'no address: in this process'}{seconds}: {said}"
        )
    if found["models"] is not None:
        more = ", the first of which" if found["models"] > MODELS_SHOWN else ""
        click.echo(f"{shown_models(found['models'])}{more}:")
        for model in found["first_models"]:
            click.echo(f"  {model}")
    if found["default_model_is_listed"] is not None:
        there = (
            "is among them"
            if found["default_model_is_listed"]
            else "is not among them: it may be retired; set another by <NAME>_DEFAULT_MODEL"
        )
        click.echo(f"Its default model {found['default_model']} {there}.")
    if found["causes"]:
        click.echo(f"Usual causes: {found['causes']}")
        if found["start_command"] and any(key["state"] == "unreachable" for key in found["keys"]):
            click.echo(f"It is started by: {found['start_command']}")
        elif found["key_url"] and any(key["state"] != "unreachable" for key in found["keys"]):
            click.echo(f"A key is made at {found['key_url']}")
