"""Event hooks: what users want called beside a query, and what cannot break it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

import attrs

from llm_master.types import Attempt, LLMResponse, Receipt

logger = logging.getLogger("llm_master.hooks")

_running: set[asyncio.Future[Any]] = set()
"""Asynchronous hooks under way: an event loop keeps no strong reference to its tasks."""


@attrs.frozen
class Hooks:
    """The hooks of one engine.

    Attributes:
        on_attempt: Called with the attempt and the receipt when an attempt has ended, well or not.
        on_response: Called with each answer; of a stream, at its end.
    """

    on_attempt: Callable[[Attempt, Receipt], Any] | None = None
    on_response: Callable[[LLMResponse], Any] | None = None

    def attempt(self, attempt: Attempt, receipt: Receipt) -> None:
        """Tell of an attempt that has ended."""
        if self.on_attempt is not None:
            _call("on_attempt", self.on_attempt, attempt, receipt)

    def response(self, response: Any) -> None:
        """Tell of an answer."""
        if self.on_response is not None:
            _call("on_response", self.on_response, response)


def _call(name: str, hook: Callable[..., Any], *arguments: Any) -> None:
    try:
        result = hook(*arguments)
    except Exception:
        logger.warning("the hook %s raised; the call goes on", name, exc_info=True)
        return
    if inspect.isawaitable(result):
        # Beside the call, which does not wait for it.
        task = asyncio.ensure_future(result)
        _running.add(task)
        task.add_done_callback(lambda done: _ended(name, done))


def _ended(name: str, task: asyncio.Future[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("the hook %s raised; the call went on", name, exc_info=error)
