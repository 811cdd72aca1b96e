"""Hedging: where an answer takes longer than nearly all do, the same is asked once more elsewhere, and the first answer counts.

After "The Tail at Scale" (https://research.google/pubs/the-tail-at-scale/): delayed until the live 95th percentile, so that few are
asked twice; between different quotas only, since a quota that is slow is slow for both; and never more often than agreed.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llm_master.dispatch.estimate import estimate_tokens
from llm_master.dispatch.sending import total_cost
from llm_master.types import Usage

if TYPE_CHECKING:
    from llm_master.dispatch.call import Call
    from llm_master.dispatch.line import Line

SAMPLES = 200
ENOUGH = 20
"""Answers after which the percentile is believed."""

PERCENTILE = 0.95


class Hedger:
    """What one engine knows of latencies, and how often it may ask twice.

    Args:
        share: Of so many queries, this share may be asked twice at most.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.queries = 0
        self.hedges = 0
        self._latencies: weakref.WeakKeyDictionary[Line, deque[float]] = weakref.WeakKeyDictionary()

    def note(self, line: Line, latency: float) -> None:
        """An answer took so many seconds."""
        self._latencies.setdefault(line, deque(maxlen=SAMPLES)).append(latency)

    def delay(self, line: Line) -> float | None:
        """Seconds after which it is asked once more; ``None`` where that is not known yet, or would be too often."""
        known = self._latencies.get(line, ())
        if len(known) < ENOUGH or self.hedges + 1 > self.share * self.queries:
            return None
        ordered = sorted(known)
        return ordered[min(len(ordered) - 1, int(PERCENTILE * len(ordered)))]


async def hedged(call: Call, hedger: Hedger, again: Callable[[Call], Call | None]) -> Any:
    """Answer a call, with a second one where it takes too long.

    Args:
        call: What is asked.
        hedger: Says when, and whether.
        again: Makes the second call, of another quota; ``None`` if there is none.
    """
    hedger.queries += 1
    delay = hedger.delay(call.line)
    if delay is None:
        response = await call.answer()
        hedger.note(call.line, response.latency or 0.0)
        return response
    first = asyncio.ensure_future(call.answer())
    calls: dict[asyncio.Future[Any], Call] = {first: call}
    try:
        await _until(first, delay, call)
        if not first.done() and call.sends == 1 and (other := again(call)) is not None:
            hedger.hedges += 1
            other.why = f"hedge: no answer from {call.target.name!r} after {delay:.3g} s, which 95 % do not take; {other.why}"
            calls[asyncio.ensure_future(other.answer())] = other
        winner = await _first_answer(set(calls))
    except asyncio.CancelledError:
        await _drop(set(calls))
        raise
    losers = {task: its for task, its in calls.items() if task is not winner}
    await _drop(set(losers))
    mine = calls[winner]
    if losers:
        _one_receipt(mine, [*losers.values()])
    response = winner.result()
    hedger.note(mine.line, response.latency or 0.0)
    return response


async def _until(task: asyncio.Future[Any], seconds: float, call: Call) -> None:
    """Wait until a task is done, or so long."""
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(*_: Any) -> None:
        if not over.done():
            over.set_result(None)

    timer = call.clock.call_later(seconds, end)
    task.add_done_callback(end)
    try:
        await over
    finally:
        timer.cancel()
        task.remove_done_callback(end)


async def _first_answer(tasks: set[asyncio.Future[Any]]) -> asyncio.Future[Any]:
    """The first that answers; where none does, the one that failed last."""
    failed: asyncio.Future[Any] | None = None
    while tasks:
        done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is None:
                return task
            failed = task
    assert failed is not None
    return failed


async def _drop(tasks: set[asyncio.Future[Any]]) -> None:
    """Cancel what is not wanted any more, and wait until its key is given back."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _one_receipt(winner: Call, losers: list[Call]) -> None:
    """Put all attempts into the winner's receipt, with what they cost as far as that can be known."""
    receipt = winner.receipt
    costs = [(receipt.cost, receipt.cost_state)]
    for loser in losers:
        last = loser.attempt
        if last is not None and last.then == "cancelled":
            last.then = "cancelled: the other answered first"
            prices = None if loser.target.row.skip_cost_calculation else loser.target.prices
            if prices is not None:
                # It was asked, and how much it had written nobody knows: its input is what it costs at least.
                last.cost = prices.cost(Usage(estimate_tokens(loser.messages, loser.options.get("tools")), 0, cached_tokens=0))[0]
                last.cost_state = "estimated" if last.cost is not None else "unknown"
            costs.append((last.cost, last.cost_state))
        receipt.attempts[:0] = loser.receipt.attempts
    receipt.cost, receipt.cost_state = total_cost(*costs)
