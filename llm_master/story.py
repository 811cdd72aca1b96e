"""A receipt in plain words."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_master.types import Attempt, CostState, Receipt

_KNOWN: dict[CostState, str] = {
    "billed": "as the provider billed it",
    "exact": "by its prices and counted tokens",
    "estimated": "an estimate",
}


def told(receipt: Receipt) -> str:
    """What a query did: the name and what it was resolved to, a line for each attempt, and how it ended."""
    lines = [f"{receipt.model_name!r} was asked of {receipt.provider} ({receipt.why})."]
    if not receipt.attempts:
        lines.append("Nothing was sent.")
    before: Attempt | None = None
    for number, attempt in enumerate(receipt.attempts, 1):
        lines += _attempt(number, attempt, before)
        before = attempt
    if receipt.renamed:
        lines.append("Sent under another name: " + ", ".join(f"{ours} as {theirs}" for ours, theirs in receipt.renamed.items()) + ".")
    if receipt.dropped:
        lines.append(f"Not sent, as agreed: {', '.join(receipt.dropped)}.")
    if receipt.attempts:
        lines.append(_end(receipt))
    return "\n".join(lines)


def _attempt(number: int, attempt: Attempt, before: Attempt | None) -> list[str]:
    lines = []
    if before is not None and (before.provider, before.model) != (attempt.provider, attempt.model) and attempt.why:
        lines.append(f"   Now {attempt.provider}, model {attempt.model}: {attempt.why}.")
    if attempt.wait > 0:
        # That it would wait, and why, has been told with the failure before.
        is_told = attempt.wait_reason is None or (before is not None and before.then == attempt.wait_reason)
        lines.append(f"   Waited {_seconds(attempt.wait)}{'.' if is_told else f': {attempt.wait_reason}.'}")
    who = f"{attempt.provider}, model {attempt.model}, {f'key {attempt.key}' if attempt.key else 'no key'}"
    latency = "" if attempt.latency is None else f" after {_seconds(attempt.latency)}"
    if attempt.error is None:
        if attempt.then:
            happened = f"{attempt.then}{latency}"
        elif attempt.latency is None:
            happened = "under way"
        else:
            happened = f"answered{f' with {attempt.status}' if attempt.status else ''}{latency}"
        if attempt.first_delta is not None:
            happened += f", the first piece after {_seconds(attempt.first_delta)}"
        if attempt.model_served not in (None, attempt.model):
            happened += f"; it says that {attempt.model_served} answered"
        lines.append(f"{number}. {who}: {happened}.")
    else:
        lines.append(f"{number}. {who}: failed{latency}.")
        lines.append(f"   {attempt.error}")
        if attempt.then:
            lines.append(f"   Then: {attempt.then}.")
    return lines


def _end(receipt: Receipt) -> str:
    attempts = receipt.attempts
    last = attempts[-1]
    waited = sum(attempt.wait for attempt in attempts)
    latencies = [attempt.latency for attempt in attempts if attempt.latency is not None]
    end = "No answer" if last.error is not None else "Answered" if last.then is None else "Ended early"
    sends = "1 request" if len(attempts) == 1 else f"{len(attempts)} requests"
    end += f" after {sends} and {_seconds(waited + sum(latencies))}"
    if waited > 0:
        end += f", {_seconds(waited)} of it waiting"
    if receipt.cost is None:
        if last.error is not None:
            return f"{end}."
        cost = "what it cost is not known"
    else:
        cost = f"it cost {_money(receipt.cost, receipt.currency)}"
        if said := _KNOWN.get(receipt.cost_state):
            cost += f" ({said})"
    return f"{end}; {cost}."


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s"


def _money(amount: Decimal, currency: str) -> str:
    return f"{amount.normalize():f} {currency}"
