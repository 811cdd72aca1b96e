"""The usage of chat completions, in the conventions of all who speak them, and in ours.

Source: https://platform.openai.com/docs/api-reference/chat/object#chat/object-usage
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from llm_master.providers import chat_extras as extras
from llm_master.providers.counts import count
from llm_master.types import Usage


class InputDetails(msgspec.Struct):
    """``usage.prompt_tokens_details``."""

    cached_tokens: Any = None
    cache_write_tokens: Any = None
    audio_tokens: Any = None


class OutputDetails(msgspec.Struct):
    """``usage.completion_tokens_details``."""

    reasoning_tokens: Any = None
    audio_tokens: Any = None


class WireUsage(msgspec.Struct):
    """``usage``, with the fields that several providers put elsewhere."""

    prompt_tokens: Any = None
    completion_tokens: Any = None
    total_tokens: Any = None
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None
    cost: Any = None
    prompt_cache_hit_tokens: Any = None
    cached_tokens: Any = None
    num_cached_tokens: Any = None
    reasoning_tokens: Any = None
    cost_in_usd_ticks: Any = None
    cost_details: Any = None
    is_byok: Any = None
    num_search_queries: Any = None
    num_sources_used: Any = None
    server_tool_use_details: Any = None
    prompt_audio_seconds: Any = None


def read_usage(wire: WireUsage | None) -> Usage:
    """Bring the providers' conventions to ours: input includes the cached tokens, output the reasoning."""
    if wire is None:
        return Usage()
    details = wire.prompt_tokens_details
    cached = details.cached_tokens if details is not None else None
    if cached is None:
        cached = _first(wire.prompt_cache_hit_tokens, wire.cached_tokens, wire.num_cached_tokens)
    output_details = wire.completion_tokens_details
    reasoning = output_details.reasoning_tokens if output_details is not None else None
    if reasoning is None:
        reasoning = wire.reasoning_tokens
    usage = Usage(
        input_tokens=count(wire.prompt_tokens),
        output_tokens=count(wire.completion_tokens),
        cached_tokens=count(cached),
        cache_write_tokens=count(details.cache_write_tokens) if details is not None else None,
        reasoning_tokens=count(reasoning),
        cost=_billed(wire.cost) if wire.cost is not None else None,
    )
    # Some count the reasoning beside completion_tokens; only the total tells.
    if (
        usage.reasoning_tokens
        and usage.output_tokens is not None
        and wire.total_tokens == (usage.input_tokens or 0) + usage.output_tokens + usage.reasoning_tokens
    ):
        usage.output_tokens += usage.reasoning_tokens
    # What few answers have.
    if extras.has_more(wire):
        extras.add_usage(usage, wire)
    if details is not None and details.audio_tokens:
        usage.audio_input_tokens = count(details.audio_tokens)
    if output_details is not None and output_details.audio_tokens:
        usage.audio_output_tokens = count(output_details.audio_tokens)
    return usage


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _billed(cost: Any) -> Decimal | None:
    """What the provider says it billed: a number, or an object with its total."""
    return extras.number(cost.get("total_cost") if isinstance(cost, dict) else cost)
