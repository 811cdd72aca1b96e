"""What a call does before a request and after a failure: how much it asks for, and whether it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_master.dispatch.choosing import Outlook
from llm_master.dispatch.estimate import estimate_tokens, payload_tokens
from llm_master.dispatch.keys import INVALID_FOR, NO_FUNDS_FOR
from llm_master.dispatch.limits import NEVER, ONE, Ask
from llm_master.dispatch.retry import FALLBACK_WAIT, KeyEffect, Rule, backoff, spoken
from llm_master.errors import InvalidRequestError

if TYPE_CHECKING:
    from llm_master.dispatch.call import Call

_LEFT_ALONE: dict[KeyEffect, str] = {
    "invalid": f"the key is not used for {spoken(INVALID_FOR)}",
    "denied": f"the key is not used for this model for {spoken(INVALID_FOR)}",
    "no_funds": f"the key is not used for {spoken(NO_FUNDS_FOR)}",
    "limited": "the key is left to cool",
}


def ask_of(call: Call) -> Ask:
    """What is known of a request's tokens, where they count.

    Raises:
        InvalidRequestError: They are more than any window could ever hold.
    """
    line = call.line
    if not line.counts_tokens:
        return None
    options = call.options
    if call.operation is None:
        estimated = estimate_tokens(call.messages, options.get("tools"))
        most = options.get("max_tokens") or options.get("max_completion_tokens") or options.get("max_output_tokens")
    else:
        estimated, most = payload_tokens(call.messages), 0
    ask = (estimated, most if isinstance(most, int) else call.target.max_output_tokens)
    # Only what may be near the limit is looked at closely: no estimate is more than five times what was first thought.
    if estimated * 5 > line.smallest and (need := line.need(ask))[1] > line.smallest and (reason := line.too_large(need)) is not None:
        error = InvalidRequestError(
            f"the request to {call.target.name} can never be sent: {reason}. Shorten it, or correct the limit",
            provider=call.target.route.provider,
            model=call.target.route.model,
        )
        error.receipt = call.receipt
        raise error
    return ask


def again(call: Call, rule: Rule, asked: float | None, cooling: float | None) -> tuple[float | None, str]:
    """After how many seconds it is sent again, ``None`` for never; and why."""
    if rule.then == "raise":
        return None, "sending it again would not help"
    if call.sends >= call.max_attempts:
        return None, f"given up: {call.sends} sends, which is max_attempts"
    now = call.clock.monotonic()
    left = call.deadline_at - now
    if rule.then == "backoff":
        if call.failures >= call.target.row.max_retries:
            return None, f"given up after {call.failures} repetitions (max_retries)"
        if not call.target.budget.take():
            return None, "given up: too much fails at this provider just now, and the process's retry budget for it is used up"
        wait = backoff(call.failures, asked)
        call.failures += 1
        if wait < left:
            return wait, f"it may pass: again in {spoken(wait)}"
    else:
        outlook = Outlook(call.line, ONE, call.refused, now)
        wait = outlook.wait
        if wait == NEVER:
            return None, f"sending it again would not help: {outlook.why}" if len(
                call.line.slots
            ) > 1 else "sending it again would not help"
        if wait == 0:
            return (
                0.0,
                "rate limited: again at once, as the provider asks" if cooling == 0 else f"{_LEFT_ALONE[rule.key]}; another key at once",
            )
        by_provider = asked is not None and cooling is not None and wait <= cooling and wait <= asked
        why = f"rate limited: again in {spoken(wait)}" + (", as the provider asks" if by_provider else "")
        if call.successors is not None and call.successors.has_free():
            return None, f"{_LEFT_ALONE[rule.key]}"
        if wait < (min(left, FALLBACK_WAIT) if call.successors else left):
            return wait, why
    return None, f"given up: it could be sent again in {spoken(wait)}, and the deadline is in {spoken(max(left, 0))}"
