"""After an answer: the key is given back, and the answer gets its names, its cost and its receipt."""

from __future__ import annotations

import logging
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from llm_master.dispatch.sending import total_cost
from llm_master.pricing import STANDARD_TIERS, PriceList
from llm_master.types import CostState, LLMResponse, Usage, WireAnswer

if TYPE_CHECKING:
    from llm_master.dispatch.call import Call
    from llm_master.results import Result

logger = logging.getLogger("llm_master.dispatch")


async def settle(call: Call, response: LLMResponse | Result) -> None:
    """Give the key back and the answer its names, its cost and its receipt."""
    attempt = call.attempt
    target = call.target
    receipt = call.receipt
    wire = response.wire
    lease = call.lease
    assert attempt is not None
    assert lease is not None
    attempt.model_served = response.model_name or None
    response.model_name = target.name
    response.provider = target.route.provider
    response.receipt = receipt
    read = sent_at = None
    if wire is not None:
        attempt.status = wire.status
        attempt.request_id = wire.request_id
        if (headers := wire.headers) is not None:
            read = partial(call.provider.rate_limits, headers)
        sent_at = wire.sent_at
    lease.done(response.usage, read, sent_at)
    if target.budget.left < target.budget.FULL:
        target.budget.answered()
    if call.lookup is not None:
        try:
            model = await call.lookup
        except Exception as exc:  # the answer is there and paid for: that its price is not known is said by the receipt
            logger.warning("no price for %s: the price list failed: %s: %s", target.name, type(exc).__name__, exc)
            model = None
        target.look_up = None
        target.prices = PriceList(model) if model is not None else None
    cost, cost_state = cost_of(call, response.usage, wire)
    if call.successors is not None and call.successors.member is not None:
        call.successors.member.health.answered(attempt.latency or 0.0, response.usage, cost)
    response.cost = attempt.cost = receipt.cost = cost
    attempt.cost_state = receipt.cost_state = cost_state
    if call.spent is not None:
        receipt.cost, receipt.cost_state = total_cost(call.spent, (cost, cost_state))
    if call.hooks is not None or logger.isEnabledFor(logging.DEBUG):
        call.close_attempt(None, response)
        if call.hooks is not None and call.wanted is None:
            call.hooks.response(response)


def cost_of(call: Call, usage: Usage, wire: WireAnswer | None) -> tuple[Decimal | None, CostState]:
    """What the attempt cost, and how that is known. What the provider itself billed wins."""
    if usage.cost is not None:
        return usage.cost, "billed"
    prices = call.target.prices
    if prices is None or call.target.row.skip_cost_calculation or (wire is not None and wire.service_tier not in STANDARD_TIERS):
        return None, "unknown"
    return prices.cost(usage)
