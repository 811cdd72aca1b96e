"""The clients that are compared: each sends the same question and returns how much it got."""

from __future__ import annotations

import importlib
from typing import Protocol

_HOMES = {
    "aiohttp": ("raw", "Raw"),
    "aiohttp_tuned": ("raw", "Tuned"),
    "llm_master": ("ours", "Ours"),
    "llm_master_new": ("ours", "Constructed"),
    "llm_master_limits": ("ours", "Limited"),
    "llm_master_queue": ("ours", "Queued"),
    "llm_master_silent": ("ours", "Silent"),
    "llm_master_metrics": ("ours", "Counted"),
    "llm_master_otel": ("ours", "Traced"),
    "llm_master_spans": ("ours", "Spans"),
    "llm_master_sdk": ("ours", "BareSDK"),
    "openai": ("sdk", "SDK"),
}


class Client(Protocol):
    """What every client can do.

    ``many`` is the number of calls at once for which it is made, where its defaults do not allow as many.
    """

    def __init__(self, base_url: str, *, many: int | None = None) -> None: ...

    async def call(self) -> int:
        """Ask for a chat completion; return the length of its text."""

    async def stream(self) -> int:
        """Ask for a stream, collect its text; return the number of its pieces."""

    async def embed(self, texts: list[str]) -> int:
        """Ask for the texts' vectors; return how many came."""


def make_client(name: str, base_url: str, *, many: int | None = None) -> Client:
    """Import a client and nothing of the others. ``llm_master:anthropic`` is ours in that wire format."""
    name, _, form = name.partition(":")
    if form:
        from bench_support.clients.ours import Foreign

        return Foreign(base_url, form, many=many)
    module, class_name = _HOMES[name]
    client: Client = getattr(importlib.import_module(f"bench_support.clients.{module}"), class_name)(base_url, many=many)
    return client
