"""From a call to what its provider is asked, and from what comes back to an answer."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from llm_master.errors import ConfigurationError, InvalidOutputError
from llm_master.types import CostState, LLMResponse, StreamPiece

if TYPE_CHECKING:
    from llm_master.dispatch.call import Call


def send(call: Call) -> Awaitable[Any]:
    """Ask for a whole answer."""
    route = call.target.route
    if call.operation is not None:
        return getattr(call.provider, call.operation)(*call.messages, route.model, **call.options)  # type: ignore[no-any-return]
    if route.generator is None:
        return call.provider.generate(call.messages, route.model, **call.options)
    if isinstance(route.generator, str):
        method = getattr(call.provider, route.generator, None)
        if method is None:
            raise ConfigurationError(
                f"provider row {route.provider!r}: generate_map names the method {route.generator!r}, "
                f"which {type(call.provider).__name__} does not have"
            )
        return method(call.messages, route.model, **call.options)  # type: ignore[no-any-return]
    return route.generator(call.provider, call.messages, route.model, **call.options)  # type: ignore[no-any-return]


def pieces(call: Call) -> AsyncIterator[StreamPiece | LLMResponse]:
    """Ask for an answer in pieces; of what does not stream, in one."""
    if not call.streams:
        return _whole(call)
    streamed = call.provider.stream(call.messages, call.target.route.model, **call.options)
    if call.wanted is None:
        return streamed
    from llm_master.structured import as_text

    return as_text(streamed, call.how, call.wanted.name)


async def _whole(call: Call) -> AsyncIterator[str | LLMResponse]:
    response = wrapped(call, await send(call))
    if call.how == "tool" and call.wanted is not None:
        from llm_master.structured import finish

        with contextlib.suppress(InvalidOutputError):  # raised at the stream's end, after the text
            finish(call.wanted, call.how, response)
    if response.content:
        yield response.content
    yield response


def wrapped(call: Call, response: Any) -> Any:
    """What the provider returned, as what the caller gets.

    Raises:
        TypeError: It is nothing that a provider may return.
    """
    if call.operation is not None:
        from llm_master import results

        kinds = {"embed": results.EmbeddingResponse, "moderate": results.ModerationResponse, "rerank": results.RerankResponse}
        returns: type = kinds.get(call.operation, LLMResponse)
        if not isinstance(response, returns):
            raise TypeError(
                f"{type(call.provider).__name__}.{call.operation} returned a {type(response).__name__}; it must return {returns.__name__}"
            )
        return response
    if isinstance(response, LLMResponse):
        return response
    if isinstance(response, str):
        return LLMResponse(response, call.target.route.model)
    route = call.target.route
    who = type(call.provider).__name__
    if route.generator is not None:
        who = f"what generate_map of {route.provider!r} names for {route.model!r}"
    raise TypeError(f"{who} returned a {type(response).__name__}; a provider returns an LLMResponse or a str")


_STATES: tuple[CostState, ...] = ("billed", "exact", "estimated", "unknown")


def total_cost(*costs: tuple[Decimal | None, CostState]) -> tuple[Decimal | None, CostState]:
    """The sum of several costs, which is known no better than the worst known of them."""
    known = [cost for cost, _ in costs if cost is not None]
    if len(known) < len(costs):
        return None, "unknown"
    states = {state for _, state in costs}
    if states == {"billed", "exact"}:
        return sum(known, Decimal()), "exact"
    return sum(known, Decimal()), max(states, key=_STATES.index)
